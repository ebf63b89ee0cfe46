//! `vmctl init`: a VMFile to begin with.

use vmctl_tests::{World, leaks, surroundings};

#[test]
fn new_file_says_what_it_needs_and_is_applied_once_it_has_it() {
    let world = World::new(1);
    world.vmctl(&["init"]).expect(0).says("Wrote VMFile.kdl: one machine, `web`.");
    let told = world.vmctl(&["validate"]).expect(1).says("has no value");
    told.says("the variable `image` (path of a disk image, QCOW2 or raw)").says("pass `--var image=…`");
    let text = std::fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    let image = format!("default \"{}\"", surroundings::tiny_image().display());
    let text = text.replace("// default \"debian-12-genericcloud-amd64.qcow2\"", &image);
    world.write("VMFile.kdl", &text.replace("memory \"1G\"", "memory \"256M\""));
    world.vmctl(&["apply", "--yes"]).expect(0).says("Linux");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn every_template_is_planned_with_an_image() {
    let world = World::new(0);
    let image = format!("image={}", surroundings::tiny_image().display());
    for (template, machines) in [("minimal", 1), ("ci", 1), ("cluster", 3)] {
        let file = format!("{template}.kdl");
        let at = ["--file", &file];
        world
            .vmctl(&[&at[..], &["init", "--template", template]].concat())
            .expect(0)
            .says(&format!("--file {file}"));
        let plan = world.vmctl(&[&at[..], &["plan", "--var", &image]].concat()).expect(0);
        plan.says(&format!("{machines} to create"));
    }
    let help = world.vmctl(&["init", "--help"]).expect(0);
    help.says("minimal: One machine").says("ci: A machine").says("cluster: Several workers");
}

#[test]
fn what_is_there_is_kept_unless_forced() {
    let world = World::new(0);
    world.write("VMFile.kdl", "mine");
    let read = |name: &str| std::fs::read_to_string(world.project().join(name)).unwrap();
    world.vmctl(&["init"]).expect(1).says("will not write to `VMFile.kdl`: it exists").says("--force");
    assert_eq!(read("VMFile.kdl"), "mine");
    world.vmctl(&["init", "--force", "--template", "ci", "--quiet"]).expect(0);
    assert!(read("VMFile.kdl").contains("vm \"runner\""));
    let left: Vec<_> = world.project().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["VMFile.kdl"]);

    world.vmctl(&["init", "--file", "."]).expect(1).says("it is a folder");
    world
        .vmctl(&["init", "--file", "no/such/VMFile.kdl"])
        .expect(1)
        .says("name a file in a folder that exists");
    std::os::unix::fs::symlink("elsewhere.kdl", world.project().join("link.kdl")).unwrap();
    world.vmctl(&["init", "--file", "link.kdl"]).expect(1).says("it exists");
    assert!(!world.project().join("elsewhere.kdl").exists());
}
