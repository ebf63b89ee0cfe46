//! The cache: one immutable file per digest under one folder.
//!
//! ```text
//! images/<sha256>.qcow2           an image, mode 0444, never written again
//! images/<sha256>.<pid>.<n>.part  an import on its way, locked by its process
//! images/.identities/<hash>.json  what a source file was found to be
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::clusters::{self, Fault};
use super::error::ImageError;
use super::header;
#[cfg(feature = "failpoints")]
use crate::failpoints::answer;
use crate::spec::{Digest, DiskImage, ImageFormat};

/// How much is read at once.
const BUFFER: usize = 1 << 20;

/// Zeros of this length and alignment become holes.
const HOLE: usize = 64 << 10;
static ZEROS: [u8; HOLE] = [0; HOLE];

/// A file that was written less than this before it was read may change again without any of its times changing.
const SETTLED: Duration = Duration::from_secs(2);

/// What an image file is, decided by reading it and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// Its format.
    pub format: ImageFormat,
    /// Size of the disk that the guest sees, in bytes.
    pub virtual_size: u64,
}

/// The cache: one immutable file per digest under one folder.
#[derive(Debug, Clone)]
pub struct ImageCache {
    root: PathBuf,
}

impl ImageCache {
    /// A cache in the folder `root`, which is made when first needed.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder, whether it exists or not.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// Whether there is a file for `image`; whether it is sound, an import finds out.
    pub fn has(&self, image: &DiskImage) -> bool {
        image.path.is_file()
    }

    /// Reads `source`, refuses what is no self-contained image, and tells what it is.
    ///
    /// The digest is remembered by the file's device, inode, size and times, so that a second call is quick.
    pub fn identify(&self, source: &Path) -> Result<ImageIdentity, ImageError> {
        self.identify_at(source, SystemTime::now())
    }

    /// The cached image that [`ImageCache::import`] makes for `identity`; it may not exist yet.
    pub fn cached(&self, identity: &ImageIdentity) -> DiskImage {
        DiskImage {
            path: self.root.join(format!("{}.{}", identity.digest.hex(), identity.format)),
            format: identity.format,
            digest: identity.digest.clone(),
            virtual_size: identity.virtual_size,
        }
    }

    /// Copies `source` into the cache, verifying that it still is `identity`. Idempotent; safe against other
    /// processes that import the same image at the same time.
    pub fn import(&self, source: &Path, identity: &ImageIdentity) -> Result<DiskImage, ImageError> {
        let image = self.cached(identity);
        if is_intact(&image, source)? {
            return Ok(image);
        }
        make_folder(&self.root)?;
        self.sweep();
        let (file, stamp) = open(source)?;
        let part = Part::create(&self.root, identity)?;
        let found = examine(file, source, &stamp, |at, bytes| part.write(at, bytes))?;
        if found != *identity {
            return Err(ImageError::Changed { path: source.to_owned() });
        }
        fail::fail_point!("fetch-image.cache.copied", |errno| Err(part.failed("write")(answer(errno))));
        part.keep_as(&image.path, stamp.size)?;
        fail::fail_point!("fetch-image.cache.renamed", |errno| Err(ImageError::Cache {
            action: "write",
            path: image.path.clone(),
            source: answer(errno),
        }));
        Ok(image)
    }

    fn identify_at(&self, source: &Path, now: SystemTime) -> Result<ImageIdentity, ImageError> {
        let (file, stamp) = open(source)?;
        if let Some(identity) = self.recall(&stamp) {
            return Ok(identity);
        }
        let identity = examine(file, source, &stamp, |_, _| Ok(()))?;
        if stamp.is_settled(now) {
            self.remember(&stamp, &identity);
        }
        Ok(identity)
    }

    fn memo(&self, stamp: &Stamp) -> PathBuf {
        let name = Digest::of(format!("{stamp:?}"));
        self.root.join(".identities").join(format!("{}.json", name.hex()))
    }

    /// What was remembered for `stamp`. A memo that cannot be used only costs time.
    fn recall(&self, stamp: &Stamp) -> Option<ImageIdentity> {
        let path = self.memo(stamp);
        let text = fs::read(&path).ok()?;
        match serde_json::from_slice::<Memo>(&text) {
            Ok(memo) if memo.version == Memo::VERSION && memo.stamp == *stamp && memo.is_sound() => {
                Some(memo.identity)
            }
            Ok(_) => {
                tracing::warn!(path = %path.display(), "memo of an image does not fit, it is ignored");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "memo of an image is damaged, it is ignored");
                None
            }
        }
    }

    fn remember(&self, stamp: &Stamp, identity: &ImageIdentity) {
        let path = self.memo(stamp);
        let memo = Memo { version: Memo::VERSION, stamp: stamp.clone(), identity: identity.clone() };
        if let Err(error) = write_memo(&path, &memo) {
            tracing::debug!(path = %path.display(), %error, "an image's digest is not remembered");
        }
    }

    /// Removes what imports left behind whose processes died. A living one holds the lock of its file.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "part") {
                // The lock is kept until the file is gone: who waits for it finds its file removed.
                if let Ok(orphan) = File::open(&path)
                    && orphan.try_lock().is_ok()
                    && let Err(error) = fs::remove_file(&path)
                {
                    tracing::debug!(path = %path.display(), %error, "a left-over import stays");
                }
            }
        }
    }
}

/// What tells one state of one file from all others, as far as the system knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change after `now`, when reading began, would show in the times.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanos) = self.modified.max(self.changed);
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u64::try_from(nanos)) else { return false };
        let last = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos);
        now.duration_since(last).is_ok_and(|age| age >= SETTLED)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Memo {
    version: u32,
    stamp: Stamp,
    identity: ImageIdentity,
}

impl Memo {
    const VERSION: u32 = 2;

    /// Whether the identity can be one: its digest becomes a file name.
    fn is_sound(&self) -> bool {
        let hex = self.identity.digest.hex();
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) && self.identity.virtual_size > 0
    }
}

fn write_memo(path: &Path, memo: &Memo) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let part = path.with_extension(format!("{}.new", unique()));
    let mut options = File::options();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut file| file.write_all(&serde_json::to_vec(memo)?))
        .and_then(|()| fs::rename(&part, path));
    written.inspect_err(|_| {
        // It may never have been made.
        let _ = fs::remove_file(&part);
    })
}

/// A word that no other import or memo on this host uses at this time.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Opens a regular file, without waiting for the other end if it is a pipe.
fn open(source: &Path) -> Result<(File, Stamp), ImageError> {
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
fn examine(
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
    let header = header::parse(&head, stamp.size)
        .map_err(|problem| ImageError::Refused { path: source.to_owned(), problem })?;
    if header.format == ImageFormat::Qcow2 {
        let read = |at, buffer: &mut [u8]| read_at(&file, at, buffer);
        clusters::check(&head, stamp.size, read).map_err(|fault| match fault {
            Fault::Read(error) => io(error),
            Fault::Missing(problem) => ImageError::Refused { path: source.to_owned(), problem },
        })?;
    }
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
    Ok(ImageIdentity { digest, format: header.format, virtual_size: header.virtual_size })
}

/// Reads until `buffer` is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Fills `buffer` from the place `at`, with zeros behind the end of the file.
fn read_at(file: &File, mut at: u64, mut buffer: &mut [u8]) -> std::io::Result<()> {
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
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the cache holds `image` already. Its size is compared with its source's; where they differ, or the source
/// is gone, one of the two was tampered with or replaced, and the digest decides.
fn is_intact(image: &DiskImage, source: &Path) -> Result<bool, ImageError> {
    let Ok(held) = fs::metadata(&image.path) else { return Ok(false) };
    if fs::metadata(source).is_ok_and(|source| source.len() == held.len()) {
        return Ok(true);
    }
    let (file, stamp) = open(&image.path)?;
    let intact = matches!(
        examine(file, &image.path, &stamp, |_, _| Ok(())),
        Ok(found) if found.digest == image.digest
    );
    if !intact {
        tracing::warn!(path = %image.path.display(), "a cached image is damaged, it is made again");
    }
    Ok(intact)
}

fn make_folder(root: &Path) -> Result<(), ImageError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.map_err(|source| ImageError::Cache { action: "create folder", path: root.to_owned(), source })
}

/// An import on its way. It is removed unless it is kept.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn create(root: &Path, identity: &ImageIdentity) -> Result<Self, ImageError> {
        loop {
            let path = root.join(format!("{}.{}.part", identity.digest.hex(), unique()));
            let cache = |source| ImageError::Cache { action: "create", path: path.clone(), source };
            let mut options = File::options();
            let file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(cache)?;
            file.lock().map_err(cache)?;
            // Between the two calls another import may have taken it for a left-over.
            if file.metadata().map_err(cache)?.nlink() > 0 {
                return Ok(Self { path, file });
            }
        }
    }

    /// Writes `bytes` at the place `at`; zeros stay holes.
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), ImageError> {
        for (index, block) in bytes.chunks(HOLE).enumerate() {
            if *block != ZEROS[..block.len()] {
                let place = at + (index * HOLE) as u64;
                self.file.write_all_at(block, place).map_err(self.failed("write"))?;
            }
        }
        Ok(())
    }

    /// Gives it its final size and name, durably.
    fn keep_as(self, path: &Path, size: u64) -> Result<(), ImageError> {
        self.file.set_len(size).map_err(self.failed("write"))?;
        self.file.set_permissions(Permissions::from_mode(0o444)).map_err(self.failed("write"))?;
        self.file.sync_data().map_err(self.failed("write"))?;
        fs::rename(&self.path, path).map_err(self.failed("rename"))?;
        let folder = path.parent().unwrap_or(path);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| ImageError::Cache {
            action: "write",
            path: folder.to_owned(),
            source,
        })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> ImageError {
        let path = self.path.clone();
        move |source| ImageError::Cache { action, path, source }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After keep_as the name is free: a part's name is never used twice.
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a broken import stays");
        }
    }
}

#[cfg(test)]
mod tests;
