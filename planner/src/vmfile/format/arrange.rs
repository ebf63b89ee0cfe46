//! Puts nodes and properties in their order. Comments go where their nodes go.

use std::mem::take;

use super::order::order;
use super::tree::{Block, Item, Key, Node};

/// Arranges a whole file.
pub(super) fn arrange(file: &mut Block<'_>) {
    block(file, &mut Vec::new());
}

/// Arranges what stands in the node that `path` leads to.
fn block<'t>(block: &mut Block<'t>, path: &mut Vec<&'t str>) {
    let order = order(path).map_or_else(Vec::new, |order| order.nodes);
    if block.items.iter().all(|item| rank(item, &order).is_some() || divides(item, &order)) {
        let mut segment = Vec::new();
        for item in take(&mut block.items) {
            if divides(&item, &order) {
                block.items.extend(sorted(take(&mut segment), &order));
                block.items.push(item);
            } else {
                segment.push(item);
            }
        }
        block.items.extend(sorted(segment, &order));
    }
    for node in block.items.iter_mut().filter_map(|item| item.node.as_mut()) {
        // A name that is not written plainly is none that has an order.
        path.push(node.name.unwrap_or_default());
        arrange_entries(node, path);
        for (_, inner) in &mut node.blocks {
            self::block(&mut inner.block, path);
        }
        path.pop();
    }
}

fn rank(item: &Item<'_>, order: &[&str]) -> Option<usize> {
    let name = item.node.as_ref()?.name?;
    order.iter().position(|known| *known == name)
}

/// Whether nothing moves across `item`: comments that stand alone, and what is commented out and no known node.
fn divides(item: &Item<'_>, order: &[&str]) -> bool {
    item.node.as_ref().is_none_or(|node| node.is_removed && rank(item, order).is_none())
}

/// Sorts nodes. Where other nodes meet than before, a blank line comes between them if one stood behind the first or
/// before the second.
fn sorted<'t>(mut segment: Vec<Item<'t>>, order: &[&str]) -> Vec<Item<'t>> {
    // What comes first stays as far from what is before the segment as it was.
    let first_is_apart = segment.first_mut().is_some_and(|first| take(&mut first.is_apart));
    let behind: Vec<bool> = segment.iter().skip(1).map(|item| item.is_apart).chain([false]).collect();
    let mut places: Vec<_> = segment.into_iter().enumerate().collect();
    places.sort_by_key(|(_, item)| rank(item, order));
    let mut previous: Option<usize> = None;
    let mut sorted: Vec<_> = places
        .into_iter()
        .map(|(at, item)| {
            let parted =
                previous.filter(|previous| previous + 1 != at).and_then(|previous| behind.get(previous));
            previous = Some(at);
            Item { is_apart: item.is_apart || parted == Some(&true), ..item }
        })
        .collect();
    if let Some(first) = sorted.first_mut() {
        first.is_apart = first_is_apart;
    }
    sorted
}

/// Puts values before properties, and properties in their order if all are known.
fn arrange_entries(node: &mut Node<'_>, path: &[&str]) {
    let order = order(path).map_or_else(Vec::new, |order| order.props);
    let rank = |name: Option<&str>| order.iter().position(|known| Some(*known) == name);
    let are_known = node.entries.iter().all(|entry| match entry.key {
        Key::Value => true,
        Key::Property(name) => rank(name).is_some(),
    });
    let breaks: Vec<bool> = node.entries.iter().map(|entry| entry.gap.is_broken).collect();
    node.entries.sort_by_key(|entry| match entry.key {
        Key::Value => (false, None),
        Key::Property(name) => (true, rank(name).filter(|_| are_known)),
    });
    // Lines stay as long as they were; only comments go with what they stand before.
    for (entry, is_broken) in node.entries.iter_mut().zip(breaks) {
        entry.gap.is_broken = is_broken;
    }
}
