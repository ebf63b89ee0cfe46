//! One file per command. Each gathers facts, lets a pure function put them into words, and writes.

pub(crate) mod apply;
pub(crate) mod console;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod drift;
pub(crate) mod events;
pub(crate) mod everyday;
pub(crate) mod exec;
pub(crate) mod fmt;
pub(crate) mod graph;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod inventory;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod manual;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod provisioned;
pub(crate) mod rebuild;
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod ssh;
pub(crate) mod ssh_config;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod taint;
pub(crate) mod transfer;
pub(crate) mod validate;
pub(crate) mod vnc;
pub(crate) mod wait;

/// Version of every JSON document that reading commands print; fields may be added within one version.
pub(crate) const JSON_FORMAT: u32 = 1;
