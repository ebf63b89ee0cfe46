//! The course as a page of CI: Markdown with what came of it, what took long, and the plan.

use std::time::Duration;

use vmctl_planner::apply::Failure;
use vmctl_planner::{Plan, PlanDocument};
use vmctl_state::Address;

use super::{Course, End};
use crate::progress::seconds;
use crate::report::{self, code, plain, verbatim};
use crate::summary::Outcome;

/// Steps that have a row of their own; of more, the number is told.
const ROWS: usize = 40;

/// Failures that are told in full.
const FAILURES: usize = 10;

/// What became of `plan`, as `command` carried it out. `preflight` is what the host lacked for it.
pub(crate) fn markdown(
    command: &str,
    plan: &Plan,
    outcome: Outcome,
    course: &Course,
    preflight: &[(Address, Failure)],
) -> String {
    let document = PlanDocument::from(plan);
    let mut text = format!("### {}: {}\n\n", plain(&format!("vmctl {command}")), plain(outcome.words()));
    text.push_str(&counts(plan, course));
    text.push_str(&table(plan, course));
    let failed = course.steps.iter().filter_map(|(id, ran)| match &ran.end {
        End::Failed(failure) => Some((plan.graph.step(*id).to_string(), failure.as_ref())),
        End::Done { .. } | End::Spared | End::Skipped { .. } | End::Open => None,
    });
    let lacking = preflight.iter().map(|(address, failure)| (address.to_string(), failure));
    let failed: Vec<_> = lacking.chain(failed).collect();
    for (what, failure) in failed.iter().take(FAILURES) {
        text.push_str(&told(what, failure));
    }
    if let left @ 1.. = failed.len().saturating_sub(FAILURES) {
        text.push_str(&format!("\n{left} more failed.\n"));
    }
    format!("{text}\n{}\n", report::markdown(&report::of(&document)))
}

fn counts(plan: &Plan, course: &Course) -> String {
    let of = |word: &str| course.steps.values().filter(|ran| ran.end.word() == word).count();
    let words = ["done", "spared", "failed", "skipped", "unfinished"];
    let counts = words.iter().map(|word| (of(word), *word)).filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, word)| format!("{count} {word}")).collect();
    let counts = if counts.is_empty() { "no step ran".to_owned() } else { counts.join(", ") };
    format!(
        "Project {}: **{}** of {} steps in {}.\n",
        code(plan.project.as_str()),
        plain(&counts),
        plan.graph.len(),
        plain(&seconds(course.length()))
    )
}

/// What did not go well first, then what took longest.
fn table(plan: &Plan, course: &Course) -> String {
    let rank = |end: &End| match end {
        End::Failed(_) => 0,
        End::Open => 1,
        End::Skipped { .. } => 2,
        End::Done { .. } => 3,
        End::Spared => 4,
    };
    let mut steps: Vec<_> = course.steps.iter().map(|(id, ran)| (*id, ran, ran.length())).collect();
    steps.sort_by_key(|(id, ran, took)| (rank(&ran.end), std::cmp::Reverse(*took), *id));
    if steps.is_empty() {
        return String::new();
    }
    let mut text = "\n| Step | Result | Time |\n| --- | --- | ---: |\n".to_owned();
    for (id, ran, took) in steps.iter().take(ROWS) {
        let result = match &ran.end {
            End::Spared => plain("spared, from a template"),
            End::Skipped { because } => plain(&format!("skipped, because of {}", plan.graph.step(*because))),
            end => plain(end.word()),
        };
        let took = if took.is_zero() { String::new() } else { plain(&seconds(*took)) };
        text.push_str(&format!("| {} | {result} | {took} |\n", code(&plan.graph.step(*id).to_string())));
    }
    if let left @ 1.. = steps.len().saturating_sub(ROWS) {
        text.push_str(&format!("\n{left} more steps are not shown.\n"));
    }
    text
}

fn told(what: &str, failure: &Failure) -> String {
    let mut lines = vec![failure.message.clone()];
    lines.extend(failure.chain.iter().map(|cause| format!("  caused by: {cause}")));
    lines.extend(failure.tail.iter().map(|line| format!("  | {line}")));
    lines.extend(failure.help.iter().map(|help| format!("  help: {help}")));
    format!("\n{} failed:\n{}", code(what), verbatim(&lines))
}

impl super::Ran {
    /// How long it took; nothing if it never began.
    pub(super) fn length(&self) -> Duration {
        self.from.zip(self.to).map_or(Duration::ZERO, |(from, to)| to.saturating_sub(from))
    }
}
