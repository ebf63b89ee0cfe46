//! Whatever the machines wait for: all steps are done, in order and within the limits.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vmctl_planner::desired::Until;

use crate::host::NumbersHost;
use crate::{LIMITS, MACHINES, World, name};

/// Carries out a plan in which each machine waits for the machines that `needs` names, all before it.
async fn in_order_and_within_limits(needs: impl Fn(usize) -> Vec<usize>) {
    let mut world = World::new(NumbersHost::default());
    let machines = (0..MACHINES).map(|number| {
        let mut vm = world.vm(number);
        vm.depends_on = needs(number).into_iter().map(|needed| (name(needed), Until::Ready)).collect();
        vm
    });
    let plan = world.plan(machines.collect::<Vec<_>>());
    assert_eq!(plan.graph.len(), 10_000);
    let (report, mut events) = world.apply(&plan).await;
    assert!(report.is_complete());
    assert_eq!(report.done.len(), 10_000);

    let seen = world.host.seen();
    assert!(seen.most_running <= LIMITS.steps, "{} ran at once", seen.most_running);
    assert!(seen.most_booting <= LIMITS.boots, "{} booted at once", seen.most_booting);
    for number in 0..MACHINES {
        for needed in needs(number) {
            let (ready, started) = (seen.ready[&name(needed)], seen.started[&name(number)]);
            assert!(ready < started, "m{number} started before m{needed} was ready");
        }
    }
    // Nobody reads while it runs: each step is told twice, and that is all.
    assert_eq!(events.waiting(), 20_000);
    while events.recv().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_waits_for_one_machine() {
    in_order_and_within_limits(|number| if number == 0 { vec![] } else { vec![0] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_machine_waits_for_all_others() {
    let all = MACHINES - 1;
    in_order_and_within_limits(|number| if number == all { (0..all).collect() } else { vec![] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_machine_waits_for_the_one_before() {
    in_order_and_within_limits(|number| number.checked_sub(1).into_iter().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_stand_in_layers() {
    // Of each layer of 100, every machine waits for three of the layer below.
    let below = |number: usize| {
        let layer = (number / 100).checked_sub(1)?;
        Some((0..3).map(move |k| layer * 100 + (number * 7 + k * 31) % 100).collect())
    };
    in_order_and_within_limits(|number| below(number).unwrap_or_default()).await;
}

#[test]
fn machines_wait_for_each_other_at_random() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // The seed is fixed, so that what fails once fails again.
    for seed in 0..2u8 {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let indices = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
        let all = prop::collection::vec(indices, MACHINES).new_tree(&mut runner).unwrap().current();
        let needs = |number: usize| {
            let earlier = all[number].iter().filter(|_| number > 0).map(|index| index.index(number));
            earlier.collect::<Vec<_>>()
        };
        runtime.block_on(in_order_and_within_limits(needs));
    }
}
