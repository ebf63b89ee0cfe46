//! Where a machine's files are now, and whether its process is one of this host and of these files.
//!
//! Records and manifests name files by the paths that these had when they were written. The data folder may have been
//! moved since, copied, or brought from another host. So the folder of a machine is always looked for among those of
//! this project, and the image in this cache first. What was moved is simply found; a copy is told from its
//! original by the process, which holds the original's files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::argv::{Marks, marks};
use super::backend::QemuBackend;
use super::ending;
use crate::error::{Error, Result};
use crate::process::{Holder, Process};
use crate::spec::{InstanceId, VmHandle};
use crate::workdir;

/// How long a process may take from giving up its pidfile to its end.
const LEAVING: Duration = Duration::from_secs(2);

impl QemuBackend {
    /// The machine with the paths that hold now.
    ///
    /// Fails with [`Error::Elsewhere`] if it was left running on another host, or if its process works on other
    /// files than those of this project: then these are a copy, and nothing may be done to them or by them.
    pub(super) async fn here(&self, vm: &VmHandle) -> Result<VmHandle> {
        let here = self.with_paths(vm);
        if let Some(runtime) = &vm.runtime {
            if let (Some(then), Some(now)) = (&runtime.host, ending::host())
                && *then != now
                && !self.config().take_over
            {
                return Err(Error::Elsewhere { place: "on another host".to_owned() });
            }
            self.refuse_unlocked(vm.id, runtime.pid).await?;
        }
        Ok(here)
    }

    /// The machine with the paths that hold now, wherever it may run.
    pub(super) fn with_paths(&self, vm: &VmHandle) -> VmHandle {
        let mut here = vm.clone();
        here.work_dir = workdir::among(&self.config().vms_dir, &vm.work_dir);
        if let Some(image) = &mut here.machine.image {
            image.path = self.image_here(&image.path);
        }
        here
    }

    /// An image in this cache, if it is there; else where it was.
    pub(super) fn image_here(&self, recorded: &Path) -> PathBuf {
        let here = workdir::among(&self.config().images_dir, recorded);
        if here.exists() { here } else { recorded.to_owned() }
    }

    /// Refuses if `pid`, as recorded, is still the machine's process and does not hold the lock on its pidfile here.
    async fn refuse_unlocked(&self, id: InstanceId, pid: u32) -> Result<()> {
        let pidfile = self.runtime_dir(id).pidfile();
        let held = || match Process::holding(&pidfile, |_| true) {
            Ok(Holder::Expected(process) | Holder::Unexpected(process)) => process.pid() == pid,
            Ok(Holder::Nobody) | Err(_) => false,
        };
        let failed = Error::io("examine process", format!("/proc/{pid}"));
        let Some(process) = Process::running(pid, |args| carries(args, id)).map_err(failed)? else {
            return Ok(());
        };
        // A pidfile is given up a moment before the end.
        if held() || timeout(LEAVING, process.exited()).await.is_ok() || held() {
            return Ok(());
        }
        let args = process.arguments().map_err(Error::io("examine", &pidfile))?;
        let Some(marks) = marks(&args) else { return Ok(()) };
        let place = match &marks.work_dir {
            Some(folder) if !self.is_ours(&process, &marks) => {
                format!("as process {pid}, on the files in `{}`", folder.display())
            }
            _ => format!(
                "as process {pid}, whose sockets in `{}` are gone",
                self.config().runtime_dir.display()
            ),
        };
        Err(Error::Elsewhere { place })
    }

    /// Whether a process works on the files of this project, wherever these were when it was launched.
    pub(super) fn is_ours(&self, process: &Process, marks: &Marks) -> bool {
        holds_files_of(process, marks, &self.config().vms_dir)
    }
}

/// Whether a process works on files in `vms`.
///
/// Its command line names the folder as it was called at launch. If that is another one, the files that it holds
/// open tell, for the kernel knows what they are called now.
pub(super) fn holds_files_of(process: &Process, marks: &Marks, vms: &Path) -> bool {
    let Some(launched_in) = marks.work_dir.as_deref().and_then(Path::parent) else { return false };
    if launched_in == vms {
        return true;
    }
    let Ok(vms) = vms.canonicalize() else { return false };
    launched_in.canonicalize().is_ok_and(|folder| folder == vms) || process.has_open_in(&vms)
}

/// Whether a command line is that of an instance.
pub(super) fn carries(args: &[String], id: InstanceId) -> bool {
    let uuid = id.to_string();
    args.windows(2).any(|pair| pair[0] == "-uuid" && pair[1] == uuid)
}
