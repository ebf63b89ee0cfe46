//! Remembering what is observed in place of what was recorded: the record's part of a refresh. Pure.

use std::collections::BTreeSet;

use vmctl_providers::{Forward, Inspection, Name, Nic, VmHandle, VmState};
use vmctl_state::{Phase, Record};

use crate::drift::{drift, match_forwards};
use crate::observed::Sight;
use crate::plan::{Bookkeeping, Inputs};
use crate::recorded::{RecordError, RecordedVm, opaque, spec_of};
use crate::scope::Mode;

/// What a refresh changes in the records of machines that drifted; nothing in other modes.
pub(crate) fn accepted(
    inputs: Inputs<'_>,
    scope: Option<&BTreeSet<Name>>,
) -> Result<Vec<Bookkeeping>, RecordError> {
    if inputs.options.mode != Mode::RefreshOnly {
        return Ok(Vec::new());
    }
    let mut bookkeeping = Vec::new();
    for record in inputs.recorded.records.values() {
        let sight = inputs.observed.vms.get(&record.address);
        let is_in_scope = scope.is_none_or(|scope| scope.contains(record.address.name()));
        if let Some(Sight::Seen(seen)) = sight
            && is_in_scope
            && !drift(record, sight)?.is_empty()
        {
            match accept(record, seen)? {
                None => bookkeeping.push(Bookkeeping::Remove(record.address.clone())),
                Some(accepted) if accepted != *record => {
                    bookkeeping.push(Bookkeeping::Put(Box::new(accepted)))
                }
                // What cannot be remembered, such as a changed base image, stays drift.
                Some(_) => {}
            }
        }
    }
    Ok(bookkeeping)
}

/// The record as it is once what was seen is taken for granted; `None` if there is no machine any more.
fn accept(record: &Record, seen: &Inspection) -> Result<Option<Record>, RecordError> {
    let phase = match seen.state {
        VmState::Destroyed => return Ok(None),
        VmState::Running => Phase::Running,
        VmState::Suspended => Phase::Suspended,
        VmState::Stopped => Phase::Stopped,
        VmState::Prepared => Phase::Prepared,
        // Neither is a state to be content with: the next plan goes on from what was recorded.
        VmState::Failed | VmState::Preparing => record.phase,
    };
    let mut spec = RecordedVm::clone(&*spec_of(record)?);
    spec.vcpus = seen.vcpus.unwrap_or(spec.vcpus);
    spec.memory_mib = seen.memory_mib.unwrap_or(spec.memory_mib);
    let mut handle = VmHandle::clone(&seen.handle);
    handle.machine.vcpus = spec.vcpus;
    handle.machine.memory_mib = spec.memory_mib;
    if let Some(bound) = &seen.forwards {
        accept_forwards(&mut spec, &mut handle, bound);
    }
    Ok(Some(Record {
        spec: opaque(&spec),
        handle: Some(opaque(&handle)),
        // A machine that came up by other hands has not been asked whether it is ready.
        ready: record.ready && phase == record.phase,
        phase,
        ..record.clone()
    }))
}

/// Forwards of the kernel's choice stay so; one that somebody added is remembered with its port. The one to sshd comes
/// with the login and is not among those asked for.
fn accept_forwards(spec: &mut RecordedVm, handle: &mut VmHandle, bound: &[Forward]) {
    let user = |nic: &&mut Nic| nic.network.is_user();
    let Some(nic) = handle.machine.nics.iter_mut().find(user) else { return };
    let matched = match_forwards(&nic.forwards, bound);
    spec.forwards.retain(|forward| !matched.missing.contains(forward));
    spec.forwards.extend(matched.extra.iter().cloned());
    spec.forwards.sort();
    nic.forwards = matched.kept;
    nic.forwards.extend(matched.extra);
}
