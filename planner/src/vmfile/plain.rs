//! The KDL that almost every line of a VMFile is: plain names, values on one line, blocks.
//!
//! The kdl crate keeps every blank of a text, and tries each of KDL's many forms at each place. Most machines need none
//! of them, and are read here in a fraction of its time. Whatever is not plain is left to the crate, a node of the top
//! level at a time; tests hold both to the same answer.

use std::ops::Range;

use miette::SourceSpan;

use super::ast::{Node, Scalar, Spanned, Value};

/// Digits of a number that surely fit its 128 bits.
const MAX_DIGITS: usize = 18;

/// Reads what stands in `range` of a text that [`super::scan`] found right, and that begins at `base` among all sources.
/// `None` where something in it is not plain; it may be right all the same.
pub(super) fn read(clean: &str, range: Range<usize>, base: usize) -> Option<Vec<Node>> {
    let mut reader = Reader { text: clean.get(..range.end)?, at: range.start, base };
    let nodes = reader.nodes()?;
    // A `}` that closes nothing ends it before its end.
    (reader.at == range.end).then_some(nodes)
}

struct Reader<'t> {
    /// The text up to where reading ends.
    text: &'t str,
    at: usize,
    base: usize,
}

impl<'t> Reader<'t> {
    /// Nodes up to the end, or up to the `}` of their block.
    fn nodes(&mut self) -> Option<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b';'));
            match self.peek() {
                None | Some(b'}') => return Some(nodes),
                Some(_) => nodes.push(self.node()?),
            }
        }
    }

    fn node(&mut self) -> Option<Node> {
        let name = self.word()?;
        let (mut args, mut props, mut children) = (Vec::new(), Vec::new(), None);
        loop {
            let blanks = self.skip(|byte| matches!(byte, b' ' | b'\t'));
            match self.peek() {
                None | Some(b'\n' | b'\r' | b';' | b'}') => break,
                // Nothing but a line's end follows a block.
                Some(_) if blanks == 0 || children.is_some() => return None,
                Some(b'{') => {
                    self.at += 1;
                    children = Some(self.nodes()?);
                    self.take(b'}')?;
                }
                Some(b'"' | b'#' | b'(' | b'0'..=b'9') => push(&mut args, self.value()?),
                Some(_) => {
                    let word = self.word()?;
                    if self.take(b'=').is_some() {
                        let value = self.value()?;
                        push(&mut props, (word, value));
                    } else {
                        let Spanned { value, span } = word;
                        push(
                            &mut args,
                            Value { scalar: Scalar::Text(value), span, annotation: None, origin: None },
                        );
                    }
                }
            }
        }
        Some(Node { name, annotation: None, args, props, children, sound: true })
    }

    fn value(&mut self) -> Option<Value> {
        let annotation = match self.take(b'(') {
            Some(()) => {
                let word = self.word()?;
                self.take(b')')?;
                Some(word)
            }
            None => None,
        };
        let start = self.at;
        let scalar = match self.peek()? {
            b'"' => Scalar::Text(self.quoted()?),
            b'#' => self.keyword()?,
            b'0'..=b'9' => self.number()?,
            _ => Scalar::Text(self.word()?.value),
        };
        // Glued to it may be what makes something else of it.
        let ends = matches!(self.peek(), None | Some(b' ' | b'\t' | b'\n' | b'\r' | b';' | b'}'));
        ends.then(|| Value { scalar, span: self.span(start), annotation, origin: None })
    }

    /// A name or a text without quotation marks.
    fn word(&mut self) -> Option<Spanned<String>> {
        let start = self.at;
        self.peek().filter(|byte| byte.is_ascii_alphabetic() || *byte == b'_')?;
        self.skip(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let is_end = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b';' | b'}' | b'=' | b')');
        self.peek()
            .is_none_or(is_end)
            .then(|| Spanned { value: self.from(start).to_owned(), span: self.span(start) })
    }

    /// A text of one line in which nothing is escaped.
    fn quoted(&mut self) -> Option<String> {
        self.take(b'"')?;
        let start = self.at;
        self.skip(|byte| !matches!(byte, b'"' | b'\\' | b'\n' | b'\r'));
        let text = self.from(start).to_owned();
        self.take(b'"')?;
        Some(text)
    }

    fn keyword(&mut self) -> Option<Scalar> {
        let start = self.at;
        self.take(b'#')?;
        self.skip(|byte| byte.is_ascii_lowercase());
        match self.from(start) {
            "#true" => Some(Scalar::Bool(true)),
            "#false" => Some(Scalar::Bool(false)),
            "#null" => Some(Scalar::Null),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Scalar> {
        let start = self.at;
        let digits = self.skip(|byte| byte.is_ascii_digit());
        if digits > MAX_DIGITS {
            return None;
        }
        self.from(start).parse().ok().map(Scalar::Integer)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let is_it = self.peek() == Some(byte);
        self.at += usize::from(is_it);
        is_it.then_some(())
    }

    /// Skips bytes; returns how many.
    fn skip(&mut self, accept: impl Fn(u8) -> bool) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| !accept(*byte)).unwrap_or(rest.len());
        self.at += length;
        length
    }

    /// What stands between `start` and the current place, both of which are beside an ASCII character.
    fn from(&self, start: usize) -> &'t str {
        &self.text[start..self.at]
    }

    fn span(&self, start: usize) -> SourceSpan {
        (self.base + start, self.at - start).into()
    }
}

/// Adds to a list that mostly has a single element, as thousands of nodes have.
fn push<T>(list: &mut Vec<T>, element: T) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
    list.push(element);
}
