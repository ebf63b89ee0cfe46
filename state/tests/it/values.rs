//! Records, intents and projects to test with.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;
use vmctl_state::{Address, Entry, Holder, Intent, OpId, Outcome, Phase, ProjectDir, Record, Writer};

/// Long enough for anything that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn lineage() -> Uuid {
    Uuid::from_u128(0xfeed)
}

pub(crate) fn holder(command: &str) -> Holder {
    Holder {
        command: command.into(),
        user: "ada".into(),
        host: "here".into(),
        pid: std::process::id(),
        since: Timestamp::UNIX_EPOCH,
        boot: vmctl_state::project::boot_id(),
    }
}

/// A project in a folder of its own, which goes with the first value.
pub(crate) fn project() -> (TempDir, ProjectDir) {
    let data = tempfile::tempdir().unwrap();
    let dir = ProjectDir::of_project(data.path(), "shop");
    (data, dir)
}

pub(crate) fn open(dir: &ProjectDir) -> Writer {
    Writer::open(dir, holder("test"), lineage(), Duration::ZERO, vmctl_state::Reserve::Keep).unwrap()
}

pub(crate) fn record(name: &str, spec: Value) -> Record {
    Record {
        address: Address::vm(name),
        instance: Uuid::from_u128(7),
        backend: "noop".into(),
        spec: spec.into(),
        handle: Some(json!({"pid": 1}).into()),
        phase: Phase::Running,
        ready: true,
        taint: None,
        provisioned: Vec::new(),
        ran_once: Vec::new(),
        interrupted: None,
        provision_failed: None,
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
    }
}

pub(crate) fn put(name: &str, spec: Value) -> Entry {
    Entry::Put(Box::new(record(name, spec)))
}

pub(crate) fn intent(op: u64) -> Intent {
    Intent {
        op: OpId(op),
        run: Uuid::from_u128(9),
        step: "prepare".into(),
        address: Address::vm("web"),
        instance: Uuid::from_u128(7),
        at: Timestamp::UNIX_EPOCH,
        detail: json!({"overlay": "disk.qcow2"}),
    }
}

pub(crate) fn begin(op: u64) -> Entry {
    Entry::Begin(intent(op))
}

pub(crate) fn end(op: u64) -> Entry {
    Entry::End { op: OpId(op), outcome: Outcome::Done }
}

/// Numbers that look random and are the same in every run (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
