//! A hand on a running machine's monitor, for tests that do what somebody else might do to it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends one command to the monitor of the QEMU process `pid`, and gives what it returned. An answer may fail to come
/// where the command ends the process.
pub fn command(pid: u32, command: &str, arguments: &Value) -> Option<Value> {
    let stream = UnixStream::connect(socket(pid)).expect("the monitor of a running machine");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let mut stream = BufReader::new(stream);
    answer(&mut stream, |line| line.get("QMP").is_some())?;
    for (name, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
        let line = json!({ "execute": name, "arguments": arguments });
        writeln!(stream.get_mut(), "{line}").expect("a command is sent");
        let answered =
            answer(&mut stream, |line| line.get("return").is_some() || line.get("error").is_some())?;
        assert!(answered.get("error").is_none(), "{name}: {answered}");
        if name == command {
            return answered.get("return").cloned();
        }
    }
    None
}

/// Sends one command in the words that people type, and gives what it printed.
pub fn human(pid: u32, line: &str) -> String {
    let printed = command(pid, "human-monitor-command", &json!({ "command-line": line }));
    printed.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

fn answer(stream: &mut BufReader<UnixStream>, is_wanted: impl Fn(&Value) -> bool) -> Option<Value> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).expect("the monitor answers") == 0 {
            return None;
        }
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
