//! Texts and comments of several lines under another indentation.

use std::borrow::Cow;

use crate::vmfile::lex::{is_blank, is_newline};

/// A token, with the lines of a text of several lines indented by `indent`. Its value stays the same.
///
/// KDL takes the blanks before the closing quotes from every line of such a text, takes lines of blanks for empty ones,
/// and reads every line end as `\n`. Escaped line ends swallow blanks besides: texts with such keep theirs.
pub(super) fn token<'t>(token: &'t str, indent: &str) -> Cow<'t, str> {
    if !token.contains(is_newline) {
        return Cow::Borrowed(token);
    }
    let lines = lines(token);
    let old = lines.last().map_or("", |last| blanks(last));
    let is_block = token.trim_start_matches('#').starts_with("\"\"\"");
    if !is_block || (token.starts_with('"') && has_escaped_line_end(token)) {
        return Cow::Owned(lines.join("\n"));
    }
    Cow::Owned(reindented(&lines, old, indent, |line| line))
}

/// A comment, with its lines after the first indented by `indent` as far as they were indented as the first one, by
/// `old`. Comments that do not begin their line keep their blanks.
pub(super) fn comment<'t>(comment: &'t str, old: Option<&str>, indent: &str) -> Cow<'t, str> {
    if !comment.contains(is_newline) {
        return Cow::Borrowed(comment.trim_end());
    }
    let lines = lines(comment);
    Cow::Owned(reindented(&lines, old.unwrap_or(""), if old.is_some() { indent } else { "" }, str::trim_end))
}

/// `lines` with `new` in place of `old` before each but the first, and nothing in lines of blanks.
fn reindented(lines: &[&str], old: &str, new: &str, trim: impl Fn(&str) -> &str) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        match line.strip_prefix(old) {
            _ if line.chars().all(is_blank) => {}
            Some(rest) if at > 0 => {
                text.push_str(new);
                text.push_str(trim(rest));
            }
            _ => text.push_str(trim(line)),
        }
    }
    text
}

/// The lines of `text`; `\r\n` is one line end.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_newline) {
        lines.push(&rest[..at]);
        let after = &rest[at..];
        let end = if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(0, char::len_utf8) };
        rest = &after[end..];
    }
    lines.push(rest);
    lines
}

fn blanks(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches(is_blank).len()]
}

/// Whether a text with escapes has `\` before a line end.
fn has_escaped_line_end(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('\\') {
        if after.trim_start_matches(is_blank).starts_with(is_newline) {
            return true;
        }
        // What is escaped escapes nothing.
        rest = after.strip_prefix('\\').unwrap_or(after);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_moves_with_its_closing_quotes() {
        let cases = [
            ("\"\"\"\n  a\n\n    b  \n  \"\"\"", "\"\"\"\n    a\n\n      b  \n    \"\"\""),
            ("#\"\"\"\r\n\ta\\\r\n \t \r\n\t\"\"\"#", "#\"\"\"\n    a\\\n\n    \"\"\"#"),
            ("\"\"\"\na\\\\\n\"\"\"", "\"\"\"\n    a\\\\\n    \"\"\""),
            ("\"\"\"\n        a\u{2028}        b\n        \"\"\"", "\"\"\"\n    a\n    b\n    \"\"\""),
            ("plain", "plain"),
        ];
        for (before, after) in cases {
            assert_eq!(token(before, "    "), after);
        }
    }

    #[test]
    fn text_with_escaped_line_ends_keeps_its_blanks() {
        for text in ["\"\"\"\n  a \\  \n    b\n  \"\"\"", "\"a\\\n   b\"", "\"\"\"\n  \\\\\\\n  \"\"\""] {
            assert_eq!(token(text, "        "), text);
        }
    }

    #[test]
    fn comment_moves_as_a_whole() {
        assert_eq!(comment("/* a  \r\n   b\r\n\r\n c */", Some(" "), "    "), "/* a\n      b\n\n    c */");
        assert_eq!(comment("/* a\n b */", None, "    "), "/* a\n b */");
        assert_eq!(comment("// a \t", None, ""), "// a");
    }
}
