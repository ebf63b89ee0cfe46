//! A network of its own, with a bridge, where only one world sees it.
//!
//! A process of our own holds a network and a mount namespace open, and every run of the world's vmctl enters them. So
//! nothing is made on the host, and all is gone when the holder ends, however the test ends. Whoever is not root is root
//! in a user namespace around them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::namespace::Namespace;
use crate::{World, process};

/// The bridge's own address, and those that are lent on it.
const ADDRESSES: [&str; 2] = ["10.9.0.1/24", "10.9.0.10,10.9.0.90,1h"];

/// A network namespace with the bridge `br0`, in which the world's vmctl runs.
#[derive(Debug)]
pub struct Lan {
    namespace: Namespace,
    server: Option<Child>,
}

impl Lan {
    /// Makes the network, and lets every later run of `world` enter it. Panics where that is not possible: a test that was
    /// not run did not pass.
    pub fn of(world: &mut World) -> Self {
        let namespace = if rustix::process::geteuid().is_root() {
            Namespace::new("-mn", &["-m", "-n"])
        } else {
            Namespace::new("-rmn", &["--preserve-credentials", "-U", "-m", "-n"])
        };
        world.through(namespace.prefix(world, &[]));
        let lan = Self { namespace, server: None };
        lan.run("ip link set lo up; ip link add br0 type bridge; ip link set br0 up");
        lan.run(&format!("ip addr add {} dev br0", ADDRESSES[0]));
        lan
    }

    /// What gets a run of `world` inside, through `more` programs there.
    pub fn prefix(&self, world: &World, more: &[&str]) -> Vec<String> {
        self.namespace.prefix(world, more)
    }

    /// Lets a dnsmasq lend addresses on the bridge. Its leases are in `leases` of the project.
    pub fn lend_addresses(&mut self, world: &World) {
        let log = File::create(world.project().join("dnsmasq.log")).expect("a log");
        let arguments = [
            "--no-daemon",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--port=0",
            "--interface=br0",
            "--bind-interfaces",
            "--no-ping",
            // Not by a whole path: whatever names the world's folder is taken for a part of it.
            "--dhcp-leasefile=leases",
        ];
        let inside = self.prefix(world, &["dnsmasq"]);
        let mut command = Command::new(&inside[0]);
        command.args(&inside[1..]).args(arguments).arg(format!("--dhcp-range={}", ADDRESSES[1]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().expect("`nsenter` of util-linux"));
        let leases = world.project().join("leases");
        crate::await_condition("dnsmasq is there", || leases.exists());
    }

    /// Runs a line of shell inside; it must succeed. What it printed.
    pub fn run(&self, line: &str) -> String {
        self.namespace.run(&["sh", "-ec", line])
    }

    /// The devices that are on the bridge `br0` and up, sorted.
    pub fn members(&self) -> Vec<String> {
        let told: Vec<Value> =
            serde_json::from_str(&self.run("ip -json link show master br0 up")).expect("JSON of iproute2");
        let mut names: Vec<_> =
            told.iter().map(|link| link["ifname"].as_str().expect("its name").to_owned()).collect();
        names.sort();
        names
    }

    /// All tap devices that there are.
    pub fn taps(&self) -> Vec<String> {
        let told = self.run("ip -brief link show type tun");
        told.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    /// Lets `/etc/qemu/bridge.conf` say `text` inside, and nowhere else. `folder` is a folder of the world for it.
    pub fn allow(&self, folder: &Path, text: &str) {
        fs::create_dir_all(folder).expect("a folder");
        self.run(&format!(
            "d='{}'; mount -t tmpfs none $d; mkdir $d/etc $d/work
             mount -t overlay none -o lowerdir=/etc,upperdir=$d/etc,workdir=$d/work,userxattr /etc
             mkdir -p /etc/qemu; printf '{text}' >/etc/qemu/bridge.conf",
            folder.display()
        ));
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            process::kill(server.id());
            server.wait().expect("a killed child can be waited for");
        }
    }
}
