//! The folder of one project and the two ways into its state: reading and writing.
//!
//! ```text
//! <project>/state/         the store; only a writer opens it
//!           lock           whose kernel lock is the right to write; never removed
//!           lock.json      who writes; stands there from open to orderly close
//!           snapshot.json  what readers take; exact whenever lock.json is not there
//!           notes-behind   stands there while machines' notes may be behind because a writer died
//!           history.json   the journal as the last writer left it, for readers while another one writes
//!           serial         the highest serial that was ever published, to tell an older copy that was put back
//!           ballast        room for one run on a full disk that gives room back
//!           lineage        the lineage that the state will have, reserved before it is made
//!           key            makes digests of sensitive values; no part of the state
//!           texts/         texts behind the digests in records; no part of the state
//!           vms/           a folder per machine, which this crate only counts
//!           VMFile.kdl     describes machines that were made by command; no part of the state
//!           temporary      stands there in the project of one command, which holds its lock
//! ```
//!
//! A writer puts `lock.json` there, opens the store, publishes, commits and publishes as it goes, publishes a last
//! time and removes `lock.json`. So a reader that finds
//!
//! - no `lock.json` takes `snapshot.json`, without opening the store;
//! - `lock.json` and the lock held takes `snapshot.json` too, which is as old as the writer's last publishing;
//! - `lock.json` and the lock free knows that a writer died: it takes the lock, opens the store, publishes what
//!   that writer committed last, and removes `lock.json` in its place.
//!
//! A store is made beside its place and renamed when it is whole, so a store that is there but empty is damaged,
//! never new; and whoever finds no store although a snapshot or a machine's folder exists reports that as
//! [`StoreError::Missing`](crate::StoreError::Missing).

mod ballast;
mod dir;
mod history;
mod key;
mod lineage;
pub(crate) mod lock;
mod mark;
mod own;
mod published;
mod reader;
mod repair;
mod temporary;
mod texts;
mod writer;

pub use dir::{ProjectDir, projects};
pub use history::{History, LeftHistory, history};
pub use key::{KEY_LENGTH, Key, key, make_key};
pub use lineage::reserve_lineage;
pub use lock::{Holder, boot_id};
pub use reader::{Unlocked, at_work, read, unlock};
pub use repair::{Kept, Repair};
pub use temporary::Temporary;
pub use writer::{Reserve, Writer};
