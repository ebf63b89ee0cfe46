//! Guards the doors of the workspace: each of these crates is named in one module only.

use std::path::Path;

use crate::surroundings::{repository, sources};

/// A crate, the words by which sources name it, and the module that may.
const DOORS: [(&str, &[&str], &str); 5] = [
    ("kdl", &["use kdl::", "kdl::Kdl", "::kdl::"], "planner/src/vmfile/source.rs"),
    ("petgraph", &["use petgraph::", "petgraph::"], "planner/src/graph.rs"),
    ("sled", &["use sled::", "sled::"], "state/src/sled_store.rs"),
    ("qapi", &["use qapi::", "qapi::"], "providers/src/qemu/qmp.rs"),
    (
        "tokio-tungstenite",
        &["use tokio_tungstenite::", "tokio_tungstenite::"],
        "providers/src/propolis/serial.rs",
    ),
];

/// Ways to build a command, and the module that may. The lints of clippy.toml say the same of calls; this also
/// catches a type that is only named.
const COMMANDS: (&[&str], &str) =
    (&["std::process::Command", "tokio::process::Command", "process::{Command"], "providers/src/process");

const CRATES: [&str; 4] = ["cli", "planner", "providers", "state"];

/// Every line of the product's code, comments left out, that contains one of `words`: its file, relative, and the
/// line. Tests beside a crate's `src` may start what they like.
fn mentions(words: &[&str]) -> Vec<(String, String)> {
    let root = repository();
    let mut found = Vec::new();
    for path in CRATES.iter().flat_map(|krate| sources(&root.join(krate).join("src"))) {
        let text = std::fs::read_to_string(&path).expect("a source is text");
        let name = path.strip_prefix(&root).expect("sources are in the repository").display().to_string();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let hits = code.filter(|line| words.iter().any(|word| names(line, word)));
        found.extend(hits.map(|line| (name.clone(), line.trim().to_owned())));
    }
    found
}

/// Whether `word` stands in `line` and does not merely end a longer name, as `sled::` in `unsled::`.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// Whether `file` is `door`, or is inside the folder of that name.
fn is_behind(file: &str, door: &str) -> bool {
    let stem = door.trim_end_matches(".rs");
    file == format!("{stem}.rs") || Path::new(file).starts_with(stem)
}

#[test]
fn each_guarded_crate_is_named_in_one_module() {
    for (krate, words, door) in DOORS {
        let found = mentions(words);
        assert!(!found.is_empty(), "nothing names `{krate}`: is this test out of date?");
        let outside: Vec<_> = found.iter().filter(|(file, _)| !is_behind(file, door)).collect();
        assert!(outside.is_empty(), "`{krate}` is named outside {door}: {outside:#?}");
    }
}

#[test]
fn commands_are_built_in_one_module() {
    let (words, door) = COMMANDS;
    let found = mentions(words);
    assert!(!found.is_empty(), "nothing builds commands: is this test out of date?");
    let outside: Vec<_> = found.iter().filter(|(file, _)| !is_behind(file, door)).collect();
    assert!(outside.is_empty(), "commands are built outside {door}: {outside:#?}");
}

#[test]
fn a_longer_name_is_no_mention() {
    assert!(names("let db = sled::open(path)", "sled::"));
    assert!(!names("unsled::open", "sled::"));
    assert!(is_behind("providers/src/process/child.rs", "providers/src/process.rs"));
    assert!(!is_behind("providers/src/processor.rs", "providers/src/process.rs"));
}
