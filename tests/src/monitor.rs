//! A hand on a running machine's monitor, for tests that do what somebody else might do to it.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends one command to the monitor of the QEMU process `pid`, and gives what it returned. An answer may fail to come
/// where the command ends the process.
pub fn command(pid: u32, command: &str, arguments: &Value) -> Option<Value> {
    let mut stream = connected(&socket(pid));
    send(&mut stream, command, arguments).expect("a command is sent");
    answered(&mut stream, command)
}

/// A connection that was negotiated. QEMU may drop one that comes while its predecessor is cleared away.
fn connected(socket: &str) -> BufReader<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stream = UnixStream::connect(socket).expect("the monitor of a running machine");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let mut stream = BufReader::new(stream);
        let greeted = answer(&mut stream, |line| line.get("QMP").is_some()).is_some();
        if greeted
            && send(&mut stream, "qmp_capabilities", &json!({})).is_ok()
            && answered(&mut stream, "qmp_capabilities").is_some()
        {
            return stream;
        }
        assert!(Instant::now() < deadline, "the monitor drops every connection");
    }
}

fn send(stream: &mut BufReader<UnixStream>, name: &str, arguments: &Value) -> std::io::Result<()> {
    let line = json!({ "execute": name, "arguments": arguments });
    writeln!(stream.get_mut(), "{line}")
}

fn answered(stream: &mut BufReader<UnixStream>, name: &str) -> Option<Value> {
    let answered = answer(stream, |line| line.get("return").is_some() || line.get("error").is_some())?;
    assert!(answered.get("error").is_none(), "{name}: {answered}");
    answered.get("return").cloned()
}

/// Sends one command in the words that people type, and gives what it printed.
pub fn human(pid: u32, line: &str) -> String {
    let printed = command(pid, "human-monitor-command", &json!({ "command-line": line }));
    printed.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

fn answer(stream: &mut BufReader<UnixStream>, is_wanted: impl Fn(&Value) -> bool) -> Option<Value> {
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line) {
            Ok(0) => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            read => read.expect("the monitor answers"),
        };
        let value: Value = serde_json::from_str(&line).expect("the monitor speaks JSON");
        if is_wanted(&value) {
            return Some(value);
        }
    }
}

/// The path of the everyday monitor, as it stands on the command line.
fn socket(pid: u32) -> String {
    let arguments = process::arguments(pid).expect("the machine runs");
    let option =
        arguments.iter().find(|argument| argument.contains("id=monitor,")).expect("it has a monitor");
    let path = option.split(',').find_map(|part| part.strip_prefix("path=")).expect("at a path");
    path.to_owned()
}
