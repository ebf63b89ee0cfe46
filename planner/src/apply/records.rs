//! What each step makes of a record, before the deed and after it. Pure.

use jiff::Timestamp;
use vmctl_providers::VmHandle;
use vmctl_providers::provision::{ProvisionStep, Run};
use vmctl_state::{FailedProvision, Interrupted, Phase, ProvisionRecord, Record};

use crate::provisioning::{remember_once, truncate_for};
use crate::recorded::opaque;
use crate::step::{Step, StepKind};
use crate::target::Target;

/// The record as it must be durable before the step acts; `None` if the step changes nothing beforehand.
///
/// `handle` names what a `prepare` is about to make.
pub(super) fn before(
    step: &Step,
    record: Option<&Record>,
    target: Option<&Target>,
    handle: Option<&VmHandle>,
    now: Timestamp,
) -> Option<Record> {
    let mut record = match (step.kind, record, target) {
        (StepKind::Prepare, _, Some(target)) => Record {
            address: step.address.clone(),
            instance: step.instance.0,
            backend: target.spec.backend.to_string(),
            spec: opaque(&target.recorded),
            handle: handle.map(opaque),
            phase: Phase::Preparing,
            ready: false,
            taint: None,
            provisioned: Vec::new(),
            ran_once: Vec::new(),
            interrupted: None,
            provision_failed: None,
            created: record.map_or(now, |record| record.created),
            updated: now,
        },
        (_, Some(record), _) => record.clone(),
        (_, None, _) => return None,
    };
    match step.kind {
        StepKind::Prepare => {}
        StepKind::Start | StepKind::Stop => record.ready = false,
        StepKind::Provision(number) => {
            // A step that runs by itself changes nothing about those behind it.
            if let Some(target) = target.filter(|target| number > target.provisioned) {
                truncate_for(&mut record, &target.provision, number);
            }
            // What became of the step is open from here on: if the run dies, the journal says so.
            record.interrupted = None;
            record.provision_failed = None;
        }
        StepKind::Destroy => record.phase = Phase::Destroying,
        StepKind::FetchImage
        | StepKind::Update
        | StepKind::Resume
        | StepKind::Ready
        | StepKind::Keep
        | StepKind::Suspend
        | StepKind::Forget => {
            return None;
        }
    }
    record.updated = now;
    Some(record)
}

/// The record after the step did its work; `None` if nothing is left to remember.
pub(super) fn after(
    step: &Step,
    record: &Record,
    target: Option<&Target>,
    handle: Option<&VmHandle>,
    now: Timestamp,
) -> Option<Record> {
    let mut record = Record { updated: now, ..record.clone() };
    if let Some(handle) = handle {
        record.handle = Some(opaque(handle));
    }
    match step.kind {
        StepKind::FetchImage | StepKind::Keep => {}
        StepKind::Prepare => {
            record.phase = Phase::Prepared;
            let is_cloned = handle.is_some_and(is_cloned);
            if let Some(target) = target.filter(|_| is_cloned) {
                let ran = |step: &ProvisionStep| ProvisionRecord { digest: step.digest.to_string(), at: now };
                record.provisioned = target.provision.iter().map(ran).collect();
                remember_once(&mut record, &target.provision);
            }
        }
        StepKind::Update => {
            if let Some(target) = target {
                record.spec = opaque(&target.recorded);
                remember_once(&mut record, &target.provision);
                record.provisioned.truncate(target.provisioned);
                let is_asked_for = |number: u32| number as usize <= target.provision.len();
                record.interrupted = record.interrupted.filter(|step| is_asked_for(step.number));
                record.provision_failed = record.provision_failed.filter(|step| is_asked_for(step.number));
            }
        }
        StepKind::Start | StepKind::Resume => record.phase = Phase::Running,
        StepKind::Ready => record.ready = true,
        StepKind::Provision(number) => {
            let planned = target.and_then(|target| Some((target, target.provision.get(number - 1)?)));
            if let Some((target, planned)) = planned {
                let ran = ProvisionRecord { digest: planned.digest.to_string(), at: now };
                match record.provisioned.get_mut(number - 1) {
                    Some(before) => *before = ran,
                    None => record.provisioned.push(ran),
                }
                if planned.options.run == Run::Once {
                    remember_once(&mut record, &target.provision);
                }
            }
        }
        StepKind::Suspend => record.phase = Phase::Suspended,
        StepKind::Stop => record.phase = Phase::Stopped,
        StepKind::Destroy | StepKind::Forget => return None,
    }
    Some(record)
}

/// Whether a machine was made from a template.
pub(super) fn is_cloned(handle: &VmHandle) -> bool {
    handle.warm.as_ref().is_some_and(|warm| warm.cloned.is_some())
}

/// The record after a provisioning step that did not end well; `cut_off` says that nobody knows how much it did.
pub(super) fn after_failure(
    step: &Step,
    record: &Record,
    target: Option<&Target>,
    failure: &str,
    cut_off: bool,
    now: Timestamp,
) -> Option<Record> {
    let StepKind::Provision(number) = step.kind else { return None };
    let (label, at) = (step.label.clone().unwrap_or_default(), now);
    let planned = target.and_then(|target| target.provision.get(number - 1));
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let mut record = Record { updated: now, ..record.clone() };
    if cut_off {
        let digest = planned.map(|step| step.digest.to_string());
        record.interrupted = Some(Interrupted { number, label, at, digest });
    } else {
        record.provision_failed = Some(FailedProvision { number, label, at, message: failure.to_owned() });
    }
    Some(record)
}
