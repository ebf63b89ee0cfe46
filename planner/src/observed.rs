//! What the providers find now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use vmctl_providers::{
    Custody, Digest, Error, FoundVolume, Inspect, Inspection, InstanceId, Name, Stray, VmHandle,
};
use vmctl_state::{Address, Opaque, Snapshot};

use crate::checks::CheckResult;
use crate::desired::Desired;
use crate::pins::UpstreamSight;
use crate::recorded::RecordError;
use crate::warm::SeenTemplate;

/// Machines looked at side by side. Each holds up to four file descriptors, which are the bound that matters: a process
/// that may open 256 files must get by.
const CONCURRENT_LOOKS: usize = 40;

/// How long one machine may take to answer. A hung one costs this once, whatever the number of machines.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// What was found, by address. A recorded machine without an entry was not looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// The machines that were looked at.
    pub vms: BTreeMap<Address, Sight>,
    /// Machines of the project that no record knows; those let go of on purpose included.
    pub strays: Vec<Stray>,
    /// The volumes of the project, by name; absent if nobody looked.
    #[serde(default)]
    pub volumes: Option<Vec<FoundVolume>>,
    /// What became of the checks that were asked.
    pub checks: Vec<CheckResult>,
    /// Whether servers still have the images that are pinned, by URL as it is shown; of those that were asked.
    #[serde(default)]
    pub upstream: BTreeMap<String, UpstreamSight>,
    /// The templates that machines would be made from, by key; see [`crate::warm`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<Digest, SeenTemplate>,
    /// What was looked at.
    pub looked: Looked,
}

/// What was looked at: nothing found is not the same as nobody looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Whether the providers were asked about the recorded machines.
    pub refreshed: bool,
    /// Whether the checks of running machines were asked.
    pub checks_asked: bool,
}

/// What became of one look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// It answered, or it is plain that it is not there.
    Seen(Box<Inspection>),
    /// It could not be asked; it may be in any state.
    Unreachable {
        /// Why.
        reason: String,
        /// Whether its process is not one of this host, or works on another copy of its files.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        elsewhere: bool,
    },
}

/// Asks the providers about every recorded machine that has a handle, concurrently, on as many threads as the runtime has.
///
/// # Errors
///
/// A record that cannot be understood. That a machine cannot be asked is a [`Sight`].
pub async fn refresh<H: Inspect + 'static>(
    host: &Arc<H>,
    recorded: &Snapshot,
) -> Result<Observed, RecordError> {
    let records = recorded.records.values();
    let known: Vec<_> =
        records.filter_map(|record| Some((record.address.clone(), record.handle.clone()?))).collect();
    let at_once = known.len().min(CONCURRENT_LOOKS);
    // Whoever is done with one takes the next, so that machines that hang hold up nobody but whoever looks at them.
    let left = Arc::new(Mutex::new(known.into_iter()));
    let mut looks = JoinSet::new();
    for _ in 0..at_once {
        looks.spawn(look_at_some(Arc::clone(host), Arc::clone(&left)));
    }
    let mut vms = BTreeMap::new();
    for seen in looks.join_all().await {
        vms.extend(seen?);
    }
    Ok(Observed { vms, looked: Looked { refreshed: true, checks_asked: false }, ..Observed::default() })
}

/// Machines that nobody looked at yet, and what their records hold for their provider.
type Left = Mutex<std::vec::IntoIter<(Address, Opaque)>>;

/// Looks at one machine after the other, as long as there are any left.
async fn look_at_some<H: Inspect>(
    host: Arc<H>,
    left: Arc<Left>,
) -> Result<Vec<(Address, Sight)>, RecordError> {
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut seen = Vec::new();
    while let Some((address, handle)) = next() {
        match handle.decoded() {
            Ok(handle) => seen.push((address, look_at(&*host, handle).await)),
            Err(source) => return Err(RecordError { address, source }),
        }
    }
    Ok(seen)
}

async fn look_at<H: Inspect>(host: &H, handle: Arc<VmHandle>) -> Sight {
    match tokio::time::timeout(LOOK_DEADLINE, host.inspect(&handle)).await {
        Ok(Ok(mut inspection)) => {
            // Most machines are as they were recorded, and thousands of them fill a memory.
            if inspection.handle == handle {
                inspection.handle = handle;
            }
            Sight::Seen(Box::new(inspection))
        }
        Ok(Err(error)) => Sight::Unreachable {
            reason: error.to_string(),
            elsewhere: matches!(error, Error::Elsewhere { .. }),
        },
        Err(_) => {
            Sight::Unreachable { reason: format!("no answer within {LOOK_DEADLINE:?}"), elsewhere: false }
        }
    }
}

/// Finds machines of `project` that no record knows, without those that `desired` lets go of.
pub async fn strays<H: Custody>(
    host: &H,
    project: &Name,
    recorded: &Snapshot,
    desired: Option<&Desired>,
) -> Result<Vec<Stray>, Error> {
    let known: BTreeSet<_> = recorded.records.values().map(|record| InstanceId(record.instance)).collect();
    let mut strays = host.strays(project, &known).await?;
    let removed = |stray: &Stray| {
        desired.is_some_and(|desired| desired.removed.iter().any(|name| name.as_str() == stray.name))
    };
    strays.retain(|stray| !removed(stray));
    Ok(strays)
}
