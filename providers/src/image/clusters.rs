//! Whether everything that a qcow2 file refers to lies within the file.
//!
//! A download or a copy that broke off leaves a file whose header is sound. QEMU reads what is missing as zeros or as an
//! error, long after: the guest does not boot, or its files are torn. So the tables that lead to the disk's parts are
//! followed here, once, by reading; nothing is decompressed and no program of QEMU's is asked.

use std::collections::HashSet;
use std::io;

use super::header::HeaderError;

/// Bits of a table's entry that hold a place in the file (qcow2.txt, "Cluster mapping").
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;

/// Marks a compressed part.
const COMPRESSED: u64 = 1 << 62;

/// Marks a part that reads as zeros, whatever its place holds. Version 3 only; in extended entries it has no meaning.
const ZERO: u64 = 1;

const EXTENDED_L2: u64 = 1 << 4;

const SECTOR: u64 = 512;

/// How much of a table is read at once.
const PIECE: usize = 1 << 20;

/// Why the check did not pass.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Missing(HeaderError),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// What is needed of a header that [`super::header::parse`] accepted.
struct Tables {
    cluster_bits: u32,
    l1: (u64, u64),
    refcounts: (u64, u64),
    entry: usize,
    has_zeros: bool,
}

/// Follows the tables of the qcow2 file that begins with `head` and has `size` bytes. `read` fills a buffer from a place
/// within the file, with zeros behind its end.
///
/// Each table is read once, however often it is referred to, so that it takes no longer than reading the file.
pub(super) fn check(
    head: &[u8],
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<(), Fault> {
    let Some(tables) = Tables::of(head) else { return Ok(()) };
    let file = File { size, cluster: 1 << tables.cluster_bits };
    each_entry(tables.refcounts, 8, &mut read, |entry| file.holds(entry & !(SECTOR - 1)))?;
    let mut seen = HashSet::new();
    each_entry(tables.l1, 8, &mut read, |entry| {
        let place = entry & PLACE;
        if place != 0 {
            seen.insert(place);
        }
        file.holds(place)
    })?;
    let mut places: Vec<u64> = seen.into_iter().collect();
    places.sort_unstable();
    for place in places {
        each_entry((place, file.cluster), tables.entry, &mut read, |entry| {
            if entry & COMPRESSED != 0 {
                file.holds_compressed(entry, tables.cluster_bits)
            } else if tables.has_zeros && entry & ZERO != 0 {
                Ok(())
            } else {
                file.holds(entry & PLACE)
            }
        })?;
    }
    Ok(())
}

impl Tables {
    fn of(head: &[u8]) -> Option<Self> {
        let u32 = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
        let u64 = |at: usize| Some(u64::from_be_bytes(*head.get(at..)?.first_chunk()?));
        let is_new = u32(4)? >= 3;
        let is_extended = is_new && u64(72)? & EXTENDED_L2 != 0;
        let cluster_bits = u32(20)?;
        Some(Self {
            cluster_bits,
            l1: (u64(40)?, u64::from(u32(36)?) * 8),
            refcounts: (u64(48)?, u64::from(u32(56)?) << cluster_bits),
            entry: if is_extended { 16 } else { 8 },
            has_zeros: is_new && !is_extended,
        })
    }
}

/// What a file of this size can hold.
struct File {
    size: u64,
    cluster: u64,
}

impl File {
    /// Whether a cluster lies within the file. The last one may end early, as far as that is no accident: what writes
    /// images writes whole sectors.
    fn holds(&self, place: u64) -> Result<(), Fault> {
        let is_whole = place + self.cluster <= self.size;
        let ends_early = place < self.size && self.size.is_multiple_of(SECTOR);
        if place == 0 || is_whole || ends_early { Ok(()) } else { Err(self.missing(place)) }
    }

    fn holds_compressed(&self, entry: u64, cluster_bits: u32) -> Result<(), Fault> {
        let bits = 62 - (cluster_bits - 8);
        let place = entry & ((1 << bits) - 1);
        let sectors = ((entry & !COMPRESSED & (u64::MAX >> 1)) >> bits) + 1;
        let end = (place & !(SECTOR - 1)).saturating_add(sectors * SECTOR);
        if end <= self.size.next_multiple_of(SECTOR) { Ok(()) } else { Err(self.missing(place)) }
    }

    fn missing(&self, place: u64) -> Fault {
        Fault::Missing(HeaderError::CutOff { size: self.size, place })
    }
}

/// Gives the first eight bytes of each of a table's entries to `each`.
fn each_entry(
    (place, length): (u64, u64),
    entry: usize,
    read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    mut each: impl FnMut(u64) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut piece = vec![0; PIECE.min(usize::try_from(length).unwrap_or(PIECE))];
    let mut at = 0;
    while at < length {
        let take = piece.len().min(usize::try_from(length - at).unwrap_or(PIECE));
        read(place + at, &mut piece[..take])?;
        for bytes in piece[..take].chunks_exact(entry) {
            if let Some(first) = bytes.first_chunk() {
                each(u64::from_be_bytes(*first))?;
            }
        }
        at += take as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::header;

    const CLUSTER: usize = 65536;

    /// Header, refcount table, refcount block, L1 table, an L2 table whose first entry is `entry`, one cluster of data.
    fn image(entry: u64) -> Vec<u8> {
        let mut file = vec![0; 6 * CLUSTER];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb");
        put(4, &3_u32.to_be_bytes());
        put(20, &16_u32.to_be_bytes());
        put(24, &(1_u64 << 29).to_be_bytes());
        put(36, &1_u32.to_be_bytes());
        put(40, &(3 * CLUSTER as u64).to_be_bytes());
        put(48, &(CLUSTER as u64).to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        put(96, &4_u32.to_be_bytes());
        put(100, &104_u32.to_be_bytes());
        put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
        put(3 * CLUSTER, &((4 * CLUSTER as u64) | (1 << 63)).to_be_bytes());
        put(4 * CLUSTER, &entry.to_be_bytes());
        file
    }

    fn missing(file: &[u8]) -> Option<u64> {
        header::parse(file, file.len() as u64).unwrap();
        let read = |at: u64, buffer: &mut [u8]| {
            buffer.fill(0);
            let from = file.get(usize::try_from(at).unwrap()..).unwrap_or_default();
            let length = from.len().min(buffer.len());
            buffer[..length].copy_from_slice(&from[..length]);
            Ok(())
        };
        match check(file, file.len() as u64, read) {
            Ok(()) => None,
            Err(Fault::Missing(HeaderError::CutOff { place, .. })) => Some(place),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_lies_beyond_the_end_is_found() {
        let cluster = CLUSTER as u64;
        let data = (5 * cluster) | (1 << 63);
        // A compressed part of one sector, and one of three that begins in the middle of its first.
        let compressed = |place: u64, more: u64| COMPRESSED | (more << 54) | place;
        for entry in
            [0, data, (9 * cluster) | ZERO, compressed(5 * cluster, 0), compressed(6 * cluster - 1100, 2)]
        {
            assert_eq!(missing(&image(entry)), None, "{entry:#x}");
        }
        assert_eq!(missing(&image(6 * cluster)), Some(6 * cluster));
        assert_eq!(missing(&image(1 << 50)), Some(1 << 50));
        assert_eq!(missing(&image(compressed(6 * cluster - 10, 1))), Some(6 * cluster - 10));

        let cut = |entry: u64, length: usize| missing(&image(entry)[..length]);
        assert_eq!(cut(data, 5 * CLUSTER), Some(5 * cluster));
        assert_eq!(cut(data, 5 * CLUSTER + 1000), Some(5 * cluster));
        assert_eq!(cut(data, 5 * CLUSTER + 1024), None, "a last cluster may end with its last sector");
        assert_eq!(cut(0, 4 * CLUSTER), Some(4 * cluster), "a table is missing");
        assert_eq!(cut(compressed(5 * cluster, 3), 5 * CLUSTER + 1536), Some(5 * cluster));
    }

    proptest! {
        #[test]
        fn any_entries_are_answered(at in 0..5 * CLUSTER, bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            let mut file = image(5 * CLUSTER as u64);
            file[at..at + bytes.len()].copy_from_slice(&bytes);
            if header::parse(&file, file.len() as u64).is_ok() {
                let _ = missing(&file);
            }
        }
    }
}
