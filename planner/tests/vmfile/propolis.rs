//! `backend "propolis"`: its block, and what it cannot do.

use vmctl_planner::desired::Firmware;
use vmctl_providers::{BackendTag, NetworkConfig, PropolisOptions, ZoneOptions};

use super::site::Site;

fn vmfile(block: &str, rest: &str) -> String {
    format!("vm \"web\" {{\n image \"disk.img\"\n backend \"propolis\"{block}\n {rest}\n}}")
}

const SERVER: &str = " { server \"127.0.0.1:12400\"; }";
const VNIC: &str = "network \"vnic\" name=\"web0\"";

#[test]
fn block_says_where_the_server_is_or_how_it_is_started() {
    let site = Site::new(&vmfile(SERVER, VNIC));
    let vm = site.only();
    assert_eq!(vm.backend, BackendTag::Propolis);
    assert_eq!(vm.networks, [NetworkConfig::Vnic { name: "web0".to_owned() }]);
    assert_eq!(vm.hardware.firmware, Firmware::Uefi);
    let server = Some("127.0.0.1:12400".parse().unwrap());
    assert_eq!(vm.hardware.propolis, PropolisOptions { server, ..Default::default() });

    let block = " { bootrom \"rom.fd\"; binary \"/opt/propolis-server\"; api-version \"5.0.0\"; pool \"rpool/vms\"; \
                 vnic-link \"igb0\"; }";
    let site = Site::new(&vmfile(block, "network \"none\""));
    assert_eq!(
        site.only().hardware.propolis,
        PropolisOptions {
            server: None,
            binary: Some("/opt/propolis-server".into()),
            bootrom: Some(site.path("rom.fd")),
            api_version: Some("5.0.0".to_owned()),
            pool: Some("rpool/vms".to_owned()),
            vnic_link: Some("igb0".to_owned()),
            zone: None,
        }
    );
    let block = " { bootrom \"/opt/rom.fd\"; pool \"rpool/vms\"; zone \"tmpl-1\" link=\"stub0\" address=\"10.9.0.2/24\"; }";
    let site = Site::new(&vmfile(block, VNIC));
    let (template, link) = ("tmpl-1".to_owned(), "stub0".to_owned());
    let zone =
        ZoneOptions { template, link, address: [10, 9, 0, 2].into(), prefix: 24, port: ZoneOptions::PORT };
    assert_eq!(site.only().hardware.propolis.zone, Some(zone));
    // From a layer, as any node.
    let text =
        format!("defaults {{ backend \"propolis\"{SERVER}; {VNIC} }}\nvm \"web\" {{ image \"disk.img\" }}");
    assert_eq!(Site::new(&text).only().hardware.propolis.server, server);
}

#[test]
fn what_propolis_cannot_do_is_told() {
    for (rest, told) in [
        ("network \"user\"", "Propolis has vnics, and no other networks"),
        ("network \"tap\"", "Propolis has vnics, and no other networks"),
        ("", "a machine has a user network where it names none, and Propolis has no such"),
        ("network \"vnic\" name=\"web\"", "`web` cannot be a vnic of illumos"),
        (
            "state \"suspended\"",
            "a machine of Propolis cannot be suspended: its server has no request for it",
        ),
        ("vcpus 33", "a machine of Propolis has at most 32 vCPUs"),
        ("firmware \"bios\"", "Propolis has no `firmware \"bios\"` in this version of vmctl"),
        ("cpu \"host\"", "Propolis has no `cpu` in this version of vmctl"),
        ("machine \"q35\"", "Propolis has no `machine` in this version of vmctl"),
        ("accel \"kvm\"", "Propolis has no `accel` in this version of vmctl"),
        ("vnc \"tcp\"", "Propolis has no `vnc` in this version of vmctl"),
        ("media \"disk.img\"", "Propolis has no `media` in this version of vmctl"),
    ] {
        let vnic = if rest.starts_with("network") || rest.is_empty() { "" } else { VNIC };
        let found = Site::new(&vmfile(SERVER, &format!("{vnic}\n{rest}"))).told();
        assert_eq!(found, [format!("vmfile::propolis: {told}")], "{rest}");
    }
}

#[test]
fn block_that_does_not_add_up_is_told() {
    for (block, told) in [
        ("", "vmfile::propolis: a machine of `propolis` has neither a server nor what starts one"),
        (" { pool \"rpool\"; }", "vmfile::propolis: a propolis-server that vmctl starts needs a `bootrom`"),
        (
            " { server \"127.0.0.1:1\"; bootrom \"rom.fd\"; }",
            "vmfile::propolis: `bootrom` means nothing where a `server` runs already",
        ),
        (" { server \"localhost:1\"; }", "vmfile::bad-value: `localhost:1` is no address with a port"),
        (
            " { server \"127.0.0.1:1\"; api-version \"6\"; }",
            "vmfile::bad-value: `6` cannot be a `api-version`",
        ),
        (" { server \"127.0.0.1:1\"; pool \"-r/x\"; }", "vmfile::bad-value: `-r/x` cannot be a `pool`"),
        (" { server \"127.0.0.1:1\"; vnic-link \"-l\"; }", "vmfile::bad-value: `-l` cannot be a `vnic-link`"),
    ] {
        let found = Site::new(&vmfile(block, VNIC)).told();
        assert!(found.iter().any(|found| found == told), "{block}: {found:?}");
    }
    let zone = |rest: &str, zone: &str| format!(" {{ bootrom \"/rom.fd\"; {rest}; zone {zone}; }}");
    let (pool, good) = ("pool \"rpool\"", "\"z\" link=\"stub0\" address=\"10.9.0.2/24\"");
    for (block, told) in [
        (
            zone("api-version \"1.0.0\"", good),
            "vmfile::propolis: a server in a zone sees no files of the host, and this machine's disk would be one",
        ),
        (
            zone("pool \"rpool\"; binary \"here\"", good),
            "vmfile::propolis: `binary` is a path in the zone, and does not begin at its root",
        ),
        (
            zone("pool \"rpool\"; server \"127.0.0.1:1\"", good),
            "vmfile::propolis: `zone` means nothing where a `server` runs already",
        ),
        (
            zone(pool, "\"-z\" link=\"stub0\" address=\"10.9.0.2/24\""),
            "vmfile::bad-value: `-z` cannot be a `zone`",
        ),
        (
            zone(pool, "\"z\" link=\"a b0\" address=\"10.9.0.2/24\""),
            "vmfile::bad-value: `a b0` cannot be a `vnic-link`",
        ),
        (
            zone(pool, "\"z\" link=\"stub0\" address=\"10.9.0.2\""),
            "vmfile::bad-value: `10.9.0.2` is no address with its network's bits",
        ),
        (
            zone(pool, "\"z\" link=\"stub0\" address=\"0.0.0.0/8\""),
            "vmfile::bad-value: `0.0.0.0/8` is no address with its network's bits",
        ),
        (zone(pool, "\"z\" link=\"stub0\""), "vmfile::missing: a `zone` has no `address`"),
    ] {
        let found = Site::new(&vmfile(&block, VNIC)).told();
        assert!(found.iter().any(|found| found == told), "{block}: {found:?}");
    }
    let text = "vm \"web\" { image \"disk.img\"; backend \"qemu\" { server \"127.0.0.1:1\"; } }";
    assert_eq!(Site::new(text).told(), ["vmfile::propolis: the block of `backend` means nothing to `qemu`"]);
}

#[test]
fn two_machines_never_share_a_server() {
    let told = |block: &str| {
        let layer = format!(
            "defaults {{ image \"disk.img\"; network \"none\"; backend \"propolis\" {{ {block} }} }}"
        );
        Site::new(&format!("{layer}\nvm \"web\" count=2\n")).told()
    };
    let two =
        "vmfile::propolis: two machines have their server at 10.9.0.2:12400, and one server has one machine";
    let zone = |address: &str| {
        told(&format!("bootrom \"/rom.fd\"; pool \"rpool\"; zone \"z\" link=\"stub0\" address={address}"))
    };
    assert_eq!(told("server \"10.9.0.2:12400\""), [two]);
    assert_eq!(zone("\"10.9.0.2/24\""), [two]);
    assert_eq!(zone("(template)\"10.9.0.{{ index }}/24\""), [""; 0]);
}
