//! `apply`: brings the machines to what the VMFile asks for.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use vmctl_planner::apply::{ApplyError, Control, Event, Executor, Limits, Report};
use vmctl_planner::{DriftKind, Mode, Plan, PlanDocument, SavedPlan, StepKind, texts};
use vmctl_providers::RouterHypervisor;
use vmctl_state::{Store, Writer};

use super::plan::{self, Goal, Look};
use crate::args::{ApplyArgs, ChecksWhen};
use crate::context::{Context, holder, large_runtime};
use crate::error::{CliError, Exit, can_ask};
use crate::progress::{self, Progress};
use crate::ui::{self, BAD, DOUBTFUL, GOOD};
use crate::{render, saved};

/// Guests that boot side by side for each core of the host. Booting is busy, but not all the time.
const BOOTS_PER_CORE: usize = 2;

/// Fewest guests that boot side by side, whatever the host.
const FEWEST_BOOTS: usize = 4;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ApplyArgs) -> Result<Exit, CliError> {
    let order = match &args.plan {
        Some(path) => Order::of_file(ctx, path)?,
        None => Order { goal: Goal::of(ctx, &args.planning)?, saved: None },
    };
    let dir = ctx.project_dir(&order.goal.project)?;
    let makes_machines = order.goal.options.mode == Mode::Normal;
    if !makes_machines && vmctl_state::project::read(&dir)?.is_none() {
        return Ok(plan::nothing_there(ctx));
    }
    let mut writer = Writer::open(&dir, holder("apply"), plan::lineage(&dir), Duration::ZERO)?;
    let host = Arc::new(ctx.hypervisor(&dir)?);
    let exit = large_runtime()?.block_on(with_lock(ctx, args, &order, &mut writer, host));
    let closed = writer.close();
    let exit = exit?;
    closed?;
    Ok(exit)
}

/// What is to be carried out: what a goal leads to now, or a plan that was saved.
#[derive(Debug)]
struct Order {
    goal: Goal,
    saved: Option<SavedPlan>,
}

impl Order {
    /// Reads a saved plan, and the VMFile that it was made from. Nothing may have moved since.
    fn of_file(ctx: &Context, path: &Path) -> Result<Self, CliError> {
        let saved = saved::read(path)?;
        let moved = saved.moved_files(&ctx.images()?);
        if !moved.is_empty() {
            return Err(saved::stale(&moved));
        }
        let project = saved.plan.project.clone().into_owned();
        let options = saved.plan.options.clone().into_owned();
        let desired = match saved.plan.inputs.first() {
            Some(vmfile) => Some(ctx.load_again(&vmfile.path, &project)?),
            None => None,
        };
        Ok(Self { goal: Goal { project, desired, options }, saved: Some(saved) })
    }

    /// The plan to carry out. One that was saved is made again from the same inputs, and must be the same.
    async fn plan(
        &self,
        ctx: &Context,
        writer: &Writer,
        host: &RouterHypervisor,
        refresh: bool,
    ) -> Result<Plan, CliError> {
        let recorded = writer.snapshot()?;
        let Some(saved) = &self.saved else {
            let look = Look { refresh, checks: ChecksWhen::Skip };
            return Ok(self.goal.plan(ctx, writer.dir(), &recorded, host, look).await?.0);
        };
        // Before planning: a plan for another state may not even be possible.
        if let Some(moved) = saved.moved_state(recorded.lineage, recorded.serial) {
            return Err(saved::stale(&[moved]));
        }
        let plan = self.goal.plan_from(ctx, writer.dir(), &recorded, &saved.observed)?;
        match saved.difference(&plan) {
            Some(moved) => Err(saved::stale(&[moved])),
            None => Ok(plan),
        }
    }
}

/// Everything that happens while the project is ours: plan, check, ask, apply.
async fn with_lock(
    ctx: &Context,
    args: &ApplyArgs,
    order: &Order,
    writer: &mut Writer,
    host: Arc<RouterHypervisor>,
) -> Result<Exit, CliError> {
    let plan = order.plan(ctx, writer, &host, !args.planning.no_refresh).await?;
    let document = PlanDocument::from(&plan);
    if args.json {
        progress::write_line(&json!({ "format": 1, "event": "plan", "plan": document }))?;
    } else if !ctx.options.quiet || !(args.yes || order.saved.is_some()) {
        ui::print(&render::plan(&document, ui::stdout_width()))?;
    }
    plan::refuse(&document)?;
    let control = Control::default();
    let (events, shown) = mpsc::unbounded_channel();
    let executor = Executor::new(host, ctx.images()?, limits(args), control.clone(), events);
    tell_left_alone(&plan);
    if plan.is_empty() {
        // Nothing to do but to close what an earlier run left open in the journal.
        let report = executor.apply(&plan, writer).await.map_err(|error| explain(&error))?;
        return Ok(exit_of(&plan, &report));
    }
    executor.preflight(&plan, writer).await.map_err(|error| explain(&error))?;
    if order.saved.is_none() && !args.yes && !confirmed(order.goal.options.mode)? {
        progress::tell("Nothing was done.");
        return Ok(Exit::Error);
    }
    let names = keep_texts(order, writer)?;
    listen_for_interrupts(control)?;
    let started = Instant::now();
    let applies = async {
        let result = executor.apply(&plan, writer).await;
        // Ends the stream of events, and with it the printing.
        drop(executor);
        result
    };
    let shows = show(&plan, shown, Progress::new(args.json, ctx.options.quiet));
    let (result, printed) = tokio::join!(applies, shows);
    let report = result.map_err(|error| explain(&error))?;
    forget_texts(writer, names);
    if args.json {
        progress::write_line(&summary(&report, started.elapsed()))?;
    } else {
        conclude(ctx, &plan, &report, started.elapsed());
    }
    printed?;
    Ok(exit_of(&plan, &report))
}

/// Keeps the texts behind the digests that are about to be recorded. Returns those digests.
fn keep_texts(order: &Order, writer: &Writer) -> Result<BTreeSet<String>, CliError> {
    let Some(desired) = &order.goal.desired else { return Ok(BTreeSet::new()) };
    let texts = texts::texts(desired);
    writer.dir().keep_texts(texts.iter().map(|(digest, text)| (digest.as_str(), *text)))?;
    Ok(texts.into_keys().collect())
}

/// Forgets the texts that nothing names any more. They are no part of the state: if that fails, they stay.
fn forget_texts(writer: &Writer, mut kept: BTreeSet<String>) {
    let remembered = writer
        .snapshot()
        .map_err(|error| error.to_string())
        .and_then(|recorded| texts::remembered(&recorded).map_err(|error| error.to_string()));
    let forgotten = remembered.and_then(|remembered| {
        kept.extend(remembered);
        writer.dir().forget_texts_but(&kept).map_err(|error| error.to_string())
    });
    if let Err(error) = forgotten {
        tracing::warn!(%error, "texts that nobody needs any more stay");
    }
}

/// What nothing can be done to is left alone; the exit code says that not all is as desired.
fn tell_left_alone(plan: &Plan) {
    for (change, alone) in plan.left_alone() {
        let hint = if change.drift.iter().any(|drift| drift.kind == DriftKind::Unreachable) {
            ". If it hangs, end its process: the next apply starts it again"
        } else {
            ""
        };
        progress::tell(&format!(
            "{DOUBTFUL}left alone{DOUBTFUL:#}: `{}`: {}{hint}",
            change.address,
            ui::visible(&alone.reason)
        ));
    }
}

fn limits(args: &ApplyArgs) -> Limits {
    let cores = available_parallelism().map_or(1, usize::from);
    Limits { steps: args.parallelism.get(), boots: (cores * BOOTS_PER_CORE).max(FEWEST_BOOTS) }
}

/// Prints events until there are no more. A stdout that is closed ends the printing, not the apply.
async fn show(
    plan: &Plan,
    mut events: mpsc::UnboundedReceiver<Event>,
    mut progress: Progress,
) -> Result<(), CliError> {
    let mut result = Ok(());
    while let Some(event) = events.recv().await {
        if result.is_ok() {
            result = progress.show(plan, &event);
        }
    }
    progress.finish();
    result
}

/// First interrupt: start nothing new. Second: stop at once.
fn listen_for_interrupts(control: Control) -> Result<(), CliError> {
    let listen =
        |kind| signal(kind).map_err(|error| CliError::new("cannot listen for signals").because(&error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    // A terminal that goes away is no reason to leave machines half-made.
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => continue,
            }
            if control.drain.is_cancelled() {
                control.abort.cancel();
            }
            control.drain.cancel();
        }
    });
    Ok(())
}

/// Asks on the terminal. Without one there is nobody to ask.
fn confirmed(mode: Mode) -> Result<bool, CliError> {
    if !can_ask() {
        return Err(CliError::new("there is no terminal to ask whether to apply this plan").help(
            "pass --yes to apply without a question, or apply a saved plan: `vmctl plan --out FILE`"
                .to_owned(),
        ));
    }
    let question = match mode {
        Mode::Normal => "Apply this plan?",
        Mode::Destroy => "Destroy all of this?",
        Mode::RefreshOnly => "Remember what is observed?",
    };
    let mut err = ui::stderr();
    // The answer is what counts; a question that could not be printed gets none.
    let _ = write!(err, "{question} Only `yes` is accepted: ").and_then(|()| err.flush());
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CliError::new("cannot read the answer").because(&error))?;
    Ok(answer.trim() == "yes")
}

fn summary(report: &Report, elapsed: Duration) -> serde_json::Value {
    let failed: Vec<_> =
        report.failed.iter().map(|(id, failure)| json!({ "id": id, "failure": failure })).collect();
    let skipped: Vec<_> =
        report.skipped.iter().map(|(id, because)| json!({ "id": id, "because": because })).collect();
    json!({
        "format": 1,
        "event": "summary",
        "complete": report.is_complete(),
        "interrupted": report.interrupted,
        "seconds": elapsed.as_secs_f64(),
        "done": report.done,
        "failed": failed,
        "skipped": skipped,
        "abandoned": report.abandoned,
        "not-begun": report.not_begun,
    })
}

/// Says what was done and what to do next.
fn conclude(ctx: &Context, plan: &Plan, report: &Report, elapsed: Duration) {
    if report.is_complete() {
        if !ctx.options.quiet {
            let (done, took) = (report.done.len(), progress::seconds(elapsed));
            let noun = if done == 1 { "step" } else { "steps" };
            progress::tell(&format!("{GOOD}Applied{GOOD:#}: {done} {noun} in {took}."));
        }
        return;
    }
    let word = if report.interrupted { "Interrupted" } else { "Not everything could be done" };
    progress::tell(&format!(
        "{BAD}{word}{BAD:#}: {} done, {} failed, {} skipped, {} not begun, {} cut off.",
        report.done.len(),
        report.failed.len(),
        report.skipped.len(),
        report.not_begun.len(),
        report.abandoned.len()
    ));
    let name = |id| ui::visible(&plan.graph.step(id).to_string());
    for (id, failure) in &report.failed {
        progress::tell(&format!("  {BAD}failed{BAD:#}  {}: {}", name(*id), ui::visible(&failure.message)));
    }
    for (id, because) in &report.skipped {
        progress::tell(&format!(
            "  {DOUBTFUL}skipped{DOUBTFUL:#} {} (needs `{}`)",
            name(*id),
            name(*because)
        ));
    }
    for id in &report.abandoned {
        progress::tell(&format!("  {DOUBTFUL}cut off{DOUBTFUL:#} {}: its outcome is unknown", name(*id)));
    }
    progress::tell(
        "What is done is recorded. `vmctl plan` shows what is left, `vmctl apply` goes on from there, and\n\
         `vmctl log NAME` shows what a machine said.",
    );
}

/// A provisioning step that failed may have done part of its work, so that it counts as something done.
fn exit_of(plan: &Plan, report: &Report) -> Exit {
    let is_provision = |id| matches!(plan.graph.step(id).kind, StepKind::Provision(_));
    if report.interrupted {
        Exit::Interrupted
    } else if report.is_complete() && plan.left_alone().next().is_none() {
        Exit::Fine
    } else if report.done.is_empty() && !report.failed.iter().any(|(id, _)| is_provision(*id)) {
        Exit::Error
    } else {
        Exit::Partial
    }
}

fn explain(error: &ApplyError) -> CliError {
    match error {
        ApplyError::Preflight(failures) => {
            let mut text = error.to_string();
            for (address, failure) in failures {
                text.push_str(&format!("\n  {address}: {}", failure.message));
                for cause in &failure.chain {
                    text.push_str(&format!("\n    caused by: {cause}"));
                }
            }
            let help = failures.iter().find_map(|(_, failure)| failure.help.clone());
            CliError::new(text)
                .help(help.unwrap_or_else(|| "nothing was done; `vmctl doctor` checks this host".to_owned()))
        }
        ApplyError::Stale { .. } => CliError::of(error).exit(Exit::Stale),
        _ => CliError::of(error),
    }
}
