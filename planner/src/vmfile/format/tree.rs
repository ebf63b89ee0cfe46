//! Nodes as they are written, each with the comments that belong to it.
//!
//! A comment belongs to the node below it, or to the node that it stands behind. With a blank line below it, or at the
//! end of its block, it belongs to none and divides the block.

use super::pieces::{Piece, What, pieces};
use crate::vmfile::lex::{Kind, Space};

/// The nodes between two braces, or of a whole file.
#[derive(Debug, Default)]
pub(super) struct Block<'t> {
    /// Comments on the line of the `{`.
    pub(super) head: Vec<Comment<'t>>,
    pub(super) items: Vec<Item<'t>>,
    /// It stands on one line and has no comment.
    pub(super) is_one_line: bool,
}

/// A node, or comments that stand alone.
#[derive(Debug)]
pub(super) struct Item<'t> {
    /// A blank line stands before it.
    pub(super) is_apart: bool,
    /// The comments above the node.
    pub(super) above: Vec<Comment<'t>>,
    /// None if the comments stand alone.
    pub(super) node: Option<Node<'t>>,
}

/// A node, commented out by `/-` or not.
#[derive(Debug)]
pub(super) struct Node<'t> {
    pub(super) is_removed: bool,
    /// `/-`, the annotation and the name: what stands together without blanks.
    pub(super) tokens: Vec<&'t str>,
    /// Its name, if that is written plainly.
    pub(super) name: Option<&'t str>,
    /// Values and properties.
    pub(super) entries: Vec<Entry<'t>>,
    /// At most one counts, the others are commented out.
    pub(super) blocks: Vec<(Gap<'t>, Inner<'t>)>,
    /// Comments behind its last part, on the same line.
    pub(super) behind: Vec<Comment<'t>>,
}

/// The block of a node.
#[derive(Debug)]
pub(super) struct Inner<'t> {
    pub(super) is_removed: bool,
    pub(super) block: Block<'t>,
}

/// A value or a property, with what stands before it.
#[derive(Debug)]
pub(super) struct Entry<'t> {
    pub(super) gap: Gap<'t>,
    /// What stands together without blanks.
    pub(super) tokens: Vec<&'t str>,
    pub(super) key: Key<'t>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'t> {
    Value,
    /// A property; without a name if that is not written plainly.
    Property(Option<&'t str>),
}

/// What stands between two parts of a node besides blanks.
#[derive(Debug, Default)]
pub(super) struct Gap<'t> {
    pub(super) comments: Vec<Comment<'t>>,
    /// An escaped line end that is no comment's.
    pub(super) is_broken: bool,
}

/// A comment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comment<'t> {
    pub(super) text: &'t str,
    /// `//`, which needs a line end behind it.
    pub(super) is_line: bool,
    /// The blanks before it, if it is the first on its line.
    pub(super) indent: Option<&'t str>,
    /// What follows, a comment or a node, stands on the same line.
    pub(super) is_joined: bool,
}

/// Reads a text that passed `scan`.
pub(super) fn read(text: &str) -> Block<'_> {
    let pieces = pieces(text);
    let mut reader = Reader { pieces: &pieces, at: 0, unfit: 0 };
    reader.block(false)
}

struct Reader<'p, 't> {
    pieces: &'p [Piece<'t>],
    at: usize,
    /// Pieces so far that keep a block from standing on one line.
    unfit: usize,
}

/// Comments of a block whose node has not come yet.
#[derive(Default)]
struct Pending<'t> {
    comments: Vec<(bool, Comment<'t>)>,
    /// Line ends since the last comment or node.
    newlines: usize,
    /// Nothing but the node or the `{` before stands on this line so far.
    on_line: bool,
}

impl<'t> Pending<'t> {
    fn push(&mut self, comment: Comment<'t>) {
        self.join();
        self.comments.push((self.newlines > 1, comment));
        self.newlines = 0;
    }

    /// Something follows: if it does so on the same line, the last comment is told.
    fn join(&mut self) {
        if let Some((_, last)) = self.comments.last_mut() {
            last.is_joined = self.newlines == 0 && !last.is_line;
        }
    }

    /// The comments behind the node on its line; no more can come.
    fn end_line(&mut self) -> Vec<Comment<'t>> {
        let behind = if self.on_line { std::mem::take(&mut self.comments) } else { Vec::new() };
        self.on_line = false;
        behind.into_iter().map(|(_, comment)| comment).collect()
    }

    /// The comments by paragraph, as items without a node.
    fn paragraphs(&mut self) -> Vec<Item<'t>> {
        let mut items: Vec<Item<'_>> = Vec::new();
        for (is_apart, comment) in self.comments.drain(..) {
            match items.last_mut().filter(|_| !is_apart) {
                Some(paragraph) => paragraph.above.push(comment),
                None => items.push(Item { is_apart, above: vec![comment], node: None }),
            }
        }
        items
    }
}

impl<'t> Reader<'_, 't> {
    fn peek(&self) -> Option<Piece<'t>> {
        self.pieces.get(self.at).copied()
    }

    fn peek_kind(&self) -> Option<Kind> {
        match self.peek()?.what {
            What::Token(kind) => Some(kind),
            What::Space(_) => None,
        }
    }

    fn next(&mut self) -> Option<Piece<'t>> {
        let piece = self.peek()?;
        self.at += 1;
        let is_comment = matches!(piece.what, What::Space(Space::LineComment | Space::BlockComment));
        self.unfit += usize::from(is_comment || piece.breaks_line());
        Some(piece)
    }

    fn next_if(&mut self, kind: Kind) -> Option<&'t str> {
        if self.peek_kind() == Some(kind) { self.next().map(|piece| piece.text) } else { None }
    }

    /// The nodes up to the `}`, or up to the end of the file.
    fn block(&mut self, is_nested: bool) -> Block<'t> {
        let (mut block, unfit) = (Block::default(), self.unfit);
        let mut pending = Pending { on_line: is_nested, ..Pending::default() };
        while let Some(piece) = self.peek() {
            match piece.what {
                What::Token(Kind::Close) => break,
                What::Token(Kind::Newline) => {
                    block.put_behind(pending.end_line());
                    pending.newlines += 1;
                    self.next();
                }
                What::Token(Kind::Semicolon) | What::Space(Space::Escape) => {
                    self.next();
                }
                What::Space(space) => {
                    pending.push(comment(piece, space));
                    if space == Space::LineComment {
                        block.put_behind(pending.end_line());
                    }
                    self.next();
                }
                What::Token(_) => {
                    self.item(&mut block, &mut pending);
                    pending = Pending { on_line: true, ..Pending::default() };
                }
            }
        }
        if !block.items.is_empty() {
            block.put_behind(pending.end_line());
        }
        block.items.extend(pending.paragraphs());
        block.is_one_line = self.unfit == unfit;
        block
    }

    /// A node with the comments above it, and the paragraphs of comments before those.
    fn item(&mut self, block: &mut Block<'t>, pending: &mut Pending<'t>) {
        pending.join();
        let mut items = pending.paragraphs();
        let is_apart = pending.newlines > 1;
        let mut item = match items.pop() {
            Some(paragraph) if !is_apart => paragraph,
            paragraph => {
                items.extend(paragraph);
                Item { is_apart, above: Vec::new(), node: None }
            }
        };
        block.items.extend(items);
        item.node = Some(self.node(&mut item.above));
        block.items.push(item);
    }

    /// A node; comments within its name are put `above`.
    fn node(&mut self, above: &mut Vec<Comment<'t>>) -> Node<'t> {
        let mut within = Gap::default();
        let removal = self.removal(&mut within);
        self.unfit += usize::from(removal.is_some());
        let mut tokens = Vec::from_iter(removal);
        self.annotation(&mut tokens, &mut within);
        let name = self.next().map(|piece| piece.text);
        tokens.extend(name);
        above.extend(
            within.comments.into_iter().map(|comment| Comment { is_joined: !comment.is_line, ..comment }),
        );
        let mut node = Node {
            is_removed: removal.is_some(),
            tokens,
            name: name.and_then(plain),
            entries: Vec::new(),
            blocks: Vec::new(),
            behind: Vec::new(),
        };
        loop {
            let mut gap = self.gap();
            let removal = self.removal(&mut gap);
            match self.peek_kind() {
                Some(Kind::Open) => {
                    self.next();
                    let block = self.block(true);
                    self.next();
                    node.blocks.push((gap, Inner { is_removed: removal.is_some(), block }));
                }
                Some(Kind::Word | Kind::Text | Kind::Number | Kind::Keyword | Kind::TypeOpen) => {
                    node.entries.push(self.entry(gap, Vec::from_iter(removal)));
                }
                _ => {
                    node.behind = gap.comments;
                    return node;
                }
            }
        }
    }

    fn entry(&mut self, mut gap: Gap<'t>, mut tokens: Vec<&'t str>) -> Entry<'t> {
        self.annotation(&mut tokens, &mut gap);
        let first = self.next().map_or("", |piece| piece.text);
        tokens.push(first);
        let (at, unfit) = (self.at, self.unfit);
        let after = self.gap();
        let Some(equals) = self.next_if(Kind::Equals) else {
            (self.at, self.unfit) = (at, unfit);
            return Entry { gap, tokens, key: Key::Value };
        };
        gap.comments.extend(after.comments);
        tokens.push(equals);
        gap.comments.extend(self.gap().comments);
        self.annotation(&mut tokens, &mut gap);
        tokens.extend(self.next().map(|piece| piece.text));
        Entry { gap, tokens, key: Key::Property(plain(first)) }
    }

    /// `/-`, with the line ends that may follow it.
    fn removal(&mut self, gap: &mut Gap<'t>) -> Option<&'t str> {
        let removal = self.next_if(Kind::Remove)?;
        loop {
            gap.comments.extend(self.gap().comments);
            if self.next_if(Kind::Newline).is_none() {
                return Some(removal);
            }
        }
    }

    /// `(type)`, if there is one.
    fn annotation(&mut self, tokens: &mut Vec<&'t str>, gap: &mut Gap<'t>) {
        let Some(open) = self.next_if(Kind::TypeOpen) else { return };
        tokens.push(open);
        for _ in ["type", ")"] {
            gap.comments.extend(self.gap().comments);
            tokens.extend(self.next().map(|piece| piece.text));
        }
        gap.comments.extend(self.gap().comments);
    }

    /// Comments and escaped line ends up to the next token.
    fn gap(&mut self) -> Gap<'t> {
        let mut gap = Gap::default();
        while let Some(Piece { what: What::Space(space), .. }) = self.peek() {
            let Some(piece) = self.next() else { break };
            let next = self.peek().map(|piece| piece.what);
            match space {
                Space::Escape => gap.is_broken |= next != Some(What::Space(Space::LineComment)),
                Space::LineComment | Space::BlockComment => gap.comments.push(comment(piece, space)),
            }
        }
        gap
    }
}

impl<'t> Block<'t> {
    /// Adds comments behind the last node, or behind the `{`.
    fn put_behind(&mut self, comments: Vec<Comment<'t>>) {
        match self.items.last_mut().and_then(|item| item.node.as_mut()) {
            Some(node) => node.behind.extend(comments),
            None => self.head.extend(comments),
        }
    }
}

fn comment<'t>(piece: Piece<'t>, space: Space) -> Comment<'t> {
    Comment { text: piece.text, is_line: space == Space::LineComment, indent: piece.indent, is_joined: false }
}

/// The name that a token spells, unless it has escapes or several lines.
fn plain(token: &str) -> Option<&str> {
    let bare = token.trim_matches('#');
    let name = bare.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(bare);
    (!name.contains(['"', '\\'])).then_some(name)
}
