//! VMFiles that are right, and what they ask for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use common::{FakeImages, identity};
use vmctl_planner::desired::{
    Check, Desired, DesiredImage, DesiredVm, Lifecycle, Move, Power, READY_TIMEOUT, TextFiles, Trigger,
    Until, ready_at_login,
};
use vmctl_planner::vmfile::{
    FILE_NAME, Given, LoadOptions, Loaded, Report, Severity, discover, load, project,
};
use vmctl_providers::provision::{ProvisionAction, ProvisionStep, Rerun, StepOptions};
use vmctl_providers::{
    CloudInitConfig, Digest, Forward, Name, NetworkConfig, Probe, Protocol, Readiness, Secret, SshConfig,
    keys,
};

/// A folder with a VMFile, and a home folder in it.
struct Site {
    folder: tempfile::TempDir,
    images: FakeImages,
}

impl Site {
    fn new(vmfile: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("shop").tempdir().unwrap();
        let site = Self { folder, images: FakeImages::default() };
        site.file("disk.img", "disk");
        site.file(FILE_NAME, vmfile);
        site
    }

    /// The folder, as resolved paths begin.
    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.folder.path()).unwrap().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn load(&self) -> Result<Loaded, Report> {
        let options = LoadOptions {
            project: None,
            home: Some(self.path("home")),
            images: &self.images,
            given: Given::default(),
        };
        load(&self.folder.path().join(FILE_NAME), &options)
    }

    fn desired(&self) -> Desired {
        self.load().unwrap().desired
    }

    fn vm(&self) -> DesiredVm {
        let vms = self.desired().vms;
        assert_eq!(vms.len(), 1);
        vms.into_values().next().unwrap()
    }

    fn codes(&self) -> Vec<&'static str> {
        self.load().unwrap_err().problems().iter().map(|problem| problem.code).collect()
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A machine with all defaults, in the folder of `site`.
fn default_vm(site: &Site, vm: &str) -> DesiredVm {
    DesiredVm {
        image: Some(DesiredImage::Local { source: site.path("disk.img"), identity: identity() }),
        ..DesiredVm::new(name(vm))
    }
}

fn shell(number: usize, label: &str, script: &str) -> ProvisionStep {
    ProvisionStep {
        number,
        label: label.to_owned(),
        action: ProvisionAction::Shell { script: script.to_owned() },
        options: Default::default(),
        digest: Digest::of(format!("shell\0{script}")),
        secrets: Default::default(),
    }
}

#[test]
fn a_machine_needs_only_a_name_and_an_image() {
    let site = Site::new("vm \"web\" { image \"disk.img\" }");
    assert_eq!(site.vm(), default_vm(&site, "web"));
}

#[test]
fn bare_words_and_a_byte_order_mark_are_kdl_too() {
    let site = Site::new("\u{feff}vm web { image disk.img; };\n");
    assert_eq!(site.vm(), default_vm(&site, "web"));
}

#[test]
fn everything_that_can_be_written_arrives() {
    let site = Site::new(
        r#"
        project "store"
        vm "db" { image "disk.img" }
        vm "cache" { image "disk.img"; state "suspended"; }
        vm "Web_1" {
            image "disk.img"
            vcpus 0x4
            memory 2_048
            disk 20
            network "user"
            backend "qemu"
            state "running"
            depends-on "db" "cache" until="ready"
            forward host=8080 guest=80
            forward guest=53 protocol="udp"
            ssh { user "deploy" }
            cloud-init { hostname "web.example.org" }
            provision { inline "true" }
            provision "shell" { script "setup.sh" }
            provision "file" { source "app.conf"; destination "/etc/app.conf" }
        }
        "#,
    );
    site.file("setup.sh", "echo ready\n");
    site.file("app.conf", "port = 80\n");
    fs::set_permissions(site.path("app.conf"), fs::Permissions::from_mode(0o640)).unwrap();
    let desired = site.desired();
    assert_eq!(desired.project, name("store"));
    let file_digest = format!("file\0{}\x00640\0/etc/app.conf", Digest::of("port = 80\n"));
    let expected = DesiredVm {
        vcpus: 4,
        memory_mib: 2048,
        disk_bytes: Some(20 << 30),
        forwards: vec![
            Forward {
                protocol: Protocol::Tcp,
                host_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                host_port: 8080,
                guest_port: 80,
            },
            Forward {
                protocol: Protocol::Udp,
                host_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                host_port: 0,
                guest_port: 53,
            },
        ],
        cloud_init: Some(CloudInitConfig {
            hostname: "web.example.org".to_owned(),
            user: "deploy".to_owned(),
            authorized_keys: vec![],
            user_data: None,
        }),
        ready: ready_at_login(Some(&SshConfig { user: "deploy".to_owned(), private_key: None })),
        ssh: Some(SshConfig { user: "deploy".to_owned(), private_key: None }),
        provision: vec![
            shell(1, "inline", "true"),
            shell(2, "setup.sh", "echo ready\n"),
            ProvisionStep {
                number: 3,
                label: "/etc/app.conf".to_owned(),
                action: ProvisionAction::File {
                    source: site.path("app.conf"),
                    destination: "/etc/app.conf".to_owned(),
                },
                options: StepOptions { rerun: Rerun::Safe, ..Default::default() },
                digest: Digest::of(file_digest),
                secrets: Default::default(),
            },
        ],
        depends_on: [(name("db"), Until::Ready), (name("cache"), Until::Ready)].into(),
        text_files: TextFiles { scripts: [(2, site.path("setup.sh"))].into(), ..TextFiles::default() },
        ..default_vm(&site, "Web_1")
    };
    assert_eq!(desired.vms[&name("Web_1")], expected);
    assert_eq!(desired.vms[&name("cache")].power, Power::Suspended);
    let inputs: Vec<_> = desired.inputs.iter().map(|input| input.path.clone()).collect();
    assert_eq!(inputs, [site.path(FILE_NAME), site.path("setup.sh"), site.path("app.conf")]);
    assert_eq!(desired.inputs[1].digest, Digest::of("echo ready\n"));
    assert_eq!(*site.images.asked.borrow(), [site.path("disk.img")], "one image is identified once");
}

#[test]
fn both_spellings_of_network_options_mean_the_same() {
    let tap = |bridge: &str| NetworkConfig::Tap { bridge: bridge.to_owned() };
    let vnic = NetworkConfig::Vnic { name: "vnic0".to_owned() };
    for (text, expected) in [
        (r#"network"#, NetworkConfig::User),
        (r#"network "user""#, NetworkConfig::User),
        (r#"network "tap""#, tap("br0")),
        (r#"network "tap" bridge="br-lan.7""#, tap("br-lan.7")),
        (r#"network "tap" { bridge "br-lan.7"; }"#, tap("br-lan.7")),
        (r#"network "vnic" name="vnic0""#, vnic.clone()),
        ("network \"vnic\" {\n  name \"vnic0\"\n}", vnic),
        (r#"network "none""#, NetworkConfig::None),
    ] {
        let site = Site::new(&format!("vm \"web\" {{\n image \"disk.img\"\n backend \"noop\"\n {text}\n}}"));
        assert_eq!(site.vm().networks, [expected], "{text}");
    }
}

#[test]
fn a_seed_and_a_login_follow_from_the_blocks_that_are_there() {
    let seed = |user: &str| CloudInitConfig {
        hostname: "web-1".to_owned(),
        user: user.to_owned(),
        authorized_keys: vec![],
        user_data: None,
    };
    let ssh = |user: &str| SshConfig { user: user.to_owned(), private_key: None };
    for (text, cloud_init, login) in [
        ("", None, None),
        ("ssh", Some(seed("vm")), Some(ssh("vm"))),
        ("ssh { }", Some(seed("vm")), Some(ssh("vm"))),
        ("ssh { user \"me\"; }", Some(seed("me")), Some(ssh("me"))),
        ("cloud-init", Some(seed("vm")), Some(ssh("vm"))),
        ("cloud-init { }", Some(seed("vm")), Some(ssh("vm"))),
        ("network \"none\"; cloud-init", Some(seed("vm")), None),
        (
            "cloud-init { user-data \"seed.yaml\"; }",
            Some(CloudInitConfig { user_data: Some(Secret::new("#cloud-config\n")), ..seed("vm") }),
            None,
        ),
    ] {
        let site = Site::new(&format!("vm \"Web_1\" {{\n image \"disk.img\"\n {text}\n}}"));
        site.file("seed.yaml", "#cloud-config\n");
        let vm = site.vm();
        assert_eq!((vm.cloud_init, vm.ssh), (cloud_init, login), "{text}");
    }
}

#[test]
fn a_lifecycle_says_what_may_become_of_a_machine() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let field = |name: &str| Trigger::Field(name.to_owned());
    for (text, expected) in [
        ("lifecycle", Lifecycle::default()),
        ("lifecycle { }", Lifecycle::default()),
        ("lifecycle { prevent-destroy; }", Lifecycle { prevent_destroy: true, ..Lifecycle::default() }),
        ("lifecycle { prevent-destroy #true; }", Lifecycle { prevent_destroy: true, ..Lifecycle::default() }),
        ("lifecycle { prevent-destroy #false; }", Lifecycle::default()),
        (
            "lifecycle { ignore-changes memory cloud-init.user; ignore-changes \"provision\"; }",
            Lifecycle {
                ignore_changes: words(&["memory", "cloud-init.user", "provision"]),
                ..Lifecycle::default()
            },
        ),
        (
            "lifecycle { ignore-changes all; }",
            Lifecycle { ignore_changes: words(&["all"]), ..Lifecycle::default() },
        ),
        (
            "lifecycle { replace-when provision \"vm.db\"; replace-when all cloud-init; }",
            Lifecycle {
                replace_when: [
                    field("provision"),
                    Trigger::Machine(name("db")),
                    field("all"),
                    field("cloud-init"),
                ]
                .into(),
                ..Lifecycle::default()
            },
        ),
    ] {
        let site = Site::new(&format!(
            "vm \"web\" {{\n image \"disk.img\"\n {text}\n}}\nvm \"db\" {{ image \"disk.img\"; }}"
        ));
        let loaded = site.load().unwrap();
        assert_eq!(loaded.desired.vms[&name("web")].lifecycle, expected, "{text}");
        assert_eq!(loaded.desired.vms[&name("db")].lifecycle, Lifecycle::default());
        assert_eq!(loaded.warnings, [], "{text}");
    }
}

#[test]
fn every_field_name_is_taken_by_both_lists() {
    for field in vmctl_planner::fields::names() {
        for list in ["ignore-changes", "replace-when"] {
            let site = Site::new(&format!(
                "vm \"web\" {{ image \"disk.img\"; lifecycle {{ {list} \"{field}\"; }}; }}"
            ));
            assert_eq!(site.load().map(|loaded| loaded.warnings), Ok(vec![]), "{list} {field}");
        }
    }
}

#[test]
fn fields_that_are_passed_over_and_replace_the_machine_are_warned_about() {
    for (ignored, trigger, contradicts) in [
        ("memory", "memory", true),
        ("all", "disk", true),
        ("all", "all", true),
        ("cloud-init", "cloud-init.user", true),
        ("cloud-init.user", "cloud-init", false),
        ("memory", "all", false),
        ("memory", "disk", false),
        ("all", "vm.db", false),
    ] {
        let site = Site::new(&format!(
            "vm \"web\" {{\n image \"disk.img\"\n lifecycle {{\n ignore-changes \"{ignored}\"\n replace-when \"{trigger}\"\n }}\n}}\nvm \"db\" {{ image \"disk.img\"; }}"
        ));
        let warnings = site.load().unwrap().warnings;
        let codes: Vec<_> = warnings.iter().map(|warning| (warning.severity, warning.code)).collect();
        let expected: &[_] = if contradicts { &[(Severity::Warning, "vmfile::contradiction")] } else { &[] };
        assert_eq!(codes, expected, "{ignored} {trigger}");
    }
}

#[test]
fn readiness_is_a_login_first_and_then_what_is_written_in_its_order() {
    let exec = |text: &str| Probe::Exec(text.to_owned());
    let log = |text: &str| Probe::Log(text.to_owned());
    let minutes = |count: u64| Duration::from_secs(60 * count);
    for (text, probes, timeout) in [
        ("", vec![], READY_TIMEOUT),
        ("ready", vec![], READY_TIMEOUT),
        ("ready { log \"login:\"; }", vec![log("login:")], READY_TIMEOUT),
        ("ssh", vec![Probe::Login], READY_TIMEOUT),
        ("ssh; ready { }", vec![Probe::Login], READY_TIMEOUT),
        ("ssh; ready { ssh; }", vec![Probe::Login], READY_TIMEOUT),
        ("cloud-init; ready { tcp 65535; }", vec![Probe::Login, Probe::Tcp(65_535)], READY_TIMEOUT),
        (
            "ssh; ready { log #\"^ready \\(\\d+\\)$\"#; tcp 5432; exec pg_isready; ssh; tcp 1; timeout \"2m\"; }",
            vec![Probe::Login, log(r"^ready \(\d+\)$"), Probe::Tcp(5432), exec("pg_isready"), Probe::Tcp(1)],
            minutes(2),
        ),
        ("ssh; ready { timeout \"1s\"; }", vec![Probe::Login], Duration::from_secs(1)),
        ("ssh; ready { timeout \"24h\"; }", vec![Probe::Login], minutes(24 * 60)),
        ("ssh; ready { timeout \"1h 30m\"; }", vec![Probe::Login], minutes(90)),
        ("ssh; ready { timeout \"1500ms\"; }", vec![Probe::Login], Duration::from_millis(1500)),
        ("network none; cloud-init; ready { log up; }", vec![log("up")], READY_TIMEOUT),
    ] {
        let site = Site::new(&format!("vm \"web\" {{\n image \"disk.img\"\n {text}\n}}"));
        assert_eq!(site.vm().ready, Readiness { probes, timeout }, "{text}");
        assert_eq!(site.load().unwrap().warnings, [], "{text}");
    }
}

#[test]
fn a_timeout_that_nothing_waits_for_is_warned_about() {
    let site = Site::new("vm \"web\" { image \"disk.img\"; ready { timeout \"2m\"; }; }");
    let loaded = site.load().unwrap();
    assert_eq!(loaded.desired.vms[&name("web")].ready.probes, []);
    let codes: Vec<_> = loaded.warnings.iter().map(|warning| (warning.severity, warning.code)).collect();
    assert_eq!(codes, [(Severity::Warning, "vmfile::unused")]);
}

#[test]
fn checks_arrive_in_their_order_and_names_are_free_text() {
    let site = Site::new(
        r#"
        vm "web" {
            image "disk.img"
            ssh
            check "zzz answers on port 80" { exec "curl -fsS localhost"; tcp 80; }
            check "Läuft" { log "up"; }
        }
        vm "db" { image "disk.img"; check "Läuft" { log "up"; }; }
        "#,
    );
    let check = |name: &str, probes: &[Probe]| Check { name: name.to_owned(), probes: probes.to_vec() };
    let running = check("Läuft", &[Probe::Log("up".to_owned())]);
    let answers =
        check("zzz answers on port 80", &[Probe::Exec("curl -fsS localhost".to_owned()), Probe::Tcp(80)]);
    let vms = site.desired().vms;
    assert_eq!(vms[&name("web")].checks, [answers, running.clone()]);
    assert_eq!(vms[&name("db")].checks, [running]);
}

#[test]
fn machines_are_renamed_and_let_go_of() {
    let site = Site::new(
        r#"
        moved from="b" to="c"
        removed "old"
        vm "c" { image "disk.img"; }
        moved from="a" to="b"
        removed "cache"
        "#,
    );
    let rename = |from: &str, to: &str| Move { from: name(from), to: name(to) };
    let loaded = site.load().unwrap();
    assert_eq!(loaded.desired.moved, [rename("b", "c"), rename("a", "b")]);
    assert_eq!(loaded.desired.removed, [name("cache"), name("old")].into());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_file_that_only_lets_go_of_machines_describes_none() {
    let site = Site::new("project \"store\"\nremoved \"web\"");
    let desired = site.desired();
    assert!(desired.vms.is_empty());
    assert_eq!(desired.removed, [name("web")].into());
    assert_eq!(project(&site.path(FILE_NAME)).unwrap(), name("store"));
}

#[test]
fn a_name_that_looks_like_an_address_is_warned_about() {
    let site = Site::new(
        "vm \"web\" { image \"disk.img\"; }\nremoved \"vm.old\"\nmoved from=\"vm.www\" to=\"web\"\nremoved \"vm\"",
    );
    let warnings = site.load().unwrap().warnings;
    let told: Vec<_> =
        warnings.iter().map(|warning| (warning.code, warning.place.as_ref().unwrap().line)).collect();
    assert_eq!(told, [("vmfile::bad-name", 2), ("vmfile::bad-name", 3)]);
}

#[test]
fn long_chains_of_renames_are_no_trouble_and_long_cycles_are_found() {
    const LENGTH: usize = 3_000;
    let chain = |last: usize| {
        let renames: String = (0..LENGTH)
            .map(|number| format!("moved from=\"vm{number}\" to=\"vm{}\"\n", (number + 1) % last))
            .collect();
        format!("vm \"vm{LENGTH}\" {{ image \"disk.img\"; }}\n{renames}")
    };
    assert_eq!(Site::new(&chain(LENGTH + 1)).desired().moved.len(), LENGTH);
    let report = Site::new(&chain(LENGTH)).load().unwrap_err();
    assert_eq!(report.problems().len(), 1);
    assert_eq!(report.problems()[0].message.matches(" -> ").count(), LENGTH);
}

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
    site.file("home/.ssh/id_ecdsa", keys::generate("mine").private.expose());
    assert_eq!(site.vm().ssh.unwrap().private_key, Some(site.path("home/.ssh/id_ecdsa")));
    site.file("home/.ssh/id_ed25519", keys::generate("mine").private.expose());
    assert_eq!(site.vm().ssh.unwrap().private_key, Some(site.path("home/.ssh/id_ed25519")));
}

#[test]
fn paths_and_file_urls_lead_to_the_same_image() {
    let site = Site::new("");
    site.file("home/my disk.img", "disk");
    let (absolute, url) = (site.path("home/my disk.img"), site.path("home/my%20disk.img"));
    for image in [
        "image \"home/my disk.img\"".to_owned(),
        "image \"./home/../home/my disk.img\"".to_owned(),
        "image \"~/my disk.img\"".to_owned(),
        format!("image {absolute:?}"),
        format!("image-url \"file://{}\"", url.display()),
        format!("image-url \"FILE://localhost{}\"", url.display()),
    ] {
        site.file(FILE_NAME, &format!("vm \"web\" {{ {image}; }}"));
        let source = PathBuf::from(site.vm().image.unwrap().source());
        assert_eq!(fs::canonicalize(source).unwrap(), absolute, "{image}");
    }
}

#[test]
fn text_of_several_lines_loses_its_indentation() {
    let site = Site::new(
        "vm \"web\" {\n  image \"disk.img\"\n  ssh\n  provision {\n    inline \"\"\"\n      if true; then\n        echo \"{ $HOME\"\n      fi\n      \"\"\"\n  }\n}\n",
    );
    assert_eq!(site.vm().provision, [shell(1, "inline", "if true; then\n  echo \"{ $HOME\"\nfi")]);
}

#[test]
fn what_a_step_does_decides_its_digest() {
    let digest_of = |step: &str, mode: u32| {
        let site = Site::new(&format!("vm \"web\" {{\n image \"disk.img\"\n ssh\n {step}\n}}"));
        site.file("a", "true");
        fs::set_permissions(site.path("a"), fs::Permissions::from_mode(mode)).unwrap();
        site.vm().provision[0].digest.clone()
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
fn the_project_is_named_by_option_then_node_then_folder() {
    let site = Site::new("vm \"web\" { image \"disk.img\"; }");
    let folder = site.path("").file_name().unwrap().to_str().unwrap().trim_matches('.').to_owned();
    assert_eq!(site.desired().project.as_str(), folder);
    site.file(FILE_NAME, "project \"store\"\nvm \"web\" { image \"disk.img\"; }");
    assert_eq!(site.desired().project.as_str(), "store");
    let options = LoadOptions {
        project: Some(name("pr-123")),
        home: None,
        images: &site.images,
        given: Given::default(),
    };
    let loaded = load(&site.path(FILE_NAME), &options).unwrap();
    assert_eq!(loaded.desired.project.as_str(), "pr-123");
}

#[test]
fn the_project_is_known_even_where_the_rest_cannot_be_resolved() {
    let site = Site::new("project \"store\"\nvm \"web\" { image \"nowhere.img\"; vcpus 0; }");
    assert_eq!(project(&site.path(FILE_NAME)).unwrap(), name("store"));
    site.file("box/VMFile.kdl", "");
    assert_eq!(project(&site.path("box/VMFile.kdl")).unwrap(), name("box"));
    site.file("box/VMFile.kdl", "project \"a/b\"");
    assert!(project(&site.path("box/VMFile.kdl")).is_err());
}

#[test]
fn a_project_is_asked_for_where_the_folder_cannot_name_one() {
    let site = Site::new("");
    site.file("家/VMFile.kdl", "vm \"web\" { image \"../disk.img\"; }");
    let options = LoadOptions { project: None, home: None, images: &site.images, given: Given::default() };
    let report = load(&site.path("家/VMFile.kdl"), &options).unwrap_err();
    assert_eq!(report.problems().len(), 1);
    assert_eq!(report.problems()[0].code, "vmfile::bad-name");
}

#[test]
fn a_forward_to_the_network_is_allowed_with_a_warning() {
    let site = Site::new("vm \"web\" {\n image \"disk.img\"\n forward guest=80 address=\"0.0.0.0\"\n}");
    let loaded = site.load().unwrap();
    assert_eq!(loaded.desired.vms[&name("web")].forwards[0].host_address, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let warnings: Vec<_> = loaded.warnings.iter().map(|warning| (warning.severity, warning.code)).collect();
    assert_eq!(warnings, [(Severity::Warning, "vmfile::exposed")]);
    assert_eq!(loaded.warnings[0].place.as_ref().unwrap().line, 3);
}

#[test]
fn forwards_collide_only_on_one_address_and_protocol() {
    let text = |first: &str, second: &str| {
        format!(
            "vm \"a\" {{\n image \"disk.img\"\n {first}\n}}\nvm \"b\" {{\n image \"disk.img\"\n {second}\n}}"
        )
    };
    let tcp = "forward host=53 guest=53";
    for second in [
        "forward host=53 guest=53 protocol=\"udp\"",
        "forward host=54 guest=53",
        "forward host=53 guest=53 address=\"127.0.0.2\"",
    ] {
        assert!(Site::new(&text(tcp, second)).load().is_ok(), "{second}");
    }
    assert!(Site::new(&text("forward guest=53", "forward host=0 guest=53")).load().is_ok());
    assert_eq!(Site::new(&text(tcp, tcp)).codes(), ["vmfile::duplicate"]);
}

#[test]
fn long_chains_of_dependencies_are_no_trouble_and_long_cycles_are_found() {
    const LENGTH: usize = 3_000;
    let chain = |first: &str| {
        let mut text = format!("vm \"vm0\" {{\n image \"disk.img\"\n {first}\n}}\n");
        for number in 1..LENGTH {
            let before = number - 1;
            text += &format!("vm \"vm{number}\" {{\n image \"disk.img\"\n depends-on \"vm{before}\"\n}}\n");
        }
        text
    };
    assert_eq!(Site::new(&chain("")).desired().vms.len(), LENGTH);
    let report = Site::new(&chain(&format!("depends-on \"vm{}\"", LENGTH - 1))).load().unwrap_err();
    assert_eq!(report.problems().len(), 1);
    assert_eq!(report.problems()[0].message.matches(" -> ").count(), LENGTH);
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let site = Site::new("vm \"web\" { image \"disk.img\"; ssh; provision { script \"s\"; }; }");
    assert_eq!(site.codes(), ["vmfile::file"]);
    fs::write(site.path("s"), [b'a', 0xff]).unwrap();
    assert!(site.load().unwrap_err().problems()[0].message.contains("not UTF-8 text (byte 1)"));
    fs::write(site.path("s"), vec![b'a'; (1 << 20) + 1]).unwrap();
    assert!(site.load().unwrap_err().problems()[0].message.contains("1048577 bytes, at most 1048576"));
    fs::remove_file(site.path("s")).unwrap();
    make_special(&site.path("s"));
    assert!(site.load().unwrap_err().problems()[0].message.contains("not a regular file"));
}

/// A socket stands for all special files: it can be made without a helper and must not be opened.
fn make_special(path: &std::path::Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
}

#[test]
fn home_paths_need_a_home() {
    let site = Site::new("vm \"web\" { image \"~/disk.img\"; }");
    let options = LoadOptions { project: None, home: None, images: &site.images, given: Given::default() };
    let report = load(&site.path(FILE_NAME), &options).unwrap_err();
    assert!(report.problems()[0].message.contains("`~` stands for the home folder"), "{report:?}");
}

#[test]
fn a_vmfile_that_cannot_be_read_is_a_report_too() {
    let site = Site::new("");
    let told = |path: PathBuf| {
        let options =
            LoadOptions { project: None, home: None, images: &site.images, given: Given::default() };
        let report = load(&path, &options).unwrap_err();
        let problem = &report.problems()[0];
        let help = problem.help.clone().unwrap();
        (problem.code, problem.message.replace(site.path("").to_str().unwrap(), "/"), help)
    };
    let (code, message, help) = told(site.path("nowhere.kdl"));
    assert_eq!((code, message.as_str()), ("vmfile::unreadable", "cannot read `/nowhere.kdl`: no such file"));
    assert!(help.starts_with("vmctl looks for VMFile.kdl here and in each parent folder"));
    let (code, message, _) = told(site.path("home/.."));
    assert_eq!((code, message.as_str()), ("vmfile::unreadable", "cannot read `/home/..`: no such file"));
    fs::create_dir(site.path("home")).unwrap();
    let (_, message, _) = told(site.path("home"));
    assert_eq!(message, "cannot read `/home`: it is a folder");
    fs::write(site.path("latin1.kdl"), b"vm \"b\xfcro\" {\n}").unwrap();
    let (code, _, help) = told(site.path("latin1.kdl"));
    assert_eq!((code, help.as_str()), ("vmfile::not-text", "save it as UTF-8"));
    fs::write(site.path("utf16.kdl"), b"\xff\xfev\0m\0").unwrap();
    assert!(told(site.path("utf16.kdl")).2.contains("UTF-16"));
}

#[test]
fn the_nearest_vmfile_upwards_is_found() {
    let site = Site::new("");
    fs::create_dir_all(site.path("a/b")).unwrap();
    assert_eq!(discover(&site.path("a/b")), Some(site.path(FILE_NAME)));
    site.file("a/VMFile.kdl", "");
    assert_eq!(discover(&site.path("a/b")), Some(site.path("a/VMFile.kdl")));
}
