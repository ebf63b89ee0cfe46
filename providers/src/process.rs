//! The only door to other programs.
//!
//! Three kinds of children, each with its own function, because they die differently:
//! - [`helper`] runs to its end under a deadline and dies with us;
//! - [`machine`] is launched into a session of its own and outlives us;
//! - [`hand_over`] replaces this process.
//!
//! Processes that were started earlier, perhaps by another run, are reached through [`Process`], which exists only
//! for a process that was proved to be the expected one.

mod identity;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::Access;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout};

use crate::error::{Error, Result};
use crate::ssh::PASSPHRASE_VARIABLE;

pub use identity::{Holder, Process};

/// How much of a failed helper's standard error is kept: its last lines tell why it failed.
const STDERR_TAIL: usize = 4096;

/// A helper program that failed: what was run, how it ended, what it said.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` failed with {status}{}", if stderr.is_empty() { String::new() } else { format!(": {stderr}") })]
pub struct CommandError {
    /// The command line, quoted for reading.
    pub command: String,
    /// Exit code or signal, in words.
    pub status: String,
    /// Tail of its standard error.
    pub stderr: String,
}

/// A program of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// What it is called in PATH.
    pub name: &'static str,
    /// Debian's package that holds it.
    pub package: &'static str,
}

impl Program {
    /// Finds it in PATH, or where programs for other programs are; [`Error::ProgramMissing`] if it is not there.
    pub fn locate(&self) -> Result<PathBuf> {
        let elsewhere = || BESIDE_PATH.iter().map(|folder| Path::new(folder).join(self.name));
        find_program(self.name)
            .or_else(|| elsewhere().find(|file| is_program(file)))
            .ok_or_else(|| Error::ProgramMissing { program: self.name.to_owned(), package: self.package })
    }
}

/// Where distributions keep programs that people do not call by themselves, such as QEMU's helpers.
const BESIDE_PATH: [&str; 3] = ["/usr/libexec", "/usr/lib/qemu", "/usr/lib"];

/// Gives a process a session of its own. QEMU's `-daemonize` would do so too, but its sandbox then forbids the
/// very calls (fork, setsid) that the denial of new processes and privileges is about.
pub const SETSID: Program = Program { name: "setsid", package: "util-linux" };

/// Finds a program in PATH as a shell would: the first executable file of that name.
#[expect(clippy::disallowed_methods, reason = "PATH decides which program runs, so its reading belongs here")]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| !folder.as_os_str().is_empty())
        .filter_map(|folder| std::path::absolute(folder.join(name)).ok())
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, Access::EXEC_OK).is_ok()
}

/// Runs a program to its end and returns its standard output.
///
/// It gets no standard input. It is killed if the deadline passes ([`Error::Timeout`]) or the future is dropped.
/// A failure is an [`Error::Command`] with command line, status and the tail of standard error.
pub async fn helper<S: AsRef<OsStr>>(program: &Program, args: &[S], deadline: Duration) -> Result<Vec<u8>> {
    to_its_end(&program.locate()?, program.name, args, Vec::new(), deadline).await
}

/// As [`helper`], of the program at `path`, which gets `given` besides its standard streams, under the numbers that the
/// files have here. They are closed here when it has ended.
pub(crate) async fn helper_given<S: AsRef<OsStr>>(
    path: &Path,
    args: &[S],
    given: Vec<OwnedFd>,
    deadline: Duration,
) -> Result<Vec<u8>> {
    to_its_end(path, &path.to_string_lossy(), args, given, deadline).await
}

#[expect(clippy::disallowed_methods, reason = "this module is the door to other programs")]
async fn to_its_end<S: AsRef<OsStr>>(
    path: &Path,
    name: &str,
    args: &[S],
    given: Vec<OwnedFd>,
    deadline: Duration,
) -> Result<Vec<u8>> {
    let mut command = tokio::process::Command::new(path);
    command.args(args).env_remove(PASSPHRASE_VARIABLE).stdin(Stdio::null()).kill_on_drop(true);
    give(&mut command, given);
    let output = tokio::time::timeout(deadline, command.output())
        .await
        .map_err(|_| Error::Timeout { what: format!("the end of `{name}`"), after: deadline })?
        .map_err(Error::io("run", path))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Command(CommandError {
        command: quote(name, args),
        status: describe(output.status),
        stderr: tail(&output.stderr, STDERR_TAIL),
    }))
}

/// Lets the program have `given`, under the numbers that the files have here; no other program gets them.
#[expect(unsafe_code, reason = "a mark that must be taken off in the child alone")]
fn give(command: &mut tokio::process::Command, given: Vec<OwnedFd>) {
    if given.is_empty() {
        return;
    }
    let unmark = move || given.iter().try_for_each(|file| Ok(fcntl_setfd(file, FdFlags::empty())?));
    // SAFETY: between fork and exec it makes one system call for each file. It takes no memory and no lock.
    unsafe { command.pre_exec(unmark) };
}

/// How a program ended that was asked something.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Whether it ended well.
    pub(crate) is_success: bool,
    /// What it printed, at most [`ANSWER_LIMIT`] bytes of it.
    pub(crate) stdout: Vec<u8>,
}

/// More than any answer has.
const ANSWER_LIMIT: u64 = 1 << 20;

/// Asks the program `name` of PATH something by its standard input, and returns what it prints. Nothing that it says
/// is in an error: it may be secret. It is killed if the deadline passes or the future is dropped.
#[expect(clippy::disallowed_methods, reason = "this module is the door to other programs")]
pub(crate) async fn answer<S: AsRef<OsStr>>(
    name: &str,
    args: &[S],
    question: &[u8],
    deadline: Duration,
) -> Result<Answer> {
    let path = find_program(name).ok_or_else(|| Error::Unusable {
        path: name.into(),
        reason: "there is no such program in PATH".to_owned(),
    })?;
    let mut command = tokio::process::Command::new(&path);
    command
        .args(args)
        .env_remove(PASSPHRASE_VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let asked = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(question).await {
                // It may know its answer without reading the question to its end.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        let mut stdout = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(ANSWER_LIMIT).read_to_end(&mut stdout).await?;
        }
        let status = child.wait().await?;
        Ok(Answer { is_success: status.success(), stdout })
    };
    tokio::time::timeout(deadline, asked)
        .await
        .map_err(|_| Error::Timeout { what: format!("the answer of `{name}`"), after: deadline })?
        .map_err(Error::io("run", &path))
}

/// What a helper that reads a stranger's file may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Address space in bytes.
    pub(crate) memory: u64,
    /// Seconds of the processor.
    pub(crate) cpu_seconds: u64,
    /// Bytes of the largest file that it may write.
    pub(crate) file: u64,
}

/// Sets limits and becomes another program.
pub const PRLIMIT: Program = Program { name: "prlimit", package: "util-linux" };

/// As [`helper`], within limits that the kernel keeps.
pub(crate) async fn limited_helper(
    program: &Program,
    args: &[OsString],
    limits: Limits,
    deadline: Duration,
) -> Result<Vec<u8>> {
    let mut all: Vec<OsString> = vec![
        format!("--as={}", limits.memory).into(),
        format!("--cpu={}", limits.cpu_seconds).into(),
        format!("--fsize={}", limits.file).into(),
        // Threads get as much as this each, of the address space as well.
        "--stack=1048576".into(),
        "--core=0".into(),
        "--".into(),
        program.locate()?.into(),
    ];
    all.extend(args.iter().cloned());
    helper(&PRLIMIT, &all, deadline).await
}

/// A machine that was launched just now: still our child, so that the reason of an early end is known.
///
/// Dropping it lets the machine go on alone.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// Launches a program that outlives us: own session, no standard input, messages to `log`.
///
/// Its standard output is a pipe for a first sign of life ([`Launched::first_line`]); it must bear that the pipe is
/// closed afterwards. It starts in `/` so that it pins no folder, and gets no file that we were started with: a lock or a
/// pipe of whoever runs us would be held for as long as it lives. What is `given` it has, under the numbers that the files
/// have here, and nobody here has it any more.
#[expect(clippy::disallowed_methods, reason = "this module is the door to other programs")]
pub fn machine(program: &Program, args: &[OsString], log: File, given: Vec<OwnedFd>) -> Result<Launched> {
    let path = program.locate()?;
    let setsid = SETSID.locate()?;
    keep_what_we_were_given()?;
    let mut command = tokio::process::Command::new(&setsid);
    command.arg(&path).args(args).current_dir("/").env_remove(PASSPHRASE_VARIABLE);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    give(&mut command, given);
    let mut child = command.spawn().map_err(Error::io("run", &setsid))?;
    let stdout = child.stdout.take().expect("standard output was asked to be a pipe");
    Ok(Launched { child, stdout: BufReader::new(stdout) })
}

/// Lets no program that we start have the files that we were started with. What we open ourselves it never has.
#[expect(unsafe_code, reason = "a descriptor that somebody left open for us is a number and nothing else")]
fn keep_what_we_were_given() -> Result<()> {
    const OURS: &str = "/proc/self/fd";
    let list = Error::io("list folder", OURS);
    for entry in fs::read_dir(OURS).map_err(list)?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        let Some(number) = number.filter(|number| *number > 2) else { continue };
        // SAFETY: the number is only asked about and marked. Where another thread closed it meanwhile, there is nothing
        // to mark; where it opened something else, that bears the mark already.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if let Ok(flags) = fcntl_getfd(descriptor)
            && !flags.contains(FdFlags::CLOEXEC)
        {
            fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC)
                .map_err(|error| Error::io("keep to ourselves", entry.path())(error.into()))?;
        }
    }
    Ok(())
}

impl Launched {
    /// Waits for one line on standard output, at most `limit` bytes of it; `None` if the program closed it first.
    pub async fn first_line(&mut self, limit: u64) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let read = (&mut self.stdout).take(limit).read_until(b'\n', &mut line).await?;
        Ok((read > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    /// Waits until the program ends, and says how.
    pub async fn ended(&mut self) -> io::Result<String> {
        self.child.wait().await.map(describe)
    }

    /// Kills a program that gave no sign of life, and waits for its end.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

/// A server that was launched just now: still our child, so that an early end is known. Dropping it lets it go on alone.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pid: u32,
}

impl Server {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it ends, and says how.
    pub(crate) async fn ended(&mut self) -> io::Result<String> {
        self.child.wait().await.map(describe)
    }

    /// Kills it, and waits for its end.
    pub(crate) async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

/// Launches the program at `path` as a server that outlives us, as [`machine`] does, but working in `folder`, and with all
/// that it says in `log`: it goes on talking on both streams.
#[expect(clippy::disallowed_methods, reason = "this module is the door to other programs")]
pub(crate) fn server(
    path: &Path,
    args: &[OsString],
    log: &File,
    given: Vec<OwnedFd>,
    folder: &Path,
) -> Result<Server> {
    let setsid = SETSID.locate()?;
    keep_what_we_were_given()?;
    let copy = || log.try_clone().map_err(Error::io("share the log of", path));
    let mut command = tokio::process::Command::new(&setsid);
    command.arg(path).args(args).current_dir(folder).env_remove(PASSPHRASE_VARIABLE);
    command.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?);
    give(&mut command, given);
    let child = command.spawn().map_err(Error::io("run", &setsid))?;
    let pid = child.id().unwrap_or_default();
    Ok(Server { child, pid })
}

/// A program that works in our place for a while, with our standard streams: whoever presses Ctrl-C tells it as well.
#[derive(Debug)]
pub struct Foreground {
    child: Child,
    pid: Option<Pid>,
}

impl Foreground {
    /// Starts `command`, a program and its arguments, with `variables` besides our own.
    pub fn start(
        command: &[String],
        variables: impl IntoIterator<Item = (String, OsString)>,
    ) -> io::Result<Self> {
        let Some((program, args)) = command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
        };
        #[expect(clippy::disallowed_methods, reason = "this module is the door to other programs")]
        let child = tokio::process::Command::new(program).args(args).envs(variables).spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { child, pid })
    }

    /// Waits until it ends, and returns the code that a shell would give: 128 and the number of the signal, if one ended
    /// it. May be called again.
    pub async fn ended(&mut self) -> io::Result<u8> {
        let status = self.child.wait().await?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it (SIGKILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// One that ended takes no signal. Its number is its own until it is waited for, which nobody else does.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid.filter(|_| self.child.id().is_some())
            && let Err(error) = rustix::process::kill_process(pid, signal)
        {
            tracing::debug!(%error, "a program cannot be signalled");
        }
    }
}

/// Replaces this process by `program`; returns only if that failed.
#[expect(clippy::disallowed_methods, reason = "this module is the door to other programs")]
pub fn hand_over<S: AsRef<OsStr>>(program: &Path, args: &[S]) -> io::Error {
    std::process::Command::new(program).args(args).env_remove(PASSPHRASE_VARIABLE).exec()
}

/// A command line for reading: words with anything but plain characters are put in single quotes.
pub fn quote<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let word = |text: &str| {
        if !text.is_empty() && text.chars().all(plain) {
            text.to_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    std::iter::once(word(program))
        .chain(args.iter().map(|arg| word(&arg.as_ref().to_string_lossy())))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last `limit` bytes of `text`, from the start of a line if possible, without control characters.
pub(crate) fn tail(text: &[u8], limit: usize) -> String {
    let mut start = text.len().saturating_sub(limit);
    if start > 0
        && let Some(line_end) = text[start..].iter().position(|byte| *byte == b'\n')
    {
        start += line_end + 1;
    }
    let text = String::from_utf8_lossy(&text[start..]);
    let text: String = text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect();
    text.trim().to_owned()
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    const SH: Program = Program { name: "sh", package: "dash" };
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn helper_returns_its_output() {
        assert_eq!(helper(&SH, &["-c", "echo hi; echo no >&2"], LONG).await.unwrap(), b"hi\n");
    }

    #[tokio::test]
    async fn failed_helper_tells_command_status_and_stderr() {
        let error = helper(&SH, &["-c", "echo 'it broke' >&2; exit 3"], LONG).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            r"`sh -c 'echo '\''it broke'\'' >&2; exit 3'` failed with exit code 3: it broke"
        );
    }

    #[tokio::test]
    async fn helper_killed_by_a_signal_says_so() {
        let error = helper(&SH, &["-c", "kill -9 $$"], LONG).await.unwrap_err();
        assert!(error.to_string().ends_with("failed with signal 9"), "{error}");
    }

    #[tokio::test]
    async fn helper_that_hangs_ends_at_its_deadline() {
        let error = helper(&SH, &["-c", "sleep 600"], Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }

    #[tokio::test]
    async fn missing_program_names_its_package() {
        let program = Program { name: "vmctl-no-such-program", package: "some-package" };
        let error = helper::<&str>(&program, &[], LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "`vmctl-no-such-program` was not found in PATH");
        assert!(error.help().unwrap().contains("some-package"));
    }

    #[tokio::test]
    async fn machine_has_a_session_of_its_own_and_no_input() {
        let log = tempfile::tempfile().unwrap();
        let script = "read x; echo $? $(cut -d' ' -f1,6 /proc/$$/stat)".into();
        let mut launched = machine(&SH, &["-c".into(), script], log, Vec::new()).unwrap();
        let line = launched.first_line(100).await.unwrap().unwrap();
        let [read, pid, session] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!((read, pid), ("1", session));
        assert_eq!(launched.ended().await.unwrap(), "exit code 0");
    }

    #[tokio::test]
    async fn machine_has_what_it_is_given_and_no_other_file_of_ours() {
        let (left_open, given) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        fcntl_setfd(&left_open, FdFlags::empty()).unwrap();
        let asked = |number| format!("test -e /proc/$$/fd/{number}; echo -n \"$? \";");
        let script = asked(left_open.as_raw_fd()) + &asked(given.as_raw_fd()) + "echo";
        let log = tempfile::tempfile().unwrap();
        let mut launched =
            machine(&SH, &["-c".into(), script.into()], log, vec![OwnedFd::from(given)]).unwrap();
        assert_eq!(launched.first_line(100).await.unwrap().unwrap(), "1 0");
        launched.ended().await.unwrap();
    }

    #[test]
    fn tail_keeps_whole_lines_and_drops_control_characters() {
        assert_eq!(tail(b"one\ntwo\nthree\n", 9), "three");
        assert_eq!(tail(b"\x1b[31mred\x07\xff\n", 100), "[31mred\u{fffd}");
    }
}
