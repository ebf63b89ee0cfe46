//! `apply`: brings the machines to what the VMFile asks for.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;
use vmctl_planner::apply::{ApplyError, Control, Event, Executor, Limits, Report};
use vmctl_planner::{Plan, PlanDocument, StepKind};
use vmctl_providers::RouterHypervisor;
use vmctl_state::{Store, Writer};

use super::plan::{self, Goal};
use crate::args::ApplyArgs;
use crate::context::{Context, holder, large_runtime};
use crate::error::{CliError, Exit, can_ask};
use crate::progress::{self, Progress};
use crate::render;
use crate::ui::{self, BAD, DOUBTFUL, GOOD};

/// Guests that boot side by side for each core of the host. Booting is busy, but not all the time.
const BOOTS_PER_CORE: usize = 2;

/// Fewest guests that boot side by side, whatever the host.
const FEWEST_BOOTS: usize = 4;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ApplyArgs) -> Result<Exit, CliError> {
    let goal = Goal::of(ctx, args.destroy)?;
    let dir = ctx.project_dir(&goal.project)?;
    if goal.desired.is_none() && vmctl_state::project::read(&dir)?.is_none() {
        return Ok(plan::nothing_there(ctx));
    }
    let mut writer = Writer::open(&dir, holder("apply"), Uuid::new_v4(), Duration::ZERO)?;
    let host = Arc::new(ctx.hypervisor(&dir)?);
    let exit = large_runtime()?.block_on(with_lock(ctx, args, &goal, &mut writer, host));
    let closed = writer.close();
    let exit = exit?;
    closed?;
    Ok(exit)
}

/// Everything that happens while the project is ours: plan, check, ask, apply.
async fn with_lock(
    ctx: &Context,
    args: &ApplyArgs,
    goal: &Goal,
    writer: &mut Writer,
    host: Arc<RouterHypervisor>,
) -> Result<Exit, CliError> {
    let plan = plan::make(ctx, goal, &writer.snapshot()?, &host, !args.no_refresh).await?;
    if args.json {
        progress::write_line(&json!({ "format": 1, "event": "plan", "plan": PlanDocument::from(&plan) }))?;
    } else {
        ui::print(&render::plan(&plan))?;
    }
    let control = Control::default();
    let (events, shown) = mpsc::unbounded_channel();
    let executor = Executor::new(host, ctx.images()?, limits(args), control.clone(), events);
    tell_unreachable(&plan);
    if plan.is_empty() {
        // Nothing to do but to close what an earlier run left open in the journal.
        let report = executor.apply(&plan, writer).await.map_err(|error| explain(&error))?;
        return Ok(exit_of(&plan, &report));
    }
    executor.preflight(&plan, writer).await.map_err(|error| explain(&error))?;
    if !args.yes && !confirmed(goal.desired.is_none())? {
        progress::tell("Nothing was done.");
        return Ok(Exit::Error);
    }
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
    if args.json {
        progress::write_line(&summary(&report, started.elapsed()))?;
    } else {
        conclude(ctx, &plan, &report, started.elapsed());
    }
    printed?;
    Ok(exit_of(&plan, &report))
}

/// What nobody can ask is left alone; the plan shows why, and the exit code says that not all is as desired.
fn tell_unreachable(plan: &Plan) {
    for address in &plan.unreachable {
        progress::tell(&format!(
            "{DOUBTFUL}left alone{DOUBTFUL:#}: `{address}` cannot be asked; nothing is done to it, nor to what depends \
             on it. If it hangs, end its process: the next apply starts it again"
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
fn confirmed(destroy: bool) -> Result<bool, CliError> {
    if !can_ask() {
        return Err(CliError::new("there is no terminal to ask whether to apply this plan")
            .help("pass --yes to apply without a question".to_owned()));
    }
    let question = if destroy { "Destroy all of this?" } else { "Apply this plan?" };
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
    } else if report.is_complete() && plan.unreachable.is_empty() {
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
