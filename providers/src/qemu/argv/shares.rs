//! Folders of the host.

use serde_json::json;

use super::super::places::RuntimeDir;
use super::{Args, list, text};
use crate::error::Result;
use crate::spec::{Share, ShareDriver};

pub(super) fn share(args: &mut Args, index: usize, share: &Share, run: &RuntimeDir) -> Result<()> {
    match share.driver {
        ShareDriver::NineP => nine_p(args, index, share),
        ShareDriver::Virtiofs => virtiofs(args, index, run),
    }
}

/// A folder that another process serves, which reads and writes the guest's memory by itself.
fn virtiofs(args: &mut Args, index: usize, run: &RuntimeDir) -> Result<()> {
    let tag = tag(index);
    let socket = run.share(index);
    args.pair("-chardev", format!("socket,{}", list(&[("id", &tag), ("path", text(&socket)?)])));
    args.device(
        &json!({"driver": "vhost-user-fs-pci", "id": format!("{tag}-device"), "chardev": tag, "tag": tag}),
    );
    Ok(())
}

/// A folder of the host over 9p. QEMU 7.2 takes no JSON for the folder itself.
///
/// What the guest says of owners, modes and kinds of files is kept in extended attributes: so a guest's root makes no
/// device and no set-uid program on the host, and QEMU needs no rights of its own. Folders of the host that lie on
/// other disks get numbers of files of their own.
fn nine_p(args: &mut Args, index: usize, share: &Share) -> Result<()> {
    let tag = tag(index);
    let mut folder = vec![
        ("id", tag.as_str()),
        ("path", text(&share.source)?),
        ("security_model", "mapped-xattr"),
        ("multidevs", "remap"),
    ];
    if share.readonly {
        folder.push(("readonly", "on"));
    }
    args.pair("-fsdev", format!("local,{}", list(&folder)));
    args.device(
        &json!({"driver": "virtio-9p-pci", "id": format!("{tag}-device"), "fsdev": tag, "mount_tag": tag}),
    );
    Ok(())
}

/// The name by which the guest mounts share number `index`, from 0.
pub(crate) fn tag(index: usize) -> String {
    format!("share{index}")
}
