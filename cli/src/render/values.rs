//! Values of fields in words, and fields before and after.

use serde_json::Value;
use vmctl_planner::FieldChange;

/// Hexadecimal digits of a digest that are shown: enough to tell two images apart.
const SHOWN_DIGITS: usize = 12;

/// A field before and after, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A value that was not there before.
    New(String),
    /// One value in place of another.
    Changed {
        /// The value before.
        before: String,
        /// The value after.
        after: String,
    },
    /// Lists: what goes and what comes.
    Elements {
        /// Elements that are in the list no more.
        gone: Vec<String>,
        /// Elements that are new.
        new: Vec<String>,
    },
}

/// How to show a field; `None` if an empty list on a new machine says nothing.
pub(crate) fn shown(field: &FieldChange) -> Option<Shown> {
    let is_empty = match &field.after {
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::Null => true,
        _ => false,
    };
    if field.before.is_null() && is_empty {
        return None;
    }
    let value = |value: &Value| {
        self::value(value, field.unit.as_deref().unwrap_or_default())
            .replace(":auto -> ", ":(known after apply) -> ")
    };
    Some(match (&field.before, &field.after) {
        (Value::Null, after) => Shown::New(value(after)),
        (Value::Array(before), Value::Array(after)) => {
            let without = |these: &[Value], those: &[Value]| {
                these.iter().filter(|item| !those.contains(item)).map(value).collect()
            };
            Shown::Elements { gone: without(before, after), new: without(after, before) }
        }
        (before, after) => Shown::Changed { before: value(before), after: value(after) },
    })
}

/// A value in words.
pub(crate) fn value(value: &Value, unit: &str) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => match text.strip_prefix("sha256:") {
            Some(digits) => format!("sha256:{}…", digits.get(..SHOWN_DIGITS).unwrap_or(digits)),
            None => text.clone(),
        },
        Value::Number(number) if !unit.is_empty() => format!("{number} {unit}"),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(_) => value.to_string(),
        Value::Array(items) if items.is_empty() => "(none)".to_owned(),
        Value::Array(items) => {
            items.iter().map(|item| self::value(item, unit)).collect::<Vec<_>>().join(", ")
        }
        Value::Object(entries) if entries.is_empty() => "(none)".to_owned(),
        Value::Object(entries) => {
            // A tagged value is told by its tag, which comes first.
            let tag = entries.get("kind").map(|kind| self::value(kind, unit));
            let rest = entries
                .iter()
                .filter(|(key, item)| key.as_str() != "kind" && !item.is_null())
                .map(|(key, item)| format!("{} {}", key.replace('_', "-"), self::value(item, unit)));
            tag.into_iter().chain(rest).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::json;
    use vmctl_planner::fields::Class;

    use super::*;

    #[test]
    fn values_are_short_and_readable() {
        let cases = [
            (json!(null), "", "(none)"),
            (json!(512), "MiB", "512 MiB"),
            (json!("sha256:0123456789abcdef0123"), "", "sha256:0123456789ab…"),
            (json!([{ "kind": "user" }]), "", "user"),
            (json!([{ "kind": "tap", "bridge": "br0" }]), "", "tap bridge br0"),
            (json!({ "user": "vm", "private_key": null }), "", "user vm"),
            (json!({ "prevent_destroy": true }), "", "prevent-destroy yes"),
            (json!([]), "", "(none)"),
        ];
        for (input, unit, shown) in cases {
            assert_eq!(value(&input, unit), shown);
        }
    }

    #[test]
    fn lists_tell_what_goes_and_what_comes() {
        let field = |before, after| FieldChange {
            field: Cow::Borrowed("forward"),
            before,
            after,
            unit: None,
            class: Some(Class::InPlace),
        };
        assert_eq!(
            shown(&field(json!(["a", "b"]), json!(["b", "c"]))),
            Some(Shown::Elements { gone: vec!["a".to_owned()], new: vec!["c".to_owned()] })
        );
        assert_eq!(
            shown(&field(json!(null), json!(["127.0.0.1:auto -> 80/tcp"]))),
            Some(Shown::New("127.0.0.1:(known after apply) -> 80/tcp".to_owned()))
        );
        assert_eq!(shown(&field(json!(null), json!([]))), None);
    }
}
