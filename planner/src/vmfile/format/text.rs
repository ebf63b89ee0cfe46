//! The door: a text in its canonical form, and proof that it still says the same.

use super::arrange::arrange;
use super::print::print;
use super::tree;
use crate::vmfile::ast::{Node, Scalar, Spanned, Value};
use crate::vmfile::report::{Fault, Report};
use crate::vmfile::source;
use crate::vmfile::sources::Sources;

/// The canonical form of a VMFile; `file` is its name in the report.
///
/// Indentation, blanks, line ends and the order of nodes and properties change, and nothing else: names, values and
/// comments stay as they are written. What is formatted already comes out as it is. Only syntax errors are errors here.
pub fn format(file: &str, text: &str) -> Result<String, Report> {
    let report = |faults| Report::new(file, &Sources::of(file, text.to_owned()), faults);
    let before = source::read(text, 0).map_err(report)?;
    let mut tree = tree::read(text);
    arrange(&mut tree);
    let formatted = print(&tree);
    // Whoever formats a file in place has no other copy.
    match source::read(&formatted, 0) {
        Ok(after) if say_the_same(&before, &after) => Ok(formatted),
        _ => Err(report(vec![changed()])),
    }
}

fn changed() -> Fault {
    Fault::error("vmfile::format", "formatting would change what the file says")
        .at((0, 0).into(), "somewhere in this file")
        .help("this is a fault of vmctl: report it, with the file")
}

/// Whether both hold the same nodes. Only those of one name have an order among them, and so it is with properties.
fn say_the_same(before: &[Node], after: &[Node]) -> bool {
    let name = |node: &Node| node.name.value.clone();
    pairs(before, after, name)
        .is_some_and(|pairs| pairs.into_iter().all(|(before, after)| is_same(before, after)))
}

fn is_same(before: &Node, after: &Node) -> bool {
    let props = pairs(&before.props, &after.props, |(name, _)| name.value.clone());
    before.name.value == after.name.value
        && is_same_word(before.annotation.as_ref(), after.annotation.as_ref())
        && before.args.len() == after.args.len()
        && before.args.iter().zip(&after.args).all(|(before, after)| is_same_value(before, after))
        && props.is_some_and(|props| {
            props
                .into_iter()
                .all(|(before, after)| before.0.value == after.0.value && is_same_value(&before.1, &after.1))
        })
        && match (&before.children, &after.children) {
            (Some(before), Some(after)) => say_the_same(before, after),
            (before, after) => before.is_none() && after.is_none(),
        }
}

fn is_same_value(before: &Value, after: &Value) -> bool {
    let is_same = match (&before.scalar, &after.scalar) {
        // `#nan` is not equal to itself.
        (Scalar::Float(before), Scalar::Float(after)) => before.total_cmp(after).is_eq(),
        (before, after) => before == after,
    };
    is_same && is_same_word(before.annotation.as_ref(), after.annotation.as_ref())
}

fn is_same_word(before: Option<&Spanned<String>>, after: Option<&Spanned<String>>) -> bool {
    before.map(|word| &word.value) == after.map(|word| &word.value)
}

/// Both in the order of their names, side by side; `None` if there are more of one.
fn pairs<'a, T>(before: &'a [T], after: &'a [T], name: impl Fn(&T) -> String) -> Option<Vec<(&'a T, &'a T)>> {
    let sorted = |things: &'a [T]| {
        let mut sorted: Vec<_> = things.iter().collect();
        sorted.sort_by_cached_key(|thing| name(thing));
        sorted
    };
    (before.len() == after.len()).then(|| sorted(before).into_iter().zip(sorted(after)).collect())
}
