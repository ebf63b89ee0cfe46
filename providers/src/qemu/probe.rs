//! Asking a guest whether it is ready, or well.
//!
//! Through QEMU's user network a TCP connection from the host succeeds at once, whether the guest listens or not. So
//! ports are asked from inside the guest, over ssh, as are commands. Only the console's log is read from outside. Commands
//! in a guest that vmctl does not log in to are for its agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::argv::marks;
use super::backend::QemuBackend;
use super::console::Search;
use super::guest::{console_tail, while_alive};
use super::names;
use super::shares::mount;
use super::standstill::Standstill;
use super::warm;
use crate::abilities::{Probe, Readiness, Verdict};
use crate::cloud_init;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoints::failpoint;
use crate::pattern::Pattern;
use crate::process::{Process, tail};
use crate::provision::OutputStream;
use crate::spec::VmHandle;
use crate::ssh::{ExitStatus, Session, SshError, quote};
use crate::workdir::WorkDir;

/// Time from one answer to the next question. A service is seen late by this at most, and a question costs an
/// emulated guest some ten milliseconds.
const AGAIN: Duration = Duration::from_millis(200);

/// How long one connection inside the guest may take before it is tried anew. Loopback answers at once, unless a
/// firewall drops what comes.
const CONNECT: Duration = Duration::from_secs(10);

/// How much of a command's messages is kept to find its last line.
const MESSAGES: usize = 4096;

/// Longest line of a command's messages that goes into an error.
const LINE: usize = 200;

/// How Linux begins its last line (kernel/panic.c), behind the time of printk.
const KERNEL_PANIC: &str = r"^(\[ *[0-9.]+\] )?Kernel panic - not syncing";

/// How far back on the console a panic counts as the guest's present state: what is printed around one.
const PANIC_SPAN: u64 = 8 << 10;

// What is said of a probe that does not hold.
const REFUSED: &str = "connection refused";
pub(crate) const NO_LINE: &str = "no line of the console since the machine's last start matches";
const SILENCE: &str = "no answer";
const STILL_RUNS: &str = "the command has not ended";
const NO_AGENT: &str = "no guest agent answers, and the machine has no login";

/// What to do about the latter.
const NO_AGENT_HELP: &str = "add an `ssh` block, or install qemu-guest-agent in the image";

/// A machine whose process lives, and until when it is asked.
struct Asked<'a> {
    vm: &'a VmHandle,
    process: &'a Process,
    deadline: Instant,
}

impl Asked<'_> {
    /// What is left of the time.
    fn patience(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Whether there is anything to [furnish](QemuBackend::furnish) it with. Where nobody can log in, the guest sees to its
/// shares and its neighbours' names itself, or nobody does.
fn needs_furnishing(vm: &VmHandle) -> Result<bool> {
    Ok(vm.ssh.is_some()
        && (warm::is_to_be_renewed(vm) || !vm.machine.shares.is_empty() || names::are_to_be_told(vm)?))
}

/// Why a probe does not hold.
struct Unmet {
    said: String,
    kind: ErrorKind,
    help: Option<String>,
    /// The deadline passed, and `said` does not tell so.
    timed_out: bool,
}

impl From<&Error> for Unmet {
    fn from(error: &Error) -> Self {
        Self { said: error.to_string(), kind: error.kind(), help: error.help(), timed_out: false }
    }
}

impl QemuBackend {
    /// See [`crate::GuestAccess::wait_ready`].
    pub(super) async fn be_ready(&self, vm: &VmHandle, readiness: &Readiness) -> Result<()> {
        let process = self.process_of(vm, "wait for")?;
        let (standstill, current) = (Standstill::default(), AtomicUsize::new(0));
        let waiting = async {
            let mut left = readiness.timeout;
            loop {
                let asked = Asked { vm, process: &process, deadline: Instant::now() + left };
                let asking = async {
                    let mut bare = needs_furnishing(vm)?;
                    for (number, probe) in readiness.probes.iter().enumerate() {
                        current.store(number, Ordering::Relaxed);
                        // What is asked inside the guest may be about a share, or about a neighbour.
                        if matches!(probe, Probe::Tcp(_) | Probe::Exec(_)) && std::mem::take(&mut bare) {
                            self.wait_for(&asked, &Probe::Login, readiness.timeout).await?;
                            self.furnish(&asked).await?;
                        }
                        self.wait_for(&asked, probe, readiness.timeout).await?;
                    }
                    if bare { self.furnish(&asked).await } else { Ok(()) }
                };
                // In memory of its own: whoever waits for a future that was handed in has room for it twice.
                let result: Result<()> = standstill.watch(Box::pin(asking)).await;
                left = standstill.take();
                match result {
                    Err(error) if error.kind() == ErrorKind::Timeout && !left.is_zero() => {
                        tracing::debug!(%error, ?left, "vmctl stood still for some of the time");
                    }
                    result => return result,
                }
            }
        };
        let waiting = async {
            tokio::select! {
                result = waiting => result,
                panicked = kernel_panic(vm, &process) => {
                    panicked?;
                    let probe = readiness.probes.get(current.load(Ordering::Relaxed));
                    Err(panic_error(vm, probe.cloned().unwrap_or(Probe::Login)))
                }
            }
        };
        while_alive(vm, &process, waiting, || true).await
    }

    async fn wait_for(&self, asked: &Asked<'_>, probe: &Probe, patience: Duration) -> Result<()> {
        let waited = match probe {
            Probe::Login => self.wait_for_login(asked, patience).await,
            Probe::Exec(command) if asked.vm.ssh.is_none() => self.wait_for_agent(asked, command).await,
            Probe::Tcp(_) | Probe::Exec(_) => self.wait_inside(asked, probe).await,
            Probe::Log(pattern) => wait_for_line(asked, pattern).await,
        };
        let Some(unmet) = waited? else { return Ok(()) };
        Err(Error::NotReady {
            probe: probe.clone(),
            after: unmet.timed_out.then_some(patience),
            said: unmet.said,
            console: console_tail(asked.vm),
            kind: unmet.kind,
            help: unmet.help,
        })
    }

    /// A guest with a seed counts as logged in to when cloud-init is done with it. It may restart before.
    ///
    /// Only a new login proves anything: one that is open may lead to a guest that has restarted since.
    async fn wait_for_login(&self, asked: &Asked<'_>, patience: Duration) -> Result<Option<Unmet>> {
        if self.sessions.take_woken(asked.vm.id, asked.process.pid()).is_some() {
            return Ok(None);
        }
        loop {
            let session = match self.log_in(asked.vm, asked.process, asked.patience(), false).await {
                Ok(session) => session,
                Err(error) => return unreachable_guest(error).map(Some),
            };
            failpoint!("ready.qemu.logged-in", &asked.vm.work_dir);
            if !asked.vm.seed {
                return Ok(None);
            }
            let lost = match timeout_at(asked.deadline, cloud_init::done(&session)).await {
                Ok(Ok(())) => return Ok(None),
                Ok(Err(error @ Error::Ssh(SshError::Lost(_)))) => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let what = "the end of cloud-init in the guest".to_owned();
                    return Ok(Some(Unmet::from(&Error::Timeout { what, after: patience })));
                }
            };
            if !pause(asked.deadline).await {
                return Ok(Some(Unmet::from(&lost)));
            }
        }
    }

    /// Asks again and again. A connection that breaks is made anew: a guest may restart its sshd as it boots.
    async fn wait_inside(&self, asked: &Asked<'_>, probe: &Probe) -> Result<Option<Unmet>> {
        let mut last = None;
        loop {
            let session = match self.login(asked).await {
                Ok(session) => session,
                Err(error) => {
                    let unmet = unreachable_guest(error)?;
                    return Ok(Some(last.filter(|_| unmet.kind == ErrorKind::Timeout).unwrap_or(unmet)));
                }
            };
            let said = match ask_inside(&session, probe, asked.deadline).await {
                Ok(Verdict::Holds) => return Ok(None),
                Ok(Verdict::Fails(said)) => {
                    if said == SILENCE {
                        // The guest at the far end of this login may be gone.
                        self.sessions.forget(asked.vm.id);
                    }
                    said
                }
                Err(Error::Ssh(error @ SshError::Lost(_))) => error.to_string(),
                Err(error) => return Err(error),
            };
            // A question that the deadline cut off says less than the answer before it.
            let is_cut_off = Instant::now() >= asked.deadline && (said == SILENCE || said == STILL_RUNS);
            let unmet = Unmet { said, kind: ErrorKind::Timeout, help: None, timed_out: true };
            let told = if is_cut_off { last.take().unwrap_or(unmet) } else { unmet };
            if !pause(asked.deadline).await {
                return Ok(Some(told));
            }
            last = Some(told);
        }
    }

    /// Asks the guest agent again and again.
    async fn wait_for_agent(&self, asked: &Asked<'_>, command: &str) -> Result<Option<Unmet>> {
        loop {
            let said = match self.ask_agent(asked, command).await? {
                Verdict::Holds => return Ok(None),
                Verdict::Fails(said) => said,
            };
            if !pause(asked.deadline).await {
                let help = (said == NO_AGENT).then(|| NO_AGENT_HELP.to_owned());
                return Ok(Some(Unmet { said, kind: ErrorKind::Timeout, help, timed_out: true }));
            }
        }
    }

    /// Asks the guest agent, once. What it does not do is the guest's affair.
    async fn ask_agent(&self, asked: &Asked<'_>, command: &str) -> Result<Verdict> {
        let Some(mut agent) = self.agent_of(asked.vm).await? else {
            return Ok(Verdict::Fails(NO_AGENT.to_owned()));
        };
        match agent.run(command, Some(asked.patience())).await {
            Ok(ran) => Ok(verdict(&ran.status, &ran.stderr)),
            Err(Error::Timeout { .. }) => Ok(Verdict::Fails(STILL_RUNS.to_owned())),
            Err(error @ Error::Agent(_)) => Ok(Verdict::Fails(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// The open login, or a new one before the deadline.
    async fn login(&self, asked: &Asked<'_>) -> Result<Arc<Session>> {
        match self.sessions.get(asked.vm.id, asked.process.pid()) {
            Some(session) => Ok(session),
            None => self.log_in(asked.vm, asked.process, asked.patience(), true).await,
        }
    }

    /// Gives a guest what it has from vmctl and not from its disk: what tells it from the template that it came from, the
    /// names of its neighbours, the host's folders.
    async fn furnish(&self, asked: &Asked<'_>) -> Result<()> {
        let session = self.login(asked).await?;
        if warm::is_to_be_renewed(asked.vm) {
            cloud_init::done(&session).await?;
            self.renew_booted(asked.vm, &session).await?;
        }
        if names::are_to_be_told(asked.vm)? {
            names::tell(asked.vm, &session, asked.deadline).await?;
        }
        match &*asked.vm.machine.shares {
            [] => Ok(()),
            shares => mount(&session, shares, asked.deadline).await,
        }
    }

    /// See [`crate::GuestAccess::probe`].
    pub(super) async fn ask_once(&self, vm: &VmHandle, probe: &Probe, patience: Duration) -> Result<Verdict> {
        let process = self.process_of(vm, "probe")?;
        let asked = Asked { vm, process: &process, deadline: Instant::now() + patience };
        let asking = async {
            match probe {
                Probe::Login => self.ask_for_login(&asked).await,
                Probe::Exec(command) if vm.ssh.is_none() => self.ask_agent(&asked, command).await,
                Probe::Tcp(_) | Probe::Exec(_) => {
                    let session = self.login(&asked).await?;
                    ask_inside(&session, probe, asked.deadline).await
                }
                Probe::Log(pattern) => {
                    let (_, found) = search(&asked, pattern)?.look().await?;
                    Ok(if found { Verdict::Holds } else { Verdict::Fails(NO_LINE.to_owned()) })
                }
            }
        };
        while_alive(vm, &process, Box::pin(asking), || true).await
    }

    async fn ask_for_login(&self, asked: &Asked<'_>) -> Result<Verdict> {
        // A login that is open may lead to a guest that no longer answers; then there is time left for a new one.
        let open = self.sessions.get(asked.vm.id, asked.process.pid());
        if let Some(session) = &open
            && !is_alive(session, Instant::now() + asked.patience() / 2).await
        {
            self.sessions.forget(asked.vm.id);
        }
        let session = match self.login(asked).await {
            Ok(session) => session,
            Err(error) => return Ok(Verdict::Fails(unreachable_guest(error)?.said)),
        };
        if !asked.vm.seed {
            return Ok(Verdict::Holds);
        }
        match timeout_at(asked.deadline, cloud_init::done(&session)).await {
            Ok(Ok(())) => Ok(Verdict::Holds),
            Ok(Err(error @ Error::CloudInit { .. })) => Ok(Verdict::Fails(error.to_string())),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Verdict::Fails("cloud-init has not ended in the guest".to_owned())),
        }
    }
}

/// What the guest itself is the reason of; everything else stays an error.
fn unreachable_guest(error: Error) -> Result<Unmet> {
    match &error {
        Error::Ssh(ssh) if matches!(ssh.kind(), ErrorKind::Timeout | ErrorKind::Guest) => {
            Ok(Unmet::from(&error))
        }
        Error::NoAddress { .. } => Ok(Unmet { timed_out: true, ..Unmet::from(&error) }),
        _ => Err(error),
    }
}

async fn wait_for_line(asked: &Asked<'_>, pattern: &str) -> Result<Option<Unmet>> {
    let mut search = search(asked, pattern)?;
    loop {
        let found;
        (search, found) = search.look().await?;
        if found {
            return Ok(None);
        }
        if !pause(asked.deadline).await {
            let said = NO_LINE.to_owned();
            return Ok(Some(Unmet { said, kind: ErrorKind::Timeout, help: None, timed_out: true }));
        }
    }
}

/// A search for `pattern` from the machine's last start on. A process that an earlier vmctl launched does not say
/// when that was: then everything counts.
fn search(asked: &Asked<'_>, pattern: &str) -> Result<Search> {
    let pattern = Pattern::new(pattern)?;
    let args = asked.process.arguments().map_err(Error::io("examine", &asked.vm.work_dir))?;
    let from = marks(&args).and_then(|marks| marks.console_start).unwrap_or(0);
    Ok(Search::new(WorkDir::new(&asked.vm.work_dir).console_log(), pattern, from))
}

/// Waits until the guest's kernel says on its console that it gave up.
///
/// What it said long before does not count: the guest may have been restarted since.
async fn kernel_panic(vm: &VmHandle, process: &Process) -> Result<()> {
    let log = WorkDir::new(&vm.work_dir).console_log();
    let length = std::fs::metadata(&log).map_or(0, |found| found.len());
    let args = process.arguments().map_err(Error::io("examine", &vm.work_dir))?;
    let start = marks(&args).and_then(|marks| marks.console_start).unwrap_or(0);
    let mut search =
        Search::new(log, Pattern::new(KERNEL_PANIC)?, start.max(length.saturating_sub(PANIC_SPAN)));
    loop {
        let found;
        (search, found) = search.look().await?;
        if found {
            // What it says behind that line is worth having in the error.
            sleep(AGAIN).await;
            return Ok(());
        }
        sleep(AGAIN).await;
    }
}

fn panic_error(vm: &VmHandle, probe: Probe) -> Error {
    Error::NotReady {
        probe,
        after: None,
        said: "the guest's kernel panicked".to_owned(),
        console: console_tail(vm),
        kind: ErrorKind::Guest,
        help: Some(
            "it does not come up by itself: make the machine anew (`--replace NAME`), with another image if it panics again"
                .to_owned(),
        ),
    }
}

/// Waits until the next question is due; false if the deadline comes first.
pub(crate) async fn pause(deadline: Instant) -> bool {
    let next = Instant::now() + AGAIN;
    sleep_until(next.min(deadline)).await;
    next < deadline
}

/// Asks over a login, once.
pub(crate) async fn ask_inside(session: &Session, probe: &Probe, deadline: Instant) -> Result<Verdict> {
    match probe {
        Probe::Tcp(port) => connects(session, *port, deadline).await,
        Probe::Exec(command) => succeeds(session, command, deadline).await,
        Probe::Login | Probe::Log(_) => Ok(Verdict::Holds),
    }
}

async fn connects(session: &Session, port: u16, deadline: Instant) -> Result<Verdict> {
    let patience = deadline.min(Instant::now() + CONNECT);
    match timeout_at(patience, session.connects(port)).await {
        Ok(Ok(true)) => Ok(Verdict::Holds),
        Ok(Ok(false)) => Ok(Verdict::Fails(REFUSED.to_owned())),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Ok(Verdict::Fails(SILENCE.to_owned())),
    }
}

/// A command that has not ended by the deadline is let go of: it loses its streams.
async fn succeeds(session: &Session, command: &str, deadline: Instant) -> Result<Verdict> {
    let command = format!("sh -c {}", quote(command));
    let Ok(started) = timeout_at(deadline, session.start(&command)).await else {
        return Ok(Verdict::Fails(SILENCE.to_owned()));
    };
    let mut running = started?;
    let mut messages = Vec::new();
    let ending = async {
        running.input().end().await?;
        while let Some((stream, bytes)) = running.next().await? {
            if stream == OutputStream::Stderr {
                messages.extend_from_slice(&bytes);
                messages.drain(..messages.len().saturating_sub(MESSAGES));
            }
        }
        Ok::<_, SshError>(())
    };
    let ended = timeout_at(deadline, ending).await;
    let status = running.finish().await;
    match ended {
        Ok(ended) => ended?,
        Err(_) => return Ok(Verdict::Fails(STILL_RUNS.to_owned())),
    }
    Ok(verdict(&status?, &messages))
}

fn verdict(status: &ExitStatus, messages: &[u8]) -> Verdict {
    if status.is_success() {
        return Verdict::Holds;
    }
    let text = tail(messages, MESSAGES);
    match text.lines().next_back() {
        None => Verdict::Fails(status.to_string()),
        Some(line) => Verdict::Fails(format!("{status}: {}", shortened(line))),
    }
}

fn shortened(line: &str) -> String {
    let mut short: String = line.chars().take(LINE).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

async fn is_alive(session: &Session, deadline: Instant) -> bool {
    matches!(succeeds(session, "exit 0", deadline).await, Ok(Verdict::Holds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_command_says_its_last_line_within_bounds() {
        let fails =
            |status: u32, messages: &str| match verdict(&ExitStatus::Code(status), messages.as_bytes()) {
                Verdict::Holds => panic!("{status} is a failure"),
                Verdict::Fails(said) => said,
            };
        assert_eq!(verdict(&ExitStatus::Code(0), b"a warning\n"), Verdict::Holds);
        assert_eq!(fails(1, ""), "exit code 1");
        assert_eq!(fails(7, "one\n\x1b[31mtwo\r\n\n"), "exit code 7: [31mtwo");
        let long = fails(1, &"ü".repeat(1000));
        assert_eq!(long, format!("exit code 1: {}…", "ü".repeat(200)));
    }
}
