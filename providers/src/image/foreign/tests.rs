//! Images of other programs as an attacker would make them, each by hand, and their headers changed at random (S10).

use proptest::prelude::*;

use super::*;

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A disk of 2 MiB, of which the first is there.
fn vdi() -> Vec<u8> {
    let mut file = vec![0; 1024 + (1 << 20)];
    put(&mut file, 64, &0xbeda_107f_u32.to_le_bytes());
    put(&mut file, 68, &0x0001_0001_u32.to_le_bytes());
    for (at, value) in [(76, 1_u32), (340, 512), (344, 1024), (360, 512), (376, 1 << 20), (384, 2)] {
        put(&mut file, at, &value.to_le_bytes());
    }
    put(&mut file, 368, &(2_u64 << 20).to_le_bytes());
    put(&mut file, 512, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    file
}

const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n\
                          RW 256 SPARSE \"disk.vmdk\"\n\nddb.adapterType = \"ide\"\n";

/// A disk of 128 KiB, of which the first half is there.
fn vmdk() -> Vec<u8> {
    vmdk_with(DESCRIPTOR)
}

fn vmdk_with(descriptor: &str) -> Vec<u8> {
    let mut file = vec![0; 256 * 512];
    put(&mut file, 0, b"KDMV");
    for (at, value) in [(4, 1_u32), (8, 1), (44, 512)] {
        put(&mut file, at, &value.to_le_bytes());
    }
    for (at, value) in [(12, 256_u64), (20, 128), (28, 1), (36, 20), (56, 21), (64, 128)] {
        put(&mut file, at, &value.to_le_bytes());
    }
    put(&mut file, 512, descriptor.as_bytes());
    put(&mut file, 21 * 512, &22_u32.to_le_bytes());
    put(&mut file, 22 * 512, &128_u32.to_le_bytes());
    file
}

/// The same with its header once more at its end, which is the one that counts.
fn vmdk_with_footer() -> Vec<u8> {
    let mut file = vmdk();
    let header = file[..512].to_vec();
    file.extend([0; 512]);
    file.extend(header);
    file.extend([0; 512]);
    put(&mut file, 56, &u64::MAX.to_le_bytes());
    file
}

fn vhd() -> Vec<u8> {
    let mut file = vec![0; 4096];
    put(&mut file, 0, b"conectix");
    put(&mut file, 16, &512_u64.to_be_bytes());
    put(&mut file, 48, &(2_u64 << 20).to_be_bytes());
    put(&mut file, 60, &3_u32.to_be_bytes());
    put(&mut file, 512, b"cxsparse");
    file
}

const REGIONS: usize = 192 << 10;
const METADATA_AT: usize = 1 << 20;

fn vhdx() -> Vec<u8> {
    let mut file = vec![0; METADATA_AT + (128 << 10)];
    put(&mut file, 0, b"vhdxfile");
    put(&mut file, REGIONS, b"regi");
    put(&mut file, REGIONS + 8, &1_u32.to_le_bytes());
    put(&mut file, REGIONS + 16, &METADATA);
    put(&mut file, REGIONS + 32, &(METADATA_AT as u64).to_le_bytes());
    put(&mut file, METADATA_AT, b"metadata");
    put(&mut file, METADATA_AT + 10, &2_u16.to_le_bytes());
    for (index, (item, at)) in [(FILE_PARAMETERS, 65536_u32), (DISK_SIZE, 65544)].into_iter().enumerate() {
        put(&mut file, METADATA_AT + 32 + index * 32, &item);
        put(&mut file, METADATA_AT + 48 + index * 32, &at.to_le_bytes());
    }
    put(&mut file, METADATA_AT + 65544, &(2_u64 << 20).to_le_bytes());
    file
}

/// Makes an image.
type Make = fn() -> Vec<u8>;

/// An image, where its bytes are others, and what is said of it then.
type Case = (Make, usize, &'static [u8], &'static str);

const ALL: [(&str, Make, u64); 5] = [
    ("vdi", vdi, 2 << 20),
    ("vmdk", vmdk, 128 << 10),
    ("vmdk with a footer", vmdk_with_footer, 128 << 10),
    ("vhd", vhd, 2 << 20),
    ("vhdx", vhdx, 2 << 20),
];

/// Size of the disk, or what is wrong.
fn check(file: &[u8]) -> Result<u64, String> {
    let mut read = |at: u64, buffer: &mut [u8]| {
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(file.len());
        let length = buffer.len().min(file.len() - from);
        buffer[..length].copy_from_slice(&file[from..from + length]);
        buffer[length..].fill(0);
        Ok(())
    };
    let Some(format) = Foreign::of(file) else { return Err("another format".to_owned()) };
    format.check(file.len() as u64, &mut read).map_err(|fault| match fault {
        Fault::Read(error) => panic!("reading does not fail here: {error}"),
        Fault::Refused(problem) => problem.to_string(),
    })
}

#[test]
fn sound_images_are_known_by_their_size() {
    for (name, image, size) in ALL {
        assert_eq!(check(&image()), Ok(size), "{name}");
    }
}

#[test]
fn hostile_headers_are_refused_by_name() {
    const MAX4: [u8; 4] = [0xff; 4];
    const MAX8: [u8; 8] = [0xff; 8];
    let parent = "refers to another file";
    let cases: [Case; 40] = [
        (vdi, 68, &[2], "version is 0x10002"),
        (vdi, 76, &[4], "image_type is 4"),
        (vdi, 424, &[1], parent),
        (vdi, 455, &[1], parent),
        (vdi, 368, &[0; 8], "size is 0"),
        (vdi, 368, &MAX8, "blocks_in_image is 2, too few"),
        (vdi, 376, &[0; 4], "block_size is 0"),
        (vdi, 376, &MAX4, "block_size is 4294967295"),
        (vdi, 384, &MAX4, "cut off"),
        (vdi, 340, &MAX4, "cut off"),
        (vdi, 344, &MAX4, "cut off"),
        (vdi, 516, &[1, 0, 0, 0], "cut off: a part of its disk is at byte 1049600"),
        (vmdk, 4, &[4], "version is 4"),
        (vmdk, 12, &[0; 8], parent),
        (vmdk, 12, &MAX8, "capacity is too large"),
        (vmdk, 20, &[0; 8], "granularity is 0"),
        (vmdk, 20, &MAX8, "granularity is 18446744073709551615"),
        (vmdk, 28, &[0; 8], "descriptor is not in it"),
        (vmdk, 28, &MAX8, "descriptor lies beyond the end"),
        (vmdk, 28, &[240], "descriptor lies beyond the end"),
        (vmdk, 36, &[0; 8], "descriptor is not in it"),
        (vmdk, 36, &MAX8, "descriptor lies beyond the end"),
        (vmdk, 44, &[0; 4], "num_gtes_per_gt is 0"),
        (vmdk, 44, &MAX4, "num_gtes_per_gt is 4294967295"),
        (vmdk, 56, &MAX8, "footer is not there"),
        (vmdk, 56, &[0, 0, 1, 0, 0, 0, 0, 0], "cut off"),
        (vmdk, 21 * 512, &MAX4, "cut off"),
        (vmdk, 22 * 512 + 4, &[129, 0, 0, 0], "cut off: a part of its disk is at byte 66048"),
        (vmdk_with_footer, 257 * 512, b"COWD", "footer is not there"),
        (vmdk_with_footer, 257 * 512 + 12, &[0; 8], parent),
        (vmdk_with_footer, 257 * 512 + 28, &[2], "footer says something else"),
        (vmdk_with_footer, 257 * 512 + 56, &MAX8, "footer says something else"),
        (vhd, 60, &[0, 0, 0, 2], "disk type is 2"),
        (vhd, 60, &[0, 0, 0, 4], parent),
        (vhd, 16, &MAX8, "data offset is"),
        (vhd, 16, &[0, 0, 0, 1], "dynamic header is not there"),
        (vhd, 552, &[1], parent),
        (vhd, 1088, b"W2ku", parent),
        (vhd, 48, &MAX8, "more than 64 TiB"),
        (vhd, 48, &[0; 8], "size is 0"),
    ];
    let others: [Case; 9] = [
        (vhdx, REGIONS, b"none", "metadata region is not there"),
        (vhdx, REGIONS + 8, &[0; 4], "metadata region is not there"),
        (vhdx, REGIONS + 32, &MAX8, "metadata region lies beyond"),
        (vhdx, METADATA_AT, b"none", "metadata region holds none"),
        (vhdx, METADATA_AT + 10, &[1], "lacks"),
        (vhdx, METADATA_AT + 32, &PARENT_LOCATOR, parent),
        (vhdx, METADATA_AT + 65540, &[2], parent),
        (vhdx, METADATA_AT + 65544, &[0; 8], "size is 0"),
        (vhdx, METADATA_AT + 65544, &MAX8, "more than 64 TiB"),
    ];
    for (image, at, bytes, expected) in cases.into_iter().chain(others) {
        let mut file = image();
        put(&mut file, at, bytes);
        let found = check(&file);
        assert!(found.as_ref().is_err_and(|said| said.contains(expected)), "{at} {bytes:?}: {found:?}");
    }
}

#[test]
fn descriptors_that_lead_elsewhere_are_refused() {
    let changed = |from: &str, to: &str| check(&vmdk_with(&DESCRIPTOR.replace(from, to)));
    let extent = "RW 256 SPARSE \"disk.vmdk\"";
    for (from, to, expected) in [
        ("monolithicSparse", "monolithicFlat", "createType is `monolithicFlat`"),
        ("monolithicSparse", "twoGbMaxExtentSparse", "createType is"),
        ("createType", "created", "createType is not said once"),
        ("CID=1\n", "createType=\"streamOptimized\"\n", "createType is not said once"),
        ("ffffffff", "12345678", "its parentCID is set"),
        ("CID=1\n", "parentFileNameHint=\"/etc/passwd\"\n", "its parentFileNameHint is set"),
        ("CID=1\n", "# PARENTfilenameHINT\n", "its parentFileNameHint is set"),
        (extent, "RW 256 FLAT \"/etc/passwd\" 0", "its list of extents is set"),
        (extent, "RW 256 VMFS \"/dev/sda\"", "its list of extents is set"),
        (extent, "RW 256 SPARSE \"a.vmdk\"\nRW 256 SPARSE \"/etc/b.vmdk\"", "its list of extents is set"),
        (extent, "", "its list of extents is set"),
    ] {
        let found = changed(from, to);
        assert!(found.as_ref().is_err_and(|said| said.contains(expected)), "{to:?}: {found:?}");
    }
    // Behind the descriptor's end, where QEMU still looks.
    let mut file = vmdk();
    put(&mut file, 36, &[1]);
    put(&mut file, 512 + 600, b"parentFileNameHint=\"/etc/passwd\"");
    assert!(check(&file).unwrap_err().contains("parentFileNameHint"));
}

#[test]
fn what_is_cut_off_is_never_read_as_zeros() {
    for (image, length) in [(vdi as Make, 1 << 20), (vmdk, 65536)] {
        let mut file = image();
        for missing in [1, 512, length / 2, length] {
            file.truncate(image().len() - missing);
            assert!(check(&file).unwrap_err().contains("cut off"), "{missing}");
        }
    }
    // QEMU would look for the footer elsewhere.
    let mut file = vmdk_with_footer();
    file.push(0);
    assert!(check(&file).unwrap_err().contains("footer"));
}

/// A small file that unpacks to a large disk, by naming one place over and over.
#[test]
fn one_place_is_named_once() {
    let mut file = vdi();
    put(&mut file, 368, &(8_u64 << 20).to_le_bytes());
    put(&mut file, 384, &8_u32.to_le_bytes());
    put(&mut file, 512, &[0; 32]);
    assert_eq!(check(&file).unwrap_err(), "its block map names the same places several times");
    let mut file = vmdk();
    put(&mut file, 12, &1280_u64.to_le_bytes());
    for entry in 0..10 {
        put(&mut file, 22 * 512 + entry * 4, &128_u32.to_le_bytes());
    }
    assert_eq!(check(&file).unwrap_err(), "its grain table names the same places several times");
    let mut file = vmdk();
    put(&mut file, 12, &(2 * 65536_u64).to_le_bytes());
    put(&mut file, 21 * 512 + 4, &22_u32.to_le_bytes());
    assert_eq!(check(&file).unwrap_err(), "its grain directory names a table twice");
}

/// Where a change of a header may matter.
fn places() -> impl Strategy<Value = usize> {
    prop_oneof![0_usize..1200, REGIONS..REGIONS + 80, METADATA_AT..METADATA_AT + 120, 10_752_usize..11_300]
}

proptest! {
    #[test]
    fn any_change_of_a_header_is_answered(
        image in 0..ALL.len(),
        changes in proptest::collection::vec((places(), proptest::collection::vec(any::<u8>(), 1..9)), 1..4),
        keep in 0_usize..2_000_000,
    ) {
        let mut file = ALL[image].1();
        for (at, bytes) in &changes {
            if at + bytes.len() <= file.len() {
                put(&mut file, *at, bytes);
            }
        }
        file.truncate(keep.max(512));
        if let Ok(size) = check(&file) {
            prop_assert!((1..=MAX_VIRTUAL_SIZE).contains(&size));
        }
    }

    #[test]
    fn any_bytes_behind_a_mark_are_answered(
        image in 0..ALL.len(), bytes in proptest::collection::vec(any::<u8>(), 0..2000)
    ) {
        let mut file = ALL[image].1()[..68].to_vec();
        file.extend(bytes);
        let _ = check(&file);
    }
}
