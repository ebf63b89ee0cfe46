//! What must hold of a world at rest, and what a destroyed project must not leave behind.
//!
//! [`leakcheck`] asks what can be asked of any world after an apply that went well: that machines and records agree
//! both ways (I1), that every file has an owner (I2), that nothing is left to do (I3), that no disk has two processes
//! (I5), that what listens is what was declared (I7). What needs to know what was asked for takes it as an argument:
//! [`ran`] (I4), [`kept`] (I6), [`secrets`] (I8). [`held`] and [`check`] go around the destruction of real machines.

mod asked;
mod destroyed;
mod files;
mod machines;
mod rest;

pub use asked::{kept, ran, secrets};
pub use destroyed::{Held, check, held};
pub use rest::{Goal, leakcheck, leaks};
