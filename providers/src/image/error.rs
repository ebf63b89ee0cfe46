//! Why a file cannot serve as a disk image.

use std::path::PathBuf;

use super::header::HeaderError;
use super::remote::FetchError;
use crate::error::ErrorKind;

/// Why a file cannot serve as a disk image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The image could not be read.
    #[error("cannot {action} `{path}`", path = path.display())]
    Io {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The cache could not be written.
    #[error("cannot {action} `{path}` in the image cache", path = path.display())]
    Cache {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A folder, a device, a pipe.
    #[error("`{path}` is {what}, an image must be a regular file", path = path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is, with its article.
        what: &'static str,
    },
    /// The content is no image that may be used.
    #[error("`{path}` cannot be used as a disk image: {problem}", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: HeaderError,
    },
    /// The image could not be fetched.
    #[error("cannot fetch `{url}`")]
    Fetch {
        /// Where from, without login and query.
        url: String,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// The file is packed, or of another program, and cannot be made an image.
    #[error("`{path}` cannot be made a disk image", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// It is not what it was when it was identified.
    #[error("`{path}` changed while it was in use", path = path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl ImageError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::NotAFile { .. } | Self::Refused { .. } => ErrorKind::InvalidInput,
            Self::Changed { .. } => ErrorKind::InUse,
            Self::Fetch { source, .. } | Self::Unusable { source, .. } => source.kind(),
            Self::Cache { .. } => ErrorKind::Host,
        }
    }

    /// What to do next, where there is something to do.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "build or download the image first; the path is relative to the VMFile"
            }
            Self::Io { .. } => "make the file readable for the user that runs vmctl",
            Self::Cache { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "free some space, or choose another data folder with --data-dir"
            }
            Self::Cache { .. } => "the data folder must be writable; --data-dir chooses another one",
            Self::NotAFile { .. } => "name the image file itself",
            Self::Refused { problem, .. } => problem.help(),
            Self::Fetch { source, .. } | Self::Unusable { source, .. } => return source.help(),
            Self::Changed { .. } => "run vmctl again when nothing writes to the image any more",
        };
        Some(text.to_owned())
    }
}
