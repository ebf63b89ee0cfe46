//! What a guest wrote to its console, searched for a line.
//!
//! The log is appended to over all of a machine's starts. Where the last one begins is written on the command line of
//! its process; see [`super::argv()`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use crate::console_log;
use crate::error::{Error, Result};
use crate::pattern::Pattern;

/// Longest line that is looked at as a whole; a longer one is looked at in pieces.
const MAX_LINE: usize = 64 << 10;

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// Searches a console's log for a line, and remembers how far it has looked.
#[derive(Debug)]
pub(crate) struct Search {
    log: PathBuf,
    pattern: Pattern,
    /// Everything before has been looked at; here begins a line, or a piece of a long one.
    from: u64,
}

impl Search {
    /// A search in `log` from the byte `from` on.
    pub(crate) fn new(log: PathBuf, pattern: Pattern, from: u64) -> Self {
        Self { log, pattern, from }
    }

    /// Whether a line that was written since the start of the search matches, the last and unfinished one
    /// included: a prompt has no end. It looks once at what is there now.
    pub(crate) async fn look(mut self) -> Result<(Self, bool)> {
        let log = self.log.clone();
        // The log of a talkative guest may be long, and other machines' steps go on meanwhile.
        let looked = tokio::task::spawn_blocking(move || self.scan().map(|found| (self, found))).await;
        looked.map_err(io::Error::other).and_then(|result| result).map_err(Error::io("read", log))
    }

    fn scan(&mut self) -> io::Result<bool> {
        let mut file = match File::open(&self.log) {
            // Somebody removed it; what the guest writes now is lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let length = file.metadata()?.len();
        if length < self.from {
            // Somebody emptied it: all that is in it is new.
            self.from = 0;
        }
        // What was dropped has no lines.
        self.from = self.from.max(console_log::kept_from(&file)?.min(length));
        file.seek(SeekFrom::Start(self.from))?;
        let mut unread = file.take(length - self.from);
        let mut text = Vec::new();
        loop {
            let read = (&mut unread).take(PIECE as u64).read_to_end(&mut text)?;
            if read == 0 {
                return Ok(self.pattern.matches(without_end(&text)));
            }
            if self.take_lines(&mut text) {
                return Ok(true);
            }
        }
    }

    /// Looks at the whole lines at the beginning of `text` and takes them out.
    fn take_lines(&mut self, text: &mut Vec<u8>) -> bool {
        let mut done = 0;
        while let Some(length) = line_length(&text[done..]) {
            if self.pattern.matches(without_end(&text[done..done + length])) {
                return true;
            }
            done += length;
        }
        text.drain(..done);
        self.from += done as u64;
        false
    }
}

/// The length of the first line with its end, if it has one or is too long.
fn line_length(text: &[u8]) -> Option<usize> {
    let end = text.iter().take(MAX_LINE).position(|byte| *byte == b'\n').map(|end| end + 1);
    end.or((text.len() >= MAX_LINE).then_some(MAX_LINE))
}

/// A serial line ends its lines with both characters, sometimes with more.
fn without_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !b"\r\n".contains(byte));
    &line[..end.map_or(0, |end| end + 1)]
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::Path;

    use super::*;

    fn search(log: &Path, pattern: &str, from: u64) -> Search {
        Search::new(log.to_owned(), Pattern::new(pattern).unwrap(), from)
    }

    fn append(log: &Path, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).create(true).open(log).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[tokio::test]
    async fn lines_are_found_as_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let (mut looking, mut found) = search(&log, "^ready$", 0).look().await.unwrap();
        for (piece, expected) in
            [("booting\r\nnot ready\r\nrea", false), ("ds a lot\r\nrea", false), ("dy\r\n", true)]
        {
            assert!(!found);
            append(&log, piece.as_bytes());
            (looking, found) = looking.look().await.unwrap();
            assert_eq!(found, expected, "{piece:?}");
        }
    }

    #[tokio::test]
    async fn prompt_without_an_end_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        append(&log, b"Debian \xff\r\nweb login: ");
        assert!(search(&log, "login: $", 0).look().await.unwrap().1);
    }

    #[tokio::test]
    async fn earlier_starts_do_not_count_and_an_emptied_log_does() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        append(&log, b"ready\n");
        assert!(!search(&log, "ready", 6).look().await.unwrap().1);
        std::fs::write(&log, "up\n").unwrap();
        assert!(search(&log, "up", 6).look().await.unwrap().1);
    }

    #[tokio::test]
    async fn endless_line_is_looked_at_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        append(&log, &vec![b'x'; 3 * MAX_LINE + 7]);
        let (looking, found) = search(&log, "y", 0).look().await.unwrap();
        assert_eq!((looking.from, found), (3 * MAX_LINE as u64, false));
        append(&log, b"y");
        assert!(looking.look().await.unwrap().1);
    }
}
