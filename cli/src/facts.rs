//! What is shown of a machine: the facts, with names that are a promise to scripts.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use vmctl_planner::observed::Sight;
use vmctl_providers::workdir::WorkDir;
use vmctl_providers::{Damage, DiskImage, Forward, Inspection, Nic, Stall, process};

use vmctl_state::FailedProvision;

use crate::commands::ssh::arguments;
use crate::machines::{Machine, is_live, phase_word};
use crate::reach::reachable;

/// Everything known about one machine: an element of `list --json`, and `vm` of `status --json`.
///
/// Names and meanings are a promise to scripts; fields may be added.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) project: String,
    pub(crate) id: String,
    pub(crate) backend: String,
    pub(crate) state: &'static str,
    pub(crate) recorded: &'static str,
    pub(crate) unreachable: Option<String>,
    pub(crate) tainted: Option<String>,
    pub(crate) ready: bool,
    pub(crate) vcpus: Option<u16>,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) image: Option<DiskImage>,
    pub(crate) networks: Vec<Nic>,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) work_dir: Option<PathBuf>,
    pub(crate) overlay: Option<PathBuf>,
    pub(crate) seed: Option<PathBuf>,
    pub(crate) uefi_variables: Option<PathBuf>,
    pub(crate) pid: Option<u32>,
    pub(crate) accel: Option<String>,
    pub(crate) vnc: Option<String>,
    pub(crate) ssh: Option<SshFacts>,
    pub(crate) provisioned: Vec<StepFacts>,
    pub(crate) provision_interrupted: Option<CutOffFacts>,
    pub(crate) provision_failed: Option<FailedProvision>,
    pub(crate) forced_stop: Option<String>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) stall: Option<Stall>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// How to log in to a running machine.
#[derive(Debug, Serialize)]
pub(crate) struct SshFacts {
    pub(crate) user: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) private_key: PathBuf,
    pub(crate) command: String,
}

/// A provisioning step that ran to its end.
#[derive(Debug, Serialize)]
pub(crate) struct StepFacts {
    pub(crate) step: usize,
    pub(crate) digest: String,
    pub(crate) at: Timestamp,
}

/// A provisioning step that was cut off.
#[derive(Debug, Serialize)]
pub(crate) struct CutOffFacts {
    pub(crate) number: u32,
    pub(crate) label: String,
    pub(crate) at: Timestamp,
}

impl Machine {
    /// Everything known, in the form in which it is shown.
    pub(crate) fn facts(&self) -> Facts {
        let found = self.inspection();
        let handle = self.handle.as_deref();
        let files = handle.map(|handle| WorkDir::new(&handle.work_dir));
        let lives = |found: &&Inspection| is_live(found.state) || found.stall.is_some();
        let runtime = found.filter(lives).and_then(|found| found.handle.runtime.as_ref());
        let target = runtime.and(handle).and_then(reachable);
        Facts {
            name: self.name().to_owned(),
            address: self.record.address.to_string(),
            project: self.project.to_string(),
            id: self.record.instance.to_string(),
            backend: self.record.backend.clone(),
            state: self.state(),
            recorded: phase_word(self.record.phase),
            unreachable: match &self.sight {
                Some(Sight::Unreachable { reason, .. }) => Some(reason.clone()),
                Some(Sight::Seen(_)) | None => None,
            },
            tainted: self.record.taint.clone(),
            ready: self.record.ready && runtime.is_some(),
            vcpus: handle.map(|handle| handle.machine.vcpus),
            memory_mib: handle.map(|handle| handle.machine.memory_mib),
            disk_bytes: handle.and_then(|handle| handle.machine.disk_size()),
            image: handle.and_then(|handle| handle.machine.image.clone()),
            networks: handle.map(|handle| handle.machine.nics.clone()).unwrap_or_default(),
            forwards: runtime.map(|runtime| runtime.forwards.clone()).unwrap_or_default(),
            ip: runtime.and_then(|runtime| runtime.address),
            work_dir: files.as_ref().map(|files| files.path().to_owned()),
            overlay: files
                .as_ref()
                .filter(|_| handle.is_some_and(|handle| handle.machine.disk_size().is_some()))
                .map(WorkDir::overlay),
            seed: files.as_ref().filter(|_| handle.is_some_and(|handle| handle.seed)).map(WorkDir::seed),
            uefi_variables: files
                .as_ref()
                .filter(|_| handle.is_some_and(|handle| handle.uefi.is_some()))
                .map(WorkDir::variables),
            // The fake backend has no process.
            pid: runtime.map(|runtime| runtime.pid).filter(|pid| *pid != 0),
            accel: runtime.map(|runtime| runtime.accel.clone()),
            vnc: runtime.and_then(|runtime| runtime.vnc.clone()),
            ssh: target.map(|target| SshFacts {
                command: process::quote("ssh", &arguments(&target, &[])),
                user: target.user,
                address: target.address.ip(),
                port: target.address.port(),
                private_key: target.private_key,
            }),
            provisioned: self
                .record
                .provisioned
                .iter()
                .zip(1..)
                .map(|(step, number)| StepFacts { step: number, digest: step.digest.clone(), at: step.at })
                .collect(),
            provision_interrupted: self.interrupted.as_ref().map(|step| CutOffFacts {
                number: step.number,
                label: step.label.clone(),
                at: step.at,
            }),
            provision_failed: self.record.provision_failed.clone().filter(|_| self.interrupted.is_none()),
            forced_stop: handle.and_then(|handle| handle.forced_stop.clone()),
            damage: found.map(|found| found.damage.clone()).unwrap_or_default(),
            stall: found.and_then(|found| found.stall.clone()),
            created: self.record.created,
            updated: self.record.updated,
        }
    }
}
