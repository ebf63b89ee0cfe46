//! What a machine is besides its processors, memory, disks and networks.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Digest, ImageFormat, PropolisOptions};

/// What a machine is besides its processors, memory and disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The processor that the guest is made for; the host's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// What the guest boots with.
    #[serde(default)]
    pub firmware: Firmware,
    /// A kernel that is booted directly; its files are read at each start, and must be as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
    /// The machine type, by QEMU's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The CPU model and its features, by QEMU's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// How the guest's instructions run.
    #[serde(default)]
    pub accel: AccelChoice,
    /// The display over TCP as well; else it is on a private socket only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vnc: Option<VncTcp>,
    /// Arguments that are passed on to QEMU as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub qemu_args: Vec<String>,
    /// What only the backend `propolis` needs to know.
    #[serde(default, skip_serializing_if = "PropolisOptions::is_default")]
    pub propolis: PropolisOptions,
}

impl Hardware {
    /// The accelerator to choose: the machine's own word, else `general`.
    pub fn accel_over(&self, general: AccelChoice) -> AccelChoice {
        if self.accel == AccelChoice::Auto { general } else { self.accel }
    }

    /// The processor that the guest is made for.
    pub fn guest_arch(&self) -> Arch {
        self.arch.unwrap_or(Arch::HOST)
    }

    /// QEMU's machine type: the one that was asked for, else the processor's usual one.
    pub fn machine_type(&self) -> &str {
        self.machine.as_deref().unwrap_or(match self.guest_arch() {
            Arch::X86_64 => "q35",
            Arch::Aarch64 => "virt",
        })
    }

    /// Whether it is a `microvm`: no PCI, no display, virtio devices in memory only.
    pub fn is_microvm(&self) -> bool {
        self.machine_type().starts_with("microvm")
    }

    /// Whether all of it is as it is where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A processor that guests are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit PCs.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// That of the host.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// As QEMU and Linux write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A display that is served over TCP on the loopback, behind a password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VncTcp {
    /// The port, from 5900 on; the first free one of the hundred from 5900 on if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// The files that a machine boots with by UEFI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uefi {
    /// The firmware of the host.
    pub code: PathBuf,
    /// Its format.
    pub code_format: ImageFormat,
    /// The format of the machine's own variables.
    pub variables_format: ImageFormat,
}

/// What a guest boots with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// UEFI, with variables of the machine's own.
    Uefi,
}

/// How a guest's instructions run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccelChoice {
    /// By KVM where it works, else by TCG.
    #[default]
    Auto,
    /// By the host's processor.
    Kvm,
    /// By translation in QEMU.
    Tcg,
}

/// A kernel that is booted directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The kernel.
    pub kernel: InputFile,
    /// The first root file system.
    pub initrd: Option<InputFile>,
    /// The kernel's command line.
    pub cmdline: Option<String>,
}

/// A file of the host, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its absolute path.
    pub path: PathBuf,
    /// Digest of its content then.
    pub digest: Digest,
}

impl InputFile {
    /// Whether its content is still what it was. Reads all of it; an error if it cannot be read.
    pub fn is_as_it_was(&self) -> io::Result<bool> {
        const CHUNK: usize = 64 * 1024;
        let (mut file, mut hash) = (File::open(&self.path)?, Sha256::new());
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(Digest::from_hash(&hash.finalize()) == self.digest),
                Ok(count) => hash.update(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
