//! Making and starting machines whose guests do nothing, against `qemu-img` and bare QEMU.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use vmctl_tests::{World, process};

use crate::script::{self, Script};
use crate::table::{Case, Need, Row, Sides, turns};
use crate::usage::timed;

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[Row::new("P6", "20 machines prepared, against qemu-img", 1.0)],
        needs: &[],
        measure: prepare,
    },
    Case {
        rows: &[Row::new("P6", "syncs of a machine prepared, against a bound", 1.0)],
        needs: &[Need::Program("strace")],
        measure: syncs,
    },
    Case {
        rows: &[Row::new("P11", "disk of a second machine of an image, against a bound", 1.0)],
        needs: &[],
        measure: second_machine,
    },
    Case {
        rows: &[
            Row::new("P7", "`vmctl start` of one QEMU, whole, against bare QEMU", 1.1),
            Row::new("P7", "step `start` of one QEMU, as told, against bare QEMU", 1.1),
        ],
        needs: &[],
        measure: start_one,
    },
    Case {
        rows: &[Row::new("P9", "48 QEMUs started by `apply`, against bare QEMUs", 1.2)],
        needs: &[Need::Memory(4)],
        measure: start_many,
    },
];

/// Preparing machines that are not started (P6): overlay, seed, key and records, against `qemu-img create` alone, as many
/// at once as there are processors.
fn prepare(runs: usize) -> Vec<Sides> {
    const MACHINES: usize = 20;
    let world = World::new(1);
    world
        .vmfile("vm \"m\" count=20 { image \"TINY\"; memory 256; state \"stopped\"; ssh { user \"vm\" } }\n");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let base = text(&world.vm("m-1")["image"]["path"]);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);

    let ours = || {
        let elapsed = timed(|| drop(world.vmctl(&["apply", "--yes"]).expect(0)));
        world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
        elapsed
    };
    let folder = world.folder().join("overlays");
    let theirs = || {
        fs::create_dir(&folder).expect("a folder for overlays");
        let elapsed = timed(|| overlays(&folder, &base, MACHINES));
        fs::remove_dir_all(&folder).expect("to remove the overlays");
        elapsed
    };
    vec![Sides::measure(runs, ours, theirs)]
}

/// Makes overlays over `base`, one process for each.
fn overlays(folder: &Path, base: &str, count: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let mut command = Command::new("qemu-img");
                    command.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base]);
                    let status = command.arg(folder.join(number.to_string())).status().expect("qemu-img");
                    assert!(status.success(), "qemu-img create failed");
                }
            });
        }
    });
}

/// How often a machine that is prepared makes the disk sure (P6): what ten more of them add to an `apply`.
fn syncs(_: usize) -> Vec<Sides> {
    const MOST: u64 = 4;
    const MORE: u64 = 10;
    let count = |machines: u64| {
        let mut world = World::new(1);
        world.vmfile(&format!(
            "vm \"m\" count={machines} {{ image \"TINY\"; memory 256; state \"stopped\"; ssh {{ user \"vm\" }} }}\n"
        ));
        let trace = world.folder().join("trace");
        let words = ["strace", "-f", "-e", "trace=fsync,fdatasync,syncfs,sync_file_range", "-o"];
        let prefix = words.into_iter().map(str::to_owned).chain([trace.display().to_string()]);
        world.through(prefix.collect());
        world.vmctl(&["apply", "--yes"]).expect(0);
        let text = fs::read_to_string(&trace).expect("what strace saw");
        // One that another thread's comes between has two lines, of which the second has no bracket behind its name.
        let is_call =
            |line: &&str| line.contains("sync(") || line.contains("syncfs(") || line.contains("range(");
        text.lines().filter(is_call).count() as u64
    };
    vec![Sides::counts(&[count(2 * MORE).saturating_sub(count(MORE)) / MORE], &[MOST])]
}

/// Disk that a second machine with an image takes (P11), as `du` counts.
fn second_machine(_: usize) -> Vec<Sides> {
    const MOST: u64 = 256 << 10;
    let world = World::new(1);
    world.vmfile("vm \"m\" count=2 { image \"TINY\"; memory 256; state \"stopped\"; ssh { user \"vm\" } }\n");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let folder = PathBuf::from(text(&world.vm("m-2")["work_dir"]));
    vec![Sides::bytes(&[blocks(&folder) * 512], &[MOST])]
}

/// Blocks of 512 bytes that a folder takes, itself and what is in it.
fn blocks(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).expect("what a file takes");
    let inside = own.is_dir().then(|| fs::read_dir(path).expect("the machine's folder"));
    own.blocks() + inside.into_iter().flatten().flatten().map(|entry| blocks(&entry.path())).sum::<u64>()
}

/// Starting one machine that is there (P7), until its monitor says that it runs: the whole command, and what the events
/// say of its one step.
fn start_one(runs: usize) -> Vec<Sides> {
    let idle = Idle::new(1);
    idle.apply();
    let scripts = idle.learn();
    idle.kill();
    let events = idle.world.folder().join("events");
    let path = events.display().to_string();
    let ours = || {
        let elapsed =
            timed(|| drop(idle.world.vmctl(&["start", "m-1", "--quiet", "--events", &path]).expect(0)));
        idle.kill();
        let step = seconds(&events, "start");
        fs::remove_file(&events).expect("to remove the events");
        (elapsed, step)
    };
    let (ours, theirs) = turns(runs, ours, || script::greet(&scripts));
    let (whole, step) = ours.into_iter().unzip();
    vec![Sides::times(whole, theirs.clone()), Sides::times(step, theirs)]
}

/// How long the one step of a kind took that is in a file of events.
fn seconds(events: &Path, kind: &str) -> Duration {
    let text = fs::read_to_string(events).expect("events");
    let is_its_end = |event: &Value| event["event"] == "done" && event["kind"] == kind;
    let mut events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event a line"));
    let end = events.find(is_its_end).expect("the step's end");
    Duration::from_secs_f64(end["seconds"].as_f64().expect("seconds"))
}

/// Starting prepared machines (P9): QEMUs on empty disks that somebody ended, against the same processes started all at
/// once by hand, until each monitor answers. Their processors stand still (`-S`), so that no firmware that runs already
/// slows those that come later.
fn start_many(runs: usize) -> Vec<Sides> {
    let idle = Idle::with(48, "; qemu-arg \"-S\"");
    idle.apply();
    let scripts = idle.learn();
    idle.kill();
    let ours = || {
        let elapsed = timed(|| idle.apply());
        idle.kill();
        elapsed
    };
    vec![Sides::measure(runs, ours, || script::greet(&scripts))]
}

/// Machines `m-1`, `m-2` and so on with empty disks: their guests stay in the firmware and do nothing.
pub(crate) struct Idle {
    pub(crate) world: World,
    pub(crate) names: Vec<String>,
}

impl Idle {
    pub(crate) fn new(machines: usize) -> Self {
        Self::with(machines, "")
    }

    /// The same, with more nodes for each of them.
    fn with(machines: usize, more: &str) -> Self {
        let world = World::new(1);
        world.blank_image();
        world.vmfile(&format!(
            "vm \"m\" count={machines} {{ image \"blank.qcow2\"; memory 32; network \"none\"{more} }}\n"
        ));
        Self { world, names: (1..=machines).map(|number| format!("m-{number}")).collect() }
    }

    /// Lets all run, all at once.
    pub(crate) fn apply(&self) {
        let at_once = self.names.len().to_string();
        self.world.vmctl(&["apply", "--yes", "--overcommit", "--parallelism", &at_once]).expect(0);
    }

    /// What runs, in the order of the names.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let list = self.world.vmctl(&["list", "--json"]).expect(0).json();
        let vms = list["vms"].as_array().expect("a list of machines");
        let pid = |name: &String| {
            let pid = vms.iter().find(|vm| vm["name"] == **name).and_then(|vm| vm["pid"].as_u64());
            u32::try_from(pid.expect("it runs")).expect("a process id")
        };
        self.names.iter().map(pid).collect()
    }

    /// How each is run without vmctl.
    pub(crate) fn learn(&self) -> Vec<Script> {
        self.names.iter().map(|name| Script::learn(&self.world, name)).collect()
    }

    /// Kills all, as somebody might; the next `apply` starts them again.
    pub(crate) fn kill(&self) {
        self.pids().into_iter().for_each(process::kill);
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // A world insists that nothing of it runs at its end.
        process::naming(self.world.folder()).iter().for_each(|process| process::kill(process.pid));
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
