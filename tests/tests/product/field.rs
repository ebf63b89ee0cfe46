//! What happens to machines in the field: their process dies or hangs, the guest does not come up, floods its console, the
//! host is restarted, its clock jumps.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vmctl_tests::{World, leaks, process};

/// A guest that counts how often it is provisioned, and holds what must not be lost.
const KEPT: &str = r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "shell" { inline "echo canary > canary; echo ran >> ran; sync" }
}
"#;

fn folder(world: &World, name: &str) -> PathBuf {
    PathBuf::from(world.vm(name)["work_dir"].as_str().expect("a machine has a folder"))
}

/// A process that is none of ours and does nothing.
#[expect(clippy::disallowed_methods, reason = "somebody else's process")]
fn bystander() -> Child {
    let mut command = Command::new("sleep");
    command.arg("100000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("sleep runs")
}

/// The process of a machine that another run is about to start.
fn pid_once_started(world: &World, name: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let list = world.vmctl(&["list", "--json"]).expect(0).json();
        let vms = list["vms"].as_array().expect("a list of VMs").iter();
        let mut pids = vms.filter(|vm| vm["name"] == name).filter_map(|vm| vm["pid"].as_u64());
        if let Some(pid) = pids.next() {
            return u32::try_from(pid).expect("a process id");
        }
        assert!(Instant::now() < deadline, "`{name}` is not started");
    }
}

/// F35: all machines are gone, sockets and pidfiles with them, and the numbers belong to others now.
#[test]
fn after_a_restart_of_the_host_machines_start_from_their_disks_and_nobody_else_is_harmed() {
    let world = World::new(1);
    world.vmfile(KEPT);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let (pid, id) = (world.pid("one"), world.vm("one")["id"].as_str().expect("an id").to_owned());
    process::kill(pid);
    let run = world.runtime().join("vmctl");
    fs::remove_dir_all(&run).expect("the runtime folder");

    let mut victims = [bystander(), bystander()];
    let sockets = run.join(&id.replace('-', "")[..16]);
    fs::create_dir_all(&sockets).expect("a folder");
    for path in [&run, &sockets] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("its mode");
    }
    fs::write(sockets.join("qemu.pid"), format!("{}\n", victims[0].id())).expect("a pidfile");
    let published = world.data().join("projects/shop/snapshot.json");
    let text = fs::read_to_string(&published).expect("the state is published");
    let reused = text.replace(&format!("\"pid\":{pid},"), &format!("\"pid\":{},", victims[1].id()));
    assert_ne!(text, reused, "the pid is recorded");
    fs::write(&published, reused).expect("a recorded pid that is somebody else's");

    assert_eq!(world.vm("one")["state"], "stopped");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2).says("vm.one: start").says("1 to update");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
    assert_eq!(
        world.exec("one", "cat canary ran"),
        "canary\nran\n",
        "it is the same disk, not provisioned again"
    );
    for victim in &mut victims {
        assert_eq!(victim.try_wait().expect("it can be asked"), None, "nobody was signalled");
    }

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
    for mut victim in victims {
        process::kill(victim.id());
        victim.wait().expect("it ended");
    }
}

/// F25: the end of the process is seen, not the end of the patience with the guest.
#[test]
fn machine_that_dies_while_it_boots_is_told_at_once_and_started_again() {
    let world = World::new(1);
    world.vmfile(&KEPT.replace("ssh { user", "ready { ssh; timeout \"24h\" }\n    ssh { user"));
    let apply = world.start(&["apply", "--yes"]);
    process::kill(pid_once_started(&world, "one"));
    apply.end().expect(5).says("process ended");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
    assert_eq!(world.exec("one", "cat ran"), "ran\n");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// F27: each class of failure has its reason, with the console's end; the machine stays as it is, and the next apply
/// only asks again.
#[test]
fn guest_that_cannot_be_reached_is_told_why_and_stays_for_inspection() {
    let world = World::new(1);
    world.blank_image();
    world.vmfile(
        r#"
vm "silent" { image "blank.qcow2"; memory 32; ready { ssh; timeout "2s" }; ssh { user "vm" } }
vm "refuses" { image "TINY"; memory 192; ssh { user "nobody-here" }; cloud-init { user-data "user-data" } }
"#,
    );
    world.write("user-data", "#cloud-config\n{}\n");
    let failed = world.vmctl(&["apply", "--yes"]).expect(5);
    let failed = failed.says("no sshd answered on 127.0.0.1").says("refuses user `nobody-here`");
    failed.says("its console ends with").says("vmctl log");
    let pids = [world.pid("silent"), world.pid("refuses")];
    world.vmctl(&["list"]).expect(0).says("running (not ready)");
    world.vmctl(&["apply", "--yes"]).expect(1).says("no sshd answered");
    assert_eq!(
        [world.pid("silent"), world.pid("refuses")],
        pids,
        "readiness is asked again, nothing is restarted"
    );
    process::kill(pids[0]);
    process::kill(pids[1]);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// S26: what a guest writes to its console is bounded while anybody looks. An emulated serial line is slow, so the flood
/// is appended by us, as QEMU does it; QEMU goes on behind it.
#[test]
fn flooded_console_is_bounded_and_what_is_missing_is_told() {
    let world = World::new(1);
    world.vmfile(
        "vm \"one\" { image \"TINY\"; memory 192; ssh { user \"vm\" }; check \"up\" { log \"the-end$\" } }",
    );
    world.vmctl(&["apply", "--yes"]).expect(0);
    let path = folder(&world, "one").join("console.log");
    let taken = || path.metadata().expect("the console's log").blocks() * 512;
    let flood = "0123456789012345678901234567890123456789012345678901234567890\r\n".repeat(1 << 18);
    for _ in 0..4 {
        let mut log = File::options().append(true).open(&path).expect("the console's log");
        log.write_all(flood.as_bytes()).expect("room on the disk");
        world.vmctl(&["list"]).expect(0);
        assert!(taken() <= 20 << 20, "{} bytes", taken());
    }
    world.exec("one", "echo the-end | sudo tee /dev/ttyS0");
    let bytes = path.metadata().expect("the console's log").len();
    assert!(bytes > 4 * flood.len() as u64, "places stay what they are: {bytes} bytes");
    world.vmctl(&["plan", "--checks", "fail"]).expect(0);
    let shown = world.vmctl(&["log", "one", "--console"]).expect(0).stdout;
    assert!(shown.lines().next().is_some_and(|line| line.ends_with(" bytes of the console were dropped")));
    assert!(shown.contains("the-end") && shown.len() < 24 << 20);
    let tail = world.vmctl(&["log", "one", "--console", "--tail", "3"]).expect(0).stdout;
    assert!(tail.contains("the-end") && !tail.contains("dropped"), "{tail}");

    process::kill(world.pid("one"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let bytes = path.metadata().expect("the console's log").len();
    assert!(bytes < 24 << 20, "made anew at the start: {bytes} bytes");
    world.vmctl(&["log", "one", "--console"]).expect(0).says("bytes of the console were dropped");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// F32, S18: the disk is not started on other bytes, and is again once the same bytes are back, in whatever file.
#[test]
fn base_image_that_changed_under_a_machine_is_refused_and_healed_by_the_same_bytes() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(
        "vm \"one\" { image \"blank.qcow2\"; memory 32 }\nvm \"other\" { image \"blank.qcow2\"; memory 32 }",
    );
    world.vmctl(&["apply", "--yes"]).expect(0);
    let images = world.data().join("images");
    let cached = fs::read_dir(&images).expect("the cache").flatten().map(|entry| entry.path());
    let image =
        cached.into_iter().find(|path| path.extension().is_some_and(|end| end == "qcow2")).expect("an image");
    let overlay = fs::read(folder(&world, "one").join("overlay.qcow2")).expect("its disk");
    let mut bytes = fs::read(&image).expect("its bytes");
    let good = bytes.clone();
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::remove_file(&image).expect("the image goes");
    fs::write(&image, &bytes).expect("another one");

    process::kill(world.pid("one"));
    world.vmctl(&["plan"]).expect(0).says("under its disk changed").says("it would not start");
    world.vmctl(&["apply", "--yes"]).expect(1).says("it would not start");
    assert_eq!(world.vm("other")["state"], "running");
    assert!(fs::read(folder(&world, "one").join("overlay.qcow2")).expect("its disk") == overlay);

    fs::write(&image, &good).expect("the same bytes as before");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(world.drift().is_empty());
    process::kill(world.pid("one"));
    process::kill(world.pid("other"));
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// F34, S31: ten years more or less, on the wall and in the timestamps of files, change nothing.
#[test]
fn clock_that_is_years_off_changes_nothing() {
    const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    assert!(fs::metadata(FAKETIME).is_ok(), "libfaketime is not installed: run tests/setup");
    let mut world = World::new(1);
    world.set("LD_PRELOAD", FAKETIME);
    world.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    world.set("FAKETIME", "+10y");
    world.vmfile(KEPT);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("one");
    for time in ["-10y", "+0", "+10y"] {
        world.set("FAKETIME", time);
        world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
        world.vmctl(&["apply", "--yes"]).expect(0);
    }
    assert_eq!((world.pid("one"), world.exec("one", "cat ran")), (pid, "ran\n".to_owned()));
    world.set("FAKETIME", "-10y");
    process::kill(pid);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.exec("one", "cat canary ran"), "canary\nran\n");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[expect(clippy::disallowed_methods, reason = "this is the fault itself, not a wait for something")]
fn stand_still(time: Duration) {
    std::thread::sleep(time);
}

/// F37: the time in which vmctl did not run is not the guest's fault.
#[test]
fn wait_for_a_guest_goes_on_after_vmctl_was_frozen_for_longer_than_its_patience() {
    let world = World::new(1);
    world.vmfile(&KEPT.replace("ssh { user", "ready { ssh; timeout \"20s\" }\n    ssh { user"));
    let mut apply = world.start(&["apply", "--yes"]);
    apply.await_line(|line| line.contains("vm.one: ready …"));
    let (vm, own) = (pid_once_started(&world, "one"), apply.pid());
    process::freeze(vm);
    process::freeze(own);
    stand_still(Duration::from_secs(25));
    process::go_on(own);
    process::go_on(vm);
    apply.end().expect(0);
    assert_eq!(world.pid("one"), vm);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}
