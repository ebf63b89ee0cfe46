//! The data folder is moved, copied or brought to another host while machines exist (F38).

use std::fs;
use std::path::{Path, PathBuf};

use vmctl_tests::{World, leaks, process};

const MACHINES: &str = r#"
vm "runs" { image "blank.qcow2"; memory 32; disk "64MiB"; forward host=0 guest=80 }
vm "rests" { image "blank.qcow2"; memory 32; disk "64MiB"; state "stopped" }
"#;

/// Machines in their firmware, whose sockets stand beside the data, as is usual.
fn world() -> World {
    let mut world = World::new(0);
    world.unset("VMCTL_RUNTIME_DIR");
    world.blank_image();
    world.vmfile(MACHINES);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world
}

fn folder(world: &World, name: &str) -> PathBuf {
    PathBuf::from(world.vm(name)["work_dir"].as_str().expect("a machine has a folder"))
}

/// Destroys the machines; a guest in its firmware does not answer to the power button, so its process is ended first.
fn destroy(world: &World) {
    let held = leaks::held(world);
    process::kill(world.pid("runs"));
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(world, &held);
}

/// Copies a folder with its modes, without sockets.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    fs::set_permissions(to, from.metadata().expect("its mode").permissions()).expect("the same mode");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (kind, target) = (entry.file_type().expect("its type"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

#[test]
fn machines_of_a_moved_data_folder_are_found_go_on_and_can_be_changed() {
    let mut world = world();
    let pid = world.pid("runs");
    let moved = world.folder().join("moved");
    fs::rename(world.data(), &moved).expect("the data folder is moved");
    world.set("VMCTL_DATA_DIR", &moved);

    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    assert!(world.drift().is_empty());
    assert_eq!(world.pid("runs"), pid);
    assert_eq!(folder(&world, "rests"), moved.join("projects/shop/vms/rests"));

    // A restart with more memory, on a disk that grows: every file is opened by its new path.
    world.vmfile(&MACHINES.replace("memory 32", "memory 48").replace("64MiB", "96MiB"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(!process::await_end(world.pid("runs"), std::time::Duration::ZERO));
    let arguments = process::arguments(world.pid("runs")).expect("it runs").join(" ");
    assert!(arguments.contains(&format!("{}/", moved.display())), "{arguments}");
    assert!(!arguments.contains(&format!("{}/data/", world.folder().display())), "{arguments}");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);

    destroy(&world);
}

/// Sockets beside the data: the copy has none. Sockets elsewhere: the copy sees those of the original.
#[test]
fn copy_of_a_data_folder_does_not_touch_the_machines_of_the_original() {
    for is_shared in [false, true] {
        let mut world = world();
        if is_shared {
            destroy(&world);
            world.set("VMCTL_RUNTIME_DIR", world.runtime().join("vmctl"));
            world.vmctl(&["apply", "--yes"]).expect(0);
        }
        let (original, pid) = (world.data(), world.pid("runs"));
        copy(&original, &world.folder().join("copy"));
        world.set("VMCTL_DATA_DIR", world.folder().join("copy"));

        let expected = format!("process {pid}, on the files in `{}", original.display());
        world.vmctl(&["plan"]).expect(0).says("it may run elsewhere").says(&expected);
        world
            .vmctl(&["apply", "--yes"])
            .expect(1)
            .says("it may run elsewhere. Stop it there")
            .says("left alone");
        world.vmctl(&["apply", "--destroy", "--yes"]).expect(5).says(&expected).says("stop it there");
        world.vmctl(&["ssh", "runs"]).expect(1);
        world.set("VMCTL_DATA_DIR", &original);
        assert_eq!(world.pid("runs"), pid);
        world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);

        // Once the original is off, the copy is a data folder like any other.
        destroy(&world);
        world.set("VMCTL_DATA_DIR", world.folder().join("copy"));
        world.vmctl(&["apply", "--yes"]).expect(0);
        assert_ne!(world.pid("runs"), pid);
        destroy(&world);
    }
}

/// The host that a machine was started on is a part of its record.
#[test]
fn machine_that_was_left_running_on_another_host_is_left_alone_until_it_is_said_to_be_off() {
    if fs::read_to_string("/etc/machine-id").map_or(true, |id| id.trim().is_empty()) {
        eprintln!("skipped: this host has no machine id");
        return;
    }
    let world = world();
    process::kill(world.pid("runs"));
    let published = world.data().join("projects/shop/snapshot.json");
    let text = fs::read_to_string(&published).expect("the state is published");
    let host = text.split_once("\"host\":\"").expect("the host is recorded").1[..16].to_owned();
    fs::write(&published, text.replace(&host, "0123456789abcdef")).expect("a state of another host");

    world.vmctl(&["plan"]).expect(0).says("last seen on another host");
    world.vmctl(&["plan", "--take-over"]).expect(0).says("vm.runs: start");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}
