//! `vmctl fmt` as people and editors use it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use vmctl_tests::World;

const MESSY: &str = "vm  web{\r\n  memory 256; image x // why\r\n}";

const NEAT: &str = "vm web {\n    image x // why\n    memory 256\n}\n";

fn text(world: &World, name: &str) -> String {
    fs::read_to_string(world.project().join(name)).unwrap()
}

#[test]
fn vmfile_is_formatted_in_place_and_named() {
    let world = World::new(0);
    world.vmfile(MESSY);
    let path = world.project().join("VMFile.kdl");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let ended = world.vmctl(&["fmt"]).expect(0);
    assert_eq!(ended.stdout, format!("{}\n", path.display()));
    assert_eq!(text(&world, "VMFile.kdl"), NEAT);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let left: Vec<_> = world.project().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["VMFile.kdl"]);
    assert!(!world.data().exists(), "a formatter needs no data folder");
}

#[test]
fn formatted_file_is_not_touched() {
    let world = World::new(0);
    world.vmfile(NEAT);
    let path = world.project().join("VMFile.kdl");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let before = fs::metadata(&path).unwrap();
    let ended = world.vmctl(&["fmt", "-f", "VMFile.kdl"]).expect(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.modified().unwrap(), long_ago);
    assert_eq!(after.ino(), before.ino());
}

#[test]
fn check_shows_what_would_change_and_writes_nothing() {
    let world = World::new(0);
    world.vmfile(MESSY);
    let ended = world.vmctl(&["fmt", "--check"]).expect(1);
    assert!(ended.stdout.contains("\n-  memory 256; image x // why␍\n"), "{}", ended.stdout);
    assert!(ended.stdout.contains("\n+    image x // why\n+    memory 256\n"), "{}", ended.stdout);
    assert_eq!(text(&world, "VMFile.kdl"), MESSY);
    world.vmfile(NEAT);
    let ended = world.vmctl(&["fmt", "--check"]).expect(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
}

#[test]
fn every_file_is_tried_and_every_error_told() {
    let world = World::new(0);
    world.write("open.kdl", "vm a {");
    world.write("latin.kdl", "");
    fs::write(world.project().join("latin.kdl"), b"vm \"\xe4\"").unwrap();
    // What the file means plays no part.
    world.write("vms/wrong.kdl", "vm  a{ memry 1 }");
    let ended = world.vmctl(&["fmt", "open.kdl", "gone.kdl", ".", "latin.kdl", "vms/wrong.kdl"]).expect(1);
    assert_eq!(text(&world, "vms/wrong.kdl"), "vm a { memry 1 }\n");
    assert_eq!(text(&world, "open.kdl"), "vm a {");
    assert!(ended.stdout.ends_with("/vms/wrong.kdl\n"), "{}", ended.stdout);
    ended.says("the block of `vm` is not closed").says("gone.kdl").says("it is a folder").says("UTF-8");
}

#[test]
fn link_stays_and_its_target_is_formatted() {
    let world = World::new(0);
    world.write("shared/real.kdl", MESSY);
    let link = world.project().join("VMFile.kdl");
    symlink("shared/real.kdl", &link).unwrap();
    world.vmctl(&["fmt"]).expect(0);
    assert!(link.is_symlink());
    assert_eq!(text(&world, "shared/real.kdl"), NEAT);
}

#[test]
fn standard_input_is_formatted_to_standard_output() {
    let world = World::new(0);
    let ended = world.vmctl_with_input(&["fmt", "-"], MESSY).expect(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), (NEAT, ""));
    let ended = world.vmctl_with_input(&["fmt", "-"], NEAT).expect(0);
    assert_eq!(ended.stdout, NEAT);
    world.vmctl_with_input(&["fmt", "--check", "-"], MESSY).expect(1).says("+vm web {");
    let ended = world.vmctl_with_input(&["fmt", "-"], "vm {\n}}").expect(1).says("standard input");
    assert_eq!(ended.stdout, "");
    world.vmctl(&["fmt", "-", "VMFile.kdl"]).expect(64);
    world.vmctl(&["fmt", "VMFile.kdl", "-f", "VMFile.kdl"]).expect(64);
}

#[test]
fn file_that_cannot_be_written_stays_as_it_is() {
    let world = World::new(0);
    // A draft stands beside the file under a longer name, which is too long here: this stops root as well.
    let name = format!("{}.kdl", "x".repeat(251));
    world.write(&name, MESSY);
    let ended = world.vmctl(&["fmt", &name]).expect(1).says("cannot write").says("ls -ld");
    assert_eq!(ended.stdout, "");
    assert_eq!(text(&world, &name), MESSY);
}
