//! Fetching: from a server into the cache.

use tokio_util::sync::CancellationToken;

use super::{FetchOptions, FetchProgress, Fetched, RemoteImage, Upstream};
use crate::image::{ImageCache, ImageError, ImageIdentity};
use crate::spec::{Digest, DiskImage};

impl ImageCache {
    /// What the bytes with the digest `sha256`, as they lay on a server, became, if they were fetched and the cache still
    /// has it. Whether the cached file is sound, [`ImageCache::fetch`] finds out.
    pub fn known(&self, _sha256: &Digest) -> Option<(ImageIdentity, DiskImage)> {
        None
    }

    /// Makes sure that the image is in the cache, and downloads it if it is not. Idempotent; of several processes that
    /// want the same image one downloads it, and the others wait. What a try brought is kept for the next one.
    pub async fn fetch(
        &self,
        remote: &RemoteImage,
        _options: &FetchOptions,
        _progress: &(dyn Fn(FetchProgress) + Send + Sync),
        _cancel: &CancellationToken,
    ) -> Result<Fetched, ImageError> {
        Err(ImageError::NotYet { url: remote.url.clone() })
    }

    /// Asks the server about the image at `url`, without downloading it.
    pub async fn upstream(&self, url: &str, _options: &FetchOptions) -> Result<Upstream, ImageError> {
        Err(ImageError::NotYet { url: url.to_owned() })
    }
}
