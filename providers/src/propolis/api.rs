//! What a Propolis server is told, and what it answers. Lenient in what is read: servers differ by version.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// What a server says of its VM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum State {
    /// Its objects are being made, or are made and wait for `Run`.
    Creating,
    /// `Run` was heard.
    Starting,
    /// Its processors run.
    Running,
    /// It is on its way to its end.
    Stopping,
    /// Its processors stand still for good; what it stands on is still held.
    Stopped,
    /// It is being reset.
    Rebooting,
    /// It is sent to another server, or comes from one.
    Migrating,
    /// In the protocol, and never told.
    Repairing,
    /// It could not be built or started.
    Failed,
    /// Nothing of it is held any more.
    Destroyed,
    /// A word that this vmctl does not know.
    Unknown(String),
}

/// The states by the words of the protocol.
const STATES: [(&str, State); 10] = [
    ("Creating", State::Creating),
    ("Starting", State::Starting),
    ("Running", State::Running),
    ("Stopping", State::Stopping),
    ("Stopped", State::Stopped),
    ("Rebooting", State::Rebooting),
    ("Migrating", State::Migrating),
    ("Repairing", State::Repairing),
    ("Failed", State::Failed),
    ("Destroyed", State::Destroyed),
];

impl From<String> for State {
    fn from(word: String) -> Self {
        let known = STATES.iter().find(|(name, _)| *name == word);
        known.map_or_else(|| Self::Unknown(word), |(_, state)| state.clone())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => f.write_str(word),
            known => {
                f.write_str(STATES.iter().find(|(_, state)| state == known).map_or("", |(name, _)| name))
            }
        }
    }
}

/// A state that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Request {
    /// Let it run.
    Run,
    /// Cut its power.
    Stop,
}

/// A server's VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its identity.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// What it does.
    pub state: State,
}

/// One answer of the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Monitored {
    /// The number of this change.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// The state since then.
    pub state: State,
}

/// A piece of what the serial line printed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct History {
    /// The bytes.
    pub data: Vec<u8>,
    /// How many bytes were printed up to the end of `data`, since the VM was made.
    pub last_byte_offset: u64,
}

/// Processors and memory, as a server tells that its VM has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// vCPUs.
    pub cpus: u16,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error_code: Option<String>,
    #[serde(default)]
    pub(super) message: String,
}

/// The answer to `GET /instance`.
#[derive(Debug, Deserialize)]
pub(super) struct InstanceBody {
    instance: InstanceInside,
}

#[derive(Debug, Deserialize)]
struct InstanceInside {
    properties: Properties,
    state: State,
}

#[derive(Debug, Deserialize)]
struct Properties {
    id: Uuid,
    #[serde(default)]
    name: String,
}

impl From<InstanceBody> for Instance {
    fn from(body: InstanceBody) -> Self {
        let InstanceInside { properties, state } = body.instance;
        Self { id: properties.id, name: properties.name, state }
    }
}

/// The board in an answer to `GET /instance/spec`. From version 2.0.0 on the spec stands there itself, before that it
/// says its own version around it.
pub(super) fn board(answer: &Value) -> Option<Board> {
    let value = answer.get("spec")?.get("value")?;
    let spec = value.get("spec").unwrap_or(value);
    let board = spec.get("board")?;
    Some(Board {
        cpus: u16::try_from(board.get("cpus")?.as_u64()?).ok()?,
        memory_mib: board.get("memory_mb")?.as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_are_read_by_their_words_and_others_kept() {
        for (word, state) in STATES {
            assert_eq!(State::from(word.to_owned()), state);
            assert_eq!(state.to_string(), word);
        }
        let unknown = State::from("Hibernating".to_owned());
        assert_eq!(unknown, State::Unknown("Hibernating".to_owned()));
        assert_eq!(unknown.to_string(), "Hibernating");
    }

    #[test]
    fn board_is_found_in_both_shapes_of_the_answer() {
        let spec = json!({"board": {"cpus": 2, "memory_mb": 512}, "components": {}});
        let found = Some(Board { cpus: 2, memory_mib: 512 });
        assert_eq!(board(&json!({"spec": {"type": "Present", "value": spec}})), found);
        let older = json!({"spec": {"type": "Present", "value": {"version": "V0", "spec": spec}}});
        assert_eq!(board(&older), found);
        assert_eq!(board(&json!({"spec": {"type": "WaitingForMigrationSource"}})), None);
    }
}
