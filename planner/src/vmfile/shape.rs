//! The first pass, node by node: what does not fit the grammar is told once, where it is written, and left out.

use std::collections::HashMap;

use miette::SourceSpan;

use super::ast::{Node, Scalar, Spanned, Value};
use super::fields::shorten;
use super::grammar::{Prop, Shape, Values};
use super::report::Fault;
use super::suggest::did_you_mean;

/// Type annotations that say where a value is to be taken from.
pub(super) const VAR: &str = "var";
pub(super) const ENV: &str = "env";
pub(super) const TEMPLATE: &str = "template";
pub(super) const REF: &str = "ref";

/// Checks nodes against their shapes.
#[derive(Debug, Default)]
pub(super) struct Checker {
    pub(super) faults: Vec<Fault>,
}

impl Checker {
    /// The nodes of `nodes`, which stand in `place`, that fit the block of `shape`.
    pub(super) fn block(&mut self, nodes: Vec<Node>, place: &str, shape: &Shape) -> Vec<Node> {
        let mut first: HashMap<String, SourceSpan> = HashMap::new();
        let mut kept = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(own) = shape.child(&node.name.value) else {
                self.unknown_node(&node.name, place, shape);
                continue;
            };
            if !own.repeats {
                if let Some(earlier) = first.get(&node.name.value) {
                    let name = shorten(&node.name.value);
                    self.faults.push(
                        Fault::error("vmfile::duplicate", format!("`{name}` is written twice {place}"))
                            .at(node.name.span, "again here")
                            .at(*earlier, "first here")
                            .help("keep one of them"),
                    );
                    continue;
                }
                first.insert(node.name.value.clone(), node.name.span);
            }
            kept.push(self.node(node, own));
        }
        kept
    }

    /// `node` with what fits `shape`.
    fn node(&mut self, mut node: Node, shape: &Shape) -> Node {
        let faults = self.faults.len();
        let name = node.name.value.clone();
        if let Some(annotation) = &node.annotation {
            self.faults.push(
                Fault::error("vmfile::annotation", format!("`{name}` takes no type annotation"))
                    .at(annotation.span, "in front of a node")
                    .help("it stands in front of a value: `memory (var)\"size\"`"),
            );
        }
        for value in &node.args {
            self.annotation(value, shape.values, &name);
        }
        self.surplus(&mut node, shape);
        self.props(&mut node, shape);
        node.sound = self.faults.len() == faults;
        let Some(children) = node.children.take() else { return node };
        if shape.has_block() {
            // Unknown and repeated nodes are faults of this node, all others are their own.
            let written = children.len();
            let children = self.block(children, &format!("in `{}`", shorten(&name)), shape);
            node.sound &= children.len() == written;
            node.children = Some(children);
        } else if let Some(child) = children.first() {
            // An empty block says nothing and harms nothing, as in `ssh { }`.
            self.faults.push(
                Fault::error("vmfile::surplus", format!("`{}` takes no block", shorten(&name)))
                    .at(child.name.span, "not known here")
                    .help(format!("write {}", shape.usage)),
            );
            node.sound = false;
        }
        node
    }

    fn surplus(&mut self, node: &mut Node, shape: &Shape) {
        let most = shape.args.most();
        let Some(first) = node.args.get(most) else { return };
        let name = shorten(&node.name.value);
        let message = match most {
            0 => format!("`{name}` takes no value"),
            1 => format!("`{name}` takes one value"),
            count => format!("`{name}` takes at most {count} values"),
        };
        let is_node = matches!(&first.scalar, Scalar::Text(word) if shape.child(word).is_some());
        let help = if is_node {
            format!("nodes of a block stand on lines of their own: {}", shape.usage)
        } else {
            format!("write {}", shape.usage)
        };
        self.faults.push(Fault::error("vmfile::surplus", message).at(first.span, "one too many").help(help));
        node.args.truncate(most);
    }

    fn props(&mut self, node: &mut Node, shape: &Shape) {
        let mut first: HashMap<String, SourceSpan> = HashMap::new();
        let name = node.name.value.clone();
        node.props.retain(|(key, value)| {
            let Some(prop) = shape.prop(&key.value) else {
                self.unknown_property(key, &name, shape);
                return false;
            };
            self.annotation(value, prop.values, prop.name);
            if let Some(earlier) = first.get(&key.value) {
                let message = format!("the property `{}` is written twice", key.value);
                self.faults.push(
                    Fault::error("vmfile::duplicate", message)
                        .at(key.span, "again here")
                        .at(*earlier, "first here")
                        .help("keep one of them"),
                );
                return false;
            }
            first.insert(key.value.clone(), key.span);
            true
        });
    }

    fn unknown_property(&mut self, key: &Spanned<String>, node: &str, shape: &Shape) {
        let word = key.value.as_str();
        let node = shorten(node);
        let known: Vec<_> = shape.props.iter().map(|prop: &Prop| prop.name).collect();
        let help = if shape.child(word).is_some() {
            format!("`{word}` is no property: write it on a line of its own, in the block of `{node}`")
        } else if let Some(help) = (shape.elsewhere)(word) {
            help
        } else if known.is_empty() {
            format!("write {}", shape.usage)
        } else {
            did_you_mean(word, &known)
        };
        let message = format!("unknown property `{}` of `{node}`", shorten(word));
        self.faults.push(
            Fault::error("vmfile::unknown-property", message).at(key.span, "not known here").help(help),
        );
    }

    /// Tells an annotation that is not known, or not where it stands.
    fn annotation(&mut self, value: &Value, values: Values, name: &str) {
        let Some(annotation) = &value.annotation else { return };
        let (word, span) = (annotation.value.as_str(), annotation.span);
        let fault = |message: String, label: &str, help: String| {
            Fault::error("vmfile::annotation", message).at(span, label).help(help)
        };
        let fault = match (word, values) {
            (VAR | ENV | TEMPLATE, Values::Plain) => fault(
                format!("`{name}` takes a plain value"),
                "not here",
                "write the value itself: what a file consists of does not depend on variables".to_owned(),
            ),
            (VAR | ENV | TEMPLATE, _) | (REF, Values::OrReference) => match &value.scalar {
                Scalar::Text(text) if !text.trim().is_empty() => return,
                _ => fault(
                    format!("`({word})` stands in front of a text"),
                    "no text follows",
                    match word {
                        VAR => "name a variable: `(var)\"size\"`".to_owned(),
                        ENV => "name an environment variable: `(env)\"SETUP\"`".to_owned(),
                        REF => "name an image of the top level: `image (ref)\"debian\"`".to_owned(),
                        _ => "write a text: `(template)\"web-{{ index }}\"`".to_owned(),
                    },
                ),
            },
            (REF, _) => fault(
                format!("`{name}` takes no reference"),
                "not here",
                "`(ref)` names an image: `image (ref)\"debian\"`; a variable is named by `(var)\"…\"`"
                    .to_owned(),
            ),
            _ => fault(
                format!("unknown type annotation `({})`", shorten(word)),
                "not known",
                did_you_mean(word, &[VAR, ENV, TEMPLATE, REF]),
            ),
        };
        self.faults.push(fault);
    }

    fn unknown_node(&mut self, name: &Spanned<String>, place: &str, shape: &Shape) {
        let word = name.value.as_str();
        let known = shape.names();
        let plain = word.trim_end_matches(':');
        let help = if plain != word && known.contains(&plain) {
            format!("write `{plain}` without the colon")
        } else {
            (shape.elsewhere)(word).unwrap_or_else(|| did_you_mean(word, &known))
        };
        self.faults.push(
            Fault::error("vmfile::unknown-node", format!("unknown node `{}` {place}", shorten(word)))
                .at(name.span, "not known here")
                .help(help),
        );
    }
}
