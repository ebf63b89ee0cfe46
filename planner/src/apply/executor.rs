//! The one owner of records: takes the ends of steps, commits, and lets the next steps begin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet, block_in_place};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vmctl_providers::image::ImageCache;
use vmctl_providers::{Error, VmHandle};
use vmctl_state::{Address, Entry, Intent, OpId, Outcome, Record, Store};

use super::dispatch::{Dispatcher, Limits, Status};
use super::effect::{self, Effect, Host};
use super::gate::{Gate, Held, Moment};
use super::notes::{NotedAt, Notes};
use super::outcome::{ApplyError, Event, Failure, Report};
use super::records;
use crate::failpoints::{self, Edge};
use crate::graph::StepId;
use crate::plan::{Bookkeeping, Plan};
use crate::recorded::{cut_off, handle_of};
use crate::step::{Step, StepKind};

/// How long readers in other processes may see an old state: well within the promised second.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(500);

/// Lines of guest output that wait to become events, per step. The stream of events itself has no bound, so a printer
/// that is slower than a flooding guest costs memory (`docs/limitations.md`).
const OUTPUT_BACKLOG: usize = 256;

/// How an apply is asked to stop.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Start nothing new, finish what runs.
    pub drain: CancellationToken,
    /// Stop at once; what runs is journalled as abandoned.
    pub abort: CancellationToken,
}

/// Carries out plans on one host.
#[derive(Debug)]
pub struct Executor<H> {
    host: Arc<H>,
    images: ImageCache,
    limits: Limits,
    control: Control,
    events: mpsc::UnboundedSender<Event>,
}

type Ended = (StepId, Duration, Result<Option<VmHandle>, Error>);

impl<H: Host> Executor<H> {
    /// An executor that tells `events` what happens. Nobody listening is fine.
    pub fn new(
        host: Arc<H>,
        images: ImageCache,
        limits: Limits,
        control: Control,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self { host, images, limits, control, events }
    }

    /// Checks what can be checked before anything is made: programs, ports, rights.
    ///
    /// Ports that machines of this project hold now are not asked about: the plan frees them before it needs them.
    pub async fn preflight(&self, plan: &Plan, store: &dyn Store) -> Result<(), ApplyError> {
        let held = held_ports(&store.snapshot()?.records)?;
        let mut failures = Vec::new();
        for spec in plan.specs() {
            let mut spec = spec.clone();
            for nic in &mut spec.machine.nics {
                nic.forwards.retain(|forward| !held.contains(&(forward.protocol, forward.host_port)));
            }
            if let Err(error) = self.host.preflight(&spec).await {
                let failure = Failure::from(&error).hidden(&plan.secrets);
                failures.push((Address::vm(spec.name.as_str()), failure));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(ApplyError::Preflight(failures)) }
    }

    /// Carries out `plan`. Must run on a multi-threaded runtime: commits block the calling thread.
    ///
    /// Steps that fail do not end the apply: what waits for them is skipped, the rest goes on. An error means that
    /// the state could not be read or written; every step that had begun was waited for and is in the journal.
    pub async fn apply(&self, plan: &Plan, store: &mut dyn Store) -> Result<Report, ApplyError> {
        let snapshot = store.snapshot()?;
        if snapshot.serial != plan.serial || snapshot.lineage != plan.lineage {
            return Err(ApplyError::Stale { planned: plan.serial, found: snapshot.serial });
        }
        let mut run = Run {
            executor: self,
            plan,
            id: store.run().unwrap_or_else(Uuid::new_v4),
            next_op: snapshot.next_op.0,
            at: NotedAt { lineage: snapshot.lineage, serial: snapshot.serial },
            notes: Notes::default(),
            ops: BTreeMap::new(),
            records: snapshot.records,
            pending: Vec::new(),
            dispatcher: Dispatcher::new(&plan.graph, self.limits)?,
            gate: Gate::default(),
            tasks: JoinSet::new(),
            task_steps: BTreeMap::new(),
            report: Report::default(),
            recorded: 0,
        };
        run.close_what_a_dead_run_left(&snapshot.open);
        if store.follows_a_crash() {
            run.records.keys().for_each(|address| run.notes.behind(address));
        }
        run.keep_books();
        run.drive(store).await
    }
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
    /// What the next commit will hold.
    pending: Vec<Entry>,
    dispatcher: Dispatcher,
    gate: Gate,
    tasks: JoinSet<Ended>,
    task_steps: BTreeMap<tokio::task::Id, StepId>,
    report: Report,
    /// How many of the report's done steps are durable.
    recorded: usize,
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
        let mut fatal = None;
        loop {
            if let Err(error) = self.advance(store) {
                // Nothing new without a journal; what runs is finished, and its end is offered once more.
                self.dispatcher.drain();
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
                () = control.drain.cancelled(), if !self.report.interrupted => {
                    self.report.interrupted = true;
                    self.dispatcher.drain();
                    self.tell(Event::Draining);
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.ended(ended);
                    while let Some(ended) = self.tasks.try_join_next_with_id() {
                        self.ended(ended);
                    }
                }
                _ = publish.tick() => {
                    if let Err(error) = block_in_place(|| store.publish()) {
                        // The commits are durable; readers see an older state until the next try.
                        tracing::warn!(%error, "cannot publish the state to readers");
                    }
                    self.catch_up_notes();
                }
            }
        }
        self.commit(store)?;
        if !control.abort.is_cancelled() {
            std::mem::take(&mut self.notes).finish(&self.executor.host, self.at, &self.records).await;
        }
        for (number, status) in self.dispatcher.status().iter().enumerate() {
            if *status == Status::Waiting {
                self.report.not_begun.push(StepId(number));
            }
        }
        match fatal {
            Some(error) => Err(error),
            None => Ok(self.report),
        }
    }

    /// Commits what ended together with what begins, then lets it begin.
    fn advance(&mut self, store: &mut dyn Store) -> Result<(), ApplyError> {
        if self.executor.control.drain.is_cancelled() {
            self.report.interrupted = true;
            self.dispatcher.drain();
        }
        let mut effects = Vec::new();
        loop {
            let begun = self.take();
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
        Ok(())
    }

    /// What may begin now: within the limits, and while there is memory for starts.
    fn take(&mut self) -> Vec<StepId> {
        let Self { dispatcher, gate, plan, executor, records, .. } = self;
        let moment = Moment { host: &*executor.host, records };
        let mut news = Vec::new();
        gate.open();
        let mut begun = dispatcher.take(|id| {
            let step = plan.graph.step(id);
            let target = plan.targets.get(&step.address);
            let hardware = target.map(|target| (target.spec.backend, &target.spec.machine));
            match gate.admits(id, step, hardware, &moment) {
                Ok(()) => true,
                Err(held) => {
                    news.extend(held);
                    false
                }
            }
        });
        if begun.is_empty() && dispatcher.running() == 0 {
            // Nothing goes on that could make room: what waits is let go, one at a time.
            let mut is_first = true;
            begun = dispatcher.take(|_| std::mem::take(&mut is_first));
        }
        for id in &begun {
            gate.began(*id, plan.graph.step(*id));
        }
        for Held { id, needed, available } in news {
            self.tell(Event::Throttled { id, needed, available });
        }
        begun
    }

    fn commit(&mut self, store: &mut dyn Store) -> Result<(), ApplyError> {
        if !self.pending.is_empty() {
            self.at.serial = block_in_place(|| store.commit(&self.pending))?;
            self.pending.clear();
        }
        let durable = self.recorded..self.report.done.len();
        self.recorded = durable.end;
        for id in &self.report.done[durable] {
            failpoints::pass_commit(self.plan.graph.step(*id).kind)?;
        }
        Ok(())
    }

    /// Announces a step and gathers what it needs.
    fn begin(&mut self, id: StepId) -> Result<Effect, Box<Failure>> {
        let step = self.plan.graph.step(id).clone();
        failpoints::pass(step.kind, Edge::BeforeIntent).map_err(|error| Failure::from(&*error))?;
        let now = Timestamp::now();
        let target = self.plan.targets.get(&step.address);
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
            detail: match step.kind {
                StepKind::Provision(number) => {
                    let planned = target.and_then(|target| target.provision.get(number - 1));
                    json!({
                        "number": number,
                        "label": step.label,
                        "digest": planned.map(|step| step.digest.to_string()),
                    })
                }
                _ => json!({}),
            },
        }));
        if let Some(record) = changed {
            self.put(record);
        }
        Ok(effect)
    }

    fn effect(&self, step: &Step) -> Result<Effect, ApplyError> {
        let unknown = || ApplyError::Unknown(step.clone());
        let target = || self.plan.targets.get(&step.address).ok_or_else(unknown);
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
            StepKind::Destroy => Effect::Destroy(handle()?),
            StepKind::Forget => Effect::Forget(handle()?),
        })
    }

    fn spawn(&mut self, id: StepId, effect: Effect) {
        self.tell(Event::Started(id));
        let host = Arc::clone(&self.executor.host);
        let images = self.executor.images.clone();
        let (output, mut lines) = mpsc::channel(OUTPUT_BACKLOG);
        let events = self.executor.events.clone();
        let Step { address, kind, .. } = self.plan.graph.step(id).clone();
        let task = self.tasks.spawn(async move {
            let started = Instant::now();
            let work = async {
                failpoints::pass(kind, Edge::AfterIntent).map_err(|error| *error)?;
                let result = effect::run(&*host, &images, effect, &output).await;
                drop(output);
                failpoints::pass(kind, Edge::AfterEffect).map_err(|error| *error)?;
                result
            };
            let forward = async {
                while let Some(line) = lines.recv().await {
                    // Nobody listening is fine.
                    let _ = events.send(Event::Output { id, address: address.clone(), line });
                }
            };
            let (result, ()) = tokio::join!(work, forward);
            (id, started.elapsed(), result)
        });
        self.task_steps.insert(task.id(), id);
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), JoinError>) {
        match ended {
            Ok((task, (id, elapsed, result))) => {
                self.task_steps.remove(&task);
                match result {
                    Ok(handle) => self.succeed(id, elapsed, handle),
                    Err(error) => self.fail(id, Failure::from(&error)),
                }
            }
            Err(error) => {
                if let Some(id) = self.task_steps.remove(&error.id()) {
                    self.fail(id, Failure::panicked(error.to_string()));
                }
            }
        }
    }

    fn succeed(&mut self, id: StepId, elapsed: Duration, handle: Option<VmHandle>) {
        let step = self.plan.graph.step(id);
        if let Err(error) = failpoints::pass(step.kind, Edge::BeforeRecord) {
            return self.fail(id, Failure::from(&*error));
        }
        let target = self.plan.targets.get(&step.address);
        if let Some(record) = self.records.get(&step.address) {
            match records::after(step, record, target, handle.as_ref(), Timestamp::now()) {
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
        let note = note.map(|how| format!("the guest did not power down; ended by {how}"));
        self.tell(Event::Done { id, elapsed, note });
    }

    fn fail(&mut self, id: StepId, failure: Failure) {
        let failure = failure.hidden(&self.plan.secrets);
        self.remember_failure(id, &failure.message, failure.unknown);
        self.end(id, failure.outcome());
        self.leave_gate(id, false);
        self.report.failed.push((id, failure.clone()));
        self.tell(Event::Failed { id, failure });
        for skipped in self.dispatcher.failed(id) {
            self.leave_gate(skipped, false);
            self.report.skipped.push((skipped, id));
            self.tell(Event::Skipped { id: skipped, because: id });
        }
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
        for id in std::mem::take(&mut self.task_steps).into_values() {
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

    /// Notes what changed since the last time, beside the steps that go on.
    fn catch_up_notes(&mut self) {
        let busy = self.ops.keys().map(|id| &self.plan.graph.step(*id).address).collect();
        self.notes.catch_up(&self.executor.host, self.at, &self.records, &busy);
    }

    fn put(&mut self, record: Record) {
        self.notes.behind(&record.address);
        self.pending.push(Entry::Put(Box::new(record.clone())));
        self.records.insert(record.address.clone(), record);
    }

    fn tell(&self, event: Event) {
        // Nobody listening is fine.
        let _ = self.executor.events.send(event);
    }
}

/// Host ports that recorded machines hold, by protocol.
fn held_ports(
    records: &BTreeMap<Address, Record>,
) -> Result<std::collections::BTreeSet<(vmctl_providers::Protocol, u16)>, ApplyError> {
    let mut held = std::collections::BTreeSet::new();
    for record in records.values() {
        let runtime = handle_of(record)?.and_then(|handle| handle.runtime);
        held.extend(
            runtime
                .iter()
                .flat_map(|runtime| &runtime.forwards)
                .map(|forward| (forward.protocol, forward.host_port)),
        );
    }
    Ok(held)
}
