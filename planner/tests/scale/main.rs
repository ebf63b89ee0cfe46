//! The executor with ten thousand steps: order, limits and memory, on a host that has nothing but numbers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common/disk.rs"]
mod disk;
mod flood;
mod host;
mod looks;
mod shapes;

use std::sync::Arc;

use tempfile::TempDir;
use uuid::Uuid;
use vmctl_planner::apply::{CacheDownloads, Control, EventReceiver, Executor, Limits, Report, events};
use vmctl_planner::desired::{Desired, DesiredImage, DesiredVm, ready_at_login};
use vmctl_planner::{Inputs, Observed, Options, Plan};
use vmctl_providers::image::{FetchOptions, ImageCache};
use vmctl_providers::{BackendTag, Name, SshConfig};
use vmctl_state::{MemoryStore, Store};

use host::NumbersHost;

/// Machines that come to 10,000 steps: each is prepared, started and awaited.
const MACHINES: usize = 3_333;

const LIMITS: Limits = Limits { steps: 10, boots: 4, images: 2, downloads: 3, downloads_per_host: 2 };

/// A state, a host, and an image for all machines.
struct World {
    _folder: TempDir,
    images: ImageCache,
    image: DesiredImage,
    store: MemoryStore,
    host: Arc<NumbersHost>,
}

impl World {
    fn new(host: NumbersHost) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = disk::write_smallest(folder.path());
        let images = ImageCache::new(folder.path().join("images"));
        let image = DesiredImage::Local { identity: images.identify(&source).unwrap(), source };
        let store = MemoryStore::new(Uuid::from_u128(7));
        Self { _folder: folder, images, image, store, host: Arc::new(host) }
    }

    fn vm(&self, number: usize) -> DesiredVm {
        let login = SshConfig { user: "vm".to_owned(), private_key: None };
        DesiredVm {
            backend: BackendTag::Noop,
            image: Some(self.image.clone()),
            ready: ready_at_login(Some(&login)),
            ssh: Some(login),
            ..DesiredVm::new(name(number))
        }
    }

    /// What is to be done to come from nothing to `vms`.
    fn plan(&self, vms: impl IntoIterator<Item = DesiredVm>) -> Plan {
        let project: Name = "scale".parse().unwrap();
        let vms = vms.into_iter().map(|vm| (vm.name.clone(), vm)).collect();
        let desired = Desired { vms, ..Desired::new(project.clone()) };
        Plan::new(Inputs {
            project: &project,
            desired: Some(&desired),
            recorded: &self.store.snapshot().unwrap(),
            observed: &Observed::default(),
            images: &self.images,
            options: &Options::default(),
        })
        .unwrap()
    }

    /// Carries the plan out, and keeps what was told.
    async fn apply(&mut self, plan: &Plan) -> (Report, EventReceiver) {
        let (sender, receiver) = events();
        let host = Arc::clone(&self.host);
        let images = self.images.clone();
        let downloads = Arc::new(CacheDownloads::new(images.clone(), FetchOptions::default()));
        let executor = Executor::new(host, images, downloads, LIMITS, Control::default(), sender);
        (executor.apply(plan, &mut self.store).await.unwrap(), receiver)
    }
}

fn name(number: usize) -> Name {
    format!("m{number}").parse().unwrap()
}
