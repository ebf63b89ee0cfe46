//! Steps and their order. The only module that names petgraph.

use std::collections::BTreeSet;

use petgraph::Direction::{self, Incoming, Outgoing};
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef, Reversed};
use serde::{Deserialize, Serialize};

use crate::step::Step;

/// Number of a step within its graph; steps are numbered in the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub usize);

/// How a step waits for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It needs what the other one does: where that fails, it is skipped.
    Needs,
    /// It begins once the other one has ended, well or not, or is skipped.
    EitherWay,
}

/// A cycle was found where none can be: a bug of the planner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the steps of this plan wait for each other (at `{at}`); this is a bug in vmctl")]
pub struct CycleError {
    /// One step of the cycle.
    pub at: String,
}

/// Steps, and for each what must be done before.
#[derive(Debug, Clone, Default)]
pub struct StepGraph {
    graph: DiGraph<Step, Wait>,
}

impl StepGraph {
    /// Adds a step that waits for nothing yet.
    pub fn add(&mut self, step: Step) -> StepId {
        StepId(self.graph.add_node(step).index())
    }

    /// Lets `later` wait for `earlier`, and need it. Saying so twice is the same as once.
    pub fn order(&mut self, earlier: StepId, later: StepId) {
        let (earlier, later) = (NodeIndex::new(earlier.0), NodeIndex::new(later.0));
        // Of both ends, the one with fewer neighbours answers: thousands of machines may wait for one image.
        let mut ends = self.graph.neighbors(earlier).zip(self.graph.neighbors_directed(later, Incoming));
        if !ends.any(|(after, before)| after == later || before == earlier) {
            self.graph.add_edge(earlier, later, Wait::Needs);
        } else if let Some(edge) = self.graph.find_edge(earlier, later) {
            self.graph[edge] = Wait::Needs;
        }
    }

    /// Lets `later` wait until `earlier` has ended, whatever becomes of it. Where it is needed already, it stays so.
    pub fn order_either_way(&mut self, earlier: StepId, later: StepId) {
        let (earlier, later) = (NodeIndex::new(earlier.0), NodeIndex::new(later.0));
        if !self.graph.neighbors_directed(later, Incoming).any(|before| before == earlier) {
            self.graph.add_edge(earlier, later, Wait::EitherWay);
        }
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.graph.node_count() == 0
    }

    /// The step with this number.
    ///
    /// # Panics
    /// If `id` is of another graph.
    pub fn step(&self, id: StepId) -> &Step {
        &self.graph[NodeIndex::new(id.0)]
    }

    /// All steps, by number.
    pub fn steps(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.graph.node_indices().map(|index| (StepId(index.index()), &self.graph[index]))
    }

    /// What `id` waits for, by number.
    pub fn before(&self, id: StepId) -> Vec<StepId> {
        self.neighbours(id, Incoming)
    }

    /// What waits for `id`, by number.
    pub fn after(&self, id: StepId) -> Vec<StepId> {
        self.neighbours(id, Outgoing)
    }

    /// What waits for `id`, by number, and how.
    pub fn waiting(&self, id: StepId) -> Vec<(StepId, Wait)> {
        let edges = self.graph.edges_directed(NodeIndex::new(id.0), Outgoing);
        let mut waiting: Vec<_> = edges.map(|edge| (StepId(edge.target().index()), *edge.weight())).collect();
        waiting.sort_unstable_by_key(|(id, _)| *id);
        waiting
    }

    /// What `id` waits for and does not need, by number.
    pub fn before_either_way(&self, id: StepId) -> Vec<StepId> {
        let edges = self.graph.edges_directed(NodeIndex::new(id.0), Incoming);
        let loose = edges.filter(|edge| *edge.weight() == Wait::EitherWay);
        let mut ids: Vec<_> = loose.map(|edge| StepId(edge.source().index())).collect();
        ids.sort_unstable();
        ids
    }

    /// `id` and everything that it waits for, directly or not.
    pub fn leading_to(&self, id: StepId) -> BTreeSet<StepId> {
        let backwards = Reversed(&self.graph);
        let mut search = Dfs::new(backwards, NodeIndex::new(id.0));
        std::iter::from_fn(|| search.next(backwards)).map(|index| StepId(index.index())).collect()
    }

    /// All steps in an order in which they could be done one by one.
    pub fn sequence(&self) -> Result<Vec<StepId>, CycleError> {
        let order = toposort(&self.graph, None)
            .map_err(|cycle| CycleError { at: self.graph[cycle.node_id()].to_string() })?;
        Ok(order.into_iter().map(|index| StepId(index.index())).collect())
    }

    /// For each step, the length of the longest path from it to the end, itself included: the sum of what the steps
    /// on it weigh.
    pub fn remaining(&self, weight: impl Fn(StepId, &Step) -> u64) -> Result<Vec<u64>, CycleError> {
        let mut remaining = vec![0; self.len()];
        for id in self.sequence()?.into_iter().rev() {
            let after = self.graph.neighbors(NodeIndex::new(id.0));
            let longest = after.map(|next| remaining[next.index()]).max().unwrap_or(0);
            remaining[id.0] = longest + weight(id, self.step(id));
        }
        Ok(remaining)
    }

    fn neighbours(&self, id: StepId, direction: Direction) -> Vec<StepId> {
        let mut ids: Vec<_> = self
            .graph
            .neighbors_directed(NodeIndex::new(id.0), direction)
            .map(|index| StepId(index.index()))
            .collect();
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
mod tests {
    use vmctl_providers::InstanceId;
    use vmctl_state::Address;

    use super::*;
    use crate::step::StepKind;

    fn step(name: &str) -> Step {
        let instance = InstanceId(uuid::Uuid::nil());
        Step { kind: StepKind::Start, address: Address::vm(name), instance, label: None }
    }

    #[test]
    fn longest_path_counts_the_step_itself() {
        let mut graph = StepGraph::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| graph.add(step(name)));
        graph.order(a, b);
        graph.order(b, c);
        graph.order(a, d);
        assert_eq!(graph.remaining(|_, _| 2), Ok(vec![6, 4, 2, 2]));
        assert_eq!((graph.before(c), graph.after(a)), (vec![b], vec![b, d]));
    }

    #[test]
    fn order_is_said_once_however_often_it_is_told() {
        let mut graph = StepGraph::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| graph.add(step(name)));
        for (earlier, later) in [(a, b), (a, b), (c, b), (a, c), (a, b), (c, b)] {
            graph.order(earlier, later);
        }
        assert_eq!((graph.before(b), graph.after(a)), (vec![a, c], vec![b, c]));
    }

    #[test]
    fn what_is_needed_is_needed_however_else_it_is_waited_for() {
        let mut graph = StepGraph::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| graph.add(step(name)));
        graph.order(a, c);
        graph.order_either_way(a, c);
        graph.order_either_way(b, c);
        graph.order_either_way(b, d);
        graph.order(b, d);
        graph.order_either_way(c, d);
        assert_eq!((graph.before(c), graph.before_either_way(c)), (vec![a, b], vec![b]));
        assert_eq!(graph.waiting(b), [(c, Wait::EitherWay), (d, Wait::Needs)]);
        assert_eq!(graph.leading_to(c), [a, b, c].into());
        assert_eq!(graph.remaining(|_, _| 1), Ok(vec![3, 3, 2, 1]));
    }

    #[test]
    fn cycle_is_an_error_and_names_a_step() {
        let mut graph = StepGraph::default();
        let (a, b) = (graph.add(step("a")), graph.add(step("b")));
        graph.order(a, b);
        graph.order(b, a);
        assert!(graph.sequence().is_err());
    }
}
