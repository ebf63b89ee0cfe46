//! Descriptions of jobs and packages that no test can run here: that they can be read, and agree with what tests install.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use vmctl_tests::markdown::Page;
use vmctl_tests::surroundings::repository;

fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

/// The commands of a job's description: every `run`, and every line of a `script`.
fn commands(yaml: &Value, found: &mut Vec<String>) {
    match yaml {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("run", Value::String(text)) => found.push(text.clone()),
                    ("script", Value::Array(lines)) => {
                        found.extend(lines.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => commands(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| commands(value, found)),
        _ => {}
    }
}

/// All jobs that examples and pages describe, with their names.
fn jobs() -> Vec<(String, Value)> {
    let files =
        ["examples/ci/github.yml", "examples/ci/gitlab.yml"].map(|name| (name.to_owned(), read(name)));
    let pages = Page::all().into_iter().flat_map(|page| {
        let blocks = page.fences().into_iter().filter(|fence| fence.kind == "yaml");
        blocks.map(|fence| (format!("{}:{}", page.name, fence.line), fence.text)).collect::<Vec<_>>()
    });
    let read = |(name, text): (String, String)| {
        let yaml = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, yaml)
    };
    files.into_iter().chain(pages).map(read).collect()
}

#[test]
fn jobs_can_be_read_and_run_vmctl() {
    for (name, yaml) in jobs() {
        let mut found = Vec::new();
        commands(&yaml, &mut found);
        assert!(found.iter().any(|command| command.starts_with("vmctl ")), "{name}: {yaml:#}");
        crate::commands::understood(&name, &found);
    }
}

/// The packages behind `apt-get install` in a text.
fn packages(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter_map(|line| line.split_once("apt-get install"));
    let words = lines.flat_map(|(_, rest)| rest.split("&&").next().unwrap_or_default().split_whitespace());
    words.filter(|word| word.starts_with(|char: char| char.is_ascii_lowercase())).collect()
}

#[test]
fn containers_and_jobs_install_what_tests_install() {
    let setup = read("tests/setup");
    // Certificates come with every image of a runner, and not with a container of Debian.
    let known = |package: &str| {
        package == "ca-certificates"
            || setup.split(|char: char| char.is_whitespace() || char == '"').any(|word| word == package)
    };
    for name in ["examples/ci/Containerfile", "examples/ci/github.yml", "docs/ci.md"] {
        let text = read(name);
        let packages = packages(&text);
        assert!(packages.contains("qemu-system-x86"), "{name}: {packages:?}");
        let others: Vec<_> = packages.iter().filter(|package| !known(package)).collect();
        assert!(others.is_empty(), "{name} installs what tests/setup does not know: {others:?}");
    }
    for package in ["openssh-client", "qemu-system-x86", "qemu-utils"] {
        assert!(
            read("cli/Cargo.toml").contains(&format!(", {package}")),
            "the Debian package needs {package}"
        );
    }
}

#[test]
fn files_of_the_debian_package_are_there() {
    let manifest = read("cli/Cargo.toml");
    let assets = manifest.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
    let assets: Vec<_> = assets.filter(|asset| !asset.contains("target/")).collect();
    assert!(assets.len() > 4, "{assets:?}");
    for asset in assets {
        let folder = asset.split('*').next().unwrap();
        assert!(repository().join("cli").join(folder).exists(), "{asset}");
    }
}
