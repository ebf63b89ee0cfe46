//! Disks that fill up: nothing that runs is lost, and everything goes on when there is room again (F13, F14, S30).

use std::fs;
use std::path::Path;

use vmctl_tests::disk::Disks;
use vmctl_tests::{World, await_condition, process};

/// Machines on an empty disk with a seed of 1 MiB each, and nothing to wait for: their guests stay in their firmware.
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
    disks.mount(&vms, 3 << 10);
    world.vmfile(&blank(&["a"]));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("a");

    world.vmfile(&blank(&["a", "b", "c"]));
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
