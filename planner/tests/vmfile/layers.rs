//! Defaults, templates and counts.

use std::collections::BTreeMap;

use vmctl_planner::desired::{Move, Trigger, Until};
use vmctl_providers::{Digest, NetworkConfig, Probe};

use super::site::Site;
use super::{layered, name, names};

#[test]
fn of_a_node_that_stands_once_the_nearest_layer_wins() {
    let memory = |defaults, base, middle, own| layered(defaults, base, middle, own).memory_mib;
    assert_eq!(memory("memory 100", "memory 200", "memory 300", "memory 400"), 400);
    assert_eq!(memory("memory 100", "memory 200", "memory 300", ""), 300);
    assert_eq!(memory("memory 100", "memory 200", "", ""), 200);
    assert_eq!(memory("memory 100", "", "", ""), 100);
    assert_eq!(memory("", "", "", ""), 1024);
}

#[test]
fn blocks_are_merged_node_by_node() {
    let vm = layered(
        "cloud-init { hostname \"far\" }; ssh { user \"far\" }; labels { a 1; b 1 }; ready { timeout \"1m\"; tcp 1 }",
        "lifecycle { prevent-destroy; ignore-changes \"memory\" }",
        "ssh { user \"middle\" }; labels { b 2; c 2 }; ready { tcp 2 }",
        "ssh; labels { c 3 }; ready { timeout \"3m\"; tcp 3 }; lifecycle { prevent-destroy #false; ignore-changes \"vcpus\" }",
    );
    assert_eq!(vm.cloud_init.unwrap().hostname, "far");
    assert_eq!(vm.ssh.unwrap().user, "middle");
    let labels =
        [("a", "1"), ("b", "2"), ("c", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(vm.labels, BTreeMap::from(labels));
    assert_eq!(vm.ready.probes, [Probe::Login, Probe::Tcp(1), Probe::Tcp(2), Probe::Tcp(3)]);
    assert_eq!(vm.ready.timeout.as_secs(), 180);
    assert!(!vm.lifecycle.prevent_destroy);
    assert_eq!(vm.lifecycle.ignore_changes.iter().collect::<Vec<_>>(), ["memory", "vcpus"]);
}

#[test]
fn repeatable_nodes_add_up_the_farthest_first() {
    let vm = layered(
        "ssh; provision { inline \"a\" }; forward guest=1; check \"a\" { tcp 1 }",
        "depends-on \"db\"; provision { inline \"b\" }; forward guest=2; check \"b\" { tcp 2 }; qemu-arg \"-a\"",
        "provision { inline \"c\" }; forward guest=3; qemu-arg \"-b\" \"-c\"",
        "provision { inline \"d\" }; forward guest=4; check \"d\" { tcp 4 }",
    );
    let digests: Vec<_> = vm.provision.into_iter().map(|step| (step.number, step.digest)).collect();
    let step = |number: usize, script: &str| (number, Digest::of(format!("shell\0{script}")));
    assert_eq!(digests, [step(1, "a"), step(2, "b"), step(3, "c"), step(4, "d")]);
    assert_eq!(vm.forwards.iter().map(|forward| forward.guest_port).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(vm.checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), ["a", "b", "d"]);
    assert_eq!(vm.hardware.qemu_args, ["-a", "-b", "-c"]);
    assert_eq!(vm.depends_on, [(name("db"), Until::Provisioned)].into());
}

#[test]
fn networks_of_the_nearest_layer_win_whole() {
    let site = Site::new(
        r#"
        network "lan"
        defaults { image "disk.img"; network "user"; network "private" name="lan" }
        template "alone" { network "none" }
        vm "a"
        vm "b" template="alone"
        vm "c" template="alone" { network "private" name="lan" address="10.0.0.9"; network "user" }
        "#,
    );
    let lan = |address: Option<&str>| NetworkConfig::Private {
        link: None,
        name: name("lan"),
        address: address.map(|address| address.parse().unwrap()),
    };
    let networks = site.vms().into_values().map(|vm| vm.networks).collect::<Vec<_>>();
    assert_eq!(
        networks,
        [
            vec![NetworkConfig::User, lan(None)],
            vec![NetworkConfig::None],
            vec![lan(Some("10.0.0.9")), NetworkConfig::User],
        ]
    );
}

#[test]
fn an_image_and_a_url_take_each_others_place() {
    let site = Site::new(
        r#"
        defaults { image-url "https://example.org/a.img" }
        template "local" { image "disk.img" }
        vm "a"
        vm "b" template="local"
        vm "c" template="local" { image-url "https://example.org/c.img" }
        "#,
    );
    let sources: Vec<_> = site.vms().into_values().map(|vm| vm.image.unwrap().source()).collect();
    let local = site.path("disk.img").display().to_string();
    assert_eq!(sources, ["https://example.org/a.img", &local, "https://example.org/c.img"]);
}

#[test]
fn a_count_makes_numbered_machines() {
    let machines = |count: &str| {
        names(&Site::new(&format!(
            "vm \"web\" {count} {{ image \"disk.img\" }}\nvm \"db\" {{ image \"disk.img\" }}"
        )))
    };
    assert_eq!(machines(""), ["db", "web"]);
    assert_eq!(machines("count=0"), ["db"]);
    assert_eq!(machines("count=1"), ["db", "web-1"]);
    assert_eq!(machines("count=3"), ["db", "web-1", "web-2", "web-3"]);
    let site =
        Site::new("variable \"n\" { default \"2\" }\nvm \"web\" count=(var)\"n\" { image \"disk.img\" }");
    assert_eq!(names(&site), ["web-1", "web-2"]);
}

#[test]
fn the_name_of_counted_machines_means_all_of_them() {
    let site = Site::new(
        r#"
        vm "web" count=2 { image "disk.img"; lifecycle { replace-when "vm.web" } }
        vm "proxy" { image "disk.img"; depends-on "web" until="started"; lifecycle { replace-when "vm.web" } }
        "#,
    );
    let proxy = site.vm("proxy");
    let both = [name("web-1"), name("web-2")];
    assert_eq!(proxy.depends_on, both.clone().map(|name| (name, Until::Started)).into());
    assert_eq!(proxy.lifecycle.replace_when, both.map(Trigger::Machine).into());
    let other = Trigger::Machine(name("web-2"));
    assert_eq!(site.vm("web-1").lifecycle.replace_when, [other].into());
}

#[test]
fn a_machine_can_become_the_first_of_several() {
    let site = Site::new("vm \"web\" count=2 { image \"disk.img\" }\nmoved from=\"web\" to=\"web-1\"");
    assert_eq!(site.desired().moved, [Move { from: name("web"), to: name("web-1") }]);
}
