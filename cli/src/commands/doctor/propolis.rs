//! What Propolis needs, where it is of interest: to a project with machines of that backend, and on illumos.

use std::path::Path;

use vmctl_planner::Desired;
use vmctl_planner::vmfile::{self, Images, LoadOptions};
use vmctl_providers::image::{ImageError, ImageIdentity};
use vmctl_providers::propolis::survey::{Found, Uses, survey};
use vmctl_providers::{BackendTag, Digest, Error, ImageFormat, NetworkConfig};

use super::{Check, Status, repair};
use crate::context::Context;

/// How the kernel of illumos calls its system.
const ILLUMOS: &str = "SunOS";

/// Checks that are about QEMU, which a project of Propolis alone does not need.
const OF_QEMU: [&str; 4] = ["qemu", "qemu features", "qemu-img", "acceleration"];

/// What is of interest of Propolis.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// What is used; nothing if Propolis is of no interest.
    uses: Uses,
    /// How bad it is if that is missing.
    otherwise: Option<Status>,
    /// No machine needs another backend.
    is_alone: bool,
}

impl Interest {
    /// What is of interest here. A VMFile that cannot be read says nothing; `vmctl validate` tells why.
    pub(super) fn of(ctx: &Context) -> Self {
        let asked = asked(ctx).map(|desired| of_project(&desired)).unwrap_or_default();
        match asked.otherwise {
            None if rustix::system::uname().sysname().to_bytes() == ILLUMOS.as_bytes() => {
                Self { uses: Uses::anything(), otherwise: Some(Status::Warn), is_alone: false }
            }
            None | Some(_) => asked,
        }
    }

    /// Looks for it.
    pub(super) async fn look(&self) -> Vec<Check> {
        match self.otherwise {
            None => Vec::new(),
            Some(otherwise) => {
                survey(&self.uses).await.into_iter().map(|found| check(found, otherwise)).collect()
            }
        }
    }

    /// Takes QEMU for what can be done without, where that is so.
    pub(super) fn weigh(&self, checks: &mut [Check]) {
        let dispensable = checks.iter_mut().filter(|check| self.is_alone && OF_QEMU.contains(&check.name));
        for check in dispensable.filter(|check| check.status == Status::Fail) {
            check.status = Status::Warn;
        }
    }
}

fn of_project(desired: &Desired) -> Interest {
    let mut interest = Interest { is_alone: true, ..Interest::default() };
    for vm in desired.vms.values() {
        if vm.backend != BackendTag::Propolis {
            interest.is_alone = false;
            continue;
        }
        let is_on_a_vnic = vm.networks.iter().any(|network| matches!(network, NetworkConfig::Vnic { .. }));
        interest.uses.add(&vm.hardware.propolis, is_on_a_vnic);
        interest.otherwise = Some(Status::Fail);
    }
    interest.is_alone &= interest.otherwise.is_some();
    interest
}

/// One line for one thing, whatever of it is there.
fn check(found: Found, otherwise: Status) -> Check {
    let (seen, missing): (Vec<_>, Vec<_>) = found.seen.into_iter().partition(Result::is_ok);
    let missing: Vec<_> = missing.into_iter().filter_map(Result::err).collect();
    if missing.is_empty() {
        let seen: Vec<_> = seen.into_iter().flatten().collect();
        return Check::new(found.name, Status::Ok, seen.join(", "));
    }
    let told = missing.iter().map(|error| match error {
        Error::BackendUnavailable { reason, .. } => reason.clone(),
        other => other.to_string(),
    });
    let told: Vec<_> = told.collect();
    Check::new(found.name, otherwise, told.join("; ")).fix(missing.iter().find_map(repair))
}

/// What the VMFile asks for, as far as it is known without a look at any image.
fn asked(ctx: &Context) -> Option<Desired> {
    let path = ctx.has_vmfile().then(|| ctx.vmfile().ok()).flatten()?;
    let options = LoadOptions {
        project: ctx.settings.project.clone(),
        home: ctx.settings.home.clone(),
        images: &Unseen,
        given: ctx.given(),
    };
    vmfile::load(&path, &options).ok().map(|loaded| loaded.desired)
}

/// Images that are taken for granted: to identify one is to read all of it.
#[derive(Debug)]
struct Unseen;

impl Images for Unseen {
    fn identify(&self, _source: &Path) -> Result<ImageIdentity, ImageError> {
        Ok(ImageIdentity { digest: Digest::of(""), format: ImageFormat::Raw, virtual_size: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_told_and_the_rest_left_out() {
        let missing = || {
            let (program, package) = ("zfs".to_owned(), "disks");
            Error::ProgramMissing { program, package }
        };
        let found = |seen| Found { name: "zfs", seen };
        let good = check(found(vec![Ok("a".to_owned()), Ok("b".to_owned())]), Status::Fail);
        assert_eq!((good.status, good.detail.as_str(), good.fix), (Status::Ok, "a, b", None));
        let bad = check(found(vec![Ok("a".to_owned()), Err(missing())]), Status::Warn);
        assert_eq!((bad.status, bad.detail.as_str()), (Status::Warn, "`zfs` was not found in PATH"));
    }

    #[test]
    fn qemu_is_no_need_of_a_project_of_propolis_alone() {
        for (is_alone, expected) in [(true, Status::Warn), (false, Status::Fail)] {
            let interest = Interest { is_alone, ..Interest::default() };
            let mut checks = ["qemu", "setsid"].map(|name| Check::new(name, Status::Fail, ""));
            interest.weigh(&mut checks);
            assert_eq!([checks[0].status, checks[1].status], [expected, Status::Fail]);
        }
    }
}
