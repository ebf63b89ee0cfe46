//! What became of bytes that were fetched: from their digest to what lies in the cache.
//!
//! ```text
//! images/.fetched/<digest of the bytes>.json   what they became
//! images/.fetched/url-<digest of it>.json      which bytes a URL gave last
//! images/.pinned/<digest of its path>.json     a VMFile whose lock file pins images
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::remote::Upstream;
use super::{ImageCache, ImageIdentity, is_hex};
use crate::spec::{Digest, DiskImage};

const VERSION: u32 = 1;

/// What bytes of a server became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    version: u32,
    /// Digest of the bytes as they came.
    pub(super) sha256: Digest,
    /// Where from, without login and query.
    pub(super) url: String,
    /// When.
    pub(super) at: Timestamp,
    /// What the server said.
    pub(super) upstream: Upstream,
    /// What they became.
    pub(super) identity: ImageIdentity,
    /// Length of the cached file.
    pub(super) length: u64,
}

/// A VMFile beside which a lock file pins images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PinnedFor {
    version: u32,
    vmfile: PathBuf,
}

/// Which bytes a URL gave last. The URL itself may hold a login, and is not written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    version: u32,
    pub(super) sha256: Digest,
    pub(super) upstream: Upstream,
}

impl ImageCache {
    /// What the bytes with the digest `sha256`, as they lay on a server, became, if they were fetched and the cache still
    /// has it. Whether the cached file is sound, [`ImageCache::fetch`] finds out.
    pub fn known(&self, sha256: &Digest) -> Option<(ImageIdentity, DiskImage)> {
        let entry = self.entry(sha256)?;
        let image = self.cached(&entry.identity);
        let is_there =
            fs::metadata(&image.path).is_ok_and(|found| found.is_file() && found.len() == entry.length);
        is_there.then_some((entry.identity, image))
    }

    /// What was written down about fetched bytes.
    pub(super) fn entry(&self, sha256: &Digest) -> Option<Entry> {
        let entry: Entry = read(&self.fetched().join(format!("{}.json", sha256.hex())))?;
        (entry.version == VERSION && entry.sha256 == *sha256 && is_hex(entry.identity.digest.hex()))
            .then_some(entry)
    }

    /// All that was written down about fetched bytes.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let files = fs::read_dir(self.fetched()).into_iter().flatten().flatten();
        let digest = |path: &Path| {
            let stem = path.file_stem()?.to_str()?.to_owned();
            is_hex(&stem).then(|| Digest::from_hex(&stem))
        };
        files.filter_map(|file| self.entry(&digest(&file.path())?)).collect()
    }

    /// Writes down what bytes became.
    pub(super) fn set_entry(
        &self,
        sha256: &Digest,
        url: &str,
        upstream: &Upstream,
        identity: &ImageIdentity,
        length: u64,
    ) -> io::Result<()> {
        let entry = Entry {
            version: VERSION,
            sha256: sha256.clone(),
            url: super::remote::shown(url),
            at: Timestamp::now(),
            upstream: upstream.clone(),
            identity: identity.clone(),
            length,
        };
        super::cache::write_json(&self.fetched().join(format!("{}.json", sha256.hex())), &entry)
    }

    /// Which bytes `url` gave last.
    pub(super) fn last(&self, url: &str) -> Option<Last> {
        read(&self.last_path(url)).filter(|last: &Last| last.version == VERSION)
    }

    /// Writes down which bytes `url` gave.
    pub(super) fn set_last(&self, url: &str, sha256: &Digest, upstream: &Upstream) -> io::Result<()> {
        let last = Last { version: VERSION, sha256: sha256.clone(), upstream: upstream.clone() };
        super::cache::write_json(&self.last_path(url), &last)
    }

    /// Writes down that the lock file beside `vmfile` pins images, so that whoever makes room knows of it.
    pub fn remember_pins(&self, vmfile: &Path) -> io::Result<()> {
        let path =
            self.pinned().join(format!("{}.json", Digest::of(vmfile.as_os_str().as_encoded_bytes()).hex()));
        if path.exists() {
            return Ok(());
        }
        super::cache::write_json(&path, &PinnedFor { version: VERSION, vmfile: vmfile.to_owned() })
    }

    /// The VMFiles that were written down so.
    pub fn pinned_for(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.pinned()).into_iter().flatten().flatten();
        let notes = files.filter_map(|file| read::<PinnedFor>(&file.path()));
        notes.filter(|note| note.version == VERSION).map(|note| note.vmfile).collect()
    }

    /// The folder of notes about lock files.
    pub(super) fn pinned(&self) -> PathBuf {
        self.folder().join(".pinned")
    }

    /// The folder of what was fetched.
    pub(super) fn fetched(&self) -> PathBuf {
        self.folder().join(".fetched")
    }

    fn last_path(&self, url: &str) -> PathBuf {
        self.fetched().join(format!("url-{}.json", Digest::of(url).hex()))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = fs::read(path).ok()?;
    serde_json::from_slice(&text).inspect_err(|error| {
        tracing::warn!(path = %path.display(), %error, "a note of the image cache is damaged, it is ignored");
    }).ok()
}
