//! Work that blocks for as long as somebody outside likes: printing into a pipe that nobody reads, asking a question.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use vmctl_planner::apply::Control;

use crate::error::CliError;
use crate::progress::Words;

/// How long words may take once the user asked to stop: who interrupts wants it to end, and may be the one who does not
/// read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The same once the user asked to stop at once.
const LAST_WORDS_AT_ONCE: Duration = Duration::from_millis(150);

/// Begins `work` on a thread of its own, and waits for it where the result is awaited. It goes on if nobody waits for it
/// any more, and ends with the process.
pub(crate) fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, CliError>> {
    let (ended, result) = oneshot::channel();
    let failed = "cannot do this beside everything else";
    // Who waited for it may have been told to stop.
    let begun = thread::Builder::new().spawn(move || drop(ended.send(work())));
    async move {
        begun.map_err(|error| CliError::new(failed).because(&error))?;
        result.await.map_err(|error| CliError::new(failed).because(&error))
    }
}

/// Waits for words to be said. Where the user asked to stop, not for long.
pub(crate) async fn heard(
    control: &Control,
    saying: impl Future<Output = Result<(), CliError>>,
) -> Result<(), CliError> {
    let asked_to_stop = async {
        control.drain.cancelled().await;
        sleep(LAST_WORDS).await;
    };
    let at_once = async {
        control.abort.cancelled().await;
        sleep(LAST_WORDS_AT_ONCE).await;
    };
    tokio::select! {
        result = saying => result,
        () = asked_to_stop => Ok(()),
        () = at_once => Ok(()),
    }
}

/// Says `words`, one after the other. What cannot be said does not keep the rest from being said.
pub(crate) async fn say(control: &Control, words: Vec<Words>) -> Result<(), CliError> {
    let saying = aside(move || {
        let mut said = Ok(());
        for next in words {
            said = said.and(next.say());
        }
        said
    });
    heard(control, async { saying.await? }).await
}
