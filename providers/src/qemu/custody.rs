//! Machines that nobody recorded, found by their marks, and the mark of having been let go of.
//!
//! A machine has two marks: the manifest in its folder, and the command line of its process. The folder of sockets
//! may serve many projects, so that a process counts only if its disk lies in this project's folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::argv::{Marks, marks};
use super::backend::QemuBackend;
use super::home::holds_files_of;
use super::manifest::Manifest;
use super::places::{RuntimeDir, require_private};
use crate::abilities::Stray;
use crate::error::{Error, Result};
use crate::name::Name;
use crate::process::{Holder, Process};
use crate::spec::{BackendTag, InstanceId, VmHandle};
use crate::workdir::{WorkDir, among, read_note};

/// Whose machines are looked for.
struct Search {
    project: Name,
    known: BTreeSet<InstanceId>,
    /// The first digits of the known, which are in the names of some folders.
    known_short: BTreeSet<String>,
}

impl QemuBackend {
    /// See [`crate::Custody::strays`]. What cannot be read or is another's is passed over.
    pub(super) async fn find_strays(
        &self,
        project: &Name,
        known: &BTreeSet<InstanceId>,
    ) -> Result<Vec<Stray>> {
        let (vms, run) = (self.config().vms_dir.clone(), self.config().runtime_dir.clone());
        let known_short = known.iter().map(InstanceId::short).collect();
        let search = Search { project: project.clone(), known: known.clone(), known_short };
        let path = vms.clone();
        // One small file is read for each machine of the project, and there may be thousands.
        let found = tokio::task::spawn_blocking(move || search.run(&vms, &run)).await;
        found.map_err(|error| Error::io("look through", path)(io::Error::other(error)))?
    }

    /// See [`crate::Custody::release`].
    pub(super) fn let_go(&self, vm: &VmHandle) -> Result<()> {
        Manifest::let_go(&WorkDir::new(&vm.work_dir), vm.id)
    }

    /// See [`crate::Custody::note`].
    pub(super) fn keep_note(&self, vm: &VmHandle, note: &Value) -> Result<()> {
        Manifest::keep_note(&WorkDir::new(among(&self.config().vms_dir, &vm.work_dir)), vm.id, note)
    }
}

impl Search {
    fn run(&self, vms: &Path, run: &Path) -> Result<Vec<Stray>> {
        let mut strays: BTreeMap<InstanceId, Stray> = BTreeMap::new();
        for folder in entries(vms)? {
            if let Some(stray) = self.stray_folder(folder) {
                strays.insert(stray.id, stray);
            }
        }
        for (marks, process) in self.live_processes(run)? {
            if marks.project != self.project
                || self.known.contains(&marks.id)
                || !holds_files_of(&process, &marks, vms)
            {
                continue;
            }
            let name = marks.name.to_string();
            let unseen = || Stray {
                name,
                id: marks.id,
                pid: None,
                work_dir: None,
                released: false,
                note: None,
                handle: None,
            };
            strays.entry(marks.id).or_insert_with(unseen).pid = Some(process.pid());
        }
        let mut strays: Vec<Stray> = strays.into_values().collect();
        strays.sort_unstable_by(Stray::order);
        Ok(strays)
    }

    fn stray_folder(&self, folder: PathBuf) -> Option<Stray> {
        let work = WorkDir::new(&folder);
        let aside = folder.file_name()?.to_str()?.rsplit_once('~').map(|(_, id)| id);
        if aside.is_some_and(|id| self.known_short.contains(id)) || !folder.symlink_metadata().ok()?.is_dir()
        {
            return None;
        }
        match Manifest::load(&work) {
            Ok(Some(manifest))
                if manifest.backend == BackendTag::Qemu
                    && manifest.project == self.project
                    && !self.known.contains(&manifest.id) =>
            {
                Some(Stray {
                    name: manifest.name.to_string(),
                    id: manifest.id,
                    pid: None,
                    released: manifest.released,
                    note: read_note(&work),
                    handle: Some(Box::new(manifest.handle(&work, manifest.state_at_rest(), None))),
                    work_dir: Some(folder),
                })
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, folder = %folder.display(), "passed over");
                None
            }
        }
    }

    /// What runs and may be unknown.
    fn live_processes(&self, run: &Path) -> Result<Vec<(Marks, Process)>> {
        let mut live = Vec::new();
        let folders = entries(run)?;
        // Where others may put things, nothing is believed.
        if let Err(error) = require_private(run) {
            tracing::debug!(%error, "passed over");
            return Ok(live);
        }
        for folder in folders {
            let short = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if self.known_short.contains(&short) {
                continue;
            }
            match holder_of(&folder, &short) {
                Ok(found) => live.extend(found),
                Err(error) => tracing::debug!(%error, folder = %folder.display(), "passed over"),
            }
        }
        Ok(live)
    }
}

/// The process that holds the lock on the pidfile in a folder of sockets, if it is the one that the folder is for:
/// the folder's name is the beginning of its id.
fn holder_of(folder: &Path, short: &str) -> io::Result<Option<(Marks, Process)>> {
    let mut found = None;
    let holder = Process::holding(&folder.join(RuntimeDir::PIDFILE), |args| {
        found = marks(args).filter(|marks| marks.id.short() == short);
        found.is_some()
    })?;
    Ok(match holder {
        Holder::Expected(process) => found.map(|marks| (marks, process)),
        Holder::Nobody | Holder::Unexpected(_) => None,
    })
}

/// What is in a folder; nothing if there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        list => list.map_err(Error::io("list folder", folder))?,
    };
    list.map(|entry| entry.map(|entry| entry.path()).map_err(Error::io("list folder", folder))).collect()
}
