//! What keeps an apply from working on a machine, although something would have to be done, and the way out of it.

use vmctl_providers::provision::Rerun;
use vmctl_providers::{Damage, Inspection, Stall};
use vmctl_state::Interrupted;

use crate::admission::{size, size_needed};
use crate::change::{Change, LeftAloneKind};
use crate::desired::DesiredVm;
use crate::observed::Sight;
use crate::step::StepKind;

/// Room that a machine whose disk was full must have to go on: sixteen clusters of an overlay. With less it would stop
/// again at once.
const ROOM_TO_GO_ON: u64 = 1 << 20;

/// Why a step that was cut off runs again; `None` if somebody must decide. What counts is what the VMFile says of the
/// step with its number now: whoever edits a step may say that it is safe to run behind what its last form left behind.
pub(crate) fn permission(desired: &DesiredVm, unknown: &Interrupted, rerun: bool) -> Option<&'static str> {
    let step = desired.provision.iter().find(|step| u32::try_from(step.number) == Ok(unknown.number));
    if rerun {
        Some("it runs again, as asked for with `--rerun`")
    } else if step.is_some_and(|step| step.options.rerun == Rerun::Safe) {
        Some("it runs again, being `rerun \"safe\"`")
    } else {
        None
    }
}

/// What happened to the step.
pub(crate) fn cut_off_text(unknown: &Interrupted) -> String {
    let Interrupted { number, label, at, .. } = unknown;
    format!("provisioning step {number} (`{label}`) was cut off at {at:.0}, and what became of it is unknown")
}

/// What to choose from where a step must not run again unasked.
pub(crate) fn choice(unknown: &Interrupted, name: &str) -> String {
    format!(
        "{}. Look into the guest, and choose: `vmctl apply --rerun {name}` runs it again, `vmctl state provisioned {name}` \
         takes it for done, `vmctl apply --replace {name}` makes the machine anew",
        cut_off_text(unknown)
    )
}

/// Why nothing may be done to the machine now, although something would have to be.
pub(crate) fn cannot_be_worked_on(change: &Change, sight: Option<&Sight>) -> Option<(LeftAloneKind, String)> {
    match sight {
        Some(Sight::Unreachable { elsewhere: true, .. }) => Some((
            LeftAloneKind::Elsewhere,
            "it may run elsewhere. Stop it there; `--take-over` says that it is off for certain, because the host that it \
             ran on is gone"
                .to_owned(),
        )),
        Some(Sight::Unreachable { elsewhere: false, .. }) => {
            Some((LeftAloneKind::Unreachable, "it cannot be asked what it does".to_owned()))
        }
        Some(Sight::Seen(seen)) => {
            let damaged = damage_in_the_way(change, &seen.damage).map(|why| (LeftAloneKind::Damaged, why));
            damaged.or_else(|| has_no_room(change, seen).map(|why| (LeftAloneKind::DiskFull, why)))
        }
        None => None,
    }
}

fn damage_in_the_way(change: &Change, damage: &[Damage]) -> Option<String> {
    damage.iter().find_map(|damage| match damage {
        // It would stop or stay off: the provider refuses to start on a torn disk.
        Damage::BaseChanged { path, .. } if change.up.contains(&StepKind::Start) => Some(format!(
            "it would not start: `{}`, the image under its disk, changed. Put the image back, or replace the machine \
             with `--replace {}`",
            path.display(),
            change.address.name()
        )),
        Damage::FolderForeign { .. } if change.is_effective() => Some(damage.to_string()),
        _ => None,
    })
}

/// Why a machine whose disk could not grow cannot go on, if there still is no room for it.
fn has_no_room(change: &Change, seen: &Inspection) -> Option<String> {
    let goes_on = |step: &StepKind| matches!(step, StepKind::Resume | StepKind::Start);
    match &seen.stall {
        Some(Stall::DiskFull { path, free_bytes })
            if *free_bytes < ROOM_TO_GO_ON && change.up.iter().any(goes_on) =>
        {
            Some(format!(
                "it is paused because its disk is full, and {} is free where `{}` is: free {} there or more, and apply \
                 lets it go on",
                size(*free_bytes),
                path.display(),
                size_needed(ROOM_TO_GO_ON)
            ))
        }
        _ => None,
    }
}
