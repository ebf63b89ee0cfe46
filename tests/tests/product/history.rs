//! What the state remembers: who did what when, and how it is moved, exported and put back.

use std::fs;

use vmctl_tests::{World, await_condition};

use crate::schema::promised;

const TWO: &str = r#"
vm "db" { image "blank.qcow2"; backend "noop" }
vm "web" { image "blank.qcow2"; backend "noop"; depends-on "db" }
"#;

fn applied() -> World {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(TWO);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world
}

fn history(world: &World, options: &[&str]) -> serde_json::Value {
    let found = world.vmctl(&[&["state", "history", "--json"], options].concat()).expect(0).json();
    promised("history", &found);
    found
}

fn told(history: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    history["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (text(&run["command"]), text(&run["result"])))
        .collect()
}

#[test]
fn each_run_that_changed_something_is_in_the_journal_with_its_steps_and_its_end() {
    let world = applied();
    world.vmctl(&["apply", "--yes"]).expect(0).says("No changes");
    world.vmctl(&["taint", "web"]).expect(0);
    let noop = world.data().join("projects/shop/noop");
    fs::write(noop.join("script.json"), r#"[{ "op": "start", "vm": "web", "fail": "no luck", "times": 1 }]"#)
        .unwrap();
    world.vmctl(&["apply", "--yes"]).expect(5);

    let found = history(&world, &[]);
    let word = |command: &str, result: &str| (command.to_owned(), result.to_owned());
    let expected =
        [word("vmctl apply", "done"), word("vmctl taint", "done"), word("vmctl apply", "partly done")];
    assert_eq!(told(&found), expected);
    let run = &found["runs"][2];
    assert_eq!(run["steps"]["failed"], 1);
    let id: String = run["id"].as_str().unwrap().chars().take(8).collect();
    world.vmctl(&["state", "history"]).expect(0).says("partly done").says("vmctl taint");
    world.vmctl(&["state", "history", "--run", &id]).expect(0).says("vm.web start failed: no luck");
    world.vmctl(&["state", "history", "--run", "zz"]).expect(1).says("has no run `zz`");

    let of_db = history(&world, &["db"]);
    assert_eq!(told(&of_db), [word("vmctl apply", "done")]);
    assert!(of_db["steps"].as_array().unwrap().iter().all(|step| step["address"] == "vm.db"));
}

#[test]
fn run_that_died_has_no_end_and_one_at_work_is_named() {
    let world = applied();
    let noop = world.data().join("projects/shop/noop");
    fs::write(noop.join("script.json"), r#"[{ "op": "prepare", "times": 1, "delay-ms": 3600000 }]"#).unwrap();
    let apply = world.start(&["apply", "--yes", "--replace", "web"]);
    await_condition("the apply begins a step", || noop.join("used-0-0").exists());
    let found = history(&world, &[]);
    assert_eq!(found["at_work"]["pid"], apply.pid());
    assert_eq!(told(&found).len(), 1, "what it did is not told yet");
    apply.kill();
    let found = history(&world, &[]);
    assert_eq!((told(&found).len(), &found["at_work"]), (2, &serde_json::Value::Null));
    assert_eq!(told(&found)[1].1, "-");
    world.vmctl(&["state", "history"]).expect(0).says("died");
}

#[test]
fn records_are_listed_shown_and_renamed() {
    let world = applied();
    assert_eq!(world.vmctl(&["state", "list"]).expect(0).stdout, "vm.db\nvm.web\n");
    let shown = world.vmctl(&["state", "show", "web", "--json"]).expect(0).json();
    promised("record", &shown);
    assert_eq!(shown["record"]["address"], "vm.web");
    world.vmctl(&["state", "show", "web"]).expect(0).says("phase running");
    world.vmctl(&["state", "mv", "web", "db"]).expect(1).says("recorded already");

    let before = shown["record"]["instance"].clone();
    world.vmctl(&["state", "mv", "web", "www"]).expect(0);
    world.vmfile(&TWO.replace("\"web\"", "\"www\""));
    let decisions = world.decisions();
    assert!(!decisions.values().any(|action| action == "create" || action == "destroy"), "{decisions:?}");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let shown = world.vmctl(&["state", "show", "www", "--json"]).expect(0).json();
    assert_eq!(shown["record"]["instance"], before);
}

#[test]
fn exported_state_is_put_back_and_an_older_or_foreign_one_only_by_force() {
    let world = applied();
    let exported = world.vmctl(&["state", "export"]).expect(0);
    promised("state", &exported.json());
    world.write("older.json", &exported.stdout);
    world.vmctl(&["state", "import", "older.json"]).expect(0).says("What was there is kept");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    world.vmctl(&["state", "import", "older.json"]).expect(1).says("already").says("--force");
    world.vmctl(&["taint", "web"]).expect(0);
    world.vmctl(&["state", "import", "older.json", "--force"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    let other = applied().vmctl(&["state", "export"]).expect(0).stdout;
    world.write("other.json", &other);
    world.vmctl(&["state", "import", "other.json"]).expect(1).says("another history");
    world.write(
        "newer.json",
        &exported.stdout.replacen("\"format\": 1,\n    \"lineage", "\"format\": 2,\n    \"lineage", 1),
    );
    world.vmctl(&["state", "import", "newer.json"]).expect(1).says("has format 2");
    world.write("none.json", "{}");
    world.vmctl(&["state", "import", "none.json"]).expect(1).says("vmctl state export");

    // The way out when nothing else is left.
    let newest = world.vmctl(&["state", "export"]).expect(0).stdout;
    world.write("newest.json", &newest);
    let project = world.data().join("projects/shop");
    fs::remove_dir_all(project.join("state")).unwrap();
    fs::remove_file(project.join("snapshot.json")).unwrap();
    world.vmctl(&["state", "import", "newest.json"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
}
