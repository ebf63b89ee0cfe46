//! The top level: definitions, and the files that they stand in.

use super::misplaced::{in_definition, in_file, in_variable};
use super::{Args, Layers, Prop, SHA256, Shape, SizeUnit, Type, VM_BLOCK, Values};

pub(in super::super) static TOP: Shape = Shape {
    block: &[
        &PROJECT,
        &INCLUDE,
        &VARIABLE,
        &NAMED_IMAGE,
        &PRIVATE_NETWORK,
        &VOLUME,
        &DEFAULTS,
        &TEMPLATE,
        &VM,
        &OUTPUT,
        &MOVED,
        &REMOVED,
    ],
    elsewhere: in_file,
    ..Shape::branch("", &[], "", "")
};

pub(in super::super) static PROJECT: Shape = Shape {
    values: Values::Plain,
    default: "the name of the file's folder, other characters turned to `-`",
    ..Shape::leaf(
        "project",
        Type::Name,
        "`project \"shop\"`",
        "Namespace of the file's machines; `--project` and `VMCTL_PROJECT` override it. Not in an included file",
    )
};

pub(in super::super) static INCLUDE: Shape = Shape {
    values: Values::Plain,
    repeats: true,
    default: "none",
    ..Shape::leaf(
        "include",
        Type::Path,
        "`include \"vms/web.kdl\"`",
        "[Everything that stands in another file](#several-files), as if it stood here; paths in it are relative to its own folder",
    )
};

pub(in super::super) const VARIABLE_TYPES: [(&str, VariableType); 3] =
    [("text", VariableType::Text), ("number", VariableType::Number), ("bool", VariableType::Bool)];

/// What a variable holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum VariableType {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// `#true` or `#false`.
    Bool,
}

pub(in super::super) static VARIABLE: Shape = Shape {
    block: &[&VARIABLE_TYPE, &VARIABLE_DEFAULT, &ONE_OF, &DESCRIPTION, &SENSITIVE],
    repeats: true,
    values: Values::Plain,
    elsewhere: in_variable,
    default: "none",
    ..Shape::leaf(
        "variable",
        Type::Name,
        "`variable \"size\" { default 2048 }`",
        "A [value from outside](#variables), used as `(var)\"size\"`",
    )
};
pub(in super::super) static VARIABLE_TYPE: Shape = Shape {
    values: Values::Plain,
    default: "that of `default`, else of `one-of`, else `\"text\"`",
    ..Shape::leaf(
        "type",
        Type::Choice(&super::words(&VARIABLE_TYPES)),
        "`type \"number\"`",
        "What it holds: a text, a whole number, or `#true` or `#false`",
    )
};
pub(in super::super) static VARIABLE_DEFAULT: Shape = Shape {
    values: Values::Plain,
    default: "none: a value must be given",
    ..Shape::leaf("default", Type::Scalar, "`default 2048`", "Its value where none is given; of its type")
};
pub(in super::super) static ONE_OF: Shape = Shape {
    args: Args::Many(Type::Scalar),
    values: Values::Plain,
    default: "any value",
    ..Shape::leaf(
        "one-of",
        Type::Scalar,
        "`one-of 1024 2048 4096`",
        "The values that it may have; of its type",
    )
};
pub(in super::super) static DESCRIPTION: Shape = Shape {
    default: "none",
    ..Shape::leaf(
        "description",
        Type::Text,
        "`description \"…\"`",
        "What it is for; told where a value is missing",
    )
};
pub(in super::super) static SENSITIVE: Shape = Shape {
    values: Values::Plain,
    ..Shape::flag(
        "sensitive",
        "`sensitive`",
        "Its value, a text of at least 4 characters, is hidden in everything that vmctl prints",
    )
};

/// A file of values for variables.
pub(in super::super) static VALUES: Shape = Shape { named: Some(&VALUE), ..Shape::branch("", &[], "", "") };
pub(in super::super) static VALUE: Shape = Shape {
    values: Values::Plain,
    ..Shape::leaf("", Type::Scalar, "`size 4096`, a line for each variable", "The value of a variable")
};

pub(in super::super) static NAMED_IMAGE: Shape = Shape {
    args: Args::One(Type::Name),
    values: Values::Plain,
    repeats: true,
    elsewhere: in_definition,
    default: "none",
    ..Shape::branch(
        "image",
        &[&IMAGE_PATH, &URL, &SHA256],
        "`image \"debian\" { path \"debian.qcow2\" }`",
        "An [image with a name](#images), used as `image (ref)\"debian\"`",
    )
};
pub(in super::super) static IMAGE_PATH: Shape = Shape {
    default: "this or `url` is required",
    ..Shape::leaf(
        "path",
        Type::Path,
        "`path \"debian.qcow2\"`",
        "Its path on this host, as of `image` in a `vm`",
    )
};
pub(in super::super) static URL: Shape = Shape {
    default: "this or `path` is required",
    ..Shape::leaf("url", Type::Url, "`url \"https://…\"`", "Its URL, as of `image-url` in a `vm`")
};

pub(in super::super) static PRIVATE_NETWORK: Shape = Shape {
    args: Args::One(Type::Name),
    values: Values::Plain,
    repeats: true,
    elsewhere: in_definition,
    default: "none",
    ..Shape::branch(
        "network",
        &[&SUBNET],
        "`network \"lan\" { subnet \"10.77.0.0/24\" }`",
        "A [network between machines](#networks) of the project, used as `network \"private\" name=\"lan\"`",
    )
};
pub(in super::super) static SUBNET: Shape = Shape {
    default: "chosen by vmctl",
    ..Shape::leaf(
        "subnet",
        Type::Subnet,
        "`subnet \"10.77.0.0/24\"`",
        "Its range of addresses, /8 to /29, within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16; ranges do not overlap",
    )
};

pub(in super::super) static VOLUME: Shape = Shape {
    args: Args::One(Type::Name),
    values: Values::Plain,
    props: &[Prop::new(
        "size",
        Type::Size { low: 1, high: super::MAX_DISK, unit: SizeUnit::Giga },
        "required",
        "Size of the disk",
    )],
    repeats: true,
    elsewhere: in_definition,
    default: "none",
    ..Shape::branch(
        "volume",
        &[&super::PREVENT_DESTROY],
        "`volume \"data\" size=\"10G\"`",
        "A [disk that survives](#volumes-shares-and-media) its machine, used as `volume \"data\"` in a `vm`",
    )
};

pub(in super::super) static DEFAULTS: Shape = Shape {
    elsewhere: super::misplaced::in_vm,
    default: "none",
    ..Shape::branch(
        "defaults",
        VM_BLOCK,
        "`defaults { memory 2048 }`",
        "What holds for [every machine](#layers) that does not say otherwise; at most once",
    )
};
pub(in super::super) static TEMPLATE: Shape = Shape {
    args: Args::One(Type::Name),
    values: Values::Plain,
    props: &[EXTENDS],
    repeats: true,
    elsewhere: super::misplaced::in_vm,
    default: "none",
    ..Shape::branch(
        "template",
        VM_BLOCK,
        "`template \"base\" { memory 2048 }`",
        "What holds for every machine that [names it](#layers) and does not say otherwise",
    )
};
const EXTENDS: Prop =
    Prop::new("template", Type::Name, "none", "Name of the template that it is made of").plain();

/// Machines that one `vm` may stand for.
pub(in super::super) const MAX_COUNT: u64 = 10_000;

pub(in super::super) static VM: Shape = Shape {
    args: Args::One(Type::Name),
    props: &[
        EXTENDS,
        Prop::new(
            "count",
            Type::Whole { low: 0, high: MAX_COUNT },
            "one machine, with the name as it is",
            "How [many machines](#several-machines-of-one-block) it stands for: `web-1`, `web-2` and so on",
        ),
    ],
    repeats: true,
    elsewhere: super::misplaced::in_vm,
    default: "required, unless a machine is `removed`",
    ..Shape::branch("vm", VM_BLOCK, "`vm \"web\" { image \"debian.qcow2\" }`", "A machine, or several alike")
};

pub(in super::super) static OUTPUT: Shape = Shape {
    args: Args::Fixed { all: &[Type::Name, Type::Text], needed: 2 },
    repeats: true,
    elsewhere: in_definition,
    default: "none",
    ..Shape::branch(
        "output",
        &[&DESCRIPTION],
        "`output \"url\" (template)\"http://{{ vm.web.host }}:{{ vm.web.port.80 }}\"`",
        "A [text about the machines](#labels-and-outputs) that run, for people and scripts",
    )
};

pub(in super::super) static MOVED: Shape = Shape {
    args: Args::None,
    props: &[
        Prop::new("from", Type::Name, "required", "Its name until now").plain(),
        Prop::new("to", Type::Name, "required", "Its name from now on").plain(),
    ],
    repeats: true,
    values: Values::Plain,
    layers: Layers::Nearest,
    default: "none",
    ..Shape::leaf(
        "moved",
        Type::Name,
        "`moved from=\"web\" to=\"www\"`",
        "A machine got [another name](#renaming-and-letting-go)",
    )
};
pub(in super::super) static REMOVED: Shape = Shape {
    repeats: true,
    values: Values::Plain,
    default: "none",
    ..Shape::leaf(
        "removed",
        Type::Name,
        "`removed \"web\"`",
        "A machine that is [let go of](#renaming-and-letting-go), and not destroyed",
    )
};
