//! A machine that goes on from a template's memory, in place of a boot.
//!
//! Whatever is in doubt, it boots instead, from its copy of the template's disk; why is kept and told. What was begun
//! and not brought to an end is never used: its stage says so, and the next start boots.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::super::accel::{Accel, decide_for, probe};
use super::super::argv::Memory;
use super::super::backend::QemuBackend;
use super::super::guest::while_alive;
use super::super::manifest::{Manifest, Owner};
use super::super::places::RuntimeDir;
use super::super::qmp::Monitor;
use super::keep::plain;
use super::renew::{Found, renew};
use super::{advance, blocking, stage};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::Process;
use crate::spec::{CloneStage, Cloned, VmHandle};
use crate::ssh::{Session, SshTarget};
use crate::template::{Template, TemplateDir, TemplateMemory};
use crate::workdir::WorkDir;

/// How long a guest that goes on may take to let us in. It answered when it was kept.
const LOGIN: Duration = Duration::from_secs(60);

impl QemuBackend {
    /// Whether the process of a machine was to go on from a template's memory, and never did.
    pub(in super::super) fn is_half_awake(&self, work: &WorkDir, vm: &VmHandle) -> Result<bool> {
        Ok(match Manifest::owner(work, vm.id)? {
            Owner::Ours(manifest) => stage(&manifest) == Some(CloneStage::Waking),
            Owner::Missing | Owner::Vacant | Owner::Other(_) => false,
        })
    }

    /// Lets a machine that was never started go on from the memory of its template. `None` if it is to boot.
    pub(in super::super) async fn wake(
        &self,
        vm: &VmHandle,
        work: &WorkDir,
        run: &RuntimeDir,
    ) -> Result<Option<Accel>> {
        let Owner::Ours(mut manifest) = Manifest::owner(work, vm.id)? else { return Ok(None) };
        let cold = match stage(&manifest) {
            Some(CloneStage::Fresh) => match self.waking(vm, work, run, &mut manifest).await {
                Ok(Some(accel)) => {
                    advance(&mut manifest, work, CloneStage::Renewed, None)?;
                    failpoint!("start.qemu.renewed", work.path());
                    return Ok(Some(accel));
                }
                Ok(None) => None,
                Err(error) => Some(error.to_string()),
            },
            Some(CloneStage::Waking) => {
                Some("an earlier start from its memory did not come to its end".to_owned())
            }
            Some(CloneStage::Booting | CloneStage::Renewed) | None => return Ok(None),
        };
        if let Some(process) = self.find(vm.id)? {
            self.end_now(vm.id, &process).await?;
            run.create()?;
        }
        advance(&mut manifest, work, CloneStage::Booting, cold)?;
        Ok(None)
    }

    /// `None` if the template has no memory. After an error the machine's process may be there.
    async fn waking(
        &self,
        vm: &VmHandle,
        work: &WorkDir,
        run: &RuntimeDir,
        manifest: &mut Manifest,
    ) -> Result<Option<Accel>> {
        let Some(key) = manifest.warm.as_ref().map(|warm| warm.key.clone()) else { return Ok(None) };
        let templates = self.templates();
        let dir = templates.dir(&key);
        let found = blocking(move || templates.find(&key)).await?;
        let template = found.ok_or_else(|| doubt("the template is gone"))?;
        let Some(memory) = &template.memory else { return Ok(None) };
        let cloned = manifest.warm.as_ref().and_then(|warm| warm.cloned.clone());
        let Some(cloned) = cloned else { return Ok(None) };
        if template.source != cloned.source || template.created != cloned.created {
            return Err(doubt("another template took the place of its own"));
        }
        let choice = vm.machine.hardware.accel_over(self.config().accel);
        let accel = decide_for(vm.machine.hardware.guest_arch(), choice, &probe())?;
        if plain(&accel.to_string()) != memory.accel {
            return Err(doubt(&format!(
                "the template ran with {}, and this host runs {accel}",
                memory.accel
            )));
        }
        advance(manifest, work, CloneStage::Waking, None)?;
        failpoint!("start.qemu.waking", work.path());
        self.launch(vm, work, run, (&accel, Memory::Of(&dir.memory()))).await?;
        let Some(process) = self.find(vm.id)? else { return Err(Error::ProcessEnded { detail: None }) };
        let going_on = Box::pin(self.go_on(vm, (&process, run), (&template, memory, &dir), &cloned));
        while_alive(vm, &process, going_on, || true).await?;
        Ok(Some(accel))
    }

    async fn go_on(
        &self,
        vm: &VmHandle,
        (process, run): (&Process, &RuntimeDir),
        (template, memory, dir): (&Template, &TemplateMemory, &TemplateDir),
        cloned: &Cloned,
    ) -> Result<()> {
        let mut monitor = self.monitor(vm.id, process).await?;
        let version = monitor.version().await?;
        if version != memory.qemu {
            return Err(doubt(&format!("the template ran in QEMU {}, and this is {version}", memory.qemu)));
        }
        load(&mut monitor, run, &dir.devices()).await?;
        failpoint!("start.qemu.loaded", run.path());
        monitor.unpause().await?;
        let live = self.handle_of_live(vm, process, &mut monitor).await?;
        drop(monitor);
        let (Some(address), Some(ssh)) = (live.sshd(), &vm.ssh) else {
            return Err(doubt("nobody can log in to it"));
        };
        let former = SshTarget {
            address,
            user: ssh.user.clone(),
            private_key: ssh.private_key.clone().unwrap_or_else(|| dir.user_key()),
            known_hosts: dir.known_hosts(),
            host_alias: format!("vmctl-{}", template.source.short()),
        };
        let session = Session::reach(&former, &self.config().keyring, LOGIN).await?;
        let renewed = renew(&session, vm, cloned, Found::Awake).await;
        session.close().await;
        renewed?;
        // Whoever has the machine's own keys is let in by the machine's own host key: it is another one than the template.
        let own = SshTarget::at(&live, address).ok_or_else(|| doubt("nobody can log in to it"))?;
        let session = Arc::new(Session::reach(&own, &self.config().keyring, LOGIN).await?);
        self.sessions.keep_woken(vm.id, process.pid(), &session);
        Ok(())
    }
}

/// Why a machine boots although there is a memory.
fn doubt(why: &str) -> Error {
    Error::NotRenewed { said: why.to_owned() }
}

/// Gives QEMU the state of the devices.
async fn load(monitor: &mut Monitor, run: &RuntimeDir, devices: &Path) -> Result<()> {
    monitor.leave_memory_out().await?;
    let socket = run.devices();
    monitor.receive_state(&socket).await?;
    let mut stream = UnixStream::connect(&socket).await.map_err(Error::io("connect to", &socket))?;
    let state = tokio::fs::read(devices).await.map_err(Error::io("read", devices))?;
    let send = async {
        stream.write_all(&state).await.map_err(Error::io("write to", &socket))?;
        stream.shutdown().await.map_err(Error::io("write to", &socket))
    };
    let ((), ()) = tokio::try_join!(send, monitor.state_is_through())?;
    super::super::places::remove_file(&socket)
}
