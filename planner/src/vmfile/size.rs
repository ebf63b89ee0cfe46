//! Sizes as people write them: `512M`, `2GiB`, `1.5 G`. All units are powers of 1024, with or without `B` or `iB`, as in
//! Docker's files.

use super::grammar::{Args, DISK, MEMORY, Shape, SizeUnit, Type, shown};

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is something else.
    NotOne,
    /// It is a bare number.
    NoUnit,
    /// It is a size that is no whole number of MiB.
    NotWhole,
}

/// The MiB that `text` means. A bare number counts `unit`, if `may_be_bare`.
pub(super) fn parse(text: &str, unit: SizeUnit, may_be_bare: bool) -> Result<i128, Wrong> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let letter = ["ib", "b", ""].iter().find_map(|tail| suffix.strip_suffix(tail)).unwrap_or(&suffix);
    let kibibytes = match (letter, suffix.is_empty()) {
        ("", true) if may_be_bare => i128::from(unit.mebibytes()) << 10,
        ("", true) => return Err(if number.is_empty() { Wrong::NotOne } else { Wrong::NoUnit }),
        ("k", _) => 1,
        ("m", _) => 1 << 10,
        ("g", _) => 1 << 20,
        ("t", _) => 1 << 30,
        _ => return Err(Wrong::NotOne),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // More digits than these are no size of anything, and would not fit below.
    const MOST_DIGITS: usize = 12;
    let is_number =
        |digits: &str| digits.len() <= MOST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !is_number(whole)
        || !is_number(fraction)
        || (fraction.is_empty() && number.contains('.'))
    {
        return Err(Wrong::NotOne);
    }
    let scale = fraction.bytes().fold(1_i128, |scale, _| scale * 10);
    let units: i128 = format!("{whole}{fraction}").parse().map_err(|_| Wrong::NotOne)?;
    let (size, divisor) = (units * kibibytes, scale << 10);
    if size % divisor == 0 { Ok(size / divisor) } else { Err(Wrong::NotWhole) }
}

/// The MiB of memory that `text` means, a bare number counting MiB; else what would be right.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    within(text, &MEMORY)
}

/// The MiB of a disk that `text` means, a bare number counting GiB; else what would be right.
pub fn parse_disk(text: &str) -> Result<u64, String> {
    within(text, &DISK)
}

fn within(text: &str, shape: &Shape) -> Result<u64, String> {
    let Args::One(Type::Size { low, high, unit }) = shape.args else { return Err(String::new()) };
    let size = parse(text, unit, true).ok().and_then(|size| u64::try_from(size).ok());
    size.filter(|size| (low..=high).contains(size)).ok_or_else(|| {
        let word = match unit {
            SizeUnit::Mega => "MB",
            SizeUnit::Giga => "GB",
        };
        format!(
            "a size is a number of {word}, or has a unit, as 512M or 20G; from {} to {}",
            shown(low),
            shown(high)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_units() {
        for (text, mebibytes) in [
            ("512M", 512),
            ("2GiB", 2048),
            ("2 gb", 2048),
            ("1.5G", 1536),
            ("0.5T", 1 << 19),
            ("1024K", 1),
            (" 20G ", 20_480),
            ("0M", 0),
            ("999999999999T", 999_999_999_999 << 20),
        ] {
            assert_eq!(parse(text, SizeUnit::Mega, false), Ok(mebibytes), "{text}");
        }
        assert_eq!(parse("20", SizeUnit::Giga, true), Ok(20 << 10));
        assert_eq!(parse("20", SizeUnit::Giga, false), Err(Wrong::NoUnit));
        assert_eq!(parse("1K", SizeUnit::Mega, false), Err(Wrong::NotWhole));
        assert_eq!(parse("0.3G", SizeUnit::Mega, false), Err(Wrong::NotWhole));
        for text in [
            "",
            "G",
            "big",
            "2X",
            "2GG",
            "-1G",
            "1.G",
            ".5G",
            "1.2.3G",
            "1e3M",
            "2iB",
            "2B",
            "9999999999999M",
            "２G",
        ] {
            assert_eq!(parse(text, SizeUnit::Mega, true), Err(Wrong::NotOne), "{text}");
        }
    }
}
