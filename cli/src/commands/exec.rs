//! `exec`: runs a command in a machine and passes its exit code on.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;
use vmctl_providers::GuestAccess;
use vmctl_providers::provision::OutputStream;
use vmctl_providers::ssh::{self, ExitStatus, Input, Session, SshError};

use super::ssh::target;
use crate::args::ExecArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit, stdout_failed};
use crate::machines::Machine;
use crate::{machines, stdin, ui};

/// How long a running machine may take to let us in; it may have been started a moment ago.
pub(super) const LOGIN: Duration = Duration::from_secs(60);

/// The exit code of a command that did not end in time, as of timeout(1).
pub(super) const OUT_OF_TIME: Exit = Exit::Passed(124);

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ExecArgs) -> Result<Exit, CliError> {
    carried(ctx, &args.name, &args.command, None)
}

/// Runs a command in the machine called `name`, at most for so long.
pub(super) fn carried(
    ctx: &Context,
    name: &str,
    command: &[String],
    patience: Option<Duration>,
) -> Result<Exit, CliError> {
    let machine = machines::one(ctx, Some(name))?;
    let line = shell_line(command);
    if machine.live()?.ssh.is_none() {
        return by_agent(ctx, &machine, &line, patience);
    }
    let target = target(&machine, &machine.in_reach(ctx)?)?;
    small_runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let session = tokio::select! {
            session = Session::wait_for(&target, &ctx.settings.keyring, LOGIN) => session?,
            () = signals.any() => return Ok(Exit::Interrupted),
        };
        let status = tokio::select! {
            status = carry(&session, &line) => status?,
            () = signals.any() => return Ok(abandoned(ctx, name)),
            () = over(patience) => return Ok(late(name)),
        };
        session.close().await;
        Ok(Exit::Passed(code(&status)))
    })
}

/// Runs one line by the guest agent, which tells what it printed once it has ended.
fn by_agent(
    ctx: &Context,
    machine: &Machine,
    line: &str,
    patience: Option<Duration>,
) -> Result<Exit, CliError> {
    let host = ctx.hypervisor(&ctx.project_dir(&machine.project)?)?;
    let handle = machine.live()?;
    let address = &machine.record.address;
    small_runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let ran = tokio::select! {
            ran = host.run_by_agent(handle, line, None) => ran?,
            () = signals.any() => return Ok(abandoned(ctx, address.name())),
            () = over(patience) => return Ok(late(address.name())),
        };
        let Some(ran) = ran else {
            let message = format!("`{address}` has no ssh settings, and no guest agent answers in it");
            return Err(CliError::new(message).help(
                "add an `ssh` node to it in the VMFile and apply, or install qemu-guest-agent in its image"
                    .to_owned(),
            ));
        };
        show(OutputStream::Stdout, &ran.stdout)?;
        show(OutputStream::Stderr, &ran.stderr)?;
        if ran.truncated {
            ui::warn("the guest agent kept only a part of what the command printed");
        }
        Ok(Exit::Passed(code(&ran.status)))
    })
}

/// The signals that ask us to go; caught from the moment this is made.
pub(super) struct Signals([Signal; 2]);

impl Signals {
    pub(super) fn catch() -> Result<Self, CliError> {
        let caught =
            |kind| signal(kind).map_err(|error| CliError::new("cannot wait for signals").because(&error));
        Ok(Self([caught(SignalKind::interrupt())?, caught(SignalKind::terminate())?]))
    }

    /// Waits for any of them. Cancel-safe.
    pub(super) async fn any(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Runs one line in the guest with our standard streams.
async fn carry(session: &Session, line: &str) -> Result<ExitStatus, CliError> {
    let mut running = session.start(line).await?;
    let feeding = feed(running.input());
    tokio::pin!(feeding);
    let mut input_open = true;
    loop {
        tokio::select! {
            piece = running.next() => match piece? {
                Some((stream, bytes)) => show(stream, &bytes)?,
                None => return Ok(running.finish().await?),
            },
            fed = &mut feeding, if input_open => {
                fed?;
                input_open = false;
            }
        }
    }
}

/// Passes standard input on; a terminal is none of the command's business.
async fn feed(input: Input) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        let mut pieces: mpsc::Receiver<io::Result<Vec<u8>>> = stdin::pieces();
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map_err(|error| CliError::new("cannot read standard input").because(&error))?;
            if unless_over(input.send(&piece).await)?.is_none() {
                return Ok(());
            }
        }
    }
    unless_over(input.end().await).map(|_| ())
}

/// A command that ended, or a connection that did, takes no more input; its output tells which it was.
fn unless_over(sent: Result<(), SshError>) -> Result<Option<()>, CliError> {
    match sent {
        Ok(()) => Ok(Some(())),
        Err(SshError::Lost(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Output of the command, as it is.
fn show(stream: OutputStream, bytes: &[u8]) -> Result<(), CliError> {
    match stream {
        OutputStream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| stdout_failed(&error))
        }
        OutputStream::Stderr => io::stderr()
            .lock()
            .write_all(bytes)
            .map_err(|error| CliError::new("cannot write to standard error").because(&error)),
    }
}

/// Ends when the time is up; never without one.
async fn over(patience: Option<Duration>) {
    match patience {
        Some(patience) => sleep(patience).await,
        None => std::future::pending().await,
    }
}

fn late(name: &str) -> Exit {
    ui::warn(&format!("the command did not end in time; it may go on in `{name}`"));
    OUT_OF_TIME
}

fn abandoned(ctx: &Context, name: &str) -> Exit {
    ctx.note(&format!("Interrupted; the command may go on in `{name}`."));
    Exit::Interrupted
}

/// The words as one line for a shell that hands them to the command as they are.
fn shell_line(words: &[String]) -> String {
    words.iter().map(|word| ssh::quote(word)).collect::<Vec<_>>().join(" ")
}

/// The code a shell would give: 128 and the number of the signal, if a signal ended the command.
fn code(status: &ExitStatus) -> u8 {
    /// Names that SSH knows (RFC 4254, section 6.10) and what Linux calls them by number.
    const SIGNALS: [(&str, u8); 13] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("ABRT", 6),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
    ];
    match status {
        ExitStatus::Code(code) => u8::try_from(*code).unwrap_or(u8::MAX),
        ExitStatus::Signal(name) => {
            SIGNALS.iter().find(|(known, _)| known == name).map_or(u8::MAX, |(_, number)| 128 + number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_command_as_they_are() {
        let words = ["printf", "%s\n", "it's", "$HOME", "", "a b", "`id`", "ü"].map(str::to_owned);
        assert_eq!(
            shell_line(&words),
            r"'printf' '%s
' 'it'\''s' '$HOME' '' 'a b' '`id`' 'ü'"
        );
    }

    #[test]
    fn end_of_the_command_becomes_our_exit_code() {
        let signal = |name: &str| ExitStatus::Signal(name.to_owned());
        let cases = [
            (ExitStatus::Code(0), 0),
            (ExitStatus::Code(7), 7),
            (ExitStatus::Code(255), 255),
            (ExitStatus::Code(70_000), 255),
            (signal("KILL"), 137),
            (signal("TERM"), 143),
            (signal("strange@example"), 255),
        ];
        for (status, expected) in cases {
            assert_eq!(code(&status), expected, "{status:?}");
        }
    }
}
