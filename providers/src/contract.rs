//! What every backend keeps, as a suite that any of them can be put through.
//!
//! The caller brings a backend and a machine that it can run; the suite leads that machine through its life, each step
//! twice, and asks after each what it does. It ends with an error at the first promise that is not kept. A backend of
//! your own runs it in its tests, as the ones of this crate do (`docs/providers/adding.md`).

use std::time::Duration;

use uuid::Uuid;

use crate::abilities::{Inspect, Preflight};
use crate::error::Error;
use crate::hypervisor::{ConsoleEndpoint, Hypervisor};
use crate::spec::{BackendTag, Hardware, InstanceId, Machine, VmHandle, VmSpec, VmState};

/// How long a guest is given to power down. Guests of the suite need not heed that.
const PATIENCE: Duration = Duration::from_secs(2);

/// What differs between backends, all of which keep the contract.
#[derive(Debug, Clone, Copy)]
pub struct Traits {
    /// Whether it can pause a machine; if not, it must say so with [`Error::Unsupported`].
    pub pauses: bool,
    /// Whether a running machine has a console.
    pub has_console: bool,
}

/// A machine of `backend` that needs nothing: one processor, 64 MiB of memory, no disk and no network.
pub fn plain_machine(backend: BackendTag) -> VmSpec {
    let name = |text: &str| text.parse().expect("lower-case letters are a name");
    VmSpec {
        id: InstanceId(Uuid::from_u128(0x5f8b_1d2e_0000_4000_8000_0000_0000_0001)),
        project: name("shop"),
        name: name("web"),
        backend,
        machine: Machine {
            vcpus: 1,
            memory_mib: 64,
            disk_bytes: None,
            image: None,
            hardware: Hardware::default(),
            nics: Vec::new(),
            volumes: Vec::new(),
            shares: Vec::new(),
            media: Vec::new(),
        },
        cloud_init: None,
        ssh: None,
        warm: None,
    }
}

/// A promise that was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// A call failed that must succeed.
    #[error("{call} must succeed")]
    Failed {
        /// Which call, and when.
        call: &'static str,
        /// How it failed.
        #[source]
        error: Box<Error>,
    },
    /// A call succeeded, or failed for another reason, where it must fail for one.
    #[error("{call} must fail with {with}, and it ended with {found}")]
    NotRefused {
        /// Which call, and when.
        call: &'static str,
        /// What it must fail with.
        with: &'static str,
        /// What came instead.
        found: String,
    },
    /// Something is not as it was promised.
    #[error("after {call}, {what} must be {wanted}, and is {found}")]
    Wrong {
        /// Which call.
        call: &'static str,
        /// What was looked at.
        what: &'static str,
        /// What it must be.
        wanted: String,
        /// What it is.
        found: String,
    },
}

trait MustSucceed<T> {
    fn must(self, call: &'static str) -> Result<T, Breach>;
}

impl<T> MustSucceed<T> for Result<T, Error> {
    fn must(self, call: &'static str) -> Result<T, Breach> {
        self.map_err(|error| Breach::Failed { call, error: Box::new(error) })
    }
}

fn same<T: PartialEq + std::fmt::Debug>(
    call: &'static str,
    what: &'static str,
    wanted: &T,
    found: &T,
) -> Result<(), Breach> {
    if wanted == found {
        return Ok(());
    }
    let (wanted, found) = (format!("{wanted:?}"), format!("{found:?}"));
    Err(Breach::Wrong { call, what, wanted, found })
}

/// Leads the machine of `spec`, of which nothing may exist, through its life on `backend`. Nothing is left of it after a
/// good end; after a breach, whoever runs the suite destroys it.
pub async fn keeps_the_contract<H>(backend: &H, spec: &VmSpec, traits: Traits) -> Result<(), Breach>
where
    H: Hypervisor + Inspect + Preflight,
{
    let planned = backend.handle(spec).must("handle")?;
    same("handle", "the state of the handle", &VmState::Preparing, &planned.state)?;
    is(backend, &planned, "handle, which touches nothing", VmState::Destroyed).await?;
    backend.destroy(planned.clone()).await.must("destroy of what never was")?;

    let vm = backend.prepare(spec).await.must("prepare")?;
    identity(&planned, &vm, "prepare")?;
    is(backend, &vm, "prepare", VmState::Prepared).await?;
    let again = backend.prepare(spec).await.must("prepare of what is prepared")?;
    same("a second prepare", "the handle", &vm, &again)?;
    let other = VmSpec { id: InstanceId(Uuid::from_u128(!spec.id.0.as_u128())), ..spec.clone() };
    let aside = backend.handle(&other).must("handle of another machine of that name")?;
    let is_aside = aside.work_dir != vm.work_dir;
    same("handle of another machine of that name", "whether it has a folder of its own", &true, &is_aside)?;
    let vm = backend.stop(&vm, PATIENCE).await.must("stop of what never ran")?;
    is(backend, &vm, "stop of what never ran", VmState::Prepared).await?;

    let vm = run_twice(backend, &vm).await?;
    console(backend, &vm, traits)?;
    let vm = pause(backend, &vm, traits).await?;
    let vm = stop_twice(backend, &vm).await?;
    same("stop", "the runtime facts", &None, &vm.runtime)?;
    refused_at_rest(backend, &vm, traits).await?;

    // A machine runs more than once, and one that runs can be destroyed.
    let vm = run_twice(backend, &vm).await?;
    backend.destroy(vm.clone()).await.must("destroy of what runs")?;
    is(backend, &vm, "destroy", VmState::Destroyed).await?;
    backend.destroy(vm.clone()).await.must("destroy of what is gone")?;
    same("destroy", "whether its folder is there", &false, &vm.work_dir.exists())?;
    match backend.start(&vm).await {
        Err(Error::InvalidState { state: VmState::Destroyed, .. }) => Ok(()),
        found => not_refused("start of what is gone", "an invalid state", found),
    }
}

/// Both questions must have the same answer.
async fn is<H: Hypervisor + Inspect>(
    backend: &H,
    vm: &VmHandle,
    call: &'static str,
    wanted: VmState,
) -> Result<(), Breach> {
    same(call, "its state", &wanted, &backend.state(vm).await.must("state")?)?;
    let seen = backend.inspect(vm).await.must("inspect")?;
    same(call, "its state when inspected", &wanted, &seen.state)?;
    same(call, "what is wrong with it", &Vec::new(), &seen.damage)?;
    identity(vm, &seen.handle, call)
}

fn identity(one: &VmHandle, other: &VmHandle, call: &'static str) -> Result<(), Breach> {
    let of = |vm: &VmHandle| (vm.id, vm.project.clone(), vm.name.clone(), vm.backend, vm.work_dir.clone());
    same(call, "whose handle it is", &of(one), &of(other))
}

async fn run_twice<H: Hypervisor + Inspect>(backend: &H, vm: &VmHandle) -> Result<VmHandle, Breach> {
    let up = backend.start(vm).await.must("start")?;
    same("start", "the state of the handle", &VmState::Running, &up.state)?;
    same("start", "whether the handle has runtime facts", &true, &up.runtime.is_some())?;
    is(backend, &up, "start", VmState::Running).await?;
    let again = backend.start(&up).await.must("start of what runs")?;
    let pid = |vm: &VmHandle| vm.runtime.as_ref().map(|runtime| runtime.pid);
    same("a second start", "its process", &pid(&up), &pid(&again))?;
    // A handle that was recorded before it ran leads to it as well.
    let adopted = backend.start(vm).await.must("start by an older handle")?;
    same("a start by an older handle", "its process", &pid(&up), &pid(&adopted))?;
    Ok(up)
}

async fn stop_twice<H: Hypervisor + Inspect>(backend: &H, vm: &VmHandle) -> Result<VmHandle, Breach> {
    let down = backend.stop(vm, PATIENCE).await.must("stop")?;
    same("stop", "the state of the handle", &VmState::Stopped, &down.state)?;
    is(backend, &down, "stop", VmState::Stopped).await?;
    let again = backend.stop(&down, PATIENCE).await.must("stop of what is stopped")?;
    same("a second stop", "whether it was forced", &None, &again.forced_stop)?;
    is(backend, &again, "a second stop", VmState::Stopped).await?;
    Ok(down)
}

fn console<H: Hypervisor>(backend: &H, vm: &VmHandle, traits: Traits) -> Result<(), Breach> {
    let found = backend.console_endpoint(vm).must("console_endpoint")?;
    let there = !matches!(found, ConsoleEndpoint::None);
    same("start", "whether it has a console", &traits.has_console, &there)
}

async fn pause<H: Hypervisor + Inspect>(
    backend: &H,
    vm: &VmHandle,
    traits: Traits,
) -> Result<VmHandle, Breach> {
    if !traits.pauses {
        return match backend.suspend(vm).await {
            Err(Error::Unsupported { .. }) => {
                is(backend, vm, "a refused suspend", VmState::Running).await?;
                Ok(vm.clone())
            }
            found => not_refused("suspend", "`Unsupported`", found),
        };
    }
    for call in ["suspend", "suspend of what is suspended"] {
        backend.suspend(vm).await.must(call)?;
        is(backend, vm, call, VmState::Suspended).await?;
    }
    for call in ["resume", "resume of what runs"] {
        backend.resume(vm).await.must(call)?;
        is(backend, vm, call, VmState::Running).await?;
    }
    Ok(vm.clone())
}

async fn refused_at_rest<H: Hypervisor>(backend: &H, vm: &VmHandle, traits: Traits) -> Result<(), Breach> {
    match backend.suspend(vm).await {
        Err(Error::InvalidState { .. }) if traits.pauses => Ok(()),
        Err(Error::Unsupported { .. }) if !traits.pauses => Ok(()),
        found => not_refused("suspend of what is stopped", "an invalid state, or as unsupported", found),
    }
}

fn not_refused<T>(
    call: &'static str,
    with: &'static str,
    found: Result<VmHandle, Error>,
) -> Result<T, Breach> {
    let found = match found {
        Ok(vm) => format!("a handle in state {}", vm.state),
        Err(error) => format!("another error: {error}"),
    };
    Err(Breach::NotRefused { call, with, found })
}
