//! Images from the network: what is planned before they are here, and what an apply does while they come.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vmctl_planner::apply::{Control, Downloads, Event};
use vmctl_planner::desired::{Desired, DesiredImage, DesiredVm};
use vmctl_planner::pins::{Pin, PinnedBy, named_urls, to_lock};
use vmctl_planner::{Action, StepKind};
use vmctl_providers::Digest;
use vmctl_providers::image::{
    FetchPhase, FetchProgress, Fetched, ImageCache, ImageError, RemoteImage, Upstream,
};
use vmctl_state::{Address, Store};

use super::world::{World, desired, image_path};

/// Servers of which each URL has one image of this host, brought when a permit allows it.
#[derive(Debug)]
struct Servers {
    images: ImageCache,
    files: BTreeMap<String, std::path::PathBuf>,
    /// One for each download that may end.
    permits: Semaphore,
    going: Mutex<BTreeMap<String, usize>>,
    most: AtomicUsize,
    most_of_one: AtomicUsize,
    begun: Semaphore,
}

impl Servers {
    fn new(world: &World, urls: &[&str]) -> Arc<Self> {
        let file = image_path(world.folder.path(), 0);
        Arc::new(Self {
            images: world.images.clone(),
            files: urls.iter().map(|url| ((*url).to_owned(), file.clone())).collect(),
            permits: Semaphore::new(0),
            going: Mutex::default(),
            most: AtomicUsize::new(0),
            most_of_one: AtomicUsize::new(0),
            begun: Semaphore::new(0),
        })
    }

    async fn bring(
        &self,
        remote: &RemoteImage,
        progress: &(dyn Fn(FetchProgress) + Send + Sync),
        cancel: &CancellationToken,
    ) -> Result<Fetched, ImageError> {
        let host = remote.url.split('/').nth(2).unwrap_or_default().to_owned();
        {
            let mut going = self.going.lock().unwrap();
            *going.entry(host.clone()).or_default() += 1;
            self.most.fetch_max(going.values().sum(), Ordering::SeqCst);
            self.most_of_one.fetch_max(going[&host], Ordering::SeqCst);
        }
        self.begun.add_permits(1);
        progress(FetchProgress { received: 1, total: Some(512), phase: FetchPhase::Downloading });
        let failed = || ImageError::NotAFile { path: remote.url.clone().into(), what: "gone" };
        let ended = tokio::select! {
            permit = self.permits.acquire() => { permit.unwrap().forget(); Ok(()) }
            () = cancel.cancelled() => Err(failed()),
        };
        *self.going.lock().unwrap().get_mut(&host).unwrap() -= 1;
        ended?;
        let file = self.files.get(&remote.url).ok_or_else(failed)?;
        let identity = self.images.identify(file)?;
        if remote.sha256.as_ref().is_some_and(|asked| *asked != identity.digest) {
            return Err(failed());
        }
        let image = self.images.import(file, &identity)?;
        let (sha256, upstream) =
            (identity.digest.clone(), Upstream { size: Some(512), ..Upstream::default() });
        Ok(Fetched { sha256, upstream, identity, image, from_cache: false })
    }
}

impl Downloads for Servers {
    fn fetch<'a>(
        &'a self,
        image: &'a RemoteImage,
        progress: &'a (dyn Fn(FetchProgress) + Send + Sync),
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Fetched, ImageError>> {
        self.bring(image, progress, cancel).boxed()
    }
}

fn remote(world: &World, name: &str, url: &str, sha256: Option<Digest>) -> DesiredVm {
    let pin = sha256.clone().map(|sha256| Pin {
        sha256,
        image: None,
        upstream: Upstream::default(),
        by: PinnedBy::Vmfile,
    });
    let image = DesiredImage::Remote { url: url.to_owned(), name: None, sha256, pin };
    DesiredVm { image: Some(image), ..world.vm(name) }
}

fn of(vms: impl IntoIterator<Item = DesiredVm>) -> Desired {
    desired(vms)
}

const URL: &str = "https://one.example/disk.img";

#[tokio::test(flavor = "multi_thread")]
async fn image_is_known_after_apply_then_kept_and_pinned() {
    let mut world = World::new();
    let servers = Servers::new(&world, &[URL, "https://two.example/same.img"]);
    servers.permits.add_permits(10);
    world.downloads = Arc::clone(&servers) as _;
    let goal = of([remote(&world, "a", URL, None), remote(&world, "b", URL, None)]);

    let plan = world.plan(Some(&goal)).await;
    let change = plan.effective().next().unwrap();
    assert!(change.known_after_apply.iter().any(|word| word == "image"), "{change:?}");
    let fetches = plan.graph.steps().filter(|(_, step)| step.kind == StepKind::FetchImage);
    let labels: Vec<_> = fetches.map(|(_, step)| step.label.clone().unwrap()).collect();
    assert_eq!(labels, [URL], "one download for both");
    let report = world.carry_out(&plan).await;
    assert!(report.is_complete(), "{report:?}");
    let lock = to_lock(&plan.pins, &report.fetched);
    assert_eq!(lock.keys().collect::<Vec<_>>(), [URL]);
    assert_eq!(named_urls(&goal).into_iter().collect::<Vec<_>>(), [URL]);

    // Without a lock file nothing is made anew: the records say what was taken.
    let again = world.plan(Some(&goal)).await;
    assert!(again.is_empty(), "{:#?}", again.effective().collect::<Vec<_>>());
    assert_eq!(again.pins[0].by, Some(PinnedBy::Record));
    assert_eq!(to_lock(&again.pins, &BTreeMap::new())[URL].image, lock[URL].image, "a lost lock comes back");

    // The same bytes from elsewhere are no change; other bytes are one.
    let same = lock[URL].sha256.clone();
    let moved =
        of([remote(&world, "a", "https://two.example/same.img", Some(same)), remote(&world, "b", URL, None)]);
    let actions: Vec<_> = world.plan(Some(&moved)).await.changes.iter().map(|change| change.action).collect();
    assert_eq!(actions, [Action::Update, Action::NoOp]);
    let other = of([remote(&world, "a", URL, Some(Digest::of("other"))), remote(&world, "b", URL, None)]);
    let plan = world.plan(Some(&other)).await;
    assert_eq!(plan.changes[0].action, Action::Replace);
    // The download fails: the machine that it was for is as it was.
    let report = world.carry_out(&plan).await;
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert!(report.done.is_empty(), "nothing was taken down for an image that did not come");
    assert!(world.plan(Some(&goal)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_are_few_and_hold_no_other_machine_up() {
    let mut world = World::new();
    let urls: Vec<String> = (0..6)
        .map(|number| format!("https://{}.example/{number}.img", if number < 4 { "one" } else { "two" }))
        .collect();
    let servers = Servers::new(&world, &urls.iter().map(String::as_str).collect::<Vec<_>>());
    world.downloads = Arc::clone(&servers) as _;
    let mut vms: Vec<_> = urls
        .iter()
        .enumerate()
        .map(|(number, url)| remote(&world, &format!("r{number}"), url, None))
        .collect();
    vms.push(world.vm("local"));
    let goal = of(vms);
    let plan = world.plan(Some(&goal)).await;
    let (executor, mut events) = world.executor(Control::default());
    let watching = {
        let (servers, plan) = (Arc::clone(&servers), plan.clone());
        async move {
            let mut progress = 0;
            while let Some(event) = events.recv().await {
                progress += usize::from(matches!(event, Event::Progress { .. }));
                // The machine of this host runs before any download ends.
                if let Event::Done { id, .. } = event
                    && plan.graph.step(id).address == Address::vm("local")
                    && plan.graph.step(id).kind == StepKind::Ready
                {
                    servers.permits.add_permits(urls.len());
                }
            }
            progress
        }
    };
    let (report, progress) = tokio::join!(
        async move {
            let report = executor.apply(&plan, &mut world.store).await.unwrap();
            drop(executor);
            report
        },
        watching
    );
    assert!(report.is_complete(), "{report:?}");
    assert!(progress > 0);
    assert_eq!(servers.most_of_one.load(Ordering::SeqCst), 2);
    assert_eq!(servers.most.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupt_ends_a_download_and_the_next_apply_goes_on() {
    let mut world = World::new();
    let servers = Servers::new(&world, &[URL]);
    world.downloads = Arc::clone(&servers) as _;
    let goal = of([remote(&world, "a", URL, None)]);
    let plan = world.plan(Some(&goal)).await;
    let control = Control::default();
    let (executor, _events) = world.executor(control.clone());
    let asking = async {
        servers.begun.acquire().await.unwrap().forget();
        control.drain.cancel();
    };
    let (report, ()) = tokio::join!(executor.apply(&plan, &mut world.store), asking);
    let report = report.unwrap();
    assert!(report.interrupted && report.failed.is_empty() && report.abandoned.is_empty(), "{report:?}");
    assert_eq!(report.given_up.len(), 1);
    assert!(world.store.snapshot().unwrap().open.is_empty(), "nothing is left open in the journal");
    servers.permits.add_permits(1);
    world.converge(Some(&goal)).await;
}
