//! From source text to the desired state.

use std::path::{Path, PathBuf};

use vmctl_providers::Name;
use vmctl_providers::image::ImageCache;

use crate::desired::Desired;

/// Name of the file that is looked for.
pub const FILE_NAME: &str = "VMFile.kdl";

/// Finds [`FILE_NAME`] in `start` or the nearest parent folder.
pub fn discover(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file())
}

/// What [`load`] needs besides the file itself.
#[derive(Debug, Clone)]
pub struct LoadOptions<'a> {
    /// Project name that overrides the file's own.
    pub project: Option<Name>,
    /// Home folder, for `~` and default keys; `~` is an error without it.
    pub home: Option<PathBuf>,
    /// Where images are identified.
    pub images: &'a ImageCache,
}

/// Everything that is wrong with a VMFile, each problem with its span; renders through miette.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the VMFile cannot be used")]
pub struct Report;

/// Reads and resolves a VMFile, and every file that it names. Blocking; call it from a plain thread.
pub fn load(path: &Path, options: &LoadOptions<'_>) -> Result<Desired, Report> {
    let _ = (path, options);
    Err(Report)
}
