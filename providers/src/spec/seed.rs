//! What a seed says besides host name, user and keys.

use super::{Digest, Secret};

/// What cloud-init is told to do at the first boot, besides making a login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeedContent {
    /// The login and all of this go beside the user's own user-data, as a part of one MIME document, instead of being
    /// replaced by it.
    pub merges: bool,
    /// Packages that the guest installs.
    pub packages: Vec<String>,
    /// Files that are written before anything runs.
    pub files: Vec<SeedFile>,
    /// Commands for the guest's shell, run as root in this order.
    pub commands: Vec<SeedText>,
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
