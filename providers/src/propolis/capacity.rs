//! What machines of Propolis take of the host. Nothing was measured on illumos: the figures are careful.

use super::backend::PropolisBackend;
use super::server::{self, Places};
use crate::capacity::{self, Capacity, Footprint, Space};
use crate::error::Result;
use crate::spec::{BackendTag, Machine, VmHandle};
use crate::workdir::WorkDir;

/// What a server takes besides its guest's memory.
const PROCESS: u64 = 64 << 20;

/// What a machine's folder takes besides its disk.
pub(super) const FOLDER: u64 = 2 << 20;

impl Capacity for PropolisBackend {
    /// A disk that is a file is raw, and may become as large as it says; one on a volume is ZFS's affair.
    fn footprint(&self, _backend: BackendTag, machine: &Machine) -> Result<Footprint> {
        let guest = machine.memory_mib.saturating_mul(1 << 20);
        let is_file = machine.hardware.propolis.pool.is_none();
        let disk = if is_file { machine.disk_size().unwrap_or(0) } else { 0 };
        Ok(Footprint { memory: guest.saturating_add(PROCESS), disk: FOLDER.saturating_add(disk) })
    }

    /// `None` where the host does not tell, as illumos does not in the way that is known here.
    fn memory(&self, _backend: BackendTag) -> Result<Option<u64>> {
        Ok(capacity::available().inspect_err(|error| tracing::debug!(%error, "not told")).ok())
    }

    fn held(&self, vm: &VmHandle) -> Result<Option<u64>> {
        let work = WorkDir::new(self.here(vm)?.work_dir);
        match server::find(&Places::of(&work))? {
            Some((process, _)) => capacity::resident(process.pid()),
            None => Ok(None),
        }
    }

    fn disk(&self, _backend: BackendTag) -> Result<Option<Space>> {
        capacity::space(&self.config.vms_dir).map(Some)
    }
}
