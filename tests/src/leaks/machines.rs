//! Machines that run against machines that are recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::rest::Told;
use crate::World;
use crate::process::{self, Process};

/// I1, I5 and I7: what runs is what is recorded, each disk has one process, and what listens was declared.
pub(super) fn disagreements(world: &World, told: &Told) -> Vec<String> {
    let mut leaks = Vec::new();
    let recorded: BTreeSet<&str> = told.vms.iter().filter_map(|vm| vm["id"].as_str()).collect();
    for vm in &told.vms {
        if vm["state"] != vm["recorded"] {
            let (state, recorded) = (&vm["state"], &vm["recorded"]);
            leaks.push(format!("I1: {} is {state} and recorded as {recorded}", vm["address"]));
        }
        if vm["backend"] == "noop" {
            leaks.extend(unlike_its_fake(vm));
        }
    }
    for (folder, claim) in claims(&told.folder) {
        if claim["released"] != true && !recorded.contains(claim["id"].as_str().unwrap_or_default()) {
            leaks.push(format!("I1: nobody recorded the machine in `{}`", folder.display()));
        }
    }
    let live: Vec<_> = process::naming(world.folder())
        .into_iter()
        .filter_map(|process| Some((uuid(&process)?, process)))
        .collect();
    for (id, process) in &live {
        let released =
            claims(&told.folder).iter().any(|(_, claim)| claim["id"] == **id && claim["released"] == true);
        if !recorded.contains(id.as_str()) && !released {
            leaks.push(format!("I1: nobody recorded process {}: {}", process.pid, process.command));
        }
    }
    for vm in told.vms.iter().filter(|vm| vm["backend"] == "qemu") {
        leaks.extend(unlike_its_process(vm, &live));
    }
    leaks.extend(shared_disks(world, &live));
    leaks
}

/// I1 for a fake machine: its file says the same of it.
fn unlike_its_fake(vm: &Value) -> Option<String> {
    let path = Path::new(vm["work_dir"].as_str()?).join("machine.json");
    let fake = read(&path);
    let same = fake["id"] == vm["id"] && fake["state"] == vm["recorded"];
    (!same).then(|| format!("I1: {} is not what `{}` says: {fake}", vm["address"], path.display()))
}

/// I1 and I7 for a real one: it has one process exactly if it runs, and that listens where it should.
fn unlike_its_process(vm: &Value, live: &[(String, Process)]) -> Vec<String> {
    let address = &vm["address"];
    let pids: Vec<_> =
        live.iter().filter(|(id, _)| vm["id"] == **id).map(|(_, process)| process.pid).collect();
    let runs = vm["recorded"] == "running" || vm["recorded"] == "suspended";
    match pids[..] {
        [] if !runs => Vec::new(),
        [pid] if runs && vm["pid"] == pid => elsewhere(vm, pid),
        _ => vec![format!(
            "I1: {address} is recorded as {} with process {}, and has {pids:?}",
            vm["recorded"], vm["pid"]
        )],
    }
}

/// I7: the ports a process listens on are its machine's forwards, and those are the declared ones.
fn elsewhere(vm: &Value, pid: u32) -> Vec<String> {
    let mut leaks = Vec::new();
    let bound = forwards(&vm["forwards"]);
    let listening: BTreeSet<SocketAddr> = process::listening(pid).into_iter().collect();
    let mut told: BTreeSet<SocketAddr> = bound.iter().map(|(address, _)| *address).collect();
    // A display over TCP is one that the file asked for.
    let display = vm["vnc"].as_str().and_then(|vnc| vnc.strip_prefix("tcp:")?.parse().ok());
    told.extend(display.filter(|address: &SocketAddr| address.ip().is_loopback()));
    if listening != told {
        leaks.push(format!("I7: {} listens on {listening:?}, its forwards are {told:?}", vm["address"]));
    }
    let declared: Vec<_> = vm["networks"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|network| forwards(&network["forwards"]))
        .collect();
    for (address, guest) in &bound {
        let is_declared = declared.iter().any(|(wanted, to)| {
            to == guest && wanted.ip() == address.ip() && [0, address.port()].contains(&wanted.port())
        });
        if !is_declared {
            leaks.push(format!("I7: {} forwards {address} to {guest}, which nobody declared", vm["address"]));
        }
    }
    if declared.len() != bound.len() {
        leaks.push(format!("I7: {} forwards {bound:?}, declared are {declared:?}", vm["address"]));
    }
    leaks
}

/// The TCP forwards of a list in JSON: where they listen, and the guest's port.
fn forwards(list: &Value) -> Vec<(SocketAddr, u64)> {
    let tcp = list.as_array().into_iter().flatten().filter(|forward| forward["protocol"] == "tcp");
    tcp.map(|forward| {
        let ip = forward["host_address"].as_str().and_then(|ip| ip.parse().ok()).expect("an address");
        let port = forward["host_port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        (SocketAddr::new(ip, port), forward["guest_port"].as_u64().expect("a port"))
    })
    .collect()
}

/// I5: disks that two processes have open, and instances that have two.
fn shared_disks(world: &World, live: &[(String, Process)]) -> Vec<String> {
    let mut holders = BTreeMap::<PathBuf, BTreeSet<u32>>::new();
    for (_, process) in live {
        let open = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
        for file in open.filter_map(|entry| fs::read_link(entry.path()).ok()) {
            if file.starts_with(world.data().join("projects"))
                && file.extension().is_some_and(|end| end == "qcow2")
            {
                holders.entry(file).or_default().insert(process.pid);
            }
        }
    }
    let shared = holders.into_iter().filter(|(_, pids)| pids.len() > 1);
    shared.map(|(disk, pids)| format!("I5: `{}` has processes {pids:?}", disk.display())).collect()
}

/// Whose each machine's folder is, by what lies in it.
pub(super) fn claims(project: &Path) -> Vec<(PathBuf, Value)> {
    let folders = fs::read_dir(project.join("vms")).into_iter().flatten().flatten().map(|entry| entry.path());
    let claim = |folder: PathBuf| {
        let found = ["manifest.json", "machine.json"]
            .map(|name| folder.join(name))
            .into_iter()
            .find(|path| path.exists());
        found.map(|path| (folder, read(&path)))
    };
    folders.filter_map(claim).collect()
}

/// The instance that a process runs, if it is a machine's.
fn uuid(process: &Process) -> Option<String> {
    let arguments = process::arguments(process.pid)?;
    let at = arguments.iter().position(|argument| argument == "-uuid")?;
    arguments.get(at + 1).cloned()
}

/// A file's JSON; null where there is none.
pub(super) fn read(path: &Path) -> Value {
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}
