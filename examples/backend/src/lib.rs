//! A backend as small as one can be that keeps the contract: machines are folders, with a file that says what they do.
//!
//! What a real backend does in place of writing a file stands in comments. How it gets into vmctl is told in
//! `docs/providers/adding.md`.

#![expect(clippy::result_large_err, reason = "the error is that of all backends")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vmctl_providers::workdir::beside;
use vmctl_providers::{
    BackendTag, ConsoleEndpoint, Error, Hypervisor, Inspect, Inspection, InstanceId, Preflight, Result,
    Runtime, VmHandle, VmSpec, VmState,
};

/// What is kept of a machine. The identity comes with it: a folder is believed in only if it says whose it is.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    id: InstanceId,
    state: VmState,
}

/// Machines that are folders in `vms_dir`.
#[derive(Debug)]
pub struct FolderBackend {
    vms_dir: PathBuf,
}

impl FolderBackend {
    /// A backend with one folder per machine in `vms_dir`. Nothing is touched until a machine is prepared.
    pub fn new(vms_dir: impl Into<PathBuf>) -> Self {
        Self { vms_dir: vms_dir.into() }
    }

    /// What is known of a machine: `None` if nothing of it exists, an error if its folder is another's.
    ///
    /// This is the one question that all methods begin with. A real backend asks its hypervisor here, and believes no
    /// number that was written down.
    fn find(vm: &VmHandle) -> Result<Option<Note>> {
        match load(&vm.work_dir)? {
            Some(note) if note.id != vm.id => {
                Err(Error::Foreign { path: vm.work_dir.clone(), found: note.id.to_string() })
            }
            found => Ok(found),
        }
    }

    /// Brings a machine to a state from one of those in `from`; idempotent.
    fn bring(vm: &VmHandle, action: &'static str, from: &[VmState], to: VmState) -> Result<VmHandle> {
        let Some(note) = Self::find(vm)? else {
            return Err(Error::InvalidState { action, state: VmState::Destroyed });
        };
        if note.state != to {
            if !from.contains(&note.state) {
                return Err(Error::InvalidState { action, state: note.state });
            }
            store(&vm.work_dir, &Note { state: to, ..note })?;
        }
        Ok(handle(vm, to))
    }
}

impl Hypervisor for FolderBackend {
    async fn prepare(&self, spec: &VmSpec) -> Result<VmHandle> {
        let vm = self.handle(spec)?;
        if let Some(note) = Self::find(&vm)? {
            return Ok(handle(&vm, note.state));
        }
        // The identity first: whatever a crash leaves behind has an owner, whom `destroy` removes it for.
        fs::create_dir_all(&vm.work_dir).map_err(Error::io("create folder", &vm.work_dir))?;
        store(&vm.work_dir, &Note { id: spec.id, state: VmState::Prepared })?;
        Ok(handle(&vm, VmState::Prepared))
    }

    async fn start(&self, vm: &VmHandle) -> Result<VmHandle> {
        // One that runs is adopted. A real backend launches with a lock, so that no two do.
        Self::bring(vm, "start", &[VmState::Prepared, VmState::Stopped], VmState::Running)
    }

    async fn stop(&self, vm: &VmHandle, _timeout: Duration) -> Result<VmHandle> {
        // A real backend asks the guest, waits for at most `_timeout`, and says in `forced_stop` what it needed then.
        match Self::find(vm)? {
            Some(note) if note.state == VmState::Prepared => Ok(handle(vm, VmState::Prepared)),
            _ => Self::bring(vm, "stop", &[VmState::Running], VmState::Stopped),
        }
    }

    async fn suspend(&self, _vm: &VmHandle) -> Result<VmHandle> {
        // What a backend cannot do it says, as an error of its own kind.
        Err(Error::Unsupported { backend: BackendTag::Noop, what: "pausing a machine".to_owned() })
    }

    async fn resume(&self, vm: &VmHandle) -> Result<VmHandle> {
        self.suspend(vm).await
    }

    async fn destroy(&self, vm: VmHandle) -> Result<()> {
        // Nothing is removed that is not proved to be this machine's; nothing there is fine.
        match Self::find(&vm)? {
            Some(_) => fs::remove_dir_all(&vm.work_dir).map_err(Error::io("remove folder", &vm.work_dir)),
            None => Ok(()),
        }
    }

    async fn state(&self, vm: &VmHandle) -> Result<VmState> {
        Ok(Self::find(vm)?.map_or(VmState::Destroyed, |note| note.state))
    }

    async fn guest_ip(&self, vm: &VmHandle) -> Result<String> {
        match self.state(vm).await? {
            VmState::Running => Ok("127.0.0.1".to_owned()),
            state => Err(Error::InvalidState { action: "ask for the address of", state }),
        }
    }

    fn console_endpoint(&self, _vm: &VmHandle) -> Result<ConsoleEndpoint> {
        Ok(ConsoleEndpoint::None)
    }
}

impl Inspect for FolderBackend {
    async fn inspect(&self, vm: &VmHandle) -> Result<Inspection> {
        let state = self.state(vm).await?;
        Ok(Inspection {
            state,
            handle: Arc::new(handle(vm, state)),
            // What the hypervisor tells of the running machine: what differs from the record is drift.
            vcpus: None,
            memory_mib: None,
            forwards: None,
            ending: None,
            damage: Vec::new(),
            stall: None,
        })
    }
}

impl Preflight for FolderBackend {
    fn handle(&self, spec: &VmSpec) -> Result<VmHandle> {
        let plain = self.vms_dir.join(spec.name.as_str());
        // A machine that was renamed or let go of keeps its folder; the next one of that name has one beside it.
        let is_taken = load(&plain)?.is_some_and(|note| note.id != spec.id);
        Ok(VmHandle::of(spec, if is_taken { beside(&plain, spec.id) } else { plain }))
    }

    async fn preflight(&self, _spec: &VmSpec) -> Result<()> {
        // A real backend looks for its programs here, and refuses what it cannot do before anything is made.
        Ok(())
    }
}

/// The handle as it is in `state`: facts of a process are there only while there is one.
fn handle(vm: &VmHandle, state: VmState) -> VmHandle {
    let runtime = (state == VmState::Running).then(|| Runtime {
        pid: 0,
        accel: "none".to_owned(),
        vnc: None,
        forwards: Vec::new(),
        address: None,
        boot: None,
        host: None,
    });
    VmHandle { state, runtime, forced_stop: None, ..vm.clone() }
}

fn load(folder: &Path) -> Result<Option<Note>> {
    let path = folder.join("note.json");
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::Unusable { path, reason: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Writes the note whole: whoever reads it meanwhile sees the old one.
fn store(folder: &Path, note: &Note) -> Result<()> {
    let path = folder.join("note.json");
    let part = folder.join("note.json.part");
    let text =
        serde_json::to_vec(note).map_err(|error| Error::io("write", &path)(io::Error::other(error)))?;
    fs::write(&part, text).map_err(Error::io("write", &part))?;
    fs::rename(&part, &path).map_err(Error::io("rename to", &path))
}
