//! The canonical order of nodes and properties: all that the formatter knows of the grammar.

/// In which order the parts of a node stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// The nodes of its block. Empty where their order has a meaning or is the author's own.
    pub(super) nodes: &'static [&'static str],
    pub(super) props: &'static [&'static str],
}

const TOP: &[&str] = &[
    "project", "include", "variable", "image", "network", "volume", "defaults", "template", "vm", "output",
    "moved", "removed",
];

const MACHINE: &[&str] = &[
    "backend",
    "image",
    "image-url",
    "firmware",
    "kernel",
    "initrd",
    "cmdline",
    "machine",
    "cpu",
    "accel",
    "qemu-arg",
    "vcpus",
    "memory",
    "disk",
    "volume",
    "share",
    "network",
    "forward",
    "cloud-init",
    "ssh",
    "depends-on",
    "ready",
    "provision",
    "check",
    "state",
    "lifecycle",
    "labels",
];

const PROVISION: &[&str] =
    &["inline", "script", "source", "destination", "mode", "owner", "run", "env", "user", "timeout"];

const NETWORK: &[&str] = &["bridge", "name", "address"];

/// The order in the node that the names of `path` lead to, from the top level on; the top level itself has none.
pub(super) fn order(path: &[&str]) -> Option<Order> {
    let (nodes, props): (&[&str], &[&str]) = match path {
        [] => (TOP, &[]),
        ["variable"] => (&["type", "default", "description", "one-of", "sensitive"], &[]),
        ["image"] => (&["path", "url", "sha256"], &[]),
        ["network"] => (&["subnet"], &[]),
        ["volume"] => (&["size", "prevent-destroy"], &["size"]),
        ["defaults"] => (MACHINE, &[]),
        ["template"] => (MACHINE, &["template"]),
        ["vm"] => (MACHINE, &["template", "count"]),
        ["output"] => (&["description"], &[]),
        ["moved"] => (&[], &["from", "to"]),
        ["defaults" | "template" | "vm", inner @ ..] => return in_machine(inner),
        _ => return None,
    };
    Some(Order { nodes, props })
}

fn in_machine(path: &[&str]) -> Option<Order> {
    let (nodes, props): (&[&str], &[&str]) = match path {
        ["image" | "image-url"] => (&[], &["sha256"]),
        ["network"] => (NETWORK, NETWORK),
        ["forward"] => (&[], &["host", "guest", "protocol", "address"]),
        ["cloud-init"] => (&["hostname", "ssh-key", "user-data"], &[]),
        ["ssh"] => (&["user", "private-key"], &[]),
        ["depends-on"] => (&[], &["until"]),
        ["provision"] => (PROVISION, &[]),
        ["lifecycle"] => (&["prevent-destroy", "ignore-changes", "replace-when"], &[]),
        // Probes are asked in the order of the text; names in `env` and `labels` are the author's.
        ["ready" | "check" | "labels"] | ["provision", "env"] => (&[], &[]),
        _ => return None,
    };
    Some(Order { nodes, props })
}

/// Whether a blank line stands around a node of the top level.
pub(super) fn stands_apart(name: &str) -> bool {
    matches!(name, "defaults" | "template" | "vm")
}
