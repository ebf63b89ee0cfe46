//! What a fake world consists of, as it stands in its files.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::abilities::{Damage, Stall};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::name::Name;
use crate::spec::{InstanceId, Machine, VmState};

/// What the world remembers of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FakeMachine {
    /// The instance.
    pub id: InstanceId,
    /// Its name; that of its folder if absent.
    #[serde(default)]
    pub name: Option<Name>,
    /// What it does.
    pub state: VmState,
    /// Its hardware now; differs from the recorded one when somebody changed it behind our back.
    pub machine: Machine,
    /// Whether a seed was attached.
    pub seed: bool,
    /// Labels of the provisioning steps that were run, in order, over the machine's whole life.
    pub provisioned: Vec<String>,
    /// What is wrong with its files; for tests, which put it there.
    #[serde(default)]
    pub damage: Vec<Damage>,
    /// Why it is paused while it is failed; for tests, which put it there.
    #[serde(default)]
    pub stall: Option<Stall>,
    /// Whether it was let go of.
    #[serde(default)]
    pub released: bool,
}

/// The part of a machine's file that says whose it is.
#[derive(Debug, Deserialize)]
pub(super) struct Whose {
    pub(super) id: InstanceId,
}

/// One line of the script.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rule {
    /// The operation it is about, as named in `events.log`.
    pub op: String,
    /// The machine it is about; every machine if absent.
    #[serde(default)]
    pub vm: Option<String>,
    /// Fails the operation with this message, before it has any effect.
    #[serde(default)]
    pub fail: Option<String>,
    /// Lets the operation take this many milliseconds before it has its effect.
    #[serde(default)]
    pub delay_ms: u64,
    /// Applies to this many operations only; to all of them if absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// Lets a provisioning step print this many lines more, however often it runs.
    #[serde(default)]
    pub lines: u64,
}

/// What the fake host has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FakeHost {
    /// Memory for all machines of the world together; no end of it if absent.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Disk that is free for more machines; no end of it if absent.
    #[serde(default)]
    pub disk_mib: Option<u64>,
}

pub(super) fn load<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::io("understand", path)(error.into()))
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| Error::io("write", path)(error.into()))?;
    let part = path.with_extension("part");
    fs::write(&part, bytes).map_err(Error::io("write", &part))?;
    failpoint!("state.noop.drafted", &part);
    fs::rename(&part, path).map_err(Error::io("rename", part))
}
