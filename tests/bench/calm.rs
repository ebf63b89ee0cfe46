//! How busy others keep the host. Ratios stand a busy host, as both sides suffer, but not any.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long a case waits for others to leave the host alone.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the host is looked at. The benchmark itself does nothing meanwhile, so that what is busy is others.
const LOOK: Duration = Duration::from_millis(500);

/// The part of all processors that others may take.
const CALM: f64 = 0.25;

/// Waits until others leave the host alone; a warning where they do not.
pub(crate) fn wait() -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let taken = taken();
        if taken <= CALM {
            return None;
        }
        if Instant::now() > deadline {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            let others = taken * processors as f64;
            return Some(format!("warning: others take {others:.1} of {processors} processors"));
        }
    }
}

/// The part of all processors that is taken now.
fn taken() -> f64 {
    let before = ticks();
    thread::sleep(LOOK);
    let after = ticks();
    let (busy, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    busy as f64 / all.max(1) as f64
}

/// Ticks since the host's start that processors were busy, and all ticks (proc(5), `stat`).
fn ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").expect("Linux tells what its processors do");
    let line = stat.lines().next().expect("a line of all processors");
    // user, nice, system, idle, iowait, irq, softirq, steal; what comes behind is in the first two already.
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
    let all: u64 = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

/// Memory that nobody uses, in bytes.
pub(crate) fn free_memory() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").expect("Linux tells what memory there is");
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_default() * 1024
}
