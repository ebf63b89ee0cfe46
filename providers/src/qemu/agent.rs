//! What vmctl uses the guest agent for, where there is one: powering off a guest that does not heed its power button,
//! addresses that only the guest knows, and commands in a guest that vmctl does not log in to.

use std::time::Duration;

use super::backend::QemuBackend;
use super::places::RuntimeDir;
use super::qmp::Agent;
use crate::abilities::GuestInterface;
use crate::error::Result;
use crate::spec::VmHandle;

/// How long an agent may take to show that it is there. One in an emulated guest on a crowded host takes its time.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// Asks the guest to power off; false if nobody in it could be told.
pub(super) async fn power_off(vm: &VmHandle, run: &RuntimeDir) -> bool {
    let Some(mut agent) = Agent::connect(&run.guest_agent(), token(vm), SIGN_OF_LIFE).await else {
        return false;
    };
    match agent.power_off().await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "the guest agent cannot be told to power off");
            false
        }
    }
}

impl QemuBackend {
    /// See [`crate::GuestAccess::interfaces`]. QEMU knows whether an agent is there, so that nobody waits for none.
    pub(super) async fn ask_for_interfaces(&self, vm: &VmHandle) -> Result<Option<Vec<GuestInterface>>> {
        match self.agent_of(vm).await? {
            Some(mut agent) => agent.interfaces().await.map(Some),
            None => Ok(None),
        }
    }

    /// The agent of a machine that runs, if it answers.
    pub(super) async fn agent_of(&self, vm: &VmHandle) -> Result<Option<Agent>> {
        let Some(process) = self.find(vm.id)? else { return Ok(None) };
        if !self.monitor(vm.id, &process).await?.has_agent().await? {
            return Ok(None);
        }
        Ok(Agent::connect(&self.runtime_dir(vm.id).guest_agent(), token(vm), SIGN_OF_LIFE).await)
    }
}

/// What is asked back of the agent. Whoever else uses the channel asks for something else: this is a part of the id.
fn token(vm: &VmHandle) -> u32 {
    vm.id.0.as_fields().0 ^ std::process::id()
}
