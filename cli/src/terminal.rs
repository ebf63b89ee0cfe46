//! The terminal that somebody sits at: its keys for somebody else, its size, and how it was before.

use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use vmctl_providers::ssh::TerminalSize;

use crate::env;
use crate::error::CliError;

/// Enough for a runtime to look what came.
const LOOK: Duration = Duration::from_millis(1);

/// The terminal in raw mode: every key is passed on as it is, Ctrl-C too. As it was before once this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    saved: Termios,
}

impl RawTerminal {
    /// Switches the terminal behind standard input to raw mode. Whoever does that catches [`Signals`] first.
    pub(crate) fn enter() -> Result<Self, CliError> {
        let failed =
            |error: io::Error| CliError::new("cannot switch the terminal to raw mode").because(&error);
        let saved = tcgetattr(io::stdin()).map_err(|error| failed(error.into()))?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(|error| failed(error.into()))?;
        Ok(Self { saved })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.saved);
    }
}

/// How the terminal was before it was hushed.
static LOUD: Mutex<Option<Termios>> = Mutex::new(None);

/// Keeps the terminal from showing `^C` where lines are drawn over: it would push them out of their place. [`unhush`]
/// takes that back. Nothing happens where there is no terminal, or in the background, where it would stop us.
pub(crate) fn hush() {
    let mut kept = LOUD.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.is_some() || !is_foreground() {
        return;
    }
    let Ok(loud) = tcgetattr(io::stdin()) else { return };
    let mut hushed = loud.clone();
    hushed.local_modes.remove(LocalModes::ECHOCTL);
    if tcsetattr(io::stdin(), OptionalActions::Now, &hushed).is_ok() {
        *kept = Some(loud);
    }
}

/// Gives the terminal back as it was before it was hushed; every way out leads here.
pub(crate) fn unhush() {
    let loud = LOUD.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(loud) = loud.filter(|_| is_foreground()) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &loud);
    }
}

/// Whether standard input is a terminal that waits for us.
fn is_foreground() -> bool {
    io::stdin().is_terminal() && tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground == getpgrp())
}

/// The signals that ask us to go; caught from the moment this is made until the process ends.
#[derive(Debug)]
pub(crate) struct Signals(Vec<Signal>);

impl Signals {
    /// Catches those that mean us, wherever we run. A hangup does not: who uses nohup(1) wants us to go on.
    pub(crate) fn catch() -> Result<Self, CliError> {
        Self::of(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    /// Catches all that would end us, so that none leaves the terminal raw.
    pub(crate) fn catch_all() -> Result<Self, CliError> {
        let others = [SignalKind::hangup(), SignalKind::quit()];
        Self::of(&[[SignalKind::interrupt(), SignalKind::terminate()], others].concat())
    }

    fn of(kinds: &[SignalKind]) -> Result<Self, CliError> {
        let caught: io::Result<_> = kinds.iter().map(|kind| signal(*kind)).collect();
        caught.map(Self).map_err(|error| CliError::new("cannot wait for signals").because(&error))
    }

    /// Waits for any of them. Cancel-safe.
    pub(crate) async fn any(&mut self) {
        poll_fn(|context| {
            // All are asked, so that each wakes us.
            let came = self.0.iter_mut().filter_map(|signal| match signal.poll_recv(context) {
                Poll::Ready(came) => Some(came),
                Poll::Pending => None,
            });
            if came.count() > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether any of them came since they are caught, and was not waited for. Whatever runtime runs hears them all; one
    /// that came while none ran needs this one to look.
    pub(crate) async fn came(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.any() => true,
            () = sleep(LOOK) => false,
        }
    }
}

/// Tells when the terminal gets another size.
pub(crate) fn resized() -> Result<Signal, CliError> {
    signal(SignalKind::window_change())
        .map_err(|error| CliError::new("cannot wait for the terminal's size to change").because(&error))
}

/// How large the terminal behind standard output is; zeros where it does not tell.
pub(crate) fn size() -> TerminalSize {
    match tcgetwinsize(io::stdout()) {
        Ok(size) => TerminalSize { columns: size.ws_col, rows: size.ws_row },
        Err(_) => TerminalSize { columns: 0, rows: 0 },
    }
}

/// Whether somebody sits at all three streams and waits for us: not where one leads elsewhere, and not in the background,
/// where a terminal stops who changes it.
pub(crate) fn is_attended() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal() && is_foreground()
}

/// Whether what stands on standard output can be drawn over.
pub(crate) fn can_redraw() -> bool {
    io::stdout().is_terminal() && env::has_smart_terminal()
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Kind, getpid, kill_process};

    use super::*;
    use crate::context::small_runtime;

    #[test]
    fn signal_that_came_while_others_worked_is_heard_afterwards() {
        let (first, second) = (small_runtime().unwrap(), small_runtime().unwrap());
        let mut signals = {
            let _guard = first.enter();
            Signals::of(&[SignalKind::user_defined1()]).unwrap()
        };
        assert!(!first.block_on(signals.came()));
        // While another runtime works, and while none does.
        second.block_on(async {
            kill_process(getpid(), Kind::USR1).unwrap();
            sleep(LOOK).await;
        });
        assert!(first.block_on(signals.came()));
        kill_process(getpid(), Kind::USR1).unwrap();
        assert!(first.block_on(signals.came()));
        assert!(!first.block_on(signals.came()));
    }
}
