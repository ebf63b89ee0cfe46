//! One run of the binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// A run that goes on.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    lines: Receiver<(Stream, String)>,
    stdout: String,
    stderr: String,
    deadline: Instant,
}

/// A run that goes on, and whose output nobody reads yet.
#[derive(Debug)]
pub struct Unread(Option<(Child, String, Duration)>);

/// A run that ended.
#[derive(Debug)]
pub struct Ended {
    /// The command line, for messages.
    pub what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Unread {
    /// Takes over a child whose three streams are pipes.
    pub(crate) fn new(child: Child, what: String, patience: Duration) -> Self {
        Self(Some((child, what, patience)))
    }

    /// From now on its output is read.
    pub fn read(mut self) -> Running {
        let (child, what, patience) = self.0.take().expect("it is taken once");
        Running::new(child, what, "", patience)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some((mut child, ..)) = self.0.take() {
            process::kill(child.id());
            child.wait().expect("a killed child can be waited for");
        }
    }
}

impl Running {
    /// Takes over a child whose three streams are pipes, and gives it `input` and so much time.
    pub(crate) fn new(mut child: Child, what: String, input: &str, patience: Duration) -> Self {
        let (sender, lines) = channel();
        let mut stdin = child.stdin.take().expect("stdin is a pipe");
        let input = input.to_owned();
        // A command that does not read its input ends the pipe early; that is its right.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
        let streams: [(Stream, Box<dyn Read + Send>); 2] = [
            (Stream::Stdout, Box::new(child.stdout.take().expect("stdout is a pipe"))),
            (Stream::Stderr, Box::new(child.stderr.take().expect("stderr is a pipe"))),
        ];
        for (stream, pipe) in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                    // Whoever asked for the run gave up on it if nobody receives.
                    if sender.send((stream, String::from_utf8_lossy(&line).into_owned())).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
        let deadline = Instant::now() + patience;
        Self { child, what, lines, stdout: String::new(), stderr: String::new(), deadline }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line, of either stream, that `wanted` accepts. Panics if the run ends without it.
    pub fn await_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        while let Some(line) = self.next_line() {
            if wanted(&line) {
                return line;
            }
        }
        panic!("`{}` ended without the awaited line\n{}", self.what, self.so_far());
    }

    /// Waits for a line, of either stream, that `wanted` accepts; false if the run ends without it.
    pub fn await_any_line(&mut self, mut wanted: impl FnMut(&str) -> bool) -> bool {
        while let Some(line) = self.next_line() {
            if wanted(&line) {
                return true;
            }
        }
        false
    }

    /// Kills it as `kill -9` does.
    pub fn kill(self) {
        drop(self);
    }

    /// Waits until it ended and closed its streams.
    pub fn end(mut self) -> Ended {
        while self.next_line().is_some() {}
        let left = self.deadline.saturating_duration_since(Instant::now());
        if !process::await_end(self.child.id(), left) {
            self.give_up();
        }
        let status = self.child.wait().expect("a child can be waited for");
        let [what, stdout, stderr] = [&mut self.what, &mut self.stdout, &mut self.stderr].map(std::mem::take);
        Ended { what, status, stdout, stderr }
    }

    fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok((stream, line)) => {
                match stream {
                    Stream::Stdout => self.stdout.push_str(&line),
                    Stream::Stderr => self.stderr.push_str(&line),
                }
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.give_up(),
        }
    }

    fn give_up(&mut self) -> ! {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("ended ({status}), but something holds its output open"),
            Ok(None) | Err(_) => "still runs".to_owned(),
        };
        process::kill(self.child.id());
        panic!("`{}` {state} after its time was up\n{}", self.what, self.so_far());
    }

    fn so_far(&self) -> String {
        format!("--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// A run that nobody waits for any more is killed, so that it makes nothing in a world that is being removed.
impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            process::kill(self.child.id());
            self.child.wait().expect("a killed child can be waited for");
        }
    }
}

impl Ended {
    /// The exit code; panics if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("`{}` ended by {}\n{}", self.what, self.status, self.text()))
    }

    /// Panics with everything it printed unless it ended with `code`.
    pub fn expect(self, code: i32) -> Self {
        let found = self.code();
        assert_eq!(found, code, "exit code of `{}`\n{}", self.what, self.text());
        self
    }

    /// Panics unless `words` stands in what it printed, on either stream.
    pub fn says(self, words: &str) -> Self {
        let found = self.flowing().contains(words);
        assert!(found, "`{}` does not say {words:?}\n{}", self.what, self.text());
        self
    }

    /// Both streams, for messages.
    pub fn text(&self) -> String {
        format!("--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr)
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("`{}` printed no JSON: {error}\n{}", self.what, self.text()))
    }

    /// Both streams with line breaks, indents and the frames of diagnostics turned to single spaces.
    fn flowing(&self) -> String {
        let frames =
            |c: char| c.is_whitespace() || matches!(c, '│' | '·' | '╰' | '╭' | '─' | '×' | '▶' | '├');
        let text = format!("{}\n{}", self.stdout, self.stderr);
        text.split(frames).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}
