//! What the outputs of a VMFile come to: texts of the VMFile, and what is known of machines that run.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use vmctl_providers::{Forward, Name, Protocol};

use crate::desired::{Attribute, Desired, Output, OutputPart, Power};

/// What a machine does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its process runs.
    Up {
        /// Forwards with the ports that are really bound.
        forwards: Vec<Forward>,
        /// Who logs in.
        user: Option<String>,
        /// Where this host reaches its sshd.
        sshd: Option<SocketAddr>,
        /// The address that this host reaches it at, where no forward says another.
        host: Option<IpAddr>,
        /// Its own address on the network of a bridge.
        ip: Option<IpAddr>,
    },
    /// It does not run.
    Off {
        /// What it does instead, in a word.
        state: String,
    },
    /// It could not be asked.
    Unreachable {
        /// Why.
        reason: String,
    },
}

/// What an output comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// What it is for.
    pub description: Option<String>,
    /// Its text, or why there is none.
    pub text: Result<String, Unknown>,
    /// A sensitive value is in it.
    pub is_sensitive: bool,
}

/// Why a text is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No such machine is recorded.
    #[error("`vm.{vm}` is not made yet")]
    NotMade {
        /// The machine.
        vm: Name,
    },
    /// It does not run.
    #[error("`vm.{vm}` is not running, it is {state}")]
    Off {
        /// The machine.
        vm: Name,
        /// What it does, in a word.
        state: String,
        /// The VMFile asks for nothing else.
        is_meant: bool,
    },
    /// It could not be asked.
    #[error("`vm.{vm}` cannot be asked: {reason}")]
    Unreachable {
        /// The machine.
        vm: Name,
        /// Why.
        reason: String,
    },
    /// It runs, and nobody knows where on the network of its bridge.
    #[error("`vm.{vm}` runs, and its address on the network of its bridge is not known")]
    NoAddress {
        /// The machine.
        vm: Name,
    },
    /// It runs, and is not yet as the VMFile asks.
    #[error("`vm.{vm}` runs, and has no {what}")]
    Without {
        /// The machine.
        vm: Name,
        /// What is missing.
        what: String,
    },
}

impl Unknown {
    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::NotMade { .. } => "`vmctl apply` makes it".to_owned(),
            Self::Off { vm, is_meant: true, .. } => {
                format!("the VMFile asks for that: write `state \"running\"` for `{vm}`, and apply")
            }
            Self::Off { .. } => {
                "`vmctl plan` shows what is to be done, `vmctl apply` starts what should run".to_owned()
            }
            Self::Unreachable { vm, .. } => format!("`vmctl status {vm}` shows what is known of it"),
            Self::NoAddress { vm } => format!(
                "a guest that still boots has none yet; `vmctl exec {vm} -- true` waits for it, and says who was asked"
            ),
            Self::Without { .. } => {
                "`vmctl plan` shows what differs from the VMFile, `vmctl apply` repairs it".to_owned()
            }
        }
    }
}

/// Evaluates all outputs; a machine that is not among `machines` is not made.
pub fn evaluate(desired: &Desired, machines: &BTreeMap<Name, Standing>) -> BTreeMap<Name, Evaluated> {
    let evaluated = |output: &Output| {
        let is_secret = |text: &String| desired.secrets.are_in(text);
        let is_sensitive = output.parts.iter().any(|part| match part {
            OutputPart::Text(text) => is_secret(text),
            OutputPart::Attribute { .. } => false,
        });
        let text = (0..output.parts.len()).map(|at| part(desired, machines, &output.parts[at..])).collect();
        Evaluated { description: output.description.clone(), text, is_sensitive }
    };
    desired.outputs.iter().map(|(name, output)| (name.clone(), evaluated(output))).collect()
}

/// The text of the first of `parts`.
fn part(
    desired: &Desired,
    machines: &BTreeMap<Name, Standing>,
    parts: &[OutputPart],
) -> Result<String, Unknown> {
    let (vm, attribute) = match parts.first() {
        None => return Ok(String::new()),
        Some(OutputPart::Text(text)) => return Ok(text.clone()),
        Some(OutputPart::Attribute { vm, attribute }) => (vm, *attribute),
    };
    let vm = vm.clone();
    let (forwards, user, sshd, host, ip) = match machines.get(&vm) {
        None => return Err(Unknown::NotMade { vm }),
        Some(Standing::Off { state }) => {
            let is_meant = desired.vms.get(&vm).is_some_and(|vm| vm.power == Power::Stopped);
            return Err(Unknown::Off { vm, state: state.clone(), is_meant });
        }
        Some(Standing::Unreachable { reason }) => {
            return Err(Unknown::Unreachable { vm, reason: reason.clone() });
        }
        Some(Standing::Up { forwards, user, sshd, host, ip }) => (forwards, user, sshd, host, ip),
    };
    let door = |attribute| match attribute {
        Attribute::Port(port) => forwarded(forwards, port),
        Attribute::SshPort => *sshd,
        Attribute::Host | Attribute::Ip | Attribute::User => None,
    };
    let known = |address: Option<IpAddr>| {
        address.map(|address| address.to_string()).ok_or_else(|| Unknown::NoAddress { vm: vm.clone() })
    };
    let without = |what: String| Unknown::Without { vm: vm.clone(), what };
    match attribute {
        Attribute::Host => {
            // A forward may listen elsewhere than on the loopback: the host goes with the port that follows it.
            let of_port = parts.iter().find_map(|part| match part {
                OutputPart::Attribute { vm: other, attribute } if *other == vm => door(*attribute),
                OutputPart::Attribute { .. } | OutputPart::Text(_) => None,
            });
            known(of_port.map(|door| door.ip()).or(*host))
        }
        Attribute::Ip => known(*ip),
        Attribute::Port(port) => door(attribute)
            .map(|door| door.port().to_string())
            .ok_or_else(|| without(format!("forward to port {port}"))),
        Attribute::SshPort => door(attribute)
            .map(|door| door.port().to_string())
            .ok_or_else(|| without("forward to its sshd".to_owned())),
        Attribute::User => user.clone().ok_or_else(|| without("login".to_owned())),
    }
}

/// Where this host reaches the TCP port `port` of the guest.
fn forwarded(forwards: &[Forward], port: u16) -> Option<SocketAddr> {
    let leads = |forward: &&Forward| {
        forward.guest_port == port && forward.protocol == Protocol::Tcp && forward.host_port != 0
    };
    forwards.iter().find(leads).map(|forward| {
        let address = forward.host_address;
        // What listens on all addresses is reached on the loopback.
        let address = if address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address };
        SocketAddr::new(address, forward.host_port)
    })
}

#[cfg(test)]
mod tests {
    use vmctl_providers::{Secret, Secrets};

    use super::*;
    use crate::desired::DesiredVm;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn of(vm: &str, attribute: Attribute) -> OutputPart {
        OutputPart::Attribute { vm: name(vm), attribute }
    }

    fn text(text: &str) -> OutputPart {
        OutputPart::Text(text.to_owned())
    }

    fn desired(parts: Vec<OutputPart>) -> Desired {
        let mut desired = Desired::new(name("shop"));
        desired.vms.insert(name("web"), DesiredVm::new(name("web")));
        desired.vms.insert(name("off"), DesiredVm { power: Power::Stopped, ..DesiredVm::new(name("off")) });
        desired.outputs.insert(name("it"), Output::new(None, parts));
        desired
    }

    fn forward(address: [u8; 4], host_port: u16, guest_port: u16) -> Forward {
        Forward { protocol: Protocol::Tcp, host_address: IpAddr::from(address), host_port, guest_port }
    }

    fn machines() -> BTreeMap<Name, Standing> {
        let udp = Forward { protocol: Protocol::Udp, ..forward([127, 0, 0, 1], 9, 80) };
        let up = Standing::Up {
            forwards: vec![
                udp,
                forward([127, 0, 0, 2], 40_080, 80),
                forward([0, 0, 0, 0], 40_443, 443),
                forward([127, 0, 0, 1], 0, 25),
            ],
            user: Some("me".to_owned()),
            sshd: Some(SocketAddr::from(([127, 0, 0, 1], 40_022))),
            host: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ip: None,
        };
        let bridged = Standing::Up {
            forwards: Vec::new(),
            user: Some("me".to_owned()),
            sshd: Some(SocketAddr::from(([10, 9, 0, 17], 22))),
            host: Some(IpAddr::from([10, 9, 0, 17])),
            ip: Some(IpAddr::from([10, 9, 0, 17])),
        };
        let off = || Standing::Off { state: "stopped".to_owned() };
        let silent = Standing::Unreachable { reason: "no answer within 5s".to_owned() };
        [
            (name("bridged"), bridged),
            (name("web"), up),
            (name("off"), off()),
            (name("crashed"), off()),
            (name("hung"), silent),
        ]
        .into()
    }

    fn evaluated(parts: Vec<OutputPart>) -> Evaluated {
        evaluate(&desired(parts), &machines()).remove(&name("it")).expect("the output")
    }

    #[test]
    fn texts_are_filled_with_what_is_bound() {
        use Attribute::{Host, Ip, Port, SshPort, User};
        for (parts, expected) in [
            (vec![], ""),
            (vec![text("as it is")], "as it is"),
            (
                vec![text("http://"), of("web", Host), text(":"), of("web", Port(80))],
                "http://127.0.0.2:40080",
            ),
            (vec![of("web", Host), text(" "), of("web", Port(443))], "127.0.0.1 40443"),
            (
                vec![of("web", User), text("@"), of("web", Host), text(":"), of("web", SshPort)],
                "me@127.0.0.1:40022",
            ),
            (vec![of("web", Port(80)), text(" on "), of("web", Host)], "40080 on 127.0.0.1"),
            (vec![of("bridged", Host), text(":"), of("bridged", SshPort)], "10.9.0.17:22"),
            (vec![text("http://"), of("bridged", Ip)], "http://10.9.0.17"),
        ] {
            assert_eq!(evaluated(parts).text.as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_not_known_says_whose_fault_it_is_and_what_to_do() {
        for (vm, attribute, message, help) in [
            ("new", Attribute::Host, "`vm.new` is not made yet", "`vmctl apply` makes it"),
            (
                "off",
                Attribute::Host,
                "`vm.off` is not running, it is stopped",
                "the VMFile asks for that: write `state \"running\"` for `off`, and apply",
            ),
            (
                "crashed",
                Attribute::User,
                "`vm.crashed` is not running, it is stopped",
                "`vmctl plan` shows what is to be done, `vmctl apply` starts what should run",
            ),
            (
                "hung",
                Attribute::SshPort,
                "`vm.hung` cannot be asked: no answer within 5s",
                "`vmctl status hung` shows what is known of it",
            ),
            (
                "web",
                Attribute::Ip,
                "`vm.web` runs, and its address on the network of its bridge is not known",
                "a guest that still boots has none yet; `vmctl exec web -- true` waits for it, and says who was asked",
            ),
            (
                "web",
                Attribute::Port(25),
                "`vm.web` runs, and has no forward to port 25",
                "`vmctl plan` shows what differs from the VMFile, `vmctl apply` repairs it",
            ),
        ] {
            let unknown = evaluated(vec![text("x"), of(vm, attribute)]).text.expect_err("not known");
            assert_eq!((unknown.to_string().as_str(), unknown.help().as_str()), (message, help));
        }
    }

    #[test]
    fn output_is_sensitive_by_what_the_vmfile_puts_into_it() {
        let mut desired = desired(vec![text("root:hunter2@"), of("new", Attribute::Host)]);
        desired.outputs.insert(name("open"), Output::new(None, vec![text("root")]));
        desired.secrets = Secrets::new([Secret::new("hunter2")]);
        let evaluated = evaluate(&desired, &machines());
        assert_eq!(evaluated.values().map(|output| output.is_sensitive).collect::<Vec<_>>(), [true, false]);
    }
}
