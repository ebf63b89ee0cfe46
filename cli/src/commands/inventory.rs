//! `inventory`: the machines for Ansible, as a file or as the answer of an inventory script.
//!
//! Ansible reads the two in different forms: a file as its `yaml` plugin does, of which JSON is a part, a script by
//! <https://docs.ansible.com/ansible/latest/dev_guide/developing_inventory.html#inventory-script-conventions>.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vmctl_planner::recorded::spec_of;
use vmctl_providers::ssh::SshTarget;

use super::ssh_config::{arguments, logins};
use crate::args::{InventoryArgs, MachineArg, SomeArgs};
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::machines::Machine;
use crate::ui;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &InventoryArgs) -> Result<Exit, CliError> {
    let vms = args.host.iter().map(|name| MachineArg { project: None, name: name.clone() }).collect();
    let logins = logins(ctx, &SomeArgs { vms, named: Vec::new() })?;
    match logins.first() {
        Some((_, target)) if args.host.is_some() => ui::print_json(&variables(target))?,
        _ if args.list => ui::print_json(&answer(&logins, &groups(&logins)?))?,
        _ => ui::print_json(&file(&logins, &groups(&logins)?))?,
    }
    Ok(Exit::Fine)
}

/// Machines by the groups that their labels make.
type Groups<'m> = BTreeMap<String, Vec<&'m str>>;

fn groups(logins: &[(Machine, SshTarget)]) -> Result<Groups<'_>, CliError> {
    let mut groups = Groups::new();
    for (machine, _) in logins {
        let recorded = spec_of(&machine.record).map_err(|error| CliError::of(&error))?;
        for (label, value) in &recorded.labels {
            groups.entry(group(label, value)).or_default().push(machine.name());
        }
    }
    Ok(groups)
}

/// The answer of a script that is asked for `--list`.
fn answer(logins: &[(Machine, SshTarget)], groups: &Groups<'_>) -> Value {
    let hosts: Vec<_> = logins.iter().map(|(machine, _)| machine.name()).collect();
    let mut answer = json!({ "_meta": { "hostvars": by_name(logins) }, "all": { "hosts": hosts } });
    for (name, hosts) in groups {
        answer[name] = json!({ "hosts": hosts });
    }
    answer
}

/// The content of a file.
fn file(logins: &[(Machine, SshTarget)], groups: &Groups<'_>) -> Value {
    let group = |hosts: &Vec<&str>| {
        let hosts: BTreeMap<_, _> = hosts.iter().map(|host| (*host, json!({}))).collect();
        json!({ "hosts": hosts })
    };
    let children: BTreeMap<_, _> = groups.iter().map(|(name, hosts)| (name, group(hosts))).collect();
    json!({ "all": { "hosts": by_name(logins), "children": children } })
}

fn by_name(logins: &[(Machine, SshTarget)]) -> BTreeMap<&str, Value> {
    logins.iter().map(|(machine, target)| (machine.name(), variables(target))).collect()
}

fn variables(target: &SshTarget) -> Value {
    json!({
        "ansible_host": target.address.ip(),
        "ansible_port": target.address.port(),
        "ansible_user": target.user,
        "ansible_ssh_private_key_file": target.private_key,
        "ansible_ssh_common_args": arguments(target),
    })
}

/// The name of a group: Ansible takes letters, digits and `_`, and no digit in front.
fn group(label: &str, value: &str) -> String {
    let name = format!("{label}_{value}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names_that_ansible_takes() {
        assert_eq!(group("role", "web server"), "role_web_server");
        assert_eq!(group("2", "ü"), "_2__");
    }
}
