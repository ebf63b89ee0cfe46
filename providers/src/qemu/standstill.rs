//! Time in which vmctl itself did not run: it was stopped (SIGSTOP), or the whole host was suspended.
//!
//! A deadline is a time that a guest is given while somebody asks it. Nobody asked it during a standstill, so that time is
//! given again.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often the watch looks at the clock.
const TICK: Duration = Duration::from_millis(500);

/// A tick that comes later than this was no matter of a crowded host.
const LATE: Duration = Duration::from_secs(5);

/// Notices standstills while something is awaited.
#[derive(Debug, Default)]
pub(super) struct Standstill(AtomicU64);

impl Standstill {
    /// Awaits `work`, and counts the time in which this process did not run.
    pub(super) async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let ticking = async || -> Infallible {
            loop {
                let before = Instant::now();
                sleep(TICK).await;
                self.note(before.elapsed());
            }
        };
        // The tick is looked at first: after a standstill it is due together with the deadlines that passed in it.
        tokio::select! {
            biased;
            never = ticking() => match never {},
            result = work => result,
        }
    }

    fn note(&self, tick: Duration) {
        if tick > LATE {
            let millis = u64::try_from((tick - TICK).as_millis()).unwrap_or(u64::MAX);
            self.0.fetch_add(millis, Ordering::Relaxed);
        }
    }

    /// What was counted since the last call.
    pub(super) fn take(&self) -> Duration {
        Duration::from_millis(self.0.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_ticks_are_counted_once_and_others_are_not() {
        let standstill = Standstill::default();
        standstill.note(LATE);
        assert_eq!(standstill.take(), Duration::ZERO);
        standstill.note(Duration::from_secs(60));
        standstill.note(Duration::from_secs(6));
        assert_eq!(standstill.take(), Duration::from_secs(65));
        assert_eq!(standstill.take(), Duration::ZERO);
    }
}
