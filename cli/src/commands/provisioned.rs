//! `state provisioned`: a provisioning step that was cut off is taken for done.

use jiff::Timestamp;
use vmctl_planner::apply::NotedAt;
use vmctl_planner::recorded::{cut_off, unknown_step};
use vmctl_state::{Address, Entry, Interrupted, Outcome, ProvisionRecord, Record, Reserve, Snapshot, Store};

use crate::args::StateProvisionedArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::{machines, progress, stdin};

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &StateProvisionedArgs) -> Result<Exit, CliError> {
    let (project, address) = machines::named(ctx, &args.name)?;
    let dir = ctx.project_dir(&project)?;
    let mut writer = ctx.writer(&dir, "state provisioned", &args.lock, Reserve::Keep)?;
    let Taken { step, entries } = taken(&address, &writer.snapshot()?, Timestamp::now())?;
    let Interrupted { number, label, .. } = &step;
    let question = format!("Take provisioning step {number} (`{label}`) of `{address}` for done?");
    if !args.yes && !stdin::confirmed(&question, "pass --yes to answer beforehand")? {
        progress::tell("Nothing was done.");
        writer.close()?;
        return Ok(Exit::Error);
    }
    let serial = writer.commit(&entries)?;
    let Snapshot { lineage, records, .. } = writer.snapshot()?;
    ctx.note_records(&dir, NotedAt { lineage, serial }, records.get(&address))?;
    writer.close()?;
    ctx.note(&format!(
        "Provisioning step {number} (`{label}`) of `{address}` counts as done; `vmctl apply` goes on behind it."
    ));
    Ok(Exit::Fine)
}

/// A step that is taken for done, and what the state then says.
struct Taken {
    step: Interrupted,
    entries: Vec<Entry>,
}

fn taken(address: &Address, snapshot: &Snapshot, now: Timestamp) -> Result<Taken, CliError> {
    let record = snapshot.records.get(address);
    let record = record.ok_or_else(|| CliError::new(format!("`{address}` is recorded no longer")))?;
    let Some(step) = unknown_step(record, &snapshot.open) else {
        return Err(CliError::new(format!("no provisioning step of `{address}` was cut off")).help(
            "`vmctl status` shows where it stands, and `vmctl apply` runs the steps that are left".to_owned(),
        ));
    };
    let again = || format!("`vmctl apply --rerun {}` runs it again", address.name());
    let before = record.provisioned.len();
    let place = (step.number as usize).wrapping_sub(1);
    let Some(digest) = step.digest.clone().filter(|_| place <= before) else {
        return Err(CliError::new(format!(
            "what step {} (`{}`) of `{address}` consisted of is not recorded, so nobody can tell later whether it \
             changed",
            step.number, step.label
        ))
        .help(again()));
    };
    let ours = snapshot.open.iter().filter(|intent| intent.instance == record.instance);
    let mut entries: Vec<_> = ours
        .filter(|intent| cut_off(intent).is_some())
        .map(|intent| Entry::End { op: intent.op, outcome: Outcome::Abandoned })
        .collect();
    let mut record = Record { interrupted: None, provision_failed: None, updated: now, ..record.clone() };
    let ran = ProvisionRecord { digest, at: now };
    match record.provisioned.get_mut(place) {
        // It ran by itself, between steps that are done.
        Some(former) => *former = ran,
        None => record.provisioned.push(ran),
    }
    entries.push(Entry::Put(Box::new(record)));
    Ok(Taken { step, entries })
}
