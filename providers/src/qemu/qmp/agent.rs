//! The guest agent: a program in the guest that does what it is told over a channel of the machine.
//!
//! It is used when it answers, and never needed. The channel takes one client at a time, and tells nobody that another
//! holds it, or that no agent is there: all of that is silence. So every connection begins with a question whose answer
//! nobody else can have asked for ([`Agent::connect`]), under a deadline.
//!
//! What a guest sends is its own word: it is bounded, and never trusted with more than being shown.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qapi::qga;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::abilities::{GuestInterface, RanByAgent};
use crate::error::{Error, Result};
use crate::ssh::ExitStatus;

/// Longest answer that is accepted: the output of a command is one.
const MAX_LINE: usize = 4 << 20;

/// How long a command may take. An agent in an emulated guest answers in some hundredths of a second.
const ANSWER: Duration = Duration::from_secs(5);

/// Begins what is no part of anything before it (guest-sync-delimited).
const SENTINEL: u8 = 0xff;

/// Time from one question whether a command has ended to the next.
const AGAIN: Duration = Duration::from_millis(100);

/// Interfaces and addresses of each that are believed to be a guest's, rather than a flood.
const MOST: usize = 64;

/// A connection to an agent that answers.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "return")]
    value: Option<serde_json::Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

impl Agent {
    /// Connects and asks for `id` back, which nobody else asks for, within `patience`; `None` if nobody answers.
    pub(crate) async fn connect(socket: &Path, id: u32, patience: Duration) -> Option<Self> {
        let synced = async {
            let stream = UnixStream::connect(socket).await.map_err(Error::io("connect to", socket))?;
            let mut agent = Self { socket: socket.to_owned(), stream: BufReader::new(stream) };
            agent.sync(id).await?;
            Ok::<_, Error>(agent)
        };
        match timeout(patience, synced).await {
            Ok(Ok(agent)) => Some(agent),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the guest agent cannot be asked");
                None
            }
            Err(_) => {
                tracing::debug!(socket = %socket.display(), ?patience, "no guest agent answers, or another client has it");
                None
            }
        }
    }

    /// Asks the guest to power off. There is no answer to that.
    pub(crate) async fn power_off(&mut self) -> Result<()> {
        self.send(qga::guest_shutdown { mode: Some(qga::GuestShutdownMode::Powerdown) }).await
    }

    /// The guest's network interfaces, the loopback left out.
    pub(crate) async fn interfaces(&mut self) -> Result<Vec<GuestInterface>> {
        let found = self.execute(qga::guest_network_get_interfaces {}).await?;
        let interfaces = found.into_iter().map(|interface| GuestInterface {
            name: interface.name,
            mac: interface.hardware_address,
            addresses: interface
                .ip_addresses
                .unwrap_or_default()
                .into_iter()
                .filter_map(|address| address.ip_address.parse::<IpAddr>().ok())
                .take(MOST)
                .collect(),
        });
        let is_loopback = |interface: &GuestInterface| interface.addresses.iter().any(IpAddr::is_loopback);
        Ok(interfaces.filter(|interface| !is_loopback(interface)).take(MOST).collect())
    }

    /// See [`crate::GuestAccess::run_by_agent`].
    pub(crate) async fn run(&mut self, line: &str, patience: Option<Duration>) -> Result<RanByAgent> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let started = self.execute(qga::guest_exec {
            path: "/bin/sh".to_owned(),
            arg: Some(vec!["-c".to_owned(), line.to_owned()]),
            capture_output: Some(qga::GuestExecCaptureOutput::flag(true)),
            env: None,
            input_data: None,
        });
        let pid = started.await?.pid;
        loop {
            let status = self.execute(qga::guest_exec_status { pid }).await?;
            if status.exited {
                return Ok(ran(status));
            }
            let next = Instant::now() + AGAIN;
            if let (Some(deadline), Some(after)) = (deadline, patience)
                && next > deadline
            {
                return Err(Error::Timeout { what: "the end of a command in the guest".to_owned(), after });
            }
            sleep_until(next).await;
        }
    }

    /// Passes over what earlier clients left behind: the answer stands behind a byte that is in no JSON.
    async fn sync(&mut self, id: u32) -> Result<()> {
        // An agent that is in the midst of half a command of somebody else's gives it up at that byte.
        self.write(&[SENTINEL]).await?;
        self.send(qga::guest_sync_delimited { id: i64::from(id) }).await?;
        loop {
            self.read_until(SENTINEL).await?;
            if let Ok(Message { value: Some(value), .. }) =
                serde_json::from_slice(&self.read_until(b'\n').await?)
                && value == i64::from(id)
            {
                return Ok(());
            }
        }
    }

    async fn execute<C: qga::QgaCommand>(&mut self, command: C) -> Result<C::Ok> {
        let exchange = async {
            self.send(command).await?;
            let line = self.read_until(b'\n').await?;
            match serde_json::from_slice(&line) {
                Ok(Message { error: Some(refusal), .. }) => {
                    Err(Error::Agent(format!("`{}` was refused: {}", C::NAME, refusal.desc)))
                }
                Ok(Message { value, .. }) => C::Ok::deserialize(value.unwrap_or_default())
                    .map_err(|error| Error::Agent(format!("answer to `{}`: {error}", C::NAME))),
                Err(error) => Err(Error::Agent(format!("it sent something else than JSON: {error}"))),
            }
        };
        timeout(ANSWER, exchange).await.map_err(|_| Error::Timeout {
            what: format!("an answer to `{}` of the guest agent", C::NAME),
            after: ANSWER,
        })?
    }

    async fn send<C: qga::QgaCommand>(&mut self, command: C) -> Result<()> {
        let mut line = serde_json::to_vec(&qapi::Execute::<C, u32>::new(command, None))
            .map_err(|error| Error::Agent(format!("cannot write `{}`: {error}", C::NAME)))?;
        line.push(b'\n');
        self.write(&line).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes).await.map_err(Error::io("write to", &self.socket))
    }

    /// Reads up to `end`, which is left out, at most [`MAX_LINE`] bytes.
    async fn read_until(&mut self, end: u8) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let bytes = self.stream.fill_buf().await.map_err(Error::io("read from", &self.socket))?;
            if bytes.is_empty() {
                return Err(Error::Agent("its channel was closed".to_owned()));
            }
            let found = bytes.iter().position(|byte| *byte == end);
            line.extend_from_slice(&bytes[..found.unwrap_or(bytes.len())]);
            let used = found.map_or(bytes.len(), |found| found + 1);
            self.stream.consume(used);
            if line.len() > MAX_LINE {
                return Err(Error::Agent(format!("it sent more than {MAX_LINE} bytes at once")));
            }
            if found.is_some() {
                return Ok(line);
            }
        }
    }
}

/// What the agent says of a command that ended. Its numbers are the guest's word.
fn ran(status: qga::GuestExecStatus) -> RanByAgent {
    let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let code = match (status.signal, status.exitcode) {
        (Some(signal), _) => number(signal).saturating_add(128),
        (None, code) => code.map_or(u32::MAX, number),
    };
    RanByAgent {
        status: ExitStatus::Code(code),
        stdout: status.out_data.unwrap_or_default(),
        stderr: status.err_data.unwrap_or_default(),
        truncated: status.out_truncated == Some(true) || status.err_truncated == Some(true),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// An agent that sends one of `answers` for each line it reads, then stays silent.
    async fn scripted(answers: &[&[u8]]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qga.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        tokio::spawn(async move {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            for answer in answers {
                let mut line = Vec::new();
                stream.read_until(b'\n', &mut line).await.unwrap();
                // The reader may have left already, as it does at an answer that is too long.
                let _ = stream.get_mut().write_all(&answer).await;
            }
            std::future::pending::<()>().await;
        });
        (folder, socket)
    }

    #[tokio::test]
    async fn answers_of_earlier_clients_are_passed_over() {
        let (_folder, socket) = scripted(&[
            b"{\"return\": 6}\n\xff{\"return\": 3}\n{\"return\": [\xff{\"return\": 7}\n",
            br#"{"return": [
                {"name": "lo", "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "127.0.0.1", "prefix": 8}]},
                {"name": "eth0", "hardware-address": "52:54:00:00:00:01", "ip-addresses": [
                    {"ip-address-type": "ipv4", "ip-address": "10.0.2.15", "prefix": 24}]},
                {"name": "eth1"}]}"#
                .iter()
                .copied()
                .filter(|byte| *byte != b'\n')
                .chain(*b"\n")
                .collect::<Vec<_>>()
                .as_slice(),
        ])
        .await;
        let mut agent = Agent::connect(&socket, 7, PATIENCE).await.unwrap();
        let found = agent.interfaces().await.unwrap();
        let expected = [("eth0", vec!["10.0.2.15".parse().unwrap()]), ("eth1", Vec::<IpAddr>::new())];
        assert_eq!(
            found.iter().map(|one| (one.name.as_str(), one.addresses.clone())).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(found[0].mac.as_deref(), Some("52:54:00:00:00:01"));
    }

    #[tokio::test]
    async fn silence_is_no_agent_and_no_error() {
        let (_folder, socket) = scripted(&[b"{\"return\": 7}\n"]).await;
        assert!(Agent::connect(&socket, 7, Duration::from_millis(50)).await.is_none());
        assert!(Agent::connect(Path::new("/missing/qga.sock"), 7, PATIENCE).await.is_none());
    }

    #[tokio::test]
    async fn refusals_and_floods_are_told() {
        let flood = vec![b'x'; MAX_LINE + 100];
        for (answer, said) in [
            (
                b"{\"error\": {\"class\": \"Odd\", \"desc\": \"disabled\"}}\n".as_slice(),
                "was refused: disabled",
            ),
            (&flood, "more than 4194304 bytes"),
            (b"[]\n", "something else than JSON"),
        ] {
            let (_folder, socket) = scripted(&[b"\xff{\"return\": 1}\n", answer]).await;
            let mut agent = Agent::connect(&socket, 1, PATIENCE).await.unwrap();
            let error = agent.interfaces().await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
