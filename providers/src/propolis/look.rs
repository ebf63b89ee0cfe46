//! Questions about a machine.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::backend::PropolisBackend;
use super::decide::vm_state;
use super::host::{neighbours, vnics};
use super::server::{self, Places};
use super::start::{Live, Server, runtime};
use crate::abilities::{Damage, Ending, Inspection};
use crate::error::{Error, Result};
use crate::qemu::ending;
use crate::qemu::manifest::{Manifest, Owner};
use crate::spec::{VmHandle, VmState};
use crate::workdir::WorkDir;

impl PropolisBackend {
    /// The server of a machine, as far as there is one; nothing is asked of it.
    pub(super) async fn live(&self, vm: &VmHandle) -> Result<Option<Live>> {
        let options = &vm.machine.hardware.propolis;
        let places = Places::of(&WorkDir::new(&vm.work_dir));
        if let Some(zone) = self.zone(vm.id, &vm.machine) {
            return match zone.is_live().await? {
                true => Ok(Some(self.in_zone(vm, zone.options.server())?)),
                false => Ok(None),
            };
        }
        let Some(address) = options.server else {
            let found = server::find(&places)?;
            let live = |(process, note): (_, server::Note)| {
                let client = self.client(note.address, options)?;
                Ok(Live { client, server: Server::Process(process), note })
            };
            return found.map(live).transpose();
        };
        // One that was never told of this machine has nothing to do with it.
        let note = places.load()?.filter(|note| note.address == address);
        note.map(|note| Ok(Live { client: self.client(address, options)?, server: Server::Given, note }))
            .transpose()
    }

    /// See [`crate::Hypervisor::state`].
    pub(super) async fn observe_state(&self, vm: &VmHandle) -> Result<VmState> {
        let at_rest = state_at_rest(vm)?;
        match self.live(vm).await? {
            Some(live) => self.state_of(vm, &live, at_rest).await,
            None => Ok(at_rest),
        }
    }

    async fn state_of(&self, vm: &VmHandle, live: &Live, at_rest: VmState) -> Result<VmState> {
        match live.client.instance().await {
            Ok(Some(found)) if found.id == vm.id.0 => Ok(vm_state(&found.state, at_rest)),
            Ok(_) => Ok(at_rest),
            Err(error) if error.is_nobody() => Ok(at_rest),
            // It ended while it was asked.
            Err(error) => match self.live(vm).await? {
                None => Ok(at_rest),
                Some(_) => Err(error.into()),
            },
        }
    }

    /// See [`crate::Inspect::inspect`].
    pub(super) async fn look_closely(&self, vm: &VmHandle) -> Result<Inspection> {
        let at_rest = state_at_rest(vm)?;
        let mut seen = Inspection {
            state: at_rest,
            handle: Arc::new(VmHandle { runtime: None, ..vm.clone() }),
            vcpus: None,
            memory_mib: None,
            forwards: None,
            ending: None,
            damage: Vec::new(),
            stall: None,
        };
        let live = self.live(vm).await?;
        if let Some(live) = &live {
            seen.state = self.state_of(vm, live, at_rest).await?;
            if seen.state == VmState::Running {
                self.pull_or_say(vm).await;
                let board = live.client.board().await?;
                seen.vcpus = board.map(|board| board.cpus);
                seen.memory_mib = board.map(|board| board.memory_mib);
                let mut facts = runtime(&live.server);
                facts.address = match vm.machine.is_on_a_vnic() {
                    true => self.known_address(vm).await?,
                    false => None,
                };
                Arc::make_mut(&mut seen.handle).runtime = Some(facts);
            }
        }
        Arc::make_mut(&mut seen.handle).state = seen.state;
        if seen.state == VmState::Stopped {
            let has_server = match &live {
                // A zone goes on without its server, and tells nothing of it.
                Some(Live { client, server: Server::Zone, .. }) => {
                    matches!(client.instance().await, Ok(Some(_)))
                }
                Some(_) => true,
                None => false,
            };
            seen.ending = Some(ending_of(vm, has_server));
        }
        if seen.state != VmState::Destroyed {
            seen.damage = self.damage(vm).await?;
        }
        Ok(seen)
    }

    async fn damage(&self, vm: &VmHandle) -> Result<Vec<Damage>> {
        let work = WorkDir::new(&vm.work_dir);
        let path = work.path().to_owned();
        let manifest = match Manifest::owner(&work, vm.id)? {
            Owner::Ours(manifest) if manifest.prepared => manifest,
            Owner::Ours(_) => return Ok(Vec::new()),
            Owner::Missing => return Ok(vec![Damage::FolderMissing { path }]),
            Owner::Vacant => {
                let found = "nobody: it has no manifest".to_owned();
                return Ok(vec![Damage::FolderForeign { path, found }]);
            }
            Owner::Other(found) => return Ok(vec![Damage::FolderForeign { path, found }]),
        };
        let mut damage = Vec::new();
        if let Some(path) = self.disk(vm) {
            let gone = match self.disks(&vm.machine) {
                Some(disks) => !disks.is_there(vm.id).await?,
                None => super::prepare::is_gone(&path)?,
            };
            if gone {
                damage.push(Damage::DiskMissing { path });
            }
        }
        if manifest.seed && super::prepare::is_gone(&work.seed())? {
            damage.push(Damage::SeedMissing { path: work.seed() });
        }
        Ok(damage)
    }

    /// See [`crate::Hypervisor::guest_ip`]: by the hardware addresses of the machine's vnics, in the host's own table of
    /// neighbours.
    pub(super) async fn address(&self, vm: &VmHandle) -> Result<Ipv4Addr> {
        if !vm.machine.is_on_a_vnic() {
            return Err(super::backend::unsupported("reaching a machine that is on no network of this host"));
        }
        match self.observe_state(vm).await? {
            VmState::Running => {}
            state => return Err(Error::InvalidState { action: "ask for the address of", state }),
        }
        let found = vnics::found(&*self.host).await?;
        let mut said = Vec::new();
        for wanted in vnics::wanted(&vm.machine) {
            let there = found.iter().find(|vnic| vnic.name == wanted.name);
            let Some(mac) = there.and_then(|vnic| vnic.mac) else {
                said.push(format!("there is no vnic `{}`", wanted.name));
                continue;
            };
            match neighbours::addresses_of(&*self.host, mac).await?.first() {
                Some(address) => return Ok(*address),
                None => said.push(format!(
                    "its card {mac} on `{}` is no neighbour that this host knows",
                    wanted.name
                )),
            }
        }
        Err(Error::NoAddress { said: said.join("; ") })
    }

    async fn known_address(&self, vm: &VmHandle) -> Result<Option<Ipv4Addr>> {
        match self.address(vm).await {
            Ok(address) => Ok(Some(address)),
            Err(error @ Error::NoAddress { .. }) => {
                tracing::debug!(%error, "the guest is not found on its network");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What a machine without a VM is.
pub(super) fn state_at_rest(vm: &VmHandle) -> Result<VmState> {
    match Manifest::owner(&WorkDir::new(&vm.work_dir), vm.id)? {
        Owner::Ours(manifest) => Ok(manifest.state_at_rest()),
        Owner::Missing | Owner::Vacant | Owner::Other(_) => Ok(VmState::Destroyed),
    }
}

/// How a VM ended that was not stopped by us: a server that is still there saw its guest power off.
fn ending_of(vm: &VmHandle, has_server: bool) -> Ending {
    let started = vm.runtime.as_ref().and_then(|runtime| runtime.boot.as_deref());
    match (started, ending::boot().as_deref()) {
        (Some(started), Some(now)) if started != now => Ending::HostRestarted,
        _ if has_server => Ending::InOrder,
        (Some(_), _) => Ending::Cut,
        (None, _) => Ending::Unknown,
    }
}
