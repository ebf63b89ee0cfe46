//! What is compressed, or in a format of other programs, becomes a file of the cache once: from a file of the host as
//! from a server.

use std::fs::File;
use std::path::Path;

use super::convert::{self, Failure, convert_now};
use super::file::{Stamp, check, examine, open, read_at};
use super::foreign::Foreign;
use super::header::{self, Header};
use super::intake::{FromFile, Stop, Targets, take_in};
use super::remote::part::Part;
use super::remote::{FetchError, FetchOptions, Upstream};
use super::unpack::Packing;
use super::{ImageCache, ImageError, ImageIdentity};
use crate::spec::Digest;

/// What an unpacked file was found to be.
#[derive(Debug)]
pub(super) enum Looked {
    /// An image that machines can use.
    Image(Header),
    /// One that must be converted, and may be.
    Foreign(Foreign),
}

/// Looks at a file of `size` bytes that only this process can change.
pub(super) fn look(path: &Path, size: u64) -> Result<Looked, ImageError> {
    let (file, _) = open(path)?;
    let mut head = vec![0; usize::try_from(size).unwrap_or(header::HEAD).min(header::HEAD)];
    let io = |source| ImageError::Io { action: "read", path: path.to_owned(), source };
    read_at(&file, 0, &mut head).map_err(io)?;
    let Some(format) = Foreign::of(&head) else { return check(&file, path, &head, size).map(Looked::Image) };
    match convert::check(format, &file, size) {
        Ok(_) => Ok(Looked::Foreign(format)),
        Err(Failure::Read(error)) => Err(io(error)),
        Err(Failure::Refused(problem)) => Err(ImageError::Refused { path: path.to_owned(), problem }),
    }
}

/// What a conversion made: it is looked at like anything else.
pub(super) fn made(path: &Path) -> Result<(ImageIdentity, u64), ImageError> {
    let (file, stamp) = open(path)?;
    let identity = examine(file, path, &stamp, |_, _| Ok(()))?;
    Ok((identity, stamp.size))
}

/// Whether a file must become another one before a machine can use it.
pub(super) fn is_needed(file: &File, source: &Path) -> Result<bool, ImageError> {
    let mut head = [0; 512];
    let io = |error| ImageError::Io { action: "read", path: source.to_owned(), source: error };
    read_at(file, 0, &mut head).map_err(io)?;
    Ok(Packing::of(&head).is_some() || Foreign::of(&head).is_some())
}

/// Makes of a file of the host what machines can use, in the cache. Returns it with the digest of the file as it lies
/// there.
pub(super) fn adopt(
    cache: &ImageCache,
    file: &File,
    source: &Path,
    stamp: &Stamp,
) -> Result<(ImageIdentity, Digest), ImageError> {
    let key = Digest::of(format!("{stamp:?}"));
    let part = Part::wait(&cache.downloads(), key.hex())?;
    let adopted = adopt_into(&part, cache, file, source, stamp);
    part.discard();
    adopted
}

fn adopt_into(
    part: &Part,
    cache: &ImageCache,
    file: &File,
    source: &Path,
    stamp: &Stamp,
) -> Result<(ImageIdentity, Digest), ImageError> {
    let limit = FetchOptions::default().max_bytes;
    let unusable = |error| ImageError::Unusable { path: source.to_owned(), source: Box::new(error) };
    part.clear()?;
    let (kept, content) = (part.path(), part.content());
    let mut from = FromFile { file, at: 0, end: stamp.size, path: source };
    // It is copied before anybody trusts what was seen in it: whoever owns it may write to it at any time.
    let targets = Targets { packed: Some((part.file(), &kept)), kept: 0, unpacked: &content, limit };
    let taken = take_in(&mut from, &targets).map_err(|stop| match stop {
        Stop::Cache(error) => error,
        Stop::Useless(FetchError::Refused(problem)) => {
            ImageError::Refused { path: source.to_owned(), problem }
        }
        Stop::Useless(error) => unusable(error),
        Stop::Aborted => ImageError::Changed { path: source.to_owned() },
    })?;
    let now = file.metadata().map_err(|error| ImageError::Io {
        action: "read",
        path: source.to_owned(),
        source: error,
    })?;
    if Stamp::of(&now) != *stamp || taken.size != stamp.size {
        return Err(ImageError::Changed { path: source.to_owned() });
    }
    let (digest, size, path) = match taken.unpacked {
        Some((digest, size)) => (digest, size, content),
        None => (taken.sha256.clone(), taken.size, kept),
    };
    // The path that is told is the one that was named.
    let named = |error| match error {
        ImageError::Refused { problem, .. } => ImageError::Refused { path: source.to_owned(), problem },
        other => other,
    };
    let (from, identity, length) = match look(&path, size).map_err(named)? {
        Looked::Image(header) => (path, header.identity(digest), size),
        Looked::Foreign(format) => {
            let target = part.converted();
            convert_now(format, &path, &target, limit)
                .map_err(|error| unusable(FetchError::Convert(Box::new(error))))?;
            let (identity, length) = made(&target)?;
            (target, identity, length)
        }
    };
    cache.place(&from, &identity, length)?;
    let url = format!("file://{}", source.display());
    cache
        .set_entry(&taken.sha256, &url, &Upstream::default(), &identity, length)
        .map_err(|error| ImageError::Cache { action: "write", path: cache.fetched(), source: error })?;
    Ok((identity, taken.sha256))
}
