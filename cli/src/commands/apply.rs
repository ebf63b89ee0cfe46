//! `apply`: brings the machines to what the VMFile asks for.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use vmctl_planner::apply::{ApplyError, Control, Event, Executor, Limits, Report};
use vmctl_planner::vmfile::Loaded;
use vmctl_planner::{DriftKind, Mode, Plan, PlanDocument, SavedPlan, Values, texts};
use vmctl_providers::RouterHypervisor;
use vmctl_state::{Reserve, Store, Writer};

use super::plan::{self, Goal, Look};
use crate::args::{ApplyArgs, ChecksWhen, PlanningArgs};
use crate::context::{Context, large_runtime};
use crate::error::{CliError, Exit, can_ask};
use crate::progress::{self, Progress};
use crate::summary::{self, Outcome, exit_of, explain};
use crate::ui::{self, DOUBTFUL, LABEL};
use crate::{machines, outputs, render, saved, stdin};

/// Guests that boot side by side for each core of the host. Booting is busy, but not all the time.
const BOOTS_PER_CORE: usize = 2;

/// Fewest guests that boot side by side, whatever the host.
const FEWEST_BOOTS: usize = 4;

/// Images that are copied side by side: while one is digested, the other one is read. More only make the disk seek.
const IMAGES: usize = 2;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ApplyArgs) -> Result<Exit, CliError> {
    let order = match &args.plan {
        Some(path) => Order::of_file(ctx, path)?,
        None => Order { goal: Goal::of(ctx, &args.planning)?, saved: None },
    };
    let dir = ctx.project_dir(&order.goal.project)?;
    let makes_machines = order.goal.options.mode == Mode::Normal;
    if !makes_machines && vmctl_state::project::read(&dir)?.is_none() {
        if args.json {
            summary::tell_programs(Outcome::NothingToDo, &Report::default(), Duration::ZERO, &[])?;
        }
        return Ok(plan::nothing_there(ctx));
    }
    // What makes machines can wait until there is room for them.
    let reserve = if order.goal.options.mode == Mode::Destroy { Reserve::Spend } else { Reserve::Keep };
    let mut writer = ctx.writer(&dir, "apply", &args.lock, reserve)?;
    let host = Arc::new(ctx.hypervisor(&dir)?);
    let exit = large_runtime()?.block_on(with_lock(ctx, args, &order, &mut writer, host));
    writer.set_result(match &exit {
        Ok(Exit::Fine) => "done",
        Ok(Exit::Partial) => "partly done",
        Ok(Exit::Interrupted) => "interrupted",
        Ok(_) | Err(_) => "failed",
    });
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
        if let Some(asked) = ctx.settings.project.as_ref().filter(|asked| **asked != project) {
            return Err(CliError::new(format!("this plan is for project `{project}`, not for `{asked}`"))
                .help("leave --project and VMCTL_PROJECT out: a saved plan names its own".to_owned())
                .exit(Exit::Usage));
        }
        let options = saved.plan.options.clone().into_owned();
        let mut goal =
            Goal { project, desired: None, warnings: Vec::new(), values: Values::default(), options };
        if let Some(vmfile) = saved.plan.inputs.first() {
            let Loaded { mut desired, warnings, values } =
                ctx.load_again(&vmfile.path, &goal.project, &saved.values)?;
            ctx.seal(&mut desired)?;
            goal = Goal { desired: Some(desired), warnings, values, ..goal };
        }
        let moved = saved.moved_values(&goal.kept_values(ctx)?);
        if !moved.is_empty() {
            return Err(saved::stale(&moved));
        }
        Ok(Self { goal, saved: Some(saved) })
    }

    /// The plan to carry out. One that was saved is made again from the same inputs, and must be the same.
    async fn plan(
        &self,
        ctx: &Context,
        writer: &Writer,
        host: &RouterHypervisor,
        planning: &PlanningArgs,
    ) -> Result<Plan, CliError> {
        let recorded = writer.snapshot()?;
        let Some(saved) = &self.saved else {
            let look = Look {
                refresh: !planning.no_refresh,
                checks: ChecksWhen::Skip,
                overcommit: planning.overcommit,
            };
            return Ok(self.goal.plan(ctx, writer.dir(), &recorded, host, look).await?.0);
        };
        // Before planning: a plan for another state may not even be possible.
        if let Some(moved) = saved.moved_state(recorded.lineage, recorded.serial) {
            return Err(saved::stale(&[moved]));
        }
        let mut plan = self.goal.plan_from(ctx, writer.dir(), &recorded, &saved.observed)?;
        if let Some(moved) = saved.difference(&plan) {
            return Err(saved::stale(&[moved]));
        }
        plan::find_room(ctx, &mut plan, &recorded, host, planning.overcommit)?;
        Ok(plan)
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
    let plan = order.plan(ctx, writer, &host, &args.planning).await?;
    let document = PlanDocument::from(&plan);
    if args.json {
        progress::write_event("plan", json!({ "plan": document }))?;
    } else if !ctx.options.quiet || !(args.yes || order.saved.is_some()) {
        ui::print(&render::plan(&document, ui::stdout_width()))?;
    }
    let (done, nothing) = (Duration::ZERO, Report::default());
    let end = |outcome, report: &Report, elapsed, preflight: &[_]| {
        if args.json { summary::tell_programs(outcome, report, elapsed, preflight) } else { Ok(()) }
    };
    if let Err(refused) = plan::refuse(&plan).and_then(|()| plan::refuse_shortages(&plan)) {
        end(Outcome::Refused, &nothing, done, &[])?;
        return Err(refused);
    }
    let control = Control::default();
    let (events, shown) = mpsc::unbounded_channel();
    let executor = Executor::new(Arc::clone(&host), ctx.images()?, limits(args), control.clone(), events);
    tell_left_alone(&plan);
    if plan.is_empty() {
        // Nothing to do but to close what an earlier run left open in the journal.
        let report = executor.apply(&plan, writer).await.map_err(|error| explain(&error))?;
        let told = tell_outputs(ctx, args, order, writer, &host).await;
        end(Outcome::NothingToDo, &report, done, &[])?;
        told?;
        return Ok(exit_of(&plan, &report));
    }
    if let Err(error) = executor.preflight(&plan, writer).await {
        if let ApplyError::Preflight(failures) = &error {
            end(Outcome::PreflightFailed, &nothing, done, failures)?;
        }
        return Err(explain(&error));
    }
    if order.saved.is_none() && !args.yes && !confirmed(args, order.goal.options.mode)? {
        end(Outcome::Declined, &nothing, done, &[])?;
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
    let elapsed = started.elapsed();
    if !args.json {
        summary::tell_people(ctx, &plan, &report, elapsed);
    }
    // Who interrupts wants it to end.
    let told = if report.interrupted { Ok(()) } else { tell_outputs(ctx, args, order, writer, &host).await };
    end(summary::outcome_of(&report), &report, elapsed, &[])?;
    printed.and(told)?;
    Ok(exit_of(&plan, &report))
}

/// Tells what the outputs of the VMFile come to now, if it has any.
async fn tell_outputs(
    ctx: &Context,
    args: &ApplyArgs,
    order: &Order,
    writer: &Writer,
    host: &RouterHypervisor,
) -> Result<(), CliError> {
    let makes_machines = order.goal.options.mode == Mode::Normal;
    let desired = order.goal.desired.as_ref().filter(|desired| makes_machines && !desired.outputs.is_empty());
    let Some(desired) = desired.filter(|_| args.json || !ctx.options.quiet) else { return Ok(()) };
    let machines = machines::seen(host, &order.goal.project, writer.snapshot()?).await?;
    let outputs = outputs::of(desired, &machines);
    if args.json {
        progress::write_event("outputs", json!({ "outputs": outputs::data(&outputs, false) }))
    } else {
        ui::print(&format!("\n{LABEL}Outputs{LABEL:#}:\n{}", outputs::text(&outputs)))
    }
}

/// Keeps the texts behind the digests that are about to be recorded. Returns those digests.
fn keep_texts(order: &Order, writer: &Writer) -> Result<BTreeSet<String>, CliError> {
    let Some(desired) = &order.goal.desired else { return Ok(BTreeSet::new()) };
    let texts = texts::texts(desired);
    writer.dir().keep_texts(texts.iter().map(|(digest, text)| (digest.as_str(), text.as_str())))?;
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
    let boots = (cores * BOOTS_PER_CORE).max(FEWEST_BOOTS);
    Limits { steps: args.parallelism.get(), boots, images: IMAGES }
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
fn confirmed(args: &ApplyArgs, mode: Mode) -> Result<bool, CliError> {
    if args.json || !can_ask() {
        let why = if args.json { "--json asks nothing" } else { "there is no terminal to ask" };
        return Err(CliError::new(format!("{why}, so nobody said whether to apply this plan")).help(
            "pass --yes to apply without a question, or apply a saved plan: `vmctl plan --out FILE`"
                .to_owned(),
        ));
    }
    let question = match mode {
        Mode::Normal => "Apply this plan?",
        Mode::Destroy => "Destroy all of this?",
        Mode::RefreshOnly => "Remember what is observed?",
    };
    stdin::ask(question)
}
