//! The grammar: which nodes, properties and values there are, and what to say of those that stand elsewhere.

use super::fields::{Shape, Unit};

const LEAF: Shape = Shape::leaf("");

pub(super) const TOP: Shape = Shape {
    usage: "",
    args: 0,
    props: &[],
    block: &["vm", "project", "moved", "removed"],
    repeatable: &["vm", "moved", "removed"],
    elsewhere: misplaced_in_file,
};
pub(super) const PROJECT: Shape = Shape::leaf("`project \"shop\"`");
pub(super) const MOVED: Shape =
    Shape { usage: "`moved from=\"web\" to=\"www\"`", args: 0, props: &["from", "to"], ..LEAF };
pub(super) const REMOVED: Shape = Shape::leaf("`removed \"web\"`");
pub(super) const VM: Shape = Shape {
    usage: "`vm \"web\" { image \"debian.qcow2\" }`",
    block: &[
        "image",
        "image-url",
        "vcpus",
        "memory",
        "disk",
        "network",
        "cloud-init",
        "ssh",
        "provision",
        "backend",
        "state",
        "depends-on",
        "forward",
        "lifecycle",
        "ready",
        "check",
    ],
    repeatable: &["provision", "depends-on", "forward", "check"],
    elsewhere: misplaced_in_vm,
    ..LEAF
};
pub(super) const IMAGE: Shape = Shape::leaf("`image \"debian.qcow2\"`");
pub(super) const IMAGE_URL: Shape = Shape::leaf("`image-url \"file:///images/debian.qcow2\"`");
pub(super) const VCPUS: Shape = Shape::leaf("`vcpus 2`");
pub(super) const MEMORY: Shape = Shape::leaf("`memory 2048`, in MB");
pub(super) const DISK: Shape = Shape::leaf("`disk 20`, in GB");
pub(super) const BACKEND: Shape = Shape::leaf("`backend \"qemu\"`");
pub(super) const STATE: Shape = Shape::leaf("`state \"stopped\"`");
pub(super) const NETWORK: Shape = Shape {
    usage: "`network \"user\"`, `network \"tap\" bridge=\"br0\"`, `network \"vnic\" name=\"vnic0\"` or `network \"none\"`",
    props: &["bridge", "name"],
    block: &["bridge", "name"],
    ..LEAF
};
pub(super) const BRIDGE: Shape = Shape::leaf("`bridge \"br0\"`");
pub(super) const VNIC_NAME: Shape = Shape::leaf("`name \"vnic0\"`");
pub(super) const CLOUD_INIT: Shape = Shape {
    usage: "`cloud-init { hostname \"web\" }`",
    args: 0,
    block: &["hostname", "ssh-key", "user-data"],
    ..LEAF
};
pub(super) const HOSTNAME: Shape = Shape::leaf("`hostname \"web\"`");
pub(super) const SSH_KEY: Shape = Shape::leaf("`ssh-key \"~/.ssh/id_ed25519.pub\"`");
pub(super) const USER_DATA: Shape = Shape::leaf("`user-data \"user-data.yaml\"`");
pub(super) const SSH: Shape =
    Shape { usage: "`ssh { user \"vm\" }` or `ssh` alone", args: 0, block: &["user", "private-key"], ..LEAF };
pub(super) const USER: Shape = Shape::leaf("`user \"vm\"`");
pub(super) const PRIVATE_KEY: Shape = Shape::leaf("`private-key \"~/.ssh/id_ed25519\"`");
pub(super) const SHELL_USAGE: &str =
    "`provision \"shell\" { inline \"uname -a\" }` or `provision \"shell\" { script \"setup.sh\" }`";
pub(super) const FILE_USAGE: &str =
    "`provision \"file\" { source \"app.conf\"; destination \"/etc/app.conf\" }`";
pub(super) const PROVISION: Shape =
    Shape { usage: SHELL_USAGE, block: &["inline", "script", "source", "destination"], ..LEAF };
pub(super) const INLINE: Shape = Shape::leaf("`inline \"uname -a\"`");
pub(super) const SCRIPT: Shape = Shape::leaf("`script \"setup.sh\"`");
pub(super) const SOURCE: Shape = Shape::leaf("`source \"app.conf\"`");
pub(super) const DESTINATION: Shape = Shape::leaf("`destination \"/etc/app.conf\"`");
pub(super) const DEPENDS_ON: Shape =
    Shape { usage: "`depends-on \"db\" until=\"ready\"`", args: usize::MAX, props: &["until"], ..LEAF };
pub(super) const FORWARD: Shape = Shape {
    usage: "`forward host=8080 guest=80`",
    args: 0,
    props: &["host", "guest", "protocol", "address"],
    ..LEAF
};
pub(super) const LIFECYCLE: Shape = Shape {
    usage: "`lifecycle { prevent-destroy }`",
    args: 0,
    block: &["prevent-destroy", "ignore-changes", "replace-when"],
    repeatable: &["ignore-changes", "replace-when"],
    elsewhere: misplaced_in_lifecycle,
    ..LEAF
};
pub(super) const PREVENT_DESTROY: Shape = Shape::leaf("`prevent-destroy` or `prevent-destroy #false`");
pub(super) const IGNORE_CHANGES: Shape =
    Shape { usage: "`ignore-changes \"memory\" \"cloud-init\"`", args: usize::MAX, ..LEAF };
pub(super) const REPLACE_WHEN: Shape =
    Shape { usage: "`replace-when \"provision\" \"vm.db\"`", args: usize::MAX, ..LEAF };
pub(super) const READY: Shape = Shape {
    usage: "`ready { tcp 5432; timeout \"2m\" }`",
    args: 0,
    block: &["ssh", "tcp", "exec", "log", "timeout"],
    repeatable: &["tcp", "exec", "log"],
    ..LEAF
};
pub(super) const READY_SSH: Shape = Shape { usage: "`ready { ssh }`", args: 0, ..LEAF };
pub(super) const TIMEOUT: Shape = Shape::leaf("`timeout \"2m\"`");
pub(super) const CHECK: Shape = Shape {
    usage: "`check \"answers\" { tcp 80 }`",
    block: &["tcp", "exec", "log"],
    repeatable: &["tcp", "exec", "log"],
    elsewhere: misplaced_in_check,
    ..LEAF
};
pub(super) const TCP: Shape = Shape::leaf("`tcp 5432`");
pub(super) const EXEC: Shape = Shape::leaf("`exec \"pg_isready\"`");
pub(super) const LOG: Shape = Shape::leaf("`log \"ready to accept connections\"`");

pub(super) const VCPUS_UNIT: Unit = Unit { name: "", example: "vcpus 2", is_size: false };
pub(super) const MEMORY_UNIT: Unit = Unit { name: "MB", example: "memory 2048", is_size: true };
pub(super) const DISK_UNIT: Unit = Unit { name: "GB", example: "disk 20", is_size: true };
pub(super) const PORT_UNIT: Unit = Unit { name: "", example: "forward host=8080 guest=80", is_size: false };
pub(super) const TCP_UNIT: Unit = Unit { name: "", example: "tcp 5432", is_size: false };

/// What QEMU's default machines accept without further settings.
pub(super) const MAX_VCPUS: u64 = 255;
/// 16 TiB in MiB: far beyond today's hosts, far below an overflow.
pub(super) const MAX_MEMORY: u64 = 16 << 20;
/// 64 TiB in GiB: more than any host of a test machine has, and within what QCOW2 can address.
pub(super) const MAX_DISK: u64 = 65_536;

pub(super) const NAME_HELP: &str = "a name has letters, digits, `-`, `_` and `.`, begins and ends with a letter or digit, and has at most 63 characters";

/// Nodes of later releases: people may find them in newer documents.
const LATER: &[&str] = &[
    "volume", "variable", "defaults", "template", "include", "output", "share", "firmware", "kernel",
    "initrd", "cmdline", "machine", "cpu", "accel", "qemu-arg", "labels", "count",
];

fn misplaced_in_file(name: &str) -> Option<String> {
    if LATER.contains(&name) {
        return Some(format!("`{name}` comes in a later release; remove it for now"));
    }
    let with_dashes = name.replace('_', "-");
    if LIFECYCLE.block.contains(&with_dashes.as_str()) {
        return Some(format!("`{with_dashes}` belongs in a machine's `lifecycle {{ {with_dashes} … }}`"));
    }
    if VM.block.contains(&name) {
        return Some(format!("`{name}` belongs in a machine: `vm \"web\" {{ {name} … }}`"));
    }
    READY.block.contains(&name).then(|| format!("`{name}` belongs in a machine's `ready {{ {name} … }}`"))
}

fn misplaced_in_vm(name: &str) -> Option<String> {
    let with_dashes = name.replace('_', "-");
    let owner = match with_dashes.as_str() {
        "hostname" | "ssh-key" | "user-data" => "cloud-init",
        "user" | "private-key" => "ssh",
        "inline" | "script" => "provision \"shell\"",
        "source" | "destination" => "provision \"file\"",
        "bridge" => "network \"tap\"",
        "prevent-destroy" | "ignore-changes" | "replace-when" => "lifecycle",
        "tcp" | "exec" | "log" => {
            return Some(format!("`{name}` belongs in `ready {{ … }}` or in `check \"answers\" {{ … }}`"));
        }
        "timeout" => "ready",
        "vm" => return Some("a machine stands at the top level: is a `}` missing before it?".to_owned()),
        "project" | "moved" | "removed" => {
            return Some(format!("`{name}` stands at the top level, outside of any `vm`"));
        }
        _ if LATER.contains(&name) => {
            return Some(format!("`{name}` comes in a later release; remove it for now"));
        }
        _ => return None,
    };
    Some(format!("`{with_dashes}` belongs in a block of its own: `{owner} {{ {with_dashes} … }}`"))
}

/// Words of Terraform that have another name or no place here.
fn misplaced_in_lifecycle(name: &str) -> Option<String> {
    let help = match name.replace('_', "-").as_str() {
        "replace-triggered-by" => "did you mean `replace-when`?",
        "create-before-destroy" => "remove it: a machine is destroyed before its replacement is made",
        "precondition" | "postcondition" => {
            "what must hold is written beside `lifecycle`: `check \"answers\" { tcp 80 }`"
        }
        _ => return None,
    };
    Some(help.to_owned())
}

fn misplaced_in_check(name: &str) -> Option<String> {
    let help = match name {
        "ssh" => "write `exec \"true\"` to ask for a working login",
        "timeout" => "`timeout` stands in `ready`; a check has none",
        _ => return None,
    };
    Some(help.to_owned())
}
