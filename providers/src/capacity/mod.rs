//! What a host has room for: memory and disk, before anything is made of them.

mod disk;
mod memory;
mod size;

pub use disk::{Space, allocated, space, tell_full};
pub use memory::{available, resident};
pub use size::{size, size_needed};

use crate::error::Result;
use crate::spec::{BackendTag, Machine, VmHandle};

/// What one machine takes of a host, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Memory while it runs, once the guest touched all it was given: the guest's and the hypervisor's own.
    pub memory: u64,
    /// Disk for its folder at the beginning. What the guest writes later is not in it.
    pub disk: u64,
}

/// Tells what a backend's machines need and what there is for them. Changes nothing.
pub trait Capacity: Send + Sync {
    /// What a machine of this hardware takes.
    fn footprint(&self, backend: BackendTag, machine: &Machine) -> Result<Footprint>;

    /// Bytes of memory that machines of `backend` can take now besides what they hold; `None` where nothing bounds
    /// them.
    fn memory(&self, backend: BackendTag) -> Result<Option<u64>>;

    /// Bytes of memory that a machine holds now; `None` if it has no process.
    fn held(&self, vm: &VmHandle) -> Result<Option<u64>>;

    /// The disk that folders of machines of `backend` are on; `None` where nothing bounds them.
    fn disk(&self, backend: BackendTag) -> Result<Option<Space>>;
}
