//! Launching a machine's process, or finding that it runs.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::accel::{Accel, decide_for, probe, second_choice};
use super::argv::{Launch, Memory, argv};
use super::backend::{QemuBackend, qemu};
use super::display;
use super::firmware;
use super::guest::last_words;
use super::manifest::{Manifest, Owner};
use super::places::{RuntimeDir, ensure_private_file, qemu_log};
use super::ports;
use super::preflight::check_media;
use super::qmp::Monitor;
use super::shares::check_shares;
use super::tsc;
use super::virtiofs;
use super::volumes;
use crate::console_log;
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::{self, Launched, Process, Program};
use crate::spec::{Machine, Runtime, VmHandle, VmState, WarmLevel};
use crate::volume;
use crate::workdir::WorkDir;

/// How long QEMU may take from launch to its first answer. It takes 0.1 s on an idle host; reserving a large memory on a
/// crowded one takes longer.
const LAUNCH: Duration = Duration::from_secs(60);

/// How long a QEMU that does not answer may take to end by itself before it is killed.
const ENDING: Duration = Duration::from_secs(5);

/// Longest line looked at on QEMU's standard output while waiting for its greeting.
const MAX_GREETING: u64 = 1 << 16;

/// How much of QEMU's messages goes into an error.
const MESSAGES_TAIL: usize = 4096;

impl QemuBackend {
    /// See [`crate::Hypervisor::start`].
    ///
    /// Two processes may start one machine at the same time: QEMU takes the lock on its pidfile before it touches
    /// a socket or a disk, so one of them fails at that lock and adopts the other's machine.
    pub(super) async fn launch_or_adopt(&self, vm: &VmHandle) -> Result<VmHandle> {
        let work = WorkDir::new(&vm.work_dir);
        if let Some(process) = self.find(vm.id)? {
            if !self.is_half_awake(&work, vm)? {
                return self.adopt(vm, &process).await;
            }
            self.end_now(vm.id, &process).await?;
        }
        self.make_sure_startable(&work, vm).await?;
        let run = self.runtime_dir(vm.id);
        run.create()?;
        ensure_private_file(&work.console_log())?;
        console_log::renew(&work.console_log())?;
        let launched = match Box::pin(self.wake(vm, &work, &run)).await? {
            Some(accel) => Ok(accel),
            None => self.launch_accelerated(vm, &work, &run).await,
        };
        let Some(process) = self.find(vm.id)? else {
            self.clean_up(vm.id).await?;
            launched?;
            return Err(Error::ProcessEnded { detail: last_words(vm)? });
        };
        let mut vm = vm.clone();
        // If the launch failed, the process is one that somebody else launched meanwhile.
        if let Ok(accel) = launched {
            run.close_sockets_to_others()?;
            let (pid, accel) = (process.pid(), accel.to_string());
            vm.runtime = Some(Runtime {
                pid,
                accel,
                vnc: None,
                forwards: Vec::new(),
                address: None,
                boot: None,
                host: None,
            });
        }
        self.adopt(&vm, &process).await
    }

    /// Tells everything about a machine that runs already, and remembers that it ran.
    async fn adopt(&self, vm: &VmHandle, process: &Process) -> Result<VmHandle> {
        let mut monitor = self.monitor(vm.id, process).await?;
        display::protect(vm, &mut monitor).await?;
        let mut handle = self.handle_of_live(vm, process, &mut monitor).await?;
        let work = WorkDir::new(&vm.work_dir);
        failpoint!("start.qemu.handle-made", work.path());
        if let Owner::Ours(mut manifest) = Manifest::owner(&work, vm.id)? {
            if !manifest.started {
                manifest.started = true;
                manifest.store(&work)?;
                failpoint!("start.qemu.remembered", work.path());
            }
            handle.warm = manifest.warm;
        }
        Ok(handle)
    }

    /// Refuses to start what is not whole. An image with the same bytes in another file is known as that file.
    async fn make_sure_startable(&self, work: &WorkDir, vm: &VmHandle) -> Result<()> {
        let refuse = |state| Err(Error::InvalidState { action: "start", state });
        match Manifest::owner(work, vm.id)? {
            Owner::Ours(mut manifest) if manifest.prepared => {
                if let Some(base) = self.check_base(&manifest, vm.machine.image.as_ref()).await? {
                    manifest.base = Some(base);
                    manifest.store(work)?;
                }
                if let Some((name, path)) = volume::gone(work.path(), &vm.machine)? {
                    return Err(Error::VolumeGone { name, path });
                }
                if let Some(path) = firmware::gone(work, &manifest) {
                    let reason = "the machine boots with it, and it is gone; `vmctl apply` makes it whole";
                    return Err(Error::Unusable { path, reason: reason.to_owned() });
                }
                check_kernel(&vm.machine).await?;
                check_shares(&vm.machine).await?;
                check_media(&vm.machine)
            }
            Owner::Ours(_) | Owner::Vacant => refuse(VmState::Preparing),
            Owner::Missing => refuse(VmState::Destroyed),
            Owner::Other(found) => Err(Error::Foreign { path: work.path().to_owned(), found }),
        }
    }

    /// Launches with the accelerator that suits the host; once more without KVM if QEMU gave up with it.
    async fn launch_accelerated(&self, vm: &VmHandle, work: &WorkDir, run: &RuntimeDir) -> Result<Accel> {
        let choice = vm.machine.hardware.accel_over(self.config().accel);
        let accel = decide_for(vm.machine.hardware.guest_arch(), choice, &probe())?;
        let memory = if keeps_memory(work, vm)? { Memory::Kept } else { Memory::Plain };
        let Err(error) = self.launch(vm, work, run, (&accel, memory)).await else { return Ok(accel) };
        let second = match &error {
            Error::ProcessEnded { detail } => second_choice(choice, &accel, detail.as_deref()),
            _ => None,
        };
        match second {
            Some(accel) if self.find(vm.id)?.is_none() => {
                self.launch(vm, work, run, (&accel, memory)).await.map(|()| accel)
            }
            _ => Err(error),
        }
    }

    /// Runs QEMU and returns when its main loop answers.
    pub(super) async fn launch(
        &self,
        vm: &VmHandle,
        work: &WorkDir,
        run: &RuntimeDir,
        (accel, memory): (&Accel, Memory<'_>),
    ) -> Result<()> {
        let console = work.console_log();
        let console_start = console.metadata().map_err(Error::io("examine", console))?.len();
        let taps = self.make_taps(&vm.machine).await?;
        let numbers: Vec<_> = taps.iter().map(AsRawFd::as_raw_fd).collect();
        let tsc_khz = tsc::to_tell(&vm.machine, accel).await;
        let args = argv(vm, run, Launch { accel, console_start, taps: &numbers, memory, tsc_khz })?;
        let path = qemu_log(work);
        let mut log = create_log(work)?;
        let program = qemu(vm.machine.hardware.guest_arch());
        writeln!(log, "{}\n", process::quote(program.name, &args)).map_err(Error::io("write", &path))?;

        virtiofs::serve(&vm.machine.shares, run).await?;
        let launched = greeted(vm, run, program, &args, (log, taps)).await;
        if launched.is_err() {
            virtiofs::end_all(run).await?;
        }
        launched
    }
}

/// Whether a machine is launched so that its memory can be kept: at its first start, before it was provisioned.
fn keeps_memory(work: &WorkDir, vm: &VmHandle) -> Result<bool> {
    Ok(match Manifest::owner(work, vm.id)? {
        Owner::Ours(manifest) => {
            !manifest.started
                && manifest.warm.is_some_and(|warm| warm.level == WarmLevel::Memory && warm.cloned.is_none())
        }
        Owner::Missing | Owner::Vacant | Owner::Other(_) => false,
    })
}

/// Runs QEMU, and explains why it does not answer if it does not.
async fn greeted(
    vm: &VmHandle,
    run: &RuntimeDir,
    program: &Program,
    args: &[OsString],
    (log, taps): (File, Vec<OwnedFd>),
) -> Result<()> {
    let command_line = log.metadata().map_err(Error::io("read", "QEMU's log"))?.len();
    let path = qemu_log(&WorkDir::new(&vm.work_dir));
    let mut launched = process::machine(program, args, log, taps)?;
    let failure = match timeout(LAUNCH, answers(&mut launched, run, program)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => Error::Timeout { what: "the start of QEMU".to_owned(), after: LAUNCH },
    };
    // Nearly always it is about to end, and says why; what neither answers nor ends is ended.
    match timeout(ENDING, launched.ended()).await {
        Ok(status) => {
            let status = status.map_err(Error::io("wait for", program.name))?;
            let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
            let messages = text.get(command_line as usize..).unwrap_or_default();
            Err(reason_of_end(vm, &status, &process::tail(messages, MESSAGES_TAIL)))
        }
        Err(_) => {
            launched.kill().await.map_err(Error::io("kill", program.name))?;
            Err(failure)
        }
    }
}

/// Waits for the greeting on standard output, which says that the monitors' sockets are there, then for an answer.
async fn answers(launched: &mut Launched, run: &RuntimeDir, program: &Program) -> Result<()> {
    failpoint!("start.qemu.spawned", run.path());
    loop {
        match launched.first_line(MAX_GREETING).await.map_err(Error::io("read from", program.name))? {
            Some(line) if line.starts_with("{\"QMP\"") => break,
            Some(chatter) => tracing::debug!(%chatter, "before QEMU's greeting"),
            None => return Err(Error::Monitor("it was closed before it greeted".to_owned())),
        }
    }
    let monitor = run.monitor();
    tokio::select! {
        connected = Monitor::connect(&monitor, LAUNCH) => connected.map(drop),
        _ = launched.ended() => Err(Error::ProcessEnded { detail: None }),
    }?;
    failpoint!("start.qemu.answered", run.path());
    Ok(())
}

/// Refuses a kernel or initrd that is not what was planned with.
async fn check_kernel(machine: &Machine) -> Result<()> {
    let Some(kernel) = &machine.hardware.kernel else { return Ok(()) };
    for file in [Some(&kernel.kernel), kernel.initrd.as_ref()].into_iter().flatten() {
        let reading = spawn_blocking({
            let file = file.clone();
            move || file.is_as_it_was()
        });
        let same = reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        if !same.map_err(Error::io("read", &file.path))? {
            let reason = "it changed since the machine was planned; `vmctl plan` shows that".to_owned();
            return Err(Error::Unusable { path: file.path.clone(), reason });
        }
    }
    Ok(())
}

fn reason_of_end(vm: &VmHandle, status: &str, messages: &str) -> Error {
    if let Some((name, path)) = volumes::locked(vm, messages) {
        return Error::VolumeInUse { name, path };
    }
    match ports::refused(&vm.machine, messages) {
        Some(forward) => ports::in_use(forward, ports::holder(forward)),
        None if messages.is_empty() => Error::ProcessEnded { detail: Some(status.to_owned()) },
        None => Error::ProcessEnded { detail: Some(format!("{status}: {messages}")) },
    }
}

fn create_log(work: &WorkDir) -> Result<File> {
    let path = qemu_log(work);
    let log = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let log = log.map_err(Error::io("create", &path))?;
    log.set_permissions(PermissionsExt::from_mode(0o600)).map_err(Error::io("set the mode of", &path))?;
    Ok(log)
}
