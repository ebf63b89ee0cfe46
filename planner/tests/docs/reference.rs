//! The made parts of `docs/vmfile.md`.

use std::fmt::Write as _;

use vmctl_planner::fields::{Class, FIELDS, Field, Needs, PROVISION};
use vmctl_planner::not_yet::NOT_YET;
use vmctl_planner::vmfile::grammar::{Args, Layers, Shape, Values, top};

use crate::between;
use crate::grammar::{Block, blocks, machine};

/// The page with its made parts made anew.
pub(crate) fn page(text: &str) -> String {
    let text = between(text, &begin("plain values"), &plain());
    let text = between(&text, &begin("layers"), &layers());
    let text = between(&text, &begin("not yet"), &not_yet());
    between(&text, &begin("reference"), &reference())
}

fn begin(part: &str) -> String {
    format!("<!-- {part}: made from planner/src/vmfile/grammar; planner/tests/docs writes it -->\n")
}

/// The nodes of the top level, and properties, that take plain values only.
fn plain() -> String {
    let mut names: Vec<String> = Vec::new();
    for node in top().block {
        if node.values == Values::Plain {
            names.push(format!("`{}`", node.name));
            continue;
        }
        let props = node.props.iter().filter(|prop| prop.values == Values::Plain);
        names.extend(props.map(|prop| format!("`{}=` of `{}`", prop.name, node.name)));
    }
    format!("Plain values only: {}, and the names of definitions.\n", names.join(", "))
}

/// How the nodes of a machine come from several layers.
fn layers() -> String {
    let of = |layers: Layers| {
        let nodes = machine().block.iter().filter(|node| node.layers == layers);
        nodes.map(|node| format!("`{}`", node.name)).collect::<Vec<_>>().join(", ")
    };
    format!(
        "| nodes | of several layers |\n| --- | --- |\n\
         | {} | the nearest layer that has any takes the place of all others |\n\
         | {} | blocks: they are merged node by node, by these same rules |\n\
         | {} | all of them count, those of the farthest layer first |\n",
        of(Layers::Nearest),
        of(Layers::Merged),
        of(Layers::Added)
    )
}

/// What is planned and not applied.
fn not_yet() -> String {
    let mut list = String::new();
    for missing in NOT_YET {
        writeln!(list, "- {}", missing.what).unwrap();
    }
    list
}

/// One section for each block, with a row for each of its nodes and properties.
fn reference() -> String {
    let mut text = String::new();
    for block in blocks() {
        writeln!(text, "{}\n", heading(&block)).unwrap();
        let has_classes = block.path.first() == Some(&"vm");
        let classes = |path: &str| has_classes.then(|| classes(path));
        text.push_str("| node | takes | default |");
        text.push_str(if has_classes { " a change means |" } else { "" });
        text.push_str(" meaning |\n| --- | --- | --- |");
        text.push_str(if has_classes { " --- | --- |\n" } else { " --- |\n" });
        for (path, node) in block.nodes() {
            let usages = node.usage.replace("`, `", "`<br>`").replace("` or `", "`<br>`");
            let meaning = format!("{}{}", node.about, mark(&path));
            row(
                &mut text,
                &[
                    Some(usages),
                    Some(takes(node)),
                    Some(node.default.to_owned()),
                    classes(&path),
                    Some(meaning),
                ],
            );
            for prop in node.props {
                let name = format!("`{} … {}=`", node.name, prop.name);
                let class = classes(&format!("{path}/{}", prop.name));
                let kind = prop.kind.to_string();
                row(
                    &mut text,
                    &[
                        Some(name),
                        Some(kind),
                        Some(prop.default.to_owned()),
                        class,
                        Some(prop.about.to_owned()),
                    ],
                );
            }
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn heading(block: &Block) -> String {
    match block.path.as_slice() {
        [] => "### At the top level".to_owned(),
        ["vm"] => "### In `vm`, `template` and `defaults`".to_owned(),
        [name] => format!("### In `{name}` of the top level"),
        [.., owner, name] if block.path.len() > 2 => format!("#### In `{name}` of `{owner}`"),
        [.., name] => format!("#### In `{name}`"),
    }
}

fn row(text: &mut String, cells: &[Option<String>]) {
    for cell in cells.iter().flatten() {
        assert!(!cell.contains('|'), "{cell}");
        write!(text, "| {cell} ").unwrap();
    }
    text.push_str("|\n");
}

/// Values, block and number of a node, in words.
fn takes(node: &Shape) -> String {
    let values = match node.args {
        Args::None => None,
        Args::One(kind) => Some(kind.to_string()),
        Args::Optional(kind) => Some(format!("nothing, or {kind}")),
        Args::Many(kind) => Some(format!("{kind}; one or more")),
        Args::Fixed { all, needed } => {
            let words = all.iter().enumerate().map(|(index, kind)| {
                if index < needed { kind.to_string() } else { format!("perhaps {kind}") }
            });
            Some(words.collect::<Vec<_>>().join(", then "))
        }
    };
    let properties = (!node.props.is_empty()).then_some("properties");
    let block = node.has_block().then_some("a block");
    let parts: Vec<_> = values.as_deref().into_iter().chain(properties).chain(block).collect();
    let takes = if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") };
    if node.repeats { format!("{takes}. Repeatable") } else { takes }
}

/// Says what of a node is not carried out.
fn mark(path: &str) -> String {
    let missing = NOT_YET.iter().filter(|missing| missing.nodes.contains(&path));
    let missing: Vec<_> = missing.map(|missing| missing.what).collect();
    if missing.is_empty() {
        String::new()
    } else {
        format!(". **Not yet carried out:** {}", missing.join(", "))
    }
}

/// The names of fields that a node of a machine decides, where they are not those of the node itself.
const FIELDS_OF: [(&str, &[&str]); 9] = [
    // The digest of a file that is here is compared, whatever is pinned.
    ("image/sha256", &[]),
    ("image-url", &["image", "image.path"]),
    ("image-url/sha256", &["image"]),
    ("initrd", &["kernel"]),
    ("cmdline", &["kernel"]),
    // A user that the seed makes, and a key that it authorises, are part of the seed.
    ("ssh/user", &["ssh", "cloud-init.user"]),
    ("ssh/private-key", &["ssh", "cloud-init.ssh-key"]),
    // These say when and how long a step runs; nothing runs because of them.
    ("provision/run", &[]),
    ("provision/timeout", &[]),
];

/// What a change of the node or property at `path` needs, from least to most.
fn classes(path: &str) -> String {
    let path = path.strip_prefix("vm/").unwrap();
    let (node, dotted) = (path.split('/').next().unwrap(), path.replace('/', "."));
    let given = FIELDS_OF.iter().find(|(name, _)| *name == path).map(|(_, fields)| *fields);
    let is_meant = |field: &&Field| match given {
        Some(names) => names.contains(&field.name),
        None if FIELDS.iter().any(|field| field.name == dotted) => {
            field.name == dotted || field.name.starts_with(&format!("{dotted}."))
        }
        None => field.name == node || field.name.starts_with(&format!("{node}.")),
    };
    let mut classes: Vec<Class> = FIELDS.iter().filter(is_meant).flat_map(of).collect();
    if node == PROVISION && given.is_none() {
        classes.push(Class::Provision);
    }
    classes.sort();
    classes.dedup();
    let words: Vec<_> = classes.iter().map(|class| class.as_str()).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(" or ") }
}

fn of(field: &Field) -> Vec<Class> {
    match &field.needs {
        Needs::Always(class) => vec![*class],
        Needs::Depends { cases, .. } => cases.iter().map(|(class, _)| *class).collect(),
    }
}

#[test]
fn every_field_is_a_node_of_a_machine() {
    for field in FIELDS {
        let node = field.name.split('.').next().unwrap();
        assert!(machine().child(node).is_some(), "{node}");
    }
}

#[test]
fn what_is_not_carried_out_names_nodes() {
    let paths: Vec<String> = blocks().iter().flat_map(Block::nodes).map(|(path, _)| path).collect();
    for missing in NOT_YET {
        assert!(!missing.nodes.is_empty());
        for node in missing.nodes {
            assert!(paths.iter().any(|path| path == node), "{node}");
        }
    }
    for (name, _) in FIELDS_OF {
        let node = name.split('/').next().unwrap();
        assert!(machine().child(node).is_some(), "{name}");
    }
}

#[test]
fn every_link_within_the_page_leads_to_a_heading() {
    let text = std::fs::read_to_string(crate::path("docs/vmfile.md")).unwrap();
    let headings: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| {
            line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-").replace(['`', ','], "")
        })
        .collect();
    for link in text.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(headings.iter().any(|heading| heading == link), "{link}");
    }
}
