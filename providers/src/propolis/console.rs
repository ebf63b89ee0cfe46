//! The console's log. A server keeps what a guest printed in memory only, so that it is fetched into a file whenever
//! vmctl looks, and once more before a VM is ended.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::backend::PropolisBackend;
use super::client::{Client, PropolisError};
use super::server::{Note, Places};
use crate::console_log;
use crate::error::{Error, Result};
use crate::qemu::places::ensure_private_file;
use crate::spec::VmHandle;
use crate::workdir::WorkDir;

/// How many pieces are fetched at once at most: what a server keeps is 2 MiB, and a guest may print while it is read.
const MOST_PIECES: usize = 64;

/// The end of what a guest printed that every server still has.
const KEPT: u64 = 1 << 20;

impl PropolisBackend {
    /// Brings the console's log up to what the VM has printed. Nothing happens where there is no VM, or another vmctl is
    /// at it.
    pub(super) async fn pull_console(&self, vm: &VmHandle) -> Result<()> {
        let Some(live) = self.live(vm).await? else { return Ok(()) };
        let work = WorkDir::new(&vm.work_dir);
        let Some(_turn) = turn(&work)? else { return Ok(()) };
        let places = Places::of(&work);
        let Some(mut note) = places.load()?.filter(|note| note.address == live.note.address) else {
            return Ok(());
        };
        match fetch(&live.client, &work, &places, &mut note).await {
            Err(Error::Propolis(error)) if error.is_no_instance() || error.is_nobody() => Ok(()),
            fetched => fetched,
        }
    }
}

impl PropolisBackend {
    /// The same; that it cannot be done is no reason for a look or a stop to fail.
    pub(super) async fn pull_or_say(&self, vm: &VmHandle) {
        if let Err(error) = self.pull_console(vm).await {
            tracing::warn!(%error, "the console's log is not up to date");
        }
    }
}

async fn fetch(client: &Client, work: &WorkDir, places: &Places, note: &mut Note) -> Result<()> {
    for _ in 0..MOST_PIECES {
        let piece = match client.history(note.console_taken).await {
            // What was not fetched in time is gone: servers keep the beginning and the end.
            Err(PropolisError::Refused { status: 400, .. }) if note.console_taken > 0 => {
                let recent = client.recent(KEPT).await?;
                let begin = recent.last_byte_offset.saturating_sub(recent.data.len() as u64);
                let dropped = begin.saturating_sub(note.console_taken);
                if recent.last_byte_offset <= note.console_taken {
                    return Ok(());
                }
                if dropped > 0 {
                    append(work, console_log::note(dropped).as_bytes())?;
                }
                let known = usize::try_from(note.console_taken.saturating_sub(begin)).unwrap_or(usize::MAX);
                append(work, recent.data.get(known..).unwrap_or_default())?;
                note.console_taken = recent.last_byte_offset;
                return places.store(note);
            }
            piece => piece?,
        };
        if piece.data.is_empty() {
            return Ok(());
        }
        append(work, &piece.data)?;
        note.console_taken = note.console_taken.saturating_add(piece.data.len() as u64);
        places.store(note)?;
    }
    Ok(())
}

fn append(work: &WorkDir, bytes: &[u8]) -> Result<()> {
    let path = work.console_log();
    ensure_private_file(&path)?;
    let opened = OpenOptions::new().append(true).open(&path);
    opened.and_then(|mut file| file.write_all(bytes)).map_err(Error::io("write", &path))?;
    console_log::trim(&path)
}

/// The right to write to the log, if nobody has it now.
fn turn(work: &WorkDir) -> Result<Option<File>> {
    let path = work.path().join("console.lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("open", &path))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}
