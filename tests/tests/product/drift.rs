//! Machines that somebody else laid hands on: told apart, repaired, accepted, or left alone.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vmctl_tests::{World, leaks, monitor, process};

const NAMES: [&str; 11] =
    ["killed", "quit", "paused", "cpus", "memory", "forward", "extra", "nodisk", "nofolder", "hung", "fine"];

/// Machines that stay in their firmware: everything but a guest is real.
fn blank(names: &[&str]) -> String {
    let vm = |name: &&str| {
        format!("vm \"{name}\" {{ image \"blank.qcow2\"; memory 32; forward host=0 guest=80 }}\n")
    };
    names.iter().map(vm).collect()
}

fn folder(world: &World, name: &str) -> PathBuf {
    PathBuf::from(world.vm(name)["work_dir"].as_str().expect("a machine has a folder"))
}

/// Ends a machine's process and starts it by hand, with one argument exchanged.
fn start_by_hand(world: &World, name: &str, option: &str, value: &str) {
    let pid = world.pid(name);
    let mut arguments = process::arguments(pid).expect("it runs");
    let place = arguments.iter().position(|argument| argument == option).expect("the option is given");
    arguments[place + 1] = value.to_owned();
    process::kill(pid);
    #[expect(clippy::disallowed_methods, reason = "somebody starts a machine by hand")]
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It ends when it is told to, not with this test; the world's end looks for it.
    let child = command.process_group(0).spawn().expect("QEMU starts");
    drop(child);
    let started = || world.vm(name)["pid"].as_u64().is_some();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !started() {
        assert!(std::time::Instant::now() < deadline, "`{name}` is not seen");
    }
}

#[test]
fn each_kind_of_drift_is_told_apart_and_apply_repairs_it() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(&blank(&NAMES));
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(world.drift().is_empty());

    let (fine, hung) = (world.pid("fine"), world.pid("hung"));
    process::kill(world.pid("killed"));
    let quit = world.pid("quit");
    monitor::command(quit, "quit", &json!({}));
    assert!(process::await_end(quit, std::time::Duration::from_secs(60)));
    monitor::command(world.pid("paused"), "stop", &json!({}));
    start_by_hand(&world, "cpus", "-smp", "2");
    start_by_hand(&world, "memory", "-m", "48");
    let forward = world.pid("forward");
    let port = world.vm("forward")["forwards"][0]["host_port"].as_u64().expect("a port that is bound");
    monitor::human(forward, &format!("hostfwd_remove net0 tcp:127.0.0.1:{port}"));
    monitor::human(world.pid("extra"), "hostfwd_add net0 tcp:127.0.0.1:0-:99");
    fs::remove_file(folder(&world, "nodisk").join("overlay.qcow2")).expect("the disk");
    fs::remove_dir_all(folder(&world, "nofolder")).expect("the folder");
    process::freeze(hung);

    let expected = [
        ("vm.cpus", vec!["vcpus"]),
        ("vm.extra", vec!["forward-extra"]),
        ("vm.forward", vec!["forward-missing"]),
        ("vm.hung", vec!["unreachable"]),
        ("vm.killed", vec!["killed"]),
        ("vm.memory", vec!["memory"]),
        ("vm.nodisk", vec!["disk-missing"]),
        ("vm.nofolder", vec!["folder-missing"]),
        ("vm.paused", vec!["paused"]),
        ("vm.quit", vec!["powered-off"]),
    ];
    let expected =
        expected.map(|(name, kinds)| (name.to_owned(), kinds.iter().map(ToString::to_string).collect()));
    assert_eq!(world.drift(), expected.into());
    world.vmctl(&["drift"]).expect(2).says("vm.killed: not running any more: its process was killed");
    let actions: Vec<_> = world.decisions().into_iter().filter(|(_, action)| action != "no-op").collect();
    let planned: Vec<_> = actions.iter().map(|(name, action)| format!("{name} {action}")).collect();
    assert_eq!(
        planned,
        [
            "vm.cpus restart",
            "vm.extra update",
            "vm.forward update",
            "vm.killed start",
            "vm.memory restart",
            "vm.paused resume",
            "vm.quit start",
        ]
    );

    // What hangs, and what still holds a lost disk, is left alone and said; everything else is repaired.
    let kept = [world.pid("nodisk"), world.pid("nofolder")];
    let run = world.vmctl(&["apply", "--yes"]).expect(5);
    run.says("left alone: `vm.hung`").says("its process still holds the disk");
    assert_eq!(world.drift().into_keys().collect::<Vec<_>>(), ["vm.hung", "vm.nodisk", "vm.nofolder"]);
    assert_eq!([world.pid("nodisk"), world.pid("nofolder")], kept);
    process::go_on(hung);
    world.vmctl(&["apply", "--yes", "--replace", "nodisk", "--replace", "nofolder"]).expect(0);
    assert!(world.drift().is_empty());
    assert_eq!((world.pid("fine"), world.pid("hung"), world.pid("forward")), (fine, hung, forward));
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn what_is_observed_can_be_accepted() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(&blank(&["killed", "extra", "fine"]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    process::kill(world.pid("killed"));
    let extra = world.pid("extra");
    monitor::human(extra, "hostfwd_add net0 tcp:127.0.0.1:0-:99");
    world.vmctl(&["plan", "--refresh-only", "--detailed-exitcode"]).expect(2).says("Drift: 2 machines moved");
    world.vmctl(&["apply", "--refresh-only", "--yes"]).expect(0);
    assert!(world.drift().is_empty(), "what was accepted is no drift");
    assert_eq!(world.pid("extra"), extra, "no machine was touched");
    let plan = world.vmctl(&["plan", "--json"]).expect(0).json();
    let change = |address: &str| {
        let changes = plan["changes"].as_array().expect("changes");
        changes.iter().find(|change| change["address"] == address).expect("its change").clone()
    };
    assert_eq!(change("vm.killed")["action"], "start");
    assert_eq!(change("vm.extra")["fields"][0]["field"], "forward", "what was accepted is an edit now");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

/// What tells a state that is older than it was.
const PUBLISHED: [&str; 2] = ["snapshot.json", "serial"];

#[test]
fn machine_with_our_mark_that_no_record_knows_is_told_and_left_alone() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(&blank(&["kept"]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    // The state of today is lost, and yesterday's is put in its place.
    let project = world.data().join("projects/shop");
    let yesterday = world.folder().join("yesterday");
    copy(&project.join("state"), &yesterday.join("state"));
    for file in PUBLISHED {
        fs::copy(project.join(file), yesterday.join(file)).expect("what was published");
    }
    world.vmfile(&blank(&["kept", "lost"]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let (lost, lost_folder) = (world.pid("lost"), folder(&world, "lost"));
    fs::remove_dir_all(project.join("state")).expect("the state");
    copy(&yesterday.join("state"), &project.join("state"));
    for file in PUBLISHED {
        fs::copy(yesterday.join(file), project.join(file)).expect("what was published");
    }

    world.vmfile(&blank(&["kept"]));
    let found = world.vmctl(&["drift", "--json"]).expect(2).json();
    let strays = found["strays"].as_array().expect("strays");
    assert_eq!(strays.len(), 1, "{found:#}");
    assert_eq!((&strays[0]["name"], &strays[0]["pid"]), (&json!("lost"), &json!(lost)));
    world
        .vmctl(&["plan", "--detailed-exitcode"])
        .expect(0)
        .says("`lost` bears vmctl's mark and is not recorded");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(process::arguments(lost).is_some(), "nothing was done to it");

    process::kill(lost);
    fs::remove_dir_all(lost_folder).expect("its folder");
    assert!(world.drift().is_empty());
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[test]
fn torn_disk_is_not_started_and_other_machines_go_on() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(&blank(&["one", "two"]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let image = world.vm("one")["image"]["path"].as_str().map(PathBuf::from).expect("an image");
    process::kill(world.pid("one"));
    let mut permissions = fs::metadata(&image).expect("the image").permissions();
    #[expect(
        clippy::permissions_set_readonly_false,
        reason = "somebody writes to an image that nobody may write to"
    )]
    permissions.set_readonly(false);
    fs::set_permissions(&image, permissions).expect("its mode");
    let mut content = fs::read(&image).expect("the image");
    *content.last_mut().expect("a byte") ^= 1;
    fs::write(&image, &content).expect("the image");
    let drift = world.drift();
    assert_eq!(drift["vm.one"], ["killed", "base-changed"]);
    assert_eq!(drift["vm.two"], ["base-changed"]);
    let two = world.pid("two");
    world.vmctl(&["apply", "--yes"]).says("it would not start");
    assert_eq!(world.pid("two"), two);
    assert_eq!(world.states()["one"], "stopped");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[test]
fn host_that_lost_all_its_machines_gets_them_back_with_their_data() {
    let world = World::new(1);
    let vmfile = r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "shell" { inline "echo once >> ran; sync" }
}
"#;
    world.vmfile(vmfile);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.exec("one", "echo canary | sudo tee /srv/canary; sync");

    // As after a power cut: no process, no runtime folder.
    process::kill(world.pid("one"));
    fs::remove_dir_all(world.runtime().join("vmctl")).expect("the runtime folder");
    assert_eq!(world.drift()["vm.one"].len(), 1);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.exec("one", "cat /srv/canary ran"), "canary\nonce\n", "steps are not run again");

    // Powered off from inside, and its seed removed meanwhile.
    let pid = world.pid("one");
    // The connection may be lost before the command is done.
    world.vmctl(&["exec", "one", "--", "sudo", "poweroff"]);
    assert!(process::await_end(pid, std::time::Duration::from_secs(120)), "the guest powers off");
    fs::remove_file(folder(&world, "one").join("seed.img")).expect("the seed");
    assert_eq!(world.drift()["vm.one"], ["powered-off", "seed-missing"]);
    world.vmctl(&["drift"]).expect(2).says("it was powered off");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.exec("one", "cat /srv/canary ran"), "canary\nonce\n");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn checks_are_asked_in_the_guest_and_fail_on_request() {
    let world = World::new(1);
    world.vmfile(
        r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    ready { tcp 22; exec "test -d /home"; log "GUEST READY hostname=one"; timeout "5m" }
    check "flag" { exec "test -e /tmp/flag" }
}
"#,
    );
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("vm.one `flag` fail");
    world.vmctl(&["plan", "--checks", "fail"]).expect(1).says("1 of 2 checks did not pass");
    world.vmctl(&["drift", "--checks", "fail"]).expect(1);
    let quiet: Value = world.vmctl(&["drift", "--checks", "skip", "--json"]).expect(0).json();
    assert_eq!(quiet["checks"], json!([]));
    world.exec("one", "touch /tmp/flag");
    world.vmctl(&["drift", "--checks", "fail"]).expect(0).says("2 passed");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}
