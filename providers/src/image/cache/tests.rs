//! What the cache keeps, finds again and refuses.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::file::SETTLED;
use super::*;

/// A raw disk of 3 MiB with a boot record's mark, some content at both ends and nothing between.
fn disk(folder: &Path, name: &str) -> PathBuf {
    let mut bytes = vec![0; 3 << 20];
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes[100..104].copy_from_slice(b"boot");
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(b"last");
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn cache(folder: &Path) -> ImageCache {
    ImageCache::new(folder.join("data/images"))
}

fn later() -> SystemTime {
    SystemTime::now() + 2 * SETTLED
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn identity_is_digest_format_and_size() {
    let folder = tempfile::tempdir().unwrap();
    let source = disk(folder.path(), "disk.img");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("disk.img", &link).unwrap();
    let identity = cache(folder.path()).identify(&link).unwrap();
    assert_eq!(identity.digest, Digest::of(fs::read(&source).unwrap()));
    assert_eq!((identity.format, identity.virtual_size), (ImageFormat::Raw, 3 << 20));
}

#[test]
fn second_identification_reads_the_memo_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(folder.path()), disk(folder.path(), "disk.img"));
    let (first, _) = cache.identify_at(&source, later()).unwrap();
    let memos = folder.path().join("data/images/.identities");
    let memo = memos.join(&names(&memos)[0]);
    assert_eq!(memo.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Another answer in the memo shows where the answer comes from.
    let other = Digest::of("other");
    let text = fs::read_to_string(&memo).unwrap().replace(first.digest.hex(), other.hex());
    fs::write(&memo, text).unwrap();
    assert_eq!(cache.identify(&source).unwrap().digest, other);

    for damage in ["", "{", &fs::read_to_string(&memo).unwrap().replace(other.hex(), "../../x")] {
        fs::write(&memo, damage).unwrap();
        assert_eq!(cache.identify(&source).unwrap(), first, "{damage:?}");
    }
}

#[test]
fn changed_file_is_read_again_and_a_fresh_one_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(folder.path()), disk(folder.path(), "disk.img"));
    let written = fs::metadata(&source).unwrap().modified().unwrap();
    cache.identify_at(&source, written + SETTLED / 2).unwrap();
    assert!(!folder.path().join("data").exists());
    let (first, _) = cache.identify_at(&source, later()).unwrap();
    let file = File::options().write(true).open(&source).unwrap();
    file.write_all_at(b"changed", 2000).unwrap();
    file.set_modified(written).unwrap();
    assert_ne!(cache.identify(&source).unwrap(), first);
}

#[test]
fn import_is_immutable_sparse_and_idempotent() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(folder.path()), disk(folder.path(), "disk.img"));
    let identity = cache.identify(&source).unwrap();
    let image = cache.import(&source, &identity).unwrap();
    assert_eq!(image, cache.cached(&identity));
    assert_eq!(fs::read(&image.path).unwrap(), fs::read(&source).unwrap());
    let metadata = fs::metadata(&image.path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o444);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    assert_eq!(cache.import(&source, &identity).unwrap(), image);
    assert_eq!(fs::metadata(&image.path).unwrap().ino(), metadata.ino());
    // What is in the cache needs no source.
    fs::remove_file(&source).unwrap();
    assert_eq!(cache.import(&source, &identity).unwrap(), image);
    assert_eq!(names(&folder.path().join("data/images")).len(), 1);
}

#[test]
fn damaged_cache_file_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(folder.path()), disk(folder.path(), "disk.img"));
    let identity = cache.identify(&source).unwrap();
    let image = cache.import(&source, &identity).unwrap();
    fs::remove_file(&image.path).unwrap();
    fs::write(&image.path, "half").unwrap();
    cache.import(&source, &identity).unwrap();
    assert_eq!(fs::read(&image.path).unwrap(), fs::read(&source).unwrap());
}

#[test]
fn another_content_is_not_imported_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(folder.path()), disk(folder.path(), "disk.img"));
    let identity = cache.identify(&source).unwrap();
    File::options().write(true).open(&source).unwrap().write_all_at(b"x", 2000).unwrap();
    let error = cache.import(&source, &identity).unwrap_err();
    assert!(matches!(error, ImageError::Changed { .. }), "{error:?}");
    assert_eq!(names(&folder.path().join("data/images")), [""; 0]);
}

#[test]
fn imports_at_the_same_time_all_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(folder.path()), disk(folder.path(), "disk.img"));
    let identity = cache.identify(&source).unwrap();
    std::thread::scope(|scope| {
        let imports: Vec<_> =
            (0..8).map(|_| scope.spawn(|| cache.import(&source, &identity).unwrap())).collect();
        for import in imports {
            assert_eq!(import.join().unwrap(), cache.cached(&identity));
        }
    });
    assert_eq!(names(&folder.path().join("data/images")).len(), 1);
}

#[test]
fn left_over_of_a_dead_import_is_removed_and_a_living_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(folder.path()), disk(folder.path(), "disk.img"));
    let identity = cache.identify(&source).unwrap();
    make_folder(&cache.root).unwrap();
    let (dead, living) = (cache.root.join("a.1.0.part"), cache.root.join("b.1.0.part"));
    fs::write(&dead, "x").unwrap();
    let held = File::create(&living).unwrap();
    held.lock().unwrap();
    cache.import(&source, &identity).unwrap();
    assert_eq!((dead.exists(), living.exists()), (false, true));
}

#[test]
fn import_that_has_just_begun_is_not_swept_away() {
    let folder = tempfile::tempdir().unwrap();
    let cache = ImageCache::new(folder.path());
    let identity = cache.identify(&disk(folder.path(), "disk")).unwrap();
    let (stop, begun) = (AtomicBool::new(false), 200);
    let lost = std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    cache.sweep();
                }
            });
        }
        let lost = (0..begun).filter(|_| {
            let part = Part::create(&cache.root, &identity).unwrap();
            std::thread::yield_now();
            fs::rename(&part.path, cache.root.join("kept")).is_err()
        });
        let lost = lost.count();
        stop.store(true, Ordering::Relaxed);
        lost
    });
    assert_eq!(lost, 0, "of {begun}");
}

#[test]
fn what_is_no_image_is_told_apart_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    let fifo = folder.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let cases = [
        (folder.path().join("missing"), "cannot read `{}`"),
        (folder.path().to_owned(), "`{}` is a folder, an image must be a regular file"),
        (PathBuf::from("/dev/null"), "`{}` is a device, an image must be a regular file"),
        (fifo, "`{}` is no regular file, an image must be a regular file"),
        (empty, "`{}` cannot be used as a disk image: it is empty"),
    ];
    for (path, message) in cases {
        let error = cache.identify(&path).unwrap_err();
        assert_eq!(error.to_string(), message.replace("{}", path.to_str().unwrap()));
        assert!(error.help().is_some());
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn packed_file_is_known_by_its_own_digest_and_by_that_of_what_it_becomes() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, disk) = (cache(folder.path()), disk(folder.path(), "disk.img"));
    let bytes = fs::read(&disk).unwrap();
    let packed = super::super::unpack::tests::packed(super::super::unpack::Packing::Gzip, &bytes);
    let source = folder.path().join("disk.img.gz");
    fs::write(&source, &packed).unwrap();
    let first = cache.identify_at(&source, later()).unwrap();
    assert_eq!((&first.0.digest, &first.1), (&Digest::of(&bytes), &Digest::of(&packed)));
    // From the memo; and anew where an older vmctl wrote it.
    assert_eq!(cache.identify_file(&source).unwrap(), first);
    let memos = folder.path().join("data/images/.identities");
    for memo in names(&memos).iter().map(|name| memos.join(name)) {
        let mut old: serde_json::Value = serde_json::from_slice(&fs::read(&memo).unwrap()).unwrap();
        old.as_object_mut().unwrap().remove("sha256");
        fs::write(&memo, old.to_string()).unwrap();
    }
    assert_eq!(cache.identify_file(&source).unwrap(), first);
    let (plain, file) = cache.identify_file(&disk).unwrap();
    assert_eq!((plain.digest.clone(), file), (first.0.digest, plain.digest));
}
