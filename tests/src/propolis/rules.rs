//! What a real server checks of an instance spec, beyond what its schema says.

use std::collections::BTreeSet;
use std::fs::OpenOptions;

use serde_json::{Map, Value};

/// What the components that we use consist of: the kind, the fields that it must have, and those that it may have.
/// A server refuses what it does not know.
const KINDS: [(&str, &[&str], &[&str]); 7] = [
    ("virtio_disk", &["backend_id", "pci_path"], &[]),
    ("file_storage_backend", &["path", "readonly"], &["block_size", "workers"]),
    ("blob_storage_backend", &["base64", "readonly"], &[]),
    ("virtio_nic", &["backend_id", "interface_id", "pci_path"], &[]),
    ("virtio_network_backend", &["vnic_name"], &[]),
    ("serial_port", &["num"], &[]),
    ("boot_settings", &["order"], &[]),
];

/// PCI paths that belong to the chipset: using one ends a real server.
const OF_THE_CHIPSET: [[u64; 3]; 3] = [[0, 0, 0], [0, 1, 0], [0, 1, 3]];

/// Refuses what a real server refuses, with why. `vnics` are those of the host.
pub fn check(told: &Value, vnics: Option<&[String]>) -> Result<(), String> {
    let properties = &told["properties"];
    uuid(&properties["id"], "properties.id")?;
    for name in ["name", "description"] {
        text(&properties[name], name)?;
    }
    for id in ["silo_id", "project_id", "sled_id"] {
        uuid(&properties["metadata"][id], id)?;
    }
    if told["init"]["method"] != "Spec" {
        return Err("only the method `Spec` makes a VM here".to_owned());
    }
    let spec = &told["init"]["value"]["spec"];
    board(&spec["board"])?;
    let components = spec["components"].as_object().ok_or("components: no map")?;
    let mut used = BTreeSet::new();
    let mut places = BTreeSet::new();
    for (key, component) in components {
        let kind = text(&component["type"], "type")?;
        let inside = component["component"].as_object().ok_or("component: no map")?;
        fields(key, kind, inside)?;
        if let Some(backend) = inside.get("backend_id") {
            let backend = text(backend, "backend_id")?;
            let found = components.get(backend).ok_or(format!("{key}: no backend `{backend}`"))?;
            let wanted = if kind == "virtio_nic" { "network_backend" } else { "storage_backend" };
            if !found["type"].as_str().is_some_and(|kind| kind.ends_with(wanted)) {
                return Err(format!("{key}: `{backend}` is no backend for it"));
            }
            if !used.insert(backend.to_owned()) {
                return Err(format!("backend `{backend}` is used twice"));
            }
        }
        if let Some(path) = inside.get("pci_path") {
            place(key, path, &mut places)?;
        }
        contents(key, kind, inside, vnics)?;
    }
    for (key, component) in components {
        let is_backend = component["type"].as_str().is_some_and(|kind| kind.ends_with("_backend"));
        if is_backend && !used.contains(key) {
            return Err(format!("backend `{key}` is used by nothing"));
        }
    }
    if !components.values().any(|component| component["component"]["num"] == "com1") {
        return Err("a real server panics: there is no COM1".to_owned());
    }
    order(components)
}

fn board(board: &Value) -> Result<(), String> {
    let cpus = board["cpus"].as_u64().ok_or("board.cpus: no number")?;
    if !(1..=32).contains(&cpus) {
        return Err(format!("board.cpus: {cpus} is not from 1 to 32"));
    }
    board["memory_mb"].as_u64().filter(|memory| *memory > 0).ok_or("board.memory_mb: no number")?;
    if board["chipset"]["type"] != "i440_fx" || !board["chipset"]["value"]["enable_pcie"].is_boolean() {
        return Err("board.chipset: unknown".to_owned());
    }
    let known = ["cpus", "memory_mb", "chipset", "cpuid", "guest_hv_interface"];
    let board = board.as_object().ok_or("board: no map")?;
    match board.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("board: unknown field `{key}`")),
        None => Ok(()),
    }
}

fn fields(key: &str, kind: &str, inside: &Map<String, Value>) -> Result<(), String> {
    let Some((_, needed, more)) = KINDS.iter().find(|(name, ..)| *name == kind) else {
        return Err(format!("{key}: unknown variant `{kind}`"));
    };
    if let Some(name) = needed.iter().find(|name| !inside.contains_key(**name)) {
        return Err(format!("{key}: missing field `{name}`"));
    }
    match inside.keys().find(|name| !needed.contains(&name.as_str()) && !more.contains(&name.as_str())) {
        Some(name) => Err(format!("{key}: unknown field `{name}`")),
        None => Ok(()),
    }
}

fn place(key: &str, path: &Value, places: &mut BTreeSet<[u64; 3]>) -> Result<(), String> {
    let number = |name: &str| path[name].as_u64().ok_or(format!("{key}: pci_path.{name}: no number"));
    let place = [number("bus")?, number("device")?, number("function")?];
    if place[1] > 31 || place[2] > 7 {
        return Err(format!("{key}: no such PCI path"));
    }
    if OF_THE_CHIPSET.contains(&place) {
        return Err(format!("{key}: a real server aborts: the PCI path is the chipset's"));
    }
    if places.insert(place) { Ok(()) } else { Err(format!("{key}: the PCI path is used twice")) }
}

fn contents(
    key: &str,
    kind: &str,
    inside: &Map<String, Value>,
    vnics: Option<&[String]>,
) -> Result<(), String> {
    let field = |name: &str| inside.get(name).unwrap_or(&Value::Null);
    match kind {
        "file_storage_backend" => {
            let readonly = field("readonly").as_bool().ok_or("readonly: no boolean")?;
            let path = text(field("path"), "path")?;
            let opened = OpenOptions::new().read(true).write(!readonly).open(path);
            let mut file = opened.map_err(|error| format!("{key}: cannot open `{path}`: {error}"))?;
            let mut head = [0; 4];
            let read = std::io::Read::read(&mut file, &mut head).unwrap_or(0);
            if read == 4 && head == *b"QFI\xfb" {
                return Err(format!("{key}: `{path}` is no raw disk, guests would see QCOW2"));
            }
            Ok(())
        }
        "virtio_network_backend" => {
            let name = text(field("vnic_name"), "vnic_name")?;
            match vnics {
                Some(vnics) if !vnics.iter().any(|vnic| vnic == name) => {
                    Err(format!("{key}: no vnic `{name}`"))
                }
                Some(_) | None => Ok(()),
            }
        }
        "virtio_nic" => uuid(field("interface_id"), "interface_id"),
        "serial_port" => match field("num").as_str() {
            Some("com1" | "com2" | "com3" | "com4") => Ok(()),
            _ => Err(format!("{key}: no such serial port")),
        },
        _ => Ok(()),
    }
}

fn order(components: &Map<String, Value>) -> Result<(), String> {
    let settings = components.values().filter(|component| component["type"] == "boot_settings");
    for entry in settings.filter_map(|settings| settings["component"]["order"].as_array()).flatten() {
        let id = text(&entry["id"], "id")?;
        let is_disk = components.get(id).is_some_and(|found| found["type"] == "virtio_disk");
        if !is_disk {
            return Err(format!("boot_settings: `{id}` is no disk"));
        }
    }
    Ok(())
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, String> {
    value.as_str().ok_or(format!("{name}: no text"))
}

fn uuid(value: &Value, name: &str) -> Result<(), String> {
    let text = text(value, name)?;
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    let is_hex = text.chars().all(|sign| sign == '-' || sign.is_ascii_hexdigit());
    if lengths == [8, 4, 4, 4, 12] && is_hex { Ok(()) } else { Err(format!("{name}: `{text}` is no UUID")) }
}
