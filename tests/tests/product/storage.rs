//! What guests see of the host's storage besides their root disks.

use vmctl_tests::{World, await_condition, leaks, process};

#[test]
fn shares_are_mounted_at_each_start_and_written_from_both_sides() {
    let world = World::new(1);
    let vmfile = |memory: u32| {
        world.vmfile(&format!(
            r#"
vm "dev" {{
    image "GENERIC"
    memory {memory}
    ssh {{ user "vm" }}
    share "./src, the 2nd" "/mnt/the source" readonly
    share "./out" "/mnt/out"
    ready {{ exec "test -d '/mnt/the source'" }}
    provision "shell" {{ inline "cp '/mnt/the source/hello' /mnt/out/copy" }}
}}
"#
        ));
    };
    // A link to a folder stands for the folder.
    world.write("real/hello", "from the host\n");
    std::os::unix::fs::symlink("real", world.project().join("src, the 2nd")).unwrap();
    vmfile(256);
    world.vmctl(&["plan"]).expect(1).says("cannot share `./out`: no such folder");
    world.write("out/keep", "");
    // Anybody may write: the guest's user and the host's are not the same.
    let out = world.project().join("out");
    std::fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);

    // Both sides see what the other one writes; and what is read only stays as it is.
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read("copy"), "from the host\n");
    world.write("out/note", "another\n");
    assert_eq!(world.exec("dev", "cat /mnt/out/note"), "another\n");
    world.vmctl(&["exec", "dev", "--", "sudo", "touch", "/mnt/the source/new"]).expect(1).says("Read-only");
    world.vmctl(&["exec", "dev", "--", "sudo", "mount", "-o", "remount,rw", "/mnt/the source"]);
    world.vmctl(&["exec", "dev", "--", "sudo", "touch", "/mnt/the source/new"]).expect(1);
    assert!(!world.project().join("real/new").exists());
    // What a guest's root makes is no device and no set-uid program of the host.
    world.exec("dev", "cd /mnt/out && sudo mknod dev b 8 0 && sudo cp /bin/busybox su && sudo chmod 4755 su");
    for name in ["dev", "su"] {
        let found = out.join(name).metadata().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions());
        assert!(found.is_file() && mode & 0o6000 == 0, "{name}: {mode:o}");
    }

    // A restart mounts them again. One that is not there any more stops it, and the machine is as it was.
    vmfile(288);
    std::fs::rename(&out, world.project().join("away")).unwrap();
    let pid = world.pid("dev");
    world.vmctl(&["apply", "--yes"]).expect(1);
    assert_eq!(world.pid("dev"), pid);
    std::fs::rename(world.project().join("away"), &out).unwrap();
    world.vmctl(&["apply", "--yes"]).expect(0).says("restart");
    assert_eq!(world.exec("dev", "cat /mnt/out/note"), "another\n");
    leaks::leakcheck(&world);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
    assert_eq!(read("note"), "another\n");
}

#[test]
fn folder_is_served_over_virtiofs_for_as_long_as_the_machine_runs() {
    let world = World::new(1);
    world.write("src, 2/hello", "from the host\n");
    // Debian's cloud kernel, and so the tiny guest's, has virtiofs and no 9p.
    let vmfile = |memory: u32, rest: &str| {
        world.vmfile(&format!(
            r#"
vm "dev" {{
    image "TINY"
    memory {memory}
    ssh {{ user "vm" }}
    share "src, 2" "/mnt/the source" driver="virtiofs" {rest}
}}
"#
        ));
    };
    vmfile(192, "");
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    let path = world.project().join("src, 2");
    assert_eq!(world.exec("dev", "cat '/mnt/the source/hello'"), "from the host\n");
    world.exec("dev", "echo from the guest | sudo tee '/mnt/the source/answer'");
    assert_eq!(std::fs::read_to_string(path.join("answer")).unwrap(), "from the guest\n");

    vmfile(208, "");
    world.vmctl(&["apply", "--yes"]).expect(0).says("restart");
    assert_eq!(world.exec("dev", "cat '/mnt/the source/answer'"), "from the guest\n");
    leaks::leakcheck(&world);

    // It goes with its machine, however that ends.
    let servers = || {
        let all = process::naming(world.folder());
        all.into_iter().filter(|process| process.command.contains("virtiofsd")).count()
    };
    assert!(servers() > 0);
    let held = leaks::held(&world);
    process::kill(world.pid("dev"));
    await_condition("the server ends with its machine", || servers() == 0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
    assert!(path.join("hello").exists());
}

#[test]
fn guest_that_cannot_mount_a_share_is_told_why() {
    let world = World::new(1);
    world.write("src/hello", "from the host\n");
    // The tiny guest's kernel has no 9p, as Debian's cloud kernel.
    world.vmfile(
        r#"vm "dev" { image "TINY"; memory 192; ssh { user "vm" }; share "./src" "/mnt/src" readonly }"#,
    );
    let applied = world.vmctl(&["apply", "--yes"]).expect(5);
    applied.says("the guest cannot mount what the host shares").says("Debian's `cloud` kernel has none");
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

/// A machine of a name with the volume `data` of a size, and what else its block says.
fn with_volume(name: &str, size: &str, rest: &str) -> String {
    format!(
        r#"
volume "data" size="{size}"
vm "{name}" {{
    image "TINY"
    memory 192
    ssh {{ user "vm" }}
    volume "data"
    {rest}
}}
"#
    )
}

/// The volume as a guest sees it: the first word on it, and its size in GiB.
fn seen_by(world: &World, name: &str) -> String {
    let volume = "cd /sys/block; for disk in vd*; do [ \"$(cat $disk/serial)\" != data ] || echo $disk; done";
    let disk = world.exec(name, volume);
    let disk = disk.trim();
    let look =
        format!("sudo head -c 512 /dev/{disk} | strings; echo $(($(cat /sys/block/{disk}/size) >> 21)) GiB");
    world.exec(name, &look).trim().replace('\n', ", ")
}

#[test]
fn volume_outlives_its_machine_grows_while_it_runs_and_moves_to_another() {
    let world = World::new(2);
    let disk = world.data().join("projects/shop/volumes/data/disk.qcow2");
    let decided = |world: &World, name: &str| world.decisions()[name].clone();
    world.vmfile(&with_volume("db", "1G", ""));
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    assert_eq!(seen_by(&world, "db"), "1 GiB");
    world.exec("db", "echo canary | sudo dd of=/dev/vdc conv=fsync 2>/dev/null");

    // It grows under the guest's feet; to shrink it is refused.
    let pid = world.pid("db");
    world.vmfile(&with_volume("db", "2G", ""));
    assert_eq!(decided(&world, "vm.db"), "update");
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    assert_eq!((world.pid("db"), seen_by(&world, "db")), (pid, "canary, 2 GiB".to_owned()));
    world.vmfile(&with_volume("db", "1G", ""));
    world.vmctl(&["plan"]).expect(1).says("the volume `data` has 2.0 GiB and cannot shrink to 1.0 GiB");

    // Its machine is made anew, it is not. While that is off, it grows as well.
    world.vmfile(&with_volume("db", "3G", "cloud-init { hostname \"other\"; }"));
    assert_eq!(decided(&world, "vm.db"), "replace");
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    assert_eq!(world.exec("db", "hostname"), "other\n");
    assert_eq!(seen_by(&world, "db"), "canary, 3 GiB");

    // It goes to another machine, which waits until the first one is off.
    let bare =
        "vm \"db\" { image \"TINY\"; memory 192; ssh { user \"vm\" }; cloud-init { hostname \"other\"; }; }";
    world.vmfile(&format!("{}{bare}", with_volume("app", "3G", "")));
    assert_eq!(decided(&world, "vm.db"), "restart");
    world.vmctl(&["apply", "--yes", "--target", "app"]).expect(1).says("still belongs to `vm.db`");
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    assert_eq!(seen_by(&world, "app"), "canary, 3 GiB");

    // Everything goes but the volume; what comes after finds it as it was.
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0).says("Kept:").says("volume.data: 3.0 GiB");
    leaks::check(&world, &held);
    assert!(disk.exists());
    world.vmfile(&with_volume("late", "3G", ""));
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(seen_by(&world, "late"), "canary, 3 GiB");
    let held = leaks::held(&world);
    let destroyed = world.vmctl(&["apply", "--destroy", "--volumes", "--yes"]).expect(0);
    destroyed.says("volume.data: the volume of 3.0 GiB, with everything on it");
    leaks::check(&world, &held);
    assert!(!disk.parent().unwrap().exists());
}

/// With fake machines: what is decided, and what becomes of the folder.
#[test]
fn volume_is_removed_only_when_that_is_asked_for_and_never_made_again_unasked() {
    let world = World::new(0);
    world.blank_image();
    let folder = world.data().join("projects/shop/volumes/data");
    let web = |rest: &str| format!("vm \"web\" {{ image \"blank.qcow2\"; backend \"noop\"; {rest} }}");
    let protected =
        format!("volume \"data\" size=\"1G\" {{ prevent-destroy; }}\n{}", web("volume \"data\";"));
    let plain = format!("volume \"data\" size=\"1G\"\n{}", web("volume \"data\";"));
    world.vmfile(&protected);
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);

    // Nobody names it any more: it is kept, and while it is protected it stays.
    world.vmfile(&web(""));
    assert_eq!(world.decisions()["vm.web"], "restart");
    world.vmctl(&["apply", "--yes"]).expect(0).says("Kept:").says("volume.data: 1.0 GiB");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("Kept:");
    world.vmctl(&["apply", "--yes", "--volumes"]).expect(1).says("`prevent-destroy` protects `data`");
    world.vmfile(&plain);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmfile(&web(""));
    let saved = world.vmctl(&["plan", "--volumes", "--out", "plan"]).expect(0);
    saved.says("Data will be lost").says("volume.data: destroy (nothing in the VMFile names it");
    world.vmctl(&["apply", "plan"]).expect(0);
    assert!(!folder.exists());
    leaks::leakcheck(&world);

    // Its disk is gone: told, and nothing is put in its place, whatever else is to be done.
    world.vmfile(&plain);
    world.vmctl(&["apply", "--yes"]).expect(0);
    std::fs::remove_file(folder.join("disk.qcow2")).unwrap();
    assert_eq!(world.drift()["vm.web"], ["volume-missing"]);
    for arguments in [&["apply", "--yes"][..], &["apply", "--yes", "--replace", "web"]] {
        world.vmctl(arguments).expect(1).says("its volume `data` is gone").says("take the volume out");
    }
    world.vmctl(&["apply", "--yes", "--no-refresh", "--replace", "web"]).expect(1).says("is gone");
    std::fs::remove_dir_all(&folder).unwrap();
    world.vmctl(&["apply", "--yes", "--replace", "web"]).expect(1).says("its volume `data` is gone");
    assert!(!folder.exists());
    // The way out that it names.
    world.vmfile(&web(""));
    world.vmctl(&["apply", "--yes", "--volumes"]).expect(0);
    world.vmfile(&plain);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(folder.join("disk.qcow2").exists());
    leaks::leakcheck(&world);
    world.vmctl(&["apply", "--yes", "--destroy", "--volumes"]).expect(0);
    assert!(!folder.exists());
}

#[test]
fn medium_is_read_by_the_guest_and_never_taken_for_its_seed() {
    let world = World::new(1);
    let vmfile =
        "vm \"one\" { image \"TINY\"; memory 192; ssh { user \"vm\" }; media \"./tools, new.img\"; }";
    let medium = world.project().join("tools, new.img");
    let make = |label: &str| {
        let _ = std::fs::remove_file(&medium);
        let made = world
            .beside_vmctl("/usr/sbin/mkfs.vfat")
            .args(["-n", label, "-C"])
            .arg(&medium)
            .arg("1024")
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    world.vmfile(vmfile);
    world.vmctl(&["plan"]).expect(1).says("cannot attach `./tools, new.img`: No such file");
    make("CIDATA");
    world.vmctl(&["plan"]).expect(1).says("it has a volume labelled CIDATA");
    make("TOOLS");
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    let disk = world.exec("one", "cd /sys/block; grep -l media0 */serial | cut -d / -f 1");
    let disk = disk.trim();
    let label = format!("sudo head -c 4096 /dev/{disk} | strings | grep TOOLS; cat /sys/block/{disk}/ro");
    assert!(world.exec("one", &label).ends_with("\n1\n"));
    world.exec("one", &format!("sudo mount -t vfat -o ro /dev/{disk} /mnt"));

    // Another file under the same name is looked at when the machine starts.
    world.vmfile(&vmfile.replace("192", "208"));
    let saved = world.vmctl(&["plan", "--out", "plan"]).expect(0);
    saved.says("restart");
    make("cidata");
    world.vmctl(&["apply", "plan"]).expect(1).says("it has a volume labelled CIDATA");
    std::fs::remove_file(&medium).unwrap();
    world.vmfile(&vmfile.replace("media \"./tools, new.img\";", ""));
    world.vmctl(&["apply", "--yes"]).expect(0).says("restart");
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

/// The guests stay in their firmware, which costs nothing.
#[test]
fn volume_that_a_process_uses_is_neither_given_to_another_nor_removed() {
    let world = World::new(2);
    world.blank_image();
    let disk = world.data().join("projects/shop/volumes/data/disk.qcow2");
    let volume = "volume \"data\" size=\"1G\"\n";
    let vm = |name: &str| format!("vm \"{name}\" {{ image \"blank.qcow2\"; memory 64; volume \"data\"; }}\n");
    world.vmfile(&format!("{volume}{}", vm("db")));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("db");

    // Nobody that vmctl knows has it once its machine is let go of, and that runs on.
    world.vmfile(&format!("removed \"db\"\n{volume}{}", vm("app")));
    let applied = world.vmctl(&["apply", "--yes"]).expect(5);
    applied.says("the volume `data` is in use: another process works on").says("disk.qcow2");
    world.vmfile("removed \"db\"");
    world.vmctl(&["apply", "--yes", "--volumes"]).expect(5).says("the volume `data` is in use");
    assert!(disk.exists() && process::arguments(pid).is_some());
    process::kill(pid);
    await_condition("the process ends", || process::arguments(pid).is_none());
    world.vmctl(&["apply", "--yes", "--destroy"]).expect(0).says("Kept:");
    world.vmctl(&["apply", "--yes", "--destroy", "--volumes"]).expect(0);
    assert!(!disk.parent().unwrap().exists());
}
