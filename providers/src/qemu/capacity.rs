//! What QEMU's machines take of the host.
//!
//! The figures were measured with QEMU 7.2, q35, one disk, one card, on a guest that had booted to a login: of 269 MiB
//! that the process held, 128 MiB were the guest's memory and 84 MiB code that TCG had translated; 57 MiB were left,
//! 22 MiB of them pages of QEMU's own program and libraries. The folder of such a machine took 0.9 MiB, nearly
//! all of it overlay.

use super::accel::{Accel, decide, probe};
use super::backend::QemuBackend;
use crate::capacity::{self, Capacity, Footprint, Space};
use crate::error::{Error, Result};
use crate::spec::{BackendTag, Machine, VmHandle};

/// What a QEMU process takes besides its guest's memory: 57 MiB measured, rounded up.
const PROCESS: u64 = 64 << 20;

/// What it takes besides for translated code where it emulates: 84 MiB measured after a boot, rounded up. Busy guests
/// may make it grow; QEMU's own bound was 256 MiB there.
const TRANSLATIONS: u64 = 96 << 20;

/// What a new machine's folder takes: 0.9 MiB measured after a first boot, and as much again for guests that write more
/// at their first boot.
pub(super) const FOLDER: u64 = 2 << 20;

impl Capacity for QemuBackend {
    fn footprint(&self, _backend: BackendTag, machine: &Machine) -> Result<Footprint> {
        // An accelerator that cannot be had is told by the start itself; until then, the larger figure.
        let is_emulated =
            !matches!(decide(machine.hardware.accel_over(self.config().accel), &probe()), Ok(Accel::Kvm));
        let own = PROCESS + if is_emulated { TRANSLATIONS } else { 0 };
        let guest = machine.memory_mib.saturating_mul(1 << 20);
        Ok(Footprint { memory: guest.saturating_add(own), disk: FOLDER })
    }

    fn memory(&self, _backend: BackendTag) -> Result<Option<u64>> {
        capacity::available().map(Some)
    }

    fn held(&self, vm: &VmHandle) -> Result<Option<u64>> {
        match self.find(vm.id) {
            Ok(Some(process)) => capacity::resident(process.pid()),
            // What runs elsewhere gives nothing back: this plan does not stop it.
            Ok(None) | Err(Error::Elsewhere { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn disk(&self, _backend: BackendTag) -> Result<Option<Space>> {
        capacity::space(&self.config().vms_dir).map(Some)
    }
}
