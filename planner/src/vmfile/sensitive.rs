//! Where sensitive values must not stand: what vmctl keeps as it is, to find it again.

use vmctl_providers::Secrets;

use super::ast::{Node, Scalar};
use super::report::Fault;

/// Nodes of names, users and paths.
const KEPT: &[&str] = &[
    "address",
    "bridge",
    "depends-on",
    "groups",
    "image",
    "initrd",
    "kernel",
    "media",
    "name",
    "network",
    "path",
    "private-key",
    "replace-when",
    "script",
    "share",
    "shell",
    "source",
    "ssh-key",
    "sudo",
    "user",
    "user-data",
    "vm",
    "volume",
];

/// Nodes whose texts stand on the command line of the machine's process.
const SEEN: &[&str] = &["cmdline", "cpu", "machine", "qemu-arg"];

/// Nodes whose block has names of the author's choice.
const FREE: &[&str] = &["env", "labels"];

/// Tells every sensitive value among names, users and paths of `nodes`, which refer to nothing any more.
pub(super) fn misplaced(nodes: &[Node], secrets: &Secrets) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !secrets.is_empty() {
        nodes.iter().for_each(|node| look(node, secrets, &mut faults));
    }
    faults
}

fn look(node: &Node, secrets: &Secrets, faults: &mut Vec<Fault>) {
    let name = node.name.value.as_str();
    let help = if KEPT.contains(&name) {
        Some("names, users and paths cannot be hidden: use a variable that is not sensitive")
    } else if SEEN.contains(&name) {
        Some(
            "everybody on the host can read the command line that it is passed on by: hand it over in another way",
        )
    } else {
        None
    };
    if let Some(help) = help {
        for value in node.args.iter().chain(node.props.iter().map(|(_, value)| value)) {
            if matches!(&value.scalar, Scalar::Text(text) if secrets.are_in(text)) {
                faults.push(
                    Fault::error("vmfile::sensitive", format!("`{name}` cannot hold a sensitive value"))
                        .at(value.span, "is kept and shown as it is")
                        .help(help),
                );
            }
        }
    }
    if !FREE.contains(&name) {
        node.children.iter().flatten().for_each(|child| look(child, secrets, faults));
    }
}
