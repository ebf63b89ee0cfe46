//! How images come from servers: through the image cache, or, in tests, from nowhere.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use vmctl_providers::image::{
    FetchOptions, FetchPhase, FetchProgress, Fetched, ImageCache, ImageError, RemoteImage,
};

/// How often it is told how far a download is: as often as people read it.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// Brings images from servers.
pub trait Downloads: fmt::Debug + Send + Sync {
    /// Makes sure that `image` is in the cache. Idempotent; when `cancel` fires it ends with an error soon, and what came
    /// until then is kept for the next try.
    fn fetch<'a>(
        &'a self,
        image: &'a RemoteImage,
        progress: &'a (dyn Fn(FetchProgress) + Send + Sync),
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Fetched, ImageError>>;
}

/// Downloads into the image cache.
#[derive(Debug)]
pub struct CacheDownloads {
    images: ImageCache,
    options: FetchOptions,
}

impl CacheDownloads {
    /// Downloads into `images`, by way of `options`.
    pub fn new(images: ImageCache, options: FetchOptions) -> Self {
        Self { images, options }
    }
}

impl Downloads for CacheDownloads {
    fn fetch<'a>(
        &'a self,
        image: &'a RemoteImage,
        progress: &'a (dyn Fn(FetchProgress) + Send + Sync),
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Fetched, ImageError>> {
        self.images.fetch(image, &self.options, progress, cancel).boxed()
    }
}

/// Lets through what people need of a download's progress: every change of what goes on, and of bytes now and then.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Option<(Instant, FetchPhase)>>);

impl Throttle {
    /// Whether `progress`, made at `now`, is to be told.
    pub(super) fn lets_through(&self, progress: &FetchProgress, now: Instant) -> bool {
        // Nothing panics half-way through a change, so what a poisoned lock guards is whole.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = last
            .as_ref()
            .is_none_or(|(at, phase)| now.duration_since(*at) >= TOLD_EVERY || *phase != progress.phase);
        if is_news {
            *last = Some((now, progress.phase.clone()));
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_now_and_then_and_what_goes_on_at_once() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let at = |millis, phase| {
            let progress = FetchProgress { received: millis, total: None, phase };
            throttle.lets_through(&progress, start + Duration::from_millis(millis))
        };
        assert!(at(0, FetchPhase::Downloading));
        assert!(!at(499, FetchPhase::Downloading));
        assert!(at(500, FetchPhase::Downloading));
        assert!(at(501, FetchPhase::Finishing));
    }
}
