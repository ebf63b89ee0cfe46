//! Machines that nobody recorded, found by the manifests in their folders, and the mark of having been let go of.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::backend::PropolisBackend;
use super::server::{self, Places};
use crate::abilities::Stray;
use crate::error::{Error, Result};
use crate::name::Name;
use crate::qemu::manifest::Manifest;
use crate::spec::{BackendTag, InstanceId, VmHandle};
use crate::workdir::{WorkDir, among, read_note};

impl PropolisBackend {
    /// See [`crate::Custody::strays`]. What cannot be read or is another's is passed over.
    pub(super) fn find_strays(&self, project: &Name, known: &BTreeSet<InstanceId>) -> Result<Vec<Stray>> {
        let vms = &self.config.vms_dir;
        let list = match std::fs::read_dir(vms) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            list => list.map_err(Error::io("list folder", vms))?,
        };
        let mut strays = Vec::new();
        for entry in list {
            let folder = entry.map_err(Error::io("list folder", vms))?.path();
            strays.extend(stray(&folder, project, known));
        }
        strays.sort_unstable_by(Stray::order);
        Ok(strays)
    }

    /// See [`crate::Custody::release`].
    pub(super) fn let_go(&self, vm: &VmHandle) -> Result<()> {
        Manifest::let_go(&WorkDir::new(&vm.work_dir), vm.id)
    }

    /// See [`crate::Custody::note`].
    pub(super) fn keep_note(&self, vm: &VmHandle, note: &Value) -> Result<()> {
        Manifest::keep_note(&WorkDir::new(among(&self.config.vms_dir, &vm.work_dir)), vm.id, note)
    }
}

fn stray(folder: &Path, project: &Name, known: &BTreeSet<InstanceId>) -> Option<Stray> {
    if !folder.symlink_metadata().ok()?.is_dir() {
        return None;
    }
    let work = WorkDir::new(folder);
    let pass_over = |error: &Error| tracing::debug!(%error, folder = %folder.display(), "passed over");
    let manifest = Manifest::load(&work).inspect_err(pass_over).ok()??;
    if manifest.backend != BackendTag::Propolis
        || manifest.project != *project
        || known.contains(&manifest.id)
    {
        return None;
    }
    let running = server::find(&Places::of(&work)).inspect_err(pass_over).ok().flatten();
    Some(Stray {
        name: manifest.name.to_string(),
        id: manifest.id,
        pid: running.map(|(process, _)| process.pid()),
        work_dir: Some(folder.to_owned()),
        released: manifest.released,
        note: read_note(&work),
        handle: Some(Box::new(manifest.handle(&work, manifest.state_at_rest(), None))),
    })
}
