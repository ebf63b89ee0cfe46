//! The product as a user meets it: the binary, real guests, two processes at once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod bad_input;
mod changes;
mod drift;
mod examples;
mod format;
mod history;
mod init;
mod interruption;
mod life;
mod locking;
mod outputs;
mod plans;
mod provisioning;
mod recovery;
mod report;
mod room;
mod schema;
mod secrets;
mod together;
mod validate;
