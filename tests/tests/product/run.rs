//! `vmctl run`: machines for one command, and nothing left of them.

use serde_json::Value;
use vmctl_tests::leaks::{self, Held};
use vmctl_tests::{World, await_condition, process};

use crate::schema::promised;

/// A machine that stays in its firmware, protected as nothing of a run is, with a volume.
const PROTECTED: &str = r#"
project "shop"
volume "data" size="1M" { prevent-destroy }
vm "one" { image "blank.qcow2"; memory 64; volume "data"; forward guest=80; lifecycle { prevent-destroy } }
"#;

fn world(vmfile: &str) -> World {
    let world = World::new(1);
    world.blank_image();
    world.vmfile(vmfile);
    world
}

/// The projects that have a folder.
fn projects(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.data().join("projects")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Machines in their firmware do not power off, and it takes a minute until that is known.
fn kill_all(world: &World) {
    process::naming(world.folder()).iter().for_each(|process| process::kill(process.pid));
}

/// Neither a process nor a project is left.
fn is_gone(world: &World, held: &Held) {
    leaks::check(world, held);
    assert_eq!(projects(world), [""; 0]);
}

#[test]
fn command_finds_a_guest_uses_it_and_nothing_is_left() {
    let world = World::new(1);
    world.vmfile(
        r#"
project "shop"
vm "web-1" { image "TINY"; memory 192; ssh { user "vm" }; forward guest=80 }
output "greeting" (template)"for {{ vm.web-1.user }}"
"#,
    );
    // What the command reads and writes is its own: nothing of vmctl is on its stdout.
    let script = r#"
read word
test "$VMCTL_VM_WEB_1_PORT_80" -gt 0 || exit 9
printf '%s|%s|%s' "$word" "$VMCTL_OUTPUT_GREETING" "$(vmctl exec web-1 -- hostname)"
ssh -F none -p "$VMCTL_VM_WEB_1_SSH_PORT" -i "$VMCTL_VM_WEB_1_SSH_KEY" -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
    -o UserKnownHostsFile="$VMCTL_VM_WEB_1_SSH_KNOWN_HOSTS" -o HostKeyAlias="$VMCTL_VM_WEB_1_SSH_HOST_ALIAS" \
    -- "$VMCTL_VM_WEB_1_SSH_USER@$VMCTL_VM_WEB_1_SSH_HOST" exit 7
"#
    .replace("vmctl exec", &format!("{} exec", world.binary().display()));
    let ended = world.vmctl_with_input(&["run", "--", "sh", "-c", &script], "hello\n").expect(7);
    assert_eq!(ended.stdout, "hello|for vm|web-1", "{}", ended.text());
    assert!(process::naming(world.folder()).is_empty() && projects(&world).is_empty());

    let ended =
        world.vmctl(&["run", "--on", "web-1", "--", "sh", "-c", "echo in the guest; exit 3"]).expect(3);
    assert_eq!(ended.stdout, "in the guest\n", "{}", ended.text());
    world
        .vmctl(&["run", "--on", "web-1", "--timeout", "1", "--", "sleep", "600"])
        .expect(124)
        .says("in time");
    assert!(process::naming(world.folder()).is_empty() && projects(&world).is_empty());
}

#[test]
fn events_of_a_run_go_to_a_file_or_a_pipe_and_leave_its_streams_alone() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile("project \"shop\"\nvm \"one\" { image \"blank.qcow2\"; backend \"noop\" }\n");
    let told = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .inspect(|line| promised("event", line))
            .map(|line: Value| line["event"].as_str().unwrap().to_owned())
            .collect()
    };
    let run = world.vmctl(&["run", "--events", "events.jsonl", "--", "echo", "mine"]).expect(0);
    assert_eq!(run.stdout, "mine\n", "{}", run.text());
    let events = told(&std::fs::read_to_string(world.project().join("events.jsonl")).unwrap());
    assert_eq!((&*events[0], events.last().map(String::as_str)), ("plan", Some("summary")));
    assert!(events.iter().any(|event| event == "done"), "{events:?}");

    let line = format!("{} -q run --events /dev/fd/3 -- true 3>&1 >/dev/null", world.binary().display());
    let piped = world.beside_vmctl("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(told(&String::from_utf8_lossy(&piped.stdout)).len(), events.len());

    // Nothing else is written over, and what cannot be written to is told before anything is made.
    world.write("precious", "mine");
    world.vmctl(&["run", "--events", "precious", "--", "true"]).expect(64).says("is no file of events");
    world.vmctl(&["run", "--events", "nowhere/x", "--", "true"]).expect(1).says("cannot write events to");
    assert!(projects(&world).is_empty());
}

#[test]
fn runs_go_on_side_by_side_and_beside_the_project_itself() {
    let world = world(PROTECTED);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let own = world.pid("one");
    let mut first =
        world.start(&["run", "--", "sh", "-c", "echo it-runs; until [ -e go ]; do sleep 0.1; done"]);
    first.await_line(|line| line.contains("it-runs"));
    let list = world.vmctl(&["run", "-q", "--", "sh", "-c", "echo $VMCTL_PROJECT"]).expect(0);
    let project = list.stdout.trim().to_owned();
    assert!(project.starts_with("shop-run-"), "{project}");
    assert_eq!(projects(&world).len(), 2, "the project's own, and that of the first run");
    world.write("go", "");
    first.end().expect(0);
    assert_eq!((projects(&world), world.pid("one")), (vec!["shop".to_owned()], own));
    process::kill(own);
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let world = world(PROTECTED);
    let mut killed = world.start(&["run", "--", "sh", "-c", "echo it-runs $$; exec sleep 600"]);
    let line = killed.await_line(|line| line.contains("it-runs"));
    // It ends with nobody.
    let command =
        line.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("no process id: {line}"));
    let [left] = &projects(&world)[..] else { panic!("{:?}", projects(&world)) };
    let left = left.clone();
    killed.kill();
    process::kill(command);
    assert!(!process::naming(world.folder()).is_empty(), "its machine runs on");

    // A project like any other is nobody's to remove, whatever it is called.
    world.vmctl(&["apply", "--yes", "--project", "shop-run-00000000"]).expect(0);
    world.vmctl(&["run", "--", "true"]).expect(0).says(&format!("Removing `{left}`"));
    assert_eq!(projects(&world), ["shop-run-00000000"]);
    kill_all(&world);
}

#[test]
fn command_that_is_asked_to_end_or_takes_too_long_ends_the_run() {
    let world = world(PROTECTED);
    let mut asked = world.start(&[
        "run",
        "--",
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo it-runs; while :; do sleep 0.1; done",
    ]);
    asked.await_line(|line| line.contains("it-runs"));
    let held = leaks::held(&world);
    process::terminate(asked.pid());
    asked.end().expect(9);
    is_gone(&world, &held);
    world.vmctl(&["run", "--timeout", "1s", "--", "sleep", "600"]).expect(124).says("did not end in time");
    is_gone(&world, &held);
}

#[test]
fn run_that_cannot_begin_leaves_nothing() {
    let world = world(PROTECTED);
    world.vmctl(&["run", "--", "./no-such-program"]).expect(127).says("cannot run `./no-such-program`");
    world.vmctl(&["run", "--on", "two", "--", "true"]).expect(64).says("no VM is called `two`").says("one");
    world.vmctl(&["run"]).expect(64);
    world.vmfile(
        "vm \"one\" { image \"blank.qcow2\"; memory 64; ready { log \"no such line\"; timeout \"1s\" } }",
    );
    let failed = world.vmctl(&["run", "--", "touch", "never"]).expect(5).says("the command was not run");
    assert!(!failed.text().contains("vmctl plan"), "advice about what is gone: {}", failed.text());
    world.vmfile(
        "vm \"one\" { image \"blank.qcow2\"; memory 64; ready { log \"no such line\"; timeout \"1h\" } }",
    );
    let mut interrupted = world.start(&["run", "--", "touch", "never"]);
    interrupted.await_line(|line| line.contains("vm.one: ready"));
    process::interrupt(interrupted.pid());
    interrupted.end().expect(130).says("the command was not run");
    assert!(!world.project().join("never").exists());
    assert_eq!(projects(&world), [""; 0]);
    await_condition("no process is left", || process::naming(world.folder()).is_empty());
}

#[test]
fn run_may_be_kept_and_is_a_project_from_then_on() {
    let world = world(PROTECTED);
    world.vmctl(&["run", "--keep", "--", "false"]).expect(1).says("Kept as project");
    let kept = projects(&world);
    world.vmctl(&["run", "--", "true"]).expect(0);
    assert_eq!(projects(&world), kept);
    kill_all(&world);
    world.vmctl(&["list", "--project", &kept[0]]).expect(0).says("stopped");
}
