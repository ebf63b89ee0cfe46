//! What a failure leads to: who is skipped and why, who goes on, and what is said at the end (F24, F25, F39).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use vmctl_tests::{World, await_condition, leaks, process, surroundings};

fn script(world: &World, rules: &Value) {
    let folder = world.data().join("projects/shop/noop");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("script.json"), rules.to_string()).unwrap();
}

fn events(world: &World) -> Vec<String> {
    let log = fs::read_to_string(world.data().join("projects/shop/noop/events.log")).unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// `last` needs `middle`, which needs `first`; `other` needs nobody.
fn chain() -> World {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(
        r#"
defaults { backend "noop"; image "blank.qcow2"; ssh }
vm "first" {
    provision { inline "one" }
    provision { inline "two" }
}
vm "middle" { depends-on "first" }
vm "last" { depends-on "middle" }
vm "other"
"#,
    );
    world
}

/// F39: the root is named, not who stands in between; who does not depend on it goes on.
#[test]
fn dependants_are_skipped_with_the_step_that_is_the_root_of_it() {
    let world = chain();
    script(&world, &json!([{ "op": "provision-2", "vm": "first", "fail": "no luck" }]));
    let failed = world.vmctl(&["apply", "--yes"]).expect(5);
    let failed = failed.says("skipped vm.last, vm.middle (4 steps): `vm.first: provision 2 (inline)` failed");
    failed.says("no luck").says("the next apply goes on at step 2").says("vmctl log first --provision");
    assert!(events(&world).contains(&"ready other".to_owned()), "who does not depend on it goes on");
    world.vmctl(&["list"]).expect(0).says("provisioning failed at step 2");

    // The next one goes on at the step that failed: the one before does not run again.
    script(&world, &json!([]));
    let before = events(&world).len();
    world.vmctl(&["apply", "--yes"]).expect(0);
    let since = events(&world).split_off(before);
    let expected =
        ["provision-2 first", "start middle", "ready middle", "start last", "ready last"].map(str::to_owned);
    assert_eq!(since, expected);
    assert!(world.vm("first")["provision_failed"].is_null());
}

#[test]
fn summary_for_programs_says_what_became_of_every_step() {
    let world = chain();
    script(&world, &json!([{ "op": "start", "vm": "first", "fail": "no luck" }]));
    let failed = world.vmctl(&["apply", "--yes", "--json"]).expect(5);
    let lines: Vec<Value> = failed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps = lines[0]["plan"]["steps"].as_array().unwrap();
    let summary = lines.last().unwrap();
    assert_eq!(summary["failed"].as_array().map(Vec::len), Some(1), "{summary:#}");
    let root = &summary["failed"][0]["id"];
    assert!(summary["skipped"].as_array().unwrap().iter().all(|skipped| skipped["because"] == *root));
    let count = |name: &str| summary[name].as_array().unwrap().len();
    let told: usize =
        ["done", "spared", "failed", "skipped", "abandoned", "given_up", "not_begun"].map(count).iter().sum();
    assert_eq!(told, steps.len(), "{summary:#}");
    assert_ne!(summary["next"], json!([]));
}

/// With one step at a time, what comes after the failure has not begun.
#[test]
fn fail_fast_begins_nothing_new_and_says_so() {
    let world = chain();
    script(&world, &json!([{ "op": "prepare", "fail": "no luck" }]));
    let arguments = ["apply", "--yes", "--fail-fast", "--parallelism", "1"];
    let failed = world.vmctl(&arguments).expect(5).says("--fail-fast begins nothing new then");
    assert!(failed.text().contains("not begun"), "{}", failed.text());
    assert_eq!(
        failed.text().matches("scripted failure").count(),
        2,
        "one failure, told twice\n{}",
        failed.text()
    );
    let failed = world.vmctl(&["apply", "--yes", "--parallelism", "1"]).expect(5);
    assert!(!failed.text().contains("not begun"), "{}", failed.text());
    script(&world, &json!([]));
    world.vmctl(&["apply", "--yes"]).expect(0);
}

/// Each try is told and journalled; what is not safe to run again is tried once.
#[test]
fn step_that_is_safe_is_tried_again() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(
        r#"
defaults { backend "noop"; image "blank.qcow2"; ssh }
vm "one" { provision { inline "x"; rerun "safe"; retries 2 } }
vm "two" { provision { inline "x"; rerun "safe" } }
"#,
    );
    script(&world, &json!([{ "op": "provision-1", "fail": "no luck", "times": 2 }]));
    let ended = world.vmctl(&["apply", "--yes", "--json"]);
    let code = ended.code();
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str, vm: &str| {
        lines
            .iter()
            .filter(|line| line["event"] == event && line["address"] == vm && line["kind"] == "provision")
            .count()
    };
    assert_eq!((code, of("failed", "vm.two"), of("retrying", "vm.two")), (5, 1, 0));
    assert_eq!((of("retrying", "vm.one"), of("started", "vm.one"), of("done", "vm.one")), (1, 2, 1));
    world.vmctl(&["apply", "--yes"]).expect(0);
}

/// A summary fits on a screen, however much failed.
#[test]
fn summary_of_many_failures_is_short() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(
        r#"
vm "a" count=60 { backend "noop"; image "blank.qcow2"; ssh }
vm "b" count=60 { backend "noop"; image "blank.qcow2"; ssh; depends-on "a-1" "a-2" }
"#,
    );
    script(&world, &json!([{ "op": "start", "fail": "no luck" }]));
    let failed = world.vmctl(&["apply", "--yes"]).expect(5);
    let summary: Vec<_> =
        failed.stderr.lines().skip_while(|line| !line.starts_with("Not everything")).collect();
    assert!((5..50).contains(&summary.len()), "{}", summary.join("\n"));
}

/// F24.
#[test]
fn hypervisor_that_exits_at_once_is_quoted_and_independent_machines_go_on() {
    let mut world = World::new(1);
    world.blank_image();
    world.vmfile(
        r#"
defaults { image "blank.qcow2"; memory 64 }
vm "bad"
vm "after" { depends-on "bad" until="started" }
vm "good"
"#,
    );
    let path = surroundings::inherited("PATH").unwrap();
    let folder = world.folder().join("bin");
    fs::create_dir(&folder).unwrap();
    let real = std::env::split_paths(&path).map(|at| at.join("qemu-system-x86_64")).find(|at| at.exists());
    let real = real.expect("QEMU is there").display().to_string();
    let fake = folder.join("qemu-system-x86_64");
    fs::write(
        &fake,
        format!(
            "#!/bin/sh\ncase \"$*\" in\n*guest=*bad*) echo 'the reason is this' >&2; exit 7;;\nesac\nexec '{real}' \"$@\"\n"
        ),
    )
    .unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    world
        .set("PATH", std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path))).unwrap());
    let failed = world.vmctl(&["apply", "--yes"]).expect(5).says("the reason is this").says("7");
    failed.says("skipped vm.after").says("`vm.bad: start` failed");
    assert_eq!(world.vm("good")["state"], "running");
    let log = fs::read_to_string(world.data().join("projects/shop/vms/bad/qemu.log")).unwrap();
    assert!(log.contains("-uuid"), "the command line is in the log: {log}");

    world.set("PATH", path);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

/// The process of a machine once readers see it: they may be a second behind.
fn running(world: &World, name: &str) -> u32 {
    await_condition("the machine runs", || world.states().get(name).is_some_and(|state| state == "running"));
    world.pid(name)
}

/// F25: seen at once, and not after the ten minutes that the guest would have had.
#[test]
fn machine_that_dies_while_it_is_waited_for_is_told_and_started_again() {
    let world = World::new(1);
    world.blank_image();
    world.vmfile("vm \"one\" { image \"blank.qcow2\"; memory 64; ssh; ready { timeout \"1h\" } }");
    let mut apply = world.start(&["apply", "--yes"]);
    apply.await_line(|line| line.contains("vm.one: ready"));
    let pid = running(&world, "one");
    process::kill(pid);
    apply.end().expect(5).says("the machine's process ended").says("vm.one: ready");

    let mut again = world.start(&["apply", "--yes"]);
    again.await_line(|line| line.contains("vm.one: ready"));
    await_condition("it is started again", || {
        world.vm("one")["pid"].as_u64().is_some_and(|now| now != u64::from(pid))
    });
    process::interrupt(again.pid());
    again.end().expect(130);
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

/// F25, I4: what the step did before its machine died nobody knows.
#[test]
fn machine_that_dies_in_a_step_leaves_its_outcome_unknown() {
    let world = World::new(1);
    world.vmfile(
        r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision { inline "echo try >> tries; sync; echo the-step-began; until [ -e go ]; do usleep 100000; done" }
}
"#,
    );
    let mut apply = world.start(&["apply", "--yes"]);
    apply.await_line(|line| line.contains("the-step-began") && !line.contains("echo"));
    process::kill(world.pid("one"));
    let failed = apply.end().expect(5).says("was cut off").says("the machine's process ended");
    failed.says("vmctl apply --rerun one");
    let log = fs::read_to_string(world.data().join("projects/shop/vms/one/provision.log")).unwrap();
    assert!(log.contains("==> step 1: inline, began at"), "{log}");
    world.vmctl(&["apply", "--yes"]).expect(5).says("vmctl apply --rerun one");

    let mut again = world.start(&["apply", "--yes", "--rerun", "one"]);
    again.await_line(|line| line.contains("the-step-began") && !line.contains("echo"));
    assert_eq!(world.exec("one", "cat tries; touch go"), "try\ntry\n", "the disk is the same");
    again.end().expect(0);
    let log = fs::read_to_string(world.data().join("projects/shop/vms/one/provision.log")).unwrap();
    assert!(log.contains("ended with exit code 0 at"), "{log}");
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

/// F27: which question failed, what was answered, and the end of the console; nothing of it acts on the terminal.
#[test]
fn guest_that_does_not_become_ready_is_told_with_its_probe_and_its_console() {
    let world = World::new(1);
    // What the guest says clears screens, sets titles and turns the direction of letters, on both ways that it has.
    let hostile = r"\033[2J\033]0;title\007\302\233\342\200\256";
    let probe = format!(
        "printf '{hostile}on-the-console\\n' | sudo tee /dev/console >&2; printf '{hostile}in-the-answer' >&2; exit 3"
    );
    // The first time it boots, too.
    for (timeout, arguments) in [("40s", &["apply", "--yes"][..]), ("10s", &["apply", "--yes", "--json"])] {
        world.vmfile(&format!(
            r##"vm "one" {{ image "TINY"; memory 192; ssh; ready {{ exec "true"; exec #"{probe}"#; timeout "{timeout}" }} }}"##
        ));
        let failed = world.vmctl(arguments).expect(5).says("exit code 3").says("in-the-answer");
        let failed = failed.says("its console ends with").says("on-the-console").says("vm.one");
        // Letters that turn the direction are data to a program, and nothing to a terminal's reader.
        let acts = |c: char| (c.is_control() && c != '\n') || (c == '\u{202e}' && arguments.len() == 2);
        assert!(!failed.text().contains(acts), "{:?}", failed.text());
    }
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}
