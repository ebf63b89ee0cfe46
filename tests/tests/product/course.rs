//! What ran when: a page, a trace and tests of an apply.

use std::fs;

use serde_json::Value;
use vmctl_tests::browser::Browser;
use vmctl_tests::{World, process};

/// One machine goes well, one never becomes ready, and one waits for that.
fn world() -> World {
    let world = World::new(1);
    world.blank_image();
    world.vmfile(
        r#"
project "shop"
vm "well" { image "TINY"; backend "noop"; ssh { user "vm" }; provision "shell" { inline "true" } }
vm "bad" { image "blank.qcow2"; memory 64; ready { log "<never> & nowhere"; timeout "1s" } }
vm "after" { image "TINY"; backend "noop"; ssh { user "vm" }; depends-on "bad" until="ready" }
"#,
    );
    world
}

#[test]
fn each_step_is_in_the_page_in_the_trace_and_among_the_tests() {
    let world = world();
    world.vmctl(&["apply", "--yes", "--timeline", "course.txt"]).expect(64).says(".html").says(".json");
    world.vmctl(&["apply", "--yes", "--timeline", "course.html", "--junit", "tests.xml"]).expect(5);

    let dom = Browser::new().dom(&world.project().join("course.html"), "");
    for (step, end) in [
        ("vm.well: provision 1", "done"),
        ("vm.bad: start", "done"),
        ("vm.bad: ready", "failed"),
        ("vm.after: ready", "skipped"),
    ] {
        let row =
            dom.split("<tr").find(|row| row.contains(step)).unwrap_or_else(|| panic!("{step} in {dom}"));
        assert!(row.contains(&format!(">{end}<")), "{row}");
        assert_eq!(row.contains("<rect"), end != "skipped", "{row}");
    }
    assert!(dom.contains("&lt;never&gt; &amp; nowhere"), "why it failed is there, as text");

    let tests = fs::read_to_string(world.project().join("tests.xml")).unwrap();
    assert!(tests.starts_with("<?xml ") && tests.contains("classname=\"vm.bad\""), "{tests}");
    let case = |class: &str, rest: &str| {
        let found = tests.split("<testcase").find(|case| case.contains(class) && case.contains(rest));
        found.unwrap_or_else(|| panic!("{class} {rest} in {tests}")).to_owned()
    };
    assert!(!case("\"vm.well\"", "provision 1").contains("<failure"));
    let failure = case("\"vm.bad\"", "name=\"ready\"");
    assert!(failure.contains("<failure") && failure.contains("&lt;never&gt; &amp; nowhere"), "{failure}");
    assert!(case("\"vm.after\"", "name=\"ready\"").contains("<skipped"));
    assert!(tests.contains("failures=\"1\""), "{tests}");

    // The same of what comes next, as a trace; and nothing is written over but its like.
    process::kill(world.pid("bad"));
    world.vmctl(&["apply", "--yes", "--destroy", "--timeline", "tests.xml.json"]).expect(0);
    let trace: Value =
        serde_json::from_slice(&fs::read(world.project().join("tests.xml.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let steps: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert!(
        steps.iter().any(|step| step["name"] == "vm.bad: destroy" && step["args"]["end"] == "done"),
        "{trace:#}"
    );
    assert!(steps.iter().all(|step| step["ts"].is_u64() && step["dur"].is_u64() && step["tid"].is_u64()));
    assert!(events.iter().any(|event| event["ph"] == "M" && event["args"]["name"] == "vm.well"), "{trace:#}");
    world.write("precious.json", "[]");
    world.vmctl(&["apply", "--yes", "--timeline", "precious.json"]).expect(64).says("precious.json");
    assert_eq!(fs::read_to_string(world.project().join("precious.json")).unwrap(), "[]");
}

/// A secret in what a machine is given, and in what fails.
const SECRET: &str = "kept-from-the-page-5521";

#[test]
fn what_was_done_is_appended_to_the_page_of_a_ci_step() {
    let mut world = World::new(0);
    world.vmfile(
        r#"
project "shop"
variable "token" { sensitive }
vm "slow" { image "TINY"; backend "noop" }
vm "bad" { image "TINY"; backend "noop"; ssh { user "vm" }; provision "shell" { env { TOKEN (var)"token" }; inline "true" } }
"#,
    );
    world.set("VMCTL_VAR_token", SECRET);
    let noop = world.data().join("projects/shop/noop");
    fs::create_dir_all(&noop).unwrap();
    let slow = r#"{ "op": "start", "times": 2, "delay-ms": 5100 }"#;
    let fails = format!(r#"{{ "op": "ready", "vm": "bad", "fail": "no `luck` with {SECRET}", "times": 1 }}"#);
    fs::write(noop.join("script.json"), format!("[{slow}, {fails}]")).unwrap();
    let page = world.project().join("page.md");
    let failed = world.vmctl(&["apply", "--yes", "--summary", "page.md"]).expect(5);
    let told = failed.stderr.split_once("Longest took:\n").unwrap_or_else(|| panic!("{}", failed.text())).1;
    let longest: Vec<_> = told.lines().take(2).map(|line| line.split_once("s  ").unwrap().1).collect();
    assert!(longest.contains(&"vm.slow: start") && longest.contains(&"vm.bad: start"), "{told}");
    let text = fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("### vmctl apply: not everything could be done\n"), "{text}");
    assert!(text.contains("| <code>vm.bad: ready</code> | failed |"), "{text}");
    assert!(text.contains("1 failed") && text.contains("no `luck`") && text.contains("to create"), "{text}");
    assert!(!text.contains(SECRET), "{text}");

    // What the environment names gets the rest, below what is there; nothing set is nothing named.
    world.set("GITHUB_STEP_SUMMARY", &page);
    let after = world.vmctl(&["up"]).expect(0);
    assert!(!after.stderr.contains("Longest took"), "{}", after.text());
    let more = fs::read_to_string(&page).unwrap();
    assert!(more.starts_with(&text) && more.matches("### vmctl ").count() == 2, "{more}");
    world.vmctl(&["run", "--", "true"]).expect(0);
    let more = fs::read_to_string(&page).unwrap();
    assert!(more.matches("### vmctl run").count() == 1, "what a run removes is no news: {more}");
    world.set("GITHUB_STEP_SUMMARY", "");
    world.vmctl(&["down"]).expect(0);
    assert_eq!(fs::read_to_string(&page).unwrap(), more);

    // That it cannot be written fails nothing.
    let down = world.vmctl(&["apply", "--yes", "--destroy", "--summary", "nowhere/page.md"]).expect(0);
    assert!(down.stderr.contains("nowhere/page.md` does not get the summary"), "{}", down.text());
}
