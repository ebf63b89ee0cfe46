//! Small changes of a VMFile's text: a machine more, a machine less, another `state`. All else stays, comments too, in
//! the canonical form.

use super::arrange::arrange;
use super::print::print;
use super::text::format;
use super::tree::{Block, Entry, Gap, Inner, Item, Key, Node, read};
use crate::desired::Power;
use crate::vmfile::ast::{self, Scalar};
use crate::vmfile::grammar::{CLOUD_INIT, HOSTNAME, POWERS, STATE, VM};
use crate::vmfile::report::Report;
use crate::vmfile::source;
use crate::vmfile::sources::Sources;

/// `text` with `block` at its end; `file` is its name in the report.
pub fn with_machine(file: &str, text: &str, block: &str) -> Result<String, Report> {
    let gap = if text.trim().is_empty() { "" } else { "\n\n" };
    format(file, &format!("{}{gap}{block}", text.trim_end()))
}

/// `text` without the block of the machine `name`, and without the comments right above it; `None` if it has none, as
/// where the machine comes from an `include`.
pub fn without_machine(file: &str, text: &str, name: &str) -> Result<Option<String>, Report> {
    edited(file, text, |tree| {
        let before = tree.items.len();
        tree.items.retain(|item| !is_machine(item, name));
        tree.items.len() < before
    })
}

/// `text` in which the machine `name` is to be in `power`; `None` if it has no block of its own there.
pub fn with_power(file: &str, text: &str, name: &str, power: Power) -> Result<Option<String>, Report> {
    let word = POWERS.iter().find(|(_, known)| *known == power).map_or("", |(word, _)| word);
    let quoted = format!("\"{word}\"");
    edited(file, text, |tree| {
        let found = tree.items.iter_mut().filter(|item| is_machine(item, name));
        let Some(node) = found.filter_map(|item| item.node.as_mut()).next() else { return false };
        set_state(node, &quoted);
        true
    })
}

/// `text` in which the machine `name` is called `to` and its guest still `hostname`; `None` if it has no block of its own
/// there.
pub fn with_name(
    file: &str,
    text: &str,
    name: &str,
    to: &str,
    hostname: &str,
) -> Result<Option<String>, Report> {
    let (quoted, hostname) = (format!("\"{to}\""), format!("\"{hostname}\""));
    edited(file, text, |tree| {
        let found = tree.items.iter_mut().filter(|item| is_machine(item, name));
        let Some(node) = found.filter_map(|item| item.node.as_mut()).next() else { return false };
        let Some(first) = node.entries.iter_mut().find(|entry| entry.key == Key::Value) else { return false };
        first.tokens = vec![&quoted];
        let seed = child(node, CLOUD_INIT.name, Vec::new);
        child(seed, HOSTNAME.name, || vec![value(&hostname)]);
        true
    })
}

/// The names of the machines that have a block of their own in `text`, in its order.
pub fn machines(file: &str, text: &str) -> Result<Vec<String>, Report> {
    let named = |node: &ast::Node| match &node.args.first()?.scalar {
        Scalar::Text(name) if node.name.value == VM.name => Some(name.clone()),
        _ => None,
    };
    Ok(nodes(file, text)?.iter().filter_map(named).collect())
}

/// Whether `text` describes any machine: a `vm` of any kind, one that is included, or one that is let go of.
pub fn describes_machines(file: &str, text: &str) -> Result<bool, Report> {
    let nodes = nodes(file, text)?;
    Ok(nodes.iter().any(|node| ["vm", "include", "removed"].contains(&node.name.value.as_str())))
}

fn nodes(file: &str, text: &str) -> Result<Vec<ast::Node>, Report> {
    source::read(text, 0).map_err(|faults| Report::new(file, &Sources::of(file, text.to_owned()), faults))
}

/// Changes the tree of `text` by `change`, which says whether it changed anything.
fn edited<'t>(
    file: &str,
    text: &'t str,
    change: impl FnOnce(&mut Block<'t>) -> bool,
) -> Result<Option<String>, Report> {
    nodes(file, text)?;
    let mut tree = read(text);
    if !change(&mut tree) {
        return Ok(None);
    }
    arrange(&mut tree);
    let edited = print(&tree);
    // Nobody may be left with a file that nothing reads any more.
    nodes(file, &edited)?;
    Ok(Some(edited))
}

fn is_machine(item: &Item<'_>, name: &str) -> bool {
    let Some(node) = &item.node else { return false };
    let first = node.entries.iter().find(|entry| entry.key == Key::Value);
    node.name == Some(VM.name)
        && !node.is_removed
        && first.is_some_and(|entry| matches!(&*entry.tokens, [word] if word.trim_matches('"') == name))
}

/// Puts `quoted` in place of what the machine's `state` says, or adds one.
fn set_state<'t>(machine: &mut Node<'t>, quoted: &'t str) {
    child(machine, STATE.name, Vec::new).entries = vec![value(quoted)];
}

fn value(token: &str) -> Entry<'_> {
    Entry { gap: Gap::default(), tokens: vec![token], key: Key::Value }
}

/// The node `name` in the block of `node`; added with `entries` if there is none.
fn child<'n, 't>(
    node: &'n mut Node<'t>,
    name: &'static str,
    entries: impl FnOnce() -> Vec<Entry<'t>>,
) -> &'n mut Node<'t> {
    let at = node.blocks.iter().position(|(_, inner)| !inner.is_removed).unwrap_or_else(|| {
        node.blocks.push((Gap::default(), Inner { is_removed: false, block: Block::default() }));
        node.blocks.len() - 1
    });
    let items = &mut node.blocks[at].1.block.items;
    let is_it =
        |item: &Item<'_>| item.node.as_ref().is_some_and(|node| node.name == Some(name) && !node.is_removed);
    let at = items.iter().position(is_it).unwrap_or_else(|| {
        items.push(Item { is_apart: false, above: Vec::new(), node: None });
        items.len() - 1
    });
    items[at].node.get_or_insert_with(|| Node {
        is_removed: false,
        tokens: vec![name],
        name: Some(name),
        entries: entries(),
        blocks: Vec::new(),
        behind: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "// Ours.\n\nvm \"a\" {\n    image \"a.qcow2\" // kept\n    state \"stopped\"\n}\n\n// Of b.\nvm b { image \"b.qcow2\" }\n";

    #[test]
    fn machine_comes_and_goes_and_the_rest_stays() {
        let more = with_machine("f", TWO, "vm \"c\" { image \"c.qcow2\" }\n").unwrap();
        assert!(
            more.ends_with("vm \"c\" { image \"c.qcow2\"; }\n")
                || more.ends_with("vm \"c\" { image \"c.qcow2\" }\n"),
            "{more}"
        );
        assert_eq!(without_machine("f", &more, "c").unwrap().unwrap(), format("f", TWO).unwrap());
        let less = without_machine("f", TWO, "b").unwrap().unwrap();
        assert_eq!(less, "// Ours.\n\nvm \"a\" {\n    image \"a.qcow2\" // kept\n    state \"stopped\"\n}\n");
        assert_eq!(without_machine("f", TWO, "nobody").unwrap(), None);
        assert!(describes_machines("f", TWO).unwrap());
        let none = without_machine("f", &less, "a").unwrap().unwrap();
        assert!(!describes_machines("f", &none).unwrap(), "{none}");
    }

    #[test]
    fn state_is_written_where_it_stands_and_added_where_it_does_not() {
        let started = with_power("f", TWO, "a", Power::Running).unwrap().unwrap();
        assert!(started.contains("image \"a.qcow2\" // kept\n    state \"running\"\n"), "{started}");
        let off = with_power("f", TWO, "b", Power::Stopped).unwrap().unwrap();
        assert!(off.contains("image \"b.qcow2\""), "{off}");
        assert!(off.contains("state \"stopped\""), "{off}");
        assert!(crate::vmfile::parse("f", &off).is_ok(), "{off}");
        let bare = with_power("f", "vm \"a\"", "a", Power::Suspended).unwrap().unwrap();
        assert!(bare.contains("vm \"a\" {") && bare.contains("state \"suspended\""), "{bare}");
        assert_eq!(with_power("f", TWO, "nobody", Power::Running).unwrap(), None);
        let renamed = with_name("f", TWO, "b", "c", "b").unwrap().unwrap();
        assert!(renamed.contains("// Of b.\nvm \"c\" {"), "{renamed}");
        assert!(renamed.contains("hostname \"b\""), "{renamed}");
        let again = with_name("f", &renamed, "c", "d", "other").unwrap().unwrap();
        assert!(again.contains("hostname \"b\"") && !again.contains("other"), "{again}");
        assert_eq!(machines("f", &renamed).unwrap(), ["a", "c"]);
    }

    #[test]
    fn text_that_is_no_kdl_is_told_and_left_alone() {
        for text in ["vm \"a\" {", "vm \"a\" { state \"x }"] {
            assert!(without_machine("f", text, "a").is_err());
            assert!(with_power("f", text, "a", Power::Running).is_err());
        }
    }
}
