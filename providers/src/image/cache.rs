//! The cache: one immutable file per digest under one folder.
//!
//! ```text
//! images/<sha256>.qcow2           an image, mode 0444, never written again
//! images/<sha256>.<pid>.<n>.part  an import on its way, locked by its process
//! images/.identities/<hash>.json  what a source file was found to be
//! images/.downloads/              downloads and conversions on their way
//! images/.fetched/                what downloads became
//! images/.pinned/                 VMFiles whose lock files pin images
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::adopt;
use super::error::ImageError;
use super::file::{Stamp, examine, open};
use super::sparse;
use crate::failpoints::image_failpoint;
use crate::spec::{Digest, DiskImage, ImageFormat};

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

    /// Reads `source`, refuses what is no self-contained image, and tells what it is; of what is compressed or in a format
    /// of other programs, what it becomes: that is made in the cache, once.
    ///
    /// The digest is remembered by the file's device, inode, size and times, so that a second call is quick.
    pub fn identify(&self, source: &Path) -> Result<ImageIdentity, ImageError> {
        self.identify_file(source).map(|(identity, _)| identity)
    }

    /// The same, with the digest of the file as it lies there: another one than that of what it becomes, where it is
    /// compressed or in a format of other programs.
    pub fn identify_file(&self, source: &Path) -> Result<(ImageIdentity, Digest), ImageError> {
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
        if self.is_intact(&image, source)? {
            return Ok(image);
        }
        make_folder(&self.root)?;
        self.sweep();
        let (file, stamp) = open(source)?;
        if adopt::is_needed(&file, source)? {
            return match adopt::adopt(self, &file, source, &stamp)? {
                (found, _) if found == *identity => Ok(image),
                _ => Err(ImageError::Changed { path: source.to_owned() }),
            };
        }
        let part = Part::create(&self.root, identity)?;
        let found = examine(file, source, &stamp, |at, bytes| {
            sparse::write_at(&part.file, at, bytes).map_err(part.failed("write"))
        })?;
        if found != *identity {
            return Err(ImageError::Changed { path: source.to_owned() });
        }
        image_failpoint!("fetch-image.cache.copied", &part.path);
        part.keep_as(&image.path, stamp.size)?;
        image_failpoint!("fetch-image.cache.renamed", &image.path);
        Ok(image)
    }

    fn identify_at(&self, source: &Path, now: SystemTime) -> Result<(ImageIdentity, Digest), ImageError> {
        let (file, stamp) = open(source)?;
        let is_made = adopt::is_needed(&file, source)?;
        if let Some(Memo { identity, sha256, .. }) = self.recall(&stamp) {
            match sha256 {
                Some(sha256) if self.has(&self.cached(&identity)) => return Ok((identity, sha256)),
                // What it became is gone, or an older vmctl did not note the file's own digest.
                _ if is_made => {}
                _ => return Ok((identity.clone(), identity.digest)),
            }
        }
        let (identity, sha256) = match is_made {
            true => adopt::adopt(self, &file, source, &stamp)?,
            false => {
                let identity = examine(file, source, &stamp, |_, _| Ok(()))?;
                (identity.clone(), identity.digest)
            }
        };
        if stamp.is_settled(now) {
            self.remember(&stamp, &identity, is_made.then_some(&sha256));
        }
        Ok((identity, sha256))
    }

    fn memo(&self, stamp: &Stamp) -> PathBuf {
        let name = Digest::of(format!("{stamp:?}"));
        self.root.join(".identities").join(format!("{}.json", name.hex()))
    }

    /// What was remembered for `stamp`. A memo that cannot be used only costs time.
    fn recall(&self, stamp: &Stamp) -> Option<Memo> {
        let path = self.memo(stamp);
        let text = fs::read(&path).ok()?;
        match serde_json::from_slice::<Memo>(&text) {
            Ok(memo) if memo.version == Memo::VERSION && memo.stamp == *stamp && memo.is_sound() => {
                Some(memo)
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

    /// Gives a file of the cache's folder its final name, durably. It is `identity` and has `length` bytes.
    pub(super) fn place(
        &self,
        from: &Path,
        identity: &ImageIdentity,
        length: u64,
    ) -> Result<DiskImage, ImageError> {
        let image = self.cached(identity);
        self.sweep();
        // A machine may run on the file that is there: the same bytes are not given to it a second time.
        if self.has(&image) && self.identify(&image.path).is_ok_and(|there| there == *identity) {
            return Ok(image);
        }
        let failed = |action| {
            let path = from.to_owned();
            move |source| ImageError::Cache { action, path, source }
        };
        let file = File::options().read(true).write(true).open(from).map_err(failed("open"))?;
        give_name(&file, from, &image.path, length)?;
        image_failpoint!("fetch-image.download.placed", &image.path);
        // It was digested on its way here, and nobody writes to it any more.
        match file.metadata() {
            Ok(metadata) => self.remember(&Stamp::of(&metadata), identity, None),
            Err(error) => tracing::debug!(path = %image.path.display(), %error, "not remembered"),
        }
        Ok(image)
    }

    /// A cached file whose bytes are `sha256`, wherever they came from.
    pub(super) fn as_it_is(&self, sha256: &Digest) -> Option<(ImageIdentity, DiskImage)> {
        [ImageFormat::Qcow2, ImageFormat::Raw].into_iter().find_map(|format| {
            let path = self.root.join(format!("{}.{format}", sha256.hex()));
            let identity = path.is_file().then(|| self.identify(&path).ok()).flatten()?;
            (identity.digest == *sha256).then(|| (identity.clone(), self.cached(&identity)))
        })
    }

    fn remember(&self, stamp: &Stamp, identity: &ImageIdentity, sha256: Option<&Digest>) {
        let path = self.memo(stamp);
        let (stamp, identity, sha256) = (stamp.clone(), identity.clone(), sha256.cloned());
        let memo = Memo { version: Memo::VERSION, stamp, identity, sha256 };
        if let Err(error) = write_json(&path, &memo) {
            tracing::debug!(path = %path.display(), %error, "an image's digest is not remembered");
        }
    }

    /// Whether the cache holds `image` already. Its size is compared with its source's; where they differ, or the source
    /// is gone, one of the two was tampered with or replaced, or the image was made of its source, and the digest decides.
    fn is_intact(&self, image: &DiskImage, source: &Path) -> Result<bool, ImageError> {
        let Ok(held) = fs::metadata(&image.path) else { return Ok(false) };
        if fs::metadata(source).is_ok_and(|source| source.len() == held.len()) {
            return Ok(true);
        }
        let is_intact = self.identify(&image.path).is_ok_and(|found| found.digest == image.digest);
        if !is_intact {
            tracing::warn!(path = %image.path.display(), "a cached image is damaged, it is made again");
        }
        Ok(is_intact)
    }

    /// Files that imports and notes left behind whose processes died, each with its lock.
    pub(super) fn orphans(&self) -> impl Iterator<Item = (PathBuf, File)> {
        let notes = [self.root.join(".identities"), self.fetched(), self.pinned()];
        orphans(&self.root, "part").chain(notes.into_iter().flat_map(|folder| orphans(&folder, "new")))
    }

    /// Removes them. A lock is kept until its file is gone: who waits for it finds its file removed.
    pub(super) fn sweep(&self) {
        for (path, _lock) in self.orphans() {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(path = %path.display(), %error, "an orphan stays");
            }
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Memo {
    version: u32,
    stamp: Stamp,
    identity: ImageIdentity,
    /// Digest of the file itself, where it becomes another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
}

impl Memo {
    const VERSION: u32 = 2;

    /// Whether the identity can be one: its digest becomes a file name.
    fn is_sound(&self) -> bool {
        super::is_hex(self.identity.digest.hex()) && self.identity.virtual_size > 0
    }
}

/// Writes a note of the cache, whole or not at all.
pub(super) fn write_json(path: &Path, note: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let (draft, mut file) = create_locked(|| path.with_extension(format!("{}.new", unique())))?;
    let written = file.write_all(&serde_json::to_vec(note)?).and_then(|()| {
        fail::fail_point!("fetch-image.download.note-drafted", |errno| Err(crate::failpoints::answer(errno)));
        fs::rename(&draft, path)
    });
    written.inspect_err(|_| {
        // What stays is an orphan.
        let _ = fs::remove_file(&draft);
    })
}

/// Makes a file under a name that nobody uses, and holds its lock as long as it is open: what has this ending and no
/// lock is an orphan.
fn create_locked(name: impl Fn() -> PathBuf) -> io::Result<(PathBuf, File)> {
    loop {
        let path = name();
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.lock()?;
        // Between the two calls somebody may have taken it for an orphan.
        if file.metadata()?.nlink() > 0 {
            return Ok((path, file));
        }
    }
}

/// Files of `folder` with this ending that nobody holds the lock of, with their locks.
fn orphans(folder: &Path, ending: &'static str) -> impl Iterator<Item = (PathBuf, File)> + use<> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    files.filter(move |path| path.extension().is_some_and(|found| found == ending)).filter_map(|path| {
        let file = File::open(&path).ok()?;
        file.try_lock().is_ok().then_some((path, file))
    })
}

/// A word that no other import or memo on this host uses at this time.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
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
        let made = create_locked(|| root.join(format!("{}.{}.part", identity.digest.hex(), unique())));
        let failed = |source| ImageError::Cache { action: "create a file in", path: root.to_owned(), source };
        made.map(|(path, file)| Self { path, file }).map_err(failed)
    }

    /// Gives it its final size and name, durably.
    fn keep_as(self, path: &Path, size: u64) -> Result<(), ImageError> {
        give_name(&self.file, &self.path, path, size)
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> ImageError {
        let path = self.path.clone();
        move |source| ImageError::Cache { action, path, source }
    }
}

/// Gives `file`, which is at `from`, its final size, mode and name, durably.
fn give_name(file: &File, from: &Path, to: &Path, size: u64) -> Result<(), ImageError> {
    let failed = |action: &'static str| {
        let path = from.to_owned();
        move |source| ImageError::Cache { action, path, source }
    };
    file.set_len(size).map_err(failed("write"))?;
    file.set_permissions(Permissions::from_mode(0o444)).map_err(failed("write"))?;
    file.sync_data().map_err(failed("write"))?;
    fs::rename(from, to).map_err(failed("rename"))?;
    let folder = to.parent().unwrap_or(to);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| ImageError::Cache {
        action: "write",
        path: folder.to_owned(),
        source,
    })
}

impl Drop for Part {
    fn drop(&mut self) {
        // After keep_as the name is free: a part's name is never used twice.
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a broken import stays");
        }
    }
}

#[cfg(test)]
mod tests;
