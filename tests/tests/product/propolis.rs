//! Machines of the backend `propolis`, whose server is a fake one that keeps the real one's rules.

use vmctl_tests::illumos::Illumos;
use vmctl_tests::propolis::{FakePropolis, Options};
use vmctl_tests::{PATIENCE, World, await_condition, process, surroundings};

/// The fake server as a program.
pub(super) const SERVER: &str = env!("CARGO_BIN_EXE_propolis-server");

/// A disk's bytes: the smallest thing that is one.
fn disk(world: &World) {
    let mut sector = vec![0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    std::fs::write(world.project().join("disk.img"), sector).unwrap();
}

fn vmfile(world: &World, backend: &str, rest: &str) {
    disk(world);
    world.vmfile(&format!(
        "vm \"web\" {{\n image \"disk.img\"\n disk \"1M\"\n memory 64\n network \"none\"\n backend \"propolis\" {{ {backend} }}\n \
         ready {{ log \"login:\" }}\n {rest}\n}}\n"
    ));
}

fn server() -> FakePropolis {
    FakePropolis::start(Options { greeting: b"kernel\r\nlogin: ".to_vec(), ..Options::default() })
}

/// Lets servers that vmctl starts look at requests by the official documents, where these are at hand.
pub(super) fn hand_on_documents(world: &mut World) {
    const DOCUMENTS: &str = "VMCTL_PROPOLIS_OPENAPI";
    if let Some(folder) = surroundings::inherited(DOCUMENTS) {
        world.set(DOCUMENTS, folder);
    }
}

/// A world whose machine has a server of its own.
fn own(rest: &str) -> World {
    let mut world = World::new(0);
    hand_on_documents(&mut world);
    std::fs::write(world.project().join("rom.fd"), vec![0; 8192]).unwrap();
    vmfile(&world, &format!("binary \"{SERVER}\"; bootrom \"rom.fd\"; api-version \"1.0.0\""), rest);
    world
}

/// No folder of a machine and no process.
pub(super) fn assert_nothing_left(world: &World) {
    let left: Vec<_> = world.data().join("projects/shop/vms").read_dir().unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let running = process::naming(world.folder());
    assert!(running.is_empty(), "{running:?}");
}

#[test]
fn machine_on_a_server_of_somebody_else_lives_and_goes() {
    let (world, server) = (World::new(0), server());
    vmfile(&world, &format!("server \"{}\"", server.address()), "cloud-init { hostname \"web\" }");
    world.vmctl(&["plan"]).expect(0).says("Plan: 1 to create");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(server.state().unwrap(), "Running");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    let seen = world.vm("web");
    assert_eq!((&seen["state"], &seen["backend"]), (&"running".into(), &"propolis".into()));

    // The console: what was printed, and what is typed.
    let session = world.vmctl_with_input(&["console", "web"], "root\r").expect(0);
    assert_eq!(session.stdout, "kernel\r\nlogin: root\r");
    assert_eq!(server.typed(), b"root\r");
    world.vmctl(&["log", "web", "--console"]).expect(0).says("login: root");

    // What happens beside vmctl is drift, and mended.
    server.power_off();
    let drift = world.drift();
    assert_eq!(drift.keys().collect::<Vec<_>>(), ["vm.web"]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_eq!(server.state().unwrap(), "Running");

    world.vmctl(&["suspend", "web"]).expect(1).says("cannot be suspended");
    assert_eq!(server.state().unwrap(), "Running");
    world.vmctl(&["stop", "web"]).expect(0).says("Stop");
    assert_eq!(server.state().unwrap(), "Destroyed");
    assert_eq!(world.vm("web")["state"], "stopped");
    world.vmctl(&["start", "web"]).expect(0);

    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert_eq!(server.state().unwrap(), "Destroyed");
    assert_nothing_left(&world);
}

#[test]
fn vmctl_starts_finds_and_ends_a_server_of_its_own() {
    let world = own("");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("web");
    let work = world.data().join("projects/shop/vms/web");
    assert!(work.join("propolis/debug.out").exists(), "each server has a folder to work in");
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    world.vmctl(&["log", "web", "--console"]).expect(0).says("fake kernel");
    let session = world.vmctl_with_input(&["console", "web"], "x").expect(0);
    assert!(session.stdout.ends_with("login: x"), "{}", session.stdout);
    // Started again, it is found, not started twice; even without the number that was noted.
    let note = work.join("propolis.json");
    let text = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, text.replace(&pid.to_string(), "1")).unwrap();
    world.vmctl(&["start", "web"]).expect(0);
    assert_eq!(world.pid("web"), pid);

    // Another hardware is another boot, of a fresh server.
    let edited = std::fs::read_to_string(world.project().join("VMFile.kdl"))
        .unwrap()
        .replace("memory 64", "memory 96");
    world.write("VMFile.kdl", &edited);
    world.vmctl(&["plan"]).expect(0).says("! vm.web: restart (memory changed");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(process::await_end(pid, PATIENCE), "the first server is gone");
    // The server itself is asked what its VM has.
    world.vmctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    world.vmctl(&["stop", "web"]).expect(0).says("Stop");
    assert!(!note.exists());
    world.vmctl(&["start", "web"]).expect(0);
    let pid = world.pid("web");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert!(process::await_end(pid, PATIENCE));
    assert_nothing_left(&world);
}

#[test]
fn killed_server_is_drift_and_started_again() {
    let world = own("");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("web");
    process::kill(pid);
    assert!(process::await_end(pid, PATIENCE));
    assert_eq!(world.drift().keys().collect::<Vec<_>>(), ["vm.web"]);
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert_ne!(world.pid("web"), pid);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[test]
fn own_server_of_a_guest_that_is_off_goes_when_another_is_named() {
    let (world, other) = (own(""), server());
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("web");
    // The guest powers itself off, as far as vmctl can tell: its server stays, with a VM that is over.
    let note = std::fs::read_to_string(world.data().join("projects/shop/vms/web/propolis.json")).unwrap();
    let note: serde_json::Value = serde_json::from_str(&note).unwrap();
    let mut socket = std::net::TcpStream::connect(note["address"].as_str().unwrap()).unwrap();
    let request = "PUT /instance/state HTTP/1.1\r\napi-version: 1.0.0\r\nContent-Length: 6\r\n\r\n\"Stop\"";
    std::io::Write::write_all(&mut socket, request.as_bytes()).unwrap();
    await_condition("the guest is off", || world.vm("web")["state"] == "stopped");
    vmfile(&world, &format!("server \"{}\"", other.address()), "");
    world.vmctl(&["apply", "--yes"]).expect(0);
    assert!(process::await_end(pid, PATIENCE), "nobody would end it later");
    assert_eq!(other.state().unwrap(), "Running");
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert_nothing_left(&world);
}

#[test]
fn copy_of_a_running_machine_is_not_started_beside_it() {
    let mut world = own("");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let (pid, data) = (world.pid("web"), world.data());
    let copied = world.beside_vmctl("cp").arg("-a").arg(&data).arg(world.folder().join("copy")).status();
    assert!(copied.unwrap().success());
    world.set("VMCTL_DATA_DIR", world.folder().join("copy"));
    for work in [["start", "web"].as_slice(), &["stop", "web"], &["apply", "--destroy", "--yes"]] {
        world.vmctl(work).says("which is not of this folder");
    }
    world.set("VMCTL_DATA_DIR", data);
    assert_eq!(world.pid("web"), pid);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[test]
fn server_whose_folder_was_removed_is_ended_with_its_machine() {
    let world = own("");
    world.vmctl(&["apply", "--yes"]).expect(0);
    let pid = world.pid("web");
    std::fs::remove_dir_all(world.data().join("projects/shop/vms/web")).unwrap();
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
    assert!(process::await_end(pid, PATIENCE));
}

#[test]
fn server_that_does_not_start_tells_why_and_leaves_nothing_running() {
    let world = own("");
    // It passes what vmctl checks, and not what the server does.
    let text = std::fs::read_to_string(world.project().join("VMFile.kdl")).unwrap();
    let broken = world.project().join("broken-server");
    std::fs::write(&broken, "#!/bin/sh\necho 'kernel VMM interface is too old'\nexit 3\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.write("VMFile.kdl", &text.replace(SERVER, "broken-server"));
    world.vmctl(&["apply", "--yes"]).expect(5).says("exit code 3").says("kernel VMM interface is too old");
    // Mended, it goes on.
    world.write("VMFile.kdl", &text);
    world.vmctl(&["apply", "--yes"]).expect(0);
    world.vmctl(&["apply", "--destroy", "--yes"]).expect(0);
}

#[test]
fn what_only_illumos_has_is_told_before_anything_is_made() {
    let (world, server) = (World::new(0), server());
    disk(&world);
    let machine = |options: &str, network: &str| {
        format!(
            "vm \"web\" {{ image \"disk.img\"; {network}; backend \"propolis\" {{ server \"{}\"; {options} }} }}",
            server.address()
        )
    };
    world.vmfile(&machine("", "network \"vnic\" name=\"web0\""));
    world
        .vmctl(&["apply", "--yes"])
        .expect(1)
        .says("`dladm` is not in PATH, and vnics need it; it belongs to illumos");
    world.vmfile(&machine("vnic-link \"igb0\"", "network \"user\""));
    world.vmctl(&["plan"]).expect(1).says("Propolis has vnics, and no other networks");
    assert_eq!(server.asked(), []);
    assert!(!world.data().join("projects/shop/vms/web").exists());
}

#[test]
fn doctor_looks_for_what_the_machines_of_a_project_use() {
    let (mut world, server) = (World::new(0), server());
    let check = |world: &World, name: &str| {
        let found = world.vmctl(&["doctor", "--json"]).json();
        let checks = found["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == name)
    };
    world.vmfile("vm \"web\" { image \"disk.img\"; backend \"noop\" }");
    disk(&world);
    assert_eq!(check(&world, "propolis-server"), None, "Propolis is of no interest to this project");

    // A server of somebody else is asked, and QEMU is not needed.
    vmfile(&world, &format!("server \"{}\"", server.address()), "");
    let path = world.folder().join("nothing");
    std::fs::create_dir(&path).unwrap();
    let setsid = std::env::split_paths(&surroundings::inherited("PATH").unwrap())
        .map(|folder| folder.join("setsid"))
        .find(|program| program.exists())
        .unwrap();
    std::os::unix::fs::symlink(setsid, path.join("setsid")).unwrap();
    world.set("PATH", path);
    world.vmctl(&["doctor"]).expect(0).says("one answers at").says("qemu");
    assert_eq!(check(&world, "qemu").unwrap()["status"], "warn");
    assert_eq!(check(&world, "bhyve"), None);

    // What is missing fails, with what to do.
    vmfile(&world, "bootrom \"rom.fd\"; pool \"rpool/vms\"", "");
    world
        .vmctl(&["doctor"])
        .expect(1)
        .says("`propolis-server` is not in PATH")
        .says("rom.fd")
        .says("there is no `/dev/vmmctl`")
        .says("`zfs` is not in PATH, and disks in a `pool` need it; it belongs to illumos");

    // On an illumos, a template that runs cannot be cloned.
    let illumos = Illumos::of(&mut world);
    vmfile(
        &world,
        "bootrom \"/rom.fd\"; pool \"rpool/vms\"; zone \"propolis\" link=\"stub0\" address=\"10.9.0.2/24\"",
        "",
    );
    let status = |name: &str| check(&world, name).unwrap()["status"].clone();
    assert_eq!(["zfs", "vnics", "zones"].map(status), ["ok"; 3]);
    assert_eq!(illumos.deeds(), [""; 0], "it only looks");
    world.vmctl(&["doctor"]).expect(1).says("/dev/vmmctl");
}
