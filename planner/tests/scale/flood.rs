//! Guests that print much, and nobody who reads.

use vmctl_planner::apply::Event;
use vmctl_providers::Digest;
use vmctl_providers::provision::{ProvisionAction, ProvisionStep};

use crate::World;
use crate::host::NumbersHost;

/// Machines that come to 10,000 steps: each is provisioned, too.
const MACHINES: usize = 2_500;

/// Lines of each machine, and how long they are: 256 MB in all.
const FLOOD: (usize, usize) = (100, 1024);

/// Most that may wait: two events a step, one gap a step, and a megabyte of lines of a kilobyte.
const MOST: usize = 2 * 10_000 + MACHINES + 1024;

#[tokio::test(flavor = "multi_thread")]
async fn apply_ends_and_holds_little_when_nobody_reads_a_flood() {
    let mut world = World::new(NumbersHost { flood: FLOOD, ..NumbersHost::default() });
    let script = "seq 1000000".to_owned();
    let step = ProvisionStep {
        number: 1,
        label: script.clone(),
        digest: Digest::of(&script),
        action: ProvisionAction::Shell { script },
        options: Default::default(),
        secrets: Default::default(),
    };
    let machines = (0..MACHINES).map(|number| {
        let mut vm = world.vm(number);
        vm.provision = vec![step.clone()];
        vm
    });
    let plan = world.plan(machines.collect::<Vec<_>>());
    let (report, mut events) = world.apply(&plan).await;
    assert!(report.is_complete());
    assert!(events.waiting() <= MOST, "{} events wait", events.waiting());

    let (mut begun, mut ended, mut shown, mut dropped) = (0, 0, 0, 0);
    while let Some(event) = events.recv().await {
        match event {
            Event::Started(_) => begun += 1,
            Event::Done { .. } => ended += 1,
            Event::Output { .. } => shown += 1,
            Event::Dropped { lines, .. } => dropped += usize::try_from(lines).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }
    assert_eq!(
        (begun, ended),
        (plan.graph.len(), plan.graph.len()),
        "what happens to steps is never dropped"
    );
    assert_eq!(shown + dropped, MACHINES * FLOOD.0, "what is not shown is counted");
    assert!(shown > 0);
}
