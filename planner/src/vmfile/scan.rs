//! Recognises KDL 2 in one pass without recursion: limits, nesting, and the usual mistakes.
//!
//! What passes here is safe to hand to the kdl crate, whose recursion and recovery can be driven to overflow its
//! stack or to take exponential time.

use std::ops::Range;

use super::fields::shorten;
use super::lex::{Kind, Lexer, MAX_DEPTH, MAX_FAULTS, Token, is_forbidden};
use super::report::Fault;

/// Size of a VMFile that is accepted, in bytes.
pub const MAX_BYTES: usize = 16 << 20;

/// Number of nodes that is accepted: 10,000 machines with 20 nodes each.
const MAX_NODES: usize = 200_000;

/// Values and properties of one node that are accepted; longer lists stand in several nodes.
const MAX_VALUES: usize = 1_000;

/// Values and properties of all nodes that are accepted: the kdl crate takes close to 1 KiB of memory for each.
const MAX_ALL_VALUES: usize = 500_000;

/// How deep `/-` may nest: the kdl crate parses what is removed twice at each level.
const MAX_REMOVED: usize = 4;

const SYNTAX: &str = "vmfile::syntax";

/// A text that is safe to parse.
#[derive(Debug)]
pub(super) struct Scanned {
    /// It with its comments blanked out, at the same offsets.
    pub(super) clean: String,
    /// Where a node of the top level has ended, in order: what stands before such a place can be parsed without what
    /// stands behind it.
    pub(super) ends: Vec<usize>,
}

/// Checks `text`.
pub(super) fn scan(text: &str) -> Result<Scanned, Vec<Fault>> {
    if text.len() > MAX_BYTES {
        return Err(vec![
            Fault::error("vmfile::too-big", format!("the file has {} bytes", text.len()))
                .at((0, 0).into(), format!("more than {} MiB", MAX_BYTES >> 20))
                .help("a VMFile is a short text; is this the right file?"),
        ]);
    }
    let unmarked = text.strip_prefix('\u{feff}').unwrap_or(text);
    let forbidden = unmarked.char_indices().find(|(_, c)| is_forbidden(*c));
    if let Some((at, c)) = forbidden.map(|(at, c)| (at + text.len() - unmarked.len(), c)) {
        return Err(vec![
            Fault::error(SYNTAX, format!("the character U+{:04X} is not allowed", u32::from(c)))
                .at((at, c.len_utf8()).into(), "an invisible control character")
                .help(format!("remove it, or write it as `\\u{{{:x}}}` within a text", u32::from(c))),
        ]);
    }
    if let Some(at) = unmarked.strip_prefix("/- kdl-version 1").map(|_| text.len() - unmarked.len()) {
        return Err(vec![
            Fault::error("vmfile::kdl1", "the file says that it is KDL 1; VMFiles are KDL 2")
                .at((at, "/- kdl-version 1".len()).into(), "KDL 1")
                .help("write `#true`, `#false` and `#null` for the keywords, #\"…\"# for raw text, and remove this line"),
        ]);
    }
    let mut scanner = Scanner {
        lexer: Lexer::new(text),
        peeked: None,
        frames: Vec::new(),
        node: None,
        removing: None,
        removed_depth: 0,
        nodes: 0,
        values: 0,
        misfit: None,
        ends: Vec::new(),
    };
    scanner.run();
    let Scanner { mut lexer, ends, .. } = scanner;
    let faults = std::mem::take(&mut lexer.faults);
    if faults.is_empty() { Ok(Scanned { clean: lexer.into_clean(), ends }) } else { Err(faults) }
}

/// The node that is being read.
#[derive(Debug, Clone)]
struct Open {
    name: Range<usize>,
    values: usize,
    /// Commented out by `/-`.
    removed: bool,
    /// A block was read, commented out or not.
    had_block: bool,
    /// A block that counts was read.
    closed: bool,
}

/// A block that is not closed yet.
#[derive(Debug, Clone)]
struct Frame {
    brace: Range<usize>,
    owner: Option<Open>,
    removed: bool,
    /// The block itself was commented out, not its node.
    block_removed: bool,
}

struct Scanner<'t> {
    lexer: Lexer<'t>,
    peeked: Option<Token>,
    frames: Vec<Frame>,
    node: Option<Open>,
    /// The `/-` whose thing has not come yet.
    removing: Option<Range<usize>>,
    removed_depth: usize,
    nodes: usize,
    values: usize,
    /// The first block whose `}` is indented otherwise than its line: if a `}` is missing, then here.
    misfit: Option<(Frame, Range<usize>)>,
    ends: Vec<usize>,
}

impl Scanner<'_> {
    fn run(&mut self) {
        while self.lexer.faults.len() < MAX_FAULTS {
            let Some(token) = self.next() else { return self.at_end() };
            match token.kind {
                Kind::Newline if self.removing.is_some() => {}
                Kind::Semicolon if self.node.is_none() => {
                    self.fault(token.range, "`;` ends nothing", "no node before it", "remove it");
                }
                Kind::Newline | Kind::Semicolon => {
                    self.nothing_to_remove();
                    if self.node.take().is_some() && self.frames.is_empty() {
                        self.ends.push(token.range.end);
                    }
                }
                Kind::Remove => {
                    self.nothing_to_remove();
                    self.removing = Some(token.range);
                }
                Kind::Open => {
                    if !self.open(token.range) {
                        return;
                    }
                }
                Kind::Close => self.close(token.range),
                Kind::Equals => self.stray_equals(token.range),
                Kind::TypeOpen => self.annotation(token.range),
                Kind::TypeClose => self.fault(token.range, "`)` without `(`", "here", "remove it"),
                Kind::Word | Kind::Number | Kind::Text | Kind::Keyword => {
                    if !self.item(token) {
                        return;
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Option<Token> {
        self.peeked.take().or_else(|| self.lexer.next())
    }

    fn next_if(&mut self, accept: impl Fn(Kind) -> bool) -> Option<Token> {
        let token = self.next()?;
        if accept(token.kind) {
            return Some(token);
        }
        self.peeked = Some(token);
        None
    }

    fn fault(&mut self, range: Range<usize>, message: &str, label: &str, help: &str) {
        self.lexer.faults.push(Fault::error(SYNTAX, message).at(range.into(), label).help(help));
    }

    fn too_big(&mut self, code: &'static str, range: Range<usize>, message: String) {
        let fault = Fault::error(code, message).at(range.into(), "one too many");
        self.lexer.faults.push(fault.help("a VMFile needs far less; is this the right file?"));
    }

    fn nothing_to_remove(&mut self) {
        if let Some(range) = self.removing.take() {
            let help = "`/-` comments out the node, value or block that follows it; `//` comments out a line";
            self.fault(range, "nothing follows `/-` that it could comment out", "here", help);
        }
    }

    /// A name, a value or a property. False to stop.
    fn item(&mut self, token: Token) -> bool {
        let removed = self.removing.take().is_some();
        match &mut self.node {
            None => {
                if matches!(token.kind, Kind::Number | Kind::Keyword) {
                    let help =
                        "a line begins with a name: `memory 2048`; values of one node stay on one line";
                    self.fault(
                        token.range.clone(),
                        "a node begins with its name",
                        "a value without a node",
                        help,
                    );
                }
                self.nodes += 1;
                if self.nodes > MAX_NODES {
                    self.too_big(
                        "vmfile::too-big",
                        token.range,
                        format!("the file has more than {MAX_NODES} nodes"),
                    );
                    return false;
                }
                self.node =
                    Some(Open { name: token.range, values: 0, removed, had_block: false, closed: false });
            }
            Some(node) if node.had_block => {
                let help = "begin a new line, or put a `;` between";
                self.fault(token.range, "something follows a `}` on its line", "belongs on a new line", help);
                self.node = None;
            }
            Some(node) => {
                node.values += 1;
                self.values += 1;
                if let Some(message) = too_many(node.values, self.values) {
                    self.too_big("vmfile::too-big", token.range, message);
                    return false;
                }
                if self.next_if(|kind| kind == Kind::Equals).is_some() {
                    self.property(&token);
                }
            }
        }
        true
    }

    /// What follows `key=`.
    fn property(&mut self, key: &Token) {
        let name = self.lexer.text(&key.range);
        if matches!(key.kind, Kind::Number | Kind::Keyword) {
            self.fault(
                key.range.clone(),
                "a property begins with a name",
                "not a name",
                "write `name=value`",
            );
        }
        if let Some(open) = self.next_if(|kind| kind == Kind::TypeOpen) {
            self.annotation(open.range);
        }
        let is_value = |kind| matches!(kind, Kind::Word | Kind::Number | Kind::Text | Kind::Keyword);
        if self.next_if(is_value).is_none() {
            let message = format!("the property `{}` has no value", shorten(name));
            self.fault(key.range.clone(), &message, "a value must follow its `=`", "write `name=value`");
        }
    }

    /// `(type)`, behind its opening parenthesis.
    fn annotation(&mut self, open: Range<usize>) {
        let named = self.next_if(|kind| matches!(kind, Kind::Word | Kind::Text));
        let closed = named.and_then(|_| self.next_if(|kind| kind == Kind::TypeClose));
        let is_value = |kind| matches!(kind, Kind::Word | Kind::Number | Kind::Text | Kind::Keyword);
        let Some(close) = closed else {
            let help = "parentheses enclose one type name, as in `(u8)5`; text with parentheses goes in quotation marks";
            return self.fault(open, "`(` does not begin a type annotation", "here", help);
        };
        match self.next_if(is_value) {
            Some(value) => self.peeked = Some(value),
            None => self.fault(
                open.start..close.range.end,
                "a type without a value",
                "nothing follows",
                "remove it",
            ),
        }
    }

    fn stray_equals(&mut self, range: Range<usize>) {
        let name = self.node.as_ref().filter(|node| node.values == 0).map(|node| node.name.clone());
        match name {
            Some(name) => {
                let help = format!("write `{} VALUE` without `=`", self.lexer.text(&name));
                self.fault(range, "a node and its value have no `=` between them", "remove this", &help);
            }
            None => self.fault(range, "`=` without a name before it", "here", "write `name=value`"),
        }
        // Its value is left to be read as a plain one.
    }

    fn open(&mut self, range: Range<usize>) -> bool {
        let block_removed = self.removing.take().is_some();
        match &self.node {
            None if self.nodes == 0 => {
                let help = "this looks like JSON; a VMFile is KDL: `vm \"web\" { image \"debian.qcow2\" }`";
                self.fault(range, "the file begins with a block", "a name is missing before it", help);
                return false;
            }
            None => {
                let help = "put `{` on the line of its node: `vm \"web\" {`";
                self.fault(range.clone(), "a block without a node", "belongs to the line above?", help);
            }
            Some(node) if node.closed && !block_removed => {
                self.fault(
                    range.clone(),
                    "a node has one block",
                    "a second block",
                    "begin a new line for a new node",
                );
            }
            Some(_) => {}
        }
        if self.frames.len() >= MAX_DEPTH {
            self.too_big(
                "vmfile::too-deep",
                range,
                format!("blocks are nested deeper than {MAX_DEPTH} levels"),
            );
            return false;
        }
        let removed = block_removed || self.node.as_ref().is_some_and(|node| node.removed);
        self.removed_depth += usize::from(removed);
        if self.removed_depth > MAX_REMOVED {
            self.too_big(
                "vmfile::too-deep",
                range,
                format!("`/-` is nested deeper than {MAX_REMOVED} levels"),
            );
            return false;
        }
        self.frames.push(Frame { brace: range, owner: self.node.take(), removed, block_removed });
        true
    }

    fn close(&mut self, range: Range<usize>) {
        self.nothing_to_remove();
        match self.frames.pop() {
            Some(frame) => {
                let (opened, closed) = (self.indentation(&frame.brace), self.indentation(&range));
                let first_on_line = closed.len() == self.line_before(&range).len();
                if self.misfit.is_none() && first_on_line && opened != closed {
                    self.misfit = Some((frame.clone(), range));
                }
                self.removed_depth -= usize::from(frame.removed);
                self.node = frame.owner.map(|owner| Open {
                    had_block: true,
                    closed: owner.closed || !frame.block_removed,
                    ..owner
                });
            }
            // After another mistake the count of braces means nothing.
            None if self.lexer.faults.is_empty() => {
                self.fault(
                    range,
                    "`}` without `{`",
                    "closes nothing",
                    "remove it, or find the `{` that is missing",
                );
            }
            None => {}
        }
    }

    fn at_end(&mut self) {
        self.nothing_to_remove();
        let Some(last) = self.frames.last().filter(|_| self.lexer.faults.is_empty()) else { return };
        let (frame, closed) = match self.misfit.take() {
            Some((frame, closed)) => (frame, Some(closed)),
            None => (last.clone(), None),
        };
        let name = frame.owner.as_ref().map_or("", |owner| self.lexer.text(&owner.name));
        let mut fault = Fault::error(SYNTAX, format!("the block of `{}` is not closed", shorten(name)))
            .at(frame.brace.into(), "opened here")
            .help("put a `}` on a line of its own behind its last node");
        if let Some(closed) = closed {
            fault.add_label(closed.into(), "by its indentation, this closes another block");
        }
        self.lexer.faults.push(fault);
    }

    /// The text of the line before `range`.
    fn line_before(&self, range: &Range<usize>) -> &str {
        let before = self.lexer.text(&(0..range.start));
        before.rsplit('\n').next().unwrap_or(before)
    }

    fn indentation(&self, range: &Range<usize>) -> &str {
        let line = self.line_before(range);
        &line[..line.len() - line.trim_start().len()]
    }
}

/// What to say of a node with `own` values in a file with `all` values so far, if these are too many.
fn too_many(own: usize, all: usize) -> Option<String> {
    if own > MAX_VALUES {
        Some(format!("a node has more than {MAX_VALUES} values"))
    } else if all > MAX_ALL_VALUES {
        Some(format!("the file has more than {MAX_ALL_VALUES} values"))
    } else {
        None
    }
}
