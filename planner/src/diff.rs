//! Desired × recorded × observed → changes. Pure and total: same inputs, same result.

use serde_json::Value;
use vmctl_providers::{InstanceId, VmState};
use vmctl_state::{Address, Phase, Record};

use crate::change::{Action, Change, FieldChange};
use crate::desired::{DesiredVm, Power};
use crate::fields::{Class, FIELDS};
use crate::observed::Sight;
use crate::recorded::{RecordError, RecordedVm, spec_of};
use crate::step::StepKind;

/// Everything known about one address.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What is asked for now.
    pub desired: Option<&'a DesiredVm>,
    /// What is remembered.
    pub record: Option<&'a Record>,
    /// What was found.
    pub sight: Option<&'a Sight>,
    /// The step in which an earlier run was cut off.
    pub interrupted: Option<&'a str>,
    /// Whether the whole project is to be removed, so that nothing at all is desired.
    pub removing_all: bool,
    /// Identity for a machine that must be made.
    pub fresh: InstanceId,
}

/// Decides what becomes of one address that is desired, recorded, or both.
pub fn decide(address: &Address, known: Known<'_>) -> Result<Change, RecordError> {
    let mut change = Change {
        address: address.clone(),
        action: Action::NoOp,
        reasons: Vec::new(),
        drift: Vec::new(),
        fields: Vec::new(),
        provision: Vec::new(),
        instance: known.record.map_or(known.fresh, |record| InstanceId(record.instance)),
        down: Vec::new(),
        up: Vec::new(),
    };
    if let Some(step) = known.interrupted {
        change
            .reasons
            .push(format!("an earlier run was interrupted during `{step}`; its outcome is unknown"));
    }
    match (known.desired, known.record) {
        (None, None) => {}
        (Some(desired), None) => {
            change.fields = fields_between(None, Some(&RecordedVm::from(desired)));
            create(&mut change, desired);
        }
        (None, Some(record)) => {
            change.drift = drift(record, known.sight);
            if !known.removing_all {
                change.reasons.push("no longer in the VMFile".to_owned());
            }
            destroy(&mut change, record, state_now(record, known.sight));
        }
        (Some(desired), Some(record)) => converge(&mut change, desired, record, known)?,
    }
    Ok(change)
}

fn create(change: &mut Change, desired: &DesiredVm) {
    change.action = Action::Create;
    change.up.push(StepKind::Prepare);
    if desired.power != Power::Stopped {
        run(change, desired, 0);
    }
}

fn destroy(change: &mut Change, record: &Record, state: Option<VmState>) {
    change.action = Action::Destroy;
    if record.phase == Phase::Destroying {
        change.reasons.push("its destruction was begun and did not end".to_owned());
    }
    take_down(change, state);
}

/// Stop where there may be something to stop, then destroy.
fn take_down(change: &mut Change, state: Option<VmState>) {
    if state.is_none_or(is_live) {
        change.down.push(StepKind::Stop);
    }
    change.down.push(StepKind::Destroy);
}

/// From a machine that is off to one that is as desired; provisioning goes on after `done` steps.
fn run(change: &mut Change, desired: &DesiredVm, done: usize) {
    change.up.push(StepKind::Start);
    if desired.ssh.is_some() {
        change.up.push(StepKind::Ready);
    }
    provision(change, desired, done);
    if desired.power == Power::Suspended {
        change.up.push(StepKind::Suspend);
    }
}

fn provision(change: &mut Change, desired: &DesiredVm, done: usize) {
    for step in desired.provision.iter().skip(done) {
        change.up.push(StepKind::Provision(step.number));
        change.provision.push(step.label.clone());
    }
}

/// A machine that is both desired and recorded.
fn converge(
    change: &mut Change,
    desired: &DesiredVm,
    record: &Record,
    known: Known<'_>,
) -> Result<(), RecordError> {
    change.fields = fields_between(Some(&spec_of(record)?), Some(&RecordedVm::from(desired)));
    change.drift = drift(record, known.sight);
    let state = state_now(record, known.sight);
    let class = change.fields.iter().map(|field| field.class).max();

    if let Some(reason) = must_replace(record, known.sight, class, &change.fields) {
        change.reasons.push(reason);
        change.instance = known.fresh;
        take_down(change, state);
        create(change, desired);
        change.action = Action::Replace;
        return Ok(());
    }
    if record.phase == Phase::Preparing {
        change.reasons.push("an earlier `prepare` did not end; it is finished first".to_owned());
        create(change, desired);
        return Ok(());
    }
    let Some(state) = state else {
        change.reasons.push("it cannot be asked what it does, so it is left alone".to_owned());
        return Ok(());
    };
    settle(change, desired, record, state, class, known.sight);
    change.action = action_of(change);
    Ok(())
}

/// Why the machine cannot be kept, if it cannot.
fn must_replace(
    record: &Record,
    sight: Option<&Sight>,
    class: Option<Class>,
    fields: &[FieldChange],
) -> Option<String> {
    if record.phase == Phase::Destroying {
        return Some("its destruction was begun and did not end".to_owned());
    }
    if let Some(taint) = &record.taint {
        return Some(format!("it is tainted: {taint}"));
    }
    if class == Some(Class::Replace) {
        let forcing: Vec<_> =
            fields.iter().filter(|field| field.class == Class::Replace).map(|field| field.field).collect();
        return Some(format!("{} changed; cannot be done in place", forcing.join(", ")));
    }
    if let Some(Sight::Seen(seen)) = sight
        && record.phase != Phase::Preparing
    {
        if seen.state == VmState::Destroyed {
            return Some("its files are gone".to_owned());
        }
        if seen
            .missing
            .iter()
            .any(|path| *path == vmctl_providers::workdir::WorkDir::new(&seen.handle.work_dir).overlay())
        {
            return Some("its disk is gone".to_owned());
        }
    }
    None
}

/// Steps for a machine that is kept.
fn settle(
    change: &mut Change,
    desired: &DesiredVm,
    record: &Record,
    state: VmState,
    class: Option<Class>,
    sight: Option<&Sight>,
) {
    let done = provisioned(desired, record);
    if record.provisioned.len() > done && done == desired.provision.len() {
        change.fields.push(FieldChange {
            field: "provision",
            before: steps(record.provisioned.len()),
            after: steps(done),
            unit: "",
            class: Class::InPlace,
        });
    }
    let pending = done < desired.provision.len();
    let live = is_live(state);
    let crippled = state == VmState::Failed || hardware_drifted(record, sight);
    let restart = live && (class == Some(Class::Restart) || crippled);
    if restart {
        change.down.push(StepKind::Stop);
    }
    if !change.fields.is_empty() {
        change.up.push(StepKind::Update);
    }
    match desired.power {
        Power::Stopped => {
            let believed_live = matches!(record.phase, Phase::Running | Phase::Suspended);
            if (live || believed_live) && !restart {
                change.down.push(StepKind::Stop);
            }
        }
        Power::Suspended if state == VmState::Suspended && !restart && !pending => {
            if record.phase != Phase::Suspended {
                change.up.push(StepKind::Suspend);
            }
        }
        Power::Running | Power::Suspended if !live || restart => run(change, desired, done),
        Power::Running | Power::Suspended => {
            if state == VmState::Suspended {
                change.up.push(StepKind::Resume);
            } else if record.phase != Phase::Running {
                change.up.push(StepKind::Start);
            }
            // Starting, even if it finds the machine running, is to be followed by a login.
            if desired.ssh.is_some() && (!record.ready || change.up.contains(&StepKind::Start)) {
                change.up.push(StepKind::Ready);
            }
            provision(change, desired, done);
            if desired.power == Power::Suspended {
                change.up.push(StepKind::Suspend);
            }
        }
    }
    explain(change, desired, record, done);
}

/// Adds the reasons that the fields do not show.
fn explain(change: &mut Change, desired: &DesiredVm, record: &Record, done: usize) {
    for (step, label) in desired.provision.iter().skip(done).zip(&change.provision).take(1) {
        let why = if record.provisioned.len() > done { "changed" } else { "has not succeeded yet" };
        change.reasons.push(format!("provisioning step {} (`{label}`) {why}", step.number));
    }
    if change.up.contains(&StepKind::Ready) && !change.up.contains(&StepKind::Start) {
        change.reasons.push("waits for a login, which has not worked yet".to_owned());
    }
}

fn steps(count: usize) -> Value {
    Value::String(if count == 1 { "1 step".to_owned() } else { format!("{count} steps") })
}

/// Number of provisioning steps, from the first, that ran with the content that is desired now.
fn provisioned(desired: &DesiredVm, record: &Record) -> usize {
    desired
        .provision
        .iter()
        .zip(&record.provisioned)
        .take_while(|(wanted, ran)| wanted.digest.as_str() == ran.digest)
        .count()
}

fn action_of(change: &Change) -> Action {
    let has = |wanted: fn(&StepKind) -> bool| change.up.iter().chain(&change.down).any(wanted);
    let stops = change.down.contains(&StepKind::Stop);
    if stops && has(|step| matches!(step, StepKind::Start)) {
        Action::Restart
    } else if stops {
        Action::Stop
    } else if has(|step| matches!(step, StepKind::Start)) {
        Action::Start
    } else if has(|step| matches!(step, StepKind::Resume)) {
        Action::Resume
    } else if has(|step| matches!(step, StepKind::Provision(_) | StepKind::Ready)) {
        Action::Provision
    } else if has(|step| matches!(step, StepKind::Suspend)) {
        Action::Suspend
    } else if has(|step| matches!(step, StepKind::Update)) {
        Action::Update
    } else {
        Action::NoOp
    }
}

/// The fields that differ; all that have a value if one side is absent.
fn fields_between(before: Option<&RecordedVm>, after: Option<&RecordedVm>) -> Vec<FieldChange> {
    let value =
        |side: Option<&RecordedVm>, field: &crate::fields::Field| side.map_or(Value::Null, field.value);
    FIELDS
        .iter()
        .map(|field| FieldChange {
            field: field.name,
            before: value(before, field),
            after: value(after, field),
            unit: field.unit,
            class: match (before, after) {
                (Some(before), Some(after)) => (field.class)(before, after),
                _ => Class::InPlace,
            },
        })
        .filter(|field| field.before != field.after)
        .collect()
}

fn is_live(state: VmState) -> bool {
    matches!(state, VmState::Running | VmState::Suspended | VmState::Failed)
}

/// What the machine does, as far as is known; `None` if it could not be asked.
fn state_now(record: &Record, sight: Option<&Sight>) -> Option<VmState> {
    match sight {
        Some(Sight::Seen(seen)) => Some(seen.state),
        Some(Sight::Unreachable { .. }) => None,
        None => Some(match record.phase {
            Phase::Preparing => VmState::Preparing,
            Phase::Prepared => VmState::Prepared,
            Phase::Running => VmState::Running,
            Phase::Suspended => VmState::Suspended,
            Phase::Stopped => VmState::Stopped,
            Phase::Destroying => VmState::Destroyed,
        }),
    }
}

/// Whether a running machine's hardware is not what was recorded.
fn hardware_drifted(record: &Record, sight: Option<&Sight>) -> bool {
    !hardware_drift(record, sight).is_empty()
}

fn hardware_drift(record: &Record, sight: Option<&Sight>) -> Vec<String> {
    let (Some(Sight::Seen(seen)), Ok(spec)) = (sight, spec_of(record)) else { return Vec::new() };
    let mut drift = Vec::new();
    if let Some(found) = seen.vcpus.filter(|found| *found != spec.vcpus) {
        drift.push(format!("runs with {found} vCPUs instead of {}", spec.vcpus));
    }
    if let Some(found) = seen.memory_mib.filter(|found| *found != spec.memory_mib) {
        drift.push(format!("runs with {found} MiB of memory instead of {} MiB", spec.memory_mib));
    }
    drift
}

/// Where recorded and observed differ, in words.
pub fn drift(record: &Record, sight: Option<&Sight>) -> Vec<String> {
    let mut drift = Vec::new();
    match sight {
        None => {}
        Some(Sight::Unreachable { reason }) => drift.push(format!("cannot be reached: {reason}")),
        Some(Sight::Seen(seen)) => {
            if let Some(text) = power_drift(record.phase, seen.state) {
                drift.push(text.to_owned());
            }
            drift.extend(hardware_drift(record, sight));
            if !matches!(record.phase, Phase::Preparing | Phase::Destroying) {
                drift.extend(seen.missing.iter().map(|path| format!("`{}` is missing", path.display())));
            }
            drift.extend(seen.problems.iter().cloned());
        }
    }
    drift
}

fn power_drift(phase: Phase, state: VmState) -> Option<&'static str> {
    match (phase, state) {
        (Phase::Preparing | Phase::Destroying, _) => None,
        (_, VmState::Destroyed) => Some("its files are gone"),
        (_, VmState::Failed) => Some("the hypervisor reports a failure"),
        (Phase::Running | Phase::Suspended, VmState::Stopped | VmState::Prepared) => {
            Some("not running any more: it was stopped or its process ended")
        }
        (Phase::Running, VmState::Suspended) => Some("was paused"),
        (Phase::Suspended, VmState::Running) => Some("was resumed"),
        (Phase::Prepared | Phase::Stopped, VmState::Running | VmState::Suspended) => Some("was started"),
        _ => None,
    }
}
