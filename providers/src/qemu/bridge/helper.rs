//! QEMU's bridge helper: makes a tap device on a bridge for whoever its list allows it, and hands over the open file.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::IoSliceMut;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use super::maker::Obstacle;
use crate::error::{Error, Result};
use crate::process::helper_given;

/// How long it may take. It makes some ten system calls.
const DEADLINE: Duration = Duration::from_secs(10);

/// Lets the helper at `path` make a tap device on `bridge`.
pub(super) async fn tap(path: &Path, bridge: &str) -> Result<OwnedFd> {
    let failed = |error: rustix::io::Errno| Error::io("listen to", path)(error.into());
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let args = ["--use-vnet".to_owned(), format!("--fd={}", theirs.as_raw_fd()), format!("--br={bridge}")];
    helper_given(path, &args, vec![theirs], DEADLINE).await.map_err(|error| match error {
        Error::Command(error) => Obstacle {
            reason: error.to_string(),
            help: format!(
                "it needs the right to make network devices (`ls -l {}` shows `rws`) and a line `allow {bridge}` in \
                 {}; or run vmctl as root",
                path.display(),
                super::acl::LIST,
            ),
        }
        .on(bridge),
        other => other,
    })?;
    received(&ours).map_err(Error::io("take a tap device from", path))
}

/// The file that waits on `socket`. Whoever sent it has ended.
fn received(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut control, flags)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    files.flatten().next().ok_or_else(|| io::Error::other("it handed over no open file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn helper_that_refuses_or_gives_nothing_is_told() {
        let error = tap(Path::new("/bin/false"), "br0").await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("the bridge `br0` cannot be used: `/bin/false --use-vnet --fd="), "{text}");
        assert!(text.ends_with(" --br=br0` failed with exit code 1"), "{text}");
        assert!(error.help().unwrap().contains("allow br0"));
        assert!(matches!(tap(Path::new("/bin/true"), "br0").await, Err(Error::Io { .. })));
    }
}
