//! The same inside downloads: vmctl killed, out of disk, or panicking while an image comes, is checked, unpacked,
//! converted, given its place and pinned. One more run has the image, and nothing lies around.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use vmctl_tests::server::{Answer, Server};
use vmctl_tests::{World, leaks};

use super::points::{is_of_a_download, listed};
use super::scenario::was_killed;

const FAULTS: [&str; 3] = ["kill", "enospc", "panic"];

/// Before the first byte is written.
const BEGINNING: [&str; 3] =
    ["fetch-image.download.opened", "fetch-image.download.drafted", "fetch-image.download.begun"];

/// From the first byte on: nothing of what came is asked for again.
const GOING_ON: [&str; 10] = [
    "fetch-image.download.written",
    "fetch-image.download.written@3",
    "fetch-image.download.unpacked",
    "fetch-image.download.verified",
    "fetch-image.download.converted",
    "fetch-image.download.note-drafted",
    "fetch-image.download.note-drafted@2",
    "fetch-image.download.note-drafted@3",
    "fetch-image.download.noted",
    "fetch-image.download.placed",
];

/// Places that an apply passes and `image pull` does not.
const PINNING: [&str; 2] = ["state.pins.drafted", "state.pins.replaced"];

#[test]
fn every_place_of_a_download_is_disturbed() {
    let disturbed = [&BEGINNING[..], &GOING_ON, &PINNING].concat();
    let disturbed: BTreeSet<&str> =
        disturbed.iter().map(|point| point.split('@').next().unwrap_or(point)).collect();
    let missed: Vec<_> = listed()
        .into_iter()
        .filter(|point| is_of_a_download(point) && !disturbed.contains(point.as_str()))
        .collect();
    assert!(missed.is_empty(), "no test disturbs {missed:?}");
}

/// A world with a server that has a packed image of another program.
struct Stage {
    world: World,
    server: Server,
    url: String,
    /// What the cache must have in the end.
    image: Vec<u8>,
}

impl Stage {
    fn new() -> Self {
        let world = World::with_failpoints(0);
        let body = packed_vmdk(&world);
        let server = Server::start(move |asked| Answer::file(asked, &body, "\"one\""));
        let url = server.url("/disk.vmdk.gz");
        let path = world.vmctl(&["image", "pull", "-q", &url]).expect(0).stdout;
        let image = fs::read(path.trim()).unwrap();
        Self { world, server, url, image }
    }

    fn lock(&self) -> PathBuf {
        self.world.project().join("VMFile.lock")
    }

    /// Runs `arguments` twice in an empty world, disturbed the first time.
    fn disturbed_and_again(&mut self, arguments: &[&str], point: &str, fault: &str) {
        let armed = if point.contains('@') { point.to_owned() } else { format!("{point}@1") };
        if self.world.data().exists() {
            fs::remove_dir_all(self.world.data()).unwrap();
        }
        if self.lock().exists() {
            fs::remove_file(self.lock()).unwrap();
        }
        let before = self.server.whole();
        self.world.arm(&format!("{armed}={fault}"));
        let ended = self.world.vmctl(arguments);
        self.world.unset("VMCTL_FAILPOINT");
        let what = format!("{} {armed}={fault}: {}\n{}", arguments[0], ended.status, ended.text());
        if fault == "kill" {
            assert!(was_killed(&ended), "not met: {what}");
        } else {
            assert!(matches!(ended.status.code(), Some(0 | 1 | 5)), "{what}");
        }

        let again = self.world.vmctl(arguments);
        assert_eq!(again.status.code(), Some(0), "{}\nafter {what}", again.text());
        let images = self.world.data().join("images");
        assert_eq!(left(&images), [] as [PathBuf; 0], "after {what}");
        let files = fs::read_dir(&images).unwrap().map(|file| file.unwrap().path());
        let files: Vec<_> = files.filter(|path| path.is_file()).collect();
        assert_eq!(files.len(), 1, "{files:?} after {what}");
        assert!(fs::read(&files[0]).unwrap() == self.image, "another image after {what}");
        let whole = self.server.whole() - before;
        let is_fine = whole == 1 || whole == 2 && BEGINNING.contains(&point);
        assert!(is_fine, "downloaded {whole} times after {what}");
    }

    fn apply(&mut self, point: &str, fault: &str) {
        self.disturbed_and_again(&["apply", "--yes"], point, fault);
        leaks::leakcheck(&self.world);
        let lock = fs::read_to_string(self.lock()).unwrap();
        assert!(lock.contains(&self.url), "{lock}");
        let drafts = fs::read_dir(self.world.project()).unwrap().map(|file| file.unwrap().file_name());
        let drafts: Vec<_> =
            drafts.filter(|name| name.to_string_lossy().starts_with(".VMFile.lock")).collect();
        assert!(drafts.is_empty(), "{drafts:?} after {point}={fault}");
        self.world.vmctl(&["plan", "--locked", "--detailed-exitcode"]).expect(0);
    }
}

/// Files on their way in the cache's folder.
fn left(images: &Path) -> Vec<PathBuf> {
    let folders =
        [images.to_owned(), images.join(".downloads"), images.join(".fetched"), images.join(".identities")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let is_left = |path: &PathBuf| {
        path.parent().is_some_and(|folder| folder.ends_with(".downloads"))
            || path.extension().is_some_and(|end| end == "part" || end == "new")
    };
    files.map(|file| file.path()).filter(is_left).collect()
}

/// A VMDK image of what does not compress, packed with gzip.
fn packed_vmdk(world: &World) -> Vec<u8> {
    let (raw, vmdk) = (world.folder().join("home/disk.raw"), world.folder().join("home/disk.vmdk"));
    let mut number = 1_u64;
    let mut disk: Vec<u8> = std::iter::repeat_with(|| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 56) as u8
    })
    .take(2 << 20)
    .collect();
    disk[510..512].copy_from_slice(b"\x55\xaa");
    fs::write(&raw, disk).unwrap();
    let mut convert = world.beside_vmctl("qemu-img");
    convert
        .args(["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"])
        .args([&raw, &vmdk]);
    assert!(convert.status().unwrap().success());
    let packed = world.beside_vmctl("gzip").args(["-n", "-1", "-c"]).arg(&vmdk).output().unwrap();
    assert!(packed.status.success() && packed.stdout.len() > 1 << 20);
    packed.stdout
}

#[test]
fn pull_disturbed_anywhere_is_finished_by_the_next_one() {
    let mut stage = Stage::new();
    let url = stage.url.clone();
    for point in BEGINNING.iter().chain(&GOING_ON) {
        for fault in FAULTS {
            stage.disturbed_and_again(&["image", "pull", &url], point, fault);
        }
    }
}

#[test]
fn apply_disturbed_anywhere_in_a_download_is_finished_by_the_next_one() {
    let mut stage = Stage::new();
    stage.world.vmfile(&format!("vm \"far\" {{ image-url {:?}; backend \"noop\" }}", stage.url));
    for point in BEGINNING.iter().chain(&GOING_ON).chain(&PINNING) {
        for fault in FAULTS {
            stage.apply(point, fault);
        }
    }
}

/// The digest is known from the VMFile, so that what is in the cache is found without asking the server.
#[test]
fn apply_of_a_known_digest_killed_anywhere_in_a_download_is_finished_by_the_next_one() {
    let mut stage = Stage::new();
    let fetched = stage.world.vmctl(&["image", "pull", &stage.url, "--json"]).expect(0).json();
    let sha256 = fetched["images"][0]["sha256"].as_str().unwrap();
    let vmfile = format!("vm \"far\" {{ image-url {:?} sha256={sha256:?}; backend \"noop\" }}", stage.url);
    stage.world.vmfile(&vmfile);
    for point in BEGINNING.iter().chain(&GOING_ON).chain(&PINNING) {
        stage.apply(point, "kill");
    }
}
