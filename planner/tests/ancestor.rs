//! VMFiles as they were written for the ancestor mean what they meant there; where they do not, on purpose, a test says
//! so.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/site.rs"]
#[expect(dead_code, reason = "old files give no values")]
mod site;

use std::path::PathBuf;

use common::FakeImages;
use site::Site;
use vmctl_planner::desired::{DesiredImage, DesiredVm};
use vmctl_providers::provision::ProvisionAction;
use vmctl_providers::{BackendTag, NetworkConfig};

fn vm(text: &str) -> DesiredVm {
    Site::new(&format!("vm \"web\" {{ image \"disk.img\"; {text} }}")).vm("web")
}

fn told(text: &str) -> Vec<String> {
    Site::new(&format!("vm \"web\" {{ image \"disk.img\"\n {text}\n }}")).told()
}

#[test]
fn a_machine_has_one_processor_and_a_gigabyte() {
    let vm = vm("");
    assert_eq!((vm.vcpus, vm.memory_mib, vm.disk_bytes), (1, 1024, None));
    assert_eq!(vm.networks, [NetworkConfig::User]);
    assert_eq!((vm.ssh, vm.cloud_init), (None, None));
}

#[test]
fn numbers_stand_in_any_notation() {
    for (text, memory) in
        [("2048", 2048), ("0x800", 2048), ("0o4000", 2048), ("0b1000_0000_0000", 2048), ("2_048", 2048)]
    {
        assert_eq!(vm(&format!("memory {text}")).memory_mib, memory, "{text}");
    }
    let vm = vm("vcpus 0x4; disk 0b1010");
    assert_eq!((vm.vcpus, vm.disk_bytes), (4, Some(10 << 30)));
}

#[test]
fn names_and_texts_may_be_bare_words() {
    let site = Site::new("vm web { image disk.img; network user; ssh { user deploy; }; }");
    assert_eq!(site.vm("web").ssh.unwrap().user, "deploy");
}

#[test]
fn paths_are_relative_to_the_file_or_begin_at_home() {
    let source = |site: &Site| PathBuf::from(site.vm("web").image.unwrap().source());
    let site = Site::new("vm \"web\" { image \"./disk.img\" }");
    assert_eq!(source(&site), site.path("disk.img"));
    let site = Site::new("vm \"web\" { image \"~/disk.img\" }");
    assert_eq!(source(&site), site.path("home/disk.img"));
    let site = Site::new("");
    site.file("VMFile.kdl", &format!("vm \"web\" {{ image {:?} }}", site.path("disk.img")));
    assert_eq!(source(&site), site.path("disk.img"));
}

#[test]
fn an_image_may_be_a_url_of_a_server_or_a_registry() {
    for url in
        ["https://example.org/debian.qcow2", "http://example.org/debian.qcow2", "oci://example.org/debian:12"]
    {
        let vm = Site::new(&format!("vm \"web\" {{ image-url {url:?} }}")).vm("web");
        assert_eq!(
            vm.image,
            Some(DesiredImage::Remote { url: url.to_owned(), name: None, sha256: None, pin: None })
        );
    }
}

#[test]
fn every_kind_of_network_is_understood_as_property_and_in_a_block() {
    let tap = |bridge: &str| NetworkConfig::Tap { bridge: bridge.to_owned() };
    for (text, network) in [
        ("", NetworkConfig::User),
        ("network", NetworkConfig::User),
        ("network \"user\"", NetworkConfig::User),
        ("network \"none\"", NetworkConfig::None),
        ("network \"tap\"", tap("br0")),
        ("network \"tap\" bridge=\"br1\"", tap("br1")),
        // The ancestor's manual had this form, its parser did not.
        ("network \"tap\" { bridge \"br1\"; }", tap("br1")),
    ] {
        assert_eq!(vm(text).networks, [network], "{text}");
    }
    let vnic = NetworkConfig::Vnic { name: "vnic0".to_owned() };
    for text in ["network \"vnic\" name=\"vnic0\"", "network \"vnic\" { name \"vnic0\"; }"] {
        let vm = vm(&format!("{text}; backend \"propolis\" {{ server \"127.0.0.1:12400\"; }}"));
        assert_eq!((vm.backend, vm.networks), (BackendTag::Propolis, vec![vnic.clone()]), "{text}");
    }
}

#[test]
fn cloud_init_needs_no_body_and_makes_a_login() {
    for text in ["cloud-init", "cloud-init { }"] {
        let vm = vm(text);
        let seed = vm.cloud_init.unwrap();
        assert_eq!((seed.hostname.as_str(), seed.user.as_str()), ("web", "vm"), "{text}");
        assert_eq!(vm.ssh.unwrap().user, "vm", "{text}");
    }
    assert_eq!(vm("cloud-init { hostname \"www\"; }").cloud_init.unwrap().hostname, "www");
}

#[test]
fn user_data_is_passed_on_as_it_is() {
    let site = Site::new("vm \"web\" { image \"disk.img\"; cloud-init { user-data \"my.yaml\" } }");
    site.file("my.yaml", "#cloud-config\n# ä\n");
    assert_eq!(site.vm("web").cloud_init.unwrap().user_data.unwrap().expose(), "#cloud-config\n# ä\n");
}

#[test]
fn ssh_without_user_logs_in_as_vm() {
    for text in ["ssh { }", "ssh", "ssh { user \"vm\"; }"] {
        let ssh = vm(text).ssh.unwrap();
        assert_eq!((ssh.user.as_str(), ssh.private_key), ("vm", None), "{text}");
    }
}

#[test]
fn steps_are_shell_steps_unless_they_say_otherwise() {
    let site = Site::new(
        r#"
        vm "web" {
            image "disk.img"
            ssh { }
            provision { inline "uname -a" }
            provision "shell" { script "setup.sh" }
            provision "file" { source "setup.sh"; destination "/root/setup.sh" }
        }
        "#,
    );
    site.file("setup.sh", "true\n");
    let actions: Vec<_> = site.vm("web").provision.into_iter().map(|step| step.action).collect();
    assert_eq!(
        actions,
        [
            ProvisionAction::Shell { script: "uname -a".to_owned() },
            ProvisionAction::Shell { script: "true\n".to_owned() },
            ProvisionAction::File { source: site.path("setup.sh"), destination: "/root/setup.sh".to_owned() },
        ]
    );
}

/// There the first of several counted and the others were passed over in silence.
#[test]
fn a_node_that_is_repeated_is_an_error() {
    assert_eq!(told("memory 512\n memory 2048"), ["vmfile::duplicate: `memory` is written twice in `vm`"]);
}

/// There what was not known was passed over in silence.
#[test]
fn what_is_not_known_is_an_error() {
    assert_eq!(told("memroy 512"), ["vmfile::unknown-node: unknown node `memroy` in `vm`"]);
    assert_eq!(
        told("memory 512 unit=\"MB\""),
        ["vmfile::unknown-property: unknown property `unit` of `memory`"]
    );
    assert_eq!(told("memory 512 1024"), ["vmfile::surplus: `memory` takes one value"]);
    let site = Site::new("vm \"web\" { image \"disk.img\" }\nvmm \"db\" { image \"disk.img\" }");
    assert_eq!(site.told(), ["vmfile::unknown-node: unknown node `vmm` at the top level"]);
}

/// There they meant the default, or were cut to fewer bits.
#[test]
fn numbers_that_cannot_be_meant_are_errors() {
    for text in ["vcpus -1", "vcpus 70000", "vcpus 0", "memory 0", "memory -5", "disk -1", "disk 4294967297"]
    {
        assert!(told(text)[0].starts_with("vmfile::out-of-range: "), "{text}");
    }
    for text in ["vcpus \"four\"", "vcpus 1.5", "memory \"lots\"", "disk \"20\""] {
        assert!(told(text)[0].starts_with("vmfile::wrong-type: "), "{text}");
    }
}

/// There a text meant the default.
#[test]
fn sizes_may_be_texts_with_units() {
    let vm = vm("memory \"2G\"; disk \"20G\"");
    assert_eq!((vm.memory_mib, vm.disk_bytes), (2048, Some(20 << 30)));
}

/// There it failed when the machine was started.
#[test]
fn a_vnic_on_qemu_is_refused() {
    assert_eq!(
        told("network \"vnic\" name=\"vnic0\""),
        ["vmfile::network: QEMU has no vnic networks: they belong to illumos"]
    );
}

/// There it was told when the machine was made.
#[test]
fn an_image_that_is_missing_is_told_at_once() {
    let told = Site::new("vm \"web\" { image \"nowhere.img\" }").told();
    assert!(told[0].starts_with("vmfile::image: image file not found"), "{told:?}");
}

#[test]
fn what_was_refused_is_refused() {
    for (text, code) in [
        ("vm { image \"disk.img\" }", "vmfile::missing"),
        ("vm \"web\"", "vmfile::missing"),
        ("vm \"web\" { vcpus 1; }", "vmfile::missing"),
        ("vm \"web\" { image \"disk.img\"; image-url \"https://example.org/x\"; }", "vmfile::duplicate"),
        ("vm \"web\" { image \"disk.img\"; network \"bridge\"; }", "vmfile::bad-value"),
        (
            "vm \"web\" { image \"disk.img\"; network \"vnic\"; backend \"propolis\" { server \"127.0.0.1:1\"; }; }",
            "vmfile::missing",
        ),
        (
            "vm \"web\" { image \"disk.img\"; ssh; provision \"chef\" { inline \"x\"; }; }",
            "vmfile::bad-value",
        ),
        (
            "vm \"web\" { image \"disk.img\"; ssh; provision { inline \"x\"; script \"disk.img\"; }; }",
            "vmfile::duplicate",
        ),
        ("vm \"web\" { image \"disk.img\"; ssh; provision; }", "vmfile::missing"),
        (
            "vm \"web\" { image \"disk.img\"; ssh; provision \"file\" { source \"disk.img\"; }; }",
            "vmfile::missing",
        ),
        ("vm \"web\" { image \"disk.img\"; cloud-init { ssh-key \"nowhere\"; }; }", "vmfile::file"),
        ("vm \"web\" { image \"disk.img\"; cloud-init { user-data \"nowhere\"; }; }", "vmfile::file"),
        ("project \"shop\"", "vmfile::missing"),
        ("vm \"web\" { image \"disk.img\"", "vmfile::syntax"),
    ] {
        let told = Site::new(text).told();
        assert!(told.len() == 1 && told[0].starts_with(&format!("{code}: ")), "{text}: {told:?}");
    }
    let told = Site::new("vm \"web\" { image \"disk.img\" }\nvm \"web\" { image \"disk.img\" }").told();
    assert_eq!(told, ["vmfile::duplicate: the machine `web` is written twice"]);
}
