//! The short ways: `up`, `down`, `reload`, `start`, `stop`, `suspend`, `resume`, `destroy`.

use vmctl_tests::World;
use vmctl_tests::leaks::{self, Goal};

/// Two fake machines; `web` needs `db`.
fn shop() -> World {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(
        "defaults { backend \"noop\"; image \"blank.qcow2\" }\nvm \"db\"\nvm \"web\" { depends-on \"db\" }",
    );
    world
}

fn states(world: &World) -> [String; 2] {
    let states = world.states();
    ["db", "web"].map(|name| states[name].clone())
}

#[test]
fn machines_go_up_and_down_by_name_and_the_vmfile_still_counts() {
    let world = shop();
    world.vmctl(&["start", "web"]).expect(1).says("no machine was made yet").says("vmctl up");
    world.vmctl(&["up"]).expect(0);
    assert_eq!(states(&world), ["running", "running"]);

    world.vmctl(&["stop", "vm.db"]).expect(0);
    assert_eq!(states(&world), ["stopped", "running"], "what needs it is not named, and stays");
    assert_eq!(world.decisions()["vm.db"], "start", "the VMFile asks for it");
    world.vmctl(&["start", "db"]).expect(0);
    world.vmctl(&["suspend", "db", "web"]).expect(0);
    assert_eq!(states(&world), ["suspended", "suspended"]);
    world.vmctl(&["resume", "db"]).expect(0);
    world.vmctl(&["start", "web"]).expect(0);
    assert_eq!(states(&world), ["running", "running"]);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);

    // In the order of need: what needs another goes down before it, and comes up after it.
    let stopped = world.vmctl(&["down", "--json"]).expect(0);
    assert_eq!(order(&stopped.stdout, "stop"), ["vm.web", "vm.db"]);
    let started = world.vmctl(&["start", "web", "db", "--json"]).expect(0);
    assert_eq!(order(&started.stdout, "start"), ["vm.db", "vm.web"]);
    let history = world.vmctl(&["state", "history", "--json"]).expect(0).json();
    let commands: Vec<_> =
        history["runs"].as_array().unwrap().iter().map(|run| run["command"].clone()).collect();
    for word in ["up", "stop", "suspend", "resume", "down", "start"] {
        assert!(commands.iter().any(|command| command == &format!("vmctl {word}")), "{word} in {commands:?}");
    }
    world.vmctl(&["stop", "nobody"]).expect(1).says("nobody").says("there are: db, web");
}

#[test]
fn what_a_machine_cannot_do_now_is_an_error_and_nothing_is_done() {
    let world = shop();
    world.vmctl(&["up"]).expect(0);
    world.vmctl(&["stop", "web"]).expect(0);
    for word in ["suspend", "resume"] {
        let refused = world.vmctl(&[word, "db", "web"]).expect(1);
        refused.says("vm.web: it does not run; `vmctl start` starts it");
    }
    assert_eq!(states(&world), ["running", "stopped"]);
    world.vmctl(&["stop", "web"]).expect(0).says("No changes");
}

#[test]
fn disks_are_lost_only_where_that_was_said() {
    let world = shop();
    world.vmctl(&["up"]).expect(0);
    let made = |name: &str| world.vm(name)["id"].clone();
    let (db, web) = (made("db"), made("web"));

    world.vmctl(&["taint", "web"]).expect(0);
    world.vmctl(&["up"]).expect(1).says("nobody said whether to apply this plan");
    assert_eq!(made("web"), web);
    world.vmctl(&["up", "--yes"]).expect(0);
    let again = made("web");
    assert_ne!(again, web);
    // Whoever asks for it by name need not say it twice where there is no terminal.
    world.vmctl(&["reload", "--name", "web"]).expect(0);
    assert_ne!(made("web"), again);
    assert_eq!(made("db"), db);
    world.vmctl(&["destroy", "db"]).expect(0);
    assert!(world.states().is_empty(), "what needs it goes with it");
    world.vmctl(&["up", "db"]).expect(0);
    world.vmctl(&["down", "--destroy"]).expect(0);
    assert!(world.states().is_empty());
    assert_eq!(leaks::leaks(&world, Goal::Destroyed), Vec::<String>::new());
}

#[test]
fn steps_run_by_name_by_force_and_not_at_all() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(
        "defaults { backend \"noop\"; image \"blank.qcow2\"; ssh }
vm \"db\" { provision { inline \"a\" }; provision { script \"seed.sh\"; run \"once\" }; provision { inline \"c\"; run \"always\" } }
vm \"web\" { depends-on \"db\"; provision { inline \"d\" } }",
    );
    world.write("seed.sh", "b\n");
    let steps = |arguments: &[&str]| {
        let run = world.vmctl(&[arguments, &["--json"]].concat()).expect(0);
        let events = run.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let ended = events.filter(|event| event["event"] == "done" && event["kind"] == "provision");
        ended
            .map(|event| format!("{} {}", event["address"].as_str().unwrap(), event["number"]))
            .collect::<Vec<_>>()
    };
    world.vmctl(&["provision"]).expect(1).says("no machine was made yet");
    assert_eq!(steps(&["up", "--no-provision"]), [""; 0]);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2).says("has not succeeded yet");
    world.vmctl(&["plan", "--no-provision", "--detailed-exitcode"]).expect(0).says("(--no-provision)");
    assert_eq!(steps(&["provision"]), ["vm.db 1", "vm.db 2", "vm.db 3", "vm.web 1"]);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2).says("runs with every apply");
    assert_eq!(steps(&["up"]), ["vm.db 3"]);
    world.write("seed.sh", "other\n");
    assert_eq!(steps(&["provision", "--name", "db", "--force"]), ["vm.db 1", "vm.db 3"]);
    assert_eq!(steps(&["provision", "--step", "seed.sh", "--force"]), ["vm.db 2"]);
    assert_eq!(steps(&["provision", "web", "--step", "1"]), [""; 0]);
    world.vmctl(&["provision", "web", "--step", "2"]).expect(1).says("`2`").says("1 (`inline`) of web");
    world.vmctl(&["stop", "web"]).expect(0);
    world.vmctl(&["provision"]).expect(1).says("vm.web: it does not run; `vmctl up` starts it");
    assert_eq!(steps(&["reload", "db", "--no-provision", "--yes"]), [""; 0]);
    world.vmctl(&["down", "--destroy"]).expect(0);
}

#[test]
fn guest_that_ignores_the_power_button_is_ended_after_the_timeout_that_was_given() {
    let world = World::new(1);
    world.blank_image();
    world.vmfile("vm \"deaf\" { image \"blank.qcow2\"; memory 32 }");
    world.vmctl(&["up"]).expect(0);
    let pid = world.pid("deaf");
    world.vmctl(&["suspend", "deaf"]).expect(0);
    assert_eq!(world.states()["deaf"], "suspended");
    world.vmctl(&["resume", "deaf"]).expect(0);
    assert_eq!(world.pid("deaf"), pid);
    world.vmctl(&["stop", "deaf", "--timeout", "1"]).expect(0);
    assert_eq!(world.states()["deaf"], "stopped");
    world.vmctl(&["start", "deaf"]).expect(0);
    assert_ne!(world.pid("deaf"), pid);
    leaks::leakcheck(&world);
    world.vmctl(&["down", "--timeout", "1s"]).expect(0);
    world.vmctl(&["down", "--destroy", "--yes"]).expect(0);
    assert_eq!(leaks::leaks(&world, Goal::Destroyed), Vec::<String>::new());
}

/// The machines whose `step` ended, in order.
fn order(events: &str, step: &str) -> Vec<String> {
    let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ended = events.filter(|event| event["event"] == "done" && event["kind"] == step);
    ended.map(|event| event["address"].as_str().unwrap().to_owned()).collect()
}
