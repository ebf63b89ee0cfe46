//! Standard input for commands that wait for other things at the same time.

use std::io::{self, Read};

use tokio::sync::mpsc;

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
