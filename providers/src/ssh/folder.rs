//! Folders of the host as a stream that a guest's `tar` unpacks.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// The file that comes last: who has it has everything.
pub(super) const LAST: &str = ".vmctl-whole";

/// Writes what is in `folder` as an archive: files, folders and links with their names, permission bits and times, in the
/// order of their names. Owners are left to who unpacks it.
///
/// Anything else, such as a socket or a device, is an error, and the archive then lacks its last file.
pub(super) fn archive(folder: &Path, output: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(output);
    append_content(&mut archive, folder, Path::new("."))?;
    let mut last = Header::new_gnu();
    last.set_entry_type(EntryType::Regular);
    last.set_size(0);
    last.set_mode(0o600);
    archive.append_data(&mut last, LAST, io::empty())?;
    archive.into_inner()?.flush()
}

fn append_content(archive: &mut Builder<impl Write>, folder: &Path, inside: &Path) -> io::Result<()> {
    let mut names =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let (source, name) = (folder.join(&name), inside.join(&name));
        let metadata = fs::symlink_metadata(&source)?;
        let mut header = header_of(&metadata);
        if metadata.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, &name, fs::read_link(&source)?)?;
        } else if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, &name, io::empty())?;
            append_content(archive, &source, &name)?;
        } else if metadata.is_file() {
            let file = File::open(&source)?;
            let length = file.metadata()?.len();
            header.set_entry_type(EntryType::Regular);
            header.set_size(length);
            let file = Whole { file: file.take(length), missing: length };
            archive.append_data(&mut header, &name, file)?;
        } else {
            let what = format!("`{}` is no file, folder or link", source.display());
            return Err(io::Error::other(what));
        }
    }
    Ok(())
}

fn header_of(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(metadata.permissions().mode() & 0o7777);
    header.set_size(0);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header
}

/// A file that must have as many bytes as its header says: one that shrinks meanwhile would spoil what follows.
struct Whole {
    file: io::Take<File>,
    missing: u64,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.missing -= read as u64;
        if read == 0 && self.missing > 0 && !buffer.is_empty() {
            return Err(io::Error::other("it got shorter while it was read"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Names, kinds, modes and sizes in an archive.
    fn entries(bytes: &[u8]) -> Vec<(String, EntryType, u32, u64)> {
        let mut archive = tar::Archive::new(bytes);
        let entry = |entry: tar::Entry<'_, &[u8]>| {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let header = entry.header();
            (name, header.entry_type(), header.mode().unwrap(), entry.size())
        };
        archive.entries().unwrap().map(|found| entry(found.unwrap())).collect()
    }

    #[test]
    fn everything_is_packed_with_its_name_and_mode_and_the_last_file_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let long = "n".repeat(200);
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b").join("-rf *\n"), "odd").unwrap();
        fs::write(folder.path().join(&long), "12345").unwrap();
        fs::set_permissions(folder.path().join(&long), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("/nowhere", folder.path().join("a")).unwrap();
        let mut bytes = Vec::new();
        archive(folder.path(), &mut bytes).unwrap();
        let found = entries(&bytes);
        let names: Vec<_> = found.iter().map(|(name, ..)| name.trim_start_matches("./")).collect();
        assert_eq!(names, ["a", "b", "b/-rf *\n", long.as_str(), LAST]);
        assert_eq!(found[0].1, EntryType::Symlink);
        assert_eq!((found[3].2, found[3].3), (0o600, 5));
    }

    #[test]
    fn what_is_no_file_leaves_the_archive_without_its_last_file() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        let mut bytes = Vec::new();
        let error = archive(folder.path(), &mut bytes).unwrap_err();
        assert!(error.to_string().contains("socket"), "{error}");
        assert!(!String::from_utf8_lossy(&bytes).contains(LAST));
    }
}
