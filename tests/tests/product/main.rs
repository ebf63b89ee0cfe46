//! The product as a user meets it: the binary, real guests, two processes at once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod access;
mod agent;
mod bad_input;
mod changes;
mod crash;
mod drift;
mod everyday;
mod examples;
mod failing;
mod field;
mod format;
mod full;
mod hardware;
mod history;
mod images;
mod init;
mod interruption;
mod life;
mod locking;
mod moved;
mod networks;
mod outputs;
mod pins;
mod plans;
mod power_cut;
mod provisioning;
mod recovery;
mod report;
mod room;
mod schema;
mod secrets;
mod stopping;
mod storage;
mod together;
mod validate;
