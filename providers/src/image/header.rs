//! What the first bytes of a file say about it: a pure parser.
//!
//! QEMU would follow what an image's header names: a backing file, a data file, extents, a network address. A guest
//! could so read files of the host. Whatever could name something is refused here, and so is what we do not know.
//!
//! The qcow2 format: <https://www.qemu.org/docs/master/interop/qcow2.html>.

use super::ImageIdentity;
use crate::spec::{Digest, ImageFormat};

/// How many bytes of a file [`parse`] wants to see: the largest qcow2 cluster, which holds all of the header.
pub const HEAD: usize = 1 << MAX_CLUSTER_BITS;

/// Largest disk that is accepted.
pub const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// Bounds of `cluster_bits`, by the format's definition and by QEMU.
const MIN_CLUSTER_BITS: u32 = 9;
const MAX_CLUSTER_BITS: u32 = 21;

/// QEMU's own bounds of the tables that it loads whole, in bytes.
const MAX_L1_TABLE: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;

/// QEMU's own bound of snapshots inside an image.
const MAX_SNAPSHOTS: u64 = 65536;

const SECTOR: u64 = 512;

/// What an image file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its format.
    pub format: ImageFormat,
    /// Size of the disk that the guest sees, in bytes.
    pub virtual_size: u64,
}

impl Header {
    /// The identity of a file whose bytes have this digest.
    pub(super) fn identity(self, digest: Digest) -> ImageIdentity {
        ImageIdentity { digest, format: self.format, virtual_size: self.virtual_size }
    }
}

/// Why a file is no image that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// An image in a format that may name other files, or that nobody needs.
    #[error("it is {0}, which is not supported")]
    Format(&'static str),
    /// Something that must be unpacked first.
    #[error("it is {0}")]
    Packed(&'static str),
    /// Nothing that a machine could boot from or read.
    #[error("nothing in it looks like a disk")]
    NotADisk,
    /// A raw disk is made of whole sectors.
    #[error("its size of {0} bytes is no multiple of 512")]
    Torn(u64),
    /// A part of its disk is not there.
    #[error("it is cut off: a part of its disk is at byte {place}, and it has {size} bytes")]
    CutOff {
        /// How many bytes it has.
        size: u64,
        /// Where the part should be.
        place: u64,
    },
    /// It would make QEMU read something else than this file.
    #[error("it refers to another file: its {0} is set")]
    External(&'static str),
    /// A value that is out of its range, or that we do not know.
    #[error("its {field} {problem}")]
    Field {
        /// Name of the field in the format's description.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl HeaderError {
    /// What to do next.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::CutOff { .. } => "it was not downloaded or copied to its end, or is damaged; get it again",
            Self::Empty => "the file was not written or not downloaded to its end; make it again",
            Self::Format(_) => "convert it: qemu-img convert -O qcow2 IMAGE IMAGE.qcow2",
            Self::Packed(_) => "unpack it first, and name the disk image that is in it",
            Self::NotADisk | Self::Torn(_) => {
                "an image is a qcow2 file, or a raw disk with a boot record, a partition table or a file system"
            }
            Self::External(_) => {
                "an image must be one file; make it so: qemu-img convert -O qcow2 IMAGE IMAGE.qcow2"
            }
            Self::Field { .. } => "the image is damaged or hostile; get it from its maker again",
        }
    }
}

/// Formats that are known by what is found at a fixed place.
const FOREIGN: [(usize, &[u8], &str); 11] = [
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (64, &0xbeda_107f_u32.to_le_bytes(), "a VDI image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (0, b"QED\0", "a QED image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"Bochs Virtual HD Image", "a Bochs image"),
    (0, b"OOOM", "a UML image"),
    (0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
];

const PACKED: [(usize, &[u8], &str); 7] = [
    (0, b"\x1f\x8b", "gzip-compressed"),
    (0, b"\xfd7zXZ\0", "xz-compressed"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (0, b"BZh", "bzip2-compressed"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
];

/// What makes a raw file a disk.
const DISKS: [(usize, &[u8]); 4] = [
    (510, b"\x55\xaa"),  // boot record, or partition table in it
    (512, b"EFI PART"),  // GPT
    (1080, b"\x53\xef"), // ext2, ext3, ext4
    (32769, b"CD001"),   // ISO 9660
];

/// Tells what a file of `file_size` bytes is that begins with `head`, its first [`HEAD`] bytes or all of them.
pub fn parse(head: &[u8], file_size: u64) -> Result<Header, HeaderError> {
    let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    if file_size == 0 {
        return Err(HeaderError::Empty);
    }
    if has(0, b"QFI\xfb") {
        return Qcow2 { head, file_size }.parse();
    }
    if let Some((.., name)) = FOREIGN.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Err(HeaderError::Format(name));
    }
    if is_vmdk_descriptor(head) {
        return Err(HeaderError::Format("a VMDK descriptor"));
    }
    if let Some((.., name)) = PACKED.iter().find(|(at, magic, _)| has(*at, magic)) {
        return Err(HeaderError::Packed(name));
    }
    if !DISKS.iter().any(|(at, magic)| has(*at, magic)) {
        return Err(HeaderError::NotADisk);
    }
    if !file_size.is_multiple_of(SECTOR) {
        return Err(HeaderError::Torn(file_size));
    }
    check_size("size", file_size)?;
    Ok(Header { format: ImageFormat::Raw, virtual_size: file_size })
}

/// A text that QEMU takes for a VMDK descriptor: after comments and empty lines comes `version=`.
fn is_vmdk_descriptor(head: &[u8]) -> bool {
    const LOOK_AT: usize = 64 * 1024;
    let head = head[..head.len().min(LOOK_AT)].to_ascii_lowercase();
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    if head.trim_ascii_start().starts_with(b"# disk descriptorfile") {
        return true;
    }
    lines
        .find(|line| !line.is_empty() && !line.starts_with(b"#"))
        .is_some_and(|line| line.starts_with(b"version="))
}

fn check_size(field: &'static str, size: u64) -> Result<(), HeaderError> {
    if size == 0 {
        return Err(wrong(field, "is 0"));
    }
    if size > MAX_VIRTUAL_SIZE {
        return Err(wrong(field, format!("is {size} bytes, more than 64 TiB")));
    }
    Ok(())
}

fn wrong(field: &'static str, problem: impl Into<String>) -> HeaderError {
    HeaderError::Field { field, problem: problem.into() }
}

/// A qcow2 file, versions 2 and 3.
struct Qcow2<'a> {
    head: &'a [u8],
    file_size: u64,
}

/// Incompatible feature bits that change nothing about what a file may refer to.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Header extensions that decide something here. A reader may skip any that it does not know: what it must know has
/// a feature bit.
const EXTENSION_END: u32 = 0;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;

impl Qcow2<'_> {
    fn parse(&self) -> Result<Header, HeaderError> {
        let version = self.u32(4)?;
        if !(2..=3).contains(&version) {
            return Err(wrong("version", format!("is {version}, only 2 and 3 are known")));
        }
        if self.u64(8)? != 0 || self.u32(16)? != 0 {
            return Err(HeaderError::External("backing file"));
        }
        let cluster_bits = self.u32(20)?;
        if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
            return Err(wrong("cluster_bits", format!("is {cluster_bits}, not within 9 and 21")));
        }
        let virtual_size = self.u64(24)?;
        check_size("size", virtual_size)?;
        match self.u32(32)? {
            0 => {}
            method => return Err(wrong("crypt_method", format!("is {method}: the image is encrypted"))),
        }
        let extended_l2 = version == 3 && self.features()? & EXTENDED_L2 != 0;
        self.check_tables(virtual_size, 1 << cluster_bits, if extended_l2 { 16 } else { 8 })?;
        self.check_extensions(if version == 3 { u64::from(self.u32(100)?) } else { 72 }, 1 << cluster_bits)?;
        Ok(Header { format: ImageFormat::Qcow2, virtual_size })
    }

    /// Checks what version 3 added, and returns the incompatible features.
    fn features(&self) -> Result<u64, HeaderError> {
        let features = self.u64(72)?;
        let unknown = features & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2);
        if unknown != 0 {
            let problem = format!("has unknown bits: {unknown:#x}");
            return Err(wrong("incompatible_features", problem));
        }
        if features & EXTERNAL_DATA != 0 {
            return Err(HeaderError::External("external data file bit"));
        }
        if features & CORRUPT != 0 {
            return Err(wrong("incompatible_features", "marks the image as corrupt"));
        }
        let refcount_order = self.u32(96)?;
        if refcount_order > 6 {
            return Err(wrong("refcount_order", format!("is {refcount_order}, more than 6")));
        }
        let header_length = self.u32(100)?;
        if header_length < 104 || !header_length.is_multiple_of(8) {
            return Err(wrong("header_length", format!("is {header_length}")));
        }
        let compression = if header_length > 104 { self.head.get(104).copied().unwrap_or(0) } else { 0 };
        if compression > 1 || (compression == 1) != (features & COMPRESSION != 0) {
            return Err(wrong("compression_type", format!("is {compression}, against its feature bit")));
        }
        Ok(features)
    }

    fn check_tables(&self, size: u64, cluster: u64, l2_entry: u64) -> Result<(), HeaderError> {
        let l1_entries = u64::from(self.u32(36)?);
        let needed = size.div_ceil(cluster * (cluster / l2_entry));
        if l1_entries < needed {
            return Err(wrong("l1_size", format!("is {l1_entries}, but its size needs {needed}")));
        }
        self.check_table("l1_table_offset", self.u64(40)?, l1_entries * 8, cluster, MAX_L1_TABLE)?;
        let refcounts = u64::from(self.u32(56)?) * cluster;
        if refcounts == 0 {
            return Err(wrong("refcount_table_clusters", "is 0"));
        }
        self.check_table("refcount_table_offset", self.u64(48)?, refcounts, cluster, MAX_REFCOUNT_TABLE)?;
        match u64::from(self.u32(60)?) {
            0 => Ok(()),
            count if count > MAX_SNAPSHOTS => {
                Err(wrong("nb_snapshots", format!("is {count}, more than {MAX_SNAPSHOTS}")))
            }
            // Each takes this much at least.
            count => self.check_table("snapshots_offset", self.u64(64)?, count * 40, cluster, MAX_L1_TABLE),
        }
    }

    fn check_table(
        &self,
        field: &'static str,
        offset: u64,
        length: u64,
        cluster: u64,
        limit: u64,
    ) -> Result<(), HeaderError> {
        if length > limit {
            return Err(wrong(field, format!("belongs to a table of {length} bytes, more than {limit}")));
        }
        if offset == 0 || !offset.is_multiple_of(cluster) {
            return Err(wrong(field, format!("is {offset}, no place for a table")));
        }
        if offset.checked_add(length).is_none_or(|end| end > self.file_size.next_multiple_of(cluster)) {
            return Err(wrong(field, format!("is {offset}: the table lies beyond the end of the file")));
        }
        Ok(())
    }

    fn check_extensions(&self, start: u64, cluster: u64) -> Result<(), HeaderError> {
        const FIELD: &str = "header extensions";
        let end = cluster.min(self.file_size);
        let mut at = start;
        // A header that fills its cluster to the end has no room for an end mark.
        while at + 8 <= end {
            let (kind, length) = (self.u32(at)?, u64::from(self.u32(at + 4)?));
            at += 8;
            match kind {
                EXTENSION_END => return Ok(()),
                EXTENSION_DATA_FILE => return Err(HeaderError::External("external data file name")),
                EXTENSION_ENCRYPTION => return Err(wrong(FIELD, "say that the image is encrypted")),
                _ => {}
            }
            if length > end - at {
                return Err(wrong(FIELD, format!("run beyond the header: type {kind:#x}, {length} bytes")));
            }
            at += length.next_multiple_of(8);
        }
        if start > end {
            return Err(wrong("header_length", format!("is {start}, beyond the first cluster or the file")));
        }
        Ok(())
    }

    fn u32(&self, at: u64) -> Result<u32, HeaderError> {
        self.bytes(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: u64) -> Result<u64, HeaderError> {
        self.bytes(at).map(u64::from_be_bytes)
    }

    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N], HeaderError> {
        let bytes = usize::try_from(at).ok().and_then(|at| self.head.get(at..)?.first_chunk::<N>());
        bytes.copied().ok_or_else(|| wrong("header", "is cut off"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: usize = 65536;

    /// A well-formed empty qcow2 file of `version` with a disk of 1 GiB.
    fn qcow2(version: u32) -> Vec<u8> {
        let mut file = vec![0; 4 * CLUSTER];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb");
        put(4, &version.to_be_bytes());
        put(20, &16_u32.to_be_bytes());
        put(24, &(1_u64 << 30).to_be_bytes());
        put(36, &2_u32.to_be_bytes());
        put(40, &(3 * CLUSTER as u64).to_be_bytes());
        put(48, &(CLUSTER as u64).to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        if version == 3 {
            put(96, &4_u32.to_be_bytes());
            put(100, &104_u32.to_be_bytes());
        }
        file
    }

    fn changed(version: u32, at: usize, bytes: &[u8]) -> Result<Header, HeaderError> {
        let mut file = qcow2(version);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&file, file.len() as u64)
    }

    fn raw(at: usize, magic: &[u8]) -> Result<Header, HeaderError> {
        let mut file = vec![0; 40960];
        file[at..at + magic.len()].copy_from_slice(magic);
        parse(&file, file.len() as u64)
    }

    #[test]
    fn sound_images_are_known() {
        let qcow2_header = Header { format: ImageFormat::Qcow2, virtual_size: 1 << 30 };
        assert_eq!(changed(2, 0, b"Q"), Ok(qcow2_header));
        assert_eq!(changed(3, 0, b"Q"), Ok(qcow2_header));
        // Dirty, zstd, a backing format without a backing file, a table of feature names.
        assert_eq!(changed(3, 79, &[1]), Ok(qcow2_header));
        let mut zstd = qcow2(3);
        (zstd[79], zstd[103], zstd[104]) = (8, 112, 1);
        assert_eq!(parse(&zstd, zstd.len() as u64), Ok(qcow2_header));
        assert_eq!(changed(3, 104, b"\xe2\x79\x2a\xca\0\0\0\x05qcow2"), Ok(qcow2_header));
        let raw_header = Header { format: ImageFormat::Raw, virtual_size: 40960 };
        for (at, magic) in DISKS {
            assert_eq!(raw(at, magic), Ok(raw_header), "{at}");
        }
    }

    #[test]
    fn references_to_other_files_are_refused_by_name() {
        for version in [2, 3] {
            let external = Err(HeaderError::External("backing file"));
            assert_eq!(changed(version, 8, &4096_u64.to_be_bytes()), external);
            assert_eq!(changed(version, 16, &70_000_u32.to_be_bytes()), external);
        }
        assert_eq!(changed(3, 79, &[4]), Err(HeaderError::External("external data file bit")));
        let name = b"DATA\0\0\0\x0b/etc/passwd";
        assert_eq!(changed(3, 104, name), Err(HeaderError::External("external data file name")));
        assert_eq!(changed(2, 72, name), Err(HeaderError::External("external data file name")));
    }

    #[test]
    fn damaged_and_unknown_fields_are_named() {
        let cases: [(u32, usize, &[u8], &str); 22] = [
            (2, 4, &1_u32.to_be_bytes(), "version is 1, only 2 and 3 are known"),
            (2, 4, &9_u32.to_be_bytes(), "version is 9, only 2 and 3 are known"),
            (2, 20, &8_u32.to_be_bytes(), "cluster_bits is 8, not within 9 and 21"),
            (2, 20, &u32::MAX.to_be_bytes(), "cluster_bits is 4294967295, not within 9 and 21"),
            (2, 24, &0_u64.to_be_bytes(), "size is 0"),
            (2, 24, &(65_u64 << 40).to_be_bytes(), "size is 71468255805440 bytes, more than 64 TiB"),
            (2, 24, &u64::MAX.to_be_bytes(), "size is 18446744073709551615 bytes, more than 64 TiB"),
            (2, 32, &2_u32.to_be_bytes(), "crypt_method is 2: the image is encrypted"),
            (2, 36, &1_u32.to_be_bytes(), "l1_size is 1, but its size needs 2"),
            (
                2,
                36,
                &u32::MAX.to_be_bytes(),
                "l1_table_offset belongs to a table of 34359738360 bytes, more than 33554432",
            ),
            (2, 40, &7_u64.to_be_bytes(), "l1_table_offset is 7, no place for a table"),
            (
                2,
                40,
                &(1_u64 << 40).to_be_bytes(),
                "l1_table_offset is 1099511627776: the table lies beyond the end of the file",
            ),
            (2, 56, &0_u32.to_be_bytes(), "refcount_table_clusters is 0"),
            (2, 60, &u32::MAX.to_be_bytes(), "nb_snapshots is 4294967295, more than 65536"),
            (2, 60, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7], "snapshots_offset is 7, no place for a table"),
            (
                2,
                60,
                &[0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0],
                "snapshots_offset is 1099511627776: the table lies beyond the end of the file",
            ),
            (3, 72, &(1_u64 << 5).to_be_bytes(), "incompatible_features has unknown bits: 0x20"),
            (3, 79, &[2], "incompatible_features marks the image as corrupt"),
            (3, 96, &7_u32.to_be_bytes(), "refcount_order is 7, more than 6"),
            (3, 100, &103_u32.to_be_bytes(), "header_length is 103"),
            (
                3,
                100,
                &(1_u32 << 20).to_be_bytes(),
                "header_length is 1048576, beyond the first cluster or the file",
            ),
            (3, 104, b"\x05\x37\xbe\x77", "header extensions say that the image is encrypted"),
        ];
        for (version, at, bytes, message) in cases {
            let error = changed(version, at, bytes).unwrap_err();
            assert_eq!(error.to_string(), format!("its {message}"));
        }
        let beyond = changed(3, 104, b"abcd\xff\xff\xff\xff").unwrap_err().to_string();
        assert_eq!(beyond, "its header extensions run beyond the header: type 0x61626364, 4294967295 bytes");
        assert_eq!(parse(b"QFI\xfb\0\0\0\x03", 8).unwrap_err().to_string(), "its header is cut off");
    }

    #[test]
    fn other_formats_are_told_by_name() {
        for (at, magic, name) in FOREIGN {
            assert_eq!(raw(at, magic), Err(HeaderError::Format(name)));
        }
        for (at, magic, name) in PACKED {
            assert_eq!(raw(at, magic), Err(HeaderError::Packed(name)));
        }
        for text in ["# Disk DescriptorFile\nversion=1\n", "\n# note\n\nVersion=1\nCID=fffffffe\n"] {
            // Even with a boot record's mark behind it.
            let mut file = text.as_bytes().to_vec();
            file.resize(1024, 0);
            file[510..512].copy_from_slice(b"\x55\xaa");
            assert_eq!(parse(&file, 1024), Err(HeaderError::Format("a VMDK descriptor")), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        assert_eq!(parse(b"", 0), Err(HeaderError::Empty));
        let page = b"<!DOCTYPE html><html><body>404 Not Found</body></html>";
        assert_eq!(parse(page, page.len() as u64), Err(HeaderError::NotADisk));
        assert_eq!(parse(&[0; 4096], 4096), Err(HeaderError::NotADisk));
        let mut torn = vec![0; 1000];
        torn[510..512].copy_from_slice(b"\x55\xaa");
        assert_eq!(parse(&torn, 1000), Err(HeaderError::Torn(1000)));
        assert!(parse(&torn, 1 << 60).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..2000), size: u64) {
            let _ = parse(&bytes, size);
        }

        #[test]
        fn any_change_of_a_header_is_answered(
            version in 2_u32..4, at in 4_usize..400, bytes in proptest::collection::vec(any::<u8>(), 1..16)
        ) {
            if let Ok(header) = changed(version, at, &bytes) {
                prop_assert!((1..=MAX_VIRTUAL_SIZE).contains(&header.virtual_size));
            }
        }
    }
}
