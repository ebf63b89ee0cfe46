//! The same on real machines: killed at every place inside QEMU's effects, the next apply takes up what is there.
//!
//! A process that lives is adopted under its id (F4, F5), and no disk ever has two. The guests stay in their firmware,
//! which costs nothing and does not power down; so they get less time for that.

use std::collections::BTreeSet;

use vmctl_tests::leaks::{self, Goal};
use vmctl_tests::{Ended, World, await_condition, process};

use super::points::{is_of_qemu, listed};
use super::scenario::was_killed;

/// Guests in firmware do not hear the power button.
const IMPATIENT: &str = "stop.patience=value:200";

const FAULTS: [&str; 3] = ["kill", "enospc", "panic"];

// Where each test disturbs an apply. Edges are here where a live process makes a difference.
const MAKING: [&str; 14] = [
    "state.qemu.drafted",
    "state.qemu.drafted@4",
    "state.qemu.drafted@6",
    "prepare.qemu.folder-made",
    "prepare.qemu.claimed",
    "prepare.qemu.overlay-made",
    "prepare.qemu.overlay-renamed",
    "prepare.qemu.keys-written",
    "prepare.qemu.seed-written",
    "prepare.qemu.variables-written",
    "prepare.qemu.volume-made",
    "prepare.qemu.volume-renamed",
    "prepare.qemu.synced",
    "prepare.qemu.prepared",
];
const STARTING: [&str; 7] = [
    "state.qemu.drafted@3",
    "start.qemu.spawned",
    "start.qemu.answered",
    "start.qemu.handle-made",
    "start.qemu.remembered",
    "start.effect.after",
    "start.record.before",
];
const SERVING: [&str; 2] = ["start.qemu.serving", "start.qemu.spawned"];
const STOPPING: [&str; 4] =
    ["stop.qemu.pressed", "stop.qemu.ended", "stop.qemu.cleaned", "stop.effect.after"];
const GROWING: [&str; 3] = ["update.qemu.grown", "update.qemu.volume-grown", "update.qemu.brought"];
const GROWING_LIVE: [&str; 2] = ["update.qemu.volume-grown-live", "update.qemu.brought"];
const FORWARDING: [&str; 3] = ["state.qemu.drafted", "update.qemu.brought", "update.effect.after"];
const PAUSING: [&str; 2] = ["suspend.qemu.paused", "suspend.effect.after"];
const UNPAUSING: [&str; 2] = ["resume.qemu.unpaused", "resume.effect.after"];
const DESTROYING: [&str; 6] = [
    "destroy.qemu.ended",
    "destroy.qemu.cleaned",
    "destroy.qemu.file-removed",
    "destroy.qemu.file-removed@3",
    "destroy.qemu.emptied",
    "destroy.qemu.disowned",
];
const LETTING_GO: [&str; 2] = ["state.qemu.drafted", "forget.qemu.marked"];
const IN_THE_GUEST: [&str; 3] = ["ready.qemu.logged-in", "provision.qemu.begun", "provision.qemu.running"];

#[test]
fn every_place_of_qemu_is_disturbed() {
    let disturbed: BTreeSet<&str> = [
        &MAKING[..],
        &STARTING,
        &SERVING,
        &STOPPING,
        &GROWING,
        &GROWING_LIVE,
        &FORWARDING,
        &PAUSING,
        &UNPAUSING,
        &DESTROYING,
        &LETTING_GO,
        &IN_THE_GUEST,
        &super::warm::CLONING,
    ]
    .concat()
    .into_iter()
    .collect();
    let missed: Vec<_> = listed()
        .into_iter()
        .filter(|point| is_of_qemu(point) && !point.starts_with("keep."))
        .filter(|point| !disturbed.contains(point.as_str()))
        .collect();
    assert!(missed.is_empty(), "no test disturbs {missed:?}");
}

fn world() -> World {
    let mut world = World::with_failpoints(1);
    world.blank_image();
    world.arm(IMPATIENT);
    world
}

/// The machine that is off and has a volume, with what differs from time to time.
fn stopped(gib: usize, rest: &str) -> String {
    let volume = format!("volume \"data\" size=\"{gib}G\"");
    format!("{volume}\nvm \"one\" {{ image \"blank.qcow2\"; volume \"data\"; {rest}; state \"stopped\" }}")
}

/// The machine that runs, with what differs from time to time.
fn running(rest: &str) -> String {
    format!("vm \"one\" {{ image \"blank.qcow2\"; forward host=0 guest=80; {rest} }}")
}

/// Applies with a fault, which must be met.
fn disturb(world: &mut World, arguments: &[&str], point: &str, fault: &str) -> Ended {
    let armed = if point.contains('@') { point.to_owned() } else { format!("{point}@1") };
    world.arm(&format!("{IMPATIENT};{armed}={fault}"));
    let ended = world.vmctl(arguments);
    world.arm(IMPATIENT);
    println!("{point}={fault}: {}", ended.status);
    // A disk that fails where only a message would be written is no failure of the step.
    let is_met = if fault == "kill" { was_killed(&ended) } else { !was_killed(&ended) };
    assert!(is_met, "{point}={fault}: {}\n{}", ended.status, ended.text());
    ended
}

/// One more apply: it goes well, and the world is whole.
fn converges(world: &World, after: &str) {
    let ended = world.vmctl(&["apply", "--yes"]);
    assert_eq!(ended.status.code(), Some(0), "one more apply after {after}\n{}", ended.text());
    let leaks = leaks::leaks(world, Goal::Desired);
    assert!(leaks.is_empty(), "after {after}:\n{}", leaks.join("\n"));
}

fn destroy(world: &World) {
    world.vmctl(&["apply", "--yes", "--destroy", "--volumes"]).expect(0);
    assert_eq!(leaks::leaks(world, Goal::Destroyed), [""; 0]);
}

/// The world's QEMU processes.
fn pids(world: &World) -> Vec<u32> {
    let all = process::naming(world.folder()).into_iter();
    all.filter(|process| process.command.contains("-uuid")).map(|process| process.pid).collect()
}

/// Every point with every fault.
fn cases<'p>(points: &'p [&'p str]) -> impl Iterator<Item = (&'p str, &'static str)> {
    FAULTS.into_iter().flat_map(|fault| points.iter().map(move |point| (*point, fault)))
}

/// F3.
#[test]
fn machine_half_made_is_finished() {
    let mut world = world();
    world.vmfile(&stopped(1, "firmware \"uefi\"; ssh { user \"vm\" }"));
    for (point, fault) in cases(&MAKING) {
        disturb(&mut world, &["apply", "--yes"], point, fault);
        converges(&world, point);
        assert_eq!(world.vm("one")["damage"], serde_json::json!([]));
        destroy(&world);
    }
}

/// F3: a machine was made, nobody remembers that, and by the next apply the file asks for another one.
#[test]
fn machine_half_made_is_made_as_the_file_says_by_then() {
    let mut world = world();
    for point in ["prepare.effect.after", "prepare.qemu.overlay-made", "prepare.qemu.seed-written"] {
        world.vmfile(&stopped(1, "memory 64; cloud-init { hostname \"first\" }"));
        disturb(&mut world, &["apply", "--yes"], point, "kill");
        world.vmfile(&stopped(1, "memory 96; cloud-init { hostname \"second\" }"));
        converges(&world, point);
        let folder = world.vm("one")["work_dir"].as_str().expect("a folder").to_owned();
        let seed = std::fs::read(format!("{folder}/seed.img")).expect("a seed");
        let says = |word: &str| seed.windows(word.len()).any(|found| found == word.as_bytes());
        assert!(says("second") && !says("first"), "{point}: the seed is of the first attempt");
        let manifest = std::fs::read_to_string(format!("{folder}/manifest.json")).expect("a manifest");
        assert!(
            manifest.contains("\"memory_mib\":96") || manifest.contains("\"memory_mib\": 96"),
            "{manifest}"
        );
        destroy(&world);
    }
}

/// F4, F5: what was launched is adopted as it is.
#[test]
fn machine_that_was_launched_is_adopted_under_its_process_id() {
    let mut world = world();
    world.vmfile(&running("memory 64"));
    for (point, fault) in cases(&STARTING) {
        disturb(&mut world, &["apply", "--yes"], point, fault);
        let launched = pids(&world);
        // A launch that fails ends its process; one that is killed or panics leaves it alone.
        assert!(launched.len() == 1 || fault == "enospc", "{point}={fault}: {launched:?}");
        for pid in &launched {
            await_condition("the process takes its lock", || pidfile_names(&world, *pid));
        }
        converges(&world, point);
        assert_eq!(pids(&world).len(), 1);
        assert!(launched.is_empty() || pids(&world) == launched, "{point}={fault}: started again");
        destroy(&world);
    }
}

/// F4: what serves a folder to a machine waits for ever if that is never launched, and is not left behind.
#[test]
fn server_of_a_folder_is_ended_with_what_was_cut_off() {
    let mut world = world();
    world.write("src/hello", "");
    world.vmfile(&running("memory 64; share \"src\" \"/mnt/src\" driver=\"virtiofs\""));
    for (point, fault) in cases(&SERVING) {
        disturb(&mut world, &["apply", "--yes"], point, fault);
        converges(&world, point);
        let servers = process::naming(world.folder()).into_iter();
        let servers: Vec<_> = servers.filter(|process| process.command.contains("virtiofsd")).collect();
        // In a process namespace of its own it is one process more.
        assert!((1..=2).contains(&servers.len()), "{point}={fault}: {servers:?}");
        destroy(&world);
    }
}

/// F7: a restart that was cut off while the machine stopped.
#[test]
fn machine_half_stopped_is_stopped_and_started_once() {
    let mut world = world();
    world.vmfile(&running("memory 64"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    for (number, (point, fault)) in cases(&STOPPING).enumerate() {
        world.vmfile(&running(if number % 2 == 0 { "memory 72" } else { "memory 64" }));
        disturb(&mut world, &["apply", "--yes"], point, fault);
        assert!(pids(&world).len() <= 1, "{point}={fault}");
        converges(&world, point);
    }
    destroy(&world);
}

#[test]
fn disk_half_grown_is_grown() {
    let mut world = world();
    let sized = |gib: usize| stopped(gib, &format!("disk {gib}"));
    world.vmfile(&sized(1));
    world.vmctl(&["apply", "--yes"]).expect(0);
    for (number, (point, fault)) in cases(&GROWING).enumerate() {
        world.vmfile(&sized(2 + number));
        disturb(&mut world, &["apply", "--yes"], point, fault);
        converges(&world, point);
        assert_eq!(world.vm("one")["disk_bytes"], (2 + number) << 30);
    }
    destroy(&world);
}

/// Changes of a machine that goes on running: its forwards, its pause.
#[test]
fn running_machine_half_changed_is_changed_and_goes_on() {
    let mut world = world();
    let calm = running("memory 64");
    let forwarding = running("memory 64; forward host=0 guest=81");
    let paused = running("memory 64; state \"suspended\"");
    world.vmfile(&calm);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("one");
    let changes = [
        (&FORWARDING[..], &calm, &forwarding),
        (&FORWARDING, &forwarding, &calm),
        (&PAUSING, &calm, &paused),
        (&UNPAUSING, &paused, &calm),
    ];
    let sized =
        |gib: usize| format!("volume \"data\" size=\"{gib}G\"\n{}", running("memory 64; volume \"data\""));
    for (points, before, after) in changes {
        for (point, fault) in cases(points) {
            world.vmfile(before);
            world.vmctl(&["apply", "--yes"]).expect(0);
            world.vmfile(after);
            disturb(&mut world, &["apply", "--yes"], point, fault);
            converges(&world, point);
            assert_eq!(world.pid("one"), pid, "{point}={fault}: it goes on");
        }
    }
    world.vmfile(&sized(1));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("one");
    for (number, (point, fault)) in cases(&GROWING_LIVE).enumerate() {
        world.vmfile(&sized(2 + number));
        disturb(&mut world, &["apply", "--yes"], point, fault);
        converges(&world, point);
        assert_eq!(world.pid("one"), pid, "{point}={fault}: it goes on");
    }
    destroy(&world);
}

/// F7: nothing of the machine stays, the image's cached copy does.
#[test]
fn machine_half_destroyed_is_destroyed() {
    let mut world = world();
    world.vmfile(&running("memory 64"));
    for (point, fault) in cases(&DESTROYING) {
        world.vmctl(&["apply", "--yes"]).expect(0);
        let cached = std::fs::read_dir(world.data().join("images")).unwrap().count();
        disturb(&mut world, &["apply", "--yes", "--destroy"], point, fault);
        destroy(&world);
        assert!(pids(&world).is_empty(), "{point}={fault}");
        assert_eq!(std::fs::read_dir(world.data().join("images")).unwrap().count(), cached);
    }
}

/// F8: what takes up a machine is killed as well, at every place that it passes.
#[test]
fn machine_is_taken_up_although_that_was_killed_too() {
    let mut world = world();
    let mut met = 0;
    for (machine, points, arguments) in [
        (stopped(1, "firmware \"uefi\"; ssh { user \"vm\" }"), &MAKING[..], &["apply", "--yes"][..]),
        (running("memory 64"), &STARTING, &["apply", "--yes"]),
        (running("memory 64"), &DESTROYING, &["apply", "--yes", "--destroy"]),
    ] {
        world.vmfile(&machine);
        for (number, first) in points.iter().enumerate() {
            // Recovery goes over the same place again, or comes to the next one.
            for second in points.iter().skip(number).take(2) {
                let destroys = arguments.contains(&"--destroy");
                if destroys {
                    world.vmctl(&["apply", "--yes"]).expect(0);
                }
                disturb(&mut world, arguments, first, "kill");
                let launched = pids(&world);
                assert!(launched.len() <= 1, "{first}: {launched:?}");
                for pid in launched.iter().filter(|_| !destroys) {
                    await_condition("the process takes its lock", || pidfile_names(&world, *pid));
                }
                met += usize::from(may_kill(&mut world, arguments, second));
                if !destroys {
                    converges(&world, &format!("{first} and {second}"));
                    assert!(
                        launched.is_empty() || pids(&world) == launched,
                        "{first} and {second}: started again"
                    );
                }
                destroy(&world);
            }
        }
    }
    assert!(met >= MAKING.len() + STARTING.len() + DESTROYING.len(), "recovery was killed only {met} times");
}

/// Applies, and is killed at `point` if it passes there. Says whether it was.
fn may_kill(world: &mut World, arguments: &[&str], point: &str) -> bool {
    let point = point.split('@').next().unwrap_or(point);
    world.arm(&format!("{IMPATIENT};{point}@1=kill"));
    let ended = world.vmctl(arguments);
    world.arm(IMPATIENT);
    assert!(was_killed(&ended) || ended.status.success(), "{point}: {}", ended.text());
    was_killed(&ended)
}

#[test]
fn machine_half_let_go_of_is_let_go_of_and_runs_on() {
    let mut world = world();
    world.vmfile(&running("memory 64"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("one");
    world.vmfile("removed \"one\"");
    for point in LETTING_GO {
        disturb(&mut world, &["apply", "--yes"], point, "kill");
    }
    converges(&world, "two kills");
    assert_eq!(pids(&world), [pid]);
    process::kill(pid);
}

/// F5, F6 and I6: killed while it waits for the guest and while a script runs in it. The guest knows nothing of it.
#[test]
fn guest_outlives_kills_around_its_login_and_its_scripts() {
    let mut world = world();
    world.write("canary", "the-canary\n");
    world.vmfile(
        r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "file" { source "canary"; destination "canary" }
    provision "shell" { inline "echo running; sync"; rerun "safe" }
}
"#,
    );
    let mut pid = None;
    for point in ["ready.qemu.logged-in", "provision.qemu.begun", "provision.qemu.running"] {
        disturb(&mut world, &["apply", "--yes"], point, "kill");
        let pids = pids(&world);
        assert_eq!(pids.len(), 1, "{point}: {pids:?}");
        assert_eq!(*pid.get_or_insert(pids[0]), pids[0], "{point}");
    }
    converges(&world, "three kills");
    assert_eq!(Some(world.pid("one")), pid);
    leaks::kept(&world, "one", "canary", "the-canary");
    world.unset("VMCTL_FAILPOINT");
    let held = leaks::held(&world);
    destroy(&world);
    leaks::check(&world, &held);
}

/// Whether a machine's pidfile, which its process keeps locked, names that process.
fn pidfile_names(world: &World, pid: u32) -> bool {
    let folders = std::fs::read_dir(world.runtime().join("vmctl")).into_iter().flatten().flatten();
    let pidfiles = folders.filter_map(|folder| std::fs::read_to_string(folder.path().join("qemu.pid")).ok());
    pidfiles.into_iter().any(|text| text.trim() == pid.to_string())
}
