//! `console`: connects this terminal to a machine's serial line.
//!
//! ```text
//! stdin (a thread) ─▶ attach ─▶ socket
//! stdout           ◀─ attach ◀─ socket
//! ```

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use vmctl_providers::propolis::{API_VERSION, serial};
use vmctl_providers::workdir::WorkDir;
use vmctl_providers::{ConsoleEndpoint, Error, Hypervisor, VmHandle};

use crate::args::ConsoleArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit, stdout_failed};
use crate::terminal::{RawTerminal, Signals};
use crate::{machines, stdin, ui};

/// Ctrl-], the key that leaves, as telnet and virsh have it.
const LEAVE: u8 = 0x1d;

/// How much of the log is shown on entry: about a screen.
const REPLAY: u64 = 4096;

/// Silence after which a piped session is over: a guest that was given input answers sooner, even when emulated.
const SILENCE: Duration = Duration::from_secs(1);

/// Input that waits for a guest which does not read; more is left in the pipe.
const MOST_PENDING: usize = 64 * 1024;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Ctrl-], or the end of piped input.
    Left,
    /// The guest's side was closed.
    Closed,
    /// A signal asked us to go.
    Signal,
}

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ConsoleArgs) -> Result<Exit, CliError> {
    let machine = machines::one(ctx, Some(&args.name))?;
    let handle = machine.live()?;
    let address = &machine.record.address;
    let hypervisor = ctx.hypervisor(&ctx.project_dir(&machine.project)?)?;
    let endpoint = hypervisor.console_endpoint(handle)?;
    let interactive = io::stdin().is_terminal();
    let leave = if interactive { " Ctrl-] leaves." } else { "" };
    let runtime = small_runtime()?;
    let end = runtime.block_on(async {
        let mut signals = Signals::catch_all()?;
        let (socket, is_shared) = match &endpoint {
            ConsoleEndpoint::UnixSocket(path) => {
                let socket = UnixStream::connect(path).await.map_err(|error| {
                    let text =
                        format!("cannot connect to the console of `{address}` at `{}`", path.display());
                    CliError::new(text).because(&error)
                })?;
                (socket, false)
            }
            ConsoleEndpoint::WebSocket(url) => (connect(handle, url).await?, true),
            ConsoleEndpoint::None => {
                return Err(CliError::new(format!(
                    "cannot connect to the console of `{address}`: the `{}` backend has none",
                    handle.backend
                ))
                .help(format!("`vmctl status {}` shows what is known of it", address.name())));
            }
        };
        let one = " If it stays silent, another client may have it: one is served at a time.";
        let one = if is_shared { "" } else { one };
        ctx.note(&format!("Connected to the console of `{address}`.{leave}{one}"));
        if !is_shared {
            // Connected first and replayed then: nothing can fall in between. A WebSocket replays by itself.
            replay(&WorkDir::new(&handle.work_dir).console_log(), interactive)?;
        }
        let _raw = interactive.then(RawTerminal::enter).transpose()?;
        attach(socket, stdin::pieces(), &mut signals, interactive).await
    })?;
    let line_end = if interactive { "\n" } else { "" };
    match end {
        End::Left => ctx.note(&format!("{line_end}Left the console of `{address}`.")),
        End::Closed => {
            ctx.note(&format!("{line_end}The console of `{address}` was closed: the machine stopped."))
        }
        End::Signal => return Ok(Exit::Interrupted),
    }
    Ok(Exit::Fine)
}

/// Connects to a console that a propolis-server has; what it printed last comes first.
async fn connect(handle: &VmHandle, url: &str) -> Result<UnixStream, CliError> {
    let address = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next()?.parse().ok());
    let address = address.ok_or_else(|| CliError::new(format!("`{url}` is no console that vmctl knows")))?;
    let version = handle.machine.hardware.propolis.api_version.as_deref().unwrap_or(API_VERSION);
    Ok(serial::open(address, version, REPLAY).await.map_err(Error::from)?)
}

/// Carries bytes both ways until one side has enough.
async fn attach(
    mut socket: UnixStream,
    mut keys: mpsc::Receiver<io::Result<Vec<u8>>>,
    signals: &mut Signals,
    interactive: bool,
) -> Result<End, CliError> {
    let (mut from_guest, mut to_guest) = socket.split();
    let mut received = vec![0; 8192];
    let mut pending = Vec::new();
    let mut input_open = true;
    loop {
        let drained = !input_open && pending.is_empty();
        tokio::select! {
            read = from_guest.read(&mut received) => match read {
                Ok(0) => return Ok(End::Closed),
                Ok(length) => show(&received[..length])?,
                Err(error) if gone(&error) => return Ok(End::Closed),
                Err(error) => return Err(CliError::new("cannot read from the console").because(&error)),
            },
            typed = keys.recv(), if input_open && (interactive || pending.len() < MOST_PENDING) => match typed {
                None => input_open = false,
                Some(Err(error)) => return Err(CliError::new("cannot read standard input").because(&error)),
                Some(Ok(bytes)) => match bytes.iter().position(|byte| interactive && *byte == LEAVE) {
                    None => pending.extend(bytes),
                    Some(at) => {
                        // What was typed before is sent as far as the guest takes it at once.
                        pending.extend(&bytes[..at]);
                        if let Err(error) = to_guest.try_write(&pending)
                            && error.kind() != io::ErrorKind::WouldBlock
                            && !gone(&error)
                        {
                            return Err(CliError::new("cannot write to the console").because(&error));
                        }
                        return Ok(End::Left);
                    }
                },
            },
            written = to_guest.write(&pending), if !pending.is_empty() => match written {
                Ok(length) => drop(pending.drain(..length)),
                Err(error) if gone(&error) => return Ok(End::Closed),
                Err(error) => return Err(CliError::new("cannot write to the console").because(&error)),
            },
            // Built anew after each piece of output: it measures silence.
            () = tokio::time::sleep(SILENCE), if drained => return Ok(End::Left),
            () = signals.any() => return Ok(End::Signal),
        }
    }
}

/// Whether the other side went away.
fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Bytes of the guest, as they are: it is a terminal session.
fn show(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| stdout_failed(&error))
}

/// Shows the end of the log, so that a prompt that is already there can be seen.
fn replay(log: &Path, interactive: bool) -> Result<(), CliError> {
    let tail = match tail_of(log) {
        Ok(tail) => tail,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(CliError::new(format!("cannot read `{}`", log.display())).because(&error));
        }
    };
    // Text only: an old request for the cursor's position would be answered into the guest.
    let text = ui::visible_bytes(&anstream::adapter::strip_bytes(&tail).into_vec());
    show(if interactive { text.replace('\n', "\r\n") } else { text }.as_bytes())
}

/// The last bytes of a file, from the start of a line.
fn tail_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(REPLAY)))?;
    file.take(REPLAY).read_to_end(&mut tail)?;
    if length > REPLAY
        && let Some(line_end) = tail.iter().position(|byte| *byte == b'\n')
    {
        tail.drain(..=line_end);
    }
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a session against a guest that does `guest`; returns how it ended.
    fn session<F>(typed: &[&[u8]], interactive: bool, guest: impl FnOnce(UnixStream) -> F) -> End
    where
        F: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (sender, receiver) = mpsc::channel(8);
            let mut signals = Signals::catch_all().unwrap();
            for piece in typed {
                sender.try_send(Ok(piece.to_vec())).unwrap();
            }
            if !interactive {
                drop(sender);
                let (end, ()) = tokio::join!(attach(ours, receiver, &mut signals, false), guest(theirs));
                return end.unwrap();
            }
            let (end, ()) = tokio::join!(attach(ours, receiver, &mut signals, true), guest(theirs));
            drop(sender);
            end.unwrap()
        })
    }

    async fn all(mut guest: UnixStream) -> Vec<u8> {
        let mut got = Vec::new();
        guest.read_to_end(&mut got).await.unwrap();
        got
    }

    #[test]
    fn leaving_key_sends_what_came_before_and_nothing_after() {
        let end = session(&[b"ls\r", b"x\x1dignored"], true, async |guest| {
            assert_eq!(all(guest).await, b"ls\rx");
        });
        assert_eq!(end, End::Left);
    }

    #[test]
    fn ctrl_c_goes_to_the_guest() {
        let end = session(&[b"\x03", b"\x1d"], true, async |guest| assert_eq!(all(guest).await, b"\x03"));
        assert_eq!(end, End::Left);
    }

    #[test]
    fn piped_input_is_sent_whole_before_the_session_ends() {
        let end = session(&[b"a\x1d", b"b"], false, async |guest| assert_eq!(all(guest).await, b"a\x1db"));
        assert_eq!(end, End::Left);
    }

    #[test]
    fn stopped_machine_ends_the_session() {
        assert_eq!(session(&[], true, async |guest| drop(guest)), End::Closed);
    }

    #[test]
    fn replay_begins_at_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        std::fs::write(&path, "short\nlogin: ").unwrap();
        assert_eq!(tail_of(&path).unwrap(), b"short\nlogin: ");
        let line = format!("{}\n", "x".repeat(99));
        std::fs::write(&path, format!("{}login: ", line.repeat(100))).unwrap();
        let tail = tail_of(&path).unwrap();
        assert!(tail.starts_with(line.as_bytes()) && tail.ends_with(b"\nlogin: "));
        assert_eq!((tail.len() - "login: ".len()) % 100, 0);
    }
}
