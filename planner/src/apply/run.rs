//! The one owner of records: takes the ends of steps, commits, and lets the next steps begin.

mod begin;
mod end;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vmctl_providers::{BackendTag, Machine};
use vmctl_state::{Address, Entry, Intent, OpId, Outcome, Record, Snapshot, Store};

use super::dispatch::{Dispatcher, Status};
use super::effect::{Host, Product};
use super::executor::{Control, Executor};
use super::gate::{Gate, Held, Moment};
use super::notes::{NotedAt, Notes};
use super::outcome::{ApplyError, Event, Failure, Report};
use super::retries::Retries;
use crate::failpoints;
use crate::graph::StepId;
use crate::plan::{Bookkeeping, Plan};
use crate::recorded::cut_off;
use crate::step::StepKind;
use crate::target::Target;

/// How long readers in other processes may see an old state: well within the promised second.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(500);

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
    /// Targets of which more is known than was planned: the image that came from a server, the template that was kept.
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
                if self.is_spared(id) {
                    self.spare(id);
                    continue;
                }
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

    /// What a step aims at, with its image if that came from a server.
    fn target(&self, address: &Address) -> Option<&Target> {
        self.completed.get(address).or_else(|| self.plan.targets.get(address))
    }

    /// Whether ending the step in the middle changes nothing: it only waits, or what it brought so far is kept.
    fn may_be_given_up(&self, id: StepId) -> bool {
        self.plan.graph.step(id).kind == StepKind::Ready || self.plan.is_download(id)
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

/// What a step's machine is to have.
fn hardware(plan: &Plan, id: StepId) -> Option<(BackendTag, &Machine)> {
    let target = plan.targets.get(&plan.graph.step(id).address)?;
    Some((target.spec.backend, &target.spec.machine))
}
