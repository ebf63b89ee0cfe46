//! Wrong VMFiles, one fault each, and what people are told. Each snapshot is read before it is accepted:
//! would a newcomer know what to do next?

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::FakeImages;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use vmctl_planner::vmfile::{Given, LoadOptions, load};

fn corpus() -> Vec<PathBuf> {
    // Tests run in the package's folder; the relative path keeps messages the same everywhere.
    let entries = std::fs::read_dir("tests/corpus").unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "kdl")).collect();
    files.sort();
    files
}

fn told(path: &Path) -> String {
    let images = FakeImages::default();
    let home = PathBuf::from("/nonexistent/home");
    let options = LoadOptions { project: None, home: Some(home), images: &images, given: Given::default() };
    let told = match load(path, &options) {
        Err(report) => {
            assert!(report.problems().iter().all(|problem| problem.help.is_some()), "{report:?}");
            render(&report)
        }
        Ok(loaded) => {
            assert!(!loaded.warnings.is_empty(), "every file of the corpus is wrong: {}", path.display());
            assert!(loaded.warnings.iter().all(|problem| problem.help.is_some()), "{:?}", loaded.warnings);
            loaded.warnings.iter().map(|warning| render(warning)).collect::<Vec<_>>().join("\n")
        }
    };
    let here = std::fs::canonicalize("tests/corpus").unwrap();
    told.replace(here.to_str().unwrap(), "[corpus]")
}

/// A diagnostic as people see it, without colour and without line folding.
fn render(diagnostic: &dyn Diagnostic) -> String {
    let mut text = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(1000)
        .render_report(&mut text, diagnostic)
        .unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_fault_is_told_with_its_place_and_a_way_out() {
    let files = corpus();
    assert!(files.len() >= 200);
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        insta::with_settings!({
            snapshot_path => "corpus",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!(name, told(&path)); });
    }
}
