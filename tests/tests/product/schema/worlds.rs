//! Worlds of fake machines that between them show everything that can be printed.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use vmctl_tests::World;

use super::promised::read_json;

/// Changes the fake machine `name` behind vmctl's back.
fn edit(world: &World, name: &str, change: impl FnOnce(&mut Value)) {
    let path = machine(world, name);
    let mut found = read_json(&path);
    change(&mut found);
    fs::write(path, found.to_string()).expect("the machine");
}

fn machine(world: &World, name: &str) -> PathBuf {
    world.data().join("projects/shop/vms").join(name).join("machine.json")
}

/// Tells the fake world what fails and what takes time.
pub(super) fn script(world: &World, rules: &Value) {
    let folder = world.data().join("projects/shop/noop");
    fs::create_dir_all(&folder).expect("the world's folder");
    fs::write(folder.join("script.json"), rules.to_string()).expect("the script");
}

/// Says what the fake host has.
pub(crate) fn furnish(world: &World, host: &Value) {
    let folder = world.data().join("projects/shop/noop");
    fs::create_dir_all(&folder).expect("the fake host's folder");
    fs::write(folder.join("host.json"), host.to_string()).expect("the fake host");
}

/// One fake machine of a VMFile.
fn vm(name: &str, rest: &str) -> String {
    format!("vm \"{name}\" {{ image \"blank.qcow2\"; backend \"noop\"; {rest} }}\n")
}

pub(super) fn vmfile(world: &World, machines: &[(&str, &str)]) {
    vmfile_and(world, machines, "");
}

/// As [`vmfile`], with more text behind the machines.
pub(super) fn vmfile_and(world: &World, machines: &[(&str, &str)], more: &str) {
    world.vmfile(&(machines.iter().map(|(name, rest)| vm(name, rest)).collect::<String>() + more));
}

/// A machine with every field that can be planned and not applied yet.
const PLANNED_ONLY: &str = "\
network \"lan\" { subnet \"10.77.0.0/24\" }
volume \"data\" size=\"1.5G\"
vm \"planned\" {
    arch \"aarch64\"; kernel \"setup.sh\"; initrd \"setup.sh\"; cmdline \"quiet\"; machine \"q35\"; cpu \"max\"; vnc \"tcp\" port=5999; accel \"tcg\"; qemu-arg \"-S\"
    disk \"1.5G\"; volume \"data\"; share \".\" \"/mnt\" readonly; media \"setup.sh\"
    network \"private\" name=\"lan\" address=\"10.77.0.2\"; network \"private\" name=\"wan\"; network \"tap\"
}
network \"wan\"
vm \"fetched\" { image-url \"https://example.org/a.qcow2\"; firmware \"uefi\"; network \"user\" isolated; network \"private\" name=\"wan\" }
";

/// The machines of [`BEFORE`], and some that can be planned only.
pub(super) fn everything(world: &World) {
    let machines = BEFORE.iter().map(|(name, rest)| vm(name, rest)).collect::<String>();
    world.vmfile(&format!("{machines}{PLANNED_ONLY}"));
}

/// A machine whose seed makes users.
const SEEDED: &str = "cloud-init { hostname \"box\"; user \"ops\" { ssh-key \"key.pub\"; groups \"adm\"; shell \"/bin/sh\" }; \
    user \"app\" { sudo #true }; user \"guest\" { sudo #false }; packages \"git\"; run \"true\"; \
    write-file \"/etc/motd\" { content \"x\" } }; ssh; provision \"shell\" { script \"setup.sh\" }";

/// Machines that between them have every field that a machine can have.
pub(super) const BEFORE: [(&str, &str); 12] = [
    ("same", "memory 256; vcpus 2; disk 1; network \"none\""),
    ("edited", "forward host=0 guest=80; depends-on \"same\" until=\"started\""),
    ("grown", "ready { log \"up\"; timeout \"90s\" }"),
    ("remade", "cloud-init { user-data \"seed.yaml\"; ssh-key \"key.pub\" }; ssh { user \"me\" }"),
    ("seeded", SEEDED),
    ("off", "state \"stopped\""),
    ("on", ""),
    ("awake", ""),
    ("asleep", "state \"suspended\""),
    ("gone", "check \"lives\" { log \"up\" }"),
    ("old", "lifecycle { prevent-destroy; ignore-changes \"memory\"; replace-when \"vcpus\" \"vm.same\" }"),
    ("moving", "labels { role \"web\"; tier 2 }"),
];

/// The same machines after an edit that calls for every action; those that are not here are destroyed.
const AFTER: [(&str, &str); 11] = [
    ("same", "memory 256; vcpus 2; disk 1; network \"none\""),
    ("edited", "forward host=0 guest=81 protocol=\"udp\"; check \"x\" { log \"x\" }"),
    ("grown", "vcpus 2; memory 64; disk 1; network \"none\"; ready { log \"up\"; timeout \"2m\" }"),
    ("remade", "cloud-init { user-data \"seed.yaml\"; ssh-key \"key.pub\" }; ssh { user \"me\" }"),
    ("seeded", SEEDED),
    ("off", ""),
    ("on", "state \"stopped\""),
    ("awake", "state \"suspended\""),
    ("asleep", ""),
    ("new", "ssh { user \"me\" }; forward host=0 guest=80"),
    ("moved", "lifecycle { ignore-changes \"memory\" }"),
];

pub(super) fn world() -> World {
    let world = World::new(0);
    world.blank_image();
    world.write("setup.sh", "echo one\n");
    world.write("seed.yaml", "#cloud-config\npassword: one\n");
    world.write("key.pub", &format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} me\n", "A".repeat(43)));
    world
}

/// A world in which [`BEFORE`] was applied, and whose VMFile and files say [`AFTER`].
pub(super) fn changed() -> World {
    let world = world();
    vmfile(&world, &BEFORE);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.write("setup.sh", "echo two\n");
    world.write("seed.yaml", "#cloud-config\npassword: two\n");
    let machines: String = AFTER.iter().map(|(name, rest)| vm(name, rest)).collect();
    world.vmfile(&format!("moved from=\"moving\" to=\"moved\"\nremoved \"old\"\n{machines}"));
    world
}

/// A volume that one of the machines has.
const VOLUME: &str = "volume \"data\" size=\"1G\"\n";

/// One fake machine for each kind of drift that it can have, named after it, and one for all that files can have.
pub(super) fn drifted() -> World {
    let world = world();
    let kinds = [
        "powered-off",
        "not-running",
        "paused",
        "failed",
        "disk-full",
        "disk-failed",
        "gone",
        "vcpus",
        "memory",
        "unreachable",
    ];
    let forwards = ["forward-missing", "forward-extra"].map(|name| (name, "forward host=0 guest=80"));
    let others = [
        ("resumed", "state \"suspended\""),
        ("started", "state \"stopped\""),
        ("files", ""),
        ("foreign", ""),
        ("idle", "state \"stopped\""),
        ("robbed", "volume \"data\""),
        ("checked", "check \"first\" { log \"x\" }; check \"second\" { log \"x\" }"),
    ];
    let machines: Vec<_> = kinds.map(|name| (name, "")).into_iter().chain(forwards).chain(others).collect();
    vmfile_and(&world, &machines, VOLUME);
    world.vmctl(&["apply", "--yes"]).expect(0);
    fs::remove_file(world.data().join("projects/shop/volumes/data/disk.qcow2")).expect("a volume");

    for (name, state) in [
        ("powered-off", "stopped"),
        ("not-running", "prepared"),
        ("paused", "suspended"),
        ("failed", "failed"),
        ("disk-full", "failed"),
        ("disk-failed", "failed"),
        ("resumed", "running"),
        ("started", "running"),
    ] {
        edit(&world, name, |machine| machine["state"] = json!(state));
    }
    edit(&world, "disk-full", |machine| {
        machine["stall"] = json!({ "kind": "disk-full", "path": "/x", "free_bytes": 4096 });
    });
    edit(&world, "disk-failed", |machine| machine["stall"] = json!({ "kind": "disk-failed", "path": "/x" }));
    edit(&world, "vcpus", |machine| machine["machine"]["vcpus"] = json!(3));
    edit(&world, "memory", |machine| machine["machine"]["memory_mib"] = json!(77));
    edit(&world, "forward-missing", |machine| machine["machine"]["nics"][0]["forwards"] = json!([]));
    edit(&world, "forward-extra", |machine| {
        machine["machine"]["nics"][0]["forwards"][0]["guest_port"] = json!(81);
    });
    let damage = ["disk-missing", "seed-missing", "firmware-missing", "folder-missing"]
        .map(|kind| json!({ "kind": kind, "path": "/x" }));
    edit(&world, "files", |machine| machine["damage"] = json!(damage));
    edit(&world, "foreign", |machine| {
        machine["damage"] = json!([
            { "kind": "base-changed", "path": "/x", "what": "its size" },
            { "kind": "off-bridge", "tap": "vt0", "bridge": "br0", "found": "on no bridge" },
            { "kind": "folder-foreign", "path": "/x", "found": "nobody" },
        ]);
    });
    let lost = machine(&world, "lost");
    fs::create_dir(lost.parent().expect("a folder")).expect("the folder of a machine that nobody knows");
    let id = "00000000-0000-4000-8000-000000000001";
    let known = fs::read_to_string(machine(&world, "gone")).expect("a machine");
    let known = known.replace(world.vm("gone")["id"].as_str().expect("an id"), id);
    fs::write(lost, known.replace("\"gone\"", "\"lost\"")).expect("a machine that nobody knows");
    fs::remove_file(machine(&world, "gone")).expect("the machine");
    script(
        &world,
        &json!([
            { "op": "inspect", "vm": "unreachable", "fail": "no answer" },
            { "op": "probe", "vm": "checked", "fail": "silence", "times": 1 },
        ]),
    );
    let edited: String = machines
        .iter()
        .map(|(name, rest)| match *name {
            "unreachable" | "foreign" => vm(name, "memory 99"),
            _ => vm(name, rest),
        })
        .collect();
    world.vmfile(&(edited + &vm("waits", "depends-on \"unreachable\"") + VOLUME));
    world
}
