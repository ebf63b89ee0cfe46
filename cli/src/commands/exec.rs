//! `exec`: runs a command in a machine and passes its exit code on.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use vmctl_providers::GuestAccess;
use vmctl_providers::provision::OutputStream;
use vmctl_providers::ssh::{self, ExitStatus, Input, Session, SshError, Terminal};

use super::ssh::target;
use crate::args::ExecArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit, stdout_failed};
use crate::machines::Machine;
use crate::terminal::{self, RawTerminal, Signals};
use crate::{machines, stdin, ui};

/// How long a running machine may take to let us in; it may have been started a moment ago.
pub(super) const LOGIN: Duration = Duration::from_secs(120);

/// The exit code of a command that did not end in time, as of timeout(1).
pub(super) const OUT_OF_TIME: Exit = Exit::Passed(124);

/// Whether the command gets a terminal of its own in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tty {
    /// If somebody sits at all of our streams, and the guest is logged in to.
    Attended,
    /// It must.
    Always,
    /// It must not.
    Never,
}

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &ExecArgs) -> Result<Exit, CliError> {
    let tty = match (args.tty, args.no_tty) {
        (true, _) => Tty::Always,
        (false, true) => Tty::Never,
        (false, false) => Tty::Attended,
    };
    if tty == Tty::Always && !io::stdin().is_terminal() {
        return Err(CliError::new("--tty passes a terminal's keys on, and standard input is no terminal")
            .help(
                "leave --tty out, or run this on a terminal: `script -qec '…' /dev/null` makes one"
                    .to_owned(),
            )
            .exit(Exit::Usage));
    }
    carried(ctx, &args.name, &args.command, tty, None, None)
}

/// Runs a command in the machine called `name`, at most for so long. `caught` are the signals if they are caught already.
pub(super) fn carried(
    ctx: &Context,
    name: &str,
    command: &[String],
    tty: Tty,
    patience: Option<Duration>,
    caught: Option<Signals>,
) -> Result<Exit, CliError> {
    let machine = machines::one(ctx, Some(name))?;
    let line = shell_line(command);
    if machine.live()?.ssh.is_none() {
        if tty == Tty::Always {
            let address = &machine.record.address;
            return Err(CliError::new(format!(
                "`{address}` has no ssh settings, and a guest agent has no terminals"
            ))
            .help(format!("leave --tty out, or use its console: `vmctl console {}`", address.name())));
        }
        return by_agent(ctx, &machine, &line, patience, caught);
    }
    let terminal = match tty {
        Tty::Always => true,
        Tty::Attended => terminal::is_attended(),
        Tty::Never => false,
    }
    .then(|| Terminal { name: ctx.settings.terminal_name(), size: terminal::size() });
    let target = target(&machine, &machine.in_reach(ctx)?)?;
    small_runtime()?.block_on(async {
        let mut signals = match caught {
            Some(signals) => signals,
            None if terminal.is_some() => Signals::catch_all()?,
            None => Signals::catch()?,
        };
        let session = tokio::select! {
            session = Session::reach(&target, &ctx.settings.keyring, LOGIN) => session?,
            () = signals.any() => return Ok(Exit::Interrupted),
        };
        let carrying = async {
            match &terminal {
                Some(terminal) => on_terminal(&session, &line, terminal).await,
                None => carry(&session, &line).await,
            }
        };
        let status = tokio::select! {
            status = carrying => status?,
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
    caught: Option<Signals>,
) -> Result<Exit, CliError> {
    let host = ctx.hypervisor(&ctx.project_dir(&machine.project)?)?;
    let handle = machine.live()?;
    let address = &machine.record.address;
    small_runtime()?.block_on(async {
        let mut signals = caught.map_or_else(Signals::catch, Ok)?;
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

/// Runs one line in the guest on a terminal of its own: ours passes its keys on and shows what comes.
async fn on_terminal(session: &Session, line: &str, terminal: &Terminal) -> Result<ExitStatus, CliError> {
    let mut resized = terminal::resized()?;
    let mut running = session.start_on_terminal(line, terminal).await?;
    let input = running.input();
    // From here on, leaving in any way puts the terminal back: the signals that could end us are caught.
    let _raw = RawTerminal::enter()?;
    let typing = pass_on(&input);
    tokio::pin!(typing);
    let mut input_open = true;
    loop {
        tokio::select! {
            piece = running.next() => match piece? {
                Some((_, bytes)) => show(OutputStream::Stdout, &bytes)?,
                None => return Ok(running.finish().await?),
            },
            typed = &mut typing, if input_open => {
                typed?;
                input_open = false;
            }
            _ = resized.recv() => {
                unless_over(input.resize(terminal::size()).await)?;
            }
        }
    }
}

/// Passes standard input on; a terminal is none of the command's business.
async fn feed(input: Input) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        pass_on(&input).await?;
    }
    unless_over(input.end().await).map(|_| ())
}

/// Passes standard input on until it ends, or until nobody takes it.
async fn pass_on(input: &Input) -> Result<(), CliError> {
    let mut pieces: mpsc::Receiver<io::Result<Vec<u8>>> = stdin::pieces();
    while let Some(piece) = pieces.recv().await {
        let piece = piece.map_err(|error| CliError::new("cannot read standard input").because(&error))?;
        if unless_over(input.send(&piece).await)?.is_none() {
            return Ok(());
        }
    }
    Ok(())
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
