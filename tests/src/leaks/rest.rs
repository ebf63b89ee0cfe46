//! A world at rest, as a whole.

use std::path::PathBuf;

use serde_json::Value;

use super::{files, machines};
use crate::World;

/// One project as it says it is.
pub(super) struct Told {
    /// Its data folder.
    pub(super) folder: PathBuf,
    /// Its machines, as `list --json` tells them.
    pub(super) vms: Vec<Value>,
    /// What it published last.
    pub(super) snapshot: Value,
}

/// What the last apply was to do, and so the plan that must find nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// What the VMFile asks for.
    Desired,
    /// That nothing is there.
    Destroyed,
}

/// Panics, naming every leak, unless the world is as a good apply must leave it.
pub fn leakcheck(world: &World) {
    let leaks = leaks(world, Goal::Desired);
    assert!(leaks.is_empty(), "the world is not whole:\n{}", leaks.join("\n"));
}

/// Everything that breaks an invariant in a world at rest, each as the invariant's number and what breaks it.
pub fn leaks(world: &World, goal: Goal) -> Vec<String> {
    // Before anything looks: a reader would clear away what a dead writer left.
    let files = files::entries(world.folder());
    let list = world.vmctl(&["list", "--json"]).expect(0).json();
    let folder = world.data().join("projects").join(list["project"].as_str().expect("a project"));
    let snapshot = std::fs::read(folder.join("snapshot.json")).expect("a published snapshot");
    let told = Told {
        folder,
        vms: list["vms"].as_array().expect("a list of VMs").clone(),
        snapshot: serde_json::from_slice(&snapshot).expect("a snapshot is JSON"),
    };
    let mut leaks = machines::disagreements(world, &told);
    leaks.extend(files::without_owner(world, &files, &told));
    leaks.extend(left_to_do(world, goal, &told));
    leaks
}

/// I3: another plan finds nothing to do, and no step is open in the journal.
fn left_to_do(world: &World, goal: Goal, told: &Told) -> Vec<String> {
    let mut leaks = Vec::new();
    let plan = match goal {
        Goal::Desired => world.vmctl(&["plan", "--detailed-exitcode"]),
        Goal::Destroyed => world.vmctl(&["plan", "--detailed-exitcode", "--destroy"]),
    };
    if plan.code() != 0 {
        leaks.push(format!("I3: the plan is not empty (exit {}):\n{}", plan.code(), plan.text()));
    }
    if told.snapshot["open"] != serde_json::json!([]) {
        leaks.push(format!("I3: steps are open in the journal: {}", told.snapshot["open"]));
    }
    leaks
}
