//! From the typed AST to the desired state: defaults filled, paths absolute, files read, images identified.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use miette::SourceSpan;
use vmctl_providers::image::ImageIdentity;
use vmctl_providers::{BackendTag, Digest, Name, Secrets};

use super::ast::Spanned;
use super::fields::shorten;
use super::files::{FileError, Files};
use super::forward::forward_of;
use super::grammar::NAME_HELP;
use super::image::NamedImages;
use super::load::Images;
use super::report::Fault;
use super::sources::Sources;
use super::suggest::nearest;
use super::typed::{Action, File, Vm};
use super::volume::vm_volumes;
use super::{depend, lifecycle, readiness, renames};
use crate::desired::{Desired, DesiredVm, Lifecycle, Power, TextFiles, Until, Volume, WarmChoice};
use crate::pins::{Lock, LockFile};

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
    /// The file that pins images, unless it is not to be used.
    pub(super) lock: Option<LockFile>,
}

/// Resolves as much as can be; the result is `None`, or not to be used, where an error is among the faults.
pub(super) fn resolve(file: &File, around: Surroundings<'_>) -> (Option<Desired>, Vec<Fault>) {
    let mut resolver = Resolver {
        files: around.files,
        sources: around.sources,
        images: around.images,
        identified: HashMap::new(),
        secrets: &around.secrets,
        lock_file: around.lock,
        locked: None,
        faults: Vec::new(),
    };
    let (dependencies, faults) = depend::resolve(file);
    resolver.faults.extend(faults);
    let (lifecycles, faults) = lifecycle::resolve(file);
    resolver.faults.extend(faults);
    let (moved, removed, faults) = renames::resolve(file);
    resolver.faults.extend(faults);
    resolver.host_ports(file);
    resolver.distinct_servers(file.vms.iter());
    let networks = resolver.networks(file);
    let volumes = resolver.volumes(file);
    let images = resolver.named_images(file);
    let outputs = resolver.outputs(file);
    let vms: Option<BTreeMap<_, _>> = file
        .vms
        .iter()
        .zip(dependencies.into_iter().zip(lifecycles))
        .map(|(vm, (depends_on, lifecycle))| {
            (vm.name.value.clone(), resolver.vm(vm, &images, &volumes, depends_on, lifecycle))
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
    pub(super) images: &'a dyn Images,
    /// What each path was found to be; else the number of the fault that says why not.
    pub(super) identified: HashMap<PathBuf, Result<(ImageIdentity, Digest), usize>>,
    pub(super) secrets: &'a Secrets,
    pub(super) lock_file: Option<LockFile>,
    /// What the lock file says, once it was needed; else the number of the fault that says why it cannot be used.
    pub(super) locked: Option<Result<Lock, usize>>,
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
        volumes: &BTreeMap<Name, Volume>,
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
        let shares = self.shares(vm);
        let media = self.media(vm);
        let login = self.login(vm, &networks);
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
            volumes: vm_volumes(vm, volumes),
            shares: shares.into_iter().collect::<Option<_>>()?,
            media: media.into_iter().collect::<Option<_>>()?,
            networks,
            forwards,
            cloud_init: login.cloud_init,
            ssh: login.ssh,
            provision: provision?,
            power: vm.power.as_ref().map_or(Power::Running, |power| power.value),
            depends_on,
            lifecycle,
            warm: vm.warm.as_ref().map_or(WarmChoice::Off, |warm| warm.value),
            ready,
            checks: readiness::checks(vm),
            labels: vm.labels.clone(),
            text_files: self.text_files(vm),
        })
    }

    /// Where the texts of `vm` come from.
    fn text_files(&self, vm: &Vm) -> TextFiles {
        // What has no path was told where it was read.
        let path = |written: Option<&Spanned<String>>| self.path(written?).ok();
        let seed = vm.cloud_init.as_ref();
        let users = seed.map(|seed| seed.users.as_slice()).unwrap_or_default().iter();
        let scripts = vm.provision.iter().zip(1..).filter_map(|(step, number)| match &step.action {
            Some(Action::Script(script)) => Some((number, path(Some(script))?)),
            Some(Action::Inline(_) | Action::File { .. }) | None => None,
        });
        TextFiles {
            ssh_key: path(seed.and_then(|seed| seed.ssh_key.as_ref())),
            user_keys: users
                .map(|user| user.keys.iter().filter_map(|key| path(Some(key))).collect())
                .collect(),
            user_data: path(seed.and_then(|seed| seed.user_data.as_ref())),
            scripts: scripts.collect(),
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
}

/// Something is named that is not written at the top level, where it would be written as `usage`.
pub(super) fn unknown<'k>(
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

/// An error with its causes, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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
}
