//! Text in pictures: one line, of bounded length, of characters that every format can hold.

use vmctl_providers::text::visible;

/// Characters of a label that are shown. Enough for any address and step; a box stays readable.
pub(super) const MAX_LABEL: usize = 48;

/// `text` as a label: what could steer a reader's program is made visible, and what is too long is cut.
pub(super) fn label(text: &str) -> String {
    // Each character of the text gives at least one of the label, so that no more of it needs to be looked at.
    let beginning = text.char_indices().nth(MAX_LABEL + 1).map_or(text, |(end, _)| &text[..end]);
    let line: String = visible(beginning).chars().map(printable).collect();
    match line.char_indices().nth(MAX_LABEL) {
        Some(_) => line.chars().take(MAX_LABEL - 1).chain(['…']).collect(),
        None => line,
    }
}

/// Line ends and tabs are spaces here; XML has no place for the characters that Unicode keeps unused.
fn printable(c: char) -> char {
    match c {
        '\n' | '\t' => ' ',
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        c => c,
    }
}

/// Columns that `label` takes in a monospaced font, at most: wide scripts begin with Hangul Jamo.
pub(super) fn columns(label: &str) -> usize {
    label.chars().map(|c| if c < '\u{1100}' || c == '…' { 1 } else { 2 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_is_one_line_without_controls() {
        assert_eq!(label("a\nb\tc\u{1b}[2J\u{202e}\u{ffff}"), "a b c^[[2J\\u{202e}\u{fffd}");
    }

    #[test]
    fn long_label_is_cut_with_a_mark() {
        let cut = label(&"x".repeat(10_000));
        assert_eq!((cut.chars().count(), cut.ends_with("x…")), (MAX_LABEL, true));
        assert_eq!(label(&"x".repeat(MAX_LABEL)), "x".repeat(MAX_LABEL));
        assert!(label(&"\u{202e}".repeat(MAX_LABEL)).chars().count() <= MAX_LABEL);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!((columns("grün…"), columns("日本")), (5, 4));
    }
}
