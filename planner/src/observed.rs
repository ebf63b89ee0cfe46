//! What the providers find now.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use vmctl_providers::{Inspect, Inspection};
use vmctl_state::{Address, Snapshot};

use crate::recorded::{RecordError, handle_of};

/// Machines looked at side by side; a connection each, so that file descriptors are the bound that matters.
const CONCURRENT_LOOKS: usize = 64;

/// How long one machine may take to answer. A hung one costs this once, whatever the number of machines.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// What was found, by address. A recorded machine without an entry was not looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The machines that were looked at.
    pub vms: BTreeMap<Address, Sight>,
}

/// What became of one look.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    /// It answered, or it is plain that it is not there.
    Seen(Box<Inspection>),
    /// It could not be asked; it may be in any state.
    Unreachable {
        /// Why.
        reason: String,
    },
}

/// Asks the providers about every recorded machine that has a handle, concurrently.
pub async fn refresh<H: Inspect>(host: &H, recorded: &Snapshot) -> Result<Observed, RecordError> {
    let mut known = Vec::new();
    for record in recorded.records.values() {
        if let Some(handle) = handle_of(record)? {
            known.push((record.address.clone(), handle));
        }
    }
    let vms = stream::iter(known)
        .map(|(address, handle)| async move {
            let sight = match tokio::time::timeout(LOOK_DEADLINE, host.inspect(&handle)).await {
                Ok(Ok(inspection)) => Sight::Seen(Box::new(inspection)),
                Ok(Err(error)) => Sight::Unreachable { reason: error.to_string() },
                Err(_) => Sight::Unreachable { reason: format!("no answer within {LOOK_DEADLINE:?}") },
            };
            (address, sight)
        })
        .buffer_unordered(CONCURRENT_LOOKS)
        .collect()
        .await;
    Ok(Observed { vms })
}
