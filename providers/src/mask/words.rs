//! Where a value ends, as a shell, YAML or JSON reads it.

use std::ops::Range;

use super::MASK;
use super::patterns::BLOCK_SIGN;

/// What ends a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// A blank, or a sign that ends words.
    Word,
    /// The comma or brace of a collection.
    Flow,
    /// This quotation mark, which began before the value.
    Quote(u8),
    /// The end of the line, unless the value is quoted.
    Line,
}

/// The value that begins at `begin`, without a backslash at the line's end; `None` if it cannot be secret.
pub(super) fn value(line: &str, begin: usize, end: End) -> Option<Range<usize>> {
    let rest = &line[begin..];
    if rest.starts_with('#') || (rest.starts_with('{') && !rest.starts_with("{{")) {
        return None;
    }
    let mut len = match end {
        End::Quote(quote) => rest.bytes().position(|byte| byte == quote).unwrap_or(rest.len()),
        End::Line if !(rest.starts_with(['"', '\'', '\\']) || rest.starts_with(MASK)) => {
            rest.trim_end().len()
        }
        End::Line | End::Word => word(rest, false),
        End::Flow => word(rest, true),
    };
    if len == rest.len() && rest.ends_with('\\') {
        let goes_on = rest.len() - 1;
        return Some(begin..begin + goes_on);
    }
    len = rest[..len].trim_end().len();
    can_be_secret(&rest[..len]).then(|| begin..begin + len)
}

pub(super) fn can_be_secret(value: &str) -> bool {
    let bare = value.trim_matches(['"', '\'', '\\', ',', ';']);
    let says_nothing = ["true", "false", "yes", "no", "null", "~", "[", "(", "[]", "|", ">"]
        .iter()
        .any(|word| bare.eq_ignore_ascii_case(word));
    !(bare.is_empty() || says_nothing || BLOCK_SIGN.is_match(value))
}

/// Length of the word at the beginning, as a shell reads it: quotes, escapes and parentheses keep it together.
/// Blanks do not end it if it is `spaced`.
pub(super) fn word(text: &str, spaced: bool) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if at == 0 && matches!(bytes.get(1), Some(b'"' | b'\'')) => {
                at = text[2..].find(&text[..2]).map_or(text.len(), |len| len + 4);
                continue;
            }
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            b'"' | b'\'' if at > 0 && ends_word(bytes, at) => return at,
            b'"' | b'\'' => at = closing(bytes, at),
            b';' | b'&' | b'|' | b',' | b')' | b']' | b'}' if ends_word(bytes, at) => return at,
            blank if blank.is_ascii_whitespace() && !spaced => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Where the quotation that begins at `open` ends; the end of the text if nowhere.
pub(super) fn closing(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if bytes[open] == b'"' => at += 1,
            byte if byte == bytes[open] => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Whether the sign at `at` stands at the end of a word, or before another setting, rather than in a value.
pub(super) fn ends_word(bytes: &[u8], at: usize) -> bool {
    let rest = &bytes[at + 1..];
    match rest.first() {
        None => true,
        Some(next) if next.is_ascii_whitespace() || b"\"';&|,)]}\\<>".contains(next) => true,
        Some(_) => {
            let name =
                rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte)).count();
            matches!(bytes[at], b';' | b'&' | b',') && name > 0 && matches!(rest.get(name), Some(b'=' | b':'))
        }
    }
}
