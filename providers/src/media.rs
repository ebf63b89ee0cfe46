//! Disks of the user's that a guest may only read: what they must not be.
//!
//! cloud-init takes every volume labelled CIDATA for a seed (its documentation, "NoCloud"). Besides ours there must be
//! none, or a file that was meant to be looked at decides who may log in. So the labels are read where cloud-init
//! looks: on the whole disk and on its partitions, of the file systems that such a volume may have.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};

/// The label of a seed, in any case.
const SEED: &str = "cidata";

const SECTOR: u64 = 512;

/// Most partitions that are looked at: as many as a GPT has by default (UEFI specification, 5.3).
const MAX_PARTITIONS: u64 = 128;

/// Most entries of a FAT's root folder that are looked at; the label is among the first.
const MAX_FOLDER: u64 = 512;

/// Refuses what is no file, or what a guest would take for a seed.
///
/// A failure says what is wrong with `path`; the file may be another one a moment later.
pub fn check(path: &Path) -> Result<()> {
    let refuse = |reason: &str| Err(Error::Unusable { path: path.to_owned(), reason: reason.to_owned() });
    let found = std::fs::metadata(path).map_err(Error::io("examine", path))?;
    if !found.is_file() {
        return refuse("it is no file");
    }
    if found.len() == 0 {
        return refuse("it is empty");
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    if is_seed(&file).map_err(Error::io("read", path))? {
        return refuse("it has a volume labelled CIDATA, which cloud-init would take for the machine's seed");
    }
    Ok(())
}

fn is_seed(file: &File) -> io::Result<bool> {
    for start in starts(file)? {
        let labels = [iso9660(file, start)?, fat(file, start)?, ext(file, start)?];
        if labels.iter().flatten().any(|label| label.trim_end_matches([' ', '\0']).eq_ignore_ascii_case(SEED))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where volumes may begin: at the disk's own beginning, and where its tables of partitions say.
fn starts(file: &File) -> io::Result<Vec<u64>> {
    let mut starts = vec![0];
    let boot = read(file, 0, SECTOR)?;
    if boot.get(510..) == Some(b"\x55\xaa") {
        let entries = boot[446..510].chunks(16);
        starts.extend(
            entries.map(|entry| u64::from(number(&entry[8..12])) * SECTOR).filter(|start| *start > 0),
        );
    }
    let gpt = read(file, SECTOR, SECTOR)?;
    if gpt.len() as u64 == SECTOR && gpt.starts_with(b"EFI PART") {
        let (table, size) = (long(&gpt[72..80]), u64::from(number(&gpt[84..88])));
        let count = u64::from(number(&gpt[80..84])).min(MAX_PARTITIONS);
        for index in 0..count {
            let entry =
                read(file, table.saturating_mul(SECTOR).saturating_add(index.saturating_mul(size)), 48)?;
            if entry.len() == 48 {
                starts.extend(Some(long(&entry[32..40]).saturating_mul(SECTOR)).filter(|start| *start > 0));
            }
        }
    }
    Ok(starts)
}

/// The labels of an ISO 9660 volume and of its Joliet twin (ECMA-119, 8.4 and 8.5).
fn iso9660(file: &File, start: u64) -> io::Result<Vec<String>> {
    let mut labels = Vec::new();
    for sector in 16..32 {
        let descriptor = read(file, start.saturating_add(sector * 2048), 72)?;
        let (Some(b"CD001"), Some(label)) = (descriptor.get(1..6), descriptor.get(40..72)) else { break };
        labels.push(String::from_utf8_lossy(label).into_owned());
        let wide: Vec<u16> = label.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        labels.push(String::from_utf16_lossy(&wide));
    }
    Ok(labels)
}

/// The labels of a FAT: in its boot sector, for both layouts, and in its root folder (Microsoft's FAT specification, 3
/// and 6).
fn fat(file: &File, start: u64) -> io::Result<Vec<String>> {
    let boot = read(file, start, SECTOR)?;
    if boot.get(510..) != Some(b"\x55\xaa") {
        return Ok(Vec::new());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut labels = vec![text(&boot[43..54]), text(&boot[71..82])];
    let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let (sector, reserved, tables) = (short(11), short(14), u64::from(boot[16]));
    let old_size = short(22);
    let table = if old_size == 0 { u64::from(number(&boot[36..40])) } else { old_size };
    let cluster = u64::from(number(&boot[44..48])).saturating_sub(2) * u64::from(boot[13]);
    let first = reserved + tables * table + if old_size == 0 { cluster } else { 0 };
    let folder = read(file, start.saturating_add(first.saturating_mul(sector)), MAX_FOLDER * 32)?;
    for entry in folder.chunks_exact(32).take_while(|entry| entry[0] != 0) {
        // An entry of a long name has all of the lower four bits.
        if entry[11] & 0x0f == 0x08 {
            labels.push(text(&entry[..11]));
        }
    }
    Ok(labels)
}

/// The label of ext2, ext3 or ext4 (Linux, Documentation/filesystems/ext4/super.rst).
fn ext(file: &File, start: u64) -> io::Result<Vec<String>> {
    let block = read(file, start.saturating_add(1024), 136)?;
    let is_ext = block.get(56..58) == Some(b"\x53\xef");
    Ok(block
        .get(120..136)
        .filter(|_| is_ext)
        .map(|label| String::from_utf8_lossy(label).into_owned())
        .into_iter()
        .collect())
}

/// The bytes from `at` on, fewer where the file ends.
fn read(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A place beyond what a file can have.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn long(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk with some bytes at some places.
    fn disk(size: usize, pieces: &[(usize, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; size];
        for (at, piece) in pieces {
            bytes[*at..at + piece.len()].copy_from_slice(piece);
        }
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn fat(label: &str) -> Vec<u8> {
        let mut volume = io::Cursor::new(vec![0; 1 << 20]);
        let mut name = [b' '; 11];
        name[..label.len()].copy_from_slice(label.as_bytes());
        fatfs::format_volume(&mut volume, fatfs::FormatVolumeOptions::new().volume_label(name)).unwrap();
        volume.into_inner()
    }

    #[test]
    fn volumes_that_cloud_init_would_take_for_a_seed_are_refused() {
        let seed = fat("CIDATA");
        // One whose boot sector does not say what its root folder says.
        let mut only_root = seed.clone();
        only_root[43..54].copy_from_slice(b"NO NAME    ");
        let partition = [&[0_u8; 8][..], &2048_u32.to_le_bytes(), &[0, 8, 0, 0]].concat();
        let gpt_entry = [&[1_u8; 32][..], &2048_u64.to_le_bytes(), &4095_u64.to_le_bytes()].concat();
        let gpt =
            [&b"EFI PART"[..], &[0; 64], &2_u64.to_le_bytes(), &4_u32.to_le_bytes(), &128_u32.to_le_bytes()]
                .concat();
        let joliet = "cidata".encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        let at = 2048 * 512;
        for (what, disk) in [
            ("FAT", disk(1 << 20, &[(0, &seed)])),
            ("FAT, root folder", disk(1 << 20, &[(0, &only_root)])),
            ("MBR", disk(4 << 20, &[(446, &partition), (510, b"\x55\xaa"), (at, &seed)])),
            ("GPT", disk(4 << 20, &[(512, &gpt), (1024, &gpt_entry), (at, &seed)])),
            ("ISO", disk(1 << 20, &[(32769, b"CD001"), (32808, b"cidata                          ")])),
            ("Joliet", disk(1 << 20, &[(32769, b"CD001"), (34817, b"CD001"), (34856, &joliet)])),
            ("ext4", disk(1 << 20, &[(1080, b"\x53\xef"), (1144, b"CiData")])),
        ] {
            let error = check(disk.path()).expect_err(what).to_string();
            assert!(error.contains("labelled CIDATA"), "{what}: {error}");
        }
    }

    #[test]
    fn other_disks_are_fine_and_what_is_no_disk_is_not() {
        for disk in [disk(1 << 20, &[(0, &fat("TOOLS"))]), disk(7, &[]), disk(1 << 20, &[(40000, b"cidata")])]
        {
            check(disk.path()).unwrap();
        }
        assert!(check(disk(0, &[]).path()).unwrap_err().to_string().ends_with("it is empty"));
        let folder = tempfile::tempdir().unwrap();
        assert!(check(folder.path()).unwrap_err().to_string().ends_with("it is no file"));
    }

    proptest! {
        /// No content makes it stumble.
        #[test]
        fn any_content_is_looked_through(mut bytes in prop::collection::vec(any::<u8>(), 0..4096), marks in 0..8_u8) {
            for (bit, at, mark) in [(1, 510, &b"\x55\xaa"[..]), (2, 512, b"EFI PART"), (4, 1080, b"\x53\xef")] {
                if marks & bit != 0 && bytes.len() >= at + mark.len() {
                    bytes[at..at + mark.len()].copy_from_slice(mark);
                }
            }
            let file = disk(bytes.len(), &[(0, &bytes)]);
            is_seed(&File::open(file.path()).unwrap()).unwrap();
        }
    }
}
