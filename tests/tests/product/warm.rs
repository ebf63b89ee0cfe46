//! Templates: machines that are made once, and then cloned.

use std::collections::BTreeSet;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use vmctl_tests::server::{Answer, Server};
use vmctl_tests::{World, leaks, surroundings};

use crate::schema::promised;

/// A machine that takes note of its being provisioned, and of where.
fn machine(head: &str, rest: &str) -> String {
    format!(
        r#"vm {head} {{
    image "GENERIC"; memory 160; warm "auto"
    cloud-init {{ write-file "/etc/machine-id" {{ content "0123456789abcdef0123456789abcdef\n" }} }}
    ssh
    provision "shell" {{ inline "hostname >>made; sync" }}
    {rest}
}}
"#
    )
}

/// A step that runs on clones as well.
const ALWAYS: &str = r#"provision "shell" { inline "echo counted >>always; sync"; run "always" }"#;

/// What a machine must have of its own.
const OWN: &str = "cat /proc/sys/kernel/random/boot_id /etc/machine-id; head -c 32 /dev/urandom | base64; hostname; cat made";

/// What each machine has of its own, by kind.
#[derive(Default)]
struct Seen([BTreeSet<String>; 5]);

impl Seen {
    /// Looks into one more machine: it is its own, and was provisioned once, where `made` says.
    fn look(&mut self, world: &World, name: &str, made: &str) {
        let said = world.exec(name, OWN);
        let lines: Vec<_> = said.lines().map(str::to_owned).collect();
        assert_eq!((lines[3].as_str(), lines[4..].join(" ").as_str()), (name, made));
        let known = world.data().join("projects").join("shop").join(format!("vms/{name}/known_hosts"));
        let known = fs::read_to_string(known).unwrap();
        let own = [&*lines[0], &lines[1], &lines[2], &lines[3], known.split(' ').nth(2).unwrap()];
        for (values, value) in self.0.iter_mut().zip(own) {
            assert!(values.insert(value.to_owned()), "{name} shares {value}");
        }
    }
}

/// What `plan` says of how `address` is made.
fn template(plan: &Value, address: &str) -> Value {
    let changes = plan["changes"].as_array().unwrap();
    changes.iter().find(|change| change["address"] == address).unwrap()["template"].clone()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// S31, S32.
#[test]
fn twenty_clones_are_each_their_own() {
    let world = World::new(3);
    world.vmfile(&machine("\"first\"", ""));
    world.vmctl(&["apply", "--yes"]).expect(0).says("first: keep");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let mut seen = Seen::default();
    seen.look(&world, "first", "first");

    world.vmfile(&(machine("\"first\"", "") + &machine("\"clone\" count=20", "")));
    let plan = world.vmctl(&["plan", "--json"]).expect(0).json();
    assert_eq!(template(&plan, "vm.clone-7")["level"], "memory");
    world.vmctl(&["plan"]).expect(0).says("it does not boot, and is provisioned already");
    let applied = world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(!applied.text().contains("provision 1"), "{}", applied.text());
    assert!(!applied.text().contains("it boots"), "{}", applied.text());

    for number in 1..=20 {
        let name = format!("clone-{number}");
        let before = now();
        seen.look(&world, &name, "first");
        let date: u64 = world.exec(&name, "date +%s").trim().parse().unwrap();
        assert!((before - 2..=now() + 2).contains(&date), "{name} lives at {date}, and it is {before}");
    }
    // The key by which the template was logged in to opens no clone.
    assert_eq!(world.exec("clone-1", "cat .ssh/authorized_keys | wc -l").trim(), "1");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    // A clone is a machine like others: it is stopped, started, and stays what it is.
    let before = world.exec("clone-3", "cat /etc/machine-id; hostname");
    world.vmctl(&["stop", "clone-3"]).expect(0);
    world.vmctl(&["start", "clone-3"]).expect(0);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(world.exec("clone-3", "cat /etc/machine-id; hostname"), before);
    leaks::leakcheck(&world);

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn of_equal_machines_at_once_one_boots_and_the_others_are_made_from_it() {
    let world = World::new(3);
    world.vmfile(&machine("\"web\" count=3", ""));
    world
        .vmctl(&["plan"])
        .expect(0)
        .says("web-2: create (after `vm.web-1`, from the template that it is kept as)");
    let plan = world.vmctl(&["plan", "--out", "now.plan", "--json"]).expect(0).json();
    let after = |address: &str| {
        let mut changes = plan["changes"].as_array().unwrap().iter();
        changes.find(|change| change["address"] == address).unwrap()["template_after"].clone()
    };
    assert_eq!((after("vm.web-1"), after("vm.web-3")), (Value::Null, "vm.web-1".into()));

    // One place at a time: what waits holds none.
    let options =
        ["--parallelism", "1", "--events", "events", "--summary", "summary.md", "--junit", "junit.xml"];
    let applied = world.vmctl(&[&["apply", "now.plan"], &options[..]].concat()).expect(0);
    applied
        .says("vm.web-2: provision 1 (inline) spared: its machine is made from a template")
        .says("2 spared");
    let events = fs::read_to_string(world.project().join("events")).unwrap();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    events.iter().for_each(|event| promised("event", event));
    let of = |word: &str, kind: &str| -> Vec<String> {
        let told = events.iter().filter(|event| event["event"] == word && event["kind"] == kind);
        told.map(|event| event["address"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("started", "provision"), ["vm.web-1"]);
    assert_eq!(of("started", "keep"), ["vm.web-1"]);
    assert_eq!(
        of("spared", "provision").into_iter().collect::<BTreeSet<_>>(),
        ["vm.web-2", "vm.web-3"].map(String::from).into()
    );
    let read = |name: &str| fs::read_to_string(world.project().join(name)).unwrap();
    assert!(read("summary.md").contains("2 spared"), "{}", read("summary.md"));
    assert_eq!(read("junit.xml").matches("its machine is made from a template").count(), 2);
    // The journal knows of no step that never began.
    let journal = world.vmctl(&["events", "web-2"]).expect(0);
    assert!(journal.text().contains("ready") && !journal.text().contains("provision"), "{}", journal.text());

    let mut seen = Seen::default();
    ["web-1", "web-2", "web-3"].iter().for_each(|name| seen.look(&world, name, "web-1"));
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["provision"]).expect(0);
    seen = Seen::default();
    ["web-1", "web-2", "web-3"].iter().for_each(|name| seen.look(&world, name, "web-1"));

    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn image_that_is_not_pinned_yet_is_kept_and_used() {
    let world = World::new(1);
    let image = fs::read(surroundings::generic_image()).unwrap();
    let server = Server::start(move |asked| Answer::file(asked, &image, "\"1\""));
    let far = format!("image-url {:?}", server.url("/tiny.qcow2"));
    world.vmfile(&machine("\"web\" count=2", "").replace("image \"GENERIC\"", &far));
    world
        .vmctl(&["apply", "--yes"])
        .expect(0)
        .says("vm.web-1: keep")
        .says("vm.web-2: provision 1 (inline) spared");
    assert_eq!(world.exec("web-2", "cat made; hostname"), "web-1\nweb-2\n");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    // It is pinned now, and has the key that it was kept under.
    let plan = world.vmctl(&["plan", "--json", "--replace", "web-2"]).expect(0).json();
    assert_eq!(template(&plan, "vm.web-2")["of"], "shop/web-1");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[test]
fn machines_whose_first_one_fails_are_made_by_themselves() {
    let world = World::new(2);
    let step = r#"inline "case $(hostname) in web-1) exit 3;; esac; hostname >>made; sync""#;
    let failing = machine("\"web\" count=3", ALWAYS).replace(r#"inline "hostname >>made; sync""#, step);
    world.vmfile(&failing);
    let applied = world
        .vmctl(&["apply", "--yes", "--parallelism", "2"])
        .expect(5)
        .says("vm.web-1: provision 1 (inline) failed")
        .says("there is no template of `vm.web-1`: it boots, and is provisioned itself");
    assert!(!applied.text().contains("spared"), "{}", applied.text());
    for name in ["web-2", "web-3"] {
        assert_eq!(world.exec(name, "hostname; cat made always"), format!("{name}\n{name}\ncounted\n"));
    }
    let list = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    assert_eq!(list["templates"], Value::Array(Vec::new()));
    // What is there is as it is to be, but for what runs with every plan.
    let decisions = world.decisions();
    assert_eq!((&*decisions["vm.web-2"], &*decisions["vm.web-3"]), ("provision", "provision"));
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}

#[test]
fn whatever_is_in_doubt_boots() {
    let world = World::new(1);
    world.vmfile(&machine("\"web\"", ALWAYS));
    world.vmctl(&["apply", "--yes"]).expect(0);
    let templates = world.data().join("templates");
    let folder = fs::read_dir(&templates).unwrap().next().unwrap().unwrap().path();
    let description = fs::read_to_string(folder.join("template.json")).unwrap();

    // A memory of another QEMU is of no use. The disk is, and nothing is provisioned again.
    let other = description.replace("\"qemu\": \"", "\"qemu\": \"1.");
    assert_ne!(other, description);
    fs::write(folder.join("template.json"), &other).unwrap();
    let applied = world.vmctl(&["apply", "--yes", "--replace", "web"]).expect(0);
    applied.says("it boots, although its template has a memory").says("from the template of");
    assert_eq!(
        world.exec("web", "cat made; wc -l <always").split_whitespace().collect::<Vec<_>>(),
        ["web", "2"]
    );
    assert_ne!(world.exec("web", "cat /etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
    assert_eq!(world.exec("web", "cat .ssh/authorized_keys | wc -l").trim(), "1");
    // What runs with every plan is all that is left.
    assert_eq!(world.decisions()["vm.web"], "provision");

    // A template that was changed is none, and is told.
    fs::write(folder.join("template.json"), &description).unwrap();
    let disk = fs::OpenOptions::new().append(true).open(folder.join("disk.qcow2")).unwrap();
    disk.set_len(disk.metadata().unwrap().len() + 1).unwrap();
    let planned = world.vmctl(&["plan", "--replace", "web"]).expect(0).says("a template is passed over");
    assert!(!planned.text().contains("from the template"), "{}", planned.text());
    let list = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    assert!(
        list["templates"][0]["problem"].as_str().unwrap().contains("it is not what was kept"),
        "{list:#}"
    );
    world.vmctl(&["image", "prune"]).expect(0).says("it is not what was kept");
    assert_eq!(fs::read_dir(&templates).unwrap().count(), 0);

    // Without one it is made as at first, and kept anew; with `--cold` as well.
    world.vmctl(&["apply", "--yes", "--replace", "web"]).expect(0).says("web: keep");
    let cold = world.vmctl(&["apply", "--yes", "--replace", "web", "--cold"]).expect(0).says("web: keep");
    assert!(!cold.text().contains("from the template"), "{}", cold.text());
    let list = world.vmctl(&["image", "list", "--json"]).expect(0).json();
    assert_eq!(
        (&list["templates"][0]["level"], &list["templates"][0]["problem"]),
        (&"memory".into(), &Value::Null)
    );
    world.vmctl(&["image", "prune", "--templates"]).expect(0).says("template of");

    // What a template knows nothing of keeps a machine from having one.
    let shared = machine("\"web\"", ALWAYS).replace("warm \"auto\"", "warm \"auto\"; media \"VMFile.kdl\"");
    world.vmfile(&shared);
    world.vmctl(&["plan", "--replace", "web"]).expect(0).says("made without a template: it has media");
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}
