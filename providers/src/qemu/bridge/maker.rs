//! Who makes tap devices here: this process, where it may, else QEMU's bridge helper.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::acl::{self, LIST, Says};
use super::tun::{self, TUN};
use crate::error::Error;
use crate::packages;
use crate::process::find_program;

/// Where distributions have QEMU's bridge helper: Debian and Arch, Fedora, openSUSE, and whoever builds it.
const HELPERS: [&str; 4] = [
    "/usr/lib/qemu/qemu-bridge-helper",
    "/usr/libexec/qemu-bridge-helper",
    "/usr/lib/qemu-bridge-helper",
    "/usr/local/libexec/qemu-bridge-helper",
];

/// The capability to make network devices and put them on bridges (capabilities(7)).
const NET_ADMIN: u32 = 12;

/// Who makes tap devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maker {
    /// This process.
    Us,
    /// QEMU's bridge helper, at this path.
    Helper(PathBuf),
}

/// Why no tap device can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Why, as a clause.
    pub reason: String,
    /// What to do next.
    pub help: String,
}

impl Obstacle {
    fn new(reason: impl Into<String>, help: impl Into<String>) -> Self {
        Self { reason: reason.into(), help: help.into() }
    }

    /// The error that it is for a card on `bridge`.
    pub(super) fn on(self, bridge: &str) -> Error {
        Error::Bridge { bridge: bridge.to_owned(), reason: self.reason, help: self.help }
    }
}

impl Maker {
    /// Chooses: a helper that was `named`, else this process where it may, else a helper of a usual place. An obstacle
    /// says why nobody can.
    pub fn choose(named: Option<&Path>) -> Result<Self, Obstacle> {
        let maker = match named {
            Some(path) => Self::Helper(usable(path)?),
            None if may_administer() => Self::Us,
            None => match HELPERS.iter().map(Path::new).find(|path| path.exists()) {
                Some(path) => Self::Helper(usable(path)?),
                None => return Err(no_helper()),
            },
        };
        // The helper, too, opens it as whoever runs it.
        tun::open().map(|_| maker).map_err(|error| no_tun(&error))
    }

    /// Whether it makes devices for `bridge`.
    pub(super) fn serves(&self, bridge: &str) -> Result<(), Obstacle> {
        match self {
            Self::Helper(path) if acl::ask(Path::new(LIST), bridge) == Says::No => Err(Obstacle::new(
                format!("`{LIST}` does not let `{}` give cards on it", path.display()),
                format!(
                    "let it: {}echo 'allow {bridge}' | sudo tee -a {LIST}",
                    if Path::new(LIST).exists() { "" } else { "sudo mkdir -p /etc/qemu && " }
                ),
            )),
            Self::Us | Self::Helper(_) => Ok(()),
        }
    }
}

fn no_tun(error: &io::Error) -> Obstacle {
    let help = match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("let users open it, which gives them no right by itself: sudo chmod 666 {TUN}")
        }
        _ => format!("load the kernel's module: sudo modprobe tun; a container needs `--device {TUN}`"),
    };
    Obstacle::new(format!("`{TUN}` cannot be opened: {error}"), help)
}

fn no_helper() -> Obstacle {
    Obstacle::new(
        "this user may not make network devices (CAP_NET_ADMIN), and QEMU's bridge helper, which may, is in none of \
         its usual places",
        format!(
            "run vmctl as root; or, for the helper, {}; or name one that is elsewhere with VMCTL_BRIDGE_HELPER",
            packages::advice("qemu-system-common")
        ),
    )
}

/// The helper at `path`, if it can be run, and may do what it is for.
fn usable(path: &Path) -> Result<PathBuf, Obstacle> {
    let shown = path.display();
    let cannot = |error: io::Error| {
        let help = "VMCTL_BRIDGE_HELPER names QEMU's bridge helper: correct it, or unset it";
        Obstacle::new(format!("the bridge helper `{shown}` cannot be run: {error}"), help)
    };
    let found = fs::metadata(path).map_err(cannot)?;
    if !found.is_file() {
        return Err(cannot(ErrorKind::InvalidInput.into()));
    }
    rustix::fs::access(path, Access::EXEC_OK).map_err(|error| cannot(error.into()))?;
    let is_roots = found.uid() == 0 && found.mode() & 0o4000 != 0;
    if may_administer() || is_roots || has_capabilities(path) {
        return Ok(path.to_owned());
    }
    let command = match find_program("dpkg-statoverride") {
        Some(_) => format!("sudo dpkg-statoverride --update --add root root 4755 {shown}"),
        None => format!("sudo chmod u+s {shown}"),
    };
    Err(Obstacle::new(
        format!(
            "this user may not make network devices (CAP_NET_ADMIN), and neither may `{shown}`: it has no right of \
             its own (setuid)"
        ),
        format!("run vmctl as root; or give the helper that right: {command}"),
    ))
}

/// Whether the program at `path` gets capabilities by its file (capabilities(7)).
fn has_capabilities(path: &Path) -> bool {
    rustix::fs::getxattr(path, "security.capability", &mut [0; 64][..]).is_ok_and(|length| length > 0)
}

/// Whether this process, and what it runs, may make network devices.
fn may_administer() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    administers(&status, rustix::process::geteuid().is_root())
}

/// Decides by `/proc/PID/status`: root hands its capabilities on to what it runs, others the ambient ones alone.
fn administers(status: &str, is_root: bool) -> bool {
    let set = if is_root { "CapEff:" } else { "CapAmb:" };
    let held = status.lines().find_map(|line| line.strip_prefix(set));
    held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok())
        .is_some_and(|held| held >> NET_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn rights_are_those_that_what_we_run_has_as_well() {
        let status = |effective, ambient| format!("Uid:\t0\nCapEff:\t{effective}\nCapAmb:\t{ambient}\n");
        let (all, none, net_admin) = ("000001ffffffffff", "0000000000000000", "0000000000001000");
        assert!(administers(&status(all, none), true));
        assert!(administers(&status(net_admin, none), true));
        assert!(!administers(&status("000001ffffffefff", none), true));
        assert!(!administers(&status(all, none), false), "a child would not have it");
        assert!(administers(&status(net_admin, net_admin), false));
        assert!(!administers("", true));
    }

    #[test]
    fn helper_that_cannot_be_run_is_an_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("helper");
        let refused = |path: &Path| Maker::choose(Some(path)).unwrap_err();
        assert!(refused(&path).reason.ends_with("cannot be run: No such file or directory (os error 2)"));
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(refused(&path).reason.ends_with("cannot be run: Permission denied (os error 13)"));
        assert!(refused(folder.path()).help.contains("VMCTL_BRIDGE_HELPER"));
    }
}
