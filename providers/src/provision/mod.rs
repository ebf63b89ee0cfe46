//! Provisioning steps as data, and how one is run in a guest.
//!
//! A script goes to a private folder of the guest over the command's own standard input, is run from there, and
//! goes with its folder. It lives as long as that input stays open, so that a step which is out of time, or whose
//! connection broke, leaves nothing running.

mod lines;
mod record;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use record::Recorder;

use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::secrets::Secrets;
use crate::spec::{Digest, Secret};
use crate::ssh::{ExitStatus, Running, Session, SshError, quote};

/// Runs a script that comes on standard input; see its head.
const RUN: &str = include_str!("run.sh");

/// Runs a command as another user; see its head.
const AS_USER: &str = include_str!("as_user.sh");

/// How long a step may take, unless it says so itself.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How long the guest may take to end a step that is out of time: 5 s from its SIGTERM to its SIGKILL, and the way.
const END_GRACE: Duration = Duration::from_secs(15);

/// What a provisioning step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProvisionAction {
    /// Runs `script` in the guest: by its own interpreter line, else by `sh` with `-e`.
    Shell {
        /// Text of the script.
        script: String,
    },
    /// Copies one file of the host into the guest.
    File {
        /// Absolute path on the host.
        source: PathBuf,
        /// Path in the guest; parent folders are made. Relative to the login user's home.
        destination: String,
    },
    /// Copies what is in a folder of the host into a folder of the guest.
    Folder {
        /// Absolute path on the host.
        source: PathBuf,
        /// Path of the folder in the guest; it is made. Relative to the login user's home.
        destination: String,
    },
}

/// One provisioning step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionStep {
    /// Number within its machine, from 1.
    pub number: usize,
    /// What it is called in messages: the script's path, `inline`, the file's destination.
    pub label: String,
    /// What it does.
    pub action: ProvisionAction,
    /// How it runs, and when.
    pub options: StepOptions,
    /// Digest of everything that decides what it does: kind, text or file content, destination, options.
    pub digest: Digest,
    /// What nothing that it prints may show.
    pub secrets: Secrets,
}

impl ProvisionStep {
    /// The texts of its author: what it does, and with what.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let StepOptions { env, user, owner, .. } = &self.options;
        let text = match &self.action {
            ProvisionAction::Shell { script } => script,
            ProvisionAction::File { destination, .. } | ProvisionAction::Folder { destination, .. } => {
                destination
            }
        };
        let options = user.iter().chain(owner).map(String::as_str);
        std::iter::once(text.as_str()).chain(env.values().map(Secret::expose)).chain(options)
    }
}

/// How a provisioning step runs, and when. When it runs again is not a backend's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepOptions {
    /// When it runs again.
    pub run: Run,
    /// Whether it may run again where nobody knows whether it ran.
    pub rerun: Rerun,
    /// How often it is tried again after a failure; 0 unless it may run again.
    pub retries: u8,
    /// Environment variables of a script, by name.
    pub env: BTreeMap<String, Secret>,
    /// Who a script runs as; the login user if absent.
    pub user: Option<String>,
    /// How long it may take; [`STEP_TIMEOUT`] if absent.
    pub timeout: Option<Duration>,
    /// Permission bits of a file that is written; those of the source if absent.
    pub mode: Option<u32>,
    /// Owner, and perhaps group, of a file that is written; the login user if absent.
    pub owner: Option<String>,
}

/// When a step that ran runs again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Run {
    /// When its content changed, or that of a step before it.
    #[default]
    OnChange,
    /// Never.
    Once,
    /// At every apply.
    Always,
}

/// Whether a step may run again that was cut off, so that nobody knows how much of its work it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rerun {
    /// Only if somebody says so.
    #[default]
    Ask,
    /// Yes: to run it twice, or once and a half, comes to the same as once.
    Safe,
}

/// Which stream of the guest's command a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a guest's output, without its end; raw, not yet fit for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// Where it came from.
    pub stream: OutputStream,
    /// The text; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Runs `step` over `session`; every line goes to `output` and, raw, to the end of the file `log`. What the step must not
/// show is hidden in both, and in the error.
///
/// A step that fails, or takes longer than it may, is an [`Error::Provision`] with its last lines. One that
/// began and whose end nobody saw is an [`Error::ProvisionCut`]; every other error means that it did nothing. A log that
/// cannot be written to any more does not end the step.
pub async fn run(
    session: &Session,
    step: &ProvisionStep,
    log: &Path,
    output: &mpsc::Sender<OutputLine>,
) -> Result<()> {
    run_within(session, step, log, output, step.options.timeout.unwrap_or(STEP_TIMEOUT)).await
}

/// What a step's `error` means where the machine may have ended under it: then its end was not seen.
pub(crate) fn cut_off(step: &ProvisionStep, error: Error) -> Error {
    match error {
        Error::ProcessEnded { .. } => Error::ProvisionCut {
            step: step.number,
            label: step.label.clone(),
            tail: Vec::new(),
            cause: Box::new(error),
        },
        error => error,
    }
}

/// As [`run`], with another limit of time.
pub async fn run_within(
    session: &Session,
    step: &ProvisionStep,
    log: &Path,
    output: &mpsc::Sender<OutputLine>,
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut recorder = Recorder::open(log, step, output)?;
    let end = match &step.action {
        ProvisionAction::Shell { script } => {
            run_script(session, script, &step.options, deadline, &mut recorder).await
        }
        ProvisionAction::File { source, destination } => {
            put_file(session, source, destination, &step.options, deadline).await
        }
        ProvisionAction::Folder { source, destination } => {
            let owner = step.options.owner.as_deref();
            put(session.upload_folder(source, destination, owner), deadline).await
        }
    };
    let words = match &end {
        Ok(End::Status(status)) => format!("ended with {status}"),
        Ok(End::OutOfTime) => format!("was ended: it took longer than {limit:?}"),
        Ok(End::Cut(cause)) => format!("was cut off: {cause}"),
        Err(error) => format!("failed: {error}"),
    };
    let tail = recorder.finish(&words).await;
    let (number, label) = (step.number, step.label.clone());
    let status = match end? {
        End::Status(status) if status.is_success() => return Ok(()),
        End::Status(status) => status.to_string(),
        End::OutOfTime => format!("a timeout after {limit:?}"),
        End::Cut(cause) => {
            return Err(Error::ProvisionCut { step: number, label, tail, cause: Box::new(cause) });
        }
    };
    Err(Error::Provision { step: number, label, status, tail })
}

/// How a step came to its end.
enum End {
    Status(ExitStatus),
    OutOfTime,
    /// It began, and nobody saw its end.
    Cut(Error),
}

async fn put_file(
    session: &Session,
    source: &Path,
    destination: &str,
    options: &StepOptions,
    deadline: Instant,
) -> Result<End> {
    let metadata = std::fs::metadata(source).map_err(Error::io("read", source))?;
    let mode = options.mode.unwrap_or_else(|| metadata.permissions().mode() & 0o777);
    put(session.upload(source, destination, mode, options.owner.as_deref()), deadline).await
}

/// Waits for an upload to end.
async fn put(upload: impl Future<Output = Result<(), SshError>>, deadline: Instant) -> Result<End> {
    match timeout_at(deadline, upload).await {
        Ok(Ok(())) => Ok(End::Status(ExitStatus::Code(0))),
        Ok(Err(error @ SshError::Lost(_))) => Ok(End::Cut(error.into())),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Ok(End::OutOfTime),
    }
}

async fn run_script(
    session: &Session,
    script: &str,
    options: &StepOptions,
    deadline: Instant,
    recorder: &mut Recorder<'_>,
) -> Result<End> {
    // On standard input, as the script is: the guest's list of processes shows neither.
    let exported = |(name, value): (&String, &Secret)| format!("export {name}={}\n", quote(value.expose()));
    let environment: String = options.env.iter().map(exported).collect();
    let sizes = [environment.len(), script.len()].map(|size| size.to_string());
    let run = ["sh", "-c", RUN, "sh", &sizes[0], &sizes[1]].into_iter().chain(interpreter(script));
    let user = options.user.as_deref();
    let as_user = user.map(|user| ["sh", "-c", AS_USER, "sh", user]).into_iter().flatten();
    let words: Vec<String> = as_user.chain(run).map(quote).collect();
    let mut running = session.start(&words.join(" ")).await?;
    failpoint!("provision.qemu.begun", "provision.log");
    let input = running.input();
    let followed = {
        let content = [environment.as_bytes(), script.as_bytes()].concat();
        let mut sent = std::pin::pin!(input.send(&content));
        let mut sending = true;
        let follow = async {
            loop {
                tokio::select! {
                    piece = running.next() => match piece {
                        Ok(Some((stream, bytes))) => {
                            recorder.take(stream, &bytes).await;
                            failpoint!("provision.qemu.running", "provision.log");
                        }
                        Ok(None) => return Ok(()),
                        Err(error) => return Err(Error::from(error)),
                    },
                    // A connection that is lost meanwhile is told by the output.
                    _ = &mut sent, if sending => sending = false,
                }
            }
        };
        timeout_at(deadline, follow).await
    };
    Ok(match followed {
        Ok(Ok(())) => running.finish().await.map_or_else(|error| End::Cut(error.into()), End::Status),
        Ok(Err(error)) => End::Cut(error),
        Err(_) => stop(running, recorder).await.map_or_else(End::Cut, |()| End::OutOfTime),
    })
}

/// Ends a step that is out of time, and waits until the guest has done so.
async fn stop(mut running: Running, recorder: &mut Recorder<'_>) -> Result<()> {
    let grace = Instant::now() + END_GRACE;
    running.input().end().await?;
    while let Ok(Ok(Some((stream, bytes)))) = timeout_at(grace, running.next()).await {
        recorder.take(stream, &bytes).await;
    }
    if let Err(error) = running.finish().await {
        tracing::warn!(%error, "the guest did not end a step that was out of time");
    }
    Ok(())
}

/// The words that run `script`: its own `#!` line as Linux reads it, else `sh` that stops at the first failure.
fn interpreter(script: &str) -> Vec<&str> {
    let Some(line) = script.strip_prefix("#!").and_then(|rest| rest.lines().next()) else {
        return vec!["sh", "-e"];
    };
    match line.trim().split_once([' ', '\t']) {
        Some((program, argument)) => vec![program, argument.trim()],
        None if line.trim().is_empty() => vec!["sh", "-e"],
        None => vec![line.trim()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreter_line_is_read_as_linux_reads_it() {
        let cases: [(&str, &[&str]); 7] = [
            ("echo a", &["sh", "-e"]),
            ("#!/bin/bash\necho a", &["/bin/bash"]),
            ("#! /usr/bin/env -S python3 -u \nprint(1)", &["/usr/bin/env", "-S python3 -u"]),
            ("#!/bin/sh -eu\r\necho", &["/bin/sh", "-eu"]),
            ("#!\necho", &["sh", "-e"]),
            ("", &["sh", "-e"]),
            ("# a comment\n#!/bin/false\n", &["sh", "-e"]),
        ];
        for (script, words) in cases {
            assert_eq!(interpreter(script), words, "{script:?}");
        }
    }
}
