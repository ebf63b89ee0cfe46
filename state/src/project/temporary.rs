//! Projects that last as long as one command, and what is left of them when that command was killed.
//!
//! Such a project has a mark in its folder, and its command holds the kernel's lock on the mark. The lock ends with its
//! holder, however that ends; so a mark whose lock is free says that nobody needs the project any more. Nothing else is
//! ever taken for such a project: neither a name nor an age says whose machines these are.

use std::io::ErrorKind;
use std::time::Duration;

use super::ProjectDir;
use super::lock::Lock;
use crate::error::StoreError;
use crate::files;

/// A project that its holder alone works on, and removes in the end.
#[derive(Debug)]
pub struct Temporary {
    dir: ProjectDir,
    _lock: Lock,
}

impl Temporary {
    /// Makes the folder of a project with its mark; refused if there is anything in it.
    pub fn begin(dir: &ProjectDir) -> Result<Self, StoreError> {
        let exists = || StoreError::io("make a project in", dir.path())(ErrorKind::AlreadyExists.into());
        files::create_private_folder(dir.path())?;
        if !files::entries(dir.path())?.is_empty() {
            return Err(exists());
        }
        let mark = dir.temporary();
        let lock = Lock::acquire(&mark, Duration::ZERO)?.ok_or_else(exists)?;
        std::fs::write(&mark, content(dir)).map_err(StoreError::io("write", &mark))?;
        files::sync_folder(dir.path())?;
        Ok(Self { dir: dir.clone(), _lock: lock })
    }

    /// The project, if it was made by a command that is gone; `None` for all others.
    pub fn abandoned(dir: &ProjectDir) -> Result<Option<Self>, StoreError> {
        let mark = dir.temporary();
        let Some(lock) = Lock::of_existing(&mark)? else { return Ok(None) };
        // Asked behind the lock: a holder that came to its end meanwhile has removed what was locked here.
        let is_its = files::read(&mark)?.is_some_and(|found| found == content(dir).as_bytes());
        Ok(is_its.then(|| Self { dir: dir.clone(), _lock: lock }))
    }

    /// Makes it a project like any other.
    pub fn keep(self) -> Result<(), StoreError> {
        files::remove(&self.dir.temporary())?;
        files::sync_folder(self.dir.path())
    }

    /// Removes its folder. Refused while machines have folders in it; on failure the mark stays as long as it can, so that
    /// it can be tried again.
    pub fn remove(self) -> Result<(), StoreError> {
        if !self.dir.machines()?.is_empty() {
            let path = self.dir.vms();
            return Err(StoreError::io("remove", &path)(ErrorKind::DirectoryNotEmpty.into()));
        }
        let mark = self.dir.temporary();
        for (path, is_folder) in
            files::entries(self.dir.path())?.into_iter().filter(|(path, _)| *path != mark)
        {
            let removed =
                if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(StoreError::io("remove", &path))?;
        }
        files::remove(&mark)?;
        std::fs::remove_dir(self.dir.path()).map_err(StoreError::io("remove", self.dir.path()))
    }
}

/// What a mark holds: the name of its project, so that a copy under another name is none.
fn content(dir: &ProjectDir) -> String {
    let name = dir.path().file_name().unwrap_or_default();
    format!("{}\n", name.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_is_abandoned_once_its_holder_is_gone_and_no_sooner() {
        let data = tempfile::tempdir().unwrap();
        let dir = ProjectDir::of_project(data.path(), "shop-run-1");
        let held = Temporary::begin(&dir).unwrap();
        assert!(Temporary::abandoned(&dir).unwrap().is_none(), "its holder lives");
        // A holder that is about to be done has removed its mark already: nobody may put one in its place.
        std::fs::rename(dir.temporary(), dir.path().join("away")).unwrap();
        assert!(Temporary::abandoned(&dir).unwrap().is_none() && !dir.temporary().exists());
        std::fs::rename(dir.path().join("away"), dir.temporary()).unwrap();
        drop(held);
        let found = Temporary::abandoned(&dir).unwrap().expect("its holder is gone");
        found.remove().unwrap();
        assert!(!dir.path().exists());
        assert!(Temporary::abandoned(&dir).unwrap().is_none() && !dir.path().exists());
    }

    #[test]
    fn other_projects_are_never_taken_for_one() {
        let data = tempfile::tempdir().unwrap();
        let dir = ProjectDir::of_project(data.path(), "shop-run-1");
        drop(Temporary::begin(&dir).unwrap());
        let copy = ProjectDir::of_project(data.path(), "shop");
        files::create_private_folder(copy.path()).unwrap();
        std::fs::copy(dir.temporary(), copy.temporary()).unwrap();
        assert!(Temporary::abandoned(&copy).unwrap().is_none(), "a copy under another name");
        Temporary::begin(&copy).unwrap_err();

        Temporary::abandoned(&dir).unwrap().unwrap().keep().unwrap();
        assert!(Temporary::abandoned(&dir).unwrap().is_none(), "it was kept");
        assert!(dir.path().exists());
    }

    #[test]
    fn folder_with_machines_stays_and_can_be_removed_later() {
        let data = tempfile::tempdir().unwrap();
        let dir = ProjectDir::of_project(data.path(), "shop-run-1");
        let held = Temporary::begin(&dir).unwrap();
        std::fs::create_dir_all(dir.vms().join("web")).unwrap();
        held.remove().unwrap_err();
        std::fs::remove_dir_all(dir.vms().join("web")).unwrap();
        Temporary::abandoned(&dir).unwrap().expect("still there").remove().unwrap();
        assert!(!dir.path().exists());
    }
}
