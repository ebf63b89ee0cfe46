//! Which package of this host's distribution has what is missing, and the command that installs it.

use std::fs;

/// Where a distribution says what it is (os-release(5)), the first that is there.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// A family of distributions, by what installs packages there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Debian, Ubuntu and what comes of them.
    Apt,
    /// Fedora, and what is built like it.
    Dnf,
    /// Arch.
    Pacman,
    /// openSUSE, SLES.
    Zypper,
    /// Alpine.
    Apk,
}

/// Packages that are called differently: Debian's name, then those of the other families in the order of [`Family`].
const NAMES: [(&str, [&str; 4]); 8] = [
    ("qemu-system-x86", ["qemu-system-x86", "qemu-system-x86", "qemu-x86", "qemu-system-x86_64"]),
    ("qemu-system-arm", ["qemu-system-aarch64", "qemu-system-aarch64", "qemu-arm", "qemu-system-aarch64"]),
    ("qemu-system-common", ["qemu-common", "qemu-common", "qemu-tools", "qemu-bridge-helper"]),
    ("qemu-utils", ["qemu-img", "qemu-img", "qemu-tools", "qemu-img"]),
    ("ovmf", ["edk2-ovmf", "edk2-ovmf", "qemu-ovmf-x86_64", "ovmf"]),
    ("qemu-efi-aarch64", ["edk2-aarch64", "edk2-aarch64", "qemu-uefi-aarch64", "aavmf"]),
    ("openssh-client", ["openssh-clients", "openssh", "openssh-clients", "openssh-client-default"]),
    ("iproute2", ["iproute", "iproute2", "iproute2", "iproute2"]),
];

impl Family {
    /// The family of the distribution that `os_release`, the content of os-release(5), is of; `None` if it is unknown.
    pub fn of(os_release: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\''])
        };
        // What it is itself says more than what it is like.
        let words = value("ID").split_ascii_whitespace().chain(value("ID_LIKE").split_ascii_whitespace());
        words.into_iter().find_map(|word| match word {
            "debian" | "ubuntu" => Some(Self::Apt),
            "fedora" | "rhel" | "centos" => Some(Self::Dnf),
            "arch" => Some(Self::Pacman),
            "suse" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" | "sles" => Some(Self::Zypper),
            "alpine" => Some(Self::Apk),
            _ => None,
        })
    }

    /// The command that installs a package, given by Debian's name.
    fn command(self, package: &str) -> String {
        let names = NAMES.iter().find(|(name, _)| *name == package).map(|(_, names)| names);
        let (command, name) = match self {
            Self::Apt => ("apt-get install --no-install-recommends", None),
            Self::Dnf => ("dnf install", names.map(|names| names[0])),
            Self::Pacman => ("pacman -S", names.map(|names| names[1])),
            Self::Zypper => ("zypper install", names.map(|names| names[2])),
            Self::Apk => ("apk add", names.map(|names| names[3])),
        };
        format!("{command} {}", name.unwrap_or(package))
    }
}

/// What to do about something missing that is in `package`, by Debian's name, on this host.
pub fn advice(package: &str) -> String {
    let os_release = OS_RELEASE.iter().find_map(|path| fs::read_to_string(path).ok());
    advice_for(os_release.as_deref().and_then(Family::of), package)
}

fn advice_for(family: Option<Family>, package: &str) -> String {
    match family {
        Some(family) => format!("install it: {}", family.command(package)),
        None => format!("install it; Debian's package is `{package}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_is_told_by_what_a_distribution_is_or_is_like() {
        let cases = [
            ("ID=debian\n", Some(Family::Apt)),
            ("NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(Family::Apt)),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some(Family::Dnf)),
            ("ID=manjaro\nID_LIKE=arch\n", Some(Family::Pacman)),
            ("ID='opensuse-tumbleweed'\nID_LIKE='opensuse suse'\n", Some(Family::Zypper)),
            ("ID=alpine\nVERSION_ID=3.20\n", Some(Family::Apk)),
            ("ID=nixos\n", None),
            ("", None),
        ];
        for (text, family) in cases {
            assert_eq!(Family::of(text), family, "{text}");
        }
    }

    #[test]
    fn command_names_the_package_as_the_distribution_does() {
        let of = |family, package| advice_for(family, package);
        assert_eq!(of(Some(Family::Apt), "ovmf"), "install it: apt-get install --no-install-recommends ovmf");
        assert_eq!(of(Some(Family::Dnf), "qemu-utils"), "install it: dnf install qemu-img");
        assert_eq!(of(Some(Family::Pacman), "openssh-client"), "install it: pacman -S openssh");
        assert_eq!(of(Some(Family::Zypper), "qemu-system-x86"), "install it: zypper install qemu-x86");
        assert_eq!(of(Some(Family::Apk), "util-linux"), "install it: apk add util-linux");
        assert_eq!(of(None, "virtiofsd"), "install it; Debian's package is `virtiofsd`");
    }
}
