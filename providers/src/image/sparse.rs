//! Writing so that zeros become holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Zeros of this length and alignment become holes.
pub(super) const HOLE: usize = 64 << 10;

static ZEROS: [u8; HOLE] = [0; HOLE];

/// Writes `bytes` at the place `at` of a file that has nothing there. What are zeros at its end does not make it longer.
pub(crate) fn write_at(file: &File, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let into = usize::try_from(at % HOLE as u64).unwrap_or(0);
        let (block, rest) = bytes.split_at(bytes.len().min(HOLE - into));
        if *block != ZEROS[..block.len()] {
            file.write_all_at(block, at)?;
        }
        at += block.len() as u64;
        bytes = rest;
    }
    Ok(())
}
