//! QEMU's monitor: JSON lines over a unix socket, each wait under a deadline.
//!
//! The types of the protocol are those of the `qapi` crate, which only this file names. The transport is our own:
//! that crate's cannot drop a command in flight, and an event that it does not know ends its stream. Here one
//! command is in flight at a time, events and late answers are passed over, and a monitor that failed once is not
//! used again.
//!
//! QEMU serves one client at a time. A second one is connected but not greeted until the first leaves, so the
//! greeting's deadline is what tells a busy monitor from a free one.

mod agent;
mod migration;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use agent::Agent;
use qapi::qmp;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::argv::TCP_DISPLAY;
use crate::abilities::Stall;
use crate::capacity::space;
use crate::error::{Error, Result};
use crate::spec::{Secret, VmState};

/// Longest line accepted from QEMU. Its longest answer here, the schema apart, has a few kilobytes.
const MAX_LINE: usize = 1 << 20;

/// How often a connection is tried while the socket is not ready or its backlog of one is full. The kernel offers
/// no way to wait for the latter.
const CONNECT_INTERVAL: Duration = Duration::from_millis(10);

/// How long a command may take. QEMU answers in milliseconds, but an overloaded host may stall it.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection to a monitor, ready for commands.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    last_id: u64,
}

/// The first line on a connection.
#[derive(Debug, Deserialize)]
struct Greeting {
    #[serde(rename = "QMP")]
    _about: serde::de::IgnoredAny,
}

/// One line from QEMU: an answer, or an event (all fields absent).
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "return")]
    value: Option<serde_json::Value>,
    error: Option<Refusal>,
    id: Option<u64>,
}

/// Of an error only the text is used: unknown classes are no reason to fail.
#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

impl Monitor {
    /// Connects, waits for the greeting and leaves negotiation behind, all within `patience`.
    ///
    /// QEMU's monitors greet early in its start, but negotiate only when its main loop runs: a connected monitor
    /// belongs to a QEMU that is fully there. One that stays silent, or is not there, is an [`Error::Timeout`];
    /// so callers watch the process at the same time. A connection that QEMU drops before it was negotiated is
    /// made again: one that comes just while its predecessor is cleared away can be cleared away with it.
    pub(crate) async fn connect(socket: &Path, patience: Duration) -> Result<Self> {
        let negotiated = async {
            let mut tries = interval(CONNECT_INTERVAL);
            tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tries.tick().await;
                match Self::negotiate(socket).await {
                    Err(error) if is_dropped(&error) => {}
                    result => return result,
                }
            }
        };
        timeout(patience, negotiated).await.map_err(|_| Error::Timeout {
            what: format!("a greeting on QEMU's monitor `{}`", socket.display()),
            after: patience,
        })?
    }

    async fn negotiate(socket: &Path) -> Result<Self> {
        let stream = BufReader::new(connect(socket).await?);
        let mut monitor = Self { socket: socket.to_owned(), stream, last_id: 0 };
        let greeting = monitor.read_line().await?;
        if serde_json::from_slice::<Greeting>(&greeting).is_err() {
            let what = format!("`{}` greeted with something else than QMP", socket.display());
            return Err(Error::Monitor(what));
        }
        monitor.exchange(qmp::qmp_capabilities { enable: None }).await?;
        Ok(monitor)
    }

    /// What the machine does, by QEMU's word.
    pub(crate) async fn state(&mut self) -> Result<VmState> {
        Ok(vm_state(self.execute(qmp::query_status {}).await?.status))
    }

    /// Why QEMU paused it by itself, if it did because a disk could not be read or written. `file_of` tells the file of
    /// a block node by the node's name; of a node that it does not know, QEMU's own word for the file is taken.
    ///
    /// Such a request is tried again when the machine goes on (`werror=enospc`, QEMU's default, pauses for want of
    /// space only and passes everything else to the guest).
    pub(crate) async fn stall(&mut self, file_of: impl Fn(&str) -> Option<PathBuf>) -> Result<Option<Stall>> {
        if self.execute(qmp::query_status {}).await?.status != qmp::RunState::io_error {
            return Ok(None);
        }
        let disks = self.execute(qmp::query_block {}).await?;
        let full = disks.iter().find(|disk| disk.io_status == Some(qmp::BlockDeviceIoStatus::nospace));
        let failed = disks.iter().find(|disk| disk.io_status == Some(qmp::BlockDeviceIoStatus::failed));
        // By the time of the second question the disk may be well again: somebody let the machine go on.
        let Some(node) = full.or(failed).and_then(|disk| disk.inserted.as_ref()) else { return Ok(None) };
        let known = node.node_name.as_deref().and_then(file_of);
        let path = known.unwrap_or_else(|| PathBuf::from(&node.file));
        Ok(Some(if full.is_some() {
            Stall::DiskFull { free_bytes: space(path.parent().unwrap_or(&path))?.free, path }
        } else {
            Stall::DiskFailed { path }
        }))
    }

    /// How many vCPUs it has.
    pub(crate) async fn vcpus(&mut self) -> Result<usize> {
        Ok(self.execute(qmp::query_cpus_fast {}).await?.len())
    }

    /// How much memory it has, in bytes.
    pub(crate) async fn memory(&mut self) -> Result<u64> {
        let memory = self.execute(qmp::query_memory_size_summary {}).await?;
        Ok(memory.base_memory + memory.plugged_memory.unwrap_or(0))
    }

    /// The user networks' table of connections, as text.
    pub(crate) async fn user_network(&mut self) -> Result<String> {
        self.human("info usernet".to_owned()).await
    }

    /// Runs a command of the human monitor and returns what it prints, which is also all that tells of a failure.
    pub(crate) async fn human(&mut self, command_line: String) -> Result<String> {
        self.execute(qmp::human_monitor_command { cpu_index: None, command_line }).await
    }

    /// Lets the disk of block node `node` grow to `bytes`; the guest is told.
    pub(crate) async fn resize(&mut self, node: String, bytes: u64) -> Result<()> {
        let size = i64::try_from(bytes).map_err(|_| Error::Monitor(format!("no disk has {bytes} bytes")))?;
        self.execute(qmp::block_resize { device: None, node_name: Some(node), size }).await.map(drop)
    }

    /// Pauses the vCPUs.
    pub(crate) async fn pause(&mut self) -> Result<()> {
        self.execute(qmp::stop {}).await.map(drop)
    }

    /// Lets the vCPUs run.
    pub(crate) async fn unpause(&mut self) -> Result<()> {
        self.execute(qmp::cont {}).await.map(drop)
    }

    /// Whether a program in the guest has the agent's channel open.
    pub(crate) async fn has_agent(&mut self) -> Result<bool> {
        let lines = self.execute(qmp::query_chardev {}).await?;
        Ok(lines.iter().any(|line| line.label == "agent" && line.frontend_open))
    }

    /// Where the display is served over TCP.
    pub(crate) async fn display(&mut self) -> Result<Option<(String, String)>> {
        let displays = self.execute(qmp::query_vnc_servers {}).await?;
        let mut places = displays.into_iter().flat_map(|display| display.server).map(|server| server.base);
        let tcp = places.find(|place| matches!(place.family, qmp::NetworkAddressFamily::ipv4));
        Ok(tcp.map(|place| (place.host, place.service)))
    }

    /// Sets what opens the display over VNC.
    pub(crate) async fn set_display_password(&mut self, password: &Secret) -> Result<()> {
        let base = qmp::SetPasswordOptionsBase { connected: None, password: password.expose().to_owned() };
        let vnc = qmp::SetPasswordOptionsVnc { display: Some(TCP_DISPLAY.to_owned()) };
        self.execute(qmp::set_password(qmp::SetPasswordOptions::vnc { base, vnc })).await.map(drop)
    }

    /// Presses the power button.
    pub(crate) async fn power_down(&mut self) -> Result<()> {
        self.execute(qmp::system_powerdown {}).await.map(drop)
    }

    /// Tells QEMU to end without asking the guest. QEMU may be gone before it answers.
    pub(crate) async fn quit(&mut self) -> Result<()> {
        self.execute(qmp::quit {}).await.map(drop)
    }

    async fn execute<C: qmp::QmpCommand>(&mut self, command: C) -> Result<C::Ok> {
        timeout(ANSWER, self.exchange(command)).await.map_err(|_| Error::Timeout {
            what: format!("an answer to `{}` on QEMU's monitor `{}`", C::NAME, self.socket.display()),
            after: ANSWER,
        })?
    }

    async fn exchange<C: qmp::QmpCommand>(&mut self, command: C) -> Result<C::Ok> {
        self.last_id += 1;
        let mut line = serde_json::to_vec(&qapi::Execute::with_id(command, self.last_id))
            .map_err(|error| Error::Monitor(format!("cannot write `{}`: {error}", C::NAME)))?;
        line.push(b'\n');
        let sent = self.stream.get_mut().write_all(&line).await;
        sent.map_err(Error::io("write to QEMU's monitor", &self.socket))?;
        loop {
            let line = self.read_line().await?;
            let message: Message = serde_json::from_slice(&line)
                .map_err(|error| Error::Monitor(format!("it sent something else than QMP: {error}")))?;
            if message.id != Some(self.last_id) {
                continue;
            }
            return match message {
                Message { error: Some(refusal), .. } => {
                    Err(Error::Monitor(format!("`{}` was refused: {}", C::NAME, refusal.desc)))
                }
                Message { value, .. } => C::Ok::deserialize(value.unwrap_or_default())
                    .map_err(|error| Error::Monitor(format!("answer to `{}`: {error}", C::NAME))),
            };
        }
    }

    /// Reads one line, at most [`MAX_LINE`] bytes of it.
    async fn read_line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let bytes =
                self.stream.fill_buf().await.map_err(Error::io("read from QEMU's monitor", &self.socket))?;
            if bytes.is_empty() {
                let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
                return Err(Error::io("read from QEMU's monitor", &self.socket)(closed));
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(bytes.len(), |end| end + 1);
            line.extend_from_slice(&bytes[..used]);
            self.stream.consume(used);
            if line.len() > MAX_LINE {
                return Err(Error::Monitor(format!("it sent a line of more than {MAX_LINE} bytes")));
            }
            if end.is_some() {
                return Ok(line);
            }
        }
    }
}

/// Connects; waits while the socket is not there yet or others stand in its short queue.
async fn connect(socket: &Path) -> Result<UnixStream> {
    let mut tries = interval(CONNECT_INTERVAL);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tries.tick().await;
        match UnixStream::connect(socket).await {
            Err(error) if is_not_yet(error.kind()) => {}
            result => return result.map_err(Error::io("connect to QEMU's monitor", socket)),
        }
    }
}

/// Not made, made but not listened on, or full: a QEMU that is starting goes through the first two.
fn is_not_yet(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock)
}

/// Whether QEMU ended the connection, rather than saying something that cannot be used.
fn is_dropped(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, Error::Io { source, .. } if matches!(source.kind(), BrokenPipe | ConnectionReset | UnexpectedEof))
}

fn vm_state(status: qmp::RunState) -> VmState {
    use qmp::RunState;
    match status {
        // `prelaunch` and the two of migration pass by themselves; vmctl starts nothing paused.
        RunState::running
        | RunState::colo
        | RunState::prelaunch
        | RunState::inmigrate
        | RunState::restore_vm => VmState::Running,
        RunState::paused
        | RunState::suspended
        | RunState::debug
        | RunState::save_vm
        | RunState::finish_migrate
        | RunState::postmigrate => VmState::Suspended,
        // The guest is off and the process about to end.
        RunState::shutdown => VmState::Stopped,
        RunState::internal_error | RunState::io_error | RunState::watchdog | RunState::guest_panicked => {
            VmState::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A monitor that sends `first`, then one of `answers` per line it reads, then closes.
    async fn scripted(first: &str, answers: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let first = first.to_owned();
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        tokio::spawn(async move {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            stream.get_mut().write_all(first.as_bytes()).await.unwrap();
            for answer in answers {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                // The reader may have left already, as it does at a line that is too long.
                let _ = stream.get_mut().write_all(answer.as_bytes()).await;
            }
        });
        (folder, socket)
    }

    async fn monitor(answers: &[&str]) -> Result<Monitor> {
        let negotiation = ["{\"return\": {}, \"id\": 1}\n"];
        let (_folder, socket) =
            scripted(&format!("{GREETING}\r\n"), &[&negotiation[..], answers].concat()).await;
        Monitor::connect(&socket, PATIENCE).await
    }

    #[tokio::test]
    async fn answer_is_found_among_events_and_late_answers() {
        let mut monitor = monitor(&["{\"event\": \"BRAND_NEW\", \"data\": {\"x\": [1]}, \"timestamp\": {}}\r\n\
             {\"return\": {}, \"id\": 1}\r\n\
             {\"return\": {\"status\": \"paused\", \"singlestep\": false, \"running\": false}, \"id\": 2}\r\n"])
        .await
        .unwrap();
        assert_eq!(monitor.state().await.unwrap(), VmState::Suspended);
    }

    #[tokio::test]
    async fn refusal_of_any_class_is_told() {
        let mut monitor =
            monitor(&["{\"error\": {\"class\": \"Novel\", \"desc\": \"not now\"}, \"id\": 2}\n"])
                .await
                .unwrap();
        assert_eq!(
            monitor.pause().await.unwrap_err().to_string(),
            "QEMU's monitor: `stop` was refused: not now"
        );
    }

    #[tokio::test]
    async fn nonsense_is_an_error_and_no_panic() {
        for (answer, message) in [
            ("{\"return\": {\"status\": \"dreaming\", \"running\": true}, \"id\": 2}\n", "unknown variant"),
            ("\u{1}\u{2}{]\n", "something else than QMP"),
            ("{\"return\": {\"sta", "closed the connection"),
            ("", "closed the connection"),
            ("null\n", "something else than QMP"),
        ] {
            let error = monitor(&[answer]).await.unwrap().state().await.unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let told = format!("{error}: {cause}");
            assert!(told.contains(message), "{answer:?}: {told}");
        }
    }

    #[tokio::test]
    async fn endless_line_ends_the_connection() {
        let flood = "x".repeat(MAX_LINE + 100_000);
        let error = monitor(&[&flood]).await.unwrap().state().await.unwrap_err().to_string();
        assert!(error.contains("a line of more than 1048576 bytes"), "{error}");
    }

    #[tokio::test]
    async fn silent_monitor_is_a_timeout() {
        for first in ["", "{\"QMP\": {\"vers"] {
            let (_folder, socket) = scripted(first, &["never"]).await;
            let error = Monitor::connect(&socket, Duration::from_millis(100)).await.unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn full_queue_is_waited_for_until_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&socket).await.unwrap();
        let error = Monitor::connect(&socket, Duration::from_millis(100)).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }

    #[tokio::test]
    async fn connection_that_is_dropped_before_it_was_negotiated_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let monitor = tokio::spawn({
            let socket = socket.clone();
            async move { Monitor::connect(&socket, PATIENCE).await }
        });
        for first in ["", "{\"QMP\": {\"vers", &format!("{GREETING}\r\n")] {
            let mut stream = listener.accept().await.unwrap().0;
            stream.write_all(first.as_bytes()).await.unwrap();
        }
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        stream.get_mut().write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
        stream.read_line(&mut String::new()).await.unwrap();
        stream.get_mut().write_all(b"{\"return\": {}, \"id\": 1}\n").await.unwrap();
        assert!(monitor.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn foreign_greeting_is_refused() {
        let (_folder, socket) = scripted("SSH-2.0-OpenSSH_9.2\n", &[]).await;
        let error = Monitor::connect(&socket, PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("something else than QMP"), "{error}");
    }
}
