//! Key pairs of one machine (its login user's and its sshd's), and checks of keys that people bring.

use std::path::{Path, PathBuf};

use russh::keys::ssh_key::{self, LineEnding};
use russh::keys::{Algorithm, PrivateKey, PublicKey};

use crate::spec::Secret;

/// Largest key file that is read; the longest real ones have a few KiB.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// A generated ed25519 key pair.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// OpenSSH private key file, with its armour and final line end.
    pub private: Secret,
    /// One line of `authorized_keys`: type, key, comment.
    pub public: String,
}

/// Why a key cannot be used. No variant carries key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be read.
    #[error("cannot read key file `{path}`", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The private key is protected by a passphrase that nobody gave.
    #[error("private key `{path}` is protected by a passphrase, and nothing opens it: {agent}", path = path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
        /// Why the agent does not help.
        agent: String,
    },
    /// The private key is protected by another passphrase than the one that was given.
    #[error("the passphrase does not open private key `{path}`: {reason}", path = path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
        /// What was tried and what came of it.
        reason: String,
    },
    /// The public half of a protected private key is needed, and its form does not show it.
    #[error("private key `{path}` is protected by a passphrase and does not tell its public half", path = path.display())]
    PublicUnknown {
        /// The file.
        path: PathBuf,
    },
    /// The file is a public key, and nobody holds the private one.
    #[error("`{path}` is a public key, and nobody holds the private one: {agent}", path = path.display())]
    NotHeld {
        /// The file.
        path: PathBuf,
        /// Why the agent does not help.
        agent: String,
    },
    /// The private key's algorithm cannot be used to log in.
    #[error("private key `{path}` is of type {algorithm}, which is not supported", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its algorithm, as ssh names it.
        algorithm: String,
    },
    /// The file holds no private key in a known form.
    #[error("`{path}` is no private key: {reason}", path = path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A private key where a public one belongs.
    #[error("this is a private key, a public key is needed here")]
    IsPrivate,
    /// A line that is no public key.
    #[error("line {line} is no public key: {reason}")]
    PublicLine {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing but empty lines and comments.
    #[error("there is no public key in it")]
    NoPublicKey,
}

impl KeyError {
    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Io { .. } => "the path is relative to the VMFile, and `~` is your home folder",
            Self::Encrypted { path, .. } => {
                return Some(format!(
                    "give it to the agent (`ssh-add {}`), set VMCTL_SSH_PASSPHRASE, or run this in a terminal, where \
                     the passphrase is asked for",
                    path.display()
                ));
            }
            Self::WrongPassphrase { path, .. } => {
                return Some(format!(
                    "try it with `ssh-keygen -y -f {path}`; a key in an old form is written anew by `ssh-keygen -p -f \
                     {path}`",
                    path = path.display()
                ));
            }
            Self::PublicUnknown { path } => {
                return Some(format!(
                    "write it beside the key: `ssh-keygen -y -f {path} > {path}.pub`",
                    path = path.display()
                ));
            }
            Self::NotHeld { .. } => {
                "give the private key to the agent with `ssh-add`, or name its file instead (without `.pub`)"
            }
            Self::Unsupported { .. } => "use an ed25519 key: ssh-keygen -t ed25519",
            Self::NotAKey { .. } => "make one with: ssh-keygen -t ed25519",
            Self::IsPrivate => {
                "name the file that ends in `.pub`; what is written here is put into the guest's seed"
            }
            Self::PublicLine { .. } | Self::NoPublicKey => {
                "a public key is one line such as `ssh-ed25519 AAAA… name`, as in a `.pub` file"
            }
        };
        Some(text.to_owned())
    }
}

/// Generates an ed25519 pair from the system's random source.
pub fn generate(comment: &str) -> KeyPair {
    let mut key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
        .expect("an ed25519 key is made of random bytes alone");
    key.set_comment(comment);
    let private = key.to_openssh(LineEnding::LF).expect("an unencrypted ed25519 key has an OpenSSH form");
    let public = key.public_key().to_openssh().expect("an ed25519 key has an OpenSSH form");
    KeyPair { private: Secret::new(private.as_str()), public }
}

/// The pair whose private half is in the file `path`; its comment is kept.
pub fn load_pair(path: &Path) -> Result<KeyPair, KeyError> {
    Ok(KeyPair { public: public_of(path)?, private: Secret::new(read_key_file(path)?) })
}

/// The `authorized_keys` line that belongs to the key in the file `path`, which is a private key or a public one. A
/// passphrase is not needed.
pub fn public_of(path: &Path) -> Result<String, KeyError> {
    let not_a_key =
        |error: ssh_key::Error| KeyError::NotAKey { path: path.into(), reason: error.to_string() };
    let public = match read(path)? {
        KeyFile::Open(key) => key.public_key().clone(),
        KeyFile::Public(public) => public,
        KeyFile::Sealed(SealedKey { public: Some(public), .. }) => public,
        KeyFile::Sealed(_) => return Err(KeyError::PublicUnknown { path: path.into() }),
    };
    public.to_openssh().map_err(not_a_key)
}

/// Whether the file `path` holds a private key that lies open.
pub fn is_open(path: &Path) -> bool {
    matches!(read(path), Ok(KeyFile::Open(_)))
}

/// Checks the text of a public key file, and returns its keys, one line each.
///
/// Empty lines and comments are left out; options before a key (`restrict ssh-ed25519 …`) are kept.
pub fn check_public(text: &str) -> Result<Vec<String>, KeyError> {
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::IsPrivate);
    }
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let refuse = |reason: String| KeyError::PublicLine { line: index + 1, reason };
        if line.chars().any(char::is_control) {
            return Err(refuse("it contains control characters".to_owned()));
        }
        parse_authorized(line).map_err(|error| refuse(error.to_string()))?;
        keys.push(line.to_owned());
    }
    if keys.is_empty() { Err(KeyError::NoPublicKey) } else { Ok(keys) }
}

/// Parses a line of `authorized_keys` (sshd(8)): a key with its comment, perhaps after options.
fn parse_authorized(line: &str) -> Result<PublicKey, ssh_key::Error> {
    line.parse::<PublicKey>().or_else(|error| {
        // Options end at the first blank outside double quotes.
        let mut quoted = false;
        let end = line.find(|c| {
            quoted ^= c == '"';
            c == ' ' && !quoted
        });
        end.and_then(|end| line[end..].trim_start().parse().ok()).ok_or(error)
    })
}

/// What a file of a login key holds.
#[derive(Debug)]
pub(crate) enum KeyFile {
    /// A private key that lies open.
    Open(Box<PrivateKey>),
    /// A private key behind a passphrase.
    Sealed(SealedKey),
    /// A public key, whose private one somebody else has to hold.
    Public(PublicKey),
}

/// A private key behind a passphrase.
#[derive(Debug)]
pub(crate) struct SealedKey {
    text: Secret,
    /// Its public half. OpenSSH's own form shows it; with the older forms it is looked for beside the file.
    pub(crate) public: Option<PublicKey>,
}

impl SealedKey {
    /// Opens it. That takes a noticeable time, on purpose of who made it.
    pub(crate) fn open(&self, passphrase: &Secret) -> Result<PrivateKey, String> {
        russh::keys::decode_secret_key(self.text.expose(), Some(passphrase.expose()))
            .map_err(|error| error.to_string())
    }
}

/// Reads a file of a key that this program can log in with.
pub(crate) fn read(path: &Path) -> Result<KeyFile, KeyError> {
    let text = read_key_file(path)?;
    let not_a_key = |reason: String| KeyError::NotAKey { path: path.into(), reason };
    let file = if !text.contains("PRIVATE KEY-----") {
        let public = text.trim().parse::<PublicKey>();
        KeyFile::Public(public.map_err(|_| not_a_key("it has no `BEGIN … PRIVATE KEY` line".to_owned()))?)
    } else if ["Proc-Type: 4,ENCRYPTED", "BEGIN ENCRYPTED PRIVATE KEY"].iter().any(|mark| text.contains(mark))
    {
        let public = read_key_file(&beside(path)).ok().and_then(|text| text.trim().parse().ok());
        KeyFile::Sealed(SealedKey { text: Secret::new(text), public })
    } else {
        match russh::keys::decode_secret_key(&text, None) {
            Ok(key) => KeyFile::Open(Box::new(key)),
            Err(russh::keys::Error::KeyIsEncrypted) => {
                let sealed = PrivateKey::from_openssh(&text).map_err(|error| not_a_key(error.to_string()))?;
                let public = Some(sealed.public_key().clone());
                KeyFile::Sealed(SealedKey { text: Secret::new(text), public })
            }
            Err(error) => return Err(not_a_key(error.to_string())),
        }
    };
    let algorithm = match &file {
        KeyFile::Open(key) => Some(key.algorithm()),
        KeyFile::Sealed(SealedKey { public, .. }) => public.as_ref().map(PublicKey::algorithm),
        KeyFile::Public(_) => None,
    };
    match algorithm {
        None | Some(Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. }) => Ok(file),
        Some(other) => Err(KeyError::Unsupported { path: path.into(), algorithm: other.to_string() }),
    }
}

/// Where `ssh-keygen` writes the public half.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn read_key_file(path: &Path) -> Result<String, KeyError> {
    let io = |source| KeyError::Io { path: path.into(), source };
    let size = std::fs::metadata(path).map_err(io)?;
    if !size.is_file() {
        return Err(KeyError::NotAKey { path: path.into(), reason: "it is no regular file".into() });
    }
    if size.len() > MAX_KEY_FILE {
        let reason = format!("{} bytes are too many for a key", size.len());
        return Err(KeyError::NotAKey { path: path.into(), reason });
    }
    let bytes = std::fs::read(path).map_err(io)?;
    String::from_utf8(bytes)
        .map_err(|_| KeyError::NotAKey { path: path.into(), reason: "it is not a text file".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn generated_pair_is_openssh_text_and_belongs_together() {
        let folder = tempfile::tempdir().unwrap();
        let pair = generate("vm@web");
        assert!(pair.private.expose().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(pair.private.expose().ends_with("-----END OPENSSH PRIVATE KEY-----\n"));
        assert!(pair.public.starts_with("ssh-ed25519 AAAA") && pair.public.ends_with(" vm@web"));
        let path = write(&folder, "id", pair.private.expose());
        assert_eq!(public_of(&path).unwrap(), pair.public);
        let loaded = load_pair(&path).unwrap();
        assert_eq!((loaded.private, loaded.public), (pair.private.clone(), pair.public.clone()));
        assert_eq!(check_public(&pair.public).unwrap().join("\n"), pair.public);
        assert_ne!(generate("vm@web").public, pair.public);
    }

    #[test]
    fn pairs_reveal_nothing_when_printed() {
        let pair = generate("x");
        let inside = pair.private.expose().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{pair:?}").contains(&inside));
    }

    #[test]
    fn unusable_private_keys_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            ("text", "hello\n", "NotAKey"),
            ("empty", "", "NotAKey"),
            ("torn-rsa", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n", "NotAKey"),
            (
                "torn",
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n-----END OPENSSH PRIVATE KEY-----\n",
                "NotAKey",
            ),
            (
                "old",
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIE\n\
                 -----END RSA PRIVATE KEY-----\n",
                "PublicUnknown",
            ),
        ];
        for (name, text, variant) in cases {
            let path = write(&folder, name, text);
            let error = public_of(&path).unwrap_err();
            assert!(format!("{error:?}").starts_with(variant), "{name}: {error:?}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(error.help().is_some());
        }
        assert!(matches!(public_of(folder.path()), Err(KeyError::NotAKey { .. })));
        assert!(matches!(public_of(&folder.path().join("missing")), Err(KeyError::Io { .. })));
    }

    #[test]
    fn public_half_is_known_without_a_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let pair = generate("x");
        let open = russh::keys::decode_secret_key(pair.private.expose(), None).unwrap();
        let sealed = open.encrypt(&mut russh::keys::key::safe_rng(), "secret").unwrap();
        let sealed = write(&folder, "id", &sealed.to_openssh(LineEnding::LF).unwrap());
        assert!(!is_open(&sealed));
        // The comment is behind the passphrase, the key is not.
        assert!(pair.public.starts_with(public_of(&sealed).unwrap().trim()));
        let KeyFile::Sealed(key) = read(&sealed).unwrap() else { panic!("it is sealed") };
        assert_eq!(key.open(&Secret::new("secret")).unwrap().key_data(), open.key_data());
        assert!(key.open(&Secret::new("other")).is_err());
        assert_eq!(public_of(&write(&folder, "id.pub", &pair.public)).unwrap(), pair.public);
        // Other forms do not show it: it stands in the file beside.
        let mut text = Vec::new();
        russh::keys::encode_pkcs8_pem_encrypted(&open, b"secret", 1000, &mut text).unwrap();
        let pem = write(&folder, "pem", std::str::from_utf8(&text).unwrap());
        assert!(matches!(public_of(&pem), Err(KeyError::PublicUnknown { .. })));
        write(&folder, "pem.pub", &pair.public);
        assert_eq!(public_of(&pem).unwrap(), pair.public);
        let KeyFile::Sealed(key) = read(&pem).unwrap() else { panic!("it is sealed") };
        assert_eq!(key.open(&Secret::new("secret")).unwrap().key_data(), open.key_data());
    }

    #[test]
    fn public_key_files_are_checked_line_by_line() {
        let (one, two) = (generate("a b: c # d").public, generate("").public);
        let options = r#"restrict,command="echo a b""#;
        let text = format!("# mine\n\n{one}\r\n  {options} {two}\n");
        assert_eq!(check_public(&text).unwrap(), [one.clone(), format!("{options} {two}")]);
        let bad = format!("{one}\nssh-ed25519 nonsense\n");
        assert!(matches!(check_public(&bad), Err(KeyError::PublicLine { line: 2, .. })));
        assert!(matches!(check_public("# nothing\n"), Err(KeyError::NoPublicKey)));
        assert!(matches!(check_public(generate("x").private.expose()), Err(KeyError::IsPrivate)));
        let control = format!("{one}\u{1b}[2J");
        assert!(matches!(check_public(&control), Err(KeyError::PublicLine { line: 1, .. })));
    }
}
