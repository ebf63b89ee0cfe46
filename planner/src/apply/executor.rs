//! The door to an apply: what it is given, what is checked beforehand, and where it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vmctl_providers::image::ImageCache;
use vmctl_providers::{Preflight, Protocol};
use vmctl_state::{Address, Record, Snapshot, Store};

use super::dispatch::Limits;
use super::downloads::Downloads;
use super::effect::Host;
use super::events::EventSender;
use super::outcome::{ApplyError, Failure, Report};
use super::run;
use crate::plan::Plan;
use crate::recorded::handle_of;

/// How an apply is asked to stop.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Start nothing new, finish what runs.
    pub drain: CancellationToken,
    /// Stop at once; what runs is journalled as abandoned.
    pub abort: CancellationToken,
    /// Start nothing new after the first failure, finish what runs.
    pub fail_fast: bool,
    /// How long a guest may take to power off before its process is ended; the executor's own choice if absent.
    pub stop_timeout: Option<Duration>,
}

/// Carries out plans on one host.
#[derive(Debug)]
pub struct Executor<H> {
    pub(super) host: Arc<H>,
    pub(super) images: ImageCache,
    pub(super) downloads: Arc<dyn Downloads>,
    pub(super) limits: Limits,
    pub(super) control: Control,
    pub(super) events: EventSender,
}

impl<H: Host> Executor<H> {
    /// An executor that tells `events` what happens. Nobody listening is fine.
    pub fn new(
        host: Arc<H>,
        images: ImageCache,
        downloads: Arc<dyn Downloads>,
        limits: Limits,
        control: Control,
        events: EventSender,
    ) -> Self {
        Self { host, images, downloads, limits, control, events }
    }

    /// Fails with the [`obstacles`] of `plan`, if there are any.
    pub async fn preflight(&self, plan: &Plan, store: &dyn Store) -> Result<(), ApplyError> {
        let failures = obstacles(&*self.host, plan, &store.snapshot()?).await?;
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
        run::carry_out(self, plan, snapshot, store).await
    }
}

/// What stands in the way of `plan` on this host, as far as that can be told before anything is made: programs that are
/// missing, ports that are taken, rights.
///
/// Ports that machines of this project hold now are not asked about: the plan frees them before it needs them.
pub async fn obstacles<H: Preflight>(
    host: &H,
    plan: &Plan,
    recorded: &Snapshot,
) -> Result<Vec<(Address, Failure)>, ApplyError> {
    let held = held_ports(&recorded.records)?;
    let mut found = Vec::new();
    for spec in plan.specs() {
        let mut spec = spec.clone();
        for nic in &mut spec.machine.nics {
            nic.forwards.retain(|forward| !held.contains(&(forward.protocol, forward.host_port)));
        }
        if let Err(error) = host.preflight(&spec).await {
            let failure = Failure::from(&error).hidden(&plan.secrets);
            found.push((Address::vm(spec.name.as_str()), failure));
        }
    }
    Ok(found)
}

/// Host ports that recorded machines hold, by protocol.
fn held_ports(records: &BTreeMap<Address, Record>) -> Result<BTreeSet<(Protocol, u16)>, ApplyError> {
    let mut held = BTreeSet::new();
    for record in records.values() {
        let handle = handle_of(record)?;
        held.extend(
            handle
                .iter()
                .filter_map(|handle| handle.runtime.as_ref())
                .flat_map(|runtime| &runtime.forwards)
                .map(|forward| (forward.protocol, forward.host_port)),
        );
    }
    Ok(held)
}
