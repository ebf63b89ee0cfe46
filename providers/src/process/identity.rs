//! Which process is ours, and signals to that one only.
//!
//! A stored pid proves nothing: after a crash or a reboot it may belong to anybody. A machine holds a lock on its
//! pidfile for as long as it lives, and the kernel tells who holds a lock. So a [`Process`] is made in this order:
//! ask for the lock's owner, open a pidfd of it (from now on the pid cannot be reused under us), ask for the owner
//! again, compare its command line. Signals go through the pidfd.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Flock, FlockType, Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Who holds the lock on a pidfile.
#[derive(Debug)]
pub enum Holder {
    /// Nobody: no such file, or nobody's lock on it.
    Nobody,
    /// The process that was expected.
    Expected(Process),
    /// Another process, for the message.
    Unexpected(Process),
}

/// A live process that was proved to be the expected one.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl Process {
    /// Finds the process that holds a lock on `pidfile` and whose command line `is_expected`.
    pub fn holding(pidfile: &Path, is_expected: impl FnOnce(&[String]) -> bool) -> io::Result<Holder> {
        let Some(pid) = lock_owner(pidfile)? else { return Ok(Holder::Nobody) };
        let fd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(Holder::Nobody),
            Err(error) => return Err(error.into()),
        };
        if lock_owner(pidfile)? != Some(pid) {
            return Ok(Holder::Nobody);
        }
        let process = Self { pid, fd };
        if is_expected(&process.arguments()?) {
            Ok(Holder::Expected(process))
        } else {
            Ok(Holder::Unexpected(process))
        }
    }

    /// The process with this id, if there is one and its command line `is_expected`. A number proves nothing more.
    pub fn running(pid: u32, is_expected: impl FnOnce(&[String]) -> bool) -> io::Result<Option<Self>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let fd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let process = Self { pid, fd };
        let is_expected = is_expected(&process.arguments()?);
        Ok(is_expected.then_some(process))
    }

    /// All processes whose command line `is_expected`. One that cannot be looked at is none of them: it ended, or is
    /// somebody else's.
    pub fn all(is_expected: impl Fn(&[String]) -> bool) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            found.extend(pid.and_then(|pid| Self::running(pid, &is_expected).ok().flatten()));
        }
        Ok(found)
    }

    /// Whether it holds a file open that is in `folder`, a real path, or was until it was removed. A process whose
    /// files cannot be seen has none there.
    pub fn has_open_in(&self, folder: &Path) -> bool {
        let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", self.pid())) else { return false };
        open.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.starts_with(folder)))
    }

    /// Its process id, to be shown.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Its command line; empty once it ended.
    pub fn arguments(&self) -> io::Result<Vec<String>> {
        match std::fs::read(format!("/proc/{}/cmdline", self.pid())) {
            Ok(bytes) => Ok(bytes
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Asks it to end (SIGTERM). Succeeds if it ended already.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it (SIGKILL). Succeeds if it ended already.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it ends; it need not be our child. Any number of callers may wait.
    #[expect(
        deprecated,
        reason = "sound for an OwnedFd, which never changes its descriptor; the rest is unsafe"
    )]
    pub async fn exited(&self) -> io::Result<()> {
        let fd = AsyncFd::with_interest(self.fd.try_clone()?, Interest::READABLE)?;
        fd.readable().await.map(|_| ())
    }
}

/// The process that holds a write lock on the file; `None` if there is no file or no lock.
fn lock_owner(path: &Path) -> io::Result<Option<Pid>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::ReadLock))? {
        None => Ok(None),
        Some(lock) => lock.pid.map(Some).ok_or_else(|| {
            io::Error::other("the file is locked by a process outside of this process namespace")
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::super::{Program, machine};
    use super::*;

    /// A QEMU without a machine: it locks its pidfile and greets on its monitor within milliseconds.
    const EMPTY_QEMU: Program = Program { name: "qemu-system-x86_64", package: "qemu-system-x86" };

    #[tokio::test]
    async fn lock_holder_is_found_awaited_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pidfile = folder.path().join("pid");
        let mut args: Vec<OsString> = "-nodefaults -machine none -display none -qmp stdio -pidfile"
            .split(' ')
            .map(Into::into)
            .collect();
        args.push(pidfile.clone().into());
        let mut launched = machine(&EMPTY_QEMU, &args, tempfile::tempfile().unwrap()).unwrap();
        assert!(launched.first_line(1000).await.unwrap().is_some_and(|line| line.contains("QMP")));

        let is_expected = |args: &[String]| args.iter().any(|arg| Path::new(arg) == pidfile);
        let Holder::Expected(process) = Process::holding(&pidfile, is_expected).unwrap() else { panic!() };
        assert!(matches!(Process::holding(&pidfile, |_| false).unwrap(), Holder::Unexpected(_)));

        let waited = tokio::time::timeout(Duration::from_millis(20), process.exited()).await;
        assert!(waited.is_err(), "it lives, so the wait must not end");
        process.kill().unwrap();
        process.exited().await.unwrap();
        process.kill().unwrap();
        assert_eq!(launched.ended().await.unwrap(), "signal 9");
        assert!(matches!(Process::holding(&pidfile, is_expected).unwrap(), Holder::Nobody));
    }

    #[test]
    fn pid_written_in_an_unlocked_file_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let pidfile = folder.path().join("pid");
        for text in ["1", "0", "4294967295", "-1", ""] {
            std::fs::write(&pidfile, text).unwrap();
            assert!(matches!(Process::holding(&pidfile, |_| true).unwrap(), Holder::Nobody));
        }
        assert!(matches!(Process::holding(&folder.path().join("none"), |_| true).unwrap(), Holder::Nobody));
    }

    #[test]
    fn symbolic_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("pid");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(Process::holding(&link, |_| true).is_err());
    }
}
