//! A server in a zone of its machine's own: made, started, ended.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::backend::{PROPOLIS_SERVER, PropolisBackend};
use super::client::Client;
use super::decide::{Next, next};
use super::host::zones::Zone;
use super::instance::vnics;
use super::prepare::bootrom;
use super::server::{Note, Places};
use super::start::{Live, Server, await_end, fresh_note, other};
use super::stop::{CUT, ENDING};
use crate::console_log;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::spec::{InstanceId, Machine, VmHandle};
use crate::workdir::WorkDir;

/// How long a zone may take from its boot until its server answers: its services must have brought up its network.
const BOOT: Duration = Duration::from_secs(180);

/// Pause before the same is tried again while a zone boots.
const AGAIN: Duration = Duration::from_millis(500);

impl PropolisBackend {
    /// Makes the zone of a machine that is to have one, as far as it is missing or another one.
    pub(super) async fn ensure_zone(&self, id: InstanceId, machine: &Machine) -> Result<()> {
        let Some(zone) = self.zone(id, machine) else { return Ok(()) };
        let disk = machine.disk_size().and_then(|_| self.disks(machine)).map(|disks| disks.device(id));
        zone.ensure(&vnics(machine).collect::<Vec<_>>(), disk.as_deref()).await
    }

    /// Halts the zone that a machine at rest had, and removes it if it is to have none.
    pub(super) async fn part_with_zone(&self, id: InstanceId, then: &Machine, now: &Machine) -> Result<()> {
        let Some(zone) = self.zone(id, then) else { return Ok(()) };
        match now.hardware.propolis.zone {
            Some(_) => zone.halt().await.map(drop),
            None => zone.remove().await,
        }
    }

    /// The server in a zone that is live.
    pub(super) fn in_zone(&self, vm: &VmHandle, address: std::net::SocketAddr) -> Result<Live> {
        let note = Places::of(&WorkDir::new(&vm.work_dir)).load()?.filter(|note| note.address == address);
        let unknown = Note { address, pid: None, boot: None, console_start: 0, console_taken: 0 };
        let client = self.client(address, &vm.machine.hardware.propolis)?;
        Ok(Live { client, server: Server::Zone, note: note.unwrap_or(unknown) })
    }

    /// The server in the machine's zone: the one that lives, if its VM may still come up; else the zone is booted, and a
    /// fresh one started. Tells which.
    pub(super) async fn zone_server(
        &self,
        vm: &VmHandle,
        work: &WorkDir,
        zone: &Zone<'_>,
    ) -> Result<(Live, bool)> {
        let places = Places::of(work);
        if zone.is_live().await? {
            let live = self.in_zone(vm, zone.options.server())?;
            match live.client.instance().await {
                Ok(found) => match next(found, vm.id.0) {
                    Next::Foreign(found) => return Err(other(&live.client, &found).into()),
                    Next::AwaitEnd => await_end(&live.client, ENDING).await?,
                    Next::Over | Next::Broken(_) => {}
                    Next::Ensure | Next::Run | Next::AwaitRunning | Next::Adopt => return Ok((live, false)),
                },
                // No server has begun there, or it has ended: there is no VM.
                Err(error) if error.is_nobody() => {}
                Err(error) => return Err(error.into()),
            }
            zone.halt().await?;
        }
        console_log::renew(&work.console_log())?;
        let note = fresh_note(zone.options.server(), work)?;
        let client = self.client(note.address, &vm.machine.hardware.propolis)?;
        places.store(&note)?;
        if let Err(error) = self.serve(vm, zone, &client).await {
            let log = match zone.is_live().await? {
                true => zone.log_tail().await,
                false => String::new(),
            };
            zone.halt().await?;
            places.forget()?;
            return Err(with_log(zone, error, &log));
        }
        Ok((Live { client, server: Server::Zone, note }, true))
    }

    /// Boots a zone, starts the server in it, and waits until it answers.
    async fn serve(&self, vm: &VmHandle, zone: &Zone<'_>, client: &Client) -> Result<()> {
        let options = &vm.machine.hardware.propolis;
        let binary = options.binary.clone().unwrap_or_else(|| PathBuf::from(PROPOLIS_SERVER.name));
        let bootrom = bootrom(options)?;
        zone.boot().await?;
        failpoint!("start.propolis.zone-booted", &vm.work_dir);
        let deadline = Instant::now() + BOOT;
        // A zone can be entered only some moments after it was booted.
        while let Err(error) = zone.serve(&binary, &bootrom).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            tracing::debug!(%error, "the zone cannot be entered yet");
            sleep(AGAIN).await;
        }
        failpoint!("start.propolis.zone-serving", &vm.work_dir);
        while let Err(error) = client.instance().await {
            if Instant::now() > deadline {
                return Err(error.into());
            }
            tracing::debug!(%error, "the server in the zone does not answer yet");
            sleep(AGAIN).await;
        }
        Ok(())
    }

    /// Ends the VM, and then all that is in its zone. Says by what force.
    pub(super) async fn end_zone(
        &self,
        vm: &VmHandle,
        zone: &Zone<'_>,
        patience: Option<Duration>,
    ) -> Result<Option<&'static str>> {
        if !zone.is_live().await? {
            return Ok(None);
        }
        let client = self.client(zone.options.server(), &vm.machine.hardware.propolis)?;
        let fell = match self.fell(vm, &client, patience).await {
            Err(Error::Propolis(error)) if error.is_nobody() => Ok(None),
            fell => fell,
        };
        let forced = fell.unwrap_or_else(|error| {
            tracing::debug!(%error, "the server does not end its VM, and its zone is halted");
            Some(CUT)
        });
        failpoint!("stop.propolis.fell", &vm.work_dir);
        zone.halt().await?;
        Ok(forced)
    }
}

fn with_log(zone: &Zone<'_>, error: Error, log: &str) -> Error {
    if log.is_empty() {
        return error;
    }
    let reason = format!("no server came up in this zone: {error}; its log ends with\n{log}");
    Error::Unusable { path: zone.name().into(), reason }
}
