//! The desired state written as a VMFile again means the same.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{FakeImages, identity};
use proptest::prelude::*;
use vmctl_planner::desired::{
    Attribute, Check, Desired, DesiredImage, DesiredVm, InputFile, Kernel, Output, OutputPart, ready_at_login,
};
use vmctl_planner::resolved;
use vmctl_planner::vmfile::{FILE_NAME, Given, LoadOptions, grammar, load, write};
use vmctl_providers::provision::{ProvisionAction, ProvisionStep, StepOptions};
use vmctl_providers::{Digest, Name, Probe, Secret, SshConfig, keys};

/// A folder with everything that a VMFile may name.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("shop").tempdir().unwrap();
        let site = Self { folder };
        for (name, text) in [
            ("disk.img", "disk"),
            ("setup.sh", "echo \"$HOME\"\n"),
            ("more/own.sh", "true\n"),
            ("app.conf", "port = 80\n"),
            ("vmlinuz", "kernel"),
            ("initrd.img", "initrd"),
            ("seed.yaml", "#cloud-config\n"),
            ("shared/x", ""),
            ("tools.img", "tools"),
        ] {
            site.file(name, text);
        }
        let pair = keys::generate("me");
        site.file("key.pub", &pair.public);
        site.file("key", pair.private.expose());
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.folder.path()).unwrap().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn load(&self, vmfile: &str, given: Given) -> Desired {
        self.file(FILE_NAME, vmfile);
        loaded(&self.path(FILE_NAME), self.path("home"), given, vmfile)
    }
}

fn loaded(path: &Path, home: PathBuf, given: Given, text: &str) -> Desired {
    let images = FakeImages::default();
    let options = LoadOptions { project: None, home: Some(home), images: &images, given };
    match load(path, &options) {
        Ok(loaded) => loaded.desired,
        Err(report) => panic!("{:#?}\n{text}", report.problems()),
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// `desired` without what the text of it says in another way.
fn compared(mut desired: Desired) -> Desired {
    desired.inputs.clear();
    for vm in desired.vms.values_mut() {
        // What a file calls an image stands in it, and a machine's own image has no name.
        if let Some(DesiredImage::Remote { name, .. }) = &mut vm.image {
            *name = None;
        }
        for step in &mut vm.provision {
            if let Some(path) = vm.text_files.scripts.get(&step.number) {
                step.label = path.display().to_string();
            }
        }
    }
    desired
}

/// Nodes of the text by name, in each block in the order of the grammar.
fn assert_canonical(text: &str) {
    let names: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
        .filter_map(|line| {
            grammar::top().names().iter().position(|name| line.split(' ').next() == Some(name))
        })
        .collect();
    assert!(names.is_sorted(), "{text}");
}

fn assert_means_the_same(site: &Site, desired: &Desired) -> String {
    let text = write(desired);
    let again = site.load(&text, Given::default());
    assert_eq!(compared(again.clone()), compared(desired.clone()), "{text}");
    assert_eq!(write(&again), text);
    assert_canonical(&text);
    text
}

const LANGUAGE: &str = r##"
project "store"
include "more/web.kdl"
variable "size" { type "number"; default 3 }
variable "domain" { default "example.org" }
image "base" { path "disk.img" }
network "lan" { subnet "10.77.0.0/24" }
network "wan"
volume "data-1" size="1.5G" { prevent-destroy }
volume "data-2" size=20
defaults {
    image (ref)"base"
    memory "512M"
    labels { tier 2; "two words" "{{ \"quoted\" }}\\" }
}
template "worker" {
    volume (template)"data-{{ index }}"
    cloud-init { hostname (template)"{{ name }}.{{ var.domain }}" }
    ssh
    provision { script "setup.sh"; env { INDEX (template)"{{ index }}" }; run "always"; user "root"; timeout "90s" }
    provision "file" { source "app.conf"; destination "/etc/app.conf"; mode "0640"; owner "www-data:adm" }
    provision "file" { source "shared"; destination "/srv" }
}
vm "worker" template="worker" count=2 {
    depends-on "db" until="ready"
    network "private" name="lan" address=(template)"10.77.0.1{{ index }}"
    network "private" name="wan"
    network
    lifecycle { replace-when "provision" "vm.worker"; ignore-changes "memory" }
}
vm "db" {
    image "disk.img" sha256="HEX"
    disk 3
    share "shared" "/mnt/x" readonly
    share "./shared" "/mnt/y" driver="virtiofs"
    media "tools.img"
    cloud-init {
        ssh-key "key.pub"
        user "ops" { ssh-key "key.pub"; groups "adm" "docker"; sudo "ALL=(app) ALL"; shell "/bin/sh" }
        user "app" { sudo #false }
        user "boss" { sudo #true }
        packages "git" "curl"
        write-file "/etc/motd" { content "a\nb"; mode "0600"; owner "root:adm" }
        run "echo 'x' > /y"
    }
    ssh { user "deploy"; private-key "key" }
    forward host=8080 guest=80
    forward guest=53 protocol="udp" address="127.0.0.2"
    ready { tcp 5432; log #"^ready \(\d+\)$"#; exec "x \"$A\""; timeout "1500ms" }
    check "Läuft" { exec "curl -f localhost"; tcp 80 }
    state "suspended"
    lifecycle { prevent-destroy }
    provision {
        inline """
            set -e
              cat <<'END'
            	"""tab\"""
            END

            """
    }
}
vm "kernel" {
    kernel "vmlinuz"
    initrd "initrd.img"
    cmdline "console=ttyS0 a=\"b\""
    machine "q35"
    cpu "host,+vmx"
    accel "tcg"
    qemu-arg "-device" "virtio-rng-pci"
    network "tap" bridge="br1"
    image-url "https://example.org/x.qcow2" sha256="HEX"
}
vm "own" { cloud-init { user-data "seed.yaml" merge-keys=#true }; network "none"; firmware "uefi" }
vm "illumos" { backend "propolis" { bootrom "rom.fd"; binary "bin/propolis-server"; api-version "5.0.0"; pool "rpool/vms"; vnic-link "igb0" }; network "vnic" name="vnic0" }
vm "zoned" { backend "propolis" { bootrom "/rom.fd"; pool "rpool/vms"; zone "propolis" link="stub0" address="10.9.0.2/24" }; network "none" }
output "url" (template)"http://{{ vm.db.host }}:{{ vm.db.port.80 }}/{{ '{{' }}{ {{ var.domain }}" { description "Where\nit is" }
output "login" (template)"{{ vm.worker-1.user }}@{{ vm.worker-1.host }}:{{ vm.worker-1.ssh-port }}"
output "plain" "{{ no template }}"
moved from="old" to="db"
removed "gone"
"##;

fn language(site: &Site) -> String {
    site.file("more/web.kdl", "vm \"web\" { provision { script \"own.sh\" }; ssh }\n");
    // The marks that would end the text of several lines are written as they must be there.
    let text = LANGUAGE.replace("\t\"\"\"tab\\\"\"\"", "\t\\\"\\\"\\\"tab\\\\\\\"\\\"\\\"");
    text.replacen("HEX", identity().digest.hex(), 1).replace("HEX", &"ab".repeat(32))
}

#[test]
fn whole_language_is_written_without_its_references() {
    let site = Site::new();
    let vmfile = language(&site);
    let desired = site.load(&vmfile, Given::default());
    let text = assert_means_the_same(&site, &desired);
    for gone in ["(var)", "(ref)", "include", "variable", "defaults", "template=", "count="] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    let shown = text.replace(&site.path("").display().to_string(), "/shop/");
    insta::assert_snapshot!(shown);
    let mut document = resolved::document(&desired);
    assert_eq!(document["inputs"].as_array().unwrap().len(), desired.inputs.len());
    assert_eq!(document["vms"].as_object().unwrap().len(), desired.vms.len());
    assert_eq!(document["outputs"]["plain"]["template"], "{{ '{{' }} no template }}");
    let vm = &mut document["vms"]["db"];
    vm["cloud_init"]["authorized_keys"] = "…".into();
    vm["cloud_init"]["users"][0]["authorized_keys"] = "…".into();
    let shown = serde_json::to_string_pretty(vm).unwrap();
    insta::assert_snapshot!(shown.replace(&site.path("").display().to_string(), "/shop/"));
}

#[test]
fn sensitive_values_are_neither_written_nor_in_the_data() {
    let site = Site::new();
    let vmfile = r#"
        project "shop"
        variable "password" { sensitive; default "hunter2!" }
        vm "web" {
            image "disk.img"
            ssh
            provision { inline (template)"login {{ var.password }}"; env { PASSWORD (var)"password"; MODE "fast" } }
        }
        output "login" (template)"root:{{ var.password }}@{{ vm.web.host }}"
    "#;
    let desired = site.load(vmfile, Given::default());
    let text = write(&desired);
    insta::assert_snapshot!(text.replace(&site.path("").display().to_string(), "/shop/"));
    assert!(!resolved::document(&desired).to_string().contains("hunter2"));
    assert!(!write(&site.load("vm a { image disk.img; }", Given::default())).contains("//"));
}

#[test]
fn examples_are_written_without_a_change_of_meaning() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path().join(FILE_NAME);
        if !path.exists() {
            continue;
        }
        let site = Site::new();
        copy(path.parent().unwrap(), &site.path(""));
        // Images are built, not kept.
        for name in ["tiny.qcow2", "generic/tiny.qcow2", "tiny-vmlinuz", "tiny-initrd.img", "debian.qcow2"] {
            site.file(&format!("images/{name}"), name);
        }
        let text = fs::read_to_string(&path).unwrap().replace("../../.cache/images", "images");
        let environment = [("CI_COMMIT".to_owned(), "0a1b2c".to_owned())].into();
        let desired = site.load(&text, Given { environment, ..Given::default() });
        assert_means_the_same(&site, &desired);
        seen += 1;
    }
    assert!(seen > 0);
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// Texts that are hard to write: marks, braces, blanks, line ends and characters that nobody sees.
fn text() -> impl Strategy<Value = String> {
    let pieces = [
        "a", "Z", "0", " ", "  ", "\t", "\n", "\r", "\r\n", "\"", "\"\"\"", "\\", "\\\n", "{", "{{", "}}",
        "#", "\"#", "/*", "//", "'", "(var)", "=", ";", "\u{b}", "\u{c}", "\u{85}", "\u{a0}", "\u{2028}",
        "\u{3000}", "\u{202e}", "\u{feff}", "\u{7f}", "\u{1}", "ä", "家", "$x", "~/", "C:\\new", "#true",
        "-1",
    ];
    let text = prop::collection::vec(prop::sample::select(pieces.to_vec()), 1..12)
        .prop_map(|pieces| pieces.concat());
    text.prop_filter("empty texts are refused", |text| !text.trim().is_empty())
}

/// Texts of one line.
fn line() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.replace(|c: char| c.is_control() || "\u{202e}\u{feff}".contains(c), "-"))
}

/// What a random VMFile says of its only machine, and of the rest.
fn sketch() -> impl Strategy<Value = Sketch> {
    let duration = (1_000..86_400_000_u64).prop_map(Duration::from_millis);
    let steps = prop::collection::vec((text(), prop::option::of(duration.clone()), text()), 0..3);
    let words = (line(), line(), text(), text());
    let probes = prop::collection::vec((any::<bool>(), text(), 1..=u16::MAX), 0..3);
    let labels = prop::collection::btree_map(line(), prop_oneof![Just(String::new()), text()], 0..3);
    let parts = prop::collection::vec(prop::option::of(text()), 0..5);
    (steps, words, probes, labels, parts, duration, 16..100_000_u64, 2_048..100_000_u64).prop_map(
        |(steps, words, probes, labels, parts, ready, memory_mib, disk_mib)| Sketch {
            steps,
            words,
            probes,
            labels,
            parts,
            ready,
            memory_mib,
            disk_mib,
        },
    )
}

#[derive(Debug, Clone)]
struct Sketch {
    /// Script, timeout, value of a variable.
    steps: Vec<(String, Option<Duration>, String)>,
    /// Command line of a kernel, name of a check, two arguments of QEMU.
    words: (String, String, String, String),
    probes: Vec<(bool, String, u16)>,
    labels: BTreeMap<String, String>,
    parts: Vec<Option<String>>,
    ready: Duration,
    memory_mib: u64,
    disk_mib: u64,
}

impl Sketch {
    fn desired(&self, site: &Site) -> Desired {
        let mut vm = DesiredVm::new(name("web"));
        vm.image = Some(DesiredImage::Local { source: site.path("disk.img"), identity: identity() });
        vm.memory_mib = self.memory_mib;
        vm.disk_bytes = Some(self.disk_mib << 20);
        let file = |path: &str| InputFile {
            path: site.path(path),
            digest: Digest::of(fs::read(site.path(path)).unwrap()),
        };
        vm.hardware.kernel =
            Some(Kernel { kernel: file("vmlinuz"), initrd: None, cmdline: Some(self.words.0.clone()) });
        vm.hardware.qemu_args = vec![self.words.2.clone(), self.words.3.clone()];
        vm.labels.clone_from(&self.labels);
        vm.ssh = Some(SshConfig { user: "me".to_owned(), private_key: Some(site.path("key")) });
        vm.ready = ready_at_login(vm.ssh.as_ref());
        vm.ready.timeout = self.ready;
        let probes =
            self.probes.iter().map(
                |(is_exec, text, port)| {
                    if *is_exec { Probe::Exec(text.clone()) } else { Probe::Tcp(*port) }
                },
            );
        vm.ready.probes.extend(probes.clone());
        if !self.probes.is_empty() {
            vm.checks =
                vec![Check { name: self.words.1.chars().take(60).collect(), probes: probes.collect() }];
        }
        vm.provision = self
            .steps
            .iter()
            .zip(1..)
            .map(|((script, timeout, value), number)| ProvisionStep {
                number,
                label: "inline".to_owned(),
                action: ProvisionAction::Shell { script: script.clone() },
                options: StepOptions {
                    env: [("TEXT".to_owned(), Secret::new(value))].into(),
                    timeout: *timeout,
                    ..StepOptions::default()
                },
                digest: Digest::of(""),
                secrets: Default::default(),
            })
            .collect();
        let host = || OutputPart::Attribute { vm: name("web"), attribute: Attribute::Host };
        let parts = self.parts.iter().map(|part| part.clone().map_or_else(host, OutputPart::Text));
        let mut desired = Desired::new(name("shop"));
        desired.vms.insert(name("web"), vm);
        let output = Output::new(Some(self.words.2.clone()), parts);
        if !output.parts.is_empty() {
            desired.outputs.insert(name("all"), output);
        }
        desired
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_is_read_as_it_was_meant(sketch in sketch()) {
        let site = Site::new();
        let mut desired = sketch.desired(&site);
        let first = write(&desired);
        let read = site.load(&first, Given::default());
        for (vm, read) in desired.vms.values_mut().zip(read.vms.values()) {
            for (step, read) in vm.provision.iter_mut().zip(&read.provision) {
                step.digest.clone_from(&read.digest);
            }
        }
        prop_assert_eq!(compared(read), compared(desired.clone()), "{}", first);
        assert_means_the_same(&site, &desired);
    }
}
