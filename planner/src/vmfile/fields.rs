//! Reads the values of nodes that fit the grammar: typed, within their ranges, told where they are not.

use std::collections::HashMap;

use super::ast::{Node, Scalar, Spanned, Value};
use super::grammar::{Args, Shape, Type, shown};
use super::lex::is_forbidden;
use super::readiness::PatternFault;
use super::report::Fault;
use super::size;
use super::suggest::list;

/// The parts of a node.
pub(super) struct Parts<'n> {
    pub(super) node: &'n Node,
    pub(super) args: &'n [Value],
    /// Nothing was wrong with the node's shape; if something was, what is missing is not worth telling.
    pub(super) sound: bool,
}

impl<'n> Parts<'n> {
    pub(super) fn of(node: &'n Node) -> Self {
        Self { node, args: &node.args, sound: node.sound }
    }

    pub(super) fn prop(&self, name: &str) -> Option<&'n Value> {
        self.node.props.iter().find(|(key, _)| key.value == name).map(|(_, value)| value)
    }

    pub(super) fn child(&self, name: &str) -> Option<&'n Node> {
        self.block().iter().find(|node| node.name.value == name)
    }

    /// The nodes of its block, in the order of the text.
    pub(super) fn block(&self) -> &'n [Node] {
        self.node.children.as_deref().unwrap_or_default()
    }

    pub(super) fn children(&self, name: &str) -> impl Iterator<Item = &'n Node> {
        self.block().iter().filter(move |node| node.name.value == name)
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
        let value = self.only_value(&Parts::of(node), shape)?;
        self.text(&node.name.value, value, shape.usage)
    }

    /// A text that is not empty and has no NUL. A number or truth value from elsewhere is its text.
    pub(super) fn text(&mut self, name: &str, value: &Value, usage: &str) -> Option<Spanned<String>> {
        let text = match &value.scalar {
            Scalar::Text(text) => text.clone(),
            Scalar::Integer(number) if value.origin.is_some() => number.to_string(),
            Scalar::Bool(truth) if value.origin.is_some() => truth.to_string(),
            Scalar::Integer(_) | Scalar::Float(_) | Scalar::Bool(_) | Scalar::Null => {
                let message = format!("`{name}` takes a text, not {}", describe(value));
                let fault = at(Fault::error("vmfile::wrong-type", message), value, "not a text");
                self.tell(fault.help(format!("write {usage}")));
                return None;
            }
        };
        if text.trim().is_empty() {
            let fault =
                at(Fault::error("vmfile::missing", format!("`{name}` is empty")), value, "nothing here");
            self.tell(fault.help(format!("write {usage}, or remove it")));
            return None;
        }
        if text.contains('\0') {
            let message = format!("`{name}` contains a NUL character");
            let fault = at(Fault::error("vmfile::bad-value", message), value, "written as `\\u{0}`");
            self.tell(fault.help("remove it; no path, name or script can contain one"));
            return None;
        }
        Some(Spanned { value: text, span: value.span })
    }

    /// A text, number or truth value, as text.
    pub(super) fn scalar_text(&mut self, name: &str, value: &Value, usage: &str) -> Option<Spanned<String>> {
        let text = match &value.scalar {
            Scalar::Integer(number) => number.to_string(),
            Scalar::Bool(truth) => truth.to_string(),
            Scalar::Text(text) if text.is_empty() => String::new(),
            Scalar::Text(_) => return self.text(name, value, usage),
            Scalar::Float(_) | Scalar::Null => {
                let message = format!(
                    "`{name}` takes a text, a whole number, #true or #false, not {}",
                    describe(value)
                );
                let fault = at(Fault::error("vmfile::wrong-type", message), value, "none of them");
                self.tell(fault.help("write it in quotation marks"));
                return None;
            }
        };
        Some(Spanned { value: text, span: value.span })
    }

    /// The whole number of the leaf node `node`, within the range of `shape`.
    pub(super) fn leaf_whole(&mut self, node: &Node, shape: &Shape) -> Option<Spanned<u64>> {
        let value = self.only_value(&Parts::of(node), shape)?;
        let Args::One(kind) = shape.args else { return None };
        self.whole(shape.name, value, kind, shape.usage)
    }

    /// A whole number within the range of `kind`.
    pub(super) fn whole(
        &mut self,
        name: &str,
        value: &Value,
        kind: Type,
        usage: &str,
    ) -> Option<Spanned<u64>> {
        let Type::Whole { low, high } = kind else { return None };
        let written = match &value.scalar {
            Scalar::Integer(number) => Some(*number),
            Scalar::Text(text) if is_loose(value) => text.trim().parse().ok(),
            Scalar::Text(_) | Scalar::Float(_) | Scalar::Bool(_) | Scalar::Null => None,
        };
        let Some(written) = written else {
            let message = format!("`{name}` takes a whole number, not {}", describe(value));
            let fault = at(Fault::error("vmfile::wrong-type", message), value, "not a whole number");
            self.tell(fault.help(format!("write a number from {low} to {high}, such as {usage}")));
            return None;
        };
        let number = u64::try_from(written).ok().filter(|number| (low..=high).contains(number));
        if number.is_none() {
            let message = format!("`{name}` must be {low} to {high}, not {written}");
            let fault = at(Fault::error("vmfile::out-of-range", message), value, "out of range");
            self.tell(fault.help(format!("for example {usage}")));
        }
        number.map(|number| Spanned { value: number, span: value.span })
    }

    /// The size of the leaf node `node` in MiB, within the range of `shape`.
    pub(super) fn leaf_size(&mut self, node: &Node, shape: &Shape) -> Option<Spanned<u64>> {
        let value = self.only_value(&Parts::of(node), shape)?;
        let Args::One(kind) = shape.args else { return None };
        self.size(shape.name, value, kind, shape.usage)
    }

    /// A size in MiB within the range of `kind`: a number of its unit, or a text with a unit.
    pub(super) fn size(
        &mut self,
        name: &str,
        value: &Value,
        kind: Type,
        usage: &str,
    ) -> Option<Spanned<u64>> {
        let Type::Size { low, high, unit } = kind else { return None };
        let (size, written) = match &value.scalar {
            Scalar::Integer(number) => {
                (Ok(*number * i128::from(unit.mebibytes())), format!("{number} {}", unit.as_str()))
            }
            Scalar::Text(text) => (size::parse(text, unit, is_loose(value)), shorten(text.trim())),
            Scalar::Float(_) | Scalar::Bool(_) | Scalar::Null => (Err(size::Wrong::NotOne), String::new()),
        };
        let size = match size {
            Ok(size) => size,
            Err(wrong) => {
                let (message, label) = match wrong {
                    size::Wrong::NotOne => {
                        (format!("`{name}` takes a size, not {}", describe(value)), "not a size")
                    }
                    size::Wrong::NoUnit => {
                        (format!("`{name}` has no unit in {}", describe(value)), "no unit")
                    }
                    size::Wrong::NotWhole => (
                        format!("`{name}` must come to whole MiB, {} does not", describe(value)),
                        "not whole",
                    ),
                };
                let help = format!(
                    "write a number of {}, or a text with a unit (K, M, G, T; powers of 1024): {usage}",
                    unit.as_str()
                );
                self.tell(at(Fault::error("vmfile::wrong-type", message), value, label).help(help));
                return None;
            }
        };
        let number = u64::try_from(size).ok().filter(|number| (low..=high).contains(number));
        if number.is_none() {
            let message = format!("`{name}` must be {} to {}, not {written}", shown(low), shown(high));
            let fault = at(Fault::error("vmfile::out-of-range", message), value, "out of range");
            self.tell(fault.help(format!("for example {usage}")));
        }
        number.map(|number| Spanned { value: number, span: value.span })
    }

    /// `#true` or `#false`.
    pub(super) fn truth(&mut self, name: &str, value: &Value, usage: &str) -> Option<bool> {
        let truth = match &value.scalar {
            Scalar::Bool(truth) => Some(*truth),
            Scalar::Text(text) if is_loose(value) => text.trim().parse().ok(),
            Scalar::Text(_) | Scalar::Integer(_) | Scalar::Float(_) | Scalar::Null => None,
        };
        if truth.is_none() {
            let message = format!("`{name}` takes #true or #false, not {}", describe(value));
            let fault = at(Fault::error("vmfile::wrong-type", message), value, "neither of them");
            self.tell(fault.help(format!("write {usage}")));
        }
        truth
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
            None if words.len() == 1 => format!("write {all}"),
            None => format!("write one of {all}"),
        };
        self.tell(Fault::error("vmfile::bad-value", message).at(text.span, "not known").help(help));
        None
    }
}

/// Whether `value` is a text only because its origin knows nothing else.
fn is_loose(value: &Value) -> bool {
    value.origin.as_ref().is_some_and(|origin| origin.is_loose)
}

/// `fault` with `label` at `value`, and at what the value was taken from.
pub(super) fn at(fault: Fault, value: &Value, label: &str) -> Fault {
    let Some(origin) = &value.origin else { return fault.at(value.span, label) };
    let fault = fault.at(value.span, format!("{label}: {}", origin.what));
    match origin.span {
        Some(span) => fault.at(span, "its value"),
        None => fault,
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
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", clean(&text[..end])),
        None => clean(text),
    }
}

/// `text` with everything that could steer a terminal or break a line replaced.
pub(super) fn clean(text: &str) -> String {
    let printable = |c: char| if c.is_control() || is_forbidden(c) { '\u{fffd}' } else { c };
    text.chars().map(printable).collect()
}
