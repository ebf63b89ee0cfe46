//! The only door to other programs.

/// A helper program that failed: what was run, how it ended, what it said.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` failed with {status}{}", if stderr.is_empty() { String::new() } else { format!(": {stderr}") })]
pub struct CommandError {
    /// The command line, quoted for reading.
    pub command: String,
    /// Exit code or signal, in words.
    pub status: String,
    /// Tail of its standard error.
    pub stderr: String,
}
