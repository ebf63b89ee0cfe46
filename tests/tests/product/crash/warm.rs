//! Killed at every place of keeping a template and of making a machine from one: the next apply has a machine that runs
//! and is whole, and a template is whole or not there.

use std::collections::BTreeSet;

use vmctl_tests::leaks::{self, Goal};
use vmctl_tests::{Ended, World, process};

use super::points::listed;
use super::scenario::was_killed;

const KEEPING: [&str; 9] = [
    "keep.intent.before",
    "keep.intent.after",
    "keep.qemu.paused",
    "keep.qemu.memory-copied",
    "keep.qemu.disk-copied",
    "keep.qemu.copied",
    "keep.effect.after",
    "keep.record.before",
    "keep.record.after",
];

/// Places that only a machine from a template passes.
pub(super) const CLONING: [&str; 4] =
    ["prepare.qemu.cloned", "start.qemu.waking", "start.qemu.loaded", "start.qemu.renewed"];

const MACHINE: &str = r#"vm "one" {
    image "GENERIC"; memory 160; warm "auto"; ssh
    provision "shell" { inline "hostname >made; sync"; rerun "safe" }
}"#;

#[test]
fn every_place_of_templates_is_disturbed() {
    let disturbed: BTreeSet<_> = KEEPING.iter().map(ToString::to_string).collect();
    let wanted: BTreeSet<_> = listed().into_iter().filter(|point| point.starts_with("keep.")).collect();
    assert_eq!(disturbed, wanted);
}

fn disturb(world: &mut World, arguments: &[&str], point: &str, fault: &str) -> Ended {
    world.arm(&format!("{point}@1={fault}"));
    let ended = world.vmctl(arguments);
    world.arm("");
    assert_eq!(was_killed(&ended), fault == "kill", "{point}={fault}: {}\n{}", ended.status, ended.text());
    ended
}

/// One more apply: the machine runs and was provisioned once.
fn converges(world: &World, after: &str) {
    let ended = world.vmctl(&["apply", "--yes"]);
    assert_eq!(ended.status.code(), Some(0), "one more apply after {after}\n{}", ended.text());
    assert_eq!(leaks::leaks(world, Goal::Desired), [""; 0], "after {after}");
    assert_eq!(world.exec("one", "cat made"), "one\n", "after {after}");
    let processes = process::naming(world.folder()).into_iter();
    assert_eq!(processes.filter(|process| process.command.contains("-uuid")).count(), 1, "after {after}");
}

/// The templates that are whole.
fn templates(world: &World) -> usize {
    let list = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    let all = list["templates"].as_array().expect("a list of templates");
    all.iter().filter(|template| template["problem"].is_null()).count()
}

#[test]
fn machine_whose_keeping_is_cut_off_goes_on() {
    let mut world = World::with_failpoints(1);
    world.vmfile(MACHINE);
    for point in KEEPING {
        disturb(&mut world, &["apply", "--yes", "--cold", "--replace", "one"], point, "kill");
        converges(&world, point);
        let is_done = ["keep.effect.after", "keep.record.before", "keep.record.after"].contains(&point);
        assert_eq!(templates(&world), usize::from(is_done), "{point}");
        world.vmctl(&["image", "prune", "--templates"]).expect(0);
    }

    // A disk that is full is no reason to be without the machine.
    let replace = ["apply", "--yes", "--cold", "--replace", "one"];
    for point in ["keep.qemu.paused", "keep.qemu.disk-copied"] {
        disturb(&mut world, &replace, point, "enospc").expect(0).says("there is no template of it");
        assert_eq!((templates(&world), &*world.states()["one"]), (0, "running"), "{point}");
        converges(&world, "a full disk");
    }
    world.vmctl(&["apply", "--yes", "--destroy"]).expect(0);
}

/// The first one keeps, or was kept; the other one waits, or is being made from its template.
#[test]
fn machines_that_wait_for_one_that_is_cut_off_are_made() {
    let mut world = World::with_failpoints(1);
    world.vmfile(&MACHINE.replace("\"one\"", "\"two\" count=2"));
    for point in ["provision.effect.after", "keep.qemu.copied", "keep.record.after", "prepare.qemu.cloned"] {
        disturb(&mut world, &["apply", "--yes"], point, "kill");
        world.vmctl(&["apply", "--yes"]).expect(0);
        assert_eq!(leaks::leaks(&world, Goal::Desired), [""; 0], "after {point}");
        for name in ["two-1", "two-2"] {
            // A step that was cut off after its end may run again.
            let made: BTreeSet<_> = world.exec(name, "cat made").lines().map(str::to_owned).collect();
            assert!(
                made == ["two-1".to_owned()].into() || made == [name.to_owned()].into(),
                "{point}: {made:?}"
            );
        }
        world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
        world.vmctl(&["apply", "--yes", "--destroy"]).expect(0);
        world.vmctl(&["image", "prune", "--templates"]).expect(0);
    }
}

#[test]
fn machine_half_made_from_a_template_is_made() {
    let mut world = World::with_failpoints(1);
    world.vmfile(MACHINE);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(templates(&world), 1);
    for point in CLONING {
        disturb(&mut world, &["apply", "--yes", "--replace", "one"], point, "kill");
        converges(&world, point);
    }
    let full = disturb(&mut world, &["apply", "--yes", "--replace", "one"], "prepare.qemu.cloned", "enospc");
    assert_eq!(full.status.code(), Some(5), "{}", full.text());
    converges(&world, "a full disk");
    world.vmctl(&["apply", "--yes", "--destroy"]).expect(0);
}
