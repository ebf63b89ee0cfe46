//! What `--json` prints is what `docs/schemas` promises: every document, every kind of event, no field besides.

mod promised;
mod worlds;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use vmctl_tests::server::{Answer, Server};
use vmctl_tests::surroundings::repository;
use vmctl_tests::{World, await_condition, process};

pub(crate) use promised::promised;
use promised::{SCHEMAS, allowed, apply, document, events};
pub(crate) use worlds::furnish;
use worlds::{BEFORE, changed, drifted, everything, script, vmfile, vmfile_and, world};

/// The texts of `key` in every element of the lists at `list`.
fn words<'a>(documents: impl IntoIterator<Item = &'a Value>, list: &str, key: &str) -> BTreeSet<String> {
    let elements = documents.into_iter().flat_map(|document| {
        let found = document.pointer(list).and_then(Value::as_array);
        found.unwrap_or_else(|| panic!("no list at `{list}` in {document:#}"))
    });
    elements.filter_map(|element| Some(element[key].as_str()?.to_owned())).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn plans_with_every_action_are_as_promised() {
    let world = world();
    vmfile(&world, &BEFORE);
    let nothing = document(&world, "plan", &["drift", "--json"], 0);
    assert_eq!(nothing["changes"], json!([]));
    everything(&world);
    let first = document(&world, "plan", &["plan", "--json"], 0);
    let fields = words(first["changes"].as_array().expect("changes"), "/fields", "field");
    let made = allowed("plan", "/$defs/field/properties/field/enum");
    assert_eq!(made.difference(&fields).collect::<Vec<_>>(), ["provision"], "all that a new machine has");

    let world = changed();
    let plan = document(&world, "plan", &["plan", "--json", "--out", "x.plan"], 0);
    let changes = plan["changes"].as_array().expect("changes");
    assert_eq!(words([&plan], "/changes", "action"), allowed("plan", "/$defs/action/enum"), "{plan:#}");
    assert_eq!(words(changes, "/fields", "class"), set(&["record-only", "in-place", "restart", "replace"]));
    assert_eq!(words(changes, "/diffs", "what"), set(&["cloud-init.user-data", "provision 1 (setup.sh)"]));
    assert!(changes.iter().any(|change| change["moved_from"] == "vm.moving"));
    assert_eq!(document(&world, "plan", &["show", "x.plan", "--json"], 0), plan);

    let events = apply(&world, &[], 0);
    let begun: Vec<_> = events.iter().filter(|event| event["event"] == "started").collect();
    let kinds: BTreeSet<_> = begun.iter().filter_map(|event| event["kind"].as_str()).collect();
    let mut known = allowed("plan", "/$defs/step-kind/enum");
    // A fake machine has nothing that could be kept as a template.
    assert!(known.remove("keep"));
    assert_eq!(kinds, known.iter().map(String::as_str).collect(), "steps of every kind ran");
    assert!(begun.iter().any(|event| event["kind"] == "provision" && event["number"] == 1));
}

#[test]
fn plans_that_are_narrowed_and_refused_are_as_promised() {
    let world = changed();
    let narrowed = document(&world, "plan", &["plan", "--json", "--target", "new", "--exclude", "same"], 0);
    assert_eq!((&narrowed["targets"], &narrowed["excludes"]), (&json!(["new"]), &json!(["same"])));
    assert_eq!(narrowed["changes"].as_array().map(Vec::len), Some(1));
    let replaced = document(&world, "plan", &["plan", "--json", "--no-refresh", "--replace", "same"], 0);
    assert_eq!(replaced["replace"], json!(["same"]));
    let kept = document(&world, "plan", &["plan", "--json", "--destroy"], 0);
    assert_eq!((&kept["mode"], &kept["forget"]), (&json!("destroy"), &json!(["old"])));
    vmfile(&world, &BEFORE);
    let refused = document(&world, "plan", &["plan", "--json", "--destroy"], 1);
    let refusals =
        refused["changes"].as_array().into_iter().flatten().map(|change| &change["refused"]["kind"]);
    assert!(refusals.into_iter().any(|kind| kind == "protected"), "{refused:#}");
    let refused = apply(&world, &["--destroy"], 1);
    assert_eq!(refused.iter().map(|event| &event["event"]).collect::<Vec<_>>(), ["plan", "summary"]);
    assert_eq!(refused[1]["outcome"], "refused");
    let gone = apply(&world, &["--destroy", "--exclude", "old"], 0);
    assert_eq!(gone.last().expect("a summary")["outcome"], "complete");
    assert_eq!(world.states().into_keys().collect::<Vec<_>>(), ["old"]);
}

/// Kinds of drift that happen to a process or a host; a fake machine has neither.
const OF_PROCESSES: [&str; 3] = ["elsewhere", "killed", "host-restarted"];

#[test]
fn drift_checks_strays_and_what_is_left_alone_are_as_promised() {
    let world = drifted();
    let found = document(&world, "plan", &["drift", "--json"], 2);
    let changes = found["changes"].as_array().expect("changes");
    let kinds = words(changes, "/drift", "kind");
    assert_eq!(
        &kinds | &set(&OF_PROCESSES),
        allowed("plan", "/$defs/drift/properties/kind/enum"),
        "{found:#}"
    );
    assert_eq!(words([&found], "/checks", "status"), set(&["fail", "pass"]));
    assert_eq!(words([&found], "/strays", "name"), set(&["lost"]));
    assert_eq!((&found["mode"], &found["empty"]), (&json!("refresh-only"), &json!(false)));

    let plan = document(&world, "plan", &["plan", "--json"], 0);
    let alone: Vec<_> = plan["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .filter(|change| !change["left_alone"].is_null())
        .map(|change| json!([change["address"], change["left_alone"]["instead_of"]]))
        .collect();
    let expected = json!([
        ["vm.disk-full", "resume"],
        ["vm.files", "replace"],
        ["vm.foreign", "restart"],
        ["vm.robbed", "no-op"],
        ["vm.unreachable", "restart"],
        ["vm.waits", "create"]
    ]);
    assert_eq!(json!(alone), expected);
    apply(&world, &["--refresh-only"], 0);
    apply(&world, &[], 5);
}

#[test]
fn volumes_that_are_kept_and_removed_are_as_promised() {
    let world = world();
    let volumes = "volume \"data\" size=\"1G\" { prevent-destroy; }\nvolume \"more\" size=\"2G\"\n";
    vmfile_and(&world, &[("one", "volume \"data\"; volume \"more\"")], volumes);
    apply(&world, &[], 0);
    let state = document(&world, "state", &["show", "--json"], 0);
    assert_eq!(state["state"]["records"]["vm.one"]["spec"]["volumes"][1]["name"], "more");
    vmfile(&world, &[("one", "")]);
    let kept = document(&world, "plan", &["plan", "--json"], 0);
    assert_eq!(words([&kept], "/kept", "address"), set(&["volume.data", "volume.more"]));
    apply(&world, &[], 0);
    let removed = document(&world, "plan", &["plan", "--json", "--volumes"], 1);
    let refused = removed["changes"].as_array().expect("changes").iter();
    let refused: Vec<_> = refused.filter(|change| !change["refused"].is_null()).collect();
    assert_eq!(refused[0]["address"], "volume.data");
    vmfile_and(&world, &[("one", "volume \"data\"")], "volume \"data\" size=\"1G\"\n");
    apply(&world, &[], 0);
    apply(&world, &["--destroy", "--volumes"], 0);
    document(&world, "history", &["state", "history", "--json"], 0);
}

#[test]
fn machines_in_every_state_are_as_promised() {
    let world = world();
    assert_eq!(document(&world, "list", &["list", "--json", "--all-projects"], 0)["project"], json!(null));
    vmfile(&world, &[("one", "")]);
    assert_eq!(document(&world, "list", &["list", "--json"], 0)["vms"], json!([]));

    let world = drifted();
    let list = document(&world, "list", &["list", "--json"], 0);
    let states = words([&list], "/vms", "state");
    let seen = ["prepared", "running", "suspended", "stopped", "failed", "destroyed", "unreachable"];
    assert_eq!(states, set(&seen));
    let vms = list["vms"].as_array().expect("machines");
    assert_eq!(words(vms, "/damage", "kind").len(), 8, "{list:#}");
    for vm in vms {
        let name = vm["name"].as_str().expect("a name");
        assert_eq!(document(&world, "status", &["status", name, "--json"], 0)["vm"], *vm);
    }
    world.vmctl(&["taint", "idle"]).expect(0);
    let state = document(&world, "state", &["show", "--json"], 0);
    assert_eq!(state["state"]["records"]["vm.idle"]["taint"], "by hand");
    let world = changed();
    document(&world, "state", &["show", "--json"], 0);
    assert!(
        !document(&world, "status", &["status", "seeded", "--json"], 0)["vm"]["provisioned"][0].is_null()
    );
}

/// Lines of a guest that floods: many times what a pipe and vmctl itself hold.
const FLOOD: u64 = 50_000;

#[test]
fn events_of_every_kind_are_as_promised() {
    let world = world();
    let steps = "ssh { user \"me\" }; provision \"shell\" { inline \"one\" }; \
         provision \"shell\" { inline \"two\"; rerun \"safe\"; retries 1 }";
    let output = "output \"login\" (template)\"{{ vm.worker.user }}\"\n";
    vmfile_and(&world, &[("base", ""), ("top", "depends-on \"base\""), ("worker", steps)], output);
    script(
        &world,
        &json!([
            { "op": "start", "vm": "base", "fail": "no luck", "times": 1 },
            { "op": "provision-2", "vm": "worker", "fail": "no luck", "times": 2 },
        ]),
    );
    // Room for one boot at a time.
    furnish(&world, &json!({ "memory-mib": 16 }));
    let short = apply(&world, &[], 1);
    assert_eq!(
        (&short[0]["plan"]["shortages"][0]["kind"], &short[1]["outcome"]),
        (&json!("memory"), &json!("refused"))
    );
    let mut all = apply(&world, &["--overcommit"], 5);
    let summary = all.last().expect("a summary").clone();
    assert_eq!(summary["failed"].as_array().map(Vec::len), Some(2), "{summary:#}");
    assert_eq!(summary["skipped"].as_array().map(Vec::len), Some(1), "{summary:#}");
    all.extend(apply(&world, &["--overcommit"], 0));
    let nothing = apply(&world, &[], 0);
    assert_eq!((nothing.len(), &nothing[2]["outcome"]), (3, &json!("nothing-to-do")));
    assert_eq!(nothing[1]["outputs"]["login"]["value"], "me");

    // Nobody reads, and a guest floods: everything is done, and what is not shown is counted.
    let flood = json!({ "op": "provision-1", "vm": "worker", "lines": FLOOD });
    script(&world, &json!([flood, { "op": "stop", "vm": "base", "delay-ms": 600_000 }]));
    let log = world.data().join("projects/shop/noop/events.log");
    let provisioned = || {
        let log = fs::read_to_string(&log).expect("the world's log");
        log.lines().filter(|line| *line == "provision-2 worker").count()
    };
    let before = provisioned();
    let unread = world.start_unread(&["apply", "--yes", "--json", "--replace", "worker"]);
    await_condition("an apply that cannot print goes on", || provisioned() > before);
    let flooded = events(&unread.read().end().expect(0));
    let shown = flooded.iter().filter(|event| event["event"] == "output").count() as u64;
    let dropped = flooded.iter().filter_map(|event| event["lines"].as_u64()).sum::<u64>();
    assert!(dropped > 0, "a pipe holds less than {FLOOD} lines");
    assert_eq!(shown + dropped, FLOOD + 2, "each step prints a line of its own");
    all.extend(flooded);

    // A wait that does not end, and one interrupt.
    script(
        &world,
        &json!([
            { "op": "ready", "vm": "worker", "delay-ms": 600_000 },
            { "op": "stop", "vm": "base", "delay-ms": 600_000 },
        ]),
    );
    let mut waiting = world.start(&["apply", "--yes", "--json", "--replace", "worker"]);
    waiting.await_line(|line| ["\"started\"", "\"ready\""].iter().all(|word| line.contains(word)));
    process::interrupt(waiting.pid());
    all.extend(events(&waiting.end().expect(130)));

    // A step that does not end, and two interrupts.
    let mut destroy = world.start(&["apply", "--destroy", "--yes", "--json", "--parallelism", "1"]);
    let stops =
        |line: &str| ["\"started\"", "\"stop\"", "\"vm.base\""].iter().all(|word| line.contains(word));
    destroy.await_line(stops);
    process::interrupt(destroy.pid());
    destroy.await_line(|line| line.contains("draining"));
    process::interrupt(destroy.pid());
    all.extend(events(&destroy.end().expect(130)));
    let summary = all.last().expect("a summary");
    assert_eq!(summary["abandoned"].as_array().map(Vec::len), Some(1), "{summary:#}");
    assert_ne!(summary["not_begun"], json!([]), "{summary:#}");

    // A download tells how far it is.
    let far = World::new(0);
    far.blank_image();
    let image = fs::read(far.project().join("blank.qcow2")).expect("an image");
    let server = Server::start(move |asked| Answer::file(asked, &image, "\"1\""));
    let url = server.url("/disk.qcow2");
    far.vmfile(&format!("vm \"far\" {{ image-url {url:?}; backend \"noop\" }}"));
    all.extend(apply(&far, &[], 0));

    let kinds: BTreeSet<_> = all.iter().filter_map(|event| event["event"].as_str()).collect();
    let known = SCHEMAS["event"].text["oneOf"].as_array().expect("kinds of events");
    let known = known.iter().filter_map(|kind| kind["$ref"].as_str()?.strip_prefix("#/$defs/"));
    let mut known: BTreeSet<_> = known.collect();
    // A fake machine is made from no template, which is what spares steps; `warm` looks at that.
    assert!(known.remove("spared"));
    assert_eq!(kinds, known);

    // Cut off without a word: the state says what was under way.
    let mut destroy = world.start(&["apply", "--destroy", "--yes", "--json"]);
    destroy.await_line(stops);
    destroy.kill();
    let state = document(&world, "state", &["show", "--json"], 0);
    assert!(words([&state], "/state/open", "step").contains("stop"), "{state:#}");
}

#[test]
fn machine_with_a_process_is_as_promised() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile(
        r#"vm "one" { image "blank.qcow2"; memory 32; ssh; ready { timeout "1s" }; check "up" { exec "true" } }"#,
    );
    let failed = apply(&world, &[], 5);
    assert_eq!(
        failed.last().expect("a summary")["failed"].as_array().map(Vec::len),
        Some(1),
        "nobody logs in"
    );
    let status = document(&world, "status", &["status", "one", "--json"], 0);
    for known in ["pid", "accel", "vnc", "ssh", "seed"] {
        assert!(!status["vm"][known].is_null(), "no `{known}` in {status:#}");
    }
    let plan = document(&world, "plan", &["plan", "--json"], 0);
    assert_eq!(plan["checks"][0]["status"], "unknown");
    document(&world, "state", &["show", "--json"], 0);
    process::kill(world.pid("one"));
    let found = document(&world, "plan", &["drift", "--json"], 2);
    assert_eq!(found["changes"][0]["drift"][0]["kind"], "killed");
    apply(&world, &["--destroy"], 0);
}

#[test]
fn faults_of_a_file_and_of_a_host_are_as_promised() {
    let mut world = world();
    vmfile(&world, &[("one", "forward host=0 guest=80 address=\"0.0.0.0\"")]);
    let valid = document(&world, "validate", &["validate", "--json"], 0);
    assert_eq!(words([&valid], "/problems", "severity"), set(&["warning"]));
    world.vmfile("vm \"one\" { image \"nothing\"; memry 12; vcpus 0; vcpus 1 }\nvm \"one\" { }");
    let invalid = document(&world, "validate", &["validate", "--json"], 1);
    assert!(invalid["problems"].as_array().is_some_and(|problems| problems.len() > 3), "{invalid:#}");
    world.vmfile("/- kdl-version 1\nvm \"one\" { image \"nothing\"; }");
    let old = document(&world, "validate", &["validate", "--json"], 1);
    assert_eq!(old["problems"][0]["code"], "vmfile::kdl1");
    world.write("odd/VMFile.kdl/file", "");
    let unread = document(&world, "validate", &["validate", "--json", "--file", "odd/VMFile.kdl"], 1);
    assert_eq!(unread["problems"][0].get("line"), None, "{unread:#}");

    document(&world, "doctor", &["doctor", "--json"], 0);
    world.vmfile(
        "vm \"zoned\" { image \"x\"; network \"none\"; backend \"propolis\" { bootrom \"/x\"; pool \"x\"; \
         zone \"x\" link=\"x0\" address=\"10.9.0.2/24\"; } }\n\
         vm \"own\" { image \"x\"; network \"none\"; backend \"propolis\" { bootrom \"/x\"; } }",
    );
    world.write("x", "");
    let of_propolis = document(&world, "doctor", &["doctor", "--json"], 1);
    let all = ["propolis-server", "bootrom", "bhyve", "zfs", "vnics", "zones"];
    assert!(words([&of_propolis], "/checks", "name").is_superset(&set(&all)), "{of_propolis:#}");
    world.set("PATH", "/nowhere");
    assert_eq!(document(&world, "doctor", &["doctor", "--json"], 1)["ok"], json!(false));
}

#[test]
fn outputs_are_as_promised() {
    let world = world();
    let outputs = "variable \"word\" { sensitive; default \"hunter2\" }\n\
                   output \"user\" (template)\"{{ vm.one.user }}\" { description \"who logs in\" }\n\
                   output \"secret\" (var)\"word\"\n";
    vmfile(&world, &[("one", "ssh")]);
    assert_eq!(document(&world, "output", &["output", "--json"], 0)["outputs"], json!({}));
    vmfile_and(&world, &[("one", "ssh")], outputs);
    let before = document(&world, "output", &["output", "--json"], 0);
    assert_eq!(before["outputs"]["user"]["reason"], "`vm.one` is not made yet");
    let events = apply(&world, &[], 0);
    let told = &events[events.len() - 2];
    assert_eq!((&told["event"], &told["outputs"]["user"]["value"]), (&json!("outputs"), &json!("vm")));
    assert_eq!(told["outputs"]["secret"]["value"], "(sensitive)");
    let secret = document(&world, "output", &["output", "secret", "--json"], 0);
    let expected = json!({ "value": "hunter2", "description": null, "sensitive": true, "reason": null });
    assert_eq!(secret["outputs"], json!({ "secret": expected }));
}

#[test]
fn file_after_all_substitution_is_as_promised() {
    let world = world();
    world.write("vmlinuz", "kernel");
    world.vmfile(ALL_THAT_CAN_BE_ASKED_FOR);
    let resolved = document(&world, "resolved", &["show", "--resolved", "--json"], 0);
    assert_eq!(resolved["vms"]["one-2"]["labels"]["place"], "two-2");
    assert_eq!(resolved["vms"]["one-1"]["provision"].as_array().map(Vec::len), Some(2));
    assert!(!world.data().join("projects").exists(), "no state is made");

    // What is printed for people is a VMFile that says the same.
    let text = world.vmctl(&["show", "--resolved"]).expect(0).stdout;
    world.vmfile(&text);
    let mut again = document(&world, "resolved", &["show", "--resolved", "--json"], 0);
    again["inputs"] = resolved["inputs"].clone();
    assert_eq!(again, resolved, "{text}");
    assert_eq!(world.vmctl(&["show", "--resolved"]).expect(0).stdout, text);
    for refused in [["today.plan", "--resolved"], ["--resolved", "--markdown"]] {
        world.vmctl(&[&["show"], &refused[..]].concat()).expect(64);
    }
}

/// A VMFile in which nothing of `show --resolved --json` is missing.
const ALL_THAT_CAN_BE_ASKED_FOR: &str = r#"
variable "where" { default "two" }
network "lan" { subnet "10.77.0.0/24" }
network "wan"
volume "data" size="1.5G" { prevent-destroy }
defaults { image "blank.qcow2"; labels { place (template)"{{ var.where }}-{{ name }}" } }
vm "one" count=2 {
    labels { place (template)"two-{{ index }}" }
    ssh { user "me" }
    forward guest=80
    network
    network "private" name="lan" address=(template)"10.77.0.1{{ index }}"
    network "private" name="wan"
    provision { script "setup.sh"; env { PLACE (var)"where" }; timeout "5m"; user "root"; run "always" }
    provision "file" { source "setup.sh"; destination "/x"; mode "0700"; owner "me" }
    check "up" { tcp 80; exec "true" }
    ready { log "up"; timeout "1500ms" }
    share "." "/mnt" readonly
}
vm "two" {
    cloud-init { user-data "seed.yaml" }
    volume "data"
    disk 1
    network "none"
    depends-on "one" until="started"
    lifecycle { prevent-destroy; ignore-changes "memory"; replace-when "vcpus" "vm.one" }
    machine "q35"
    cpu "max"
    accel "tcg"
    qemu-arg "-device" "virtio-rng-pci"
    state "stopped"
}
vm "far" {
    image-url "https://example.org/x.qcow2"
    kernel "vmlinuz"
    cmdline "quiet"
    network "tap" bridge="br1"
}
vm "illumos" { backend "propolis" { bootrom "rom.fd"; api-version "1.0.0"; pool "rpool/vms"; vnic-link "igb0" }; network "vnic" name="vnic0"; cloud-init { ssh-key "key.pub" } }
vm "zoned" { backend "propolis" { bootrom "/rom.fd"; pool "rpool/vms"; zone "propolis" link="stub0" address="10.9.0.2/24" }; network "none" }
output "url" (template)"http://{{ vm.one-1.host }}:{{ vm.one-1.port.80 }}/" { description "the page" }
moved from="three" to="two"
removed "four"
"#;

/// Where every object in `value` is, but those inside a backend's own data, which is no promise.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            found.push(at.to_owned());
            for (key, entry) in entries.iter().filter(|(key, _)| *key != "handle") {
                objects(entry, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                objects(item, &format!("{at}/{place}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn field_that_no_schema_knows_is_refused_wherever_it_stands() {
    let world = changed();
    let mut documents = vec![
        ("plan", world.vmctl(&["plan", "--json"]).expect(0).json()),
        ("doctor", world.vmctl(&["doctor", "--json"]).expect(0).json()),
        ("state", world.vmctl(&["show", "--json"]).expect(0).json()),
        ("list", world.vmctl(&["list", "--json"]).expect(0).json()),
        ("status", world.vmctl(&["status", "seeded", "--json"]).expect(0).json()),
        ("validate", world.vmctl(&["validate", "--json"]).expect(0).json()),
    ];
    documents.extend(apply(&world, &[], 0).into_iter().skip(1).map(|event| ("event", event)));
    for (schema, document) in documents {
        promised(schema, &document);
        let mut places = Vec::new();
        objects(&document, "", &mut places);
        for place in places {
            let mut with_more = document.clone();
            with_more.pointer_mut(&place).expect("an object")["unheard-of"] = json!(1);
            assert!(!SCHEMAS[schema].validator.is_valid(&with_more), "{schema} takes anything at `{place}`");
        }
    }
}

/// The fields that a schema describes, at any depth, by where they are.
fn fields(schema: &Value, at: &str, found: &mut BTreeMap<String, Value>) {
    let Value::Object(parts) = schema else {
        if let Value::Array(items) = schema {
            items.iter().enumerate().for_each(|(place, item)| fields(item, &format!("{at}/{place}"), found));
        }
        return;
    };
    for (key, part) in parts {
        match (key.as_str(), part) {
            // Conditions say of fields what others say already.
            ("if" | "then" | "else", _) => {}
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    found.insert(format!("{at}/{name}"), property.clone());
                    fields(property, &format!("{at}/{name}"), found);
                }
            }
            _ => fields(part, &format!("{at}/{key}"), found),
        }
    }
}

#[test]
fn every_field_is_described_and_every_schema_is_numbered() {
    let names: Vec<_> = SCHEMAS.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "doctor", "error", "event", "events", "history", "image", "list", "output", "plan", "rebuild",
            "record", "resolved", "state", "status", "validate"
        ]
    );
    for (name, schema) in SCHEMAS.iter() {
        assert_eq!(schema.text["$id"], format!("{name}-v1.json"));
        assert!(schema.text["title"].as_str().is_some_and(|title| title.ends_with(", format 1")), "{name}");
        let mut found = BTreeMap::new();
        fields(&schema.text, "", &mut found);
        assert!(!found.is_empty(), "{name} describes nothing");
        let silent: Vec<_> = found
            .iter()
            .filter(|(_, field)| field.get("const").is_none_or(|tag| !tag.is_string()))
            .filter(|(_, field)| field["description"].as_str().is_none_or(str::is_empty))
            .collect();
        assert!(silent.is_empty(), "{name} does not say what these mean: {silent:#?}");
    }
}

/// Values of fields and what is recorded of a machine: the page leaves them to the schemas.
const LEFT_TO_SCHEMAS: [&str; 6] = [
    "/$defs/network/",
    "/$defs/ssh/",
    "/$defs/lifecycle/",
    "/$defs/spec/",
    "/$defs/forward/",
    "/$defs/probe/",
];

#[test]
fn page_names_every_field_and_links_every_schema() {
    let page = fs::read_to_string(repository().join("docs/json.md")).expect("the page");
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let named: BTreeSet<_> = page.split(|c| !is_part(c)).collect();
    for (name, schema) in SCHEMAS.iter() {
        assert!(page.contains(&format!("(schemas/{name}-v1.json)")), "{name} is not linked");
        let mut found = BTreeMap::new();
        fields(&schema.text, "", &mut found);
        let missing: Vec<_> = found
            .keys()
            .filter(|at| !LEFT_TO_SCHEMAS.iter().any(|left| at.starts_with(left)))
            .filter(|at| !named.contains(at.rsplit('/').next().unwrap_or_default()))
            .collect();
        assert!(missing.is_empty(), "the page does not name these of {name}: {missing:#?}");
    }
}

#[test]
fn failures_are_documents_where_json_was_asked_for() {
    let world = World::new(0);
    world.blank_image();
    let failed = |world: &World, arguments: &[&str], code: i32| {
        let run = world.vmctl(arguments).expect(code);
        assert!(run.stderr.contains("error: "), "people are told as well: {}", run.text());
        let document = run.json();
        promised("error", &document);
        assert_eq!(document["error"]["exit_code"], code);
        document["error"].clone()
    };
    let error = failed(&world, &["plan", "--json"], 1);
    assert!(error["message"].as_str().is_some_and(|text| text.starts_with("no VMFile.kdl in")), "{error:#}");
    assert!(error["help"].as_str().is_some_and(|text| text.contains("--file")), "{error:#}");
    failed(&world, &["status", "nobody", "--json"], 1);
    world.vmfile("vm \"web\" { image \"blank.qcow2\"; backend \"noop\"; memmory 1 }\n");
    let error = failed(&world, &["apply", "--yes", "--json"], 1);
    assert_eq!(
        (&error["problems"][0]["line"], &error["problems"][0]["severity"]),
        (&json!(1), &json!("error"))
    );
    vmfile(&world, &[("web", "")]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    let error = failed(&world, &["status", "wob", "--json"], 1);
    assert!(error["help"].as_str().is_some_and(|text| text.contains("`web`")), "{error:#}");

    // What was printed is all that is printed, and nobody is told who did not ask.
    let refused = world.vmctl(&["apply", "--json", "--replace", "web"]).expect(1);
    assert_eq!(
        events(&refused).iter().map(|event| &event["event"]).collect::<Vec<_>>(),
        ["plan"],
        "{}",
        refused.text()
    );
    assert_eq!(world.vmctl(&["status", "wob"]).expect(1).stdout, "");
    assert_eq!(world.vmctl(&["validate", "--format", "json"]).expect(0).json()["valid"], true);
}
