//! How a process that is gone ended, from what it left in its runtime folder.
//!
//! QEMU removes its pidfile when it ends in order, which includes that it was told to quit or to terminate; one that
//! was killed or crashed leaves it. Our own stop removes the whole folder, and with it every trace.

use super::backend::QemuBackend;
use crate::abilities::Ending;
use crate::spec::{Digest, VmHandle};

/// Where Linux tells which boot of the host this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where Linux tells which host this is (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// What is left of a runtime folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trace {
    Pidfile,
    Folder,
    Nothing,
}

/// The host's boot; `None` where it does not tell.
pub(crate) fn boot() -> Option<String> {
    std::fs::read_to_string(BOOT_ID).ok().map(|text| text.trim().to_owned())
}

/// This host, as a digest of its machine id; `None` where it has none, as many containers do not.
pub(crate) fn host() -> Option<String> {
    let id = std::fs::read_to_string(MACHINE_ID).ok()?;
    let id = id.trim();
    // machine-id(5) asks to keep the id itself to this host.
    (id.len() == 32).then(|| Digest::of(format!("vmctl {id}")).hex()[..16].to_owned())
}

impl QemuBackend {
    /// How the last process of a machine ended that has none now. A machine that was stopped by us is
    /// [`Ending::Unknown`].
    pub(super) fn ending(&self, vm: &VmHandle) -> Ending {
        let run = self.runtime_dir(vm.id);
        let trace = match (run.pidfile().exists(), run.path().exists()) {
            (true, _) => Trace::Pidfile,
            (false, true) => Trace::Folder,
            (false, false) => Trace::Nothing,
        };
        let started = vm.runtime.as_ref().and_then(|runtime| runtime.boot.as_deref());
        decide(started, boot().as_deref(), trace)
    }
}

fn decide(started: Option<&str>, now: Option<&str>, trace: Trace) -> Ending {
    match (started, now) {
        (Some(started), Some(now)) if started != now => Ending::HostRestarted,
        _ => match trace {
            Trace::Pidfile => Ending::Cut,
            Trace::Folder => Ending::InOrder,
            Trace::Nothing => Ending::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_boot_tells_more_than_what_is_left() {
        let (one, two) = (Some("1"), Some("2"));
        for trace in [Trace::Pidfile, Trace::Folder, Trace::Nothing] {
            assert_eq!(decide(one, two, trace), Ending::HostRestarted);
        }
        for (started, now) in [(one, one), (None, one), (one, None), (None, None)] {
            assert_eq!(decide(started, now, Trace::Pidfile), Ending::Cut);
            assert_eq!(decide(started, now, Trace::Folder), Ending::InOrder);
            assert_eq!(decide(started, now, Trace::Nothing), Ending::Unknown);
        }
    }
}
