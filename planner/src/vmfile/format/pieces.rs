//! A text as a flat list: its tokens, and what stands between them besides blanks.

use std::ops::Range;

use crate::vmfile::lex::{Kind, Lexer, Space, is_blank, is_newline};

/// A token, a comment or an escaped line end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'t> {
    pub(super) what: What,
    pub(super) text: &'t str,
    /// The blanks before it, if it is the first on its line.
    pub(super) indent: Option<&'t str>,
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Token(Kind),
    Space(Space),
}

impl Piece<'_> {
    /// Whether it can be followed by nothing on its line, or reaches over a line end.
    pub(super) fn breaks_line(&self) -> bool {
        let breaks = matches!(self.what, What::Token(Kind::Newline) | What::Space(Space::Escape));
        breaks || self.text.contains(is_newline)
    }
}

/// The pieces of `text`, which passed `scan`. `\r\n` is one line end.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut lexer = Lexer::new(text);
    let mut pieces = Vec::new();
    let piece = |what, range: Range<usize>| {
        let (before, rest) = text.split_at(range.start);
        Piece { what, text: &rest[..range.len()], indent: indent(before) }
    };
    loop {
        let token = lexer.next();
        pieces.extend(lexer.skipped.drain(..).map(|(space, range)| piece(What::Space(space), range)));
        let Some(token) = token else { return pieces };
        let is_second_half =
            text[..token.range.start].ends_with('\r') && text[token.range.start..].starts_with('\n');
        if !is_second_half {
            pieces.push(piece(What::Token(token.kind), token.range));
        }
    }
}

/// What stands on the last line of `before`, if that is blanks only.
fn indent(before: &str) -> Option<&str> {
    let blanks = before.len() - before.trim_end_matches(is_blank).len();
    let (rest, blanks) = before.split_at(before.len() - blanks);
    (rest.is_empty() || rest == "\u{feff}" || rest.ends_with(is_newline)).then_some(blanks)
}
