//! The process of a server of our own: launched, found again, ended.
//!
//! A server writes no pidfile and knows no mark of ours. So it is given an open file with it, whose lock it holds for as
//! long as it lives: who holds that lock is the machine's server, and nobody starts another beside it. Two servers of one
//! instance on one host are the worst that can happen: the second destroys the first one's running VM. Which process it is
//! follows from the note (a hint), the address on its command line, and that file, open in it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, PropolisError};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::{self, Process};
use crate::qemu::ending;
use crate::qemu::places::{create_private_dir, remove_file, tail_of, write_private};
use crate::workdir::WorkDir;

/// How long a server may take from launch to its first answer. It takes well under a second; crowded hosts take longer.
const LAUNCH: Duration = Duration::from_secs(60);

/// Pause between two questions of whether it listens: nothing tells when it does.
const AGAIN: Duration = Duration::from_millis(50);

/// How long others may hold the lock that only look.
const LOOKS: Duration = Duration::from_secs(5);

/// How long a server may take to end after each signal.
const ENDING: Duration = Duration::from_secs(10);

/// How much of a server's log goes into an error.
const LOG_TAIL: usize = 4096;

/// What is remembered of a machine's server while there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Its process, as far as that is known: a hint.
    pub(super) pid: Option<u32>,
    /// The boot of the host during which it was started.
    #[serde(default)]
    pub(super) boot: Option<String>,
    /// How long the console's log was before.
    pub(super) console_start: u64,
    /// How much of what the VM printed is in the console's log.
    pub(super) console_taken: u64,
}

/// The files of a machine's server.
#[derive(Debug, Clone)]
pub(super) struct Places {
    work: PathBuf,
}

impl Places {
    pub(super) fn of(work: &WorkDir) -> Self {
        Self { work: work.path().to_owned() }
    }

    fn note(&self) -> PathBuf {
        self.work.join("propolis.json")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.work.join("propolis.lock")
    }

    /// Where the server works: it leaves files there.
    fn folder(&self) -> PathBuf {
        self.work.join("propolis")
    }

    fn log(&self) -> PathBuf {
        self.folder().join("server.log")
    }

    /// The end of what a server without a zone said; empty where nothing can be read.
    pub(super) fn log_tail(&self) -> String {
        tail_of(&self.log(), LOG_TAIL).unwrap_or_else(|error| {
            tracing::debug!(%error, "a server's log cannot be told");
            String::new()
        })
    }

    /// What is remembered of the server; `None` if there is nothing.
    pub(super) fn load(&self) -> Result<Option<Note>> {
        let path = self.note();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let note = serde_json::from_slice(&text);
        note.map(Some)
            .map_err(|error| Error::Unusable { path, reason: format!("it is no note of a server: {error}") })
    }

    /// Remembers.
    pub(super) fn store(&self, note: &Note) -> Result<()> {
        let text = serde_json::to_vec_pretty(note)
            .map_err(|error| Error::io("write", self.note())(io::Error::other(error)))?;
        write_private(&self.note(), &text)
    }

    /// Forgets a server that is gone.
    pub(super) fn forget(&self) -> Result<()> {
        remove_file(&self.note())
    }
}

/// Finds the live server of a machine, by all that proves it; `None` if there is none.
pub(super) fn find(places: &Places) -> Result<Option<(Process, Note)>> {
    let Some(note) = places.load()? else { return Ok(None) };
    if take_lock(places)?.is_some() {
        return Ok(None);
    }
    let examine = || Error::io("examine", &places.work);
    let folder = places.work.canonicalize().map_err(examine())?;
    let address = note.address.to_string();
    let is_expected = |args: &[String]| args.contains(&address);
    let hinted = note.pid.map(|pid| Process::running(pid, is_expected)).transpose().map_err(examine())?;
    if let Some(process) = hinted.flatten().filter(|process| process.has_open_in(&folder)) {
        return Ok(Some((process, note)));
    }
    let all = Process::all(is_expected).map_err(examine())?;
    Ok(all.into_iter().find(|process| process.has_open_in(&folder)).map(|process| (process, note)))
}

/// The lock that says who may have a server; `None` if one has it.
fn take_lock(places: &Places) -> Result<Option<File>> {
    let path = places.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Takes the lock. Whoever looks whether a server lives holds it for a moment; who has it longer has a server.
async fn await_lock(places: &Places) -> Result<File> {
    let deadline = Instant::now() + LOOKS;
    loop {
        match take_lock(places)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() < deadline => sleep(AGAIN).await,
            None => {
                let place =
                    format!("by a server, or another vmctl, that has `{}` locked", places.lock().display());
                return Err(Error::Elsewhere { place });
            }
        }
    }
}

/// The server of a machine whose folder was removed while it ran: the process that was recorded, if it has the firmware on
/// its command line and a file open that was in `folder`, a path without links.
pub(super) fn find_orphan(pid: u32, bootrom: &Path, folder: &Path) -> Result<Option<Process>> {
    let is_expected = |args: &[String]| args.iter().any(|arg| Path::new(arg) == bootrom);
    let found = Process::running(pid, is_expected).map_err(Error::io("examine", folder))?;
    Ok(found.filter(|process| process.has_open_in(folder)))
}

/// What a server is started with.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) program: &'a Path,
    pub(super) bootrom: &'a Path,
    pub(super) version: &'a str,
    pub(super) console_start: u64,
}

/// The command line of a server.
fn argv(bootrom: &Path, address: SocketAddr) -> Vec<OsString> {
    vec!["run".into(), "--metric-addr".into(), "disable".into(), bootrom.into(), address.to_string().into()]
}

/// Starts a server and waits until it answers. Nobody else may have one of this machine: [`Error::Elsewhere`].
pub(super) async fn launch(places: &Places, start: &Start<'_>) -> Result<(Process, Note)> {
    let lock = await_lock(places).await?;
    create_private_dir(&places.folder())?;
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(places.log())
        .map_err(Error::io("create", places.log()))?;
    let address = free_address()?;
    let (console_start, boot) = (start.console_start, ending::boot());
    let mut note = Note { address, pid: None, boot, console_start, console_taken: 0 };
    // Before the deed: a server whose launcher was killed is found by its address.
    places.store(&note)?;
    failpoint!("start.propolis.noted", &places.work);
    let given = vec![OwnedFd::from(lock)];
    let mut launched =
        process::server(start.program, &argv(start.bootrom, address), &log, given, &places.folder())?;
    failpoint!("start.propolis.spawned", &places.work);
    note.pid = Some(launched.pid());
    places.store(&note)?;
    let client = Client::new(address, start.version)?;
    let answering = timeout(LAUNCH, answers(&client));
    let failure = tokio::select! {
        answered = answering => match answered {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(Error::Timeout { what: "the first answer of propolis-server".to_owned(), after: LAUNCH }),
        },
        status = launched.ended() => {
            let status = status.map_err(Error::io("wait for", start.program))?;
            Some(Error::ProcessEnded { detail: Some(with_tail(&status, &places.log_tail())) })
        }
    };
    if let Some(error) = failure {
        launched.kill().await.map_err(Error::io("kill", start.program))?;
        places.forget()?;
        return Err(error);
    }
    failpoint!("start.propolis.answered", &places.work);
    match find(places)? {
        Some(found) => Ok(found),
        None => Err(Error::ProcessEnded { detail: Some(with_tail("at once", &places.log_tail())) }),
    }
}

fn with_tail(status: &str, log: &str) -> String {
    if log.is_empty() { status.to_owned() } else { format!("{status}; its log ends with\n{log}") }
}

/// Waits until a server answers anything that makes sense.
async fn answers(client: &Client) -> Result<()> {
    loop {
        match client.instance().await {
            Ok(_) => return Ok(()),
            Err(PropolisError::Nobody { .. } | PropolisError::Failed { status: 503, .. }) => {
                sleep(AGAIN).await
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A port of the loopback that nobody has now. If somebody takes it first, the server says so and ends.
fn free_address() -> Result<SocketAddr> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map_err(Error::io("take a port of", "127.0.0.1"))
}

/// Ends a server whose VM is gone, or that does not answer. Says whether it had to be killed.
pub(super) async fn end(process: &Process, places: &Places) -> Result<bool> {
    let signal = || Error::io("signal", &places.work);
    process.terminate().map_err(signal())?;
    if let Ok(ended) = timeout(ENDING, process.exited()).await {
        ended.map_err(signal())?;
        return Ok(false);
    }
    process.kill().map_err(signal())?;
    match timeout(ENDING, process.exited()).await {
        Ok(ended) => ended.map(|()| true).map_err(signal()),
        Err(_) => {
            let what = format!("the end of process {} after SIGKILL", process.pid());
            Err(Error::Timeout { what, after: ENDING })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_has_the_address_as_a_word_of_its_own() {
        let args = argv(Path::new("/rom/OVMF_CODE.fd"), "127.0.0.1:4000".parse().unwrap());
        assert_eq!(args, ["run", "--metric-addr", "disable", "/rom/OVMF_CODE.fd", "127.0.0.1:4000"]);
    }

    #[test]
    fn lock_is_had_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&WorkDir::new(folder.path()));
        let held = take_lock(&places).unwrap().unwrap();
        assert!(take_lock(&places).unwrap().is_none());
        drop(held);
        assert!(take_lock(&places).unwrap().is_some());
    }

    #[test]
    fn number_in_a_note_proves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&WorkDir::new(folder.path()));
        let address = "127.0.0.1:1".parse().unwrap();
        let pid = Some(std::process::id());
        let note = Note { address, pid, boot: None, console_start: 0, console_taken: 0 };
        places.store(&note).unwrap();
        assert_eq!(places.load().unwrap(), Some(note));
        assert!(find(&places).unwrap().is_none());
        // Not even beside a lock that this very process holds: its command line has no such address.
        let _held = take_lock(&places).unwrap().unwrap();
        assert!(find(&places).unwrap().is_none());
    }
}
