//! Free bytes of file systems.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What is free on one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// A folder on it.
    pub path: PathBuf,
    /// Its device number: two folders with the same number share what is free.
    pub device: u64,
    /// Bytes that an ordinary user may still write.
    pub free: u64,
}

/// The file system that `folder` is on, or will be on once it is made.
///
/// What is kept for root is not counted (`f_bavail` of statvfs(3)): machines shall not depend on who runs vmctl.
pub fn space(folder: &Path) -> Result<Space> {
    let mut folder = folder;
    let metadata = loop {
        match folder.metadata() {
            Ok(metadata) => break metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match folder.parent() {
                Some(parent) => folder = parent,
                None => return Err(Error::io("examine", folder)(error)),
            },
            Err(error) => return Err(Error::io("examine", folder)(error)),
        }
    };
    let found = rustix::fs::statvfs(folder)
        .map_err(|error| Error::io("ask for the free space of", folder)(error.into()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    Ok(Space { path: folder.to_owned(), device: metadata.dev(), free })
}

/// Bytes of disk that a file takes; a hole takes none.
pub fn allocated(file: &Path) -> Result<u64> {
    /// Unit of `st_blocks`, whatever the file system (stat(2)).
    const BLOCK: u64 = 512;
    let metadata = file.metadata().map_err(Error::io("examine", file))?;
    Ok(metadata.len().min(metadata.blocks().saturating_mul(BLOCK)))
}

/// Says of a failure that there was no room what was needed and what is free where `folder` is; other failures stay
/// as they are.
pub fn tell_full(error: Error, folder: &Path, needed: u64) -> Error {
    if !error.is_full() {
        return error;
    }
    match space(folder) {
        Ok(space) => {
            Error::DiskFull { folder: folder.to_owned(), needed, free: space.free, cause: Box::new(error) }
        }
        Err(unknown) => {
            tracing::debug!(%unknown, "cannot tell what is free");
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_that_is_not_there_yet_is_on_its_parents_disk() {
        let folder = tempfile::tempdir().unwrap();
        let found = space(&folder.path().join("not/there/yet")).unwrap();
        assert_eq!(found.path, folder.path());
        assert_eq!(found.device, folder.path().metadata().unwrap().dev());
        assert!(found.free > 0);
    }

    #[test]
    fn full_disk_is_told_with_what_is_needed_and_free_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let full = || Error::io("write", "/x")(rustix::io::Errno::NOSPC.into());
        let told = tell_full(full(), folder.path(), 2 << 20);
        assert!(matches!(told, Error::DiskFull { needed: 0x20_0000, .. }), "{told:?}");
        let text = told.to_string();
        assert!(text.starts_with("no room is left: 2 MiB is needed to begin with, "), "{text}");
        assert!(told.help().unwrap().contains("vmctl apply"));
        let other = tell_full(Error::io("write", "/x")(rustix::io::Errno::IO.into()), folder.path(), 0);
        assert!(matches!(other, Error::Io { .. }), "{other:?}");
    }

    #[test]
    fn hole_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(allocated(&path).unwrap() < 1 << 20);
    }
}
