//! What can go wrong between vmctl and its memory.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::project::Holder;
use crate::record::OpId;

/// A failure of the state store or of its lock.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused an operation on a file of the state.
    #[error("cannot {action} `{path}`", path = path.display())]
    Io {
        /// What was attempted, as a verb phrase: "create folder".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },

    /// Another writer holds the lock, and still held it when the wait was over.
    #[error("the state is locked: `{path}` is held by {holder}", path = path.display(), holder = named(holder.as_deref()))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, if it said so.
        holder: Option<Box<Holder>>,
    },

    /// A writer on another host did not sign off, and from here nobody can tell whether it lives.
    #[error(
        "the state is locked: `{path}` names {holder}, which is another host",
        path = path.display()
    )]
    LockedElsewhere {
        /// The file that names the holder.
        path: PathBuf,
        /// Who that is.
        holder: Box<Holder>,
    },

    /// The store is there and cannot be read as a whole, or it is no store of vmctl.
    #[error("the state in `{path}` is damaged: {detail}", path = path.display())]
    Damaged {
        /// The file or folder that cannot be read.
        path: PathBuf,
        /// What was found, for people.
        detail: String,
    },

    /// The store is another one, or older, than the one readers were last shown.
    #[error(
        "the state in `{path}` is {what}: it is at serial {serial} of lineage {lineage}, \
         but serial {published_serial} of lineage {published_lineage} was published",
        path = path.display(),
        what = if lineage == published_lineage { "older than it was" } else { "that of another project" }
    )]
    Replaced {
        /// The store's folder.
        path: PathBuf,
        /// Lineage of the store.
        lineage: Uuid,
        /// Serial of the store.
        serial: u64,
        /// Lineage of the published snapshot.
        published_lineage: Uuid,
        /// Serial of the published snapshot.
        published_serial: u64,
    },

    /// There is no store, but there are traces of one. This is never the same as "nothing was made".
    #[error(
        "the state in `{path}` is missing, but {traces}",
        path = path.display(),
        traces = traces(machines)
    )]
    Missing {
        /// Where the store should be.
        path: PathBuf,
        /// Machines that have a folder, by name; empty if only a published snapshot is left.
        machines: Vec<String>,
    },

    /// The state was written by a newer vmctl.
    #[error(
        "the state in `{path}` has format {found}; this vmctl reads formats up to {supported}",
        path = path.display()
    )]
    Newer {
        /// The file or folder that holds it.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest format version this vmctl knows.
        supported: u32,
    },

    /// A commit contradicts the journal; the caller has a bug, and nothing was written.
    #[error("operation {} cannot be committed: {reason}", op.0)]
    Refused {
        /// The step's number.
        op: OpId,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Classes of [`StoreError`] between which a caller chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Another writer is at work; later it may succeed.
    Locked,
    /// What is stored cannot be trusted.
    Damaged,
    /// There should be a state and there is none.
    Missing,
    /// A newer vmctl is needed.
    Newer,
    /// The operating system refused something.
    Io,
    /// The caller contradicts the journal.
    Refused,
}

impl StoreError {
    /// Returns a function that turns the system's answer to `action` on `path` into an error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// The same error about `folder`, if it was found in a copy of it.
    pub(crate) fn about(self, copy: &Path, folder: &Path) -> Self {
        match self {
            Self::Damaged { path, detail } if path.starts_with(copy) => {
                Self::Damaged { path: folder.to_path_buf(), detail }
            }
            Self::Newer { path, found, supported } if path.starts_with(copy) => {
                Self::Newer { path: folder.to_path_buf(), found, supported }
            }
            other => other,
        }
    }

    /// The class of this error.
    pub fn kind(&self) -> StoreErrorKind {
        match self {
            Self::Io { .. } => StoreErrorKind::Io,
            Self::Locked { .. } | Self::LockedElsewhere { .. } => StoreErrorKind::Locked,
            Self::Damaged { .. } | Self::Replaced { .. } => StoreErrorKind::Damaged,
            Self::Missing { .. } => StoreErrorKind::Missing,
            Self::Newer { .. } => StoreErrorKind::Newer,
            Self::Refused { .. } => StoreErrorKind::Refused,
        }
    }

    /// What a person can do about it, as a full sentence.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Io { path, source, .. } => io_help(path, source.kind()),
            Self::Locked { holder: Some(holder), .. } => Some(format!(
                "Wait until process {} on `{}` is done, or pass `--lock-timeout 10m` to wait for it; the lock is given \
                 back when that process ends, however it ends.",
                holder.pid, holder.host
            )),
            Self::Locked { holder: None, .. } => Some(
                "Wait until the other process is done, or pass `--lock-timeout 10m` to wait for it; the lock is given \
                 back when it ends, however it ends."
                    .into(),
            ),
            Self::LockedElsewhere { holder, .. } => Some(format!(
                "Look on `{}` whether process {} still runs. If it does not, `vmctl state unlock --force` clears its \
                 mark; if it does, two at once would damage the state.",
                holder.host, holder.pid
            )),
            Self::Damaged { path, .. } => Some(format!(
                "{REBUILD} Or put the newest copy of the folder `{}` back.",
                state_folder(path).display()
            )),
            Self::Replaced { path, .. } => Some(format!(
                "{REBUILD} Or put the newest copy of the folder `{}` back.",
                path.display()
            )),
            Self::Missing { path, machines } if machines.is_empty() => {
                Some(format!("{REBUILD} Or put a copy of the folder `{}` back.", path.display()))
            }
            Self::Missing { path, machines } => Some(format!(
                "{REBUILD} Or put a copy of the folder `{}` back. There are folders of: {}.",
                path.display(),
                machines.join(", ")
            )),
            Self::Newer { .. } => Some("Use the vmctl that wrote it, or a newer one.".into()),
            Self::Refused { .. } => None,
        }
    }

    /// Whether the file system had no room left.
    pub(crate) fn is_full(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::StorageFull)
    }

    /// Whether this user, or anyone, may only read.
    pub(crate) fn is_write_refused(&self) -> bool {
        matches!(self.io_kind(), Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            Self::Locked { .. }
            | Self::LockedElsewhere { .. }
            | Self::Damaged { .. }
            | Self::Replaced { .. }
            | Self::Missing { .. }
            | Self::Newer { .. }
            | Self::Refused { .. } => None,
        }
    }
}

fn io_help(path: &Path, kind: io::ErrorKind) -> Option<String> {
    match kind {
        io::ErrorKind::PermissionDenied => Some(format!(
            "Give this user the right to read and write `{}`, or use another data folder.",
            path.display()
        )),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some(format!("`{}` is on a read-only file system; use another data folder.", path.display()))
        }
        io::ErrorKind::StorageFull => Some(format!(
            "Free space on the file system that holds `{}`, then try again. `vmctl apply --destroy` works on a full disk too.",
            path.display()
        )),
        _ => None,
    }
}

/// The store's folder, whichever of the project's files an error is about.
fn state_folder(path: &Path) -> PathBuf {
    if path.file_name().is_some_and(|name| name == "snapshot.json") {
        path.with_file_name("state")
    } else {
        path.to_path_buf()
    }
}

/// The way out of every damage.
const REBUILD: &str = "`vmctl state rebuild` makes it again from what was published and from what the machines' \
                       folders say, and keeps what is there now.";

fn named(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process".into(), Holder::to_string)
}

fn traces(machines: &[String]) -> String {
    match machines {
        [] => "a snapshot of it was published".into(),
        [one] => format!("there is a folder of machine `{one}`"),
        [first, ..] => format!("there are folders of {} machines, such as `{first}`", machines.len()),
    }
}
