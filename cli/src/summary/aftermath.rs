//! What is left of an apply that did not do everything: on one screen what is done, failed, skipped and not begun, why,
//! and what to do next.

use std::collections::BTreeMap;
use std::time::Duration;

use vmctl_planner::apply::{Failure, Report};
use vmctl_planner::{Plan, Step, StepId, StepKind};

use crate::progress;
use crate::ui::{self, BAD, DOUBTFUL};

/// Failures, causes and pieces of advice that are told one by one; of more, the number is told.
const MOST: usize = 4;

/// Machines that one line names.
const NAMES: usize = 8;

/// Lines for what all failures say together: with everything else they fit on a screen of 50 lines.
const LINES: usize = 24;

/// The summary for people; with advice if it `advises`.
pub(super) fn text(plan: &Plan, report: &Report, elapsed: Duration, advises: bool) -> String {
    let mut lines = vec![head(report, elapsed)];
    lines.extend(failed(plan, report));
    lines.extend(skipped(plan, report));
    let told = |word: &str, ids: &[StepId], why: &str| {
        (!ids.is_empty()).then(|| format!("  {DOUBTFUL}{word}{DOUBTFUL:#} {}: {why}", machines(plan, ids)))
    };
    let why = match report.failed_fast {
        Some(id) if !report.interrupted => {
            format!("`{}` failed, and --fail-fast begins nothing new then", name(plan, id))
        }
        _ => "you asked to stop".to_owned(),
    };
    lines.extend(told("not begun", &report.not_begun, &why));
    lines.extend(told("given up", &report.given_up, "was only waited for; the next apply waits again"));
    for id in report.abandoned.iter().take(MOST) {
        let name = name(plan, *id);
        lines.push(format!("  {DOUBTFUL}cut off{DOUBTFUL:#} {name}: what became of it is unknown"));
    }
    lines.extend(more(report.abandoned.len(), "cut off"));
    if advises {
        lines.extend(next(plan, report).iter().map(|line| ui::visible(line)));
    }
    lines.join("\n")
}

fn head(report: &Report, elapsed: Duration) -> String {
    let word = if report.interrupted { "Interrupted" } else { "Not everything could be done" };
    let counts = [
        (report.spared.len(), "spared"),
        (report.failed.len(), "failed"),
        (report.skipped.len(), "skipped"),
        (report.not_begun.len(), "not begun"),
        (report.given_up.len(), "given up"),
        (report.abandoned.len(), "cut off"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: String = counts.map(|(count, what)| format!(", {count} {what}")).collect();
    let done = report.done.len();
    let noun = if done == 1 { "step" } else { "steps" };
    format!("{BAD}{word}{BAD:#} in {}: {done} {noun} done{counts}.", progress::seconds(elapsed))
}

fn failed(plan: &Plan, report: &Report) -> Vec<String> {
    let told = report.failed.len().min(MOST);
    let room = LINES / told.max(1);
    let mut lines = Vec::new();
    for (id, failure) in report.failed.iter().take(MOST) {
        let text = progress::failure_text(failure);
        let mut of_failure = text.lines();
        let first = of_failure.next().unwrap_or_default();
        lines.push(format!("  {BAD}failed{BAD:#} {}: {first}", name(plan, *id)));
        lines.extend(shortened(&of_failure.collect::<Vec<_>>(), room.saturating_sub(1)));
    }
    lines.extend(more(report.failed.len(), "failed"));
    lines
}

/// The first and the last lines where there are too many: what happened, and what was said last.
fn shortened(lines: &[&str], room: usize) -> Vec<String> {
    let indented =
        |line: &&str| if line.starts_with("    ") { (*line).to_owned() } else { format!("    {line}") };
    if lines.len() <= room {
        return lines.iter().map(indented).collect();
    }
    let first = room / 3;
    let last = room.saturating_sub(first + 1);
    let left_out = lines.len() - first - last;
    let gap = format!("    … {left_out} lines are left out here");
    let (head, tail) = (&lines[..first], &lines[lines.len() - last..]);
    head.iter().map(indented).chain([gap]).chain(tail.iter().map(indented)).collect()
}

/// What was skipped, by the step that is the root of it.
fn skipped(plan: &Plan, report: &Report) -> Vec<String> {
    let mut by_cause: BTreeMap<StepId, Vec<StepId>> = BTreeMap::new();
    for (id, because) in &report.skipped {
        by_cause.entry(*because).or_default().push(*id);
    }
    let mut lines: Vec<_> = by_cause
        .iter()
        .take(MOST)
        .map(|(cause, ids)| {
            let (machines, cause) = (machines(plan, ids), name(plan, *cause));
            format!("  {DOUBTFUL}skipped{DOUBTFUL:#} {machines}: `{cause}` failed")
        })
        .collect();
    let told: usize = by_cause.values().take(MOST).map(Vec::len).sum();
    if let left @ 1.. = report.skipped.len() - told {
        lines.push(format!("  {DOUBTFUL}skipped{DOUBTFUL:#} {left} more steps, because of other failures"));
    }
    lines
}

fn more(all: usize, word: &str) -> Option<String> {
    let left = all.saturating_sub(MOST);
    (left > 0).then(|| format!("  … {left} more {word}"))
}

/// What to do next, for people and for programs that show it to them.
pub(super) fn next(plan: &Plan, report: &Report) -> Vec<String> {
    if report.is_complete() {
        return Vec::new();
    }
    let abandoned = report.abandoned.iter().map(|id| (*id, None));
    let ended = report.failed.iter().map(|(id, failure)| (*id, Some(failure)));
    let advice: Vec<_> =
        abandoned.chain(ended).filter_map(|(id, failure)| advice(plan, id, failure)).collect();
    let left = advice.len().saturating_sub(MOST);
    let mut lines: Vec<_> = advice.into_iter().take(MOST).collect();
    if left > 0 {
        lines.push(format!("`vmctl status NAME` says of {left} more machines how to go on."));
    }
    lines.push(
        "What is done is recorded: `vmctl plan` shows what is left, and `vmctl apply` goes on from there."
            .to_owned(),
    );
    lines
}

/// What one step that did not come to a good end asks for.
fn advice(plan: &Plan, id: StepId, failure: Option<&Failure>) -> Option<String> {
    let Step { kind, address, .. } = plan.graph.step(id);
    let vm = address.name();
    match kind {
        StepKind::Provision(number) if failure.is_none_or(|failure| failure.unknown) => {
            Some(if plan.is_safe_to_rerun(id) {
                format!(
                    "`{address}`: the next apply runs step {number} again, which its VMFile says is safe."
                )
            } else {
                format!(
                    "`{address}`: look whether step {number} did its work. `vmctl apply --rerun {vm}` runs it again, \
                     `vmctl state provisioned {vm}` takes it for done."
                )
            })
        }
        StepKind::Provision(number) => Some(format!(
            "`{address}` is kept, and the next apply goes on at step {number}; `vmctl log {vm} --provision` shows what \
             it printed."
        )),
        StepKind::Ready if failure.is_some() => Some(format!(
            "`{address}` runs on for you to look at (`vmctl console {vm}`, `vmctl log {vm} --console`); the next apply \
             waits for it again."
        )),
        _ => None,
    }
}

fn name(plan: &Plan, id: StepId) -> String {
    ui::visible(&plan.graph.step(id).to_string())
}

/// The machines of steps, each once, and how many steps they are.
fn machines(plan: &Plan, ids: &[StepId]) -> String {
    let mut names: Vec<_> = ids.iter().map(|id| plan.graph.step(*id).address.to_string()).collect();
    names.dedup();
    names.sort();
    names.dedup();
    // An image has no name that says something.
    let short = |name: &String| if name.len() > 80 { format!("{name:.18}…") } else { name.clone() };
    let shown: Vec<_> = names.iter().take(NAMES).map(short).collect();
    let more = match names.len().saturating_sub(NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let steps = if ids.len() == 1 { "1 step".to_owned() } else { format!("{} steps", ids.len()) };
    format!("{}{more} ({steps})", shown.join(", "))
}
