//! Logging in to the guest, with an eye on its process: if that ends, waiting is over.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::backend::QemuBackend;
use super::look::{curb, state_at_rest};
use super::places::{ensure_private_file, qemu_log, tail_of};
use crate::error::{Error, Result};
use crate::process::Process;
use crate::provision::{self, OutputLine, ProvisionStep};
use crate::spec::{BackendTag, InstanceId, VmHandle};
use crate::ssh::{self, Session, SshTarget};
use crate::workdir::WorkDir;

/// How long a step waits for a login if none is open: whoever provisions has waited for readiness before.
pub(crate) const LOGIN: Duration = Duration::from_secs(120);

/// How long a process may take from closing its connections to its end.
const DYING: Duration = Duration::from_millis(500);

/// How often the console's log is looked after while something is awaited of a guest. In that time an emulated serial line
/// writes far less than the log may hold.
const CURB: Duration = Duration::from_secs(1);

/// How much of the console and of QEMU's messages goes into an error.
const TAIL: usize = 2048;

/// Open logins, one per machine, so that readiness and all steps share one connection.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<InstanceId, (u32, Arc<Session>)>>,
    /// The machines whose login was made after they went on from a template's memory, and that nobody waited for yet.
    woken: Mutex<HashSet<InstanceId>>,
}

impl Sessions {
    /// The login to the machine's process `pid`; one that is lost, or to an earlier process, is of no use.
    pub(crate) fn get(&self, id: InstanceId, pid: u32) -> Option<Arc<Session>> {
        let sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = sessions.get(&id).filter(|(of, session)| *of == pid && !session.is_closed());
        usable.map(|(_, session)| Arc::clone(session))
    }

    pub(crate) fn keep(&self, id: InstanceId, pid: u32, session: &Arc<Session>) {
        let mut sessions = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(id, (pid, Arc::clone(session)));
    }

    /// Keeps a login that proves that the machine, which went on from a template's memory, is ready.
    pub(crate) fn keep_woken(&self, id: InstanceId, pid: u32, session: &Arc<Session>) {
        self.keep(id, pid, session);
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// That login, for the first that asks: a guest may restart later.
    pub(crate) fn take_woken(&self, id: InstanceId, pid: u32) -> Option<Arc<Session>> {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.get(id, pid).filter(|_| woken)
    }

    /// Lets go of the login to a machine.
    pub(crate) fn forget(&self, id: InstanceId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl QemuBackend {
    /// Waits for a login, and keeps it for what follows. Whoever calls watches the process, and says whether the guest was
    /// ready before.
    pub(super) async fn log_in(
        &self,
        vm: &VmHandle,
        process: &Process,
        patience: Duration,
        was_ready: bool,
    ) -> Result<Arc<Session>> {
        let session = match SshTarget::of(vm) {
            _ if vm.ssh.is_some() && vm.is_reached_on_a_bridge() => {
                self.log_in_on_a_bridge(vm, patience).await?
            }
            Some(target) if was_ready => Session::reach(&target, &self.config().keyring, patience).await?,
            Some(target) => Session::wait_for(&target, &self.config().keyring, patience).await?,
            None => {
                let what = "logging in to a machine without ssh settings or a way to its port 22".to_owned();
                return Err(Error::Unsupported { backend: BackendTag::Qemu, what });
            }
        };
        let session = Arc::new(session);
        self.sessions.keep(vm.id, process.pid(), &session);
        Ok(session)
    }

    /// Waits for the guest's address, then for a login there. A guest may get another address while it boots.
    async fn log_in_on_a_bridge(&self, vm: &VmHandle, patience: Duration) -> Result<Session> {
        let deadline = Instant::now() + patience;
        loop {
            let address = self.await_address(vm, deadline).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(target) = SshTarget::at(vm, (address, ssh::PORT).into()) else {
                let what = "logging in to a machine without ssh settings".to_owned();
                return Err(Error::Unsupported { backend: BackendTag::Qemu, what });
            };
            tokio::select! {
                session = Session::wait_for(&target, &self.config().keyring, left) => return Ok(session?),
                moved = self.moves_from(vm, address) => moved?,
            }
        }
    }

    /// See [`crate::GuestAccess::provision`].
    pub(super) async fn run_step(
        &self,
        vm: &VmHandle,
        step: &ProvisionStep,
        output: &mpsc::Sender<OutputLine>,
    ) -> Result<()> {
        let process = self.process_of(vm, "provision")?;
        let log = WorkDir::new(&vm.work_dir).provision_log();
        ensure_private_file(&log)?;
        let session = match self.sessions.get(vm.id, process.pid()) {
            Some(session) => session,
            None => while_alive(vm, &process, self.log_in(vm, &process, LOGIN, true), || true).await?,
        };
        let running = Box::pin(provision::run(&session, step, &log, output));
        let ended = while_alive(vm, &process, running, || session.is_closed()).await;
        ended.map_err(|error| provision::cut_off(step, error))
    }

    /// The process of a machine that must have one.
    pub(super) fn process_of(&self, vm: &VmHandle, action: &'static str) -> Result<Process> {
        match self.find(vm.id)? {
            Some(process) => Ok(process),
            None => Err(Error::InvalidState { action, state: state_at_rest(vm)? }),
        }
    }
}

/// Does `work`, or says how the process ended if it ends before.
///
/// A dying process closes its connections a moment before it is gone. So if `work` fails and `may_be_dying`, that
/// moment is waited for, and the end of the process is told rather than that of the connection.
pub(super) async fn while_alive<T>(
    vm: &VmHandle,
    process: &Process,
    work: impl Future<Output = Result<T>>,
    may_be_dying: impl FnOnce() -> bool,
) -> Result<T> {
    let curbing = async || -> Infallible {
        loop {
            curb(vm);
            sleep(CURB).await;
        }
    };
    let ended = tokio::select! {
        never = curbing() => match never {},
        result = work => match result {
            Err(error) if may_be_dying() => match timeout(DYING, process.exited()).await {
                Ok(ended) => ended,
                Err(_) => return Err(error),
            },
            result => return result,
        },
        ended = process.exited() => ended,
    };
    ended.map_err(Error::io("wait for the process of", &vm.work_dir))?;
    Err(Error::ProcessEnded { detail: last_words(vm)? })
}

/// What the guest wrote last on its console, and what QEMU said.
pub(super) fn last_words(vm: &VmHandle) -> Result<Option<String>> {
    let work = WorkDir::new(&vm.work_dir);
    let parts = [
        ("its messages end with", tail_of(&qemu_log(&work), TAIL)?),
        ("its console ends with", tail_of(&work.console_log(), TAIL)?),
    ];
    let told: Vec<String> = parts
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(title, text)| format!("{title}\n{text}"))
        .collect();
    Ok((!told.is_empty()).then(|| told.join("\n")))
}

/// The end of the guest's console, if it said anything. It goes with another error, whose place it must not take.
pub(crate) fn console_tail(vm: &VmHandle) -> Option<String> {
    match tail_of(&WorkDir::new(&vm.work_dir).console_log(), TAIL) {
        Ok(text) => Some(text).filter(|text| !text.is_empty()),
        Err(error) => {
            tracing::debug!(%error, "the console cannot be told");
            None
        }
    }
}
