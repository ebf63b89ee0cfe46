//! The guest: logging in at the address of its vnic, probes, provisioning.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::backend::{PropolisBackend, unsupported};
use super::decide::Fall;
use super::server::Places;
use super::start::await_fall;
use crate::abilities::{Probe, Readiness, Verdict};
use crate::cloud_init;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoints::failpoint;
use crate::pattern::Pattern;
use crate::provision::{self, OutputLine, ProvisionStep};
use crate::qemu::console::Search;
use crate::qemu::guest::{LOGIN, console_tail};
use crate::qemu::places::ensure_private_file;
use crate::qemu::probe::{NO_LINE, ask_inside, pause};
use crate::spec::{VmHandle, VmState};
use crate::ssh::{Session, SshTarget};
use crate::workdir::WorkDir;

/// How long one question may take while a guest is waited for.
const QUESTION: Duration = Duration::from_secs(10);

/// How long the end of the VM is awaited at a time while something is done in its guest. Then the server is looked at anew:
/// it may have another VM by now, whose changes have other numbers.
const WATCH: Duration = Duration::from_secs(60);

/// Pause before the next wait where the one before was cut short.
const AGAIN: Duration = Duration::from_secs(2);

/// Logins are kept by machine. A server's process ends with its VM, so that no login outlives it for long.
const ANY_PROCESS: u32 = 0;

impl PropolisBackend {
    /// The open login, or a new one within `patience`.
    pub(super) async fn log_in(&self, vm: &VmHandle, patience: Duration) -> Result<Arc<Session>> {
        if let Some(session) = self.sessions.get(vm.id, ANY_PROCESS) {
            return Ok(session);
        }
        self.log_in_anew(vm, patience).await
    }

    async fn log_in_anew(&self, vm: &VmHandle, patience: Duration) -> Result<Arc<Session>> {
        if vm.ssh.is_none() {
            return Err(unsupported("logging in to a machine without ssh settings"));
        }
        let address = self.address(vm).await?;
        let target = SshTarget::at(vm, (address, self.sshd).into())
            .ok_or_else(|| unsupported("logging in to a machine without ssh settings"))?;
        let session = Arc::new(Session::wait_for(&target, &self.config.keyring, patience).await?);
        self.sessions.keep(vm.id, ANY_PROCESS, &session);
        Ok(session)
    }

    /// See [`crate::GuestAccess::wait_ready`].
    pub(super) async fn be_ready(&self, vm: &VmHandle, readiness: &Readiness) -> Result<()> {
        self.require_running(vm, "wait for").await?;
        let deadline = Instant::now() + readiness.timeout;
        let waiting = async {
            for probe in &readiness.probes {
                self.wait_for(vm, probe, deadline, readiness.timeout).await?;
                failpoint!("ready.propolis.answered", &vm.work_dir);
            }
            Ok(())
        };
        self.while_it_runs(vm, Box::pin(waiting)).await
    }

    async fn wait_for(
        &self,
        vm: &VmHandle,
        probe: &Probe,
        deadline: Instant,
        patience: Duration,
    ) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(QUESTION);
            let (said, kind, help) = match self.ask(vm, probe, left).await {
                Ok(Verdict::Holds) => return Ok(()),
                Ok(Verdict::Fails(said)) => (said, ErrorKind::Timeout, None),
                // A guest that boots is not there yet, and one that restarts breaks connections.
                Err(error) if is_of_the_guest(&error) => (error.to_string(), error.kind(), error.help()),
                Err(error) => return Err(error),
            };
            if !pause(deadline).await {
                let (probe, console) = (probe.clone(), console_tail(vm));
                return Err(Error::NotReady { probe, after: Some(patience), said, console, kind, help });
            }
        }
    }

    /// See [`crate::GuestAccess::probe`].
    pub(super) async fn ask_once(&self, vm: &VmHandle, probe: &Probe, patience: Duration) -> Result<Verdict> {
        self.require_running(vm, "probe").await?;
        match self.ask(vm, probe, patience).await {
            Err(error) if is_of_the_guest(&error) => Ok(Verdict::Fails(error.to_string())),
            asked => asked,
        }
    }

    async fn ask(&self, vm: &VmHandle, probe: &Probe, patience: Duration) -> Result<Verdict> {
        let deadline = Instant::now() + patience;
        match probe {
            Probe::Log(pattern) => self.ask_console(vm, pattern).await,
            Probe::Login => {
                // Only a new login proves anything.
                self.sessions.forget(vm.id);
                let session = self.log_in_anew(vm, patience).await?;
                if !vm.seed {
                    return Ok(Verdict::Holds);
                }
                match timeout_at(deadline, cloud_init::done(&session)).await {
                    Ok(done) => done.map(|()| Verdict::Holds),
                    Err(_) => Ok(Verdict::Fails("cloud-init has not ended in the guest".to_owned())),
                }
            }
            Probe::Tcp(_) | Probe::Exec(_) => {
                let session = self.log_in(vm, patience).await?;
                ask_inside(&session, probe, deadline).await
            }
        }
    }

    async fn ask_console(&self, vm: &VmHandle, pattern: &str) -> Result<Verdict> {
        self.pull_console(vm).await?;
        let work = WorkDir::new(&vm.work_dir);
        let from = Places::of(&work).load()?.map_or(0, |note| note.console_start);
        let (_, found) = Search::new(work.console_log(), Pattern::new(pattern)?, from).look().await?;
        Ok(if found { Verdict::Holds } else { Verdict::Fails(NO_LINE.to_owned()) })
    }

    /// See [`crate::GuestAccess::provision`].
    pub(super) async fn run_step(
        &self,
        vm: &VmHandle,
        step: &ProvisionStep,
        output: &mpsc::Sender<OutputLine>,
    ) -> Result<()> {
        self.require_running(vm, "provision").await?;
        let log = WorkDir::new(&vm.work_dir).provision_log();
        ensure_private_file(&log)?;
        let session = self.while_it_runs(vm, Box::pin(self.log_in(vm, LOGIN))).await?;
        let running = Box::pin(provision::run(&session, step, &log, output));
        self.while_it_runs(vm, running).await.map_err(|error| provision::cut_off(step, error))
    }

    async fn require_running(&self, vm: &VmHandle, action: &'static str) -> Result<()> {
        match self.observe_state(vm).await? {
            VmState::Running => Ok(()),
            state => Err(Error::InvalidState { action, state }),
        }
    }

    /// Does `work`, unless the VM ends before.
    async fn while_it_runs<T>(&self, vm: &VmHandle, work: impl Future<Output = Result<T>>) -> Result<T> {
        let ended = async {
            loop {
                match timeout(WATCH, self.fall_awaited(vm)).await {
                    Ok(Ok(())) | Err(_) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "the end of the VM cannot be awaited now"),
                }
                // What the long poll says is believed only if a look says the same.
                match timeout(QUESTION, self.observe_state(vm)).await {
                    Ok(Ok(VmState::Running)) | Err(_) => {}
                    Ok(Ok(state)) => return state,
                    Ok(Err(error)) => tracing::debug!(%error, "the server cannot be asked now"),
                }
                sleep(AGAIN).await;
            }
        };
        tokio::select! {
            result = work => result,
            state = ended => {
                let console = console_tail(vm).map(|tail| format!("; its console ends with\n{tail}"));
                let detail = Some(format!("it is {state}{}", console.unwrap_or_default()));
                Err(Error::ProcessEnded { detail })
            }
        }
    }

    /// Waits until the VM is off, or its server is gone.
    async fn fall_awaited(&self, vm: &VmHandle) -> Result<()> {
        match self.live(vm).await? {
            Some(live) => await_fall(&live.client, Fall::Off).await,
            None => Ok(()),
        }
    }
}

/// Whether it may be otherwise a moment later.
fn is_of_the_guest(error: &Error) -> bool {
    match error {
        Error::NoAddress { .. } => true,
        Error::Ssh(ssh) => matches!(ssh.kind(), ErrorKind::Timeout | ErrorKind::Guest),
        _ => false,
    }
}
