//! `VMFile.lock`: which bytes each URL of a VMFile is, in a file that is committed beside it.
//!
//! JSON, because a program writes it and programs read it; with sorted keys and one fact a line, so that the same pins
//! are the same bytes and a merge shows what moved. It is replaced as a whole, and what is written is put together with
//! what stands there, under a lock: two applies may share a VMFile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vmctl_providers::Digest;
use vmctl_providers::image::{ImageIdentity, Upstream};

/// Version of the file's form.
const VERSION: u64 = 1;

/// Largest file that is read: more than ten thousand images have.
const MAX_BYTES: u64 = 8 << 20;

/// What stands in the file in front of the pins, for people who open it.
const NOTE: &str =
    "Written by vmctl: which bytes each image of the VMFile is. Commit it; `vmctl image update` moves it.";

/// Pins by URL, as they stand in a lock file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    /// What each URL is pinned to.
    pub images: BTreeMap<String, Locked>,
}

/// What a URL is pinned to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// Digest of the bytes as they lie on the server.
    pub sha256: Digest,
    /// What the server said when they were fetched.
    #[serde(default, skip_serializing_if = "is_silent")]
    pub upstream: Upstream,
    /// What comes out of them: unpacked, and converted where they came in another format.
    pub image: ImageIdentity,
}

fn is_silent(upstream: &Upstream) -> bool {
    *upstream == Upstream::default()
}

/// The form of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u64,
    #[serde(default)]
    note: String,
    #[serde(default)]
    images: BTreeMap<String, Locked>,
}

/// A lock file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockFileError {
    /// It could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// It is not what vmctl writes.
    #[error("`{}` is damaged, or no lock file of vmctl", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A pin in it cannot be one.
    #[error("`{}` is damaged: the pin of `{url}` is none", path.display())]
    BadPin {
        /// The file.
        path: PathBuf,
        /// Whose pin.
        url: String,
    },
    /// It was written by a newer vmctl.
    #[error("`{}` has format {found}, and this vmctl reads format {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// It is larger than any lock file.
    #[error("`{}` has {size} bytes, at most {MAX_BYTES} are read", path.display())]
    TooBig {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}

impl LockFileError {
    /// What to do next.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Io { .. } => "the VMFile's folder must be readable, and to pin images it must be writable",
            Self::Damaged { .. } | Self::BadPin { .. } | Self::TooBig { .. } => {
                "take it back from version control; after a merge, keep one side of each entry; if it is lost, remove \
                 it: the next `vmctl apply` pins what machines were made from, and what servers have by then"
            }
            Self::Version { .. } => "use the newer vmctl that wrote it, here as well",
        }
    }
}

impl Lock {
    /// Reads the text of a lock file; `path` is its name in errors.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, LockFileError> {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        let damaged = |source| LockFileError::Damaged { path: path.to_owned(), source };
        // The version first: what follows may have another form in another one.
        let head: Head = serde_json::from_slice(text).map_err(damaged)?;
        if head.version != VERSION {
            return Err(LockFileError::Version { path: path.to_owned(), found: head.version });
        }
        let form: Form = serde_json::from_slice(text).map_err(damaged)?;
        match form.images.iter().find(|(_, pin)| !pin.is_sound()) {
            None => Ok(Self { images: form.images }),
            Some((url, _)) => Err(LockFileError::BadPin { path: path.to_owned(), url: url.clone() }),
        }
    }

    /// The text of the file: the same pins give the same bytes.
    pub fn to_text(&self) -> String {
        let form = Form { version: VERSION, note: NOTE.to_owned(), images: self.images.clone() };
        let text = serde_json::to_string_pretty(&form);
        let mut text = text.expect("plain data with string keys always has a JSON form");
        text.push('\n');
        text
    }
}

impl Locked {
    /// Whether its digests can be some: they become names of files.
    fn is_sound(&self) -> bool {
        let is_digest = |digest: &Digest| {
            let text = digest.as_str().strip_prefix("sha256:").unwrap_or_default();
            text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        is_digest(&self.sha256) && is_digest(&self.image.digest) && self.image.virtual_size > 0
    }
}

/// The lock file of one VMFile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFile {
    vmfile: PathBuf,
    path: PathBuf,
}

impl LockFile {
    /// The lock file of the VMFile at `vmfile`, whether it exists or not: `VMFile.lock` beside `VMFile.kdl`.
    pub fn of(vmfile: &Path) -> Self {
        let mut name = vmfile.file_stem().map_or_else(OsString::new, ToOwned::to_owned);
        name.push(".lock");
        Self { vmfile: vmfile.to_owned(), path: vmfile.with_file_name(name) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it pins, and its text; `None` if there is none.
    pub fn read(&self) -> Result<Option<(Lock, Vec<u8>)>, LockFileError> {
        let io = |source| LockFileError::Io { action: "read", path: self.path.clone(), source };
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
            Ok(found) if !found.is_file() => {
                return Err(io(std::io::Error::other("it is no regular file")));
            }
            Ok(found) if found.len() > MAX_BYTES => {
                return Err(LockFileError::TooBig { path: self.path.clone(), size: found.len() });
            }
            Ok(_) => {}
        }
        let text = fs::read(&self.path).map_err(io)?;
        Ok(Some((Lock::parse(&self.path, &text)?, text)))
    }

    /// Puts `pins` into the file, and drops those of URLs that are not `named` any more. A URL that has a pin already
    /// keeps it, unless it is among `moved`. Returns whether the file changed.
    ///
    /// On failure the file is as it was.
    pub fn write(
        &self,
        pins: &BTreeMap<String, Locked>,
        moved: &BTreeSet<String>,
        named: &BTreeSet<String>,
    ) -> Result<bool, LockFileError> {
        let io = |action| move |source| LockFileError::Io { action, path: self.path.clone(), source };
        // Whoever writes holds the VMFile, which is there already and is never replaced by us.
        let guard = File::open(&self.vmfile).map_err(io("find the VMFile of"))?;
        guard.lock().map_err(io("lock the VMFile of"))?;
        let before = self.read()?;
        let mut lock = before.as_ref().map(|(lock, _)| lock.clone()).unwrap_or_default();
        for (url, pin) in pins {
            if moved.contains(url) {
                lock.images.insert(url.clone(), pin.clone());
            } else {
                lock.images.entry(url.clone()).or_insert_with(|| pin.clone());
            }
        }
        lock.images.retain(|url, _| named.contains(url));
        let text = lock.to_text();
        if before.is_some_and(|(_, before)| before == text.as_bytes()) {
            return Ok(false);
        }
        self.replace(text.as_bytes()).map_err(io("write"))?;
        Ok(true)
    }

    /// The file appears whole, and is on the disk when this returns. Only whoever holds the VMFile may call it.
    fn replace(&self, text: &[u8]) -> std::io::Result<()> {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".new");
        let part = self.path.with_file_name(name);
        // Of one that was killed here.
        let _ = fs::remove_file(&part);
        let written = File::options().write(true).create_new(true).open(&part).and_then(|mut file| {
            file.write_all(text)?;
            file.sync_all()?;
            fail::fail_point!("state.pins.drafted", |errno| Err(crate::failpoints::answer(errno)));
            fs::rename(&part, &self.path)
        });
        written.inspect_err(|_| {
            // It may never have been made.
            let _ = fs::remove_file(&part);
        })?;
        fail::fail_point!("state.pins.replaced", |errno| Err(crate::failpoints::answer(errno)));
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use vmctl_providers::ImageFormat;

    use super::*;

    fn locked(word: &str) -> Locked {
        Locked {
            sha256: Digest::of(word),
            upstream: Upstream { size: Some(3), etag: Some("\"x\"".to_owned()), ..Upstream::default() },
            image: ImageIdentity {
                digest: Digest::of(word.to_uppercase()),
                format: ImageFormat::Qcow2,
                virtual_size: 1 << 30,
            },
        }
    }

    fn folder() -> (tempfile::TempDir, LockFile) {
        let folder = tempfile::tempdir().unwrap();
        let vmfile = folder.path().join("VMFile.kdl");
        fs::write(&vmfile, "").unwrap();
        let lock = LockFile::of(&vmfile);
        (folder, lock)
    }

    fn set(urls: &[&str]) -> BTreeSet<String> {
        urls.iter().map(|url| (*url).to_owned()).collect()
    }

    fn pins(of: &[(&str, &str)]) -> BTreeMap<String, Locked> {
        of.iter().map(|(url, word)| ((*url).to_owned(), locked(word))).collect()
    }

    #[test]
    fn text_is_readable_and_comes_back_as_it_was() {
        let lock = Lock { images: pins(&[("https://h/b", "b"), ("https://h/a", "a")]) };
        let text = lock.to_text();
        assert_eq!(Lock::parse(Path::new("x"), text.as_bytes()).unwrap(), lock);
        insta::assert_snapshot!(text, @r#"
        {
          "version": 1,
          "note": "Written by vmctl: which bytes each image of the VMFile is. Commit it; `vmctl image update` moves it.",
          "images": {
            "https://h/a": {
              "sha256": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
              "upstream": {
                "size": 3,
                "etag": "\"x\""
              },
              "image": {
                "digest": "sha256:559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd",
                "format": "qcow2",
                "virtual_size": 1073741824
              }
            },
            "https://h/b": {
              "sha256": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
              "upstream": {
                "size": 3,
                "etag": "\"x\""
              },
              "image": {
                "digest": "sha256:df7e70e5021544f4834bbee64a9e3789febc4be81470df629cad6ddb03320a5c",
                "format": "qcow2",
                "virtual_size": 1073741824
              }
            }
          }
        }
        "#);
    }

    #[test]
    fn what_was_not_written_by_this_version_is_refused_and_named() {
        let good = Lock { images: pins(&[("https://h/a", "a")]) }.to_text();
        let error = |text: &str| Lock::parse(Path::new("f.lock"), text.as_bytes()).unwrap_err();
        assert!(matches!(error(""), LockFileError::Damaged { .. }));
        assert!(matches!(error(&good[..good.len() / 2]), LockFileError::Damaged { .. }));
        assert!(matches!(error("<<<<<<< HEAD"), LockFileError::Damaged { .. }));
        let newer = error(&good.replace("\"version\": 1", "\"version\": 2, \"more\": []"));
        assert_eq!(newer.to_string(), "`f.lock` has format 2, and this vmctl reads format 1");
        let unknown = good.replace("\"note\"", "\"noet\"");
        assert!(matches!(error(&unknown), LockFileError::Damaged { .. }));
        for (from, to) in [("sha256:ca97", "sha256:../.."), ("\"sha256:55", "\""), ("1073741824", "0")] {
            let bad = error(&good.replace(from, to));
            assert_eq!(bad.to_string(), "`f.lock` is damaged: the pin of `https://h/a` is none", "{to}");
        }
    }

    #[test]
    fn lock_stands_beside_its_vmfile() {
        let path = |vmfile: &str| LockFile::of(Path::new(vmfile)).path().to_owned();
        assert_eq!(path("/p/VMFile.kdl"), Path::new("/p/VMFile.lock"));
        assert_eq!(path("dev.vm.kdl"), Path::new("dev.vm.lock"));
    }

    #[test]
    fn pins_are_added_kept_moved_and_dropped() {
        let (folder, file) = folder();
        assert_eq!(file.read().unwrap(), None);
        let (none, both) = (set(&[]), set(&["https://h/a", "https://h/b"]));
        assert!(file.write(&pins(&[("https://h/a", "a")]), &none, &both).unwrap());
        // Somebody else was faster: what stands there stays.
        assert!(file.write(&pins(&[("https://h/a", "other"), ("https://h/b", "b")]), &none, &both).unwrap());
        let stands = || file.read().unwrap().unwrap().0.images;
        assert_eq!(stands(), pins(&[("https://h/a", "a"), ("https://h/b", "b")]));
        assert!(!file.write(&BTreeMap::new(), &none, &both).unwrap(), "nothing to write");
        let moved = pins(&[("https://h/a", "moved")]);
        assert!(file.write(&moved, &set(&["https://h/a"]), &set(&["https://h/a"])).unwrap());
        assert_eq!(stands(), moved);
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn damaged_file_is_not_overwritten() {
        let (_folder, file) = folder();
        fs::write(file.path(), "{").unwrap();
        let written = file.write(&pins(&[("https://h/a", "a")]), &set(&[]), &set(&["https://h/a"]));
        assert!(matches!(written, Err(LockFileError::Damaged { .. })));
        assert_eq!(fs::read(file.path()).unwrap(), b"{");
    }
}
