//! Names of projects and machines. They become folder names, process names and host names.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: the limit of a host name's label (RFC 1035, section 2.3.4).
pub const MAX_NAME: usize = 63;

/// A valid name: letters, digits, `-`, `_` and `.`; first and last a letter or digit; no `..`; at most 63.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Name(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("a name cannot be empty")]
    Empty,
    /// More than [`MAX_NAME`] bytes.
    #[error("a name has at most {MAX_NAME} characters, this one has {0}")]
    TooLong(usize),
    /// A character that is not allowed anywhere.
    #[error("a name cannot contain {0:?}")]
    Forbidden(char),
    /// It begins or ends with something else than a letter or digit.
    #[error("a name begins and ends with a letter or digit")]
    Edge,
    /// Two dots in a row.
    #[error("a name cannot contain `..`")]
    Dots,
}

impl Name {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a host name: lower case, with `_` and `.` turned to `-`.
    pub fn to_hostname(&self) -> String {
        self.0.to_ascii_lowercase().replace(['_', '.'], "-")
    }
}

/// Lets maps be searched by text: names compare as their texts do.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            return Err(NameError::Forbidden(bad));
        }
        if text.len() > MAX_NAME {
            return Err(NameError::TooLong(text.len()));
        }
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if !edge(text.chars().next()) || !edge(text.chars().last()) {
            return Err(NameError::Edge);
        }
        if text.contains("..") {
            return Err(NameError::Dots);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar_is_kept() {
        for good in ["a", "web-1", "A_b.c", "0", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let bad = [
            ("", NameError::Empty),
            ("..", NameError::Edge),
            (".", NameError::Edge),
            ("../x", NameError::Forbidden('/')),
            ("a/b", NameError::Forbidden('/')),
            ("web,process=evil", NameError::Forbidden(',')),
            ("-rf", NameError::Edge),
            ("a.", NameError::Edge),
            ("a..b", NameError::Dots),
            ("bür", NameError::Forbidden('ü')),
            ("a\0b", NameError::Forbidden('\0')),
        ];
        for (text, error) in bad {
            assert_eq!(text.parse::<Name>(), Err(error), "{text:?}");
        }
        assert_eq!("x".repeat(64).parse::<Name>(), Err(NameError::TooLong(64)));
    }

    #[test]
    fn hostname_has_only_letters_digits_and_dashes() {
        assert_eq!("Web_1.lan".parse::<Name>().unwrap().to_hostname(), "web-1-lan");
    }
}
