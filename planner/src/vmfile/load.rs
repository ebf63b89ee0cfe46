//! The doors of this module: find a VMFile, parse its text, load it with every file that it names.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use vmctl_providers::image::{ImageCache, ImageError, ImageIdentity};
use vmctl_providers::{Digest, Name};

use super::ast::File;
use super::files::{FileError, read_text};
use super::report::{Fault, Problem, Report, locate};
use super::resolve::Surroundings;
use super::scan::MAX_BYTES;
use super::{decode, resolve, source};
use crate::desired::{Desired, InputFile};

/// Name of the file that is looked for.
pub const FILE_NAME: &str = "VMFile.kdl";

/// Finds [`FILE_NAME`] in `start` or the nearest parent folder.
pub fn discover(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file())
}

/// Tells what an image file is. The image cache does; tests answer without any file.
pub trait Images: fmt::Debug {
    /// See [`ImageCache::identify`].
    fn identify(&self, source: &Path) -> Result<ImageIdentity, ImageError>;
}

impl Images for ImageCache {
    fn identify(&self, source: &Path) -> Result<ImageIdentity, ImageError> {
        Self::identify(self, source)
    }
}

/// What [`load`] needs besides the file itself.
#[derive(Debug, Clone)]
pub struct LoadOptions<'a> {
    /// Project name that overrides the file's own.
    pub project: Option<Name>,
    /// Home folder, for `~` and default keys; `~` is an error without it.
    pub home: Option<PathBuf>,
    /// Where images are identified.
    pub images: &'a dyn Images,
}

/// A VMFile that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What it asks for.
    pub desired: Desired,
    /// What its author may not have meant, in the order of the text.
    pub warnings: Vec<Problem>,
}

/// Reads and resolves a VMFile, and every file that it names. Blocking; call it from a plain thread.
///
/// The report holds all errors of the run, and the warnings as well.
pub fn load(path: &Path, options: &LoadOptions<'_>) -> Result<Loaded, Report> {
    let shown = path.display().to_string();
    let text = read(path, &shown)?;
    let folder = folder_of(path).map_err(|error| unreadable(&shown, &FileError::from(error)))?;
    let itself = InputFile {
        path: path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name)),
        digest: Digest::of(&text),
    };
    let nodes = source::read(&text).map_err(|faults| Report::new(&shown, &text, faults))?;
    let (file, mut faults) = decode::decode(&nodes);
    let around = Surroundings {
        folder,
        home: options.home.clone(),
        project: options.project.clone(),
        images: options.images,
        itself,
    };
    let (desired, more) = resolve::resolve(&file, around);
    faults.extend(more);
    match desired {
        Some(desired) if !faults.iter().any(Fault::is_error) => {
            Ok(Loaded { desired, warnings: locate(&shown, &text, faults) })
        }
        _ => Err(Report::new(&shown, &text, faults)),
    }
}

/// The project that a VMFile belongs to. Reads nothing else: images and scripts may be missing.
pub fn project(path: &Path) -> Result<Name, Report> {
    let shown = path.display().to_string();
    let text = read(path, &shown)?;
    let folder = folder_of(path).map_err(|error| unreadable(&shown, &FileError::from(error)))?;
    let nodes = source::read(&text).map_err(|faults| Report::new(&shown, &text, faults))?;
    let (file, faults) = decode::decode(&nodes);
    // A project that is written, but not so that it can be used, must not be taken for the folder's.
    if file.project.is_none() && nodes.iter().any(|node| node.name.value == decode::PROJECT_NODE) {
        return Err(Report::new(&shown, &text, faults));
    }
    resolve::project(&file, None, &folder).map_err(|fault| Report::new(&shown, &text, vec![fault]))
}

/// The machines that a VMFile lets go of. Reads nothing else: images and scripts may be missing, and other nodes may
/// be wrong.
pub fn removed(path: &Path) -> Result<BTreeSet<Name>, Report> {
    let shown = path.display().to_string();
    let text = read(path, &shown)?;
    let nodes = source::read(&text).map_err(|faults| Report::new(&shown, &text, faults))?;
    let (file, _) = decode::decode(&nodes);
    Ok(file.removed.into_iter().map(|name| name.value).collect())
}

/// The text of a VMFile as it stands on the disk.
pub fn text(path: &Path) -> Result<String, Report> {
    read(path, &path.display().to_string())
}

/// Parses the text of a VMFile without touching the disk; `file` is its name in the report.
pub fn parse(file: &str, text: &str) -> Result<File, Report> {
    let nodes = source::read(text).map_err(|faults| Report::new(file, text, faults))?;
    let (ast, faults) = decode::decode(&nodes);
    if faults.is_empty() { Ok(ast) } else { Err(Report::new(file, text, faults)) }
}

/// The folder that paths are relative to; links in it are followed, the VMFile itself may be one.
fn folder_of(path: &Path) -> std::io::Result<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::canonicalize(parent.unwrap_or(Path::new(".")))
}

fn read(path: &Path, shown: &str) -> Result<String, Report> {
    match read_text(path, MAX_BYTES as u64) {
        Ok(text) => Ok(text),
        Err(FileError::NotText { at, bytes }) => {
            let text = String::from_utf8_lossy(&bytes);
            let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
            let help = if utf16 { "it looks like UTF-16: save it as UTF-8" } else { "save it as UTF-8" };
            let label = (at, '\u{fffd}'.len_utf8());
            let fault =
                Fault::error("vmfile::not-text", "the file is not UTF-8 text").at(label.into(), "this byte");
            Err(Report::new(shown, &text, vec![fault.help(help)]))
        }
        Err(error) => Err(unreadable(shown, &error)),
    }
}

fn unreadable(shown: &str, error: &FileError) -> Report {
    let help = match error {
        FileError::Missing => {
            format!("vmctl looks for {FILE_NAME} here and in each parent folder; `-f FILE` names another")
        }
        FileError::Folder => format!("name the file in it: `-f {shown}/{FILE_NAME}`"),
        FileError::TooBig { .. } => "a VMFile is a short text; is this the right file?".to_owned(),
        other => other.help().to_owned(),
    };
    Report::unreadable(
        shown,
        Fault::error("vmfile::unreadable", format!("cannot read `{shown}`: {error}")).help(help),
    )
}
