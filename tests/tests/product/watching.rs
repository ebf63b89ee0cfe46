//! What goes on being told: `list --watch`, `status --watch`, `events --follow`; and what happened, by `events`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use vmctl_tests::terminal::Terminal;
use vmctl_tests::{Ended, World, await_condition, process};

use crate::schema::promised;

const TWO: &str = r#"
vm "db" { image "blank.qcow2"; backend "noop" }
vm "web" { image "blank.qcow2"; backend "noop"; depends-on "db" }
"#;

/// The shell outlives Ctrl-C, so that it can tell how the command ended.
const WATCH: &str = "trap : INT; vmctl list --watch; echo ended with $?";

fn applied() -> World {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(TWO);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world
}

/// Changes a fake machine behind vmctl's back.
fn turn(world: &World, name: &str, state: &str) {
    let path: PathBuf = world.data().join("projects/shop/vms").join(name).join("machine.json");
    let mut machine: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    machine["state"] = json!(state);
    let draft = path.with_extension("draft");
    fs::write(&draft, machine.to_string()).unwrap();
    fs::rename(draft, path).unwrap();
}

fn lines(run: &Ended, schema: &str) -> Vec<Value> {
    let line = |line: &str| {
        let found = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        promised(schema, &found);
        found
    };
    run.stdout.lines().map(line).collect()
}

#[test]
fn watchers_tell_what_changed_and_nothing_else() {
    let world = applied();
    let mut list = world.start(&["list", "--watch", "--json"]);
    let mut status = world.start(&["status", "web", "--watch"]);
    list.await_line(|line| line.contains("\"vms\""));
    status.await_line(|line| line.contains("State:") && line.contains("running"));
    turn(&world, "web", "stopped");
    list.await_line(|line| line.contains("\"state\":\"stopped\""));
    status.await_line(|line| line.contains("stopped (recorded as running)"));

    // Another vmctl works on the machines meanwhile, and hinders nobody.
    world.vmctl(&["apply", "--yes"]).expect(0);
    list.await_line(|line| line.matches("\"state\":\"running\"").count() == 2);
    status.await_line(|line| line.contains("State:") && !line.contains("recorded as"));
    process::interrupt(list.pid());
    let list = list.end().expect(130);
    let states: Vec<_> = lines(&list, "list").iter().map(|list| list["vms"].clone()).collect();
    assert!(states.len() >= 3 && states.windows(2).all(|two| two[0] != two[1]), "{}", list.text());

    // A machine that is gone ends it.
    world.vmctl(&["apply", "--yes", "--destroy"]).expect(0);
    let status = status.end().expect(1).says("has no VMs");
    assert!(status.stdout.starts_with("20") && status.stdout.contains("\n\n"), "{}", status.text());
    world.vmctl(&["status", "nobody", "--watch"]).expect(1);
}

#[test]
fn watcher_draws_over_a_terminal_and_gives_it_back() {
    let mut world = applied();
    world.set("TERM", "xterm");
    let mut terminal = Terminal::new(&world, (5, 44), WATCH);
    terminal.await_text("\u{1b}[?1049h");
    terminal.await_text("web   running");
    turn(&world, "web", "stopped");
    terminal.await_text("\u{1b}[H\u{1b}[J");
    terminal.await_text("web   stopped (recorded as running)");
    terminal.press("\u{3}");
    let (_, shown) = terminal.end();
    let (drawn, after) = shown.rsplit_once("\u{1b}[?1049l").unwrap();
    let frame = drawn.rsplit("\u{1b}[H\u{1b}[J").next().unwrap();
    assert!(frame.lines().count() <= 5 && !frame.contains("PID"), "{frame}");
    assert!(after.contains("web   stopped (recorded as running)"), "what was seen last stays: {after}");
    assert!(after.ends_with("ended with 130\r\n"), "{after}");

    // A terminal that cannot be drawn over is told as a pipe is.
    world.set("TERM", "dumb");
    let mut terminal = Terminal::new(&world, (24, 80), WATCH);
    terminal.await_text("web   stopped");
    terminal.press("\u{3}");
    let (_, shown) = terminal.end();
    assert!(!shown.contains('\u{1b}') && shown.ends_with("ended with 130\r\n"), "{shown}");
}

#[test]
fn events_are_of_the_journal_and_of_what_is_seen() {
    let world = applied();
    let past = lines(&world.vmctl(&["events", "--json"]).expect(0), "events");
    let of = |kind: &str| past.iter().filter(|line| line["event"] == kind).collect::<Vec<_>>();
    let web: Vec<_> = of("step")
        .iter()
        .filter(|line| line["address"] == "vm.web")
        .map(|line| line["step"].clone())
        .collect();
    assert_eq!(web, ["prepare", "start"]);
    assert_eq!((of("run").len(), &of("run")[0]["result"]), (1, &json!("done")));
    assert!(past.windows(2).all(|two| two[0]["time"].as_str() <= two[1]["time"].as_str()));
    let db = world.vmctl(&["events", "db"]).expect(0).says("vm.db start done in").says("(vmctl apply by uid");
    assert!(!db.stdout.contains("vm.web") && db.stdout.lines().count() == 2, "{}", db.text());
    world.vmctl(&["events", "--since", "0s"]).expect(0).says("Nothing");
    world.vmctl(&["events", "--since", "yesterday"]).expect(64).says("such as `2h`");

    let mut following = world.start(&["events", "--follow", "--since", "0s", "--json"]);
    let mut text = world.start(&["events", "--follow", "web"]);
    // It is known to look once it has told of something.
    turn(&world, "db", "suspended");
    following.await_line(|line| line.contains("\"paused\""));
    turn(&world, "web", "stopped");
    following.await_line(|line| line.contains("\"powered-off\"") || line.contains("\"not-running\""));
    text.await_line(|line| {
        line.contains("vm.web  observed stopped") && line.contains("not running any more")
    });
    world.vmctl(&["apply", "--yes"]).expect(0);
    following.await_line(|line| line.contains("\"event\":\"run\""));
    await_condition("it sees that nothing differs", || world.vmctl(&["drift"]).code() == 0);
    world.vmctl(&["apply", "--yes", "--destroy"]).expect(0);
    following.await_line(|line| line.contains("\"vm.web\"") && line.contains("\"state\":null"));
    for watcher in [&following, &text] {
        process::interrupt(watcher.pid());
    }
    let told = lines(&following.end().expect(130), "events");
    assert!(told.iter().any(|line| line["step"] == "resume" && line["outcome"] == "done"));
    let shown = text.end().expect(130).stdout;
    assert!(!shown.contains("vm.db"), "{shown}");
}
