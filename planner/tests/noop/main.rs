//! Plan and apply against the remembering fake: what holds for every pair of VMFiles, and what happens on
//! failure, drift and interruption.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod downloads;
mod drift;
mod failures;
mod lifecycle;
mod properties;
mod runs;
mod secrets;
mod sequences;
mod unknown;
mod world;
