//! How a machine stands to templates.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Digest, InstanceId};

/// How much of a machine is kept as a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WarmLevel {
    /// Its root disk: the next machine boots, and need not be provisioned.
    Disk,
    /// Its memory as well: the next machine need not boot either.
    Memory,
}

impl WarmLevel {
    /// The level as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// What is wanted of templates for a machine that is about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmSpec {
    /// Everything that determines what the machine is once it is provisioned.
    pub key: Digest,
    /// How much of it may be kept.
    pub level: WarmLevel,
    /// What it is made from.
    pub made_from: MadeFrom,
}

/// What a machine with a key is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MadeFrom {
    /// Its image: it boots, and is to be provisioned.
    Image,
    /// The template with its key. Without such a template `prepare` is an error.
    Template,
    /// The template with its key if there is one that is whole when `prepare` looks, else its image. The handle says
    /// which it was.
    TemplateOrImage,
}

/// How an existing machine stands to templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    /// Everything that determined what it is once it is provisioned.
    pub key: Digest,
    /// How much of it may be kept.
    pub level: WarmLevel,
    /// The template that it was made from; absent if it was made without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<Cloned>,
}

/// What is known of a machine's coming from a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloned {
    /// When the template was kept.
    pub created: Timestamp,
    /// The instance that the template was.
    pub source: InstanceId,
    /// The public key that its guest let the template's login user in with.
    pub user_key: String,
    /// What its guest is to call itself.
    pub hostname: String,
    /// How far it has come.
    pub stage: CloneStage,
    /// Why it booted although the template has a memory, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<String>,
}

/// How far a machine from a template has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloneStage {
    /// It was never started.
    Fresh,
    /// It was to go on from the template's memory. If it is found so, that did not come to its end, and it boots.
    Waking,
    /// It boots from a copy of the template's disk.
    Booting,
    /// What must be its own is its own: keys, names, random numbers.
    Renewed,
}
