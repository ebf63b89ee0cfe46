//! `ssh`: hands over to the system's ssh with the options that fit the machine.

use std::ffi::OsString;
use std::path::Path;

use vmctl_providers::process::{self, Program};
use vmctl_providers::ssh::SshTarget;
use vmctl_providers::{SshConfig, VmHandle};

use crate::args::SshArgs;
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::machines::{self, Machine, reachable};

/// The system's ssh client.
pub(crate) const SSH: Program = Program { name: "ssh", package: "openssh-client" };

/// Runs the command; on success this process becomes ssh, whose exit code counts.
pub(crate) fn run(ctx: &Context, args: &SshArgs) -> Result<Exit, CliError> {
    let machine = machines::one(ctx, args.name.as_deref())?;
    let key = args.key.as_ref().map(|path| ctx.settings.cwd.join(path));
    if let Some(path) = &key
        && !path.is_file()
    {
        return Err(CliError::new(format!("no private key at `{}`", path.display())));
    }
    let mut handle = machine.live()?.clone();
    if args.user.is_some() || key.is_some() {
        let login = handle.ssh.get_or_insert_with(|| SshConfig { user: "vm".to_owned(), private_key: None });
        login.user = args.user.clone().unwrap_or_else(|| login.user.clone());
        login.private_key = key.or_else(|| login.private_key.take());
    }
    let target = target(&machine, &handle)?;
    let program = SSH.locate()?;
    let error = process::hand_over(&program, &arguments(&target, &args.command));
    Err(CliError::new(format!("cannot run `{}`", program.display())).because(&error))
}

/// How to log in with the settings of `handle`; an error that says what is missing.
pub(crate) fn target(machine: &Machine, handle: &VmHandle) -> Result<SshTarget, CliError> {
    let address = &machine.record.address;
    if let Some(target) = reachable(handle) {
        return Ok(target);
    }
    Err(if handle.ssh.is_none() {
        CliError::new(format!("`{address}` has no ssh settings"))
            .help("add an `ssh` node to it in the VMFile and apply, or pass --user".to_owned())
    } else {
        CliError::new(format!("`{address}` has no port of this host that leads to its sshd"))
            .help("`vmctl console` reaches it without a network".to_owned())
    })
}

/// How long the guest's sshd may take to greet: longer than an emulated guest needs that still boots.
const CONNECT_TIMEOUT_SECONDS: u32 = 60;

/// Arguments for the system's ssh, which reads no configuration: what applies to other hosts must not apply here.
pub(crate) fn arguments(target: &SshTarget, command: &[String]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-F", "none"].map(Into::into).into();
    for setting in settings(target) {
        arguments.extend(["-o".into(), setting.into()]);
    }
    let port = target.address.port().to_string();
    let ip = target.address.ip().to_string();
    arguments.extend(["-p", &port, "-l", &target.user, "--", &ip].map(Into::into));
    arguments.extend(command.iter().map(Into::into));
    arguments
}

/// How ssh knows us and the guest, as `keyword=value` of ssh_config(5).
pub(crate) fn settings(target: &SshTarget) -> [String; 8] {
    // A guest whose key we could not give is learned at first contact, and checked from then on.
    let checking = if target.known_hosts.is_file() { "yes" } else { "accept-new" };
    [
        "IdentitiesOnly=yes".into(),
        option("IdentityFile", &target.private_key),
        option("UserKnownHostsFile", &target.known_hosts),
        "GlobalKnownHostsFile=none".into(),
        format!("HostKeyAlias={}", target.host_alias),
        format!("StrictHostKeyChecking={checking}"),
        // The forward accepts at once; what may never come is the guest's own answer.
        format!("ConnectTimeout={CONNECT_TIMEOUT_SECONDS}"),
        // Our file names the guest by its alias alone.
        "CheckHostIP=no".into(),
    ]
}

/// `keyword=path`, so that ssh sees one path whatever characters it has: see TOKENS in ssh_config(5).
fn option(keyword: &str, path: &Path) -> String {
    let mut value = String::new();
    let mut plain = true;
    for c in path.to_string_lossy().chars() {
        match c {
            '%' => value.push_str("%%"),
            '"' | '\\' => value.extend(['\\', c]),
            _ => value.push(c),
        }
        plain &= !(c.is_whitespace() || matches!(c, '"' | '\\' | '\'' | '#' | '='));
    }
    if plain { format!("{keyword}={value}") } else { format!("{keyword}=\"{value}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_checks_the_host_and_uses_our_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let known_hosts = folder.path().join("known_hosts");
        std::fs::write(&known_hosts, "").unwrap();
        let target = SshTarget {
            address: "127.0.0.1:40022".parse().unwrap(),
            user: "vm".to_owned(),
            private_key: "/data/my vms/100%/id".into(),
            known_hosts,
            host_alias: "vmctl-0123456789abcdef".to_owned(),
        };
        let arguments = arguments(&target, &["echo".to_owned(), "-n".to_owned()]);
        let shown = process::quote("ssh", &arguments).replace(&folder.path().display().to_string(), "[DIR]");
        insta::assert_snapshot!(shown, @r#"ssh -F none -o IdentitiesOnly=yes -o 'IdentityFile="/data/my vms/100%%/id"' -o UserKnownHostsFile=[DIR]/known_hosts -o GlobalKnownHostsFile=none -o HostKeyAlias=vmctl-0123456789abcdef -o StrictHostKeyChecking=yes -o ConnectTimeout=60 -o CheckHostIP=no -p 40022 -l vm -- 127.0.0.1 echo -n"#);
    }

    #[test]
    fn unknown_host_key_is_learned_once() {
        let target = SshTarget {
            address: "[::1]:22".parse().unwrap(),
            user: "vm".to_owned(),
            private_key: "/k".into(),
            known_hosts: "/does/not/exist".into(),
            host_alias: "vmctl-0".to_owned(),
        };
        let arguments = arguments(&target, &[]);
        assert!(arguments.contains(&"StrictHostKeyChecking=accept-new".into()));
        assert_eq!(arguments.last().unwrap(), "::1");
    }

    #[test]
    fn paths_survive_sshs_own_syntax() {
        assert_eq!(option("K", Path::new("/plain/50%")), "K=/plain/50%%");
        assert_eq!(option("K", Path::new(r#"/a b/"q"\"#)), r#"K="/a b/\"q\"\\""#);
    }
}
