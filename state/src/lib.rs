//! What vmctl remembers about one project: records, a journal of intents, and the right to write them.
//!
//! A project's state is a set of [`Record`]s at one serial, plus the [`Intent`]s whose steps have begun and not
//! ended. Writers hold the project's lock for a whole run and speak to a [`Store`]; readers take a published
//! [`Snapshot`] and never wait for a writer.
//!
//! This crate knows nothing of hypervisors: handles and specs are opaque JSON values to it.

pub mod error;
mod files;
mod guard;
mod ledger;
mod memory;
pub mod project;
pub mod record;
mod sled_store;
pub mod store;

pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use project::{Holder, ProjectDir, Writer, projects, read};
pub use record::{Address, Ended, Intent, OpId, Outcome, Phase, ProvisionRecord, Record, Snapshot};
pub use store::{Entry, Store};
