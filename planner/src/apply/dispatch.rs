//! Decides which step starts next. Pure: events in, decisions out; the executor does what it says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::graph::{CycleError, StepGraph, StepId};

/// How many steps run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All steps together; at least 1.
    pub steps: usize,
    /// Steps during which a guest boots; at least 1. Boots compete for the host's cores.
    pub boots: usize,
}

/// What has become of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It waits for others, or for room.
    Waiting,
    /// It was handed out.
    Running,
    /// It ended well.
    Done,
    /// It failed.
    Failed,
    /// It will not run, because the named step failed.
    Skipped(StepId),
}

/// Knows what is done, what runs and what waits.
#[derive(Debug)]
pub(super) struct Dispatcher {
    limits: Limits,
    status: Vec<Status>,
    unmet: Vec<usize>,
    after: Vec<Vec<StepId>>,
    is_boot: Vec<bool>,
    /// Steps that may start, the one with the longest way to the end first, then by number.
    ready: BinaryHeap<(usize, Reverse<StepId>)>,
    remaining: Vec<usize>,
    running: usize,
    booting: usize,
    draining: bool,
}

impl Dispatcher {
    /// Begins with every step waiting.
    pub(super) fn new(graph: &StepGraph, limits: Limits) -> Result<Self, CycleError> {
        let remaining = graph.remaining()?;
        let mut dispatcher = Self {
            limits: Limits { steps: limits.steps.max(1), boots: limits.boots.max(1) },
            status: vec![Status::Waiting; graph.len()],
            unmet: graph.steps().map(|(id, _)| graph.before(id).len()).collect(),
            after: graph.steps().map(|(id, _)| graph.after(id)).collect(),
            is_boot: graph.steps().map(|(_, step)| step.kind.is_boot()).collect(),
            ready: BinaryHeap::new(),
            remaining,
            running: 0,
            booting: 0,
            draining: false,
        };
        for (id, _) in graph.steps() {
            dispatcher.offer(id);
        }
        Ok(dispatcher)
    }

    /// Hands out every step that may start now, within the limits, and that `admits` lets go. Each step is handed out
    /// once; one that was not admitted is offered again.
    pub(super) fn take(&mut self, mut admits: impl FnMut(StepId) -> bool) -> Vec<StepId> {
        let mut taken = Vec::new();
        let mut no_room = Vec::new();
        while !self.draining && self.running < self.limits.steps {
            let Some((remaining, Reverse(id))) = self.ready.pop() else { break };
            let is_full = self.is_boot[id.0] && self.booting >= self.limits.boots;
            if is_full || !admits(id) {
                no_room.push((remaining, Reverse(id)));
                continue;
            }
            self.status[id.0] = Status::Running;
            self.running += 1;
            self.booting += usize::from(self.is_boot[id.0]);
            taken.push(id);
        }
        self.ready.extend(no_room);
        taken
    }

    /// A running step ended well: what waited for it may be ready now.
    pub(super) fn done(&mut self, id: StepId) {
        self.leave(id, Status::Done);
        for next in self.after[id.0].clone() {
            self.unmet[next.0] -= 1;
            self.offer(next);
        }
    }

    /// A running step failed: everything that waits for it, directly or not, is skipped and returned.
    pub(super) fn failed(&mut self, id: StepId) -> Vec<StepId> {
        self.leave(id, Status::Failed);
        let mut skipped = Vec::new();
        let mut reach = self.after[id.0].clone();
        while let Some(next) = reach.pop() {
            if self.status[next.0] == Status::Waiting {
                self.status[next.0] = Status::Skipped(id);
                skipped.push(next);
                reach.extend_from_slice(&self.after[next.0]);
            }
        }
        skipped.sort_unstable();
        skipped
    }

    /// From now on nothing new is handed out.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Number of steps that run.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// What has become of each step, by number.
    pub(super) fn status(&self) -> &[Status] {
        &self.status
    }

    fn offer(&mut self, id: StepId) {
        if self.unmet[id.0] == 0 && self.status[id.0] == Status::Waiting {
            self.ready.push((self.remaining[id.0], Reverse(id)));
        }
    }

    fn leave(&mut self, id: StepId, status: Status) {
        self.status[id.0] = status;
        self.running -= 1;
        self.booting -= usize::from(self.is_boot[id.0]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmctl_providers::InstanceId;
    use vmctl_state::Address;

    use super::*;
    use crate::step::{Step, StepKind};

    fn graph(kinds: &[StepKind], edges: &[(usize, usize)]) -> StepGraph {
        let mut graph = StepGraph::default();
        for (number, kind) in kinds.iter().enumerate() {
            graph.add(Step {
                kind: *kind,
                address: Address::vm(&number.to_string()),
                instance: InstanceId(uuid::Uuid::nil()),
                label: None,
            });
        }
        for (earlier, later) in edges {
            graph.order(StepId(*earlier), StepId(*later));
        }
        graph
    }

    fn all(_: StepId) -> bool {
        true
    }

    const WIDE: Limits = Limits { steps: 100, boots: 100 };

    #[test]
    fn failure_skips_everything_behind_it_and_nothing_else() {
        let graph = graph(&[StepKind::Prepare; 5], &[(0, 1), (1, 2), (3, 4)]);
        let mut dispatcher = Dispatcher::new(&graph, WIDE).unwrap();
        assert_eq!(dispatcher.take(all), [StepId(0), StepId(3)]);
        assert_eq!(dispatcher.failed(StepId(0)), [StepId(1), StepId(2)]);
        dispatcher.done(StepId(3));
        assert_eq!(dispatcher.take(all), [StepId(4)]);
        assert_eq!(dispatcher.status()[2], Status::Skipped(StepId(0)));
    }

    #[test]
    fn longest_way_starts_first() {
        let graph = graph(&[StepKind::Prepare; 4], &[(3, 2)]);
        let mut dispatcher = Dispatcher::new(&graph, Limits { steps: 1, boots: 1 }).unwrap();
        assert_eq!(dispatcher.take(all), [StepId(3)]);
    }

    #[test]
    fn boots_have_a_limit_of_their_own() {
        use StepKind::{Prepare, Start};
        let graph = graph(&[Start, Start, Prepare], &[]);
        let mut dispatcher = Dispatcher::new(&graph, Limits { steps: 10, boots: 1 }).unwrap();
        assert_eq!(dispatcher.take(all), [StepId(0), StepId(2)]);
        dispatcher.done(StepId(2));
        assert_eq!(dispatcher.take(all), []);
        dispatcher.done(StepId(0));
        assert_eq!(dispatcher.take(all), [StepId(1)]);
    }

    #[test]
    fn what_is_not_admitted_is_offered_again() {
        let graph = graph(&[StepKind::Start, StepKind::Prepare], &[]);
        let mut dispatcher = Dispatcher::new(&graph, WIDE).unwrap();
        assert_eq!(dispatcher.take(|id| id != StepId(0)), [StepId(1)]);
        assert_eq!((dispatcher.take(|_| false), dispatcher.running()), (vec![], 1));
        assert_eq!(dispatcher.take(all), [StepId(0)]);
    }

    #[test]
    fn draining_hands_out_nothing() {
        let graph = graph(&[StepKind::Prepare; 2], &[(0, 1)]);
        let mut dispatcher = Dispatcher::new(&graph, WIDE).unwrap();
        dispatcher.take(all);
        dispatcher.drain();
        dispatcher.done(StepId(0));
        assert_eq!((dispatcher.take(all), dispatcher.running()), (vec![], 0));
    }

    proptest! {
        /// Whatever the graph and whichever steps fail: order and limits are kept, and every step gets an end.
        #[test]
        fn order_and_limits_hold_for_any_graph(
            size in 1usize..40,
            pairs in prop::collection::vec((0usize..40, 0usize..40), 0..80),
            failing in prop::collection::btree_set(0usize..40, 0..4),
            steps in 1usize..6,
            boots in 1usize..4,
        ) {
            let edges: Vec<_> =
                pairs.into_iter().filter(|(a, b)| a < b && *b < size).collect();
            let kinds: Vec<_> = (0..size)
                .map(|number| if number % 3 == 0 { StepKind::Start } else { StepKind::Prepare })
                .collect();
            let graph = graph(&kinds, &edges);
            let mut dispatcher = Dispatcher::new(&graph, Limits { steps, boots }).unwrap();
            let mut running: Vec<StepId> = Vec::new();
            loop {
                running.extend(dispatcher.take(all));
                prop_assert!(running.len() <= steps);
                prop_assert!(running.iter().filter(|id| kinds[id.0].is_boot()).count() <= boots);
                for id in &running {
                    for before in graph.before(*id) {
                        prop_assert_eq!(dispatcher.status()[before.0], Status::Done);
                    }
                }
                let Some(id) = running.pop() else { break };
                if failing.contains(&id.0) { dispatcher.failed(id); } else { dispatcher.done(id); }
            }
            for status in dispatcher.status() {
                prop_assert!(!matches!(status, Status::Waiting | Status::Running));
            }
        }
    }
}
