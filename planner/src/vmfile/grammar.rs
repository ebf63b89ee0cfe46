//! The grammar: which nodes, properties and values there are, and what to say of those that stand elsewhere.

use super::fields::{Shape, Unit};

const LEAF: Shape = Shape::leaf("");

pub(super) const TOP: Shape = Shape {
    usage: "",
    args: 0,
    props: &[],
    block: &["vm", "project"],
    repeatable: &["vm"],
    elsewhere: misplaced_in_file,
};
pub(super) const PROJECT: Shape = Shape::leaf("`project \"shop\"`");
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
    ],
    repeatable: &["provision", "depends-on", "forward"],
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

pub(super) const VCPUS_UNIT: Unit = Unit { name: "", example: "vcpus 2", is_size: false };
pub(super) const MEMORY_UNIT: Unit = Unit { name: "MB", example: "memory 2048", is_size: true };
pub(super) const DISK_UNIT: Unit = Unit { name: "GB", example: "disk 20", is_size: true };
pub(super) const PORT_UNIT: Unit = Unit { name: "", example: "forward host=8080 guest=80", is_size: false };

/// What QEMU's default machines accept without further settings.
pub(super) const MAX_VCPUS: u64 = 255;
/// 16 TiB in MiB: far beyond today's hosts, far below an overflow.
pub(super) const MAX_MEMORY: u64 = 16 << 20;
/// 64 TiB in GiB: more than any host of a test machine has, and within what QCOW2 can address.
pub(super) const MAX_DISK: u64 = 65_536;

pub(super) const NAME_HELP: &str = "a name has letters, digits, `-`, `_` and `.`, begins and ends with a letter or digit, and has at most 63 characters";

/// Nodes of later releases: people may find them in newer documents.
const LATER: &[&str] = &[
    "volume",
    "variable",
    "defaults",
    "template",
    "include",
    "output",
    "share",
    "firmware",
    "kernel",
    "initrd",
    "cmdline",
    "machine",
    "cpu",
    "accel",
    "qemu-arg",
    "ready",
    "lifecycle",
    "labels",
    "count",
];

fn misplaced_in_file(name: &str) -> Option<String> {
    if LATER.contains(&name) {
        return Some(format!("`{name}` comes in a later release; remove it for now"));
    }
    VM.block.contains(&name).then(|| format!("`{name}` belongs in a machine: `vm \"web\" {{ {name} … }}`"))
}

fn misplaced_in_vm(name: &str) -> Option<String> {
    let owner = match name {
        "hostname" | "ssh-key" | "user-data" => "cloud-init",
        "user" | "private-key" => "ssh",
        "inline" | "script" => "provision \"shell\"",
        "source" | "destination" => "provision \"file\"",
        "bridge" => "network \"tap\"",
        "vm" => return Some("a machine stands at the top level: is a `}` missing before it?".to_owned()),
        "project" => return Some("`project` stands at the top level, outside of any `vm`".to_owned()),
        _ if LATER.contains(&name) => {
            return Some(format!("`{name}` comes in a later release; remove it for now"));
        }
        _ => return None,
    };
    Some(format!("`{name}` belongs in a block of its own: `{owner} {{ {name} … }}`"))
}
