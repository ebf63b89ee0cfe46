//! From the typed AST to the desired state: defaults filled, paths absolute, files read, images identified.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use miette::SourceSpan;
use vmctl_providers::image::ImageIdentity;
use vmctl_providers::provision::{ProvisionAction, ProvisionStep};
use vmctl_providers::{BackendTag, Digest, Forward, Name, NetworkConfig, Protocol};

use super::ast::{Action, File, Image, Provision, Spanned, Vm};
use super::fields::{shorten, whole_path};
use super::files::Files;
use super::grammar::NAME_HELP;
use super::load::Images;
use super::report::Fault;
use super::{depend, lifecycle, readiness, renames};
use crate::desired::{Desired, DesiredImage, DesiredVm, InputFile, Lifecycle, Power, Until};

const DEFAULT_VCPUS: u16 = 1;
const DEFAULT_MEMORY_MIB: u64 = 1024;

/// Everything outside the text that decides the result.
pub(super) struct Surroundings<'a> {
    /// The VMFile's folder, absolute.
    pub(super) folder: PathBuf,
    pub(super) home: Option<PathBuf>,
    pub(super) project: Option<Name>,
    pub(super) images: &'a dyn Images,
    /// The VMFile itself.
    pub(super) itself: InputFile,
}

/// Resolves as much as can be; the result is `None`, or not to be used, where an error is among the faults.
pub(super) fn resolve(file: &File, around: Surroundings<'_>) -> (Option<Desired>, Vec<Fault>) {
    let mut files = Files::new(around.folder.clone(), around.home);
    files.note(&around.itself.path, around.itself.digest);
    let mut resolver =
        Resolver { files, images: around.images, identified: HashMap::new(), faults: Vec::new() };
    let project = project(file, around.project, &around.folder).map_err(|fault| resolver.tell(fault)).ok();
    let (dependencies, faults) = depend::resolve(file);
    resolver.faults.extend(faults);
    let (lifecycles, faults) = lifecycle::resolve(file);
    resolver.faults.extend(faults);
    let (moved, removed, faults) = renames::resolve(file);
    resolver.faults.extend(faults);
    resolver.host_ports(file);
    let vms: Option<BTreeMap<_, _>> = file
        .vms
        .iter()
        .zip(dependencies.into_iter().zip(lifecycles))
        .map(|(vm, (depends_on, lifecycle))| (vm.name.value.clone(), resolver.vm(vm, depends_on, lifecycle)))
        // Each machine is looked at, even after one that failed.
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(name, vm)| Some((name, vm?)))
        .collect();
    let Resolver { files, faults, .. } = resolver;
    let desired = project.zip(vms).map(|(project, vms)| Desired {
        project,
        vms,
        moved,
        removed,
        inputs: files.into_inputs(),
    });
    (desired, faults)
}

/// The project's name: as given, else as written, else the folder's.
pub(super) fn project(file: &File, given: Option<Name>, folder: &Path) -> Result<Name, Fault> {
    let written = given.or_else(|| file.project.as_ref().map(|project| project.value.clone()));
    written.or_else(|| name_of_folder(folder)).ok_or_else(|| {
        Fault::error("vmfile::bad-name", "the folder's name cannot serve as the project's name")
            .at((0, 0).into(), "no `project` node in this file")
            .help(format!("write `project \"shop\"` at the top of the file; {NAME_HELP}"))
    })
}

/// State of one run.
pub(super) struct Resolver<'a> {
    pub(super) files: Files,
    images: &'a dyn Images,
    /// What each path was found to be; else the number of the fault that says why not.
    identified: HashMap<PathBuf, Result<ImageIdentity, usize>>,
    pub(super) faults: Vec<Fault>,
}

impl Resolver<'_> {
    pub(super) fn tell(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    fn vm(&mut self, vm: &Vm, depends_on: BTreeMap<Name, Until>, lifecycle: Lifecycle) -> Option<DesiredVm> {
        let backend = self.backend(vm);
        let network = self.network(vm, backend);
        let image = vm.image.as_ref().and_then(|image| self.image(image));
        let disk_bytes = self.disk(vm, image.as_ref());
        let login = self.login(vm, network == NetworkConfig::None);
        let provision: Vec<_> =
            vm.provision.iter().enumerate().map(|(index, step)| self.step(index + 1, step)).collect();
        let provision: Option<Vec<_>> = provision.into_iter().collect();
        let mut forwards: Vec<_> = vm.forwards.iter().map(|forward| forward_of(&forward.value)).collect();
        forwards.sort();
        let login = login?;
        let ready = self.readiness(vm, login.ssh.as_ref());
        Some(DesiredVm {
            name: vm.name.value.clone(),
            backend,
            image: image?,
            vcpus: vm.vcpus.as_ref().map_or(DEFAULT_VCPUS, |vcpus| vcpus.value),
            memory_mib: vm.memory_mib.as_ref().map_or(DEFAULT_MEMORY_MIB, |memory| memory.value),
            disk_bytes,
            networks: vec![network],
            forwards,
            cloud_init: login.cloud_init,
            ssh: login.ssh,
            provision: provision?,
            power: vm.power.as_ref().map_or(Power::Running, |power| power.value),
            depends_on,
            lifecycle,
            ready,
            checks: readiness::checks(vm),
        })
    }

    fn backend(&mut self, vm: &Vm) -> BackendTag {
        if let Some(backend) = vm.backend.as_ref().filter(|backend| backend.value == BackendTag::Propolis) {
            self.tell(
                Fault::error("vmfile::unsupported", "the backend `propolis` is not yet available")
                    .at(backend.span, "comes in a later release")
                    .help("use `backend \"qemu\"`, or leave the node out"),
            );
        }
        vm.backend.as_ref().map_or(BackendTag::Qemu, |backend| backend.value)
    }

    fn network(&mut self, vm: &Vm, backend: BackendTag) -> NetworkConfig {
        let Some(network) = &vm.network else { return NetworkConfig::User };
        let kind = match network.value {
            NetworkConfig::User => return NetworkConfig::User,
            NetworkConfig::None => "none",
            NetworkConfig::Tap { .. } => "tap",
            NetworkConfig::Vnic { .. } => "vnic",
        };
        if network.value != NetworkConfig::None && backend == BackendTag::Qemu {
            self.tell(
                Fault::error("vmfile::unsupported", format!("a {kind} network is not yet supported on qemu"))
                    .at(network.span, "comes in a later release")
                    .help("use `network \"user\"`; `forward host=8080 guest=80` makes a port of the guest reachable"),
            );
        }
        if let Some(forward) = vm.forwards.first() {
            self.tell(
                Fault::error(
                    "vmfile::network",
                    format!("a forward needs a user network, this one is `{kind}`"),
                )
                .at(forward.span, "cannot work")
                .at(network.span, "this network")
                .help("use `network \"user\"`, or remove the forward"),
            );
        }
        if network.value == NetworkConfig::None {
            let ssh = vm.ssh.as_ref().map(|ssh| (ssh.span, "ssh"));
            let steps = vm.provision.first().map(|step| (step.span, "provisioning"));
            let probes = readiness::first_in_need_of_a_login(vm).map(|probe| (probe.span, probe.value));
            for (span, what) in ssh.into_iter().chain(steps).chain(probes) {
                self.tell(
                    Fault::error("vmfile::network", format!("{what} needs a network, and there is none"))
                        .at(span, "cannot work")
                        .at(network.span, "no network")
                        .help("use `network \"user\"`, or remove it"),
                );
            }
        }
        network.value.clone()
    }

    fn image(&mut self, image: &Spanned<Image>) -> Option<DesiredImage> {
        let written = match &image.value {
            Image::Path(written) => written,
            Image::FileUrl(path) => path,
        };
        let path = match &image.value {
            Image::Path(written) => self.files.path(written),
            Image::FileUrl(path) => Ok(PathBuf::from(path)),
        };
        let source = match path {
            Ok(path) => path,
            Err(error) => {
                let message = format!("cannot find the image `{}`: {error}", shorten(written));
                self.tell(
                    Fault::error("vmfile::image", message).at(image.span, "this path").help(error.help()),
                );
                return None;
            }
        };
        match self.identified.get(&source) {
            Some(Ok(identity)) => return Some(DesiredImage { source, identity: identity.clone() }),
            Some(Err(fault)) => {
                self.faults[*fault].add_label(image.span, "and here");
                return None;
            }
            None => {}
        }
        let found = match image_fault(written, &source, image.span) {
            Some(fault) => Err(fault),
            None => self.images.identify(&source).map_err(|error| {
                let help = "an image is a disk in QCOW2 or raw format that you may read";
                Fault::error("vmfile::image", with_causes(&error))
                    .at(image.span, "this image")
                    .help(error.help().unwrap_or_else(|| help.to_owned()))
            }),
        };
        let found = found.map_err(|fault| {
            self.faults.push(fault);
            self.faults.len() - 1
        });
        let identity = found.as_ref().ok().cloned();
        self.identified.insert(source.clone(), found);
        identity.map(|identity| DesiredImage { source, identity })
    }

    fn disk(&mut self, vm: &Vm, image: Option<&DesiredImage>) -> Option<u64> {
        let disk = vm.disk_gib.as_ref()?;
        let bytes = disk.value << 30;
        if let Some(size) = image.map(|image| image.identity.virtual_size).filter(|size| *size > bytes) {
            let message =
                format!("the disk ({} GB) is smaller than its image ({})", disk.value, gigabytes(size));
            let needed = size.div_ceil(1 << 30);
            self.tell(Fault::error("vmfile::disk", message).at(disk.span, "too small").help(format!(
                "write `disk {needed}` or more, or remove it: the disk then has the image's size"
            )));
        }
        Some(bytes)
    }

    fn step(&mut self, number: usize, step: &Provision) -> Option<ProvisionStep> {
        match step.action.as_ref()? {
            Action::Inline(text) => Some(shell(number, "inline".to_owned(), text.value.clone())),
            Action::Script(script) => {
                let text = self.read("script", script)?;
                Some(shell(number, script.value.clone(), text))
            }
            Action::File { source, destination } => {
                let path = self.files.path(&source.value);
                let found = path.and_then(|path| self.files.content(&path).map(|content| (path, content)));
                let (path, content) = match found {
                    Ok(found) => found,
                    Err(error) => {
                        self.unreadable("file", source, &error);
                        return None;
                    }
                };
                let mode = format!("{:o}", content.mode);
                let parts = ["file", content.digest.as_str(), &mode, &destination.value];
                Some(ProvisionStep {
                    number,
                    label: destination.value.clone(),
                    action: ProvisionAction::File { source: path, destination: destination.value.clone() },
                    digest: Digest::of(parts.join("\0")),
                })
            }
        }
    }

    /// The text of a file that a node names; told if it cannot be read.
    pub(super) fn read(&mut self, what: &str, written: &Spanned<String>) -> Option<String> {
        let path = self.files.path(&written.value);
        match path.and_then(|path| self.files.text(&path)) {
            Ok(text) => Some(text),
            Err(error) => {
                self.unreadable(what, written, &error);
                None
            }
        }
    }

    pub(super) fn unreadable(
        &mut self,
        what: &str,
        written: &Spanned<String>,
        error: &super::files::FileError,
    ) {
        let message = format!("cannot read the {what} `{}`: {error}", shorten(&written.value));
        self.tell(Fault::error("vmfile::file", message).at(written.span, "this path").help(error.help()));
    }

    /// Fixed host ports are bound by one forward each; a forward on all addresses takes the port everywhere.
    fn host_ports(&mut self, file: &File) {
        let mut taken: HashMap<(Protocol, u16), Vec<(IpAddr, SourceSpan)>> = HashMap::new();
        for written in file.vms.iter().flat_map(|vm| &vm.forwards) {
            let forward = &written.value;
            if !forward.address.is_loopback() {
                let what = if forward.address.is_unspecified() {
                    "all networks of this host".to_owned()
                } else {
                    format!("the network of {}", forward.address)
                };
                self.tell(
                    Fault::warning("vmfile::exposed", format!("a port of the guest is exposed to {what}"))
                        .at(written.span, "reachable from other hosts")
                        .help("leave `address` out to reach it from this host only"),
                );
            }
            if forward.host == 0 {
                continue;
            }
            let holders = taken.entry((forward.protocol, forward.host)).or_default();
            let clash = holders.iter().find(|(address, _)| {
                *address == forward.address || address.is_unspecified() || forward.address.is_unspecified()
            });
            if let Some((_, earlier)) = clash {
                let (port, protocol) = (forward.host, forward.protocol.as_str());
                self.faults.push(
                    Fault::error(
                        "vmfile::duplicate",
                        format!("port {port}/{protocol} of this host is forwarded twice"),
                    )
                    .at(written.span, "again here")
                    .at(*earlier, "first here")
                    .help("use another host port, or leave `host` out: a free port is then chosen at start"),
                );
            } else {
                holders.push((forward.address, written.span));
            }
        }
    }
}

fn forward_of(written: &super::ast::Forward) -> Forward {
    Forward {
        protocol: written.protocol,
        host_address: written.address,
        host_port: written.host,
        guest_port: written.guest,
    }
}

fn shell(number: usize, label: String, script: String) -> ProvisionStep {
    let digest = Digest::of(["shell", &script].join("\0"));
    ProvisionStep { number, label, action: ProvisionAction::Shell { script }, digest }
}

/// What is wrong with an image's path before anybody reads the file.
fn image_fault(written: &str, source: &Path, span: SourceSpan) -> Option<Fault> {
    use super::files::{FileError, open_regular};
    let error = open_regular(source).err()?;
    let scheme = written.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| !scheme.contains('/'));
    let help = match (&error, scheme) {
        (FileError::Missing, Some("http" | "https" | "oci" | "docker")) => {
            "images from the network are not yet supported: download it and write its local path".to_owned()
        }
        (FileError::Missing, Some("file")) => {
            "`image` takes a path; write `image-url` for a URL, or leave `file://` out".to_owned()
        }
        (FileError::Missing, Some(scheme)) => format!(
            "`{}:` has no special meaning here: this is the path `{}`",
            shorten(scheme),
            whole_path(source)
        ),
        _ => error.help().to_owned(),
    };
    let message = match error {
        FileError::Missing => format!("image file not found: `{}`", whole_path(source)),
        error => format!("cannot read the image `{}`: {error}", whole_path(source)),
    };
    Some(Fault::error("vmfile::image", message).at(span, "this path").help(help))
}

/// An error with its causes, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A size for people: in GB with one digit, never rounded down to what would not suffice.
fn gigabytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << 30);
    format!("{}.{} GB", tenths / 10, tenths % 10)
}

/// A project's name made of the folder's: bad characters become `-`, bad ends are cut off.
fn name_of_folder(folder: &Path) -> Option<Name> {
    let text = folder.file_name()?.to_string_lossy();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut text: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    while text.contains("..") {
        text = text.replace("..", ".");
    }
    let ends = |c: char| !c.is_ascii_alphanumeric();
    let mut text = text.trim_matches(ends).to_owned();
    text.truncate(vmctl_providers::name::MAX_NAME);
    text.trim_end_matches(ends).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_become_valid_project_names() {
        let name = |folder: &str| name_of_folder(Path::new(folder)).map(|name| name.to_string());
        assert_eq!(name("/src/shop").as_deref(), Some("shop"));
        assert_eq!(name("/src/My Shop (2)").as_deref(), Some("My-Shop--2"));
        assert_eq!(name("/src/.hidden..x").as_deref(), Some("hidden.x"));
        assert_eq!(name("/src/bür-o").as_deref(), Some("b-r-o"));
        assert_eq!(name(&format!("/{}-x", "a".repeat(62))), Some("a".repeat(62)));
        assert_eq!(name("/src/家"), None);
        assert_eq!(name("/"), None);
    }

    #[test]
    fn sizes_are_never_rounded_down() {
        assert_eq!(gigabytes(3 << 30), "3.0 GB");
        assert_eq!(gigabytes((3 << 30) + 1), "3.1 GB");
        assert_eq!(gigabytes(u64::MAX), "17179869184.0 GB");
    }
}
