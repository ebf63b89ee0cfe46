//! Ending a machine's process, gently or not, and removing a machine.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::agent;
use super::backend::QemuBackend;
use super::look::state_at_rest;
use super::manifest::{Manifest, Owner};
use super::places::{RuntimeDir, remove_file, remove_tree, sync_dir};
use super::qmp::Monitor;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::Process;
use crate::spec::{InstanceId, VmHandle, VmState};
use crate::workdir::WorkDir;

/// How often the power button is pressed. A guest that has not booted far enough loses the press.
const PRESS_AGAIN: Duration = Duration::from_secs(3);

/// How long a guest has to heed its power button before its agent is asked. Guests that do need some seconds to end,
/// and are off before, or are told a second time what they are doing.
const BUTTON: Duration = Duration::from_secs(10);

/// How long a monitor may take to greet before its QEMU counts as hung. A host that is merely crowded answers sooner,
/// and a guest must not lose what it has not written yet because of that.
const GREETING: Duration = Duration::from_secs(10);

/// How long the everyday monitor may take, which is tried when the other was silent.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// How long QEMU may take to end after each means of force. It flushes disks when it is told to quit.
const ENDING: Duration = Duration::from_secs(5);

/// The means of force, from mild to certain.
const FORCE: [Force; 3] = [Force::Quit, Force::Terminate, Force::Kill];

#[derive(Debug, Clone, Copy)]
enum Force {
    Quit,
    Terminate,
    Kill,
}

/// What is told of a stop by the guest agent. It is no force: the guest powers off in order.
const BY_AGENT: &str = "guest agent";

impl Force {
    fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Terminate => "SIGTERM",
            Self::Kill => "SIGKILL",
        }
    }
}

/// What became of a machine whose power button was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its process ended.
    Ended,
    /// Its process ended after the guest agent was asked for that.
    ByAgent,
    /// It goes on.
    Goes,
    /// It goes on, and neither of its monitors answers.
    Hangs,
}

impl QemuBackend {
    /// See [`crate::Hypervisor::stop`].
    pub(super) async fn power_down(&self, vm: &VmHandle, patience: Duration) -> Result<VmHandle> {
        let mut forced_stop = None;
        if let Some(process) = self.find(vm.id)? {
            let run = self.runtime_dir(vm.id);
            let means = match ends_by_itself(vm, &run, &process, patience).await? {
                Ending::Ended => None,
                Ending::ByAgent => {
                    forced_stop = Some(BY_AGENT.to_owned());
                    None
                }
                Ending::Goes => Some(&FORCE[..]),
                // What does not answer cannot be told to quit.
                Ending::Hangs => Some(&FORCE[1..]),
            };
            if let Some(means) = means {
                forced_stop = Some(force(means, &run, &process).await?.as_str().to_owned());
            }
        }
        failpoint!("stop.qemu.ended", &vm.work_dir);
        self.clean_up(vm.id).await?;
        failpoint!("stop.qemu.cleaned", &vm.work_dir);
        self.sessions.forget(vm.id);
        Ok(VmHandle { state: state_at_rest(vm)?, runtime: None, forced_stop, ..vm.clone() })
    }

    /// Ends a process whose guest nobody uses yet. Its folder of sockets goes as well.
    pub(super) async fn end_now(&self, id: InstanceId, process: &Process) -> Result<()> {
        force(&FORCE, &self.runtime_dir(id), process).await?;
        self.clean_up(id).await?;
        self.sessions.forget(id);
        Ok(())
    }

    /// See [`crate::Hypervisor::destroy`]. The guest is not asked: its disk is about to go.
    ///
    /// The manifest goes last, so that what a crash leaves behind still has an owner.
    pub(super) async fn remove(&self, vm: &VmHandle) -> Result<()> {
        let work = WorkDir::new(&vm.work_dir);
        let owner = Manifest::owner(&work, vm.id)?;
        if let Some(process) = self.find(vm.id)? {
            force(&FORCE, &self.runtime_dir(vm.id), &process).await?;
        }
        failpoint!("destroy.qemu.ended", &vm.work_dir);
        self.clean_up(vm.id).await?;
        failpoint!("destroy.qemu.cleaned", &vm.work_dir);
        self.sessions.forget(vm.id);
        match owner {
            Owner::Missing => Ok(()),
            Owner::Other(found) => Err(Error::Foreign { path: work.path().to_owned(), found }),
            Owner::Vacant | Owner::Ours(_) => remove_work_dir(&work),
        }
    }
}

pub(crate) fn remove_work_dir(work: &WorkDir) -> Result<()> {
    let manifest = work.manifest();
    for entry in fs::read_dir(work.path()).map_err(Error::io("list folder", work.path()))? {
        let path = entry.map_err(Error::io("list folder", work.path()))?.path();
        if path != manifest {
            remove_entry(&path)?;
            failpoint!("destroy.qemu.file-removed", path);
        }
    }
    failpoint!("destroy.qemu.emptied", work.path());
    remove_file(&manifest)?;
    failpoint!("destroy.qemu.disowned", work.path());
    fs::remove_dir(work.path()).map_err(Error::io("remove folder", work.path()))?;
    work.path().parent().map_or(Ok(()), sync_dir)
}

fn remove_entry(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(Error::io("examine", path))?;
    if found.is_dir() { remove_tree(path) } else { remove_file(path) }
}

/// Presses the power button until the process ends, at most for `patience`, and only as long as that is of any use.
///
/// A guest that does not heed the button for a while may have an agent that does. Without patience it is not asked.
async fn ends_by_itself(
    vm: &VmHandle,
    run: &RuntimeDir,
    process: &Process,
    patience: Duration,
) -> Result<Ending> {
    if patience.is_zero() {
        return Ok(Ending::Goes);
    }
    let asked = AtomicBool::new(false);
    let pressing = async {
        match keep_pressing(run).await {
            Ok(()) => Ending::Goes,
            Err(error @ Error::Timeout { .. }) => {
                tracing::debug!(%error, pid = process.pid(), "the power button leads nowhere");
                Ending::Hangs
            }
            // A monitor that fails may be about to end with its process: the wait for that goes on.
            Err(error) => {
                tracing::debug!(%error, pid = process.pid(), "cannot press the power button");
                std::future::pending().await
            }
        }
    };
    let asking = async || -> Infallible {
        sleep(BUTTON.min(patience / 3)).await;
        while !agent::power_off(vm, run).await {
            sleep(PRESS_AGAIN).await;
        }
        asked.store(true, Ordering::Relaxed);
        std::future::pending().await
    };
    let ended = async {
        tokio::select! {
            ended = process.exited() => {
                let by_agent = asked.load(Ordering::Relaxed);
                ended.map(|()| if by_agent { Ending::ByAgent } else { Ending::Ended })
            }
            how = pressing => Ok(how),
            never = asking() => match never {},
        }
    };
    match timeout(patience, ended).await {
        Ok(ended) => ended.map_err(Error::io("wait for", run.pidfile())),
        Err(_) => Ok(Ending::Goes),
    }
}

/// Presses the power button again and again. Ends if that is of no use, because the machine failed.
async fn keep_pressing(run: &RuntimeDir) -> Result<()> {
    let mut monitor = any_monitor(run).await?;
    match monitor.state().await? {
        VmState::Suspended => monitor.unpause().await?,
        VmState::Failed => return Ok(()),
        VmState::Preparing | VmState::Prepared | VmState::Running | VmState::Stopped | VmState::Destroyed => {
        }
    }
    let mut ticks = interval(PRESS_AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        monitor.power_down().await?;
        failpoint!("stop.qemu.pressed", &run.monitor());
    }
}

/// The monitor that is kept for stopping, or the everyday one if somebody holds that.
async fn any_monitor(run: &RuntimeDir) -> Result<Monitor> {
    match Monitor::connect(&run.reserved_monitor(), GREETING).await {
        Err(Error::Timeout { .. }) => Monitor::connect(&run.monitor(), SIGN_OF_LIFE).await,
        result => result,
    }
}

/// Ends the process by the mildest of `means` that works, and says which.
async fn force(means: &[Force], run: &RuntimeDir, process: &Process) -> Result<Force> {
    for means in means {
        if works(*means, run, process).await? {
            return Ok(*means);
        }
    }
    Err(Error::Timeout { what: format!("the end of process {} after SIGKILL", process.pid()), after: ENDING })
}

/// Tries one means of force; false if it could not be applied or the process did not end by it.
async fn works(means: Force, run: &RuntimeDir, process: &Process) -> Result<bool> {
    let applied = async {
        match apply(means, run, process).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    tokio::select! {
        ended = process.exited() => ended.map(|()| true).map_err(Error::io("wait for", run.pidfile())),
        error = applied => {
            tracing::debug!(%error, pid = process.pid(), means = means.as_str(), "cannot be applied");
            Ok(false)
        }
        () = sleep(ENDING) => {
            tracing::debug!(pid = process.pid(), means = means.as_str(), "has no effect");
            Ok(false)
        }
    }
}

async fn apply(means: Force, run: &RuntimeDir, process: &Process) -> Result<()> {
    let signalled = match means {
        Force::Quit => return quit(run).await,
        Force::Terminate => process.terminate(),
        Force::Kill => process.kill(),
    };
    signalled.map_err(Error::io("signal", run.pidfile()))
}

async fn quit(run: &RuntimeDir) -> Result<()> {
    let mut monitor = Monitor::connect(&run.reserved_monitor(), GREETING).await?;
    if let Err(error) = monitor.quit().await {
        tracing::debug!(%error, "QEMU may end before it answers");
    }
    Ok(())
}
