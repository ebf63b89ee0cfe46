//! Steps that failed and are tried again after a pause.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;

use super::outcome::Failure;
use crate::graph::StepId;

/// The first pause; each further one is twice as long …
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// … up to this: a mirror or a service that is away for longer is away for the next apply.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is tried again, and when.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// How often each step was tried and failed.
    tries: BTreeMap<StepId, u8>,
    /// Steps whose pause goes on, and how they failed last.
    pausing: BTreeMap<StepId, Failure>,
    pauses: JoinSet<StepId>,
    /// Steps whose pause is over.
    pub(super) again: Vec<StepId>,
}

/// A step is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    /// The try that failed, from 1.
    pub(super) attempt: u8,
    /// How long it is waited.
    pub(super) after: Duration,
}

impl Retries {
    /// Takes note of a failed try, and begins the pause before the next one if `allowed` many are not used up.
    pub(super) fn schedule(&mut self, id: StepId, allowed: u8, failure: &Failure) -> Option<Pause> {
        let failed = self.tries.entry(id).or_default();
        if *failed >= allowed {
            return None;
        }
        *failed += 1;
        let (attempt, after) = (*failed, pause(*failed));
        self.pausing.insert(id, failure.clone());
        self.pauses.spawn(async move {
            tokio::time::sleep(after).await;
            id
        });
        Some(Pause { attempt, after })
    }

    /// Waits for a pause to end; `None` if none goes on.
    pub(super) async fn due(&mut self) -> Option<Option<StepId>> {
        // One that was aborted ends as well, and nothing is due.
        self.pauses.join_next().await.map(Result::ok)
    }

    /// The steps that are due.
    pub(super) fn take(&mut self) -> Vec<StepId> {
        let mut due = std::mem::take(&mut self.again);
        due.retain(|id| self.pausing.remove(id).is_some());
        due
    }

    /// Lets no step begin again. Returns those that would have, and how they failed last.
    pub(super) fn stop(&mut self) -> BTreeMap<StepId, Failure> {
        self.pauses.abort_all();
        std::mem::take(&mut self.pausing)
    }

    /// A step came to a good end.
    pub(super) fn forget(&mut self, id: StepId) {
        self.tries.remove(&id);
    }
}

/// How long is waited after so many failed tries.
fn pause(failed: u8) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let seconds: Vec<_> = (1..=10).map(|failed| pause(failed).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
    }
}
