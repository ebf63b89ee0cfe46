//! Disk images: what a file is, and the cache of immutable copies named by digest.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::{Digest, DiskImage, ImageFormat};

/// Why a file cannot serve as a disk image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} `{path}`", path = path.display())]
    Io {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl ImageError {
    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        None
    }
}

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

    /// Reads `source`, refuses what is no self-contained image, and tells what it is.
    ///
    /// The digest is remembered by the file's device, inode, size and times, so that a second call is quick.
    pub fn identify(&self, source: &Path) -> Result<ImageIdentity, ImageError> {
        Err(ImageError::Io {
            action: "read",
            path: source.to_owned(),
            source: std::io::ErrorKind::Unsupported.into(),
        })
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
        self.identify(source).map(|_| self.cached(identity))
    }
}
