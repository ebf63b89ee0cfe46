//! How a step begins: what is announced before it, what it needs, and the task that does its work.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::mpsc;
use vmctl_providers::image::{FetchPhase, FetchProgress};
use vmctl_providers::{Secrets, VmHandle};
use vmctl_state::{Entry, Intent, OpId};

use super::{End, Run};
use crate::apply::downloads::Throttle;
use crate::apply::effect::{self, Effect, Host, Reach};
use crate::apply::outcome::{ApplyError, Event, Failure};
use crate::apply::records;
use crate::failpoints::{self, Edge};
use crate::graph::StepId;
use crate::recorded::handle_of;
use crate::step::{Step, StepKind};

/// Lines of guest output on their way from a step to the events, per step. Who takes them never waits, so that a few do.
const OUTPUT_BACKLOG: usize = 16;

impl<H: Host> Run<'_, H> {
    /// Announces a step and gathers what it needs.
    pub(super) fn begin(&mut self, id: StepId) -> Result<Effect, Box<Failure>> {
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

    pub(super) fn effect(&self, step: &Step) -> Result<Effect, ApplyError> {
        let unknown = || ApplyError::Unknown(step.clone());
        let target = || self.target(&step.address).ok_or_else(unknown);
        let handle = || -> Result<Arc<VmHandle>, ApplyError> {
            let record = self.records.get(&step.address).ok_or_else(unknown)?;
            handle_of(record)?.ok_or_else(unknown)
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
            StepKind::Keep => Effect::Keep(handle()?),
            StepKind::Suspend => Effect::Suspend(handle()?),
            StepKind::Stop => Effect::Stop(handle()?),
            StepKind::Destroy => match self.plan.volumes.get(&step.address) {
                Some(volume) => Effect::RemoveVolume(volume.clone()),
                None => Effect::Destroy(handle()?),
            },
            StepKind::Forget => Effect::Forget(handle()?),
        })
    }

    pub(super) fn spawn(&mut self, id: StepId, effect: Effect) {
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
