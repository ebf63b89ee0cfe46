//! The values that a state consists of. All of them are plain data with a stable JSON form.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::opaque::Opaque;
use crate::project::Holder;

/// Version of the JSON form of [`Snapshot`] and of everything inside it.
///
/// A reader refuses a higher version; fields may be added within one version if readers can ignore them.
pub const FORMAT_VERSION: u32 = 1;

/// Kind and name of a thing in a VMFile, such as `vm.web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// The address of the VM called `name`.
    pub fn vm(name: &str) -> Self {
        Self(format!("vm.{name}"))
    }

    /// The address of an image, by its digest's hexadecimal digits.
    pub fn image(hex: &str) -> Self {
        Self(format!("image.{hex}"))
    }

    /// The address of the volume called `name`.
    pub fn volume(name: &str) -> Self {
        Self(format!("volume.{name}"))
    }

    /// Whether it is that of a volume.
    pub fn is_volume(&self) -> bool {
        self.0.starts_with("volume.")
    }

    /// The name without its kind: `web` of `vm.web`.
    pub fn name(&self) -> &str {
        self.0.split_once('.').map_or(self.0.as_str(), |(_, name)| name)
    }

    /// The address as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a recorded machine has been brought, as of the last committed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// `prepare` has begun; its files may exist in part.
    Preparing,
    /// Everything is allocated; the machine never ran.
    Prepared,
    /// The machine was started.
    Running,
    /// The vCPUs were paused on request.
    Suspended,
    /// The machine was stopped on request.
    Stopped,
    /// `destroy` has begun; what it removes may be gone in part.
    Destroying,
}

/// One provisioning step that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionRecord {
    /// Digest of the step's content, as planned.
    pub digest: String,
    /// When it ended.
    pub at: Timestamp,
}

/// A provisioning step that ran on a machine and is never to run there again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanOnce {
    /// Its number, from 1, when it was last seen.
    pub number: u32,
    /// What it is called.
    pub label: String,
    /// Digest of its content, as last planned.
    pub digest: String,
    /// When it ended.
    pub at: Timestamp,
}

/// A provisioning step that was cut off: whether it did its work, in part or at all, is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Its number, from 1.
    pub number: u32,
    /// What it is called.
    #[serde(default)]
    pub label: String,
    /// When it was cut off; where the run died with it, when it began.
    pub at: Timestamp,
    /// Digest of its content; absent where the journal does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A provisioning step that ended with a failure of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedProvision {
    /// Its number, from 1.
    pub number: u32,
    /// What it is called.
    pub label: String,
    /// When it failed.
    pub at: Timestamp,
    /// How, in words; holds no sensitive value.
    pub message: String,
}

/// One remembered machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where it stands in the VMFile.
    pub address: Address,
    /// Identity chosen at plan time; a replacement gets another.
    pub instance: Uuid,
    /// Name of the backend that owns it.
    pub backend: String,
    /// The planner's recorded form of what was asked for; holds digests in place of secrets.
    pub spec: Opaque,
    /// The provider's private data, once `prepare` has returned.
    pub handle: Option<Opaque>,
    /// How far it was brought.
    pub phase: Phase,
    /// Whether its readiness check passed since the last start.
    pub ready: bool,
    /// Why it may be half-made; the next plan replaces a tainted machine.
    pub taint: Option<String>,
    /// Provisioning steps that ended well, in order, from the first.
    pub provisioned: Vec<ProvisionRecord>,
    /// Steps that ran and are never to run again, wherever they stand now and whatever they consist of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ran_once: Vec<RanOnce>,
    /// The provisioning step whose outcome is unknown. A step that a dead run left open is not here yet: it is among
    /// [`Snapshot::open`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<Interrupted>,
    /// The provisioning step that failed, until it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provision_failed: Option<FailedProvision>,
    /// When the record was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// One command that changed the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its identity; the steps that it began name it.
    pub id: Uuid,
    /// The command, as typed, without its options' values.
    pub command: String,
    /// User name or number.
    pub user: String,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// When it took the right to write.
    pub began: Timestamp,
    /// When it gave the right back; absent while it runs, and for ever if it died.
    pub ended: Option<Timestamp>,
    /// What came of it, in a word; absent as long as its end is.
    pub result: Option<String>,
}

impl Run {
    /// A run by `holder` that begins now.
    pub fn begin(holder: &Holder) -> Self {
        let Holder { command, user, host, pid, since, boot: _ } = holder.clone();
        Self { id: Uuid::new_v4(), command, user, host, pid, began: since, ended: None, result: None }
    }

    /// The same run, ended.
    #[must_use]
    pub fn end(self, result: &str, at: Timestamp) -> Self {
        Self { ended: Some(at), result: Some(result.to_owned()), ..self }
    }
}

/// The second copy of one record, kept in the machine's own folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// [`FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// Lineage of the state that the record is of.
    pub lineage: Uuid,
    /// Serial at which it was so.
    pub serial: u64,
    /// The record.
    pub record: Record,
}

impl Note {
    /// Reads a note from its JSON form; the error says, for people, what is wrong with it.
    pub fn parse(json: &Value) -> Result<Self, String> {
        match json.get("format").and_then(Value::as_u64) {
            Some(format) if format > u64::from(FORMAT_VERSION) => {
                Err(format!("it was written by a newer vmctl (format {format})"))
            }
            Some(_) | None => Self::deserialize(json).map_err(|error| format!("it is no note: {error}")),
        }
    }
}

/// Number of one begun step; unique within a lineage and growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u64);

/// A step that is about to act. It is durable before the deed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Its number.
    pub op: OpId,
    /// The run (one `apply`) it belongs to.
    pub run: Uuid,
    /// Kind of step, such as `prepare`.
    pub step: String,
    /// What it acts on.
    pub address: Address,
    /// The instance it acts on.
    pub instance: Uuid,
    /// When it was announced.
    pub at: Timestamp,
    /// Whatever recovery needs to know: resource names, input digests.
    pub detail: Value,
}

/// How a begun step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what was announced.
    Done,
    /// It failed and says how; `chain` holds the causes, outermost first.
    Failed {
        /// Machine-readable class of the failure.
        kind: String,
        /// What was attempted, with what.
        message: String,
        /// The causes below it.
        chain: Vec<String>,
    },
    /// The run was told to stop at once; what became of the step is unknown.
    Abandoned,
}

/// A step that began and ended, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// What was announced, and when.
    pub intent: Intent,
    /// When it ended.
    pub at: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All records at one serial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// Identity of this state's history.
    pub lineage: Uuid,
    /// Version number; one more per commit.
    pub serial: u64,
    /// The lowest number that a new step may take.
    pub next_op: OpId,
    /// When the snapshot was taken.
    pub taken: Timestamp,
    /// The records, by address.
    pub records: BTreeMap<Address, Record>,
    /// Steps that began and did not end, oldest first.
    pub open: Vec<Intent>,
}

impl Snapshot {
    /// A state in which nothing happened yet.
    pub fn empty(lineage: Uuid, taken: Timestamp) -> Self {
        Self {
            format: FORMAT_VERSION,
            lineage,
            serial: 0,
            next_op: OpId(0),
            taken,
            records: BTreeMap::new(),
            open: Vec::new(),
        }
    }
}
