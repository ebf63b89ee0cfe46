//! The way of events from an apply to whoever shows them.
//!
//! Telling never waits: a terminal that is slow, or a pipe that nobody reads, must not keep machines from being made.
//! What guests print is kept within bounds, and what does not fit is dropped and counted. Nothing else is dropped, and
//! needs no bound: every step begins once and ends once.
//!
//! ```text
//! line fits ──▶ queued
//! line does not fit ──▶ a gap is queued, once ──▶ more lines of the same step ──▶ counted, until the gap was received
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use vmctl_providers::image::FetchProgress;
use vmctl_state::Address;

use super::outcome::Event;
use crate::graph::StepId;

/// Bytes of guests' output that wait to be received, of all steps: a second of a busy terminal.
const ALL_OUTPUT: usize = 1 << 20;

/// The same of one step, so that a guest that floods does not drown the others.
const STEP_OUTPUT: usize = 64 << 10;

/// Opens a way for events.
pub fn events() -> (EventSender, EventReceiver) {
    let shared = Arc::new(Shared::default());
    (EventSender(Arc::new(Ending(Arc::clone(&shared)))), EventReceiver(shared))
}

/// Tells what happens. The way ends when all clones are dropped.
#[derive(Debug, Clone)]
pub struct EventSender(Arc<Ending>);

/// Receives what happens. Who drops it need not listen: what is told then is forgotten.
#[derive(Debug)]
pub struct EventReceiver(Arc<Shared>);

/// Ends the way when the last sender is gone.
#[derive(Debug)]
struct Ending(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl EventSender {
    /// Tells an event, without waiting. Nobody listening is fine.
    pub(super) fn send(&self, event: Event) {
        let shared = &self.0.0;
        shared.with(|waiting| waiting.add(event));
        shared.changed.notify_one();
    }
}

impl EventReceiver {
    /// The next event; `None` when there will be no more. A call that is cut off loses none.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            let (event, ended) = self.0.with(|waiting| (waiting.take(), waiting.ended));
            if event.is_some() || ended {
                return event;
            }
            self.0.changed.notified().await;
        }
    }

    /// Number of events that wait to be received.
    pub fn waiting(&self) -> usize {
        self.0.with(|waiting| waiting.queue.len())
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        self.0.with(|waiting| *waiting = Waiting { deaf: true, ..Waiting::default() });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.with(|waiting| waiting.ended = true);
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        // Nothing panics half-way through a change, so what a poisoned lock guards is whole.
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was told and is not received yet.
#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Queued>,
    /// Bytes of output in the queue, of all steps.
    output: usize,
    /// Of each step with output in the queue.
    steps: BTreeMap<StepId, Backlog>,
    /// How far each step is that waits to be told of.
    progress: BTreeMap<StepId, FetchProgress>,
    ended: bool,
    /// Nobody listens any more.
    deaf: bool,
}

#[derive(Debug)]
enum Queued {
    Event(Event),
    /// How far this step is.
    Progress(StepId),
    /// Here lines of this step are missing.
    Gap(StepId, Address),
}

/// What is in the queue of one step's output.
#[derive(Debug, Default)]
struct Backlog {
    bytes: usize,
    /// Lines that were dropped where a gap stands in the queue.
    dropped: u64,
}

impl Waiting {
    fn add(&mut self, event: Event) {
        if self.deaf {
            return;
        }
        if let Event::Progress { id, progress } = event {
            // Only how far it is now: one event a step waits at most.
            if self.progress.insert(id, progress).is_none() {
                self.queue.push_back(Queued::Progress(id));
            }
            return;
        }
        let Event::Output { id, address, line } = &event else {
            return self.queue.push_back(Queued::Event(event));
        };
        let cost = cost(&line.text);
        let step = self.steps.entry(*id).or_default();
        // A single line may be longer than what is kept of a step.
        let fits_step = step.bytes == 0 || step.bytes + cost <= STEP_OUTPUT;
        if step.dropped > 0 {
            step.dropped += 1;
        } else if fits_step && self.output + cost <= ALL_OUTPUT {
            step.bytes += cost;
            self.output += cost;
            self.queue.push_back(Queued::Event(event));
        } else {
            step.dropped = 1;
            self.queue.push_back(Queued::Gap(*id, address.clone()));
        }
    }

    fn take(&mut self) -> Option<Event> {
        match self.queue.pop_front()? {
            Queued::Event(event) => {
                if let Event::Output { id, line, .. } = &event
                    && let Some(step) = self.steps.get_mut(id)
                {
                    step.bytes -= cost(&line.text);
                    self.output -= cost(&line.text);
                    if step.bytes == 0 && step.dropped == 0 {
                        self.steps.remove(id);
                    }
                }
                Some(event)
            }
            Queued::Progress(id) => {
                let progress = self.progress.remove(&id)?;
                Some(Event::Progress { id, progress })
            }
            Queued::Gap(id, address) => {
                // Whatever stood before the gap was received.
                let lines = self.steps.remove(&id).map_or(0, |step| step.dropped);
                Some(Event::Dropped { id, address, lines })
            }
        }
    }
}

/// What a line costs in memory.
fn cost(text: &str) -> usize {
    size_of::<Queued>() + text.len()
}

#[cfg(test)]
mod tests {
    use vmctl_providers::provision::{OutputLine, OutputStream};

    use super::*;

    fn line(step: usize, text: &str) -> Event {
        let line = OutputLine { stream: OutputStream::Stdout, text: text.to_owned() };
        Event::Output { id: StepId(step), address: Address::vm(&step.to_string()), line }
    }

    /// What a reader sees, in short.
    fn received(waiting: &mut Waiting) -> Vec<String> {
        std::iter::from_fn(|| waiting.take())
            .map(|event| match event {
                Event::Output { line, .. } => line.text,
                Event::Dropped { id, lines, .. } => format!("{lines} of {}", id.0),
                Event::Started(id) => format!("started {}", id.0),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn flood_is_cut_and_counted_where_it_happened_and_nothing_else_is_lost() {
        let mut waiting = Waiting::default();
        let long = "x".repeat(STEP_OUTPUT);
        waiting.add(line(1, &long));
        (0..5).for_each(|_| waiting.add(line(1, "flood")));
        waiting.add(line(2, "calm"));
        waiting.add(Event::Started(StepId(3)));
        assert_eq!(received(&mut waiting), [&long, "5 of 1", "calm", "started 3"]);
        assert_eq!((waiting.output, waiting.steps.len()), (0, 0));
        waiting.add(line(1, "again"));
        assert_eq!(received(&mut waiting), ["again"]);
    }

    #[test]
    fn lines_behind_a_gap_wait_until_it_was_received() {
        let mut waiting = Waiting::default();
        waiting.add(line(1, &"x".repeat(STEP_OUTPUT)));
        waiting.add(line(1, "second"));
        waiting.take();
        waiting.add(line(1, "third"));
        assert_eq!(received(&mut waiting), ["2 of 1"], "they are not shown in front of it");
    }

    #[test]
    fn all_steps_together_are_bounded() {
        let mut waiting = Waiting::default();
        for number in 0..100_000 {
            waiting.add(line(number % 1000, &"x".repeat(1000)));
        }
        assert!(waiting.output <= ALL_OUTPUT);
        assert!(waiting.queue.len() <= ALL_OUTPUT / cost("") + 1000, "{}", waiting.queue.len());
        let shown = received(&mut waiting);
        let dropped = shown.iter().filter_map(|text| text.split_once(" of ")?.0.parse::<usize>().ok());
        let lines = shown.iter().filter(|text| text.len() == 1000).count();
        assert_eq!(lines + dropped.sum::<usize>(), 100_000, "what is not shown is counted");
    }

    #[tokio::test]
    async fn way_ends_with_its_last_sender_and_forgets_what_nobody_hears() {
        let (sender, mut receiver) = events();
        let other = sender.clone();
        sender.send(Event::Draining { awaited: Vec::new() });
        drop((sender, other));
        assert!(matches!(receiver.recv().await, Some(Event::Draining { .. })));
        assert!(receiver.recv().await.is_none());

        let (sender, receiver) = events();
        drop(receiver);
        sender.send(Event::Draining { awaited: Vec::new() });
        assert_eq!(sender.0.0.with(|waiting| waiting.queue.len()), 0);
    }
}
