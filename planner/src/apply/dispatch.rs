//! Decides which step starts next. Pure: events in, decisions out; the executor does what it says.
//!
//! Of the steps that may start, the one with the longest way to the end of the plan goes first; ties go by number, which
//! follows each machine from step to step. What competes for something scarce waits in a queue of its own, so that a
//! full one holds nothing else up.
//!
//! A guest boots from the beginning of its `start` to the end of its `ready`, and holds one place all the while: else
//! `start`, which is short, would let all guests boot at once, however few may.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::weight::{DOWNLOAD, weight_of};
use crate::graph::{CycleError, StepGraph, StepId, Wait};
use crate::step::StepKind;

/// How many steps run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All steps together; at least 1.
    pub steps: usize,
    /// Guests that boot, from the start until they are ready; at least 1. Boots compete for the host's cores.
    pub boots: usize,
    /// Images of this host that are copied; at least 1. They compete for one disk.
    pub images: usize,
    /// Images that are downloaded, from all servers together; at least 1. They compete for the network.
    pub downloads: usize,
    /// Images that are downloaded from one server; at least 1. Servers slow down or refuse those who ask for more.
    pub downloads_per_host: usize,
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

/// What a step competes for, besides a place among all steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Boot,
    Image,
    /// A download from the server of this number.
    Download(usize),
    Other,
}

fn class_of(kind: StepKind) -> Class {
    match kind {
        StepKind::Start | StepKind::Resume | StepKind::Ready => Class::Boot,
        StepKind::FetchImage => Class::Image,
        // Stops wait for guests, and need hardly anything of the host.
        StepKind::Prepare
        | StepKind::Update
        | StepKind::Provision(_)
        | StepKind::Keep
        | StepKind::Suspend
        | StepKind::Stop
        | StepKind::Destroy
        | StepKind::Forget => Class::Other,
    }
}

/// Steps that may start, the one with the longest way to the end first, then by number.
type Queue = BinaryHeap<(u64, Reverse<StepId>)>;

/// Places for steps of one class, and who waits for one.
#[derive(Debug)]
struct Places {
    limit: usize,
    taken: usize,
    queue: Queue,
}

impl Places {
    fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), taken: 0, queue: Queue::new() }
    }

    /// The step that would take a place now.
    fn first(&self) -> Option<&(u64, Reverse<StepId>)> {
        self.queue.peek().filter(|_| self.taken < self.limit)
    }
}

/// Knows what is done, what runs and what waits.
#[derive(Debug)]
pub(super) struct Dispatcher {
    status: Vec<Status>,
    unmet: Vec<usize>,
    after: Vec<Vec<(StepId, Wait)>>,
    class: Vec<Class>,
    /// For the start of a guest, the step that waits until the same guest is ready.
    awaits: Vec<Option<StepId>>,
    remaining: Vec<u64>,
    boots: Places,
    images: Places,
    /// One for each server that images come from.
    hosts: Vec<Places>,
    /// Downloads that may go on side by side, whatever the servers.
    downloads: usize,
    others: Places,
    /// Guests that boot and are to be waited for. Each holds its place already, and they go before everything: when
    /// they end, a place comes free. There are never more of them than places.
    booting: Queue,
    limit: usize,
    running: usize,
    draining: bool,
}

impl Dispatcher {
    /// Begins with every step waiting. `host_of` names the server that a step waits for, if it does.
    pub(super) fn new(
        graph: &StepGraph,
        limits: Limits,
        host_of: impl Fn(StepId) -> Option<String>,
    ) -> Result<Self, CycleError> {
        let mut hosts = BTreeMap::new();
        let class: Vec<_> = graph
            .steps()
            .map(|(id, step)| {
                let next = hosts.len();
                host_of(id).map_or_else(
                    || class_of(step.kind),
                    |host| Class::Download(*hosts.entry(host).or_insert(next)),
                )
            })
            .collect();
        let remaining = graph.remaining(|id, step| match class[id.0] {
            Class::Download(_) => DOWNLOAD,
            Class::Boot | Class::Image | Class::Other => weight_of(step.kind),
        })?;
        let after: Vec<_> = graph.steps().map(|(id, _)| graph.waiting(id)).collect();
        let awaits = graph.steps().map(|(id, step)| {
            let is_its_wait = |next: &StepId| {
                let next = graph.step(*next);
                next.kind == StepKind::Ready && next.address == step.address
            };
            after[id.0]
                .iter()
                .map(|(next, _)| *next)
                .find(is_its_wait)
                .filter(|_| class_of(step.kind) == Class::Boot)
        });
        let mut dispatcher = Self {
            status: vec![Status::Waiting; graph.len()],
            unmet: graph.steps().map(|(id, _)| graph.before(id).len()).collect(),
            class,
            awaits: awaits.collect(),
            after,
            remaining,
            boots: Places::new(limits.boots),
            images: Places::new(limits.images),
            hosts: hosts.iter().map(|_| Places::new(limits.downloads_per_host)).collect(),
            downloads: limits.downloads.max(1),
            others: Places::new(usize::MAX),
            booting: Queue::new(),
            limit: limits.steps.max(1),
            running: 0,
            draining: false,
        };
        for (id, _) in graph.steps() {
            if dispatcher.unmet[id.0] == 0 {
                dispatcher.offer(id);
            }
        }
        Ok(dispatcher)
    }

    /// Hands out every step that may start now, within the limits. Each step is handed out once.
    pub(super) fn take(&mut self) -> Vec<StepId> {
        let mut taken = Vec::new();
        while !self.draining && self.running < self.limit {
            let Some(id) = self.next() else { break };
            self.status[id.0] = Status::Running;
            self.running += 1;
            taken.push(id);
        }
        taken
    }

    /// A running step ended well: what waited for it may be ready now.
    pub(super) fn done(&mut self, id: StepId) {
        self.leave(id, Status::Done);
        for (next, _) in std::mem::take(&mut self.after[id.0]) {
            self.met(id, next);
        }
    }

    /// A running step failed: everything that needs it, directly or not, is skipped and returned. What only waited for
    /// one of these steps waits for it no longer.
    pub(super) fn failed(&mut self, id: StepId) -> Vec<StepId> {
        self.leave(id, Status::Failed);
        let mut skipped = Vec::new();
        let mut reach = vec![id];
        while let Some(at) = reach.pop() {
            for (next, wait) in std::mem::take(&mut self.after[at.0]) {
                match wait {
                    Wait::Needs if self.status[next.0] == Status::Waiting => {
                        self.status[next.0] = Status::Skipped(id);
                        skipped.push(next);
                        reach.push(next);
                    }
                    Wait::Needs => {}
                    Wait::EitherWay => self.met(at, next),
                }
            }
        }
        skipped.sort_unstable();
        skipped
    }

    /// From now on nothing new is handed out.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// From now on at most `boots` guests boot side by side. Those that boot already go on. Whoever says 0 sees to it
    /// that something else runs: nothing would ever end otherwise.
    pub(super) fn set_boots(&mut self, boots: usize) {
        self.boots.limit = boots;
    }

    /// Number of guests that boot.
    pub(super) fn boots(&self) -> usize {
        self.boots.taken
    }

    /// The step that takes the next place for a boot, if one waits for it.
    pub(super) fn next_boot(&self) -> Option<StepId> {
        self.boots.queue.peek().map(|(_, Reverse(id))| *id)
    }

    /// Number of steps that run.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// What has become of each step, by number.
    pub(super) fn status(&self) -> &[Status] {
        &self.status
    }

    /// Takes the step that goes next out of its queue, and a place for it.
    fn next(&mut self) -> Option<StepId> {
        if let Some((_, Reverse(id))) = self.booting.pop() {
            return Some(id);
        }
        let downloading: usize = self.hosts.iter().map(|host| host.taken).sum();
        let room = downloading < self.downloads;
        let classes = [&mut self.boots, &mut self.images, &mut self.others].into_iter();
        let classes = classes.chain(self.hosts.iter_mut().filter(|_| room));
        let places = classes.max_by_key(|places| places.first().copied())?;
        places.first()?;
        places.taken += 1;
        places.queue.pop().map(|(_, Reverse(id))| id)
    }

    /// `next` need not wait for `id` any more: if that was the last that it waited for, it may start.
    fn met(&mut self, id: StepId, next: StepId) {
        self.unmet[next.0] -= 1;
        if self.unmet[next.0] > 0 || self.status[next.0] != Status::Waiting {
            return;
        }
        if self.awaits[id.0] == Some(next) {
            self.boots.taken += 1;
            self.booting.push((self.remaining[next.0], Reverse(next)));
        } else {
            self.offer(next);
        }
    }

    fn offer(&mut self, id: StepId) {
        let remaining = self.remaining[id.0];
        self.places(id).queue.push((remaining, Reverse(id)));
    }

    fn leave(&mut self, id: StepId, status: Status) {
        self.status[id.0] = status;
        self.running -= 1;
        self.places(id).taken -= 1;
    }

    fn places(&mut self, id: StepId) -> &mut Places {
        match self.class[id.0] {
            Class::Boot => &mut self.boots,
            Class::Image => &mut self.images,
            Class::Download(host) => &mut self.hosts[host],
            Class::Other => &mut self.others,
        }
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
        graph_of(kinds, edges, usize::MAX)
    }

    /// Steps of so many machines in turns.
    fn graph_of(kinds: &[StepKind], edges: &[(usize, usize)], machines: usize) -> StepGraph {
        let mut graph = StepGraph::default();
        for (number, kind) in kinds.iter().enumerate() {
            graph.add(Step {
                kind: *kind,
                address: Address::vm(&(number % machines).to_string()),
                instance: InstanceId(uuid::Uuid::nil()),
                label: None,
            });
        }
        for (earlier, later) in edges {
            graph.order(StepId(*earlier), StepId(*later));
        }
        graph
    }

    const WIDE: Limits =
        Limits { steps: 100, boots: 100, images: 100, downloads: 100, downloads_per_host: 100 };

    /// A dispatcher of steps that wait for no server.
    fn dispatcher(graph: &StepGraph, limits: Limits) -> Result<Dispatcher, CycleError> {
        Dispatcher::new(graph, limits, |_| None)
    }

    fn ids(numbers: &[usize]) -> Vec<StepId> {
        numbers.iter().copied().map(StepId).collect()
    }

    /// Rounds until all is done, if every step takes one.
    fn rounds(mut dispatcher: Dispatcher) -> usize {
        let mut rounds = 0;
        loop {
            let running = dispatcher.take();
            if running.is_empty() {
                return rounds;
            }
            rounds += 1;
            running.into_iter().for_each(|id| dispatcher.done(id));
        }
    }

    #[test]
    fn failure_skips_everything_behind_it_and_nothing_else() {
        let graph = graph(&[StepKind::Prepare; 5], &[(0, 1), (1, 2), (3, 4)]);
        let mut dispatcher = dispatcher(&graph, WIDE).unwrap();
        assert_eq!(dispatcher.take(), ids(&[0, 3]));
        assert_eq!(dispatcher.failed(StepId(0)), ids(&[1, 2]));
        dispatcher.done(StepId(3));
        assert_eq!(dispatcher.take(), [StepId(4)]);
        assert_eq!(dispatcher.status()[2], Status::Skipped(StepId(0)));
    }

    #[test]
    fn what_only_waits_goes_on_when_what_it_waited_for_fails_or_is_skipped() {
        for (failing, skipped) in [(1, vec![]), (0, vec![1, 4])] {
            let mut graph = graph(&[StepKind::Prepare; 5], &[(0, 1), (2, 3), (1, 4)]);
            graph.order_either_way(StepId(1), StepId(2));
            let mut dispatcher = dispatcher(&graph, WIDE).unwrap();
            assert_eq!(dispatcher.take(), ids(&[0]));
            if failing == 1 {
                dispatcher.done(StepId(0));
                assert_eq!(dispatcher.take(), ids(&[1]), "the one that waits holds no place");
                assert_eq!(dispatcher.failed(StepId(1)), ids(&[4]));
            } else {
                assert_eq!(dispatcher.failed(StepId(0)), ids(&skipped));
            }
            assert_eq!(dispatcher.take(), ids(&[2]));
            dispatcher.done(StepId(2));
            assert_eq!(dispatcher.take(), ids(&[3]));
        }
    }

    #[test]
    fn what_was_only_waited_for_releases_nothing_when_nothing_new_begins() {
        let mut graph = graph(&[StepKind::Prepare; 2], &[]);
        graph.order_either_way(StepId(0), StepId(1));
        let mut dispatcher = dispatcher(&graph, WIDE).unwrap();
        assert_eq!(dispatcher.take(), ids(&[0]));
        dispatcher.drain();
        assert_eq!(dispatcher.failed(StepId(0)), []);
        assert_eq!(dispatcher.take(), []);
        assert_eq!(dispatcher.status()[1], Status::Waiting);
    }

    #[test]
    fn what_needs_one_and_only_waits_for_another_is_skipped_with_the_one() {
        let mut graph = graph(&[StepKind::Prepare; 3], &[(0, 2)]);
        graph.order_either_way(StepId(1), StepId(2));
        for order in [[0, 1], [1, 0]] {
            let mut dispatcher = dispatcher(&graph, WIDE).unwrap();
            assert_eq!(dispatcher.take(), ids(&[0, 1]));
            let skipped: Vec<_> = order.into_iter().flat_map(|id| dispatcher.failed(StepId(id))).collect();
            assert_eq!(skipped, ids(&[2]));
            assert_eq!(dispatcher.take(), []);
        }
    }

    #[test]
    fn longest_way_starts_first() {
        let graph = graph(&[StepKind::Update; 4], &[(3, 2)]);
        let mut dispatcher = dispatcher(&graph, Limits { steps: 1, ..WIDE }).unwrap();
        assert_eq!(dispatcher.take(), ids(&[3]));
    }

    #[test]
    fn way_with_a_boot_is_longer_than_one_with_many_small_steps() {
        use StepKind::{Ready, Update};
        let graph = graph(&[Update, Update, Update, Update, Ready], &[(0, 1), (1, 2), (3, 4)]);
        let mut dispatcher = dispatcher(&graph, Limits { steps: 1, ..WIDE }).unwrap();
        assert_eq!(dispatcher.take(), ids(&[3]));
    }

    /// Without the longest way first it is up to 19: the chain begins when the others are done.
    #[test]
    fn chain_of_10_beside_90_others_takes_10_rounds() {
        for chain in [0..10, 45..55, 90..100] {
            let edges: Vec<_> = chain.clone().zip(chain.skip(1)).collect();
            let graph = graph(&[StepKind::Provision(1); 100], &edges);
            let limits = Limits { steps: 10, ..WIDE };
            assert_eq!(rounds(dispatcher(&graph, limits).unwrap()), 10);
        }
    }

    #[test]
    fn boots_and_images_have_limits_of_their_own_and_hold_nothing_else_up() {
        use StepKind::{FetchImage, Prepare, Start};
        let graph = graph(&[Start, Start, Prepare, FetchImage, FetchImage], &[]);
        let mut dispatcher = dispatcher(&graph, Limits { steps: 10, boots: 1, images: 1, ..WIDE }).unwrap();
        assert_eq!(dispatcher.take(), ids(&[3, 0, 2]));
        dispatcher.done(StepId(2));
        assert_eq!(dispatcher.take(), []);
        dispatcher.done(StepId(0));
        assert_eq!(dispatcher.take(), ids(&[1]));
        assert!(dispatcher.failed(StepId(3)).is_empty());
        assert_eq!(dispatcher.take(), ids(&[4]));
    }

    /// Prepare, start and ready of two machines: 0, 1, 2 and 3, 4, 5.
    fn two_machines() -> StepGraph {
        use StepKind::{Prepare, Ready, Start};
        let mut graph = StepGraph::default();
        for name in ["a", "b"] {
            let mut previous = None;
            for kind in [Prepare, Start, Ready] {
                let instance = InstanceId(uuid::Uuid::nil());
                let step = Step { kind, address: Address::vm(name), instance, label: None };
                let id = graph.add(step);
                previous.replace(id).into_iter().for_each(|previous| graph.order(previous, id));
            }
        }
        graph
    }

    #[test]
    fn guest_boots_until_it_is_ready() {
        let graph = two_machines();
        let mut dispatcher = dispatcher(&graph, Limits { boots: 1, ..WIDE }).unwrap();
        assert_eq!(dispatcher.take(), ids(&[0, 3]));
        dispatcher.done(StepId(0));
        dispatcher.done(StepId(3));
        assert_eq!(dispatcher.take(), ids(&[1]));
        dispatcher.done(StepId(1));
        assert_eq!(dispatcher.take(), ids(&[2]), "the second does not start while the first one boots");
        dispatcher.done(StepId(2));
        assert_eq!(dispatcher.take(), ids(&[4]));
        dispatcher.failed(StepId(4));
        assert_eq!((dispatcher.boots.taken, dispatcher.running()), (0, 0));
    }

    #[test]
    fn machine_that_is_prepared_starts_before_the_next_one_is_prepared() {
        let mut dispatcher = dispatcher(&two_machines(), Limits { steps: 1, ..WIDE }).unwrap();
        let mut order = Vec::new();
        while let [id] = dispatcher.take()[..] {
            order.push(id);
            dispatcher.done(id);
        }
        assert_eq!(order, ids(&[0, 1, 2, 3, 4, 5]));
    }

    #[test]
    fn fewer_boots_let_those_go_on_that_run() {
        let graph = graph(&[StepKind::Start; 5], &[]);
        let mut dispatcher = dispatcher(&graph, Limits { boots: 3, ..WIDE }).unwrap();
        assert_eq!(dispatcher.take(), ids(&[0, 1, 2]));
        dispatcher.set_boots(1);
        dispatcher.done(StepId(0));
        dispatcher.done(StepId(1));
        assert_eq!(dispatcher.take(), []);
        dispatcher.done(StepId(2));
        assert_eq!(dispatcher.take(), ids(&[3]));
        dispatcher.set_boots(0);
        assert_eq!(
            (dispatcher.take(), dispatcher.boots(), dispatcher.next_boot()),
            (vec![], 1, Some(StepId(4)))
        );
        dispatcher.set_boots(2);
        assert_eq!(dispatcher.take(), ids(&[4]));
    }

    #[test]
    fn draining_hands_out_nothing() {
        let graph = graph(&[StepKind::Prepare; 2], &[(0, 1)]);
        let mut dispatcher = dispatcher(&graph, WIDE).unwrap();
        dispatcher.take();
        dispatcher.drain();
        dispatcher.done(StepId(0));
        assert_eq!((dispatcher.take(), dispatcher.running()), (vec![], 0));
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
            images in 1usize..3,
            machines in 1usize..40,
        ) {
            let edges: Vec<_> =
                pairs.into_iter().filter(|(a, b)| a < b && *b < size).collect();
            let kinds: Vec<_> = (0..size)
                .map(|number| match number % 5 {
                    0 => StepKind::Start,
                    1 => StepKind::FetchImage,
                    2 => StepKind::Ready,
                    _ => StepKind::Prepare,
                })
                .collect();
            let graph = graph_of(&kinds, &edges, machines);
            let mut dispatcher = dispatcher(&graph, Limits { steps, boots, images, ..WIDE }).unwrap();
            let mut running: Vec<StepId> = Vec::new();
            loop {
                running.extend(dispatcher.take());
                prop_assert!(running.len() <= steps);
                let of = |class| running.iter().filter(|id| class_of(kinds[id.0]) == class).count();
                prop_assert!(of(Class::Boot) <= boots && of(Class::Image) <= images);
                for id in &running {
                    for before in graph.before(*id) {
                        prop_assert_eq!(dispatcher.status()[before.0], Status::Done);
                    }
                }
                let Some(id) = running.pop() else { break };
                if failing.contains(&id.0) { dispatcher.failed(id); } else { dispatcher.done(id); }
            }
            prop_assert_eq!((dispatcher.boots.taken, dispatcher.images.taken, dispatcher.others.taken), (0, 0, 0));
            for status in dispatcher.status() {
                prop_assert!(!matches!(status, Status::Waiting | Status::Running));
            }
        }
    }
}
