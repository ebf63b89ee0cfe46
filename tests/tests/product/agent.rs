//! Guests that vmctl does not log in to, and whose agent answers; and one that heeds its agent and not its power button.

use vmctl_tests::terminal::Terminal;
use vmctl_tests::{World, leaks};

/// What the agent takes at most of a command's output, in letters that are told apart from the rest.
const FLOOD: &str = "head -c 6000000 /dev/zero | tr '\\0' x";

#[test]
fn guest_without_a_login_is_asked_and_stopped_by_its_agent() {
    let world = World::new(2);
    world.blank_image();
    let without_agent =
        "vm \"deaf\" { image \"blank.qcow2\"; memory 64; ready { exec \"true\"; timeout \"3s\" } }\n";
    let machine = |probe: &str| {
        world.vmfile(&format!(
            "vm \"box\" {{ image \"TINY\"; memory 192; ready {{ exec \"{probe}\"; timeout \"3m\" }}; \
             check \"asked\" {{ exec \"echo why it fails >&2; test -e /var/asked\" }} }}\n{without_agent}"
        ));
    };
    machine("test -d /proc/1");
    // The one with an agent is ready, the other says what is missing.
    world
        .vmctl(&["apply", "--yes"])
        .expect(5)
        .says("vm.deaf")
        .says("no guest agent answers")
        .says("qemu-guest-agent");
    assert_eq!(world.vm("box")["state"], "running");
    world.vmctl(&["exec", "deaf", "--", "true"]).expect(1).says("no guest agent answers in it");

    let ran = world
        .vmctl(&["exec", "box", "--", "sh", "-c", "printf 'it'\\''s\\n'; echo aside >&2; exit 7"])
        .expect(7);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("it's\n", "aside\n"));
    world.vmctl(&["exec", "box", "--", "sh", "-c", "kill -9 $$"]).expect(137);
    world.vmctl(&["exec", "box", "--", "sh", "-c", FLOOD]).expect(1).says("more than 4194304 bytes at once");
    assert_eq!(world.exec("box", "echo again"), "again\n");
    world.vmctl(&["status", "box"]).expect(0).says("10.0.2.15");

    // A check is asked of it as well.
    let asked = world.vmctl(&["drift", "--checks", "fail"]);
    assert!(asked.text().contains("exit code 1: why it fails"), "{}", asked.text());
    let refused = Terminal::new(&world, (24, 80), "vmctl exec --tty box -- true").end();
    assert!(refused.0 == 1 && refused.1.contains("a guest agent has no terminals"), "{refused:?}");
    world.exec("box", "touch /var/asked");
    let asked = world.vmctl(&["drift"]);
    assert!(!asked.text().contains("why it fails"), "{}", asked.text());

    // It no longer heeds its power button, and does what its agent is told.
    world.exec("box", "rm -r /etc/acpi/PWRF");
    world.vmctl(&["stop", "box"]).expect(0).says("guest agent");
    assert_eq!(world.vm("box")["state"], "stopped");

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}
