//! Memory that is still to be had, by the word of the kernel.
//!
//! Two figures count, and the lowest one holds. `MemAvailable` of `/proc/meminfo` is the kernel's own estimate of what
//! new programs can take without swapping (proc_meminfo(5)). A control group of this process, or one above it, may
//! allow less: its limit, without what it uses and cannot give back at once (`memory.max`, `memory.current` and
//! `inactive_file` of `memory.stat` in version 2 of control groups, `memory.limit_in_bytes`, `memory.usage_in_bytes`
//! and `total_inactive_file` in version 1). Machines stay in the group of the vmctl that started them, so its limits
//! are theirs. Swap is not counted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Bytes of memory that new processes can take on this host, within the limits of this process's control groups.
pub fn available() -> Result<u64> {
    available_in(Path::new("/"))
}

/// Bytes of memory that a process holds for itself: what it wrote to, and what it shares by memory files.
///
/// `None` once it ended. Its program's file and libraries are the host's anyway and are not counted.
pub fn resident(pid: u32) -> Result<Option<u64>> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // ESRCH: it ended between open and read.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let parts = [kib(&text, "RssAnon:"), kib(&text, "RssShmem:")];
    // A process that is about to be gone has no memory, and no lines about it.
    Ok(parts.into_iter().flatten().reduce(|one, other| one.saturating_add(other)))
}

/// The same with another root folder, so that hosts can be thought up.
fn available_in(root: &Path) -> Result<u64> {
    let path = root.join("proc/meminfo");
    let meminfo = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let silent = || Error::Unusable { path, reason: "it does not say `MemAvailable`".to_owned() };
    let host = kib(&meminfo, "MemAvailable:").ok_or_else(silent)?;
    Ok(groups(root).iter().filter_map(|group| group.left()).fold(host, u64::min))
}

/// The number behind `label` in lines like `MemAvailable:  24186580 kB`, in bytes.
fn kib(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    let number = line.trim().strip_suffix("kB")?.trim();
    number.parse::<u64>().ok()?.checked_mul(1024)
}

/// A control group that bounds memory.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    folder: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// What it allows besides what it uses; `None` where it sets no limit, or is not to be read: a host may hide its
    /// groups, and then they are no bound that anybody could tell.
    fn left(&self) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let (limit, used, idle) = match self.version {
            // The word `max` is no number: no limit.
            Version::Two => (number("memory.max")?, number("memory.current")?, "inactive_file"),
            Version::One => {
                (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?, "total_inactive_file")
            }
        };
        let stat = read("memory.stat").unwrap_or_default();
        let idle = stat.lines().find_map(|line| {
            let (name, number) = line.split_once(' ')?;
            if name == idle { number.trim().parse::<u64>().ok() } else { None }
        });
        Some(limit.saturating_sub(used.saturating_sub(idle.unwrap_or(0))))
    }
}

/// The control groups that this process is in, and all above them.
fn groups(root: &Path) -> Vec<Group> {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
    let memberships = read("proc/self/cgroup");
    let mounts = read("proc/self/mountinfo");
    let mut groups = Vec::new();
    for line in memberships.lines() {
        // hierarchy-ID:controller-list:path, see cgroups(7).
        let mut parts = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let version = if hierarchy == "0" && controllers.is_empty() {
            Version::Two
        } else if controllers.split(',').any(|controller| controller == "memory") {
            Version::One
        } else {
            continue;
        };
        if let Some((top, own)) = mounts.lines().find_map(|line| mounted(line, version, path)) {
            let inside = |path: &str| root.join(path.trim_start_matches('/'));
            let (top, mut folder) = (inside(&top), inside(&own));
            while folder.starts_with(&top) {
                groups.push(Group { folder: folder.clone(), version });
                if !folder.pop() {
                    break;
                }
            }
        }
    }
    groups
}

/// Where a hierarchy is mounted and where in it the group `path` is, if this line of mountinfo is about it.
///
/// ```text
/// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
///            root  mount point              ^  type          options
/// ```
fn mounted(line: &str, version: Version, path: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    let is_ours = match version {
        Version::Two => kind == "cgroup2",
        Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
    };
    if !is_ours {
        return None;
    }
    // In a container the mount may begin at its own group.
    let inside = if root == "/" { path } else { path.strip_prefix(root).unwrap_or("") };
    Some((point.to_owned(), format!("{point}/{}", inside.trim_start_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       24684084 kB\nMemFree:        100 kB\nMemAvailable:   8388608 kB\nBuffers: 1 kB\n";
    const GIB: u64 = 1 << 30;

    /// A host of these files.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn host_without_groups_has_what_the_kernel_says() {
        let root = host(&[("proc/meminfo", MEMINFO)]);
        assert_eq!(available_in(root.path()).unwrap(), 8 * GIB);
    }

    #[test]
    fn lowest_limit_of_all_groups_above_holds() {
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let group = "sys/fs/cgroup/user.slice/ci.scope";
        let slice = "sys/fs/cgroup/user.slice";
        let root = host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/user.slice/ci.scope\n"),
            ("proc/self/mountinfo", mounts),
            (&format!("{group}/memory.max"), "max\n"),
            (&format!("{group}/memory.current"), "5\n"),
            (&format!("{slice}/memory.max"), "4294967296\n"),
            (&format!("{slice}/memory.current"), "2147483648\n"),
            (&format!("{slice}/memory.stat"), "anon 5\ninactive_file 1073741824\nactive_file 7\n"),
        ]);
        assert_eq!(available_in(root.path()).unwrap(), 3 * GIB);
    }

    #[test]
    fn groups_of_the_first_version_count_and_so_does_a_mount_inside_a_container() {
        let mounts = "40 23 0:31 /docker/abc /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n\
                      41 23 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let root = host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:memory:/docker/abc\n1:cpu:/x\n0::/\n"),
            ("proc/self/mountinfo", mounts),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "2147483648\n"),
        ]);
        assert_eq!(available_in(root.path()).unwrap(), 0, "more is used than is allowed");
    }

    #[test]
    fn limit_above_the_hosts_memory_is_none() {
        let mounts = "40 23 0:31 / /cg rw - cgroup cgroup rw,memory\n";
        let root = host(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:memory:/\n"),
            ("proc/self/mountinfo", mounts),
            ("cg/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cg/memory.usage_in_bytes", "1\n"),
        ]);
        assert_eq!(available_in(root.path()).unwrap(), 8 * GIB);
    }

    #[test]
    fn kernel_that_says_nothing_is_an_error_and_not_a_number() {
        let root = host(&[("proc/meminfo", "MemTotal: 1 kB\n")]);
        assert!(available_in(root.path()).unwrap_err().to_string().contains("MemAvailable"));
        assert!(available_in(&root.path().join("none")).is_err());
    }

    #[test]
    fn this_process_holds_memory_on_this_host() {
        assert!(available().unwrap() > 0);
        assert!(resident(std::process::id()).unwrap().unwrap() > 0);
        assert_eq!(resident(u32::MAX / 2).unwrap(), None);
    }
}
