//! The doors of this module: find a VMFile, parse its text, load it with every file that it names.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use vmctl_providers::image::{ImageCache, ImageError, ImageIdentity};
pub use vmctl_providers::secrets::HIDDEN;
use vmctl_providers::{Digest, Name, Secret, Secrets};

use super::ast::{Node, Spanned};
use super::expand::{Given, expand};
use super::fields::Fields;
use super::files::{FileError, Files, read_text};
use super::grammar::PROJECT;
use super::read::{Document, MISPLACED_PROJECT};
use super::report::{Fault, Problem, Report, locate};
use super::resolve::Surroundings;
use super::scan::MAX_BYTES;
use super::secrets::Censor;
use super::sources::Sources;
use super::typed::File;
use super::{decode, resolve, sensitive};
use crate::desired::Desired;
use crate::pins::LockFile;
use crate::values::Values;

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

    /// The same with the digest of the file as it lies there. See [`ImageCache::identify_file`].
    fn identify_file(&self, source: &Path) -> Result<(ImageIdentity, Digest), ImageError> {
        let identity = self.identify(source)?;
        Ok((identity.clone(), identity.digest))
    }

    /// What a download with the digest `sha256` became, if it is here. See [`ImageCache::known`].
    fn known(&self, sha256: &Digest) -> Option<ImageIdentity> {
        let _ = sha256;
        None
    }
}

impl Images for ImageCache {
    fn identify(&self, source: &Path) -> Result<ImageIdentity, ImageError> {
        Self::identify(self, source)
    }

    fn identify_file(&self, source: &Path) -> Result<(ImageIdentity, Digest), ImageError> {
        Self::identify_file(self, source)
    }

    fn known(&self, sha256: &Digest) -> Option<ImageIdentity> {
        Self::known(self, sha256).map(|(identity, _)| identity)
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
    /// What is given for the VMFile's variables.
    pub given: Given,
}

/// What the lock file of a VMFile is good for while it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pins {
    /// It says which bytes images are.
    #[default]
    Locked,
    /// It is about to be moved and says nothing.
    Ignored,
}

/// A VMFile that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What it asks for.
    pub desired: Desired,
    /// What its author may not have meant, in the order of the text.
    pub warnings: Vec<Problem>,
    /// What was given from outside and decided what it asks for.
    pub values: Values,
}

/// Reads and resolves a VMFile, and every file that it names. Blocking; call it from a plain thread.
///
/// The report holds all errors of the run, and the warnings as well.
pub fn load(path: &Path, options: &LoadOptions<'_>) -> Result<Loaded, Report> {
    let shown = path.display().to_string();
    let mut files = Files::new(options.home.clone());
    let (mut document, folder) = read(path, &shown, &mut files)?;
    for path in &options.given.files {
        document.read_values(path);
    }
    let Document { mut sources, nodes, values, mut faults, is_partial } = document;
    if is_partial {
        return Err(Report::new(&shown, &sources, faults));
    }
    let written = written_project(&nodes, &mut faults);
    let project = resolve::project(options.project.clone(), written.map(|name| name.value), &folder);
    let project = project.map_err(|fault| faults.push(fault)).ok();
    let name = project.as_ref().map_or("", Name::as_str);
    let mut expanded = expand(&nodes, &values, &options.given, name);
    let is_empty = is_empty(&nodes);
    // Thousands of machines take room in each of their forms.
    drop(nodes);
    let (file, decoded) = decode::decode(&expanded);
    faults.extend(decoded);
    let secrets = Secrets::new(expanded.secrets.iter().cloned().map(Secret::new));
    faults.extend(sensitive::misplaced(&expanded.nodes, &secrets));
    drop(std::mem::take(&mut expanded.nodes));
    faults.extend(expanded.faults);
    if faults.is_empty() && is_empty {
        faults.push(decode::nothing_described());
    }
    let lock = match options.given.pins {
        Pins::Locked => Some(LockFile::of(&itself(path, &folder))),
        Pins::Ignored => None,
    };
    let around = Surroundings { project, sources: &sources, files, images: options.images, secrets, lock };
    let (desired, resolved) = resolve::resolve(&file, around);
    faults.extend(resolved);
    let censor = Censor::new(&expanded.secrets);
    expanded.hidden.iter().for_each(|span| sources.hide(*span));
    sources.blot(&censor);
    let faults: Vec<_> = faults.into_iter().map(|fault| fault.masked(|text| censor.hide(text))).collect();
    match desired {
        Some(desired) if !faults.iter().any(Fault::is_error) => {
            Ok(Loaded { desired, warnings: locate(&shown, &sources, faults), values: expanded.values })
        }
        _ => Err(Report::new(&shown, &sources, faults)),
    }
}

/// The project that a VMFile belongs to. Reads nothing but the files that it includes: images and scripts may be
/// missing, variables may have no value.
pub fn project(path: &Path) -> Result<Name, Report> {
    let shown = path.display().to_string();
    let (document, folder) = read(path, &shown, &mut Files::default())?;
    let Document { sources, nodes, mut faults, .. } = document;
    let is_written = nodes.iter().any(|node| node.name.value == PROJECT.name);
    let written = written_project(&nodes, &mut faults);
    // A project that is written, but not so that it can be used, must not be taken for the folder's. Nor may one that
    // could not be read.
    let is_hidden = |fault: &Fault| fault.is_syntax() || fault.code == MISPLACED_PROJECT;
    if written.is_none() && (is_written || faults.iter().any(is_hidden)) {
        return Err(Report::new(&shown, &sources, faults));
    }
    resolve::project(None, written.map(|name| name.value), &folder)
        .map_err(|fault| Report::new(&shown, &sources, vec![fault]))
}

/// The machines that a VMFile lets go of. Reads nothing but the files that it includes: images and scripts may be
/// missing, and other nodes may be wrong.
pub fn removed(path: &Path) -> Result<BTreeSet<Name>, Report> {
    let shown = path.display().to_string();
    let (document, _) = read(path, &shown, &mut Files::default())?;
    let Document { sources, nodes, faults, is_partial, .. } = document;
    if is_partial {
        return Err(Report::new(&shown, &sources, faults));
    }
    let (file, _) = decode::decode(&expand(&nodes, &[], &Given::default(), ""));
    Ok(file.removed.into_iter().map(|name| name.value).collect())
}

/// The text of a VMFile as it stands on the disk.
pub fn text(path: &Path) -> Result<String, Report> {
    read_source(path, &path.display().to_string())
}

/// Parses the text of a VMFile without touching the disk; `file` is its name in the report. Variables have their
/// defaults, and what the text includes is left out.
pub fn parse(file: &str, text: &str) -> Result<File, Report> {
    let Document { mut sources, nodes, mut faults, is_partial, .. } = Document::of_text(file, text);
    if is_partial {
        return Err(Report::new(file, &sources, faults));
    }
    let expanded = expand(&nodes, &[], &Given::default(), "");
    expanded.hidden.iter().for_each(|span| sources.hide(*span));
    let (parsed, decoded) = decode::decode(&expanded);
    faults.extend(decoded);
    faults.extend(expanded.faults);
    if faults.is_empty() && is_empty(&nodes) {
        faults.push(decode::nothing_described());
    }
    if faults.iter().any(Fault::is_error) { Err(Report::new(file, &sources, faults)) } else { Ok(parsed) }
}

/// Whether `nodes` describe no machine.
fn is_empty(nodes: &[Node]) -> bool {
    !nodes.iter().any(|node| ["vm", "removed"].contains(&node.name.value.as_str()))
}

fn written_project(nodes: &[Node], faults: &mut Vec<Fault>) -> Option<Spanned<Name>> {
    let mut fields = Fields::default();
    let node = nodes.iter().find(|node| node.name.value == PROJECT.name);
    let name = node.and_then(|node| fields.project(node));
    faults.extend(fields.faults);
    name
}

/// Reads a VMFile and what it includes; also returns its folder.
fn read(path: &Path, shown: &str, files: &mut Files) -> Result<(Document, PathBuf), Report> {
    let text = read_source(path, shown)?;
    let folder = folder_of(path).map_err(|error| unreadable(shown, &FileError::from(error)))?;
    files.note(&itself(path, &folder), Digest::of(&text));
    Ok((Document::read(path, shown, folder.clone(), text, files), folder))
}

/// Where the VMFile is, in the folder that was found to be its own.
fn itself(path: &Path, folder: &Path) -> PathBuf {
    path.file_name().map_or_else(|| folder.to_owned(), |name| folder.join(name))
}

/// The folder that paths are relative to; links in it are followed, the VMFile itself may be one.
fn folder_of(path: &Path) -> std::io::Result<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::canonicalize(parent.unwrap_or(Path::new(".")))
}

fn read_source(path: &Path, shown: &str) -> Result<String, Report> {
    match read_text(path, MAX_BYTES as u64) {
        Ok(text) => Ok(text),
        Err(FileError::NotText { at, bytes }) => {
            let text = String::from_utf8_lossy(&bytes);
            let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
            let help = if utf16 { "it looks like UTF-16: save it as UTF-8" } else { "save it as UTF-8" };
            let label = (at, '\u{fffd}'.len_utf8());
            let fault =
                Fault::error("vmfile::not-text", "the file is not UTF-8 text").at(label.into(), "this byte");
            Err(Report::new(shown, &Sources::of(shown, text.into_owned()), vec![fault.help(help)]))
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
