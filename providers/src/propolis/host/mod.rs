//! The host of a Propolis server: illumos's `zfs`, `dladm`, `arp`, `bhyvectl` and the commands of zones.
//!
//! [`Command`]s are data, made in [`commands`] and nowhere else; a [`Runner`] runs them. What their answers mean, and what
//! may be destroyed, is decided in [`disks`], [`vnics`] and [`zones`]. All of it is the same on Linux, where the programs are missing
//! and that is told.

pub(super) mod commands;
pub(super) mod disks;
#[cfg(test)]
pub(super) mod fake;
pub(super) mod neighbours;
pub(super) mod vnics;
pub(super) mod zones;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::{Program, helper};
use crate::spec::BackendTag;

/// A command of the host, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program.
    pub program: Program,
    /// Its arguments.
    pub args: Vec<String>,
    /// How long it may take.
    pub patience: Duration,
}

/// What runs commands of the host, to their ends.
pub trait Runner: Debug + Send + Sync {
    /// Returns what it printed. A failure keeps the command line, the status and the end of its messages.
    fn run<'a>(&'a self, command: &'a Command) -> Pin<Box<dyn Future<Output = Result<String>> + Send + 'a>>;

    /// Fails, with what it would be for, if the program of `command` is not there.
    fn check(&self, command: &Command) -> Result<()>;
}

/// The host that we are on.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisHost;

impl Runner for ThisHost {
    fn run<'a>(&'a self, command: &'a Command) -> Pin<Box<dyn Future<Output = Result<String>> + Send + 'a>> {
        Box::pin(async move {
            self.check(command)?;
            let output = helper(&command.program, &command.args, command.patience).await?;
            Ok(String::from_utf8_lossy(&output).into_owned())
        })
    }

    fn check(&self, command: &Command) -> Result<()> {
        command.program.locate().map(drop).map_err(|_| Error::BackendUnavailable {
            backend: BackendTag::Propolis,
            reason: format!(
                "`{}` is not in PATH, and {} need it; it belongs to illumos",
                command.program.name, command.program.package
            ),
        })
    }
}
