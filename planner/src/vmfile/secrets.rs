//! Keeps sensitive values out of what is told of a VMFile.

use super::fields::clean;
use super::load::HIDDEN;

/// The texts that nothing may show.
pub(super) struct Censor {
    /// All forms in which messages could show them, the longest first, as one may be part of another.
    forms: Vec<String>,
}

impl Censor {
    pub(super) fn new(values: &[String]) -> Self {
        let forms = |value: &String| {
            [value.clone(), value.trim().to_owned(), value.escape_default().to_string(), clean(value)]
        };
        let mut forms: Vec<_> = values.iter().flat_map(forms).filter(|form| !form.is_empty()).collect();
        forms.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        forms.dedup();
        Self { forms }
    }

    /// `message` with all of them hidden, even where only the beginning is left of one.
    pub(super) fn hide(&self, message: &str) -> String {
        let whole = self.forms.iter().fold(message.to_owned(), |text, form| text.replace(form, HIDDEN));
        let mut parts = whole.split('…');
        let mut hidden = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            if let Some(shown) =
                self.forms.iter().map(|form| begun(&hidden, form)).max().filter(|shown| *shown > 0)
            {
                hidden.truncate(hidden.len() - shown);
                hidden.push_str(HIDDEN);
            }
            hidden.push('…');
            hidden.push_str(part);
        }
        hidden
    }

    /// `source` with all of them blotted out, character by character, at the same offsets.
    pub(super) fn blot(&self, source: &str) -> String {
        let blot = |c: char| match c.len_utf8() {
            1 => '*',
            2 => '\u{b7}',
            3 => '\u{2022}',
            _ => '\u{1f512}',
        };
        let hide = |text: String, form: &String| {
            let blotted: String = form.chars().map(blot).collect();
            text.replace(form, &blotted)
        };
        self.forms.iter().fold(source.to_owned(), hide)
    }
}

/// How many bytes of the beginning of `form` stand at the end of `text`.
fn begun(text: &str, form: &str) -> usize {
    let ends = form.char_indices().map(|(at, c)| at + c.len_utf8());
    ends.filter(|end| text.ends_with(&form[..*end])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn censor(values: &[&str]) -> Censor {
        Censor::new(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_secret_is_hidden_whole_cut_and_escaped() {
        let censor = censor(&["hunter2", "hunter2-and-more", "two\nlines"]);
        for (message, hidden) in [
            ("not `hunter2`", "not `(sensitive)`"),
            ("not `hunter2-and-more`", "not `(sensitive)`"),
            ("not `x hunter2-an…`", "not `x (sensitive)-an…`"),
            ("not `x hunt…` and `y…`", "not `x (sensitive)…` and `y…`"),
            ("the text \"two\\nlines\"", "the text \"(sensitive)\""),
            ("`two\u{fffd}lines`", "`(sensitive)`"),
            ("nothing…", "nothing…"),
        ] {
            assert_eq!(censor.hide(message), hidden, "{message}");
        }
    }

    #[test]
    fn blots_keep_offsets_and_columns() {
        let blotted = censor(&["pä🔑ss"]).blot("a \"pä🔑ss\" b");
        assert_eq!(blotted, "a \"*·🔒**\" b");
        assert_eq!(blotted.len(), "a \"pä🔑ss\" b".len());
    }
}
