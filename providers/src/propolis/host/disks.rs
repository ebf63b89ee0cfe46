//! Disks as ZFS volumes: one volume for each image, and of it a clone for each machine.
//!
//! Names alone prove nothing. A volume of ours bears a mark (`vmctl:id`, `vmctl:image`) that is set in the same command
//! that makes it, and nothing without the right mark is written to or destroyed. An image is whole when it has its
//! snapshot: what has none is the beginning of one, and made anew.

use std::path::{Path, PathBuf};

use super::commands::{ID_MARK, IMAGE_MARK};
use super::{Runner, commands};
use crate::error::{Error, Result};
use crate::failpoints::failpoint;
use crate::propolis::raw;
use crate::spec::{DiskImage, InstanceId};

/// What sizes of volumes are multiples of: any block size of ZFS divides it.
const UNIT: u64 = 1 << 20;

/// The snapshot of an image that clones are made of.
const WHOLE: &str = "v1";

/// How a property is shown that is not set.
const UNSET: &str = "-";

/// A volume or a snapshot that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    bytes: u64,
    id: String,
    image: String,
}

/// The volumes under one dataset.
#[derive(Debug, Clone, Copy)]
pub(in crate::propolis) struct Disks<'a> {
    /// What runs commands.
    pub(in crate::propolis) host: &'a dyn Runner,
    /// The dataset.
    pub(in crate::propolis) pool: &'a str,
    /// Where the host has a device for each volume.
    pub(in crate::propolis) devices: &'a Path,
}

impl Disks<'_> {
    /// The device of an instance's disk, whether it is there or not.
    pub(in crate::propolis) fn device(&self, id: InstanceId) -> PathBuf {
        self.devices.join(self.volume(id))
    }

    fn volume(&self, id: InstanceId) -> String {
        format!("{}/vmctl-{}", self.pool, id.short())
    }

    fn image_volume(&self, image: &DiskImage) -> String {
        format!("{}/vmctl-image-{}", self.pool, &image.digest.hex()[..16])
    }

    /// Makes the disk of an instance, of at least `bytes`, or grows it. Idempotent. `scratch` is a path for a file that is
    /// removed again.
    pub(in crate::propolis) async fn ensure(
        &self,
        id: InstanceId,
        image: Option<&DiskImage>,
        bytes: u64,
        scratch: &Path,
    ) -> Result<()> {
        let bytes = bytes.next_multiple_of(UNIT);
        let name = self.volume(id);
        let size = match (self.own(id).await?, image) {
            (Some(row), _) => row.bytes,
            (None, Some(image)) => {
                let snapshot = self.ensure_image(image, scratch).await?;
                self.host.run(&commands::clone(&snapshot, &name, id)).await?;
                failpoint!("prepare.propolis.disk-cloned", &name);
                image.virtual_size.next_multiple_of(UNIT)
            }
            (None, None) => {
                self.host.run(&commands::create_volume(&name, bytes, (ID_MARK, &id.to_string()))).await?;
                bytes
            }
        };
        if size < bytes {
            self.host.run(&commands::resize(&name, bytes)).await?;
            failpoint!("prepare.propolis.disk-grown", &name);
        }
        Ok(())
    }

    /// Whether the disk of an instance is there, and its.
    pub(in crate::propolis) async fn is_there(&self, id: InstanceId) -> Result<bool> {
        self.own(id).await.map(|row| row.is_some())
    }

    /// Destroys the disk of an instance. Missing is fine; a volume of that name without its mark is an error.
    pub(in crate::propolis) async fn destroy(&self, id: InstanceId) -> Result<()> {
        match self.own(id).await? {
            Some(row) => self.host.run(&commands::destroy_volume(&row.name)).await.map(drop),
            None => Ok(()),
        }
    }

    /// The volume of an instance, if it is there; refused if it is not its.
    async fn own(&self, id: InstanceId) -> Result<Option<Row>> {
        let name = self.volume(id);
        let found = self.rows().await?.into_iter().find(|row| row.name == name);
        match found {
            Some(row) if row.id != id.to_string() => Err(foreign(&row, &row.id)),
            found => Ok(found),
        }
    }

    /// The snapshot that holds an image, which is written if it is not there.
    async fn ensure_image(&self, image: &DiskImage, scratch: &Path) -> Result<String> {
        let name = self.image_volume(image);
        let snapshot = format!("{name}@{WHOLE}");
        let rows = self.rows().await?;
        if let Some(row) = rows.iter().find(|row| row.name == name) {
            if row.image != image.digest.as_str() {
                return Err(foreign(row, &row.image));
            }
            if rows.iter().any(|row| row.name == snapshot) {
                return Ok(snapshot);
            }
            self.host.run(&commands::destroy_volume(&name)).await?;
        }
        let bytes = image.virtual_size.next_multiple_of(UNIT);
        self.host.run(&commands::create_volume(&name, bytes, (IMAGE_MARK, image.digest.as_str()))).await?;
        failpoint!("prepare.propolis.image-made", &name);
        raw::write_to_device(image, &self.devices.join(&name), scratch).await?;
        failpoint!("prepare.propolis.image-written", &name);
        self.host.run(&commands::snapshot(&snapshot)).await?;
        failpoint!("prepare.propolis.image-kept", &name);
        Ok(snapshot)
    }

    async fn rows(&self) -> Result<Vec<Row>> {
        Ok(parse(&self.host.run(&commands::list_volumes(self.pool)).await?))
    }
}

fn foreign(row: &Row, mark: &str) -> Error {
    let found = if mark == UNSET { "somebody who did not mark it" } else { mark };
    Error::Foreign { path: row.name.clone().into(), found: found.to_owned() }
}

fn parse(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        let (name, bytes) = (columns.next()?, columns.next()?);
        let (id, image) = (columns.next()?, columns.next()?);
        // A snapshot has no size of its own in some versions.
        Some(Row { name, bytes: bytes.parse().unwrap_or(0), id, image })
    };
    text.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::fake::FakeHost;
    use super::*;
    use crate::spec::{Digest, ImageFormat};

    const ID: InstanceId = InstanceId(Uuid::from_u128(0x1234_5678_0000_4000_8000_0000_0000_0001));
    const VOLUME: &str = "rpool/vms/vmctl-1234567800004000";

    struct Place {
        folder: tempfile::TempDir,
        host: FakeHost,
        image: DiskImage,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let mut content = vec![0; 3 << 20];
        content[2 << 20] = 7;
        std::fs::write(folder.path().join("image"), &content).unwrap();
        let host = FakeHost::with_devices(folder.path().join("zvol"));
        let image = DiskImage {
            path: folder.path().join("image"),
            format: ImageFormat::Raw,
            digest: Digest::of(&content),
            virtual_size: 3 << 20,
        };
        Place { folder, host, image }
    }

    impl Place {
        async fn ensure(&self, image: Option<&DiskImage>, bytes: u64) -> Result<()> {
            let devices = self.folder.path().join("zvol");
            let disks = Disks { host: &self.host, pool: "rpool/vms", devices: &devices };
            disks.ensure(ID, image, bytes, &self.folder.path().join("scratch")).await
        }

        async fn destroy(&self) -> Result<()> {
            let devices = self.folder.path().join("zvol");
            Disks { host: &self.host, pool: "rpool/vms", devices: &devices }.destroy(ID).await
        }
    }

    #[tokio::test]
    async fn disk_is_a_grown_clone_of_its_image_and_made_once() {
        let place = place();
        let stem = format!("rpool/vms/vmctl-image-{}", &place.image.digest.hex()[..16]);
        for _ in 0..2 {
            place.ensure(Some(&place.image), (10 << 20) - 5).await.unwrap();
        }
        assert_eq!(
            place.host.deeds(),
            [
                format!("zfs create -V 3145728 -o vmctl:image={} {stem}", place.image.digest),
                format!("zfs snapshot {stem}@v1"),
                format!("zfs clone -o vmctl:id={ID} {stem}@v1 {VOLUME}"),
                format!("zfs set volsize=10485760 {VOLUME}"),
            ]
        );
        let written = std::fs::read(place.folder.path().join("zvol").join(&stem)).unwrap();
        assert_eq!((written.len(), written[2 << 20]), (3 << 20, 7));
        assert!(!place.folder.path().join("scratch").exists());

        place.destroy().await.unwrap();
        place.destroy().await.unwrap();
        assert_eq!(place.host.deeds()[4..], [format!("zfs destroy {VOLUME}")]);
        // The image stays for the next machine.
        place.ensure(Some(&place.image), 1).await.unwrap();
        assert_eq!(place.host.deeds()[5..], [format!("zfs clone -o vmctl:id={ID} {stem}@v1 {VOLUME}")]);
    }

    #[tokio::test]
    async fn empty_disk_is_made_and_grown() {
        let place = place();
        place.ensure(None, 1 << 20).await.unwrap();
        place.ensure(None, 2 << 20).await.unwrap();
        assert_eq!(
            place.host.deeds(),
            [
                format!("zfs create -V 1048576 -o vmctl:id={ID} {VOLUME}"),
                format!("zfs set volsize=2097152 {VOLUME}"),
            ]
        );
    }

    #[tokio::test]
    async fn volume_without_the_right_mark_is_neither_used_nor_destroyed() {
        let place = place();
        for mark in [None, Some("vmctl:id=00000000-0000-4000-8000-00000000000f")] {
            place.host.add_volume(VOLUME, 1 << 20, mark);
            let error = place.ensure(None, 1 << 20).await.unwrap_err().to_string();
            assert!(error.contains(VOLUME), "{error}");
            place.destroy().await.unwrap_err();
        }
        assert_eq!(place.host.deeds(), [""; 0]);
        // The same of an image.
        place.host.clear();
        let stem = format!("rpool/vms/vmctl-image-{}", &place.image.digest.hex()[..16]);
        place.host.add_volume(&stem, 1 << 20, None);
        place.ensure(Some(&place.image), 1).await.unwrap_err();
        assert_eq!(place.host.deeds(), [""; 0]);
    }

    #[tokio::test]
    async fn half_written_image_is_made_anew() {
        let place = place();
        place.host.fail("zfs snapshot", "cannot create snapshot: out of space");
        let error = place.ensure(Some(&place.image), 1).await.unwrap_err().to_string();
        assert!(error.contains("failed with exit code 1: cannot create snapshot: out of space"), "{error}");
        place.host.fail("zfs snapshot", "");
        place.ensure(Some(&place.image), 1).await.unwrap();
        let words: Vec<_> =
            place.host.deeds().iter().map(|deed| deed.split(' ').nth(1).unwrap().to_owned()).collect();
        assert_eq!(words, ["create", "destroy", "create", "snapshot", "clone"]);
    }
}
