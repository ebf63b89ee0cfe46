//! Disks.

use serde_json::{Value, json};

use super::{Args, text};
use crate::error::Result;
use crate::name::Name;
use crate::qemu::volumes::node;
use crate::spec::{DiskImage, ImageFormat, VmHandle};
use crate::volume::VolumeDir;
use crate::workdir::WorkDir;

/// How much of a serial number virtio-blk has room for, in bytes (virtio 1.1, 5.2.6).
const SERIAL: usize = 20;

/// The block node of the root disk.
pub(crate) const ROOT: &str = "root";

/// The root disk first, so that it is the guest's first disk; then the seed, on virtio-blk because Debian's cloud
/// kernel has no driver for an emulated CD-ROM; then the volumes and the media, in
/// their orders.
pub(super) fn disks(args: &mut Args, vm: &VmHandle) -> Result<()> {
    let work = WorkDir::new(&vm.work_dir);
    if vm.machine.disk_size().is_some() {
        args.json(
            "-blockdev",
            &json!({
                "node-name": ROOT,
                "driver": "qcow2",
                "discard": "unmap",
                "file": {"driver": "file", "filename": text(&work.overlay())?, "discard": "unmap"},
                "backing": vm.machine.image.as_ref().map(base).transpose()?,
            }),
        );
        args.device(&json!({"driver": "virtio-blk-pci", "id": "root-disk", "drive": ROOT, "bootindex": 0}));
    }
    if vm.seed {
        args.json(
            "-blockdev",
            &json!({
                "node-name": "seed",
                "driver": "raw",
                "read-only": true,
                "file": {"driver": "file", "filename": text(&work.seed())?, "read-only": true},
            }),
        );
        args.device(&json!({"driver": "virtio-blk-pci", "id": "seed-disk", "drive": "seed"}));
    }
    for (index, volume) in vm.machine.volumes.iter().enumerate() {
        let (node, disk) = (node(index), VolumeDir::of_machine(&vm.work_dir, &volume.name).disk());
        args.json(
            "-blockdev",
            &json!({
                "node-name": node,
                "driver": "qcow2",
                "discard": "unmap",
                "file": {"driver": "file", "filename": text(&disk)?, "discard": "unmap"},
                "backing": null,
            }),
        );
        let serial = serial(&volume.name);
        let id = format!("{node}-disk");
        args.device(&json!({"driver": "virtio-blk-pci", "id": id, "drive": node, "serial": serial}));
    }
    for (index, path) in vm.machine.media.iter().enumerate() {
        let node = format!("media{index}");
        args.json(
            "-blockdev",
            &json!({
                "node-name": node,
                "driver": "raw",
                "read-only": true,
                "file": {"driver": "file", "filename": text(path)?, "read-only": true},
            }),
        );
        let id = format!("{node}-disk");
        args.device(&json!({"driver": "virtio-blk-pci", "id": id, "drive": node, "serial": node}));
    }
    Ok(())
}

/// What the guest knows a volume by, as in `/dev/disk/by-id/virtio-data`: the beginning of its name.
fn serial(name: &Name) -> &str {
    // Names are ASCII.
    name.as_str().get(..SERIAL).unwrap_or(name.as_str())
}

/// The image below the root disk.
fn base(image: &DiskImage) -> Result<Value> {
    let mut base = json!({
        "node-name": "base",
        "driver": image.format.as_str(),
        "read-only": true,
        "file": {"driver": "file", "filename": text(&image.path)?, "read-only": true},
    });
    if image.format == ImageFormat::Qcow2 {
        // Whatever the image's header names: nothing below it is opened.
        base["backing"] = Value::Null;
    }
    Ok(base)
}
