//! What the planner's own work takes: reading, deciding, telling and carrying out, on machines that are only counted. No
//! process, no state on a disk, no provider.
//!
//! Each line is one number of machines; what counts is that the machines per second stay the same from line to line. The
//! whole of vmctl beside others is measured by `make bench`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

#[path = "../tests/common/disk.rs"]
mod disk;
#[path = "../tests/scale/host.rs"]
#[expect(dead_code, reason = "tests look at what it counts")]
mod host;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;
use vmctl_planner::apply::{CacheDownloads, Control, Executor, Limits, events};
use vmctl_planner::vmfile::{Given, LoadOptions, load};
use vmctl_planner::{Desired, Inputs, Observed, Options, Plan, PlanDocument, refresh};
use vmctl_providers::image::{FetchOptions, ImageCache};
use vmctl_state::{MemoryStore, Snapshot, Store};

use host::NumbersHost;

/// Machines.
const COUNTS: [usize; 3] = [100, 1_000, 10_000];

/// As many steps at once as `apply` allows by itself.
const LIMITS: Limits = Limits { steps: 10, boots: 4, images: 2, downloads: 3, downloads_per_host: 2 };

fn main() {
    divan::main();
}

/// A VMFile, and what is recorded of its machines.
struct World {
    _folder: TempDir,
    vmfile: PathBuf,
    images: ImageCache,
    host: Arc<NumbersHost>,
    runtime: Runtime,
}

impl World {
    /// So many machines of five lines each, the last nine tenths of which depend on one of the tenth before theirs.
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        disk::write_smallest(folder.path());
        let layer = count / 10;
        let machine = |number: usize| {
            let needs = number.checked_sub(layer).map(|other| format!("    depends-on \"m{other}\"\n"));
            format!(
                "vm \"m{number}\" {{\n    backend \"noop\"\n    image \"disk.raw\"\n    vcpus 2\n    memory \"2GiB\"\n{}}}\n",
                needs.unwrap_or_default()
            )
        };
        let vmfile = folder.path().join("VMFile.kdl");
        fs::write(&vmfile, (0..count).map(machine).collect::<String>()).unwrap();
        let images = ImageCache::new(folder.path().join("images"));
        let host = Arc::new(NumbersHost::default());
        Self { _folder: folder, vmfile, images, host, runtime: Runtime::new().unwrap() }
    }

    fn load(&self) -> Desired {
        let options = LoadOptions {
            project: Some("engine".parse().unwrap()),
            home: None,
            images: &self.images,
            given: Given::default(),
        };
        load(&self.vmfile, &options).unwrap().desired
    }

    fn plan(&self, desired: &Desired, recorded: &Snapshot, observed: &Observed) -> Plan {
        Plan::new(Inputs {
            project: &desired.project,
            desired: Some(desired),
            recorded,
            observed,
            images: &self.images,
            options: &Options::default(),
        })
        .unwrap()
    }

    /// What makes all machines.
    fn plan_to_make(&self) -> Plan {
        self.plan(&self.load(), &nothing().snapshot().unwrap(), &Observed::default())
    }

    fn apply(&self, plan: &Plan, store: &mut MemoryStore) {
        let downloads = Arc::new(CacheDownloads::new(self.images.clone(), FetchOptions::default()));
        let (sender, _events) = events();
        let executor = Executor::new(
            Arc::clone(&self.host),
            self.images.clone(),
            downloads,
            LIMITS,
            Control::default(),
            sender,
        );
        let report = self.runtime.block_on(executor.apply(plan, store)).unwrap();
        assert!(report.is_complete());
    }
}

fn nothing() -> MemoryStore {
    MemoryStore::new(Uuid::from_u128(7))
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn read_a_vmfile(bencher: Bencher<'_, '_>, count: usize) {
    let world = World::new(count);
    bencher.counter(ItemsCount::new(count)).bench_local(|| black_box(world.load()));
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn plan_to_make_all(bencher: Bencher<'_, '_>, count: usize) {
    let world = World::new(count);
    let (desired, recorded) = (world.load(), nothing().snapshot().unwrap());
    let observed = Observed::default();
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| black_box(world.plan(&desired, &recorded, &observed)));
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn plan_without_changes(bencher: Bencher<'_, '_>, count: usize) {
    let world = World::new(count);
    let mut store = nothing();
    world.apply(&world.plan_to_make(), &mut store);
    let (desired, recorded) = (world.load(), store.snapshot().unwrap());
    let observed = world.runtime.block_on(refresh(&world.host, &recorded)).unwrap();
    assert!(world.plan(&desired, &recorded, &observed).is_settled());
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| black_box(world.plan(&desired, &recorded, &observed)));
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn tell_a_plan_as_json(bencher: Bencher<'_, '_>, count: usize) {
    let plan = World::new(count).plan_to_make();
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| black_box(serde_json::to_vec(&PlanDocument::from(&plan)).unwrap()));
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn carry_a_plan_out(bencher: Bencher<'_, '_>, count: usize) {
    let world = World::new(count);
    let plan = world.plan_to_make();
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(nothing)
        .bench_local_values(|mut store| world.apply(&plan, &mut store));
}
