//! The contract that every store keeps.

use std::fmt;

use uuid::Uuid;

use crate::error::StoreError;
use crate::record::{Address, Intent, OpId, Outcome, Record, Snapshot};

/// One change to the state. A commit takes several and keeps all of them or none.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A step is about to act. Its number must be at least the [`Snapshot::next_op`] at that point.
    Begin(Intent),
    /// A begun step ended; its intent is open no longer, and the journal keeps how it ended. It must be open.
    End {
        /// The step's number.
        op: OpId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Makes or replaces a record.
    Put(Box<Record>),
    /// Forgets a record; forgetting what is not recorded succeeds.
    Remove(Address),
}

/// Remembers records and intents of one project.
///
/// Every implementation keeps the same promises, checked by one contract suite.
pub trait Store: Send + fmt::Debug {
    /// Returns all records and open intents at the current serial.
    fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Commits `entries` as one: all of them are durable when it returns, or none took place.
    ///
    /// The serial grows by one; the new one is returned. An empty slice commits nothing and returns the current
    /// serial. Entries take effect in their order. What contradicts the journal is
    /// [`Refused`](crate::StoreError::Refused) as a whole, and the store goes on. After any other failure the
    /// store takes no further commit: whether the failed one reached the disk is known only once it is opened
    /// again.
    fn commit(&mut self, entries: &[Entry]) -> Result<u64, StoreError>;

    /// The run that commits belong to, where runs are kept.
    fn run(&self) -> Option<Uuid> {
        None
    }

    /// Whether a writer died and what it kept beside the store may still be behind. Stores that nobody else writes
    /// follow none.
    fn follows_a_crash(&self) -> bool {
        false
    }

    /// What is kept beside the store was not written to the end; the next one that writes shall do so.
    fn notes_left_behind(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Everything that is kept beside the store was written anew: there is no crash to follow any more.
    fn notes_caught_up(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Lets readers in other processes see the current serial. Cheap when nothing changed since the last time.
    ///
    /// Stores without readers do nothing.
    fn publish(&mut self) -> Result<(), StoreError>;
}
