//! What each step makes of a record, before the deed and after it. Pure.

use jiff::Timestamp;
use vmctl_providers::VmHandle;
use vmctl_state::{Phase, ProvisionRecord, Record};

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
            spec: json(&target.recorded),
            handle: handle.map(json),
            phase: Phase::Preparing,
            ready: false,
            taint: None,
            provisioned: Vec::new(),
            created: record.map_or(now, |record| record.created),
            updated: now,
        },
        (_, Some(record), _) => record.clone(),
        (_, None, _) => return None,
    };
    match step.kind {
        StepKind::Prepare => {}
        StepKind::Start | StepKind::Stop => record.ready = false,
        StepKind::Provision(number) => record.provisioned.truncate(number - 1),
        StepKind::Destroy => record.phase = Phase::Destroying,
        StepKind::FetchImage
        | StepKind::Update
        | StepKind::Resume
        | StepKind::Ready
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
        record.handle = Some(json(handle));
    }
    match step.kind {
        StepKind::FetchImage => {}
        StepKind::Prepare => record.phase = Phase::Prepared,
        StepKind::Update => {
            if let Some(target) = target {
                record.spec = json(&target.recorded);
                record.provisioned.truncate(target.provisioned);
            }
        }
        StepKind::Start | StepKind::Resume => record.phase = Phase::Running,
        StepKind::Ready => record.ready = true,
        StepKind::Provision(number) => {
            let digest = target.and_then(|target| target.provision.get(number - 1)).map(|step| &step.digest);
            if let Some(digest) = digest {
                record.provisioned.push(ProvisionRecord { digest: digest.to_string(), at: now });
            }
        }
        StepKind::Suspend => record.phase = Phase::Suspended,
        StepKind::Stop => record.phase = Phase::Stopped,
        StepKind::Destroy | StepKind::Forget => return None,
    }
    Some(record)
}

/// The JSON form of plain data.
fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("plain data with string keys always has a JSON form")
}
