//! Drift: where recorded and observed differ. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vmctl_providers::{Damage, Ending, Forward, Inspection, Stall, VmState};
use vmctl_state::{Phase, Record};

use crate::admission::size;
use crate::fields::{forward_text, json};
use crate::observed::Sight;
use crate::recorded::{RecordError, RecordedVm, spec_of};

/// One difference between what is recorded and what is observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// What kind of difference.
    pub kind: DriftKind,
    /// The difference in words.
    pub text: String,
    /// What is recorded; null where that says nothing.
    pub recorded: Value,
    /// What was observed; null where that says nothing.
    pub observed: Value,
}

/// What kind of difference was found; the names are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftKind {
    /// The process ended in order: the guest powered off, or somebody told the hypervisor to quit.
    PoweredOff,
    /// The process was killed or crashed.
    Killed,
    /// The host was restarted, and its machines with it.
    HostRestarted,
    /// The process is gone, and nothing tells how it ended.
    NotRunning,
    /// The vCPUs were paused.
    Paused,
    /// The vCPUs run although they were paused.
    Resumed,
    /// The machine runs although it was stopped or never started.
    Started,
    /// The hypervisor paused it, because its disk could not grow.
    DiskFull,
    /// The hypervisor paused it, because its disk could not be read or written for another reason.
    DiskFailed,
    /// The hypervisor reports another failure.
    Failed,
    /// The machine is gone with all its files.
    Gone,
    /// Another number of vCPUs.
    Vcpus,
    /// Another amount of memory.
    Memory,
    /// A forward is not bound.
    ForwardMissing,
    /// A forward is bound that nobody asked for.
    ForwardExtra,
    /// The disk is gone.
    DiskMissing,
    /// The disk of a volume is gone.
    VolumeMissing,
    /// The seed is gone.
    SeedMissing,
    /// The firmware that it boots with, or its variables, are gone.
    FirmwareMissing,
    /// A card is not on its bridge any more.
    OffBridge,
    /// The image under the disk changed.
    BaseChanged,
    /// The folder is gone; the process is not.
    FolderMissing,
    /// The folder says that it is another's.
    FolderForeign,
    /// Its process is not one of this host, or works on another copy of its files.
    Elsewhere,
    /// It could not be asked; it may be in any state.
    Unreachable,
}

impl Drift {
    fn new(kind: DriftKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), recorded: Value::Null, observed: Value::Null }
    }

    fn between(mut self, recorded: Value, observed: Value) -> Self {
        self.recorded = recorded;
        self.observed = observed;
        self
    }
}

/// Where recorded and observed differ; empty if nobody looked.
pub fn drift(record: &Record, sight: Option<&Sight>) -> Result<Vec<Drift>, RecordError> {
    match sight {
        None => Ok(Vec::new()),
        Some(Sight::Unreachable { reason, elsewhere }) => {
            let kind = if *elsewhere { DriftKind::Elsewhere } else { DriftKind::Unreachable };
            let drift = Drift::new(kind, format!("cannot be reached: {reason}"));
            Ok(vec![drift.between(Value::Null, json(reason))])
        }
        // What is half-made or half-removed is finished, whatever it looks like.
        Some(Sight::Seen(_)) if matches!(record.phase, Phase::Preparing | Phase::Destroying) => {
            Ok(Vec::new())
        }
        Some(Sight::Seen(seen)) => {
            let mut drift: Vec<_> = power(record.phase, seen).into_iter().collect();
            let spec = spec_of(record)?;
            drift.extend(hardware(&spec, seen));
            drift.extend(forwards(seen));
            drift.extend(seen.damage.iter().map(damage));
            Ok(drift)
        }
    }
}

fn power(phase: Phase, seen: &Inspection) -> Option<Drift> {
    let (kind, text) = match (phase, seen.state) {
        (_, VmState::Destroyed) => (DriftKind::Gone, "it is gone, with all its files"),
        (_, VmState::Failed) if seen.stall.is_some() => return seen.stall.as_ref().map(stalled),
        (_, VmState::Failed) => (DriftKind::Failed, "the hypervisor reports a failure"),
        (Phase::Running | Phase::Suspended, VmState::Stopped | VmState::Prepared) => match seen.ending {
            Some(Ending::InOrder) => {
                (DriftKind::PoweredOff, "not running any more: it was powered off, from inside or by hand")
            }
            Some(Ending::Cut) => {
                (DriftKind::Killed, "not running any more: its process was killed or crashed")
            }
            Some(Ending::HostRestarted) => {
                (DriftKind::HostRestarted, "not running any more: the host was restarted")
            }
            Some(Ending::Unknown) | None => (DriftKind::NotRunning, "not running any more"),
        },
        (Phase::Running, VmState::Suspended) => (DriftKind::Paused, "its vCPUs were paused"),
        (Phase::Suspended, VmState::Running) => (DriftKind::Resumed, "its vCPUs were resumed"),
        (Phase::Prepared | Phase::Stopped, VmState::Running | VmState::Suspended) => {
            (DriftKind::Started, "it was started")
        }
        _ => return None,
    };
    Some(Drift::new(kind, text).between(json(&phase), json(&seen.state)))
}

fn stalled(stall: &Stall) -> Drift {
    let kind = match stall {
        Stall::DiskFull { .. } => DriftKind::DiskFull,
        Stall::DiskFailed { .. } => DriftKind::DiskFailed,
    };
    let text = match stall {
        Stall::DiskFull { path, free_bytes } => {
            format!("{stall}; {} is free where `{}` is", size(*free_bytes), path.display())
        }
        Stall::DiskFailed { path } => format!("{stall}; `{}` could not be read or written", path.display()),
    };
    Drift::new(kind, text).between(Value::Null, json(stall))
}

fn hardware(spec: &RecordedVm, seen: &Inspection) -> Vec<Drift> {
    let mut drift = Vec::new();
    if let Some(found) = seen.vcpus.filter(|found| *found != spec.vcpus) {
        let text = format!("runs with {found} vCPUs instead of {}", spec.vcpus);
        drift.push(Drift::new(DriftKind::Vcpus, text).between(json(&spec.vcpus), json(&found)));
    }
    if let Some(found) = seen.memory_mib.filter(|found| *found != spec.memory_mib) {
        let text = format!("runs with {found} MiB of memory instead of {} MiB", spec.memory_mib);
        drift.push(Drift::new(DriftKind::Memory, text).between(json(&spec.memory_mib), json(&found)));
    }
    drift
}

/// Compares the forwards of the hardware that was prepared with those that are bound.
fn forwards(seen: &Inspection) -> Vec<Drift> {
    let Some(bound) = &seen.forwards else { return Vec::new() };
    let wanted: Vec<_> = seen.handle.machine.nics.iter().flat_map(|nic| &nic.forwards).cloned().collect();
    let matched = match_forwards(&wanted, bound);
    let missing = matched.missing.iter().map(|forward| {
        let shown = forward_text(forward);
        let text = format!("the forward {shown} is not there any more");
        Drift::new(DriftKind::ForwardMissing, text).between(json(&shown), Value::Null)
    });
    let extra = matched.extra.iter().map(|forward| {
        let shown = forward_text(forward);
        let text = format!("the forward {shown} was added");
        Drift::new(DriftKind::ForwardExtra, text).between(Value::Null, json(&shown))
    });
    missing.chain(extra).collect()
}

/// Forwards that were asked for, against those that are bound.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// Asked for and bound, as they were asked for.
    pub(crate) kept: Vec<Forward>,
    /// Asked for and not bound.
    pub(crate) missing: Vec<Forward>,
    /// Bound and not asked for, sorted.
    pub(crate) extra: Vec<Forward>,
}

/// Finds for each forward the one that is bound for it. A port of the kernel's choice is any port.
pub(crate) fn match_forwards(wanted: &[Forward], bound: &[Forward]) -> Matched {
    let mut matched = Matched { extra: bound.to_vec(), ..Matched::default() };
    let mut wanted: Vec<_> = wanted.iter().collect();
    // Fixed ports first, so that none of them is taken for one of the kernel's choice.
    wanted.sort_by_key(|forward| forward.host_port == 0);
    for forward in wanted {
        match matched.extra.iter().position(|found| is_bound_by(forward, found)) {
            Some(place) => {
                matched.extra.remove(place);
                matched.kept.push(forward.clone());
            }
            None => matched.missing.push(forward.clone()),
        }
    }
    matched.extra.sort();
    matched
}

fn is_bound_by(wanted: &Forward, found: &Forward) -> bool {
    wanted.protocol == found.protocol
        && wanted.host_address == found.host_address
        && wanted.guest_port == found.guest_port
        && (wanted.host_port == 0 || wanted.host_port == found.host_port)
}

impl DriftKind {
    /// What an update of the machine puts right, whether it runs or not.
    pub(crate) const REPAIRED: [Self; 5] =
        [Self::ForwardMissing, Self::ForwardExtra, Self::SeedMissing, Self::FirmwareMissing, Self::OffBridge];
}

fn damage(damage: &Damage) -> Drift {
    let kind = match damage {
        Damage::DiskMissing { .. } => DriftKind::DiskMissing,
        Damage::VolumeMissing { .. } => DriftKind::VolumeMissing,
        Damage::SeedMissing { .. } => DriftKind::SeedMissing,
        Damage::FirmwareMissing { .. } => DriftKind::FirmwareMissing,
        Damage::OffBridge { .. } => DriftKind::OffBridge,
        Damage::BaseChanged { .. } => DriftKind::BaseChanged,
        Damage::FolderMissing { .. } => DriftKind::FolderMissing,
        Damage::FolderForeign { .. } => DriftKind::FolderForeign,
    };
    Drift::new(kind, damage.to_string()).between(Value::Null, json(damage))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use vmctl_providers::Protocol;

    use super::*;

    fn forward(host_port: u16, guest_port: u16) -> Forward {
        Forward {
            protocol: Protocol::Tcp,
            host_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host_port,
            guest_port,
        }
    }

    #[test]
    fn fixed_ports_are_matched_before_those_of_the_kernels_choice() {
        let matched = match_forwards(
            &[forward(0, 80), forward(8080, 80), forward(9090, 90)],
            &[forward(8080, 80), forward(40001, 80), forward(40002, 22)],
        );
        assert_eq!(matched.kept, [forward(8080, 80), forward(0, 80)]);
        assert_eq!((matched.missing, matched.extra), (vec![forward(9090, 90)], vec![forward(40002, 22)]));
    }
}
