//! What a run of a program takes: time, processors' time and memory.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// Pause between two looks at the memory of a program. What it holds for less than that may be missed.
const LOOK: Duration = Duration::from_millis(2);

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    /// User and system time, of the processes that it waited for as well.
    pub(crate) processors: Duration,
    /// The most memory that was resident at one time, in bytes.
    pub(crate) memory: u64,
}

/// Runs a program to its end, which must be a success, and throws its output away. Nothing else may be waited for meanwhile.
pub(crate) fn of(command: &mut Command) -> Usage {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let before = children();
    let begun = Instant::now();
    let mut child = command.spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let (memory, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (ended, wall) = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // The mark only grows.
                memory.fetch_max(high_water(&status), Ordering::Relaxed);
                thread::sleep(LOOK);
            }
        });
        let ended = child.wait().expect("it can be waited for");
        let wall = begun.elapsed();
        is_over.store(true, Ordering::Relaxed);
        (ended, wall)
    });
    assert!(ended.success(), "{command:?}: {ended}");
    Usage { wall, processors: children().saturating_sub(before), memory: memory.into_inner() }
}

/// The most memory that was resident, in bytes (proc(5), `status`).
fn high_water(status: &str) -> u64 {
    let status = fs::read_to_string(status).unwrap_or_default();
    let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: Option<u64> = mark.and_then(|mark| mark.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_default() * 1024
}

/// Processors' time of all children that were waited for so far.
fn children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("what children took");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| {
            Duration::from_secs(time.tv_sec().unsigned_abs())
                + Duration::from_micros(time.tv_usec().unsigned_abs())
        })
        .sum()
}

/// How long something takes.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}
