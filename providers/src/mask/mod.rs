//! Hides what looks like a secret in texts of users: scripts, user-data, commands. Best effort, by names and shapes.
//!
//! ```text
//! line ─▶ inside a key, a block or a value that goes on? ─ yes ─▶ masked whole
//!            └─ no ─▶ shapes ─▶ commands ─▶ settings by name ─▶ does a key, block or value begin here?
//! ```
//!
//! In doubt more is masked than needed. What is masked stays as it is when it is masked again.

mod patterns;
#[cfg(test)]
mod tests;
mod words;

use std::borrow::Cow;
use std::ops::Range;

use regex::Regex;

use self::patterns::{
    BLOCK, COMMANDS, ELEMENT, HARMLESS, KEY_BEGINS, KEY_ENDS, LOGIN, NAME, PASSWORDS, PASSWORDS_BEGIN,
    SECRET, SEPARATOR, SHAPES,
};
use self::words::{End, value};

/// What stands in place of a masked value.
const MASK: &str = "(masked)";

/// What stands in place of a shape.
const SHOWN: &str = "${keep}(masked)${end}";

/// What stands at the end of a line whose masked value goes on in the next.
const GOES_ON: &str = "(masked)\\";

/// How often a line is looked at: a masked value can bare the one beside it. More than a few have no use.
const ROUNDS: usize = 8;

/// Hides secrets in the lines of one text, given in order: some secrets span lines.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// Between the marks of a private key.
    in_key: bool,
    /// The value masked in the line before goes on here.
    goes_on: bool,
    /// The column of a key whose value are the lines that are indented deeper.
    block: Option<usize>,
    /// Among lines of users and passwords.
    passwords: bool,
}

/// Hides secrets in a whole text; its line ends stay.
pub fn text(text: &str) -> String {
    let mut mask = Mask::default();
    let masked: Vec<_> = text
        .split('\n')
        .map(|line| match line.strip_suffix('\r') {
            Some(line) => mask.line(line) + "\r",
            None => mask.line(line),
        })
        .collect();
    masked.join("\n")
}

impl Mask {
    /// The next line of the text, given without its end, with its secrets replaced by `(masked)`.
    ///
    /// Takes time linear in the line. What is not secret stays byte for byte.
    pub fn line(&mut self, line: &str) -> String {
        if self.in_key {
            return self.keys(line);
        }
        if self.goes_on {
            let masked = whole(line);
            self.goes_on = masked.ends_with(GOES_ON);
            return masked;
        }
        if let Some(column) = self.block {
            if line.trim().is_empty() || indent(line) > column {
                return whole(line);
            }
            self.block = None;
        }
        if KEY_BEGINS.is_match(line) {
            return self.keys(line);
        }
        self.block =
            BLOCK.captures(line).filter(|key| is_secret(&key["name"])).map(|key| key["indent"].len());
        let masked = hide(&self.password(line));
        self.goes_on = masked.ends_with(GOES_ON);
        masked
    }

    /// A line in a key, or with marks of keys.
    fn keys(&mut self, line: &str) -> String {
        let (mut masked, mut rest) = (String::new(), line);
        loop {
            let (mark, hide): (&Regex, fn(&str) -> String) =
                if self.in_key { (&KEY_ENDS, whole) } else { (&KEY_BEGINS, hide) };
            let Some(found) = mark.find(rest) else { return masked + &hide(rest) };
            masked += &hide(&rest[..found.start()]);
            masked += found.as_str();
            rest = &rest[found.end()..];
            self.in_key = !self.in_key;
        }
    }

    fn password<'a>(&mut self, line: &'a str) -> Cow<'a, str> {
        if PASSWORDS_BEGIN.is_match(line) {
            self.passwords = true;
        } else if self.passwords && !line.trim().is_empty() {
            let found = PASSWORDS.captures(line);
            self.passwords = found.is_some();
            if let Some(value) = found.and_then(|found| found.name("value")) {
                return Cow::Owned(format!("{}{MASK}", &line[..value.start()]));
            }
        }
        Cow::Borrowed(line)
    }
}

/// A line of which only the indentation is shown, and that it goes on.
fn whole(line: &str) -> String {
    if line.trim().is_empty() {
        return line.to_owned();
    }
    let goes_on = if line.ends_with('\\') { "\\" } else { "" };
    format!("{}{MASK}{goes_on}", &line[..indent(line)])
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// A line that begins outside of any secret.
fn hide(line: &str) -> String {
    let mut line = line.to_owned();
    for _ in 0..ROUNDS {
        let masked = hide_once(&line);
        if masked == line {
            break;
        }
        line = masked;
    }
    line
}

fn hide_once(line: &str) -> String {
    let mut line = line.to_owned();
    for shape in SHAPES.iter() {
        line = shape.replace_all(&line, SHOWN).into_owned();
    }
    for command in COMMANDS.iter() {
        line = replace(&line, |line, at| {
            let found = command.captures_at(line, at)?;
            let begin = found.get(0)?.end();
            let quote = found.name("quote").and_then(|quote| quote.as_str().bytes().next());
            let end = quote.map_or(End::Word, End::Quote);
            let takes_next = !line[begin..].starts_with('-');
            Some((begin, takes_next.then(|| value(line, begin, end)).flatten()))
        });
    }
    let line = replace(&line, |line, at| {
        let begin = LOGIN.find_at(line, at)?.end();
        let login = value(line, begin, End::Word).unwrap_or(begin..begin);
        Some((login.end, Some(login).filter(|login| line[login.clone()].contains(':'))))
    });
    let line = replace(&line, |line, at| {
        let found = ELEMENT.captures_at(line, at)?;
        let inner = found.name("value")?.range();
        let secret = is_secret(&found["name"]) && !line[inner.clone()].trim().is_empty();
        Some((inner.end, secret.then_some(inner)))
    });
    let brace = line.find('{').unwrap_or(line.len());
    replace(&line, |line, at| {
        let name = NAME.find_at(line, at)?.range();
        Some((name.end, if is_secret(&line[name.clone()]) { setting(line, &name, brace) } else { None }))
    })
}

/// Masks what `find` finds from a position on: where to go on, and what to mask, if anything, after which it goes on.
fn replace(line: &str, find: impl Fn(&str, usize) -> Option<(usize, Option<Range<usize>>)>) -> String {
    let (mut masked, mut copied, mut at) = (String::new(), 0, 0);
    while let Some((next, value)) = find(line, at) {
        at = next;
        if let Some(value) = value {
            masked.push_str(&line[copied..value.start]);
            masked.push_str(MASK);
            (copied, at) = (value.end, value.end);
        }
    }
    masked + &line[copied..]
}

fn is_secret(name: &str) -> bool {
    SECRET.is_match(name) && SECRET.is_match(&HARMLESS.replace_all(name, "_"))
}

/// The value of the setting of this name, if it has one that can be secret. The line's first brace is at `brace`.
fn setting(line: &str, name: &Range<usize>, brace: usize) -> Option<Range<usize>> {
    let (before, rest) = (&line[..name.start], &line[name.end..]);
    let Some(found) = SEPARATOR.captures(rest) else {
        let begin = line.len() - rest.trim_start().len();
        let is_option = line[name.clone()].starts_with('-') && begin > name.end;
        let takes_next = is_option && !line[begin..].starts_with('-');
        return takes_next.then(|| value(line, begin, End::Word)).flatten();
    };
    let after = &rest[found[0].len()..];
    if &found["sign"] == ":" && (before.ends_with(['/', '$', '@']) || after.starts_with([':', '/'])) {
        return None;
    }
    let begin = line.len() - after.trim_start().len();
    let spaced = begin > line.len() - after.len();
    let quote =
        before.bytes().last().filter(|quote| matches!(quote, b'"' | b'\'') && found["close"].is_empty());
    let end = match quote {
        Some(quote) => End::Quote(quote),
        None if !spaced => End::Word,
        None if brace < name.start => End::Flow,
        None => End::Line,
    };
    value(line, begin, end)
}
