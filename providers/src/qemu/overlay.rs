//! An empty qcow2 disk, alone or on an image: the few bytes that it consists of.
//!
//! qemu-img would open the image, and sync five times what is to be synced once. The format:
//! <https://www.qemu.org/docs/master/interop/qcow2.html>.
//!
//! ```text
//! cluster 0: header, name of the image    1: refcount table    2: refcounts    3…: L1 table, all zeros
//! ```

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::places::create_private_file;
use crate::error::{Error, Result};
use crate::spec::ImageFormat;

/// What qemu-img takes unless told otherwise: 64 KiB.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// What one entry of the L1 table stands for: a cluster of entries of eight bytes, each for a cluster.
const PER_ENTRY: u64 = CLUSTER * CLUSTER / 8;
const SECTOR: u64 = 512;

const REFCOUNT_TABLE: u64 = CLUSTER;
const REFCOUNTS: u64 = 2 * CLUSTER;
const L1_TABLE: u64 = 3 * CLUSTER;

/// Length of the header of version 3 without what was added later.
const HEADER: u32 = 104;
/// The extension that says which format the image has, so that nobody guesses.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Longest name of an image that QEMU takes, in bytes.
const LONGEST_NAME: usize = 1023;

/// Writes an empty disk of `size` bytes, rounded up to sectors, into a new file that only we can read. It lies on the
/// image `base`, if that is given. Not synced.
pub(super) fn write(path: &Path, size: u64, base: Option<(&Path, ImageFormat)>) -> Result<()> {
    let name = base.map_or(&[][..], |(base, _)| base.as_os_str().as_bytes());
    if name.len() > LONGEST_NAME {
        let reason = format!("its path has {} bytes, and QEMU takes {LONGEST_NAME}", name.len());
        return Err(Error::Unusable { path: base.map_or(path, |(base, _)| base).to_owned(), reason });
    }
    let written = || -> io::Result<()> {
        let disk = Layout::of(size);
        let file = create_private_file(path)?;
        file.set_len(disk.clusters * CLUSTER)?;
        file.write_all_at(&disk.header(name, base.map(|(_, format)| format)), 0)?;
        file.write_all_at(&REFCOUNTS.to_be_bytes(), REFCOUNT_TABLE)?;
        let one = 1_u16.to_be_bytes();
        let counts: Vec<u8> = (0..disk.clusters).flat_map(|_| one).collect();
        file.write_all_at(&counts, REFCOUNTS)
    };
    written().map_err(Error::io("write", path))
}

/// How large the parts of a disk are.
struct Layout {
    size: u64,
    /// Entries of the L1 table.
    entries: u32,
    /// Clusters of the whole file: far fewer than one cluster of refcounts stands for.
    clusters: u64,
}

impl Layout {
    fn of(size: u64) -> Self {
        let size = size.next_multiple_of(SECTOR);
        let entries = size.div_ceil(PER_ENTRY).max(1);
        let clusters = L1_TABLE / CLUSTER + (entries * 8).div_ceil(CLUSTER);
        Self { size, entries: u32::try_from(entries).unwrap_or(u32::MAX), clusters }
    }

    fn header(&self, name: &[u8], format: Option<ImageFormat>) -> Vec<u8> {
        let mut extensions = Vec::new();
        if let Some(format) = format {
            let word = format.as_str().as_bytes();
            extensions.extend(BACKING_FORMAT.to_be_bytes());
            extensions.extend((word.len() as u32).to_be_bytes());
            extensions.extend(word);
            extensions.resize(extensions.len().next_multiple_of(8), 0);
        }
        // The end of the extensions.
        extensions.extend([0; 8]);
        let name_at = if name.is_empty() { 0 } else { u64::from(HEADER) + extensions.len() as u64 };
        let mut header = Vec::with_capacity(HEADER as usize + extensions.len() + name.len());
        header.extend(b"QFI\xfb");
        header.extend(3_u32.to_be_bytes());
        header.extend(name_at.to_be_bytes());
        header.extend((name.len() as u32).to_be_bytes());
        header.extend(CLUSTER_BITS.to_be_bytes());
        header.extend(self.size.to_be_bytes());
        // No encryption.
        header.extend(0_u32.to_be_bytes());
        header.extend(self.entries.to_be_bytes());
        header.extend(L1_TABLE.to_be_bytes());
        header.extend(REFCOUNT_TABLE.to_be_bytes());
        header.extend(1_u32.to_be_bytes());
        // No snapshots, and no features: incompatible, compatible, autoclear.
        header.extend([0; 4 + 8 + 3 * 8]);
        // Refcounts of 2^4 bits.
        header.extend(4_u32.to_be_bytes());
        header.extend(HEADER.to_be_bytes());
        header.extend(extensions);
        header.extend(name);
        header
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::image::backing_name;
    use crate::process::helper;
    use crate::qemu::QEMU_IMG;
    use crate::qemu::prepare::QEMU_IMG_DEADLINE;

    async fn qemu_img(args: &[&str], path: &Path) -> Vec<u8> {
        let mut args: Vec<std::ffi::OsString> = args.iter().map(Into::into).collect();
        args.push(path.into());
        helper(&QEMU_IMG, &args, QEMU_IMG_DEADLINE).await.unwrap()
    }

    /// What qemu-img says of a disk, but for its name and the room that it takes.
    async fn described(path: &Path) -> Value {
        let text = qemu_img(&["info", "-f", "qcow2", "--output=json"], path).await;
        let mut found: Value = serde_json::from_slice(&text).unwrap();
        for name in ["filename", "actual-size", "dirty-flag"] {
            found.as_object_mut().unwrap().remove(name);
        }
        found
    }

    #[tokio::test]
    async fn disk_is_what_qemu_img_makes() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours.qcow2"), folder.path().join("theirs.qcow2"));
        for size in [0, 1, 512, (512 << 20) - 1, 512 << 20, (512 << 20) + 1, 10 << 30, 5 << 40, 64 << 40] {
            write(&ours, size, None).unwrap();
            qemu_img(&["check", "-q", "-f", "qcow2"], &ours).await;
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", &format!("size={size}")], &theirs).await;
            assert_eq!(described(&ours).await, described(&theirs).await, "{size}");
        }
    }

    #[tokio::test]
    async fn overlay_is_what_qemu_img_makes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("base.qcow2"), 3 << 20, None).unwrap();
        std::fs::write(at("base.raw"), vec![0; 3 << 20]).unwrap();
        for (base, format) in [("base.qcow2", ImageFormat::Qcow2), ("base.raw", ImageFormat::Raw)] {
            let base = at(base);
            write(&at("ours"), 8 << 20, Some((&base, format))).unwrap();
            qemu_img(&["check", "-q", "-f", "qcow2"], &at("ours")).await;
            let size =
                format!("size={},backing_file={},backing_fmt={}", 8 << 20, base.display(), format.as_str());
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", &size], &at("theirs")).await;
            assert_eq!(described(&at("ours")).await, described(&at("theirs")).await);
            assert_eq!(backing_name(&at("ours")).unwrap().as_deref(), base.to_str());
        }
    }

    #[test]
    fn name_that_qemu_would_not_take_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let of = |length: usize| {
            write(&folder.path().join("a"), 1, Some((Path::new(&"/".repeat(length)), ImageFormat::Raw)))
        };
        assert!(of(LONGEST_NAME).is_ok());
        let error = of(LONGEST_NAME + 1).unwrap_err().to_string();
        assert!(error.contains("1024 bytes"), "{error}");
    }
}
