//! What holds for every pair of VMFiles.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use uuid::Uuid;
use vmctl_planner::apply::Control;
use vmctl_planner::desired::{
    Desired, DesiredImage, DesiredVm, Lifecycle, Power, Trigger, Until, ready_at_login,
};
use vmctl_planner::{KeptValues, Options, Plan, SavedPlan, StepKind};
use vmctl_providers::VmState;
use vmctl_providers::noop::FakeMachine;
use vmctl_providers::provision::Run;
use vmctl_state::{Address, Entry, MemoryStore, Snapshot, Store, StoreError};

use crate::world::{World, bytes, desired, forward, image_path, is_settled, login, name, runtime, step};

/// What a random VMFile says of one machine.
#[derive(Debug, Clone)]
pub(crate) struct Sketch {
    image: u8,
    vcpus: u16,
    memory_mib: u64,
    power: Power,
    scripts: Vec<(&'static str, Run)>,
    needs: BTreeSet<usize>,
    ssh: bool,
    port: Option<u16>,
    ignores: Option<&'static str>,
    trigger: Option<usize>,
}

pub(crate) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn sketch() -> impl Strategy<Value = Sketch> {
    let power =
        prop_oneof![4 => Just(Power::Running), 1 => Just(Power::Stopped), 1 => Just(Power::Suspended)];
    let runs = prop_oneof![4 => Just(Run::OnChange), 1 => Just(Run::Once), 1 => Just(Run::Always)];
    let scripts = prop::collection::vec((prop::sample::select(vec!["x", "y", "z"]), runs), 0..4);
    let needs = prop::collection::btree_set(0..NAMES.len(), 0..3);
    let port = prop::option::of(8080..8083u16);
    let ignores =
        prop::option::weighted(0.2, prop::sample::select(vec!["memory", "image", "provision", "all"]));
    let trigger = prop::option::weighted(0.2, 0..NAMES.len());
    let rules = (port, ignores, trigger);
    (0..2u8, 1..3u16, 1..3u64, power, scripts, needs, any::<bool>(), rules).prop_map(
        |(image, vcpus, memory, power, scripts, needs, ssh, (port, ignores, trigger))| Sketch {
            image,
            vcpus,
            memory_mib: memory * 128,
            power,
            ssh: ssh || !scripts.is_empty(),
            scripts,
            needs,
            port,
            ignores,
            trigger,
        },
    )
}

/// What somebody does to one machine behind the tool's back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meddling {
    PowerOff,
    Pause,
    MoreCpus,
    DropForwards,
    RemoveFolder,
}

pub(crate) fn meddling() -> impl Strategy<Value = Vec<(usize, Meddling)>> {
    use Meddling::{DropForwards, MoreCpus, Pause, PowerOff, RemoveFolder};
    let kinds = prop::sample::select(vec![PowerOff, Pause, MoreCpus, DropForwards, RemoveFolder]);
    prop::collection::vec((0..NAMES.len(), kinds), 0..3)
}

pub(crate) fn meddle(world: &World, what: &[(usize, Meddling)]) {
    for (index, meddling) in what {
        let name = NAMES[*index];
        if matches!(meddling, Meddling::RemoveFolder) {
            // A machine that does not exist has none.
            let _ = std::fs::remove_dir_all(world.folder.path().join("vms").join(name));
            continue;
        }
        world
            .noop
            .edit(name, |machine| match meddling {
                Meddling::PowerOff => machine.state = VmState::Stopped,
                Meddling::Pause if machine.state == VmState::Running => machine.state = VmState::Suspended,
                Meddling::MoreCpus => machine.machine.vcpus += 1,
                Meddling::DropForwards => machine.machine.nics[0].forwards.clear(),
                Meddling::Pause | Meddling::RemoveFolder => {}
            })
            .unwrap();
    }
}

/// Some of the five machines; each depends only on machines before it that are there and not stopped.
pub(crate) fn vmfile() -> impl Strategy<Value = Vec<Option<Sketch>>> {
    prop::collection::vec(prop::option::weighted(0.8, sketch()), NAMES.len())
}

pub(crate) fn build(world: &World, file: &[Option<Sketch>]) -> Desired {
    let runs = |index: &usize| file[*index].as_ref().is_some_and(|sketch| sketch.power == Power::Running);
    let mut taken = BTreeSet::new();
    let vms = file.iter().enumerate().filter_map(|(index, sketch)| {
        let sketch = sketch.as_ref()?;
        // A port of the host is forwarded once.
        let port = sketch.port.filter(|port| taken.insert(*port));
        let trigger = sketch.trigger.filter(|other| *other != index && file[*other].is_some());
        let source = image_path(world.folder.path(), sketch.image);
        let until = [Until::Started, Until::Ready, Until::Provisioned];
        Some(DesiredVm {
            image: Some(DesiredImage::Local { identity: world.images.identify(&source).unwrap(), source }),
            vcpus: sketch.vcpus,
            memory_mib: sketch.memory_mib,
            power: sketch.power,
            ready: ready_at_login(sketch.ssh.then(login).as_ref()),
            ssh: sketch.ssh.then(login),
            forwards: port.iter().map(|port| forward(*port, 80)).collect(),
            lifecycle: Lifecycle {
                prevent_destroy: false,
                ignore_changes: sketch.ignores.iter().map(ToString::to_string).collect(),
                replace_when: trigger.iter().map(|other| Trigger::Machine(name(NAMES[*other]))).collect(),
            },
            provision: sketch
                .scripts
                .iter()
                .enumerate()
                .map(|(at, (script, run))| {
                    let mut step = step(at + 1, script);
                    step.options.run = *run;
                    step
                })
                .collect(),
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
pub(crate) fn check(plan: &Plan, goal: &Desired, recorded: &Snapshot) {
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

/// The machines whose change says that nothing is done, as they are.
fn machines_left_alone(world: &World, plan: &Plan) -> Vec<(&'static str, Option<FakeMachine>)> {
    let none = |name: &str| {
        !plan.effective().any(|change| {
            change.address.name() == name
                || change.moved_from.as_ref().is_some_and(|from| from.name() == name)
        })
    };
    NAMES
        .into_iter()
        .filter(|name| none(name))
        .map(|name| (name, world.noop.machine(name).unwrap()))
        .collect()
}

/// Every machine is as its file asks, apart from what it asks to ignore.
pub(crate) fn check_machines(world: &World, goal: &Desired) {
    for vm in goal.vms.values().filter(|vm| vm.lifecycle.ignore_changes.is_empty()) {
        let found = world.noop.machine(vm.name.as_str()).unwrap().unwrap();
        let wanted = match vm.power {
            Power::Running => VmState::Running,
            Power::Suspended => VmState::Suspended,
            // A machine that never had to run was never started.
            Power::Stopped if found.state == VmState::Prepared => VmState::Prepared,
            Power::Stopped => VmState::Stopped,
        };
        assert_eq!((found.state, found.machine.memory_mib), (wanted, vm.memory_mib), "{}", vm.name);
        // What a machine that is off would bind is looked at when it runs.
        if !matches!(found.state, VmState::Running | VmState::Suspended) {
            continue;
        }
        let fixed = |port: &u16| *port != 0;
        let bound = found.machine.nics.iter().flat_map(|nic| &nic.forwards).map(|forward| forward.host_port);
        let asked: Vec<_> = vm.forwards.iter().map(|forward| forward.host_port).collect();
        assert_eq!(bound.filter(fixed).collect::<Vec<_>>(), asked, "{}", vm.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_file_after_any_other_converges_at_once(first in vmfile(), second in vmfile(), drift in meddling()) {
        runtime().block_on(async {
            let mut world = World::new();
            for file in [&first, &second] {
                let goal = build(&world, file);
                let plan = world.plan(Some(&goal)).await;
                check(&plan, &goal, &world.store.snapshot().unwrap());
                let same = world.plan(Some(&goal)).await;
                assert_eq!(bytes(&plan), bytes(&same), "same inputs, same bytes");
                let untouched = machines_left_alone(&world, &plan);
                let before = world.events().len();
                world.converge(Some(&goal)).await;
                for (name, machine) in untouched {
                    let named = |event: &String| event.ends_with(&format!(" {name}"));
                    assert!(!world.events_since(before).iter().any(named), "{name} is touched and not named");
                    assert_eq!(world.noop.machine(name).unwrap(), machine);
                }
                check_machines(&world, &goal);
                meddle(&world, &drift);
            }
            // What was meddled with last is brought back, too.
            let goal = build(&world, &second);
            world.converge(Some(&goal)).await;
            check_machines(&world, &goal);

            let before = world.events().len();
            world.converge(None).await;
            let down = world.events_since(before);
            let at = |event: String| down.iter().position(|line| *line == event);
            for vm in goal.vms.values() {
                for needed in vm.depends_on.keys() {
                    let gone = at(format!("destroy {}", vm.name)).unwrap();
                    let stop = at(format!("stop {needed}")).unwrap_or(usize::MAX);
                    assert!(gone < stop, "{} goes before {needed}: {down:?}", vm.name);
                }
            }
            assert!(world.store.snapshot().unwrap().records.is_empty());
            assert_eq!(std::fs::read_dir(world.folder.path().join("vms")).unwrap().count(), 0);
        });
    }

    #[test]
    fn targets_touch_only_themselves_and_what_they_need(
        first in vmfile(),
        second in vmfile(),
        target in 0..NAMES.len(),
    ) {
        runtime().block_on(async {
            let mut world = World::new();
            world.converge(Some(&build(&world, &first))).await;
            let goal = build(&world, &second);
            let options = Options { targets: [name(NAMES[target])].into(), ..Options::default() };
            let Ok(plan) = world.try_plan(Some(&goal), &options).await else {
                assert!(first[target].is_none() && second[target].is_none(), "only an unknown target is refused");
                return;
            };
            let mut needed = BTreeSet::from([name(NAMES[target])]);
            let mut open: Vec<_> = needed.iter().cloned().collect();
            while let Some(vm) = open.pop().and_then(|name| goal.vms.get(&name)) {
                open.extend(vm.depends_on.keys().filter(|name| needed.insert((*name).clone())).cloned());
            }
            for change in &plan.changes {
                assert!(needed.contains(change.address.name()), "{} is not needed", change.address);
            }
            let before = world.events().len();
            assert!(world.carry_out(&plan).await.is_complete());
            for event in world.events_since(before) {
                let name = event.rsplit(' ').next().unwrap();
                assert!(needed.contains(name), "{event}");
            }
            let Ok(again) = world.try_plan(Some(&goal), &options).await else {
                assert!(second[target].is_none(), "only a target that is gone is not known any more");
                return;
            };
            assert!(is_settled(&again, &goal), "{:#?}", again.effective().collect::<Vec<_>>());
        });
    }

    #[test]
    fn saved_plan_is_the_same_plan_and_any_other_byte_is_refused(
        first in vmfile(),
        second in vmfile(),
        drift in meddling(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        runtime().block_on(async {
            let mut world = World::new();
            world.converge(Some(&build(&world, &first))).await;
            meddle(&world, &drift);
            let goal = build(&world, &second);
            let observed = world.observe(Some(&goal)).await;
            let plan = world.plan_from(Some(&goal), &Options::default(), &observed).unwrap();
            let mut file = SavedPlan::new(&plan, &observed, KeptValues::default(), "0").to_bytes();
            let saved = SavedPlan::from_bytes(&file).unwrap();
            let again = world.plan_from(Some(&goal), &Options::default(), &saved.observed).unwrap();
            assert_eq!(saved.difference(&again), None);
            let place = at.index(file.len());
            if file[place] != byte {
                file[place] = byte;
                assert!(SavedPlan::from_bytes(&file).is_err(), "byte {place} is now {byte}");
            }
            file.truncate(place);
            assert!(SavedPlan::from_bytes(&file).is_err(), "cut at {place}");
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

/// What a store says that cannot be written to.
pub(crate) fn storage_full() -> StoreError {
    let source = std::io::ErrorKind::StorageFull.into();
    StoreError::Io { action: "write", path: PathBuf::from("state"), source }
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
            return Err(storage_full());
        }
        self.left -= 1;
        self.store.commit(entries)
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
