//! What one machine asks for.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use vmctl_planner::desired::{
    Check, DesiredImage, DesiredVm, Power, READY_TIMEOUT, TextFiles, Until, ready_at_login,
};
use vmctl_planner::pins::{Pin, PinnedBy};
use vmctl_planner::vmfile::{FILE_NAME, Severity};
use vmctl_providers::image::Upstream;
use vmctl_providers::provision::{ProvisionAction, ProvisionStep, Rerun, StepOptions};
use vmctl_providers::{
    CloudInitConfig, Digest, Forward, NetworkConfig, Probe, Protocol, Readiness, Secret, SshConfig,
};

use super::site::Site;
use super::{default_vm, name, shell};

#[test]
fn a_machine_needs_only_a_name_and_an_image() {
    let site = Site::new("vm \"web\" { image \"disk.img\" }");
    assert_eq!(site.only(), default_vm(&site, "web"));
}

#[test]
fn bare_words_and_a_byte_order_mark_are_kdl_too() {
    let site = Site::new("\u{feff}vm web { image disk.img; };\n");
    assert_eq!(site.only(), default_vm(&site, "web"));
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
            more: Default::default(),
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
        assert_eq!(site.only().networks, [expected], "{text}");
    }
}

#[test]
fn a_seed_and_a_login_follow_from_the_blocks_that_are_there() {
    let seed = |user: &str| CloudInitConfig {
        hostname: "web-1".to_owned(),
        user: user.to_owned(),
        authorized_keys: vec![],
        user_data: None,
        more: Default::default(),
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
        let vm = site.only();
        assert_eq!((vm.cloud_init, vm.ssh), (cloud_init, login), "{text}");
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
        assert_eq!(site.only().ready, Readiness { probes, timeout }, "{text}");
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
fn sizes_are_powers_of_1024() {
    for (written, mebibytes) in
        [("2048", 2048), ("\"2G\"", 2048), ("\"1.5 GiB\"", 1536), ("\"1024mb\"", 1024), ("\"65536k\"", 64)]
    {
        let site = Site::new(&format!("vm \"web\" {{ image \"disk.img\"; memory {written} }}"));
        assert_eq!(site.vm("web").memory_mib, mebibytes, "{written}");
    }
    let site = Site::new(
        "volume \"data\" size=10\nvolume \"log\" size=\"512M\"\nvm \"web\" { image \"disk.img\"; volume \"data\"; volume \"log\"; disk \"2.5G\" }",
    );
    let sizes: Vec<_> = site.desired().volumes.into_values().map(|volume| volume.size_bytes).collect();
    assert_eq!(sizes, [10 << 30, 512 << 20]);
    assert_eq!(site.vm("web").disk_bytes, Some(5 << 29));
}

#[test]
fn an_image_has_the_digest_that_is_asked_for() {
    let digest = Digest::of("disk").hex().to_owned();
    let site = Site::new(&format!(
        "image \"debian\" {{ path \"disk.img\"; sha256 \"{}\" }}
        vm \"a\" {{ image (ref)\"debian\" }}
        vm \"b\" {{ image \"disk.img\" sha256=\"sha256:{digest}\" }}
        vm \"c\" {{ image-url \"https://example.org/c\" sha256=\"{digest}\" }}",
        digest.to_uppercase()
    ));
    let vms = site.vms();
    let image = |vm: &str| vms[&name(vm)].image.clone().unwrap();
    assert_eq!(image("a"), image("b"));
    let pin =
        Pin { sha256: Digest::of("disk"), image: None, upstream: Upstream::default(), by: PinnedBy::Vmfile };
    assert_eq!(
        image("c"),
        DesiredImage::Remote {
            url: "https://example.org/c".to_owned(),
            name: None,
            sha256: Some(Digest::of("disk")),
            pin: Some(pin),
        }
    );
}
