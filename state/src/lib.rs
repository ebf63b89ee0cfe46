//! What vmctl remembers about one project: records, a journal of intents, and the right to write them.
//!
//! A project's state is a set of [`Record`]s at one serial, plus the [`Intent`]s whose steps have begun and not
//! ended. Writers hold the project's lock for a whole run and speak to a [`Store`]; readers take a published
//! [`Snapshot`] and never wait for a writer.
//!
//! This crate knows nothing of hypervisors: handles and specs are [`Opaque`] to it.
//!
//! ```
//! use std::time::Duration;
//!
//! use jiff::Timestamp;
//! use uuid::Uuid;
//! use vmctl_state::{Address, Entry, Holder, Intent, Outcome, ProjectDir, Reserve, Store, Writer, read};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let data = tempfile::tempdir()?;
//! let dir = ProjectDir::of_project(data.path(), "shop");
//! assert_eq!(read(&dir)?, None);
//!
//! let holder = Holder {
//!     command: "vmctl apply".into(),
//!     user: "ada".into(),
//!     host: "mill".into(),
//!     pid: std::process::id(),
//!     since: Timestamp::now(),
//!     boot: vmctl_state::project::boot_id(),
//! };
//! let mut writer = Writer::open(&dir, holder, Uuid::new_v4(), Duration::ZERO, Reserve::Keep)?;
//!
//! // What is about to be done is durable before it is done.
//! let op = writer.snapshot()?.next_op;
//! writer.commit(&[Entry::Begin(Intent {
//!     op,
//!     run: Uuid::new_v4(),
//!     step: "prepare".into(),
//!     address: Address::vm("web"),
//!     instance: Uuid::new_v4(),
//!     at: Timestamp::now(),
//!     detail: serde_json::json!({ "folder": "vms/web" }),
//! })])?;
//! writer.publish()?;
//! assert_eq!(read(&dir)?.map(|snapshot| snapshot.open.len()), Some(1));
//!
//! writer.commit(&[Entry::End { op, outcome: Outcome::Done }])?;
//! writer.close()?;
//! assert_eq!(read(&dir)?.map(|snapshot| snapshot.serial), Some(2));
//! # Ok(())
//! # }
//! ```

pub mod error;
mod failpoints;
mod files;
mod guard;
mod ledger;
mod memory;
mod opaque;
pub mod project;
pub mod record;
pub mod salvage;
mod seal;
mod sled_store;
pub mod store;

pub use error::{StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use opaque::Opaque;
pub use project::{Holder, ProjectDir, Repair, Reserve, Unlocked, Writer, projects, read, unlock};
pub use record::{
    Address, Ended, FailedProvision, Intent, Interrupted, Note, OpId, Outcome, Phase, ProvisionRecord,
    RanOnce, Record, Run, Snapshot,
};
pub use store::{Entry, Store};
