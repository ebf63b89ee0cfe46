//! How a step ends: what its end means for the records, for what waits for it, and for who watches.

use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinError;
use vmctl_providers::image::Fetched;
use vmctl_providers::provision::Rerun;
use vmctl_providers::{ErrorKind, VmHandle};
use vmctl_state::{Entry, Outcome};

use super::{End, Ended, Run};
use crate::apply::effect::{Host, Product};
use crate::apply::outcome::{Event, Failure};
use crate::apply::records::{self, is_cloned};
use crate::apply::retries::Pause;
use crate::failpoints::{self, Edge};
use crate::graph::StepId;
use crate::pins::Locked;
use crate::plan::PlannedImage;
use crate::step::StepKind;
use crate::target::Target;

impl<H: Host> Run<'_, H> {
    pub(super) fn ended(&mut self, ended: Result<(tokio::task::Id, Ended), JoinError>) {
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
        let mut not_kept = None;
        let handle = match product {
            Product::Machine(handle) => handle,
            Product::Kept(error) => {
                not_kept = error;
                None
            }
            Product::Image(fetched) => {
                self.take_in(id, *fetched);
                None
            }
        };
        let is_cloned = handle.as_deref().is_some_and(is_cloned);
        let mut note = None;
        if let Some(follower) = self.follower(id) {
            if is_cloned {
                let cloned = follower.cloned();
                self.completed.insert(step.address.clone(), cloned);
            } else if let Some(leader) = &follower.template_after {
                note =
                    Some(format!("there is no template of `{leader}`: it boots, and is provisioned itself"));
            }
        }
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
        let note = note.or_else(|| handle.and_then(|handle| note_of(step.kind, *handle)));
        let note = note.or_else(|| not_kept.map(|error| format!("there is no template of it: {error}")));
        // What is told to be done is durable.
        self.untold.push(Event::Done { id, elapsed, note });
    }

    /// What a step aims at that prepares a machine which waited for a template.
    fn follower(&self, id: StepId) -> Option<&Target> {
        let step = self.plan.graph.step(id);
        let target = self.target(&step.address).filter(|_| step.kind == StepKind::Prepare);
        target.filter(|target| target.template_after.is_some())
    }

    /// Whether a step need not run after all.
    pub(super) fn is_spared(&self, id: StepId) -> bool {
        let step = self.plan.graph.step(id);
        let StepKind::Provision(number) = step.kind else { return false };
        self.target(&step.address).is_some_and(|target| target.is_spared(number))
    }

    /// Passes over a step that need not run. It never begins, so that the journal knows nothing of it; that it counts as
    /// done stands in the record since the machine was made.
    pub(super) fn spare(&mut self, id: StepId) {
        self.dispatcher.done(id);
        self.report.spared.push(id);
        self.untold.push(Event::Spared(id));
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

    pub(super) fn fail(&mut self, id: StepId, failure: Failure) {
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
    pub(super) fn give_up(&mut self, id: StepId, failure: Failure) {
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
    pub(super) fn wait_no_more(&mut self, id: StepId) {
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
    pub(super) fn abandon(&mut self) {
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
    pub(super) fn remember_failure(&mut self, id: StepId, message: &str, cut_off: bool) {
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

    pub(super) fn end(&mut self, id: StepId, outcome: Outcome) {
        if let Some(op) = self.ops.remove(&id) {
            self.pending.push(Entry::End { op, outcome });
        }
    }
}

/// What is worth telling of a machine after a step.
fn note_of(kind: StepKind, handle: VmHandle) -> Option<String> {
    match kind {
        StepKind::Stop => {
            handle.forced_stop.map(|how| format!("the guest did not heed its power button; ended by {how}"))
        }
        StepKind::Start => {
            let cold = handle.warm?.cloned?.cold?;
            Some(format!("it boots, although its template has a memory: {cold}"))
        }
        _ => None,
    }
}
