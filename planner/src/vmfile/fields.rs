//! Reads nodes by their shape: unknown, repeated and surplus parts are told in one place, values are typed.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use miette::SourceSpan;

use super::ast::Spanned;
use super::lex::is_forbidden;
use super::readiness::PatternFault;
use super::report::Fault;
use super::source::{Node, Scalar, Value};
use super::suggest::{did_you_mean, list};

/// What a node may consist of.
pub(super) struct Shape {
    /// How it is written, for help texts.
    pub(super) usage: &'static str,
    /// Arguments at most.
    pub(super) args: usize,
    /// Properties.
    pub(super) props: &'static [&'static str],
    /// Nodes of its block; without any it has no block.
    pub(super) block: &'static [&'static str],
    /// Those of them that may be repeated.
    pub(super) repeatable: &'static [&'static str],
    /// What to say of a child that is known elsewhere.
    pub(super) elsewhere: fn(&str) -> Option<String>,
}

impl Shape {
    /// A node with one argument and nothing else.
    pub(super) const fn leaf(usage: &'static str) -> Self {
        Self { usage, args: 1, props: &[], block: &[], repeatable: &[], elsewhere: |_| None }
    }
}

/// The parts of a node that fit its shape.
pub(super) struct Parts<'n> {
    pub(super) node: &'n Node,
    pub(super) args: &'n [Value],
    /// Nothing was wrong with the node's shape; if something was, what is missing is not worth telling.
    pub(super) sound: bool,
    props: HashMap<&'n str, &'n Value>,
    children: Vec<&'n Node>,
}

impl<'n> Parts<'n> {
    pub(super) fn prop(&self, name: &str) -> Option<&'n Value> {
        self.props.get(name).copied()
    }

    pub(super) fn child(&self, name: &str) -> Option<&'n Node> {
        self.children.iter().copied().find(|node| node.name.value == name)
    }

    /// The nodes of its block, in the order of the text.
    pub(super) fn block(&self) -> &[&'n Node] {
        &self.children
    }

    pub(super) fn children(&self, name: &str) -> impl Iterator<Item = &'n Node> {
        self.children.iter().copied().filter(move |node| node.name.value == name)
    }
}

/// Collects faults while nodes are read.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) faults: Vec<Fault>,
    /// What is wrong with each pattern seen, if anything: machines of one kind wait for the same words.
    pub(super) patterns: HashMap<String, Option<PatternFault>>,
}

impl Fields {
    pub(super) fn tell(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Splits `node` by `shape` and tells everything that does not fit.
    pub(super) fn open<'n>(&mut self, node: &'n Node, shape: &Shape) -> Parts<'n> {
        let faults = self.faults.len();
        self.no_annotation(node.annotation);
        for value in node.args.iter().chain(node.props.iter().map(|(_, value)| value)) {
            self.no_annotation(value.annotation);
        }
        let name = &node.name.value;
        let (args, surplus) = node.args.split_at(shape.args.min(node.args.len()));
        if let Some(first) = surplus.first() {
            let message = match shape.args {
                0 => format!("`{name}` takes no value"),
                1 => format!("`{name}` takes one value"),
                count => format!("`{name}` takes at most {count} values"),
            };
            let mut fault = Fault::error("vmfile::surplus", message).at(first.span, "one too many");
            if let Some(Scalar::Text(word)) = surplus.first().map(|value| &value.scalar)
                && shape.block.contains(&word.as_str())
            {
                fault = fault.help(format!("nodes of a block stand on lines of their own: {}", shape.usage));
            } else {
                fault = fault.help(format!("write {}", shape.usage));
            }
            self.tell(fault);
        }
        let (props, children) = (self.props(node, shape), self.block(node, shape));
        Parts { node, args, sound: self.faults.len() == faults, props, children }
    }

    /// Reads the nodes of `nodes`, which stand in `place`, by the rules of a block.
    pub(super) fn known<'n>(&mut self, nodes: &'n [Node], place: &str, shape: &Shape) -> Vec<&'n Node> {
        let mut first: HashMap<&str, SourceSpan> = HashMap::new();
        let mut kept = Vec::new();
        for node in nodes {
            let name = node.name.value.as_str();
            if !shape.block.contains(&name) {
                let plain = name.trim_end_matches(':');
                let help = if plain != name && shape.block.contains(&plain) {
                    format!("write `{plain}` without the colon")
                } else {
                    (shape.elsewhere)(name).unwrap_or_else(|| did_you_mean(name, shape.block))
                };
                self.tell(
                    Fault::error("vmfile::unknown-node", format!("unknown node `{}` {place}", shorten(name)))
                        .at(node.name.span, "not known here")
                        .help(help),
                );
            } else if shape.repeatable.contains(&name) {
                kept.push(node);
            } else if let Some(earlier) = first.get(name) {
                self.tell(
                    Fault::error("vmfile::duplicate", format!("`{name}` is written twice {place}"))
                        .at(node.name.span, "again here")
                        .at(*earlier, "first here")
                        .help("keep one of them"),
                );
            } else {
                first.insert(name, node.name.span);
                kept.push(node);
            }
        }
        kept
    }

    fn block<'n>(&mut self, node: &'n Node, shape: &Shape) -> Vec<&'n Node> {
        let Some(children) = &node.children else { return Vec::new() };
        let name = &node.name.value;
        if shape.block.is_empty() {
            // An empty block says nothing and harms nothing, as in `ssh { }`.
            if let Some(child) = children.first() {
                self.tell(
                    Fault::error("vmfile::surplus", format!("`{name}` takes no block"))
                        .at(child.name.span, "not known here")
                        .help(format!("write {}", shape.usage)),
                );
            }
            return Vec::new();
        }
        self.known(children, &format!("in `{name}`"), shape)
    }

    fn props<'n>(&mut self, node: &'n Node, shape: &Shape) -> HashMap<&'n str, &'n Value> {
        let mut kept: HashMap<&str, (&Value, SourceSpan)> = HashMap::new();
        let name = &node.name.value;
        for (key, value) in &node.props {
            let word = key.value.as_str();
            if !shape.props.contains(&word) {
                let help = if shape.block.contains(&word) {
                    format!(
                        "`{word}` is no property: write it on a line of its own, in the block of `{name}`"
                    )
                } else if shape.props.is_empty() {
                    format!("write {}", shape.usage)
                } else {
                    did_you_mean(word, shape.props)
                };
                let message = format!("unknown property `{}` of `{name}`", shorten(word));
                self.tell(
                    Fault::error("vmfile::unknown-property", message)
                        .at(key.span, "not known here")
                        .help(help),
                );
            } else if let Some((_, earlier)) = kept.get(word) {
                self.tell(
                    Fault::error("vmfile::duplicate", format!("the property `{word}` is written twice"))
                        .at(key.span, "again here")
                        .at(*earlier, "first here")
                        .help("keep one of them"),
                );
            } else {
                kept.insert(word, (value, key.span));
            }
        }
        kept.into_iter().map(|(word, (value, _))| (word, value)).collect()
    }

    fn no_annotation(&mut self, span: Option<SourceSpan>) {
        if let Some(span) = span {
            self.tell(
                Fault::error("vmfile::unsupported", "type annotations are not yet supported")
                    .at(span, "type annotation")
                    .help("remove the parentheses and what is in them"),
            );
        }
    }

    /// The one argument of a leaf node; told if it is missing.
    pub(super) fn only_value<'n>(&mut self, parts: &Parts<'n>, shape: &Shape) -> Option<&'n Value> {
        let value = parts.args.first();
        if value.is_none() && parts.sound {
            let name = &parts.node.name;
            self.tell(
                Fault::error("vmfile::missing", format!("`{}` has no value", name.value))
                    .at(name.span, "a value must follow")
                    .help(format!("write {}", shape.usage)),
            );
        }
        value
    }

    /// The text of a leaf node.
    pub(super) fn leaf_text(&mut self, node: &Node, shape: &Shape) -> Option<Spanned<String>> {
        let parts = self.open(node, shape);
        let value = self.only_value(&parts, shape)?;
        self.text(&node.name.value, value, shape.usage)
    }

    /// A text that is not empty and has no NUL.
    pub(super) fn text(&mut self, name: &str, value: &Value, usage: &str) -> Option<Spanned<String>> {
        let Scalar::Text(text) = &value.scalar else {
            let message = format!("`{name}` takes a text, not {}", describe(value));
            let fault = Fault::error("vmfile::wrong-type", message).at(value.span, "not a text");
            self.tell(fault.help(format!("write {usage}")));
            return None;
        };
        if text.trim().is_empty() {
            let fault =
                Fault::error("vmfile::missing", format!("`{name}` is empty")).at(value.span, "nothing here");
            self.tell(fault.help(format!("write {usage}, or remove it")));
            return None;
        }
        if text.contains('\0') {
            let message = format!("`{name}` contains a NUL character");
            let fault = Fault::error("vmfile::bad-value", message).at(value.span, "written as `\\u{0}`");
            self.tell(fault.help("remove it; no path, name or script can contain one"));
            return None;
        }
        Some(Spanned { value: text.clone(), span: value.span })
    }

    /// A whole number within `range`; `unit` is what it counts.
    pub(super) fn whole(
        &mut self,
        name: &str,
        value: &Value,
        range: RangeInclusive<u64>,
        unit: Unit,
    ) -> Option<Spanned<u64>> {
        let (low, high) = (*range.start(), *range.end());
        let example = unit.example;
        let Scalar::Integer(written) = value.scalar else {
            if value.annotation.is_some() {
                return None;
            }
            let message = format!("`{name}` takes a whole number{}, not {}", unit.counted(), describe(value));
            let later = if unit.is_size { "; sizes with units come in a later release" } else { "" };
            let help = format!("write a number from {low} to {high}, such as `{example}`{later}");
            self.tell(
                Fault::error("vmfile::wrong-type", message).at(value.span, "not a whole number").help(help),
            );
            return None;
        };
        let number = u64::try_from(written).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let unit = if unit.name.is_empty() { String::new() } else { format!(" {}", unit.name) };
            let message = format!("`{name}` must be {low} to {high}{unit}, not {written}");
            let fault = Fault::error("vmfile::out-of-range", message).at(value.span, "out of range");
            self.tell(fault.help(format!("for example `{example}`")));
        }
        number.map(|number| Spanned { value: number, span: value.span })
    }

    /// `#true` or `#false`.
    pub(super) fn truth(&mut self, name: &str, value: &Value, usage: &str) -> Option<bool> {
        let Scalar::Bool(truth) = value.scalar else {
            let message = format!("`{name}` takes #true or #false, not {}", describe(value));
            let fault = Fault::error("vmfile::wrong-type", message).at(value.span, "neither of them");
            self.tell(fault.help(format!("write {usage}")));
            return None;
        };
        Some(truth)
    }

    /// One word of a table.
    pub(super) fn choice<T: Copy>(
        &mut self,
        what: &str,
        text: &Spanned<String>,
        table: &[(&'static str, T)],
    ) -> Option<Spanned<T>> {
        if let Some((_, value)) = table.iter().find(|(word, _)| *word == text.value) {
            return Some(Spanned { value: *value, span: text.span });
        }
        let words: Vec<_> = table.iter().map(|(word, _)| *word).collect();
        let message = format!("unknown {what} `{}`", shorten(&text.value));
        let all = list(&words, "or");
        let help = match super::suggest::nearest(&text.value, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? It is one of {all}"),
            None => format!("write one of {all}"),
        };
        self.tell(Fault::error("vmfile::bad-value", message).at(text.span, "not known").help(help));
        None
    }
}

/// What a number counts, for messages.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    /// `MB`, or nothing.
    pub(super) name: &'static str,
    /// A valid node.
    pub(super) example: &'static str,
    /// Whether people may try to write it with a unit.
    pub(super) is_size: bool,
}

impl Unit {
    fn counted(self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" of {}", self.name) }
    }
}

/// A value as messages name it.
pub(super) fn describe(value: &Value) -> String {
    match &value.scalar {
        Scalar::Text(text) => format!("the text \"{}\"", shorten(&text.escape_default().to_string())),
        Scalar::Integer(number) => format!("the number {number}"),
        Scalar::Float(number) => format!("the fraction {number:?}"),
        Scalar::Bool(true) => "#true".to_owned(),
        Scalar::Bool(false) => "#false".to_owned(),
        Scalar::Null => "#null".to_owned(),
    }
}

/// A text of the user, fit for one line of a message.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    cut(text, SHOWN)
}

/// A path, whole and fit for one line of a message.
pub(super) fn whole_path(path: &std::path::Path) -> String {
    // `PATH_MAX`: what is longer names no file.
    const SHOWN: usize = 4096;
    cut(&path.display().to_string(), SHOWN)
}

fn cut(text: &str, length: usize) -> String {
    let printable = |c: char| if c.is_control() || is_forbidden(c) { '\u{fffd}' } else { c };
    let clean: String = text.chars().map(printable).take(length).collect();
    if text.chars().nth(length).is_some() { format!("{clean}…") } else { clean }
}
