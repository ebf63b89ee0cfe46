//! Asks whether what the VMFile says must hold in running machines does hold.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use vmctl_providers::{GuestAccess, Probe, Secrets, Verdict, VmHandle, VmState};
use vmctl_state::Address;

use crate::desired::{Desired, DesiredVm, Power};
use crate::observed::{Observed, Sight};

/// How long one probe may take. A guest that is busy answers late; one that hangs costs this once for each probe.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// Machines whose checks are asked side by side; each is an ssh session.
const CONCURRENT_GUESTS: usize = 16;

/// The name under which the conditions of `ready` are told.
const READY: &str = "ready";

/// What became of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The machine it is about.
    pub address: Address,
    /// What it is called; `ready` for the conditions of readiness.
    pub name: String,
    /// What became of it.
    pub status: CheckStatus,
    /// The probe that did not hold or could not be asked, and what was seen.
    pub detail: Option<String>,
}

/// What became of a check, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// All its probes hold.
    Pass,
    /// One of them does not.
    Fail,
    /// It could not be asked.
    Unknown,
}

impl CheckStatus {
    /// The status as printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

/// Asks the checks of every desired machine that is there and is to run, and its conditions of readiness if it has any
/// besides a login. Those of a machine that does not run cannot be asked. In the order of the machines, then of the
/// file.
pub async fn ask<H: GuestAccess>(host: &H, desired: &Desired, observed: &Observed) -> Vec<CheckResult> {
    let expected = desired.vms.values().filter(|vm| vm.power == Power::Running);
    let asked = expected.filter_map(|vm| {
        let address = Address::vm(vm.name.as_str());
        let sight = observed.vms.get(&address)?;
        Some(ask_one(host, address, vm, sight, &desired.secrets))
    });
    let results: Vec<Vec<CheckResult>> = stream::iter(asked).buffered(CONCURRENT_GUESTS).collect().await;
    results.concat()
}

async fn ask_one<H: GuestAccess>(
    host: &H,
    address: Address,
    vm: &DesiredVm,
    sight: &Sight,
    secrets: &Secrets,
) -> Vec<CheckResult> {
    let mut results = Vec::new();
    for (name, probes) in questions(vm) {
        let (status, detail) = match sight {
            Sight::Seen(seen) if seen.state == VmState::Running => answer(host, &seen.handle, probes).await,
            Sight::Seen(seen) => (CheckStatus::Unknown, Some(format!("it is {}", seen.state))),
            Sight::Unreachable { reason, .. } => (CheckStatus::Unknown, Some(reason.clone())),
        };
        let detail = detail.map(|detail| secrets.hide(&detail));
        results.push(CheckResult { address: address.clone(), name: name.to_owned(), status, detail });
    }
    results
}

/// What is asked of a machine, by name.
fn questions(vm: &DesiredVm) -> impl Iterator<Item = (&str, &[Probe])> {
    let says_more = vm.ready.probes.iter().any(|probe| *probe != Probe::Login);
    let ready = says_more.then_some((READY, &*vm.ready.probes));
    ready.into_iter().chain(vm.checks.iter().map(|check| (&*check.name, &*check.probes)))
}

async fn answer<H: GuestAccess>(
    host: &H,
    handle: &VmHandle,
    probes: &[Probe],
) -> (CheckStatus, Option<String>) {
    for probe in probes {
        match host.probe(handle, probe, PROBE_PATIENCE).await {
            Ok(Verdict::Holds) => {}
            Ok(Verdict::Fails(seen)) => return (CheckStatus::Fail, Some(format!("{probe}: {seen}"))),
            Err(error) => return (CheckStatus::Unknown, Some(format!("{probe}: {error}"))),
        }
    }
    (CheckStatus::Pass, None)
}
