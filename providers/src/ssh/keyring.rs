//! What opens the key of a login: a passphrase, or the agent of ssh.
//!
//! | the file holds | used is |
//! |---|---|
//! | a private key that lies open | the key |
//! | a private key behind a passphrase | the agent, if it holds the key; else the passphrase that was given, else one that is asked for |
//! | a public key | the agent |
//!
//! Nothing of this is written anywhere. What was opened once stays open until the process ends.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::agent::client::AgentClient;
use russh::keys::{PrivateKey, PublicKey};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::SshError;
use crate::keys::{self, KeyError, KeyFile, SealedKey};
use crate::spec::Secret;

/// Asks somebody for the passphrase of a key file; `None` if there is nobody, or nobody wants to answer.
pub type AskPassphrase = fn(&Path) -> io::Result<Option<Secret>>;

/// The variable that holds a passphrase. No program that vmctl starts gets it.
pub const PASSPHRASE_VARIABLE: &str = "VMCTL_SSH_PASSPHRASE";

/// How often somebody may mistype a passphrase, as with ssh.
const TRIES: usize = 3;

/// How long the agent may take to list its keys.
const AGENT: Duration = Duration::from_secs(5);

/// Opens keys. Clones share what they opened.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Arc<Ring>);

#[derive(Debug, Default)]
struct Ring {
    agent: Option<PathBuf>,
    passphrase: Option<Secret>,
    ask: Option<AskPassphrase>,
    opened: Mutex<HashMap<PathBuf, Identity>>,
}

/// What proves to a guest who logs in.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    Key(Arc<PrivateKey>),
    /// The agent behind this socket holds the private half.
    Agent(PathBuf, PublicKey),
}

impl Keyring {
    /// A keyring with the socket of an agent, a passphrase for whatever key needs one, and somebody to ask for another.
    pub fn new(agent: Option<PathBuf>, passphrase: Option<Secret>, ask: Option<AskPassphrase>) -> Self {
        Self(Arc::new(Ring { agent, passphrase, ask, opened: Mutex::default() }))
    }

    /// Makes sure that a login with the key file `path` will not have to wait for a passphrase, nor fail for want of one.
    pub async fn open(&self, path: &Path) -> Result<(), SshError> {
        self.identity(path).await.map(drop)
    }

    pub(super) async fn identity(&self, path: &Path) -> Result<Identity, SshError> {
        match keys::read(path)? {
            KeyFile::Open(key) => Ok(Identity::Key(Arc::new(*key))),
            KeyFile::Public(public) => match self.agent_with(&public).await {
                Ok(socket) => Ok(Identity::Agent(socket, public)),
                Err(agent) => Err(KeyError::NotHeld { path: path.into(), agent }.into()),
            },
            KeyFile::Sealed(sealed) => {
                // Held while somebody is asked: one question at a time, and each only once.
                let mut opened = self.0.opened.lock().await;
                if let Some(identity) = opened.get(path) {
                    return Ok(identity.clone());
                }
                let held = match &sealed.public {
                    Some(public) => self.agent_with(public).await.map(|socket| (socket, public.clone())),
                    None => Err("its public half is not known, so that the agent cannot be asked".to_owned()),
                };
                let identity = match held {
                    Ok((socket, public)) => Identity::Agent(socket, public),
                    Err(agent) => Identity::Key(Arc::new(self.unseal(path, sealed, agent).await?)),
                };
                opened.insert(path.to_owned(), identity.clone());
                Ok(identity)
            }
        }
    }

    /// The socket of the agent, if it holds the key; else why it is of no use.
    async fn agent_with(&self, public: &PublicKey) -> Result<PathBuf, String> {
        let socket = self.0.agent.as_ref().ok_or("there is no ssh agent (SSH_AUTH_SOCK is not set)")?;
        let shown = socket.display();
        let asking = async {
            let mut agent = connect(socket).await?;
            agent.request_identities().await.map_err(|error| error.to_string())
        };
        let held = match timeout(AGENT, asking).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => return Err(format!("the ssh agent at `{shown}` cannot be asked: {error}")),
            Err(_) => return Err(format!("the ssh agent at `{shown}` did not answer within {AGENT:?}")),
        };
        // `==` on keys would compare their comments too.
        if held.iter().any(|identity| identity.public_key().key_data() == public.key_data()) {
            Ok(socket.clone())
        } else {
            Err(format!("the ssh agent at `{shown}` does not hold it"))
        }
    }

    async fn unseal(&self, path: &Path, sealed: SealedKey, agent: String) -> Result<PrivateKey, SshError> {
        let (path, passphrase, ask) = (path.to_owned(), self.0.passphrase.clone(), self.0.ask);
        // Both a person's answer and the opening take their time.
        spawn_blocking(move || match (passphrase, ask) {
            (Some(passphrase), _) => sealed.open(&passphrase).map_err(|error| {
                let reason = format!("tried was {PASSPHRASE_VARIABLE} ({error})");
                KeyError::WrongPassphrase { path, reason }.into()
            }),
            (None, Some(ask)) => asked(&path, &sealed, ask, agent),
            (None, None) => Err(KeyError::Encrypted { path, agent }.into()),
        })
        .await
        .map_err(|error| SshError::Input(io::Error::other(error)))?
    }
}

/// Opens a key with what somebody types.
fn asked(path: &Path, sealed: &SealedKey, ask: AskPassphrase, agent: String) -> Result<PrivateKey, SshError> {
    for _ in 0..TRIES {
        let Some(passphrase) = ask(path).map_err(SshError::Input)? else {
            return Err(KeyError::Encrypted { path: path.into(), agent }.into());
        };
        if let Ok(key) = sealed.open(&passphrase) {
            return Ok(key);
        }
    }
    let reason = format!("tried were {TRIES} that were typed");
    Err(KeyError::WrongPassphrase { path: path.into(), reason }.into())
}

/// A connection to the agent behind `socket`.
pub(super) async fn connect(socket: &Path) -> Result<AgentClient<UnixStream>, String> {
    UnixStream::connect(socket).await.map(AgentClient::connect).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use russh::keys::ssh_key::LineEnding;

    use super::*;

    fn sealed() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let pair = keys::generate("x");
        let open = russh::keys::decode_secret_key(pair.private.expose(), None).unwrap();
        let sealed = open.encrypt(&mut russh::keys::key::safe_rng(), "secret").unwrap();
        let path = folder.path().join("id");
        std::fs::write(&path, sealed.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        (folder, path)
    }

    fn key_error(result: Result<(), SshError>) -> KeyError {
        match result {
            Err(SshError::Key(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_asked_once_and_mistakes_are_forgiven() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let (_folder, path) = sealed();
        let typed: AskPassphrase = |_| {
            let word = if ASKED.fetch_add(1, Ordering::Relaxed) == 0 { "mistyped" } else { "secret" };
            Ok(Some(Secret::new(word)))
        };
        let keyring = Keyring::new(None, None, Some(typed));
        let (one, other) = tokio::join!(keyring.open(&path), keyring.open(&path));
        one.unwrap();
        other.unwrap();
        assert_eq!(ASKED.load(Ordering::Relaxed), 2);
        let wrong: AskPassphrase = |_| Ok(Some(Secret::new("wrong")));
        let error = key_error(Keyring::new(None, None, Some(wrong)).open(&path).await);
        assert!(matches!(error, KeyError::WrongPassphrase { .. }), "{error}");
    }

    #[tokio::test]
    async fn key_that_nothing_opens_says_what_was_tried() {
        let (folder, path) = sealed();
        let error = key_error(Keyring::default().open(&path).await).to_string();
        assert!(error.ends_with("there is no ssh agent (SSH_AUTH_SOCK is not set)"), "{error}");
        let nobody: AskPassphrase = |_| Ok(None);
        let socket = folder.path().join("agent");
        let error = key_error(Keyring::new(Some(socket), None, Some(nobody)).open(&path).await).to_string();
        assert!(error.contains("cannot be asked: No such file"), "{error}");
        let given = Keyring::new(None, Some(Secret::new("other")), Some(nobody));
        let error = key_error(given.open(&path).await);
        assert!(error.to_string().contains("VMCTL_SSH_PASSPHRASE"), "{error}");
        assert!(!format!("{given:?} {error} {error:?}").contains("other"));
        let public = folder.path().join("id.pub");
        std::fs::write(&public, keys::generate("x").public).unwrap();
        let error = key_error(given.open(&public).await);
        assert!(matches!(error, KeyError::NotHeld { .. }), "{error}");
    }
}
