//! Lets machines start only while there is memory for them, and never stands in the way of the last hope.
//!
//! ```text
//! start is next ─▶ room for it? ─ yes ─▶ it starts; until its boot is over, it counts with all it may take
//!                     │ no
//!                     ▼
//!                  does a boot or a stop go on? ─ yes ─▶ it waits, and so do the starts behind it
//!                     │ no
//!                     ▼
//!                  nothing will give memory back: it starts all the same
//! ```
//!
//! Whether a plan fits as a whole is decided before (`crate::admission`); this is about the moment.

use std::collections::{BTreeMap, BTreeSet};

use vmctl_providers::{BackendTag, Capacity, Machine};
use vmctl_state::{Address, Record};

use crate::graph::StepId;
use crate::recorded::handle_of;
use crate::step::{Step, StepKind};

/// Memory that starts leave to the host: a booting guest makes it read files, and what is cached of them is worth more
/// than one more boot at once.
pub(super) const RESERVE: u64 = 256 << 20;

/// A start that waits for memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The start.
    pub(super) id: StepId,
    /// What its machine may come to hold.
    pub(super) needed: u64,
    /// What is left when boots under way have taken all they may.
    pub(super) available: u64,
}

/// Knows which boots and stops are under way.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Machines that boot, with what they may take.
    boots: BTreeMap<Address, (BackendTag, u64)>,
    /// Steps under way that give memory back.
    releases: BTreeSet<StepId>,
    /// Starts that were told to wait, so that each is told once.
    told: BTreeSet<StepId>,
}

/// What is known at one moment.
pub(super) struct Moment<'a, H> {
    pub(super) host: &'a H,
    pub(super) records: &'a BTreeMap<Address, Record>,
}

impl Gate {
    /// Whether `step` may begin now. `Err` says that it has to wait, and what to tell if that is news.
    pub(super) fn admits<H: Capacity>(
        &mut self,
        id: StepId,
        step: &Step,
        hardware: Option<(BackendTag, &Machine)>,
        moment: &Moment<'_, H>,
    ) -> Result<(), Option<Held>> {
        let Some((backend, machine)) = hardware.filter(|_| step.kind == StepKind::Start) else {
            return Ok(());
        };
        let needed = match moment.host.footprint(backend, machine) {
            Ok(footprint) => footprint.memory,
            Err(error) => return unknown(&error),
        };
        let is_something_under_way = !self.boots.is_empty() || !self.releases.is_empty();
        if is_something_under_way {
            // First what boots may still take, then what is left: what one takes in between counts twice for a moment, and
            // the start waits a little longer. The other way round it would not count at all.
            let owed = self.owed(backend, moment);
            let available = match moment.host.memory(backend) {
                Ok(available) => available,
                Err(error) => return unknown(&error),
            };
            let available = available.map(|bytes| bytes.saturating_sub(owed));
            if let Some(available) = available.filter(|bytes| !has_room(needed, *bytes)) {
                let is_news = self.told.insert(id);
                return Err(is_news.then_some(Held { id, needed, available }));
            }
        }
        Ok(())
    }

    /// What machines of `backend` that boot may still take.
    fn owed<H: Capacity>(&self, backend: BackendTag, moment: &Moment<'_, H>) -> u64 {
        let boots = self.boots.iter().filter(|(_, (of, _))| *of == backend);
        boots.fold(0, |sum, (address, (_, promised))| {
            let handle = moment.records.get(address).and_then(|record| handle_of(record).ok().flatten());
            // What cannot be told is counted as if nothing was taken yet: the start waits a little longer.
            let holds = handle.and_then(|handle| moment.host.held(&handle).ok().flatten()).unwrap_or(0);
            sum.saturating_add(promised.saturating_sub(holds))
        })
    }

    /// A step began.
    pub(super) fn began<H: Capacity>(
        &mut self,
        id: StepId,
        step: &Step,
        hardware: Option<(BackendTag, &Machine)>,
        host: &H,
    ) {
        match (step.kind, hardware) {
            (StepKind::Stop | StepKind::Destroy, _) => {
                self.releases.insert(id);
            }
            (StepKind::Start, Some((backend, machine))) => {
                // What cannot be told was told when the start was asked for.
                let needed = host.footprint(backend, machine).map_or(0, |footprint| footprint.memory);
                self.boots.insert(step.address.clone(), (backend, needed));
            }
            _ => {}
        }
    }

    /// A step ended, well or not, or will not run. `has_ready` tells whether the machine's login is awaited behind its
    /// start.
    pub(super) fn ended(&mut self, id: StepId, step: &Step, is_well: bool, has_ready: bool) {
        self.releases.remove(&id);
        let is_over = match step.kind {
            StepKind::Start => !(is_well && has_ready),
            StepKind::Ready => true,
            _ => false,
        };
        if is_over {
            self.boots.remove(&step.address);
        }
    }
}

/// Whether a start that may take `needed` leaves the reserve.
fn has_room(needed: u64, available: u64) -> bool {
    needed.checked_add(RESERVE).is_some_and(|needed| needed <= available)
}

/// Where the host cannot be asked there is nothing to wait for.
fn unknown(error: &vmctl_providers::Error) -> Result<(), Option<Held>> {
    tracing::warn!(%error, "cannot tell whether there is memory for one more start");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_must_leave_the_reserve() {
        assert!(has_room(1, RESERVE + 1));
        assert!(!has_room(2, RESERVE + 1));
        assert!(!has_room(u64::MAX, u64::MAX));
    }
}
