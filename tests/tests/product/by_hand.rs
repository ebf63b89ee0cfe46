//! Machines without a VMFile of the user's: `create`, `import`, and what becomes of the VMFile that their project has of
//! its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use vmctl_tests::World;
use vmctl_tests::leaks::{self, Goal};

const CREATE: [&str; 5] = ["create", "--image", "blank.qcow2", "--backend", "noop"];

fn create(more: &[&str]) -> Vec<String> {
    CREATE.iter().chain(more).map(ToString::to_string).collect()
}

fn run(world: &World, more: &[&str]) -> vmctl_tests::Ended {
    let arguments = create(more);
    world.vmctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn own(world: &World) -> PathBuf {
    world.data().join("projects/default/VMFile.kdl")
}

fn described(world: &World) -> String {
    fs::read_to_string(own(world)).unwrap_or_default()
}

#[test]
fn machine_is_made_turned_and_removed_and_nothing_ever_looks_like_drift() {
    let mut world = World::new(0);
    world.blank_image();
    let settled = |world: &World, what: &str| {
        let plan = world.vmctl(&["plan", "--detailed-exitcode"]);
        assert_eq!(plan.code(), 0, "after {what}: {}", plan.text());
        assert!(world.drift().is_empty(), "after {what}");
    };
    world.vmctl(&["plan"]).expect(1).says("--file PATH").says("vmctl create NAME --image PATH");
    run(&world, &["--name", "demo", "--memory", "256", "--forward", "8080:80"])
        .expect(0)
        .says("vmctl start demo");
    assert_eq!(fs::metadata(own(&world)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(world.states()["demo"], "prepared");
    settled(&world, "create");
    for (words, state) in [
        (&["start", "demo"][..], "running"),
        (&["suspend", "demo"], "suspended"),
        (&["resume", "default/demo"], "running"),
        (&["stop", "vm.demo", "--timeout", "5"], "stopped"),
        (&["start", "demo"], "running"),
    ] {
        world.vmctl(words).expect(0);
        assert_eq!(world.states()["demo"], state);
        assert!(described(&world).contains(&format!("state \"{state}\"")), "{}", described(&world));
        settled(&world, words[0]);
    }
    // What goes down for a while comes up again, as with every VMFile.
    run(&world, &["off"]).expect(0);
    world.vmctl(&["down"]).expect(0);
    assert_eq!(world.decisions()["vm.demo"], "start");
    world.vmctl(&["up"]).expect(0);
    assert_eq!(world.states()["demo"], "running");
    assert_eq!(world.states()["off"], "prepared");
    settled(&world, "up");

    run(&world, &["demo"]).expect(1).says("has a machine `demo` already");
    world.vmctl(&["taint", "demo"]).expect(0);
    world.vmctl(&["up", "--yes"]).expect(0);
    world.vmctl(&["reload", "--name", "demo"]).expect(0);
    settled(&world, "reload");
    world.vmctl(&["state", "mv", "off", "spare"]).expect(0).says("Its block is called so as well");
    settled(&world, "state mv");
    world.vmctl(&["destroy", "spare"]).expect(0);
    assert!(!described(&world).contains("spare") && described(&world).contains("demo"));
    settled(&world, "destroy");
    leaks::leakcheck(&world);
    world.vmctl(&["down", "--destroy"]).expect(0);
    assert!(!own(&world).exists());
    world.set("VMCTL_PROJECT", "default");
    assert_eq!(leaks::leaks(&world, Goal::Destroyed), Vec::<String>::new());
}

#[test]
fn what_is_refused_leaves_no_block_behind() {
    let world = World::new(0);
    world.blank_image();
    world.write("key.pub", "no key at all\n");
    for (more, code, says) in [
        (&["a", "--bridge", "a,ifname=x"][..], 1, "is not the name of a network interface"),
        (&["a", "--ssh-key", "key.pub"], 1, "this key cannot be used"),
        (&["a", "--ssh-key", "missing.pub"], 1, "there is no public key"),
        (&["a", "--sha256", &"0".repeat(64)], 1, "sha256"),
        (&["a", "--disk", "1M"], 1, "disk"),
        (&["..", "--start"], 64, "a name begins and ends with a letter or digit"),
        (&["/abs"], 64, "a name cannot contain"),
        (&[""], 64, "a name cannot be empty"),
        (&["a", "--name", "b"], 64, "cannot be used with"),
        (&[], 64, "--name"),
        (&["a", "--image-url", "https://example.org/x"], 64, "cannot be used with"),
        (&["a", "--ssh-key", "k", "--cloud-init", "c"], 64, "cannot be used with"),
        (&["a", "--vcpus", "0"], 64, "not in 1..=255"),
        (&["a", "--vcpus", "-1"], 64, "-1"),
        (&["a", "--vcpus", "70000"], 64, "70000"),
        (&["a", "--memory", "0"], 64, "a size is a number of MB"),
        (&["a", "--memory", "four"], 64, "a size is a number of MB"),
        (&["a", "--forward", "80:http"], 64, "write the host's port"),
        (&["a", "--file", "VMFile.kdl"], 64, "leave --file out"),
    ] {
        run(&world, more).expect(code).says(says);
        assert!(!own(&world).exists(), "{more:?} left {}", described(&world));
    }
    world.vmctl(&["create", "a", "--image", "missing.qcow2"]).expect(1).says("there is no image");
    world.vmctl(&["create", "a", "--image", "."]).expect(1).says("is a folder");
    // A host that has too little room refuses before anything is begun.
    let large = ["create", "a", "--image", "blank.qcow2", "--memory", "8T", "--start"];
    world.vmctl(&large).expect(1).says("too little room");
    assert!(!own(&world).exists());
    world.vmctl(&["stop", "a"]).expect(1);
    run(&world, &["b"]).expect(0);
    run(&world, &["a", "--bridge", "a,b"]).expect(1);
    assert!(described(&world).contains("vm \"b\"") && !described(&world).contains("vm \"a\""));
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
}

#[test]
fn machines_made_at_the_same_time_are_all_there() {
    let world = World::new(0);
    world.blank_image();
    let names: Vec<_> = (0..6).map(|number| format!("vm{number}")).collect();
    let runs: Vec<_> = names
        .iter()
        .map(|name| {
            let arguments = create(&[name, "--lock-timeout", "2m"]);
            world.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    for run in runs {
        run.end().expect(0);
    }
    assert_eq!(world.states().into_keys().collect::<Vec<_>>(), names);
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert!(!own(&world).exists());
}

#[test]
fn inside_a_folder_with_a_vmfile_its_project_is_meant() {
    let world = World::new(0);
    world.blank_image();
    world.vmfile("vm \"web\" { image \"blank.qcow2\"; backend \"noop\" }");
    run(&world, &["demo", "--start"]).expect(0).says("vmctl ssh default/demo");
    for verb in ["status", "start", "stop", "destroy", "provision"] {
        // The folder's project was never applied.
        world.vmctl(&[verb, "demo"]).expect(1).says("write `default/demo`");
    }
    world.vmctl(&["up"]).expect(0);
    assert_eq!(world.states().into_keys().collect::<Vec<_>>(), ["web"]);
    for words in [
        &["status", "demo"][..],
        &["start", "demo"],
        &["stop", "demo"],
        &["suspend", "demo"],
        &["destroy", "demo"],
        &["up", "demo"],
        &["reload", "demo"],
        &["provision", "demo"],
        &["down", "--name", "demo"],
        &["taint", "demo"],
        &["wait", "demo"],
        &["log", "demo"],
        &["console", "demo"],
        &["exec", "demo", "--", "true"],
        &["ssh", "demo"],
        &["ssh-config", "demo"],
        &["import", "demo"],
        &["state", "show", "demo"],
        &["state", "rm", "demo"],
    ] {
        world.vmctl(words).expect(1).says("write `default/demo`");
    }
    for words in [
        &["status", "default/demo"][..],
        &["stop", "default/demo"],
        &["up", "default/demo"],
        &["wait", "default/demo", "--for", "stopped"],
        &["start", "default/demo"],
        &["taint", "default/demo"],
        &["untaint", "default/demo"],
        &["up", "--name", "default/demo"],
        &["plan", "--project", "default", "--detailed-exitcode"],
        &["state", "show", "default/demo"],
        &["import", "default/demo"],
        &["down", "default/demo"],
        &["reload", "default/demo"],
        &["provision", "default/demo"],
    ] {
        world.vmctl(words).expect(0);
    }
    world.vmctl(&["stop", "web", "default/demo"]).expect(64).says("one command works on one project");
    world.vmctl(&["up", "blog/web"]).expect(1).says("the VMFile of project `blog` is not here");
    world.vmctl(&["stop", "shop/web"]).expect(0);
    world.vmctl(&["up", "shop/web"]).expect(0);
    // A VMFile of the user's does not get the machines of `create`, nor the other way round.
    world.write("VMFile.kdl", "project \"default\"\nvm \"web\" { image \"blank.qcow2\"; backend \"noop\" }");
    world.vmctl(&["apply", "--yes"]).expect(1).says("made by `vmctl create`");
    world.vmfile("vm \"web\" { image \"blank.qcow2\"; backend \"noop\" }");
    run(&world, &["more", "--project", "shop"]).expect(1).says("vmctl writes into no VMFile of yours");
    world.vmctl(&["down", "--destroy"]).expect(0);
    world.vmctl(&["status", "default/demo"]).expect(0).says("running");
    world.vmctl(&["destroy", "default/demo"]).expect(0);
    assert!(!own(&world).exists());
}

#[test]
fn machine_becomes_a_block_of_a_vmfile() {
    let world = World::new(0);
    world.blank_image();
    run(&world, &["demo", "--memory", "256", "--vcpus", "2", "--disk", "1", "--forward", "5353:53/udp"])
        .expect(0);
    let block = world.vmctl(&["import", "demo"]).expect(0).says("the disk is not taken along").stdout;
    let image = world.project().join("blank.qcow2");
    assert_eq!(
        block,
        format!(
            "vm \"demo\" {{\n    backend \"noop\"\n    image \"{}\"\n    vcpus 2\n    memory \"256M\"\n    disk \"1G\"\n    \
             forward host=5353 guest=53 protocol=\"udp\" address=\"127.0.0.1\"\n    ssh\n    state \"stopped\"\n}}\n",
            image.display()
        )
    );
    world.write("other/VMFile.kdl", &block);
    world.vmctl(&["fmt", "--check", "other/VMFile.kdl"]).expect(0);
    let plan = |arguments: &[&str]| {
        let plan = world.vmctl(&[arguments, &["plan", "--json"]].concat()).expect(0).json();
        plan["changes"][0].clone()
    };
    let fields = |change: &serde_json::Value| {
        let fields = change["fields"].as_array().unwrap().iter();
        fields.map(|field| (field["field"].clone(), field["after"].clone())).collect::<Vec<_>>()
    };
    let again = plan(&["--file", "other/VMFile.kdl"]);
    assert_eq!(again["action"], "create");
    let mut fresh = World::new(0);
    fresh.set("VMCTL_DATA_DIR", world.folder().join("fresh"));
    let made: serde_json::Value = {
        let path = own(&world).display().to_string();
        let plan = fresh.vmctl(&["--file", &path, "plan", "--json"]).expect(0).json();
        plan["changes"][0].clone()
    };
    assert_eq!(fields(&again), fields(&made), "it asks for the same machine");

    // The project itself passes into a VMFile of the user's, machines and all.
    world.write("mine/VMFile.kdl", &format!("project \"default\"\n\n{block}"));
    fs::remove_file(own(&world)).unwrap();
    world.vmctl(&["--file", "mine/VMFile.kdl", "plan", "--detailed-exitcode"]).expect(0);
    world.vmctl(&["--file", "mine/VMFile.kdl", "down", "--destroy"]).expect(0);
}

#[test]
fn block_says_what_another_project_cannot_have() {
    let mut world = World::new(0);
    world.set("VMCTL_VAR_word", "hush-4711");
    world.blank_image();
    world.write("setup.sh", "true\n");
    world.vmfile(
        "network \"lan\"\nvolume \"data\" size=\"1G\"\nvariable \"word\" { sensitive #true }
defaults { backend \"noop\"; image \"blank.qcow2\" }
vm \"db\"
vm \"web\" { depends-on \"db\"; network \"user\"; network \"private\" name=\"lan\"; volume \"data\"; ssh; \
         provision { script \"setup.sh\" }; provision { inline (template)\"echo {{ var.word }}\" } }",
    );
    world.vmctl(&["plan"]).expect(0);
    let block = world.vmctl(&["import", "web"]).expect(0).stdout;
    for said in [
        "// volume \"data\"",
        "// network \"private\" name=\"lan\"",
        "// depends-on \"db\"",
        "// Sensitive values",
    ] {
        assert!(block.contains(said), "{said} in {block}");
    }
    assert!(block.contains("setup.sh") && !block.contains("hush-4711"), "{block}");
    world.write("other/VMFile.kdl", &block);
    world.vmctl(&["--file", "other/VMFile.kdl", "validate"]).expect(0);

    // Without its VMFile there is still the record.
    world.vmfile("vm \"web\" { backend \"noop\"; image \"blank.qcow2\"; ssh; provision { inline \"x\" } }");
    world.vmctl(&["up"]).expect(0);
    fs::remove_file(world.project().join("VMFile.kdl")).unwrap();
    let block = world.vmctl(&["import", "shop/web"]).expect(0).stdout;
    assert!(block.contains("// provision: 1 steps ran") && block.contains("blank.qcow2"), "{block}");
    world.write("other/VMFile.kdl", &block);
    world.vmctl(&["--file", "other/VMFile.kdl", "validate"]).expect(0);
    world.vmctl(&["import", "shop/nobody"]).expect(1).says("no VM is called `nobody`").says("web");
    world.vmctl(&["apply", "--destroy", "--yes", "--project", "shop"]).expect(0);
}

/// Between the block and the record, and between what was agreed to and what was done.
#[test]
fn command_that_is_killed_anywhere_is_gone_on_with_by_the_next_one() {
    let commands: [&[&str]; 4] = [&["create"], &["start", "demo"], &["stop", "demo"], &["destroy", "demo"]];
    for (point, faults) in [
        ("state.own.written@1", &["kill", "enospc", "panic"][..]),
        ("state.commit.begun@2", &["kill", "enospc"]),
        ("state.close.published@1", &["kill", "enospc"]),
    ] {
        for fault in faults {
            let mut world = World::with_failpoints(0);
            world.blank_image();
            for command in commands {
                let arguments = if command == ["create"] {
                    create(&["demo"])
                } else {
                    command.iter().map(ToString::to_string).collect()
                };
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                world.arm(&format!("{point}={fault}"));
                let ended = world.vmctl(&arguments);
                world.unset("VMCTL_FAILPOINT");
                let what = format!("{} {point}={fault}: {}\n{}", command[0], ended.status, ended.text());
                let was_killed = ended.status.signal() == Some(9);
                assert!(*fault != "kill" || was_killed || !what.contains("own.written"), "not met: {what}");
                // The next command goes on, or begins again.
                let again = world.vmctl(&arguments);
                let is_done = again.code() == 0
                    || (command == ["create"] && again.text().contains("already"))
                    || (command[0] == "destroy" && !own(&world).exists());
                assert!(is_done, "{}\nafter {what}", again.text());
                if command[0] == "destroy" {
                    // What was begun is finished by whoever looks next.
                    world.vmctl(&["apply", "--destroy", "--yes", "--project", "default"]).expect(0);
                    assert!(!own(&world).exists(), "{}\nafter {what}", described(&world));
                    assert!(world.states().is_empty(), "after {what}");
                } else {
                    world.vmctl(&["apply", "--yes"]).expect(0);
                    let plan = world.vmctl(&["plan", "--detailed-exitcode"]);
                    assert_eq!(plan.code(), 0, "{}\nafter {what}", plan.text());
                }
            }
        }
    }
}

#[test]
fn apply_alone_goes_on_with_what_was_killed() {
    for (command, state) in [
        (&["create"][..], Some("prepared")),
        (&["start", "demo"], Some("running")),
        (&["destroy", "demo"], None),
    ] {
        let mut world = World::with_failpoints(0);
        world.blank_image();
        let arguments = create(&["demo"]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        if command != ["create"] {
            world.vmctl(&arguments).expect(0);
        }
        world.arm("state.own.written@1=kill");
        let ended = world.vmctl(if command == ["create"] { &arguments } else { command });
        assert_eq!(ended.status.signal(), Some(9), "{}", ended.text());
        world.unset("VMCTL_FAILPOINT");
        world.vmctl(&["apply", "--yes", "--project", "default"]).expect(if state.is_some() { 0 } else { 1 });
        if let Some(state) = state {
            assert_eq!(world.states()["demo"], state);
            world.vmctl(&["plan", "--detailed-exitcode"]).expect(0);
        } else {
            // Its last block is gone, and with it the VMFile: what is left is removed as in any project.
            world.vmctl(&["destroy", "default/demo"]).expect(0);
            assert!(world.states().is_empty());
        }
    }
}

#[test]
fn registry_of_the_ancestor_is_described_and_nothing_of_it_is_touched() {
    let world = World::new(0);
    world.blank_image();
    let old = world.folder().join("old/vms/demo");
    fs::create_dir_all(&old).unwrap();
    let overlay = old.join("overlay.qcow2");
    let base = world.project().join("blank.qcow2");
    let made = world
        .beside_vmctl("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .args([&base, &overlay])
        .status();
    assert!(made.is_ok_and(|status| status.success()), "qemu-img makes an overlay");
    let before = fs::read(&overlay).unwrap();
    let registry = |more: &str| {
        format!(
            r#"{{"demo": {{"id": "4f2a", "name": "demo", "backend": "qemu", "work_dir": "{}", "overlay_path": "{}",
                "seed_iso_path": null, "pid": {}, "qmp_socket": "/q", "console_socket": "/c", "vnc_addr": null, "vcpus": 2,
                "memory_mb": 512, "disk_gb": 2, "network": {{"type": "user"}}, "ssh_host_port": 10022,
                "mac_addr": "52:54:00:ab:cd:ef", "uefi": false}}{more}}}"#,
            old.display(),
            overlay.display(),
            std::process::id()
        )
    };
    world.write("vms.json", &registry(""));
    let import = || world.vmctl(&["state", "import", "--vms-json", "vms.json"]);
    import().expect(0).says("None was made and none was touched");
    let block = described(&world);
    for said in [
        "vcpus 2",
        "memory 512",
        "disk 2",
        &base.display().to_string(),
        "52:54:00:ab:cd:ef",
        "port 10022",
        "qemu-img convert",
    ] {
        assert!(block.contains(said), "{said} in {block}");
    }
    assert_eq!(
        world.vmctl(&["list", "--json"]).expect(0).json()["unmade"],
        serde_json::json!(["default/demo"])
    );
    world.vmctl(&["status", "demo"]).expect(1).says("was not made yet");
    assert_eq!(world.decisions()["vm.demo"], "create");
    world.vmctl(&["import", "demo"]).expect(0);
    import().expect(1).says("names already: demo");
    world.vmctl(&["destroy", "demo"]).expect(0).says("was never made");
    assert!(!own(&world).exists());

    // Machines of which nobody can tell the image are left out, and told.
    world.write("vms.json", &registry(r#", "lost": {"overlay_path": "/does/not/exist"}, "bare": {}"#));
    import()
        .expect(5)
        .says("`lost` is left out")
        .says("`bare` is left out: the registry names no disk of it");
    assert!(!described(&world).contains("lost"));
    world.vmctl(&["destroy", "demo"]).expect(0);

    for (text, says) in [
        ("{\"demo\": {\"vcpus\"", "line 1, column"),
        ("[]", "a list"),
        ("{\"\": {}, \"..\": {}, \"/abs\": {}}", "\"/abs\": cannot be a name"),
        ("{\"a\": {\"memory_mb\": -5, \"vcpus\": 1e9, \"network\": 7}}", "\"a\".memory_mb: `-5`"),
        ("{\"a\": {}, \"a\": {}}", "stands there twice"),
        ("{}", "no machine in it can be described"),
    ] {
        world.write("vms.json", text);
        import().expect(1).says(says).says("nothing was written");
        assert!(!own(&world).exists(), "{text}");
    }
    world.vmctl(&["state", "import"]).expect(64);
    world.vmctl(&["state", "import", "x", "--vms-json", "vms.json"]).expect(64);
    world.vmctl(&["state", "import", "--vms-json", "missing.json"]).expect(1).says("missing.json");
    assert_eq!(fs::read(&overlay).unwrap(), before);
}
