//! `apply`: brings the machines to what the VMFile asks for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Handle;
use vmctl_planner::apply::{
    ApplyError, CacheDownloads, Control, EventReceiver, Executor, Failure, Limits, Report, events,
};
use vmctl_planner::pins::{LockFile, named_urls, to_lock};
use vmctl_planner::vmfile::Loaded;
use vmctl_planner::{LeftAloneKind, Mode, Options, Plan, PlanDocument, SavedPlan, Values, texts};
use vmctl_providers::RouterHypervisor;
use vmctl_state::{Address, Reserve, Store, Writer};

use super::plan::{self, Goal, Look};
use crate::args::{ApplyArgs, CarryingArgs, ChecksWhen, PlanningArgs, RecordsArgs};
use crate::aside::{aside, heard, say};
use crate::context::{Context, large_runtime};
use crate::course::{self, Course, Files, Stream};
use crate::error::{CliError, Exit, can_ask, in_words};
use crate::files::append;
use crate::interrupts::{self, unless_asked_to_stop};
use crate::own::Own;
use crate::progress::{Progress, Words};
use crate::summary::{self, Outcome, exit_of, explain};
use crate::ui::{self, DOUBTFUL, LABEL};
use crate::{descriptors, machines, outputs, render, saved, stdin};

/// Guests that boot side by side for each core of the host. Booting is busy, but not all the time.
const BOOTS_PER_CORE: usize = 2;

/// Fewest guests that boot side by side, whatever the host.
const FEWEST_BOOTS: usize = 4;

/// Images that are downloaded side by side: enough that a slow server does not keep the line empty.
const DOWNLOADS: usize = 4;

/// Images that are downloaded from one server side by side: as one browser would, so that no mirror takes us for an
/// attack; more of them share the same line.
const DOWNLOADS_PER_HOST: usize = 2;

/// Images that are copied side by side: while one is digested, the other one is read. More only make the disk seek.
const IMAGES: usize = 2;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ApplyArgs) -> Result<Exit, CliError> {
    let order = match &args.plan {
        Some(path) => Order::of_file(ctx, path, &args.planning)?,
        None => {
            let asks = if args.yes { Asks::Nothing } else { Asks::Always };
            Order {
                look: look_of(&args.planning),
                locked: args.planning.locked,
                ..Order::new("apply", Goal::of(ctx, &args.planning)?, asks)
            }
        }
    };
    carry_out(ctx, &args.carrying, order)
}

/// Plans, asks where there is something to ask, and applies.
pub(super) fn carry_out(ctx: &Context, args: &CarryingArgs, order: Order) -> Result<Exit, CliError> {
    let dir = ctx.project_dir(&order.goal.project)?;
    let makes_machines = order.goal.options.mode == Mode::Normal;
    if !makes_machines && vmctl_state::project::read(&dir)?.is_none() {
        if args.json {
            let nothing = summary::data(None, Outcome::NothingToDo, &Report::default(), Duration::ZERO, &[]);
            Words::Event("summary", nothing).say()?;
        }
        return plan::nothing_there(ctx, &order.goal);
    }
    // What makes machines can wait until there is room for them.
    let reserve = if order.goal.options.mode == Mode::Destroy { Reserve::Spend } else { Reserve::Keep };
    let writer = ctx.writer(&dir, order.command, &args.lock, reserve)?;
    let own = if order.passes { None } else { Own::of(ctx, &order.goal.project)? };
    with_writer(ctx, args, &Order { own, ..order }, writer)
}

/// The same by somebody who has the right to write already; it is given back in the end.
pub(super) fn with_writer(
    ctx: &Context,
    args: &CarryingArgs,
    order: &Order,
    mut writer: Writer,
) -> Result<Exit, CliError> {
    let dir = ctx.project_dir(&order.goal.project)?;
    let control =
        Control { fail_fast: args.fail_fast, stop_timeout: order.stop_timeout, ..Control::default() };
    let _listening = interrupts::listen(&control)?;
    let host = Arc::new(ctx.hypervisor(&dir)?);
    let runtime = large_runtime()?;
    let exit = runtime.block_on(with_lock(ctx, args, order, &mut writer, host, &control));
    if control.drain.is_cancelled() {
        // Whatever still blocks one of its threads, nobody waits for it any more.
        runtime.shutdown_background();
    }
    writer.set_result(match &exit {
        Ok(Exit::Fine) => "done",
        Ok(Exit::Partial) => "partly done",
        Ok(Exit::Interrupted) => "interrupted",
        Ok(_) | Err(_) => "failed",
    });
    let Options { mode, targets, .. } = &order.goal.options;
    let settled = match order.own.as_ref().filter(|own| own.is_to_settle(exit.as_ref().ok())) {
        Some(own) => {
            writer.snapshot().map_err(CliError::from).and_then(|now| own.settle(*mode, targets, &now))
        }
        None => Ok(()),
    };
    let closed = writer.close();
    let exit = exit?;
    settled?;
    closed?;
    Ok(exit)
}

/// What is to be carried out: what a goal leads to now, or a plan that was saved.
#[derive(Debug)]
pub(super) struct Order {
    /// The command that was given, for the history and for who waits.
    pub(super) command: &'static str,
    pub(super) goal: Goal,
    pub(super) saved: Option<SavedPlan>,
    /// What is asked of the host while planning.
    pub(super) look: Look,
    pub(super) asks: Asks,
    /// How long a guest may take to power off; the usual time if absent.
    pub(super) stop_timeout: Option<Duration>,
    /// Whether images come only as the lock file pins them, and that file stays as it is.
    pub(super) locked: bool,
    /// Whether the plan, the outputs and advice are printed: stdout may belong to another program, and the machines may
    /// go away anyhow.
    pub(super) shows_results: bool,
    /// Whether what becomes of the machines is no word about what they are to be: `up` takes it back.
    pub(super) passes: bool,
    /// The project's own VMFile, where it is to stay true.
    pub(super) own: Option<Own>,
}

/// When a person is asked before anything is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// Never: it was agreed to already.
    Nothing,
    /// Where something is lost for good.
    ForLosses,
    /// Always.
    Always,
}

/// How an apply looks at the host: the conditions of machines do not count.
pub(super) fn look_of(planning: &PlanningArgs) -> Look {
    Look {
        refresh: !planning.no_refresh,
        checks: ChecksWhen::Skip,
        // What is pinned is what is taken, wherever its server is by now.
        upstream: false,
        overcommit: planning.overcommit,
        // It asks for itself what stands in its way.
        ahead: false,
    }
}

impl Order {
    /// What a goal leads to now.
    pub(super) fn new(command: &'static str, goal: Goal, asks: Asks) -> Self {
        let look = look_of(&PlanningArgs::default());
        Self {
            command,
            goal,
            saved: None,
            look,
            asks,
            stop_timeout: None,
            locked: false,
            shows_results: true,
            passes: false,
            own: None,
        }
    }

    /// Reads a saved plan, and the VMFile that it was made from. Nothing may have moved since.
    fn of_file(ctx: &Context, path: &Path, planning: &PlanningArgs) -> Result<Self, CliError> {
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
        let (look, locked) = (look_of(planning), planning.locked);
        Ok(Self { saved: Some(saved), look, locked, ..Self::new("apply", goal, Asks::Nothing) })
    }

    /// The plan to carry out. One that was saved is made again from the same inputs, and must be the same.
    async fn plan(
        &self,
        ctx: &Context,
        writer: &Writer,
        host: &Arc<RouterHypervisor>,
    ) -> Result<Plan, CliError> {
        let recorded = writer.snapshot()?;
        let Some(saved) = &self.saved else {
            return Ok(self.goal.plan(ctx, writer.dir(), &recorded, host, self.look).await?.0);
        };
        // Before planning: a plan for another state may not even be possible.
        if let Some(moved) = saved.moved_state(recorded.lineage, recorded.serial) {
            return Err(saved::stale(&[moved]));
        }
        let mut plan = self.goal.plan_from(ctx, writer.dir(), &recorded, &saved.observed)?;
        if let Some(moved) = saved.difference(&plan) {
            return Err(saved::stale(&[moved]));
        }
        plan::find_room(ctx, &mut plan, &recorded, host, self.look.overcommit)?;
        Ok(plan)
    }
}

/// Everything that happens while the project is ours: plan, check, ask, apply.
async fn with_lock(
    ctx: &Context,
    args: &CarryingArgs,
    order: &Order,
    writer: &mut Writer,
    host: Arc<RouterHypervisor>,
    control: &Control,
) -> Result<Exit, CliError> {
    let mut session = Session { ctx, args, order, control, stream: None };
    let planning = order.plan(ctx, writer, &host);
    let Some(plan) = unless_asked_to_stop(control, planning).await else { return session.stopped().await };
    let plan = Arc::new(plan?);
    session.open_stream(&plan)?;
    let shown = session.show(&plan).await;
    let locked = plan::refuse_unlocked(&plan, order.locked);
    if let Err(refused) =
        locked.and_then(|()| plan::refuse(&plan)).and_then(|()| plan::refuse_shortages(&plan))
    {
        session.end(&plan, Outcome::Refused, &[]).await?;
        return Err(refused);
    }
    match shown {
        // Who reads what is done went away, and what was asked for is done all the same.
        Err(error) if error.is_silent() && session.is_agreed(&plan) => {}
        shown => shown?,
    }
    let files = session.files(&plan)?;
    let (events, incoming) = events();
    let images = ctx.images()?;
    let downloads = Arc::new(CacheDownloads::new(images.clone(), ctx.settings.fetch_options()));
    let executor = Executor::new(Arc::clone(&host), images, downloads, limits(args), control.clone(), events);
    if plan.is_empty() {
        // Nothing to do but to close what an earlier run left open in the journal.
        let report = executor.apply(&plan, writer).await.map_err(|error| explain(&error))?;
        session.keep_pins(&plan, &report);
        let course = Mutex::new(Course::begin());
        let written = write(&files, &plan, &course);
        session.append_summary(&plan, Outcome::NothingToDo, &course, &[]);
        let (told, mut words) = session.outputs(writer, &host).await;
        let told = told.and(written);
        words.extend(session.summary(&plan, Outcome::NothingToDo, &report, Duration::ZERO, &[]));
        return exit_after(say(control, words).await.and(told), exit_of(&plan, &report));
    }
    match unless_asked_to_stop(control, executor.preflight(&plan, writer)).await {
        None => return session.stopped().await,
        Some(Ok(())) => {}
        Some(Err(error)) => {
            if let ApplyError::Preflight(failures) = &error {
                session.end(&plan, Outcome::PreflightFailed, failures).await?;
            }
            return Err(explain(&error));
        }
    }
    match unless_asked_to_stop(control, open_keys(ctx, &plan)).await {
        None => return session.stopped().await,
        Some(opened) => opened?,
    }
    if !session.is_agreed(&plan) {
        let asking = confirmed(args, order.goal.options.mode);
        let Some(agreed) = unless_asked_to_stop(control, asking).await else {
            return session.stopped().await;
        };
        if !agreed? {
            session.end(&plan, Outcome::Declined, &[]).await?;
            say(control, vec![Words::Err("Nothing was done.".to_owned())]).await?;
            return Ok(Exit::Error);
        }
    }
    if let Some(own) = &order.own {
        own.begin(&plan)?;
    }
    let names = keep_texts(order, writer)?;
    let started = Instant::now();
    let course = Arc::new(Mutex::new(Course::begin()));
    let progress = Progress::new(args.json, ctx.options.quiet);
    let printing = show(Arc::clone(&plan), incoming, progress, Arc::clone(&course), session.stream.clone());
    let result = executor.apply(&plan, writer).await;
    // Ends the stream of events, and with it the printing.
    drop(executor);
    let printed = heard(control, printing).await;
    let report = result.map_err(|error| explain(&error))?;
    session.keep_pins(&plan, &report);
    let elapsed = started.elapsed();
    let (mut told, mut words) = (Ok(()), Vec::new());
    // Who interrupts wants it to end.
    if !report.interrupted {
        forget_texts(writer, names);
        if let Some((failed, outputs)) = unless_asked_to_stop(control, session.outputs(writer, &host)).await {
            (told, words) = (failed, outputs);
        }
    }
    let outcome = summary::outcome_of(&report);
    let mut summary = session.summary(&plan, outcome, &report, elapsed, &[]);
    if !args.json && !ctx.options.quiet {
        let slowest = course.lock().unwrap_or_else(PoisonError::into_inner).slowest();
        summary.extend(summary::slowest(&plan, &slowest, ui::stderr_width()).map(Words::Err));
    }
    // People read the outputs below the summary; to programs, the summary is the last line.
    if args.json {
        words.append(&mut summary)
    } else {
        words.splice(0..0, summary).for_each(drop)
    }
    let printed = printed.and(say(control, words).await);
    let written = write(&files, &plan, &course);
    session.append_summary(&plan, outcome, &course, &[]);
    exit_after(printed.and(told).and(written), exit_of(&plan, &report))
}

/// Opens the keys that will be needed while nothing is done yet: later nobody might be there to give a passphrase.
async fn open_keys(ctx: &Context, plan: &Plan) -> Result<(), CliError> {
    for key in plan.login_keys() {
        ctx.settings.keyring.open(key).await?;
    }
    Ok(())
}

/// What an apply is asked for, and how it speaks.
struct Session<'a> {
    ctx: &'a Context,
    args: &'a CarryingArgs,
    order: &'a Order,
    control: &'a Control,
    /// Where events go besides.
    stream: Option<Arc<Stream>>,
}

impl Session<'_> {
    /// Opens the file that is to get events, and begins with the plan.
    fn open_stream(&mut self, plan: &Plan) -> Result<(), CliError> {
        let Some(path) = &self.args.records.events else { return Ok(()) };
        let document = PlanDocument::from(plan);
        let stream = Stream::open(&self.ctx.settings.cwd.join(path), &document)?;
        stream.word("plan", json!({ "plan": document }));
        self.stream = Some(Arc::new(stream));
        Ok(())
    }

    /// Whether nobody needs to be asked.
    fn is_agreed(&self, plan: &Plan) -> bool {
        match self.order.asks {
            Asks::Nothing => true,
            Asks::ForLosses => plan.effective().all(|change| change.losses.is_empty()),
            Asks::Always => false,
        }
    }

    /// Pins the images that came and were not pinned. Where that fails, machines are made all the same, and the next
    /// apply tries again: their records say what they were made from.
    fn keep_pins(&self, plan: &Plan, report: &Report) {
        let makes_machines = self.order.goal.options.mode == Mode::Normal;
        let desired = self.order.goal.desired.as_ref().filter(|_| makes_machines);
        let Some((desired, vmfile)) = desired.zip(desired.and_then(|desired| desired.inputs.first())) else {
            return;
        };
        if !plan.pins.is_empty() {
            self.ctx.remember_pins(&vmfile.path);
        }
        let pins = to_lock(&plan.pins, &report.fetched);
        if pins.is_empty() || self.order.locked {
            return;
        }
        let lock = LockFile::of(&vmfile.path);
        if let Err(error) = lock.write(&pins, &BTreeSet::new(), &named_urls(desired)) {
            ui::warn(&format!("images are not pinned: {}; {}", in_words(&error), error.help()));
        }
    }

    /// The files that are to tell what ran.
    fn files(&self, plan: &Plan) -> Result<Files, CliError> {
        let here = |path: &Option<PathBuf>| path.as_ref().map(|path| self.ctx.settings.cwd.join(path));
        let RecordsArgs { timeline, junit, events: _, summary: _ } = &self.args.records;
        Files::open(here(timeline).as_ref(), here(junit).as_ref(), &PlanDocument::from(plan))
    }

    /// Appends what became of the plan to the page that was asked for. That it cannot be written fails nothing: what was
    /// done is done.
    fn append_summary(
        &self,
        plan: &Plan,
        outcome: Outcome,
        course: &Mutex<Course>,
        preflight: &[(Address, Failure)],
    ) {
        let Self { ctx, args, order, .. } = self;
        // What a run removes in the end is no news.
        let is_news = order.shows_results || order.goal.options.mode == Mode::Normal;
        let asked = args.records.summary.as_ref().map(|path| ctx.settings.cwd.join(path));
        let Some(path) = asked.or_else(|| ctx.settings.step_summary.clone()).filter(|_| is_news) else {
            return;
        };
        let mut course = course.lock().unwrap_or_else(PoisonError::into_inner);
        course.end();
        let text = course::markdown(order.command, plan, outcome, &course, preflight);
        if let Err(error) = append(&path, &text) {
            ui::warn(&format!("`{}` does not get the summary: {error}", path.display()));
        }
    }

    async fn show(&self, plan: &Plan) -> Result<(), CliError> {
        let document = PlanDocument::from(plan);
        let mut words = Vec::new();
        if self.args.json {
            words.push(Words::Event("plan", json!({ "plan": document })));
        } else if self.order.shows_results && (!self.ctx.options.quiet || !self.is_agreed(plan)) {
            words.push(Words::Out(render::plan(&document, ui::stdout_width())));
        }
        words.extend(left_alone(plan).map(Words::Err));
        say(self.control, words).await
    }

    /// What the report comes to, for people or for programs.
    fn summary(
        &self,
        plan: &Plan,
        outcome: Outcome,
        report: &Report,
        elapsed: Duration,
        preflight: &[(Address, Failure)],
    ) -> Vec<Words> {
        let data = || summary::data(Some(plan), outcome, report, elapsed, preflight);
        if let Some(stream) = &self.stream {
            stream.word("summary", data());
        }
        if self.args.json {
            return vec![Words::Event("summary", data())];
        }
        let has_run = matches!(outcome, Outcome::Complete | Outcome::Partial | Outcome::Interrupted);
        if !has_run || (self.ctx.options.quiet && report.is_complete()) {
            return Vec::new();
        }
        vec![Words::Err(summary::text(plan, report, elapsed, self.order.shows_results))]
    }

    /// Says that it ends before anything was done.
    async fn end(
        &self,
        plan: &Plan,
        outcome: Outcome,
        preflight: &[(Address, Failure)],
    ) -> Result<(), CliError> {
        let words = self.summary(plan, outcome, &Report::default(), Duration::ZERO, preflight);
        self.append_summary(plan, outcome, &Mutex::new(Course::begin()), preflight);
        say(self.control, words).await
    }

    /// The user asked to stop before anything was done.
    async fn stopped(&self) -> Result<Exit, CliError> {
        let report = Report { interrupted: true, ..Report::default() };
        let words = if self.args.json {
            Words::Event("summary", summary::data(None, Outcome::Interrupted, &report, Duration::ZERO, &[]))
        } else {
            Words::Err(format!("{DOUBTFUL}Interrupted{DOUBTFUL:#}: nothing was done."))
        };
        exit_after(say(self.control, vec![words]).await, Exit::Interrupted)
    }

    /// What the outputs of the VMFile come to now, if it has any.
    async fn outputs(
        &self,
        writer: &Writer,
        host: &Arc<RouterHypervisor>,
    ) -> (Result<(), CliError>, Vec<Words>) {
        let Self { ctx, args, order, .. } = self;
        let makes_machines = order.goal.options.mode == Mode::Normal && order.shows_results;
        let desired =
            order.goal.desired.as_ref().filter(|desired| makes_machines && !desired.outputs.is_empty());
        let Some(desired) = desired.filter(|_| args.json || !ctx.options.quiet) else {
            return (Ok(()), vec![]);
        };
        let seen = async { machines::seen(host, &order.goal.project, writer.snapshot()?).await };
        match seen.await {
            Err(error) => (Err(error), Vec::new()),
            Ok(machines) => {
                let outputs = outputs::of(desired, &machines);
                if let Some(stream) = &self.stream {
                    stream.word("outputs", json!({ "outputs": outputs::data(&outputs, false) }));
                }
                let words = if args.json {
                    Words::Event("outputs", json!({ "outputs": outputs::data(&outputs, false) }))
                } else {
                    Words::Out(format!("\n{LABEL}Outputs{LABEL:#}:\n{}", outputs::text(&outputs)))
                };
                (Ok(()), vec![words])
            }
        }
    }
}

/// Writes the files that were asked for.
fn write(files: &Files, plan: &Plan, course: &Mutex<Course>) -> Result<(), CliError> {
    let mut course = course.lock().unwrap_or_else(PoisonError::into_inner);
    course.end();
    files.write(plan, &course)
}

/// How an apply ends: what it did counts for more than what could be said of it.
fn exit_after(said: Result<(), CliError>, exit: Exit) -> Result<Exit, CliError> {
    match said {
        Err(error) if exit == Exit::Fine && !error.is_silent() => Err(error),
        _ => Ok(exit),
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
fn left_alone(plan: &Plan) -> impl Iterator<Item = String> {
    plan.left_alone().map(|(change, alone)| {
        let hint = match alone.kind {
            LeftAloneKind::Unreachable => ". If it hangs, end its process: the next apply starts it again",
            LeftAloneKind::Elsewhere
            | LeftAloneKind::Damaged
            | LeftAloneKind::DiskFull
            | LeftAloneKind::Interrupted
            | LeftAloneKind::Dependency => "",
        };
        let reason = ui::visible(&alone.reason);
        format!("{DOUBTFUL}left alone{DOUBTFUL:#}: `{}`: {reason}{hint}", change.address)
    })
}

fn limits(args: &CarryingArgs) -> Limits {
    let cores = available_parallelism().map_or(1, usize::from);
    let boots = (cores * BOOTS_PER_CORE).max(FEWEST_BOOTS);
    let (asked, descriptors) = (args.parallelism.get(), descriptors::raise());
    let steps = descriptors::steps(asked, descriptors);
    if steps < asked {
        ui::warn(&format!(
            "only {steps} steps run at once: this process may have {descriptors} files open (`ulimit -Hn`)"
        ));
    }
    Limits { steps, boots, images: IMAGES, downloads: DOWNLOADS, downloads_per_host: DOWNLOADS_PER_HOST }
}

/// Prints events until there are no more. A stdout that is closed ends the printing, not the apply.
///
/// Printing has a thread of its own: a pipe that nobody reads, or a terminal that was stopped, blocks it, and nothing
/// that an apply does.
fn show(
    plan: Arc<Plan>,
    mut events: EventReceiver,
    mut progress: Progress,
    course: Arc<Mutex<Course>>,
    stream: Option<Arc<Stream>>,
) -> impl Future<Output = Result<(), CliError>> {
    let runtime = Handle::current();
    let printing = aside(move || {
        let mut result = Ok(());
        while let Some(event) = runtime.block_on(events.recv()) {
            course.lock().unwrap_or_else(PoisonError::into_inner).note(&event);
            if let Some(stream) = &stream {
                stream.event(&plan, &event);
            }
            if result.is_ok() {
                result = progress.show(&plan, &event);
            }
        }
        progress.finish();
        result
    });
    async move { printing.await? }
}

/// Asks on the terminal. Without one there is nobody to ask.
async fn confirmed(args: &CarryingArgs, mode: Mode) -> Result<bool, CliError> {
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
        Mode::Provision => "Run these steps?",
        Mode::Turn(_) => "Do this?",
    };
    aside(move || stdin::ask(question)).await?
}
