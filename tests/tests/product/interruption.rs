//! vmctl killed in the middle: the next apply takes up what is there.

use vmctl_tests::{World, leaks, process};

/// A machine whose first step says that it began, and ends when it is told to.
const WAITING: &str = r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "shell" { inline "echo the-step-began; until [ -e /tmp/go ]; do usleep 100000; done" }
    provision "shell" { inline "echo last >> ran; sync" }
}
"#;

#[test]
fn killed_in_provisioning_the_same_machine_is_taken_up() {
    let world = World::new(1);
    world.vmfile(WAITING);
    let mut first = world.start(&["apply", "--yes"]);
    first.await_line(|line| line.contains("the-step-began") && !line.contains("echo"));
    first.kill();

    let pid = world.pid("one");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2);
    world.exec("one", "touch /tmp/go");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    assert_eq!(world.pid("one"), pid, "the running machine is adopted");
    assert_eq!(world.exec("one", "cat ran"), "last\n");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn killed_at_any_moment_of_the_start_the_next_apply_converges() {
    let world = World::new(1);
    world.vmfile("vm \"one\" { image \"TINY\"; memory 192; ssh { user \"vm\" } }");
    // Each round kills one line of progress later, so that the kills fall between all steps.
    for lines in 1..=4 {
        let mut apply = world.start(&["apply", "--yes"]);
        for _ in 0..lines {
            apply.await_line(|line| line.contains("vm.one"));
        }
        apply.kill();
        let machines = process::naming(world.folder());
        assert!(machines.len() <= 1, "two processes for one machine: {machines:#?}");
    }
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    assert_eq!(process::naming(world.folder()).len(), 1);
    assert_eq!(world.exec("one", "hostname"), "one\n");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}
