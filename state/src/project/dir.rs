//! The places of a project, and what can be told from them alone.

use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::files;
use crate::sled_store;

/// Paths inside one project's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectDir(PathBuf);

/// What the folder says about its state before anything is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nothing was ever made.
    Nothing,
    /// There is a store.
    Store,
}

impl ProjectDir {
    /// The folder at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder of the project called `name` in the data folder `data`.
    pub fn of_project(data: &Path, name: &str) -> Self {
        Self(all_projects(data).join(name))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Folder of the store.
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// File whose lock is the right to write.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Who holds the lock. It stands there from open to orderly close, so its presence without a held lock
    /// means that a writer died and that the published snapshot may be behind the store.
    pub fn holder(&self) -> PathBuf {
        self.0.join("lock.json")
    }

    /// The snapshot that readers take.
    pub fn snapshot(&self) -> PathBuf {
        self.0.join("snapshot.json")
    }

    /// The journal as the last writer left it, for readers.
    pub(super) fn history(&self) -> PathBuf {
        self.0.join("history.json")
    }

    /// File that stands there as long as machines' notes may be behind because a writer died.
    pub(super) fn behind(&self) -> PathBuf {
        self.0.join("notes-behind")
    }

    /// File with the highest serial that was ever published.
    pub(super) fn mark(&self) -> PathBuf {
        self.0.join("serial")
    }

    /// File with the lineage that was reserved before there was a state.
    pub fn lineage(&self) -> PathBuf {
        self.0.join("lineage")
    }

    /// File with the key of digests of sensitive values.
    pub fn key(&self) -> PathBuf {
        self.0.join("key")
    }

    /// Folder of the texts behind digests.
    pub fn texts(&self) -> PathBuf {
        self.0.join("texts")
    }

    /// Folder that holds one folder per machine.
    pub fn vms(&self) -> PathBuf {
        self.0.join("vms")
    }

    /// File whose lock is held by the command that the project is made for, if it is made for one.
    pub(super) fn temporary(&self) -> PathBuf {
        self.0.join("temporary")
    }

    /// File that keeps room free for a run on a full disk.
    pub fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Names of the machines that have a folder, sorted.
    pub(super) fn machines(&self) -> Result<Vec<String>, StoreError> {
        let entries = files::entries(&self.vms())?;
        Ok(entries.iter().filter(|(_, is_folder)| *is_folder).filter_map(|(path, _)| name(path)).collect())
    }

    /// Tells "nothing was made" from "there is a store", and both from what is neither.
    pub(super) fn presence(&self) -> Result<Presence, StoreError> {
        match files::size(&sled_store::data_file(&self.state()))? {
            // A store is made whole or not at all, so this one was emptied.
            Some(0) => {
                return Err(StoreError::Damaged {
                    path: self.state(),
                    detail: "its data file is empty".into(),
                });
            }
            Some(_) => return Ok(Presence::Store),
            None => {}
        }
        let machines = self.machines()?;
        if machines.is_empty() && !files::exists(&self.snapshot())? {
            return Ok(Presence::Nothing);
        }
        Err(StoreError::Missing { path: self.state(), machines })
    }
}

/// Returns the names of the projects in the data folder `data` that have a state or machines, sorted.
pub fn projects(data: &Path) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    for (path, is_folder) in files::entries(&all_projects(data))? {
        let dir = ProjectDir::new(&path);
        let inhabited = || -> Result<bool, StoreError> {
            Ok(files::exists(&dir.state())? || files::exists(&dir.snapshot())? || !dir.machines()?.is_empty())
        };
        if let Some(name) = name(&path)
            && is_folder
            && inhabited()?
        {
            found.push(name);
        }
    }
    Ok(found)
}

fn all_projects(data: &Path) -> PathBuf {
    data.join("projects")
}

/// The last component, if it can be a name at all: names are text and begin with a letter or digit.
fn name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    name.starts_with(|first: char| first.is_alphanumeric()).then(|| name.to_owned())
}
