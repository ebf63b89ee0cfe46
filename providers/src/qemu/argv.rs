//! QEMU's command line: one pure function.
//!
//! Nothing that a user writes can become an option, but `qemu-arg`, which is there for just that. Devices, disks and networks go as JSON. Where QEMU 7.2 takes
//! no JSON (`-chardev`, `-fsdev`, `-vnc`, `-name`) values stand in a comma list with their commas doubled. File names are
//! stated as files of a stated format; nothing is probed and no prefix means a protocol.
//!
//! QEMU is not asked to daemonise: under the sandbox below it could not (fork and setsid are what `spawn=deny` and
//! `elevateprivileges=deny` forbid), so the launcher gives it its session. It greets on its standard output through
//! a third monitor once the sockets of the others are there; nothing is ever said to that one, and it is dead once
//! the launcher closes the pipe.
//! A build of QEMU without seccomp refuses `-sandbox` and says so.

mod disks;
mod machine;
mod network;
mod shares;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub(crate) use disks::ROOT;
pub(crate) use network::{netdev_id, rule, unsupported};
pub(crate) use shares::tag;

use super::accel::Accel;
use super::places::RuntimeDir;
use crate::error::{Error, Result};
use crate::name::Name;
use crate::spec::{Arch, Hardware, InstanceId, VmHandle};
use crate::workdir::WorkDir;

/// Begins the name of a character device that leads nowhere and is used by nothing. What follows is where in the
/// console's log this process began: on its command line that is true of it for as long as it lives, however many
/// others are launched meanwhile and give up.
const CONSOLE_MARK: &str = "console-from-";

/// The port of display 0 (RFC 6143).
const VNC_PORTS: u16 = 5900;

/// What QEMU knows the display over TCP by.
pub(crate) const TCP_DISPLAY: &str = "tcp";

/// The last display that is tried where none is asked for.
const MORE_DISPLAYS: u16 = 99;

/// What one launch decides besides the machine itself.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'l> {
    /// What runs the guest's processors.
    pub accel: &'l Accel,
    /// The length of the console's log before the launch, in bytes; the process carries it as a mark.
    pub console_start: u64,
    /// The files that QEMU is given for its cards on bridges, in the order of these cards.
    pub taps: &'l [RawFd],
    /// What its memory is made of.
    pub memory: Memory<'l>,
    /// How fast the host's time stamp counter counts, in kHz, if the guest's kernel must be told.
    pub tsc_khz: Option<u32>,
}

/// What a machine's memory is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Memory<'l> {
    /// What QEMU chooses.
    #[default]
    Plain,
    /// Memory that can be kept as part of a template.
    Kept,
    /// The memory of a template, of which it gets a copy of what it writes to. Then it waits for the state of the
    /// devices.
    Of(&'l Path),
}

impl<'l> Launch<'l> {
    /// A launch with an empty log, of a machine on no bridge, whose kernel is told nothing.
    pub fn new(accel: &'l Accel) -> Self {
        Self { accel, console_start: 0, taps: &[], memory: Memory::Plain, tsc_khz: None }
    }
}

/// The arguments with which QEMU runs `vm`.
///
/// Fails only on what cannot be expressed: a path that is not UTF-8, a network that this backend does not have.
pub fn argv(vm: &VmHandle, run: &RuntimeDir, launch: Launch<'_>) -> Result<Vec<OsString>> {
    let mut args = Args::new(vm);
    machine::machine(&mut args, vm, launch.accel, launch.memory)?;
    machine::uefi(&mut args, vm)?;
    machine::kernel(&mut args, vm, launch.tsc_khz)?;
    disks::disks(&mut args, vm)?;
    let mut taps = launch.taps.iter().copied();
    for (index, nic) in vm.machine.nics.iter().enumerate() {
        network::network_card(&mut args, index, nic, &mut taps)?;
    }
    for (index, share) in vm.machine.shares.iter().enumerate() {
        shares::share(&mut args, index, share, run)?;
    }
    args.json("-object", &json!({"qom-type": "rng-random", "id": "rng0", "filename": "/dev/urandom"}));
    args.device(&json!({"driver": "virtio-rng-pci", "id": "rng0-device", "rng": "rng0"}));
    lines(&mut args, vm, run)?;
    args.pair("-chardev", format!("null,id={CONSOLE_MARK}{}", launch.console_start));
    monitors(&mut args, run)?;
    args.pair("-pidfile", text(&run.pidfile())?);
    // Last: what is read back from a command line, such as the first `-name`, is ours.
    args.args.extend(vm.machine.hardware.qemu_args.iter().map(OsString::from));
    Ok(args.args)
}

/// What the command line of one of our processes says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) project: Name,
    pub(crate) name: Name,
    pub(crate) id: InstanceId,
    /// The machine's folder, as far as the path of its console's log tells.
    pub(crate) work_dir: Option<PathBuf>,
    /// Where in the console's log the process began; a process of an earlier vmctl does not say.
    pub(crate) console_start: Option<u64>,
}

/// Reads a command line back; `None` if it is not one that [`argv`] wrote.
pub(crate) fn marks(args: &[String]) -> Option<Marks> {
    let values = |option: &'static str| {
        args.windows(2).filter(move |pair| pair[0] == option).map(|pair| pair[1].as_str())
    };
    // Names hold no comma, so that the first one ends the value.
    let guest = values("-name").find_map(|value| value.strip_prefix("guest=")?.split(',').next())?;
    let (project, name) = guest.split_once('/')?;
    // A machine may have no disk; all have this log.
    let console =
        values("-chardev").map(split_list).find(|fields| fields.get(1).is_some_and(|id| id == "id=console"));
    let log =
        console.as_ref().and_then(|fields| fields.iter().find_map(|field| field.strip_prefix("logfile=")));
    let mark =
        values("-chardev").find_map(|value| value.strip_prefix("null,id=")?.strip_prefix(CONSOLE_MARK));
    Some(Marks {
        project: project.parse().ok()?,
        name: name.parse().ok()?,
        id: InstanceId(values("-uuid").next()?.parse().ok()?),
        work_dir: log.and_then(|log| Path::new(log).parent()).map(Path::to_owned),
        console_start: mark.and_then(|mark| mark.parse().ok()),
    })
}

/// Serial console, display, guest agent.
fn lines(args: &mut Args, vm: &VmHandle, run: &RuntimeDir) -> Result<()> {
    let log = WorkDir::new(&vm.work_dir).console_log();
    let console = [("logfile", text(&log)?), ("logappend", "on")];
    args.pair("-chardev", socket("console", text(&run.console())?, &console));
    let hardware = &vm.machine.hardware;
    match hardware.guest_arch() {
        Arch::X86_64 => args.device(&json!({"driver": "isa-serial", "id": "serial0", "chardev": "console"})),
        // The board has its serial line soldered on.
        Arch::Aarch64 => args.pair("-serial", "chardev:console"),
    };

    match hardware.guest_arch() {
        Arch::X86_64 if hardware.is_microvm() => {}
        Arch::X86_64 => {
            args.device(&json!({"driver": "VGA", "id": "video0"}));
        }
        // Its processors may not map a VGA card's memory as cached, and Linux does.
        Arch::Aarch64 => {
            args.device(&json!({"driver": "ramfb", "id": "video0"}));
        }
    }
    display(args, hardware, text(&run.vnc())?);

    args.pair("-chardev", socket("agent", text(&run.guest_agent())?, &[]));
    args.device(&json!({"driver": "virtio-serial-pci", "id": "channels"}));
    args.device(&json!({
        "driver": "virtserialport",
        "bus": "channels.0",
        "chardev": "agent",
        "name": "org.qemu.guest_agent.0",
    }));
    Ok(())
}

/// Serves the display: on a private socket, and over TCP where that is asked for, then behind a password. Until that is
/// set, none opens it.
fn display(args: &mut Args, hardware: &Hardware, socket: &str) {
    args.pair("-display", "none").pair("-vnc", format!("unix:{}", doubled(socket)));
    let place = hardware.vnc.map(|tcp| match tcp.port {
        Some(port) => format!("127.0.0.1:{}", port.saturating_sub(VNC_PORTS)),
        None => format!("127.0.0.1:0,to={MORE_DISPLAYS}"),
    });
    if let Some(place) = place {
        args.pair("-vnc", format!("{place},password=on,id={TCP_DISPLAY}"));
    }
}

fn monitors(args: &mut Args, run: &RuntimeDir) -> Result<()> {
    args.pair("-chardev", socket("monitor", text(&run.monitor())?, &[]));
    args.pair("-mon", "chardev=monitor,mode=control");
    args.pair("-chardev", socket("reserved", text(&run.reserved_monitor())?, &[]));
    args.pair("-mon", "chardev=reserved,mode=control");
    args.pair("-chardev", "stdio,id=launch,signal=off");
    args.pair("-mon", "chardev=launch,mode=control");
    Ok(())
}

fn socket(id: &str, path: &str, more: &[(&str, &str)]) -> String {
    let pairs = [("id", id), ("path", path), ("server", "on"), ("wait", "off")];
    format!("socket,{}", list(&[&pairs, more].concat()))
}

/// A comma list of `key=value`; values keep their meaning whatever they hold.
pub(crate) fn list(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={}", doubled(value))).collect::<Vec<_>>().join(",")
}

/// Splits as QEMU does: at single commas; a doubled one is one comma of the value.
fn split_list(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            fields.push(String::new());
        } else if let Some(field) = fields.last_mut() {
            field.push(c);
        }
    }
    fields
}

fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

/// A path as text: QEMU's JSON knows no other bytes.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Error::Unusable { path: path.to_owned(), reason: "it is not valid UTF-8".to_owned() })
}

struct Args {
    args: Vec<OsString>,
    /// Whether virtio devices are in memory, without a PCI bus.
    in_memory: bool,
}

impl Args {
    fn new(vm: &VmHandle) -> Self {
        Self { args: Vec::new(), in_memory: vm.machine.hardware.is_microvm() }
    }

    fn flag(&mut self, flag: &str) -> &mut Self {
        self.args.push(flag.into());
        self
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) -> &mut Self {
        self.args.push(option.into());
        self.args.push(value.into());
        self
    }

    fn json(&mut self, option: &str, value: &Value) -> &mut Self {
        self.pair(option, value.to_string())
    }

    /// Adds a device; a virtio device as the machine can have it.
    fn device(&mut self, value: &Value) -> &mut Self {
        let virtio = value["driver"].as_str().and_then(|driver| driver.strip_suffix("-pci"));
        match virtio.filter(|_| self.in_memory) {
            None => self.json("-device", value),
            Some(virtio) => {
                let mut value = value.clone();
                value["driver"] = format!("{virtio}-device").into();
                if let Some(properties) = value.as_object_mut() {
                    // Ready-made boot code is something of PCI cards.
                    properties.remove("romfile");
                }
                self.json("-device", &value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::unix::ffi::OsStringExt;

    use proptest::prelude::*;

    use super::super::manifest::{Manifest, tests::spec};
    use super::*;
    use crate::spec::{
        Arch, Digest, Firmware, Forward, Hardware, ImageFormat, InputFile, Kernel, NetworkConfig, Protocol,
        Share, ShareDriver, Uefi, VmState, VncTcp, Volume,
    };

    fn handle(work: &Path) -> VmHandle {
        Manifest::new(&spec(Path::new("/images/base.qcow2")), None).handle(
            &WorkDir::new(work),
            VmState::Prepared,
            None,
        )
    }

    fn lines_of(vm: &VmHandle, accel: &Accel) -> String {
        let run = RuntimeDir::new(Path::new("/run/vmctl"), vm.id);
        let args = argv(vm, &run, Launch { console_start: 4096, ..Launch::new(accel) }).unwrap();
        let mut text = String::new();
        for arg in args {
            let arg = arg.into_string().unwrap();
            if !text.is_empty() {
                text.push(if arg.starts_with('-') { '\n' } else { ' ' });
            }
            text.push_str(&arg);
        }
        text
    }

    #[test]
    fn emulated_machine_with_seed_and_forwards() {
        let mut vm = handle(Path::new("/data/vms/web"));
        vm.seed = true;
        vm.machine.nics[0].forwards.push(Forward {
            protocol: Protocol::Udp,
            host_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            host_port: 5353,
            guest_port: 53,
        });
        insta::assert_snapshot!(lines_of(&vm, &Accel::Tcg(None)));
    }

    #[test]
    fn kvm_machine_without_network_on_a_raw_image_in_odd_folders() {
        let mut vm = handle(Path::new("/data,a=b \"c\"/vms/web"));
        vm.machine.nics[0].network = NetworkConfig::None;
        vm.machine.image.as_mut().unwrap().format = ImageFormat::Raw;
        let share = |source: &str, readonly| Share {
            source: source.into(),
            target: "/mnt".to_owned(),
            readonly,
            driver: ShareDriver::NineP,
        };
        let volume =
            |name: &str| Volume { name: name.parse().unwrap(), size_bytes: 1, prevent_destroy: true };
        vm.machine.volumes = vec![volume("rows"), volume("a-name-of-more-than-20-letters")];
        vm.machine.media = vec!["/tools,read-only=off.iso".into()];
        vm.machine.shares = vec![share("/src,readonly=off", true), share("/a b", false)];
        insta::assert_snapshot!(lines_of(&vm, &Accel::Kvm));
    }

    #[test]
    fn kernel_cpu_type_and_own_arguments_are_passed_on() {
        let mut vm = handle(Path::new("/data/vms/web"));
        let file = |path: &str| InputFile { path: path.into(), digest: Digest::of(path) };
        vm.machine.hardware = Hardware {
            kernel: Some(Kernel {
                kernel: file("/boot/-vmlinuz,a"),
                initrd: Some(file("/boot/initrd")),
                cmdline: Some("-x root=LABEL=\"a b\",c".to_owned()),
            }),
            machine: Some("pc".to_owned()),
            cpu: Some("qemu64,+ssse3".to_owned()),
            qemu_args: vec!["-name".to_owned(), "guest=other/vm".to_owned()],
            ..Hardware::default()
        };
        let run = RuntimeDir::new(Path::new("/run/vmctl"), vm.id);
        let args: Vec<_> = argv(&vm, &run, Launch::new(&Accel::Tcg(None))).unwrap();
        let args: Vec<String> = args.into_iter().map(|arg| arg.into_string().unwrap()).collect();
        for pair in [
            ["-machine", "pc"],
            ["-cpu", "qemu64,+ssse3"],
            ["-kernel", "/boot/-vmlinuz,a"],
            ["-initrd", "/boot/initrd"],
            ["-append", "-x root=LABEL=\"a b\",c"],
        ] {
            assert!(args.windows(2).any(|found| found == pair), "{pair:?} in {args:?}");
        }
        assert_eq!(args[args.len() - 2..], ["-name", "guest=other/vm"]);
        assert_eq!(marks(&args).unwrap().name, vm.name);
    }

    #[test]
    fn machine_boots_by_uefi_with_variables_of_its_own_and_shows_itself_behind_a_password() {
        let mut vm = handle(Path::new("/data/vms/web"));
        vm.machine.hardware.firmware = Firmware::Uefi;
        vm.machine.hardware.vnc = Some(VncTcp { port: Some(5910) });
        vm.uefi = Some(Uefi {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            code_format: ImageFormat::Raw,
            variables_format: ImageFormat::Raw,
        });
        let lines = lines_of(&vm, &Accel::Kvm);
        let told: Vec<_> =
            lines.lines().filter(|line| ["uefi", "-vnc"].iter().any(|word| line.contains(word))).collect();
        insta::assert_snapshot!(told.join("\n"));
        vm.machine.hardware.vnc = Some(VncTcp { port: None });
        assert!(lines_of(&vm, &Accel::Kvm).contains("-vnc 127.0.0.1:0,to=99,password=on,id=tcp\n"));

        vm.uefi = None;
        let run = RuntimeDir::new(Path::new("/run"), vm.id);
        assert!(argv(&vm, &run, Launch::new(&Accel::Kvm)).is_err(), "it never boots by something else");
    }

    #[test]
    fn arm_machine_is_one_of_another_board() {
        let mut vm = handle(Path::new("/data/vms/web"));
        vm.machine.hardware.arch = Some(Arch::Aarch64);
        vm.machine.hardware.firmware = Firmware::Uefi;
        vm.uefi = Some(Uefi {
            code: "/usr/share/AAVMF/AAVMF_CODE.fd".into(),
            code_format: ImageFormat::Raw,
            variables_format: ImageFormat::Raw,
        });
        insta::assert_snapshot!(lines_of(&vm, &Accel::Tcg(None)));
    }

    #[test]
    fn microvm_has_its_devices_in_memory() {
        let mut vm = handle(Path::new("/data/vms/web"));
        vm.seed = true;
        vm.machine.hardware.machine = Some("microvm".to_owned());
        vm.machine.hardware.kernel = Some(Kernel {
            kernel: InputFile { path: "/boot/vmlinux".into(), digest: Digest::of("x") },
            initrd: None,
            cmdline: Some("console=ttyS0".to_owned()),
        });
        insta::assert_snapshot!(lines_of(&vm, &Accel::Tcg(None)));
        let run = RuntimeDir::new(Path::new("/run"), vm.id);
        let args = argv(&vm, &run, Launch { tsc_khz: Some(2_500_000), ..Launch::new(&Accel::Kvm) }).unwrap();
        assert!(args.iter().any(|arg| arg == "console=ttyS0 tsc_early_khz=2500000"), "{args:?}");
    }

    #[test]
    fn machine_without_an_image_has_an_empty_disk_or_none() {
        let mut vm = handle(Path::new("/data/vms/web"));
        let disks = |vm: &VmHandle| {
            let lines = lines_of(vm, &Accel::Kvm);
            lines.lines().filter(|line| line.contains("root")).map(str::to_owned).collect::<Vec<_>>()
        };
        vm.machine.image = None;
        let empty = disks(&vm);
        assert!(empty.len() == 2 && empty[0].contains("\"backing\":null"), "{empty:#?}");
        vm.machine.disk_bytes = None;
        assert_eq!(disks(&vm), [""; 0]);
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let mut vm = handle(Path::new("/data"));
        let run = RuntimeDir::new(Path::new("/run"), vm.id);
        vm.machine.nics[0].network = NetworkConfig::Tap { bridge: "br0".to_owned() };
        assert_eq!(
            argv(&vm, &run, Launch::new(&Accel::Kvm)).unwrap_err().to_string(),
            "a tap network that was given no device is not supported by the `qemu` backend"
        );
        let args = argv(&vm, &run, Launch { taps: &[37], ..Launch::new(&Accel::Kvm) }).unwrap();
        let netdev = args.iter().position(|arg| arg == "-netdev").map(|place| &args[place + 1]);
        assert_eq!(netdev.unwrap(), r#"{"fd":"37","id":"net0","type":"tap"}"#);
        vm.machine.nics.clear();
        vm.work_dir = PathBuf::from(OsString::from_vec(b"/data\xff".to_vec()));
        assert!(
            argv(&vm, &run, Launch::new(&Accel::Kvm))
                .unwrap_err()
                .to_string()
                .ends_with("it is not valid UTF-8")
        );
    }

    #[test]
    fn other_command_lines_bear_no_marks() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for line in [
            "",
            "qemu-system-x86_64 -name web -uuid 5f8b1d2e-0000-4000-8000-000000000001",
            "qemu-system-x86_64 -name guest=shop/web",
            "qemu-system-x86_64 -name guest=shop/../x -uuid 5f8b1d2e-0000-4000-8000-000000000001",
            "qemu-system-x86_64 -name guest=shop/web -uuid 5",
        ] {
            assert_eq!(marks(&words(line)), None, "{line}");
        }
        let older = "qemu-system-x86_64 -name guest=shop/web,process=vmctl-web \
                     -uuid 5f8b1d2e-0000-4000-8000-000000000001";
        let found = marks(&words(older)).unwrap();
        assert_eq!((found.work_dir, found.console_start), (None, None));
    }

    proptest! {
        /// Whatever a folder is called, no option appears or vanishes, and each value is found where it belongs.
        #[test]
        fn paths_are_values_and_nothing_else(name in "[^\0/]{1,40}") {
            let vm = handle(&Path::new("/data").join(&name));
            let run = RuntimeDir::new(Path::new("/run").join(&name).as_path(), vm.id);
            let args = argv(&vm, &run, Launch::new(&Accel::Kvm)).unwrap();
            let plain = argv(&handle(Path::new("/data/x")), &run, Launch::new(&Accel::Kvm)).unwrap();
            prop_assert_eq!(args.len(), plain.len());

            let values: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
            let root: Value = serde_json::from_str(values.iter().find(|v| v.contains("overlay")).unwrap()).unwrap();
            prop_assert_eq!(&root["file"]["filename"], &json!(format!("/data/{name}/overlay.qcow2")));
            let console = values.iter().find(|v| v.starts_with("socket,id=console,")).unwrap();
            let fields = split_list(console);
            prop_assert_eq!(fields.len(), 7);
            prop_assert_eq!(&fields[2], &format!("path=/run/{name}/5f8b1d2e00004000/console.sock"));
            prop_assert_eq!(&fields[5], &format!("logfile=/data/{name}/console.log"));

            let values: Vec<String> = values.into_iter().map(str::to_owned).collect();
            prop_assert_eq!(marks(&values), Some(Marks {
                project: "shop".parse().unwrap(),
                name: "web".parse().unwrap(),
                id: vm.id,
                work_dir: Some(vm.work_dir.clone()),
                console_start: Some(0),
            }));
        }
    }
}
