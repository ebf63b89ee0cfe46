//! How far downloads are, for people and for programs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmctl_planner::StepId;
use vmctl_providers::image::{FetchPhase, FetchProgress};

use crate::ui;

/// How often a line tells of a download where lines stay: often enough to see that it goes on.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Weight of the newest rate against those before: a line that shows jumps cannot be read.
const NEWEST: f64 = 0.3;

/// What was told of each download.
#[derive(Debug, Default)]
pub(crate) struct Rates(BTreeMap<StepId, Rate>);

/// What was told of one download.
#[derive(Debug)]
struct Rate {
    at: Instant,
    received: u64,
    /// Bytes a second.
    rate: Option<f64>,
    /// When a line last told of it.
    line: Option<Instant>,
    phase: FetchPhase,
}

impl Rates {
    /// Whether a line that stays is due: what goes on changed, or nothing was said for a while.
    pub(crate) fn is_due(&mut self, id: StepId, progress: &FetchProgress, now: Instant) -> bool {
        let known = self.0.get(&id);
        let changed = known.is_some_and(|known| known.phase != progress.phase);
        let known = self.0.entry(id).or_insert_with(|| Rate::begin(progress, now));
        let is_late = known.line.is_none_or(|line| now.duration_since(line) >= LINE_EVERY);
        if changed || is_late {
            known.line = Some(now);
        }
        changed || is_late
    }

    /// How far a download is, in words.
    pub(crate) fn text(&mut self, id: StepId, progress: &FetchProgress, now: Instant) -> String {
        let known = self.0.entry(id).or_insert_with(|| Rate::begin(progress, now));
        known.take(progress, now);
        let bytes = match progress.total {
            Some(total) => format!("{} of {}", ui::bytes(progress.received), ui::bytes(total)),
            None => ui::bytes(progress.received),
        };
        match &progress.phase {
            FetchPhase::Waiting => "another vmctl downloads it".to_owned(),
            FetchPhase::Downloading => match known.rate {
                Some(rate) => format!("{bytes}, {}/s", ui::bytes(whole(rate))),
                None => bytes,
            },
            FetchPhase::Retrying { attempt, of, after, why } => {
                format!("{bytes}; try {attempt} of {of} failed, the next one in {} s: {why}", after.as_secs())
            }
            FetchPhase::Finishing => format!("{bytes}, checked and unpacked"),
            FetchPhase::Converting => "converted to qcow2".to_owned(),
        }
    }
}

impl Rate {
    fn begin(progress: &FetchProgress, now: Instant) -> Self {
        Self { at: now, received: progress.received, rate: None, line: None, phase: progress.phase.clone() }
    }

    fn take(&mut self, progress: &FetchProgress, now: Instant) {
        let elapsed = now.duration_since(self.at).as_secs_f64();
        if elapsed > 0.0 && progress.received >= self.received {
            let bytes = u32::try_from(progress.received - self.received).unwrap_or(u32::MAX);
            let newest = f64::from(bytes) / elapsed;
            self.rate = Some(self.rate.map_or(newest, |rate| rate + NEWEST * (newest - rate)));
        }
        (self.at, self.received, self.phase) = (now, progress.received, progress.phase.clone());
    }
}

/// A rate without its fraction.
fn whole(rate: f64) -> u64 {
    Duration::try_from_secs_f64(rate).map_or(0, |rate| rate.as_secs())
}

/// The same for programs.
pub(crate) fn progress_data(progress: &FetchProgress) -> Value {
    let phase = match &progress.phase {
        FetchPhase::Waiting => "waiting",
        FetchPhase::Downloading => "downloading",
        FetchPhase::Retrying { .. } => "retrying",
        FetchPhase::Finishing => "finishing",
        FetchPhase::Converting => "converting",
    };
    let why = if let FetchPhase::Retrying { why, .. } = &progress.phase { Some(why) } else { None };
    json!({
        "phase": phase,
        "received_bytes": progress.received,
        "total_bytes": progress.total,
        "why": why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(received: u64, phase: FetchPhase) -> FetchProgress {
        FetchProgress { received, total: Some(4 << 20), phase }
    }

    #[test]
    fn bytes_and_rate_are_told_and_lines_stay_few() {
        let (mut rates, start, id) = (Rates::default(), Instant::now(), StepId(0));
        let later = |seconds| start + Duration::from_secs(seconds);
        let downloading = |received| at(received, FetchPhase::Downloading);
        assert!(rates.is_due(id, &downloading(0), start));
        assert_eq!(rates.text(id, &downloading(0), start), "0 B of 4 MiB");
        assert_eq!(rates.text(id, &downloading(2 << 20), later(2)), "2 MiB of 4 MiB, 1 MiB/s");
        assert!(!rates.is_due(id, &downloading(2 << 20), later(9)));
        assert!(rates.is_due(id, &downloading(3 << 20), later(10)));
        assert!(rates.is_due(id, &at(4 << 20, FetchPhase::Finishing), later(11)));
    }
}
