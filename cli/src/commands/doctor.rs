//! `doctor`: whether this host can run machines, and how to repair what is missing.

mod propolis;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use vmctl_providers::process::{self, PRLIMIT, Program};
use vmctl_providers::qemu::bridge::{Maker, Obstacle, links};
use vmctl_providers::qemu::{self, Accel, AccelChoice, HostFacts, QEMU_IMG, VIRTIOFSD, accel, firmware};
use vmctl_providers::{Arch, Error, packages};

use super::JSON_FORMAT;
use super::ssh::SSH;
use crate::args::DoctorArgs;
use crate::context::{Context, small_runtime};
use crate::env::SettingsError;
use crate::error::{CliError, Exit};
use crate::{descriptors, ui};

/// The device of KVM.
const KVM: &str = "/dev/kvm";

/// What to do where the processor offers nothing.
const FIRMWARE_FIX: &str = "switch virtualisation (VT-x, AMD-V) on in the firmware's setup; in a virtual machine, let its \
                            host nest it";

/// Files that may be open, below which few steps run at once.
const FEW_FILES: u64 = 1024;

/// Processes and threads, below which a few machines hardly fit.
const FEW_PROCESSES: u64 = 1024;

/// Gives machines a session of their own.
const SETSID: Program = Program { name: "setsid", package: "util-linux" };

/// How long a program may take to tell its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// What the look at bridges is called.
const BRIDGES: &str = "bridges";

/// Free space below which disks of a few machines hardly fit.
const LITTLE_SPACE: u64 = 5 << 30;

/// Memory below which a machine of the default size hardly fits.
const LITTLE_MEMORY: u64 = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// Machines run, but something does not or is slow.
    Warn,
    /// Machines cannot run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    detail: String,
    /// What to do about it.
    fix: Option<String>,
}

impl Check {
    fn new(name: &'static str, status: Status, detail: impl Into<String>) -> Self {
        Self { name, status, detail: detail.into(), fix: None }
    }

    fn fix(self, fix: impl Into<Option<String>>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}

#[derive(Serialize)]
struct Document {
    format: u32,
    ok: bool,
    checks: Vec<Check>,
}

/// Runs the command; exit 1 if machines cannot run.
pub(crate) fn run(ctx: &Context, args: &DoctorArgs) -> Result<Exit, CliError> {
    let settings = &ctx.settings;
    let interest = propolis::Interest::of(ctx);
    let (qemu, features, qemu_img, bridges, propolis) = small_runtime()?.block_on(async {
        tokio::join!(
            version("qemu", qemu::qemu(Arch::HOST), Status::Fail),
            features(),
            version("qemu-img", &QEMU_IMG, Status::Fail),
            bridges(settings.bridge_helper.as_deref()),
            interest.look()
        )
    });
    let mut checks = vec![
        new_enough(qemu),
        features,
        qemu_img,
        present("setsid", &SETSID, Status::Fail),
        present("prlimit", &PRLIMIT, Status::Warn),
        present("ssh", &SSH, Status::Warn),
        present("virtiofsd", &VIRTIOFSD, Status::Warn),
        uefi(Arch::HOST, &settings.firmware_dirs),
        bridges,
        acceleration(settings.accel, &accel::probe()),
        data_folder(settings.data_dir()),
        runtime_folder(settings.runtime_dir()),
    ];
    checks.extend(propolis);
    interest.weigh(&mut checks);
    checks.extend(free_space(settings.data_dir().ok()));
    checks.push(memory(fs::read_to_string("/proc/meminfo").ok().as_deref()));
    checks.push(limits(&Limits::of_this_process()));

    let ok = checks.iter().all(|check| check.status != Status::Fail);
    if args.json {
        ui::print_json(&Document { format: JSON_FORMAT, ok, checks })?;
    } else {
        ui::print(&checks.iter().map(Check::to_string).collect::<String>())?;
    }
    Ok(if ok { Exit::Fine } else { Exit::Error })
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (style, word) = match self.status {
            Status::Ok => (ui::GOOD, "ok"),
            Status::Warn => (ui::DOUBTFUL, "warn"),
            Status::Fail => (ui::BAD, "FAIL"),
        };
        writeln!(f, "{style}{word:<4}{style:#}  {:<14}  {}", self.name, ui::visible(&self.detail))?;
        match &self.fix {
            Some(fix) => writeln!(f, "{:22}{}", "", ui::visible(fix)),
            None => Ok(()),
        }
    }
}

/// Whether a program is there and runs.
async fn version(name: &'static str, program: &Program, otherwise: Status) -> Check {
    match process::helper(program, &["--version"], VERSION_DEADLINE).await {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output);
            Check::new(name, Status::Ok, text.lines().next().unwrap_or("it tells no version"))
        }
        Err(error) => Check::new(name, otherwise, error.to_string()).fix(repair(&error)),
    }
}

/// Fails a QEMU that does not understand our command line.
fn new_enough(check: Check) -> Check {
    match qemu::suffices(&qemu::number(&check.detail)) {
        Err(error) if check.status == Status::Ok => Check::new(check.name, Status::Fail, error.to_string())
            .fix(Some("install a newer QEMU".to_owned())),
        _ => check,
    }
}

/// What machines use of QEMU, and how bad it is if this build of it lacks that.
const FEATURES: [(&str, &str, Status); 8] = [
    ("virtio-blk-pci", "disks", Status::Fail),
    ("virtio-net-pci", "network cards", Status::Fail),
    ("virtio-rng-pci", "randomness", Status::Fail),
    ("virtio-serial-pci", "the guest agent", Status::Fail),
    ("user", "`network \"user\"`, and logins over it", Status::Fail),
    ("socket", "private networks", Status::Warn),
    ("virtio-9p-pci", "shares over 9p", Status::Warn),
    ("vhost-user-fs-pci", "shares over virtiofs", Status::Warn),
];

/// Whether this build of QEMU has what machines use.
async fn features() -> Check {
    const NAME: &str = "qemu features";
    let program = qemu::qemu(Arch::HOST);
    let (devices, networks) = tokio::join!(
        process::helper(program, &["-M", "none", "-device", "help"], VERSION_DEADLINE),
        process::helper(program, &["-M", "none", "-netdev", "help"], VERSION_DEADLINE)
    );
    match (devices, networks) {
        (Ok(devices), Ok(networks)) => {
            judge_features(NAME, &String::from_utf8_lossy(&[devices, networks].concat()))
        }
        (Err(error), _) | (_, Err(error)) => {
            Check::new(NAME, Status::Fail, error.to_string()).fix(repair(&error))
        }
    }
}

/// By what QEMU says of itself: devices in quotes, kinds of network one a line.
fn judge_features(name: &'static str, told: &str) -> Check {
    let has = |word: &str| {
        told.lines().any(|line| line.trim() == word || line.contains(&format!("name \"{word}\"")))
    };
    let missing: Vec<_> = FEATURES.iter().filter(|(word, ..)| !has(word)).collect();
    if missing.is_empty() {
        return Check::new(name, Status::Ok, "all that machines use");
    }
    let status =
        if missing.iter().any(|(.., status)| *status == Status::Fail) { Status::Fail } else { Status::Warn };
    let words: Vec<_> = missing.iter().map(|(word, what, _)| format!("`{word}` ({what})")).collect();
    Check::new(name, status, format!("this build lacks {}", words.join(", ")))
        .fix("install a QEMU that was built with it, or its package of modules".to_owned())
}

/// Whether a program is there.
fn present(name: &'static str, program: &Program, otherwise: Status) -> Check {
    match program.locate() {
        Ok(path) => Check::new(name, Status::Ok, path.display().to_string()),
        Err(error) => Check::new(name, otherwise, error.to_string()).fix(repair(&error)),
    }
}

/// Whether machines can boot by UEFI.
fn uefi(arch: Arch, folders: &[PathBuf]) -> Check {
    match firmware::locate(arch, folders) {
        Ok(path) => Check::new("uefi", Status::Ok, path.display().to_string()),
        Err(error) => Check::new("uefi", Status::Warn, error.to_string()).fix(error.help()),
    }
}

/// Whether machines can have cards on bridges, and which there are.
async fn bridges(helper: Option<&Path>) -> Check {
    let links = match links().await {
        Ok(links) => links,
        Err(error) => return Check::new(BRIDGES, Status::Warn, error.to_string()).fix(repair(&error)),
    };
    let bridges: Vec<_> = links.iter().filter(|link| link.is_bridge()).map(|link| &*link.name).collect();
    judge_bridges(&bridges, Maker::choose(helper))
}

/// A host without a bridge lacks nothing: few machines have cards there.
fn judge_bridges(bridges: &[&str], maker: Result<Maker, Obstacle>) -> Check {
    let named = bridges.join(", ");
    match maker {
        _ if bridges.is_empty() => Check::new(BRIDGES, Status::Ok, "none; only `network \"tap\"` needs one"),
        Ok(Maker::Us) => Check::new(BRIDGES, Status::Ok, named),
        Ok(Maker::Helper(path)) => {
            let detail = format!("{named}; cards are put there by {}, as its list allows", path.display());
            Check::new(BRIDGES, Status::Ok, detail)
        }
        Err(obstacle) => {
            let detail = format!("{named}; `network \"tap\"` cannot be used: {}", obstacle.reason);
            Check::new(BRIDGES, Status::Warn, detail).fix(obstacle.help)
        }
    }
}

/// What to do about a program that cannot be used.
fn repair(error: &Error) -> Option<String> {
    match error {
        Error::ProgramMissing { package, .. } => Some(packages::advice(package)),
        other => other.help(),
    }
}

/// Which accelerator machines get.
fn acceleration(choice: AccelChoice, facts: &HostFacts) -> Check {
    const NAME: &str = "acceleration";
    match accel::decide(choice, facts) {
        Ok(Accel::Kvm) => Check::new(NAME, Status::Ok, "kvm"),
        Ok(Accel::Tcg(None)) => Check::new(NAME, Status::Ok, "tcg (chosen by VMCTL_ACCEL)"),
        Ok(Accel::Tcg(Some(reason))) => {
            Check::new(NAME, Status::Warn, format!("tcg: machines are emulated, which is slow; {reason}"))
                .fix(kvm_fix(facts))
        }
        Err(error) => Check::new(NAME, Status::Fail, error.to_string())
            .fix(format!("unset VMCTL_ACCEL; or {}", kvm_fix(facts))),
    }
}

/// What makes KVM usable, by what is in its way.
fn kvm_fix(facts: &HostFacts) -> String {
    match &facts.kvm_device {
        Ok(()) if facts.kvm_is_pvm => {
            "use a host, or a kind of virtual machine, whose hypervisor lets guests virtualise".to_owned()
        }
        Ok(()) => FIRMWARE_FIX.to_owned(),
        Err(reason) if !facts.cpu_virtualises => format!("{FIRMWARE_FIX} ({reason})"),
        Err(_) if !Path::new(KVM).exists() => {
            format!("load the kernel's module: sudo modprobe kvm_intel, or kvm_amd; a container needs --device {KVM}")
        }
        Err(_) => {
            "let this user open it: sudo usermod -aG kvm $USER, and log in again; in a container, give it that group"
                .to_owned()
        }
    }
}

/// Whether state, machines and images have a place.
fn data_folder(chosen: Result<&Path, SettingsError>) -> Check {
    const NAME: &str = "data folder";
    match chosen {
        Err(error) => Check::new(NAME, Status::Fail, error.to_string()).fix(error.help()),
        Ok(path) => {
            writable(NAME, path, Status::Warn, "choose another one with --data-dir or VMCTL_DATA_DIR")
        }
    }
}

/// Whether sockets have a place.
fn runtime_folder(chosen: Result<&Path, SettingsError>) -> Check {
    const NAME: &str = "socket folder";
    match chosen {
        Err(error) => Check::new(NAME, Status::Fail, error.to_string()).fix(error.help()),
        Ok(path) => writable(NAME, path, Status::Fail, "set XDG_RUNTIME_DIR to a private folder of your own"),
    }
}

/// Whether `path` is ours and can be written to; before it exists, whether it can be made. `if_open` is how bad it is
/// that others may look into it.
fn writable(name: &'static str, path: &Path, if_open: Status, fix: &str) -> Check {
    let shown = path.display();
    let fails = |detail: String| Check::new(name, Status::Fail, detail).fix(fix.to_owned());
    let Some(existing) = existing_ancestor(path) else {
        return fails(format!("`{shown}` cannot be made"));
    };
    if let Err(error) = rustix::fs::access(&existing, Access::WRITE_OK | Access::EXEC_OK) {
        let error = std::io::Error::from(error);
        return fails(format!("`{shown}` cannot be written to: `{}`: {error}", existing.display()));
    }
    if existing != path {
        return Check::new(name, Status::Ok, format!("{shown} (made when first needed)"));
    }
    match fs::metadata(path) {
        Err(error) => fails(format!("`{shown}` cannot be looked at: {error}")),
        Ok(found) if !found.is_dir() => fails(format!("`{shown}` is no folder")),
        Ok(found) if found.uid() != rustix::process::geteuid().as_raw() => {
            fails(format!("`{shown}` belongs to user {}", found.uid()))
        }
        Ok(found) if found.mode() & 0o077 != 0 => {
            Check::new(name, if_open, format!("{shown} is open to other users"))
                .fix(format!("chmod 700 '{shown}'"))
        }
        Ok(_) => Check::new(name, Status::Ok, shown.to_string()),
    }
}

/// The nearest folder that exists, `path` itself included.
fn existing_ancestor(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|folder| folder.symlink_metadata().is_ok()).map(Path::to_owned)
}

/// How much room disks have; nothing if there is no place to look at.
fn free_space(data_dir: Option<&Path>) -> Option<Check> {
    let folder = existing_ancestor(data_dir?)?;
    Some(match rustix::fs::statvfs(&folder) {
        Ok(found) => enough("disk space", found.f_bavail.saturating_mul(found.f_frsize), LITTLE_SPACE),
        Err(error) => Check::new(
            "disk space",
            Status::Warn,
            format!("`{}` cannot be asked: {}", folder.display(), std::io::Error::from(error)),
        ),
    })
}

/// How much memory machines can have.
fn memory(meminfo: Option<&str>) -> Check {
    match meminfo.and_then(available_memory) {
        Some(available) => enough("memory", available, LITTLE_MEMORY),
        None => Check::new("memory", Status::Warn, "the host does not tell how much is available"),
    }
}

/// What this process, and what it starts, may have; `None` is no limit.
#[derive(Debug, Clone, Copy)]
struct Limits {
    files: Option<u64>,
    processes: Option<u64>,
    /// Bytes of the largest file.
    file_size: Option<u64>,
    /// Bytes of address space.
    address_space: Option<u64>,
}

impl Limits {
    fn of_this_process() -> Self {
        let of = |resource| getrlimit(resource).current;
        Self {
            files: Some(descriptors::raise()).filter(|files| *files != u64::MAX),
            processes: of(Resource::Nproc),
            file_size: of(Resource::Fsize),
            address_space: of(Resource::As),
        }
    }
}

/// Whether the limits of ulimit(1) leave machines alone.
fn limits(limits: &Limits) -> Check {
    const NAME: &str = "limits";
    let below = |limit: Option<u64>, least| limit.filter(|limit| *limit < least);
    let found = [
        below(limits.files, FEW_FILES).map(|n| format!("{n} open files (`ulimit -Hn`)")),
        below(limits.processes, FEW_PROCESSES).map(|n| format!("{n} processes and threads (`ulimit -u`)")),
        limits.file_size.map(|n| format!("files of {} (`ulimit -f`), disks too", ui::bytes(n))),
        limits.address_space.map(|n| format!("{} of address space (`ulimit -v`) a process", ui::bytes(n))),
    ];
    let found: Vec<_> = found.into_iter().flatten().collect();
    if found.is_empty() {
        let files = limits.files.map_or_else(|| "any number of".to_owned(), |files| files.to_string());
        return Check::new(NAME, Status::Ok, format!("{files} open files"));
    }
    Check::new(NAME, Status::Warn, format!("this user may have only {}", found.join(", "))).fix(
        "raise them in /etc/security/limits.conf, or for the service or container that runs vmctl".to_owned(),
    )
}

fn enough(name: &'static str, available: u64, little: u64) -> Check {
    let status = if available < little { Status::Warn } else { Status::Ok };
    Check::new(name, status, format!("{} available", ui::bytes(available))).fix(
        (status == Status::Warn).then(|| format!("free some: less than {} is little", ui::bytes(little))),
    )
}

/// `MemAvailable` of /proc/meminfo in bytes (proc(5)).
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn available_memory_is_read_from_its_line() {
        let meminfo = "MemTotal:        8000000 kB\nMemAvailable:    2097152 kB\n";
        assert_eq!(memory(Some(meminfo)), Check::new("memory", Status::Ok, "2 GiB available"));
        assert_eq!(memory(Some("MemAvailable: 1024 kB")).status, Status::Warn);
        assert_eq!(memory(None).status, Status::Warn);
    }

    #[test]
    fn folders_are_judged_by_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a/b");
        assert_eq!(writable("x", &inside, Status::Fail, "fix").status, Status::Ok);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(writable("x", &open, Status::Warn, "fix").status, Status::Warn);
        assert_eq!(writable("x", &file, Status::Fail, "fix").status, Status::Fail);
        assert_eq!(writable("x", &file.join("below"), Status::Fail, "fix").status, Status::Fail);
    }

    #[test]
    fn bridges_are_of_use_to_who_may_put_cards_on_them() {
        let obstacle = || Obstacle { reason: "no right".to_owned(), help: "get it".to_owned() };
        let none = judge_bridges(&[], Err(obstacle()));
        assert_eq!((none.status, none.fix), (Status::Ok, None));
        assert_eq!(judge_bridges(&["br0", "br1"], Ok(Maker::Us)).detail, "br0, br1");
        let helped = judge_bridges(&["br0"], Ok(Maker::Helper("/helper".into())));
        assert_eq!((helped.status, helped.detail.contains("/helper")), (Status::Ok, true));
        let refused = judge_bridges(&["br0"], Err(obstacle()));
        assert_eq!((refused.status, refused.fix.as_deref()), (Status::Warn, Some("get it")));
    }

    #[test]
    fn build_without_what_machines_use_is_told() {
        let all = "name \"virtio-blk-pci\", bus PCI\nname \"virtio-net-pci\", bus PCI\nname \"virtio-rng-pci\"\n\
                   name \"virtio-serial-pci\"\nname \"virtio-9p-pci\"\nname \"vhost-user-fs-pci\"\n\
                   Available netdev backend types:\nsocket\nuser\n";
        let judged = |told: &str| judge_features("x", told);
        assert_eq!(judged(all).status, Status::Ok);
        let without = judged(&all.replace("vhost-user-fs-pci", "other"));
        assert_eq!((without.status, without.detail.contains("shares over virtiofs")), (Status::Warn, true));
        assert_eq!(judged(&all.replace("\nuser\n", "\n")).status, Status::Fail);
    }

    #[test]
    fn limits_that_are_in_the_way_are_named() {
        let none = Limits { files: None, processes: None, file_size: None, address_space: None };
        assert_eq!(limits(&none).status, Status::Ok);
        let few = limits(&Limits { files: Some(256), file_size: Some(1 << 30), ..none });
        assert_eq!(few.status, Status::Warn);
        assert!(
            few.detail.contains("256 open files") && few.detail.contains("files of 1 GiB"),
            "{}",
            few.detail
        );
    }

    #[test]
    fn way_to_kvm_fits_what_is_in_its_way() {
        let facts = HostFacts { kvm_device: Ok(()), cpu_virtualises: false, kvm_is_pvm: false };
        assert!(kvm_fix(&facts).contains("VT-x"));
        let pvm = HostFacts { cpu_virtualises: true, kvm_is_pvm: true, ..facts };
        assert!(kvm_fix(&pvm).contains("whose hypervisor"));
    }

    #[test]
    fn missing_kvm_is_a_warning_unless_it_was_asked_for() {
        let facts = HostFacts {
            kvm_device: Err("no such device".to_owned()),
            cpu_virtualises: true,
            kvm_is_pvm: false,
        };
        let status = |choice| acceleration(choice, &facts).status;
        assert_eq!(
            [AccelChoice::Auto, AccelChoice::Kvm, AccelChoice::Tcg].map(status),
            [Status::Warn, Status::Fail, Status::Ok]
        );
    }
}
