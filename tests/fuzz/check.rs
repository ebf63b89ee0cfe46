//! What holds for every text that is loaded as a VMFile. The fuzz target and a test of the planner share this file.

#[path = "../../planner/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::FakeImages;
use miette::{GraphicalReportHandler, GraphicalTheme};
use tempfile::TempDir;
use vmctl_planner::vmfile::{FILE_NAME, Given, LoadOptions, Place, Problem, Report, Severity, load};
use vmctl_providers::keys;

/// A project's folder and a home folder with the files that VMFiles of the corpus name.
#[derive(Debug)]
pub(crate) struct Site {
    root: TempDir,
    files: BTreeMap<PathBuf, Stamp>,
}

/// Size and time of a file.
type Stamp = (u64, SystemTime);

impl Site {
    /// Makes the folders in a temporary folder of their own.
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("vmctl-fuzz-").tempdir().expect("a temporary folder");
        let pair = keys::generate("fuzz");
        for name in ["home/.ssh/id_ed25519", "shop/files/id"] {
            file(root.path(), name, pair.private.expose());
            file(root.path(), &format!("{name}.pub"), &pair.public);
        }
        file(root.path(), "outside.sh", "#!/bin/sh\n");
        file(root.path(), "shop/files/disk.img", "not read: its image is answered for\n");
        file(root.path(), "shop/files/broken.img", "no image\n");
        file(root.path(), "shop/files/setup.sh", "#!/bin/sh\necho ready\n");
        file(root.path(), "shop/files/user-data.yaml", "#cloud-config\nhostname: mine\n");
        let files = files_below(root.path());
        Self { root, files }
    }

    /// Loads `text` as the VMFile of the folder. Panics unless it is a file, or an error with places and ways out,
    /// and nothing else in the folders was made, changed or removed.
    pub(crate) fn check(&self, text: &[u8]) {
        let vmfile = self.root.path().join("shop").join(FILE_NAME);
        fs::write(&vmfile, text).expect("the VMFile");
        let images = FakeImages::default();
        let home = Some(self.root.path().join("home"));
        match load(&vmfile, &LoadOptions { project: None, home, images: &images, given: Given::default() }) {
            Ok(loaded) => {
                assert!(loaded.warnings.iter().all(|problem| problem.severity == Severity::Warning));
                loaded.warnings.iter().for_each(check_problem);
            }
            Err(report) => check_report(&report),
        }
        let mut files = files_below(self.root.path());
        files.remove(&vmfile);
        assert_eq!(files, self.files, "loading changes no file");
    }
}

fn check_report(report: &Report) {
    let problems = report.problems();
    assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "{report:?}");
    problems.iter().for_each(check_problem);
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
    handler.render_report(&mut String::new(), report).expect("a report can be shown");
}

fn check_problem(problem: &Problem) {
    assert!(!problem.message.is_empty(), "{problem:?}");
    assert!(problem.help.as_ref().is_some_and(|help| !help.is_empty()), "no way out: {problem:?}");
    assert!(problem.place.is_some(), "no place: {problem:?}");
    let own = problem.place.iter().map(|place| (&problem.file, place));
    let related = problem.related.iter().map(|related| (&related.file, &related.place));
    for (file, place) in own.chain(related) {
        let bytes = fs::read(file).expect("the file of a place");
        check_place(place, &String::from_utf8_lossy(&bytes));
    }
}

fn check_place(place: &Place, text: &str) {
    assert!(text.get(place.offset..place.offset + place.length).is_some(), "outside of the text: {place:?}");
    let before = &text[..place.offset];
    let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
    let expected = (1 + before.matches('\n').count(), 1 + line.chars().count());
    assert_eq!((place.line, place.column), expected, "{place:?}");
}

fn file(root: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

fn files_below(folder: &Path) -> BTreeMap<PathBuf, Stamp> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let entry = entry.expect("an entry of it");
        let metadata = entry.metadata().expect("what it is");
        if metadata.is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.insert(entry.path(), (metadata.len(), metadata.modified().expect("when it changed")));
        }
    }
    found
}
