//! The language of VMFiles: layers, variables, templates, counts and included files, and what they come to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use common::FakeImages;
use proptest::prelude::*;
use site::Site;
use vmctl_planner::desired::{Attribute, DesiredImage, DesiredVm, Move, OutputPart, Trigger, Until};
use vmctl_planner::vmfile::{project, removed};
use vmctl_providers::provision::Rerun;
use vmctl_providers::{Digest, Name, NetworkConfig, Probe};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(site: &Site) -> Vec<String> {
    site.vms().keys().map(ToString::to_string).collect()
}

/// The machine `web` of layers written as blocks: `defaults`, `base`, `middle` made of `base`, and `web` made of it.
fn layered(defaults: &str, base: &str, middle: &str, own: &str) -> DesiredVm {
    let site = Site::new(&format!(
        "vm \"web\" template=\"middle\" {{\nimage \"disk.img\"\n{own}\n}}
        vm \"db\" {{ image \"disk.img\" }}
        template \"middle\" template=\"base\" {{\n{middle}\n}}
        template \"base\" {{\n{base}\n}}
        defaults {{\n{defaults}\n}}"
    ));
    site.vm("web")
}

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
fn values_come_from_the_option_then_the_file_then_the_environment_then_the_default() {
    let text = "variable \"the-size\" { default 100 }
        vm \"web\" { image \"disk.img\"; memory (var)\"the-size\" }";
    let memory = |site: Site| site.vm("web").memory_mib;
    assert_eq!(memory(Site::new(text)), 100);
    let environment = [("VMCTL_VAR_the_size", "200"), ("VMCTL_VAR_unknown", "x")];
    assert_eq!(memory(Site::new(text).environment(&environment)), 200);
    let exact = [("VMCTL_VAR_the_size", "200"), ("VMCTL_VAR_the-size", "250")];
    assert_eq!(memory(Site::new(text).environment(&exact)), 250);
    let file = Site::new(text).environment(&environment).values("a.kdl", "the-size 300");
    assert_eq!(memory(file.values("b.kdl", "the-size 350")), 350);
    let all = Site::new(text).environment(&environment).values("a.kdl", "the-size 300");
    assert_eq!(memory(all.given(&[("the-size", "400"), ("the-size", "450")])), 450);
}

#[test]
fn texts_from_outside_stand_for_numbers_sizes_and_truth() {
    let text = r#"
        variable "size" { default "2GiB" }
        variable "cpus" { default "4" }
        variable "number" { type "number" }
        variable "safe" { type "bool"; default #false }
        vm "web" {
            image "disk.img"
            memory (var)"size"
            vcpus (var)"cpus"
            disk (template)"{{ var.number }}"
            forward guest=(env)"PORT"
            lifecycle { prevent-destroy (var)"safe" }
            labels { number (var)"number"; safe (var)"safe" }
        }
    "#;
    let site = Site::new(text).given(&[("number", " 20 "), ("safe", "true")]).environment(&[("PORT", "80")]);
    let vm = site.vm("web");
    assert_eq!((vm.memory_mib, vm.vcpus, vm.disk_bytes), (2048, 4, Some(20 << 30)));
    assert_eq!((vm.forwards[0].guest_port, vm.lifecycle.prevent_destroy), (80, true));
    assert_eq!((vm.labels["number"].as_str(), vm.labels["safe"].as_str()), ("20", "true"));
}

#[test]
fn a_text_that_is_written_is_no_number() {
    let told = Site::new("vm \"web\" { image \"disk.img\"; vcpus \"2\" }").told();
    assert_eq!(told, ["vmfile::wrong-type: `vcpus` takes a whole number, not the text \"2\""]);
}

#[test]
fn templates_put_names_together() {
    let site = Site::new(
        r#"
        project "shop"
        variable "domain" { default "example.org" }
        vm (template)"{{ var.stage }}-{{index}}" count=2 {
            image "disk.img"
            cloud-init { hostname (template)"{{ name }}.{{ project }}.{{var.domain}}" }
            labels {
                braces (template)"{{ '{{' }} {{ \"}}\" }} { } }}"
                plain "{{ name }}"
                home (template)"{{ env.HOME_OF_TEST }}/{{ index }}"
            }
        }
        variable "stage" { default "dev"; one-of "dev" "prod" }
        "#,
    )
    .environment(&[("HOME_OF_TEST", "/root")]);
    let vm = site.vm("dev-2");
    assert_eq!(vm.cloud_init.unwrap().hostname, "dev-2.shop.example.org");
    let labels: Vec<_> = vm.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["{{ }} { } }}", "/root/2", "{{ name }}"]);
}

#[test]
fn paths_of_an_included_file_are_relative_to_it() {
    let site = Site::new("include \"vms/web.kdl\"\ninclude \"../shop-shared.kdl\"");
    site.file("vms/web.kdl", "include \"deeper/db.kdl\"\nvm \"web\" { image \"web.img\"; ssh; provision { script \"../run.sh\" } }");
    site.file("vms/web.img", "disk");
    site.file("run.sh", "true");
    site.file("vms/deeper/db.kdl", "vm \"db\" { image \"../../disk.img\" }");
    site.file("inner/VMFile.kdl", "include \"../vms/web.kdl\"");
    let told = site.told();
    assert!(told[0].starts_with("vmfile::include: cannot include `../shop-shared.kdl`"), "{told:?}");
    site.file("VMFile.kdl", "include \"vms/web.kdl\"");
    let source = |vm: DesiredVm| vm.image.unwrap().source();
    assert_eq!(source(site.vm("web")), site.path("vms/web.img").display().to_string());
    assert_eq!(source(site.vm("db")), site.path("disk.img").display().to_string());
    let inputs: Vec<_> = site.desired().inputs.into_iter().map(|input| input.path).collect();
    let expected = ["VMFile.kdl", "vms/web.kdl", "vms/deeper/db.kdl", "run.sh"].map(|name| site.path(name));
    assert_eq!(inputs, expected);
}

#[test]
fn an_included_link_means_the_file_that_it_leads_to() {
    let site = Site::new("include \"link.kdl\"");
    site.file("vms/web.kdl", "vm \"web\" { image \"web.img\" }");
    site.file("vms/web.img", "disk");
    symlink(site.path("vms/web.kdl"), site.path("link.kdl")).unwrap();
    assert_eq!(site.vm("web").image.unwrap().source(), site.path("vms/web.img").display().to_string());
    site.file("VMFile.kdl", "include \"link.kdl\"\ninclude \"vms/web.kdl\"");
    assert_eq!(site.told(), ["vmfile::duplicate: this file is included twice"]);
}

#[test]
fn files_of_values_are_no_inputs() {
    let site = Site::new(
        "variable \"size\"\nvm \"web\" { image \"disk.img\"; memory \"1G\"; labels { size (var)\"size\" } }",
    )
    .values("values.kdl", "size \"big\"");
    // Whatever else stands in such a file, secrets perhaps, has no place in a plan, not even as a digest.
    let inputs = site.desired().inputs;
    assert_eq!(inputs.iter().map(|input| &input.path).collect::<Vec<_>>(), [&site.path("VMFile.kdl")]);
}

#[test]
fn values_that_cannot_be_used_are_told() {
    let text = "variable \"size\" { default 1 }\nvariable \"word\" { default \"a\"; one-of \"a\" \"b\" }
        vm \"web\" { image \"disk.img\"; vcpus (var)\"size\"; labels { word (var)\"word\" } }";
    let options = Site::new(text).given(&[("siez", "2"), ("size", "two"), ("word", "c")]);
    assert_eq!(
        options.told(),
        [
            "vmfile::variable: `--var` names `siez`, which the VMFile does not know",
            "vmfile::variable: the variable `size` takes a whole number, not `two` (given by `--var`)",
            "vmfile::variable: the variable `word` cannot be `c` (given by `--var`)",
        ]
    );
    let file = Site::new(text).values("values.kdl", "size \"2\"\nwrod \"b\"\n");
    let problems = file.load().unwrap_err();
    let told: Vec<_> =
        problems.problems().iter().map(|problem| (problem.file.as_str(), problem.message.as_str())).collect();
    let values = file.path("values.kdl").display().to_string();
    assert_eq!(
        told,
        [
            (values.as_str(), "the variable `size` takes a whole number, not the text \"2\""),
            (values.as_str(), "the VMFile knows no variable `wrod`"),
        ]
    );
    let mut missing = Site::new(text);
    missing.given.files.push(missing.path("nowhere.kdl"));
    assert!(
        missing.told()[0].starts_with("vmfile::variable: cannot read the values in"),
        "{:?}",
        missing.told()
    );
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
    assert_eq!(
        image("c"),
        DesiredImage::Remote { url: "https://example.org/c".to_owned(), sha256: Some(Digest::of("disk")) }
    );
}

#[test]
fn outputs_speak_of_machines() {
    let site = Site::new(
        r#"
        variable "path" { default "x" }
        output "url" (template)"http://{{ vm.web.host }}:{{ vm.web.port.80 }}/{{ var.path }}" { description "where" }
        output "plain" "{ }"
        vm "web" { image "disk.img"; forward guest=80 }
        "#,
    );
    let outputs = site.desired().outputs;
    let text = |text: &str| OutputPart::Text(text.to_owned());
    let attribute = |attribute| OutputPart::Attribute { vm: name("web"), attribute };
    assert_eq!(
        outputs[&name("url")].parts,
        [text("http://"), attribute(Attribute::Host), text(":"), attribute(Attribute::Port(80)), text("/x")]
    );
    assert_eq!(outputs[&name("url")].description.as_deref(), Some("where"));
    assert_eq!(outputs[&name("plain")].parts, [text("{ }")]);
}

#[test]
fn problems_of_included_files_name_them() {
    let site = Site::new("// ä\ninclude \"vms/web.kdl\"\nvm \"web\" { image \"disk.img\" }");
    site.file("vms/web.kdl", "// ä\n  vm \"web\" { image \"../disk.img\" }\n  memroy 1\n");
    let report = site.load().unwrap_err();
    let json = serde_json::to_value(report.problems()).unwrap();
    let (main, included) =
        (site.vmfile().display().to_string(), site.path("vms/web.kdl").display().to_string());
    assert_eq!(json[0]["file"], main);
    assert_eq!(
        (&json[0]["line"], &json[0]["column"], &json[0]["offset"]),
        (&3.into(), &4.into(), &31.into())
    );
    let related = &json[0]["related"][0];
    assert_eq!(related["file"], included);
    assert_eq!(
        (&related["line"], &related["column"], &related["offset"]),
        (&2.into(), &6.into(), &11.into())
    );
    assert_eq!(
        (&json[1]["file"], &json[1]["line"], &json[1]["column"]),
        (&included.into(), &3.into(), &3.into())
    );
}

#[test]
fn what_may_not_be_meant_is_warned_about() {
    let site = Site::new(
        r#"
        variable "size" { default 1 }
        variable "secret" { default "hunter2"; sensitive }
        template "base" { memory 64 }
        image "debian" { path "disk.img" }
        network "lan"
        volume "data" size="1G"
        vm "web" { image "disk.img"; qemu-arg "-x"; labels { secret (var)"secret"; size "{{ var.size }}" } }
        "#,
    );
    assert_eq!(
        site.told(),
        [
            "vmfile::unused: the variable `size` is never used",
            "vmfile::variable: the variable `secret` is sensitive, and its value stands here",
            "vmfile::unused: the template `base` is never used",
            "vmfile::unused: the image `debian` is never used",
            "vmfile::unused: the network `lan` is never used",
            "vmfile::unused: the volume `data` is never used",
            "vmfile::qemu-arg: arguments of QEMU are passed on as they are",
            "vmfile::template: what stands between `{{` and `}}` is not replaced here",
        ]
    );
}

#[test]
fn a_project_and_what_is_let_go_of_are_known_without_values_and_images() {
    let site = Site::new(
        "include \"more.kdl\"\nproject \"store\"\nvariable \"size\"\nremoved \"old\"
        vm \"web\" { image \"nowhere.img\"; memory (var)\"size\"; vcpus 0 }",
    );
    site.file("more.kdl", "removed \"older\"\nvm \"db\" { image (ref)\"nothing\" }");
    assert_eq!(project(&site.vmfile()).unwrap(), name("store"));
    assert_eq!(removed(&site.vmfile()).unwrap(), [name("old"), name("older")].into());
}

#[test]
fn a_project_in_an_included_file_is_never_used() {
    let site = Site::new("include \"more.kdl\"\nvm \"web\" { image \"disk.img\" }");
    site.file("more.kdl", "project \"inner\"");
    assert_eq!(site.told(), ["vmfile::project: `project` stands in an included file"]);
    project(&site.vmfile()).unwrap_err();
    site.file("VMFile.kdl", "include \"more.kdl\"\nproject \"outer\"\nvm \"web\" { image \"disk.img\" }");
    assert_eq!(project(&site.vmfile()).unwrap(), name("outer"));
}

#[test]
fn a_sensitive_value_is_never_told() {
    let secret = "correct-horse battery/staple that goes on and on, far beyond what one line shows\nand more";
    let text = "variable \"token\" { sensitive }
        vm \"web\" {
            image \"disk.img\"
            memory (var)\"token\"
            state (template)\"x {{ var.token }}\"
            cloud-init { hostname (var)\"token\" }
            depends-on (var)\"token\"
            vcpus (var)\"token\"
        }";
    let file = Site::new(text).values("values.kdl", &format!("token \"{}\"", secret.replace('\n', "\\n")));
    let option = Site::new(text).given(&[("token", secret)]);
    let number = Site::new(text).values("values.kdl", "token 4711");
    assert!(number.told()[0].ends_with("takes a text, not what stands here"), "{:?}", number.told());
    assert!(!format!("{:?}", miette::Report::from(number.load().unwrap_err())).contains("4711"));
    for site in [file, option] {
        let report = site.load().unwrap_err();
        assert!(report.problems().len() >= 4);
        let mut told = format!("{:?}", serde_json::to_value(report.problems()).unwrap());
        miette::GraphicalReportHandler::new().render_report(&mut told, &report).unwrap();
        assert!(!told.contains("correct-") && !told.contains("staple"), "{told}");
    }
}

#[test]
fn nodes_with_too_many_values_are_refused_before_they_are_parsed() {
    let told =
        Site::new(&format!("vm \"web\" {{ image \"disk.img\"; depends-on{} }}", " \"a\"".repeat(1_001)))
            .told();
    assert_eq!(told, ["vmfile::too-big: a node has more than 1000 values"]);
    let told = Site::new(&format!("a{}\n", " 1".repeat(1_000)).repeat(501)).told();
    assert_eq!(told, ["vmfile::too-big: the file has more than 500000 values"]);
}

#[test]
fn a_line_that_is_far_too_long_is_not_shown() {
    let long = "x".repeat(100_000);
    let site = Site::new(&format!(
        "vm \"web\" {{ image \"disk.img\"; machine \"q35,{long}\"; memory 512; memory 1024 }}"
    ));
    let report = site.load().unwrap_err();
    let mut told = String::new();
    miette::GraphicalReportHandler::new().with_width(500).render_report(&mut told, &report).unwrap();
    assert!(told.len() < 2_000, "{}", told.len());
    for place in [38, 100_046, 100_058] {
        assert!(told.contains(&format!("line 1, column {place})")), "{place}: {told}");
    }
}

/// A machine as its nodes, in the order in which they are written.
fn machine() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    (
        prop::option::of(16_u32..100_000),
        prop::option::of(1_u32..255),
        prop::option::of(2_u32..1_000),
        prop::option::of("[a-z]{1,10}"),
        prop::option::of("[a-z]{1,10}"),
        prop::option::of(prop::sample::select(vec!["running", "stopped", "suspended"])),
        prop::option::of(1_u16..65_535),
    )
        .prop_map(|(memory, vcpus, disk, hostname, label, state, port)| {
            let text = |text: String| format!("\"{text}\"");
            [
                memory.map(|size| ("memory {}", size.to_string())),
                vcpus.map(|count| ("vcpus {}", count.to_string())),
                disk.map(|size| ("disk {}", size.to_string())),
                hostname.map(|name| ("cloud-init { hostname {} }", text(name))),
                label.map(|label| ("labels { role {} }", text(label))),
                state.map(|state| ("state {}", text(state.to_owned()))),
                port.map(|port| ("forward guest={}", port.to_string())),
            ]
            .into_iter()
            .flatten()
            .collect()
        })
}

/// The nodes of a machine, the value of each being `value(number, written)`.
fn written(nodes: &[(&str, String)], value: impl Fn(usize, &str) -> String) -> Vec<String> {
    let line =
        |(number, (form, written)): (usize, &(&str, String))| form.replacen("{}", &value(number, written), 1);
    nodes.iter().enumerate().map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_machine_means_the_same_however_it_is_put_together(nodes in machine(), cut in 0_usize..8, other in 0_usize..8) {
        let plain = written(&nodes, |_, value| value.to_owned());
        let by_hand = Site::new(&format!("vm \"web\" {{\nimage \"disk.img\"\n{}\n}}", plain.join("\n")));
        let image = |site: &Site| {
            let mut vm = site.vm("web");
            vm.image = None;
            vm
        };
        let expected = image(&by_hand);

        let (low, high) = (cut.min(other).min(plain.len()), cut.max(other).min(plain.len()));
        let layers = Site::new(&format!(
            "defaults {{\nimage \"disk.img\"\n{}\n}}\ntemplate \"t\" {{\n{}\n}}\nvm \"web\" template=\"t\" {{\n{}\n}}",
            plain[..low].join("\n"), plain[low..high].join("\n"), plain[high..].join("\n"),
        ));
        prop_assert_eq!(&image(&layers), &expected);

        let variables: Vec<_> = nodes.iter().enumerate()
            .map(|(number, (_, value))| format!("variable \"v{number}\" {{ default {value} }}")).collect();
        let referring = written(&nodes, |number, _| format!("(var)\"v{number}\""));
        let interpolating = written(&nodes, |number, _| format!("(template)\"{{{{ var.v{number} }}}}\""));
        for lines in [referring, interpolating] {
            let site = Site::new(&format!(
                "{}\nvm \"web\" {{\nimage \"disk.img\"\n{}\n}}", variables.join("\n"), lines.join("\n"),
            ));
            prop_assert_eq!(&image(&site), &expected);
        }
    }

    #[test]
    fn the_order_of_nodes_and_files_does_not_matter(
        order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle(),
        apart in prop::collection::vec(any::<bool>(), 8),
    ) {
        let nodes = [
            "variable \"size\" { default 2048 }",
            "defaults { memory (var)\"size\" }",
            "template \"base\" { vcpus 2 }",
            "template \"big\" template=\"base\" { disk 20 }",
            "image \"debian\" { path \"disk.img\" }",
            "network \"lan\" { subnet \"10.0.0.0/24\" }",
            "vm \"web\" template=\"big\" count=2 { image (ref)\"debian\"; depends-on \"db\" }",
            "vm \"db\" template=\"base\" { image (ref)\"debian\"; network \"private\" name=\"lan\" }",
        ];
        let in_order = Site::new(&nodes.join("\n"));
        let (mut main, mut included) = (String::from("include \"more.kdl\"\n"), String::new());
        for number in order {
            let file = if apart[number] { &mut included } else { &mut main };
            file.push_str(nodes[number]);
            file.push('\n');
        }
        let shuffled = Site::new(&main);
        shuffled.file("more.kdl", &included);
        let vms = |site: &Site| {
            let mut vms = site.vms();
            for vm in vms.values_mut() {
                vm.image = None;
            }
            vms
        };
        prop_assert_eq!(vms(&shuffled), vms(&in_order));
        prop_assert_eq!(shuffled.desired().networks, in_order.desired().networks);
    }
}

#[test]
fn machines_that_all_wait_for_all_are_too_many() {
    let text = |count: u32| {
        format!(
            "vm \"a\" count={count} {{ image \"disk.img\" }}\nvm \"b\" count={count} {{ image \"disk.img\"; depends-on \"a\" }}"
        )
    };
    assert_eq!(Site::new(&text(100)).desired().vms.len(), 200);
    let report = Site::new(&text(1_001)).load().unwrap_err();
    assert_eq!(report.problems().iter().map(|problem| problem.code).collect::<Vec<_>>(), ["vmfile::too-big"]);
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
