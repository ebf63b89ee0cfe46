//! Machines that run: looking at them, ending them, noticing their end, and what they cost besides QEMU.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use vmctl_tests::{World, process};

use crate::hand;
use crate::machines::Idle;
use crate::script;
use crate::table::{Case, Need, Row, Sides, turns};
use crate::usage::{self, timed};

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[
            Row::new("P5", "drift of 100 QEMUs, against asking each by hand / processors", 3.0),
            Row::new("P18", "processes of 100 QEMUs that run, against one for each", 1.0),
        ],
        needs: &[Need::Memory(5)],
        measure: look,
    },
    Case {
        rows: &[
            Row::new("P15", "100 QEMUs stopped, against `quit` to all at once", 1.5),
            Row::new("P15", "100 QEMUs stopped and destroyed, against the same `quit`", 1.5),
        ],
        needs: &[Need::Memory(5)],
        measure: end,
    },
    Case {
        rows: &[Row::new("P15", "from a crash of QEMU to its report, against a bound", 1.0)],
        needs: &[],
        measure: crash,
    },
    Case {
        rows: &[Row::new("P18", "memory of 8 QEMUs (PSS), against bare QEMUs", 1.05)],
        needs: &[],
        measure: density,
    },
];

/// Looking at machines that run (P5), and what runs for them (P18). By hand they are asked one after the other; the goal
/// counts on all processors.
fn look(runs: usize) -> Vec<Sides> {
    const MACHINES: usize = 100;
    let processors =
        thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    let idle = Idle::new(MACHINES);
    idle.apply();
    let sockets: Vec<_> = idle.pids().into_iter().map(hand::socket).collect();
    settle(&idle.world);
    let ours = || usage::of(&mut idle.world.command(&["drift"])).wall;
    let theirs = || timed(|| sockets.iter().for_each(|socket| hand::ask(socket))) / processors;
    let drift = Sides::measure(runs, ours, theirs);
    let count = u64::try_from(processes_of(&idle.world)).unwrap_or(u64::MAX);
    vec![drift, Sides::counts(&[count], &[MACHINES as u64])]
}

/// How many processes there are that are of a world: by their command line, or by the folders that vmctl is told of in
/// its environment, which it hands on to whatever it starts.
fn processes_of(world: &World) -> usize {
    let needle = world.folder().display().to_string();
    let names_it =
        |file: &Path| fs::read(file).is_ok_and(|text| String::from_utf8_lossy(&text).contains(&needle));
    let entries = fs::read_dir("/proc").expect("what runs").flatten();
    entries
        .filter(|entry| ["cmdline", "environ"].iter().any(|name| names_it(&entry.path().join(name))))
        .count()
}

/// Ending machines (P15) whose guests are not asked. By hand, all monitors are told at once, and each process is waited
/// for.
fn end(runs: usize) -> Vec<Sides> {
    const MACHINES: usize = 100;
    let idle = Idle::new(MACHINES);
    let at_once = MACHINES.to_string();
    let ours = || {
        idle.apply();
        settle(&idle.world);
        let mut arguments = vec!["stop", "--timeout", "0s", "--quiet", "--parallelism", &at_once];
        arguments.extend(idle.names.iter().map(String::as_str));
        let stopped = timed(|| drop(idle.world.vmctl(&arguments).expect(0)));
        let arguments = ["apply", "--destroy", "--yes", "--quiet", "--parallelism", &at_once];
        let destroyed = timed(|| drop(idle.world.vmctl(&arguments).expect(0)));
        (stopped, stopped + destroyed)
    };
    let theirs = || {
        idle.apply();
        settle(&idle.world);
        let machines: Vec<_> = idle.pids().into_iter().map(|pid| (hand::socket(pid), pid)).collect();
        timed(|| {
            thread::scope(|scope| {
                for (socket, pid) in &machines {
                    scope.spawn(move || hand::quit(socket, *pid));
                }
            });
        })
    };
    let (ours, theirs) = turns(runs, ours, theirs);
    let (stopped, destroyed) = ours.into_iter().unzip();
    vec![Sides::times(stopped, theirs.clone()), Sides::times(destroyed, theirs)]
}

/// A QEMU that is killed while `apply` waits for its guest (P15): how long until that is told.
fn crash(runs: usize) -> Vec<Sides> {
    const BOUND: Duration = Duration::from_millis(100);
    let seen = |_| {
        let world = World::new(1);
        world.blank_image();
        world.vmfile("vm \"m\" { image \"blank.qcow2\"; memory 32; ssh }\n");
        let mut apply = world.start(&["apply", "--yes", "--json"]);
        apply.await_line(|line| line.contains(r#""event":"started""#) && line.contains(r#""kind":"ready""#));
        let found = process::naming(world.folder());
        let qemu = found.iter().find(|process| process.command.contains("qemu-system")).expect("a QEMU");
        let begun = Instant::now();
        process::kill(qemu.pid);
        apply.await_line(|line| line.contains(r#""event":"failed""#));
        let elapsed = begun.elapsed();
        apply.end().expect(5);
        elapsed
    };
    vec![Sides::bounded((0..runs).map(seen).collect(), BOUND)]
}

/// Memory of machines beside that of the same processes started by hand (P18), the parts of what is shared counted in.
fn density(runs: usize) -> Vec<Sides> {
    let idle = Idle::new(8);
    idle.apply();
    let scripts = idle.learn();
    idle.kill();
    let ours = || {
        idle.apply();
        settle(&idle.world);
        let memory = idle.pids().into_iter().map(pss).sum::<u64>();
        idle.kill();
        memory
    };
    let theirs = || {
        let machines = script::started(&scripts);
        settle(&idle.world);
        machines.iter().map(|machine| pss(machine.pid())).sum::<u64>()
    };
    let (ours, theirs) = turns(runs, ours, theirs);
    vec![Sides::bytes(&ours, &theirs)]
}

/// The memory of a process, in bytes, of what is shared its part (proc(5), `smaps_rollup`).
fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the memory of a process");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.expect("its part of it") * 1024
}

/// Waits until the firmware of all machines has found nothing to boot, and they do nothing any more.
fn settle(world: &World) {
    const LOOK: Duration = Duration::from_millis(500);
    /// Ticks that a machine may take meanwhile: its clock goes on.
    const IDLE: u64 = 2;
    const PATIENCE: Duration = Duration::from_secs(120);
    let pids: Vec<u32> = process::naming(world.folder()).iter().map(|process| process.pid).collect();
    let taken = || pids.iter().map(|&pid| ticks(pid)).collect::<Vec<_>>();
    let deadline = Instant::now() + PATIENCE;
    let mut before = taken();
    loop {
        thread::sleep(LOOK);
        let after = taken();
        if before.iter().zip(&after).all(|(before, after)| after - before <= IDLE) {
            return;
        }
        assert!(Instant::now() < deadline, "machines with empty disks do not come to rest");
        before = after;
    }
}

/// Ticks of processors' time that a process took so far (proc(5), `stat`: the 14th and 15th word, of which the second may
/// have spaces in its brackets).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
    rest.split_whitespace().skip(11).take(2).flat_map(str::parse::<u64>).sum()
}
