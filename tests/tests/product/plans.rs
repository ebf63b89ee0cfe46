//! Plans as people use them: saved, narrowed, refused, shown. Machines here are fake and take no time.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use vmctl_tests::World;

/// Three fake machines; `MEMORY`, `SCRIPT` and `RULES` of the second are the test's.
fn shop(memory: u32, script: &str, rules: &str) -> String {
    format!(
        r#"
vm "db" {{ image "blank.qcow2"; backend "noop" }}
vm "web" {{
    image "blank.qcow2"
    backend "noop"
    memory {memory}
    depends-on "db"
    ssh
    provision "shell" {{ script "{script}" }}
    {rules}
}}
vm "other" {{ image "blank.qcow2"; backend "noop" }}
"#
    )
}

fn world() -> World {
    let world = World::new(0);
    world.blank_image();
    world.write("setup.sh", "echo one\n");
    world.vmfile(&shop(256, "setup.sh", ""));
    world
}

fn applied() -> World {
    let world = world();
    world.vmctl(&["apply", "--yes"]).expect(0);
    world
}

fn effective(world: &World, options: &[&str]) -> Vec<String> {
    let mut arguments = vec!["plan", "--json"];
    arguments.extend(options);
    let plan = world.vmctl(&arguments).json();
    let changes = plan["changes"].as_array().expect("a plan lists its changes");
    let words = |change: &Value| {
        format!(
            "{} {}",
            change["address"].as_str().unwrap_or_default(),
            change["action"].as_str().unwrap_or_default()
        )
    };
    changes.iter().filter(|change| change["action"] != "no-op").map(words).collect()
}

#[test]
fn saved_plan_is_applied_as_it_was_shown_and_only_once() {
    let world = world();
    world.vmctl(&["plan", "--out", "first.plan"]).expect(0).says("Plan: 3 to create");
    let mode = fs::metadata(world.project().join("first.plan")).expect("the plan").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner reads a plan");
    let shown = world.vmctl(&["show", "first.plan"]).expect(0);
    assert_eq!(shown.stdout, world.vmctl(&["plan"]).expect(0).stdout);
    let planned = world.vmctl(&["plan", "--json"]).expect(0).json();
    assert_eq!(world.vmctl(&["show", "first.plan", "--json"]).expect(0).json(), planned);

    world.vmctl(&["apply", "first.plan", "--project", "other"]).expect(64).says("is for project `shop`");
    world.vmctl(&["apply", "first.plan"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["apply", "first.plan"]).expect(4).says("the state was changed");
    let ids: Vec<_> =
        planned["changes"].as_array().expect("changes").iter().map(|c| c["instance"].clone()).collect();
    let made: Vec<_> = ["db", "other", "web"].map(|name| world.vm(name)["id"].clone()).into();
    assert_eq!(ids, made, "identities were chosen when it was planned");
}

#[test]
fn saved_plan_is_refused_with_the_name_of_what_moved() {
    let world = world();
    let stale = |moved: &str| {
        world.vmctl(&["apply", "x.plan"]).expect(4).says(moved);
        assert!(world.states().is_empty(), "nothing was done");
    };
    world.vmctl(&["plan", "--out", "x.plan"]).expect(0);
    world.write("setup.sh", "echo two\n");
    stale("setup.sh` was changed");
    world.write("setup.sh", "echo one\n");
    world.vmfile(&shop(512, "setup.sh", ""));
    stale("VMFile.kdl` was changed");
    world.vmfile(&shop(256, "setup.sh", ""));
    fs::remove_file(world.project().join("setup.sh")).expect("the script");
    stale("setup.sh` cannot be read any more: no such file");
    world.write("setup.sh", "echo one\n");
    let image = fs::read(world.project().join("blank.qcow2")).expect("the image");
    let mut other = image.clone();
    other.push(0);
    fs::write(world.project().join("blank.qcow2"), other).expect("the image");
    stale("blank.qcow2` was changed");
    fs::write(world.project().join("blank.qcow2"), image).expect("the image");

    // Edited, cut off, something else.
    let path = world.project().join("x.plan");
    let text = fs::read_to_string(&path).expect("the plan");
    for (content, words) in [
        (text.replace("\"memory\"", "\"Memory\""), "was edited or is damaged"),
        (text[..text.len() / 2].to_owned(), "is no saved plan"),
        ("{}".to_owned(), "is no saved plan"),
        (text.replace("\"version\":5", "\"version\":99"), "has format 99"),
    ] {
        fs::write(&path, content).expect("the plan");
        world.vmctl(&["apply", "x.plan"]).expect(1).says(words);
    }
    // As it was, it still fits.
    fs::write(&path, text).expect("the plan");
    world.vmctl(&["apply", "x.plan"]).expect(0);
}

/// A machine that is made of three variables and of the environment.
const GIVEN: &str = r#"
variable "size" { default 64 }
variable "word" { type "text" }
variable "token" { sensitive }
vm "web" {
    image "blank.qcow2"
    backend "noop"
    memory (var)"size"
    ssh
    labels { word (var)"word" }
    provision "shell" { inline (template)"echo {{ var.token }} {{ env.STAGE }}" }
}
"#;

#[test]
fn saved_plan_keeps_its_values_and_wants_the_sensitive_ones_again() {
    let mut world = world();
    world.vmfile(GIVEN);
    world.set("STAGE", "stage-one");
    world.write("values.kdl", "word \"from a file\"\n");
    let plan = ["plan", "--out", "x.plan", "--var", "size=96", "--var-file", "values.kdl"];
    world.vmctl(&[plan.as_slice(), &["--var", "token=open-sesame"]].concat()).expect(0);
    let saved = fs::read_to_string(world.project().join("x.plan")).expect("the plan");
    assert!(saved.contains("from a file") && !saved.contains("open-sesame") && !saved.contains("stage-one"));

    // Neither the file nor the options are needed again, and the environment does not change what was planned.
    fs::remove_file(world.project().join("values.kdl")).expect("the values");
    world.set("VMCTL_VAR_size", "128");
    let stale = |world: &World, arguments: &[&str], code: i32, words: &str| {
        let told = world.vmctl(&[&["apply", "x.plan"], arguments].concat()).expect(code).says(words);
        assert!(!told.text().contains("sesame"), "{}", told.text());
        assert!(world.states().is_empty(), "nothing was done");
    };
    stale(&world, &[], 1, "the variable `token` has no value");
    stale(&world, &[], 1, "a saved plan keeps no sensitive value");
    let other = "the sensitive variable `token` has another value than the plan was made with";
    stale(&world, &["--var", "token=close-sesame"], 4, other);
    let contradiction = "the variable `size` is `96` in the plan, and `64` is given now";
    stale(&world, &["--var", "token=open-sesame", "--var", "size=64"], 4, contradiction);
    world.set("STAGE", "two");
    let environment = "the environment variable `STAGE` has another value than the plan was made with";
    stale(&world, &["--var", "token=open-sesame"], 4, environment);
    world.unset("STAGE");
    stale(&world, &["--var", "token=open-sesame"], 1, "the environment variable `STAGE` is not set");
    world.set("STAGE", "stage-one");
    world.set("VMCTL_VAR_token", "open-sesame");
    world.vmctl(&["apply", "x.plan", "--var", "size=96"]).expect(0);
    assert_eq!(world.vm("web")["memory_mib"], 96);
    world.vmctl(&["plan", "--var", "size=96", "--var", "word=from a file"]).expect(0).says("No changes");
}

#[test]
fn plan_is_the_same_to_the_byte_until_something_moves() {
    let world = world();
    for _ in 0..2 {
        let plans: [String; 2] = std::array::from_fn(|_| world.vmctl(&["plan", "--json"]).expect(0).stdout);
        assert_eq!(plans[0], plans[1]);
        world.vmctl(&["apply", "--yes"]).expect(0);
    }
}

#[test]
fn plan_is_narrowed_to_machines() {
    let world = world();
    assert_eq!(effective(&world, &["--target", "web"]), ["vm.db create", "vm.web create"]);
    assert_eq!(effective(&world, &["--exclude", "db"]), ["vm.other create"]);
    world.vmctl(&["plan", "--target", "wbe"]).expect(1).says("did you mean `web`?");
    world.vmctl(&["apply", "--yes", "--target", "vm.web"]).expect(0);
    assert_eq!(effective(&world, &[]), ["vm.other create"]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(effective(&world, &["--replace", "other"]), ["vm.other replace"]);
    assert_eq!(effective(&world, &["--destroy", "--target", "db"]), ["vm.db destroy", "vm.web destroy"]);
    assert_eq!(effective(&world, &["--destroy", "--exclude", "web"]), ["vm.other destroy"]);
    for contradiction in [
        ["--refresh-only", "--destroy"].as_slice(),
        &["--target", "web", "--exclude", "web"],
        &["--replace", "other", "--target", "web"],
        &["--checks", "fail", "--no-refresh"],
        &["--out", "VMFile.kdl"],
        &["--html", "setup.sh"],
        &["--out", "-"],
        &["--out", "both", "--html", "both"],
    ] {
        world.vmctl(&[&["plan"], contradiction].concat()).expect(64);
    }
    assert!(!world.project().join("both").exists());
    world.vmctl(&["apply", "x.plan", "--target", "web"]).expect(64);
}

#[test]
fn what_cannot_be_carried_out_yet_is_shown_and_named_and_the_rest_can_go_on() {
    let world = world();
    let machine = |name: &str, rest: &str| {
        format!("vm \"{name}\" {{ image \"blank.qcow2\"; backend \"noop\"; {rest} }}\n")
    };
    let web = machine("web", "");
    world.vmfile(&(machine("db", "network \"vnic\" name=\"v0\"") + &web));
    let plan = world.vmctl(&["plan", "--json"]).expect(0).json();
    let text = "this version cannot carry out yet: a vnic network with the backend `noop`";
    let refusal = json!({ "kind": "not-yet", "text": text });
    assert_eq!((&plan["changes"][0]["refused"], &plan["changes"][1]["refused"]), (&refusal, &Value::Null));
    for (arguments, words) in [
        (["plan", "--out", "x.plan"].as_slice(), "Refused: this plan cannot be applied."),
        (
            &["apply", "--yes"],
            "vm.db: this version cannot carry out yet: a vnic network with the backend `noop` help: `vmctl plan` shows it",
        ),
    ] {
        let told = world.vmctl(arguments).expect(1).says(words).says("--exclude db");
        assert!(!told.text().contains("prevent-destroy"), "{}", told.text());
    }
    for looking in [["plan"].as_slice(), &["plan", "--markdown"]] {
        world.vmctl(looking).expect(0).says("this version cannot carry out yet:");
    }
    assert!(world.states().is_empty(), "nothing was done");
    world.vmctl(&["apply", "--yes", "--exclude", "db"]).expect(0);
    assert_eq!(world.states().into_keys().collect::<Vec<_>>(), ["web"]);

    // Both causes are told, each with its way out.
    world.vmfile(
        &(machine("db", "network \"vnic\" name=\"v0\"") + &machine("web", "lifecycle { prevent-destroy }")),
    );
    world.vmctl(&["apply", "--yes", "--exclude", "db"]).expect(0);
    world.vmfile(&machine("db", "network \"vnic\" name=\"v0\""));
    let both = world.vmctl(&["apply", "--yes"]).expect(1).says("`prevent-destroy` protects `web`");
    both.says("put the block of `web` back").says("vm.db: this version").says("--exclude db --exclude web");
}

#[test]
fn protection_holds_without_its_block_until_it_is_given_up() {
    let world = world();
    world.vmfile(&shop(256, "setup.sh", "lifecycle { prevent-destroy }"));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["taint", "web"]).expect(0).says("`prevent-destroy` protects it");
    world.vmctl(&["apply", "--yes"]).expect(1).says("`vmctl untaint web`");
    world.vmctl(&["untaint", "web"]).expect(0);
    let others = "vm \"db\" { image \"blank.qcow2\"; backend \"noop\" }";
    world.vmfile(others);
    let before = world.vm("web")["id"].clone();
    world.vmctl(&["plan", "--out", "x.plan"]).expect(1).says("`prevent-destroy` protects `web`");
    assert!(!world.project().join("x.plan").exists(), "what cannot be applied is not saved");
    for arguments in [["apply", "--yes"].as_slice(), &["apply", "--destroy", "--yes"]] {
        world.vmctl(arguments).expect(1).says("Refused");
    }
    assert_eq!(world.states().len(), 3, "nothing was done");
    assert_eq!(world.vm("web")["id"], before);
    world.vmctl(&["apply", "--yes", "--exclude", "web"]).expect(0);
    assert_eq!(world.states().len(), 2);

    world.vmfile(&shop(256, "setup.sh", ""));
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert!(world.states().is_empty());
}

#[test]
fn another_copy_of_the_vmfile_changes_no_record() {
    let world = applied();
    let copy = world.folder().join("copy");
    fs::create_dir(&copy).expect("a folder");
    for name in ["VMFile.kdl", "setup.sh", "blank.qcow2"] {
        fs::copy(world.project().join(name), copy.join(name)).expect("a copy");
    }
    let file = copy.join("VMFile.kdl").display().to_string();
    world.write("VMFile.kdl", &format!("project \"shop\"\n{}", shop(256, "setup.sh", "")));
    fs::copy(world.project().join("VMFile.kdl"), &file).expect("a copy");
    for command in [["plan"].as_slice(), &["taint", "web"], &["untaint", "web"], &["state", "rm", "web"]] {
        world.vmctl(&[&["--file", &file], command].concat()).expect(1).says("project `shop` belongs to");
    }
    world.vmctl(&["--file", &file, "taint", "shop/web"]).expect(0);
}

#[test]
fn taint_makes_a_machine_anew_and_can_be_taken_back() {
    let world = applied();
    world.vmctl(&["taint", "web", "--reason", "odd noises"]).expect(0);
    world.vmctl(&["plan"]).expect(0).says("it is tainted: odd noises").says("Data will be lost");
    world.vmctl(&["untaint", "web"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
    world.vmctl(&["taint", "web"]).expect(0);
    let before = world.vm("web")["id"].clone();
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_ne!(world.vm("web")["id"], before);
    world.vmctl(&["taint", "nobody"]).expect(1).says("there are: db, other, web");
}

#[test]
fn forgotten_and_renamed_machines_go_on() {
    let world = applied();
    let events = || fs::read_to_string(world.data().join("projects/shop/noop/events.log")).expect("events");
    world.vmctl(&["state", "rm", "other"]).expect(0).says("goes on as it is");
    assert_eq!(world.states().len(), 2);
    let before = events();
    let id = world.vm("web")["id"].clone();
    world.vmfile(&format!(
        "moved from=\"web\" to=\"www\"\nremoved \"db\"\n{}",
        shop(256, "setup.sh", "")
            .replace("\"web\"", "\"www\"")
            .replace("depends-on \"db\"", "")
            .replace("vm \"db\" { image \"blank.qcow2\"; backend \"noop\" }", "")
            .replace("vm \"other\" { image \"blank.qcow2\"; backend \"noop\" }", "")
    ));
    assert_eq!(effective(&world, &[]), ["vm.db forget", "vm.www update"]);
    world.vmctl(&["plan"]).expect(0).says("moved from `vm.web`").says("1 to forget");
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    assert_eq!(world.vm("www")["id"], id, "renamed without being replaced");
    let since = events();
    let since: Vec<_> = since.strip_prefix(&before).expect("a log only grows").lines().collect();
    assert_eq!(since.len(), 2, "{since:?}");
    assert!(since.contains(&"release db") && since.contains(&"update web"), "{since:?}");
    assert!(world.drift().is_empty(), "what was let go of is no drift");
}

#[test]
fn line_diffs_show_what_changed_and_mask_secrets() {
    let world = applied();
    world.write("setup.sh", "echo two\nexport DB_PASSWORD=hunter2\n");
    let plan = world.vmctl(&["plan"]).expect(0).says("-echo one").says("+echo two").says("(masked)");
    assert!(!plan.text().contains("hunter2"));
    let json = world.vmctl(&["plan", "--json"]).expect(0);
    assert!(json.stdout.contains("+echo two") && !json.stdout.contains("hunter2"));
    world.vmctl(&["plan", "--out", "x.plan"]).expect(0);
    let saved = fs::read_to_string(world.project().join("x.plan")).expect("the plan");
    assert!(!saved.contains("hunter2"), "a saved plan holds no script");
    world.vmctl(&["apply", "x.plan"]).expect(0);
}

#[test]
fn commands_of_probes_are_masked_wherever_they_are_shown() {
    let world = world();
    let rules =
        r#"ready { exec "PGPASSWORD=hunter2 psql" }; check "c" { exec "curl -u admin:hunter2 http://x" }"#;
    world.vmfile(&shop(256, "setup.sh", rules));
    let mut shown = world.vmctl(&["plan", "--out", "x.plan", "--html", "x.html"]).expect(0).text();
    shown.push_str(&world.vmctl(&["apply", "x.plan"]).expect(0).text());
    for arguments in [["plan", "--json"].as_slice(), &["plan", "--markdown"], &["show"], &["show", "--json"]]
    {
        shown.push_str(&world.vmctl(arguments).expect(0).text());
    }
    for file in ["x.plan", "x.html"] {
        shown.push_str(&fs::read_to_string(world.project().join(file)).expect("a file that was written"));
    }
    assert!(shown.contains("(masked)") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn machines_and_steps_are_drawn() {
    let world = world();
    let dot = world.vmctl(&["graph"]).expect(0).stdout;
    assert!(dot.starts_with("digraph") && dot.contains("vm.web"), "{dot}");
    let svg = world.vmctl(&["graph", "--plan", "--format", "svg"]).expect(0).stdout;
    assert!(svg.starts_with("<svg") && svg.contains("vm.web"), "{svg}");
    world.vmctl(&["plan", "--out", "x.plan"]).expect(0);
    let mermaid = |arguments: &[&str]| world.vmctl(arguments).expect(0).stdout;
    assert_eq!(
        mermaid(&["graph", "x.plan", "--format", "mermaid"]),
        mermaid(&["graph", "--plan", "--format", "mermaid"])
    );
}

#[test]
fn markdown_and_recorded_state_are_shown() {
    let world = world();
    let markdown = world.vmctl(&["plan", "--markdown"]).expect(0).stdout;
    assert!(markdown.contains("3 to create") && markdown.contains("<details>"), "{markdown}");
    world.vmctl(&["show"]).expect(0).says("Nothing is recorded");
    assert_eq!(world.vmctl(&["show", "--json"]).expect(0).json()["state"], Value::Null);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["show"]).expect(0).says("vm.web").says("memory 256 MiB");
    let state = world.vmctl(&["show", "--json"]).expect(0).json();
    assert_eq!(state["state"]["records"]["vm.web"]["phase"], json!("running"));
    world.vmctl(&["show", "--markdown"]).expect(64);
}

#[test]
fn quiet_apply_prints_no_plan_unless_somebody_is_asked() {
    let world = world();
    let run = world.vmctl(&["apply", "--yes", "-q"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}
