//! Where a step's output goes: the caller, line by line; a log file, raw and bounded; the tail for an error. Of a step
//! that must not show something, the log has lines as well, in which that is hidden.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::lines::LineSplitter;
use super::{OutputLine, OutputStream, ProvisionStep};
use crate::error::{Error, Result};
use crate::secrets::Secrets;
use crate::text::visible;

/// Largest log of one machine.
const MAX_LOG: u64 = 64 << 20;

/// How many lines an error shows.
const TAIL: usize = 20;

/// Takes a step's output apart and passes it on.
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    log: LogFile,
    /// Number and label of the step.
    name: String,
    began: Instant,
    output: &'a mpsc::Sender<OutputLine>,
    stdout: LineSplitter,
    stderr: LineSplitter,
    tail: VecDeque<String>,
    secrets: &'a Secrets,
}

impl<'a> Recorder<'a> {
    pub(super) fn open(
        log: &Path,
        step: &'a ProvisionStep,
        output: &'a mpsc::Sender<OutputLine>,
    ) -> Result<Self> {
        let mut log = LogFile::open(log, MAX_LOG)?;
        let name = format!("step {}: {}", step.number, visible(&step.label).replace('\n', " "));
        log.append(format!("==> {name}, began at {:.0}\n", Timestamp::now()).as_bytes())?;
        let (stdout, stderr) = (LineSplitter::default(), LineSplitter::default());
        let tail = VecDeque::with_capacity(TAIL);
        Ok(Self { log, name, began: Instant::now(), output, stdout, stderr, tail, secrets: &step.secrets })
    }

    /// Takes a piece of output; waits while the caller has lines to read.
    pub(super) async fn take(&mut self, stream: OutputStream, bytes: &[u8]) {
        if self.secrets.is_empty() {
            self.log.write(bytes);
        }
        let lines = match stream {
            OutputStream::Stdout => self.stdout.push(bytes),
            OutputStream::Stderr => self.stderr.push(bytes),
        };
        for line in lines {
            self.pass(stream, line).await;
        }
    }

    /// Ends lines and log, saying how the step ended, and returns the last lines.
    pub(super) async fn finish(mut self, how: &str) -> Vec<String> {
        if let Some(line) = self.stdout.finish() {
            self.pass(OutputStream::Stdout, line).await;
        }
        if let Some(line) = self.stderr.finish() {
            self.pass(OutputStream::Stderr, line).await;
        }
        let how = self.secrets.hide(&visible(how).replace('\n', " "));
        let (name, now, took) = (&self.name, Timestamp::now(), self.began.elapsed().as_secs_f64());
        if let Err(error) = self.log.finish(&format!("==> {name}, {how} at {now:.0}, after {took:.1} s\n")) {
            tracing::warn!(%error, "the log of a provisioning step is not whole");
        }
        self.tail.into()
    }

    async fn pass(&mut self, stream: OutputStream, line: String) {
        let text = self.secrets.hide(&line);
        if !self.secrets.is_empty() {
            self.log.write(format!("{text}\n").as_bytes());
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(text.clone());
        // A caller that no longer listens does not end the step.
        let _ = self.output.send(OutputLine { stream, text }).await;
    }
}

/// A file that is appended to until it is full.
///
/// Its writes are short and go to the page cache, so that they do not wait on another thread.
#[derive(Debug)]
struct LogFile {
    file: File,
    path: PathBuf,
    room: u64,
    dropped: u64,
    in_line: bool,
}

impl LogFile {
    fn open(path: &Path, limit: u64) -> Result<Self> {
        let mut options = File::options();
        let file = options.append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("open", path))?.len();
        let room = limit.saturating_sub(length);
        Ok(Self { file, path: path.to_owned(), room, dropped: 0, in_line: false })
    }

    /// Writes what has room. A disk that is full is a full log: it is no reason to cut off what runs in the guest.
    fn write(&mut self, bytes: &[u8]) {
        let fits = usize::try_from(self.room).unwrap_or(usize::MAX).min(bytes.len());
        let written = match self.append(&bytes[..fits]) {
            Ok(()) => fits,
            Err(error) => {
                tracing::warn!(%error, "the log of a provisioning step is not whole");
                self.room = 0;
                0
            }
        };
        self.room = self.room.saturating_sub(written as u64);
        self.dropped += (bytes.len() - written) as u64;
    }

    /// Ends the last line, says what is missing, and adds `end`, which has room in a full log too.
    fn finish(&mut self, end: &str) -> Result<()> {
        if self.in_line {
            self.append(b"\n")?;
        }
        if self.dropped > 0 {
            let note = format!("==> {} bytes dropped, this log is full\n", self.dropped);
            self.append(note.as_bytes())?;
        }
        self.append(end.as_bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(last) = bytes.last() {
            self.in_line = *last != b'\n';
        }
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::provision::ProvisionAction;
    use crate::spec::{Digest, Secret};

    #[test]
    fn full_log_says_how_much_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::open(&path, 10).unwrap();
        log.write(b"12345678");
        log.write(b"9abcdef");
        log.finish("==> the end\n").unwrap();
        let expected = "123456789a\n==> 5 bytes dropped, this log is full\n==> the end\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = LogFile::open(&path, 10).unwrap();
        again.write(b"more\n");
        again.finish("").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{expected}==> 5 bytes dropped, this log is full\n"));
    }

    #[tokio::test]
    async fn lines_go_to_the_caller_and_raw_bytes_to_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let step = ProvisionStep {
            number: 2,
            label: "x\u{1b}[2J".to_owned(),
            action: ProvisionAction::Shell { script: String::new() },
            options: Default::default(),
            digest: Digest::of(b""),
            secrets: Secrets::default(),
        };
        let (sender, mut receiver) = mpsc::channel(100);
        let mut recorder = Recorder::open(&path, &step, &sender).unwrap();
        recorder.take(OutputStream::Stdout, b"one\ntw").await;
        recorder.take(OutputStream::Stderr, b"bad\xff\n").await;
        let tail = recorder.finish("ended with exit code 0").await;
        assert_eq!(tail, ["one", "bad\u{fffd}", "tw"]);
        drop(sender);
        let mut lines = Vec::new();
        while let Some(OutputLine { stream, text }) = receiver.recv().await {
            lines.push((stream, text));
        }
        let (out, err) = (OutputStream::Stdout, OutputStream::Stderr);
        let expected = [(out, "one"), (err, "bad\u{fffd}"), (out, "tw")];
        assert_eq!(lines, expected.map(|(stream, text)| (stream, text.to_owned())));
        let log = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let lines: Vec<_> = log.lines().collect();
        let [first, output @ .., last] = &*lines else { panic!("no lines in {log:?}") };
        assert!(first.starts_with("==> step 2: x^[[2J, began at 2"), "{first}");
        assert_eq!(output, ["one", "twbad\u{fffd}"]);
        assert!(last.starts_with("==> step 2: x^[[2J, ended with exit code 0 at 2"), "{last}");
    }

    #[tokio::test]
    async fn what_a_step_must_not_show_is_hidden_in_lines_log_and_tail() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let step = ProvisionStep {
            number: 1,
            label: "inline".to_owned(),
            action: ProvisionAction::Shell { script: String::new() },
            options: Default::default(),
            digest: Digest::of(b""),
            secrets: Secrets::new([Secret::new("hunter2")]),
        };
        let (sender, mut receiver) = mpsc::channel(100);
        let mut recorder = Recorder::open(&path, &step, &sender).unwrap();
        recorder.take(OutputStream::Stdout, b"a hunt").await;
        recorder.take(OutputStream::Stderr, b"hunter2\n").await;
        recorder.take(OutputStream::Stdout, b"er2 b\n\n").await;
        let tail = recorder.finish("ended with exit code 0").await;
        drop(sender);
        assert_eq!(tail, ["(sensitive)", "a (sensitive) b", ""]);
        let mut lines = Vec::new();
        while let Some(line) = receiver.recv().await {
            lines.push(line.text);
        }
        assert_eq!(lines, tail);
        let log = std::fs::read_to_string(&path).unwrap();
        let output: Vec<_> = log.lines().filter(|line| !line.starts_with("==>")).collect();
        assert_eq!(output, ["(sensitive)", "a (sensitive) b", ""]);
    }

    #[tokio::test]
    async fn tail_keeps_the_last_lines_alone() {
        let folder = tempfile::tempdir().unwrap();
        let step = ProvisionStep {
            number: 1,
            label: "inline".to_owned(),
            action: ProvisionAction::Shell { script: String::new() },
            options: Default::default(),
            digest: Digest::of(b""),
            secrets: Secrets::default(),
        };
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let mut recorder = Recorder::open(&folder.path().join("log"), &step, &sender).unwrap();
        for number in 0..100 {
            recorder.take(OutputStream::Stdout, format!("{number}\n").as_bytes()).await;
        }
        let tail = recorder.finish("ended with exit code 0").await;
        assert_eq!(tail, (80..100).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}
