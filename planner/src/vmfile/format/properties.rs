//! What holds for every text that is KDL, however it is written.

use proptest::prelude::*;
use proptest::sample::select;

use super::format;
use super::order::order;
use super::pieces::{What, pieces};
use crate::vmfile::ast::Spanned;
use crate::vmfile::ast::{Node, Value};
use crate::vmfile::lex::{Kind, Space};
use crate::vmfile::scan::scan;
use crate::vmfile::source;

/// Blanks and what counts as such within a node.
const SPACES: &[&str] = &[
    " ",
    " ",
    " ",
    " \t ",
    "\u{a0}",
    " /* within */ ",
    "/* of\r\n   two lines */",
    "\t/* outer /* inner */ */ ",
    " \\\n  ",
    " \\\r\n",
    " \\ // escaped\n\t",
    " \\ \n \\ // twice ü  \n  ",
];

/// What may end a node.
const ENDS: &[&str] = &[
    "\n",
    "\n",
    "\r\n",
    "\n\n\n",
    ";",
    " ; ",
    "; // behind\n",
    " // behind ; { \"\n",
    " /* behind */ // and more\n",
    " /* behind */ ; /* before */ ",
    "\n// above\n",
    "\r\n\t// above  \r\n\r\n// alone\r\n\r\n",
    "\n\n/* alone\n  of two lines */\n\n",
    "\n    /* above\n       of two lines */\n",
    "\n/* before */ ",
    "\n  /* a */ /* b */\n",
    "\u{2028}",
    "\u{c}\n",
    "\n\\\n",
    " \\ // last\n ; ",
    " \\ // last\n // of all\n",
    " \\ // last\n /* of all */\n",
];

const VALUES: &[&str] = &[
    "web",
    "-",
    "+x",
    "ü\u{1f578}",
    "\"text\"",
    "\"a \\\" // no comment {\"",
    "\"folded \\\n    here\"",
    "#\"raw \" \\ \"#",
    "##\"raw \"# \"##",
    "\"\"\"\n  a\n\n    b\n  \"\"\"",
    "\"\"\"\r\n\ta // no comment\r\n \t\r\n\tb\r\n\t\"\"\"",
    "\"\"\"\n        a\u{85}        b\n        \"\"\"",
    "\"\"\"\n    a \\\n  b\n    \"\"\"",
    "\"\"\"\n\\\"\"\" \\\\\n\"\"\"",
    "#\"\"\"\n  \"\"\" \\\n  \"\"\"#",
    "1",
    "0x1F",
    "-1_000.5e+3",
    "#true",
    "#null",
    "#nan",
    "#-inf",
];

/// Names of the top level, of machines, and of their blocks.
const NAMES: [&[&str]; 3] = [
    &[
        "project",
        "vm",
        "vm",
        "vm",
        "template",
        "defaults",
        "\"variable\"",
        "moved",
        "removed",
        "output",
        "image",
    ],
    &[
        "image",
        "memory",
        "ssh",
        "network",
        "forward",
        "provision",
        "provision",
        "ready",
        "check",
        "lifecycle",
        "backend",
        "#\"disk\"#",
        "labels",
        "cloud-init",
    ],
    &[
        "user",
        "private-key",
        "user",
        "inline",
        "script",
        "env",
        "tcp",
        "log",
        "timeout",
        "prevent-destroy",
        "name",
    ],
];

const KEYS: &[&str] = &["host", "guest", "from", "to", "template", "count", "\"host\"", "other"];

fn space() -> impl Strategy<Value = String> {
    select(SPACES).prop_map(str::to_owned)
}

fn maybe_space() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just(String::new()), 1 => space()]
}

fn removal() -> impl Strategy<Value = String> {
    let after = select(&["", "", " ", "\n", " // off\n\n", " /* off */ \r\n"][..]);
    prop_oneof![8 => Just(String::new()), 1 => after.prop_map(|after| format!("/-{after}"))]
}

fn annotation() -> impl Strategy<Value = String> {
    let parts = (maybe_space(), select(&["var", "\"env\""][..]), maybe_space(), maybe_space());
    let annotation =
        parts.prop_map(|(before, name, after, behind)| format!("({before}{name}{after}){behind}"));
    prop_oneof![4 => Just(String::new()), 1 => annotation]
}

fn value() -> impl Strategy<Value = String> {
    (annotation(), select(VALUES)).prop_map(|(annotation, value)| format!("{annotation}{value}"))
}

fn entry() -> impl Strategy<Value = String> {
    let property = (select(KEYS), maybe_space(), maybe_space(), value())
        .prop_map(|(key, before, behind, value)| format!("{key}{before}={behind}{value}"));
    (removal(), prop_oneof![value(), property]).prop_map(|(removal, entry)| format!("{removal}{entry}"))
}

/// A node of a level, without its block.
fn header(level: usize) -> impl Strategy<Value = String> {
    let name = prop_oneof![30 => select(NAMES[level]), 1 => Just("unknown")];
    let entries = prop::collection::vec((space(), entry()), 0..4);
    (annotation(), name, entries).prop_map(|(annotation, name, entries)| {
        let entries: String = entries.into_iter().map(|(space, entry)| space + &entry).collect();
        format!("{annotation}{name}{entries}")
    })
}

fn nodes(level: usize) -> BoxedStrategy<String> {
    let start = prop_oneof![4 => Just(""), 1 => select(ENDS)].prop_map(|start| start.replace(';', ""));
    let nodes = prop::collection::vec((removal(), node(level), select(ENDS)), 0..6);
    let nodes = nodes.prop_map(|nodes| {
        // The kdl crate takes no `;` behind a node that is commented out.
        let end = |removal: &str, end: &str| {
            if removal.is_empty() { end.to_owned() } else { end.replace(';', "\n") }
        };
        nodes
            .into_iter()
            .map(|(removal, node, after)| format!("{removal}{node}{}", end(&removal, after)))
            .collect()
    });
    (start, nodes).prop_map(|(start, nodes): (String, String)| start + &nodes).boxed()
}

fn node(level: usize) -> BoxedStrategy<String> {
    if level + 1 == NAMES.len() {
        return header(level).boxed();
    }
    let line =
        prop::collection::vec(node(level + 1), 0..4).prop_map(|nodes| format!("{{ {} }}", nodes.join("; ")));
    let block = prop_oneof![nodes(level + 1).prop_map(|nodes| format!("{{{nodes}}}")), line];
    let with_block = (header(level), space(), removal(), block, maybe_space()).prop_map(
        |(header, space, removal, block, behind)| format!("{header}{space}{removal}{block}{behind}"),
    );
    prop_oneof![header(level), with_block].boxed()
}

fn document() -> impl Strategy<Value = String> {
    (prop_oneof![9 => Just(""), 1 => Just("\u{feff}")], nodes(0))
        .prop_map(|(mark, nodes)| mark.to_owned() + &nodes)
}

/// Each comment of `text`, without the blanks that surround its lines.
fn comments(text: &str) -> Vec<String> {
    let is_comment = |what| matches!(what, What::Space(Space::LineComment | Space::BlockComment));
    let trimmed = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let mut comments: Vec<_> = pieces(text)
        .into_iter()
        .filter(|piece| is_comment(piece.what))
        .map(|piece| trimmed(piece.text))
        .collect();
    comments.sort();
    comments
}

/// Each name and value of one line, as it is written.
fn literals(text: &str) -> Vec<&str> {
    let is_literal =
        |what| matches!(what, What::Token(Kind::Word | Kind::Text | Kind::Number | Kind::Keyword));
    let mut literals: Vec<_> = pieces(text)
        .into_iter()
        .filter(|piece| is_literal(piece.what) && !piece.breaks_line())
        .map(|piece| piece.text)
        .collect();
    literals.sort_unstable();
    literals
}

/// What the nodes say, in their own order where it has a meaning and by their names elsewhere.
fn said(nodes: &[Node], path: &mut Vec<String>) -> String {
    let names: Vec<_> = path.iter().map(String::as_str).collect();
    let mut nodes: Vec<_> = nodes.iter().collect();
    if order(&names).is_some_and(|order| !order.nodes.is_empty()) {
        nodes.sort_by_key(|node| &node.name.value);
    }
    let value = |value: &Value| {
        let annotation = value.annotation.as_ref().map(|word| &word.value);
        format!("{annotation:?} {:?}", value.scalar)
    };
    let said = nodes.into_iter().map(|node| {
        let args: Vec<_> = node.args.iter().map(value).collect();
        let mut props: Vec<_> = node.props.iter().collect();
        props.sort_by_key(|(name, _): &&(Spanned<String>, _)| &name.value);
        let props: Vec<_> = props.into_iter().map(|(name, prop)| (&name.value, value(prop))).collect();
        path.push(node.name.value.clone());
        let children = node.children.as_ref().map(|children| said(children, path));
        path.pop();
        format!("{:?} {args:?} {props:?} {children:?}\n", node.name.value)
    });
    said.collect()
}

fn tree(text: &str) -> String {
    said(&source::read(text, 0).expect("it is KDL"), &mut Vec::new())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn formatting_keeps_everything_and_is_done_once(text in document()) {
        prop_assume!(source::read(&text, 0).is_ok());
        let formatted = format("VMFile.kdl", &text).expect("what is KDL can be formatted");
        prop_assert!(scan(&formatted).is_ok(), "{formatted}");
        prop_assert_eq!(tree(&formatted), tree(&text), "{}", formatted);
        prop_assert_eq!(comments(&formatted), comments(&text), "{}", formatted);
        prop_assert_eq!(literals(&formatted), literals(&text), "{}", formatted);
        prop_assert_eq!(format("VMFile.kdl", &formatted).expect("it still is"), formatted.clone());
        for line in formatted.lines() {
            prop_assert_eq!(line, line.trim_end(), "{}", formatted);
        }
        prop_assert!(!formatted.contains("\n\n\n") && !formatted.contains('\r') && !formatted.starts_with('\n'));
        prop_assert!(formatted.is_empty() || (formatted.ends_with('\n') && !formatted.ends_with("\n\n")));
    }
}
