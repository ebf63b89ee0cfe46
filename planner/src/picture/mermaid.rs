//! Pictures as Mermaid flowcharts, which GitHub and GitLab draw where they find them in Markdown.

use std::fmt::Write as _;

use super::label::label;
use super::{Picture, PictureNode, Tone};

/// The picture as a flowchart, without the Markdown fence around it. Labels are cut; of what they hold, only letters,
/// digits and harmless marks are written as such.
pub fn mermaid(picture: &Picture) -> String {
    let mut text = String::from("flowchart LR\n");
    for (index, node) in picture.nodes.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  n{index}[\"{}\"]:::{}", lines(node), node.tone.name());
    }
    for edge in picture.arrows() {
        let label = escaped(&edge.label);
        let label = if label.is_empty() { label } else { format!("|\"{label}\"|") };
        let _ = writeln!(text, "  n{} -->{label} n{}", edge.from, edge.to);
    }
    for tone in Tone::ALL.into_iter().filter(|tone| picture.nodes.iter().any(|node| node.tone == *tone)) {
        let [fill, border, ink] = tone.colors();
        let _ = writeln!(text, "  classDef {} fill:{fill},stroke:{border},color:{ink}", tone.name());
    }
    text
}

fn lines(node: &PictureNode) -> String {
    let (title, subtitle) = (escaped(&node.title), escaped(&node.subtitle));
    if subtitle.is_empty() { title } else { format!("{title}<br/>{subtitle}") }
}

/// Mermaid's own entities, `#` and the character's number: nothing that its grammar, Markdown or HTML could read as
/// theirs is left.
fn escaped(text: &str) -> String {
    let mut shown = String::new();
    for c in label(text).chars() {
        if c.is_alphanumeric() || matches!(c, ' ' | '.' | ':' | '_' | '-' | '/' | ',') {
            shown.push(c);
        } else {
            let _ = write!(shown, "#{};", u32::from(c));
        }
    }
    shown
}
