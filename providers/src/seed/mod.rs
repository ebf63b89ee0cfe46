//! The NoCloud seed: a small FAT volume labelled CIDATA.
//!
//! What goes into it is built as values and serialised once; no YAML is ever joined from text. Every string is
//! quoted, so that no reader, of YAML 1.1 or 1.2, takes a host name such as `on` or `1e3` for something else.
//!
//! | file | what |
//! |---|---|
//! | `meta-data` | instance id, host name |
//! | `user-data` | our cloud-config; or the user's own text byte for byte; or, if asked for, both as parts of a MIME document |
//! | `network-config` | the addresses of its cards, where there is more than one or one has a fixed address |
//! | `vendor-data` | our cloud-config if `user-data` is the user's own; cloud-init merges the two |

mod multipart;
mod network_config;
mod user_data;
mod volume;

use serde::Serialize;

use crate::keys::KeyPair;
use crate::spec::{CloudInitConfig, InstanceId, Nic, SeedUser, Sudo};
use network_config::network_config;
use user_data::cloud_config;
use volume::{MIN_VOLUME, fat_volume};

/// Why the seed could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// The volume could not be written.
    #[error("cannot write the seed volume")]
    Volume(#[source] std::io::Error),
    /// A value that no guest can use.
    #[error("the seed's {field} {problem}")]
    Field {
        /// Which value.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A value that has no YAML form.
    #[error("cannot serialise the seed's {file}: {reason}")]
    Serialise {
        /// Which file of the seed.
        file: &'static str,
        /// The serialiser's answer.
        reason: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData<'a> {
    instance_id: String,
    local_hostname: &'a str,
}

/// Builds the seed volume: the bytes of the disk that the guest sees. Same input, same bytes.
///
/// `user` is the machine's own login key (its public half is authorised), `host` the host key that the guest's
/// sshd is to present; `nics` are the machine's cards.
pub fn volume(
    id: InstanceId,
    config: &CloudInitConfig,
    nics: &[Nic],
    user: &KeyPair,
    host: &KeyPair,
) -> Result<Vec<u8>, SeedError> {
    fat_volume(&all_files(id, config, nics, user, host)?, MIN_VOLUME).map_err(SeedError::Volume)
}

/// The same in a volume that is no larger than it must be.
pub fn small_volume(
    id: InstanceId,
    config: &CloudInitConfig,
    nics: &[Nic],
    user: &KeyPair,
    host: &KeyPair,
) -> Result<Vec<u8>, SeedError> {
    fat_volume(&all_files(id, config, nics, user, host)?, 0).map_err(SeedError::Volume)
}

fn all_files(
    id: InstanceId,
    config: &CloudInitConfig,
    nics: &[Nic],
    user: &KeyPair,
    host: &KeyPair,
) -> Result<Vec<SeedFile>, SeedError> {
    let mut files = files(id, config, nics, user, host)?;
    files.extend(network_config(nics)?.map(|text| ("network-config", text.into_bytes())));
    Ok(files)
}

/// Whether both sets of cards are told to a guest in the same words.
pub fn same_network(one: &[Nic], other: &[Nic]) -> Result<bool, SeedError> {
    Ok(network_config(one)? == network_config(other)?)
}

type SeedFile = (&'static str, Vec<u8>);

/// The files of the seed, in the order in which they are written.
fn files(
    id: InstanceId,
    config: &CloudInitConfig,
    nics: &[Nic],
    user: &KeyPair,
    host: &KeyPair,
) -> Result<Vec<SeedFile>, SeedError> {
    check("host name", &config.hostname)?;
    check("user", &config.user)?;
    for key in &config.authorized_keys {
        check("authorized key", key)?;
    }
    for user in &config.more.users {
        check_user(user)?;
    }
    let meta = MetaData { instance_id: id.to_string(), local_hostname: &config.hostname };
    let meta = yaml("meta-data", &meta)?.into_bytes();
    for package in &config.more.packages {
        check("package", package)?;
    }
    for file in &config.more.files {
        check("file", &file.path)?;
    }
    let ours = cloud_config(config, nics, user, host)?.into_bytes();
    Ok(match &config.user_data {
        Some(text) if config.more.merges => {
            vec![("meta-data", meta), ("user-data", multipart::joined(text.expose().as_bytes(), &ours))]
        }
        None => vec![("meta-data", meta), ("user-data", ours)],
        Some(text) => {
            vec![("meta-data", meta), ("user-data", text.expose().into()), ("vendor-data", ours)]
        }
    })
}

fn check_user(user: &SeedUser) -> Result<(), SeedError> {
    check("user", &user.name)?;
    user.authorized_keys.iter().try_for_each(|key| check("authorized key", key))?;
    user.groups.iter().try_for_each(|group| check("group", group))?;
    user.shell.iter().try_for_each(|shell| check("shell", shell))?;
    match &user.sudo {
        Some(Sudo::Rule(rule)) => check("sudo rule", rule),
        Some(Sudo::Nothing) | None => Ok(()),
    }
}

/// Control characters never are part of a name or key; they would act on whoever prints them.
fn check(field: &'static str, text: &str) -> Result<(), SeedError> {
    if text.is_empty() {
        return Err(SeedError::Field { field, problem: "is empty" });
    }
    if text.chars().any(char::is_control) {
        return Err(SeedError::Field { field, problem: "contains control characters" });
    }
    Ok(())
}

fn yaml(file: &'static str, content: &impl Serialize) -> Result<String, SeedError> {
    let options = serde_saphyr::ser_options! { quote_all: true };
    serde_saphyr::to_string_with_options(content, options)
        .map_err(|error| SeedError::Serialise { file, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Cursor, Read};

    use fatfs::{FileSystem, FsOptions};
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde::de::IgnoredAny;

    use super::*;
    use crate::keys::generate;
    use crate::spec::{Secret, SeedContent, SeedFile as File, SeedText};

    const ID: InstanceId = InstanceId(uuid::Uuid::from_u128(0x1234));

    fn config(hostname: &str, user: &str, keys: &[&str]) -> CloudInitConfig {
        CloudInitConfig {
            hostname: hostname.to_owned(),
            user: user.to_owned(),
            authorized_keys: keys.iter().map(ToString::to_string).collect(),
            user_data: None,
            more: SeedContent::default(),
        }
    }

    fn read(volume: &[u8]) -> BTreeMap<String, String> {
        let mut disk = Cursor::new(volume.to_vec());
        let volume = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "CIDATA");
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
        let entries = volume.root_dir().iter().map(Result::unwrap);
        entries
            .map(|entry| {
                let mut text = String::new();
                entry.to_file().read_to_string(&mut text).unwrap();
                (entry.file_name(), text)
            })
            .collect()
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct ReadConfig {
        hostname: String,
        users: Vec<ReadUser>,
        ssh_keys: BTreeMap<String, String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct ReadUser {
        name: String,
        shell: String,
        sudo: String,
        ssh_authorized_keys: Vec<String>,
    }

    const TOP_LEVEL: [&str; 7] =
        ["disable_root", "hostname", "preserve_hostname", "ssh_keys", "ssh_pwauth", "updates", "users"];

    #[test]
    fn volume_carries_both_files_under_their_names() {
        let (user, host) = (generate("vm@web"), generate("web"));
        let files = read(&volume(ID, &config("web", "vm", &[]), &[], &user, &host).unwrap());
        assert_eq!(files.keys().collect::<Vec<_>>(), ["meta-data", "user-data"]);
        let meta: BTreeMap<String, String> = serde_saphyr::from_str(&files["meta-data"]).unwrap();
        assert_eq!(meta["instance-id"], ID.to_string());
        assert_eq!(meta["local-hostname"], "web");
        assert!(files["user-data"].starts_with("#cloud-config\n"));
        let read: ReadConfig = serde_saphyr::from_str(&files["user-data"]).unwrap();
        assert_eq!(read.users[0].ssh_authorized_keys, [user.public]);
        assert_eq!(read.users[0].sudo, "ALL=(ALL) NOPASSWD:ALL");
        assert_eq!(read.ssh_keys["ed25519_private"], host.private.expose());
        assert_eq!(read.ssh_keys["ed25519_public"], host.public);
    }

    #[test]
    fn same_input_gives_same_bytes_and_other_input_another_volume_id() {
        let (user, host) = (generate("u"), generate("h"));
        let make = |hostname| volume(ID, &config(hostname, "vm", &[]), &[], &user, &host).unwrap();
        assert_eq!(make("web"), make("web"));
        // The volume id is at offset 39 of a FAT12 or FAT16 boot sector.
        assert_ne!(make("web")[39..43], make("db")[39..43]);
    }

    #[test]
    fn own_user_data_is_passed_byte_for_byte_and_ours_becomes_vendor_data() {
        let (user, host) = (generate("u"), generate("h"));
        let text = "#!/bin/sh\necho 'half a line: [', \ttab\r\n\u{fffd}";
        let config =
            CloudInitConfig { user_data: Some(Secret::new(text)), ..config("web", "vm", &["ssh-x y"]) };
        let files = read(&volume(ID, &config, &[], &user, &host).unwrap());
        assert_eq!(files.keys().collect::<Vec<_>>(), ["meta-data", "user-data", "vendor-data"]);
        assert_eq!(files["user-data"], text);
        let read: ReadConfig = serde_saphyr::from_str(&files["vendor-data"]).unwrap();
        assert_eq!(read.users[0].ssh_authorized_keys, [user.public, "ssh-x y".to_owned()]);
    }

    #[test]
    fn volume_grows_with_its_content() {
        let (user, host) = (generate("u"), generate("h"));
        let small = volume(ID, &config("web", "vm", &[]), &[], &user, &host).unwrap();
        assert_eq!(small.len(), MIN_VOLUME);
        let smaller = small_volume(ID, &config("web", "vm", &[]), &[], &user, &host).unwrap();
        assert_eq!((smaller.len(), read(&smaller)), (128 << 10, read(&small)));
        for size in [900 << 10, 5 << 20, 40 << 20] {
            let text = "x".repeat(size);
            let config = CloudInitConfig { user_data: Some(Secret::new(text)), ..config("web", "vm", &[]) };
            let files = read(&volume(ID, &config, &[], &user, &host).unwrap());
            assert_eq!(files["user-data"].len(), size);
        }
    }

    #[test]
    fn control_characters_and_empty_names_are_refused_by_field() {
        let (user, host) = (generate("u"), generate("h"));
        let refused = |config| volume(ID, &config, &[], &user, &host).unwrap_err().to_string();
        let control = "contains control characters";
        assert_eq!(refused(config("web\nruncmd:", "vm", &[])), format!("the seed's host name {control}"));
        assert_eq!(refused(config("web", "vm\0", &[])), format!("the seed's user {control}"));
        assert_eq!(refused(config("web", "vm\u{9b}2J", &[])), format!("the seed's user {control}"));
        assert_eq!(refused(config("web", "vm", &["a\nb"])), format!("the seed's authorized key {control}"));
        assert_eq!(refused(config("", "vm", &[])), "the seed's host name is empty");
    }

    #[test]
    fn words_that_yaml_takes_for_something_else_stay_strings() {
        let (user, host) = (generate("u"), generate("h"));
        let words = [
            "yes",
            "on",
            "null",
            "~",
            "123",
            "1e3",
            "0x1f",
            "12:30:45",
            "2020-01-01",
            " lead",
            "trail ",
            "a: b",
            "a #b",
            "#",
            "- x",
            "[x",
            "{x: y}",
            "&a",
            "*a",
            "!!int",
            "|",
            ">",
            "'",
            "\"",
            "\\n",
            "%YAML",
            "@",
            "`",
            "---",
            "...",
            "<<",
            "ü€😀",
            "\u{2028}",
            "\u{feff}",
            "${x}",
            "key:",
        ];
        for word in words {
            let text = cloud_config(&config(word, word, &[word]), &[], &user, &host).unwrap();
            let read: ReadConfig = serde_saphyr::from_str(&text).unwrap();
            assert_eq!((read.hostname.as_str(), read.users[0].name.as_str()), (word, word));
            assert_eq!(read.users[0].ssh_authorized_keys[1], word);
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct ReadMore {
        packages: Vec<String>,
        write_files: Vec<BTreeMap<String, String>>,
        runcmd: Vec<String>,
    }

    #[test]
    fn own_user_data_and_ours_are_two_parts_that_come_back_as_they_were() {
        let (user, host) = (generate("u"), generate("h"));
        let text = "#cloud-config\nusers: [default]\r\n\u{fffd} --=";
        let more = SeedContent { merges: true, packages: vec!["git".to_owned()], ..SeedContent::default() };
        let config = CloudInitConfig { user_data: Some(Secret::new(text)), more, ..config("web", "vm", &[]) };
        let files = read(&volume(ID, &config, &[], &user, &host).unwrap());
        assert_eq!(files.keys().collect::<Vec<_>>(), ["meta-data", "user-data"]);
        let parts = multipart::tests::parts(&files["user-data"]);
        assert_eq!(parts[0], ("text/plain".to_owned(), text.to_owned()));
        assert_eq!(parts[1].0, "text/cloud-config");
        let all: BTreeMap<String, serde_json::Value> = serde_saphyr::from_str(&parts[1].1).unwrap();
        // What the user's own part says of the host stands.
        assert_eq!(all.keys().collect::<Vec<_>>(), ["merge_how", "packages", "ssh_keys", "updates", "users"]);
        assert_eq!(all["users"][0], "default");
        assert_eq!(all["users"][1]["ssh_authorized_keys"][0], user.public);
    }

    #[test]
    fn users_keep_their_order_and_only_the_one_that_logs_in_has_rights_by_itself() {
        let (user, host) = (generate("u"), generate("h"));
        let listed = |name: &str| SeedUser {
            name: name.to_owned(),
            authorized_keys: vec![format!("ssh-x {name}")],
            groups: vec!["adm".to_owned(), "docker".to_owned()],
            sudo: None,
            shell: None,
        };
        let text = |login: &str, users: Vec<SeedUser>| {
            let more = SeedContent { users, ..SeedContent::default() };
            let config = CloudInitConfig { more, ..config("web", login, &["ssh-x top"]) };
            cloud_config(&config, &[], &user, &host).unwrap()
        };
        let all = |text: &str| {
            let all: BTreeMap<String, serde_json::Value> = serde_saphyr::from_str(text).unwrap();
            all["users"].clone()
        };
        let second = SeedUser {
            sudo: Some(Sudo::Rule("ALL=(app) ALL".to_owned())),
            shell: Some("/bin/sh".to_owned()),
            ..listed("b")
        };
        let users = all(&text("c", vec![listed("a"), second, listed("c")]));
        assert_eq!(
            users,
            serde_json::json!([
                {"name": "a", "groups": "adm,docker", "shell": "/bin/bash", "lock_passwd": true, "ssh_authorized_keys": ["ssh-x a"]},
                {"name": "b", "groups": "adm,docker", "shell": "/bin/sh", "sudo": "ALL=(app) ALL", "lock_passwd": true,
                 "ssh_authorized_keys": ["ssh-x b"]},
                {"name": "c", "groups": "adm,docker", "shell": "/bin/bash", "sudo": Sudo::EVERYTHING, "lock_passwd": true,
                 "ssh_authorized_keys": [user.public, "ssh-x top", "ssh-x c"]},
            ])
        );
        // One that logs in and is not listed is made first; one may do without rights.
        let bare =
            SeedUser { sudo: Some(Sudo::Nothing), authorized_keys: vec![], groups: vec![], ..listed("a") };
        let users = all(&text("vm", vec![bare.clone()]));
        assert_eq!((&users[0]["name"], &users[0]["groups"]), (&"vm".into(), &"sudo".into()));
        assert_eq!(users[1], serde_json::json!({"name": "a", "shell": "/bin/bash", "lock_passwd": true}));
        assert_eq!(all(&text("a", vec![bare]))[0].get("sudo"), None);
        let odd = SeedContent {
            users: vec![SeedUser { shell: Some("/x\n".to_owned()), ..listed("a") }],
            ..SeedContent::default()
        };
        let refused =
            volume(ID, &CloudInitConfig { more: odd, ..config("web", "vm", &[]) }, &[], &user, &host);
        assert_eq!(refused.unwrap_err().to_string(), "the seed's shell contains control characters");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Three texts a case: more than ten thousand of them.
        #[test]
        fn hostile_contents_commands_and_packages_come_back_as_they_were(
            content in "(\\PC|[\n\t\r:#'\"{}\\[\\]&*!|>%@`-]|\nruncmd: ){0,24}",
            command in "(\\PC|[\n\t:#'\"$;|&-]){1,24}",
            package in "\\PC{1,12}",
        ) {
            static KEYS: std::sync::LazyLock<[KeyPair; 2]> =
                std::sync::LazyLock::new(|| [generate("u"), generate("h")]);
            let [user, host] = &*KEYS;
            let file = File {
                path: format!("/srv/{package}"),
                content: SeedText::new(&content),
                mode: Some(0o640),
                owner: Some("a:b".to_owned()),
            };
            let more = SeedContent {
                packages: vec![package.clone()],
                files: vec![file],
                commands: vec![SeedText::new(&command)],
                ..SeedContent::default()
            };
            let text = files(ID, &CloudInitConfig { more, ..config("web", "vm", &[]) }, &[], user, host).unwrap();
            let text = std::str::from_utf8(&text[1].1).unwrap();
            let all: BTreeMap<String, IgnoredAny> = serde_saphyr::from_str(text).unwrap();
            prop_assert_eq!(all.len(), TOP_LEVEL.len() + 3);
            let read: ReadMore = serde_saphyr::from_str(text).unwrap();
            prop_assert_eq!(&read.write_files[0]["content"], &content);
            prop_assert_eq!(&read.write_files[0]["path"], &format!("/srv/{package}"));
            prop_assert_eq!(&read.write_files[0]["permissions"], "0640");
            prop_assert_eq!(read.packages, [package]);
            prop_assert_eq!(read.runcmd, [command]);
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_was_and_adds_no_key(
            hostname in "\\PC+", name in "\\PC+", keys in proptest::collection::vec("\\PC+", 0..4)
        ) {
            let (user, host) = (generate("u"), generate("h"));
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let files = files(ID, &config(&hostname, &name, &keys), &[], &user, &host).unwrap();
            let texts: Vec<&str> = files.iter().map(|(_, text)| std::str::from_utf8(text).unwrap()).collect();
            let meta: BTreeMap<String, String> = serde_saphyr::from_str(texts[0]).unwrap();
            prop_assert_eq!(&meta["local-hostname"], &hostname);
            prop_assert_eq!(meta.len(), 2);
            let all: BTreeMap<String, IgnoredAny> = serde_saphyr::from_str(texts[1]).unwrap();
            prop_assert_eq!(all.keys().collect::<Vec<_>>(), TOP_LEVEL);
            let read: ReadConfig = serde_saphyr::from_str(texts[1]).unwrap();
            prop_assert_eq!(read.hostname, hostname);
            prop_assert_eq!(&read.users[0].name, &name);
            prop_assert_eq!(&read.users[0].ssh_authorized_keys[1..], keys.as_slice());
        }
    }
}
