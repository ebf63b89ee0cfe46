//! The canonical order of nodes and properties: that of the grammar.

use crate::vmfile::grammar::{DEFAULTS, TEMPLATE, TOP, VM};

/// In which order the parts of a node stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// The nodes of its block. Empty where their order has a meaning or is the author's own.
    pub(super) nodes: Vec<&'static str>,
    pub(super) props: Vec<&'static str>,
}

/// The order in the node that the names of `path` lead to, from the top level on; the top level itself has none.
pub(super) fn order(path: &[&str]) -> Option<Order> {
    let shape = path.iter().try_fold(&TOP, |shape, name| shape.child(name))?;
    let nodes = if shape.is_ordered { Vec::new() } else { shape.names() };
    Some(Order { nodes, props: shape.props.iter().map(|prop| prop.name).collect() })
}

/// Whether a blank line stands around a node of the top level.
pub(super) fn stands_apart(name: &str) -> bool {
    [DEFAULTS.name, TEMPLATE.name, VM.name].contains(&name)
}
