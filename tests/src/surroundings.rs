//! Where the binary and the images are.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Names the binary under test; without it, the one beside the running test is taken.
const BINARY: &str = "VMCTL_BIN";

/// Names the binary with failpoints; without it, the one beside the running test is taken.
const FAILPOINTS_BINARY: &str = "VMCTL_FAILPOINTS_BIN";

/// Names the folder of images; without it, `.cache/images` of the repository is taken.
const IMAGES: &str = "VMCTL_TEST_IMAGES";

/// Crates whose sources decide what the binary does.
const CRATES: [&str; 4] = ["cli", "planner", "providers", "state"];

/// The root of the repository.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The vmctl binary. Panics with advice if there is none, or if a source is newer than it.
pub fn binary() -> PathBuf {
    let advice = "run `make test`, or `cargo build -p vmctl` before `cargo test -p vmctl-tests`";
    built(BINARY, "vmctl", advice)
}

/// The same program with failpoints. Panics with advice if there is none, or if a source is newer than it.
pub fn failpoints_binary() -> PathBuf {
    let advice = "run `make test`, or `cargo build -p vmctl --features failpoints --bin vmctl-failpoints`";
    built(FAILPOINTS_BINARY, "vmctl-failpoints", advice)
}

fn built(variable: &str, name: &str, advice: &str) -> PathBuf {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => beside_the_test(name),
    };
    let Some(built) = modified(&path) else { panic!("there is no `{}`: {advice}", path.display()) };
    let newest = CRATES.iter().flat_map(|krate| sources(&repository().join(krate).join("src")));
    if let Some(source) = newest.into_iter().find(|source| modified(source).is_some_and(|at| at > built)) {
        panic!("`{}` is older than `{}`: {advice}", path.display(), source.display());
    }
    path
}

/// The binary that cargo puts one folder above its test binaries (`target/debug/deps/product-…`).
fn beside_the_test(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.parent().expect("a file is in a folder");
    if folder.ends_with("deps") { folder.with_file_name(name) } else { folder.join(name) }
}

/// The tiny guest's disk image. Panics with advice if it is not there.
pub fn tiny_image() -> PathBuf {
    image("tiny.qcow2")
}

/// The same guest with Debian's generic kernel, which knows 9p. Panics with advice if it is not there.
pub fn generic_image() -> PathBuf {
    image("generic/tiny.qcow2")
}

/// A genuine Debian with cloud-init. Panics with advice if it is not there.
pub fn debian_image() -> PathBuf {
    image("debian.qcow2")
}

fn image(name: &str) -> PathBuf {
    let folder = std::env::var_os(IMAGES).map_or_else(|| repository().join(".cache/images"), PathBuf::from);
    let image = folder.join(name);
    assert!(image.is_file(), "there is no image at `{}`: run `make images images-debian`", image.display());
    image
}

/// Every Rust source below `folder`.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = folder.read_dir() else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// A variable of the surroundings that a run of vmctl inherits.
pub fn inherited(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}
