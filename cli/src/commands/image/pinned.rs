//! What lock files pin: images that no machine may need yet, and that the next plan counts on.

use std::collections::BTreeSet;
use std::path::PathBuf;

use vmctl_planner::pins::{Lock, LockFile};
use vmctl_providers::Digest;
use vmctl_providers::image::CachedImage;

use crate::context::Context;
use crate::error::CliError;

/// A lock file, and what it pins.
pub(super) struct Pinned {
    path: PathBuf,
    lock: Lock,
}

impl Pinned {
    /// Whether it pins `image`: as the file that it is, or as the download that it came from. Another host's conversion
    /// may have given other bytes.
    fn has(&self, image: &CachedImage) -> bool {
        let came = |sha256: &Digest| image.origins.iter().any(|origin| origin.sha256 == *sha256);
        self.lock.images.values().any(|pin| pin.image.digest == image.image.digest || came(&pin.sha256))
    }
}

/// Every lock file that is known: beside the VMFile here, and beside those that an apply or `image update` used. One that
/// is gone pins nothing; one that cannot be read must not lose its images.
pub(super) fn pinned(ctx: &Context) -> Result<Vec<Pinned>, CliError> {
    let here = ctx.has_vmfile().then(|| ctx.vmfile()).transpose()?;
    let vmfiles: BTreeSet<PathBuf> = ctx.images()?.pinned_for().into_iter().chain(here).collect();
    let mut found = Vec::new();
    for file in vmfiles.iter().map(|vmfile| LockFile::of(vmfile)) {
        let read = file.read().map_err(|error| CliError::of(&error).help(error.help().to_owned()))?;
        found.extend(read.map(|(lock, _)| Pinned { path: file.path().to_owned(), lock }));
    }
    Ok(found)
}

/// The lock files that pin `image`.
pub(super) fn by(pinned: &[Pinned], image: &CachedImage) -> Vec<String> {
    pinned.iter().filter(|file| file.has(image)).map(|file| file.path.display().to_string()).collect()
}
