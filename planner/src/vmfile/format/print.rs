//! Writes the tree in its canonical form.

use super::literal;
use super::order::stands_apart;
use super::tree::{Block, Comment, Gap, Inner, Item, Node};

/// Blanks of one level.
const INDENT: &str = "    ";

/// Columns that a block on one line may reach.
const WIDTH: usize = 100;

/// The text of a file.
pub(super) fn print(file: &Block<'_>) -> String {
    let mut printer = Printer { text: String::new() };
    printer.items(file, 0);
    printer.text
}

struct Printer {
    text: String,
}

impl Printer {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn indent(&mut self, level: usize) {
        self.push(&INDENT.repeat(level));
    }

    /// The nodes of a block, each on a line of its own.
    fn items(&mut self, block: &Block<'_>, level: usize) {
        let mut previous = None;
        for item in &block.items {
            if previous.is_some_and(|previous| are_apart(previous, item, level)) {
                self.push("\n");
            }
            self.item(item, level);
            previous = Some(item);
        }
    }

    fn item(&mut self, item: &Item<'_>, level: usize) {
        self.indent(level);
        let mut above = item.above.iter().peekable();
        while let Some(comment) = above.next() {
            self.comment(comment, level);
            if comment.is_joined {
                self.push(" ");
            } else if above.peek().is_some() || item.node.is_some() {
                self.push("\n");
                self.indent(level);
            }
        }
        if let Some(node) = &item.node {
            self.node(node, level, false);
        }
        self.push("\n");
    }

    /// A node without the line end; blocks of one that `is_inline` stand on its line, however long that becomes.
    fn node(&mut self, node: &Node<'_>, level: usize, is_inline: bool) {
        self.tokens(&node.tokens, level);
        for entry in &node.entries {
            self.gap(&entry.gap, level);
            self.tokens(&entry.tokens, level);
        }
        for (gap, inner) in &node.blocks {
            self.gap(gap, level);
            self.inner(inner, level, is_inline);
        }
        self.behind(&node.behind, level);
    }

    /// Comments up to the end of the line.
    fn behind(&mut self, comments: &[Comment<'_>], level: usize) {
        let (last, others) = match comments.split_last() {
            Some((last, others)) if last.is_line => (Some(last), others),
            _ => (None, comments),
        };
        let is_fresh = self.comments(others, level);
        if let Some(last) = last {
            self.push(if is_fresh { "" } else { " " });
            self.comment(last, level);
        }
    }

    fn tokens(&mut self, tokens: &[&str], level: usize) {
        let indent = INDENT.repeat(level + 1);
        for token in tokens {
            self.push(&literal::token(token, &indent));
        }
    }

    /// What stands between two parts of a node at `level`.
    fn gap(&mut self, gap: &Gap<'_>, level: usize) {
        let is_fresh = self.comments(&gap.comments, level);
        if gap.is_broken && !is_fresh {
            self.push(" \\\n");
            self.indent(level + 1);
        } else if !is_fresh {
            self.push(" ");
        }
    }

    /// Comments within a node at `level`. Whether nothing stands on the last line yet.
    fn comments(&mut self, comments: &[Comment<'_>], level: usize) -> bool {
        let mut is_fresh = false;
        for comment in comments {
            self.push(match (is_fresh, comment.is_line) {
                (false, false) => " ",
                (false, true) => " \\ ",
                (true, false) => "",
                (true, true) => "\\ ",
            });
            self.comment(comment, level + 1);
            if comment.is_line {
                self.push("\n");
                self.indent(level + 1);
            }
            is_fresh = comment.is_line;
        }
        is_fresh
    }

    fn comment(&mut self, comment: &Comment<'_>, level: usize) {
        self.push(&literal::comment(comment.text, comment.indent, &INDENT.repeat(level)));
    }

    /// A block, on one line if it was so and still fits.
    fn inner(&mut self, inner: &Inner<'_>, level: usize, is_inline: bool) {
        let Inner { is_removed, block } = inner;
        self.push(if *is_removed { "/-{" } else { "{" });
        let start = self.text.len();
        if block.is_one_line {
            self.line_of(block, level);
            if is_inline || self.fits() {
                return;
            }
            self.text.truncate(start);
        }
        self.behind(&block.head, level);
        if !(block.items.is_empty() && block.head.is_empty()) {
            self.push("\n");
            self.items(block, level + 1);
            self.indent(level);
        }
        self.push("}");
    }

    /// The nodes of a block without comments, and its `}`, on one line.
    fn line_of(&mut self, block: &Block<'_>, level: usize) {
        for (at, node) in block.items.iter().filter_map(|item| item.node.as_ref()).enumerate() {
            self.push(if at == 0 { " " } else { "; " });
            self.node(node, level, true);
        }
        self.push(if block.items.is_empty() { "}" } else { " }" });
    }

    /// Whether the last line is not too long.
    fn fits(&self) -> bool {
        self.text.chars().rev().take_while(|c| *c != '\n').take(WIDTH + 1).count() <= WIDTH
    }
}

/// Whether a blank line stands between two neighbours.
fn are_apart(first: &Item<'_>, second: &Item<'_>, level: usize) -> bool {
    let machine = |item: &Item<'_>| item.node.as_ref().and_then(|node| node.name).is_some_and(stands_apart);
    first.node.is_none() || second.is_apart || (level == 0 && (machine(first) || machine(second)))
}
