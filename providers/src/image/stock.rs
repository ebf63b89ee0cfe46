//! What the cache holds, and making room in it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::index::Entry;
use super::{ImageCache, ImageError, header, is_hex, read_at};
use crate::capacity::allocated;
use crate::spec::{Digest, DiskImage, ImageFormat};

/// An image of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedImage {
    /// The file.
    pub image: DiskImage,
    /// Its length in bytes.
    pub length: u64,
    /// Bytes of disk that it takes.
    pub allocated: u64,
    /// Where it came from, as far as that is known, the newest first.
    pub origins: Vec<Origin>,
}

/// Where an image came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Without login and query.
    pub url: String,
    /// Digest of the bytes as they came.
    pub sha256: Digest,
    /// When.
    pub at: jiff::Timestamp,
}

/// What can be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unused {
    /// Images that nobody needs.
    pub images: Vec<CachedImage>,
    /// Files of downloads that nobody works on, with the bytes of disk that they take.
    pub downloads: Vec<(PathBuf, u64)>,
}

impl Unused {
    /// Bytes of disk that removing it frees.
    pub fn bytes(&self) -> u64 {
        let images: u64 = self.images.iter().map(|image| image.allocated).sum();
        images + self.downloads.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }
}

impl ImageCache {
    /// The images in the cache, by digest. Files that are none are left out.
    pub fn list(&self) -> Result<Vec<CachedImage>, ImageError> {
        let entries = self.entries();
        let failed = |source| ImageError::Cache { action: "list", path: self.folder().to_owned(), source };
        let files = match fs::read_dir(self.folder()) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for file in files {
            found.extend(cached_image(&file.map_err(failed)?.path(), &entries));
        }
        found.sort_by(|one, other| one.image.path.cmp(&other.image.path));
        Ok(found)
    }

    /// Removes an image, and what is known of where it came from. One that is not there is removed already.
    ///
    /// Whether a machine needs it, only the caller knows.
    pub fn remove(&self, image: &CachedImage) -> Result<(), ImageError> {
        remove(&image.image.path)?;
        for origin in &image.origins {
            remove(&self.fetched().join(format!("{}.json", origin.sha256.hex())))?;
        }
        Ok(())
    }

    /// What can be removed where only the images `used` are needed.
    pub fn unused(&self, used: &BTreeSet<Digest>) -> Result<Unused, ImageError> {
        let images = self.list()?.into_iter().filter(|image| !used.contains(&image.image.digest)).collect();
        let mut downloads = Vec::new();
        for file in fs::read_dir(self.downloads()).into_iter().flatten().flatten() {
            let path = file.path();
            // The lock of the part stands for all files of a download; where there is none, nobody works on it.
            let part = path.with_extension("part");
            let is_idle = File::open(&part).map_or(true, |part| part.try_lock().is_ok());
            if is_idle {
                let bytes = allocated(&path).unwrap_or(0);
                downloads.push((path, bytes));
            }
        }
        downloads.extend(self.orphans().map(|(path, _lock)| {
            let bytes = allocated(&path).unwrap_or(0);
            (path, bytes)
        }));
        downloads.sort();
        Ok(Unused { images, downloads })
    }

    /// Removes what [`ImageCache::unused`] finds, and returns it.
    pub fn prune(&self, used: &BTreeSet<Digest>) -> Result<Unused, ImageError> {
        let unused = self.unused(used)?;
        for image in &unused.images {
            self.remove(image)?;
        }
        for (path, _) in &unused.downloads {
            // The lock is kept until the file is gone: who waits for it finds its file removed.
            let part = File::open(path.with_extension("part"));
            if part.as_ref().map_or(true, |part| part.try_lock().is_ok()) {
                remove(path)?;
            }
        }
        Ok(unused)
    }
}

fn remove(path: &Path) -> Result<(), ImageError> {
    super::remote::part::remove(path).map_err(|source| ImageError::Cache {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}

fn cached_image(path: &Path, entries: &[Entry]) -> Option<CachedImage> {
    let (stem, end) = (path.file_stem()?.to_str()?, path.extension()?.to_str()?);
    let format = [ImageFormat::Qcow2, ImageFormat::Raw].into_iter().find(|format| format.as_str() == end)?;
    let length = path.metadata().ok().filter(fs::Metadata::is_file)?.len();
    let digest = is_hex(stem).then(|| Digest::from_hex(stem))?;
    let mut origins: Vec<_> = entries
        .iter()
        .filter(|entry| entry.identity.digest == digest)
        .map(|entry| Origin { url: entry.url.clone(), sha256: entry.sha256.clone(), at: entry.at })
        .collect();
    origins.sort_by_key(|origin| std::cmp::Reverse(origin.at));
    let mut head = vec![0; usize::try_from(length).unwrap_or(header::HEAD).min(header::HEAD)];
    read_at(&File::open(path).ok()?, 0, &mut head).ok()?;
    // One that is damaged is listed all the same: it is there, and takes room.
    let virtual_size = header::parse(&head, length).map_or(0, |header| header.virtual_size);
    let image = DiskImage { path: path.to_owned(), format, digest, virtual_size };
    Some(CachedImage { image, length, allocated: allocated(path).unwrap_or(length), origins })
}
