//! The QEMU backend with real QEMU processes.
//!
//! Most machines here have an empty disk and never get beyond their firmware: that is enough for everything but a
//! clean power-down and what is asked of guests. Each test has folders and addresses of its own; whatever it leaves
//! running is ended on drop.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test panics where the unexpected happens")]

mod custody;
mod findings;
mod forwards;
mod guests;
mod life;
mod probes;
mod safety;
mod warm;
mod world;
