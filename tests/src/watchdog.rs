//! Ends the whole run when one test goes on for ever, and says which: a hang must not pass for a slow host.

use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Longer than any test takes, on the slowest host that is worth waiting for.
const LONGEST: Duration = Duration::from_secs(40 * 60);

/// Watches a test for as long as it lives.
#[derive(Debug)]
pub(crate) struct Watchdog(
    #[expect(dead_code, reason = "its end is what the watching thread waits for")] Sender<()>,
);

/// Watches the calling test.
pub(crate) fn watch() -> Watchdog {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (alive, watched) = channel();
    thread::spawn(move || {
        if watched.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
            // Not `eprintln`, which is held back for the test's end.
            let _ =
                writeln!(std::io::stderr(), "\n{name} still runs after {LONGEST:?}: everything is given up");
            std::process::exit(101);
        }
    });
    Watchdog(alive)
}
