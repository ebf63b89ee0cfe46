//! Several layers of a machine made into one.

use crate::vmfile::ast::Node;
use crate::vmfile::grammar::{IMAGE, IMAGE_URL, Layers, Shape};

/// The nodes of `layers`, the farthest first, as one block of nodes that are in `block`.
pub(super) fn merge(block: &'static [&'static Shape], layers: &[&[Node]]) -> Vec<Node> {
    let find = |name: &str| block.iter().copied().find(|shape| shape.name == name);
    let mut merged: Vec<Node> = Vec::new();
    for layer in layers {
        // What this layer takes the place of, before anything of it is added: it may have several of a name.
        merged.retain(|earlier| {
            let name = key(&earlier.name.value);
            let is_nearest = find(&earlier.name.value).is_some_and(|shape| shape.layers == Layers::Nearest);
            !(is_nearest && layer.iter().any(|node| key(&node.name.value) == name))
        });
        for node in *layer {
            let shape = find(&node.name.value).filter(|shape| shape.layers == Layers::Merged);
            let earlier = merged.iter_mut().find(|earlier| earlier.name.value == node.name.value);
            match (shape, earlier) {
                (Some(shape), Some(earlier)) => *earlier = both(shape, earlier, node),
                _ => merged.push(node.clone()),
            }
        }
    }
    merged
}

/// What stands for the same thing has the same key.
fn key(name: &str) -> &str {
    if name == IMAGE_URL.name { IMAGE.name } else { name }
}

/// A block of two layers, with the place of the nearer one.
fn both(shape: &'static Shape, far: &Node, near: &Node) -> Node {
    let block = |node: &Node| node.children.clone().unwrap_or_default();
    let (far_block, near_block) = (block(far), block(near));
    let children = match shape.named {
        None => merge(shape.block, &[&far_block, &near_block]),
        Some(_) => {
            let kept = |node: &Node| !near_block.iter().any(|near| near.name.value == node.name.value);
            far_block.into_iter().filter(kept).chain(near_block.clone()).collect()
        }
    };
    let has_block = far.children.is_some() || near.children.is_some();
    Node { children: has_block.then_some(children), sound: far.sound && near.sound, ..near.clone() }
}
