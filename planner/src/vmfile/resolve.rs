//! From the typed AST to the desired state: defaults filled, paths absolute, files read, images identified.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use miette::SourceSpan;
use vmctl_providers::image::ImageIdentity;
use vmctl_providers::provision::{ProvisionAction, ProvisionStep, StepOptions};
use vmctl_providers::{BackendTag, Digest, Forward, Name, NetworkConfig, Protocol, Secrets};

use super::ast::Spanned;
use super::expand::unused;
use super::fields::{shorten, whole_path};
use super::files::{FileError, Files};
use super::grammar::NAME_HELP;
use super::load::Images;
use super::report::Fault;
use super::sources::Sources;
use super::suggest::nearest;
use super::typed::{Action, File, Image, Provision, Vm};
use super::{depend, lifecycle, readiness, renames};
use crate::desired::{
    Desired, DesiredImage, DesiredVm, Firmware, Hardware, InputFile, Kernel, Lifecycle, Output, OutputPart,
    Power, PrivateNetwork, Share, Until, Volume,
};

const DEFAULT_VCPUS: u16 = 1;
const DEFAULT_MEMORY_MIB: u64 = 1024;

/// Everything outside the text that decides the result.
pub(super) struct Surroundings<'a> {
    pub(super) project: Option<Name>,
    pub(super) sources: &'a Sources,
    pub(super) files: Files,
    pub(super) images: &'a dyn Images,
    /// Values that nothing printed or kept may show.
    pub(super) secrets: Secrets,
}

/// Resolves as much as can be; the result is `None`, or not to be used, where an error is among the faults.
pub(super) fn resolve(file: &File, around: Surroundings<'_>) -> (Option<Desired>, Vec<Fault>) {
    let mut resolver = Resolver {
        files: around.files,
        sources: around.sources,
        images: around.images,
        identified: HashMap::new(),
        faults: Vec::new(),
    };
    let (dependencies, faults) = depend::resolve(file);
    resolver.faults.extend(faults);
    let (lifecycles, faults) = lifecycle::resolve(file);
    resolver.faults.extend(faults);
    let (moved, removed, faults) = renames::resolve(file);
    resolver.faults.extend(faults);
    resolver.host_ports(file);
    let networks = resolver.networks(file);
    let volumes = resolver.volumes(file);
    let images = resolver.named_images(file);
    let outputs = resolver.outputs(file);
    let vms: Option<BTreeMap<_, _>> = file
        .vms
        .iter()
        .zip(dependencies.into_iter().zip(lifecycles))
        .map(|(vm, (depends_on, lifecycle))| {
            (vm.name.value.clone(), resolver.vm(vm, &images, depends_on, lifecycle))
        })
        // Each machine is looked at, even after one that failed.
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(name, vm)| Some((name, vm?)))
        .collect();
    let Resolver { files, faults, .. } = resolver;
    let desired = around.project.zip(vms).map(|(project, vms)| {
        let inputs = files.into_inputs();
        let secrets = around.secrets;
        let mut desired =
            Desired { project, vms, moved, removed, networks, volumes, outputs, secrets, inputs };
        desired.hide_secrets();
        desired
    });
    (desired, faults)
}

/// The project's name: as given, else as written, else the folder's.
pub(super) fn project(given: Option<Name>, written: Option<Name>, folder: &Path) -> Result<Name, Fault> {
    given.or(written).or_else(|| name_of_folder(folder)).ok_or_else(|| {
        Fault::error("vmfile::bad-name", "the folder's name cannot serve as the project's name")
            .at((0, 0).into(), "no `project` node in this file")
            .help(format!("write `project \"shop\"` at the top of the file; {NAME_HELP}"))
    })
}

/// State of one run.
pub(super) struct Resolver<'a> {
    pub(super) files: Files,
    sources: &'a Sources,
    images: &'a dyn Images,
    /// What each path was found to be; else the number of the fault that says why not.
    identified: HashMap<PathBuf, Result<ImageIdentity, usize>>,
    pub(super) faults: Vec<Fault>,
}

impl Resolver<'_> {
    pub(super) fn tell(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// The absolute path that `written` means where it stands.
    pub(super) fn path(&self, written: &Spanned<String>) -> Result<PathBuf, FileError> {
        self.files.path_in(self.sources.folder(written.span), &written.value)
    }

    fn vm(
        &mut self,
        vm: &Vm,
        images: &NamedImages<'_>,
        depends_on: BTreeMap<Name, Until>,
        lifecycle: Lifecycle,
    ) -> Option<DesiredVm> {
        let backend = vm.backend.as_ref().map_or(BackendTag::Qemu, |backend| backend.value);
        let networks = self.cards(vm, backend);
        // One that cannot be found is told; the machine is left out then.
        let image = vm.image.as_ref().map(|image| self.image(image, vm.sha256.as_ref(), images));
        let has_image = image.as_ref().is_none_or(Option::is_some);
        let image = image.flatten();
        let disk_bytes = self.disk(vm, image.as_ref());
        let hardware = self.hardware(vm, backend);
        let shares: Vec<_> = vm.shares.iter().map(|share| self.share(share)).collect();
        let login = self.login(vm, networks == [NetworkConfig::None]);
        let provision: Vec<_> =
            vm.provision.iter().enumerate().map(|(index, step)| self.step(index + 1, step)).collect();
        let provision: Option<Vec<_>> = provision.into_iter().collect();
        let mut forwards: Vec<_> = vm.forwards.iter().map(|forward| forward_of(&forward.value)).collect();
        forwards.sort();
        let login = login?;
        let ready = self.readiness(vm, login.ssh.as_ref());
        has_image.then_some(())?;
        Some(DesiredVm {
            name: vm.name.value.clone(),
            backend,
            image,
            hardware: hardware?,
            vcpus: vm.vcpus.as_ref().map_or(DEFAULT_VCPUS, |vcpus| vcpus.value),
            memory_mib: vm.memory_mib.as_ref().map_or(DEFAULT_MEMORY_MIB, |memory| memory.value),
            disk_bytes,
            volumes: vm.volumes.iter().filter_map(|volume| volume.value.parse().ok()).collect(),
            shares: shares.into_iter().collect::<Option<_>>()?,
            networks,
            forwards,
            cloud_init: login.cloud_init,
            ssh: login.ssh,
            provision: provision?,
            power: vm.power.as_ref().map_or(Power::Running, |power| power.value),
            depends_on,
            lifecycle,
            ready,
            checks: readiness::checks(vm),
            labels: vm.labels.clone(),
        })
    }

    /// The network cards of `vm`.
    fn cards(&mut self, vm: &Vm, backend: BackendTag) -> Vec<NetworkConfig> {
        let written = &vm.networks;
        let none = written.iter().find(|network| network.value == NetworkConfig::None);
        if let (Some(none), Some(other)) =
            (none, written.iter().find(|network| network.value != NetworkConfig::None))
        {
            self.tell(
                Fault::error("vmfile::network", "`network \"none\"` stands beside another network")
                    .at(none.span, "no network")
                    .at(other.span, "a network")
                    .help("keep one of them"),
            );
        }
        let mut users = written.iter().filter(|network| network.value == NetworkConfig::User);
        if let (Some(first), Some(second)) = (users.next(), users.next()) {
            self.tell(
                Fault::error("vmfile::duplicate", "a machine has one user network")
                    .at(second.span, "again here")
                    .at(first.span, "first here")
                    .help("keep one of them"),
            );
        }
        let vnic = written.iter().find(|network| matches!(network.value, NetworkConfig::Vnic { .. }));
        if let Some(vnic) = vnic.filter(|_| backend == BackendTag::Qemu) {
            self.tell(
                Fault::error("vmfile::network", "QEMU has no vnic networks: they belong to illumos")
                    .at(vnic.span, "cannot work")
                    .help("use another network, or `backend \"propolis\"`"),
            );
        }
        let is_user =
            written.is_empty() || written.iter().any(|network| network.value == NetworkConfig::User);
        if let Some(forward) = vm.forwards.first().filter(|_| !is_user)
            && let Some(network) = written.first()
        {
            let message = format!("a forward needs a user network, this one is `{}`", kind(&network.value));
            self.tell(
                Fault::error("vmfile::network", message)
                    .at(forward.span, "cannot work")
                    .at(network.span, "this network")
                    .help("use `network \"user\"`, or remove the forward"),
            );
        }
        if let Some(none) = none {
            let ssh = vm.ssh.as_ref().map(|ssh| (ssh.span, "ssh"));
            let steps = vm.provision.first().map(|step| (step.span, "provisioning"));
            let probes = readiness::first_in_need_of_a_login(vm).map(|probe| (probe.span, probe.value));
            for (span, what) in ssh.into_iter().chain(steps).chain(probes) {
                self.tell(
                    Fault::error("vmfile::network", format!("{what} needs a network, and there is none"))
                        .at(span, "cannot work")
                        .at(none.span, "no network")
                        .help("use `network \"user\"`, or remove it"),
                );
            }
        }
        if written.is_empty() {
            vec![NetworkConfig::User]
        } else {
            written.iter().map(|network| network.value.clone()).collect()
        }
    }

    /// The private networks, and everything that is wrong with them and with who is in them.
    fn networks(&mut self, file: &File) -> BTreeMap<Name, PrivateNetwork> {
        let mut earlier: Vec<&Spanned<crate::desired::Subnet>> = Vec::new();
        for subnet in file.networks.iter().filter_map(|network| network.subnet.as_ref()) {
            if let Some(other) = earlier.iter().find(|other| other.value.overlaps(subnet.value)) {
                self.tell(
                    Fault::error(
                        "vmfile::network",
                        format!("the networks {} and {} overlap", subnet.value, other.value),
                    )
                    .at(subnet.span, "overlaps")
                    .at(other.span, "with this one")
                    .help("give each network addresses of its own"),
                );
            }
            earlier.push(subnet);
        }
        let mut members: HashMap<&Name, Vec<(&Name, SourceSpan)>> = HashMap::new();
        let mut taken: HashMap<(&Name, Ipv4Addr), SourceSpan> = HashMap::new();
        for vm in &file.vms {
            for card in &vm.networks {
                let NetworkConfig::Private { name, address } = &card.value else { continue };
                let Some(network) = file.networks.iter().find(|network| network.name.value == *name) else {
                    let known = file.networks.iter().map(|network| network.name.value.as_str());
                    self.tell(unknown("network", name.as_str(), card.span, known, "`network \"lan\"`"));
                    continue;
                };
                let others = members.entry(name).or_default();
                if let Some((_, first)) = others.iter().find(|(member, _)| **member == vm.name.value) {
                    self.tell(
                        Fault::error(
                            "vmfile::duplicate",
                            format!("`{}` is in the network `{name}` twice", vm.name.value),
                        )
                        .at(card.span, "again here")
                        .at(*first, "first here")
                        .help("keep one of them"),
                    );
                }
                others.push((&vm.name.value, card.span));
                let Some(address) = *address else { continue };
                if let Some(subnet) = &network.subnet {
                    let wrong = match address {
                        _ if !subnet.value.contains(address) => Some("is not in"),
                        _ if address == subnet.value.network => Some("is the first address of"),
                        _ if address == subnet.value.broadcast() => Some("is the broadcast address of"),
                        _ => None,
                    };
                    if let Some(wrong) = wrong {
                        let message =
                            format!("the address {address} {wrong} the network `{name}`, {}", subnet.value);
                        self.tell(
                            Fault::error("vmfile::network", message)
                                .at(card.span, "this card")
                                .at(subnet.span, "its network")
                                .help("choose another address, or leave it out"),
                        );
                    }
                }
                if let Some(first) = taken.insert((name, address), card.span) {
                    self.tell(
                        Fault::error(
                            "vmfile::duplicate",
                            format!("the address {address} is given twice in the network `{name}`"),
                        )
                        .at(card.span, "again here")
                        .at(first, "first here")
                        .help("give each machine an address of its own, or leave them out"),
                    );
                }
            }
        }
        for network in file.networks.iter().filter(|network| !members.contains_key(&network.name.value)) {
            let name = Spanned { value: network.name.value.as_str(), span: network.name.span };
            self.tell(unused("network", &name, &format!("`network \"private\" name=\"{}\"`", name.value)));
        }
        let network = |network: &super::typed::Network| {
            let subnet = network.subnet.as_ref().map(|subnet| subnet.value);
            (network.name.value.clone(), PrivateNetwork { subnet })
        };
        file.networks.iter().map(network).collect()
    }

    /// The volumes, and everything that is wrong with them and with whom they belong to.
    fn volumes(&mut self, file: &File) -> BTreeMap<Name, Volume> {
        let mut owners: HashMap<&str, (&Name, SourceSpan)> = HashMap::new();
        for (vm, volume) in file.vms.iter().flat_map(|vm| vm.volumes.iter().map(move |volume| (vm, volume))) {
            let name = volume.value.as_str();
            if !file.volumes.iter().any(|volume| volume.name.value.as_str() == name) {
                let known = file.volumes.iter().map(|volume| volume.name.value.as_str());
                self.tell(unknown("volume", name, volume.span, known, "`volume \"data\" size=\"10G\"`"));
            } else if let Some((owner, first)) = owners.get(name) {
                let message = format!("the volume `{name}` belongs to `{owner}` and to `{}`", vm.name.value);
                self.tell(
                    Fault::error("vmfile::volume", message)
                        .at(volume.span, "again here")
                        .at(*first, "first here")
                        .help("a volume belongs to one machine; with a `count`, write `volume (template)\"data-{{ index }}\"`"),
                );
            } else {
                owners.insert(name, (&vm.name.value, volume.span));
            }
        }
        for volume in file.volumes.iter().filter(|volume| !owners.contains_key(volume.name.value.as_str())) {
            let name = Spanned { value: volume.name.value.as_str(), span: volume.name.span };
            self.tell(unused("volume", &name, &format!("`volume \"{}\"` in a `vm`", name.value)));
        }
        let volume = |volume: &super::typed::Volume| {
            let size_bytes = volume.size_mib.unwrap_or_default() << 20;
            (volume.name.value.clone(), Volume { size_bytes, prevent_destroy: volume.prevent_destroy })
        };
        file.volumes.iter().map(volume).collect()
    }

    /// The named images, each with whether it is used.
    fn named_images<'f>(&mut self, file: &'f File) -> NamedImages<'f> {
        let images: NamedImages<'f> =
            file.images.iter().map(|image| (image.name.value.as_str(), image)).collect();
        let used = |image: &&super::typed::NamedImage| {
            let names = |vm: &Vm| matches!(&vm.image, Some(Spanned { value: Image::Named(name), .. }) if *name == image.name.value);
            file.vms.iter().any(names)
        };
        for image in file.images.iter().filter(|image| !used(image)) {
            let name = Spanned { value: image.name.value.as_str(), span: image.name.span };
            self.tell(unused("image", &name, &format!("`image (ref)\"{}\"`", name.value)));
        }
        images
    }

    /// The outputs; what they say of machines is checked.
    fn outputs(&mut self, file: &File) -> BTreeMap<Name, Output> {
        for output in &file.outputs {
            for part in &output.parts.value {
                let OutputPart::Attribute { vm, attribute } = part else { continue };
                let span = output.parts.span;
                let Some(machine) = file.vms.iter().find(|known| known.name.value == *vm) else {
                    if !file.declared.iter().any(|declared| declared.value == vm.as_str()) {
                        let known = file.declared.iter().map(|declared| declared.value.as_str());
                        self.tell(unknown("machine", vm.as_str(), span, known, "`vm \"web\" { … }`"));
                    }
                    continue;
                };
                let missing = match attribute {
                    crate::desired::Attribute::Port(port) => {
                        let leads = |forward: &Spanned<super::typed::Forward>| {
                            forward.value.guest == *port && forward.value.protocol == Protocol::Tcp
                        };
                        (!machine.forwards.iter().any(leads)).then(|| {
                            (
                                format!("no forward leads to port {port} of `{vm}`"),
                                format!("add `forward guest={port}` to `{vm}`"),
                            )
                        })
                    }
                    crate::desired::Attribute::SshPort | crate::desired::Attribute::User => {
                        let logs_in = machine.ssh.is_some()
                            || machine.cloud_init.as_ref().is_some_and(|seed| seed.user_data.is_none());
                        (!logs_in)
                            .then(|| (format!("nobody logs in to `{vm}`"), format!("add `ssh` to `{vm}`")))
                    }
                    crate::desired::Attribute::Host => None,
                };
                if let Some((message, help)) = missing {
                    self.tell(Fault::error("vmfile::template", message).at(span, "in this text").help(help));
                }
            }
        }
        let output = |output: &super::typed::Output| {
            let parts = output.parts.value.clone();
            (output.name.value.clone(), Output { description: output.description.clone(), parts })
        };
        file.outputs.iter().map(output).collect()
    }

    fn hardware(&mut self, vm: &Vm, backend: BackendTag) -> Option<Hardware> {
        let text = |written: &Option<Spanned<String>>| written.as_ref().map(|text| text.value.clone());
        let firmware = vm.firmware.as_ref().map(|firmware| firmware.value).unwrap_or_default();
        for (written, name) in [(&vm.initrd, "initrd"), (&vm.cmdline, "cmdline")] {
            if let Some(written) = written.as_ref().filter(|_| vm.kernel.is_none()) {
                self.tell(
                    Fault::error("vmfile::kernel", format!("`{name}` needs a `kernel`"))
                        .at(written.span, "nothing boots with it")
                        .help(format!("add `kernel \"vmlinuz\"`, or remove `{name}`")),
                );
            }
        }
        if let (Some(kernel), Some(written), Firmware::Uefi) = (&vm.kernel, &vm.firmware, firmware) {
            self.tell(
                Fault::error("vmfile::kernel", "a kernel that is booted directly needs no UEFI")
                    .at(kernel.span, "booted directly")
                    .at(written.span, "boots from the disk")
                    .help("keep one of them"),
            );
        }
        if let Some(arg) = vm.qemu_args.first() {
            if backend == BackendTag::Qemu {
                self.tell(
                    Fault::warning("vmfile::qemu-arg", "arguments of QEMU are passed on as they are")
                        .at(arg.span, "vmctl knows nothing of what it does")
                        .help("they can break what vmctl relies on; see whether a node of the VMFile does the same"),
                );
            } else {
                self.tell(
                    Fault::error(
                        "vmfile::qemu-arg",
                        format!("`qemu-arg` means nothing to the backend `{backend}`"),
                    )
                    .at(arg.span, "cannot work")
                    .help("remove it, or use `backend \"qemu\"`"),
                );
            }
        }
        let kernel = match &vm.kernel {
            None => None,
            Some(kernel) => {
                let kernel = self.boot_file("kernel", kernel);
                let initrd = vm.initrd.as_ref().map(|initrd| self.boot_file("initrd", initrd));
                let initrd = match initrd {
                    None => None,
                    Some(found) => Some(found?),
                };
                Some(Kernel { kernel: kernel?, initrd, cmdline: text(&vm.cmdline) })
            }
        };
        Some(Hardware {
            firmware,
            kernel,
            machine: text(&vm.machine),
            cpu: text(&vm.cpu),
            accel: vm.accel.as_ref().map(|accel| accel.value).unwrap_or_default(),
            qemu_args: vm.qemu_args.iter().map(|arg| arg.value.clone()).collect(),
        })
    }

    fn boot_file(&mut self, what: &str, written: &Spanned<String>) -> Option<InputFile> {
        let path = self.path(written);
        match path.and_then(|path| {
            self.files.content(&path).map(|content| InputFile { path, digest: content.digest })
        }) {
            Ok(file) => Some(file),
            Err(error) => {
                self.unreadable(what, written, &error);
                None
            }
        }
    }

    fn share(&mut self, share: &super::typed::Share) -> Option<Share> {
        let found = self.path(&share.source);
        let wrong = match &found {
            Ok(path) if path.is_dir() => None,
            Ok(path) if path.exists() => {
                Some(("it is no folder".to_owned(), "name the folder that it is in"))
            }
            Ok(_) => Some((
                "no such folder".to_owned(),
                "make it, or check the path; it is relative to the VMFile's folder",
            )),
            Err(error) => Some((error.to_string(), error.help())),
        };
        if let Some((why, help)) = wrong {
            let message = format!("cannot share `{}`: {why}", shorten(&share.source.value));
            self.tell(Fault::error("vmfile::file", message).at(share.source.span, "this path").help(help));
            return None;
        }
        Some(Share { source: found.ok()?, target: share.target.value.clone(), readonly: share.readonly })
    }

    fn image(
        &mut self,
        image: &Spanned<Image>,
        sha256: Option<&Spanned<String>>,
        named: &NamedImages<'_>,
    ) -> Option<DesiredImage> {
        let (written, path) = match &image.value {
            Image::Path(written) => {
                (written, self.path(&Spanned { value: written.clone(), span: image.span }))
            }
            Image::FileUrl(path) => (path, Ok(PathBuf::from(path))),
            Image::Url(url) => {
                let sha256 = sha256.map(|digits| Digest::from_hex(&digits.value));
                return Some(DesiredImage::Remote { url: url.clone(), sha256 });
            }
            Image::Named(name) => {
                let Some(definition) = named.get(name.as_str()) else {
                    let known = named.keys().copied();
                    self.tell(unknown(
                        "image",
                        name,
                        image.span,
                        known,
                        "`image \"debian\" { path \"debian.qcow2\" }`",
                    ));
                    return None;
                };
                // Without one, its definition has a fault of its own.
                let image = definition.image.as_ref()?;
                return self.image(image, definition.sha256.as_ref(), &NamedImages::new());
            }
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
        let identity = self.identity(written, &source, image.span)?;
        if let Some(pin) = sha256.filter(|pin| pin.value != identity.digest.hex()) {
            let message = format!("`{}` is not the image that is asked for", whole_path(&source));
            self.tell(
                Fault::error("vmfile::image", message)
                    .at(pin.span, format!("the file has {}", identity.digest.hex()))
                    .at(image.span, "this file")
                    .help("get the right file, or write the digest of this one if you trust it"),
            );
            return None;
        }
        Some(DesiredImage::Local { source, identity })
    }

    /// What the image at `source` is; told where it cannot be used.
    fn identity(&mut self, written: &str, source: &Path, span: SourceSpan) -> Option<ImageIdentity> {
        match self.identified.get(source) {
            Some(Ok(identity)) => return Some(identity.clone()),
            Some(Err(fault)) => {
                self.faults[*fault].add_label(span, "and here");
                return None;
            }
            None => {}
        }
        let found = match image_fault(written, source, span) {
            Some(fault) => Err(fault),
            None => self.images.identify(source).map_err(|error| {
                let help = "an image is a disk in QCOW2 or raw format that you may read";
                Fault::error("vmfile::image", with_causes(&error))
                    .at(span, "this image")
                    .help(error.help().unwrap_or_else(|| help.to_owned()))
            }),
        };
        let found = found.map_err(|fault| {
            self.faults.push(fault);
            self.faults.len() - 1
        });
        let identity = found.as_ref().ok().cloned();
        self.identified.insert(source.to_owned(), found);
        identity
    }

    fn disk(&mut self, vm: &Vm, image: Option<&DesiredImage>) -> Option<u64> {
        let disk = vm.disk_mib.as_ref()?;
        let bytes = disk.value << 20;
        let size = image.and_then(DesiredImage::identity).map(|identity| identity.virtual_size);
        if let Some(size) = size.filter(|size| *size > bytes) {
            let message =
                format!("the disk ({}) is smaller than its image ({})", gigabytes(bytes), gigabytes(size));
            let needed = size.div_ceil(1 << 30);
            self.tell(Fault::error("vmfile::disk", message).at(disk.span, "too small").help(format!(
                "write `disk {needed}` or more, or remove it: the disk then has the image's size"
            )));
        }
        Some(bytes)
    }

    fn step(&mut self, number: usize, step: &Provision) -> Option<ProvisionStep> {
        let options = step.options.clone();
        match step.action.as_ref()? {
            Action::Inline(text) => Some(shell(number, "inline".to_owned(), text.value.clone(), options)),
            Action::Script(script) => {
                let text = self.read("script", script)?;
                Some(shell(number, script.value.clone(), text, options))
            }
            Action::File { source, destination } => {
                let path = self.path(source);
                let found =
                    path.and_then(|path| self.files.content_of_any(&path).map(|content| (path, content)));
                let (path, content) = match found {
                    Ok(found) => found,
                    Err(error) => {
                        self.unreadable("file", source, &error);
                        return None;
                    }
                };
                let mode = format!("{:o}", content.mode);
                let digest = digest(&["file", content.digest.as_str(), &mode, &destination.value], &options);
                Some(ProvisionStep {
                    number,
                    label: destination.value.clone(),
                    action: copying(path, destination.value.clone()),
                    options,
                    digest,
                    secrets: Secrets::default(),
                })
            }
        }
    }

    /// The text of a file that a node names; told if it cannot be read.
    pub(super) fn read(&mut self, what: &str, written: &Spanned<String>) -> Option<String> {
        let path = self.path(written);
        match path.and_then(|path| self.files.text(&path)) {
            Ok(text) => Some(text),
            Err(error) => {
                self.unreadable(what, written, &error);
                None
            }
        }
    }

    pub(super) fn unreadable(&mut self, what: &str, written: &Spanned<String>, error: &FileError) {
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

fn forward_of(written: &super::typed::Forward) -> Forward {
    Forward {
        protocol: written.protocol,
        host_address: written.address,
        host_port: written.host,
        guest_port: written.guest,
    }
}

/// What a file step does.
fn copying(source: PathBuf, destination: String) -> ProvisionAction {
    if source.is_dir() {
        ProvisionAction::Folder { source, destination }
    } else {
        ProvisionAction::File { source, destination }
    }
}

fn shell(number: usize, label: String, script: String, options: StepOptions) -> ProvisionStep {
    let digest = digest(&["shell", &script], &options);
    let action = ProvisionAction::Shell { script };
    ProvisionStep { number, label, action, options, digest, secrets: Secrets::default() }
}

/// The digest of what a step does, with what its options add to that; when it runs and how long it may take add nothing.
fn digest(parts: &[&str], options: &StepOptions) -> Digest {
    let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
    parts.extend(options.env.iter().map(|(name, value)| format!("env {name}={}", value.expose())));
    parts.extend(options.user.iter().map(|user| format!("user {user}")));
    parts.extend(options.mode.iter().map(|mode| format!("mode {mode:o}")));
    parts.extend(options.owner.iter().map(|owner| format!("owner {owner}")));
    Digest::of(parts.join("\0"))
}

/// Named images by name.
type NamedImages<'f> = BTreeMap<&'f str, &'f super::typed::NamedImage>;

/// Something is named that is not written at the top level, where it would be written as `usage`.
fn unknown<'k>(
    what: &str,
    name: &str,
    span: SourceSpan,
    known: impl Iterator<Item = &'k str>,
    usage: &str,
) -> Fault {
    let help = match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write it at the top level, such as {usage}"),
    };
    Fault::error("vmfile::unknown-reference", format!("there is no {what} `{}`", shorten(name)))
        .at(span, "not known")
        .help(help)
}

/// The kind of a network as written.
fn kind(network: &NetworkConfig) -> &'static str {
    match network {
        NetworkConfig::User => "user",
        NetworkConfig::Private { .. } => "private",
        NetworkConfig::Tap { .. } => "tap",
        NetworkConfig::Vnic { .. } => "vnic",
        NetworkConfig::None => "none",
    }
}

/// What is wrong with an image's path before anybody reads the file.
fn image_fault(written: &str, source: &Path, span: SourceSpan) -> Option<Fault> {
    use super::files::open_regular;
    let error = open_regular(source).err()?;
    let scheme = written.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| !scheme.contains('/'));
    let help = match (&error, scheme) {
        (FileError::Missing, Some("http" | "https" | "oci" | "docker")) => {
            "`image` takes a path; write `image-url` for a URL".to_owned()
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
