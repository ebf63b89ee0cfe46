//! Which accelerator a machine gets, and why.
//!
//! [`probe`] looks at the host, [`decide`] decides; the second is pure.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::spec::{AccelChoice, Arch, BackendTag};

/// What the host says about hardware acceleration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Whether `/dev/kvm` can be opened for reading and writing; else why not.
    pub kvm_device: Result<(), String>,
    /// Whether the CPU can run guests of its own kind in hardware: on x86 by `vmx` or `svm`; on ARM the device says it.
    pub cpu_virtualises: bool,
    /// Whether KVM is the software variant `kvm_pvm`, under which QEMU's machines do not come up.
    pub kvm_is_pvm: bool,
}

impl HostFacts {
    /// Why KVM cannot be used; `None` if nothing speaks against it.
    pub fn obstacle(&self) -> Option<String> {
        if let Err(reason) = &self.kvm_device {
            return Some(reason.clone());
        }
        if self.kvm_is_pvm {
            return Some("the host's KVM is kvm_pvm, which cannot run QEMU's machines".to_owned());
        }
        if !self.cpu_virtualises {
            return Some("the CPU offers neither vmx nor svm".to_owned());
        }
        None
    }
}

/// The accelerator of one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accel {
    /// Hardware.
    Kvm,
    /// Emulation, with the reason if hardware was hoped for.
    Tcg(Option<String>),
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm => f.write_str("kvm"),
            Self::Tcg(None) => f.write_str("tcg"),
            Self::Tcg(Some(reason)) => write!(f, "tcg ({reason})"),
        }
    }
}

/// Looks at the host. Cheap; touches nothing.
pub fn probe() -> HostFacts {
    let kvm_device = rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map(drop)
        .map_err(|error| format!("/dev/kvm cannot be opened: {}", io::Error::from(error)));
    HostFacts {
        kvm_device,
        cpu_virtualises: Arch::HOST == Arch::Aarch64
            || std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpuinfo| has_virtualisation(&cpuinfo)),
        kvm_is_pvm: Path::new("/sys/module/kvm_pvm").exists(),
    }
}

/// The same for a guest of `arch`: a processor runs guests of its own kind only.
pub fn decide_for(arch: Arch, choice: AccelChoice, facts: &HostFacts) -> Result<Accel> {
    match choice {
        _ if arch == Arch::HOST => decide(choice, facts),
        AccelChoice::Tcg => Ok(Accel::Tcg(None)),
        AccelChoice::Auto => Ok(Accel::Tcg(Some(format!("the host is {}, the guest {arch}", Arch::HOST)))),
        AccelChoice::Kvm => Err(Error::BackendUnavailable {
            backend: BackendTag::Qemu,
            reason: format!("KVM was asked for, but the host is {}, and the guest {arch}", Arch::HOST),
        }),
    }
}

/// Decides by the user's choice and the host's facts. Only [`AccelChoice::Kvm`] can fail.
pub fn decide(choice: AccelChoice, facts: &HostFacts) -> Result<Accel> {
    match (choice, facts.obstacle()) {
        (AccelChoice::Tcg, _) => Ok(Accel::Tcg(None)),
        (AccelChoice::Auto | AccelChoice::Kvm, None) => Ok(Accel::Kvm),
        (AccelChoice::Auto, Some(reason)) => Ok(Accel::Tcg(Some(reason))),
        (AccelChoice::Kvm, Some(reason)) => Err(Error::BackendUnavailable {
            backend: BackendTag::Qemu,
            reason: format!("KVM was asked for, but {reason}"),
        }),
    }
}

/// What to try after QEMU gave up with `failed`, saying `detail`: emulation, if KVM was our choice and not the user's.
pub(crate) fn second_choice(choice: AccelChoice, failed: &Accel, detail: Option<&str>) -> Option<Accel> {
    match (choice, failed) {
        (AccelChoice::Auto, Accel::Kvm) => {
            let reason = detail.unwrap_or("it did not say why");
            Some(Accel::Tcg(Some(format!("QEMU gave up with KVM: {reason}"))))
        }
        (AccelChoice::Auto | AccelChoice::Kvm | AccelChoice::Tcg, _) => None,
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HostFacts {
        HostFacts { kvm_device: Ok(()), cpu_virtualises: true, kvm_is_pvm: false }
    }

    #[test]
    fn auto_takes_kvm_only_if_nothing_speaks_against_it() {
        let cases = [
            (good(), "kvm"),
            (HostFacts { kvm_device: Err("no such device".to_owned()), ..good() }, "tcg (no such device)"),
            (
                HostFacts { kvm_is_pvm: true, ..good() },
                "tcg (the host's KVM is kvm_pvm, which cannot run QEMU's machines)",
            ),
            (HostFacts { cpu_virtualises: false, ..good() }, "tcg (the CPU offers neither vmx nor svm)"),
        ];
        for (facts, expected) in cases {
            assert_eq!(decide(AccelChoice::Auto, &facts).unwrap().to_string(), expected);
            assert_eq!(decide(AccelChoice::Tcg, &facts).unwrap(), Accel::Tcg(None));
            assert_eq!(decide(AccelChoice::Kvm, &facts).is_ok(), expected == "kvm");
        }
    }

    #[test]
    fn only_our_own_choice_of_kvm_falls_back() {
        let after = |choice, failed| second_choice(choice, &failed, Some("no memory slots"));
        assert_eq!(
            after(AccelChoice::Auto, Accel::Kvm).map(|accel| accel.to_string()).as_deref(),
            Some("tcg (QEMU gave up with KVM: no memory slots)")
        );
        assert_eq!(after(AccelChoice::Kvm, Accel::Kvm), None);
        assert_eq!(after(AccelChoice::Auto, Accel::Tcg(None)), None);
        assert_eq!(after(AccelChoice::Tcg, Accel::Tcg(None)), None);
    }

    #[test]
    fn virtualisation_is_read_from_the_flags_line_alone() {
        assert!(has_virtualisation("model name\t: x\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualisation("flags : svm"));
        assert!(!has_virtualisation("flags : fpu svm_lock\nvmx flags\t: vmx vnmi\nbugs : svm\n"));
        assert!(!has_virtualisation(""));
    }
}
