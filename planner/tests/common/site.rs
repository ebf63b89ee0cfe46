//! A folder with a VMFile in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use vmctl_planner::desired::{Desired, DesiredVm};
use vmctl_planner::vmfile::{FILE_NAME, Given, LoadOptions, Loaded, Report, load};
use vmctl_providers::Name;

use super::FakeImages;

/// A folder with a VMFile, a disk image, and a home folder in it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    pub(crate) images: FakeImages,
    pub(crate) given: Given,
}

impl Site {
    pub(crate) fn new(vmfile: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("shop").tempdir().unwrap();
        let site = Self { folder, images: FakeImages::default(), given: Given::default() };
        site.file("disk.img", "disk");
        site.file("home/disk.img", "disk");
        site.file(FILE_NAME, vmfile);
        site
    }

    /// The absolute path of `name`, as resolved paths are.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.folder.path()).unwrap().join(name)
    }

    pub(crate) fn vmfile(&self) -> PathBuf {
        self.path(FILE_NAME)
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn given(mut self, values: &[(&str, &str)]) -> Self {
        self.given.values =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self
    }

    pub(crate) fn environment(mut self, values: &[(&str, &str)]) -> Self {
        self.given.environment =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self
    }

    /// Writes `text` to a file of values and gives it.
    pub(crate) fn values(mut self, name: &str, text: &str) -> Self {
        self.file(name, text);
        let path = self.path(name);
        self.given.files.push(path);
        self
    }

    pub(crate) fn load(&self) -> Result<Loaded, Report> {
        let options = LoadOptions {
            project: None,
            home: Some(self.path("home")),
            images: &self.images,
            given: self.given.clone(),
        };
        load(&self.vmfile(), &options)
    }

    pub(crate) fn desired(&self) -> Desired {
        self.load().unwrap().desired
    }

    pub(crate) fn vms(&self) -> BTreeMap<Name, DesiredVm> {
        self.desired().vms
    }

    /// The machine `name`.
    pub(crate) fn vm(&self, name: &str) -> DesiredVm {
        let mut vms = self.vms();
        vms.remove(&name.parse::<Name>().unwrap()).unwrap()
    }

    /// The machine, if there is one.
    pub(crate) fn only(&self) -> DesiredVm {
        let vms = self.vms();
        assert_eq!(vms.len(), 1);
        vms.into_values().next().unwrap()
    }

    /// The codes of the errors.
    pub(crate) fn codes(&self) -> Vec<&'static str> {
        self.load().unwrap_err().problems().iter().map(|problem| problem.code).collect()
    }

    /// What is told: code and message of each problem.
    pub(crate) fn told(&self) -> Vec<String> {
        let problems = match self.load() {
            Ok(loaded) => loaded.warnings,
            Err(report) => report.problems().to_vec(),
        };
        problems.iter().map(|problem| format!("{}: {}", problem.code, problem.message)).collect()
    }
}
