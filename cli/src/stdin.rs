//! Standard input for commands that wait for other things at the same time.

use std::io::{self, BufRead, Read, Write};

use tokio::sync::mpsc;

use crate::error::{CliError, can_ask};
use crate::ui;

/// Standard input, piece by piece, until it ends.
///
/// A thread of its own reads, because a terminal cannot be read without blocking; it ends with the process.
pub(crate) fn pieces() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            let piece = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(buffer[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Asks on the terminal, and waits for the answer. Where there is nobody to ask, `way` says how to answer beforehand.
pub(crate) fn confirmed(question: &str, way: &str) -> Result<bool, CliError> {
    if !can_ask() {
        return Err(CliError::new("there is no terminal to ask, so nobody said whether to do this")
            .help(way.to_owned()));
    }
    ask(question)
}

/// Asks a question that takes nothing but `yes` for a yes.
pub(crate) fn ask(question: &str) -> Result<bool, CliError> {
    let mut err = ui::stderr();
    // The answer is what counts; a question that could not be printed gets none.
    let _ = write!(err, "{question} Only `yes` is accepted: ").and_then(|()| err.flush());
    drop(err);
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CliError::new("cannot read the answer").because(&error))?;
    Ok(answer.trim() == "yes")
}
