//! Carries out a plan: hands steps to providers, journals each before and after, and decides nothing new, but
//! whether there is the template that a machine waited for.
//!
//! ```text
//!            ┌───────────── ends of steps ─────────────┐
//!            ▼                                         │
//!     run (owner of records) ─── commit ─── spawn ──▶ effects ──▶ providers
//!            │        ▲
//!            ▼        │ what may start, what is skipped
//!          events   dispatcher, gate, retries
//! ```
//!
//! A run, which the executor begins, alone touches the store. Whatever ended and whatever begins is one durable commit, so the cost of
//! a sync is shared by all steps that move at the same time.

mod dispatch;
mod downloads;
mod effect;
mod events;
mod executor;
mod gate;
mod notes;
mod outcome;
mod records;
mod retries;
mod run;
mod weight;

pub use dispatch::Limits;
pub use downloads::{CacheDownloads, Downloads};
pub use effect::Host;
pub use events::{EventReceiver, EventSender, events};
pub use executor::{Control, Executor, obstacles};
pub use notes::{NotedAt, note_down};
pub use outcome::{ApplyError, Event, Failure, Report};
