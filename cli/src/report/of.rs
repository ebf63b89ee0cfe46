//! A report of a plan.

use vmctl_planner::picture::{Picture, Tone};
use vmctl_planner::{
    Action, Change, CheckResult, CheckStatus, Drift, FieldChange, Mode, PlanDocument, RefusalKind, Shortage,
    ShortageKind,
};

use super::{Report, ReportChange, ReportCheck, ReportCount, ReportDiff, ReportField, ReportInput};
use crate::render::{self, Shown, shown};

/// Everything that people are told of `plan`.
pub(crate) fn of(plan: &PlanDocument<'_>) -> Report {
    let mode = match plan.options.mode {
        Mode::Normal => "plan",
        Mode::Destroy => "destroy",
        Mode::RefreshOnly => "drift",
        Mode::Provision => "provision",
        Mode::Turn(turn) => turn.as_str(),
    };
    let is_told = |change: &&Change| {
        change.is_effective()
            || change.left_alone.is_some()
            || change.refused.is_some()
            || !change.drift.is_empty()
    };
    Report {
        title: format!("{mode} of {}", plan.project),
        project: plan.project.to_string(),
        mode: mode.to_owned(),
        counts: counts(plan),
        changes: plan.changes.iter().filter(is_told).map(change).collect(),
        drift: Vec::new(),
        notes: notes(plan),
        shortages: plan.shortages.iter().map(shortage).collect(),
        strays: plan.strays.iter().map(render::stray).collect(),
        checks: plan.checks.iter().map(check).collect(),
        steps: (!plan.steps.is_empty()).then(|| Picture::from(&plan.graph())),
        inputs: plan
            .inputs
            .iter()
            .chain(plan.images.iter())
            .map(|input| ReportInput {
                path: input.path.display().to_string(),
                digest: input.digest.to_string(),
            })
            .collect(),
        facts: vec![
            ("vmctl".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("lineage".to_owned(), plan.lineage.to_string()),
            ("serial".to_owned(), plan.serial.to_string()),
        ],
    }
}

fn counts(plan: &PlanDocument<'_>) -> Vec<ReportCount> {
    let counts = &plan.summary;
    let moved = if plan.options.mode == Mode::RefreshOnly { counts.drifted + plan.strays.len() } else { 0 };
    [
        (counts.create, "to create", Tone::Good),
        (counts.update, "to update", Tone::Change),
        (counts.replace, "to replace", Tone::Bad),
        (counts.destroy, "to destroy", Tone::Bad),
        (counts.forget, "to forget", Tone::Muted),
        (counts.left_alone, "left alone", Tone::Change),
        (moved, "drifted", Tone::Change),
    ]
    .map(|(number, name, tone)| ReportCount { number, name: name.to_owned(), tone })
    .into()
}

fn notes(plan: &PlanDocument<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let refused =
        |kind| plan.changes.iter().filter_map(|change| change.refused.as_ref()).any(|by| by.kind == kind);
    if refused(RefusalKind::Protected) {
        notes.push("This plan cannot be applied: `prevent-destroy` forbids a part of it.".to_owned());
    }
    if refused(RefusalKind::NotYet) {
        notes.push("This plan cannot be applied: this version cannot carry out all of it yet.".to_owned());
    }
    for (names, what) in [(&plan.options.targets, "--target"), (&plan.options.excludes, "--exclude")] {
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            notes.push(format!("Not about all machines: {what} {}", names.join(", ")));
        }
    }
    for volume in plan.kept.iter() {
        notes.push(format!("Kept, although no machine needs it: {}", render::kept(volume)));
    }
    notes.extend(plan.pins.iter().filter_map(render::pin_note));
    if plan.summary.unchanged > 0 {
        notes.push(format!("{} unchanged", plan.summary.unchanged));
    }
    notes
}

fn shortage(shortage: &Shortage) -> (String, String) {
    let kind = match shortage.kind {
        ShortageKind::Memory => "memory",
        ShortageKind::Disk => "disk",
    };
    let what = if shortage.overcommitted {
        "apply goes on all the same (--overcommit)"
    } else {
        "apply refuses this without --overcommit"
    };
    (kind.to_owned(), format!("{}; {what}", shortage.text))
}

fn change(change: &Change) -> ReportChange {
    let left_alone = change.left_alone.as_ref();
    let action = match left_alone {
        Some(alone) if alone.instead_of != Action::NoOp => {
            format!("left alone (called for: {})", alone.instead_of.as_str())
        }
        Some(_) => "left alone".to_owned(),
        None => change.action.as_str().to_owned(),
    };
    let reasons = change.reasons.iter().chain(left_alone.map(|alone| &alone.reason));
    ReportChange {
        address: change.address.to_string(),
        action,
        symbol: change.action.symbol().trim().to_owned(),
        tone: tone(change),
        reasons: reasons.cloned().collect(),
        losses: change.losses.clone(),
        drift: change.drift.iter().map(|Drift { text, .. }| text.clone()).collect(),
        fields: change.fields.iter().flat_map(field).collect(),
        diffs: change
            .diffs
            .iter()
            .map(|diff| ReportDiff { title: diff.what.clone(), text: diff.diff.clone() })
            .collect(),
        provision: change.provision.iter().map(|run| format!("{}. {}", run.number, run.label)).collect(),
        refused: change.refused.as_ref().map(|refusal| refusal.text.clone()),
    }
}

fn tone(change: &Change) -> Tone {
    match change.action {
        Action::Create => Tone::Good,
        Action::Replace | Action::Destroy => Tone::Bad,
        Action::Forget => Tone::Muted,
        Action::NoOp if change.left_alone.is_some() => Tone::Change,
        Action::NoOp => Tone::Neutral,
        Action::Update
        | Action::Restart
        | Action::Provision
        | Action::Start
        | Action::Stop
        | Action::Suspend
        | Action::Resume => Tone::Change,
    }
}

/// One row for a value, one for each element of a list that goes or comes.
fn field(field: &FieldChange) -> Vec<ReportField> {
    let row = |before: String, after: String| ReportField { name: field.field.to_string(), before, after };
    match shown(field) {
        None => Vec::new(),
        Some(Shown::New(value)) => vec![row(String::new(), value)],
        Some(Shown::Changed { before, after }) => vec![row(before, after)],
        Some(Shown::Elements { gone, new }) => {
            let gone = gone.into_iter().map(|item| row(item, "(removed)".to_owned()));
            gone.chain(new.into_iter().map(|item| row(String::new(), item))).collect()
        }
    }
}

fn check(check: &CheckResult) -> ReportCheck {
    ReportCheck {
        name: check.name.clone(),
        address: check.address.to_string(),
        verdict: check.status.as_str().to_owned(),
        tone: match check.status {
            CheckStatus::Pass => Tone::Good,
            CheckStatus::Fail => Tone::Bad,
            CheckStatus::Unknown => Tone::Change,
        },
        detail: check.detail.clone().unwrap_or_default(),
    }
}
