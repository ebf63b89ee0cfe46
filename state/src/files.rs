//! Files that are private, whole, and on the disk.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::failpoints::failpoint;

/// Only the owner may enter.
const PRIVATE_FOLDER: u32 = 0o700;
/// Only the owner may read and write.
const PRIVATE_FILE: u32 = 0o600;

/// Whether there is something at `path`.
pub(crate) fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io("look at", path))
}

/// Number of bytes in a file; `None` if there is none.
pub(crate) fn size(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("look at", path)(error)),
    }
}

/// Makes `path` and the folders above it, and closes `path` to others even if it was there before.
pub(crate) fn create_private_folder(path: &Path) -> Result<(), StoreError> {
    let existed = exists(path)?;
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER)
        .create(path)
        .map_err(StoreError::io("create folder", path))?;
    if existed {
        return restrict(path, PRIVATE_FOLDER);
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Closes a folder, the files in it and the folders in it to others.
pub(crate) fn restrict_contents(folder: &Path) -> Result<(), StoreError> {
    for (path, is_folder) in entries(folder)? {
        restrict(&path, if is_folder { PRIVATE_FOLDER } else { PRIVATE_FILE })?;
    }
    restrict(folder, PRIVATE_FOLDER)
}

fn restrict(path: &Path, mode: u32) -> Result<(), StoreError> {
    let found = fs::metadata(path).map_err(StoreError::io("look at", path))?.permissions();
    if found.mode() & 0o777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(StoreError::io("close to others", path))
}

/// The paths in a folder, each with whether it is a folder itself; none if there is no such folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>, StoreError> {
    let failed = || StoreError::io("list folder", folder);
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed()(error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(failed())?;
        let kind = entry.file_type().map_err(failed())?;
        found.push((entry.path(), kind.is_dir()));
    }
    found.sort();
    Ok(found)
}

/// Reads a whole file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// Replaces a file as a whole: readers see the old or the new content, also after a power cut.
///
/// Only one writer at a time may do this to one path.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let draft = path.with_extension("tmp");
    remove(&draft)?;
    let written = write_new(&draft, content, true)
        .and_then(|()| fs::rename(&draft, path).map_err(StoreError::io("replace", path)));
    if let Err(error) = written {
        if let Err(leftover) = remove(&draft) {
            tracing::debug!(error = %leftover, "the draft stays until the next attempt");
        }
        return Err(error);
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Replaces a file as a whole, but does not wait until it is on the disk.
pub(crate) fn replace_soon(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let draft = path.with_extension("tmp");
    remove(&draft)?;
    write_new(&draft, content, false)?;
    fs::rename(&draft, path).map_err(StoreError::io("replace", path))
}

/// Removes what a [`replace`] that was killed left of `path`. Only its writer may do so.
pub(crate) fn remove_draft(path: &Path) -> Result<(), StoreError> {
    remove(&path.with_extension("tmp")).map(drop)
}

/// Copies a folder with all that is in it, for our eyes only.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<(), StoreError> {
    create_private_folder(to)?;
    for (path, is_folder) in entries(from)? {
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if is_folder {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(StoreError::io("copy", &path))?;
        }
    }
    Ok(())
}

/// Makes a file whole or not at all, and never in place of another; one that is there already stays. `draft` is a name
/// beside it that nobody else uses.
pub(crate) fn create_once(path: &Path, draft: &Path, content: &[u8]) -> Result<(), StoreError> {
    let made = replace(draft, content)
        .and_then(|()| fs::hard_link(draft, path).map_err(StoreError::io("create", path)));
    remove(draft)?;
    // If it is there now, somebody was first, and may have removed the draft as a left-over.
    if !exists(path)? {
        made?;
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Removes the drafts that [`create_once`] left beside `path` when it was killed: their names go on with `-`.
///
/// A living process whose draft this takes finds that the file is there, and needs no draft. So nothing is removed
/// before it is.
pub(crate) fn remove_drafts(path: &Path) -> Result<(), StoreError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    if !exists(path)? {
        return Ok(());
    }
    for (found, is_folder) in entries(folder)? {
        let rest = found.file_name().and_then(|found| found.to_str()?.strip_prefix(name));
        if !is_folder && rest.is_some_and(|rest| rest.starts_with('-')) {
            remove(&found)?;
        }
    }
    Ok(())
}

fn write_new(path: &Path, content: &[u8], synced: bool) -> Result<(), StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)
        .map_err(StoreError::io("create", path))?;
    file.write_all(content).map_err(StoreError::io("write", path))?;
    if synced {
        file.sync_all().map_err(StoreError::io("sync", path))?;
    }
    failpoint!("state.file.drafted", path);
    Ok(())
}

/// Opens a private file, making it if there is none.
pub(crate) fn open_or_create(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_FILE)
        .open(path)
        .map_err(StoreError::io("open", path))
}

/// Removes a file; returns whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("remove", path)(error)),
    }
}

/// Makes what was created, renamed or removed in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    // A relative path of one component has an empty parent.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|handle| handle.sync_all()).map_err(StoreError::io("sync folder", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_of_the_dead_go_once_the_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (left, half, other) =
            (path.with_file_name("key-1"), path.with_file_name("key-2.tmp"), folder.path().join("keys"));
        for file in [&left, &half, &other] {
            fs::write(file, "").unwrap();
        }
        remove_drafts(&path).unwrap();
        assert!(left.exists() && half.exists(), "whoever is at it may be alive");
        create_once(&path, &path.with_file_name("key-3"), b"mine").unwrap();
        remove_drafts(&path).unwrap();
        assert_eq!([&left, &half, &other, &path].map(|file| file.exists()), [false, false, true, true]);
    }

    #[test]
    fn whoever_comes_second_finds_the_file_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_once(&path, &path.with_file_name("key-1"), b"first").unwrap();
        create_once(&path, &path.with_file_name("key-2"), b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
