//! Whether the image under a disk is still the one that the disk was made on.
//!
//! The file is compared with what is known of it. A file that is another one by its inode or its times, because it was
//! copied, restored or touched, is read: its bytes decide. What they were found to be is remembered by the image
//! cache, so that a machine is not read for at every look.

use std::io;

use super::backend::QemuBackend;
use super::manifest::{BaseFile, Manifest};
use crate::error::{Error, Result};
use crate::image::ImageCache;
use crate::spec::DiskImage;

impl QemuBackend {
    /// Fails with [`Error::BaseChanged`] if the file of `image` is not what it was. If it has the same bytes in another
    /// file, that file is returned, to be known from then on.
    pub(super) async fn check_base(
        &self,
        manifest: &Manifest,
        image: Option<&DiskImage>,
    ) -> Result<Option<BaseFile>> {
        let (Some(base), Some(DiskImage { path, digest, .. })) = (&manifest.base, image) else {
            return Ok(None);
        };
        let changed = |what| Err(Error::BaseChanged { path: path.clone(), what });
        let now = match BaseFile::of(path) {
            Ok(now) => now,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return changed("it is gone".to_owned());
            }
            Err(error) => return Err(error),
        };
        let Some(what) = base.difference(&now) else { return Ok(None) };
        if now.size != base.size {
            return changed(what);
        }
        let (cache, source) = (ImageCache::new(&self.config().images_dir), path.clone());
        let read = tokio::task::spawn_blocking(move || cache.identify(&source)).await;
        match read.map_err(|error| Error::io("read", path)(io::Error::other(error)))? {
            Ok(found) if found.digest == *digest => Ok(Some(now)),
            Ok(_) => changed(what),
            Err(error) => changed(format!("{what}, and {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::manifest::tests::spec;
    use super::super::{AccelChoice, QemuConfig};
    use super::*;
    use crate::spec::Digest;
    use crate::ssh::Keyring;

    #[tokio::test]
    async fn changed_image_is_noticed_and_the_same_bytes_in_another_file_are_not_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let backend = QemuBackend::new(QemuConfig {
            vms_dir: folder.path().join("vms"),
            images_dir: folder.path().join("images"),
            templates_dir: folder.path().join("templates"),
            runtime_dir: folder.path().join("run"),
            accel: AccelChoice::Tcg,
            take_over: false,
            firmware_dirs: Vec::new(),
            keyring: Keyring::default(),
            bridge_helper: None,
            lease_files: Vec::new(),
        });
        let mut disk = vec![7; 4096];
        disk[510..512].copy_from_slice(b"\x55\xaa");
        let image = folder.path().join("image");
        fs::write(&image, &disk).unwrap();
        let mut spec = spec(&image);
        spec.machine.image.as_mut().unwrap().digest = Digest::of(&disk);
        let manifest = Manifest::new(&spec, Some(BaseFile::of(&image).unwrap()));
        let check = async || backend.check_base(&manifest, spec.machine.image.as_ref()).await;
        assert_eq!(check().await.unwrap(), None);

        let other = image.with_extension("new");
        fs::write(&other, &disk).unwrap();
        fs::rename(&other, &image).unwrap();
        assert_eq!(check().await.unwrap(), Some(BaseFile::of(&image).unwrap()));

        disk[1000] = 8;
        fs::write(&other, &disk).unwrap();
        fs::rename(&other, &image).unwrap();
        let error = async || check().await.unwrap_err().to_string();
        // The file system may give the new file the inode of the one before it.
        assert!(matches!(check().await, Err(Error::BaseChanged { .. })));
        fs::write(&image, "longer than it was").unwrap();
        assert!(error().await.ends_with("it had 4096 bytes, now it has 18"));
        fs::remove_file(&image).unwrap();
        assert!(error().await.ends_with("it is gone"));
    }
}
