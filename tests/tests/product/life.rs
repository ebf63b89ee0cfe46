//! Machines through their lives: made, changed, broken, repaired, removed.

use vmctl_tests::{World, leaks, process};

const DB: &str = r#"
vm "db" {
    image "TINY"
    memory 192
    ssh { user "vm" }
    provision "shell" { inline "echo canary | sudo tee /srv/canary; sync" }
}
"#;

fn web(memory: u32, greeting: &str) -> String {
    format!(
        r#"
vm "web" {{
    image "TINY"
    memory {memory}
    depends-on "db"
    ssh {{ user "vm" }}
    provision "file" {{ source "greeting.txt"; destination "/home/vm/greeting.txt" }}
    provision "shell" {{ inline "echo {greeting}; echo {greeting} >> ran; sync" }}
}}
"#
    )
}

const CACHE: &str = r#"
vm "cache" {
    image "TINY"
    memory 192
    ssh { user "vm" }
}
"#;

/// The decisions that do something, as `address action`.
fn decisions(world: &World) -> Vec<String> {
    let all = world.decisions().into_iter();
    all.filter(|(_, action)| action != "no-op")
        .map(|(address, action)| format!("{address} {action}"))
        .collect()
}

/// Applies, and checks that nothing is left to do, and nothing left behind.
fn apply(world: &World) {
    world.vmctl(&["apply", "--yes"]).expect(0);
    leaks::leakcheck(world);
}

#[test]
fn two_machines_live_through_edits_and_leave_nothing() {
    let world = World::new(3);
    world.write("greeting.txt", "hello\n");
    world.vmfile(&format!("{DB}{}", web(192, "one")));

    // Made.
    assert_eq!(decisions(&world), ["vm.db create", "vm.web create"]);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2).says("Plan: 2 to create");
    apply(&world);
    assert_eq!(world.exec("web", "cat greeting.txt ran; hostname"), "hello\none\nweb\n");
    world.vmctl(&["exec", "web", "--", "sh", "-c", "exit 7"]).expect(7);
    let sent = world.vmctl_with_input(&["exec", "db", "--", "cat"], "through\n").expect(0);
    assert_eq!(sent.stdout, "through\n");
    world.vmctl(&["ssh", "web", "--", "id -un"]).expect(0).says("vm");
    world.vmctl(&["log", "web", "--console"]).expect(0).says("TINY-GUEST READY hostname=web");
    world.vmctl(&["log", "web", "--provision"]).expect(0).says("one");
    world.vmctl(&["status", "web"]).expect(0).says("running");

    // More memory: that machine is restarted, on its disk; the other is left alone.
    let (db, web_before) = (world.pid("db"), world.pid("web"));
    let memory = |world: &World| -> u32 {
        world.exec("web", "awk '/MemTotal/ { print $2 }' /proc/meminfo").trim().parse().unwrap()
    };
    let memory_before = memory(&world);
    world.vmfile(&format!("{DB}{}", web(224, "one")));
    assert_eq!(decisions(&world), ["vm.web restart"]);
    apply(&world);
    assert_eq!(world.pid("db"), db);
    assert_ne!(world.pid("web"), web_before);
    let more = memory(&world) - memory_before;
    assert!((28 * 1024..=32 * 1024).contains(&more), "32 MiB more show as {more} KiB");
    assert_eq!(world.exec("web", "cat ran"), "one\n", "steps that did not change do not run again");

    // Another script: provisioned again from there on, on the running machine.
    let web_before = world.pid("web");
    world.vmfile(&format!("{DB}{}", web(224, "two")));
    assert_eq!(decisions(&world), ["vm.web provision"]);
    apply(&world);
    assert_eq!((world.pid("db"), world.pid("web")), (db, web_before));
    assert_eq!(world.exec("web", "cat ran"), "one\ntwo\n");

    // Another content of a file: the step that copies it, and those after it.
    world.write("greeting.txt", "hello again\n");
    assert_eq!(decisions(&world), ["vm.web provision"]);
    apply(&world);
    assert_eq!(world.exec("web", "cat greeting.txt ran"), "hello again\none\ntwo\ntwo\n");

    // One more, then one less.
    world.vmfile(&format!("{DB}{}{CACHE}", web(224, "two")));
    assert_eq!(decisions(&world), ["vm.cache create"]);
    apply(&world);
    assert_eq!((world.pid("db"), world.pid("web")), (db, web_before));
    let cache = world.pid("cache");
    world.vmfile(&format!("{DB}{}", web(224, "two")));
    assert_eq!(decisions(&world), ["vm.cache destroy"]);
    apply(&world);
    assert!(process::arguments(cache).is_none(), "the removed machine still runs");
    assert_eq!((world.pid("db"), world.pid("web")), (db, web_before));

    // Broken behind vmctl's back: seen, repaired, nothing lost.
    process::kill(db);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(2);
    let plan = world.vmctl(&["plan", "--json"]).expect(0).json();
    let drifted = &plan["changes"][0];
    assert_eq!((&drifted["address"], &drifted["action"]), (&"vm.db".into(), &"start".into()));
    assert!(!drifted["drift"].as_array().unwrap().is_empty(), "a dead machine is drift: {drifted:#}");
    apply(&world);
    assert_ne!(world.pid("db"), db);
    assert_eq!(world.pid("web"), web_before);
    assert_eq!(world.exec("db", "cat /srv/canary"), "canary\n");

    // Removed.
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
    assert!(world.states().is_empty());
    world.vmctl(&["plan", "--destroy", "--detailed-exitcode"]).expect(0).says("No changes");
}

#[test]
fn power_state_is_what_the_file_asks_for() {
    let world = World::new(1);
    let vmfile = |state: &str| {
        world.vmfile(&format!(
            "vm \"one\" {{ image \"TINY\"; memory 192; ssh {{ user \"vm\" }}; state \"{state}\" }}"
        ));
    };
    for (state, action) in
        [("suspended", "create"), ("running", "resume"), ("stopped", "stop"), ("running", "start")]
    {
        vmfile(state);
        assert_eq!(decisions(&world), [format!("vm.one {action}")]);
        apply(&world);
        assert_eq!(world.vm("one")["state"], state);
    }
    let held = leaks::held(&world);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    leaks::check(&world, &held);
}
