//! `state history`: who changed the state, when, and what came of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use vmctl_planner::vmfile;
use vmctl_state::project::{History, history};
use vmctl_state::{Address, Ended, Holder, Outcome, Run};

use super::JSON_FORMAT;
use crate::args::StateHistoryArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::ui::{self, LABEL};

/// The journal as a program reads it.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    project: &'a str,
    /// Who works on the project now; what that one did is not in the journal yet.
    at_work: Option<&'a Holder>,
    runs: Vec<RunShown<'a>>,
    steps: Vec<StepShown<'a>>,
}

#[derive(Serialize)]
struct RunShown<'a> {
    #[serde(flatten)]
    run: &'a Run,
    /// Its steps that the journal still holds.
    steps: Counts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Counts {
    done: usize,
    failed: usize,
    abandoned: usize,
}

#[derive(Serialize)]
struct StepShown<'a> {
    run: Uuid,
    step: &'a str,
    address: &'a Address,
    instance: Uuid,
    began: Timestamp,
    ended: Timestamp,
    outcome: &'static str,
    /// What failed; null unless something did.
    message: Option<&'a str>,
}

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &StateHistoryArgs) -> Result<Exit, CliError> {
    let Some(project) = ctx.project()? else {
        ctx.note(&format!("Nothing was done yet: no {} was found and no project exists.", vmfile::FILE_NAME));
        return Ok(Exit::Fine);
    };
    let (found, at_work) = history(&ctx.project_dir(&project)?)?;
    let chosen = choose(&found, args)?;
    if args.json {
        let runs = chosen.runs.iter().map(|run| RunShown { run, steps: counts(&found.steps, run.id) });
        let document = Document {
            format: JSON_FORMAT,
            project: project.as_str(),
            at_work: at_work.as_deref(),
            runs: runs.collect(),
            steps: chosen.steps.iter().map(|step| shown(step)).collect(),
        };
        ui::print_json(&document)?;
        return Ok(Exit::Fine);
    }
    let with_steps = args.run.is_some() || args.name.is_some();
    ui::print(&text(&found, &chosen, with_steps, at_work.is_some()))?;
    if let Some(holder) = at_work {
        ctx.note(&format!("{holder} is at work; what it did is shown when it is done."));
    }
    Ok(Exit::Fine)
}

/// The runs and steps that were asked for.
struct Chosen<'a> {
    runs: Vec<&'a Run>,
    steps: Vec<&'a Ended>,
}

fn choose<'a>(found: &'a History, args: &StateHistoryArgs) -> Result<Chosen<'a>, CliError> {
    let bare = args.name.as_deref().map(|name| name.strip_prefix("vm.").unwrap_or(name));
    let is_of = |step: &Ended| {
        bare.is_none_or(|name| step.intent.address == Address::vm(name))
            && args.run.as_ref().is_none_or(|run| step.intent.run.to_string().starts_with(run.as_str()))
    };
    let steps: Vec<_> = found.steps.iter().filter(|step| is_of(step)).collect();
    let runs: Vec<_> = found
        .runs
        .iter()
        .filter(|run| args.run.as_ref().is_none_or(|wanted| run.id.to_string().starts_with(wanted.as_str())))
        .filter(|run| bare.is_none() || steps.iter().any(|step| step.intent.run == run.id))
        .collect();
    if let Some(wanted) = args.run.as_ref().filter(|_| runs.is_empty() && steps.is_empty()) {
        return Err(CliError::new(format!("the journal has no run `{wanted}`"))
            .help("`vmctl state history` lists them; the first digits are enough".to_owned()));
    }
    Ok(Chosen { runs, steps })
}

fn counts(steps: &[Ended], run: Uuid) -> Counts {
    let mut counts = Counts::default();
    for step in steps.iter().filter(|step| step.intent.run == run) {
        match step.outcome {
            Outcome::Done => counts.done += 1,
            Outcome::Failed { .. } => counts.failed += 1,
            Outcome::Abandoned => counts.abandoned += 1,
        }
    }
    counts
}

fn shown(step: &Ended) -> StepShown<'_> {
    let Ended { intent, at, outcome } = step;
    let (outcome, message) = match outcome {
        Outcome::Done => ("done", None),
        Outcome::Failed { message, .. } => ("failed", Some(message.as_str())),
        Outcome::Abandoned => ("abandoned", None),
    };
    StepShown {
        run: intent.run,
        step: &intent.step,
        address: &intent.address,
        instance: intent.instance,
        began: intent.at,
        ended: *at,
        outcome,
        message,
    }
}

fn text(found: &History, chosen: &Chosen<'_>, with_steps: bool, is_at_work: bool) -> String {
    let mut text = String::new();
    let mut by_run: BTreeMap<Uuid, Vec<&Ended>> = BTreeMap::new();
    for step in &chosen.steps {
        by_run.entry(step.intent.run).or_default().push(step);
    }
    let last = found.runs.last().map(|run| run.id);
    for run in &chosen.runs {
        let Counts { done, failed, abandoned } = counts(&found.steps, run.id);
        let result = match &run.result {
            Some(result) => result.as_str(),
            None if is_at_work && Some(run.id) == last => "at work",
            None => "died",
        };
        let steps = [(done, "done"), (failed, "failed"), (abandoned, "cut off")];
        let steps: Vec<_> =
            steps.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        let steps = if steps.is_empty() { String::new() } else { format!(" ({})", steps.join(", ")) };
        text.push_str(&format!(
            "{:.0}  {}  {}{steps}  {LABEL}{} on {}, process {}, run {}{LABEL:#}\n",
            run.began,
            ui::visible(&run.command),
            ui::visible(result),
            ui::visible(&run.user),
            ui::visible(&run.host),
            run.pid,
            short(run.id)
        ));
        if with_steps {
            by_run.remove(&run.id).unwrap_or_default().iter().for_each(|step| text.push_str(&line(step)));
        }
    }
    // Steps of runs that the journal does not know, as of a vmctl that kept none.
    if with_steps || chosen.runs.is_empty() {
        by_run.retain(|run, _| !chosen.runs.iter().any(|known| known.id == *run));
        for (run, steps) in by_run {
            text.push_str(&format!("{LABEL}run {}{LABEL:#}\n", short(run)));
            steps.iter().for_each(|step| text.push_str(&line(step)));
        }
    }
    if text.is_empty() { "Nothing was done yet.\n".to_owned() } else { text }
}

fn line(step: &Ended) -> String {
    let StepShown { step, address, ended, outcome, message, .. } = shown(step);
    let message = message.map(|message| format!(": {}", ui::visible(message))).unwrap_or_default();
    format!("  {ended:.0}  {address}  {}  {outcome}{message}\n", ui::visible(step))
}

/// The first digits of a run, which are enough to name it.
fn short(run: Uuid) -> String {
    run.simple().to_string().chars().take(8).collect()
}
