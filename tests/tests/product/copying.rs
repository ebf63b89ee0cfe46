//! `vmctl cp`: files and folders to a machine and back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use vmctl_tests::World;

#[test]
fn files_and_folders_go_to_a_machine_and_come_back_as_they_were() {
    let world = World::new(1);
    world.vmfile("vm \"web\" { image \"TINY\"; memory 192; ssh { user \"vm\" } }");
    world.write("src/a file", "one\n");
    world.write("src/bin/-run *", "#!/bin/sh\n");
    let run = world.project().join("src/bin/-run *");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("a file", world.project().join("src/link")).unwrap();
    world.vmctl(&["cp", "src", "web:"]).expect(1).says("no VMs");
    world.vmctl(&["apply", "--yes"]).expect(0);

    // As it is called, into what is there, and to where only root may write.
    world.vmctl(&["cp", "src", "web:"]).expect(0);
    world.vmctl(&["cp", "src", "web:copy"]).expect(0);
    world.vmctl(&["cp", "src", "web:copy"]).expect(0);
    world.vmctl(&["cp", "src/a file", "web:/etc/app.conf"]).expect(0);
    assert_eq!(
        world.exec("web", "cat 'src/link' 'copy/a file' 'copy/src/a file' /etc/app.conf"),
        "one\n".repeat(4)
    );
    assert_eq!(world.exec("web", "stat -c %a 'copy/bin/-run *'"), "755\n");

    // Back again, with what only root may read.
    world.exec("web", "echo secret > hidden; sudo chown root hidden; sudo chmod 600 hidden");
    let file = |name: &str| fs::read_to_string(world.project().join(name)).unwrap();
    world.vmctl(&["cp", "web:src", "back"]).expect(0);
    assert_eq!((file("back/link"), file("back/bin/-run *")), ("one\n".to_owned(), "#!/bin/sh\n".to_owned()));
    let mode = fs::metadata(world.project().join("back/bin/-run *")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    world.vmctl(&["cp", "web:~/hidden", "back"]).expect(0);
    world.vmctl(&["cp", "web:/etc/app.conf", "back/hidden"]).expect(0);
    assert_eq!(file("back/hidden"), "one\n", "a file takes the place of a file");
    world.vmctl(&["cp", "web:src/bin/-run *", "./with:colon"]).expect(0);
    assert_eq!(file("with:colon"), "#!/bin/sh\n");

    // What cannot be done changes nothing and leaves nothing.
    world.vmctl(&["cp", "web:src", "."]).expect(1).says("something is there already");
    world.vmctl(&["cp", "web:none", "x"]).expect(1).says("no such file or folder");
    world.vmctl(&["cp", "web:src/a file", "none/x"]).expect(1).says("none");
    world.vmctl(&["cp", "none", "web:"]).expect(1).says("none");
    world.vmctl(&["cp", "src", "back"]).expect(64).says("VM:PATH");
    world.vmctl(&["cp", "web:src", "web:back"]).expect(64).says("VM:PATH");
    assert_eq!(file("src/a file"), "one\n");
    let names: Vec<_> =
        fs::read_dir(world.project()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".vmctl-")), "{names:?}");
    world.vmctl(&["destroy", "web", "--yes"]).expect(0);
}
