//! What a seed says besides host name, user and keys.

use serde::{Deserialize, Serialize};

use super::{Digest, Secret};

/// What cloud-init is told to do at the first boot, besides making a login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeedContent {
    /// The login and all of this go beside the user's own user-data, as a part of one MIME document, instead of being
    /// replaced by it.
    pub merges: bool,
    /// Users, in the order in which they are made. One that logs in and is not among them is made before them.
    pub users: Vec<SeedUser>,
    /// Packages that the guest installs.
    pub packages: Vec<String>,
    /// Files that are written before anything runs.
    pub files: Vec<SeedFile>,
    /// Commands for the guest's shell, run as root in this order.
    pub commands: Vec<SeedText>,
}

/// A user that cloud-init makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedUser {
    /// Its name.
    pub name: String,
    /// Public keys that may log in as it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_keys: Vec<String>,
    /// Groups that it belongs to besides its own; those of its kind of user if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What it may do as others; what its kind of user may if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo: Option<Sudo>,
    /// Its shell; `/bin/bash` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
}

/// What a user may do as others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sudo {
    /// Nothing.
    Nothing,
    /// What this rule says; see sudoers(5), the user's name left out.
    Rule(String),
}

impl Sudo {
    /// Everything, and no password is asked for.
    pub const EVERYTHING: &str = "ALL=(ALL) NOPASSWD:ALL";
}

/// A file that cloud-init writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedFile {
    /// Absolute path in the guest.
    pub path: String,
    /// What is in it.
    pub content: SeedText,
    /// Its permission bits; those of cloud-init (0644) if absent.
    pub mode: Option<u32>,
    /// Its owner and perhaps group; root if absent.
    pub owner: Option<String>,
}

/// A text with what is remembered of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedText {
    /// The text.
    pub text: Secret,
    /// Its digest.
    pub digest: Digest,
}

impl SeedText {
    /// A text that holds no sensitive value.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { digest: Digest::of(&text), text: Secret::new(text) }
    }
}
