//! Reading image files: what tells one state of a file from another, and one pass over all of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::cache::ImageIdentity;
use super::clusters::{self, Fault};
use super::error::ImageError;
use super::header::{self, Header};
use crate::spec::{Digest, ImageFormat};

/// How much is read at once.
const BUFFER: usize = 1 << 20;

/// A file that was written less than this before it was read may change again without any of its times changing.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells one state of one file from all others, as far as the system knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change after `now`, when reading began, would show in the times.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanos) = self.modified.max(self.changed);
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u64::try_from(nanos)) else { return false };
        let last = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos);
        now.duration_since(last).is_ok_and(|age| age >= SETTLED)
    }
}

/// Opens a regular file, without waiting for the other end if it is a pipe.
pub(super) fn open(source: &Path) -> Result<(File, Stamp), ImageError> {
    let io = |error| ImageError::Io { action: "read", path: source.to_owned(), source: error };
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(source).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok((file, Stamp::of(&metadata))),
        () if kind.is_dir() => "a folder",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => "no regular file",
    };
    Err(ImageError::NotAFile { path: source.to_owned(), what })
}

/// Reads all of `file` once: what it is, its digest, and every piece of it to `each` with its place.
pub(super) fn examine(
    mut file: File,
    source: &Path,
    stamp: &Stamp,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), ImageError>,
) -> Result<ImageIdentity, ImageError> {
    let io = |error| ImageError::Io { action: "read", path: source.to_owned(), source: error };
    let mut hash = Sha256::new();
    let mut at = 0;

    let mut head = vec![0; header::HEAD];
    let length = read_full(&mut file, &mut head).map_err(io)?;
    head.truncate(length);
    let header = check(&file, source, &head, stamp.size)?;
    let mut piece = head;
    while !piece.is_empty() {
        hash.update(&piece);
        each(at, &piece)?;
        at += piece.len() as u64;
        piece.resize(BUFFER, 0);
        let length = read_full(&mut file, &mut piece).map_err(io)?;
        piece.truncate(length);
    }
    if Stamp::of(&file.metadata().map_err(io)?) != *stamp || at != stamp.size {
        return Err(ImageError::Changed { path: source.to_owned() });
    }
    let digest = Digest::from_hash(&hash.finalize());
    Ok(header.identity(digest))
}

/// What a file of `size` bytes that begins with `head` is, if all that it refers to is in it.
pub(super) fn check(file: &File, source: &Path, head: &[u8], size: u64) -> Result<Header, ImageError> {
    let refused = |problem| ImageError::Refused { path: source.to_owned(), problem };
    let header = header::parse(head, size).map_err(refused)?;
    if header.format == ImageFormat::Qcow2 {
        let read = |at, buffer: &mut [u8]| read_at(file, at, buffer);
        clusters::check(head, size, read).map_err(|fault| match fault {
            Fault::Read(source_error) => {
                ImageError::Io { action: "read", path: source.to_owned(), source: source_error }
            }
            Fault::Missing(problem) => refused(problem),
        })?;
    }
    Ok(header)
}

/// Reads until `buffer` is full or the file ends.
pub(super) fn read_full(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Fills `buffer` from the place `at`, with zeros behind the end of the file.
pub(super) fn read_at(file: &File, mut at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => {
                buffer.fill(0);
                break;
            }
            Ok(length) => {
                at += length as u64;
                buffer = &mut buffer[length..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
