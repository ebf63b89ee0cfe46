//! Durations as people write them: `30s`, `2m`, `1h30m`, `500ms`.

use std::time::Duration;

use jiff::SignedDuration;

use super::ast::{Scalar, Spanned, Value};
use super::fields::{Fields, describe, shorten};
use super::grammar::{Args, Shape, Type};
use super::report::Fault;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// It is a bare number.
    NoUnit,
    /// It is something else.
    NotOne,
}

impl Fields {
    /// A duration within the range that `shape` has for its value.
    pub(super) fn duration(&mut self, shape: &Shape, value: &Value) -> Option<Spanned<Duration>> {
        let Args::One(Type::Duration { low, high }) = shape.args else { return None };
        let (name, usage) = (shape.name, shape.usage);
        match value.scalar {
            Scalar::Integer(number) => return self.no_unit(name, value, number, usage),
            Scalar::Float(_) => return self.no_unit(name, value, 0, usage),
            Scalar::Text(_) | Scalar::Bool(_) | Scalar::Null => {}
        }
        let text = self.text(name, value, usage)?;
        let read = match parse(&text.value) {
            Ok(read) => read,
            Err(Wrong::NoUnit) => {
                return self.no_unit(name, value, text.value.trim().parse().unwrap_or(0), usage);
            }
            Err(Wrong::NotOne) => {
                let message = format!("`{}` is not a duration", shorten(&text.value));
                let help = format!("write {usage}; the units are `ms`, `s`, `m` and `h`");
                self.tell(
                    Fault::error("vmfile::bad-value", message).at(text.span, "not a duration").help(help),
                );
                return None;
            }
        };
        // A negative one fits no range either.
        let within = Duration::try_from(read).ok().filter(|read| (low..=high).contains(read));
        if within.is_none() {
            let (low, high) = (shown(low), shown(high));
            let message = format!("`{name}` must be {low} to {high}, not {}", shorten(text.value.trim()));
            let fault = Fault::error("vmfile::out-of-range", message).at(text.span, "out of range");
            self.tell(fault.help(format!("for example {usage}")));
        }
        within.map(|value| Spanned { value, span: text.span })
    }

    /// Tells a number without a unit; `number` is 0 where it cannot be repeated in the help.
    fn no_unit<T>(&mut self, name: &str, value: &Value, number: i128, usage: &str) -> Option<T> {
        let message = format!("`{name}` takes a duration with its unit, not {}", describe(value));
        let help = if number > 0 {
            format!("write the unit: `{name} \"{number}s\"`")
        } else {
            format!("write a number and its unit: {usage}")
        };
        self.tell(Fault::error("vmfile::wrong-type", message).at(value.span, "no unit").help(help));
        None
    }
}

/// Reads a duration that stands outside a VMFile, such as `2m` on a command line; the error says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let hint = "write a number and its unit: `30s`, `2m`, `1h30m`";
    let read = parse(text).map_err(|_| format!("it is not a duration; {hint}"))?;
    Duration::try_from(read).map_err(|_| format!("a duration is not negative; {hint}"))
}

fn parse(text: &str) -> Result<SignedDuration, Wrong> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::NoUnit);
    }
    text.parse().map_err(|_| Wrong::NotOne)
}

/// A duration as people write it, without spaces.
pub(super) fn shown(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |signed| format!("{signed:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, millis) in [
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("500ms", 500),
            ("1.5m", 90_000),
            (" 2 minutes ", 120_000),
            ("-1s", -1_000),
        ] {
            assert_eq!(parse(text), Ok(SignedDuration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_told_apart_by_what_is_missing() {
        for text in ["120", " 7 ", "99999999999999999999999999"] {
            assert_eq!(parse(text), Err(Wrong::NoUnit), "{text}");
        }
        for text in ["soon", "2x", "1d", "1.5", "2m,", "99999999999999999999h", "1s 2m", "∞", "s"] {
            assert_eq!(parse(text), Err(Wrong::NotOne), "{text}");
        }
    }

    #[test]
    fn bounds_are_shown_as_they_are_written() {
        assert_eq!(shown(Duration::from_secs(1)), "1s");
        assert_eq!(shown(Duration::from_secs(24 * 3600)), "24h");
    }
}
