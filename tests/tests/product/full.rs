//! Disks that fill up: nothing that runs is lost, and everything goes on when there is room again (F13, F14, S30).

use std::fs;
use std::path::Path;

use serde_json::json;
use vmctl_tests::disk::Disks;
use vmctl_tests::{World, await_condition, process};

/// Machines on an empty disk with a seed each, and nothing to wait for: their guests stay in their firmware.
fn blank(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| {
            format!("vm \"{name}\" {{ image \"blank.qcow2\"; memory 64; network \"none\"; cloud-init {{ hostname \"x\" }} }}\n")
        })
        .collect()
}

/// Every unfinished file below `folder`.
fn unfinished(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if [".tmp", ".part", ".new"].iter().any(|end| path.to_string_lossy().ends_with(end)) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// F13: the folder of machines is too small for all of them.
#[test]
fn machine_without_room_fails_alone_and_is_made_when_there_is_room() {
    let mut world = World::new(0);
    world.blank_image();
    let disks = Disks::of(&mut world);
    let vms = world.data().join("projects/shop/vms");
    // Room for two of them.
    disks.mount(&vms, 2_700);
    // A seed takes room by what is in it.
    world.write("long", &format!("#cloud-config\n# {}\n", "x".repeat(1_000_000)));
    let with_long_seeds =
        |names: &[&str]| blank(names).replace("hostname \"x\"", "hostname \"x\"; user-data \"long\"");
    world.vmfile(&with_long_seeds(&["a"]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("a");

    world.vmfile(&with_long_seeds(&["a", "b", "c"]));
    let refused = world.vmctl(&["apply", "--yes"]).expect(1);
    refused.says("nothing was begun").says("of disk to begin with").says("--overcommit");
    assert_eq!(world.states().len(), 1);

    let partly = world.vmctl(&["apply", "--yes", "--overcommit", "--parallelism", "1"]).expect(5);
    let partly = partly.says("no room is left: 2 MiB is needed to begin with");
    let place = vms.display().to_string();
    partly.says(&format!("is free where `{place}` is")).says("No space left on device");
    assert_eq!(unfinished(&disks.see(&vms)), [""; 0]);
    assert_eq!(
        (world.pid("a"), &*world.states()["b"]),
        (pid, "running"),
        "what runs goes on, and so does the rest"
    );
    let second = world.pid("b");

    disks.remount(&vms, "size=16m");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    assert_eq!((world.pid("a"), world.pid("b")), (pid, second));
    end(&world, &["a", "b", "c"]);
}

/// Ends firmware-only guests, which no power button ends, then destroys them.
fn end(world: &World, names: &[&str]) {
    for name in names {
        process::kill(world.pid(name));
    }
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// F13, S30: a guest fills the disk that its own disk is on.
#[test]
fn guest_that_fills_the_disk_is_paused_told_and_goes_on_whole() {
    let mut world = World::new(1);
    let disks = Disks::of(&mut world);
    let vms = world.data().join("projects/shop/vms");
    disks.mount(&vms, 16 << 10);
    world.vmfile("vm \"one\" { image \"TINY\"; memory 192; disk \"1G\"; ssh { user \"vm\" } }");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("one");
    world.exec("one", "echo canary > canary; sync; cat /proc/sys/kernel/random/boot_id > boot");
    let boot = world.exec("one", "cat boot");

    // What is left is taken: the guest's next 8 MiB have no place.
    let filler = disks.fill(&vms);
    let writes = "(dd if=/dev/urandom of=big bs=64k count=128; sync; sha256sum big > sum; sync) </dev/null >/dev/null 2>&1 &";
    world.exec("one", writes);
    await_condition("the guest is paused", || world.vm("one")["stall"]["kind"] == "disk-full");

    assert_eq!(world.vm("one")["state"], "failed");
    world.vmctl(&["list"]).expect(0).says("paused: disk full");
    world.vmctl(&["status", "one"]).expect(0).says("paused: disk full");
    assert_eq!(world.drift()["vm.one"], ["disk-full"]);
    world.vmctl(&["exec", "one", "--", "true"]).expect(1).says("paused: disk full").says("vmctl apply");
    world.vmctl(&["plan"]).expect(0).says("Left alone").says("called for: resume");
    world.vmctl(&["apply", "--yes"]).expect(1).says("its disk is full").says("1 MiB there or more");
    assert_eq!(world.pid("one"), pid, "it is not restarted");

    fs::remove_file(filler).expect("the file that took the room");
    world.vmctl(&["plan"]).expect(0).says("resume").says("there is room again");
    world.vmctl(&["apply", "--yes"]).expect(0).says("resume done");
    await_condition("the guest wrote all of it", || {
        world
            .vmctl(&["exec", "one", "--", "sh", "-c", "sha256sum -c sum && [ $(stat -c %s big) = 8388608 ]"])
            .code()
            == 0
    });
    assert_eq!(world.exec("one", "cat canary"), "canary\n");
    assert_eq!(world.exec("one", "cat /proc/sys/kernel/random/boot_id"), boot, "it never booted again");
    assert_eq!(world.pid("one"), pid);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// F13: a disk fails under a guest whose QEMU was told to pause for that. The disk that failed is named, and the write
/// is made when the machine goes on.
#[test]
fn guest_on_a_failing_disk_is_paused_told_and_goes_on_whole() {
    let world = World::new(1);
    world.write("scratch.raw", &"\0".repeat(1 << 20));
    let scratch = world.project().join("scratch.raw");
    let failing = json!({
        "node-name": "bad",
        "driver": "blkdebug",
        "image": {"driver": "file", "filename": &scratch},
        "inject-error": [{"event": "pwritev", "iotype": "write", "errno": 5, "once": true}],
    });
    let device = json!({"driver": "virtio-blk-pci", "drive": "bad", "serial": "bad", "werror": "stop"});
    let words: String = ["-blockdev", &failing.to_string(), "-device", &device.to_string()]
        .iter()
        .map(|word| format!("    qemu-arg #\"{word}\"#\n"))
        .collect();
    world.vmfile(&format!(
        "vm \"one\" {{\n    image \"TINY\"\n    memory 192\n    ssh {{ user \"vm\" }}\n{words}}}"
    ));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("one");
    let disk = "for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" != bad ] || echo /dev/${d##*/}; done";
    let disk = world.exec("one", disk);
    let disk = disk.trim();
    world.exec("one", &format!("(echo canary | sudo dd of={disk} conv=fsync) </dev/null >/dev/null 2>&1 &"));
    await_condition("the guest is paused", || world.vm("one")["stall"]["kind"] == "disk-failed");

    let named = world.vm("one")["stall"]["path"].to_string();
    assert!(named.contains("scratch.raw"), "not the disk that failed: {named}");
    world.vmctl(&["status", "one"]).expect(0).says("paused: disk failed");
    assert_eq!(world.drift()["vm.one"], ["disk-failed"]);
    world.vmctl(&["exec", "one", "--", "true"]).expect(1).says("paused: disk failed").says("scratch.raw");

    world.vmctl(&["plan"]).expect(0).says("resume");
    world.vmctl(&["apply", "--yes"]).expect(0).says("resume done");
    await_condition("the guest wrote it", || {
        fs::read(&scratch).is_ok_and(|bytes| bytes.starts_with(b"canary\n"))
    });
    assert_eq!(world.pid("one"), pid, "it is not restarted");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// F14: the project's own folder is full.
#[test]
fn full_project_folder_stops_before_the_next_effect_and_destroy_works() {
    let mut world = World::new(0);
    world.blank_image();
    let disks = Disks::of(&mut world);
    let project = world.data().join("projects/shop");
    disks.mount(&project, 8 << 10);
    let machine =
        |name: &str| format!("vm \"{name}\" {{ image \"blank.qcow2\"; memory 64; network \"none\" }}\n");
    let machines = |names: &[&str]| names.iter().map(|name| machine(name)).collect::<String>();
    world.vmfile(&machines(&["a", "b"]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("a");

    let filler = disks.fill(&project);
    world.vmfile(&machines(&["a", "b", "c"]));
    world.vmctl(&["plan"]).expect(0).says("vm.c: create");
    for _ in 0..2 {
        let stopped = world.vmctl(&["apply", "--yes", "--overcommit"]).expect(1);
        stopped.says("No space left on device").says("Free space").says("apply --destroy");
    }
    assert!(!disks.see(&project).join("vms/c").exists(), "nothing was begun");
    assert_eq!((world.pid("a"), &*world.states()["b"]), (pid, "running"), "what runs goes on");

    // Room for what is there to be removed, and not only once.
    process::kill(world.pid("b"));
    world.vmctl(&["apply", "--destroy", "--yes", "--target", "b"]).expect(0);
    disks.fill(&project);
    process::kill(pid);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert_eq!(world.states().len(), 0);
    assert_eq!(unfinished(&disks.see(&project)), [""; 0]);

    fs::remove_file(filler).expect("the file that took the room");
    world.vmfile(&machines(&["a"]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    end(&world, &["a"]);
}

/// F15: a data folder that may only be read. To look works, to change is refused before any effect.
#[test]
fn read_only_data_folder_is_for_looking_only() {
    let mut world = World::new(0);
    world.blank_image();
    let disks = Disks::of(&mut world);
    disks.mount(&world.data(), 32 << 10);
    world.vmfile("vm \"a\" { image \"blank.qcow2\"; backend \"noop\" }\n");
    world.vmctl(&["apply", "--yes"]).expect(0);
    disks.remount(&world.data(), "ro");
    assert_eq!(world.states()["a"], "running");
    world.vmctl(&["status", "a"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmfile("vm \"a\" { image \"blank.qcow2\"; backend \"noop\"; vcpus 2 }\nvm \"b\" { image \"blank.qcow2\"; backend \"noop\" }\n");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2).says("vm.b: create");
    let refused = world.vmctl(&["apply", "--yes"]).expect(1).says("Read-only file system").says("help:");
    refused.says(&world.data().join("projects/shop").display().to_string());
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(1).says("read-only");
    disks.remount(&world.data(), "rw");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

/// F15: a data folder of somebody else, or closed to everybody. As root, vmctl is run as somebody else.
#[test]
fn folder_that_is_not_ours_is_refused_before_any_effect() {
    use std::os::unix::fs::PermissionsExt;

    let mut world = World::new(0);
    world.blank_image();
    world.vmfile("vm \"a\" { image \"blank.qcow2\"; backend \"noop\" }\n");
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode of a folder");
    };
    let closed = world.folder().join("closed");
    fs::create_dir(&closed).expect("a folder");
    mode(&closed, 0o000);
    world.set("VMCTL_DATA_DIR", &closed);
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // Nothing is closed to root, but for one without capabilities. Another user might not get to the world at all.
        let somebody = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];
        world.through(somebody.map(str::to_owned).into());
    }
    for command in [&["apply", "--yes"][..], &["list"], &["plan"]] {
        let refused = world.vmctl(command).expect(1).says("Permission denied").says("help:");
        refused.says(&closed.display().to_string());
    }
    mode(&closed, 0o700);
    assert_eq!(fs::read_dir(&closed).expect("the folder").count(), 0, "nothing was made");
}
