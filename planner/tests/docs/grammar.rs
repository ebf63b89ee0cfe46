//! The grammar's table as a list of blocks and nodes with their paths.

use std::ptr;

use vmctl_planner::vmfile::grammar::{Shape, top};

/// A block of the language.
pub(crate) struct Block {
    /// The names of the nodes that it stands in, from the top level down.
    pub(crate) path: Vec<&'static str>,
    /// The node that it belongs to.
    pub(crate) shape: &'static Shape,
}

impl Block {
    /// Its nodes with their paths, such as `vm/provision/run`. Nodes that the user names end with `/`.
    pub(crate) fn nodes(&self) -> Vec<(String, &'static Shape)> {
        let children = self.shape.block.iter().copied().chain(self.shape.named);
        let path = |node: &Shape| self.path.iter().copied().chain([node.name]).collect::<Vec<_>>().join("/");
        children.map(|node| (path(node), node)).collect()
    }
}

/// All blocks, each before those within it. The block of machines is that of `vm` alone.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    add(Vec::new(), top(), &mut blocks);
    blocks
}

fn add(path: Vec<&'static str>, shape: &'static Shape, blocks: &mut Vec<Block>) {
    blocks.push(Block { path: path.clone(), shape });
    for node in shape.block.iter().copied().filter(|node| node.has_block() && !is_a_layer(node)) {
        let path = path.iter().copied().chain([node.name]).collect();
        add(path, node, blocks);
    }
}

/// Whether the block of `node` is that of a machine, under another name.
pub(crate) fn is_a_layer(node: &Shape) -> bool {
    node.name != "vm" && machine().block.len() == node.block.len() && ptr::eq(machine().block, node.block)
}

/// The node `vm`.
pub(crate) fn machine() -> &'static Shape {
    top().child("vm").unwrap()
}

#[test]
fn every_node_is_described() {
    for (path, node) in blocks().iter().flat_map(Block::nodes) {
        for text in [node.about, node.usage, node.default] {
            assert!(!text.is_empty() && !text.ends_with('.'), "{path}: {text:?}");
        }
        for prop in node.props {
            assert!(!prop.about.is_empty() && !prop.default.is_empty(), "{path} {}", prop.name);
        }
    }
}
