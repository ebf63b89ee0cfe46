//! Whether the parts of a disk that the tables of a VDI or VMDK image name lie in its file, each in a place of its own.
//!
//! QEMU reads what is missing as zeros: the guest would get torn files. Of VHD and VHDX it finds out by itself.

use std::collections::HashSet;

use super::{Bytes, Fault, ReadAt, SECTOR, wrong};
use crate::image::header::HeaderError;

/// How much of a table is read at once.
const PIECE: u64 = 64 << 10;

/// The file that tables refer to.
struct File {
    size: u64,
}

impl File {
    /// Whether it has `length` bytes at `place`.
    fn holds(&self, place: u64, length: u64) -> Result<(), HeaderError> {
        match place.checked_add(length).is_some_and(|end| end <= self.size) {
            true => Ok(()),
            false => Err(HeaderError::CutOff { size: self.size, place }),
        }
    }
}

/// Tells `each` all `count` entries of the table at `at`, with their numbers.
fn each_entry(
    file: &File,
    read: ReadAt<'_>,
    at: u64,
    count: u64,
    each: &mut dyn FnMut(u64, u32) -> Result<(), HeaderError>,
) -> Result<(), Fault> {
    file.holds(at, count.saturating_mul(4))?;
    let mut number = 0;
    while number < count {
        let entries = (count - number).min(PIECE / 4);
        let piece = Bytes::read(read, at + number * 4, usize::try_from(entries * 4).unwrap_or(0))?;
        for entry in piece.0.chunks_exact(4).map(|entry| Bytes(entry.to_vec()).le32(0)) {
            each(number, entry)?;
            number += 1;
        }
    }
    Ok(())
}

/// The blocks of a VDI image.
pub(super) fn vdi(header: &Bytes, size: u64, read: ReadAt<'_>) -> Result<(), Fault> {
    /// The only size that QEMU knows.
    const BLOCK: u64 = 1 << 20;
    /// The first of the entries that stand for zeros.
    const ZEROS: u32 = u32::MAX - 1;
    let file = File { size };
    let (map, data) = (u64::from(header.le32(340)), u64::from(header.le32(344)));
    let (block, count, disk) = (u64::from(header.le32(376)), u64::from(header.le32(384)), header.le64(368));
    if block != BLOCK {
        return Err(wrong("block_size", format!("is {block}, not 1 MiB")).into());
    }
    if disk > count * BLOCK {
        return Err(wrong("blocks_in_image", format!("is {count}, too few for its size")).into());
    }
    let mut used = 0;
    each_entry(&file, read, map, count, &mut |number, entry| {
        if entry >= ZEROS {
            return Ok(());
        }
        used += 1;
        file.holds(data + u64::from(entry) * BLOCK, disk.saturating_sub(number * BLOCK).min(BLOCK))
    })?;
    apart(used, BLOCK, size, "block map")
}

/// The grains of a VMDK image; `header` is the one that counts.
pub(super) fn vmdk(header: &Bytes, size: u64, read: ReadAt<'_>) -> Result<(), Fault> {
    const IS_COMPRESSED: u32 = 1 << 16;
    /// QEMU's own bounds.
    const MAX_GRAIN: u64 = 0x20_0000;
    const MAX_ENTRIES: u64 = 512;
    let file = File { size };
    let (capacity, grain) = (header.le64(12), header.le64(20));
    let (entries, directory) = (u64::from(header.le32(44)), header.le64(56));
    let is_compressed = header.le32(8) & IS_COMPRESSED != 0;
    if !(1..=MAX_GRAIN).contains(&grain) {
        return Err(wrong("granularity", format!("is {grain}")).into());
    }
    if !(1..=MAX_ENTRIES).contains(&entries) {
        return Err(wrong("num_gtes_per_gt", format!("is {entries}")).into());
    }
    let mut tables = Vec::new();
    let count = capacity.div_ceil(grain * entries);
    each_entry(&file, read, directory.saturating_mul(SECTOR), count, &mut |number, table| {
        if table != 0 {
            tables.push((number, u64::from(table)));
        }
        Ok(())
    })?;
    let mut seen = HashSet::new();
    if !tables.iter().all(|(_, table)| seen.insert(*table)) {
        return Err(wrong("grain directory", "names a table twice").into());
    }
    let mut used = 0;
    for (number, table) in tables {
        each_entry(&file, read, table * SECTOR, entries, &mut |entry, place| {
            // 1 stands for zeros.
            if place <= 1 {
                return Ok(());
            }
            used += 1;
            let rest = capacity.saturating_sub((number * entries + entry) * grain).min(grain);
            file.holds(u64::from(place) * SECTOR, if is_compressed { 1 } else { rest * SECTOR })
        })?;
    }
    apart(used, if is_compressed { SECTOR } else { grain * SECTOR }, size, "grain table")
}

/// Refuses more parts of this length than the file has room for: some of them are in one place.
fn apart(used: u64, length: u64, size: u64, field: &'static str) -> Result<(), Fault> {
    match used.saturating_sub(1).checked_mul(length).is_some_and(|bytes| bytes <= size) {
        true => Ok(()),
        false => Err(wrong(field, "names the same places several times").into()),
    }
}
