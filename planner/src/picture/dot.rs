//! Pictures as Graphviz text.

use std::fmt::Write as _;

use super::label::label;
use super::{Picture, PictureNode};

/// The picture as a Graphviz graph. Labels are cut, and quoted so that they cannot end their string.
pub fn dot(picture: &Picture) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "digraph {{");
    let _ = writeln!(text, "  graph [rankdir=LR, label=\"{}\", labelloc=t];", quoted(&picture.title));
    let _ = writeln!(text, "  node [shape=box, style=\"rounded,filled\", fontname=\"monospace\"];");
    let _ = writeln!(text, "  edge [fontname=\"monospace\", color=\"#6e7781\"];");
    for (index, node) in picture.nodes.iter().enumerate() {
        let [fill, border, ink] = node.tone.colors();
        let _ = writeln!(
            text,
            "  n{index} [label=\"{}\", class=\"{}\", fillcolor=\"{fill}\", color=\"{border}\", fontcolor=\"{ink}\"];",
            lines(node),
            node.tone.name(),
        );
    }
    for edge in picture.arrows() {
        let label = quoted(&edge.label);
        let label = if label.is_empty() { label } else { format!(" [label=\"{label}\"]") };
        let _ = writeln!(text, "  n{} -> n{}{label};", edge.from, edge.to);
    }
    text.push_str("}\n");
    text
}

fn lines(node: &PictureNode) -> String {
    let (title, subtitle) = (quoted(&node.title), quoted(&node.subtitle));
    if subtitle.is_empty() { title } else { format!("{title}\\n{subtitle}") }
}

/// Within quotes, a backslash begins an escape (`\N` is the node's name), and `&` an entity of HTML.
fn quoted(text: &str) -> String {
    label(text).replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"")
}
