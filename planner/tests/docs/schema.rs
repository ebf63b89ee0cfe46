//! `docs/schemas/vmfile.kdl-schema`: the grammar in the KDL Schema Language, for editors.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ptr;

use kdl::{KdlDocument, KdlNode};
use vmctl_planner::vmfile::grammar::{Args, Prop, Shape, SizeUnit, Type, Values, top};

use crate::grammar::{Block, blocks, is_a_layer, machine};

const HEAD: &str = r##"// The nodes and properties of a VMFile, in the KDL Schema Language
// (https://github.com/kdl-org/kdl/blob/main/SCHEMA-SPEC.md), for editors and other tools.
//
// Made from planner/src/vmfile/grammar by `cargo test -p vmctl-planner --test docs -- --ignored`. `vmctl validate` has
// the last word; docs/vmfile.md explains everything. What this language cannot say:
//
// - A value with the annotation `(var)`, `(env)` or `(template)` is a text that stands for another value, and `(ref)` is
//   a name: the validations here are meant for values without an annotation.
// - Texts from elsewhere are read as numbers and truth values where those are needed.
// - Values of one node that differ by their place: of `share` and `output`, all are called texts.
// - What depends on other nodes: one of `image`, `image-url` and `kernel`; one of `path` and `url`; one of `inline` and
//   `script`; which nodes go with `provision "shell"` and `"file"`; which properties go with which kind of network.
// - Options of a machine's `network` are properties or nodes of its block, not both.
// - Names: that they are unique, that what they refer to exists, that nothing refers to itself in a circle, and that
//   networks do not overlap.
// - The ranges of durations, and of sizes with a unit.
// - Files: that they exist, and what is in them.
"##;

/// The whole file.
pub(crate) fn text() -> String {
    let mut text = format!("{HEAD}\n");
    let mut writer = Writer { text: &mut text, depth: 0 };
    writer.block("document", |writer| {
        writer.block("info", |writer| {
            writer.line("title \"VMFile\" lang=\"en\"");
            writer.line("description \"Virtual machines, as vmctl plans and applies them\" lang=\"en\"");
            writer.line("license \"MIT OR Apache-2.0\" spdx=\"MIT OR Apache-2.0\"");
        });
        for node in top().block {
            writer.node(node);
        }
    });
    text
}

struct Writer<'t> {
    text: &'t mut String,
    depth: usize,
}

impl Writer<'_> {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{:indent$}{line}", "", indent = self.depth * 4).unwrap();
    }

    fn block(&mut self, head: &str, inside: impl FnOnce(&mut Writer<'_>)) {
        self.line(&format!("{head} {{"));
        inside(&mut Writer { text: self.text, depth: self.depth + 1 });
        self.line("}");
    }

    fn node(&mut self, node: &Shape) {
        let name = if node.name.is_empty() { String::new() } else { format!(" {}", quoted(node.name)) };
        let head = format!("node{name} description={}", quoted(&plain(node.about)));
        self.block(&head, |writer| {
            if !node.repeats && !node.name.is_empty() {
                writer.line("max 1");
            }
            for prop in node.props {
                writer.prop(prop);
            }
            writer.values(node);
            if is_a_layer(node) {
                writer.line("children ref=#\"[id=\"machine\"]\"#");
            } else if node.has_block() {
                let id = if ptr::eq(node, machine()) { " id=\"machine\"" } else { "" };
                writer.block(&format!("children{id}"), |writer| {
                    for child in node.block.iter().copied().chain(node.named) {
                        writer.node(child);
                    }
                    if node.named.is_some() {
                        writer.line("other-nodes-allowed #true");
                    }
                });
            }
        });
    }

    fn prop(&mut self, prop: &Prop) {
        let head = format!("prop {} description={}", quoted(prop.name), quoted(&plain(prop.about)));
        self.block(&head, |writer| {
            if prop.default == "required" {
                writer.line("required #true");
            }
            writer.tags(prop.values);
            writer.kind(prop.kind);
        });
    }

    fn values(&mut self, node: &Shape) {
        let Some(kind) = node.args.types().first() else { return };
        self.block("value", |writer| {
            writer.line(&format!("min {}", node.args.least()));
            if node.args.most() < usize::MAX {
                writer.line(&format!("max {}", node.args.most()));
            }
            writer.tags(node.values);
            match node.args {
                Args::Fixed { .. } => writer.line("type \"string\""),
                Args::None | Args::One(_) | Args::Optional(_) | Args::Many(_) => writer.kind(*kind),
            }
        });
    }

    fn tags(&mut self, values: Values) {
        let words = match values {
            Values::Any => "\"var\" \"env\" \"template\"",
            Values::OrReference => "\"var\" \"env\" \"template\" \"ref\"",
            Values::Plain => return,
        };
        self.block("tag", |writer| writer.line(&format!("enum {words}")));
    }

    fn kind(&mut self, kind: Type) {
        const SIZE: &str = r#"^\s*[0-9]{1,12}(\.[0-9]{1,12})?\s*[KMGTkmgt]([Ii]?[Bb])?\s*$"#;
        let types = match kind {
            Type::Scalar => "\"string\" \"number\" \"boolean\"",
            Type::Whole { .. } => "\"number\"",
            Type::Size { .. } => "\"number\" \"string\"",
            Type::Truth => "\"boolean\"",
            Type::Text
            | Type::Name
            | Type::Path
            | Type::Url
            | Type::Sha256
            | Type::Pattern
            | Type::Duration { .. }
            | Type::Choice(_)
            | Type::Address
            | Type::Subnet
            | Type::Mode => "\"string\"",
        };
        self.line(&format!("type {types}"));
        match kind {
            Type::Scalar | Type::Truth => {}
            Type::Text | Type::Path => self.line("min-length 1"),
            Type::Name => {
                self.line("max-length 63");
                self.pattern("^[0-9A-Za-z]([0-9A-Za-z_.-]*[0-9A-Za-z])?$");
            }
            Type::Url => self.line("format \"url\""),
            Type::Sha256 => self.pattern("^(sha256:)?[0-9A-Fa-f]{64}$"),
            Type::Pattern => self.line("format \"regex\""),
            Type::Whole { low, high } => self.range(low, high),
            Type::Size { low, high, unit } => {
                let unit = match unit {
                    SizeUnit::Mega => 1,
                    SizeUnit::Giga => 1 << 10,
                };
                self.range(low.div_ceil(unit), high / unit);
                self.pattern(SIZE);
            }
            Type::Duration { .. } => self.pattern(r"^\s*([0-9]+\s*(ms|s|m|h)\s*)+$"),
            Type::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                self.line(&format!("enum {}", words.join(" ")));
            }
            Type::Address => self.line("format \"ipv4\""),
            Type::Subnet => self.pattern(r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$"),
            Type::Mode => self.pattern("^[0-7]{1,5}$"),
        }
    }

    fn range(&mut self, low: u64, high: u64) {
        self.line(&format!("\">=\" {low}"));
        self.line(&format!("\"<=\" {high}"));
    }

    fn pattern(&mut self, pattern: &str) {
        self.line(&format!("pattern #\"{pattern}\"#"));
    }
}

fn quoted(text: &str) -> String {
    if text.contains('"') { format!("#\"{text}\"#") } else { format!("\"{text}\"") }
}

/// Markdown without its links.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let (word, after) = after.split_once("](").unwrap();
        plain += before;
        plain += word;
        rest = after.split_once(')').unwrap().1;
    }
    plain + rest
}

/// The nodes that a schema's `children` describes.
fn described(children: &KdlDocument) -> impl Iterator<Item = &KdlNode> {
    children.nodes().iter().filter(|node| node.name().value() == "node")
}

fn first_text(node: &KdlNode) -> String {
    node.get(0).and_then(|value| value.as_string()).unwrap_or_default().to_owned()
}

/// Adds the paths of all nodes, and of all properties with a `=` behind.
fn collect(children: &KdlDocument, path: &str, paths: &mut BTreeSet<String>) {
    for node in described(children) {
        let path = format!("{path}{}", first_text(node));
        assert!(paths.insert(path.clone()), "{path} is described twice");
        let inside = node.children().unwrap();
        for prop in inside.nodes().iter().filter(|node| node.name().value() == "prop") {
            paths.insert(format!("{path}/{}=", first_text(prop)));
        }
        if let Some(children) = inside.get("children").and_then(KdlNode::children) {
            collect(children, &format!("{path}/"), paths);
        }
    }
}

#[test]
fn the_schema_is_kdl_and_names_every_node_and_property() {
    let text = std::fs::read_to_string(crate::path("docs/schemas/vmfile.kdl-schema")).unwrap();
    let schema = KdlDocument::parse_v2(&text).unwrap();
    let mut described = BTreeSet::new();
    collect(schema.get("document").and_then(KdlNode::children).unwrap(), "", &mut described);
    let mut known = BTreeSet::new();
    for (path, node) in blocks().iter().flat_map(Block::nodes) {
        known.extend(node.props.iter().map(|prop| format!("{path}/{}=", prop.name)));
        known.insert(path);
    }
    assert_eq!(described, known);
    for name in ["template", "defaults"] {
        assert!(is_a_layer(top().child(name).unwrap()), "{name}");
    }
    assert_eq!(text.matches("ref=#\"[id=\"machine\"]\"#").count(), 2);
}
