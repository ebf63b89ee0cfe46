//! Where a command works: data folder, VMFile, project, backends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;
use vmctl_planner::apply::{NotedAt, note_down};
use vmctl_planner::vmfile::{self, Given, LoadOptions, Loaded, Pins};
use vmctl_planner::{Desired, KeptValues, holds_sealed, other_vmfile};
use vmctl_providers::image::ImageCache;
use vmctl_providers::propolis::PropolisConfig;
use vmctl_providers::qemu::QemuConfig;
use vmctl_providers::template::Templates;
use vmctl_providers::{Name, NoopBackend, PropolisBackend, QemuBackend, RouterHypervisor, SealKey};
use vmctl_state::{Holder, ProjectDir, Record, Repair, Reserve, Snapshot, StoreError, Writer, project};

use crate::args::{GlobalArgs, LockArgs};
use crate::commands::plan::lineage;
use crate::env::Settings;
use crate::error::{self, CliError};
use crate::ui;

/// What every command is given.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The surroundings.
    pub(crate) settings: Settings,
    /// The options that every command takes.
    pub(crate) options: GlobalArgs,
    /// A VMFile that is found from the working folder upwards is another project's.
    pub(crate) is_apart: bool,
}

/// The project of machines that are made without a VMFile.
pub(crate) const DEFAULT_PROJECT: &str = "default";

/// [`DEFAULT_PROJECT`] as a name.
pub(crate) fn default_project() -> Name {
    DEFAULT_PROJECT.parse().expect("it is a name")
}

impl Context {
    /// The context of a command as it was given.
    pub(crate) fn new(settings: Settings, options: GlobalArgs) -> Self {
        Self { settings, options, is_apart: false }
    }

    /// The same for another project.
    pub(crate) fn of_project(&self, project: Name) -> Self {
        let mut settings = self.settings.clone();
        settings.project = Some(project);
        Self { settings, options: self.options.clone(), is_apart: self.is_apart }
    }

    /// The same for a project that is named beside a machine: its own VMFile counts, and one that is found here only if
    /// that is of the same project.
    pub(crate) fn within(&self, project: &Name) -> Result<Self, CliError> {
        let is_here = self.options.file.is_some() || self.named_project()?.as_ref() == Some(project);
        Ok(Self { is_apart: self.is_apart || !is_here, ..self.of_project(project.clone()) })
    }

    /// The same for a project in which nothing but its own VMFile counts.
    pub(crate) fn apart(&self, project: &Name) -> Self {
        Self { is_apart: true, ..self.of_project(project.clone()) }
    }

    /// The VMFile of machines of `project` that were made by command, if there are any.
    pub(crate) fn own_vmfile(&self, project: &Name) -> Option<PathBuf> {
        let path = self.project_dir(project).ok()?.vmfile();
        path.is_file().then_some(path)
    }

    /// Folder that holds one folder per project.
    fn projects_dir(&self) -> Result<PathBuf, CliError> {
        Ok(self.settings.data_dir()?.join("projects"))
    }

    /// Folder of one project.
    pub(crate) fn project_dir(&self, project: &Name) -> Result<ProjectDir, CliError> {
        Ok(ProjectDir::new(self.projects_dir()?.join(project.as_str())))
    }

    /// All projects in the data folder.
    pub(crate) fn projects(&self) -> Result<BTreeSet<Name>, CliError> {
        let folder = self.projects_dir()?;
        let failed = |error: io::Error| {
            CliError::new(format!("cannot read folder `{}`", folder.display())).because(&error)
        };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut projects = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // What is no name or no folder was not made by us.
            if let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && entry.path().is_dir()
            {
                projects.insert(name);
            }
        }
        Ok(projects)
    }

    /// The VMFile: as told, else the own one of the project that is named, else the nearest one from the working folder
    /// upwards, else that of the machines that were made without one.
    fn find_vmfile(&self) -> Option<PathBuf> {
        let named = self.settings.project.as_ref();
        self.told_vmfile()
            .or_else(|| self.own_vmfile(named?))
            .or_else(|| vmfile::discover(&self.settings.cwd).filter(|_| !self.is_apart))
            .or_else(|| self.own_vmfile(&default_project()).filter(|_| named.is_none()))
    }

    fn told_vmfile(&self) -> Option<PathBuf> {
        Some(self.settings.cwd.join(self.options.file.as_ref()?))
    }

    /// Whether `path` is the own VMFile of `project`.
    fn is_own(&self, path: &Path, project: &Name) -> bool {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.own_vmfile(project).is_some_and(|own| real(&own) == real(path))
    }

    /// The project whose own VMFile `path` is.
    fn owner_of(&self, path: &Path) -> Option<Name> {
        let folder = path.parent()?;
        let project: Name = folder.file_name()?.to_str()?.parse().ok()?;
        self.is_own(path, &project).then_some(project)
    }

    /// Whether the VMFile is one of machines that were made by command.
    pub(crate) fn is_by_hand(&self) -> Result<bool, CliError> {
        Ok(self.owner_of(&self.vmfile()?).is_some())
    }

    /// Fails where nobody wrote a VMFile for what a command makes for itself alone.
    pub(crate) fn written_vmfile(&self) -> Result<(), CliError> {
        let found = self.told_vmfile().or_else(|| vmfile::discover(&self.settings.cwd));
        found.map(drop).ok_or_else(|| self.no_vmfile())
    }

    /// Whether there is a VMFile.
    pub(crate) fn has_vmfile(&self) -> bool {
        self.find_vmfile().is_some()
    }

    /// The VMFile, for commands that cannot do without.
    pub(crate) fn vmfile(&self) -> Result<PathBuf, CliError> {
        self.find_vmfile().ok_or_else(|| self.no_vmfile())
    }

    fn no_vmfile(&self) -> CliError {
        if let Some(project) = self.settings.project.as_ref().filter(|_| self.is_apart) {
            return CliError::new(format!("the VMFile of project `{project}` is not here"))
                .help("change to the project's folder, or pass --file PATH".to_owned());
        }
        CliError::new(format!(
            "no {} in `{}` or a parent folder",
            vmfile::FILE_NAME,
            self.settings.cwd.display()
        ))
        .help(
            "change to the project's folder, or pass --file PATH; or make a machine without a VMFile: `vmctl create \
             NAME --image PATH`"
                .to_owned(),
        )
    }

    /// The image cache. Makes the data folder if there is none yet.
    pub(crate) fn images(&self) -> Result<ImageCache, CliError> {
        let data_dir = self.settings.data_dir()?;
        make_private(data_dir)?;
        Ok(ImageCache::new(data_dir.join("images")))
    }

    /// The templates of all projects.
    pub(crate) fn templates(&self) -> Result<Templates, CliError> {
        Ok(Templates::new(self.settings.data_dir()?.join("templates")))
    }

    /// Lets whoever makes room in the cache know that the lock file beside `vmfile` pins images.
    pub(crate) fn remember_pins(&self, vmfile: &Path) {
        let noted = self.images().and_then(|images| {
            images.remember_pins(vmfile).map_err(|error| {
                CliError::new(format!("cannot write in `{}`", images.folder().display())).because(&error)
            })
        });
        if let Err(error) = noted {
            let lost = "`vmctl image prune` in another folder may remove what is pinned here";
            ui::warn(&format!("{lost}: {error}"));
        }
    }

    /// Reads the VMFile and everything it names; what is wrong with it is a value of its own.
    pub(crate) fn examine(&self) -> Result<Result<Loaded, vmfile::Report>, CliError> {
        self.examine_with(Pins::Locked)
    }

    /// Reads the VMFile and everything it names, with a say about its lock file.
    pub(crate) fn load_with(&self, pins: Pins) -> Result<Loaded, CliError> {
        Ok(self.examine_with(pins)??)
    }

    fn examine_with(&self, pins: Pins) -> Result<Result<Loaded, vmfile::Report>, CliError> {
        let path = self.vmfile()?;
        let images = self.images()?;
        let options = LoadOptions {
            project: self.owner_of(&path).or_else(|| self.settings.project.clone()),
            home: self.settings.home.clone(),
            images: &images,
            given: Given { pins, ..self.given() },
        };
        Ok(vmfile::load(&path, &options))
    }

    /// What is given for the VMFile's variables.
    pub(crate) fn given(&self) -> Given {
        let files = self.options.var_files.iter().map(|path| self.settings.cwd.join(path));
        Given {
            values: self.options.vars.clone(),
            files: files.collect(),
            saved: BTreeMap::new(),
            environment: self.settings.environment.clone(),
            pins: Pins::Locked,
        }
    }

    /// The machines that the VMFile, if there is one, lets go of.
    pub(crate) fn removed(&self) -> Result<BTreeSet<Name>, CliError> {
        match self.find_vmfile() {
            Some(path) => Ok(vmfile::removed(&path)?),
            None => Ok(BTreeSet::new()),
        }
    }

    /// Refuses a second copy of a VMFile whose machines belong to the first: it would destroy and replace them.
    ///
    /// A file that is gone was moved, and whoever names the project by an option knows what it holds.
    pub(crate) fn refuse_other_copy(
        &self,
        project: &Name,
        own: Option<&Path>,
        recorded: &Snapshot,
    ) -> Result<(), CliError> {
        if let Some(own) = own.filter(|own| self.own_vmfile(project).is_some() && !self.is_own(own, project))
        {
            return Err(CliError::new(format!(
                "project `{project}` has machines that were made by `vmctl create`, and this is `{}`",
                own.display()
            ))
            .help(format!(
                "for machines of its own, write `project \"NAME\"` or pass --project NAME; those of `{project}` are \
                 worked on from other folders, or as `{project}/NAME`"
            )));
        }
        let Some(own) = own.filter(|_| self.settings.project.is_none()) else { return Ok(()) };
        let other = other_vmfile(recorded, own).map_err(|error| CliError::of(&error))?;
        match other.filter(|path| path.exists()) {
            None => Ok(()),
            Some(other) => Err(CliError::new(format!(
                "project `{project}` belongs to `{}`, and this is `{}`",
                other.display(),
                own.display()
            ))
            .help(format!(
                "for machines of its own, write `project \"NAME\"` or pass --project NAME; to work on those of the \
                 other file, pass --project {project}"
            ))),
        }
    }

    /// The VMFile as machines remember it: absolute, links in its folder followed. `None` if there is none.
    pub(crate) fn remembered_vmfile(&self) -> Option<PathBuf> {
        let path = self.find_vmfile()?;
        let folder = fs::canonicalize(path.parent()?).ok()?;
        Some(folder.join(path.file_name()?))
    }

    /// Reads the VMFile that a saved plan was made from, for its project, with the values that it keeps.
    pub(crate) fn load_again(
        &self,
        path: &Path,
        project: &Name,
        values: &KeptValues,
    ) -> Result<Loaded, CliError> {
        let images = self.images()?;
        let options = LoadOptions {
            project: Some(project.clone()),
            home: self.settings.home.clone(),
            images: &images,
            given: Given { saved: values.plain(), ..self.given() },
        };
        Ok(vmfile::load(path, &options)?)
    }

    /// Reads the VMFile and everything it names; warnings go to stderr.
    pub(crate) fn load(&self) -> Result<Loaded, CliError> {
        let loaded = self.examine()??;
        error::warn_of(&loaded.warnings);
        Ok(loaded)
    }

    /// Gives the sensitive values of `desired` the key of its project, which is made if there is none.
    pub(crate) fn seal(&self, desired: &mut Desired) -> Result<(), CliError> {
        if !desired.secrets.is_empty() {
            desired.seal(self.key(&desired.project)?);
        }
        Ok(())
    }

    /// The key of a project, which is made if there is none.
    pub(crate) fn key(&self, project: &Name) -> Result<SealKey, CliError> {
        key(&self.project_dir(project)?)
    }

    /// The project that an option, the environment or a VMFile names; images may be missing.
    pub(crate) fn named_project(&self) -> Result<Option<Name>, CliError> {
        if let Some(name) = &self.settings.project {
            return Ok(Some(name.clone()));
        }
        let Some(path) = self.find_vmfile() else {
            // A run that was killed may have left machines that nothing describes any more.
            let default = default_project();
            let is_left = !self.is_apart && self.has_records(&default)?;
            return Ok(is_left.then_some(default));
        };
        match self.owner_of(&path) {
            Some(project) => Ok(Some(project)),
            None => Ok(Some(vmfile::project(&path)?)),
        }
    }

    /// The project to look into: the one that is named, else the only one that has machines.
    ///
    /// `None` if nothing names a project and none has machines. For looking only: what changes machines takes
    /// [`Context::named_project`].
    pub(crate) fn project(&self) -> Result<Option<Name>, CliError> {
        match self.named_project()? {
            Some(name) => Ok(Some(name)),
            None => only(self.inhabited()?),
        }
    }

    /// The projects that have machines.
    fn inhabited(&self) -> Result<BTreeSet<Name>, CliError> {
        let mut inhabited = BTreeSet::new();
        for name in self.projects()? {
            if self.has_records(&name)? {
                inhabited.insert(name);
            }
        }
        Ok(inhabited)
    }

    /// Whether a project has machines. One that cannot be read counts: it is no reason to choose another in its place.
    fn has_records(&self, project: &Name) -> Result<bool, CliError> {
        let state = vmctl_state::read(&self.project_dir(project)?);
        Ok(!state.is_ok_and(|state| state.is_none_or(|state| state.records.is_empty())))
    }

    /// The backends, with the places of one project. Nothing is touched.
    pub(crate) fn hypervisor(&self, project: &ProjectDir) -> Result<RouterHypervisor, CliError> {
        let noop = NoopBackend::new(project.vms(), project.path().join("noop"));
        let qemu = QemuBackend::new(QemuConfig {
            vms_dir: project.vms(),
            images_dir: self.settings.data_dir()?.join("images"),
            templates_dir: self.templates()?.folder().to_owned(),
            runtime_dir: self.settings.runtime_dir()?.to_owned(),
            accel: self.settings.accel,
            take_over: self.options.take_over,
            firmware_dirs: self.settings.firmware_dirs.clone(),
            keyring: self.settings.keyring.clone(),
            bridge_helper: self.settings.bridge_helper.clone(),
            lease_files: self.settings.lease_files.clone(),
        });
        let propolis = PropolisBackend::new(PropolisConfig {
            vms_dir: project.vms(),
            images_dir: self.settings.data_dir()?.join("images"),
            take_over: self.options.take_over,
            keyring: self.settings.keyring.clone(),
        });
        Ok(RouterHypervisor::new(noop, qemu, propolis))
    }

    /// Opens the state of a project for writing. Waits for another writer as long as an option or the environment
    /// says, and tells for whom.
    pub(crate) fn writer(
        &self,
        dir: &ProjectDir,
        command: &str,
        lock: &LockArgs,
        reserve: Reserve,
    ) -> Result<Writer, CliError> {
        self.locked(lock, |wait| Writer::open(dir, holder(command), lineage(dir), wait, reserve))
    }

    /// Takes the lock of a project to put another state in place. Waits as [`Context::writer`] does.
    pub(crate) fn repair(
        &self,
        dir: &ProjectDir,
        command: &str,
        lock: &LockArgs,
    ) -> Result<Repair, CliError> {
        self.locked(lock, |wait| Repair::begin(dir, &holder(command), wait))
    }

    /// Notes records that were changed by hand in their machines' folders.
    pub(crate) fn note_records<'r>(
        &self,
        dir: &ProjectDir,
        at: NotedAt,
        records: impl IntoIterator<Item = &'r Record>,
    ) -> Result<(), CliError> {
        let host = self.hypervisor(dir)?;
        small_runtime()?.block_on(note_down(&host, at, records)).map_err(|error| CliError::of(&error))
    }

    /// Takes a lock, and waits for it if that is asked for.
    fn locked<T>(
        &self,
        lock: &LockArgs,
        open: impl Fn(Duration) -> Result<T, StoreError>,
    ) -> Result<T, CliError> {
        let patience = lock.lock_timeout.or(self.settings.lock_timeout).unwrap_or_default();
        match open(Duration::ZERO) {
            Err(StoreError::Locked { holder, .. }) if !patience.is_zero() => {
                let whom = holder.map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
                ui::note(false, &format!("Waiting at most {patience:?} for {whom}."));
                Ok(open(patience)?)
            }
            opened => Ok(opened?),
        }
    }

    /// Tells people something that is no result, unless they asked for quiet.
    pub(crate) fn note(&self, text: &str) {
        ui::note(self.options.quiet, text);
    }
}

/// The key of a project; made if there is none, unless what it is needed for was sealed with one that is lost.
fn key(dir: &ProjectDir) -> Result<SealKey, CliError> {
    if let Some(key) = project::key(dir)? {
        return Ok(SealKey::new(key));
    }
    if project::read(dir)?.is_some_and(|recorded| holds_sealed(&recorded)) {
        return Err(CliError::new(format!(
            "`{}` is gone, and without it nobody can tell whether sensitive values changed",
            dir.key().display()
        ))
        .help(
            "put it back from a copy of the folder; if there is none, `vmctl apply --destroy` removes the machines, \
             and `vmctl state rm NAME` lets go of one"
                .to_owned(),
        ));
    }
    let mut fresh = project::Key::default();
    for half in fresh.chunks_mut(project::KEY_LENGTH / 2) {
        half.copy_from_slice(Uuid::new_v4().as_bytes());
    }
    Ok(SealKey::new(project::make_key(dir, fresh)?))
}

/// The one project there is; several need a choice.
fn only(projects: BTreeSet<Name>) -> Result<Option<Name>, CliError> {
    if projects.len() > 1 {
        let names: Vec<&str> = projects.iter().map(Name::as_str).collect();
        return Err(CliError::new(format!(
            "no {} here or in a parent folder, and there are {} projects",
            vmfile::FILE_NAME,
            names.len()
        ))
        .help(format!("choose one with --project: {}", names.join(", "))));
    }
    Ok(projects.into_iter().next())
}

/// Who we are to others that want the same project.
pub(crate) fn holder(command: &str) -> Holder {
    let system = rustix::system::uname();
    Holder {
        command: format!("vmctl {command}"),
        user: format!("uid {}", rustix::process::getuid().as_raw()),
        host: system.nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        since: Timestamp::now(),
        boot: project::boot_id(),
    }
}

/// Makes a folder and its parents for us alone; one that exists stays as it is.
pub(crate) fn make_private(folder: &Path) -> Result<(), CliError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        CliError::new(format!("cannot create folder `{}`", folder.display()))
            .because(&error)
            .help("choose another data folder with --data-dir or VMCTL_DATA_DIR".to_owned())
    })
}

/// A runtime on this thread, for commands that ask and wait.
pub(crate) fn small_runtime() -> Result<Runtime, CliError> {
    started(Builder::new_current_thread().enable_all().build())
}

/// A runtime on several threads, for commands that do much at once.
pub(crate) fn large_runtime() -> Result<Runtime, CliError> {
    started(Builder::new_multi_thread().enable_all().build())
}

fn started(runtime: io::Result<Runtime>) -> Result<Runtime, CliError> {
    runtime.map_err(|error| CliError::new("cannot start the runtime").because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Name> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn single_project_is_chosen_without_being_named() {
        assert_eq!(only(names(&[])).unwrap(), None);
        assert_eq!(only(names(&["shop"])).unwrap().unwrap().as_str(), "shop");
    }

    #[test]
    fn several_projects_need_a_choice() {
        let error = only(names(&["shop", "blog"])).unwrap_err();
        assert_eq!(
            anstream::adapter::strip_str(&error.to_string()).to_string(),
            "error: no VMFile.kdl here or in a parent folder, and there are 2 projects\n  \
             help: choose one with --project: blog, shop\n"
        );
    }
}
