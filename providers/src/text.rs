//! Foreign text made fit for a terminal: what guests print, what files and servers say.

use std::fmt::Write;

/// `text` with everything that could steer a terminal made visible; line ends and tabs stay.
pub fn visible(text: &str) -> String {
    visible_bytes(text.as_bytes())
}

/// Like [`visible`], for bytes that may be no UTF-8: strange bytes are shown as `\xNN`.
pub fn visible_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\n' | '\t' => shown.push(c),
                // A serial line ends its lines with both.
                '\r' if chars.peek() == Some(&'\n') => {}
                '\0'..='\x1f' => shown.extend(['^', char::from(c as u8 ^ 0x40)]),
                '\x7f' => shown.push_str("^?"),
                // C1 controls, and marks that turn the direction of writing.
                '\u{80}'..='\u{9f}'
                | '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' => {
                    write!(shown, "\\u{{{:x}}}", u32::from(c)).expect("a String takes all that is written");
                }
                _ => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}").expect("a String takes all that is written");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn controls_are_made_visible() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain\tok\n", "plain\tok\n"),
            (b"line\r\n", "line\n"),
            (b"over\rwrite", "over^Mwrite"),
            (b"\x1b]0;title\x07", "^[]0;title^G"),
            (b"\x7f", "^?"),
            ("\u{9b}31m \u{202e}".as_bytes(), "\\u{9b}31m \\u{202e}"),
            (b"caf\xe9 \xff", "caf\\xe9 \\xff"),
            ("grün 日本".as_bytes(), "grün 日本"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(visible_bytes(bytes), shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_visible_acts_on_a_terminal(bytes in any::<Vec<u8>>()) {
            prop_assert!(visible_bytes(&bytes).chars().all(|c| matches!(c, '\t' | '\n') || !c.is_control()));
        }
    }
}
