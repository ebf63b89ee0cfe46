//! Tokens of KDL 2, with the mistakes people make told in their words.
//!
//! Comments are blanked out of a copy of the text, byte for byte: the kdl crate recurses for each `*` of a comment
//! and never gets to see one. Every text and number is checked here, so that the crate's own idea of where a token
//! ends cannot differ from ours.

use std::ops::Range;

use super::fields::shorten;
use super::report::Fault;

/// Nesting of blocks, and of comments, that is accepted.
pub(super) const MAX_DEPTH: usize = 64;

/// Syntax errors that are told at once; later ones mostly follow from the first.
pub(super) const MAX_FAULTS: usize = 5;

/// Digits of a number that surely fit the parser's 128 bits.
const MAX_DIGITS: usize = 30;

const SYNTAX: &str = "vmfile::syntax";
const KDL1: &str = "vmfile::kdl1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Number,
    Text,
    Keyword,
    Open,
    Close,
    Semicolon,
    Newline,
    /// `/-`, which comments out the next thing.
    Remove,
    Equals,
    TypeOpen,
    TypeClose,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) range: Range<usize>,
}

/// What may stand between two tokens besides blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// `// …`, up to the line end.
    LineComment,
    /// `/* … */`.
    BlockComment,
    /// `\` that escapes the line end; a comment may stand between the two.
    Escape,
}

pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
    clean: Vec<u8>,
    /// What was skipped so far, in order.
    pub(super) skipped: Vec<(Space, Range<usize>)>,
    pub(super) faults: Vec<Fault>,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let (skipped, faults) = (Vec::new(), Vec::new());
        let mut lexer = Self { text, at: 0, clean: text.as_bytes().to_vec(), skipped, faults };
        if text.starts_with('\u{feff}') {
            lexer.blank_to('\u{feff}'.len_utf8());
        }
        lexer
    }

    /// The text with comments blanked; same length, same offsets.
    pub(super) fn into_clean(self) -> String {
        // Comments are blanked from their first to their last byte, so the rest stays UTF-8.
        String::from_utf8(self.clean).unwrap_or_else(|_| self.text.to_owned())
    }

    pub(super) fn text(&self, range: &Range<usize>) -> &'t str {
        self.text.get(range.clone()).unwrap_or("")
    }

    /// The next token; `None` at the end of the text.
    pub(super) fn next(&mut self) -> Option<Token> {
        self.skip_space();
        let start = self.at;
        let first = self.peek()?;
        let single = |lexer: &mut Self, kind| {
            lexer.at += first.len_utf8();
            kind
        };
        let kind = match first {
            '{' => single(self, Kind::Open),
            '}' => single(self, Kind::Close),
            ';' => single(self, Kind::Semicolon),
            '=' => single(self, Kind::Equals),
            '(' => single(self, Kind::TypeOpen),
            ')' => single(self, Kind::TypeClose),
            newline if is_newline(newline) => single(self, Kind::Newline),
            '/' if self.rest().starts_with("/-") => {
                self.at += 2;
                Kind::Remove
            }
            '"' => self.quoted(),
            '#' => self.raw_or_keyword(),
            _ => self.word(),
        };
        let is_value = matches!(kind, Kind::Text | Kind::Keyword | Kind::Number | Kind::Word);
        if is_value && !self.ends_here() {
            self.glued(start, kind);
        }
        Some(Token { kind, range: start..self.at })
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_while(&mut self, accept: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !accept(c)).unwrap_or(rest.len());
    }

    fn blank_to(&mut self, end: usize) {
        self.clean[self.at..end].fill(b' ');
        self.at = end;
    }

    fn fault(&mut self, code: &'static str, range: Range<usize>, message: String, label: &str, help: &str) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault::error(code, message).at(range.into(), label).help(help));
        }
    }

    /// Skips blanks, comments and escaped line ends.
    fn skip_space(&mut self) {
        loop {
            self.skip_while(is_blank);
            let rest = self.rest();
            if rest.starts_with("//") {
                self.line_comment();
            } else if rest.starts_with("/*") {
                self.block_comment();
            } else if !self.escaped_line_end() {
                return;
            }
        }
    }

    fn line_comment(&mut self) {
        let (start, rest) = (self.at, self.rest());
        self.blank_to(start + rest.find(is_newline).unwrap_or(rest.len()));
        self.skipped.push((Space::LineComment, start..self.at));
    }

    fn block_comment(&mut self) {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let (mut at, mut depth) = (start + 2, 1_usize);
        while depth > 0 && depth <= MAX_DEPTH && at < bytes.len() {
            match bytes.get(at..at + 2) {
                Some(b"/*") => (at, depth) = (at + 2, depth + 1),
                Some(b"*/") => (at, depth) = (at + 2, depth - 1),
                _ => at += 1,
            }
        }
        if depth > MAX_DEPTH {
            let message = format!("comments are nested deeper than {MAX_DEPTH} levels");
            self.fault(
                "vmfile::too-deep",
                start..start + 2,
                message,
                "begins here",
                "close inner comments with `*/`",
            );
            at = bytes.len();
        } else if depth > 0 {
            let message = "a comment is not closed".to_owned();
            self.fault(SYNTAX, start..start + 2, message, "begins here", "close it with `*/`; comments nest");
            at = bytes.len();
        }
        self.blank_to(at);
        self.skipped.push((Space::BlockComment, start..at));
    }

    /// Skips `\` with the line end after it.
    fn escaped_line_end(&mut self) -> bool {
        let Some(after) = self.rest().strip_prefix('\\') else { return false };
        let tail = after.trim_start_matches(is_blank);
        if !(tail.is_empty() || tail.starts_with(is_newline) || tail.starts_with("//")) {
            return false;
        }
        self.skipped.push((Space::Escape, self.at..self.at + 1));
        self.at = self.text.len() - tail.len();
        if tail.starts_with("//") {
            self.line_comment();
        }
        if self.rest().starts_with("\r\n") {
            self.at += 2;
        } else {
            self.at += self.peek().map_or(0, char::len_utf8);
        }
        true
    }

    /// Whether a value may end at the current place.
    fn ends_here(&self) -> bool {
        let rest = self.rest();
        match self.peek() {
            None | Some(';' | '=' | ')' | '{' | '}') => true,
            Some('/') => rest.starts_with("//") || rest.starts_with("/*"),
            Some('\\') => {
                let tail = rest[1..].trim_start_matches(is_blank);
                tail.is_empty() || tail.starts_with(is_newline) || tail.starts_with("//")
            }
            Some(c) => is_blank(c) || is_newline(c),
        }
    }

    /// Tells of a value that runs into something else, and skips the whole.
    fn glued(&mut self, start: usize, kind: Kind) {
        let value_end = self.at;
        let next = self.peek();
        self.skip_while(|c| !(is_blank(c) || is_newline(c) || matches!(c, ';' | '{' | '}')));
        if kind == Kind::Word {
            self.needs_quotes(start);
        } else {
            let (message, help) = match next {
                Some(',') => {
                    ("values are separated by spaces, not by commas", "write a space instead of the comma")
                }
                _ => (
                    "a space is missing between two values",
                    "put a space after each value; write `\\\"` for a quotation mark within a text",
                ),
            };
            self.fault(SYNTAX, value_end..self.at, message.to_owned(), "glued to the value before it", help);
        }
    }

    fn needs_quotes(&mut self, start: usize) {
        let text = &self.text[start..self.at];
        let help = format!("write \"{}\"", text.replace(['"', '\\'], ""));
        let message = "this text must be in quotation marks".to_owned();
        self.fault(SYNTAX, start..self.at, message, "not a plain word", &help);
    }

    fn word(&mut self) -> Kind {
        let start = self.at;
        if self.rest().starts_with(['[', ']']) {
            self.skip_while(|c| !is_newline(c));
            let help = "values stand one after another, with spaces between: `depends-on \"db\" \"cache\"`";
            self.fault(SYNTAX, start..start + 1, "KDL has no lists in brackets".to_owned(), "not KDL", help);
            return Kind::Word;
        }
        self.skip_while(is_word);
        let word = &self.text[start..self.at];
        let unsigned = word.trim_start_matches(['+', '-', '.']);
        if unsigned.starts_with(|c: char| c.is_ascii_digit()) && word.len() - unsigned.len() <= 2 {
            self.number(start);
            return Kind::Number;
        }
        if matches!(word, "true" | "false" | "null" | "inf" | "-inf" | "nan") {
            let message = format!("`{word}` is written as in KDL 1; VMFiles are KDL 2");
            self.fault(
                KDL1,
                start..self.at,
                message,
                "KDL 1",
                &format!("write `#{word}`, or \"{word}\" for the text"),
            );
        } else if word == "r" && self.rest().starts_with(['"', '#']) {
            self.old_raw(start);
        } else if word.is_empty() || (word.ends_with(':') && self.rest().starts_with("//")) {
            self.skip_while(|c| !(is_blank(c) || is_newline(c) || matches!(c, ';' | '{' | '}')));
            self.needs_quotes(start);
        }
        Kind::Word
    }

    /// A raw string of KDL 1: `r"…"` or `r#"…"#`.
    fn old_raw(&mut self, start: usize) {
        let rest = self.rest();
        let quoted = rest.trim_start_matches('#');
        let close = format!("\"{}", &rest[..rest.len() - quoted.len()]);
        // The text itself, if there is one: `r#` may also be a mere slip.
        let body = quoted.strip_prefix('"').unwrap_or("");
        let end = body.find(&close).map_or(rest.len(), |at| rest.len() - body.len() + at + close.len());
        self.at += if quoted.starts_with('"') { end } else { rest.len() - quoted.len() };
        let message = "raw text is written as in KDL 1; VMFiles are KDL 2".to_owned();
        self.fault(
            KDL1,
            start..self.at,
            message,
            "KDL 1",
            "write #\"…\"# without the `r`, with at least one `#`",
        );
    }

    fn number(&mut self, start: usize) {
        let range = start..self.at;
        let word = &self.text[range.clone()];
        let longest =
            word.split(|c: char| !c.is_ascii_hexdigit() && c != '_').map(str::len).max().unwrap_or(0);
        if !is_number(word) {
            let message = format!("`{}` is not a number", shorten(word));
            let help = format!("text goes in quotation marks: \"{}\"", shorten(word));
            self.fault(SYNTAX, range, message, "begins like a number", &help);
        } else if longest > MAX_DIGITS {
            self.fault(
                SYNTAX,
                range,
                "this number is too big".to_owned(),
                "too many digits",
                "write a smaller number",
            );
        }
    }

    fn quoted(&mut self) -> Kind {
        if self.rest().starts_with("\"\"\"") {
            self.at += 3;
            return self.block_text(self.at - 3, "\"\"\"", true);
        }
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Kind::Text;
                }
                Some('\\') => self.escape(),
                Some(c) if !is_newline(c) => self.at += c.len_utf8(),
                _ => {
                    let message = "a text is not closed on its line".to_owned();
                    let help =
                        "close it with `\"`; text of several lines stands between two lines of `\"\"\"`";
                    self.fault(SYNTAX, start..self.at, message, "begins here", help);
                    return Kind::Text;
                }
            }
        }
    }

    /// Steps over one escape and checks it.
    fn escape(&mut self) {
        let start = self.at;
        self.at += 1;
        let valid = match self.peek() {
            Some('\\' | '"' | 'b' | 'f' | 'n' | 'r' | 't' | 's') => {
                self.at += 1;
                true
            }
            Some('u') => {
                self.at += 1;
                let code =
                    self.rest().strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(code, _)| code);
                let digits = code.filter(|code| (1..=6).contains(&code.len()));
                self.at += digits.map_or(0, |digits| digits.len() + 2);
                digits
                    .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                    .is_some_and(|code| char::from_u32(code).is_some())
            }
            Some(c) if is_blank(c) || is_newline(c) => {
                self.skip_while(|c| is_blank(c) || is_newline(c));
                true
            }
            other => {
                self.at += other.map_or(0, char::len_utf8);
                false
            }
        };
        if !valid {
            let range = start..self.at;
            let message = format!("`{}` is not an escape", shorten(self.text(&range)));
            let help = "write `\\\\` for a backslash, or put the text between #\" and \"# where backslashes are plain";
            self.fault(SYNTAX, range, message, "unknown escape", help);
        }
    }

    fn raw_or_keyword(&mut self) -> Kind {
        let start = self.at;
        self.skip_while(|c| c == '#');
        let hashes = &self.text[start..self.at];
        let rest = self.rest();
        if rest.strip_prefix("\"\"\"").is_some_and(|rest| rest.starts_with(is_newline)) {
            self.at += 3;
            return self.block_text(start, &format!("\"\"\"{hashes}"), false);
        }
        if rest.starts_with('"') {
            self.at += 1;
            let line = &self.rest()[..self.rest().find(is_newline).unwrap_or(self.rest().len())];
            let close = format!("\"{hashes}");
            match line.find(&close) {
                Some(at) => self.at += at + close.len(),
                None => {
                    self.at += line.len();
                    let message = "a raw text is not closed on its line".to_owned();
                    self.fault(
                        SYNTAX,
                        start..self.at,
                        message,
                        "begins here",
                        &format!("close it with `{close}`"),
                    );
                }
            }
            return Kind::Text;
        }
        self.skip_while(is_word);
        let word = &self.text[start..self.at];
        if word.bytes().all(|b| b == b'#') {
            self.skip_while(|c| !is_newline(c));
            self.fault(
                SYNTAX,
                start..self.at,
                "`#` begins no comment".to_owned(),
                "not KDL",
                "write `//` for a comment",
            );
            return Kind::Word;
        }
        if !matches!(word, "#true" | "#false" | "#null" | "#inf" | "#-inf" | "#nan") {
            let message = format!("`{}` is not a KDL value", shorten(word));
            let help =
                "a comment begins with `//`; `#` begins only #true, #false, #null and raw text #\"…\"#";
            self.fault(SYNTAX, start..self.at, message, "not known", help);
            return Kind::Word;
        }
        Kind::Keyword
    }

    /// Text of several lines; `self.at` is behind the opening quotes, `close` ends it.
    fn block_text(&mut self, start: usize, close: &str, escapes: bool) -> Kind {
        let opening = start..self.at;
        let help =
            "`\"\"\"` ends its line, the text follows, and the closing `\"\"\"` stands on a line of its own";
        if !self.rest().starts_with(is_newline) {
            let rest = self.rest();
            self.at += rest.find(close).map_or(rest.len(), |at| at + close.len());
            let message = "text of several lines begins on the line after `\"\"\"`".to_owned();
            self.fault(SYNTAX, opening, message, "a line break is missing here", help);
            return Kind::Text;
        }
        let body = self.at;
        let mut folded = false;
        while !self.rest().starts_with(close) {
            match self.peek() {
                Some('\\') if escapes => {
                    let before = self.at;
                    self.escape();
                    folded |= self.text(&(before..self.at)).contains(is_newline);
                }
                Some(c) => self.at += c.len_utf8(),
                None => {
                    let message = "a text of several lines is not closed".to_owned();
                    let help = format!("close it with `{close}` on a line of its own");
                    self.fault(SYNTAX, opening, message, "begins here", &help);
                    return Kind::Text;
                }
            }
        }
        let lines = body..self.at;
        self.at += close.len();
        if !folded {
            self.check_indentation(lines, help);
        }
        Kind::Text
    }

    /// Each line must begin with the white space that stands before the closing quotes.
    fn check_indentation(&mut self, body: Range<usize>, help: &str) {
        let text = &self.text[body.clone()];
        let Some(last_break) = text.rfind(is_newline) else { return };
        let last = text[last_break..].trim_start_matches(is_newline);
        if !last.chars().all(is_blank) {
            let message = "the closing `\"\"\"` must stand on a line of its own".to_owned();
            self.fault(
                SYNTAX,
                body.end - last.len()..body.end,
                message,
                "text before the closing quotes",
                help,
            );
            return;
        }
        let mut start = body.start;
        for line in text[..last_break].split(is_newline) {
            if !line.chars().all(is_blank) && !line.starts_with(last) {
                let message = "a line is indented less than the closing `\"\"\"`".to_owned();
                let help =
                    "indent each line at least as far as the closing quotes, with the same blanks or tabs";
                self.fault(SYNTAX, start..start + line.len(), message, "this line", help);
                return;
            }
            let after = start + line.len();
            start = after + self.text[after..].chars().next().map_or(0, char::len_utf8);
        }
    }
}

fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let lower = unsigned.to_ascii_lowercase();
    let digits = |text: &str, radix| {
        text.starts_with(|c: char| c.is_digit(radix)) && text.chars().all(|c| c.is_digit(radix) || c == '_')
    };
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = lower.strip_prefix(prefix) {
            return digits(rest, radix);
        }
    }
    let (mantissa, exponent) = lower.split_once('e').map_or((lower.as_str(), None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    digits(whole, 10)
        && fraction.is_none_or(|fraction| digits(fraction, 10))
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent), 10))
}

/// White space within a line, as KDL lists it.
pub(super) fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\t' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

/// Line ends, as KDL lists them.
pub(super) fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}')
}

fn is_word(c: char) -> bool {
    !(is_blank(c)
        || is_newline(c)
        || matches!(c, '\\' | '/' | '(' | ')' | '{' | '}' | '[' | ']' | ';' | '"' | '#' | '='))
}

/// Characters that KDL allows nowhere: control characters, and marks that turn the direction of writing.
pub(super) fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{200e}' | '\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
