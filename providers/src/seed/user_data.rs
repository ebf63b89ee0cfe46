//! Our cloud-config: what the guest is told to make of itself.

use serde::Serialize;

use super::{SeedError, yaml};
use crate::keys::KeyPair;
use crate::spec::{CloudInitConfig, Nic};

/// The part of cloud-config that logging in needs.
#[derive(Serialize)]
struct CloudConfig<'a> {
    hostname: &'a str,
    preserve_hostname: bool,
    ssh_pwauth: bool,
    disable_root: bool,
    users: [User<'a>; 1],
    ssh_keys: HostKeys<'a>,
    updates: Updates,
    /// cloud-init keeps its hands off the other lines of `/etc/hosts`, among which are those that vmctl writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    manage_etc_hosts: Option<&'a str>,
}

/// A machine may get other cards later: `network-config` is looked at on every boot.
#[derive(Serialize)]
struct Updates {
    network: When,
}

#[derive(Serialize)]
struct When {
    when: [&'static str; 2],
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    groups: &'a str,
    /// Debian's `useradd` would give `/bin/sh`, which has neither history nor completion.
    shell: &'a str,
    sudo: &'a str,
    lock_passwd: bool,
    ssh_authorized_keys: Vec<&'a str>,
}

#[derive(Serialize)]
struct HostKeys<'a> {
    ed25519_private: &'a str,
    ed25519_public: &'a str,
}

/// The text of our cloud-config.
pub(super) fn cloud_config(
    config: &CloudInitConfig,
    nics: &[Nic],
    user: &KeyPair,
    host: &KeyPair,
) -> Result<String, SeedError> {
    let given = config.authorized_keys.iter().map(String::as_str);
    let content = CloudConfig {
        hostname: &config.hostname,
        preserve_hostname: false,
        ssh_pwauth: false,
        disable_root: true,
        users: [User {
            name: &config.user,
            groups: "sudo",
            shell: "/bin/bash",
            sudo: "ALL=(ALL) NOPASSWD:ALL",
            lock_passwd: true,
            ssh_authorized_keys: std::iter::once(user.public.as_str()).chain(given).collect(),
        }],
        manage_etc_hosts: nics.iter().any(Nic::is_private).then_some("localhost"),
        updates: Updates { network: When { when: ["boot-new-instance", "boot"] } },
        ssh_keys: HostKeys { ed25519_private: host.private.expose(), ed25519_public: &host.public },
    };
    Ok(format!("#cloud-config\n{}", yaml("cloud-config", &content)?))
}
