//! Carries out one step through a provider.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vmctl_providers::capacity::{allocated, tell_full};
use vmctl_providers::image::{FetchProgress, Fetched, ImageCache};
use vmctl_providers::provision::{OutputLine, ProvisionStep};
use vmctl_providers::{
    Capacity, Custody, Error, FoundVolume, GuestAccess, Hypervisor, Inspect, Keep, Preflight, Readiness,
    Reconfigure, VmHandle, VmSpec, Volumes,
};

use super::downloads::Downloads;
use crate::failpoints;
use crate::plan::PlannedImage;

/// Everything that a plan needs of a hypervisor.
pub trait Host:
    Hypervisor + Inspect + Reconfigure + Preflight + GuestAccess + Keep + Custody + Volumes + Capacity + 'static
{
}

impl<T> Host for T where
    T: Hypervisor
        + Inspect
        + Reconfigure
        + Preflight
        + GuestAccess
        + Keep
        + Custody
        + Volumes
        + Capacity
        + 'static
{
}

/// One step with all it needs.
#[derive(Debug)]
pub(super) enum Effect {
    FetchImage(PlannedImage),
    Prepare(Box<VmSpec>),
    Update(Arc<VmHandle>, Box<VmSpec>),
    /// Only the record changes.
    Remember,
    Start(Arc<VmHandle>),
    Resume(Arc<VmHandle>),
    Ready(Arc<VmHandle>, Readiness),
    Provision(Arc<VmHandle>, Box<ProvisionStep>),
    Keep(Arc<VmHandle>),
    Suspend(Arc<VmHandle>),
    Stop(Arc<VmHandle>),
    Destroy(Arc<VmHandle>),
    Forget(Arc<VmHandle>),
    RemoveVolume(FoundVolume),
}

/// What came of a step, besides its having been done.
#[derive(Debug)]
pub(super) enum Product {
    /// A machine's new handle, where it has one.
    Machine(Option<Box<VmHandle>>),
    /// An image from the network.
    Image(Box<Fetched>),
    /// A template, or why there is none.
    Kept(Option<Error>),
}

/// What a step reaches besides its machine.
pub(super) struct Reach<'a> {
    pub(super) images: &'a ImageCache,
    pub(super) downloads: &'a dyn Downloads,
    /// Told how far a download is.
    pub(super) progress: &'a (dyn Fn(FetchProgress) + Send + Sync),
    /// Ends a download.
    pub(super) cancel: &'a CancellationToken,
    pub(super) output: &'a mpsc::Sender<OutputLine>,
    pub(super) stop_timeout: Option<Duration>,
}

/// Runs the effect to its end.
pub(super) async fn run<H: Host>(host: &H, effect: Effect, reach: Reach<'_>) -> Result<Product, Error> {
    let Reach { images, downloads, progress, cancel, output, stop_timeout } = reach;
    let machine = match effect {
        Effect::FetchImage(PlannedImage::Remote(fetch)) => {
            let fetched = downloads.fetch(&fetch.remote, progress, cancel).await;
            return fetched
                .map(|fetched| Product::Image(Box::new(fetched)))
                .map_err(|error| tell_full(Error::from(error), images.folder(), fetch.size.unwrap_or(0)));
        }
        Effect::FetchImage(PlannedImage::Local(image)) => {
            let images = images.clone();
            let (source, folder) = (image.source.clone(), images.folder().to_owned());
            let import = move || images.import(&image.source, &image.identity);
            match tokio::task::spawn_blocking(import).await {
                Ok(result) => result.map(|_| None).map_err(|error| {
                    let needed = allocated(&source).unwrap_or(0);
                    tell_full(Error::from(error), &folder, needed)
                }),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // It never began, because the program is about to end: nobody waits for this any more.
                    Err(_cancelled) => std::future::pending().await,
                },
            }
        }
        Effect::Prepare(spec) => host.prepare(&spec).await.map(Some),
        Effect::Update(vm, spec) => host.reconfigure(&vm, &spec).await.map(Some),
        Effect::Remember => Ok(None),
        Effect::Start(vm) => host.start(&vm).await.map(Some),
        Effect::Resume(vm) => host.resume(&vm).await.map(Some),
        Effect::Ready(vm, readiness) => host.wait_ready(&vm, &readiness).await.map(|()| None),
        Effect::Provision(vm, step) => host.provision(&vm, &step, output).await.map(|()| None),
        Effect::Keep(vm) => {
            return match host.keep(&vm).await {
                // The machine stands still.
                Err(error @ Error::NotUndone { .. }) => Err(error),
                // It is as it is to be, with a template or without.
                kept => Ok(Product::Kept(kept.err())),
            };
        }
        Effect::Suspend(vm) => host.suspend(&vm).await.map(Some),
        Effect::Stop(vm) => {
            host.stop(&vm, stop_timeout.unwrap_or_else(failpoints::stop_timeout)).await.map(Some)
        }
        Effect::Destroy(vm) => host.destroy(Arc::unwrap_or_clone(vm)).await.map(|()| None),
        Effect::Forget(vm) => host.release(&vm).await.map(|()| None),
        Effect::RemoveVolume(volume) => host.remove_volume(&volume).await.map(|()| None),
    };
    machine.map(|handle| Product::Machine(handle.map(Box::new)))
}
