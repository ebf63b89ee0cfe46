//! The state of a machine's devices, on its way out of one QEMU and into another.

use std::path::Path;
use std::time::Duration;

use qapi::qmp;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Monitor;
use crate::error::{Error, Result};

/// How often QEMU is asked how far it is. It is a matter of milliseconds; the events that tell so may come before anybody
/// listens for them.
const LOOK: Duration = Duration::from_millis(2);

/// How long QEMU may take. There are some hundred kilobytes of state.
const TRANSFER: Duration = Duration::from_secs(60);

impl Monitor {
    /// The version of this QEMU, and which build of it.
    pub(crate) async fn version(&mut self) -> Result<String> {
        let version = self.execute(qmp::query_version {}).await?;
        let qmp::VersionTriple { major, minor, micro } = version.qemu;
        Ok(format!("{major}.{minor}.{micro} {}", version.package).trim_end().to_owned())
    }

    /// Leaves memory out of what comes and goes that is a file's: `x-ignore-shared`, which an old or a future QEMU may not
    /// know and refuses then.
    pub(crate) async fn leave_memory_out(&mut self) -> Result<()> {
        let capability = qmp::MigrationCapability::x_ignore_shared;
        let capabilities = vec![qmp::MigrationCapabilityStatus { capability, state: true }];
        self.execute(qmp::migrate_set_capabilities { capabilities }).await.map(drop)
    }

    /// Begins to write the state to whoever listens on `socket`.
    pub(crate) async fn send_state(&mut self, socket: &Path) -> Result<()> {
        let uri = Some(uri(socket)?);
        self.execute(qmp::migrate { channels: None, detach: None, resume: None, uri }).await.map(drop)
    }

    /// Listens on `socket` for the state.
    pub(crate) async fn receive_state(&mut self, socket: &Path) -> Result<()> {
        let uri = Some(uri(socket)?);
        self.execute(qmp::migrate_incoming { channels: None, exit_on_error: None, uri }).await.map(drop)
    }

    /// Waits until all of the state is out, or in.
    pub(crate) async fn state_is_through(&mut self) -> Result<()> {
        let through = async {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let found = self.execute(qmp::query_migrate {}).await?;
                match found.status {
                    Some(qmp::MigrationStatus::completed) => return Ok(()),
                    Some(qmp::MigrationStatus::failed | qmp::MigrationStatus::cancelled) => {
                        let why = found.error_desc.unwrap_or_else(|| "QEMU does not say why".to_owned());
                        return Err(Error::Monitor(format!(
                            "the state of the devices did not get through: {why}"
                        )));
                    }
                    _ => {}
                }
            }
        };
        timeout(TRANSFER, through)
            .await
            .map_err(|_| Error::Timeout { what: "the state of the devices".to_owned(), after: TRANSFER })?
    }
}

fn uri(socket: &Path) -> Result<String> {
    Ok(format!("unix:{}", super::super::argv::text(socket)?))
}
