//! Records of machines of which nothing is left but what their backends know.

use jiff::Timestamp;
use vmctl_providers::image::ImageIdentity;
use vmctl_providers::{Stray, VmHandle, VmState};
use vmctl_state::{Address, Phase, Record};

use crate::desired::{Lifecycle, Power};
use crate::recorded::{RecordedVm, opaque};

/// Why such a record is tainted.
const LOST: &str = "its record was lost; this one was made from what its folder says";

/// A tainted record for a machine that no record knows, from what its folder says; `None` if that is not enough.
///
/// What a folder does not say is as if it had not been asked for: the seed's content, checks, labels, what it depends on.
pub fn record_of(stray: &Stray, now: Timestamp) -> Option<Record> {
    let handle = stray.handle.as_deref()?;
    Some(Record {
        address: Address::vm(handle.name.as_str()),
        instance: handle.id.0,
        backend: handle.backend.to_string(),
        spec: opaque(&spec_of(handle)),
        handle: Some(opaque(handle)),
        phase: match handle.state {
            VmState::Preparing => Phase::Preparing,
            VmState::Prepared => Phase::Prepared,
            VmState::Running => Phase::Running,
            VmState::Suspended => Phase::Suspended,
            VmState::Stopped | VmState::Failed => Phase::Stopped,
            VmState::Destroyed => Phase::Destroying,
        },
        ready: false,
        taint: Some(LOST.to_owned()),
        provisioned: Vec::new(),
        ran_once: Vec::new(),
        interrupted: None,
        provision_failed: None,
        created: now,
        updated: now,
    })
}

fn spec_of(handle: &VmHandle) -> RecordedVm {
    let machine = &handle.machine;
    RecordedVm {
        vmfile: None,
        backend: handle.backend,
        image_source: None,
        image: machine.image.as_ref().map(|image| ImageIdentity {
            digest: image.digest.clone(),
            format: image.format,
            virtual_size: image.virtual_size,
        }),
        image_pin: None,
        hardware: machine.hardware.clone(),
        vcpus: machine.vcpus,
        memory_mib: machine.memory_mib,
        disk_bytes: machine.disk_bytes,
        volumes: machine.volumes.clone(),
        shares: machine.shares.clone(),
        media: machine.media.clone(),
        networks: machine.nics.iter().map(|nic| nic.network.clone()).collect(),
        forwards: machine.nics.iter().flat_map(|nic| nic.forwards.clone()).collect(),
        cloud_init: None,
        ssh: handle.ssh.clone(),
        power: Power::Running,
        depends_on: Default::default(),
        lifecycle: Lifecycle::default(),
        ready: None,
        checks: Vec::new(),
        labels: Default::default(),
    }
}
