//! A disk for machines that never boot.

use std::path::{Path, PathBuf};

/// Writes the smallest thing that is a disk, one sector with a boot signature, as `disk.raw` into `folder`.
pub(crate) fn write_smallest(folder: &Path) -> PathBuf {
    let path = folder.join("disk.raw");
    let mut sector = [0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    std::fs::write(&path, sector).unwrap();
    path
}
