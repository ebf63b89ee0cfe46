//! Disks.

use serde_json::{Value, json};

use super::{Args, text};
use crate::error::Result;
use crate::spec::{DiskImage, ImageFormat, VmHandle};
use crate::workdir::WorkDir;

/// The root disk first, so that it is the guest's first disk; then the seed, on virtio-blk because Debian's cloud
/// kernel has no driver for an emulated CD-ROM.
pub(super) fn disks(args: &mut Args, vm: &VmHandle) -> Result<()> {
    let work = WorkDir::new(&vm.work_dir);
    if vm.machine.disk_size().is_some() {
        args.json(
            "-blockdev",
            &json!({
                "node-name": "root",
                "driver": "qcow2",
                "discard": "unmap",
                "file": {"driver": "file", "filename": text(&work.overlay())?, "discard": "unmap"},
                "backing": vm.machine.image.as_ref().map(base).transpose()?,
            }),
        );
        args.device(&json!({"driver": "virtio-blk-pci", "id": "root-disk", "drive": "root", "bootindex": 0}));
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
    Ok(())
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
