//! The grammar: one table of nodes, values, defaults and ranges. The parser reads by it, and the reference, the schema
//! for editors and the order of `fmt` are made from it.

mod file;
mod guest;
mod machine;
mod misplaced;

use std::fmt;
use std::time::Duration;

pub(super) use file::*;
pub(super) use guest::*;
pub(super) use machine::*;

pub(super) const NAME_HELP: &str = "a name has letters, digits, `-`, `_` and `.`, begins and ends with a letter or digit, and has at most 63 characters";

/// The nodes of the top level.
pub fn top() -> &'static Shape {
    &TOP
}

/// What a node may consist of.
#[derive(Debug)]
pub struct Shape {
    /// Its name; empty for a file and for nodes that the user names.
    pub name: &'static str,
    /// What it means, in Markdown, without an end mark.
    pub about: &'static str,
    /// How it is written.
    pub usage: &'static str,
    /// Its arguments.
    pub args: Args,
    /// What holds where it is not written, in Markdown.
    pub default: &'static str,
    /// Its properties.
    pub props: &'static [Prop],
    /// Nodes of its block, in their canonical order.
    pub block: &'static [&'static Shape],
    /// Nodes of its block that the user names.
    pub named: Option<&'static Shape>,
    /// It may be written several times in one block.
    pub repeats: bool,
    /// The order of the nodes in its block has a meaning across their names.
    pub is_ordered: bool,
    /// How it comes from several layers of a machine.
    pub layers: Layers,
    /// Whether its values may be taken from variables and the like.
    pub values: Values,
    /// What to say of a node in its block that is known elsewhere.
    pub(super) elsewhere: fn(&str) -> Option<String>,
}

impl Shape {
    /// A node with one argument and nothing else.
    const fn leaf(name: &'static str, kind: Type, usage: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            usage,
            args: Args::One(kind),
            default: "",
            props: &[],
            block: &[],
            named: None,
            repeats: false,
            is_ordered: false,
            layers: Layers::Nearest,
            values: Values::Any,
            elsewhere: |_| None,
        }
    }

    /// A node that is true by being there, or says whether.
    const fn flag(name: &'static str, usage: &'static str, about: &'static str) -> Self {
        Self {
            args: Args::Optional(Type::Truth),
            default: "`#false`",
            ..Self::leaf(name, Type::Truth, usage, about)
        }
    }

    /// A node with a block and nothing else, merged node by node.
    const fn branch(
        name: &'static str,
        block: &'static [&'static Self],
        usage: &'static str,
        about: &'static str,
    ) -> Self {
        Self { args: Args::None, block, layers: Layers::Merged, ..Self::leaf(name, Type::Text, usage, about) }
    }

    /// The node `name` of its block.
    pub fn child(&self, name: &str) -> Option<&'static Self> {
        self.block.iter().copied().find(|shape| shape.name == name).or(self.named)
    }

    /// The names of the nodes of its block.
    pub fn names(&self) -> Vec<&'static str> {
        self.block.iter().map(|shape| shape.name).collect()
    }

    /// The property `name`.
    pub fn prop(&self, name: &str) -> Option<&'static Prop> {
        self.props.iter().find(|prop| prop.name == name)
    }

    /// Whether it has a block.
    pub fn has_block(&self) -> bool {
        !self.block.is_empty() || self.named.is_some()
    }
}

/// A property of a node.
#[derive(Debug)]
pub struct Prop {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Type,
    /// What it means, in Markdown, without an end mark.
    pub about: &'static str,
    /// What holds where it is not written, in Markdown.
    pub default: &'static str,
    /// Whether its value may be taken from variables and the like.
    pub values: Values,
}

impl Prop {
    const fn new(name: &'static str, kind: Type, default: &'static str, about: &'static str) -> Self {
        Self { name, kind, about, default, values: Values::Any }
    }

    const fn plain(self) -> Self {
        Self { values: Values::Plain, ..self }
    }
}

/// The arguments of a node.
#[derive(Debug, Clone, Copy)]
pub enum Args {
    /// None at all.
    None,
    /// One.
    One(Type),
    /// One, or none.
    Optional(Type),
    /// At least one.
    Many(Type),
    /// Several of different types, of which the first ones are needed.
    Fixed {
        /// All of them.
        all: &'static [Type],
        /// How many are needed.
        needed: usize,
    },
}

impl Args {
    /// How many there are at most.
    pub fn most(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(_) | Self::Optional(_) => 1,
            Self::Many(_) => usize::MAX,
            Self::Fixed { all, .. } => all.len(),
        }
    }

    /// How many there are at least.
    pub fn least(&self) -> usize {
        match self {
            Self::None | Self::Optional(_) => 0,
            Self::One(_) | Self::Many(_) => 1,
            Self::Fixed { needed, .. } => *needed,
        }
    }

    /// The type of each argument; the last one stands for all further ones.
    pub fn types(&self) -> &[Type] {
        match self {
            Self::None => &[],
            Self::One(kind) | Self::Optional(kind) | Self::Many(kind) => std::slice::from_ref(kind),
            Self::Fixed { all, .. } => all,
        }
    }
}

/// How a node comes from several layers of a machine: `defaults`, its templates, its own block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// The nearest layer that has any takes the place of all others.
    Nearest,
    /// The nodes of its blocks are merged by the same rules.
    Merged,
    /// All of them count, those of the farthest layer first.
    Added,
}

/// Where values may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// From variables, the environment and templates.
    Any,
    /// From those, and from a named definition.
    OrReference,
    /// They stand there as they are.
    Plain,
}

/// What a value can be.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    /// A text, not empty.
    Text,
    /// A text or a number or a truth value.
    Scalar,
    /// A name by the grammar of names.
    Name,
    /// A path; a relative one is relative to the file that it is written in.
    Path,
    /// A URL.
    Url,
    /// 64 hexadecimal digits.
    Sha256,
    /// A regular expression.
    Pattern,
    /// `#true` or `#false`.
    Truth,
    /// A whole number.
    Whole {
        /// The least.
        low: u64,
        /// The greatest.
        high: u64,
    },
    /// A whole number of `unit`, or a text with a unit.
    Size {
        /// The least, in MiB.
        low: u64,
        /// The greatest, in MiB.
        high: u64,
        /// What a number without a unit counts.
        unit: SizeUnit,
    },
    /// A text of numbers and units.
    Duration {
        /// The shortest.
        low: Duration,
        /// The longest.
        high: Duration,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An IPv4 address.
    Address,
    /// An IPv4 network such as `10.77.0.0/24`.
    Subnet,
    /// Permission bits in octal digits.
    Mode,
}

/// What a size without a unit counts. Both are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeUnit {
    /// 2^20 bytes.
    Mega,
    /// 2^30 bytes.
    Giga,
}

impl SizeUnit {
    /// The unit as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mega => "MB",
            Self::Giga => "GB",
        }
    }

    /// How many MiB one is.
    pub(super) fn mebibytes(self) -> u64 {
        match self {
            Self::Mega => 1,
            Self::Giga => 1 << 10,
        }
    }
}

/// In words, for the reference: "whole number, 1 to 255".
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Scalar => f.write_str("text, number, `#true` or `#false`"),
            Self::Name => f.write_str("name"),
            Self::Path => f.write_str("path"),
            Self::Url => f.write_str("URL"),
            Self::Sha256 => f.write_str("64 hexadecimal digits"),
            Self::Pattern => f.write_str("regular expression"),
            Self::Truth => f.write_str("`#true` or `#false`"),
            Self::Whole { low, high } => write!(f, "whole number, {low} to {high}"),
            Self::Size { low, high, unit } => {
                write!(f, "size, {} to {}; a number alone is in {}", shown(*low), shown(*high), unit.as_str())
            }
            Self::Duration { low, high } => {
                write!(
                    f,
                    "duration, `{}` to `{}`",
                    super::duration::shown(*low),
                    super::duration::shown(*high)
                )
            }
            Self::Choice(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
                f.write_str(&quoted.join(", "))
            }
            Self::Address => f.write_str("IPv4 address"),
            Self::Subnet => f.write_str("IPv4 network"),
            Self::Mode => f.write_str("permission bits, `\"0\"` to `\"7777\"`"),
        }
    }
}

/// A size in MiB with the greatest unit that it is a whole number of.
pub(super) fn shown(mebibytes: u64) -> String {
    match mebibytes {
        0 => "0".to_owned(),
        size if size % (1 << 20) == 0 => format!("{}T", size >> 20),
        size if size % (1 << 10) == 0 => format!("{}G", size >> 10),
        size => format!("{size}M"),
    }
}

/// The words of a table.
const fn words<T: Copy, const N: usize>(table: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut at = 0;
    while at < N {
        words[at] = table[at].0;
        at += 1;
    }
    words
}
