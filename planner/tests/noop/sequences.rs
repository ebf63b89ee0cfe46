//! Whatever happens one after another: one more apply converges, and every script ran once or is told to be unknown.
//!
//! Each sequence runs on a fake host of its own, beside a small model that knows what really ran. The seed is new every
//! time and told on failure; `VMCTL_SEQUENCES=10000` runs more of them, `VMCTL_SEQUENCE_SEED=…` the same ones again.

#![expect(clippy::disallowed_methods, reason = "how many sequences, and which, is told by environment")]

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use uuid::Uuid;
use vmctl_planner::apply::{ApplyError, Control, Report};
use vmctl_planner::desired::Desired;
use vmctl_planner::{LeftAloneKind, Mode, Options, Plan, StepKind};
use vmctl_providers::noop::FakeMachine;
use vmctl_providers::{Digest, InstanceId, Name, VmState};
use vmctl_state::{Address, Entry, MemoryStore, Snapshot, Store, StoreError};

use crate::properties::{
    Meddling, NAMES, Sketch, build, check, check_machines, meddle, meddling, storage_full, vmfile,
};
use crate::world::{World, desired, fail, is_settled, name, runtime};

/// Sequences in an ordinary run of the tests.
const SEQUENCES: u32 = 64;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Act {
    /// Somebody writes another VMFile.
    Edit(Vec<Option<Sketch>>),
    /// The VMFile is applied, and nothing comes in between.
    Apply,
    /// The same for one machine and what it needs.
    ApplyTo(usize),
    /// The same for everything, and then it ends early.
    ApplyUntil(End),
    /// The same, and one operation on one machine fails.
    ApplyFailing(&'static str, usize),
    /// The same, with steps that were cut off run again.
    Rerun,
    /// Machines are changed behind the tool's back.
    Meddle(Vec<(usize, Meddling)>),
    /// A machine is marked to be made anew.
    Taint(usize),
    /// Everything is removed.
    Destroy,
}

/// How an apply ends early.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Killed, after so many events.
    Killed(usize),
    /// Killed in a commit, after so many others; it took place or not.
    KilledInCommit { after: usize, took_place: bool },
    /// Asked to stop, after so many events.
    Drained(usize),
    /// Asked to stop at once, after so many events.
    Aborted(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let end = prop_oneof![
        2 => (1..40usize).prop_map(End::Killed),
        2 => (0..16usize, any::<bool>())
            .prop_map(|(after, took_place)| End::KilledInCommit { after, took_place }),
        1 => (1..40usize).prop_map(End::Drained),
        1 => (1..40usize).prop_map(End::Aborted),
    ];
    let ops = vec!["prepare", "start", "ready", "stop", "destroy", "update", "suspend", "provision-1"];
    let machine = || 0..NAMES.len();
    prop_oneof![
        5 => vmfile().prop_map(Act::Edit),
        3 => Just(Act::Apply),
        1 => machine().prop_map(Act::ApplyTo),
        5 => end.prop_map(Act::ApplyUntil),
        2 => (prop::sample::select(ops), machine()).prop_map(|(op, vm)| Act::ApplyFailing(op, vm)),
        1 => Just(Act::Rerun),
        3 => meddling().prop_map(Act::Meddle),
        1 => machine().prop_map(Act::Taint),
        1 => Just(Act::Destroy),
    ]
}

/// A world, what is asked of it, and what really happened in it.
struct Life {
    world: World,
    goal: Desired,
    /// Steps that ran and whose end was not recorded, by instance: number and script.
    unknown: BTreeMap<InstanceId, (usize, String)>,
}

#[test]
fn any_sequence_converges_and_runs_every_script_once_or_says_that_it_does_not_know() {
    let sequences = std::env::var("VMCTL_SEQUENCES").ok().and_then(|text| text.parse().ok());
    let seed = std::env::var("VMCTL_SEQUENCE_SEED").ok().and_then(|text| text.parse().ok());
    let seed: Uuid = seed.unwrap_or_else(Uuid::new_v4);
    let config = Config {
        cases: sequences.unwrap_or(SEQUENCES),
        failure_persistence: None,
        max_shrink_iters: 1024,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[*seed.as_bytes(), *seed.as_bytes()].concat());
    let result = TestRunner::new_with_rng(config, rng).run(&prop::collection::vec(act(), 1..14), |acts| {
        let mut life = Life::new();
        for act in &acts {
            life.go_on(act)?;
        }
        life.settle()
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, acts)) => panic!("VMCTL_SEQUENCE_SEED={seed}: {why}\n{acts:#?}"),
        Err(error) => panic!("VMCTL_SEQUENCE_SEED={seed}: {error}"),
    }
}

impl Life {
    fn new() -> Self {
        Self { world: World::new(), goal: desired([]), unknown: BTreeMap::new() }
    }

    fn go_on(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let all = Options::default();
        match act {
            Act::Edit(file) => self.goal = build(&self.world, file),
            Act::Apply => drop(self.apply(&all, None)?),
            Act::ApplyTo(index) => {
                drop(self.apply(&Options { targets: [name(NAMES[*index])].into(), ..all }, None)?);
            }
            Act::ApplyUntil(end) => drop(self.apply(&all, Some(*end))?),
            Act::ApplyFailing(op, index) => {
                self.world.noop.script(&[fail(op, NAMES[*index], Some(1))]).unwrap();
                self.apply(&all, None)?;
                self.world.noop.script(&[]).unwrap();
            }
            Act::Rerun => {
                let rerun = self.told_to_be_unknown()?;
                self.apply(&Options { rerun, ..all }, None)?;
            }
            Act::Meddle(what) => meddle(&self.world, what),
            Act::Taint(index) => {
                let records = self.world.store.snapshot().unwrap().records;
                if let Some(mut record) = records.get(&Address::vm(NAMES[*index])).cloned() {
                    record.taint = Some("by hand".to_owned());
                    self.world.store.commit(&[Entry::Put(Box::new(record))]).unwrap();
                }
            }
            Act::Destroy => drop(self.apply(&Options { mode: Mode::Destroy, ..all }, None)?),
        }
        self.check()
    }

    /// One more apply, in which people say of each step that is unknown that it shall run again: then all is as asked.
    fn settle(mut self) -> Result<(), TestCaseError> {
        let rerun = self.told_to_be_unknown()?;
        let report = self.apply(&Options { rerun, ..Options::default() }, None)?;
        prop_assert!(report.as_ref().is_some_and(Report::is_complete), "{:?}", report);
        self.check()?;
        let again = self.plan(&Options::default())?.expect("nothing is narrowed");
        prop_assert!(
            again.left_alone().next().is_none() && is_settled(&again, &self.goal),
            "{:#?}",
            again.changes
        );
        prop_assert!(self.world.store.snapshot().unwrap().open.is_empty());
        check_machines(&self.world, &self.goal);
        let there: Vec<_> = self.machines().into_iter().filter_map(|machine| machine.name).collect();
        let asked: Vec<_> = self.goal.vms.keys().cloned().collect();
        prop_assert_eq!(there, asked, "each machine is there once, and no other");
        Ok(())
    }

    /// Machines of which the plan says that it does not know how far their provisioning came.
    fn told_to_be_unknown(&self) -> Result<std::collections::BTreeSet<Name>, TestCaseError> {
        let plan = self.plan(&Options::default())?.expect("nothing is narrowed");
        let asks = plan.left_alone().filter(|(_, alone)| alone.kind == LeftAloneKind::Interrupted);
        Ok(asks.map(|(change, _)| name(change.address.name())).collect())
    }

    /// The plan; `None` if it is narrowed to a machine that does not exist.
    fn plan(&self, options: &Options) -> Result<Option<Plan>, TestCaseError> {
        let goal = (options.mode == Mode::Normal).then_some(&self.goal);
        let plan = match runtime().block_on(self.world.try_plan(goal, options)) {
            Ok(plan) => plan,
            Err(error) if options.targets.is_empty() => return Err(TestCaseError::fail(error.to_string())),
            Err(_) => return Ok(None),
        };
        if let Some(goal) = goal.filter(|_| options.targets.is_empty()) {
            check(&plan, goal, &self.world.store.snapshot().unwrap());
        }
        Ok(Some(plan))
    }

    /// Plans and carries out, up to `end`. What ran is compared with what was planned.
    fn apply(&mut self, options: &Options, end: Option<End>) -> Result<Option<Report>, TestCaseError> {
        let Some(plan) = self.plan(options)? else { return Ok(None) };
        let planned = provisioning(&plan);
        for (id, steps) in &planned {
            if let Some(unknown) = self.unknown.get(id) {
                let is_asked = plan
                    .changes
                    .iter()
                    .any(|change| change.instance == *id && options.rerun.contains(change.address.name()));
                prop_assert!(is_asked || !steps.contains(unknown), "{unknown:?} of {id} runs again unasked");
            }
        }
        let before = self.ran();
        let report = self.carry_out(&plan, end)?;
        for (id, ran) in self.ran() {
            let new = &ran[before.get(&id).map_or(0, Vec::len)..];
            let steps = planned.get(&id).cloned().unwrap_or_default();
            let asked: Vec<_> = steps.iter().map(|(_, script)| script.clone()).take(new.len()).collect();
            prop_assert_eq!(new, asked, "what ran in {} is what was planned, in order", id);
            self.note(id, &steps[..new.len()]);
        }
        self.forget_what_nobody_asks_for();
        Ok(report)
    }

    /// A step that is not asked for any more is nothing to be asked about. If somebody asks for it later, it runs.
    fn forget_what_nobody_asks_for(&mut self) {
        let records = self.world.store.snapshot().unwrap().records;
        let goal = &self.goal;
        self.unknown.retain(|id, (number, _)| {
            let Some(record) = records.values().find(|record| record.instance == id.0) else { return true };
            let asked = goal.vms.get(&name(record.address.name())).map_or(0, |vm| vm.provision.len());
            record.interrupted.is_some() || asked >= *number
        });
    }

    /// Takes note of what ran in an instance, and of whether its record knows.
    fn note(&mut self, id: InstanceId, ran: &[(usize, String)]) {
        let Some((number, script)) = ran.last() else { return };
        let records = self.world.store.snapshot().unwrap().records;
        let recorded =
            records.values().find(|record| record.instance == id.0).map(|record| record.provisioned.len());
        if recorded.is_some_and(|recorded| recorded < *number) {
            self.unknown.insert(id, (*number, script.clone()));
        } else {
            self.unknown.remove(&id);
        }
    }

    /// Carries out on a runtime of its own, with which everything ends that a killed apply left running.
    fn carry_out(&mut self, plan: &Plan, end: Option<End>) -> Result<Option<Report>, TestCaseError> {
        let control = Control::default();
        let (executor, mut events) = self.world.executor(control.clone());
        let mut store = Mortal { store: std::mem::replace(&mut self.world.store, nowhere()), end: None };
        if let Some(End::KilledInCommit { after, took_place }) = end {
            store.end = Some((after, took_place));
        }
        let early = async move {
            let (End::Killed(after) | End::Drained(after) | End::Aborted(after)) =
                end.unwrap_or(End::Killed(usize::MAX))
            else {
                return std::future::pending().await;
            };
            for _ in 0..after {
                if events.recv().await.is_none() {
                    return std::future::pending().await;
                }
            }
            match end {
                Some(End::Killed(_)) => return,
                Some(End::Aborted(_)) => control.abort.cancel(),
                Some(End::Drained(_) | End::KilledInCommit { .. }) | None => {}
            }
            control.drain.cancel();
            std::future::pending().await
        };
        let result = runtime().block_on(async {
            tokio::select! {
                result = executor.apply(plan, &mut store) => Some(result),
                () = early => None,
            }
        });
        self.world.store = store.store;
        match result {
            Some(Ok(report)) => Ok(Some(report)),
            Some(Err(ApplyError::Store(_))) | None if end.is_some() => Ok(None),
            other => Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }

    /// What holds at every moment.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut live = BTreeMap::<Name, usize>::new();
        for machine in self.machines() {
            if matches!(machine.state, VmState::Running | VmState::Suspended) {
                *live.entry(machine.name.expect("it was told its name")).or_default() += 1;
            }
        }
        prop_assert!(live.values().all(|count| *count == 1), "never two of one machine: {live:?}");
        let ran = self.ran();
        for record in self.world.store.snapshot().unwrap().records.values() {
            let Some(ran) = ran.get(&InstanceId(record.instance)) else { continue };
            let digests: Vec<_> = ran.iter().map(|script| Digest::of(script).to_string()).collect();
            // Not in order: what runs once may have run before the steps that stand in front of it now, and what always runs
            // runs again after those behind it. That steps run in the order of the plan is seen to when they run.
            let is_true = |step: &vmctl_state::ProvisionRecord| digests.contains(&step.digest);
            let claims = record.provisioned.iter().all(is_true);
            prop_assert!(claims, "{} claims what did not run: {ran:?}", record.address);
        }
        Ok(())
    }

    /// Every machine of the fake host, by name.
    fn machines(&self) -> Vec<FakeMachine> {
        let Ok(folders) = fs::read_dir(self.world.folder.path().join("vms")) else { return Vec::new() };
        let name_of =
            |folder: std::io::Result<fs::DirEntry>| folder.unwrap().file_name().into_string().unwrap();
        let mut machines: Vec<_> =
            folders.filter_map(|folder| self.world.noop.machine(&name_of(folder)).unwrap()).collect();
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        machines
    }

    /// The scripts that ran in each instance, in order.
    fn ran(&self) -> BTreeMap<InstanceId, Vec<String>> {
        self.machines().into_iter().map(|machine| (machine.id, machine.provisioned)).collect()
    }
}

/// The provisioning steps of a plan by instance: number and script, in order.
fn provisioning(plan: &Plan) -> BTreeMap<InstanceId, Vec<(usize, String)>> {
    let mut steps = BTreeMap::<_, Vec<_>>::new();
    for (_, step) in plan.graph.steps() {
        if let (StepKind::Provision(number), Some(label)) = (step.kind, &step.label) {
            steps.entry(step.instance).or_default().push((number, label.clone()));
        }
    }
    steps
}

fn nowhere() -> MemoryStore {
    MemoryStore::new(Uuid::nil())
}

/// A store that takes a number of commits, if told, and then no more, as when vmctl is killed there.
#[derive(Debug)]
struct Mortal {
    store: MemoryStore,
    /// Commits until then, and whether the one after them takes place without anybody hearing of it.
    end: Option<(usize, bool)>,
}

impl Store for Mortal {
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.store.snapshot()
    }

    fn commit(&mut self, entries: &[Entry]) -> Result<u64, StoreError> {
        match &mut self.end {
            Some((0, took_place)) => {
                if std::mem::take(took_place) {
                    self.store.commit(entries)?;
                }
                return Err(storage_full());
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        self.store.commit(entries)
    }

    fn publish(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
