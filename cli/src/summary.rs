//! What an apply came to: for people, for programs, and as an exit code.

mod aftermath;

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use vmctl_planner::apply::{ApplyError, Failure, Report};
use vmctl_planner::{LeftAloneKind, Mode, Plan, StepId, StepKind};
use vmctl_state::Address;

use crate::error::{CliError, Exit};
use crate::progress;
use crate::ui::{self, DOUBTFUL, GOOD};

/// What an apply came to, in a word; the last line of `apply --json` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// There was nothing to do.
    NothingToDo,
    /// A change forbids the plan.
    Refused,
    /// Something that the plan needs is not there.
    PreflightFailed,
    /// The user did not say yes.
    Declined,
    /// All was done.
    Complete,
    /// Some of it was not done.
    Partial,
    /// The user asked to stop.
    Interrupted,
}

impl Outcome {
    /// The outcome in words, for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NothingToDo => "nothing to do",
            Self::Refused => "refused",
            Self::PreflightFailed => "the host lacks something, nothing was done",
            Self::Declined => "declined",
            Self::Complete => "complete",
            Self::Partial => "not everything could be done",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The steps that took longest, one a line; nothing if there are none.
pub(crate) fn slowest(plan: &Plan, slowest: &[(StepId, Duration)], width: usize) -> Option<String> {
    let line = |(id, took): &(StepId, Duration)| {
        let line = format!("{:>10}  {}", progress::seconds(*took), plan.graph.step(*id));
        ui::clipped(&ui::visible(&line), width)
    };
    let lines: Vec<_> = slowest.iter().map(line).collect();
    (!lines.is_empty()).then(|| format!("Longest took:\n{}", lines.join("\n")))
}

/// What the last line of `apply --json` says; without a plan, nothing was planned.
pub(crate) fn data(
    plan: Option<&Plan>,
    outcome: Outcome,
    report: &Report,
    elapsed: Duration,
    preflight: &[(Address, Failure)],
) -> Value {
    let failed: Vec<_> =
        report.failed.iter().map(|(id, failure)| json!({ "id": id, "failure": failure })).collect();
    let skipped: Vec<_> =
        report.skipped.iter().map(|(id, because)| json!({ "id": id, "because": because })).collect();
    let preflight: Vec<_> = preflight
        .iter()
        .map(|(address, failure)| json!({ "address": address, "failure": failure }))
        .collect();
    json!({
        "outcome": outcome,
        "complete": report.is_complete() && matches!(outcome, Outcome::Complete | Outcome::NothingToDo),
        "interrupted": report.interrupted,
        "failed_fast": report.failed_fast,
        "seconds": elapsed.as_secs_f64(),
        "done": report.done,
        "spared": report.spared,
        "failed": failed,
        "skipped": skipped,
        "abandoned": report.abandoned,
        "given_up": report.given_up,
        "not_begun": report.not_begun,
        "preflight": preflight,
        "next": plan.map(|plan| aftermath::next(plan, report)).unwrap_or_default(),
    })
}

/// What the report of an apply that ran comes to.
pub(crate) fn outcome_of(report: &Report) -> Outcome {
    if report.interrupted {
        Outcome::Interrupted
    } else if report.is_complete() {
        Outcome::Complete
    } else {
        Outcome::Partial
    }
}

/// What was done, what was not and why, and what to do next, unless the machines go away anyhow.
pub(crate) fn text(plan: &Plan, report: &Report, elapsed: Duration, advises: bool) -> String {
    if !report.is_complete() {
        aftermath::text(plan, report, elapsed, advises)
    } else if report.interrupted {
        format!("{DOUBTFUL}Interrupted{DOUBTFUL:#}, but all was done in {}.", progress::seconds(elapsed))
    } else {
        applied(plan, report, elapsed)
    }
}

fn applied(plan: &Plan, report: &Report, elapsed: Duration) -> String {
    if plan.options.mode == Mode::RefreshOnly {
        return format!("{GOOD}Remembered{GOOD:#} what was observed; no machine was touched.");
    }
    let (done, took) = (report.done.len(), progress::seconds(elapsed));
    let noun = if done == 1 { "step" } else { "steps" };
    let spared = match report.spared.len() {
        0 => String::new(),
        spared => format!(" ({spared} spared, by templates)"),
    };
    format!("{GOOD}Applied{GOOD:#}: {done} {noun} in {took}{spared}.")
}

/// A provisioning step that failed or was cut off may have done part of its work, so that it counts as something done;
/// in an earlier run as well.
pub(crate) fn exit_of(plan: &Plan, report: &Report) -> Exit {
    let was_cut_off = plan.left_alone().any(|(_, alone)| alone.kind == LeftAloneKind::Interrupted);
    let is_provision = |id| matches!(plan.graph.step(id).kind, StepKind::Provision(_));
    if report.interrupted {
        Exit::Interrupted
    } else if report.is_complete() && plan.left_alone().next().is_none() {
        Exit::Fine
    } else if !was_cut_off && report.done.is_empty() && !report.failed.iter().any(|(id, _)| is_provision(*id))
    {
        Exit::Error
    } else {
        Exit::Partial
    }
}

/// An apply that could not be carried on.
pub(crate) fn explain(error: &ApplyError) -> CliError {
    match error {
        ApplyError::Preflight(failures) => {
            let help = failures.iter().find_map(|(_, failure)| failure.help.clone());
            CliError::new(format!("{error}{}", each(failures)))
                .help(help.unwrap_or_else(|| "nothing was done; `vmctl doctor` checks this host".to_owned()))
        }
        ApplyError::Stale { .. } => CliError::of(error).exit(Exit::Stale),
        _ => CliError::of(error),
    }
}

/// What stands in the way of an apply, before anybody asks for it.
pub(crate) fn warn_of(obstacles: &[(Address, Failure)]) {
    if !obstacles.is_empty() {
        let help = obstacles.iter().find_map(|(_, failure)| failure.help.as_ref());
        let help = help.map(|help| format!("\n  help: {help}")).unwrap_or_default();
        ui::warn(&format!("as this host is now, `apply` would be refused{}{help}", each(obstacles)));
    }
}

/// A line for each failure and for each of its causes.
fn each(failures: &[(Address, Failure)]) -> String {
    let mut text = String::new();
    for (address, failure) in failures {
        text.push_str(&format!("\n  {address}: {}", failure.message));
        for cause in &failure.chain {
            text.push_str(&format!("\n    caused by: {cause}"));
        }
    }
    text
}
