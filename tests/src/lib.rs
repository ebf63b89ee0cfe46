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
pub mod leaks;
pub mod monitor;
pub mod process;
pub mod slots;
pub mod surroundings;
pub mod vmctl;
pub mod world;

#[cfg(test)]
mod doors;

pub use vmctl::{Ended, Running};
pub use world::{Saved, World};
