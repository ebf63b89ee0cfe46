//! Several vmctl at once.

use vmctl_tests::{World, leaks};

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let mut world = World::new(1);
    // A data folder of more than 200 characters: sockets and locks must not mind.
    let long = world.folder().join("d".repeat(200)).join("data");
    world.set("VMCTL_DATA_DIR", long);
    world.vmfile(
        r#"
vm "one" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "shell" { inline "echo the-step-began; until [ -e /tmp/go ]; do usleep 100000; done" }
}
"#,
    );
    let mut first = world.start(&["apply", "--yes"]);
    first.await_line(|line| line.contains("the-step-began") && !line.contains("echo"));

    world.vmctl(&["apply", "--yes"]).expect(3).says("apply").says(&format!("process {}", first.pid()));
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(3);
    assert_eq!(world.vm("one")["state"], "running");
    world.vmctl(&["plan"]).expect(0);
    world.exec("one", "touch /tmp/go");

    first.end().expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}
