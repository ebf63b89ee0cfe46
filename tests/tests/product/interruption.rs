//! vmctl killed in the middle: the next apply takes up what is there.

use vmctl_tests::{World, leaks, process};

/// A machine whose first step says that it began, and ends when it is told to.
const WAITING: &str = r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "shell" {
        inline "echo the-step-began; echo try >> tries; until [ -e /tmp/go ]; do usleep 100000; done"
        RERUN
    }
    provision "shell" { inline "echo last >> ran; sync" }
}
"#;

#[test]
fn killed_in_provisioning_the_same_machine_is_taken_up() {
    let world = World::new(1);
    world.vmfile(&WAITING.replace("RERUN", "rerun \"safe\""));
    let mut first = world.start(&["apply", "--yes"]);
    first.await_line(|line| line.contains("the-step-began") && !line.contains("echo"));
    first.kill();

    let pid = world.pid("one");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2).says("cut off").says("rerun \"safe\"");
    world.exec("one", "touch /tmp/go");
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    assert_eq!(world.pid("one"), pid, "the running machine is adopted");
    assert_eq!(world.exec("one", "cat ran"), "last\n");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

/// F6, I4: the outcome is unknown, and nothing is guessed.
#[test]
fn killed_in_a_step_that_may_not_run_twice_somebody_must_choose() {
    let world = World::new(2);
    let mut text = WAITING.replace("RERUN", "");
    text.push_str("vm \"after\" { image \"TINY\"; memory 192; depends-on \"one\" }\n");
    world.vmfile(&text);
    let mut first = world.start(&["apply", "--yes"]);
    first.await_line(|line| line.contains("the-step-began") && !line.contains("echo"));
    first.kill();
    assert!(world.vm("one")["provision_interrupted"]["number"] == 1);

    let pid = world.pid("one");
    for _ in 0..2 {
        let left = world.vmctl(&["apply", "--yes"]).expect(5);
        left.says("vmctl apply --rerun one").says("vmctl state provisioned one").says("vm.after");
    }
    world.vmctl(&["list"]).expect(0).says("provisioning interrupted at step 1");
    world.vmctl(&["status", "one"]).expect(0).says("interrupted at step 1 `inline`");
    assert_eq!(world.pid("one"), pid);
    assert_eq!(world.exec("one", "cat tries"), "try\n");

    // Run again on request: it is cut off once more, and taken for done then.
    let mut again = world.start(&["apply", "--yes", "--rerun", "one"]);
    again.await_line(|line| line.contains("the-step-began") && !line.contains("echo"));
    again.kill();
    assert_eq!(world.exec("one", "cat tries"), "try\ntry\n");
    world.vmctl(&["state", "provisioned", "one"]).expect(1).says("--yes");
    world.vmctl(&["state", "provisioned", "one", "--yes"]).expect(0);
    world.vmctl(&["state", "provisioned", "one", "--yes"]).expect(1).says("was cut off");
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(&world);
    assert_eq!(world.pid("one"), pid);
    assert_eq!(world.exec("one", "cat tries ran"), "try\ntry\nlast\n");

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
    leaks::leakcheck(&world);
    assert_eq!(process::naming(world.folder()).len(), 1);
    assert_eq!(world.exec("one", "hostname"), "one\n");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}
