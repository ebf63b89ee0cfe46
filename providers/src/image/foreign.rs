//! Images of other programs: vmdk, vdi, vhdx and vhd. QEMU reads them once, to convert them; what could make it read
//! another file on the way is refused here, before.

mod blocks;
#[cfg(test)]
mod tests;

use std::io;

use super::header::{HeaderError, MAX_VIRTUAL_SIZE};

/// A format that is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    Vmdk,
    Vdi,
    Vhdx,
    Vhd,
}

/// Why a file was not accepted.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Refused(HeaderError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<HeaderError> for Fault {
    fn from(error: HeaderError) -> Self {
        Self::Refused(error)
    }
}

/// Reads of a file: fills a buffer from a place, with zeros behind the file's end.
pub(super) type ReadAt<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>;

const SECTOR: u64 = 512;

/// Largest descriptor of a VMDK image that is looked through: QEMU reads 20 sectors of it.
const MAX_DESCRIPTOR: u64 = 1 << 20;

impl Foreign {
    /// The format of a file that begins with `head`; none if it is of no such format.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let has = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
        match () {
            () if has(0, b"KDMV") => Some(Self::Vmdk),
            () if has(64, &0xbeda_107f_u32.to_le_bytes()) => Some(Self::Vdi),
            () if has(0, b"vhdxfile") => Some(Self::Vhdx),
            () if has(0, b"conectix") => Some(Self::Vhd),
            () => None,
        }
    }

    /// The name that QEMU knows it by.
    pub(super) fn driver(self) -> &'static str {
        match self {
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vpc",
        }
    }

    /// Whether a file of `size` bytes is an image of its own. Returns the size of its disk.
    pub(super) fn check(self, size: u64, read: ReadAt<'_>) -> Result<u64, Fault> {
        let virtual_size = match self {
            Self::Vmdk => vmdk(size, read),
            Self::Vdi => vdi(size, read),
            Self::Vhdx => vhdx(size, read),
            Self::Vhd => vhd(read),
        }?;
        match virtual_size {
            0 => Err(wrong("size", "is 0").into()),
            n if n > MAX_VIRTUAL_SIZE => Err(wrong("size", format!("is {n} bytes, more than 64 TiB")).into()),
            n => Ok(n),
        }
    }
}

fn wrong(field: &'static str, problem: impl Into<String>) -> HeaderError {
    HeaderError::Field { field, problem: problem.into() }
}

/// A piece of a file, to be taken apart.
struct Bytes(Vec<u8>);

impl Bytes {
    fn read(
        read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
        at: u64,
        length: usize,
    ) -> io::Result<Self> {
        let mut bytes = vec![0; length];
        read(at, &mut bytes)?;
        Ok(Self(bytes))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

/// VMware's disks: one file that is "monolithicSparse" or "streamOptimized", with its descriptor inside.
///
/// QEMU follows a parent wherever the descriptor has a hint of one, and takes a file without a capacity for a
/// descriptor that names others. Where the header says that the real one is at the end of the file, QEMU takes that.
fn vmdk(size: u64, read: ReadAt<'_>) -> Result<u64, Fault> {
    const AT_END: u64 = u64::MAX;
    let header = Bytes::read(read, 0, 512)?;
    let capacity = vmdk_header(&header, size, read)?;
    if header.le64(56) != AT_END {
        return blocks::vmdk(&header, size, read).map(|()| capacity);
    }
    // A mark of three sectors: what follows is a footer, the footer, what follows is the end. QEMU counts whole sectors.
    let Some(at) = size.checked_sub(3 * SECTOR).filter(|at| at.is_multiple_of(SECTOR)) else {
        return Err(wrong("footer", "is cut off").into());
    };
    let footer = Bytes::read(read, at + SECTOR, 512)?;
    if footer.0.get(..4) != Some(b"KDMV") {
        return Err(wrong("footer", "is not there").into());
    }
    if footer.le64(56) == AT_END || footer.le64(28) != header.le64(28) || footer.le64(36) != header.le64(36) {
        return Err(wrong("footer", "says something else than its header").into());
    }
    match vmdk_header(&footer, size, read)? {
        other if other != capacity => Err(wrong("footer", "says something else than its header").into()),
        capacity => blocks::vmdk(&footer, size, read).map(|()| capacity),
    }
}

fn vmdk_header(header: &Bytes, size: u64, read: ReadAt<'_>) -> Result<u64, Fault> {
    let version = header.le32(4);
    if !(1..=3).contains(&version) {
        return Err(wrong("version", format!("is {version}, only 1 to 3 are known")).into());
    }
    let capacity = header.le64(12);
    let (at, length) = (header.le64(28), header.le64(36));
    if capacity == 0 {
        return Err(HeaderError::External("descriptor of extents").into());
    }
    if at == 0 || length == 0 {
        return Err(wrong("descriptor", "is not in it").into());
    }
    let (Some(at), Some(length)) = (at.checked_mul(SECTOR), length.checked_mul(SECTOR)) else {
        return Err(wrong("descriptor", "lies beyond the end of the file").into());
    };
    if length > MAX_DESCRIPTOR || at.checked_add(length).is_none_or(|end| end > size.next_multiple_of(SECTOR))
    {
        return Err(wrong("descriptor", "lies beyond the end of the file").into());
    }
    // QEMU reads 20 sectors from there, however long it says that it is, and from the second sector.
    for at in [at, SECTOR] {
        let read = Bytes::read(read, at, usize::try_from(length.max(20 * SECTOR)).unwrap_or(0))?;
        parentless(&read.0)?;
        if at != SECTOR || header.le64(28) == 1 {
            descriptor(&read.0[..usize::try_from(length).unwrap_or(0)])?;
        }
    }
    capacity.checked_mul(SECTOR).ok_or_else(|| wrong("capacity", "is too large").into())
}

/// Nothing that QEMU could take for the name of a parent.
fn parentless(text: &[u8]) -> Result<(), HeaderError> {
    let text = text.to_ascii_lowercase();
    let hint = b"parentfilenamehint";
    if text.windows(hint.len()).any(|window| window == hint) {
        return Err(HeaderError::External("parentFileNameHint"));
    }
    Ok(())
}

fn descriptor(text: &[u8]) -> Result<(), HeaderError> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut kinds, mut extents) = (Vec::new(), Vec::new());
    for line in lines {
        let name_and_value =
            line.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches('"')));
        match name_and_value.map(|(name, value)| (name.to_ascii_lowercase(), value)) {
            Some((name, value)) if name == "createtype" => kinds.push(value.to_owned()),
            Some((name, value)) if name == "parentcid" && !value.eq_ignore_ascii_case("ffffffff") => {
                return Err(HeaderError::External("parentCID"));
            }
            Some(_) => {}
            None => extents.push(line),
        }
    }
    match &kinds[..] {
        [kind] if ["monolithicSparse", "streamOptimized"].contains(&kind.as_str()) => {}
        [kind] => {
            let kind: String = kind.chars().take(40).collect();
            return Err(wrong("createType", format!("is `{kind}`: its disk lies in other files")));
        }
        _ => return Err(wrong("createType", "is not said once")),
    }
    match &extents[..] {
        [extent] if is_sparse(extent) => Ok(()),
        _ => Err(HeaderError::External("list of extents")),
    }
}

/// `RW 8388608 SPARSE "disk.vmdk"`: the extent that is this file, whatever it was called when it was made.
fn is_sparse(extent: &str) -> bool {
    let words: Vec<&str> = extent.splitn(4, char::is_whitespace).collect();
    matches!(words[..], ["RW" | "RDONLY", size, "SPARSE", name] if size.parse::<u64>().is_ok() && !name.is_empty())
}

/// VirtualBox's disks, version 1.1: fixed or growing, without a parent.
fn vdi(size: u64, read: ReadAt<'_>) -> Result<u64, Fault> {
    let header = Bytes::read(read, 0, 512)?;
    let version = header.le32(68);
    if version != 0x0001_0001 {
        return Err(wrong("version", format!("is {version:#x}, only 1.1 is known")).into());
    }
    match header.le32(76) {
        1 | 2 => {}
        kind => return Err(wrong("image_type", format!("is {kind}, neither fixed nor growing")).into()),
    }
    // What it was made of (link) and what it lies on (parent).
    if header.array::<16>(424) != [0; 16] || header.array::<16>(440) != [0; 16] {
        return Err(HeaderError::External("uuid of a parent").into());
    }
    match header.le64(368) {
        0 => Err(wrong("size", "is 0").into()),
        disk => blocks::vdi(&header, size, read).map(|()| disk),
    }
}

/// Hyper-V's older disks: growing, without a parent. A fixed one has its mark at its end only, and is a raw disk.
fn vhd(read: ReadAt<'_>) -> Result<u64, Fault> {
    let footer = Bytes::read(read, 0, 512)?;
    match u32::from_be_bytes(footer.array(60)) {
        3 => {}
        4 => return Err(HeaderError::External("disk type `differencing`").into()),
        kind => return Err(wrong("disk type", format!("is {kind}, not a growing disk")).into()),
    }
    let at = u64::from_be_bytes(footer.array(16));
    if at > 1 << 40 {
        return Err(wrong("data offset", format!("is {at}")).into());
    }
    let header = Bytes::read(read, at, 1024)?;
    if header.0.get(..8) != Some(b"cxsparse") {
        return Err(wrong("dynamic header", "is not there").into());
    }
    // Parent's id, and the first of its locators.
    if header.array::<16>(40) != [0; 16] || header.array::<24>(576) != [0; 24] {
        return Err(HeaderError::External("parent").into());
    }
    Ok(u64::from_be_bytes(footer.array(48)))
}

/// A GUID as it lies in a file.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

const METADATA: [u8; 16] =
    guid(0x8b7c_a206, 0x4790, 0x4b9a, [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);
const FILE_PARAMETERS: [u8; 16] =
    guid(0xcaa1_6737, 0xfa36, 0x4d43, [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b]);
const DISK_SIZE: [u8; 16] =
    guid(0x2fa5_4224, 0xcd1b, 0x4876, [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8]);
const PARENT_LOCATOR: [u8; 16] =
    guid(0xa8d3_5f2d, 0xb30b, 0x454d, [0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c]);

/// Hyper-V's disks: without a parent ([MS-VHDX]).
fn vhdx(size: u64, read: ReadAt<'_>) -> Result<u64, Fault> {
    /// Places of the two copies of the region table.
    const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
    const TABLE: usize = 64 << 10;
    const ENTRY: usize = 32;
    let mut found = None;
    // Either copy may be the one that is read: both are looked at.
    for at in REGIONS {
        let table = Bytes::read(read, at, TABLE)?;
        if table.0.get(..4) != Some(b"regi") {
            continue;
        }
        let count = usize::try_from(table.le32(8)).unwrap_or(usize::MAX).min((TABLE - 16) / ENTRY);
        for entry in (0..count).map(|index| 16 + index * ENTRY) {
            if table.array::<16>(entry) == METADATA {
                let place = table.le64(entry + 16);
                if place.checked_add(TABLE as u64).is_none_or(|end| end > size) {
                    return Err(wrong("metadata region", "lies beyond the end of the file").into());
                }
                let disk = vhdx_metadata(place, read)?;
                if found.replace(disk).is_some_and(|other| other != disk) {
                    return Err(wrong("region tables", "do not agree").into());
                }
            }
        }
    }
    found.ok_or_else(|| wrong("metadata region", "is not there").into())
}

fn vhdx_metadata(place: u64, read: ReadAt<'_>) -> Result<u64, Fault> {
    const TABLE: usize = 64 << 10;
    const ENTRY: usize = 32;
    const HAS_PARENT: u32 = 2;
    let table = Bytes::read(read, place, TABLE)?;
    if table.0.get(..8) != Some(b"metadata") {
        return Err(wrong("metadata region", "holds none").into());
    }
    let count = usize::from(u16::from_le_bytes(table.array(10))).min((TABLE - 32) / ENTRY);
    let (mut disk, mut has_parameters) = (None, false);
    for entry in (0..count).map(|index| 32 + index * ENTRY) {
        let item = place + u64::from(table.le32(entry + 16));
        match table.array::<16>(entry) {
            PARENT_LOCATOR => return Err(HeaderError::External("parent locator").into()),
            FILE_PARAMETERS => {
                has_parameters = true;
                if Bytes::read(read, item, 8)?.le32(4) & HAS_PARENT != 0 {
                    return Err(HeaderError::External("mark of a parent").into());
                }
            }
            DISK_SIZE => disk = Some(Bytes::read(read, item, 8)?.le64(0)),
            _ => {}
        }
    }
    match disk {
        Some(disk) if has_parameters => Ok(disk),
        _ => Err(wrong("metadata", "lacks the file's parameters or the disk's size").into()),
    }
}
