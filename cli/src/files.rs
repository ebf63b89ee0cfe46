//! Files that people name on the command line.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// Mode of a file that may hold what is not for everybody.
const PRIVATE: u32 = 0o600;

/// Mode of a file for everybody, before the umask.
const PUBLIC: u32 = 0o666;

/// Replaces the file at `path` as a whole; others may read it as the umask says.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), CliError> {
    replace(path, content, PUBLIC)
}

/// Replaces the file at `path` as a whole; only its owner may read it.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), CliError> {
    replace(path, content, PRIVATE)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), CliError> {
    let failed =
        |error: std::io::Error| CliError::new(format!("cannot write `{}`", path.display())).because(&error);
    // What is no file, such as a terminal or a pipe, is written to, not replaced.
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return fs::write(path, content).map_err(failed);
    }
    let draft = draft(path);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| {
        if let Err(leftover) = fs::remove_file(&draft) {
            tracing::debug!(error = %leftover, "no draft is left");
        }
        failed(error)
    })
}

/// A name beside `path` that no other process takes.
fn draft(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}
