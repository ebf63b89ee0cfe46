//! Who may write: one at a time, named to everybody else, and free as soon as its process ends (F19, F20).

use std::collections::BTreeMap;
use std::fs;

use vmctl_tests::vmctl::Running;
use vmctl_tests::{World, await_condition};

/// Machines of the fake backend; `rest` is the script that the fake world follows.
fn noop_world(count: usize, script: &str) -> World {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(&format!("vm \"w\" count={count} {{ image \"blank.qcow2\"; backend \"noop\" }}"));
    let noop = world.data().join("projects/shop/noop");
    fs::create_dir_all(&noop).unwrap();
    fs::write(noop.join("script.json"), script).unwrap();
    world
}

/// A script by which the first apply stays inside one `prepare` for as long as any test runs.
const STAYS: &str = r#"[{ "op": "prepare", "times": 1, "delay-ms": 3600000 }]"#;

/// Starts an apply and waits until it is in the middle of its work.
fn apply_that_stays(world: &World) -> Running {
    let mut apply = world.start(&["apply", "--yes"]);
    let turn = world.data().join("projects/shop/noop/used-0-0");
    await_condition("the apply begins a step", || turn.exists());
    apply.await_line(|line| line.contains("w-1"));
    apply
}

/// What the fake world says was done, with how often.
fn deeds(world: &World) -> BTreeMap<String, usize> {
    let log = fs::read_to_string(world.data().join("projects/shop/noop/events.log")).unwrap();
    let mut deeds = BTreeMap::new();
    for line in log.lines() {
        *deeds.entry(line.to_owned()).or_default() += 1;
    }
    deeds
}

#[test]
fn of_sixteen_applies_at_once_each_works_or_names_the_holder_and_nothing_is_done_twice() {
    let world = noop_world(5, r#"[{ "op": "prepare", "delay-ms": 300 }]"#);
    let applies: Vec<_> = (0..16).map(|_| world.start(&["apply", "--yes"])).collect();
    let pids: Vec<String> = applies.iter().map(|apply| format!("(process {} of ", apply.pid())).collect();
    let ended: Vec<_> = applies.into_iter().map(Running::end).collect();
    for apply in &ended {
        match apply.code() {
            0 => {}
            3 => {
                let names = pids.iter().any(|pid| apply.stderr.contains(pid));
                assert!(names && apply.stderr.contains("`vmctl apply`"), "{}", apply.text());
                assert!(apply.stderr.contains("--lock-timeout"), "{}", apply.text());
            }
            other => panic!("{other}: {}", apply.text()),
        }
    }
    assert!(ended.iter().any(|apply| apply.code() == 0));
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let twice: Vec<_> = deeds(&world).into_iter().filter(|(_, times)| *times > 1).collect();
    assert_eq!(twice, []);
}

#[test]
fn every_writing_command_names_the_holder_and_a_killed_holder_leaves_the_lock_free() {
    let world = noop_world(2, STAYS);
    let holder = apply_that_stays(&world);
    let process = format!("process {}", holder.pid());
    for command in [
        &["apply", "--yes"][..],
        &["apply", "--destroy", "--yes"],
        &["taint", "w-1"],
        &["state", "rm", "w-1"],
    ] {
        let refused = world.vmctl(command).expect(3).says("`vmctl apply`").says(&process);
        assert!(
            refused.stderr.contains(" of uid ") && refused.stderr.contains("since 20"),
            "{}",
            refused.text()
        );
    }
    for unlock in [&["state", "unlock"][..], &["state", "unlock", "--force"]] {
        world.vmctl(unlock).expect(3).says(&process);
    }
    holder.kill();
    world.vmctl(&["state", "unlock"]).expect(0).says("did not sign off");
    world.vmctl(&["state", "unlock"]).expect(0).says("is not locked");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
}

#[test]
fn a_writer_waits_as_long_as_it_is_told_and_says_for_whom() {
    let mut world = noop_world(2, STAYS);
    let holder = apply_that_stays(&world);
    world.vmctl(&["apply", "--yes", "--lock-timeout", "300ms"]).expect(3).says("Waiting at most");
    world.vmctl(&["apply", "--yes", "--lock-timeout", "soon"]).expect(64).says("not a duration");

    let mut by_option = world.start(&["apply", "--yes", "--lock-timeout", "1h"]);
    by_option.await_line(|line| line.contains(&format!("(process {} of", holder.pid())));
    world.set("VMCTL_LOCK_TIMEOUT", "1h");
    let mut by_variable = world.start(&["taint", "w-1"]);
    by_variable.await_line(|line| line.contains("Waiting at most"));
    holder.kill();
    by_option.end().expect(0);
    by_variable.end().expect(0);
}

#[test]
fn a_holder_on_another_host_keeps_its_lock_until_somebody_says_that_it_is_dead() {
    let world = noop_world(1, "[]");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let mark = world.data().join("projects/shop/lock.json");
    let holder = r#"{"command":"vmctl apply","user":"uid 7","host":"far-away","pid":77,"since":"2026-01-02T03:04:05Z"}"#;
    fs::write(&mark, holder).unwrap();

    world.vmctl(&["apply", "--yes"]).expect(3).says("process 77 of uid 7 on far-away").says("--force");
    world.vmctl(&["state", "unlock"]).expect(3).says("far-away");
    assert_eq!(world.vm("w-1")["state"], "running", "readers answer");
    assert!(mark.exists());
    world.vmctl(&["state", "unlock", "--force"]).expect(0).says("far-away");
    world.vmctl(&["apply", "--yes"]).expect(0).says("No changes");
}

#[test]
fn readers_answer_while_ten_thousand_machines_are_made() {
    let world = noop_world(10_000, "[]");
    let mut apply = world.start(&["apply", "--yes"]);
    apply.await_line(|line| line.contains("w-1"));
    let listed = || {
        let list = world.vmctl(&["list", "--json"]).expect(0).json();
        list["vms"].as_array().map_or(0, Vec::len)
    };
    await_condition("the list shows what was made so far", || listed() > 0);
    let first = listed();
    await_condition("the list follows the apply", || listed() > first);
    world.vmctl(&["status", "w-1"]).expect(0);
    world.vmctl(&["plan"]).expect(0).says("is at work on this project");
    world.vmctl(&["output"]).expect(0);
    world.vmctl(&["show"]).expect(0);
    // It is found, and that it has no login is what the record says.
    world.vmctl(&["ssh", "w-1"]).expect(1);
    assert!(fs::exists(world.data().join("projects/shop/lock.json")).unwrap(), "the apply is still at work");
    apply.kill();
    assert!(listed() > first, "what the killed apply committed is shown");
}
