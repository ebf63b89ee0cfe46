//! Logs of several machines, and as they grow.

use vmctl_tests::World;

#[test]
fn logs_of_machines_are_followed_line_by_line() {
    let world = World::new(2);
    world.vmfile(
        r#"
vm "web" { image "TINY"; memory 192; ssh { user "vm" }; provision "shell" { inline "echo from the step" } }
vm "database" { image "TINY"; memory 192; ssh { user "vm" } }
"#,
    );
    world.vmctl(&["log"]).expect(1).says("no VMs");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let all = world.vmctl(&["log"]).expect(0).stdout;
    for line in ["web console        | ", "web provision      | from the step\n", "database console   | "] {
        assert!(all.contains(line), "{line:?} in {all}");
    }
    let last = world.vmctl(&["log", "web", "database", "--console", "-n", "1"]).expect(0).stdout;
    assert_eq!(last.lines().count(), 2, "{last}");

    let mut following = world.start(&["log", "--follow", "--console", "-n", "20"]);
    following.await_line(|line| line.starts_with("web"));
    world.exec("database", "echo it goes on | sudo tee /dev/ttyS0");
    // Behind the prompt of the guest's shell.
    following.await_line(|line| line.starts_with("database | ") && line.ends_with("it goes on\n"));
    following.kill();
    let mut one = world.start(&["log", "web", "-F"]);
    one.await_line(|line| line == "provision | from the step\n");
    world.exec("web", "printf 'a\\033[31mb\\n' | sudo tee /dev/ttyS0");
    one.await_line(|line| line.starts_with("console") && line.contains("a^[[31mb"));
    one.kill();
    world.vmctl(&["log", "--raw"]).expect(64).says("name one machine");
    world.vmctl(&["log", "wbe"]).expect(1).says("did you mean `web`?");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}
