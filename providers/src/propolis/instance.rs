//! The instance spec: what a server is told of a machine. Pure.

use std::path::PathBuf;

use base64ct::{Base64, Encoding};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::spec::{InstanceId, Machine, NetworkConfig, VmHandle};

/// The largest seed that is sent within the spec, in bytes. In base64 it is a third more, and a server takes no body of
/// more than 1 MiB.
pub(super) const MOST_BLOB: usize = 700 << 10;

/// What a server that is told so can have at most, on illumos as it is (Oxide's own has 254).
pub const MOST_VCPUS: u16 = 32;

/// The block size that suits every guest and every backing.
const BLOCK: u64 = 512;

// PCI devices of the guest. 0, 1 and those functions of 1 that exist belong to the chipset.
const FIRST_NIC: u64 = 8;
const LAST_NIC: u64 = 15;
const BOOT: u64 = 16;
const SEED: u64 = 24;

/// How many cards there are places for.
pub const MOST_NICS: usize = (LAST_NIC - FIRST_NIC + 1) as usize;

/// Where the seed of a machine is for its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seed {
    /// Its bytes, within the spec.
    Inline(Vec<u8>),
    /// A file that the server opens.
    File(PathBuf),
}

/// The body of the request that makes a machine's VM. `disk` is what it boots from.
pub(super) fn ensure_request(vm: &VmHandle, disk: Option<PathBuf>, seed: Option<Seed>) -> Value {
    json!({
        "properties": {
            "id": vm.id.0,
            "name": format!("{}-{}", vm.project, vm.name),
            "description": format!("`{}` of project `{}`, managed by vmctl", vm.name, vm.project),
            "metadata": {
                "silo_id": derived(vm.id, "silo"),
                "project_id": derived(vm.id, "project"),
                "sled_id": derived(vm.id, "sled"),
                "sled_serial": "vmctl",
                "sled_revision": 0,
                "sled_model": "vmctl",
            },
        },
        "init": {
            "method": "Spec",
            "value": { "spec": { "board": board(&vm.machine), "components": components(vm, disk, seed) } },
        },
    })
}

fn board(machine: &Machine) -> Value {
    json!({
        "cpus": machine.vcpus,
        "memory_mb": machine.memory_mib,
        "chipset": { "type": "i440_fx", "value": { "enable_pcie": false } },
    })
}

/// Keys are names: a UUID as one fits two arms of the schema at once.
fn components(vm: &VmHandle, disk: Option<PathBuf>, seed: Option<Seed>) -> Map<String, Value> {
    let mut all = Map::new();
    if let Some(path) = disk {
        add(&mut all, "boot", BOOT, "virtio_disk", json!({}), file(path, false));
        let order = json!({ "order": [{ "id": "boot" }] });
        all.insert("order".to_owned(), json!({ "type": "boot_settings", "component": order }));
    }
    let seed = seed.map(|seed| match seed {
        Seed::Inline(bytes) => json!({
            "type": "blob_storage_backend",
            "component": { "base64": Base64::encode_string(&bytes), "readonly": true },
        }),
        Seed::File(path) => file(path, true),
    });
    if let Some(backend) = seed {
        add(&mut all, "seed", SEED, "virtio_disk", json!({}), backend);
    }
    for (index, (place, name)) in (FIRST_NIC..=LAST_NIC).zip(vnics(&vm.machine)).enumerate() {
        let key = format!("net{index}");
        let backend = json!({ "type": "virtio_network_backend", "component": { "vnic_name": name } });
        add(&mut all, &key, place, "virtio_nic", json!({ "interface_id": derived(vm.id, &key) }), backend);
    }
    // Without a first serial line the server gives up altogether.
    all.insert("com1".to_owned(), json!({ "type": "serial_port", "component": { "num": "com1" } }));
    all
}

/// A device at its place, and the backend that it alone uses.
fn add(all: &mut Map<String, Value>, key: &str, place: u64, kind: &str, mut device: Value, backend: Value) {
    let backend_key = format!("{key}-be");
    device["backend_id"] = json!(backend_key);
    device["pci_path"] = json!({ "bus": 0, "device": place, "function": 0 });
    all.insert(key.to_owned(), json!({ "type": kind, "component": device }));
    all.insert(backend_key, backend);
}

fn file(path: PathBuf, readonly: bool) -> Value {
    json!({
        "type": "file_storage_backend",
        "component": { "path": path, "readonly": readonly, "block_size": BLOCK },
    })
}

/// The names of a machine's vnics, in order of its cards.
pub(super) fn vnics(machine: &Machine) -> impl Iterator<Item = &str> {
    machine.nics.iter().filter_map(|nic| match &nic.network {
        NetworkConfig::Vnic { name } => Some(name.as_str()),
        NetworkConfig::User
        | NetworkConfig::Isolated
        | NetworkConfig::Tap { .. }
        | NetworkConfig::Private { .. }
        | NetworkConfig::None => None,
    })
}

/// A UUID that stays the same for the same instance and purpose. A server insists on some that mean nothing here.
fn derived(id: InstanceId, purpose: &str) -> Uuid {
    use sha2::Digest as _;
    let hash = sha2::Sha256::new().chain_update(id.0.as_bytes()).chain_update(purpose).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::spec;
    use super::*;

    fn request(nics: usize, disk: bool, seed: Option<Seed>) -> Value {
        let mut spec = spec();
        spec.machine.nics = (0..nics).map(super::super::tests::nic).collect();
        let handle = VmHandle::of(&spec, "/vms/web".into());
        ensure_request(&handle, disk.then(|| "/dev/zvol/rdsk/rpool/x".into()), seed)
    }

    #[test]
    fn full_machine_is_described() {
        let request = request(1, true, Some(Seed::Inline(b"seed".to_vec())));
        insta::assert_snapshot!(serde_json::to_string_pretty(&request).unwrap());
    }

    #[test]
    fn rules_that_only_a_server_checks_are_kept() {
        for (nics, disk, seed) in
            [(0, false, None), (MOST_NICS, true, Some(Seed::File("/vms/web/seed.img".into())))]
        {
            let request = request(nics, disk, seed);
            let all = request["init"]["value"]["spec"]["components"].as_object().unwrap();
            let used: Vec<_> =
                all.values().filter_map(|part| part["component"]["backend_id"].as_str()).collect();
            assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), used.len(), "a backend has one device");
            assert!(used.iter().all(|key| all.contains_key(*key)));
            let places: Vec<_> =
                all.values().filter_map(|part| part["component"]["pci_path"]["device"].as_u64()).collect();
            assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len());
            assert!(places.iter().all(|place| (2..32).contains(place)));
            assert_eq!(all["com1"]["component"]["num"], "com1");
            assert_eq!(all.contains_key("order"), disk);
        }
    }

    #[test]
    fn made_up_identities_stay_and_differ() {
        let one = InstanceId(Uuid::from_u128(1));
        assert_eq!(derived(one, "silo"), derived(one, "silo"));
        assert_ne!(derived(one, "silo"), derived(one, "sled"));
        assert_ne!(derived(one, "silo"), derived(InstanceId(Uuid::from_u128(2)), "silo"));
    }
}
