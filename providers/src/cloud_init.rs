//! Waiting until cloud-init has done its work in the guest.
//!
//! sshd answers before cloud-init ends: on Debian 12 by 10 to 20 seconds of emulated time. Provisioning that starts
//! in between meets a locked package database and files that are not there yet.

use crate::error::{Error, Result};
use crate::ssh::{ExitStatus, Session};

/// Waits where there is something to wait for; a guest without the program has nothing. `status --wait` ends by
/// itself when cloud-init does. 1 means that it failed, 2 that it succeeded with complaints
/// (cloud-init's documentation, "CLI commands", "status").
const WAIT: &str = "command -v cloud-init >/dev/null 2>&1 || exit 0; cloud-init status --wait --long 2>&1";

/// Exit code of a cloud-init that failed.
const FAILED: ExitStatus = ExitStatus::Code(1);

/// How much of its report is kept.
const REPORT: usize = 4096;

/// Returns when cloud-init is done. Whoever calls bounds the time.
///
/// [`Error::CloudInit`] if it failed: the guest is there, but not as the seed asked for.
pub(crate) async fn done(session: &Session) -> Result<()> {
    let mut report = Vec::new();
    let status = session
        .exec(WAIT, tokio::io::empty(), |_, bytes| {
            report.extend_from_slice(&bytes[..bytes.len().min(REPORT - report.len().min(REPORT))]);
        })
        .await?;
    if status != FAILED {
        return Ok(());
    }
    // The progress of the wait is printed as dots before the report.
    let report = String::from_utf8_lossy(&report).trim_start_matches(['.', '\n']).trim_end().to_owned();
    Err(Error::CloudInit { report })
}
