//! Desired × recorded × observed → changes. Pure and total: same inputs, same result.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use vmctl_providers::{Digest, InstanceId, MadeFrom, Secrets, VmState, WarmSpec};
use vmctl_state::{Address, Interrupted, Phase, Record};

use crate::change::{Action, Change, FieldChange, LeftAloneKind, ProvisionRun, Refusal};
use crate::desired::{DesiredVm, Power, Trigger};
use crate::drift::{Drift, DriftKind, drift};
use crate::fields::{ALL, Class, FIELDS, Field, PROVISION, disk_size};
use crate::not_yet;
use crate::observed::Sight;
use crate::obstacles::{cannot_be_worked_on, choice, cut_off_text, permission};
use crate::provisioning::{self, Asked, Due};
use crate::recorded::{RecordError, RecordedVm, spec_of};
use crate::step::StepKind;
use crate::turn::{Turn, turned};
use crate::warm::{self, SeenTemplate, UsedTemplate, Wanted};

/// Everything known about one address.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// What is asked for now.
    pub desired: Option<&'a DesiredVm>,
    /// What is remembered.
    pub record: Option<&'a Record>,
    /// The address under which it was remembered, if that is another.
    pub moved_from: Option<&'a Address>,
    /// What was found.
    pub sight: Option<&'a Sight>,
    /// The step in which an earlier run was cut off.
    pub interrupted: Option<&'a str>,
    /// The provisioning step whose outcome is unknown.
    pub unknown: Option<Interrupted>,
    /// Whether that step may run again, whatever the VMFile says of it.
    pub rerun: bool,
    /// Whether no provisioning step is to run.
    pub no_provision: bool,
    /// The templates that there are, by key.
    pub templates: &'a BTreeMap<Digest, SeenTemplate>,
    /// Whether no machine is made from a template.
    pub cold: bool,
    /// Whether nobody waits for a guest in which nothing is to run.
    pub no_wait: bool,
    /// Whether what it was brought to last is what was asked for.
    pub by_hand: bool,
    /// What is wanted of the machine besides what the VMFile says.
    pub wish: Wish<'a>,
    /// What no record may hold.
    pub secrets: &'a Secrets,
    /// Identity for a machine that must be made.
    pub fresh: InstanceId,
}

/// What is wanted of a machine besides what the VMFile says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Nothing.
    None,
    /// All machines are to go.
    RemoveAll,
    /// It is let go of.
    Forget,
    /// It is made anew, for this reason.
    Replace(&'a str),
    /// What changes in place is changed while it is off, for this reason.
    Restart(&'a str),
    /// It is started, stopped, suspended or resumed, and nothing else.
    Turn(Turn),
    /// Its provisioning steps run, and nothing else happens to it.
    Provision(&'a Asked),
}

/// A decision, and what it aims at.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The decision.
    pub change: Change,
    /// The machine as it is remembered from then on; absent where none is desired. Ignored changes are not in it.
    pub after: Option<Arc<RecordedVm>>,
    /// Provisioning steps, from the first, that need not run again.
    pub provisioned: usize,
    /// How a machine that is made stands to templates.
    pub(crate) warm: Option<WarmSpec>,
}

impl Decision {
    /// One that makes no machine.
    fn of(change: Change, after: Option<Arc<RecordedVm>>, provisioned: usize) -> Self {
        Self { change, after, provisioned, warm: None }
    }
}

/// Decides what becomes of one address that is desired, recorded, or both.
pub fn decide(address: &Address, known: Known<'_>) -> Result<Decision, RecordError> {
    let instance = known.record.map_or(known.fresh, |record| InstanceId(record.instance));
    let mut change = Change::none(address.clone(), instance);
    change.moved_from = known.moved_from.cloned();
    if let Some(step) = known.interrupted {
        change
            .reasons
            .push(format!("an earlier run was interrupted during `{step}`; its outcome is unknown"));
    }
    if let Some(record) = known.record {
        change.drift = drift(record, known.sight)?;
    }
    change.interrupted.clone_from(&known.unknown);
    let desired = known.desired;
    let mut decision = decided(change, known)?;
    if let Some(desired) = desired
        && decision.change.refused.is_none()
        && decision.change.is_effective()
    {
        decision.change.refused = not_yet::refusal(desired).map(Refusal::not_yet);
    }
    Ok(decision)
}

fn decided(mut change: Change, known: Known<'_>) -> Result<Decision, RecordError> {
    match (known.desired, known.record) {
        (_, Some(record)) if let Wish::Turn(turn) = known.wish => {
            turned(&mut change, record, known.sight, turn);
            Ok(Decision::of(change, Some(spec_of(record)?), record.provisioned.len()))
        }
        (desired, record) if let Wish::Provision(asked) = known.wish => {
            provision_alone(change, desired, record, &known, asked)
        }
        (None, None) => Ok(Decision::of(change, None, 0)),
        (None, Some(record)) => {
            part_with(&mut change, record, &known)?;
            Ok(Decision::of(change, None, 0))
        }
        (Some(desired), None) => {
            let after = RecordedVm::from(desired).sealed(known.secrets);
            change.fields = fields_between(None, &after);
            let (provisioned, warm) = create(&mut change, desired, &known);
            Ok(Decision { warm, ..Decision::of(change, Some(Arc::new(after)), provisioned) })
        }
        (Some(desired), Some(record)) => converge(change, desired, record, &known),
    }
}

/// A machine that is not desired any more.
fn part_with(change: &mut Change, record: &Record, known: &Known<'_>) -> Result<(), RecordError> {
    if known.wish == Wish::Forget {
        change.action = Action::Forget;
        change.reasons.push("`removed` in the VMFile; it goes on as it is".to_owned());
        change.down.push(StepKind::Forget);
        return Ok(());
    }
    if known.wish != Wish::RemoveAll {
        change.reasons.push("no longer in the VMFile".to_owned());
    }
    change.action = Action::Destroy;
    if record.phase == Phase::Destroying {
        change.reasons.push("its destruction was begun and did not end".to_owned());
    }
    take_down(change, record, known.sight);
    if spec_of(record)?.lifecycle.prevent_destroy && record.phase != Phase::Destroying {
        change.refused =
            Some(Refusal::protected("it would be destroyed, and `prevent-destroy` forbids that"));
    }
    Ok(())
}

/// Plans the steps that make a machine. Returns how many provisioning steps it comes with, and how it stands to templates.
fn create(change: &mut Change, desired: &DesiredVm, known: &Known<'_>) -> (usize, Option<WarmSpec>) {
    change.action = Action::Create;
    if desired.image.as_ref().is_some_and(|image| image.digest().is_none()) {
        change.known_after_apply.push(Cow::Borrowed("image"));
    }
    change.up.push(StepKind::Prepare);
    // A template is of a machine that is provisioned as its file says.
    let wanted = if known.no_provision { Wanted::Nothing } else { warm::wanted(desired) };
    let used = match &wanted {
        Wanted::Template(key, _) if !known.cold => {
            known.templates.get(key).map(|seen| UsedTemplate { key: key.clone(), seen: seen.clone() })
        }
        _ => None,
    };
    let spec = warm::tell(change, &wanted, used);
    let is_cloned = spec.as_ref().is_some_and(|spec| spec.made_from == MadeFrom::Template);
    let due = if is_cloned { Due::cloned(desired) } else { Due::all(desired) };
    let provisioned = due.kept;
    if desired.power != Power::Stopped {
        let due = allowed(due, known, change);
        run(change, desired, known, &due);
        if spec.is_some() && !is_cloned {
            change.up.push(StepKind::Keep);
        }
    }
    (provisioned, spec)
}

/// What is due, unless no step is to run.
fn allowed(due: Due, known: &Known<'_>, change: &mut Change) -> Due {
    if !known.no_provision {
        return due;
    }
    if due.has_changes() {
        let left_out = "its provisioning is left out, as asked for with `--no-provision`, and stays due";
        change.reasons.push(left_out.to_owned());
    }
    due.left_out()
}

/// Stop where there may be something to stop, then destroy.
fn take_down(change: &mut Change, record: &Record, sight: Option<&Sight>) {
    if state_now(record, sight).is_none_or(is_live) {
        change.down.push(StepKind::Stop);
    }
    change.down.push(StepKind::Destroy);
    if record.phase != Phase::Preparing {
        let is_gone = |drift: &Drift| matches!(drift.kind, DriftKind::Gone | DriftKind::DiskMissing);
        let loss = if change.drift.iter().any(is_gone) {
            "its disk, which is not where it was: put it back, and nothing is lost"
        } else {
            "its disk, with everything on it"
        };
        change.losses.push(loss.to_owned());
    }
}

/// Whether an apply waits until the guest is ready.
fn is_waited_for(desired: &DesiredVm, known: &Known<'_>, due: &Due) -> bool {
    !desired.ready.probes.is_empty() && (!known.no_wait || !due.numbers.is_empty())
}

/// From a machine that is off to one that is as desired.
fn run(change: &mut Change, desired: &DesiredVm, known: &Known<'_>, due: &Due) {
    change.up.push(StepKind::Start);
    change.known_after_apply.push(Cow::Borrowed("pid"));
    if desired.ssh.is_some() || desired.forwards.iter().any(|forward| forward.host_port == 0) {
        change.known_after_apply.push(Cow::Borrowed("host ports that are chosen at start"));
    }
    if is_waited_for(desired, known, due) {
        change.up.push(StepKind::Ready);
    }
    provision(change, desired, due);
    if desired.power == Power::Suspended {
        change.up.push(StepKind::Suspend);
    }
}

fn provision(change: &mut Change, desired: &DesiredVm, due: &Due) {
    for step in desired.provision.iter().filter(|step| due.numbers.contains(&step.number)) {
        change.up.push(StepKind::Provision(step.number));
        change.provision.push(ProvisionRun { number: step.number, label: step.label.clone() });
    }
}

/// A machine that is both desired and recorded.
fn converge(
    mut change: Change,
    desired: &DesiredVm,
    record: &Record,
    known: &Known<'_>,
) -> Result<Decision, RecordError> {
    let mut bare = spec_of(record)?;
    if let Some(power) = brought_to(record.phase).filter(|power| known.by_hand && *power != bare.power) {
        Arc::make_mut(&mut bare).power = power;
    }
    let before = match known.secrets.is_empty() {
        true => Arc::clone(&bare),
        false => Arc::new(RecordedVm::clone(&bare).sealed(known.secrets)),
    };
    let after = RecordedVm::from(desired).sealed(known.secrets);
    // A machine that was never made has no values to keep.
    let (after, desired) = if record.phase == Phase::Preparing {
        (after, Cow::Borrowed(desired))
    } else {
        keep_ignored(desired, after, &before, state_now(record, known.sight))
    };
    let desired = &*desired;
    let after = shared(after, &before);
    change.fields = fields_between(Some(&before), &after);
    let due = Due::of(desired, record);
    if let Some(from) = change.moved_from.clone() {
        change.reasons.push(format!("moved from `{from}`"));
        keep_moved_hostname(&mut change, &from, &before, &after);
    }

    if let Some(reason) = still_held(&change, known) {
        change.action = Action::Replace;
        change.leave_alone(LeftAloneKind::Damaged, reason);
        return Ok(Decision::of(change, None, 0));
    }
    if let Some(reasons) = must_replace(&change, desired, record, known, &due) {
        change.reasons.extend(reasons);
        // Made as the file says: what is ignored on an existing machine has no existing machine any more.
        let desired = known.desired.unwrap_or(desired);
        let after = RecordedVm::from(desired).sealed(known.secrets);
        let all = fields_between(Some(&before), &after);
        if all.len() > change.fields.len() {
            change
                .reasons
                .push("made as the file says, with the changes that were ignored until now".to_owned());
        }
        change.fields = all;
        change.replaces = Some(change.instance);
        change.instance = known.fresh;
        take_down(&mut change, record, known.sight);
        name_shrinking(&mut change, &before, &after);
        if desired.lifecycle.prevent_destroy && !change.losses.is_empty() {
            change.refused =
                Some(Refusal::protected("it would be replaced, and `prevent-destroy` forbids that"));
        } else if before.lifecycle.prevent_destroy {
            change.reasons.push("it was protected until now".to_owned());
        }
        let (provisioned, warm) = create(&mut change, desired, known);
        change.action = Action::Replace;
        return Ok(Decision { warm, ..Decision::of(change, Some(Arc::new(after)), provisioned) });
    }
    if record.phase == Phase::Preparing {
        change.reasons.push("an earlier `prepare` did not end; it is finished first".to_owned());
        let (provisioned, warm) = create(&mut change, desired, known);
        return Ok(Decision { warm, ..Decision::of(change, Some(after), provisioned) });
    }
    forget_bare(&mut change, &bare, &before, &after);
    // A machine that cannot be asked is planned for as it is recorded, and then left alone.
    let state = state_now(record, known.sight).unwrap_or_else(|| recorded_state(record.phase));
    let due = allowed(due, known, &mut change);
    settle(&mut change, desired, record, state, known, &due);
    change.action = action_of(&change);
    mind_obstacles(&mut change, desired, known);
    Ok(Decision::of(change, Some(after), due.kept))
}

/// What is asked for; the one value for both where that is what is remembered, as it is of most machines.
fn shared(after: RecordedVm, before: &Arc<RecordedVm>) -> Arc<RecordedVm> {
    // Which file asked for it changes nothing.
    let after = RecordedVm { vmfile: before.vmfile.clone(), ..after };
    if after == **before { Arc::clone(before) } else { Arc::new(after) }
}

/// What a machine in this phase was brought to; `None` where that is not sure.
pub fn brought_to(phase: Phase) -> Option<Power> {
    match phase {
        Phase::Running => Some(Power::Running),
        Phase::Suspended => Some(Power::Suspended),
        Phase::Prepared | Phase::Stopped => Some(Power::Stopped),
        Phase::Preparing | Phase::Destroying => None,
    }
}

/// Leaves a machine alone that must not be worked on now.
fn mind_obstacles(change: &mut Change, desired: &DesiredVm, known: &Known<'_>) {
    if let Some((kind, reason)) = cannot_be_worked_on(change, known.sight) {
        change.leave_alone(kind, reason);
    } else if let Some(unknown) = &known.unknown
        && !change.provision.is_empty()
    {
        match permission(desired, unknown, known.rerun) {
            Some(why) => change.reasons.push(format!("{}; {why}", cut_off_text(unknown))),
            None => {
                let reason = choice(unknown, change.address.name());
                change.leave_alone(LeftAloneKind::Interrupted, reason);
            }
        }
    }
}

/// Steps of a machine that runs, on which nothing else is changed.
fn provision_alone(
    mut change: Change,
    desired: Option<&DesiredVm>,
    record: Option<&Record>,
    known: &Known<'_>,
    asked: &Asked,
) -> Result<Decision, RecordError> {
    let after = record.map(spec_of).transpose()?;
    let nothing = |change, after| Ok(Decision::of(change, after, 0));
    let Some(desired) = desired.filter(|desired| desired.provision.iter().any(|step| asked.means(step)))
    else {
        return nothing(change, after);
    };
    let record =
        record.filter(|record| record.phase != Phase::Preparing && record.phase != Phase::Destroying);
    let Some(record) = record else {
        change.refused = Some(Refusal::state("it is not made yet, or not to its end; `vmctl up` makes it"));
        return nothing(change, after);
    };
    let state = state_now(record, known.sight).unwrap_or_else(|| recorded_state(record.phase));
    let is_off = match state {
        _ if record.phase != Phase::Running && desired.power != Power::Running => {
            return nothing(change, after);
        }
        VmState::Running => None,
        VmState::Suspended => Some("it is suspended; `vmctl resume` lets it go on"),
        _ => Some("it does not run; `vmctl up` starts it"),
    };
    if let Some(why) = is_off {
        change.refused = Some(Refusal::state(why));
        return nothing(change, after);
    }
    let due = match Due::asked(desired, record, asked) {
        Ok(due) => due,
        Err(refusal) => {
            change.refused = Some(refusal);
            return nothing(change, after);
        }
    };
    if due.numbers.is_empty() {
        return nothing(change, after);
    }
    if !desired.ready.probes.is_empty() && !record.ready {
        change.up.push(StepKind::Ready);
    }
    provision(&mut change, desired, &due);
    change.action = Action::Provision;
    provisioning::explain(&mut change, desired, record, &due, asked.force);
    mind_obstacles(&mut change, desired, &Known { rerun: known.rerun || asked.force, ..known.clone() });
    Ok(Decision::of(change, after, due.kept))
}

/// The machine as desired, but with the recorded value of each field whose changes are ignored.
fn keep_ignored<'a>(
    desired: &'a DesiredVm,
    mut after: RecordedVm,
    before: &RecordedVm,
    state: Option<VmState>,
) -> (RecordedVm, Cow<'a, DesiredVm>) {
    let ignored = &desired.lifecycle.ignore_changes;
    if ignored.is_empty() {
        return (after, Cow::Borrowed(desired));
    }
    let mut kept = desired.clone();
    for field in FIELDS.iter().filter(|field| ignored.iter().any(|name| field.is_meant_by(name))) {
        (field.keep)(&mut after, before);
        if field.name == "state" {
            kept.power = match state {
                Some(VmState::Running) => Power::Running,
                Some(VmState::Suspended) => Power::Suspended,
                Some(VmState::Stopped | VmState::Prepared) => Power::Stopped,
                _ => desired.power,
            };
        }
    }
    kept.ssh.clone_from(&after.ssh);
    kept.forwards.clone_from(&after.forwards);
    (after, Cow::Owned(kept))
}

/// What was recorded before it was said to be sensitive is recorded anew, although the machine is as it was.
fn forget_bare(change: &mut Change, bare: &RecordedVm, before: &RecordedVm, after: &RecordedVm) {
    if bare == before {
        return;
    }
    for field in FIELDS.iter().filter(|field| (field.value)(bare) != (field.value)(before)) {
        if change.fields.iter().any(|changed| changed.field == field.name) {
            continue;
        }
        change.reasons.push(format!("{} is sensitive now, and the record still shows it", field.name));
        change.fields.push(FieldChange {
            field: Cow::Borrowed(field.name),
            before: Value::Null,
            after: (field.value)(after),
            unit: None,
            class: Some(Class::RecordOnly),
        });
    }
}

/// A machine that only got another name keeps its host name, if that was made of its name.
fn keep_moved_hostname(change: &mut Change, from: &Address, before: &RecordedVm, after: &RecordedVm) {
    let made_of = |address: &Address, vm: &RecordedVm| {
        let name = address.name().parse::<vmctl_providers::Name>().map(|name| name.to_hostname());
        vm.cloud_init.as_ref().is_some_and(|seed| name.is_ok_and(|name| name == seed.hostname))
    };
    if !(made_of(from, before) && made_of(&change.address, after)) {
        return;
    }
    for field in change.fields.iter_mut().filter(|field| field.field == "cloud-init.hostname") {
        field.class = Some(Class::RecordOnly);
        change.reasons.push("the guest keeps its host name until it is replaced".to_owned());
    }
}

/// A disk that shrinks is not copied to the smaller one.
fn name_shrinking(change: &mut Change, before: &RecordedVm, after: &RecordedVm) {
    let (before, after) = (disk_size(before), disk_size(after));
    if after < before
        && let Some(loss) = change.losses.first_mut()
    {
        let size = |bytes: u64| match bytes >> 30 {
            gib if gib << 30 == bytes => format!("{gib} GiB"),
            _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
        };
        *loss = format!(
            "its disk of {}, with everything on it; the new one has {}, and nothing is copied",
            size(before),
            size(after)
        );
    }
}

/// Why a running machine whose files are gone is not replaced unasked: its process still holds the disk.
fn still_held(change: &Change, known: &Known<'_>) -> Option<String> {
    let Some(Sight::Seen(seen)) = known.sight else { return None };
    let is_gone = |drift: &Drift| matches!(drift.kind, DriftKind::DiskMissing | DriftKind::FolderMissing);
    if !is_live(seen.state) || matches!(known.wish, Wish::Replace(_)) || !change.drift.iter().any(is_gone) {
        return None;
    }
    let name = change.address.name();
    Some(format!(
        "its files are gone and its process still holds the disk: what is on it is lost when that ends. Put the files \
         back, or save what you need out of the guest and then make it anew with `--replace {name}`"
    ))
}

/// Why the machine cannot be kept, if it cannot.
fn must_replace(
    change: &Change,
    desired: &DesiredVm,
    record: &Record,
    known: &Known<'_>,
    due: &Due,
) -> Option<Vec<String>> {
    let mut reasons = Vec::new();
    if record.phase == Phase::Destroying {
        reasons.push("its destruction was begun and did not end".to_owned());
    }
    if let Some(taint) = &record.taint {
        reasons.push(format!("it is tainted: {taint}"));
    }
    if let Wish::Replace(why) = known.wish {
        reasons.push(why.to_owned());
    }
    for class in [Class::Replace, Class::RecordOnly] {
        let forcing: Vec<_> = change
            .fields
            .iter()
            .filter(|field| match class {
                Class::Replace => field.class == Some(Class::Replace),
                _ => field.class < Some(Class::Replace) && is_trigger(desired, &field.field),
            })
            .map(|field| &*field.field)
            .collect();
        if !forcing.is_empty() {
            let why =
                if class == Class::Replace { "cannot be done in place" } else { "`replace-when` names it" };
            reasons.push(format!("{} changed; {why}", forcing.join(", ")));
        }
    }
    if record.provisioned.len() > due.kept && is_trigger(desired, PROVISION) {
        reasons.push("provisioning changed; `replace-when` names it".to_owned());
    }
    if record.phase != Phase::Preparing {
        for drift in &change.drift {
            reasons.extend(match drift.kind {
                DriftKind::Gone => Some("it is gone, with all its files".to_owned()),
                DriftKind::DiskMissing | DriftKind::FolderMissing => Some("its disk is gone".to_owned()),
                _ => None,
            });
        }
    }
    (!reasons.is_empty()).then_some(reasons)
}

fn is_trigger(desired: &DesiredVm, name: &str) -> bool {
    desired.lifecycle.replace_when.iter().any(|trigger| match trigger {
        Trigger::Machine(_) => false,
        Trigger::Field(word) if name == PROVISION => word == PROVISION || word == ALL,
        Trigger::Field(word) => FIELDS.iter().any(|field| field.name == name && field.is_meant_by(word)),
    })
}

/// Steps for a machine that is kept.
fn settle(
    change: &mut Change,
    desired: &DesiredVm,
    record: &Record,
    state: VmState,
    known: &Known<'_>,
    due: &Due,
) {
    let all = desired.provision.len();
    // A step that is not asked for any more: what became of it decides nothing.
    let cut_off_and_gone = known.unknown.as_ref().is_some_and(|unknown| unknown.number as usize > all);
    if (record.provisioned.len() > due.kept || cut_off_and_gone) && due.kept == all {
        let cut_off = known.unknown.as_ref().filter(|_| cut_off_and_gone);
        change.fields.push(FieldChange {
            field: Cow::Borrowed(PROVISION),
            before: match cut_off {
                Some(unknown) => Value::String(format!("step {} was cut off", unknown.number)),
                None => steps(record.provisioned.len()),
            },
            after: steps(due.kept),
            unit: None,
            class: Some(Class::RecordOnly),
        });
    }
    let class = change.fields.iter().filter_map(|field| field.class).max();
    let pending = due.has_changes();
    let live = is_live(state);
    let drifted = |kinds: &[DriftKind]| change.drift.iter().any(|drift| kinds.contains(&drift.kind));
    let crippled = drifted(&[DriftKind::Failed, DriftKind::Vcpus, DriftKind::Memory]);
    let stalled = drifted(&[DriftKind::DiskFull, DriftKind::DiskFailed]);
    let repairable = drifted(&DriftKind::REPAIRED);
    let wished = if let Wish::Restart(why) = known.wish { Some(why) } else { None };
    let restart = live && (class == Some(Class::Restart) || crippled || wished.is_some());
    if restart {
        change.down.push(StepKind::Stop);
        change.reasons.extend(wished.map(str::to_owned));
        let fields = change.fields.iter().filter(|field| field.class == Some(Class::Restart));
        let names: Vec<_> = fields.map(|field| &*field.field).collect();
        if !names.is_empty() {
            change.reasons.push(format!("{} changed; cannot be done while it runs", names.join(", ")));
        }
    }
    if !change.fields.is_empty() || repairable || change.moved_from.is_some() {
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
        Power::Running | Power::Suspended if !live || restart => run(change, desired, known, due),
        Power::Running | Power::Suspended => {
            if state == VmState::Suspended || stalled {
                change.up.push(StepKind::Resume);
            } else if record.phase != Phase::Running {
                change.up.push(StepKind::Start);
            }
            // Starting, even if it finds the machine running, is to be followed by a login.
            let awaits = !record.ready || change.up.contains(&StepKind::Start);
            if is_waited_for(desired, known, due) && awaits {
                change.up.push(StepKind::Ready);
            }
            provision(change, desired, due);
            if desired.power == Power::Suspended {
                change.up.push(StepKind::Suspend);
            }
        }
    }
    explain(change, desired, record, due);
}

/// Adds the reasons that the fields do not show.
fn explain(change: &mut Change, desired: &DesiredVm, record: &Record, due: &Due) {
    let was_full = change.drift.iter().any(|drift| drift.kind == DriftKind::DiskFull);
    if change.up.contains(&StepKind::Resume) && was_full {
        change.reasons.push("its disk was full, and there is room again: it goes on where it was".to_owned());
    }
    if change.up.contains(&StepKind::Resume) && change.up.contains(&StepKind::Suspend) && !was_full {
        change.reasons.push("resumed for its provisioning, then suspended again".to_owned());
    }
    if desired.power == Power::Stopped && due.has_changes() {
        change.reasons.push("provisioning waits until it is to run".to_owned());
    }
    let starts = change.up.contains(&StepKind::Start) && !change.down.contains(&StepKind::Stop);
    if starts && change.drift.is_empty() && !change.fields.iter().any(|field| field.field == "state") {
        change.reasons.push("it is to run".to_owned());
    }
    provisioning::explain(change, desired, record, due, false);
    if change.up.contains(&StepKind::Ready) && !change.up.contains(&StepKind::Start) {
        change.reasons.push("waits until it is ready, which it has not been yet".to_owned());
    }
}

fn steps(count: usize) -> Value {
    Value::String(if count == 1 { "1 step".to_owned() } else { format!("{count} steps") })
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

/// The fields that differ; all that have a value if there was no machine before.
fn fields_between(before: Option<&RecordedVm>, after: &RecordedVm) -> Vec<FieldChange> {
    if before == Some(after) {
        return Vec::new();
    }
    let changed = |field: &Field| FieldChange {
        field: Cow::Borrowed(field.name),
        before: before.map_or(Value::Null, field.value),
        after: (field.value)(after),
        unit: (!field.unit.is_empty()).then_some(Cow::Borrowed(field.unit)),
        class: before.map(|before| field.class(before, after)),
    };
    FIELDS.iter().map(changed).filter(|field| field.before != field.after).collect()
}

pub(crate) fn is_live(state: VmState) -> bool {
    matches!(state, VmState::Running | VmState::Suspended | VmState::Failed)
}

/// What the machine does, as far as is known; `None` if it could not be asked.
pub(crate) fn state_now(record: &Record, sight: Option<&Sight>) -> Option<VmState> {
    match sight {
        Some(Sight::Seen(seen)) => Some(seen.state),
        Some(Sight::Unreachable { .. }) => None,
        None => Some(recorded_state(record.phase)),
    }
}

pub(crate) fn recorded_state(phase: Phase) -> VmState {
    match phase {
        Phase::Preparing => VmState::Preparing,
        Phase::Prepared => VmState::Prepared,
        Phase::Running => VmState::Running,
        Phase::Suspended => VmState::Suspended,
        Phase::Stopped => VmState::Stopped,
        Phase::Destroying => VmState::Destroyed,
    }
}
