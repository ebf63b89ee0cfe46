//! The check that all crash tests rest on finds a leak of each kind.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Stdio;

use vmctl_tests::leaks::{self, Goal};
use vmctl_tests::{World, process};

const FAKE: &str = r#"vm "web" { image "blank.qcow2"; backend "noop"; ssh { user "vm" } }"#;

fn project(world: &World) -> PathBuf {
    world.data().join("projects/shop")
}

fn applied(vmfile: &str, guests: usize) -> World {
    let mut world = World::with_failpoints(guests);
    world.blank_image();
    world.vmfile(vmfile);
    world.arm("stop.patience=value:300");
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    world
}

/// Panics unless a leak of that invariant names `what`.
fn finds(world: &World, invariant: &str, what: &str) {
    let leaks = leaks::leaks(world, Goal::Desired);
    assert!(
        leaks.iter().any(|leak| leak.starts_with(invariant) && leak.contains(what)),
        "no {invariant} names {what:?}: {leaks:#?}"
    );
}

#[test]
fn machine_that_nobody_recorded_is_found() {
    let world = applied(FAKE, 0);
    let vms = project(&world).join("vms");
    let text = fs::read_to_string(vms.join("web/machine.json")).unwrap();
    let at = text.find("\"id\": \"").unwrap() + 7;
    fs::create_dir(vms.join("ghost")).unwrap();
    let ghost = format!("{}{}{}", &text[..at], "00000000-0000-4000-8000-000000000000", &text[at + 36..]);
    fs::write(vms.join("ghost/machine.json"), ghost).unwrap();
    finds(&world, "I1", "vms/ghost");
    finds(&world, "I2", "vms/ghost");
}

#[test]
fn recorded_machine_that_is_gone_is_found() {
    let world = applied(FAKE, 0);
    fs::remove_file(project(&world).join("vms/web/machine.json")).unwrap();
    finds(&world, "I1", "vm.web");
    finds(&world, "I3", "the plan is not empty");
}

#[test]
fn file_that_nobody_owns_is_found() {
    let world = applied(FAKE, 0);
    let data = world.data();
    fs::create_dir_all(data.join("images/.identities")).unwrap();
    for path in [
        project(&world).join("vms/web/core"),
        project(&world).join("vms/web/overlay.qcow2.tmp"),
        project(&world).join("snapshot.tmp"),
        project(&world).join("lineage-0123"),
        project(&world).join("lock.json"),
        project(&world).join("state.new"),
        data.join("images/0123.1.0.part"),
        data.join("images/.identities/0123.json.1.0.new"),
        world.folder().join("left-in-the-temporary-folder"),
    ] {
        fs::write(&path, "").unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        finds(&world, "I2", &name);
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
    }
    let socket = world.runtime().join("vmctl/0123456789abcdef/qmp.sock");
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    finds(&world, "I2", "qmp.sock");
    drop(listener);
}

#[test]
fn work_that_is_left_is_found() {
    let world = applied(FAKE, 0);
    world.vmfile("vm \"web\" { image \"blank.qcow2\"; backend \"noop\"; ssh { user \"vm\" }; vcpus 2 }");
    finds(&world, "I3", "the plan is not empty");
}

#[test]
fn step_that_is_open_in_the_journal_is_found() {
    let mut world = applied(FAKE, 0);
    world.vmfile("vm \"web\" { image \"blank.qcow2\"; backend \"noop\"; ssh { user \"vm\" }; vcpus 2 }");
    world.arm("stop.intent.after=kill");
    world.vmctl(&["apply", "--yes"]);
    world.unset("VMCTL_FAILPOINT");
    finds(&world, "I3", "open in the journal");
}

#[test]
fn provisioning_that_ran_is_counted() {
    let world = applied(
        r#"vm "web" { image "blank.qcow2"; backend "noop"; ssh { user "vm" }; provision "shell" { inline "true" } }"#,
        0,
    );
    assert_eq!(leaks::ran(&world, "shop", "web"), ["inline"]);
    assert_eq!(leaks::ran(&world, "shop", "other"), [""; 0]);
}

#[test]
fn secret_in_a_file_or_on_a_command_line_is_found() {
    let world = applied(FAKE, 0);
    assert_eq!(leaks::secrets(&world, &["hunter2"]), [""; 0]);
    let log = project(&world).join("vms/web/console.log");
    fs::write(&log, "password: hunter2\n").unwrap();
    let found = leaks::secrets(&world, &["hunter2"]);
    assert!(found.len() == 1 && found[0].contains("console.log"), "{found:?}");
    fs::remove_file(&log).unwrap();
    let inside = format!("{}/", world.folder().display());
    let mut child = world
        .beside_vmctl("sh")
        .args(["-c", "read line", "hunter2", &inside])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let found = leaks::secrets(&world, &["hunter2"]);
    assert!(found.len() == 1 && found[0].contains(&child.id().to_string()), "{found:?}");
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Real processes: a second one on a disk, one that nobody recorded, a port that nobody declared, one that is gone.
#[test]
fn processes_that_should_not_be_are_found() {
    let world = applied("vm \"web\" { image \"blank.qcow2\"; memory 128; forward host=0 guest=80 }", 1);
    let pid = world.pid("web");
    let overlay = project(&world).join("vms/web/overlay.qcow2");
    let id = world.vm("web")["id"].as_str().unwrap().to_owned();

    let port = vmctl_tests::world::free_port();
    let added = vmctl_tests::monitor::human(pid, &format!("hostfwd_add net0 tcp:127.0.0.1:{port}-:81"));
    if added.is_empty() {
        finds(&world, "I7", &port.to_string());
    } else {
        panic!("the machine takes no other forward: {added}");
    }
    vmctl_tests::monitor::human(pid, &format!("hostfwd_remove net0 tcp:127.0.0.1:{port}"));

    for (uuid, invariant) in
        [(id.as_str(), "I5"), ("00000000-0000-4000-8000-000000000000", "I1: nobody recorded process")]
    {
        let drive =
            format!("file={},format=qcow2,if=none,file.locking=off,id=d,readonly=on", overlay.display());
        let mut second = world
            .beside_vmctl("qemu-system-x86_64")
            .args(["-S", "-display", "none", "-nodefaults", "-m", "32", "-uuid", uuid, "-drive", &drive])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let has_it_open = || {
            let open = fs::read_dir(format!("/proc/{}/fd", second.id())).into_iter().flatten().flatten();
            open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|file| file == overlay)
        };
        vmctl_tests::await_condition("the second process opens the disk", has_it_open);
        finds(&world, invariant, &second.id().to_string());
        second.kill().unwrap();
        second.wait().unwrap();
    }
    leaks::leakcheck(&world);

    process::kill(pid);
    finds(&world, "I1", "vm.web");
    world.vmctl(&["apply", "--yes", "--destroy"]).expect(0);
    assert_eq!(leaks::leaks(&world, Goal::Destroyed), [""; 0]);
}
