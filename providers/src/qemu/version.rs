//! Which QEMU is installed.

use std::time::Duration;

use super::backend::QEMU;
use crate::error::Result;
use crate::process::helper;

/// QEMU prints its version without doing anything else.
const DEADLINE: Duration = Duration::from_secs(30);

/// The version of the QEMU in PATH, such as `7.2.22`; its whole first line if that has an unknown form.
pub async fn version() -> Result<String> {
    let output = helper(&QEMU, &["--version"], DEADLINE).await?;
    Ok(parse(&String::from_utf8_lossy(&output)))
}

fn parse(output: &str) -> String {
    let line = output.lines().next().unwrap_or_default().trim();
    let number = line.strip_prefix("QEMU emulator version ").and_then(|rest| rest.split(' ').next());
    number.unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_taken_from_the_first_line() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) 2003-2022\n";
        assert_eq!(parse(debian), "7.2.22");
        assert_eq!(parse("QEMU emulator version 10.1.0\n"), "10.1.0");
        assert_eq!(parse("something else\n"), "something else");
    }
}
