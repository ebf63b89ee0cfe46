//! Files that a VMFile names: where they are, what they say, and the list of those that were read.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use sha2::Digest as _;
use vmctl_providers::Digest;

use crate::desired::InputFile;

/// Size of a script or user-data file that is accepted; both travel in memory.
pub(super) const MAX_TEXT: u64 = 1 << 20;

/// Why a file cannot be used; completes the sentence "cannot read `path`: …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("no such file")]
    Missing,
    #[error("it is a folder")]
    Folder,
    #[error("it is not a regular file")]
    Special,
    #[error("it has {size} bytes, at most {limit} are accepted")]
    TooBig { size: u64, limit: u64 },
    #[error("it is not UTF-8 text (byte {at})")]
    NotText { at: usize, bytes: Vec<u8> },
    #[error("`~` stands for the home folder, and there is none")]
    NoHome,
    #[error("`~` with a user's name is not supported")]
    OtherHome,
    #[error("{0}")]
    Io(io::Error),
}

impl FileError {
    /// What to do next.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Missing => "paths are relative to the VMFile's folder, and `~` is your home folder",
            Self::Folder | Self::Special => "name a regular file",
            Self::TooBig { .. } => "copy big files by other means, or let the guest download them",
            Self::NotText { .. } => "save it as UTF-8 text",
            Self::NoHome => "set HOME, or write the whole path",
            Self::OtherHome => "write `~/…` for your own home folder, or the whole path",
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "check who may read it: ls -l"
            }
            Self::Io(_) => "check the path",
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Missing } else { Self::Io(error) }
    }
}

/// Opens a regular file; anything else is refused before it is opened, as opening a pipe would wait for ever.
pub(super) fn open_regular(path: &Path) -> Result<(fs::File, fs::Metadata), FileError> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(FileError::Folder);
    }
    if !kind.is_file() {
        return Err(FileError::Special);
    }
    let file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// Reads a regular UTF-8 file of at most `limit` bytes.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, FileError> {
    let (file, metadata) = open_regular(path)?;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes)?;
    if read as u64 > limit {
        return Err(FileError::TooBig { size: metadata.len().max(read as u64), limit });
    }
    String::from_utf8(bytes).map_err(|error| FileError::NotText {
        at: error.utf8_error().valid_up_to(),
        bytes: error.into_bytes(),
    })
}

/// What a file step copies.
pub(super) struct Content {
    pub(super) digest: Digest,
    /// Permission bits.
    pub(super) mode: u32,
}

/// `path` without `.` and `x/..`, where it leads to the same file without them; a link in the way keeps its `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if short.file_name().is_some() => {
                short.pop();
            }
            part => short.push(part),
        }
    }
    if short.as_os_str() == path.as_os_str() {
        return short;
    }
    let same = match (path.canonicalize(), short.canonicalize()) {
        (Ok(long), Ok(short)) => long == short,
        _ => false,
    };
    if same { short } else { path.to_owned() }
}

/// Resolves paths and remembers what was read.
#[derive(Debug, Default)]
pub(super) struct Files {
    home: Option<PathBuf>,
    inputs: Vec<InputFile>,
    seen: HashSet<PathBuf>,
}

impl Files {
    /// `home` is the home folder, if it is known.
    pub(super) fn new(home: Option<PathBuf>) -> Self {
        Self { home, inputs: Vec::new(), seen: HashSet::new() }
    }

    /// The files read so far, in order, each once.
    pub(super) fn into_inputs(self) -> Vec<InputFile> {
        self.inputs
    }

    /// The absolute path that `written`, which stands in a file of `folder`, means. Whatever it looks like, it is a path
    /// and nothing else.
    pub(super) fn path_in(&self, folder: &Path, written: &str) -> Result<PathBuf, FileError> {
        match written.strip_prefix('~') {
            None => Ok(tidy(&folder.join(written))),
            Some("") => self.home.clone().ok_or(FileError::NoHome),
            Some(rest) => match rest.strip_prefix('/') {
                Some(rest) => {
                    let home = self.home.as_ref().ok_or(FileError::NoHome)?;
                    Ok(tidy(&home.join(rest.trim_start_matches('/'))))
                }
                None => Err(FileError::OtherHome),
            },
        }
    }

    /// A file of the home folder, if there is one.
    pub(super) fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name)).filter(|path| path.is_file())
    }

    /// Notes that the content of `path` decided the result.
    pub(super) fn note(&mut self, path: &Path, digest: Digest) {
        if self.seen.insert(path.to_owned()) {
            self.inputs.push(InputFile { path: path.to_owned(), digest });
        }
    }

    /// The text of a script, key or user-data file.
    pub(super) fn text(&mut self, path: &Path) -> Result<String, FileError> {
        let text = read_text(path, MAX_TEXT)?;
        self.note(path, Digest::of(&text));
        Ok(text)
    }

    /// The digest and mode of a file of any size.
    pub(super) fn content(&mut self, path: &Path) -> Result<Content, FileError> {
        let (mut file, metadata) = open_regular(path)?;
        let digest = digest_of(&mut file)?;
        self.note(path, digest.clone());
        Ok(Content { digest, mode: metadata.permissions().mode() & 0o777 })
    }

    /// The digest and mode of a file, or of a folder with all that is in it.
    pub(super) fn content_of_any(&mut self, path: &Path) -> Result<Content, FileError> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_dir() {
            return self.content(path);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name());
        }
        names.sort();
        let mut parts = Vec::new();
        for name in names {
            let inner = path.join(&name);
            let content = if fs::symlink_metadata(&inner)?.is_symlink() {
                let target = fs::read_link(&inner)?;
                Content { digest: Digest::of(target.as_os_str().as_encoded_bytes()), mode: 0 }
            } else {
                self.content_of_any(&inner)?
            };
            parts.push(format!("{}\0{}\0{:o}", name.to_string_lossy(), content.digest, content.mode));
        }
        Ok(Content { digest: Digest::of(parts.join("\n")), mode: metadata.permissions().mode() & 0o777 })
    }
}

/// The digest of the content of a regular file of any size.
pub(crate) fn content_digest(path: &Path) -> Result<Digest, FileError> {
    digest_of(&mut open_regular(path)?.0)
}

fn digest_of(file: &mut fs::File) -> Result<Digest, FileError> {
    const CHUNK: usize = 64 * 1024;
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Digest::from_hash(&hash.finalize())),
            Ok(count) => hash.update(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
