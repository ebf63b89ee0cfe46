//! Ctrl-C and its like while a project is ours.
//!
//! The first one asks to stop: nothing new begins, and what runs goes on to its end. The second one ends the process,
//! whatever blocks it: what was begun is in the journal already.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use vmctl_planner::apply::Control;

use crate::aside::aside;
use crate::context::small_runtime;
use crate::error::{CliError, Exit};
use crate::progress;
use crate::terminal;

/// How long an apply that is told to stop at once may take to write down what is cut off, and to say so. It takes
/// milliseconds where nothing blocks; with [`FAREWELL`] it is less than the half second that is promised.
const AT_ONCE: Duration = Duration::from_millis(350);

/// How long the words of a process may take that could not end in order.
const FAREWELL: Duration = Duration::from_millis(50);

/// The signals that ask to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Whether somebody sat at a terminal who may have gone with it.
    at_terminal: bool,
}

/// Listens for as long as it lives.
#[derive(Debug)]
#[must_use = "who drops it listens no more"]
pub(crate) struct Listening {
    _until: DropGuard,
}

/// Listens from now on, on a thread of its own, so that nothing else can keep it from that.
///
/// A terminal that goes away asks to stop like the first Ctrl-C, and never like the second. Without a terminal, a
/// hangup is no reason to leave machines half-made.
pub(crate) fn listen(control: &Control) -> Result<Listening, CliError> {
    let failed = |error: io::Error| CliError::new("cannot listen for signals").because(&error);
    let runtime = small_runtime()?;
    let signals = {
        let _guard = runtime.enter();
        Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
            at_terminal: io::stdin().is_terminal() || io::stderr().is_terminal(),
        }
    };
    let control = control.clone();
    let over = CancellationToken::new();
    let listening = Listening { _until: over.clone().drop_guard() };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = obey(signals, &control) => {}
                    () = over.cancelled() => {}
                }
            });
        })
        .map_err(failed)?;
    Ok(listening)
}

async fn obey(mut signals: Signals, control: &Control) {
    loop {
        tokio::select! {
            _ = signals.interrupt.recv() => {}
            _ = signals.terminate.recv() => {}
            _ = signals.hangup.recv() => {
                if signals.at_terminal {
                    control.drain.cancel();
                }
                continue;
            }
        }
        if control.drain.is_cancelled() {
            break;
        }
        control.drain.cancel();
    }
    control.abort.cancel();
    sleep(AT_ONCE).await;
    end_now().await;
}

/// Ends the process although something in it blocks.
async fn end_now() {
    let words = aside(|| {
        progress::tell(
            "Stopped at once. What had begun is in the journal; what became of it, the next `vmctl apply` looks for.",
        );
    });
    // Who blocks the process may be the one who does not read this.
    let _ = timeout(FAREWELL, words).await;
    terminal::unhush();
    #[expect(clippy::disallowed_methods, reason = "the main thread is the one that does not get there")]
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

/// Does what changes nothing, unless the user asks to stop meanwhile.
pub(crate) async fn unless_asked_to_stop<T>(control: &Control, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = control.drain.cancelled() => None,
        result = work => Some(result),
    }
}
