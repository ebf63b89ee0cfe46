//! The volume that the files of a seed stand on: FAT, labelled CIDATA.

use std::io::{Cursor, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use sha2::{Digest as _, Sha256};

use super::SeedFile;

/// The usual volume is no smaller; FAT12 needs less.
pub(super) const MIN_VOLUME: usize = 1 << 20;

/// What a volume has besides the content of its files: FAT, root folder, cluster slack.
const VOLUME_OVERHEAD: usize = 64 << 10;

/// The bytes of a volume with `files` in its root folder, of `least` bytes or more. Same input, same bytes.
pub(super) fn fat_volume(files: &[SeedFile], least: usize) -> std::io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    for (name, content) in files {
        hash.update(name);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
    let content: usize = files.iter().map(|(_, content)| content.len()).sum();
    let size = (content + content / 16 + VOLUME_OVERHEAD).max(least).next_multiple_of(64 << 10);
    let mut disk = Cursor::new(vec![0; size]);
    // Both places of the label are written, the boot sector and the root folder: readers differ in which they trust.
    let options =
        FormatVolumeOptions::new().volume_label(*b"CIDATA     ").volume_id(u32::from_le_bytes([a, b, c, d]));
    fatfs::format_volume(&mut disk, options)?;
    let volume = FileSystem::new(&mut disk, FsOptions::new())?;
    for (name, content) in files {
        let mut file = volume.root_dir().create_file(name)?;
        file.truncate()?;
        file.write_all(content)?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(disk.into_inner())
}
