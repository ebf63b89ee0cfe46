//! The one owner of records: takes the ends of steps, commits, and lets the next steps begin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet, block_in_place};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vmctl_providers::image::{FetchPhase, FetchProgress, Fetched};
use vmctl_providers::provision::Rerun;
use vmctl_providers::{BackendTag, ErrorKind, Machine, Secrets, VmHandle};
use vmctl_state::{Address, Entry, Intent, OpId, Outcome, Record, Snapshot, Store};

use super::dispatch::{Dispatcher, Status};
use super::downloads::Throttle;
use super::effect::{self, Effect, Host, Product, Reach};
use super::executor::{Control, Executor};
use super::gate::{Gate, Held, Moment};
use super::notes::{NotedAt, Notes};
use super::outcome::{ApplyError, Event, Failure, Report};
use super::records;
use super::retries::{Pause, Retries};
use crate::failpoints::{self, Edge};
use crate::graph::StepId;
use crate::pins::Locked;
use crate::plan::{Bookkeeping, Plan, PlannedImage};
use crate::recorded::{cut_off, handle_of};
use crate::step::{Step, StepKind};
use crate::target::Target;

/// How long readers in other processes may see an old state: well within the promised second.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(500);

/// Lines of guest output on their way from a step to the events, per step. Who takes them never waits, so that a few do.
const OUTPUT_BACKLOG: usize = 16;

/// Carries out `plan`, which was made for `snapshot`, as [`Executor::apply`] says.
pub(super) async fn carry_out<H: Host>(
    executor: &Executor<H>,
    plan: &Plan,
    snapshot: Snapshot,
    store: &mut dyn Store,
) -> Result<Report, ApplyError> {
    let mut run = Run {
        executor,
        plan,
        id: store.run().unwrap_or_else(Uuid::new_v4),
        next_op: snapshot.next_op.0,
        at: NotedAt { lineage: snapshot.lineage, serial: snapshot.serial },
        notes: Notes::default(),
        ops: BTreeMap::new(),
        records: snapshot.records,
        pending: Vec::new(),
        untold: Vec::new(),
        dispatcher: Dispatcher::new(&plan.graph, executor.limits, |id| plan.server_of(id))?,
        completed: BTreeMap::new(),
        gate: Gate::default(),
        held: Vec::new(),
        tasks: JoinSet::new(),
        task_steps: BTreeMap::new(),
        report: Report::default(),
        recorded: 0,
        waiting: CancellationToken::new(),
        retries: Retries::default(),
    };
    run.close_what_a_dead_run_left(&snapshot.open);
    if store.follows_a_crash() {
        run.records.keys().for_each(|address| run.notes.behind(address));
    }
    run.keep_books();
    run.drive(store).await
}

type Ended = (StepId, Duration, End);

/// How the work of a step came to its end.
enum End {
    Done(Product),
    Failed(Box<Failure>),
    /// It only waited, and was told not to.
    GivenUp,
}

/// One apply under way.
struct Run<'a, H> {
    executor: &'a Executor<H>,
    plan: &'a Plan,
    id: Uuid,
    next_op: u64,
    /// Where the state is after the last commit.
    at: NotedAt,
    notes: Notes,
    ops: BTreeMap<StepId, OpId>,
    records: BTreeMap<Address, Record>,
    /// Targets whose images came from servers, with those images.
    completed: BTreeMap<Address, Target>,
    /// What the next commit will hold.
    pending: Vec<Entry>,
    /// What is told once that commit is durable.
    untold: Vec<Event>,
    dispatcher: Dispatcher,
    gate: Gate,
    /// Starts that wait for memory and of which nobody was told yet.
    held: Vec<Held>,
    tasks: JoinSet<Ended>,
    task_steps: BTreeMap<tokio::task::Id, StepId>,
    report: Report,
    /// How many of the report's done steps are durable.
    recorded: usize,
    /// Ends the waits that change nothing.
    waiting: CancellationToken,
    retries: Retries,
}

impl<H: Host> Run<'_, H> {
    /// What an earlier run left open was taken into account by the plan; it is closed with the first commit. That the
    /// outcome of a provisioning step is unknown stays in the record, whether or not this plan is about its machine.
    fn close_what_a_dead_run_left(&mut self, open: &[Intent]) {
        for intent in open {
            self.pending.push(Entry::End { op: intent.op, outcome: Outcome::Abandoned });
            let Some(cut_off) = cut_off(intent) else { continue };
            let record = self.records.values().find(|record| record.instance == intent.instance).cloned();
            if let Some(record) = record {
                let updated = Timestamp::now();
                self.put(Record { interrupted: Some(cut_off), provision_failed: None, updated, ..record });
            }
        }
    }

    /// Takes over what changes in the record before any step; it is durable with the first commit.
    fn keep_books(&mut self) {
        let updated = Timestamp::now();
        for entry in &self.plan.bookkeeping {
            match entry {
                Bookkeeping::Move { from, to } => {
                    if let Some(record) = self.records.remove(from) {
                        self.pending.push(Entry::Remove(from.clone()));
                        self.put(Record { address: to.clone(), updated, ..record });
                    }
                }
                Bookkeeping::Put(record) => self.put(Record { updated, ..(**record).clone() }),
                Bookkeeping::Remove(address) => {
                    self.records.remove(address);
                    self.pending.push(Entry::Remove(address.clone()));
                }
            }
        }
    }

    async fn drive(mut self, store: &mut dyn Store) -> Result<Report, ApplyError> {
        let control = self.executor.control.clone();
        let mut publish = tokio::time::interval(PUBLISH_INTERVAL);
        // After a stall, once is enough.
        publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fatal = None;
        loop {
            if let Err(error) = self.advance(store) {
                // Nothing new without a journal; what runs is finished, and its end is offered once more.
                self.begin_nothing_new();
                fatal.get_or_insert(error);
            }
            if self.dispatcher.running() == 0 {
                break;
            }
            tokio::select! {
                biased;
                () = control.abort.cancelled() => {
                    self.abandon();
                    break;
                }
                () = control.drain.cancelled(), if !self.report.interrupted => self.interrupt(),
                Some(due) = self.retries.due() => self.retries.again.extend(due),
                // Before the ends of steps, of which there may be ever more: readers do not wait for them.
                _ = publish.tick() => {
                    if let Err(error) = block_in_place(|| store.publish()) {
                        // The commits are durable; readers see an older state until the next try.
                        tracing::warn!(%error, "cannot publish the state to readers");
                    }
                    self.catch_up_notes();
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.ended(ended);
                    while let Some(ended) = self.tasks.try_join_next_with_id() {
                        self.ended(ended);
                    }
                }
            }
        }
        self.commit(store)?;
        self.finish_notes(store, &control).await;
        for (number, status) in self.dispatcher.status().iter().enumerate() {
            if *status == Status::Waiting {
                self.report.not_begun.push(StepId(number));
            }
        }
        self.report.not_begun.sort_unstable();
        match fatal {
            Some(error) => Err(error),
            None => Ok(self.report),
        }
    }

    /// Commits what ended together with what begins, then lets it begin.
    fn advance(&mut self, store: &mut dyn Store) -> Result<(), ApplyError> {
        if self.executor.control.drain.is_cancelled() && !self.report.interrupted {
            self.interrupt();
        }
        let mut effects = Vec::new();
        loop {
            let mut begun = self.take();
            begun.extend(self.retries.take());
            if begun.is_empty() {
                break;
            }
            for id in begun {
                match self.begin(id) {
                    Ok(effect) => effects.push((id, effect)),
                    Err(failure) => self.fail(id, *failure),
                }
            }
        }
        if let Err(error) = self.commit(store) {
            // Announced and not durable: these steps are not begun after all.
            for (id, _) in effects {
                self.end(id, Outcome::Abandoned);
                self.dispatcher.failed(id);
            }
            return Err(error);
        }
        for (id, effect) in effects {
            self.spawn(id, effect);
        }
        for Held { id, needed, available } in std::mem::take(&mut self.held) {
            self.tell(Event::Throttled { id, needed, available });
        }
        Ok(())
    }

    /// What may begin now: within the limits, and while there is memory for starts. At most one boot at a time, since
    /// each changes what is left for the next one.
    fn take(&mut self) -> Vec<StepId> {
        let next = self.dispatcher.next_boot().map_or(Ok(()), |id| {
            let moment = Moment { host: &*self.executor.host, records: &self.records };
            self.gate.admits(id, self.plan.graph.step(id), hardware(self.plan, id), &moment)
        });
        let one_more = (self.dispatcher.boots() + 1).min(self.executor.limits.boots.max(1));
        self.dispatcher.set_boots(if next.is_ok() { one_more } else { self.dispatcher.boots() });
        let mut begun = self.dispatcher.take();
        if begun.is_empty() && self.dispatcher.running() == 0 {
            // Nothing goes on that could make room.
            self.dispatcher.set_boots(one_more);
            begun = self.dispatcher.take();
        }
        for id in &begun {
            let step = self.plan.graph.step(*id);
            self.gate.began(*id, step, hardware(self.plan, *id), &*self.executor.host);
        }
        self.held.extend(next.err().flatten());
        begun
    }

    fn commit(&mut self, store: &mut dyn Store) -> Result<(), ApplyError> {
        if !self.pending.is_empty() {
            self.at.serial = block_in_place(|| store.commit(&self.pending))?;
            self.pending.clear();
        }
        for event in std::mem::take(&mut self.untold) {
            self.tell(event);
        }
        let durable = self.recorded..self.report.done.len();
        self.recorded = durable.end;
        for id in &self.report.done[durable] {
            failpoints::pass_commit(self.plan.graph.step(*id).kind)?;
        }
        Ok(())
    }

    /// The user asked to stop: what waits for nothing but time and a guest ends, the rest goes on to its end.
    fn interrupt(&mut self) {
        self.report.interrupted = true;
        self.begin_nothing_new();
        let is_awaited = |id: &StepId| !self.may_be_given_up(*id);
        let awaited = self.task_steps.values().copied().filter(is_awaited).collect();
        self.tell(Event::Draining { awaited });
    }

    fn begin_nothing_new(&mut self) {
        self.dispatcher.drain();
        self.waiting.cancel();
        for (id, failure) in self.retries.stop() {
            self.give_up(id, failure);
        }
    }

    /// Announces a step and gathers what it needs.
    fn begin(&mut self, id: StepId) -> Result<Effect, Box<Failure>> {
        let step = self.plan.graph.step(id).clone();
        failpoints::pass(step.kind, Edge::BeforeIntent).map_err(|error| Failure::from(&*error))?;
        let now = Timestamp::now();
        let target = self.target(&step.address);
        let record = self.records.get(&step.address);
        let expected = match (step.kind, target) {
            (StepKind::Prepare, Some(target)) => Some(
                self.executor.host.handle(&target.spec).map_err(|error| Box::new(Failure::from(&error)))?,
            ),
            _ => None,
        };
        let changed = records::before(&step, record, target, expected.as_ref(), now);
        let effect = self.effect(&step).map_err(|error| {
            Box::new(Failure {
                kind: "bug".to_owned(),
                message: error.to_string(),
                chain: Vec::new(),
                help: None,
                tail: Vec::new(),
                unknown: false,
            })
        })?;
        let detail = match step.kind {
            StepKind::Provision(number) => {
                let planned = target.and_then(|target| target.provision.get(number - 1));
                json!({
                    "number": number,
                    "label": step.label,
                    "digest": planned.map(|step| step.digest.to_string()),
                })
            }
            _ => json!({}),
        };
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.ops.insert(id, op);
        self.pending.push(Entry::Begin(Intent {
            op,
            run: self.id,
            step: step.kind.name().to_owned(),
            address: step.address.clone(),
            instance: step.instance.0,
            at: now,
            detail,
        }));
        if let Some(record) = changed {
            self.put(record);
        }
        Ok(effect)
    }

    fn effect(&self, step: &Step) -> Result<Effect, ApplyError> {
        let unknown = || ApplyError::Unknown(step.clone());
        let target = || self.target(&step.address).ok_or_else(unknown);
        let handle = || -> Result<Box<VmHandle>, ApplyError> {
            let record = self.records.get(&step.address).ok_or_else(unknown)?;
            handle_of(record)?.map(Box::new).ok_or_else(unknown)
        };
        Ok(match step.kind {
            StepKind::FetchImage => {
                Effect::FetchImage(self.plan.images.get(&step.address).ok_or_else(unknown)?.clone())
            }
            StepKind::Prepare => Effect::Prepare(Box::new(target()?.spec.clone())),
            StepKind::Update if target()?.only_remembered => Effect::Remember,
            StepKind::Update => Effect::Update(handle()?, Box::new(target()?.spec.clone())),
            StepKind::Start => Effect::Start(handle()?),
            StepKind::Resume => Effect::Resume(handle()?),
            StepKind::Ready => Effect::Ready(handle()?, target()?.ready.clone()),
            StepKind::Provision(number) => {
                let provision = target()?.provision.get(number - 1).ok_or_else(unknown)?;
                Effect::Provision(handle()?, Box::new(provision.clone()))
            }
            StepKind::Suspend => Effect::Suspend(handle()?),
            StepKind::Stop => Effect::Stop(handle()?),
            StepKind::Destroy => match self.plan.volumes.get(&step.address) {
                Some(volume) => Effect::RemoveVolume(volume.clone()),
                None => Effect::Destroy(handle()?),
            },
            StepKind::Forget => Effect::Forget(handle()?),
        })
    }

    fn spawn(&mut self, id: StepId, effect: Effect) {
        self.tell(Event::Started(id));
        let host = Arc::clone(&self.executor.host);
        let images = self.executor.images.clone();
        let downloads = Arc::clone(&self.executor.downloads);
        let may_be_given_up = self.may_be_given_up(id);
        let secrets = self.plan.secrets.clone();
        let (output, mut lines) = mpsc::channel(OUTPUT_BACKLOG);
        let events = self.executor.events.clone();
        let Step { address, kind, .. } = self.plan.graph.step(id).clone();
        let waiting = self.waiting.clone();
        let stop_timeout = self.executor.control.stop_timeout;
        let task = self.tasks.spawn(async move {
            let started = Instant::now();
            let throttle = Throttle::default();
            let progress = |progress: FetchProgress| {
                if throttle.lets_through(&progress, Instant::now()) {
                    events.send(Event::Progress { id, progress: hidden(progress, &secrets) });
                }
            };
            let work = async {
                failpoints::pass(kind, Edge::AfterIntent).map_err(|error| Failure::from(&*error))?;
                let reach = Reach {
                    images: &images,
                    downloads: &*downloads,
                    progress: &progress,
                    cancel: &waiting,
                    output: &output,
                    stop_timeout,
                };
                let result = effect::run(&*host, effect, reach).await;
                drop(output);
                failpoints::pass(kind, Edge::AfterEffect).map_err(|error| Failure::of_begun(kind, &error))?;
                result.map_err(|error| Failure::from(&error))
            };
            let work = async {
                tokio::select! {
                    result = work => match result {
                        Ok(product) => End::Done(product),
                        // It was told to end; why it says that it did is of no interest.
                        Err(_) if may_be_given_up && waiting.is_cancelled() => End::GivenUp,
                        Err(failure) => End::Failed(Box::new(failure)),
                    },
                    () = waiting.cancelled(), if kind == StepKind::Ready => End::GivenUp,
                }
            };
            let forward = async {
                while let Some(line) = lines.recv().await {
                    events.send(Event::Output { id, address: address.clone(), line });
                }
            };
            let (end, ()) = tokio::join!(work, forward);
            (id, started.elapsed(), end)
        });
        self.task_steps.insert(task.id(), id);
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), JoinError>) {
        match ended {
            Ok((task, (id, elapsed, end))) => {
                self.task_steps.remove(&task);
                match end {
                    End::Done(product) => self.succeed(id, elapsed, product),
                    End::Failed(failure) => self.fail(id, *failure),
                    End::GivenUp => self.wait_no_more(id),
                }
            }
            Err(error) => {
                if let Some(id) = self.task_steps.remove(&error.id()) {
                    self.fail(id, Failure::panicked(error.to_string()));
                }
            }
        }
    }

    fn succeed(&mut self, id: StepId, elapsed: Duration, product: Product) {
        let step = self.plan.graph.step(id);
        if let Err(error) = failpoints::pass(step.kind, Edge::BeforeRecord) {
            return self.fail(id, Failure::of_begun(step.kind, &error));
        }
        self.retries.forget(id);
        let handle = match product {
            Product::Machine(handle) => handle,
            Product::Image(fetched) => {
                self.take_in(id, *fetched);
                None
            }
        };
        let target = self.target(&step.address);
        if let Some(record) = self.records.get(&step.address) {
            match records::after(step, record, target, handle.as_deref(), Timestamp::now()) {
                Some(record) => self.put(record),
                None => {
                    self.records.remove(&step.address);
                    self.pending.push(Entry::Remove(step.address.clone()));
                }
            }
        }
        self.end(id, Outcome::Done);
        self.leave_gate(id, true);
        self.dispatcher.done(id);
        self.report.done.push(id);
        let note = handle.and_then(|handle| handle.forced_stop).filter(|_| step.kind == StepKind::Stop);
        let note = note.map(|how| format!("the guest did not heed its power button; ended by {how}"));
        // What is told to be done is durable.
        self.untold.push(Event::Done { id, elapsed, note });
    }

    /// What a step aims at, with its image if that came from a server.
    fn target(&self, address: &Address) -> Option<&Target> {
        self.completed.get(address).or_else(|| self.plan.targets.get(address))
    }

    /// Whether ending the step in the middle changes nothing: it only waits, or what it brought so far is kept.
    fn may_be_given_up(&self, id: StepId) -> bool {
        self.plan.graph.step(id).kind == StepKind::Ready || self.plan.is_download(id)
    }

    /// An image came: from here on it is known what machines of it are made from.
    fn take_in(&mut self, id: StepId, fetched: Fetched) {
        let address = &self.plan.graph.step(id).address;
        let waiting = self.plan.targets.iter().filter(|(_, target)| target.image.as_ref() == Some(address));
        let completed = waiting.map(|(machine, target)| (machine.clone(), target.with_image(&fetched)));
        self.completed.extend(completed);
        if let Some(PlannedImage::Remote(fetch)) = self.plan.images.get(address) {
            let Fetched { sha256, upstream, identity: image, .. } = fetched;
            self.report.fetched.insert(fetch.shown.clone(), Locked { sha256, upstream, image });
        }
    }

    fn fail(&mut self, id: StepId, failure: Failure) {
        let failure = failure.hidden(&self.plan.secrets);
        self.remember_failure(id, &failure.message, failure.unknown);
        self.end(id, failure.outcome());
        let allowed = if self.waiting.is_cancelled() { 0 } else { self.retries_of(id, &failure) };
        match self.retries.schedule(id, allowed, &failure) {
            Some(Pause { attempt, after }) => {
                self.tell(Event::Retrying { id, failure, attempt, of: allowed + 1, after });
            }
            None => self.give_up(id, failure),
        }
    }

    /// How often a step that failed so may be tried again in this apply: only where its author said that it is safe to
    /// run again, and only what failed in the guest. What is wrong with the host or with vmctl stays wrong.
    fn retries_of(&self, id: StepId, failure: &Failure) -> u8 {
        let step = self.plan.graph.step(id);
        let StepKind::Provision(number) = step.kind else { return 0 };
        let is_of_the_guest =
            [ErrorKind::Guest, ErrorKind::Timeout].iter().any(|kind| kind.as_str() == failure.kind);
        let target = self.plan.targets.get(&step.address).filter(|_| is_of_the_guest);
        let options = target.and_then(|target| target.provision.get(number - 1)).map(|step| &step.options);
        options.filter(|options| options.rerun == Rerun::Safe).map_or(0, |options| options.retries)
    }

    /// A step failed for good: what waits for it is skipped.
    fn give_up(&mut self, id: StepId, failure: Failure) {
        self.leave_gate(id, false);
        self.report.failed.push((id, failure.clone()));
        self.tell(Event::Failed { id, failure });
        for skipped in self.dispatcher.failed(id) {
            self.leave_gate(skipped, false);
            self.report.skipped.push((skipped, id));
            self.tell(Event::Skipped { id: skipped, because: id });
        }
        if self.executor.control.fail_fast && self.report.failed_fast.is_none() {
            self.report.failed_fast = Some(id);
            self.dispatcher.drain();
        }
    }

    /// A wait that changes nothing was ended: the next apply waits again, and what comes after it is not begun.
    fn wait_no_more(&mut self, id: StepId) {
        self.end(id, Outcome::Abandoned);
        self.report.given_up.push(id);
        self.tell(Event::GivenUp(id));
        self.report.not_begun.extend(self.dispatcher.failed(id));
    }

    fn leave_gate(&mut self, id: StepId, is_well: bool) {
        let graph = &self.plan.graph;
        let has_ready = || graph.after(id).iter().any(|next| graph.step(*next).kind == StepKind::Ready);
        let step = graph.step(id);
        self.gate.ended(id, step, is_well, step.kind == StepKind::Start && has_ready());
    }

    /// Lets go of everything that runs. The journal keeps that its outcome is unknown.
    fn abandon(&mut self) {
        self.tasks.abort_all();
        self.report.interrupted = true;
        self.begin_nothing_new();
        for id in std::mem::take(&mut self.task_steps).into_values() {
            if self.may_be_given_up(id) {
                self.wait_no_more(id);
                continue;
            }
            self.remember_failure(id, "", true);
            self.end(id, Outcome::Abandoned);
            self.report.abandoned.push(id);
        }
    }

    /// Keeps in the record how a provisioning step that began did not come to a good end.
    fn remember_failure(&mut self, id: StepId, message: &str, cut_off: bool) {
        if !self.ops.contains_key(&id) {
            return;
        }
        let step = self.plan.graph.step(id);
        let Some(record) = self.records.get(&step.address) else { return };
        let target = self.plan.targets.get(&step.address);
        if let Some(record) = records::after_failure(step, record, target, message, cut_off, Timestamp::now())
        {
            self.put(record);
        }
    }

    fn end(&mut self, id: StepId, outcome: Outcome) {
        if let Some(op) = self.ops.remove(&id) {
            self.pending.push(Entry::End { op, outcome });
        }
    }

    /// Notes all that is left to note. Who wants to stop at once does not wait for that: the next apply does it.
    async fn finish_notes(&mut self, store: &mut dyn Store, control: &Control) {
        let finish = std::mem::take(&mut self.notes).finish(&self.executor.host, self.at, &self.records);
        let marked = tokio::select! {
            biased;
            () = control.abort.cancelled() => store.notes_left_behind(),
            () = finish => if store.follows_a_crash() { store.notes_caught_up() } else { Ok(()) },
        };
        if let Err(error) = marked {
            tracing::warn!(%error, "machines' notes may be behind their records");
        }
    }

    /// Notes what changed since the last time, beside the steps that go on.
    fn catch_up_notes(&mut self) {
        let running = self.ops.keys().map(|id| &self.plan.graph.step(*id).address);
        // A note must never come into a folder that is being emptied.
        let status = self.dispatcher.status();
        let steps = self.plan.graph.steps().filter(|(_, step)| step.kind == StepKind::Destroy);
        let to_go = steps.filter(|(id, _)| matches!(status[id.0], Status::Waiting | Status::Running));
        let busy = running.chain(to_go.map(|(_, step)| &step.address)).collect();
        self.notes.catch_up(&self.executor.host, self.at, &self.records, &busy);
    }

    fn put(&mut self, record: Record) {
        self.notes.behind(&record.address);
        self.pending.push(Entry::Put(Box::new(record.clone())));
        self.records.insert(record.address.clone(), record);
    }

    fn tell(&self, event: Event) {
        self.executor.events.send(event);
    }
}

/// The same without what nobody may see.
fn hidden(progress: FetchProgress, secrets: &Secrets) -> FetchProgress {
    let phase = match progress.phase {
        FetchPhase::Retrying { attempt, of, after, why } => {
            FetchPhase::Retrying { attempt, of, after, why: secrets.hide(&why) }
        }
        phase => phase,
    };
    FetchProgress { phase, ..progress }
}

/// What a step's machine is to have.
fn hardware(plan: &Plan, id: StepId) -> Option<(BackendTag, &Machine)> {
    let target = plan.targets.get(&plan.graph.step(id).address)?;
    Some((target.spec.backend, &target.spec.machine))
}
