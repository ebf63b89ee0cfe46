//! The file that pins one machine's host key: written with the seed, or learned at the first login.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use russh::keys::{Algorithm, HashAlg, PublicKey};

use super::{SshError, SshTarget};

/// What is known about a guest's host key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pins {
    /// There is no file: the first key that a successful login shows is learned.
    Unknown,
    /// One of these keys or none.
    Known(Vec<PublicKey>),
}

impl Pins {
    /// Whether a guest with this host key may be talked to.
    pub(super) fn accept(&self, shown: &PublicKey) -> bool {
        match self {
            Self::Unknown => true,
            // `==` on keys would compare their comments too.
            Self::Known(keys) => keys.iter().any(|key| key.key_data() == shown.key_data()),
        }
    }

    /// The algorithms to ask the guest for; all that are supported if absent.
    pub(super) fn algorithms(&self) -> Option<Vec<Algorithm>> {
        let Self::Known(keys) = self else { return None };
        let mut algorithms = Vec::new();
        for key in keys {
            match key.algorithm() {
                // A key of this type signs in two ways that are still sound.
                Algorithm::Rsa { .. } => algorithms.extend(
                    [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) }),
                ),
                other => algorithms.push(other),
            }
        }
        Some(algorithms)
    }
}

/// Reads what `target`'s file says about it.
///
/// A file that is there and does not list the guest is an error: it exists to pin that one key.
pub(super) fn read(target: &SshTarget) -> Result<Pins, SshError> {
    let path = &target.known_hosts;
    let refuse = |reason: String| SshError::KnownHosts { path: path.clone(), reason };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Pins::Unknown),
        Err(error) => return Err(refuse(error.to_string())),
    };
    parse(&text, &target.host_alias).map_err(refuse)
}

/// The keys that `text`, in the form of sshd(8)'s known_hosts, lists for `alias`.
fn parse(text: &str, alias: &str) -> Result<Pins, String> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((hosts, key)) = line.trim().split_once(char::is_whitespace) else { continue };
        if !hosts.split(',').any(|host| host == alias) {
            continue;
        }
        let key = key.trim().parse::<PublicKey>();
        keys.push(key.map_err(|error| format!("line {} has no usable key: {error}", index + 1))?);
    }
    if keys.is_empty() { Err(format!("it lists no key for {alias}")) } else { Ok(Pins::Known(keys)) }
}

/// Writes `key` down as the guest's, so that later logins insist on it.
pub(super) fn learn(target: &SshTarget, key: &PublicKey) -> Result<(), SshError> {
    let path = &target.known_hosts;
    let text = key.to_openssh().map_err(|error| SshError::KnownHosts {
        path: path.clone(),
        reason: format!("the guest's host key has no text form: {error}"),
    })?;
    write(path, SshTarget::known_hosts_line(&target.host_alias, &text).as_bytes())
        .map_err(|source| SshError::Io { action: "write", path: path.clone(), source })
}

/// Puts a finished file in place; one that appeared meanwhile is left as it is.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = (|| {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        file.sync_data()?;
        match std::fs::hard_link(&part, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    })();
    let removed = std::fs::remove_file(&part);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::keys::generate;

    fn key(line: &str) -> PublicKey {
        line.parse().unwrap()
    }

    fn target(folder: &Path) -> SshTarget {
        SshTarget {
            address: "127.0.0.1:1".parse().unwrap(),
            user: "vm".to_owned(),
            private_key: folder.join("id"),
            known_hosts: folder.join("known_hosts"),
            host_alias: "vmctl-1".to_owned(),
        }
    }

    #[test]
    fn comments_do_not_matter_and_key_data_does() {
        let (one, two) = (key(&generate("web").public), key(&generate("web").public));
        let mut renamed = one.clone();
        renamed.set_comment("other");
        let pins = Pins::Known(vec![renamed]);
        assert!(pins.accept(&one));
        assert!(!pins.accept(&two));
        assert_eq!(pins.algorithms(), Some(vec![Algorithm::Ed25519]));
        assert!(Pins::Unknown.accept(&two));
    }

    #[test]
    fn only_lines_of_the_alias_count() {
        let (one, two) = (generate("a").public, generate("b").public);
        let text = format!("# note\n\nother {two}\nvmctl-1,web {one}\n");
        assert_eq!(parse(&text, "vmctl-1"), Ok(Pins::Known(vec![key(&one)])));
        assert_eq!(parse(&text, "vmctl-2"), Err("it lists no key for vmctl-2".to_owned()));
        assert!(parse("vmctl-1 ssh-ed25519 torn\n", "vmctl-1").unwrap_err().starts_with("line 1 has"));
    }

    #[test]
    fn learned_key_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path());
        assert_eq!(read(&target).unwrap(), Pins::Unknown);
        let (one, two) = (key(&generate("a").public), key(&generate("b").public));
        learn(&target, &one).unwrap();
        learn(&target, &two).unwrap();
        assert!(read(&target).unwrap().accept(&one));
        assert!(!read(&target).unwrap().accept(&two));
        assert_eq!(target.known_hosts.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        std::fs::write(&target.known_hosts, "").unwrap();
        assert!(matches!(read(&target), Err(SshError::KnownHosts { .. })));
    }
}
