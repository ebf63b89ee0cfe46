//! How vmctl grows: commands on many fake machines, against the same on few as often as it takes to come to as many.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use vmctl_tests::World;

use crate::Sides;
use crate::cases::timed;

/// Machines of the large side.
const MANY: u32 = 10_000;

/// `vmctl --version` against a program that does nothing (P1).
pub(crate) fn floor(runs: usize) -> Sides {
    const TIMES: usize = 50;
    let world = World::new(0);
    let times = |program: &std::path::Path, argument: &str| {
        timed(|| {
            for _ in 0..TIMES {
                let mut command = world.beside_vmctl(program);
                let status = command.arg(argument).stdout(Stdio::null()).status().expect("it runs");
                assert!(status.success());
            }
        })
    };
    let ours = || times(world.binary(), "--version");
    Sides::measure(runs, ours, || times("/bin/true".as_ref(), "--version"))
}

/// A plan without changes (P4), of machines that are written one by one.
pub(crate) fn plan(few: u32, runs: usize) -> Sides {
    let (many, small) = (applied(MANY), applied(few));
    let plan = |world: &World| timed(|| drop(world.vmctl(&["plan", "--detailed-exitcode"]).expect(0)));
    Sides::measure(runs, || plan(&many), || plan(&small) * (MANY / few))
}

/// An apply that makes all machines, with every step in the journal.
pub(crate) fn apply(few: u32, runs: usize) -> Sides {
    let make = |count: u32| {
        let world = written(count);
        timed(|| drop(world.vmctl(&["apply", "--yes", "--quiet"]).expect(0)))
    };
    Sides::measure(runs, || make(MANY), || make(few) * (MANY / few))
}

/// A list of all machines.
pub(crate) fn list(few: u32, runs: usize) -> Sides {
    let (many, small) = (applied(MANY), applied(few));
    let list = |world: &World| timed(|| drop(world.vmctl(&["list", "--json"]).expect(0)));
    Sides::measure(runs, || list(&many), || list(&small) * (MANY / few))
}

/// Most memory that a plan of all machines takes (P14), in MiB.
pub(crate) fn plan_memory() -> u64 {
    let world = applied(MANY);
    let mut child =
        world.command(&["plan"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("vmctl");
    let mut most = 0;
    while child.try_wait().expect("it can be waited for").is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        // proc(5): the high-water mark of its resident memory, in KiB; it only grows.
        let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = mark.and_then(|mark| mark.trim().split(' ').next()?.parse().ok());
        most = kib.unwrap_or(most);
        thread::sleep(Duration::from_millis(2));
    }
    most / 1024
}

/// A world with so many fake machines in its file.
fn written(count: u32) -> World {
    let world = World::new(0);
    world.blank_image();
    let line = |number: u32| {
        format!(
            "vm \"m{number}\" {{\n    backend \"noop\"\n    image \"blank.qcow2\"\n    vcpus 2\n    memory \"2GiB\"\n}}\n"
        )
    };
    world.vmfile(&(1..=count).map(line).collect::<String>());
    world
}

fn applied(count: u32) -> World {
    let world = written(count);
    world.vmctl(&["apply", "--yes", "--quiet"]).expect(0);
    world
}
