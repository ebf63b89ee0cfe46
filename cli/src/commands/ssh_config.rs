//! `ssh-config`: how other programs log in to the machines, in the words of ssh_config(5).

use vmctl_providers::process::quote;
use vmctl_providers::ssh::SshTarget;

use super::ssh::{settings, target};
use crate::args::{MachineArg, SomeArgs};
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::machines::{self, Machine};
use crate::ui;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &SomeArgs) -> Result<Exit, CliError> {
    let found = logins(ctx, args)?;
    let hosts: Vec<_> = found.iter().map(|(machine, target)| host(machine.name(), target)).collect();
    if hosts.is_empty() {
        ctx.note(
            "No machine runs that can be logged in to. `vmctl up` makes and starts those of the VMFile.",
        );
    }
    ui::print(&hosts.join("\n"))?;
    Ok(Exit::Fine)
}

/// The machines that can be logged in to, and how. One that was named and cannot is an error.
pub(super) fn logins(ctx: &Context, args: &SomeArgs) -> Result<Vec<(Machine, SshTarget)>, CliError> {
    let named: Vec<_> = args.vms.iter().chain(&args.named).collect();
    if !named.is_empty() {
        let login = |name: &&MachineArg| {
            let machine = machines::one(ctx, Some(&name.to_string()))?;
            let target = target(&machine, &machine.in_reach(ctx)?)?;
            Ok((machine, target))
        };
        return named.iter().map(login).collect();
    }
    let Some(project) = ctx.project()? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for machine in machines::all(ctx, &project)? {
        match machine.in_reach(ctx).and_then(|handle| target(&machine, &handle)) {
            Ok(target) => found.push((machine, target)),
            Err(error) => ctx.note(&format!("Left out: {}.", error.message())),
        }
    }
    Ok(found)
}

fn host(name: &str, target: &SshTarget) -> String {
    let mut block = format!("Host {name}\n");
    let ip = target.address.ip();
    block.push_str(&format!("  HostName {ip}\n  Port {}\n  User {}\n", target.address.port(), target.user));
    for setting in settings(target) {
        block.push_str(&format!("  {}\n", setting.replacen('=', " ", 1)));
    }
    block
}

/// The same as arguments of ssh, in one line of a shell.
pub(super) fn arguments(target: &SshTarget) -> String {
    let settings = settings(target);
    let words: Vec<_> = settings.iter().flat_map(|setting| ["-o", setting]).collect();
    quote("-F", &[&["none"][..], &words].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> SshTarget {
        SshTarget {
            address: "127.0.0.1:40022".parse().unwrap(),
            user: "vm".to_owned(),
            private_key: "/data/my vms/100%/id".into(),
            known_hosts: "/does/not/exist".into(),
            host_alias: "vmctl-0".to_owned(),
        }
    }

    #[test]
    fn ssh_reads_the_host_whatever_its_folder_is_called() {
        insta::assert_snapshot!(host("web", &machine()));
    }

    #[test]
    fn ansible_reads_the_same_as_arguments() {
        insta::assert_snapshot!(arguments(&machine()));
    }
}
