//! Volumes beside the machines that they belong to: what is kept, what is removed, what is in the way. Pure.
//!
//! A volume has no record of its own: its folder says what it is, and is looked at when a plan is made. It is made and
//! grown with its machine; it outlives that, and is removed only where somebody says so (`--volumes`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vmctl_providers::error::VOLUME_GONE;
use vmctl_providers::{Damage, FoundVolume, InstanceId, Name, VolumeState};
use vmctl_state::{Address, Phase, Record};

use crate::admission::size;
use crate::change::{Action, Change, LeftAloneKind, Refusal};
use crate::diff::Decision;
use crate::observed::Sight;
use crate::plan::{Inputs, PlanError};
use crate::recorded::{RecordError, RecordedVm, spec_of};
use crate::scope::Mode;
use crate::step::StepKind;

/// A volume that a plan leaves although no machine needs it after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptVolume {
    /// Its address.
    pub address: Address,
    /// Its size in bytes; what it takes of the host is less.
    pub size_bytes: u64,
    /// Its disk.
    pub path: PathBuf,
}

/// Who has which volume, as recorded.
#[derive(Debug, Default)]
pub(crate) struct Holders(BTreeMap<Name, Vec<Address>>);

impl Holders {
    pub(crate) fn new(inputs: Inputs<'_>) -> Result<Self, RecordError> {
        let mut holders: BTreeMap<Name, Vec<Address>> = BTreeMap::new();
        for record in inputs.recorded.records.values() {
            for volume in &spec_of(record)?.volumes {
                holders.entry(volume.name.clone()).or_default().push(record.address.clone());
            }
        }
        Ok(Self(holders))
    }

    pub(crate) fn of(&self, volume: &Name) -> impl Iterator<Item = &Address> {
        self.0.get(volume).into_iter().flatten()
    }
}

/// The volumes that were whole and are not there any more, with their disks where those are known.
pub(crate) fn gone(inputs: Inputs<'_>) -> Result<BTreeMap<Name, Option<PathBuf>>, RecordError> {
    let mut gone = BTreeMap::new();
    if let Some(found) = &inputs.observed.volumes {
        let made = |record: &&Record| !matches!(record.phase, Phase::Preparing | Phase::Destroying);
        for record in inputs.recorded.records.values().filter(made) {
            for volume in &spec_of(record)?.volumes {
                if !found.iter().any(|found| found.name == volume.name) {
                    gone.insert(volume.name.clone(), None);
                }
            }
        }
    }
    for found in inputs.observed.volumes.iter().flatten().filter(|found| found.state == VolumeState::Gone) {
        gone.insert(found.name.clone(), Some(found.path.clone()));
    }
    for sight in inputs.observed.vms.values() {
        let Sight::Seen(seen) = sight else { continue };
        for damage in &seen.damage {
            if let Damage::VolumeMissing { name, path } = damage {
                gone.insert(name.clone(), Some(path.clone()));
            }
        }
    }
    Ok(gone)
}

/// Leaves a machine as it is that needs a volume which is gone: a new one in its place would be empty, and nobody said
/// that what was on it may be lost.
pub(crate) fn miss(change: &mut Change, wanted: &RecordedVm, gone: &BTreeMap<Name, Option<PathBuf>>) {
    if let Some((name, path)) = wanted.volumes.iter().find_map(|volume| gone.get_key_value(&volume.name)) {
        let place = match path {
            Some(path) => format!("there is no `{}` any more", path.display()),
            None => "there is nothing of it any more".to_owned(),
        };
        let reason = format!("its volume `{name}` is gone: {place}. {}", sentence());
        change.leave_alone(LeftAloneKind::Damaged, reason);
    }
}

fn sentence() -> String {
    let mut text = VOLUME_GONE.to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// The machine that a change would take a volume from although it keeps it, and the volume.
pub(crate) fn still_held<'a>(
    decision: &Decision,
    by_address: &BTreeMap<Address, Decision>,
    blocked: &BTreeSet<Address>,
    holders: &'a Holders,
) -> Option<(Name, &'a Address)> {
    let wanted = decision.after.iter().filter(|_| decision.change.is_effective());
    wanted.flat_map(|after| &after.volumes).find_map(|volume| {
        let keeps = |holder: &&Address| {
            **holder != decision.change.address
                && by_address.get(*holder).is_none_or(|other| {
                    let stays =
                        |after: &RecordedVm| after.volumes.iter().any(|kept| kept.name == volume.name);
                    blocked.contains(*holder)
                        || !other.change.is_effective()
                        || other.after.as_deref().is_some_and(stays)
                })
        };
        holders.of(&volume.name).find(keeps).map(|holder| (volume.name.clone(), holder))
    })
}

/// Refuses what would cut off the end of a volume.
pub(crate) fn refuse_shrinking<'a>(
    inputs: Inputs<'_>,
    decisions: impl Iterator<Item = &'a Decision>,
) -> Result<(), PlanError> {
    let mut least: BTreeMap<Name, u64> = BTreeMap::new();
    for record in inputs.recorded.records.values() {
        for volume in &spec_of(record)?.volumes {
            least.insert(volume.name.clone(), volume.size_bytes);
        }
    }
    for found in inputs.observed.volumes.iter().flatten() {
        if found.state == VolumeState::Whole {
            least.insert(found.name.clone(), found.size_bytes);
        } else {
            least.remove(&found.name);
        }
    }
    for decision in decisions.filter(|decision| decision.change.is_effective()) {
        for volume in decision.after.iter().flat_map(|after| &after.volumes) {
            let least = least.get(&volume.name).copied().unwrap_or(0);
            if volume.size_bytes < least {
                let (name, asked) = (volume.name.clone(), volume.size_bytes);
                return Err(PlanError::VolumeShrinks { name, asked: size(asked), least: size(least) });
            }
        }
    }
    Ok(())
}

/// What becomes of volumes that no machine needs once the plan is carried out.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    /// Those that stay.
    pub(crate) kept: Vec<KeptVolume>,
    /// Those that are removed, with the decisions that say so.
    pub(crate) removed: Vec<(FoundVolume, Change)>,
}

/// Looks for volumes that nobody needs any more. A plan that is not about all machines is about their volumes only.
pub(crate) fn spare(inputs: Inputs<'_>, is_partial: bool, changes: &[Change], holders: &Holders) -> Spare {
    let mut spare = Spare::default();
    let is_wanted = |name: &Name| match inputs.options.mode {
        Mode::Normal => inputs.desired.is_none_or(|desired| desired.volumes.contains_key(name)),
        Mode::Destroy => false,
        Mode::RefreshOnly | Mode::Provision | Mode::Turn(_) => true,
    };
    for found in inputs.observed.volumes.iter().flatten().filter(|found| !is_wanted(&found.name)) {
        let mut is_held = false;
        for holder in holders.of(&found.name) {
            let change = changes.iter().find(|change| change.address == *holder);
            // One that is let go of goes on with its volumes.
            is_held |= change.is_none_or(|change| !change.is_effective() || change.action == Action::Forget);
        }
        if is_held || (is_partial && holders.of(&found.name).next().is_none()) {
            continue;
        }
        let address = Address::volume(found.name.as_str());
        if inputs.options.volumes {
            spare.removed.push((found.clone(), removal(address, found, inputs.options.mode)));
        } else if found.state != VolumeState::Unfinished {
            let FoundVolume { size_bytes, path, .. } = found.clone();
            spare.kept.push(KeptVolume { address, size_bytes, path });
        }
    }
    spare
}

fn removal(address: Address, found: &FoundVolume, mode: Mode) -> Change {
    let mut change = Change::none(address, InstanceId(uuid::Uuid::nil()));
    change.action = Action::Destroy;
    change.down.push(StepKind::Destroy);
    if mode == Mode::Normal {
        change.reasons.push("nothing in the VMFile names it".to_owned());
    }
    change.reasons.push("asked for with `--volumes`".to_owned());
    match found.state {
        VolumeState::Whole => {
            change.losses.push(format!("the volume of {}, with everything on it", size(found.size_bytes)));
            if found.prevent_destroy {
                change.refused =
                    Some(Refusal::protected("it would be destroyed, and `prevent-destroy` forbids that"));
            }
        }
        VolumeState::Gone => change.reasons.push("its disk is gone".to_owned()),
        VolumeState::Unfinished => change.reasons.push("it was never finished".to_owned()),
    }
    change
}
