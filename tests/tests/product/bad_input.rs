//! What cannot work is said clearly, before anything is made.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use vmctl_tests::World;

/// A VMFile that cannot work, and words that the answer must hold.
struct Bad {
    vmfile: &'static str,
    says: &'static [&'static str],
}

const BAD: &[Bad] = &[
    Bad { vmfile: r#"vm "one" { image "nowhere.qcow2" }"#, says: &["nowhere.qcow2"] },
    Bad { vmfile: r#"vm "one" { image "text.qcow2" }"#, says: &["text.qcow2"] },
    Bad { vmfile: r#"vm "one" { image "." }"#, says: &["image"] },
    Bad { vmfile: r#"vm "../x" { image "TINY" }"#, says: &["../x"] },
    Bad { vmfile: r#"vm "a,b" { image "TINY" }"#, says: &["','"] },
    Bad { vmfile: r#"vm "" { image "TINY" }"#, says: &["empty"] },
    Bad { vmfile: r#"vm "one" { image "TINY"; memry 256 }"#, says: &["memry", "memory"] },
    Bad { vmfile: "vm \"one\" { image \"TINY\" }\nvm \"one\" { image \"TINY\" }", says: &["one"] },
    Bad { vmfile: r#"vm "one" { image "TINY"; vcpus 0 }"#, says: &["vcpus"] },
    Bad { vmfile: r#"vm "one" { image "TINY"; depends-on "two" }"#, says: &["two"] },
    Bad { vmfile: r#"vm "one" { image "TINY"; depends-on "one" }"#, says: &["one"] },
    Bad { vmfile: r#"vm "one" { image "TINY"; provision "shell" { inline "true" } }"#, says: &["ssh"] },
    Bad { vmfile: r#"vm "one" { image "TINY" "#, says: &["}"] },
    Bad { vmfile: "", says: &["vm"] },
];

/// Panics if a run made a machine, or anything that a machine needs.
fn nothing_was_made(world: &World) {
    let vms = world.data().join("projects/shop/vms");
    let made = fs::read_dir(&vms).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(made, 0, "something was made in {}", vms.display());
}

#[test]
fn a_vmfile_that_cannot_work_is_refused_with_its_place() {
    for bad in BAD {
        let world = World::new(0);
        world.write("text.qcow2", "this is no image\n");
        world.vmfile(bad.vmfile);
        for command in [&["plan"][..], &["apply", "--yes"]] {
            let mut ended = world.vmctl(command).expect(1);
            for words in bad.says {
                ended = ended.says(words);
            }
            let text = ended.text();
            assert!(!text.contains("panicked"), "{text}");
            assert!(text.contains("VMFile.kdl"), "the place is not named for {}\n{text}", bad.vmfile);
        }
        nothing_was_made(&world);
    }
}

#[test]
fn all_problems_of_a_vmfile_are_told_at_once() {
    let world = World::new(0);
    world.vmfile(
        "vm \"a/b\" { image \"nowhere.qcow2\" }\nvm \"c\" { image \"gone.qcow2\"; vcpu 2; memory 0 }",
    );
    let ended = world.vmctl(&["validate"]).expect(1);
    ended.says("a/b").says("nowhere.qcow2").says("gone.qcow2").says("vcpus").says("memory");
}

#[test]
fn without_a_vmfile_the_way_on_is_told() {
    let world = World::new(0);
    world.vmctl(&["plan"]).expect(1).says("VMFile.kdl");
    world.vmctl(&["list"]).expect(0);
}

#[test]
fn another_copy_of_a_vmfile_does_not_touch_the_first_ones_machines() {
    let world = World::new(0);
    let text =
        |name: &str| format!("project \"same\"\nvm \"{name}\" {{ image \"TINY\"; backend \"noop\" }}\n");
    world.vmfile(&text("one"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let first = fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    world.write("copy/VMFile.kdl", &first.replace("vm \"one\"", "vm \"two\""));
    for command in [&["plan", "-f", "copy/VMFile.kdl"][..], &["apply", "--yes", "-f", "copy/VMFile.kdl"]] {
        world.vmctl(command).expect(1).says("belongs to").says("--project");
    }
    assert_eq!(world.states().len(), 1);
    // By name it is meant.
    world.vmctl(&["apply", "--yes", "-f", "copy/VMFile.kdl", "--project", "same"]).expect(0);
    assert!(world.states().contains_key("two"));
}

#[test]
fn destroying_needs_a_vmfile_or_a_project() {
    let world = World::new(0);
    world.vmfile("vm \"one\" { image \"TINY\"; backend \"noop\" }");
    world.vmctl(&["apply", "--yes"]).expect(0);
    fs::remove_file(world.project().join("VMFile.kdl")).unwrap();
    assert_eq!(world.states().len(), 1, "looking takes the only project there is");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(1).says("--project");
    assert_eq!(world.states().len(), 1);
}

#[test]
fn apply_without_a_terminal_asks_for_yes() {
    let world = World::new(0);
    world.vmfile("vm \"one\" { image \"TINY\" }");
    world.vmctl(&["apply"]).expect(1).says("--yes");
    nothing_was_made(&world);
}

/// A PATH on which only `programs` are found.
fn path_with(world: &mut World, programs: &[&str]) {
    let bin = world.folder().join("bin");
    fs::create_dir(&bin).unwrap();
    for program in programs {
        let found = ["/usr/bin", "/bin", "/usr/local/bin"].map(|folder| PathBuf::from(folder).join(program));
        let found = found.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {program} here"));
        symlink(found, bin.join(program)).unwrap();
    }
    world.set("PATH", bin);
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    for (there, missing, package) in [
        ("qemu-img", "qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-system-x86_64", "qemu-img", "qemu-utils"),
    ] {
        let mut world = World::new(0);
        path_with(&mut world, &["setsid", there]);
        world.vmfile("vm \"one\" { image \"TINY\" }");
        let ended = world.vmctl(&["apply", "--yes"]);
        assert_eq!(ended.code(), 1, "{}", ended.text());
        ended.says(missing).says(package);
        nothing_was_made(&world);
        world.vmctl(&["doctor"]).expect(1).says(missing).says(package);
    }
}

/// F23: a QEMU that would not understand us is refused before anything is made.
#[test]
fn an_old_qemu_is_refused() {
    let mut world = World::new(0);
    path_with(&mut world, &["setsid", "qemu-img", "sh"]);
    let old = world.folder().join("bin/qemu-system-x86_64");
    fs::write(&old, "#!/bin/sh\necho 'QEMU emulator version 5.2.0 (Debian 1:5.2)'\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    world.vmfile("vm \"one\" { image \"TINY\" }");
    world.vmctl(&["apply", "--yes"]).expect(1).says("QEMU 5.2.0 is too old, 6.2 or newer is needed");
    nothing_was_made(&world);
    world.vmctl(&["doctor"]).expect(1).says("QEMU 5.2.0 is too old");
}

#[test]
fn a_data_folder_that_cannot_be_made_is_named() {
    let mut world = World::new(0);
    let file = world.folder().join("a-file");
    fs::write(&file, "in the way\n").unwrap();
    world.set("VMCTL_DATA_DIR", file.join("data"));
    world.vmfile("vm \"one\" { image \"TINY\" }");
    world.vmctl(&["apply", "--yes"]).expect(1).says("a-file");
}

#[test]
fn without_home_and_setting_no_data_folder_is_guessed() {
    let mut world = World::new(0);
    world.unset("HOME");
    world.unset("VMCTL_DATA_DIR");
    world.vmfile("vm \"one\" { image \"TINY\" }");
    world.vmctl(&["plan"]).expect(1).says("--data-dir");
}

#[test]
fn a_port_in_use_is_told_before_anything_is_made() {
    let world = World::new(0);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    world.vmfile(&format!("vm \"one\" {{ image \"TINY\"; forward host={port} guest=80 }}"));
    let planned = world.vmctl(&["plan"]).expect(0);
    assert!(planned.stderr.contains("`apply` would be refused"), "{}", planned.text());
    assert!(planned.stderr.contains(&format!("{port}/tcp is in use")), "{}", planned.text());
    assert!(!world.vmctl(&["plan", "--no-refresh"]).expect(0).stderr.contains("would be refused"));
    let ended = world.vmctl(&["apply", "--yes"]).expect(1);
    ended.says(&port.to_string()).says("in use");
    nothing_was_made(&world);
}

#[test]
fn wrong_usage_ends_with_64() {
    let world = World::new(0);
    for arguments in [&["nonsense"][..], &["plan", "--nonsense"], &["exec"], &["--project", "../x", "list"]] {
        world.vmctl(arguments).expect(64);
    }
}

/// F27: a download that broke off is refused before anything is made of it.
#[test]
fn image_that_is_cut_off_is_refused_wherever_it_ends() {
    let world = World::new(0);
    let whole = fs::read(World::tiny_image()).expect("the tiny image");
    world.write("VMFile.kdl", "vm \"web\" { image \"cut.qcow2\" }");
    for percent in [1, 20, 60, 99] {
        let cut = &whole[..whole.len() * percent / 100];
        fs::write(world.project().join("cut.qcow2"), cut).expect("a part of it");
        world.vmctl(&["plan"]).expect(1).says("cut.qcow2` cannot be used as a disk image: it is cut off");
    }
    fs::write(world.project().join("cut.qcow2"), whole).expect("all of it");
    world.vmctl(&["plan"]).expect(0);
}
