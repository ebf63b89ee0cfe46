//! Outputs: what they say of the machines that run.

use std::collections::{BTreeMap, HashMap};

use vmctl_providers::{Name, NetworkConfig, Protocol};

use super::report::Fault;
use super::resolve::Resolver;
use super::suggest::nearest;
use super::typed::{self, File, Vm};
use crate::desired::{Attribute, Output, OutputPart};

impl Resolver<'_> {
    /// The outputs; what they say of machines is checked.
    pub(super) fn outputs(&mut self, file: &File) -> BTreeMap<Name, Output> {
        let machines: HashMap<&Name, &Vm> = file.vms.iter().map(|vm| (&vm.name.value, vm)).collect();
        for output in &file.outputs {
            for part in &output.parts.value {
                let OutputPart::Attribute { vm, attribute } = part else { continue };
                let fault = match machines.get(vm) {
                    Some(machine) => missing(machine, *attribute),
                    None => nobody(file, vm),
                };
                self.faults.extend(fault.map(|fault| fault.at(output.parts.span, "in this text")));
            }
        }
        let output = |output: &typed::Output| {
            let parts = output.parts.value.iter().cloned();
            (output.name.value.clone(), Output::new(output.description.clone(), parts))
        };
        file.outputs.iter().map(output).collect()
    }
}

/// What an output asks of `vm` and `vm` does not have.
fn missing(vm: &Vm, attribute: Attribute) -> Option<Fault> {
    let name = &vm.name.value;
    let (message, help) = match attribute {
        Attribute::Host => return None,
        Attribute::Ip => {
            let mut cards = vm.networks.iter();
            if cards.any(|network| matches!(network.value, NetworkConfig::Tap { .. })) {
                return None;
            }
            (
                format!(
                    "`{name}` has no card on a bridge, where it would have an address that the host sees"
                ),
                "write `vm.NAME.host`; or give it a `network \"tap\"`".to_owned(),
            )
        }
        Attribute::Port(port) => {
            let mut forwards = vm.forwards.iter().map(|forward| &forward.value);
            if forwards.any(|forward| forward.guest == port && forward.protocol == Protocol::Tcp) {
                return None;
            }
            (
                format!("no forward leads to port {port} of `{name}`"),
                format!("add `forward guest={port}` to `{name}`"),
            )
        }
        Attribute::SshPort | Attribute::User => {
            let has_own_user_data = vm.cloud_init.as_ref().map(|seed| seed.user_data.is_some());
            if vm.ssh.is_some() || has_own_user_data == Some(false) {
                return None;
            }
            (format!("nobody logs in to `{name}`"), format!("add `ssh` to `{name}`"))
        }
    };
    Some(Fault::error("vmfile::template", message).help(help))
}

/// An output that speaks of a machine that there is not; nothing where its machine has a fault of its own.
fn nobody(file: &File, name: &Name) -> Option<Fault> {
    let name = name.as_str();
    if file.declared.iter().any(|declared| declared.value == name) {
        return None;
    }
    let known = || file.declared.iter().map(|declared| declared.value.as_str());
    let help = match (file.groups.get(name).and_then(|members| members.first()), nearest(name, known())) {
        (Some(first), _) => format!("`{name}` has a `count`: name one of its machines, such as `vm.{first}`"),
        (None, Some(near)) => format!("did you mean `vm.{near}`?"),
        (None, None) => "name a machine of this file".to_owned(),
    };
    Some(Fault::error("vmfile::unknown-reference", format!("there is no machine `{name}`")).help(help))
}
