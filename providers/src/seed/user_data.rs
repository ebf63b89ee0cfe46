//! Our cloud-config: what the guest is told to make of itself.

use serde::Serialize;

use super::{SeedError, yaml};
use crate::keys::KeyPair;
use crate::spec::{CloudInitConfig, Nic, SeedUser, Sudo};

/// What of cloud-config ours says.
#[derive(Serialize)]
struct CloudConfig<'a> {
    #[serde(flatten)]
    host: Option<Host<'a>>,
    users: Vec<Login<'a>>,
    ssh_keys: HostKeys<'a>,
    updates: Updates,
    /// cloud-init keeps its hands off the other lines of `/etc/hosts`, among which are those that vmctl writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    manage_etc_hosts: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    packages: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    write_files: Vec<WrittenFile<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runcmd: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    merge_how: Option<&'static str>,
}

/// What is said of the host as a whole where nobody else does.
#[derive(Serialize)]
struct Host<'a> {
    hostname: &'a str,
    preserve_hostname: bool,
    ssh_pwauth: bool,
    disable_root: bool,
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
#[serde(untagged)]
enum Login<'a> {
    /// The user that the image brings.
    Default(&'static str),
    Ours(User<'a>),
}

#[derive(Serialize)]
struct WrittenFile<'a> {
    path: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    permissions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
}

/// How cloud-init joins ours with the user's own part, which comes first: lists grow, and what that part says stands
/// (cloud-init's documentation, "Merging user data sections").
const MERGE: &str = "dict(no_replace,recurse_list)+list(append)+str()";

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    groups: String,
    /// Debian's `useradd` would give `/bin/sh`, which has neither history nor completion.
    shell: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo: Option<&'a str>,
    lock_passwd: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
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
    let more = &config.more;
    let listed = more.users.iter().any(|listed| listed.name == config.user);
    let unlisted = (!listed).then(|| login_user(config, None, user));
    let users = unlisted.into_iter().chain(more.users.iter().map(|listed| {
        if listed.name == config.user { login_user(config, Some(listed), user) } else { other_user(listed) }
    }));
    let is_part = config.user_data.is_some() && more.merges;
    let host_wide =
        Host { hostname: &config.hostname, preserve_hostname: false, ssh_pwauth: false, disable_root: true };
    let files = more.files.iter().map(|file| WrittenFile {
        path: &file.path,
        content: file.content.text.expose(),
        permissions: file.mode.map(|mode| format!("{mode:04o}")),
        owner: file.owner.as_deref(),
    });
    let content = CloudConfig {
        host: (!is_part).then_some(host_wide),
        users: is_part
            .then_some(Login::Default("default"))
            .into_iter()
            .chain(users.map(Login::Ours))
            .collect(),
        ssh_keys: HostKeys { ed25519_private: host.private.expose(), ed25519_public: &host.public },
        updates: Updates { network: When { when: ["boot-new-instance", "boot"] } },
        manage_etc_hosts: nics.iter().any(Nic::is_private).then_some("localhost"),
        packages: &more.packages,
        write_files: files.collect(),
        runcmd: more.commands.iter().map(|command| command.text.expose()).collect(),
        merge_how: is_part.then_some(MERGE),
    };
    Ok(format!("#cloud-config\n{}", yaml("cloud-config", &content)?))
}

/// The user that vmctl logs in as. What the VMFile does not say of it is what vmctl needs.
fn login_user<'a>(config: &'a CloudInitConfig, listed: Option<&'a SeedUser>, user: &'a KeyPair) -> User<'a> {
    let given = config.authorized_keys.iter().chain(listed.iter().flat_map(|listed| &listed.authorized_keys));
    let groups = listed.map(|listed| listed.groups.join(",")).filter(|groups| !groups.is_empty());
    User {
        name: &config.user,
        groups: groups.unwrap_or_else(|| "sudo".to_owned()),
        shell: shell(listed),
        sudo: listed.and_then(|listed| listed.sudo.as_ref()).map_or(Some(Sudo::EVERYTHING), rule),
        lock_passwd: true,
        ssh_authorized_keys: std::iter::once(&user.public).chain(given).map(String::as_str).collect(),
    }
}

/// Any other user: nothing but what the VMFile says.
fn other_user(listed: &SeedUser) -> User<'_> {
    User {
        name: &listed.name,
        groups: listed.groups.join(","),
        shell: shell(Some(listed)),
        sudo: listed.sudo.as_ref().and_then(rule),
        lock_passwd: true,
        ssh_authorized_keys: listed.authorized_keys.iter().map(String::as_str).collect(),
    }
}

fn shell(listed: Option<&SeedUser>) -> &str {
    listed.and_then(|listed| listed.shell.as_deref()).unwrap_or("/bin/bash")
}

fn rule(sudo: &Sudo) -> Option<&str> {
    match sudo {
        Sudo::Nothing => None,
        Sudo::Rule(rule) => Some(rule),
    }
}
