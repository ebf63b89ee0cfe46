//! The KDL that pages show is read by the real parser.
//!
//! | fence | what it is |
//! | --- | --- |
//! | `kdl` | a whole VMFile; it is loaded |
//! | `kdl fragment` | nodes of a `vm` |
//! | `kdl file=vms/web.kdl` | a file that whole VMFiles of the page may include |
//! | `kdl values` | a file of values for variables |

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use vmctl_planner::vmfile::{Given, LoadOptions, Report, format, load, parse};

use crate::common::FakeImages;
use crate::path;

const PAGES: [&str; 3] = ["docs/vmfile.md", "docs/provisioning.md", "README.md"];

/// Files that snippets name.
const FILES: [&str; 13] = [
    "debian-12.qcow2",
    "debian-12-genericcloud.qcow2",
    "vmlinuz",
    "initrd.img",
    "setup.sh",
    "scripts/setup.sh",
    "scripts/install-postgres.sh",
    "scripts/install-nginx.sh",
    "nginx.conf",
    "app.conf",
    "user-data.yaml",
    "src/main.rs",
    "tools.iso",
];

/// Values for the variables of snippets.
const VALUES: [(&str, &str); 2] = [("image", "debian-12.qcow2"), ("token", "not a secret at all")];

/// A fenced text: the words behind `kdl`, the text, and the line that it begins in.
struct Snippet {
    kind: String,
    text: String,
    line: usize,
}

fn snippets(page: &str) -> Vec<Snippet> {
    let mut found: Vec<Snippet> = Vec::new();
    let mut is_open = false;
    for (index, line) in fs::read_to_string(path(page)).unwrap().lines().enumerate() {
        match line.strip_prefix("```") {
            Some("") => is_open = false,
            Some(fence) => {
                if let Some(kind) = fence.strip_prefix("kdl") {
                    is_open = true;
                    found.push(Snippet {
                        kind: kind.trim().to_owned(),
                        text: String::new(),
                        line: index + 1,
                    });
                }
            }
            None if is_open => {
                let snippet = found.last_mut().unwrap();
                snippet.text += line;
                snippet.text += "\n";
            }
            None => {}
        }
    }
    found
}

/// A folder with everything that snippets name.
fn folder(snippets: &[Snippet]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    FILES.iter().for_each(|name| write(name, "text\n"));
    for snippet in snippets {
        if let Some(name) = snippet.kind.strip_prefix("file=") {
            write(name, &snippet.text);
        }
    }
    folder
}

/// What is wrong with a whole VMFile, if anything; warnings count.
fn wrong(folder: &Path, text: &str, given: Given) -> Option<Report> {
    let path = folder.join("VMFile.kdl");
    fs::write(&path, text).unwrap();
    let images = FakeImages::default();
    let options = LoadOptions { project: None, home: Some(folder.to_owned()), images: &images, given };
    match load(&path, &options) {
        Ok(loaded) => {
            assert!(loaded.warnings.is_empty(), "{text}\n{:#?}", loaded.warnings);
            None
        }
        Err(report) => Some(report),
    }
}

/// Values for those variables of [`VALUES`] that `text` has.
fn given(text: &str) -> Given {
    let has = |name: &str| text.contains(&format!("variable \"{name}\""));
    let values = VALUES.iter().filter(|(name, _)| has(name));
    let environment = [("USER".to_owned(), "me".to_owned()), ("CI_COMMIT".to_owned(), "4711".to_owned())];
    Given {
        values: values.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        environment: environment.into(),
        ..Given::default()
    }
}

/// A file of values is right for variables of its names.
fn wrong_values(folder: &Path, text: &str) -> Option<Report> {
    let file = folder.join("values.kdl");
    fs::write(&file, text).unwrap();
    let mut vmfile = String::from("vm \"web\" {\n    image \"debian-12.qcow2\"\n    labels {\n");
    let mut variables = String::new();
    for line in text.lines().filter(|line| !line.starts_with("//")) {
        let (name, value) = line.split_once(' ').unwrap();
        variables += &format!("variable \"{name}\" {{ default {value}; }}\n");
        vmfile += &format!("        {name} (var)\"{name}\"\n");
    }
    let given = Given { files: vec![file], ..Given::default() };
    wrong(folder, &format!("{variables}{vmfile}    }}\n}}\n"), given)
}

#[test]
fn the_kdl_of_pages_is_valid() {
    for page in PAGES {
        let snippets = snippets(page);
        assert!(!snippets.is_empty(), "{page}");
        let folder = folder(&snippets);
        for Snippet { kind, text, line } in &snippets {
            let report = match kind.as_str() {
                "" => wrong(folder.path(), text, given(text)),
                "fragment" => {
                    let image =
                        if text.contains("image") || text.contains("kernel") { "" } else { "image \"x\"" };
                    parse(page, &format!("vm \"web\" {{\n{image}\n{text}}}")).err()
                }
                "values" => wrong_values(folder.path(), text),
                kind => {
                    assert!(kind.starts_with("file="), "{page}:{line}: unknown kind of text: {kind}");
                    None
                }
            };
            assert!(report.is_none(), "{page}:{line}\n{text}\n{:#?}", report.unwrap().problems());
        }
    }
}

#[test]
fn whole_files_of_pages_and_examples_are_canonical() {
    let shown = snippets("docs/vmfile.md").into_iter().filter(|snippet| snippet.kind.is_empty());
    let mut files: Vec<_> =
        shown.map(|snippet| (format!("docs/vmfile.md:{}", snippet.line), snippet.text)).collect();
    let mut folders = vec![path("examples")];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "kdl") {
                files.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    for (name, text) in files {
        assert_eq!(format(&name, &text), Ok(text), "{name}");
    }
}
