//! A monitor as it is asked by hand: one connection, no more words than are needed.
//!
//! QEMU serves one client of a monitor at a time, and lets others wait until that one is gone.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use vmctl_tests::process;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a monitor that takes commands.
pub(crate) struct Hand(BufReader<UnixStream>);

impl Hand {
    /// Connects, and says that nothing special is wanted.
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        Self::over(UnixStream::connect(socket)?)
    }

    /// The same over a connection that is there.
    pub(crate) fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut hand = Self(BufReader::new(stream));
        hand.until(|line| line.get("QMP").is_some())?;
        hand.execute("qmp_capabilities", &json!({}))?;
        Ok(hand)
    }

    /// Has a command carried out; an answer that refuses is an error.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.0.get_mut().write_all(line.as_bytes())?;
        let mut answer = self.until(|line| line.get("return").is_some() || line.get("error").is_some())?;
        match answer.get_mut("return") {
            Some(returned) => Ok(returned.take()),
            None => Err(io::Error::other(format!("{command}: {answer}"))),
        }
    }

    /// Passes over lines, which are events, until one is wanted.
    fn until(&mut self, is_wanted: impl Fn(&Value) -> bool) -> io::Result<Value> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let value: Value = serde_json::from_str(&line)?;
            if is_wanted(&value) {
                return Ok(value);
            }
        }
    }
}

/// Where the monitor of a running machine is.
pub(crate) fn socket(pid: u32) -> PathBuf {
    let arguments = process::arguments(pid).expect("the machine runs");
    let option = arguments.iter().find(|argument| argument.contains("id=monitor,")).expect("a monitor");
    option.split(',').find_map(|part| part.strip_prefix("path=")).expect("a path").into()
}

/// Asks whether the machine runs, on a connection of its own.
pub(crate) fn ask(socket: &Path) {
    let status = Hand::connect(socket).and_then(|mut hand| hand.execute("query-status", &json!({})));
    assert_eq!(status.expect("an answer")["running"], true);
}

/// Ends a machine, and waits for its end.
pub(crate) fn quit(socket: &Path, pid: u32) {
    let mut hand = Hand::connect(socket).expect("the monitor");
    // It may be gone before its answer is.
    drop(hand.execute("quit", &json!({})));
    assert!(process::await_end(pid, PATIENCE), "QEMU does not end");
}
