//! What was downloaded of an image so far: a file that outlives the process, its lock, and a note beside it.
//!
//! ```text
//! images/.downloads/<key>.part      bytes as they came; whoever fetches holds its lock
//! images/.downloads/<key>.json      whose bytes they are
//! images/.downloads/<key>.content   what they unpack to; made anew by every process
//! images/.downloads/<key>.qcow2     what that is converted to; likewise
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Upstream;
use crate::failpoints::image_failpoint;
use crate::image::ImageError;

/// A download on its way.
#[derive(Debug)]
pub(in crate::image) struct Part {
    stem: PathBuf,
    file: File,
}

/// Whose bytes a part holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    version: u32,
    /// What the server said of them.
    pub(super) upstream: Upstream,
    /// The host's boot in which they were written: what was written in another one may not have reached the disk.
    pub(super) boot: Option<String>,
}

impl Note {
    const VERSION: u32 = 1;

    pub(super) fn new(upstream: Upstream) -> Self {
        Self { version: Self::VERSION, upstream, boot: boot() }
    }

    /// Whether the bytes were written in this boot of the host.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot.is_some() && self.boot == boot()
    }
}

fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

impl Part {
    /// Opens the part `key` in `folder` and takes its lock; `None` while another process has it.
    pub(super) fn open(folder: &Path, key: &str) -> Result<Option<Self>, ImageError> {
        Self::take(folder, key, |file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        })
    }

    /// The part `key` in `folder`, if there is one that nobody works on.
    pub(super) fn left(folder: &Path, key: &str) -> Result<Option<Self>, ImageError> {
        match folder.join(key).with_extension("part").exists() {
            true => Self::open(folder, key),
            false => Ok(None),
        }
    }

    /// Opens the part `key` in `folder` and takes its lock, once nobody else has it.
    pub(in crate::image) fn wait(folder: &Path, key: &str) -> Result<Self, ImageError> {
        loop {
            if let Some(part) = Self::take(folder, key, |file| file.lock().map(|()| true))? {
                return Ok(part);
            }
        }
    }

    fn take(
        folder: &Path,
        key: &str,
        lock: impl Fn(&File) -> io::Result<bool>,
    ) -> Result<Option<Self>, ImageError> {
        let cache = |path: &Path, source| ImageError::Cache { action: "open", path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| cache(folder, error))?;
        let stem = folder.join(key);
        let path = stem.with_extension("part");
        loop {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.map_err(|error| cache(&path, error))?;
            if !lock(&file).map_err(|error| cache(&path, error))? {
                return Ok(None);
            }
            // Whoever had the lock may have given the file its final name, or removed it.
            let held = file.metadata().map_err(|error| cache(&path, error))?;
            if fs::symlink_metadata(&path)
                .is_ok_and(|there| there.ino() == held.ino() && there.dev() == held.dev())
            {
                return Ok(Some(Self { stem, file }));
            }
        }
    }

    pub(in crate::image) fn file(&self) -> &File {
        &self.file
    }

    pub(in crate::image) fn path(&self) -> PathBuf {
        self.stem.with_extension("part")
    }

    /// Where what it unpacks to is written.
    pub(in crate::image) fn content(&self) -> PathBuf {
        self.stem.with_extension("content")
    }

    /// Where what it is converted to is written.
    pub(in crate::image) fn converted(&self) -> PathBuf {
        self.stem.with_extension("qcow2")
    }

    /// How many bytes it has.
    pub(super) fn length(&self) -> Result<u64, ImageError> {
        self.file.metadata().map(|found| found.len()).map_err(self.failed("read"))
    }

    /// The note beside it; one that cannot be read is none.
    pub(super) fn note(&self) -> Option<Note> {
        let text = fs::read(self.stem.with_extension("json")).ok()?;
        serde_json::from_slice(&text).ok().filter(|note: &Note| note.version == Note::VERSION)
    }

    /// Writes the note.
    pub(super) fn set_note(&self, note: &Note) -> Result<(), ImageError> {
        let (path, draft) = (self.stem.with_extension("json"), self.stem.with_extension("json.new"));
        let drafted =
            serde_json::to_vec(note).map_err(io::Error::other).and_then(|text| fs::write(&draft, text));
        drafted.map_err(self.failed("write"))?;
        image_failpoint!("fetch-image.download.drafted", draft.clone());
        fs::rename(&draft, &path).map_err(self.failed("write"))?;
        image_failpoint!("fetch-image.download.begun", path);
        Ok(())
    }

    /// Forgets what came so far.
    pub(in crate::image) fn clear(&self) -> Result<(), ImageError> {
        remove(&self.stem.with_extension("json")).map_err(self.failed("write"))?;
        self.file.set_len(0).map_err(self.failed("write"))
    }

    /// Removes what only this process could use.
    pub(super) fn tidy(&self) {
        for path in [self.content(), self.converted(), self.stem.with_extension("json.new")] {
            if let Err(error) = remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a left-over of a download stays");
            }
        }
    }

    /// Removes all of it.
    pub(in crate::image) fn discard(&self) {
        self.tidy();
        for path in [self.stem.with_extension("json"), self.path()] {
            if let Err(error) = remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a left-over of a download stays");
            }
        }
    }

    pub(super) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> ImageError + use<> {
        let path = self.path();
        move |source| ImageError::Cache { action, path, source }
    }
}

/// Removes a file that may be missing.
pub(in crate::image) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
