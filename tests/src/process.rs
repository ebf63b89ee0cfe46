//! Processes of the host, as tests see them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process and its command line, arguments separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// Every process whose command line names something inside `folder`.
pub fn naming(folder: &Path) -> Vec<Process> {
    let needle = format!("{}/", folder.display());
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> = pids
        .filter_map(|pid: u32| {
            let command = arguments(pid)?.join(" ");
            command.contains(&needle).then_some(Process { pid, command })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// The arguments of a process, its program first; `None` once it ended.
pub fn arguments(pid: u32) -> Option<Vec<String>> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|raw| !raw.is_empty())?;
    let text = String::from_utf8_lossy(&raw).into_owned();
    Some(text.trim_end_matches('\0').split('\0').map(str::to_owned).collect())
}

/// Kills a process at once and waits until it is gone. A process that is gone already is fine.
pub fn kill(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if pidfd_send_signal(&handle, Signal::KILL).is_err() {
        return;
    }
    let ended = await_readable(&handle, Duration::from_secs(30));
    assert!(ended, "process {pid:?} did not end within 30 s of SIGKILL");
}

/// Stops a process where it stands, as if it hung; [`go_on`] ends that.
pub fn freeze(pid: u32) {
    send(pid, Signal::STOP);
}

/// Lets a process that was frozen go on.
pub fn go_on(pid: u32) {
    send(pid, Signal::CONT);
}

/// Asks a process to stop, as Ctrl-C does.
pub fn interrupt(pid: u32) {
    send(pid, Signal::INT);
}

/// Asks a process to stop, as Ctrl-C does, unless it ended meanwhile.
pub fn interrupt_if_alive(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
        // It may end in between.
        let _ = pidfd_send_signal(&handle, Signal::INT);
    }
}

/// Asks a process to end, as CI runners do before they kill it.
pub fn terminate(pid: u32) {
    send(pid, Signal::TERM);
}

/// Tells a process that its terminal is gone.
pub fn hang_up(pid: u32) {
    send(pid, Signal::HUP);
}

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let handle = pidfd_open(pid, PidfdFlags::empty()).expect("the process runs");
    pidfd_send_signal(&handle, signal).expect("it takes the signal");
}

/// Waits until a process ended; whether it did within `patience`.
pub fn await_end(pid: u32, patience: Duration) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    pidfd_open(pid, PidfdFlags::empty()).map_or(true, |handle| await_readable(&handle, patience))
}

/// A pidfd becomes readable when its process ends.
fn await_readable(handle: &rustix::fd::OwnedFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait for a process: {error}"),
        }
    }
}

/// Kills a process that has not ended within `patience`, so that a test that reads from it fails and does not hang.
pub fn bound(pid: u32, patience: Duration) {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let handle = pidfd_open(raw, PidfdFlags::empty()).expect("the process runs");
    std::thread::spawn(move || {
        if !await_readable(&handle, patience) {
            // It may end in between.
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    });
}

/// Every address that a process listens on by TCP over IPv4 or IPv6.
pub fn listening(pid: u32) -> Vec<SocketAddr> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let inodes: Vec<String> = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = Vec::new();
    // Those of the network namespace that it is in.
    for table in [format!("/proc/{pid}/net/tcp"), format!("/proc/{pid}/net/tcp6")] {
        for line in fs::read_to_string(&table).unwrap_or_default().lines().skip(1) {
            let columns: Vec<&str> = line.split_whitespace().collect();
            // Columns of proc(5): 1 local address, 3 state (0A is LISTEN), 9 inode.
            if let (Some(local), Some(&"0A"), Some(inode)) = (columns.get(1), columns.get(3), columns.get(9))
                && inodes.iter().any(|ours| ours == inode)
            {
                found.push(address(local).unwrap_or_else(|| panic!("`{local}` of {table} is no address")));
            }
        }
    }
    found
}

/// An address of /proc/net/tcp: words of the address in the host's byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for word in 0..ip.len() / 8 {
        let word = u32::from_str_radix(ip.get(word * 8..word * 8 + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some((<[u8; 4]>::try_from(bytes).ok()?, port).into()),
        16 => Some((<[u8; 16]>::try_from(bytes).ok()?, port).into()),
        _ => None,
    }
}
