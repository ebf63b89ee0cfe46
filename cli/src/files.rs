//! Files that people name on the command line, to be written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use vmctl_planner::PlanDocument;

use crate::error::{CliError, Exit};

/// Mode of a file that may hold what is not for everybody.
const PRIVATE: u32 = 0o600;

/// Mode of a file for everybody, before the umask.
const PUBLIC: u32 = 0o666;

/// A file that is written as a whole, and in place of nothing but its like.
#[derive(Debug)]
pub(crate) struct Destination {
    path: PathBuf,
    /// Where links lead.
    target: PathBuf,
    mode: u32,
    /// A file that appears there meanwhile is kept.
    keeps: bool,
}

impl Destination {
    /// The file of a saved plan; only its owner can read it.
    pub(crate) fn of_plan(path: &Path, plan: &PlanDocument<'_>) -> Result<Self, CliError> {
        Self::new(path, plan, PRIVATE, "{\"kind\":\"vmctl-plan\"", "saved plan")
    }

    /// The file of a report.
    pub(crate) fn of_report(path: &Path, plan: &PlanDocument<'_>) -> Result<Self, CliError> {
        Self::new(path, plan, PUBLIC, "<!DOCTYPE html>", "HTML page")
    }

    /// The file of a trace.
    pub(crate) fn of_trace(path: &Path, plan: &PlanDocument<'_>) -> Result<Self, CliError> {
        Self::new(path, plan, PUBLIC, "{\"displayTimeUnit\"", "trace")
    }

    /// The file of JUnit's tests.
    pub(crate) fn of_junit(path: &Path, plan: &PlanDocument<'_>) -> Result<Self, CliError> {
        Self::new(path, plan, PUBLIC, "<?xml ", "file of JUnit's")
    }

    /// The file of events.
    pub(crate) fn of_events(path: &Path, plan: &PlanDocument<'_>) -> Result<Self, CliError> {
        Self::new(path, plan, PUBLIC, "{\"format\":", "file of events")
    }

    /// A VMFile that does not exist yet, or that is to be replaced.
    pub(crate) fn of_vmfile(path: &Path, replaces: bool) -> Result<Self, CliError> {
        let refuse = |why: &str, help: &str| {
            Err(CliError::new(format!("will not write to `{}`: {why}", path.display())).help(help.to_owned()))
        };
        if path.is_dir() {
            return refuse("it is a folder", "name a file: --file FOLDER/VMFile.kdl");
        }
        if !replaces && path.symlink_metadata().is_ok() {
            return refuse("it exists", "pass --force to replace it, or --file PATH to write elsewhere");
        }
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { path: path.to_owned(), target, mode: PUBLIC, keeps: !replaces })
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether both lead to the same file.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.target == other.target
    }

    /// Refuses what the plan was made from, and what does not begin as `what` begins.
    fn new(
        path: &Path,
        plan: &PlanDocument<'_>,
        mode: u32,
        beginning: &str,
        what: &str,
    ) -> Result<Self, CliError> {
        let shown = path.display();
        let refuse = |why: &str, help: &str| {
            Err(CliError::new(format!("will not write to `{shown}`: {why}"))
                .help(help.to_owned())
                .exit(Exit::Usage))
        };
        if path.as_os_str() == "-" {
            return refuse(
                "`-` is no file",
                "name a file; `--json` and `--markdown` print to standard output",
            );
        }
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let inputs = plan.inputs.iter().chain(plan.images.iter());
        if inputs.into_iter().any(|input| input.path == target) {
            return refuse("the plan is made from it", "name another file");
        }
        if target.is_file() && !begins_with(&target, beginning) {
            return refuse(
                &format!("it exists and is no {what}"),
                "name another file, or remove this one first",
            );
        }
        Ok(Self { path: path.to_owned(), target, mode, keeps: false })
    }

    /// Writes the file as a whole. What is no file, such as a terminal or a pipe, is written to.
    pub(crate) fn write(&self, content: &[u8]) -> Result<(), CliError> {
        let failed = |error: io::Error| {
            CliError::new(format!("cannot write `{}`", self.path.display()))
                .because(&error)
                .help("name a file in a folder that exists and that you may write to".to_owned())
        };
        if fs::metadata(&self.target).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return fs::write(&self.target, content).map_err(failed);
        }
        let place = if self.keeps { claim } else { replace };
        put(&self.target, self.mode, place, |file| file.write_all(content)).map_err(failed)
    }
}

/// Replaces the text of a file as a whole: who reads it finds the old text or the new one, also after a crash. Links to
/// it stay, and so do its mode and, where we may, its owner.
pub(crate) fn rewrite(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let rewritten = || {
        let target = fs::canonicalize(path)?;
        let old = fs::metadata(&target)?;
        put(&target, PRIVATE, replace, |file| {
            file.write_all(content)?;
            if let Err(error) = fchown(&*file, Some(old.uid()), Some(old.gid())) {
                // Only root gives files away; the file of somebody else becomes our own.
                tracing::debug!(%error, "the file changes its owner");
            }
            file.set_permissions(old.permissions())?;
            file.sync_all()
        })
    };
    rewritten().map_err(|error| {
        CliError::new(format!("cannot write `{}`", path.display()))
            .because(&error)
            .help("check who may write to the file's folder: ls -ld".to_owned())
    })
}

/// Appends to a file that others append to as well; it is made if there is none.
pub(crate) fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}

/// How a draft gets its name.
type Place = fn(&Path, &Path) -> io::Result<()>;

/// The draft takes the place of what is there.
fn replace(draft: &Path, target: &Path) -> io::Result<()> {
    fs::rename(draft, target)
}

/// The draft gets a name that nothing else has: a link is refused where a rename would replace.
fn claim(draft: &Path, target: &Path) -> io::Result<()> {
    fs::hard_link(draft, target)?;
    fs::remove_file(draft)
}

/// Puts a file at `target`, with `mode` and what `fill` writes, or changes nothing.
fn put(
    target: &Path,
    mode: u32,
    place: Place,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let draft = draft(target);
    let drafted = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| fill(&mut file))
        .and_then(|()| place(&draft, target));
    if drafted.is_err()
        && let Err(leftover) = fs::remove_file(&draft)
    {
        tracing::debug!(error = %leftover, "no draft is left");
    }
    drafted
}

/// Whether the file begins with these words, or is empty.
fn begins_with(path: &Path, words: &str) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(words.len() as u64).read_to_end(&mut head));
    read.is_ok() && (head.is_empty() || head.eq_ignore_ascii_case(words.as_bytes()))
}

/// A name beside `path` that no other process takes.
fn draft(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}
