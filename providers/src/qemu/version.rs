//! Which QEMU is installed.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::{Program, helper};
use crate::spec::BackendTag;

/// QEMU prints its version without doing anything else.
const DEADLINE: Duration = Duration::from_secs(30);

/// The oldest QEMU that understands our command line: `-device` takes JSON since then.
const OLDEST: (u32, u32) = (6, 2);

/// Refuses a version that is known to be too old. One of an unknown form may be anything.
pub fn suffices(version: &str) -> Result<()> {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Err(Error::BackendUnavailable {
            backend: BackendTag::Qemu,
            reason: format!("QEMU {version} is too old, {}.{} or newer is needed", OLDEST.0, OLDEST.1),
        }),
        _ => Ok(()),
    }
}

/// The version of a QEMU in PATH, such as `7.2.22`; its whole first line if that has an unknown form.
pub async fn version(program: &Program) -> Result<String> {
    let output = helper(program, &["--version"], DEADLINE).await?;
    Ok(number(&String::from_utf8_lossy(&output)))
}

/// The number in what `--version` prints; its whole first line if that has an unknown form.
pub fn number(output: &str) -> String {
    let line = output.lines().next().unwrap_or_default().trim();
    let number = line.strip_prefix("QEMU emulator version ").and_then(|rest| rest.split(' ').next());
    number.unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_older_is_refused() {
        for version in ["6.2.0", "7.2.22", "10.0", "11.0.50", "a fork of ours", "7"] {
            suffices(version).unwrap();
        }
        for version in ["6.1.1", "5.2.0", "2.11.1"] {
            let error = suffices(version).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("QEMU {version} is too old, 6.2 or newer is needed")),
                "{error}"
            );
        }
    }

    #[test]
    fn number_is_taken_from_the_first_line() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022\n";
        assert_eq!(number(debian), "7.2.22");
        assert_eq!(number("QEMU emulator version 10.1.0\n"), "10.1.0");
        assert_eq!(number("something else\n"), "something else");
    }
}
