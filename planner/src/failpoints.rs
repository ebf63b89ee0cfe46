//! Places where tests let an apply die, panic, or see a failing disk, and the one list of them.
//!
//! A place inside an effect is named `STEP.BACKEND.WHAT-WAS-JUST-DONE`; the places around every effect are the
//! [`Edge`]s, in the order in which an apply passes them. Without the feature `failpoints` there are none of them in
//! the program, only this list.

use std::time::Duration;

use vmctl_providers::Error;
use vmctl_state::StoreError;

use crate::step::{STOP_TIMEOUT, StepKind};

/// One named place. Those of the state are in all that is written down: also in a machine's folder, where
/// `noop.drafted` and `qemu.drafted` (Propolis too) are passed with every file that appears whole, in `VMFile.lock`, and in a project's own VMFile. Those of
/// downloads are passed by whatever fills the cache from a server; some also where a file is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failpoint {
    /// Its name.
    pub name: &'static str,
    /// Name of the kind of step that it belongs to; `state` if it is in the writing of the state.
    pub of: &'static str,
}

/// A place that every step passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Nothing of the step is in the journal.
    BeforeIntent,
    /// Its begin is durable, nothing was done.
    AfterIntent,
    /// All was done, and nobody was told.
    AfterEffect,
    /// The owner of the records was told, and remembered nothing.
    BeforeRecord,
    /// End and record are durable.
    AfterRecord,
}

impl Edge {
    /// Every edge, in the order in which a step passes them.
    pub const ALL: [Self; 5] =
        [Self::BeforeIntent, Self::AfterIntent, Self::AfterEffect, Self::BeforeRecord, Self::AfterRecord];

    /// What follows the step's name in the name of the place.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeIntent => "intent.before",
            Self::AfterIntent => "intent.after",
            Self::AfterEffect => "effect.after",
            Self::BeforeRecord => "record.before",
            Self::AfterRecord => "record.after",
        }
    }
}

/// Values that tests may put in place of others: a name and what it stands for.
pub const VALUES: [(&str, &str); 2] = [
    ("stop.patience", "milliseconds that a guest has to power down"),
    ("host.zvols", "the folder of devices of ZFS volumes"),
];

macro_rules! failpoints {
    ($($step:literal: $($inside:literal)*;)* | $($state:literal)*) => {
        &[
            $(
                Failpoint { name: concat!($step, ".intent.before"), of: $step },
                Failpoint { name: concat!($step, ".intent.after"), of: $step },
                $(Failpoint { name: concat!($step, ".", $inside), of: $step },)*
                Failpoint { name: concat!($step, ".effect.after"), of: $step },
                Failpoint { name: concat!($step, ".record.before"), of: $step },
                Failpoint { name: concat!($step, ".record.after"), of: $step },
            )*
            $(Failpoint { name: concat!("state.", $state), of: "state" },)*
        ]
    };
}

/// Every place. What is not in this list cannot be armed.
pub const FAILPOINTS: &[Failpoint] = failpoints! {
    "fetch-image":
        "cache.copied" "cache.renamed"
        "download.opened" "download.drafted" "download.begun" "download.written" "download.unpacked" "download.verified"
        "download.converted" "download.note-drafted" "download.noted" "download.placed";
    "prepare":
        "noop.folder-made" "noop.written"
        "qemu.folder-made" "qemu.claimed" "qemu.overlay-made" "qemu.overlay-renamed" "qemu.keys-written"
        "qemu.cloned" "qemu.seed-written" "qemu.variables-written" "qemu.volume-made" "qemu.volume-renamed" "qemu.synced" "qemu.prepared"
        "propolis.claimed" "propolis.vnics-made" "propolis.image-made" "propolis.image-written" "propolis.image-kept"
        "propolis.disk-cloned" "propolis.disk-grown" "propolis.disk-drafted" "propolis.zone-changed" "propolis.prepared";
    "update": "noop.written" "qemu.grown" "qemu.volume-grown" "qemu.volume-grown-live" "qemu.brought"
        "propolis.parted" "propolis.brought";
    "start":
        "noop.written"
        "qemu.waking" "qemu.loaded" "qemu.renewed"
        "qemu.serving" "qemu.spawned" "qemu.answered" "qemu.handle-made" "qemu.remembered"
        "propolis.noted" "propolis.spawned" "propolis.answered" "propolis.zone-booted" "propolis.zone-serving"
        "propolis.ensured" "propolis.asked" "propolis.up" "propolis.remembered";
    "resume": "noop.written" "qemu.unpaused";
    "ready": "noop.answered" "qemu.logged-in" "propolis.answered";
    "provision": "noop.running" "noop.ran" "qemu.begun" "qemu.running";
    "keep": "qemu.paused" "qemu.memory-copied" "qemu.disk-copied" "qemu.copied";
    "suspend": "noop.written" "qemu.paused";
    "stop": "noop.written" "qemu.pressed" "qemu.ended" "qemu.cleaned"
        "propolis.fell" "propolis.ended" "propolis.forgotten";
    "destroy":
        "noop.note-removed" "noop.file-removed" "noop.removed"
        "qemu.ended" "qemu.cleaned" "qemu.file-removed" "qemu.emptied" "qemu.disowned"
        "propolis.zone-changed" "propolis.vnics-removed" "propolis.disk-destroyed"
        "volume.given-up" "volume.file-removed";
    "forget": "noop.marked" "qemu.marked";
    |
    "create.drafted" "lock.announced" "file.drafted"
    "commit.begun" "commit.flushed" "commit.synced"
    "publish.begun" "publish.replaced" "close.published"
    "noop.drafted" "qemu.drafted"
    "pins.drafted" "pins.replaced"
    "own.written"
};

/// Passes an edge of a step. A disk that is to fail here is an error, as if the step had met it.
#[cfg_attr(
    not(feature = "failpoints"),
    expect(clippy::unnecessary_wraps, reason = "without the feature nothing fails")
)]
pub(crate) fn pass(kind: StepKind, edge: Edge) -> Result<(), Box<Error>> {
    fail::fail_point!(&name(kind, edge), |errno| {
        Err(Box::new(Error::io("write", name(kind, edge))(answer(errno))))
    });
    #[cfg(not(feature = "failpoints"))]
    let _ = (kind, edge);
    Ok(())
}

/// Passes [`Edge::AfterRecord`]. A disk that is to fail here is a commit that took place and was reported as failed.
#[cfg_attr(
    not(feature = "failpoints"),
    expect(clippy::unnecessary_wraps, reason = "without the feature nothing fails")
)]
pub(crate) fn pass_commit(kind: StepKind) -> Result<(), StoreError> {
    fail::fail_point!(&name(kind, Edge::AfterRecord), |errno| {
        let path = name(kind, Edge::AfterRecord).into();
        Err(StoreError::Io { action: "write", path, source: answer(errno) })
    });
    #[cfg(not(feature = "failpoints"))]
    let _ = kind;
    Ok(())
}

/// [`STOP_TIMEOUT`], unless a test makes it shorter.
pub(crate) fn stop_timeout() -> Duration {
    fail::fail_point!("stop.patience", |value| {
        value.and_then(|value| value.parse().ok()).map_or(STOP_TIMEOUT, Duration::from_millis)
    });
    STOP_TIMEOUT
}

#[cfg(feature = "failpoints")]
fn name(kind: StepKind, edge: Edge) -> String {
    format!("{}.{}", kind.name(), edge.name())
}

#[cfg(feature = "failpoints")]
pub(crate) fn answer(errno: Option<String>) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.and_then(|number| number.parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A new kind of step cannot be added without places at which tests kill it (F1-F7).
    #[test]
    fn every_kind_of_step_has_its_edges_and_a_place_inside() {
        for kind in StepKind::all() {
            let of: Vec<_> = FAILPOINTS.iter().filter(|point| point.of == kind.name()).collect();
            let edges: Vec<_> =
                Edge::ALL.iter().map(|edge| format!("{}.{}", kind.name(), edge.name())).collect();
            for edge in &edges {
                assert!(of.iter().any(|point| point.name == edge), "`{edge}` is not listed");
            }
            // A fake machine has nothing that could be kept.
            let backends: &[&str] = if kind == StepKind::Keep { &["qemu"] } else { &["noop", "qemu"] };
            for backend in backends {
                let inside = |point: &&Failpoint| {
                    [*backend, "cache"].iter().any(|word| point.name.split('.').nth(1) == Some(word))
                };
                assert!(
                    of.iter().copied().any(|point| inside(&point)),
                    "{} has none in {backend}",
                    kind.name()
                );
            }
        }
    }

    #[test]
    fn every_listed_place_belongs_to_a_step_or_the_state_and_is_listed_once() {
        let kinds: BTreeSet<_> = StepKind::all().iter().map(|kind| kind.name()).collect();
        let names: BTreeSet<_> = FAILPOINTS.iter().map(|point| point.name).collect();
        assert_eq!(names.len(), FAILPOINTS.len());
        for point in FAILPOINTS {
            assert!(kinds.contains(point.of) || point.of == "state", "{}", point.name);
            assert!(point.name.starts_with(point.of), "{}", point.name);
        }
    }
}
