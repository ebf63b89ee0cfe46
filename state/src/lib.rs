//! What vmctl remembers about one project: records, a journal of intents, and the right to write them.
//!
//! A project's state is a set of [`Record`]s at one serial, plus the [`Intent`]s whose steps have begun and not
//! ended. Writers hold the project's lock for a whole run and speak to a [`Store`]; readers take a published
//! [`Snapshot`] and never wait for a writer.
//!
//! This crate knows nothing of hypervisors: handles and specs are opaque JSON values to it.

pub mod error;
pub mod project;
pub mod record;
pub mod store;

pub use error::StoreError;
pub use project::{Holder, ProjectDir, Writer};
pub use record::{Address, Intent, OpId, Outcome, Phase, ProvisionRecord, Record, Snapshot};
pub use store::{Entry, Store};
