//! Texts with `{{ … }}` in them.

/// A part of such a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text as it is.
    Text(String),
    /// What stands between the braces, trimmed: a name such as `var.size`.
    Name(String),
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// Splits `text`; else says what is wrong with it.
///
/// Quoted text between the braces stands for itself, so that `{{ '{{' }}` means two braces.
pub(super) fn split(text: &str) -> Result<Vec<Piece>, &'static str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        push_text(&mut pieces, before);
        let inner = after.trim_start();
        if let Some(quote) = inner.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let (quoted, after) =
                inner[1..].split_once(quote).ok_or("a quotation mark within `{{ … }}` is not closed")?;
            rest = after
                .trim_start()
                .strip_prefix(CLOSE)
                .ok_or("behind a quoted text within `{{ … }}` must stand `}}`")?;
            push_text(&mut pieces, quoted);
            continue;
        }
        let (name, after) = after.split_once(CLOSE).ok_or("a `{{` is not closed by `}}`")?;
        let name = name.trim();
        if name.is_empty() {
            return Err("nothing stands between `{{` and `}}`");
        }
        if name.contains(char::is_whitespace) || name.contains(['{', '}', '|', '(', '+']) {
            return Err("between `{{` and `}}` stands one name, such as `index` or `var.size`");
        }
        pieces.push(Piece::Name(name.to_owned()));
        rest = after;
    }
    push_text(&mut pieces, rest);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn name(name: &str) -> Piece {
        Piece::Name(name.to_owned())
    }

    #[test]
    fn names_stand_between_double_braces() {
        assert_eq!(
            split("web-{{ index }}.{{var.domain}}"),
            Ok(vec![text("web-"), name("index"), text("."), name("var.domain")])
        );
        assert_eq!(split("plain { } }} text"), Ok(vec![text("plain { } }} text")]));
        assert_eq!(split(""), Ok(vec![]));
    }

    #[test]
    fn quoted_text_stands_for_itself() {
        assert_eq!(split("a{{ '{{' }}b"), Ok(vec![text("a{{b")]));
        assert_eq!(split("{{ \"}}\" }}"), Ok(vec![text("}}")]));
    }

    #[test]
    fn what_is_no_name_is_told() {
        for wrong in
            ["{{", "{{ }}", "{{ a b }}", "{{ a | upper }}", "{{ 'a }}", "{{ 'a' b }}", "a {{ {{ b }}"]
        {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
