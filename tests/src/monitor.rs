//! A hand on a running machine's monitor, for tests that do what somebody else might do to it.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends one command to the monitor of the QEMU process `pid`, and gives what it returned. An answer may fail to come
/// where the command ends the process.
///
/// QEMU may drop a connection that comes while its predecessor is cleared away, and leave what was sent unread; then it
/// is sent again.
pub fn command(pid: u32, command: &str, arguments: &Value) -> Option<Value> {
    let socket = socket(pid);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match exchange(&socket, command, arguments) {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "the monitor drops every connection: {error}"),
        }
    }
}

/// Sends one command on a connection of its own. An error says that QEMU read nothing of it.
fn exchange(socket: &str, command: &str, arguments: &Value) -> io::Result<Option<Value>> {
    let stream = UnixStream::connect(socket).expect("the monitor of a running machine");
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = BufReader::new(stream);
    answer(&mut stream, |line| line.get("QMP").is_some())?.ok_or(ErrorKind::ConnectionReset)?;
    send(&mut stream, "qmp_capabilities", &json!({}))?;
    answered(&mut stream, "qmp_capabilities")?.ok_or(ErrorKind::ConnectionReset)?;
    send(&mut stream, command, arguments)?;
    answered(&mut stream, command)
}

fn send(stream: &mut BufReader<UnixStream>, name: &str, arguments: &Value) -> io::Result<()> {
    // In one piece: QEMU obeys before it has read the end of the line, and may be gone by then.
    let line = format!("{}\n", json!({ "execute": name, "arguments": arguments }));
    stream.get_mut().write_all(line.as_bytes())
}

fn answered(stream: &mut BufReader<UnixStream>, name: &str) -> io::Result<Option<Value>> {
    let is_answer = |line: &Value| line.get("return").is_some() || line.get("error").is_some();
    let Some(answered) = answer(stream, is_answer)? else { return Ok(None) };
    assert!(answered.get("error").is_none(), "{name}: {answered}");
    Ok(answered.get("return").cloned())
}

/// Sends one command in the words that people type, and gives what it printed.
pub fn human(pid: u32, line: &str) -> String {
    let printed = command(pid, "human-monitor-command", &json!({ "command-line": line }));
    printed.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The first line that is wanted; none where the connection ends in good order.
fn answer(
    stream: &mut BufReader<UnixStream>,
    is_wanted: impl Fn(&Value) -> bool,
) -> io::Result<Option<Value>> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let value: Value = serde_json::from_str(&line).expect("the monitor speaks JSON");
        if is_wanted(&value) {
            return Ok(Some(value));
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
