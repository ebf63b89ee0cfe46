//! The backend against a server that keeps the real one's rules, on a host that keeps volumes and vnics as illumos does.
//!
//! Servers that vmctl starts itself are in the tests of the product, which have the fake one as a program.

mod asked;
mod failing;
mod life;
mod zones;

use std::time::Duration;

use tempfile::TempDir;
use vmctl_tests::propolis::{FakePropolis, Options};

use super::host::fake::FakeHost;
use super::{PropolisBackend, PropolisConfig};
use crate::contract::plain_machine;
use crate::hypervisor::Hypervisor;
use crate::spec::{
    BackendTag, CloudInitConfig, Digest, DiskImage, ImageFormat, MacAddr, NetworkConfig, Nic,
    PropolisOptions, Secret, SeedContent, VmHandle, VmSpec,
};
use crate::ssh::Keyring;

/// How long a stop may ask the guest; those of these tests cannot be asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// The card number `index` of a machine.
pub(super) fn nic(index: usize) -> Nic {
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, u8::try_from(index).unwrap()]);
    Nic { mac, network: NetworkConfig::Vnic { name: format!("web{index}") }, forwards: Vec::new() }
}

/// A machine without anything but an empty disk.
pub(super) fn spec() -> VmSpec {
    let mut spec = plain_machine(BackendTag::Propolis);
    spec.machine.vcpus = 2;
    spec.machine.memory_mib = 512;
    spec.machine.disk_bytes = Some(1 << 20);
    spec
}

/// A seed with a secret in it.
fn seed(user_data: &str) -> CloudInitConfig {
    CloudInitConfig {
        hostname: "web".to_owned(),
        user: "vm".to_owned(),
        authorized_keys: Vec::new(),
        user_data: Some(Secret::new(user_data)),
        more: SeedContent::default(),
    }
}

/// A folder, a host and a server.
struct World {
    folder: TempDir,
    host: FakeHost,
    server: FakePropolis,
    backend: PropolisBackend,
}

impl World {
    fn new() -> Self {
        Self::with(Options { greeting: b"kernel\r\nlogin: ".to_vec(), ..Options::default() })
    }

    fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let zvols = folder.path().join("zvol");
        let host = FakeHost::with_devices(zvols.clone());
        let config = PropolisConfig {
            vms_dir: folder.path().join("vms"),
            images_dir: folder.path().join("images"),
            take_over: false,
            keyring: Keyring::default(),
        };
        let backend = PropolisBackend::on(config, Box::new(host.clone()), zvols);
        Self { folder, host, server: FakePropolis::start(options), backend }
    }

    /// The machine that names the server of this world.
    fn spec(&self) -> VmSpec {
        let mut spec = spec();
        spec.machine.hardware.propolis.server = Some(self.server.address());
        spec
    }

    /// The same with all that there is: an image on a pool, a vnic over a link, a seed.
    fn full_spec(&self) -> VmSpec {
        let mut spec = self.spec();
        let (pool, link) = (Some("rpool/vms".to_owned()), Some("igb0".to_owned()));
        spec.machine.hardware.propolis =
            PropolisOptions { pool, vnic_link: link, ..spec.machine.hardware.propolis };
        let path = self.folder.path().join("image");
        std::fs::write(&path, [7; 4096]).unwrap();
        let (digest, format) = (Digest::of([7; 4096]), ImageFormat::Raw);
        spec.machine.image = Some(DiskImage { path, format, digest, virtual_size: 4096 });
        spec.machine.nics = vec![nic(0)];
        spec.cloud_init = Some(seed("#!/bin/sh\necho hunter2\n"));
        spec
    }

    async fn prepared(&self) -> VmHandle {
        self.backend.prepare(&self.spec()).await.unwrap()
    }

    async fn started(&self) -> VmHandle {
        self.backend.start(&self.prepared().await).await.unwrap()
    }

    fn console_log(&self, vm: &VmHandle) -> String {
        std::fs::read_to_string(vm.work_dir.join("console.log")).unwrap_or_default()
    }

    /// How often a request came.
    fn count(&self, method: &str, path: &str) -> usize {
        self.server.asked().iter().filter(|asked| asked.method == method && asked.path == path).count()
    }
}
