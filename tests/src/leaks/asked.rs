//! What only those can check who know what was asked for.

use std::fs;

use super::files::entries;
use super::machines::read;
use crate::{World, process};

/// I4 for a fake machine: what its provisioning ran over its whole life, oldest first.
pub fn ran(world: &World, project: &str, name: &str) -> Vec<String> {
    let path = world.data().join("projects").join(project).join("vms").join(name).join("machine.json");
    let ran = read(&path)["provisioned"].clone();
    ran.as_array().into_iter().flatten().filter_map(|label| label.as_str().map(str::to_owned)).collect()
}

/// I6: panics unless a file in a guest still holds what was written to it before the fault.
pub fn kept(world: &World, name: &str, path: &str, canary: &str) {
    let found = world.exec(name, &format!("cat {path}"));
    assert_eq!(found.trim_end(), canary, "I6: `{path}` in `{name}` lost what it held");
}

/// I8: where the texts stand that must stand nowhere: in a file of the world but the project's own, or on a command
/// line.
pub fn secrets(world: &World, secrets: &[&str]) -> Vec<String> {
    let mut leaks = Vec::new();
    let files = [world.data(), world.runtime()];
    for path in files.iter().flat_map(|folder| entries(folder)).filter(|path| path.is_file()) {
        let bytes = fs::read(&path).unwrap_or_default();
        for secret in secrets {
            if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                leaks.push(format!("I8: `{}` holds {secret:?}", path.display()));
            }
        }
    }
    for process in process::naming(world.folder()) {
        for secret in secrets.iter().filter(|secret| process.command.contains(**secret)) {
            leaks.push(format!("I8: the command line of process {} holds {secret:?}", process.pid));
        }
    }
    leaks
}
