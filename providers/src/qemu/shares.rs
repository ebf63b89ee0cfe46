//! Folders of the host: whether they can be shared, and mounting them in the guest.
//!
//! A guest mounts nothing by itself: what a seed says is read once, and many guests have no seed. So they are mounted
//! over ssh, each time that the machine has started, before it counts as ready.

use rustix::fs::getxattr;
use rustix::io::Errno;
use tokio::time::Instant;

use super::argv::{tag, text};
use super::virtiofs;
use crate::error::{Error, Result};
use crate::spec::{Machine, Share, ShareDriver};
use crate::ssh::{CarriedOut, Session, quote};

/// An attribute that QEMU keeps with files that a guest made. Asking for one tells whether there can be any.
const OWNER: &str = "user.virtfs.uid";

/// Most bytes that travel at once. What Linux takes without splitting; the default of 8 KiB makes every file slow.
const MSIZE: u32 = 256 << 10;

/// What the guest's shell runs before the shares are mounted. A guest without the program that loads modules, or with
/// all of them in its kernel, goes on.
const BEFORE: &str = r#"set -e
at() {
    grep -q "^$1 " /proc/mounts && return
    case $3 in 9p) modprobe -a 9p 9pnet_virtio;; *) modprobe "$3";; esac 2>/dev/null || :
    mkdir -p "$2"
    mount -t "$3" -o "$4" "$1" "$2"
}
"#;

/// Refuses folders that are gone, and those that could not be shared as the machine asks for.
pub(super) async fn check_shares(machine: &Machine) -> Result<()> {
    machine.shares.iter().try_for_each(check)?;
    virtiofs::check(&machine.shares).await
}

fn check(share: &Share) -> Result<()> {
    let path = &share.source;
    text(path)?;
    let refuse = |reason: &str| Err(Error::Unusable { path: path.clone(), reason: reason.to_owned() });
    if !path.is_dir() {
        return refuse("it is to be shared, and is no folder now");
    }
    match getxattr(path, OWNER, &mut [0_u8; 16]) {
        Err(Errno::NOTSUP) if !share.readonly && share.driver == ShareDriver::NineP => refuse(
            "it is to be shared, and its file system cannot keep what a guest says of its files; share it `readonly`, \
             or a folder of a file system with extended attributes",
        ),
        _ => Ok(()),
    }
}

/// Mounts what is not mounted yet. A share that the guest has mounted elsewhere by itself is left there.
pub(super) async fn mount(session: &Session, shares: &[Share], deadline: Instant) -> Result<()> {
    match session.carry_out(&command(shares), deadline).await? {
        CarriedOut::Done => Ok(()),
        CarriedOut::Failed(said) => Err(Error::Mount { said, in_time: true }),
        CarriedOut::TooLate => {
            let said = "the guest has not mounted them in time".to_owned();
            Err(Error::Mount { said, in_time: false })
        }
    }
}

/// The line for the login user's shell.
fn command(shares: &[Share]) -> String {
    let mut script = BEFORE.to_owned();
    for (index, share) in shares.iter().enumerate() {
        let mode = if share.readonly { "ro" } else { "rw" };
        let how = match share.driver {
            ShareDriver::NineP => format!("9p trans=virtio,version=9p2000.L,msize={MSIZE},{mode}"),
            ShareDriver::Virtiofs => format!("virtiofs {mode}"),
        };
        script.push_str(&format!("at {} {} {how}\n", tag(index), quote(&share.target)));
    }
    let script = quote(&script);
    format!("if [ \"$(id -u)\" = 0 ]; then sh -c {script}; else sudo -n sh -c {script}; fi")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn share(source: &Path, target: &str, readonly: bool) -> Share {
        Share { source: source.to_owned(), target: target.to_owned(), readonly, driver: ShareDriver::NineP }
    }

    #[test]
    fn folders_that_are_gone_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        check(&share(folder.path(), "/mnt", true)).unwrap();
        for path in [file, folder.path().join("missing")] {
            let error = check(&share(&path, "/mnt", true)).unwrap_err().to_string();
            assert!(error.ends_with("is no folder now"), "{error}");
        }
    }
}
