//! From a running machine to one at rest, and to nothing.
//!
//! Up to version 6 of its API a server has no way to ask a guest to power off: `Stop` cuts the power. So the guest is asked
//! by a login, where there is one; and where there is none, nothing is waited for, and the stop is told as forced.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::api::{Request, State};
use super::backend::PropolisBackend;
use super::client::Client;
use super::decide::{Fall, fall};
use super::host::{commands, vnics};
use super::server::{self, Places};
use super::start::{await_end, await_fall};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::Process;
use crate::qemu::manifest::{Manifest, Owner};
use crate::qemu::stop::remove_work_dir;
use crate::spec::{InstanceId, VmHandle};
use crate::workdir::WorkDir;

/// How long a server may take from `Stop` to `Destroyed`: it closes disks and gives memory back.
pub(super) const ENDING: Duration = Duration::from_secs(60);

/// How long a login may take that is only there to ask for the end.
const LOGIN: Duration = Duration::from_secs(20);

/// Powers a guest off, as root or as one who may become root without a password.
pub(super) const POWER_OFF: &str = "if [ \"$(id -u)\" = 0 ]; then poweroff; else sudo -n poweroff; fi";

/// The power was cut, as the server has it.
pub(super) const CUT: &str = "Stop";

/// The server had to be killed.
const KILLED: &str = "SIGKILL";

/// Where illumos shows the VMs in its kernel.
const KERNEL_VMS: &str = "/dev/vmm";

impl PropolisBackend {
    /// See [`crate::Hypervisor::stop`]. Without `patience` the guest is not asked.
    pub(super) async fn bring_down(&self, vm: &VmHandle, patience: Option<Duration>) -> Result<VmHandle> {
        let work = WorkDir::new(&vm.work_dir);
        let places = Places::of(&work);
        let options = &vm.machine.hardware.propolis;
        let forced = match (options.server, server::find(&places)?) {
            _ if let Some(zone) = self.zone(vm.id, &vm.machine) => self.end_zone(vm, &zone, patience).await?,
            (Some(address), _) => {
                let client = self.client(address, options)?;
                match self.fell(vm, &client, patience).await {
                    Err(Error::Propolis(error)) if error.is_nobody() => None,
                    fell => fell?,
                }
            }
            (None, Some((process, note))) => {
                let client = self.client(note.address, options)?;
                self.end_own(vm, &client, &process, &places, patience).await?
            }
            (None, None) => {
                self.refuse_copy(vm, &places).await?;
                None
            }
        };
        failpoint!("stop.propolis.ended", &vm.work_dir);
        self.sessions.forget(vm.id);
        places.forget()?;
        failpoint!("stop.propolis.forgotten", &vm.work_dir);
        let state = super::look::state_at_rest(vm)?;
        Ok(VmHandle { state, runtime: None, forced_stop: forced.map(str::to_owned), ..vm.clone() })
    }

    /// Ends the VM and then the process of our own server. One that does not answer is ended all the same.
    async fn end_own(
        &self,
        vm: &VmHandle,
        client: &Client,
        process: &Process,
        places: &Places,
        patience: Option<Duration>,
    ) -> Result<Option<&'static str>> {
        let fell = tokio::select! {
            fell = self.fell(vm, client, patience) => fell,
            ended = process.exited() => ended.map(|()| None).map_err(Error::io("wait for the server of", &vm.work_dir)),
        };
        failpoint!("stop.propolis.fell", &vm.work_dir);
        let was_in_order = fell.is_ok();
        let mut forced = fell.unwrap_or_else(|error| {
            tracing::debug!(%error, "the server does not end its VM, and is ended itself");
            Some(CUT)
        });
        if server::end(process, places).await? {
            forced = Some(KILLED);
        }
        if !was_in_order || forced == Some(KILLED) {
            self.clear_kernel(vm).await?;
        }
        Ok(forced)
    }

    /// Brings the VM of a server that answers to its end, and says by what force.
    pub(super) async fn fell(
        &self,
        vm: &VmHandle,
        client: &Client,
        patience: Option<Duration>,
    ) -> Result<Option<&'static str>> {
        let found = match client.instance().await? {
            Some(found) if found.id == vm.id.0 => found,
            // Another's VM on a server that is not ours: ours is gone.
            Some(_) | None => return Ok(None),
        };
        self.pull_or_say(vm).await;
        let mut forced = None;
        match fall(&found.state) {
            Fall::Gone => return Ok(None),
            Fall::Off if found.state != State::Failed => {}
            Fall::Off | Fall::No => {
                let ended = match patience {
                    Some(patience) if found.state == State::Running => {
                        self.powered_off(vm, client, patience).await
                    }
                    Some(_) | None => found.state == State::Stopping,
                };
                if !ended {
                    match client.request(Request::Stop).await {
                        Ok(()) => {}
                        // It ended in between.
                        Err(error) if error.is_no_instance() => return Ok(None),
                        Err(error) => return Err(error.into()),
                    }
                    forced = Some(CUT);
                }
            }
        }
        await_end(client, ENDING).await?;
        Ok(forced)
    }

    /// Asks the guest to power off and waits for that, at most for `patience`. A guest that cannot be asked is not waited
    /// for.
    async fn powered_off(&self, vm: &VmHandle, client: &Client, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let asked = timeout(LOGIN.min(patience), self.ask_to_power_off(vm, deadline)).await;
        match asked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the guest cannot be asked to power off");
                return false;
            }
            Err(_) => return false,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        matches!(timeout(left, await_fall(client, Fall::Off)).await, Ok(Ok(())))
    }

    async fn ask_to_power_off(&self, vm: &VmHandle, deadline: Instant) -> Result<()> {
        let session = self.log_in(vm, LOGIN).await?;
        match session.carry_out(POWER_OFF, deadline).await {
            Ok(crate::ssh::CarriedOut::Failed(said)) => Err(Error::Agent(said)),
            // A guest that goes down may take the connection with it.
            Ok(crate::ssh::CarriedOut::Done | crate::ssh::CarriedOut::TooLate)
            | Err(crate::ssh::SshError::Lost(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes out of the kernel what a killed server left there: its memory is held until then. On illumos only.
    pub(super) async fn clear_kernel(&self, vm: &VmHandle) -> Result<()> {
        if is_in_kernel(vm.id) {
            self.host.run(&commands::destroy_vm(vm.id)).await?;
        }
        Ok(())
    }

    /// See [`crate::Hypervisor::destroy`]. The guest is not asked: its disk is about to go.
    ///
    /// The manifest goes last, so that what a crash leaves behind still has an owner.
    pub(super) async fn remove(&self, vm: &VmHandle) -> Result<()> {
        let work = WorkDir::new(&vm.work_dir);
        let owner = Manifest::owner(&work, vm.id)?;
        if let Owner::Other(found) = owner {
            return Err(Error::Foreign { path: work.path().to_owned(), found });
        }
        let options = &vm.machine.hardware.propolis;
        if owner == Owner::Missing && options.server.is_none() && options.zone.is_none() {
            self.end_orphan(vm, &work).await?;
            return self.remove_parts(vm).await;
        }
        self.bring_down(vm, None).await?;
        self.remove_parts(vm).await?;
        match owner {
            Owner::Missing | Owner::Other(_) => Ok(()),
            Owner::Vacant | Owner::Ours(_) => remove_work_dir(&work),
        }
    }

    /// Ends the server of a machine whose folder somebody removed while it ran.
    async fn end_orphan(&self, vm: &VmHandle, work: &WorkDir) -> Result<()> {
        let bootrom = vm.machine.hardware.propolis.bootrom.as_deref();
        let (Some(runtime), Some(bootrom), Ok(vms)) =
            (&vm.runtime, bootrom, self.config.vms_dir.canonicalize())
        else {
            return Ok(());
        };
        let folder = vms.join(work.path().file_name().unwrap_or_default());
        if let Some(process) = server::find_orphan(runtime.pid, bootrom, &folder)? {
            server::end(&process, &Places::of(work)).await?;
            self.clear_kernel(vm).await?;
        }
        Ok(())
    }

    /// Removes zone, vnics and volume, as far as they bear the machine's marks. The zone goes first, as it holds the others.
    async fn remove_parts(&self, vm: &VmHandle) -> Result<()> {
        if let Some(zone) = self.zone(vm.id, &vm.machine) {
            zone.remove().await?;
        }
        let link = vm.machine.hardware.propolis.vnic_link.as_deref();
        vnics::remove(&*self.host, &vnics::wanted(&vm.machine), link).await?;
        failpoint!("destroy.propolis.vnics-removed", &vm.work_dir);
        if let Some(disks) = self.disks(&vm.machine) {
            disks.destroy(vm.id).await?;
            failpoint!("destroy.propolis.disk-destroyed", &vm.work_dir);
        }
        Ok(())
    }
}

fn is_in_kernel(id: InstanceId) -> bool {
    Path::new(KERNEL_VMS).join(id.to_string()).exists()
}
