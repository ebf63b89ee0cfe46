//! What holds whoever depends on whom.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vmctl_planner::desired::{Desired, DesiredVm, Until, WarmChoice};
use vmctl_planner::warm::keys;
use vmctl_planner::{Observed, Options, Plan, StepKind};
use vmctl_providers::{Digest, Name};
use vmctl_state::{Address, Phase};

use crate::host::NumbersHost;
use crate::{World, change, desired, find};

/// What a random VMFile says of one machine: which of three kinds it is, whether it is kept at all, what it needs, how
/// far that must be, and whether it is made anew.
type Sketch = (u64, bool, BTreeSet<usize>, usize);

const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

fn build(world: &World, sketches: &[Sketch], order: &[usize]) -> Desired {
    // Names say nothing of the order in which machines depend on each other.
    let name = |index: usize| NAMES[order[index]];
    let until = [Until::Started, Until::Ready, Until::Provisioned];
    desired(sketches.iter().enumerate().map(|(index, (kind, is_warm, needs, far))| {
        let needs = needs.iter().filter(|needed| **needed < index);
        DesiredVm {
            memory_mib: 128 * (kind + 1),
            warm: if *is_warm { WarmChoice::Auto } else { WarmChoice::Off },
            depends_on: needs.map(|needed| (name(*needed).parse().unwrap(), until[*far])).collect(),
            ..world.vm(name(index))
        }
    }))
}

/// What holds for every plan, whoever depends on whom.
fn check(plan: &Plan, goal: &Desired) {
    plan.graph.sequence().expect("acyclic");
    let keys = keys(goal);
    let mut kept: BTreeMap<&Digest, Vec<&str>> = BTreeMap::new();
    for (name, key) in &keys {
        assert!(find(plan, name.as_str(), StepKind::Prepare).is_some(), "{name} is made");
        if find(plan, name.as_str(), StepKind::Keep).is_some() {
            kept.entry(key).or_default().push(name.as_str());
        }
    }
    assert!(kept.values().all(|kept| kept.len() == 1), "{kept:?}");
    let loose = plan.graph.steps().map(|(id, _)| (id, plan.graph.before_either_way(id)));
    let mut loose: BTreeMap<_, _> = loose.filter(|(_, before)| !before.is_empty()).collect();
    for (name, key) in &keys {
        let leader = *kept[key].first().expect("one of each kind");
        let keep = find(plan, leader, StepKind::Keep).unwrap();
        let prepare = find(plan, name.as_str(), StepKind::Prepare).unwrap();
        let after = change(plan, name.as_str()).template_after.as_ref();
        if leader == name.as_str() {
            assert_eq!(after, None);
        } else if after.is_some() {
            assert_eq!(after, Some(&Address::vm(leader)), "the leader of {name}");
            let down = [StepKind::Stop, StepKind::Destroy];
            let down = down.into_iter().filter_map(|kind| find(plan, name.as_str(), kind));
            let waits: Vec<_> = down.chain([prepare]).filter_map(|step| loose.remove(&step)).collect();
            assert_eq!(waits, [vec![keep]], "{name} waits once");
        } else {
            assert!(plan.graph.leading_to(keep).contains(&prepare), "{name} could wait for {leader}");
        }
    }
    assert_eq!(loose, [].into(), "nothing else waits so");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whoever_depends_on_whom_all_are_made_and_each_kind_is_kept_once(
        sketches in prop::collection::vec(
            (0..3u64, prop::bool::weighted(0.9), prop::collection::btree_set(0..NAMES.len(), 0..3), 0..3usize),
            1..=NAMES.len(),
        ),
        order in Just((0..NAMES.len()).collect::<Vec<_>>()).prop_shuffle(),
        failing in prop::option::of(0..NAMES.len()),
        is_full in prop::bool::weighted(0.1),
    ) {
        let failing = failing.map(|index| NAMES[index].parse().unwrap());
        let mut world = World::new(NumbersHost { failing: failing.clone(), is_full, ..NumbersHost::default() });
        let goal = build(&world, &sketches, &order);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let plan = world.plan_from(&goal, &Options::default(), &Observed::default());
        check(&plan, &goal);
        let (report, _) = runtime.block_on(world.apply(&plan));
        prop_assert_eq!(&report.not_begun, &[]);

        // Whoever needs nobody that failed is there, and is provisioned once, by its steps or by its template's.
        let mut lost: BTreeSet<Name> = failing.into_iter().filter(|name| goal.vms.contains_key(name)).collect();
        lost.retain(|name| find(&plan, name.as_str(), StepKind::Provision(1)).is_some());
        let was_failing = !report.failed.is_empty();
        let root = lost.clone();
        loop {
            let more: Vec<_> = goal.vms.values().filter(|vm| {
                !lost.contains(&vm.name) && vm.depends_on.iter().any(|(name, until)| {
                    // What is started, or ready, was so before its provisioning failed.
                    lost.contains(name) && (*until == Until::Provisioned || !root.contains(name))
                })
            }).map(|vm| vm.name.clone()).collect();
            if more.is_empty() { break }
            lost.extend(more);
        }
        for vm in goal.vms.values().filter(|vm| !was_failing || !lost.contains(&vm.name)) {
            let record = world.record(vm.name.as_str());
            prop_assert_eq!((record.phase, record.provisioned.len()), (Phase::Running, 3), "{}", vm.name);
        }
        // What is there is left as it is: only what runs always is due, and what failed.
        let next = runtime.block_on(world.plan(&goal, &Options::default()));
        check_settled(&next, &lost);
    }

    #[test]
    fn machines_that_are_made_anew_wait_as_well(
        sketches in prop::collection::vec(
            (0..2u64, Just(true), prop::collection::btree_set(0..NAMES.len(), 0..3), 0..3usize),
            1..=NAMES.len(),
        ),
        order in Just((0..NAMES.len()).collect::<Vec<_>>()).prop_shuffle(),
        replaced in prop::collection::btree_set(0..NAMES.len(), 0..NAMES.len()),
    ) {
        let mut world = World::new(NumbersHost::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let goal = build(&world, &sketches, &order);
        runtime.block_on(world.made(&goal));
        // Other machines now, of which some depend on others than before.
        let next = build(&world, &sketches.iter().rev().cloned().collect::<Vec<_>>(), &order);
        let vms = next.vms.into_values().map(|vm| DesiredVm { vcpus: 2, ..vm });
        let next = desired(vms);
        let named = replaced.into_iter().map(|index| NAMES[index].parse().unwrap());
        let replace: BTreeSet<Name> = named.filter(|name| goal.vms.contains_key(name)).collect();
        let options = Options { replace: replace.clone(), ..Options::default() };
        let plan = runtime.block_on(world.plan(&next, &options));
        let made = next.vms.into_values().filter(|vm| replace.contains(&vm.name));
        check(&plan, &desired(made));
        let (report, _) = runtime.block_on(world.apply(&plan));
        prop_assert!(report.is_complete());
    }
}

/// Whatever is not lost has nothing left to do but what runs with every plan.
fn check_settled(plan: &Plan, lost: &BTreeSet<Name>) {
    for (_, step) in plan.graph.steps() {
        let is_lost = lost.iter().any(|name| step.address == Address::vm(name.as_str()));
        assert!(
            is_lost || matches!(step.kind, StepKind::Provision(2) | StepKind::FetchImage),
            "{step} is to be done again"
        );
    }
}
