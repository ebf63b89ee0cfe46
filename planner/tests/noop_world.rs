//! Plan and apply against the remembering fake: what holds for every pair of VMFiles, and what happens on
//! failure, drift and interruption.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::mpsc;
use uuid::Uuid;
use vmctl_planner::apply::{Control, Event, Executor, Limits, Report};
use vmctl_planner::desired::{Desired, DesiredImage, DesiredVm, Power, Until};
use vmctl_planner::{Action, Inputs, Plan, PlanDocument, StepKind, refresh};
use vmctl_providers::image::ImageCache;
use vmctl_providers::noop::Rule;
use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
use vmctl_providers::qemu::{AccelChoice, QemuConfig};
use vmctl_providers::{
    BackendTag, Digest, Name, NetworkConfig, NoopBackend, QemuBackend, RouterHypervisor, SshConfig, VmState,
};
use vmctl_state::{Address, Entry, MemoryStore, Snapshot, Store, StoreError};

/// A fake host, an image cache and a state, all in one throwaway folder.
struct World {
    folder: TempDir,
    images: ImageCache,
    noop: NoopBackend,
    host: Arc<RouterHypervisor>,
    store: MemoryStore,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for number in 0..2u8 {
            // The smallest thing that is a disk: one sector with a boot signature.
            let mut sector = vec![number; 512];
            sector[510..].copy_from_slice(&[0x55, 0xAA]);
            std::fs::write(image_path(path, number), sector).unwrap();
        }
        let noop = NoopBackend::new(path.join("vms"), path.join("world"));
        let qemu = QemuBackend::new(QemuConfig {
            vms_dir: path.join("vms"),
            runtime_dir: path.join("run"),
            accel: AccelChoice::Tcg,
        });
        Self {
            images: ImageCache::new(path.join("images")),
            host: Arc::new(RouterHypervisor::new(noop.clone(), qemu)),
            noop,
            store: MemoryStore::new(Uuid::from_u128(7)),
            folder,
        }
    }

    fn vm(&self, name: &str) -> DesiredVm {
        let source = image_path(self.folder.path(), 0);
        DesiredVm {
            name: name.parse().unwrap(),
            backend: BackendTag::Noop,
            image: DesiredImage { identity: self.images.identify(&source).unwrap(), source },
            vcpus: 1,
            memory_mib: 256,
            disk_bytes: None,
            networks: vec![NetworkConfig::User],
            forwards: Vec::new(),
            cloud_init: None,
            ssh: Some(SshConfig { user: "vm".to_owned(), private_key: None }),
            provision: Vec::new(),
            power: Power::Running,
            depends_on: BTreeMap::new(),
        }
    }

    async fn plan(&self, desired: Option<&Desired>) -> Plan {
        self.plan_with(desired, &self.store).await
    }

    async fn plan_with(&self, desired: Option<&Desired>, store: &dyn Store) -> Plan {
        let recorded = store.snapshot().unwrap();
        let observed = refresh(&*self.host, &recorded).await.unwrap();
        let project = project();
        Plan::new(Inputs {
            project: &project,
            desired,
            recorded: &recorded,
            observed: &observed,
            images: &self.images,
        })
        .unwrap()
    }

    fn executor(&self, control: Control) -> (Executor<RouterHypervisor>, mpsc::UnboundedReceiver<Event>) {
        let (events, shown) = mpsc::unbounded_channel();
        let limits = Limits { steps: 8, boots: 4 };
        (Executor::new(Arc::clone(&self.host), self.images.clone(), limits, control, events), shown)
    }

    async fn apply(&mut self, desired: Option<&Desired>) -> Report {
        let plan = self.plan(desired).await;
        let (executor, _events) = self.executor(Control::default());
        executor.apply(&plan, &mut self.store).await.unwrap()
    }

    /// Applies and expects that nothing is left to do.
    async fn converge(&mut self, desired: Option<&Desired>) {
        let report = self.apply(desired).await;
        assert!(report.is_complete(), "{report:?}");
        let again = self.plan(desired).await;
        assert!(again.is_empty(), "{:#?}", again.effective().collect::<Vec<_>>());
    }

    fn events(&self) -> Vec<String> {
        self.noop.events().unwrap()
    }

    /// What was logged since there were `before` events.
    fn events_since(&self, before: usize) -> Vec<String> {
        self.events().split_off(before)
    }

    fn action(plan: &Plan, name: &str) -> Action {
        plan.changes.iter().find(|change| change.address == Address::vm(name)).unwrap().action
    }
}

fn project() -> Name {
    "test".parse().unwrap()
}

fn image_path(folder: &Path, number: u8) -> PathBuf {
    folder.join(format!("disk-{number}.raw"))
}

fn step(number: usize, script: &str) -> ProvisionStep {
    ProvisionStep {
        number,
        label: script.to_owned(),
        action: ProvisionAction::Shell { script: script.to_owned() },
        digest: Digest::of(script),
    }
}

fn desired(vms: impl IntoIterator<Item = DesiredVm>) -> Desired {
    Desired {
        project: project(),
        vms: vms.into_iter().map(|vm| (vm.name.clone(), vm)).collect(),
        inputs: Vec::new(),
    }
}

fn fail(op: &str, vm: &str, times: Option<u32>) -> Rule {
    Rule { op: op.to_owned(), vm: Some(vm.to_owned()), fail: Some("no luck".to_owned()), delay_ms: 0, times }
}

fn bytes(plan: &Plan) -> String {
    serde_json::to_string(&PlanDocument::from(plan)).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a random VMFile says of one machine.
#[derive(Debug, Clone)]
struct Sketch {
    image: u8,
    vcpus: u16,
    memory_mib: u64,
    power: Power,
    scripts: Vec<&'static str>,
    needs: BTreeSet<usize>,
    ssh: bool,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn sketch() -> impl Strategy<Value = Sketch> {
    let power =
        prop_oneof![4 => Just(Power::Running), 1 => Just(Power::Stopped), 1 => Just(Power::Suspended)];
    let scripts = prop::collection::vec(prop::sample::select(vec!["x", "y", "z"]), 0..3);
    let needs = prop::collection::btree_set(0..NAMES.len(), 0..3);
    (0..2u8, 1..3u16, 1..3u64, power, scripts, needs, any::<bool>()).prop_map(
        |(image, vcpus, memory, power, scripts, needs, ssh)| Sketch {
            image,
            vcpus,
            memory_mib: memory * 128,
            power,
            ssh: ssh || !scripts.is_empty(),
            scripts,
            needs,
        },
    )
}

/// Some of the five machines; each depends only on machines before it that are there and not stopped.
fn vmfile() -> impl Strategy<Value = Vec<Option<Sketch>>> {
    prop::collection::vec(prop::option::weighted(0.8, sketch()), NAMES.len())
}

fn build(world: &World, file: &[Option<Sketch>]) -> Desired {
    let runs = |index: &usize| file[*index].as_ref().is_some_and(|sketch| sketch.power == Power::Running);
    let vms = file.iter().enumerate().filter_map(|(index, sketch)| {
        let sketch = sketch.as_ref()?;
        let source = image_path(world.folder.path(), sketch.image);
        let until = [Until::Started, Until::Ready, Until::Provisioned];
        Some(DesiredVm {
            image: DesiredImage { identity: world.images.identify(&source).unwrap(), source },
            vcpus: sketch.vcpus,
            memory_mib: sketch.memory_mib,
            power: sketch.power,
            ssh: sketch.ssh.then(|| SshConfig { user: "vm".to_owned(), private_key: None }),
            provision: sketch.scripts.iter().enumerate().map(|(at, script)| step(at + 1, script)).collect(),
            depends_on: sketch
                .needs
                .iter()
                .filter(|needed| **needed < index && runs(needed))
                .map(|needed| (NAMES[*needed].parse().unwrap(), until[needed % 3]))
                .collect(),
            ..world.vm(NAMES[index])
        })
    });
    desired(vms.collect::<Vec<_>>())
}

/// What holds for every plan.
fn check(plan: &Plan, goal: &Desired, recorded: &Snapshot) {
    plan.graph.sequence().expect("acyclic");
    let addresses: Vec<_> = plan.changes.iter().map(|change| change.address.clone()).collect();
    let unique: BTreeSet<_> = addresses.iter().cloned().collect();
    assert_eq!(unique.len(), addresses.len(), "each address once");
    for name in goal.vms.keys() {
        assert!(unique.contains(&Address::vm(name.as_str())), "each desired address is decided about");
    }
    for (_, step) in plan.graph.steps() {
        if matches!(step.kind, StepKind::Destroy | StepKind::Stop) {
            let record = recorded.records.get(&step.address).expect("nothing unrecorded is taken down");
            assert_eq!(record.instance, step.instance.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_file_after_any_other_converges_at_once(first in vmfile(), second in vmfile()) {
        runtime().block_on(async {
            let mut world = World::new();
            for file in [&first, &second] {
                let goal = build(&world, file);
                let plan = world.plan(Some(&goal)).await;
                check(&plan, &goal, &world.store.snapshot().unwrap());
                let same = world.plan(Some(&goal)).await;
                assert_eq!(bytes(&plan), bytes(&same), "same inputs, same bytes");
                world.converge(Some(&goal)).await;
                for vm in goal.vms.values() {
                    let found = world.noop.machine(vm.name.as_str()).unwrap().unwrap();
                    let wanted = match vm.power {
                        Power::Running => VmState::Running,
                        Power::Suspended => VmState::Suspended,
                        // A machine that never had to run was never started.
                        Power::Stopped if found.state == VmState::Prepared => VmState::Prepared,
                        Power::Stopped => VmState::Stopped,
                    };
                    assert_eq!((found.state, found.machine.memory_mib), (wanted, vm.memory_mib));
                }
            }
            world.converge(None).await;
            assert!(world.store.snapshot().unwrap().records.is_empty());
            assert_eq!(std::fs::read_dir(world.folder.path().join("vms")).unwrap().count(), 0);
        });
    }

    /// The state stops taking commits at any point, as when vmctl is killed there: one more apply converges.
    #[test]
    fn apply_cut_off_at_any_commit_converges_with_the_next(
        first in vmfile(),
        second in vmfile(),
        commits in 0usize..12,
    ) {
        runtime().block_on(async {
            let mut world = World::new();
            let goal = build(&world, &first);
            world.converge(Some(&goal)).await;
            let goal = build(&world, &second);
            let plan = world.plan(Some(&goal)).await;
            let store = std::mem::replace(&mut world.store, MemoryStore::new(Uuid::nil()));
            let mut brittle = Brittle { store, left: commits };
            let (executor, _events) = world.executor(Control::default());
            let cut_off = executor.apply(&plan, &mut brittle).await;
            if let Err(error) = &cut_off {
                assert!(matches!(error, vmctl_planner::apply::ApplyError::Store(_)), "{error:?}");
            }
            world.store = brittle.store;
            world.converge(Some(&goal)).await;
            assert!(world.store.snapshot().unwrap().open.is_empty());
        });
    }
}

/// A store that takes a number of commits and then no more.
#[derive(Debug)]
struct Brittle {
    store: MemoryStore,
    left: usize,
}

impl Store for Brittle {
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.store.snapshot()
    }

    fn commit(&mut self, entries: &[Entry]) -> Result<u64, StoreError> {
        if self.left == 0 {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(StoreError::Io { action: "write", path: PathBuf::from("state"), source });
        }
        self.left -= 1;
        self.store.commit(entries)
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dependency_is_provisioned_before_its_dependant_starts_and_goes_down_after_it() {
    let mut world = World::new();
    let db = DesiredVm { provision: vec![step(1, "setup")], ..world.vm("db") };
    let web =
        DesiredVm { depends_on: [("db".parse().unwrap(), Until::Provisioned)].into(), ..world.vm("web") };
    let goal = desired([db, web]);
    world.converge(Some(&goal)).await;
    let up = world.events();
    let at = |events: &[String], event: &str| events.iter().position(|line| line == event).unwrap();
    assert!(at(&up, "provision-1 db") < at(&up, "start web"), "{up:?}");

    world.converge(None).await;
    let down = world.events_since(up.len());
    assert!(at(&down, "destroy web") < at(&down, "stop db"), "{down:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_step_keeps_the_machine_and_the_next_apply_goes_on_there() {
    let mut world = World::new();
    let scripts = || vec![step(1, "one"), step(2, "two"), step(3, "three")];
    let db = DesiredVm { provision: scripts(), ..world.vm("db") };
    let web =
        DesiredVm { depends_on: [("db".parse().unwrap(), Until::Provisioned)].into(), ..world.vm("web") };
    let goal = desired([db, web, world.vm("other")]);
    world.noop.script(&[fail("provision-2", "db", Some(1))]).unwrap();
    let report = world.apply(Some(&goal)).await;
    assert_eq!(report.failed.len(), 1);
    assert!(world.events().contains(&"ready other".to_owned()), "what does not depend on it goes on");
    assert!(!world.events().contains(&"start web".to_owned()), "what depends on it does not start");
    let id = world.noop.machine("db").unwrap().unwrap().id;

    let before = world.events().len();
    world.converge(Some(&goal)).await;
    let since: Vec<_> =
        world.events_since(before).into_iter().filter(|event| event.ends_with(" db")).collect();
    assert_eq!(since, ["provision-2 db", "provision-3 db"]);
    let machine = world.noop.machine("db").unwrap().unwrap();
    assert_eq!(machine.id, id, "a machine whose provisioning failed is kept");
    assert_eq!(machine.provisioned, ["one", "two", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_step_runs_again_with_those_after_it_and_nothing_else_happens() {
    let mut world = World::new();
    let with = |world: &World, middle: &str| {
        let provision = vec![step(1, "one"), step(2, middle), step(3, "three")];
        desired([DesiredVm { provision, ..world.vm("db") }])
    };
    world.converge(Some(&with(&world, "two"))).await;
    let before = world.events().len();
    let goal = with(&world, "other");
    let plan = world.plan(Some(&goal)).await;
    assert_eq!(World::action(&plan, "db"), Action::Provision);
    world.converge(Some(&goal)).await;
    assert_eq!(world.events_since(before), ["provision-2 db", "provision-3 db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_named_and_repaired() {
    let mut world = World::new();
    let goal = desired(["stopped", "paused", "gone", "bigger", "fine"].map(|name| world.vm(name)));
    world.converge(Some(&goal)).await;
    world.noop.edit("stopped", |machine| machine.state = VmState::Stopped).unwrap();
    world.noop.edit("paused", |machine| machine.state = VmState::Suspended).unwrap();
    world.noop.edit("bigger", |machine| machine.machine.vcpus = 7).unwrap();
    std::fs::remove_dir_all(world.folder.path().join("vms/gone")).unwrap();

    let plan = world.plan(Some(&goal)).await;
    let expected = [
        ("stopped", Action::Start),
        ("paused", Action::Resume),
        ("gone", Action::Replace),
        ("bigger", Action::Restart),
        ("fine", Action::NoOp),
    ];
    for (name, action) in expected {
        let change = plan.changes.iter().find(|change| change.address == Address::vm(name)).unwrap();
        assert_eq!(change.action, action, "{name}");
        assert_eq!(change.drift.is_empty(), name == "fine", "{name}");
        assert!(change.fields.is_empty(), "drift is no edit: {name}");
    }
    let before = world.events().len();
    world.converge(Some(&goal)).await;
    assert!(!world.events_since(before).iter().any(|event| event.ends_with(" fine")));
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_resumed_by_hand_and_by_file_is_taken_up_as_it_is() {
    let mut world = World::new();
    let suspended = desired([DesiredVm { power: Power::Suspended, ..world.vm("db") }]);
    world.converge(Some(&suspended)).await;
    world.noop.edit("db", |machine| machine.state = VmState::Running).unwrap();
    let before = world.events().len();
    let running = desired([world.vm("db")]);
    world.converge(Some(&running)).await;
    assert!(!world.events_since(before).iter().any(|event| event == "start db"));
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_that_cannot_be_asked_is_left_alone_and_said() {
    let mut world = World::new();
    let goal = desired([world.vm("silent")]);
    world.converge(Some(&goal)).await;
    world.noop.script(&[fail("inspect", "silent", None)]).unwrap();
    let plan = world.plan(Some(&desired([DesiredVm { memory_mib: 512, ..world.vm("silent") }]))).await;
    let change = &plan.changes[0];
    assert_eq!(change.action, Action::NoOp);
    assert!(change.drift[0].contains("cannot be reached"), "{:?}", change.drift);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_a_machine_that_cannot_be_asked_is_held_back() {
    let mut world = World::new();
    let needs = |name: &str| [(name.parse().unwrap(), Until::Provisioned)].into();
    let goal = desired([
        world.vm("silent"),
        DesiredVm { depends_on: needs("silent"), ..world.vm("web") },
        DesiredVm { depends_on: needs("web"), ..world.vm("proxy") },
        world.vm("other"),
    ]);
    world.converge(Some(&desired([world.vm("silent")]))).await;
    world.noop.script(&[fail("inspect", "silent", None)]).unwrap();
    let plan = world.plan(Some(&goal)).await;
    let actions = ["silent", "web", "proxy", "other"].map(|name| World::action(&plan, name));
    assert_eq!(actions, [Action::NoOp, Action::NoOp, Action::NoOp, Action::Create]);
    assert_eq!(plan.unreachable, [Address::vm("silent")].into());
    let removal = world.plan(None).await;
    assert_eq!(World::action(&removal, "silent"), Action::Destroy);
    assert!(removal.unreachable.is_empty(), "what is destroyed is not left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupt_starts_nothing_new_and_the_next_apply_finishes() {
    let mut world = World::new();
    let db = world.vm("db");
    let web = DesiredVm { depends_on: [("db".parse().unwrap(), Until::Ready)].into(), ..world.vm("web") };
    let goal = desired([db, web]);
    let plan = world.plan(Some(&goal)).await;
    let control = Control::default();
    let (executor, mut events) = world.executor(control.clone());
    let watch = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if matches!(event, Event::Done { .. }) {
                control.drain.cancel();
            }
        }
    });
    let report = executor.apply(&plan, &mut world.store).await.unwrap();
    drop(executor);
    watch.await.unwrap();
    assert!(report.interrupted && report.failed.is_empty() && report.abandoned.is_empty());
    assert!(!report.not_begun.is_empty());
    world.converge(Some(&goal)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_interrupt_records_what_is_abandoned() {
    let mut world = World::new();
    let goal = desired([world.vm("slow")]);
    let hour = Rule { op: "start".to_owned(), vm: None, fail: None, delay_ms: 3_600_000, times: Some(1) };
    world.noop.script(&[hour]).unwrap();
    let plan = world.plan(Some(&goal)).await;
    let control = Control::default();
    let (executor, mut events) = world.executor(control.clone());
    let graph = plan.graph.clone();
    let watch = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Started(id) = event
                && graph.step(id).kind == StepKind::Start
            {
                control.abort.cancel();
            }
        }
    });
    let report = executor.apply(&plan, &mut world.store).await.unwrap();
    drop(executor);
    watch.await.unwrap();
    assert_eq!(report.abandoned.len(), 1);
    world.converge(Some(&goal)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_for_an_older_state_is_refused() {
    let mut world = World::new();
    let goal = desired([world.vm("db")]);
    let plan = world.plan(Some(&goal)).await;
    world.store.commit(&[Entry::Remove(Address::vm("nobody"))]).unwrap();
    let (executor, _events) = world.executor(Control::default());
    let error = executor.apply(&plan, &mut world.store).await.unwrap_err();
    assert!(matches!(error, vmctl_planner::apply::ApplyError::Stale { planned: 0, found: 1 }), "{error:?}");
    assert!(world.events().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_made_machine_can_be_destroyed() {
    let mut world = World::new();
    let goal = desired([world.vm("db")]);
    world.noop.script(&[fail("prepare", "db", Some(1))]).unwrap();
    assert_eq!(world.apply(Some(&goal)).await.failed.len(), 1);
    assert_eq!(world.store.snapshot().unwrap().records.len(), 1, "what was begun is recorded");
    world.converge(None).await;
    assert!(world.store.snapshot().unwrap().records.is_empty());
}
