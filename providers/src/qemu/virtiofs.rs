//! Folders of the host over virtiofs. Each has a process beside QEMU, `virtiofsd`, which serves one QEMU over one socket
//! and ends with it.
//!
//! One that was started for a QEMU that never came waits for ever: vmctl was killed in between. Its log is made before it
//! is, and it holds a lock on that as long as it lives: whether there is one, that tells at any moment. Who it is, its
//! command line tells, which names the socket as no other does, except for the moments in which it becomes another program.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::argv::text;
use super::places::{RuntimeDir, ensure_private_file, remove_file, tail_of};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::process::{self, CommandError, Launched, Process, Program};
use crate::spec::{Share, ShareDriver};

/// Serves folders over virtiofs. A part of Debian's `qemu-system-common` up to Debian 12, a package of its own since.
pub const VIRTIOFSD: Program = Program { name: "virtiofsd", package: "virtiofsd" };

/// Begins the argument that names the socket, in all versions.
const SOCKET: &str = "--socket-path=";

/// How long it may take to say what it can do.
const HELP: Duration = Duration::from_secs(10);

/// How long it may take until it listens. It takes some milliseconds on an idle host.
const LISTENING: Duration = Duration::from_secs(30);

/// How long it may take to end it, which takes no time but where the host is overloaded.
const ENDING: Duration = Duration::from_secs(10);

/// How often is looked whether it listens, or who it is. A first connection would be the only one, so that nothing is tried.
const GLANCE: Duration = Duration::from_millis(5);

/// How much of its messages goes into an error.
const MESSAGES: usize = 1024;

/// What an installed `virtiofsd` can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Abilities {
    /// It is the one in Rust, which serves any user and takes its folder as `--shared-dir`. The one in C, which came with
    /// QEMU up to 7.2, serves root alone.
    is_rust: bool,
    /// It can keep a guest from writing (since 1.11).
    has_readonly: bool,
}

impl Abilities {
    /// Reads them from what it says of itself.
    fn of(help: &str) -> Self {
        let has = |option: &str| help.split_whitespace().any(|word| word == option);
        Self { is_rust: has("--shared-dir"), has_readonly: has("--readonly") }
    }

    /// Why it cannot serve `share` to the user with this id.
    fn refusal(self, share: &Share, user: u32) -> Option<&'static str> {
        if !self.is_rust && user != 0 {
            Some(
                "it is to be shared over virtiofs, and the `virtiofsd` of QEMU 7 and before serves root alone; install a \
                 newer one, or share it over 9p",
            )
        } else if share.readonly && !self.has_readonly {
            Some(
                "it is to be shared `readonly` over virtiofs, and this host's `virtiofsd` cannot keep a guest from \
                 writing (1.11 and later can); share it over 9p",
            )
        } else {
            None
        }
    }

    /// What it is started with.
    fn args(self, share: &Share, socket: &Path) -> Result<Vec<OsString>> {
        let folder = text(&share.source)?;
        let mut args = vec![format!("{SOCKET}{}", text(socket)?)];
        if self.is_rust {
            args.push(format!("--shared-dir={folder}"));
            args.extend(share.readonly.then(|| "--readonly".to_owned()));
        } else {
            // A list as of QEMU's `-o`: a comma is kept by a backslash, and so is that.
            let folder = folder.replace('\\', r"\\").replace(',', r"\,");
            args.extend(["-o".to_owned(), format!("source={folder}")]);
        }
        Ok(args.into_iter().map(OsString::from).collect())
    }
}

/// Refuses shares that this host's `virtiofsd` cannot serve.
pub(super) async fn check(shares: &[Share]) -> Result<()> {
    let mut shares = over_virtiofs(shares).peekable();
    if shares.peek().is_none() {
        return Ok(());
    }
    let abilities = abilities().await?;
    let user = rustix::process::geteuid().as_raw();
    match shares.find_map(|(_, share)| Some((share, abilities.refusal(share, user)?))) {
        Some((share, reason)) => {
            Err(Error::Unusable { path: share.source.clone(), reason: reason.to_owned() })
        }
        None => Ok(()),
    }
}

/// Starts a process for each folder, and returns when all of them wait for QEMU. On failure none is left.
pub(super) async fn serve(shares: &[Share], run: &RuntimeDir) -> Result<()> {
    end_all(run).await?;
    let mut shares = over_virtiofs(shares).peekable();
    if shares.peek().is_none() {
        return Ok(());
    }
    let abilities = abilities().await?;
    for (index, share) in shares {
        if let Err(error) = serve_one(abilities, share, index, run).await {
            end_all(run).await?;
            return Err(error);
        }
    }
    Ok(())
}

/// Ends those that serve a machine which does not run, and those that a launch left behind that was cut off.
pub(super) async fn end_all(run: &RuntimeDir) -> Result<()> {
    let failed = || Error::io("end the processes of", run.path());
    let logs = logs(run)?;
    let sockets: Vec<_> = logs.iter().map(|log| log.with_extension("sock")).collect();
    let ended = timeout(ENDING, async {
        while is_any_locked(&logs)? {
            let found = Process::all(|args| is_serving(args, &sockets)).map_err(failed())?;
            for process in &found {
                process.kill().map_err(failed())?;
                process.exited().await.map_err(failed())?;
            }
            if found.is_empty() {
                sleep(GLANCE).await;
            }
        }
        Ok(())
    });
    ended.await.unwrap_or_else(|elapsed| Err(failed()(elapsed.into())))
}

async fn serve_one(abilities: Abilities, share: &Share, index: usize, run: &RuntimeDir) -> Result<()> {
    let (socket, log_path) = (run.share(index), run.share_log(index));
    let args = abilities.args(share, &socket)?;
    remove_file(&socket)?;
    let mut launched = launch(&args, &log_path)?;
    failpoint!("start.qemu.serving", run.path());
    let status = match timeout(LISTENING, listens(&socket, &mut launched)).await {
        Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some(status))) => status,
        Ok(Err(error)) => return Err(Error::io("wait for", VIRTIOFSD.name)(error)),
        Err(_) => "silence".to_owned(),
    };
    Err(Error::Command(CommandError {
        command: process::quote(VIRTIOFSD.name, &args),
        status,
        stderr: tail_of(&log_path, MESSAGES)?,
    }))
}

/// Launches it with a new log, on which it holds a lock.
fn launch(args: &[OsString], log_path: &Path) -> Result<Launched> {
    remove_file(log_path)?;
    ensure_private_file(log_path)?;
    let log = OpenOptions::new().append(true).open(log_path).map_err(Error::io("open", log_path))?;
    // It is inherited, and let go of by the last process that has it.
    log.lock().map_err(Error::io("lock", log_path))?;
    process::machine(&VIRTIOFSD, args, log, Vec::new())
}

/// Waits until it listens (`None`), or ended: how.
async fn listens(socket: &Path, launched: &mut Launched) -> io::Result<Option<String>> {
    loop {
        if is_listening(&std::fs::read("/proc/net/unix")?, socket) {
            return Ok(None);
        }
        tokio::select! {
            status = launched.ended() => return status.map(Some),
            () = sleep(GLANCE) => {}
        }
    }
}

/// Whether the kernel's table of sockets (proc(5)) has one at `path` that listens.
fn is_listening(table: &[u8], path: &Path) -> bool {
    /// `__SO_ACCEPTCON`, as written there.
    const ACCEPTS: &[u8] = b"00010000";
    table.split(|byte| *byte == b'\n').any(|line| {
        let mut words = line.splitn(8, |byte| *byte == b' ').skip(3);
        words.next() == Some(ACCEPTS) && line.ends_with(path.as_os_str().as_encoded_bytes())
    })
}

/// The logs in a runtime folder.
fn logs(run: &RuntimeDir) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(run.path()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list folder", run.path())(error)),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(Error::io("list folder", run.path()))?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.starts_with(b"share") && path.extension() == Some(OsStr::new("log"))
    });
    Ok(paths)
}

/// Whether somebody lives who was launched with one of these logs.
fn is_any_locked(logs: &[PathBuf]) -> Result<bool> {
    for log in logs {
        match File::open(log).map_err(Error::io("open", log))?.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", log)(error)),
        }
    }
    Ok(false)
}

/// Whether a command line is of one that serves such a socket, or is about to: it is launched through another program,
/// which becomes it.
fn is_serving(args: &[String], sockets: &[PathBuf]) -> bool {
    let is = |index: usize, program: &Program| {
        args.get(index).is_some_and(|path| Path::new(path).ends_with(program.name))
    };
    (is(0, &VIRTIOFSD) || is(0, &process::SETSID) && is(1, &VIRTIOFSD))
        && args
            .iter()
            .filter_map(|arg| arg.strip_prefix(SOCKET))
            .any(|path| sockets.iter().any(|socket| socket == Path::new(path)))
}

fn over_virtiofs(shares: &[Share]) -> impl Iterator<Item = (usize, &Share)> {
    shares.iter().enumerate().filter(|(_, share)| share.driver == ShareDriver::Virtiofs)
}

async fn abilities() -> Result<Abilities> {
    let help = process::helper(&VIRTIOFSD, &["--help"], HELP).await?;
    Ok(Abilities::of(&String::from_utf8_lossy(&help)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_C: Abilities = Abilities { is_rust: false, has_readonly: false };
    const IN_RUST: Abilities = Abilities { is_rust: true, has_readonly: true };

    fn share(source: &str, readonly: bool) -> Share {
        Share { source: source.into(), target: "/mnt".to_owned(), readonly, driver: ShareDriver::Virtiofs }
    }

    #[test]
    fn each_version_gets_the_arguments_that_it_knows() {
        let args =
            |abilities: Abilities| abilities.args(&share(r"/a,b\c", true), Path::new("/run/s")).unwrap();
        assert_eq!(args(IN_C), ["--socket-path=/run/s", "-o", r"source=/a\,b\\c"]);
        assert_eq!(args(IN_RUST), ["--socket-path=/run/s", r"--shared-dir=/a,b\c", "--readonly"]);
    }

    #[test]
    fn what_a_version_cannot_do_is_refused() {
        let is_refused =
            |abilities: Abilities, readonly, user| abilities.refusal(&share("/a", readonly), user).is_some();
        assert!(is_refused(IN_C, false, 1000) && is_refused(IN_C, true, 0) && !is_refused(IN_C, false, 0));
        assert!(!is_refused(IN_RUST, true, 1000));
        assert!(is_refused(Abilities { has_readonly: false, ..IN_RUST }, true, 1000));
    }

    #[tokio::test]
    async fn socket_that_listens_is_told_from_one_that_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a socket");
        let found = || is_listening(&std::fs::read("/proc/net/unix").unwrap(), &path);
        assert!(!found());
        let bound = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(!found());
        drop(bound);
        std::fs::remove_file(&path).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(found());
    }

    #[tokio::test]
    async fn server_is_ended_however_far_its_launch_has_come() {
        let folder = tempfile::tempdir().unwrap();
        let run = RuntimeDir::new(&folder.path().join("run"), crate::spec::InstanceId(uuid::Uuid::nil()));
        run.create().unwrap();
        let abilities = abilities().await.unwrap();
        let args = abilities.args(&share(text(folder.path()).unwrap(), false), &run.share(0)).unwrap();
        for waited in 0..30 {
            let mut launched = launch(&args, &run.share_log(0)).unwrap();
            // Later each time, by about what a launch takes: its programs begin, one becomes the other, and that forks.
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_micros(200) * waited {
                std::hint::spin_loop();
            }
            end_all(&run).await.unwrap();
            let left = Process::all(|args| is_serving(args, &[run.share(0)])).unwrap();
            assert!(left.is_empty(), "after {waited} times 0.2 ms: {:?}", left[0].arguments());
            timeout(ENDING, launched.ended()).await.expect("it is found and ended").unwrap();
        }
    }

    #[test]
    fn process_of_another_socket_or_program_is_not_ours() {
        let ours = [PathBuf::from("/run/1/share0.sock")];
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for line in [
            "/usr/lib/qemu/virtiofsd --socket-path=/run/1/share0.sock",
            "/usr/bin/setsid /usr/lib/qemu/virtiofsd --socket-path=/run/1/share0.sock",
        ] {
            assert!(is_serving(&words(line), &ours), "{line}");
        }
        for line in [
            "/usr/lib/qemu/virtiofsd --socket-path=/run/2/share0.sock",
            "vi --socket-path=/run/1/share0.sock",
            "vi virtiofsd --socket-path=/run/1/share0.sock",
            "virtiofsd /run/1/share0.sock",
            "",
        ] {
            assert!(!is_serving(&words(line), &ours), "{line}");
        }
    }
}
