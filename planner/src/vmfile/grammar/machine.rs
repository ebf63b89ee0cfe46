//! The nodes of a machine: its hardware, and how it is connected.

use vmctl_providers::{BackendTag, Protocol, ShareDriver};

use super::misplaced::in_network;
use super::{
    Args, CHECK, CLOUD_INIT, Layers, PROVISION, Prop, READY, SSH, Shape, SizeUnit, Type, Values, words,
};
use crate::desired::{AccelChoice, Arch, Firmware, Power, Until, WarmChoice};

/// What a `vm`, a template and `defaults` consist of.
pub(in super::super) static VM_BLOCK: &[&Shape] = &[
    &BACKEND,
    &IMAGE,
    &IMAGE_URL,
    &ARCH,
    &FIRMWARE,
    &KERNEL,
    &INITRD,
    &CMDLINE,
    &MACHINE,
    &CPU,
    &ACCEL,
    &VNC,
    &QEMU_ARG,
    &VCPUS,
    &MEMORY,
    &DISK,
    &ATTACHED,
    &SHARE,
    &MEDIA,
    &NETWORK,
    &FORWARD,
    &CLOUD_INIT,
    &SSH,
    &DEPENDS_ON,
    &READY,
    &PROVISION,
    &CHECK,
    &STATE,
    &WARM,
    &super::LIFECYCLE,
    &LABELS,
];

/// What QEMU's default machines accept without further settings.
const MAX_VCPUS: u64 = 255;
/// 16 TiB in MiB: far beyond today's hosts, far below an overflow.
const MAX_MEMORY: u64 = 16 << 20;
/// 64 TiB in MiB: more than hosts of test machines have, and within what QCOW2 can address.
pub(super) const MAX_DISK: u64 = 64 << 20;

const PORT: Type = Type::Whole { low: 1, high: 65_535 };

pub(in super::super) const BACKENDS: [(&str, BackendTag); 3] =
    [("qemu", BackendTag::Qemu), ("propolis", BackendTag::Propolis), ("noop", BackendTag::Noop)];
pub(in super::super) static BACKEND: Shape = Shape {
    block: &[&SERVER, &BINARY, &BOOTROM, &API_VERSION, &POOL, &VNIC_LINK, &ZONE],
    default: "`\"qemu\"`",
    ..Shape::leaf(
        "backend",
        Type::Choice(&words(&BACKENDS)),
        "`backend \"qemu\"` or `backend \"propolis\" { bootrom \"OVMF_CODE.fd\"; }`",
        "The hypervisor that owns it: QEMU, [Propolis](providers/propolis.md) on illumos, or `noop`, a fake that only remembers. Its block is for Propolis",
    )
};
pub(in super::super) static SERVER: Shape = Shape {
    default: "vmctl starts one for the machine",
    ..Shape::leaf(
        "server",
        Type::Text,
        "`server \"127.0.0.1:12400\"`",
        "A propolis-server that somebody else runs, by its address and port. One server has one machine",
    )
};
pub(in super::super) static BINARY: Shape = Shape {
    default: "`propolis-server` of PATH",
    ..Shape::leaf(
        "binary",
        Type::Path,
        "`binary \"/opt/propolis/propolis-server\"`",
        "The program that vmctl starts as the machine's server",
    )
};
pub(in super::super) static BOOTROM: Shape = Shape {
    default: "required, unless there is a `server`",
    ..Shape::leaf(
        "bootrom",
        Type::Path,
        "`bootrom \"/opt/propolis/OVMF_CODE.fd\"`",
        "The UEFI image that the guest boots with: whole pages of 4 KiB, at most 2 MiB",
    )
};
pub(in super::super) static API_VERSION: Shape = Shape {
    default: "`\"1.0.0\"`",
    ..Shape::leaf(
        "api-version",
        Type::Text,
        "`api-version \"1.0.0\"`",
        "The version of the server's API that is spoken; newer servers take older versions",
    )
};
pub(in super::super) static POOL: Shape = Shape {
    default: "disks are files in the machine's folder",
    ..Shape::leaf(
        "pool",
        Type::Text,
        "`pool \"rpool/vms\"`",
        "The ZFS dataset under which the machine's disk is a volume, cloned from its image's",
    )
};
pub(in super::super) static VNIC_LINK: Shape = Shape {
    default: "the machine's vnics are there already",
    ..Shape::leaf(
        "vnic-link",
        Type::Text,
        "`vnic-link \"igb0\"`",
        "The link over which vmctl makes the machine's vnics, and removes them with it",
    )
};
pub(in super::super) static ZONE: Shape = Shape {
    props: &[
        Prop::new("link", Type::Text, "required", "The link over which the zone's control card is made"),
        Prop::new(
            "address",
            Type::Text,
            "required",
            "The address of that card, with the bits of its network: the server is reached there",
        ),
        Prop::new("port", PORT, "12400", "The port on which the server listens in its zone"),
    ],
    default: "the server runs beside vmctl",
    ..Shape::leaf(
        "zone",
        Type::Text,
        "`zone \"propolis\" link=\"stub0\" address=\"10.9.0.2/24\"`",
        "The server runs in a [zone](providers/propolis.md#zones) of the machine's own, cloned from this one. `bootrom` and `binary` are paths in it",
    )
};

const PIN: Prop =
    Prop::new("sha256", Type::Sha256, "any content", "The SHA-256 digest that the file must have");
pub(in super::super) static IMAGE: Shape = Shape {
    props: &[PIN],
    values: Values::OrReference,
    default: "required, unless there is a `kernel`",
    ..Shape::leaf(
        "image",
        Type::Path,
        "`image \"debian.qcow2\"`",
        "The disk image to start from, QCOW2 or raw, or `(ref)\"debian\"` for a [named one](#images); it is never written to. A QCOW2 image that refers to another file is refused",
    )
};
pub(in super::super) static IMAGE_URL: Shape = Shape {
    props: &[PIN],
    default: "none",
    ..Shape::leaf(
        "image-url",
        Type::Url,
        "`image-url \"file:///images/debian.qcow2\"`",
        "The image by its URL: `file`, `https`, `http` or `oci`; takes the place of `image`",
    )
};
pub(in super::super) static SHA256: Shape = Shape {
    default: "any content",
    ..Shape::leaf("sha256", Type::Sha256, "`sha256 \"…\"`", "The SHA-256 digest that the file must have")
};

pub(in super::super) const ARCHS: [(&str, Arch); 2] = [("x86_64", Arch::X86_64), ("aarch64", Arch::Aarch64)];
pub(in super::super) static ARCH: Shape = Shape {
    default: "the host's",
    ..Shape::leaf(
        "arch",
        Type::Choice(&words(&ARCHS)),
        "`arch \"aarch64\"`",
        "The processor that the guest is made for. One that is not the host's is emulated, and needs QEMU's package for it",
    )
};
pub(in super::super) const FIRMWARES: [(&str, Firmware); 2] =
    [("bios", Firmware::Bios), ("uefi", Firmware::Uefi)];
pub(in super::super) static FIRMWARE: Shape = Shape {
    default: "`\"bios\"`; of aarch64 `\"uefi\"`",
    ..Shape::leaf(
        "firmware",
        Type::Choice(&words(&FIRMWARES)),
        "`firmware \"uefi\"`",
        "What the guest boots with; `uefi` keeps [variables of the machine's own](hardware.md#uefi)",
    )
};
pub(in super::super) static KERNEL: Shape = Shape {
    default: "none: the guest boots from its disk",
    ..Shape::leaf(
        "kernel",
        Type::Path,
        "`kernel \"vmlinuz\"`",
        "A Linux kernel that is booted directly; a disk is not needed then",
    )
};
pub(in super::super) static INITRD: Shape = Shape {
    default: "none",
    ..Shape::leaf(
        "initrd",
        Type::Path,
        "`initrd \"initrd.img\"`",
        "The kernel's first root file system; needs `kernel`",
    )
};
pub(in super::super) static CMDLINE: Shape = Shape {
    default: "empty",
    ..Shape::leaf(
        "cmdline",
        Type::Text,
        "`cmdline \"console=ttyS0\"`",
        "The kernel's command line, one line; needs `kernel`",
    )
};
pub(in super::super) static MACHINE: Shape = Shape {
    default: "chosen by vmctl",
    ..Shape::leaf(
        "machine",
        Type::Text,
        "`machine \"q35\"`",
        "The [machine type](hardware.md#machine-types) by QEMU's name: letters, digits and `-._`",
    )
};
pub(in super::super) static CPU: Shape = Shape {
    default: "chosen by vmctl",
    ..Shape::leaf(
        "cpu",
        Type::Text,
        "`cpu \"host\"`",
        "The CPU model and its features by QEMU's names: letters, digits and `-._,+=`",
    )
};
pub(in super::super) const ACCELS: [(&str, AccelChoice); 3] =
    [("auto", AccelChoice::Auto), ("kvm", AccelChoice::Kvm), ("tcg", AccelChoice::Tcg)];
pub(in super::super) static ACCEL: Shape = Shape {
    default: "`\"auto\"`",
    ..Shape::leaf(
        "accel",
        Type::Choice(&words(&ACCELS)),
        "`accel \"tcg\"`",
        "How the guest's instructions run: `kvm` by the host's processor, `tcg` by translation, `auto` by KVM where it works",
    )
};
pub(in super::super) static VNC: Shape = Shape {
    props: &[Prop::new(
        "port",
        Type::Whole { low: 5900, high: 65_535 },
        "the first free one from 5900 on",
        "The port of the loopback",
    )],
    default: "on a private socket only",
    ..Shape::leaf(
        "vnc",
        Type::Choice(&["tcp"]),
        "`vnc \"tcp\" port=5910`",
        "Serves the [display](hardware.md#display) on the host's loopback as well, behind a password that `vmctl vnc` shows",
    )
};
pub(in super::super) static QEMU_ARG: Shape = Shape {
    args: Args::Many(Type::Text),
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "qemu-arg",
        Type::Text,
        "`qemu-arg \"-device\" \"virtio-rng-pci\"`",
        "Arguments that are passed on to QEMU as they are; vmctl knows nothing of what they do, and warns. Only with `backend \"qemu\"`",
    )
};

pub(in super::super) static VCPUS: Shape = Shape {
    default: "1",
    ..Shape::leaf("vcpus", Type::Whole { low: 1, high: MAX_VCPUS }, "`vcpus 2`", "Number of virtual CPUs")
};
pub(in super::super) static MEMORY: Shape = Shape {
    default: "1024",
    ..Shape::leaf(
        "memory",
        Type::Size { low: 16, high: MAX_MEMORY, unit: SizeUnit::Mega },
        "`memory 2048` or `memory \"2G\"`",
        "Memory of the guest",
    )
};
pub(in super::super) static DISK: Shape = Shape {
    default: "the image's size",
    ..Shape::leaf(
        "disk",
        Type::Size { low: 1, high: MAX_DISK, unit: SizeUnit::Giga },
        "`disk 20` or `disk \"20G\"`",
        "Size of the root disk, not less than the image's",
    )
};
pub(in super::super) static ATTACHED: Shape = Shape {
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "volume",
        Type::Name,
        "`volume \"data\"`",
        "A [volume](#volumes-shares-and-media) of the top level that belongs to it; a volume has one machine",
    )
};
/// How shares reach guests, as written.
pub(in super::super) const SHARE_DRIVERS: [(&str, ShareDriver); 2] =
    [("9p", ShareDriver::NineP), ("virtiofs", ShareDriver::Virtiofs)];
pub(in super::super) static SHARE: Shape = Shape {
    args: Args::Fixed { all: &[Type::Path, Type::Text, Type::Choice(&["readonly"])], needed: 2 },
    props: &[Prop::new(
        "driver",
        Type::Choice(&words(&SHARE_DRIVERS)),
        "`\"9p\"`",
        "How it reaches the guest: through QEMU, or through a virtiofsd of the host",
    )],
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "share",
        Type::Path,
        "`share \"./src\" \"/mnt/src\"`, `share \"./src\" \"/mnt/src\" readonly` or `share \"./src\" \"/mnt/src\" driver=\"virtiofs\"`",
        "A [folder of the host](#volumes-shares-and-media), and the absolute path at which the guest sees it; `readonly` keeps the guest from writing",
    )
};
pub(in super::super) static MEDIA: Shape = Shape {
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "media",
        Type::Path,
        "`media \"./tools.iso\"`",
        "A file of the host that the guest sees as a [disk which it can only read](#volumes-shares-and-media), such as an ISO image",
    )
};

/// The kinds of network as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum NetworkKind {
    User,
    Private,
    Tap,
    Vnic,
    None,
}

pub(in super::super) const NETWORKS: [(&str, NetworkKind); 5] = [
    ("user", NetworkKind::User),
    ("private", NetworkKind::Private),
    ("tap", NetworkKind::Tap),
    ("vnic", NetworkKind::Vnic),
    ("none", NetworkKind::None),
];
/// The word that takes the way out from a user network.
pub(in super::super) const ISOLATED: &str = "isolated";
pub(in super::super) static NETWORK: Shape = Shape {
    args: Args::Fixed { all: &[Type::Choice(&words(&NETWORKS)), Type::Choice(&[ISOLATED])], needed: 0 },
    props: &[
        Prop::new(
            "name",
            Type::Name,
            "required for `private` and `vnic`",
            "Name of the private [network](#networks), or of the vnic",
        ),
        Prop::new("address", Type::Address, "chosen by vmctl", "Its address in a `private` network"),
        Prop::new("bridge", Type::Text, "`\"br0\"` for `tap`", "The bridge of a `tap` network"),
    ],
    block: &[&NETWORK_NAME, &ADDRESS, &BRIDGE],
    repeats: true,
    default: "`\"user\"`",
    elsewhere: in_network,
    ..Shape::leaf(
        "network",
        Type::Text,
        "`network \"user\"`, `network \"user\" isolated`, `network \"private\" name=\"lan\"`, `network \"tap\" bridge=\"br0\"`, `network \"vnic\" name=\"vnic0\"` or `network \"none\"`",
        "A [network card](networks.md). `user`: out through the host, in by forwards, or only that where it is `isolated`; `private`: to other machines; `tap`: on a bridge of the host; `vnic`: of illumos; `none`: no card at all. Its options are properties, or nodes of its block",
    )
};
pub(in super::super) static NETWORK_NAME: Shape = Shape {
    default: "as of the property",
    ..Shape::leaf("name", Type::Name, "`name \"lan\"`", "The same as the property")
};
pub(in super::super) static ADDRESS: Shape = Shape {
    default: "as of the property",
    ..Shape::leaf("address", Type::Address, "`address \"10.77.0.10\"`", "The same as the property")
};
pub(in super::super) static BRIDGE: Shape = Shape {
    default: "as of the property",
    ..Shape::leaf("bridge", Type::Text, "`bridge \"br0\"`", "The same as the property")
};

pub(in super::super) const PROTOCOLS: [(&str, Protocol); 2] =
    [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
pub(in super::super) static FORWARD: Shape = Shape {
    args: Args::None,
    props: &[
        Prop::new(
            "host",
            Type::Whole { low: 0, high: 65_535 },
            "0",
            "Port of the host; 0 lets the kernel choose at each start, `vmctl status` shows it",
        ),
        Prop::new("guest", PORT, "required", "Port of the guest"),
        Prop::new("protocol", Type::Choice(&words(&PROTOCOLS)), "`\"tcp\"`", "Transport protocol"),
        Prop::new(
            "address",
            Type::Address,
            "`\"127.0.0.1\"`",
            "Address of the host to listen on; anything but a loopback address is warned about",
        ),
    ],
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "forward",
        Type::Text,
        "`forward host=8080 guest=80`",
        "A port of the host that leads to the guest; needs a `user` network. The one to the guest's sshd is added by vmctl, on a port of the kernel's choice",
    )
};

pub(in super::super) const UNTIL: [(&str, Until); 3] =
    [("started", Until::Started), ("ready", Until::Ready), ("provisioned", Until::Provisioned)];
pub(in super::super) static DEPENDS_ON: Shape = Shape {
    args: Args::Many(Type::Name),
    props: &[Prop::new(
        "until",
        Type::Choice(&words(&UNTIL)),
        "`\"provisioned\"`",
        "How far they must be: their process runs, they count as [ready](#ready), or all their steps are done",
    )],
    repeats: true,
    layers: Layers::Added,
    default: "none",
    ..Shape::leaf(
        "depends-on",
        Type::Name,
        "`depends-on \"db\" until=\"ready\"`",
        "Machines that come first, and go last; the name of a `vm` with a `count` means all of its machines. Cycles are errors",
    )
};

pub(in super::super) const POWERS: [(&str, Power); 3] =
    [("running", Power::Running), ("stopped", Power::Stopped), ("suspended", Power::Suspended)];
pub(in super::super) static STATE: Shape = Shape {
    default: "`\"running\"`",
    ..Shape::leaf(
        "state",
        Type::Choice(&words(&POWERS)),
        "`state \"stopped\"`",
        "Whether it runs, is off, or is [paused in memory](#power)",
    )
};

pub(in super::super) const WARMS: [(&str, WarmChoice); 3] =
    [("off", WarmChoice::Off), ("disk", WarmChoice::Disk), ("auto", WarmChoice::Auto)];
pub(in super::super) static WARM: Shape = Shape {
    default: "`\"off\"`",
    ..Shape::leaf(
        "warm",
        Type::Choice(&words(&WARMS)),
        "`warm \"auto\"`",
        "Whether it is kept as a [template](warm.md) once it is provisioned, so that the next one like it need not be provisioned, nor boot",
    )
};

pub(in super::super) static LABELS: Shape = Shape {
    named: Some(&LABEL),
    default: "none",
    ..Shape::branch(
        "labels",
        &[],
        "`labels { role \"web\" }`",
        "[Words](#labels-and-outputs) about it, for people and scripts",
    )
};
pub(in super::super) static LABEL: Shape = Shape {
    default: "none",
    ..Shape::leaf(
        "",
        Type::Scalar,
        "`role \"web\"`",
        "One label; its name is one line of text of your choice",
    )
};

pub(in super::super) const TCP_PORT: Type = PORT;
