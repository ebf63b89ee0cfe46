//! Regular expressions that are matched against what guests print: the only door to the regex engine
//! for patterns of users. Fixed patterns are in [`crate::mask`].
//!
//! The engine takes time linear in the text whatever the pattern; what a pattern may take in memory is bounded here.

use regex::bytes::{Regex, RegexBuilder};

/// Most memory that one compiled pattern may take. The longest sensible one takes a tenth of it.
const MAX_COMPILED: usize = 1 << 20;

/// A regular expression for one line of bytes, which need not be UTF-8. `^` and `$` are the line's ends.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// A text that is no usable pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no usable regular expression: {reason}")]
pub struct PatternError {
    /// The text.
    pub pattern: String,
    /// What is wrong with it, on one line.
    pub reason: String,
}

impl PatternError {
    /// What to do next.
    pub fn help(&self) -> &'static str {
        "the syntax is that of https://docs.rs/regex/#syntax, without `\\p{…}`; a backslash before a character takes \
         its meaning away"
    }
}

impl Pattern {
    /// Checks and compiles `text`.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let compiled = RegexBuilder::new(text).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
        compiled.map(Self).map_err(|error| PatternError { pattern: text.to_owned(), reason: reason(&error) })
    }

    /// Whether it matches anywhere in `line`, which is given without its end.
    pub fn matches(&self, line: &[u8]) -> bool {
        self.0.is_match(line)
    }
}

/// A syntax error is drawn over several lines, of which the last says what is wrong.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => format!("it takes more than {MAX_COMPILED} bytes of memory"),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_matched_whatever_their_bytes() {
        let matches = |pattern: &str, line: &[u8]| Pattern::new(pattern).unwrap().matches(line);
        assert!(matches("login: $", b"caf\xe9 login: "));
        assert!(matches(r"^\[ *\d+\.\d+\] Booting", b"[    0.000000] Booting Linux"));
        assert!(matches("(?i)READY", "grün ready".as_bytes()));
        assert!(!matches("^ready", b"not ready"));
    }

    #[test]
    fn unusable_pattern_is_an_error_with_a_reason() {
        for (text, reason) in [
            ("(", "unclosed group"),
            ("[z-a]", "invalid character class range"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=x)", "look-around"),
            ("(?:(?:a{1000}){1000}){1000}", "it takes more than 1048576 bytes"),
        ] {
            let error = Pattern::new(text).unwrap_err();
            assert!(error.reason.contains(reason), "{text}: {error}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
        assert!(Pattern::new(&"(".repeat(100_000)).is_err());
    }
}
