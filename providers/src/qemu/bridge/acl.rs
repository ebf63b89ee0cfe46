//! Which bridges QEMU's bridge helper gives cards on: its own list, which it keeps to whoever asks.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The list, where every distribution has it.
pub(super) const LIST: &str = "/etc/qemu/bridge.conf";

/// How deep lists may include others. The helper has no limit.
const DEPTH: usize = 8;

/// What the list says of a bridge, as far as we may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Yes,
    No,
    /// We may not read it: the helper tells.
    Unknown,
}

/// Asks the list at `path` about `bridge`. One that is not there allows nothing.
pub(super) fn ask(path: &Path, bridge: &str) -> Says {
    let mut votes = Votes::default();
    match read(path, bridge, DEPTH, &mut votes) {
        Err(Unreadable) => Says::Unknown,
        Ok(()) if votes.allowed && !votes.denied => Says::Yes,
        Ok(()) => Says::No,
    }
}

/// A denial anywhere outweighs all else.
#[derive(Debug, Default)]
struct Votes {
    allowed: bool,
    denied: bool,
}

struct Unreadable;

fn read(path: &Path, bridge: &str, depth: usize, votes: &mut Votes) -> Result<(), Unreadable> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(_) => return Err(Unreadable),
    };
    for rule in rules(&text) {
        match rule {
            Rule::Allow(name) => votes.allowed |= name == bridge || name == "all",
            Rule::Deny(name) => votes.denied |= name == bridge || name == "all",
            Rule::Include(other) if depth > 0 => read(&other, bridge, depth - 1, votes)?,
            Rule::Include(_) => return Err(Unreadable),
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Rule<'a> {
    Allow(&'a str),
    Deny(&'a str),
    Include(PathBuf),
}

/// The rules of a list, one a line, without those that the helper would not understand.
fn rules(text: &str) -> impl Iterator<Item = Rule<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        match (words.next()?, words.next()?) {
            ("allow", bridge) => Some(Rule::Allow(bridge)),
            ("deny", bridge) => Some(Rule::Deny(bridge)),
            ("include", path) => Some(Rule::Include(path.into())),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_as_the_helper_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let (list, more) = (folder.path().join("bridge.conf"), folder.path().join("more.conf"));
        assert_eq!(ask(&list, "br0"), Says::No, "there is none");
        fs::write(&more, "deny br1\n").unwrap();
        let include = format!("include {}\n", more.display());
        for (text, br0, br1) in [
            ("", Says::No, Says::No),
            ("# allow br0\n", Says::No, Says::No),
            ("allow br0 # the office\n", Says::Yes, Says::No),
            ("\tallow   all\n", Says::Yes, Says::Yes),
            ("allow all\ndeny br0\n", Says::No, Says::Yes),
            ("deny all\nallow br0\n", Says::No, Says::No),
            (&format!("allow all\n{include}"), Says::Yes, Says::No),
        ] {
            fs::write(&list, text).unwrap();
            assert_eq!((ask(&list, "br0"), ask(&list, "br1")), (br0, br1), "{text}");
        }
        fs::write(&list, format!("include {}\n", list.display())).unwrap();
        assert_eq!(ask(&list, "br0"), Says::Unknown, "it includes itself");
        assert_eq!(ask(folder.path(), "br0"), Says::Unknown, "it cannot be read");
    }
}
