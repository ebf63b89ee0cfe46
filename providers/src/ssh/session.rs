//! A logged-in connection: commands with their streams, and uploads.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{Handle, Msg};
use russh::{ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Disconnect};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::SyncIoBridge;

use super::connect::{self, HostKeyCheck};
use super::{Keyring, SshError, SshTarget, folder, quote};
use crate::process::tail;
use crate::provision::OutputStream;

/// Chooses between the login user's own rights and sudo, then runs `$0`.
const CHOOSE: &str = include_str!("choose.sh");

/// Stores standard input as a file.
const STORE: &str = include_str!("store.sh");

/// Chooses in the same way for a folder.
const CHOOSE_FOLDER: &str = include_str!("choose_folder.sh");

/// Unpacks a folder from standard input.
const UNPACK: &str = include_str!("unpack.sh");

/// Bytes of a folder's archive that may be made ahead of what the guest takes.
const ARCHIVE_AHEAD: usize = 256 * 1024;

/// How long an upload may stand still.
const UPLOAD_STALL: Duration = Duration::from_secs(60);

/// How long output may still come after a command ended. Something that it left running can hold its streams open
/// for ever; what was written before the end arrives at once.
const AFTER_EXIT: Duration = Duration::from_secs(2);

/// How much of the messages of a command that failed goes into an error.
const MESSAGES: usize = 1024;

/// Where a guest is asked for its ports.
const LOOPBACK: &str = "127.0.0.1";

/// Size of the pieces in which input is passed on.
const PIECE: usize = 32 * 1024;

/// How a command in the guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself, or its shell reported a signal as 128 and its number.
    Code(u32),
    /// A signal ended it; the name has no `SIG` in front.
    Signal(String),
}

impl ExitStatus {
    /// Whether it ended with code 0.
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code @ 129..=192) => write!(f, "exit code {code} (signal {})", code - 128),
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// A terminal that a command in the guest is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// What the guest knows it by, as in `TERM`.
    pub name: String,
    /// Its size.
    pub size: TerminalSize,
}

/// How large a terminal is; zeros where nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Letters of a line.
    pub columns: u16,
    /// Lines of a screen.
    pub rows: u16,
}

/// What came of a command that was to do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CarriedOut {
    /// It ended with 0.
    Done,
    /// How it ended, and the end of what it said on standard error.
    Failed(String),
    /// It did not end in time.
    TooLate,
}

/// A logged-in connection to one guest; commands and uploads share it. Clones are the same connection.
#[derive(Clone)]
pub struct Session(Arc<Handle<HostKeyCheck>>);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("closed", &self.0.is_closed()).finish()
    }
}

impl Session {
    pub(super) fn new(handle: Handle<HostKeyCheck>) -> Self {
        Self(Arc::new(handle))
    }

    /// Tries until a login works, at most `timeout`; ends early where trying again cannot help.
    ///
    /// A refused key or an unexpected host key is final after three refusals in a row over 5 s, as cloud-init may
    /// still be installing them; a key that cannot be read or opened is final at once. Where `known_hosts` is missing the
    /// guest's key is learned with the first successful login.
    pub async fn wait_for(
        target: &SshTarget,
        keyring: &Keyring,
        timeout: Duration,
    ) -> Result<Self, SshError> {
        // In memory of its own: a handshake is large, and callers stand deep enough without it.
        Box::pin(connect::wait_for(target, keyring, timeout, false)).await
    }

    /// The same with a guest that was ready before: it is given time to answer in place of being asked ever again.
    pub async fn reach(target: &SshTarget, keyring: &Keyring, timeout: Duration) -> Result<Self, SshError> {
        Box::pin(connect::wait_for(target, keyring, timeout, true)).await
    }

    /// Starts `command`, a line for the login user's shell.
    pub async fn start(&self, command: &str) -> Result<Running, SshError> {
        let channel = self.0.channel_open_session().await.map_err(lost)?;
        let (read, write) = channel.split();
        Self::started(read, write, command).await
    }

    /// Starts `command`, a line for the login user's shell, on a terminal of its own: what is sent to it are keys, and all
    /// that it prints comes by one stream. It is told that its terminal is gone when the channel ends.
    ///
    /// [`SshError::TerminalRefused`] if the guest gives none.
    pub async fn start_on_terminal(&self, command: &str, terminal: &Terminal) -> Result<Running, SshError> {
        let channel = self.0.channel_open_session().await.map_err(lost)?;
        let (mut read, write) = channel.split();
        let (columns, rows) = (terminal.size.columns.into(), terminal.size.rows.into());
        write.request_pty(true, &terminal.name, columns, rows, 0, 0, &[]).await.map_err(lost)?;
        if !answer(&mut read).await? {
            return Err(SshError::TerminalRefused);
        }
        Self::started(read, write, command).await
    }

    async fn started(
        mut read: ChannelReadHalf,
        write: ChannelWriteHalf<Msg>,
        command: &str,
    ) -> Result<Running, SshError> {
        write.exec(true, command).await.map_err(lost)?;
        if answer(&mut read).await? {
            Ok(Running { read, input: Input(Arc::new(write)), status: None })
        } else {
            Err(SshError::ExecRefused)
        }
    }

    /// Runs `command`, a line for the login user's shell, to its end.
    ///
    /// `input` becomes its standard input, `output` gets what it prints as it comes, in pieces of any size. A
    /// command that ends without reading all of its input is no failure. If the returned future is dropped the
    /// command may go on in the guest.
    pub async fn exec(
        &self,
        command: &str,
        input: impl AsyncRead + Unpin,
        mut output: impl FnMut(OutputStream, &[u8]),
    ) -> Result<ExitStatus, SshError> {
        let mut running = self.start(command).await?;
        let feed = feed(input, running.input());
        tokio::pin!(feed);
        let mut feeding = true;
        loop {
            tokio::select! {
                piece = running.next() => match piece? {
                    Some((stream, bytes)) => output(stream, &bytes),
                    None => break,
                },
                fed = &mut feed, if feeding => match fed {
                    // A lost connection is told with the output, which may still hold what came before.
                    Ok(()) | Err(SshError::Lost(_)) => feeding = false,
                    Err(error) => return Err(error),
                },
            }
        }
        running.finish().await
    }

    /// Lets `command`, a line for the login user's shell, do something until `deadline`. If that passes, it may go on in the
    /// guest.
    pub async fn carry_out(&self, command: &str, deadline: Instant) -> Result<CarriedOut, SshError> {
        let mut messages = Vec::new();
        let running = self.exec(command, tokio::io::empty(), |stream, bytes| {
            if stream == OutputStream::Stderr {
                messages.extend_from_slice(bytes);
                messages.drain(..messages.len().saturating_sub(2 * MESSAGES));
            }
        });
        let Ok(status) = timeout_at(deadline, running).await else { return Ok(CarriedOut::TooLate) };
        let status = status?;
        if status.is_success() {
            return Ok(CarriedOut::Done);
        }
        let said = tail(&messages, MESSAGES);
        Ok(CarriedOut::Failed(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") }))
    }

    /// Stores the file `source` in the guest as `destination`, with the permission bits `mode`.
    ///
    /// Parent folders are made. A relative path begins at the login user's home; an existing folder, or a path that
    /// ends in `/`, gets the file under the source's name. The file appears whole or not at all. Where the login
    /// user may not write, or the file is to have an owner (`user`, with that user's group, or `user:group`), sudo is
    /// used if it asks for no password.
    pub async fn upload(
        &self,
        source: &Path,
        destination: &str,
        mode: u32,
        owner: Option<&str>,
    ) -> Result<(), SshError> {
        let io = |action, source_error| SshError::Io { action, path: source.into(), source: source_error };
        let file = tokio::fs::File::open(source).await.map_err(|error| io("read", error))?;
        let metadata = file.metadata().await.map_err(|error| io("read", error))?;
        if !metadata.is_file() {
            return Err(io("upload", std::io::Error::other("it is no regular file")));
        }
        let name = source.file_name().unwrap_or_default().to_string_lossy();
        let (mode, size) = (format!("{mode:o}"), metadata.len().to_string());
        let owner = owner.map(chown_word).unwrap_or_default();
        let words = [CHOOSE, STORE, destination, &name, &mode, &size, &owner].map(quote).join(" ");
        let mut running = self.start(&format!("sh -c {words}")).await?;

        let mut said = Vec::new();
        let mut content = file.take(metadata.len());
        let input = running.input();
        let mut piece = vec![0; PIECE];
        let send = async {
            loop {
                let length = content.read(&mut piece).await.map_err(|error| io("read", error))?;
                if length == 0 {
                    return Ok(());
                }
                // A guest that closed its end says why in its output.
                match timeout(UPLOAD_STALL, input.send(&piece[..length])).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => {
                        return Err(SshError::UploadStalled {
                            destination: destination.to_owned(),
                            after: UPLOAD_STALL,
                        });
                    }
                }
            }
        };
        tokio::select! {
            sent = send => sent?,
            ended = running.gather(&mut said) => ended?,
        }
        running.input.end().await?;
        match timeout(UPLOAD_STALL, running.gather(&mut said)).await {
            Ok(ended) => ended?,
            Err(_) => {
                return Err(SshError::UploadStalled { destination: destination.into(), after: UPLOAD_STALL });
            }
        }
        let status = running.finish().await?;
        if status.is_success() {
            return Ok(());
        }
        Err(refused(destination, &status, &said))
    }

    /// Copies what is in the folder `source` into the folder `destination` of the guest, which is made if it is not there.
    ///
    /// Names, permission bits, times and links are kept; what is there already under other names stays. Nothing is
    /// changed there before all of it has arrived. Owner, sudo and relative paths are as for [`Session::upload`]. The
    /// guest needs `tar`.
    pub async fn upload_folder(
        &self,
        source: &Path,
        destination: &str,
        owner: Option<&str>,
    ) -> Result<(), SshError> {
        let owner = owner.map(chown_word).unwrap_or_default();
        let io = |error| SshError::Io { action: "read", path: source.into(), source: error };
        let mode = format!("{:o}", std::fs::metadata(source).map_err(io)?.permissions().mode() & 0o7777);
        let words = [CHOOSE_FOLDER, UNPACK, destination, folder::LAST, &owner, &mode].map(quote).join(" ");
        let (input, output) = tokio::io::duplex(ARCHIVE_AHEAD);
        let made = tokio::task::spawn_blocking({
            let (source, output) = (source.to_owned(), SyncIoBridge::new(output));
            move || folder::archive(&source, output)
        });
        let mut said = Vec::new();
        let ended = self.exec(&format!("sh -c {words}"), input, |_, bytes| keep(&mut said, bytes)).await;
        // A guest that ends early breaks the archive off; what it said is the reason then.
        let made = made.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(io(error));
        }
        let status = ended?;
        if status.is_success() {
            return Ok(());
        }
        Err(refused(destination, &status, &said))
    }

    /// Whether something in the guest accepts a TCP connection to `port` of its loopback; it is let go of at once.
    ///
    /// [`SshError::ForwardRefused`] if the guest's sshd makes no connections for this login.
    pub async fn connects(&self, port: u16) -> Result<bool, SshError> {
        let opened = self.0.channel_open_direct_tcpip(LOOPBACK, port.into(), LOOPBACK, 0).await;
        let refusal = match opened {
            Ok(channel) => {
                if let Err(error) = channel.close().await {
                    tracing::debug!(%error, "the channel was closed already");
                }
                return Ok(true);
            }
            Err(russh::Error::ChannelOpenFailure(refusal)) => refusal,
            Err(error) => return Err(lost(error)),
        };
        match refusal {
            ChannelOpenFailure::ConnectFailed => Ok(false),
            ChannelOpenFailure::AdministrativelyProhibited | ChannelOpenFailure::UnknownChannelType => {
                Err(SshError::ForwardRefused)
            }
            other => Err(lost(russh::Error::ChannelOpenFailure(other))),
        }
    }

    /// Whether the connection is known to have ended; whoever keeps a session asks before using it again.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Takes leave of the guest. Commands that still run on clones of this session end with it.
    pub async fn close(&self) {
        // Nothing is left to be done for a connection that is gone already.
        if let Err(error) = self.0.disconnect(Disconnect::ByApplication, "", "").await {
            tracing::debug!(%error, "the connection was closed already");
        }
    }
}

/// Whether the guest does what it was asked for.
async fn answer(read: &mut ChannelReadHalf) -> Result<bool, SshError> {
    loop {
        match read.wait().await {
            Some(ChannelMsg::Success) => return Ok(true),
            Some(ChannelMsg::Failure) => return Ok(false),
            Some(_) => {}
            None => return Err(SshError::Lost(None)),
        }
    }
}

/// Standard input of a command in the guest. It stays open until [`Input::end`].
#[derive(Clone)]
pub struct Input(Arc<ChannelWriteHalf<Msg>>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Input").field(&self.0.id()).finish()
    }
}

impl Input {
    /// Passes `bytes` on, as fast as the guest takes them. It waits for ever if the command has ended meanwhile:
    /// ask for its output at the same time.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), SshError> {
        self.0.data_bytes(bytes.to_vec()).await.map_err(lost)
    }

    /// Tells the command that its terminal has another size now.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), SshError> {
        self.0.window_change(size.columns.into(), size.rows.into(), 0, 0).await.map_err(lost)
    }

    /// Ends the input.
    pub async fn end(&self) -> Result<(), SshError> {
        self.0.eof().await.map_err(lost)
    }
}

/// A command that runs in the guest.
pub struct Running {
    read: ChannelReadHalf,
    input: Input,
    status: Option<ExitStatus>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Running {
    /// Its standard input.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// The next piece of output; `None` at its end. Cancel-safe.
    ///
    /// Who does not ask is not sent more than a bounded amount: the command waits.
    pub async fn next(&mut self) -> Result<Option<(OutputStream, Vec<u8>)>, SshError> {
        loop {
            let message = match self.status {
                None => self.read.wait().await,
                Some(_) => timeout(AFTER_EXIT, self.read.wait()).await.unwrap_or(None),
            };
            match message {
                Some(ChannelMsg::Data { data }) => return Ok(Some((OutputStream::Stdout, data.into()))),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    return Ok(Some((OutputStream::Stderr, data.into())));
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    self.status = Some(ExitStatus::Code(exit_status));
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    self.status = Some(ExitStatus::Signal(signal_word(&signal_name)));
                }
                Some(_) => {}
                None => return if self.status.is_some() { Ok(None) } else { Err(SshError::Lost(None)) },
            }
        }
    }

    /// How it ended, once [`Running::next`] has said that nothing more comes. Closes the channel.
    pub async fn finish(mut self) -> Result<ExitStatus, SshError> {
        let status = self.status.take();
        // It is closed already unless something in the guest holds its streams open.
        if let Err(error) = self.input.0.close().await {
            tracing::debug!(%error, "the channel was closed already");
        }
        status.ok_or(SshError::Lost(None))
    }

    /// Reads output to its end, and keeps as much of it as an error message needs.
    async fn gather(&mut self, said: &mut Vec<u8>) -> Result<(), SshError> {
        while let Some((_, bytes)) = self.next().await? {
            keep(said, &bytes);
        }
        Ok(())
    }
}

/// Keeps as much of what a guest says as an error message needs.
pub(super) fn keep(said: &mut Vec<u8>, bytes: &[u8]) {
    const ENOUGH: usize = 4096;
    let room = ENOUGH.saturating_sub(said.len());
    said.extend(bytes.iter().take(room));
}

/// The error of an upload that the guest refused.
fn refused(destination: &str, status: &ExitStatus, said: &[u8]) -> SshError {
    let said = String::from_utf8_lossy(said);
    let reason = if said.trim().is_empty() { status.to_string() } else { said.trim().to_owned() };
    SshError::UploadRefused { destination: destination.to_owned(), reason }
}

/// An owner as `chown` takes it: a user alone comes with that user's own group.
fn chown_word(owner: &str) -> String {
    if owner.contains(':') { owner.to_owned() } else { format!("{owner}:") }
}

/// Copies `source` to its end, then ends the command's input.
async fn feed(mut source: impl AsyncRead + Unpin, input: Input) -> Result<(), SshError> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = source.read(&mut piece).await.map_err(SshError::Input)?;
        if length == 0 {
            return input.end().await;
        }
        input.send(&piece[..length]).await?;
    }
}

fn signal_word(signal: &russh::Sig) -> String {
    match signal {
        russh::Sig::Custom(name) => name.clone(),
        named => format!("{named:?}"),
    }
}

fn lost(error: russh::Error) -> SshError {
    SshError::Lost(Some(error))
}
