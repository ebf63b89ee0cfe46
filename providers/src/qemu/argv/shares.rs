//! Folders of the host.

use serde_json::json;

use super::{Args, list, text};
use crate::error::Result;
use crate::spec::Share;

/// A folder of the host over 9p. QEMU 7.2 takes no JSON for the folder itself.
///
/// What the guest says of owners, modes and kinds of files is kept in extended attributes: so a guest's root makes no
/// device and no set-uid program on the host, and QEMU needs no rights of its own. Folders of the host that lie on
/// other disks get numbers of files of their own.
pub(super) fn share(args: &mut Args, index: usize, share: &Share) -> Result<()> {
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
