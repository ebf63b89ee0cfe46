//! What the tests of the product and its benchmark stand on.
//!
//! A [`World`] is a throwaway place: a project folder, a data folder and a runtime folder of its own. vmctl is run in
//! it as a user runs it, through the binary. [`leaks`] looks for what a destroyed project must not leave behind, and
//! dropping a world ends whatever a failed test left, and only that: processes whose command line names its folder.
//!
//! Guests are slow where they are emulated, so a world that runs some asks for [`slots`] first.
#![expect(
    clippy::disallowed_methods,
    reason = "tests stand outside the product: they run it, and are told by environment where it and the images are"
)]
#![expect(clippy::panic, reason = "a test that cannot go on says why and ends")]

pub mod browser;
pub mod certificate;
pub mod disk;
pub mod illumos;
pub mod lan;
pub mod leaks;
pub mod markdown;
pub mod monitor;
mod namespace;
pub mod process;
pub mod propolis;
pub mod proxy;
pub mod server;
pub mod shell;
pub mod slots;
pub mod surroundings;
pub mod terminal;
pub mod vmctl;
mod watchdog;
pub mod world;

#[cfg(test)]
mod doors;

use std::thread;
use std::time::{Duration, Instant};

pub use vmctl::{Ended, Running, Unread};
pub use world::{Saved, World};

/// How long a condition may take to come true; emulated guests on a busy host are slow.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Pause between two looks at something that cannot be waited for, such as a file of another process.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Returns as soon as `holds` does; panics, saying `what`, if that takes too long.
pub fn await_condition(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not true after {PATIENCE:?}: {what}");
        thread::sleep(BETWEEN_LOOKS);
    }
}
