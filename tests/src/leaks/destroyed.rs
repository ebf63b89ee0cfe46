//! What a destroyed project must not leave behind, and what a living one must not do.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::World;
use crate::process::{self, Process};

/// What the world's machines hold while they run; taken before they are destroyed.
#[derive(Debug)]
pub struct Held {
    processes: Vec<Process>,
    listening: Vec<SocketAddr>,
}

/// Notes what the world's machines hold. Panics if one listens on anything but the loopback.
pub fn held(world: &World) -> Held {
    let processes = process::naming(world.folder());
    let listening: Vec<_> = processes.iter().flat_map(|process| process::listening(process.pid)).collect();
    let open: Vec<_> = listening.iter().filter(|address| !address.ip().is_loopback()).collect();
    assert!(open.is_empty(), "a machine listens beyond the loopback: {open:?}");
    Held { processes, listening }
}

/// Panics, naming every leak, unless nothing of the world's machines is left: no process, no socket, no file of a
/// machine, no unfinished file, no listening port.
pub fn check(world: &World, held: &Held) {
    let mut leaks = Vec::new();
    assert!(!held.processes.is_empty(), "the check was given nothing to look for");
    leaks.extend(
        process::naming(world.folder()).iter().map(|left| format!("process {} {}", left.pid, left.command)),
    );
    for address in &held.listening {
        if let Err(error) = TcpListener::bind(address) {
            leaks.push(format!("port {address}: {error}"));
        }
    }
    for root in [world.data(), world.runtime()] {
        for path in entries(&root) {
            let socket = path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
            let unfinished = [".tmp", ".part"].iter().any(|end| path.to_string_lossy().ends_with(end));
            if socket || unfinished || is_of_a_machine(&root, &path) {
                leaks.push(format!("file {}", path.display()));
            }
        }
    }
    assert!(leaks.is_empty(), "left behind:\n{}", leaks.join("\n"));
}

/// Whether `path` is inside a `vms` folder of a project, or is the folder of a running machine.
fn is_of_a_machine(root: &Path, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(root) else { return false };
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    matches!(parts[..], ["projects", _, "vms", _, ..] | ["vmctl", _, ..])
}

/// Everything below `folder`.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(self::entries(&path));
        }
        found.push(path);
    }
    found
}
