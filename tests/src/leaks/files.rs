//! Files that nobody owns.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::machines::claims;
use super::rest::Told;
use crate::World;

/// Endings of files on their way. None may stay.
const UNFINISHED: [&str; 4] = ["part", "tmp", "new", "generating"];

/// What may lie in the folder of one machine.
const OF_A_MACHINE: [&str; 18] = [
    "manifest.json",
    "record.json",
    "machine.json",
    "overlay.qcow2",
    "seed.img",
    "console.log",
    "provision.log",
    "qemu.log",
    "id_ed25519",
    "ssh_host_ed25519_key",
    "known_hosts",
    "uefi-vars.fd",
    "vnc-password",
    "disk.raw",
    "console.lock",
    "propolis.json",
    "propolis.lock",
    "propolis",
];

/// What a propolis-server leaves where it works.
const OF_A_SERVER: [&str; 2] = ["server.log", "debug.out"];

/// What may lie in the folder of one volume.
const OF_A_VOLUME: [&str; 2] = ["manifest.json", "disk.qcow2"];

/// I2: those of the `files` below the world's folder that belong to no recorded machine and to no part of the state.
pub(super) fn without_owner(world: &World, files: &[PathBuf], told: &Told) -> Vec<String> {
    let mut owned: BTreeSet<PathBuf> =
        told.vms.iter().filter_map(|vm| vm["work_dir"].as_str()).map(PathBuf::from).collect();
    owned.extend(
        claims(&told.folder).into_iter().filter(|(_, claim)| claim["released"] == true).map(|(at, _)| at),
    );
    let live: BTreeSet<String> = told
        .vms
        .iter()
        .filter(|vm| vm["recorded"] == "running" || vm["recorded"] == "suspended")
        .filter_map(|vm| vm["id"].as_str())
        .map(short)
        .collect();
    let released: BTreeSet<String> = claims(&told.folder)
        .iter()
        .filter(|(_, claim)| claim["released"] == true)
        .filter_map(|(_, claim)| claim["id"].as_str().map(short))
        .collect();
    let mut leaks = Vec::new();
    for path in files {
        let inside = path.strip_prefix(world.folder()).expect("an entry of the world");
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let is_owned = !is_unfinished(path)
            && match parts[..] {
                // What is left on an illumos is asked of itself.
                ["home" | "shop" | "host" | "bin", ..] | ["data" | "run"] | ["run", "vmctl"] => true,
                ["data", "images", ..] => is_cached(&parts[2..]),
                ["data", "templates", ..] => is_of_templates(&parts[2..]),
                ["data", "projects"] | ["data", "projects", _] => true,
                ["data", "projects", _, "vms"] => true,
                ["data", "projects", _, "vms", _] => owned.contains(path),
                ["data", "projects", _, "vms", _, file] => {
                    OF_A_MACHINE.contains(&file) && path.parent().is_some_and(|folder| owned.contains(folder))
                }
                ["data", "projects", _, "vms", _, "propolis", file] => OF_A_SERVER.contains(&file),
                ["data", "projects", _, "volumes"] | ["data", "projects", _, "volumes", _] => true,
                ["data", "projects", _, "volumes", _, file] => OF_A_VOLUME.contains(&file),
                ["data", "projects", _, file, ..] => is_of_a_project(&parts[3..]) && file != "lock.json",
                ["run", "vmctl", id, ..] => live.contains(id) || released.contains(id),
                _ => false,
            };
        if !is_owned {
            leaks.push(format!("I2: nobody owns `{}`", inside.display()));
        }
    }
    leaks
}

/// The first digits of an id, which name the folder of its sockets.
fn short(id: &str) -> String {
    id.replace('-', "").chars().take(16).collect()
}

fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|end| UNFINISHED.iter().any(|unfinished| end == *unfinished))
}

fn is_cached(parts: &[&str]) -> bool {
    let is_digest = |name: &str| {
        let stem = name.split('.').next().unwrap_or_default();
        stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match parts {
        [] | [".identities" | ".fetched" | ".downloads" | ".pinned" | "propolis.lock"] => true,
        [".fetched", fetched] => is_digest(fetched.strip_prefix("url-").unwrap_or(fetched)),
        [image] | [".identities" | ".pinned", image] => is_digest(image),
        _ => false,
    }
}

/// Templates, and the beginning of one, which goes with the next that is kept.
fn is_of_templates(parts: &[&str]) -> bool {
    let is_key = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    match parts {
        [] => true,
        [folder] => is_key(folder.split('~').next().unwrap_or_default()),
        [folder, "disk.qcow2" | "memory" | "devices" | "id_ed25519" | "known_hosts"] => {
            is_of_templates(&[folder])
        }
        [folder, "template.json"] => is_key(folder),
        _ => false,
    }
}

fn is_of_a_project(parts: &[&str]) -> bool {
    match parts {
        ["state"] | ["state", "db" | "conf" | "blobs" | "seal.json"] => true,
        ["state", index] => index.starts_with("snap."),
        ["texts"] | ["noop"] => true,
        ["texts", text] => text.starts_with("sha256-") || text.starts_with("hmac-sha256-"),
        ["noop", file] => {
            matches!(*file, "events.log" | "script.json" | "host.json") || file.starts_with("used-")
        }
        [kept, ..] if kept.starts_with("state.damaged-") || kept.starts_with("state.replaced-") => true,
        [file] => matches!(
            *file,
            "lock"
                | "snapshot.json"
                | "history.json"
                | "serial"
                | "lineage"
                | "key"
                | "ballast"
                | "VMFile.kdl"
                | "VMFile.lock"
        ),
        _ => false,
    }
}

/// Everything below `folder`, folders included.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(entries(&path));
        }
        found.push(path);
    }
    found
}
