//! Pictures as people and programs get them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use uuid::Uuid;
use vmctl_planner::picture::{Picture, PictureEdge, PictureNode, Tone, dot, mermaid, svg};
use vmctl_planner::{Step, StepGraph, StepId, StepKind};
use vmctl_providers::{Digest, InstanceId};
use vmctl_state::Address;

/// One machine is made from an image, another that needs it is replaced.
fn steps() -> StepGraph {
    let mut graph = StepGraph::default();
    let mut add = |kind, address: &Address, label: Option<&str>| {
        let label = label.map(str::to_owned);
        graph.add(Step { kind, address: address.clone(), instance: InstanceId(Uuid::nil()), label })
    };
    let (db, web) = (Address::vm("db"), Address::vm("web"));
    let image = add(StepKind::FetchImage, &Address::image(Digest::of("disk").hex()), None);
    let db = [StepKind::Prepare, StepKind::Start, StepKind::Ready].map(|kind| add(kind, &db, None));
    let script = add(StepKind::Provision(1), &Address::vm("db"), Some("set\"up.sh"));
    let web = [StepKind::Destroy, StepKind::Prepare, StepKind::Start].map(|kind| add(kind, &web, None));
    let order: [(StepId, StepId); 8] = [
        (image, db[0]),
        (image, web[1]),
        (db[0], db[1]),
        (db[1], db[2]),
        (db[2], script),
        (web[0], web[1]),
        (web[1], web[2]),
        (script, web[2]),
    ];
    for (earlier, later) in order {
        graph.order(earlier, later);
    }
    graph
}

#[test]
fn steps_are_printed_for_graphviz() {
    insta::assert_snapshot!(dot(&Picture::from(&steps())));
}

#[test]
fn steps_are_printed_for_mermaid() {
    insta::assert_snapshot!(mermaid(&Picture::from(&steps())));
}

#[test]
fn steps_are_drawn() {
    // One element a line, for whoever reads the difference.
    insta::assert_snapshot!(svg(&Picture::from(&steps())).replace("><", ">\n<"));
}

/// Texts that mean something to one of the formats, or to whatever shows it.
const HOSTILE: [&str; 12] = [
    "<script>alert(1)</script>",
    "\" onload=\"alert(1)",
    "'",
    "]]><x/>",
    "&lt;&#60;&",
    "\"]:::bad; click n0 \"javascript:x\"",
    "\\\" \\N \\",
    "%%{init: {}}%% `**x**` #quot; |y|",
    "two\nlines\r\n\u{2028}three",
    "\0\u{1}\u{7f}\u{9b}31m\u{ffff}",
    "\u{202e}turned\u{2066}",
    "end",
];

fn labelled(text: &str) -> Picture {
    let node = |tone| PictureNode { title: text.to_owned(), subtitle: text.to_owned(), tone };
    let edge = PictureEdge { from: 0, to: 1, label: text.to_owned() };
    Picture { title: text.to_owned(), nodes: vec![node(Tone::Neutral), node(Tone::Bad)], edges: vec![edge] }
}

/// How often a text holds each of the marks that make the structure of a format.
fn structure(text: &str, marks: &[&str]) -> Vec<usize> {
    marks.iter().map(|mark| text.matches(mark).count()).collect()
}

#[test]
fn labels_cannot_change_the_structure_of_a_picture() {
    let marks = ["<", ">", "\"", "[", "]", "|", ";", "{", "`", "%", "\n"];
    let harmless = labelled("x");
    for text in HOSTILE {
        let hostile = labelled(text);
        let drawn = svg(&hostile);
        assert_eq!(structure(&drawn, &marks[..3]), structure(&svg(&harmless), &marks[..3]), "{drawn}");
        let quoted = |picture: &Picture| dot(picture).replace("\\\\", "").replace("\\\"", "");
        let graph = quoted(&hostile);
        assert_eq!(structure(&graph, &["\"", "\n"]), structure(&quoted(&harmless), &["\"", "\n"]), "{graph}");
        // Entities of Mermaid are a number between `#` and `;`, and all that differs.
        let flow = without_entities(&mermaid(&hostile));
        let expected = structure(&mermaid(&harmless), &marks[..]);
        assert_eq!(structure(&flow, &marks[..]), expected, "{flow}");
        for format in [drawn, graph, flow] {
            let stray = |c: char| {
                c.is_control() && c != '\n' || matches!(c, '\u{202e}' | '\u{2066}' | '\u{2028}' | '\u{ffff}')
            };
            assert_eq!(format.find(stray), None, "{format}");
        }
    }
}

/// Takes `#34;` and its like out; colours (`fill:#f6f8fa`) end otherwise.
fn without_entities(text: &str) -> String {
    let mut pieces = text.split('#');
    let mut rest = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let after = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.push_str(after.strip_prefix(';').filter(|_| after != piece).unwrap_or(piece));
    }
    rest
}

#[test]
fn long_labels_are_cut() {
    let long = labelled(&"x".repeat(10_000));
    for text in [dot(&long), mermaid(&long), svg(&long)] {
        assert!(text.contains(&"x".repeat(40)) && !text.contains(&"x".repeat(60)), "{text}");
    }
}

#[test]
fn every_box_and_arrow_is_drawn_once() {
    let picture = Picture::from(&steps());
    let drawn = svg(&picture);
    for node in &picture.nodes {
        let title = node.title.replace('"', "&quot;");
        assert_eq!(drawn.matches(&format!(">{title}<")).count(), 1, "{title}");
    }
    assert_eq!(drawn.matches("class=\"line\"").count(), picture.edges.len());
    assert_eq!(svg(&picture), drawn);
}
