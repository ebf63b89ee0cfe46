//! One pass over the bytes of an image as they come: their digest, their unpacking, and the digest of what is in them.
//!
//! ```text
//! pieces ─▶ digest, file ─▶ unpack ─▶ digest, file     each arrow a queue of a few pieces, each stage a thread
//! ```
//!
//! What is not packed has the first stage only. Nothing here waits for more than the stage before it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::header::{self, HeaderError};
use super::remote::FetchError;
use super::unpack::Packing;
use super::{ImageError, sparse};
use crate::failpoints::image_failpoint;
use crate::spec::Digest;

/// How much goes from stage to stage at once.
const PIECE: usize = 256 << 10;

/// How many pieces may wait between two stages.
const QUEUE: usize = 8;

/// How much of a disk tells whether it can be one: up to the mark of ISO 9660, the last of all.
const SNIFF: usize = 40 << 10;

/// What a first look allows a file to be: it has not ended yet.
const ANY_SIZE: u64 = header::MAX_VIRTUAL_SIZE;

/// Where bytes come from.
pub(super) trait Source {
    /// The next bytes; none at the end. An error that [`Stop::Aborted`] is made of says that nobody goes on.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Stop>;
}

/// Why a pass did not come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody sends any more.
    Aborted,
    /// What came is of no use.
    Useless(FetchError),
    /// The cache failed.
    Cache(ImageError),
}

impl From<ImageError> for Stop {
    fn from(error: ImageError) -> Self {
        Self::Cache(error)
    }
}

/// What a whole pass found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Digest of the bytes as they came.
    pub(super) sha256: Digest,
    /// How many they are.
    pub(super) size: u64,
    /// What they unpack to: digest and size; absent if they are not packed.
    pub(super) unpacked: Option<(Digest, u64)>,
}

/// Where a pass writes, and how much.
pub(super) struct Targets<'a> {
    /// Where bytes are kept as they come; absent if they are on the disk already.
    pub(super) packed: Option<(&'a File, &'a Path)>,
    /// How many of the bytes that come are in `packed` already.
    pub(super) kept: u64,
    /// The file that is made for what they unpack to.
    pub(super) unpacked: &'a Path,
    /// Most bytes of either.
    pub(super) limit: u64,
}

/// Takes everything that `source` gives.
pub(super) fn take_in(source: &mut dyn Source, targets: &Targets<'_>) -> Result<Taken, Stop> {
    thread::scope(|scope| {
        let mut first = First { hash: Sha256::new(), size: 0, targets };
        let mut head = Vec::new();
        let mut is_ended = false;
        while head.len() < SNIFF && !is_ended {
            match source.next()? {
                Some(bytes) => {
                    first.take(&bytes)?;
                    head.extend_from_slice(&bytes);
                }
                None => is_ended = true,
            }
        }
        let Some(packing) = Packing::of(&head) else {
            glance(&head)?;
            drop(head);
            while let Some(bytes) = source.next()? {
                first.take(&bytes)?;
            }
            return first.end(None);
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let unpacking = scope.spawn(move || unpack(packing, receiver, targets));
        let fed = feed(source, &mut first, head, is_ended, &sender);
        drop(sender);
        let unpacked = unpacking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (fed, unpacked) {
            // Where the second stage ended early, it knows why.
            (Ok(()) | Err(Stop::Aborted), Err(stop @ (Stop::Useless(_) | Stop::Cache(_)))) => Err(stop),
            (Err(stop), _) | (Ok(()), Err(stop)) => Err(stop),
            (Ok(()), Ok(unpacked)) => first.end(Some(unpacked)),
        }
    })
}

/// What goes between the stages; nothing is the end.
type Piece = Option<Vec<u8>>;

fn feed(
    source: &mut dyn Source,
    first: &mut First<'_>,
    head: Vec<u8>,
    mut is_ended: bool,
    next: &SyncSender<Piece>,
) -> Result<(), Stop> {
    let pass = |piece| next.send(piece).map_err(|_| Stop::Aborted);
    pass(Some(head))?;
    while !is_ended {
        match source.next()? {
            Some(bytes) => {
                first.take(&bytes)?;
                pass(Some(bytes))?;
            }
            None => is_ended = true,
        }
    }
    pass(None)
}

/// The first stage: bytes as they come.
struct First<'a> {
    hash: Sha256,
    size: u64,
    targets: &'a Targets<'a>,
}

impl First<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let end = self.size + bytes.len() as u64;
        if end > self.targets.limit {
            return Err(Stop::Useless(FetchError::TooLarge { limit: self.targets.limit }));
        }
        self.hash.update(bytes);
        if let Some((file, path)) = self.targets.packed
            && end > self.targets.kept
        {
            let known = usize::try_from(self.targets.kept.saturating_sub(self.size)).unwrap_or(0);
            let write = sparse::write_at(file, self.size + known as u64, &bytes[known..]);
            write.map_err(|error| written(path, error))?;
            image_failpoint!("fetch-image.download.written", path);
        }
        self.size = end;
        Ok(())
    }

    fn end(self, unpacked: Option<(Digest, u64)>) -> Result<Taken, Stop> {
        if let Some((file, path)) = self.targets.packed {
            // Zeros at the end were not written.
            file.set_len(self.size).map_err(|error| written(path, error))?;
        }
        Ok(Taken { sha256: Digest::from_hash(&self.hash.finalize()), size: self.size, unpacked })
    }
}

/// The second and third stage: unpacking, and what comes out.
fn unpack(packing: Packing, pieces: Receiver<Piece>, targets: &Targets<'_>) -> Result<(Digest, u64), Stop> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(QUEUE);
    thread::scope(|scope| {
        let writing = scope.spawn(move || write(receiver, targets));
        let mut queue = Queue { pieces, piece: Vec::new(), at: 0, is_ended: false, is_broken: false };
        let decoded = decode(packing, &mut queue, &sender);
        drop(sender);
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (decoded, written) {
            (_, Err(stop)) => Err(stop),
            (Ok(()), Ok(written)) => Ok(written),
            (Err(_), Ok(_)) if queue.is_broken => Err(Stop::Aborted),
            (Err(error), Ok(_)) => {
                let said = error.to_string();
                Err(Stop::Useless(FetchError::Unpack { packing: packing.name(), said }))
            }
        }
    })
}

fn decode(packing: Packing, queue: &mut Queue, next: &SyncSender<Vec<u8>>) -> io::Result<()> {
    let mut reader = packing.unpack(&mut *queue)?;
    loop {
        let mut piece = vec![0; PIECE];
        let length = super::read_full(&mut reader, &mut piece)?;
        if length == 0 {
            break;
        }
        piece.truncate(length);
        // Whoever takes no more has said why.
        if next.send(piece).is_err() {
            return Ok(());
        }
    }
    drop(reader);
    // A decoder may be done before the bytes are: what follows would be passed over.
    match queue.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("something else follows behind its end")),
    }
}

fn write(pieces: Receiver<Vec<u8>>, targets: &Targets<'_>) -> Result<(Digest, u64), Stop> {
    let path = targets.unpacked;
    let cache = |error| written(path, error);
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).open(path).map_err(cache)?;
    let (mut hash, mut size, mut is_seen) = (Sha256::new(), 0, false);
    for piece in pieces {
        if !is_seen {
            // A piece is longer than what a first look needs, unless all is shorter.
            glance(&piece)?;
            is_seen = true;
        }
        let end = size + piece.len() as u64;
        if end > targets.limit {
            return Err(Stop::Useless(FetchError::TooLarge { limit: targets.limit }));
        }
        hash.update(&piece);
        sparse::write_at(&file, size, &piece).map_err(cache)?;
        size = end;
    }
    file.set_len(size).map_err(cache)?;
    image_failpoint!("fetch-image.download.unpacked", path);
    Ok((Digest::from_hash(&hash.finalize()), size))
}

fn written(path: &Path, source: io::Error) -> Stop {
    Stop::Cache(ImageError::Cache { action: "write", path: path.to_owned(), source })
}

/// Refuses at the first look what can be no disk, so that nobody waits for its end.
fn glance(head: &[u8]) -> Result<(), Stop> {
    if is_page(head) {
        return Err(Stop::Useless(FetchError::Page));
    }
    match header::parse(head, if head.is_empty() { 0 } else { ANY_SIZE }) {
        Err(problem @ (HeaderError::Empty | HeaderError::NotADisk | HeaderError::Packed(_))) => {
            Err(Stop::Useless(FetchError::Refused(problem)))
        }
        // What is wrong with the rest is told when all of it is there.
        _ => Ok(()),
    }
}

/// Whether this is the beginning of a web page.
fn is_page(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let head = head[..head.len().min(256)].to_ascii_lowercase();
    let starts = |text: &[u8]| head.starts_with(text);
    starts(b"<!doctype html")
        || starts(b"<html")
        || starts(b"<head")
        || starts(b"<body")
        || (starts(b"<!--") || starts(b"<?xml")) && head.windows(5).any(|window| window == b"<html")
}

/// What comes from the stage before, as a stream.
struct Queue {
    pieces: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    is_ended: bool,
    /// Whether the stage before went away before its end.
    is_broken: bool,
}

impl Read for Queue {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.is_ended {
                return Ok(0);
            }
            match self.pieces.recv() {
                Ok(Some(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(None) => self.is_ended = true,
                Err(_) => {
                    self.is_broken = true;
                    return Err(io::Error::other("the download was broken off"));
                }
            }
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// A file of the disk, from its beginning up to `end`.
pub(super) struct FromFile<'a> {
    pub(super) file: &'a File,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) path: &'a Path,
}

impl Source for FromFile<'_> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(PIECE);
        let mut piece = vec![0; left];
        let mut filled = 0;
        while filled < left {
            match self.file.read_at(&mut piece[filled..], self.at + filled as u64) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let path = self.path.to_owned();
                    return Err(Stop::Cache(ImageError::Io { action: "read", path, source }));
                }
            }
        }
        piece.truncate(filled);
        self.at += filled as u64;
        Ok((filled > 0).then_some(piece))
    }
}
