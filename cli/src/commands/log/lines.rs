//! Logs line by line: of several machines at once, and as they grow.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use tokio::time::{MissedTickBehavior, interval};
use vmctl_providers::console_log;

use super::{PIECE, start_of_tail, unreadable};
use crate::context::small_runtime;
use crate::error::{CliError, Exit, stdout_failed};
use crate::machines::Fetched;
use crate::ui;

/// How often a log is looked at that may have grown. A file system tells of no change to who comes over a network.
const LOOK: Duration = Duration::from_millis(200);

/// Most that is read of one log before the next one has its turn.
const TURN: u64 = 1 << 20;

/// Colours of machines, in the order in which they are named; none of them means anything.
const COLORS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
];

/// One log, and how far it was shown.
#[derive(Debug)]
pub(super) struct Tail {
    /// What stands before each line; nothing before the lines of a single log.
    pub(super) label: String,
    /// Machines that are shown together differ in colour.
    pub(super) machine: usize,
    pub(super) path: PathBuf,
    pub(super) is_console: bool,
    place: Option<Place>,
    /// A line whose end is not there yet.
    begun: Vec<u8>,
}

/// How far a file was read, and which one that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    inode: u64,
    offset: u64,
}

impl Tail {
    pub(super) fn new(label: String, machine: usize, path: PathBuf, is_console: bool) -> Self {
        Self { label, machine, path, is_console, place: None, begun: Vec::new() }
    }

    /// The whole lines that came since the last call, at most a turn of them. The first call begins `lines` lines from the
    /// end (0: with all there is). A log that is not there yet has none.
    fn grown(&mut self, lines: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let (inode, length) = file.metadata().map(|found| (found.ino(), found.len()))?;
        let offset = match self.place {
            // One that was made anew, or cut off, is shown from its begin.
            Some(place) if place.inode == inode && place.offset <= length => place.offset,
            Some(_) => 0,
            None => {
                let first = console_log::kept_from(&file)?;
                if lines == 0 { first } else { start_of_tail(&mut file, first, lines)? }
            }
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        let read = file.take(TURN).read_to_end(&mut bytes)?;
        self.place = Some(Place { inode, offset: offset + read as u64 });
        let mut whole = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.begun.len() as u64 >= PIECE {
                whole.push(std::mem::take(&mut self.begun));
            }
        }
        Ok(whole)
    }

    /// What is left of a line that will not be ended.
    fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.begun.is_empty()).then(|| std::mem::take(&mut self.begun))
    }
}

/// Shows what is there; where it `follows`, also what comes, until somebody ends it. What it follows may have to be fetched.
pub(super) fn show(
    tails: &mut [Tail],
    lines: usize,
    follows: Option<&Vec<Fetched>>,
) -> Result<Exit, CliError> {
    let width = tails.iter().map(|tail| tail.label.chars().count()).max().unwrap_or(0);
    while print_grown(tails, lines, width)? {}
    let Some(fetched) = follows else {
        for tail in tails.iter_mut() {
            if let Some(rest) = tail.rest() {
                print(tail, &rest, width)?;
            }
        }
        return Ok(Exit::Fine);
    };
    small_runtime()?.block_on(async {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            for machine in fetched {
                machine.fetch().await?;
            }
            for tail in tails.iter().filter(|tail| tail.is_console) {
                console_log::trim(&tail.path).map_err(|error| CliError::of(&error))?;
            }
            while print_grown(tails, lines, width)? {}
        }
    })
}

/// Prints what came; whether anything did.
fn print_grown(tails: &mut [Tail], lines: usize, width: usize) -> Result<bool, CliError> {
    let mut any = false;
    for tail in tails {
        let grown = tail.grown(lines).map_err(|error| unreadable(&tail.path, &error))?;
        any |= !grown.is_empty();
        for line in grown {
            print(tail, &line, width)?;
        }
    }
    Ok(any)
}

fn print(tail: &Tail, line: &[u8], width: usize) -> Result<(), CliError> {
    // A serial line ends its lines with both.
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let text = ui::visible_bytes(line.strip_suffix(b"\r").unwrap_or(line));
    let mut out = ui::stdout();
    let written = if tail.label.is_empty() {
        writeln!(out, "{text}")
    } else {
        let style: Style = COLORS[tail.machine % COLORS.len()].on_default();
        writeln!(out, "{style}{:width$} |{style:#} {text}", tail.label)
    };
    written.and_then(|()| out.flush()).map_err(|error| stdout_failed(&error))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;

    fn tail(path: &std::path::Path) -> Tail {
        Tail::new("web".to_owned(), 0, path.to_owned(), true)
    }

    fn texts(lines: io::Result<Vec<Vec<u8>>>) -> Vec<String> {
        lines.unwrap().into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn lines_are_told_once_and_when_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut tail = tail(&path);
        assert_eq!(texts(tail.grown(2)), [""; 0], "it is not there yet");
        fs::write(&path, "one\ntwo\nthree\nlog").unwrap();
        assert_eq!(texts(tail.grown(2)), ["three\n"]);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"in: \nnext\n").unwrap();
        assert_eq!(texts(tail.grown(2)), ["login: \n", "next\n"]);
        assert_eq!(texts(tail.grown(2)), [""; 0]);

        // Made anew, or cut off.
        fs::write(folder.path().join("new"), "of another boot\n").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(texts(tail.grown(2)), ["of another boot\n"]);
        fs::write(&path, "short\nend").unwrap();
        assert_eq!(texts(tail.grown(2)), ["short\n"]);
        assert_eq!(tail.rest().unwrap(), b"end");
    }

    #[test]
    fn line_without_end_is_told_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, vec![b'x'; usize::try_from(PIECE).unwrap() * 2 + 5]).unwrap();
        let mut tail = tail(&path);
        assert_eq!(tail.grown(0).unwrap().len(), 1);
        assert!(tail.begun.is_empty(), "a whole read is one piece");
    }
}
