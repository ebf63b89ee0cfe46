//! Whether the host has room for what a plan starts.
//!
//! [`shortages`] asks the host and gathers, `memory` and `disk` decide by plain numbers. Nothing of it is part of the
//! plan's decisions: what a host has changes from moment to moment, so that it is asked when a plan is shown and once
//! more when it is applied.

mod disk;
mod memory;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vmctl_providers::capacity::{Capacity, Space, allocated, space};
pub use vmctl_providers::capacity::{size, size_needed};
use vmctl_providers::image::ImageCache;
use vmctl_providers::{BackendTag, Error};
use vmctl_state::{Address, Snapshot};

use crate::change::Change;
use crate::plan::{Plan, PlannedImage, RemoteFetch};
use crate::recorded::{RecordError, handle_of};
use crate::step::StepKind;
use crate::target::Target;
use disk::DiskUse;
use memory::MemoryUse;

/// Something that the host has too little of for a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// What there is too little of.
    pub kind: ShortageKind,
    /// What the plan needs of it, in bytes.
    pub needed_bytes: u64,
    /// What there is for it, in bytes.
    pub available_bytes: u64,
    /// The disk, by a folder on it; none for memory.
    pub path: Option<PathBuf>,
    /// The machines that need it, sorted.
    pub machines: Vec<Address>,
    /// Whether the user said to go on all the same.
    pub overcommitted: bool,
    /// The shortage in words.
    pub text: String,
}

/// What a host can have too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortageKind {
    /// Memory for machines that start.
    Memory,
    /// Disk for images that are copied and machines that are made.
    Disk,
}

/// The host could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// A figure could not be had.
    #[error(transparent)]
    Host(Box<Error>),
    /// A record is not understood.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<Error> for AdmissionError {
    fn from(error: Error) -> Self {
        Self::Host(Box::new(error))
    }
}

/// Machines named in a message; a plan may have thousands.
const NAMED: usize = 8;

/// What the host has too little of for `plan`, which was made from `recorded`. Asks the host and changes nothing.
///
/// A plan that starts and makes nothing lacks nothing, and costs no question.
pub fn shortages<H: Capacity>(
    plan: &Plan,
    recorded: &Snapshot,
    host: &H,
    images: &ImageCache,
) -> Result<Vec<Shortage>, AdmissionError> {
    let mut found = Vec::new();
    if plan.changes.iter().any(|change| change.up.contains(&StepKind::Start)) {
        for (backend, uses) in memory_uses(plan, recorded, host)? {
            if let Some(available) = host.memory(backend)? {
                found.extend(memory::shortage(&uses, available));
            }
        }
    }
    if plan.changes.iter().any(|change| change.up.contains(&StepKind::Prepare)) {
        found.extend(disk_uses(plan, host, images)?.into_iter().filter_map(|disk| disk.shortage()));
    }
    Ok(found)
}

/// What each machine of the project holds, was promised and is to have; machines that are off before and after are
/// left out.
fn memory_uses<H: Capacity>(
    plan: &Plan,
    recorded: &Snapshot,
    host: &H,
) -> Result<BTreeMap<BackendTag, Vec<MemoryUse>>, AdmissionError> {
    let changes: BTreeMap<&Address, &Change> =
        plan.changes.iter().map(|change| (&change.address, change)).collect();
    let mut uses: BTreeMap<BackendTag, Vec<MemoryUse>> = BTreeMap::new();
    let mut live = BTreeMap::new();
    for record in recorded.records.values() {
        let Some(handle) = handle_of(record)? else { continue };
        let Some(holds) = host.held(&handle)? else { continue };
        let promised = host.footprint(handle.backend, &handle.machine)?.memory;
        let goes = changes.get(&record.address).is_some_and(|change| {
            change.down.iter().any(|step| matches!(step, StepKind::Stop | StepKind::Destroy))
        });
        live.insert(&record.address, goes);
        let address = record.address.clone();
        uses.entry(handle.backend).or_default().push(MemoryUse::Live { address, holds, promised, goes });
    }
    for change in plan.changes.iter().filter(|change| change.up.contains(&StepKind::Start)) {
        // One that runs and goes on is only taken into the record.
        let starts = live.get(&change.address).copied().unwrap_or(true);
        if let Some(target) = plan.targets.get(&change.address).filter(|_| starts) {
            let wants = host.footprint(target.spec.backend, &target.spec.machine)?.memory;
            let address = change.address.clone();
            uses.entry(target.spec.backend).or_default().push(MemoryUse::Starts { address, wants });
        }
    }
    Ok(uses)
}

/// What is to be written, by file system.
fn disk_uses<H: Capacity>(
    plan: &Plan,
    host: &H,
    images: &ImageCache,
) -> Result<Vec<DiskUse>, AdmissionError> {
    let mut disks: BTreeMap<u64, DiskUse> = BTreeMap::new();
    let mut folders: BTreeMap<BackendTag, Option<Space>> = BTreeMap::new();
    let cache = space(images.folder())?;
    for change in plan.changes.iter().filter(|change| change.up.contains(&StepKind::Prepare)) {
        let address = &change.address;
        let Some(target) = plan.targets.get(address) else { continue };
        let backend = target.spec.backend;
        let folder = match folders.get(&backend) {
            Some(folder) => folder,
            None => folders.entry(backend).or_insert(host.disk(backend)?),
        };
        if let Some(folder) = folder {
            let bytes = host.footprint(backend, &target.spec.machine)?.disk;
            disks.entry(folder.device).or_insert_with(|| DiskUse::on(folder)).machine(folder, address, bytes);
        }
        let is_here = target.spec.machine.image.as_ref().is_some_and(|image| images.has(image));
        let Some(image) = target.image.clone().filter(|_| !is_here) else { continue };
        let bytes = match plan.images.get(&image) {
            Some(PlannedImage::Local(source)) => allocated(&source.source)?,
            Some(PlannedImage::Remote(fetch)) => downloaded(fetch, target),
            None => continue,
        };
        disks.entry(cache.device).or_insert_with(|| DiskUse::on(&cache)).image(&cache, image, address, bytes);
    }
    Ok(disks.into_values().collect())
}

/// What a download takes at least: its own bytes, as far as they are known. What is unpacked of it beside them is never
/// more than the disk that comes out, and mostly far less, so that it is no reason to refuse.
fn downloaded(fetch: &RemoteFetch, target: &Target) -> u64 {
    let disk = target.spec.machine.image.as_ref().map(|image| image.virtual_size);
    fetch.size.map_or(0, |size| disk.map_or(size, |disk| size.min(disk)))
}

/// Names of machines, as many as fit into a message.
fn names(machines: &[Address]) -> String {
    let named: Vec<_> = machines.iter().take(NAMED).map(|address| format!("`{}`", address.name())).collect();
    match machines.len().checked_sub(NAMED).filter(|left| *left > 0) {
        None => named.join(", "),
        Some(left) => format!("{} and {left} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_machines_are_cut() {
        let machines: Vec<_> = (0..10).map(|number| Address::vm(&format!("m-{number}"))).collect();
        assert_eq!(names(&machines[..1]), "`m-0`");
        assert!(names(&machines).ends_with("`m-7` and 2 more"));
    }
}
