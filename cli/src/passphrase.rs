//! Asking for a passphrase on the terminal, which shows nothing of it.

use std::io::{self, BufRead, Write};
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use vmctl_providers::Secret;

use crate::error::can_ask;
use crate::ui;

/// Longest passphrase that is read; the rest of a longer line is a mistake.
const LONGEST: usize = 1024;

/// Asks for the passphrase of the key file `path`. `None` if there is nobody to ask, or if Ctrl-C or Ctrl-D is the answer.
pub(crate) fn ask(path: &Path) -> io::Result<Option<Secret>> {
    if !can_ask() {
        return Ok(None);
    }
    let answer = hidden(|| {
        let mut err = ui::stderr();
        write!(err, "Passphrase for key `{}`: ", path.display())?;
        err.flush()?;
        drop(err);
        read(io::stdin().lock())
    });
    writeln!(ui::stderr())?;
    answer
}

/// Does `work` while the terminal shows nothing of what is typed, and hands over each key as it comes. Ctrl-C is one of
/// them, so that none can leave the terminal as it is now. What was typed before is dropped: whoever asks does it within
/// `work`, or a quick answer is lost.
fn hidden<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let terminal = io::stdin();
    let before = tcgetattr(&terminal)?;
    let mut during = before.clone();
    during.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&terminal, OptionalActions::Flush, &during)?;
    let done = work();
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    done
}

/// Reads a line key by key.
fn read(keys: impl BufRead) -> io::Result<Option<Secret>> {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const BACKSPACE: u8 = 8;
    const CTRL_U: u8 = 21;
    const DELETE: u8 = 127;
    let mut typed = Vec::new();
    for key in keys.bytes() {
        match key? {
            b'\n' | b'\r' => {
                let text = String::from_utf8(typed);
                return text.map(|text| Some(Secret::new(text))).map_err(io::Error::other);
            }
            CTRL_C | CTRL_D => return Ok(None),
            CTRL_U => typed.clear(),
            BACKSPACE | DELETE => {
                // A letter of several bytes goes as a whole.
                while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if typed.len() < LONGEST => typed.push(byte),
            _ => return Err(io::Error::other(format!("it has more than {LONGEST} bytes"))),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_a_passphrase() {
        let typed = |keys: &str| read(keys.as_bytes()).unwrap().map(|secret| secret.expose().to_owned());
        assert_eq!(typed("secret word\rrest"), Some("secret word".to_owned()));
        assert_eq!(typed("wrong\u{15}s\u{fc}x\u{7f}\u{7f}\u{8}right\n"), Some("right".to_owned()));
        assert_eq!(typed("\n"), Some(String::new()));
        assert_eq!(["secret\u{3}", "\u{4}", "no end"].map(typed), [None, None, None]);
        assert!(read("x".repeat(LONGEST + 1).as_bytes()).is_err());
    }
}
