//! Options of `create` and `import`: machines without a VMFile, and the way into one.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args};
use vmctl_planner::vmfile::{parse_disk, parse_memory};
use vmctl_providers::{BackendTag, Name};

use super::image::digest;
use super::{CarryingArgs, MachineArg, machine_name};
use crate::complete::machines;

/// Options of `create`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("called").args(["name", "named"]).required(true),
    group = ArgGroup::new("source").args(["image", "image_url"]).required(true),
    override_usage = "vmctl create [OPTIONS] <NAME> <--image <PATH>|--image-url <URL>>",
    after_help = "\
Examples:
  vmctl create demo --image ./debian.qcow2 --start && vmctl ssh demo
  vmctl create --name db --image-url https://example.org/debian.qcow2 \\
      --vcpus 2 --memory 2G --disk 20G
  vmctl create web --image base.qcow2 --cloud-init user-data.yaml \\
      --forward 8080:80
  vmctl create lab --image base.qcow2 --bridge br0 --uefi \\
      --ssh-key ~/.ssh/id_ed25519.pub

The machine belongs to the project `default`, or to that of --project, and is described in a \
VMFile of that project's own; `vmctl import demo` prints its block. From a folder with a VMFile it \
is called `default/demo`.

Without --start it is made and stays off. --start does not wait for the guest; `vmctl wait demo` \
does. `vmctl ssh demo` logs in as `vm` with a key that was made for the machine. Exit codes are \
those of `vmctl apply`."
)]
pub(crate) struct CreateArgs {
    /// Name of the machine
    #[arg(value_name = "NAME", value_parser = machine_name)]
    pub(crate) name: Option<Name>,
    /// The same as NAME
    #[arg(long = "name", value_name = "NAME", value_parser = machine_name)]
    pub(crate) named: Option<Name>,
    /// Disk image, a file of this host
    #[arg(long, value_name = "PATH")]
    pub(crate) image: Option<PathBuf>,
    /// Disk image on a server, as https://… or oci://host/name:tag
    #[arg(long, value_name = "URL")]
    pub(crate) image_url: Option<String>,
    /// Digest that the image must have
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub(crate) sha256: Option<String>,
    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=255))]
    pub(crate) vcpus: u16,
    /// Memory, in MB or with a unit, as `2G`
    #[arg(long, value_name = "SIZE", default_value = "1024", value_parser = parse_memory)]
    pub(crate) memory: u64,
    /// Size of the disk, in GB or with a unit [default: the image's]
    #[arg(long, value_name = "SIZE", value_parser = parse_disk)]
    pub(crate) disk: Option<u64>,
    /// Bridge of the host that its network card is on [default: a network of its own behind the host]
    #[arg(long, value_name = "BRIDGE")]
    pub(crate) bridge: Option<String>,
    /// Port of the host that leads to one of the guest, as `8080:80`, `5353:53/udp`, or `80` for any port of the host;
    /// may be repeated
    #[arg(long, value_name = "HOST:GUEST", conflicts_with = "bridge")]
    pub(crate) forward: Vec<ForwardArg>,
    /// User-data for cloud-init; vmctl's own login goes beside it
    #[arg(long, value_name = "FILE", conflicts_with = "ssh_key")]
    pub(crate) cloud_init: Option<PathBuf>,
    /// Public key that may log in as the user `vm`, besides the machine's own
    #[arg(long, value_name = "PUB")]
    pub(crate) ssh_key: Option<PathBuf>,
    /// Boot with UEFI instead of a BIOS
    #[arg(long)]
    pub(crate) uefi: bool,
    /// Start it
    #[arg(long)]
    pub(crate) start: bool,
    /// What runs it: qemu, or noop for a fake machine
    #[arg(long, value_name = "BACKEND", default_value = "qemu", value_parser = backend)]
    pub(crate) backend: BackendTag,
    /// Go on even if the host has too little memory or disk for it
    #[arg(long)]
    pub(crate) overcommit: bool,
    #[command(flatten)]
    pub(crate) carrying: CarryingArgs,
}

/// Options of `import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl import demo
  vmctl import default/demo >> VMFile.kdl && vmctl fmt

The block asks for the same machine wherever it stands: paths are whole, defaults and variables \
are put in. What cannot be carried into another project stands above it as comments. The machine \
itself stays where it is: in another project, `vmctl apply` makes a new one from the image, and \
the disk is not taken along.")]
pub(crate) struct ImportArgs {
    /// Machine, as `demo` or `project/demo`
    #[arg(add = machines())]
    pub(crate) name: MachineArg,
}

/// A port of the host and the guest's that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForwardArg {
    /// The host's; any if absent.
    pub(crate) host: Option<u16>,
    /// The guest's.
    pub(crate) guest: u16,
    /// Whether it is for UDP.
    pub(crate) is_udp: bool,
}

impl FromStr for ForwardArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || "write the host's port, `:` and the guest's, as 8080:80; or the guest's alone".to_owned();
        let (ports, is_udp) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), false),
            Some((ports, "udp")) => (ports, true),
            Some(_) => return Err("a protocol is tcp or udp, as in 5353:53/udp".to_owned()),
        };
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let (host, guest) = match ports.split_once(':') {
            Some((host, guest)) => (Some(port(host)?), port(guest)?),
            None => (None, port(ports)?),
        };
        Ok(Self { host, guest, is_udp })
    }
}

fn backend(text: &str) -> Result<BackendTag, String> {
    match text {
        "qemu" => Ok(BackendTag::Qemu),
        "noop" => Ok(BackendTag::Noop),
        _ => Err("it is `qemu` or `noop`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_ports_of_the_host_and_of_the_guest() {
        let forward = |host, guest, is_udp| Ok(ForwardArg { host, guest, is_udp });
        assert_eq!("8080:80".parse(), forward(Some(8080), 80, false));
        assert_eq!("8080:80/tcp".parse(), forward(Some(8080), 80, false));
        assert_eq!("5353:53/udp".parse(), forward(Some(5353), 53, true));
        assert_eq!("80".parse(), forward(None, 80, false));
        for wrong in ["", "0:80", "80:0", "a:b", "80:70000", "1:2:3", "80/sctp", ":80", "80:"] {
            assert!(wrong.parse::<ForwardArg>().is_err(), "{wrong}");
        }
    }
}
