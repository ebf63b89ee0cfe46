//! What the VMFile tests share.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use vmctl_planner::vmfile::Images;
use vmctl_providers::image::{ImageError, ImageIdentity};
use vmctl_providers::{Digest, ImageFormat};

/// Answers for images by the file's name: `broken` ones cannot be read, all others are disks of 2 GiB.
#[derive(Debug, Default)]
pub(crate) struct FakeImages {
    /// The paths that were asked for.
    pub(crate) asked: RefCell<Vec<PathBuf>>,
}

/// What [`FakeImages`] says of each image.
pub(crate) fn identity() -> ImageIdentity {
    ImageIdentity { digest: Digest::of("disk"), format: ImageFormat::Qcow2, virtual_size: 2 << 30 }
}

impl Images for FakeImages {
    fn identify(&self, source: &Path) -> Result<ImageIdentity, ImageError> {
        self.asked.borrow_mut().push(source.to_owned());
        if source.ends_with("broken.img") {
            let cause = std::io::Error::other("unexpected end of file");
            return Err(ImageError::Io { action: "read", path: source.to_owned(), source: cause });
        }
        Ok(identity())
    }
}
