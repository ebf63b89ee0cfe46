//! The Propolis backend: machines as VMs of propolis-servers, on illumos.
//!
//! One server is one VM. Usually vmctl starts one for each machine, in a session of its own and on a port of the loopback;
//! a machine may also name a server that somebody else runs. Disks are files in the machine's folder, or ZFS volumes;
//! cards are vnics, found or made.
//!
//! ```text
//!            prepare               start                                stop
//!   nothing ────────▶ disk, vnics ──────▶ server ─ ensure ─ Run ─▶ Running ─────▶ Stopped ─▶ Destroyed, server ended
//!                                                                                                   │
//!                                              start again: a fresh server ◀─────────────────────────┘
//! ```
//!
//! | module | does |
//! | --- | --- |
//! | `api`, [`client`] | what is said to a server and answered, over HTTP; every call bounded |
//! | [`serial`] | the console, over a WebSocket |
//! | `instance`, `decide` | pure: the instance spec of a machine, and what a server's state means |
//! | [`host`] | `zfs`, `dladm`, `arp`, `zoneadm`: commands as data, run on illumos, scripted in tests |
//! | [`survey`] | whether what is used is there |
//! | `server` | the process of a server of our own, and the proof that one is ours |
//! | `zone` | a server in a zone of its machine's own |
//! | `backend`, `prepare`, `start`, `stop`, `look`, `guest`, `custody` | the traits |
//!
//! Everything here compiles and is tested on Linux, against a server that keeps the real one's rules. What was not run on
//! illumos yet is told in `docs/providers/propolis.md`.

mod api;
mod backend;
mod capacity;
pub mod client;
mod console;
mod custody;
mod decide;
mod guest;
pub mod host;
mod instance;
mod look;
mod prepare;
mod raw;
pub mod serial;
mod server;
mod start;
mod stop;
pub mod survey;
#[cfg(test)]
mod tests;
mod zone;

pub use api::{Board, History, Instance, Monitored, Request, State};
pub use backend::{PROPOLIS_SERVER, PropolisBackend, PropolisConfig};
pub use client::{API_VERSION, Client, Ensured, PropolisError};
pub use instance::{MOST_NICS, MOST_VCPUS};
