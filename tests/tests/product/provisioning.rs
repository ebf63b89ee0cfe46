//! Provisioning that fails, and how it goes on.

use vmctl_tests::{World, leaks};

/// Three steps; each leaves a line in `ran`. The second one ends with `status`.
fn vmfile(world: &World, status: u8) {
    world.vmfile(
        r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "shell" { inline "echo first >> ran; sync" }
    provision "shell" { script "second.sh" }
    provision "shell" { inline "echo third >> ran; sync" }
}
vm "after" { image "TINY"; memory 192; depends-on "one" }
"#,
    );
    world.write(
        "second.sh",
        &format!("#!/bin/sh\necho second >> ran\nsync\necho 'the reason is this' >&2\nexit {status}\n"),
    );
}

#[test]
fn failed_provisioning_keeps_the_machine_and_goes_on_there() {
    let world = World::new(2);
    vmfile(&world, 9);
    let failed = world.vmctl(&["apply", "--yes"]).expect(5);
    let failed = failed.says("the reason is this").says("second.sh").says("9").says("vm.after");
    assert!(!failed.text().contains("panicked"), "{}", failed.text());
    assert_eq!(world.exec("one", "cat ran"), "first\nsecond\n");
    let pid = world.pid("one");

    // Unchanged, it is tried again at the same step. The step ran in part, so that something was done.
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2);
    world.vmctl(&["apply", "--yes"]).expect(5).says("the reason is this");
    assert_eq!(world.pid("one"), pid);
    assert_eq!(world.exec("one", "cat ran"), "first\nsecond\nsecond\n");

    // Repaired, it goes on there, and what waited for it is made.
    vmfile(&world, 0);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    assert_eq!(world.pid("one"), pid);
    assert_eq!(world.exec("one", "cat ran"), "first\nsecond\nsecond\nsecond\nthird\n");
    assert_eq!(world.vm("after")["state"], "running");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}
