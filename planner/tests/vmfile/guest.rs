//! What gets into the guest: keys, user-data and provisioning steps.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use vmctl_providers::provision::Rerun;
use vmctl_providers::{SshConfig, Sudo, keys};

use super::site::Site;
use super::{layered, name, shell};

#[test]
fn keys_are_checked_and_authorised() {
    let (mine, other) = (keys::generate("mine"), keys::generate("other"));
    let site = Site::new(
        r#"
        vm "own" { image "disk.img"; ssh { private-key "~/.ssh/key"; }; }
        vm "both" {
            image "disk.img"
            cloud-init { ssh-key "other.pub"; }
            ssh { private-key "~/.ssh/key"; }
        }
        "#,
    );
    site.file("home/.ssh/key", mine.private.expose());
    site.file("other.pub", &format!("# a comment\n\n{}\n", other.public));
    let vms = site.desired().vms;
    let (own, both) = (&vms[&name("own")], &vms[&name("both")]);
    let login = SshConfig { user: "vm".to_owned(), private_key: Some(site.path("home/.ssh/key")) };
    assert_eq!((&own.cloud_init, &own.ssh), (&None, &Some(login.clone())));
    let authorized = &both.cloud_init.as_ref().unwrap().authorized_keys;
    assert_eq!(*authorized, [other.public, mine.public]);
    assert_eq!(both.ssh, Some(login));
}

#[test]
fn a_private_key_never_reaches_the_seed() {
    let site = Site::new("vm \"web\" {\n image \"disk.img\"\n cloud-init { ssh-key \"key\"; }\n}");
    site.file("key", keys::generate("mine").private.expose());
    let report = site.load().unwrap_err();
    assert_eq!(report.problems()[0].code, "vmfile::key");
    assert!(!format!("{report:?}").contains("PRIVATE KEY-----"), "no key material in the report");
}

#[test]
fn own_user_data_is_entered_with_a_key_of_the_home_folder() {
    let text = "vm \"web\" {\n image \"disk.img\"\n cloud-init { user-data \"seed.yaml\"; }\n ssh\n provision { inline \"true\"; }\n}";
    let site = Site::new(text);
    site.file("seed.yaml", "#cloud-config\n");
    assert_eq!(site.codes(), ["vmfile::ssh"]);
    // One behind a passphrase comes last, whatever its name.
    let sealed = include_str!("sealed_key");
    site.file("home/.ssh/id_ed25519", sealed);
    assert_eq!(site.only().ssh.unwrap().private_key, Some(site.path("home/.ssh/id_ed25519")));
    site.file("home/.ssh/id_ecdsa", keys::generate("mine").private.expose());
    assert_eq!(site.only().ssh.unwrap().private_key, Some(site.path("home/.ssh/id_ecdsa")));
    site.file("home/.ssh/id_ed25519", keys::generate("mine").private.expose());
    assert_eq!(site.only().ssh.unwrap().private_key, Some(site.path("home/.ssh/id_ed25519")));
}

#[test]
fn text_of_several_lines_loses_its_indentation() {
    let site = Site::new(
        "vm \"web\" {\n  image \"disk.img\"\n  ssh\n  provision {\n    inline \"\"\"\n      if true; then\n        echo \"{ $HOME\"\n      fi\n      \"\"\"\n  }\n}\n",
    );
    assert_eq!(site.only().provision, [shell(1, "inline", "if true; then\n  echo \"{ $HOME\"\nfi")]);
}

#[test]
fn what_a_step_does_decides_its_digest() {
    let digest_of = |step: &str, mode: u32| {
        let site = Site::new(&format!("vm \"web\" {{\n image \"disk.img\"\n ssh\n {step}\n}}"));
        site.file("a", "true");
        fs::set_permissions(site.path("a"), fs::Permissions::from_mode(mode)).unwrap();
        site.only().provision[0].digest.clone()
    };
    let to_x = digest_of("provision \"file\" { source \"a\"; destination \"/x\"; }", 0o644);
    let executable = digest_of("provision \"file\" { source \"a\"; destination \"/x\"; }", 0o755);
    let to_y = digest_of("provision \"file\" { source \"a\"; destination \"/y\"; }", 0o644);
    let script = digest_of("provision { script \"a\"; }", 0o644);
    let inline = digest_of("provision { inline \"true\"; }", 0o644);
    assert_eq!(script, inline, "the text runs, wherever it comes from");
    let all = [&to_x, &executable, &to_y, &script];
    for (index, one) in all.iter().enumerate() {
        assert!(all[..index].iter().all(|other| other != one));
    }
}

#[test]
fn a_script_may_run_again_only_if_it_says_so_and_a_file_may_anyway() {
    let steps = "ssh
        provision { inline \"a\" }
        provision { inline \"b\"; rerun \"safe\"; retries 3 }
        provision \"file\" { source \"disk.img\"; destination \"/x\"; retries 1 }
        provision \"file\" { source \"disk.img\"; destination \"/y\"; rerun \"ask\" }";
    let vm = layered("", "", "", steps);
    let said: Vec<_> = vm.provision.iter().map(|step| (step.options.rerun, step.options.retries)).collect();
    assert_eq!(said, [(Rerun::Ask, 0), (Rerun::Safe, 3), (Rerun::Safe, 1), (Rerun::Ask, 0)]);
    // To say so is no change of what the step does.
    let silent = layered("", "", "", "ssh; provision { inline \"a\" }; provision { inline \"b\" }");
    assert_eq!(vm.provision[1].digest, silent.provision[1].digest);
}

#[test]
fn retries_are_for_steps_that_are_safe_to_run_again() {
    for (options, code) in [
        ("retries 1", "vmfile::retries"),
        ("rerun \"ask\"; retries 1", "vmfile::retries"),
        ("rerun \"safe\"; retries 11", "vmfile::out-of-range"),
        ("rerun \"yes\"", "vmfile::bad-value"),
    ] {
        let site = Site::new(&format!(
            "vm \"web\" {{ image \"disk.img\"; ssh; provision {{ inline \"a\"; {options} }} }}"
        ));
        let codes: Vec<_> = site.load().unwrap_err().problems().iter().map(|problem| problem.code).collect();
        assert_eq!(codes, [code], "{options}");
    }
}

#[test]
fn seed_has_packages_files_and_commands_of_all_layers() {
    let site = Site::new(
        "defaults { cloud-init { packages \"git\"; run \"first\"; }; }
        vm \"a\" {
            image \"disk.img\"
            cloud-init {
                packages \"nginx\" \"curl\"
                write-file \"/etc/a\" { content \"x\\nruncmd: [y]\"; mode \"0600\"; owner \"www-data\"; }
                write-file \"/etc/b\" { source \"motd\"; }
                run \"second\"
            }
        }",
    );
    site.file("motd", "hello\n");
    let more = site.only().cloud_init.unwrap().more;
    assert_eq!(more.packages, ["git", "nginx", "curl"]);
    let commands: Vec<_> = more.commands.iter().map(|command| command.text.expose()).collect();
    assert_eq!(commands, ["first", "second"]);
    assert_eq!((more.files[0].content.text.expose(), more.files[0].mode), ("x\nruncmd: [y]", Some(0o600)));
    assert_eq!((&*more.files[1].path, more.files[1].content.text.expose()), ("/etc/b", "hello\n"));
    for (inside, code) in [
        ("write-file \"etc\" { content \"x\"; }", "vmfile::bad-value"),
        ("write-file \"/etc/x\"", "vmfile::missing"),
        ("write-file \"/etc/x\" { content \"x\"; source \"motd\"; }", "vmfile::contradiction"),
        ("user-data \"motd\"; run \"x\"", "vmfile::contradiction"),
        ("packages \"a\\nb\"", "vmfile::bad-value"),
    ] {
        let site = Site::new(&format!("vm \"a\" {{\n image \"disk.img\"\n cloud-init {{ {inside}; }}\n}}"));
        site.file("motd", "hello\n");
        assert_eq!(site.codes(), [code], "{inside}");
    }
}

#[test]
fn first_user_of_the_seed_logs_in_unless_ssh_names_another() {
    let text = |ssh: &str| {
        format!(
            "defaults {{ cloud-init {{ user \"base\" {{ sudo #true; }}; }}; }}
            vm \"a\" {{
                image \"disk.img\"
                cloud-init {{
                    user \"deploy\" {{ ssh-key \"one.pub\"; ssh-key \"two.pub\"; groups \"docker\" \"adm\"; shell \"/bin/sh\"; }}
                    user \"app\" {{ sudo \"ALL=(db) ALL\"; groups \"a\"; groups \"b\"; }}
                }}
                {ssh}
            }}"
        )
    };
    let (one, two) = (keys::generate("one"), keys::generate("two"));
    let vm = |ssh: &str| {
        let site = Site::new(&text(ssh));
        site.file("one.pub", &one.public);
        site.file("two.pub", &two.public);
        site.only()
    };
    for (ssh, user) in
        [("", "base"), ("ssh", "base"), ("ssh { user \"app\"; }", "app"), ("ssh { user \"vm\"; }", "vm")]
    {
        let vm = vm(ssh);
        let seed = vm.cloud_init.unwrap();
        assert_eq!((vm.ssh.unwrap().user.as_str(), seed.user.as_str()), (user, user), "{ssh}");
        let users: Vec<_> = seed.more.users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(users, ["base", "deploy", "app"]);
    }
    let users = vm("").cloud_init.unwrap().more.users;
    let rule = |rule: &str| Some(Sudo::Rule(rule.to_owned()));
    assert_eq!(users[0].sudo, rule(Sudo::EVERYTHING));
    assert_eq!(users[1].authorized_keys, [one.public.clone(), two.public.clone()]);
    assert_eq!(
        (users[1].groups.join(" "), users[1].shell.as_deref()),
        ("docker adm".to_owned(), Some("/bin/sh"))
    );
    assert_eq!((&users[2].sudo, users[2].groups.join(" ")), (&rule("ALL=(db) ALL"), "a b".to_owned()));

    for (inside, code) in [
        ("user \"Web\"", "vmfile::bad-name"),
        ("user", "vmfile::missing"),
        ("user \"a\"; user \"a\"", "vmfile::duplicate"),
        ("user \"a\" { groups \"no group\"; }", "vmfile::bad-name"),
        ("user \"a\" { shell \"bash\"; }", "vmfile::bad-value"),
        ("user \"a\" { sudo \"ALL\\nALL\"; }", "vmfile::bad-value"),
        ("user \"a\" { sudo 1; }", "vmfile::wrong-type"),
        ("user \"a\" { ssh-key \"key\"; }", "vmfile::key"),
        ("user \"a\" { password \"x\"; }", "vmfile::unknown-node"),
        ("user-data \"key\"; user \"a\"", "vmfile::contradiction"),
    ] {
        let site = Site::new(&format!("vm \"a\" {{\n image \"disk.img\"\n cloud-init {{ {inside}; }}\n}}"));
        site.file("key", "#cloud-config\n");
        assert_eq!(site.codes(), [code], "{inside}");
    }
}

#[test]
fn own_user_data_that_is_merged_is_entered_with_the_machines_own_key() {
    let text = "vm \"web\" {\n image \"disk.img\"\n cloud-init { user-data \"seed.yaml\" merge-keys=#true; run \"x\"; }\n provision { inline \"true\"; }\n}";
    let site = Site::new(text);
    site.file("seed.yaml", "#cloud-config\n");
    let vm = site.only();
    assert_eq!(vm.ssh, Some(SshConfig { user: "vm".to_owned(), private_key: None }));
    let seed = vm.cloud_init.unwrap();
    assert!(seed.more.merges && seed.user_data.is_some() && seed.more.commands.len() == 1);
}
