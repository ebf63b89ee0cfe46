//! What it costs to remember a step so that a cut of the power does not forget it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;
use vmctl_state::{Address, Entry, Holder, Intent, OpId, Outcome, ProjectDir, Reserve, Store, Writer};
use vmctl_tests::World;

use crate::table::{Case, Row, Sides, turns};
use crate::usage::timed;

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[Row::new("P13", "500 commits of a step, in process, against append+fdatasync", 2.0)],
        needs: &[],
        measure: commits,
    },
    Case {
        rows: &[Row::new("P13", "the commits of an apply to login, against 1 % of it", 1.0)],
        needs: &[],
        measure: share,
    },
];

/// A step's begin and its end, each durable before anything else happens, against as many lines of as many bytes at the
/// end of a file.
fn commits(runs: usize) -> Vec<Sides> {
    const STEPS: usize = 250;
    let world = World::new(0);
    let mut number = 0;
    let mut folder = || {
        number += 1;
        world.folder().join(format!("state-{number}"))
    };
    let ours = |folder: &Path| committed(folder, STEPS);
    let theirs = |folder: &Path| {
        let mut file = File::create(folder).expect("a file");
        let line = serde_json::to_vec(&intent(OpId(0))).expect("JSON");
        timed(|| {
            for _ in 0..2 * STEPS {
                file.write_all(&line).expect("room for a line");
                file.sync_data().expect("a disk that takes it");
            }
        })
    };
    let (mut paths, mut more) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        paths.push(folder());
        more.push(folder());
    }
    let (mut paths, mut more) = (paths.into_iter(), more.into_iter());
    let path = "a path for each run";
    vec![Sides::measure(runs, || ours(&paths.next().expect(path)), || theirs(&more.next().expect(path)))]
}

/// The commits of an apply that boots a guest: as many are made in process, and compared with the hundredth part of what
/// the apply took.
fn share(runs: usize) -> Vec<Sides> {
    const PART: u32 = 100;
    let world = World::new(1);
    world.vmfile("vm \"m\" { image \"TINY\"; memory 256; ssh { user \"vm\" } }\n");
    let mut number = 0;
    let apply = || {
        let elapsed = timed(|| drop(world.vmctl(&["apply", "--yes"]).expect(0)));
        let serial = serial(&world);
        world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
        (elapsed, serial)
    };
    let first = apply().1;
    // From one apply to the next, without what destroys between them.
    let before = serial(&world);
    let commits = apply().1 - before;
    assert!(commits > 0 && first > 0, "an apply commits");
    let steps = usize::try_from(commits.div_ceil(2)).expect("few");
    let ours = || {
        number += 1;
        committed(&world.folder().join(format!("state-{number}")), steps)
    };
    let (ours, theirs) = turns(runs, ours, || apply().0 / PART);
    vec![Sides::times(ours, theirs)]
}

/// The serial of a world's state.
fn serial(world: &World) -> u64 {
    let state = world.vmctl(&["state", "export"]).expect(0).json();
    state["state"]["serial"].as_u64().expect("a serial")
}

/// How long it takes to begin and end so many steps, one after the other, in a new state.
fn committed(folder: &Path, steps: usize) -> Duration {
    let dir = ProjectDir::of_project(folder, "shop");
    let holder = Holder {
        command: "vmctl-bench".into(),
        user: "bench".into(),
        host: "bench".into(),
        pid: std::process::id(),
        since: Timestamp::now(),
        boot: vmctl_state::project::boot_id(),
    };
    let mut writer =
        Writer::open(&dir, holder, Uuid::new_v4(), Duration::ZERO, Reserve::Keep).expect("a new state");
    let first = writer.snapshot().expect("what it holds").next_op;
    let elapsed = timed(|| {
        for op in (first.0..).take(steps).map(OpId) {
            writer.commit(&[Entry::Begin(intent(op))]).expect("it takes the begin");
            writer.commit(&[Entry::End { op, outcome: Outcome::Done }]).expect("it takes the end");
        }
    });
    writer.close().expect("it closes in order");
    elapsed
}

fn intent(op: OpId) -> Intent {
    Intent {
        op,
        run: Uuid::from_u128(1),
        step: "prepare".into(),
        address: Address::vm("web"),
        instance: Uuid::from_u128(2),
        at: Timestamp::UNIX_EPOCH,
        detail: json!({ "folder": "vms/web" }),
    }
}
