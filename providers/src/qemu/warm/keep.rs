//! Keeping a machine as a template: it is paused for as long as its memory and its disk are copied, and goes on.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::UnixListener;
use tokio::time::Instant;

use super::super::backend::QemuBackend;
use super::super::guest::{LOGIN, while_alive};
use super::super::manifest::{BaseFile, Manifest, Owner};
use super::super::places::{remove_file, remove_tree, write_private};
use super::super::qmp::Monitor;
use super::blocking;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::keys;
use crate::process::Process;
use crate::spec::{VmHandle, VmState, Warm, WarmLevel};
use crate::ssh::{CarriedOut, SshError};
use crate::template::{Template, TemplateDir, TemplateMemory, Templates, copy_sparsely};
use crate::workdir::WorkDir;

/// What QEMU names the file of a memory that can be kept (`memfd_create`, by the kind of its backend).
const MEMFD: &str = "memory-backend-memfd";

/// How long a guest may take to write out what it has not written yet.
const SYNC: Duration = Duration::from_secs(60);

/// What is needed of a machine that is kept.
struct Source<'a> {
    vm: &'a VmHandle,
    manifest: &'a Manifest,
    warm: &'a Warm,
    process: &'a Process,
    work: WorkDir,
}

impl QemuBackend {
    /// See [`crate::Keep::keep`].
    pub(in super::super) async fn keep_template(&self, vm: &VmHandle) -> Result<()> {
        let work = WorkDir::new(&vm.work_dir);
        let Owner::Ours(manifest) = Manifest::owner(&work, vm.id)? else {
            return Err(Error::InvalidState { action: "keep", state: VmState::Destroyed });
        };
        let Some(warm) = manifest.warm.clone().filter(|warm| warm.cloned.is_none()) else { return Ok(()) };
        let process = self.process_of(vm, "keep")?;
        self.let_guest_sync(vm, &process).await?;
        let templates = self.templates();
        let (begun, _held) = templates.begin(&warm.key, vm.id)?;
        let source = Source { vm, manifest: &manifest, warm: &warm, process: &process, work };
        let kept = while_alive(vm, &process, Box::pin(self.copy_paused(&source, &begun)), || true).await;
        let finished = match kept {
            Ok(memory) => finish(&source, &templates, &begun, memory).await,
            Err(error) => Err(error),
        };
        if finished.is_err() {
            // The next attempt would begin by that as well.
            if let Err(error) = remove_tree(begun.path()) {
                tracing::debug!(%error, "the beginning of a template stays");
            }
        }
        finished
    }

    /// What the guest has in its memory only is on its disk afterwards: a machine that boots from the copy finds it.
    async fn let_guest_sync(&self, vm: &VmHandle, process: &Process) -> Result<()> {
        let session = match self.sessions.get(vm.id, process.pid()) {
            Some(session) => session,
            None => while_alive(vm, process, self.log_in(vm, process, LOGIN, true), || true).await?,
        };
        let syncing = async { Ok(session.carry_out("sync", Instant::now() + SYNC).await?) };
        match while_alive(vm, process, syncing, || session.is_closed()).await? {
            CarriedOut::Done => Ok(()),
            CarriedOut::Failed(said) => Err(Error::NotRenewed { said: format!("`sync`: {said}") }),
            CarriedOut::TooLate => Err(Error::Timeout { what: "the guest's `sync`".to_owned(), after: SYNC }),
        }
    }

    /// Copies while the guest stands still, and lets it go on whatever came of it.
    async fn copy_paused(&self, source: &Source<'_>, to: &TemplateDir) -> Result<Option<TemplateMemory>> {
        let mut monitor = self.monitor(source.vm.id, source.process).await?;
        monitor.pause().await?;
        let copied = self.copy(source, &mut monitor, to).await;
        let goes_on = monitor.unpause().await;
        match (copied, goes_on) {
            (copied, Ok(())) => copied,
            (copied, Err(stands)) => {
                let left = format!("its guest stands still: {stands}");
                Err(Error::NotUndone { cause: Box::new(copied.err().unwrap_or(stands)), left })
            }
        }
    }

    async fn copy(
        &self,
        source: &Source<'_>,
        monitor: &mut Monitor,
        to: &TemplateDir,
    ) -> Result<Option<TemplateMemory>> {
        failpoint!("keep.qemu.paused", source.work.path());
        let memory = match memory_of(source.process)? {
            Some(memory) if source.warm.level == WarmLevel::Memory => {
                Some(self.copy_memory(source, monitor, &memory, to).await?)
            }
            _ => None,
        };
        failpoint!("keep.qemu.memory-copied", to.path());
        // After the state of the devices, so that all is in it that they had on their way.
        let (from, disk) = (source.work.overlay(), to.disk());
        blocking(move || copy_sparsely(&from, &disk)).await?;
        failpoint!("keep.qemu.disk-copied", to.path());
        Ok(memory)
    }

    async fn copy_memory(
        &self,
        source: &Source<'_>,
        monitor: &mut Monitor,
        memory: &Path,
        to: &TemplateDir,
    ) -> Result<TemplateMemory> {
        let accel = source.vm.runtime.as_ref().map(|runtime| runtime.accel.clone()).unwrap_or_default();
        let qemu = monitor.version().await?;
        monitor.leave_memory_out().await?;
        let socket = self.runtime_dir(source.vm.id).devices();
        remove_file(&socket)?;
        let listener = UnixListener::bind(&socket).map_err(Error::io("listen on", &socket))?;
        let sent = async {
            monitor.send_state(&socket).await?;
            monitor.state_is_through().await
        };
        let devices = to.devices();
        let outcome = tokio::try_join!(sent, receive(&listener, &devices));
        remove_file(&socket)?;
        outcome?;
        let (from, copy) = (memory.to_owned(), to.memory());
        blocking(move || copy_sparsely(&from, &copy)).await?;
        let stamp = BaseFile { size: 0, modified_ns: 0, inode: 0 };
        Ok(TemplateMemory { qemu, accel: plain(&accel), memory: stamp.clone(), devices: stamp })
    }
}

/// The accelerator's name without the reason why it is that one.
pub(super) fn plain(accel: &str) -> String {
    accel.split(' ').next().unwrap_or_default().to_owned()
}

/// Takes in the state of the devices.
async fn receive(listener: &UnixListener, to: &Path) -> Result<()> {
    let (mut stream, _) = listener.accept().await.map_err(Error::io("accept QEMU on", to))?;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to);
    let mut file = tokio::fs::File::from_std(file.map_err(Error::io("create", to))?);
    tokio::io::copy(&mut stream, &mut file).await.map_err(Error::io("write", to))?;
    file.sync_all().await.map_err(Error::io("write", to))
}

/// The file of a process's memory, if it is one that can be kept.
fn memory_of(process: &Process) -> Result<Option<PathBuf>> {
    let folder = PathBuf::from(format!("/proc/{}/fd", process.pid()));
    for entry in fs::read_dir(&folder).map_err(Error::io("list folder", &folder))? {
        let path = entry.map_err(Error::io("list folder", &folder))?.path();
        // QEMU may close others meanwhile.
        if fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().contains(MEMFD)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Makes what was copied durable, and the template known.
async fn finish(
    source: &Source<'_>,
    templates: &Templates,
    begun: &TemplateDir,
    memory: Option<TemplateMemory>,
) -> Result<()> {
    let (templates, begun, manifest) = (templates.clone(), begun.clone(), source.manifest.clone());
    let (work, key) = (source.work.clone(), source.warm.key.clone());
    blocking(move || {
        for (from, to) in [(work.user_key(), begun.user_key()), (work.known_hosts(), begun.known_hosts())] {
            write_private(&to, &fs::read(&from).map_err(Error::io("read", from))?)?;
        }
        let synced = |path: PathBuf| -> Result<BaseFile> {
            fs::File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io("write", &path))?;
            BaseFile::of(&path)
        };
        let memory = match memory {
            Some(kept) => Some(TemplateMemory {
                memory: synced(begun.memory())?,
                devices: synced(begun.devices())?,
                ..kept
            }),
            None => None,
        };
        let Some(image) = &manifest.machine.image else {
            return Err(Error::InvalidState { action: "keep", state: VmState::Prepared });
        };
        let macs = manifest.machine.nics.iter().map(|nic| nic.mac).collect();
        let machine = (manifest.project.clone(), manifest.name.clone(), manifest.id);
        let disk = synced(begun.disk())?;
        let image = image.digest.clone();
        let user_key = keys::public_of(&work.user_key()).map_err(SshError::from)?;
        let template = Template::new(key, Timestamp::now(), machine, user_key, macs, image, disk, memory);
        failpoint!("keep.qemu.copied", begun.path());
        templates.finish(&begun, &template)
    })
    .await
}
