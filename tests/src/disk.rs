//! Small file systems, mounted where only one world sees them.
//!
//! A process of our own holds a user and mount namespace open (`unshare -rm`), and every run of the world's vmctl
//! enters it. So no rights are needed, nothing is mounted on the host, and all is gone when the holder ends, however the
//! test ends. The tests look in through `/proc/PID/root`.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::World;
use crate::namespace::Namespace;

/// A namespace in which the world's vmctl runs, with small file systems in it.
#[derive(Debug)]
pub struct Disks(Namespace);

impl Disks {
    /// Makes the namespace, and lets every later run of `world` enter it. Panics where that is not possible: a test that
    /// was not run did not pass.
    pub fn of(world: &mut World) -> Self {
        let namespace = Namespace::new("-rm", &["--preserve-credentials", "-U", "-m"]);
        world.through(namespace.prefix(world, &[]));
        Self(namespace)
    }

    /// Mounts an empty file system of so many KiB on `folder`, which is made if it is not there. What was in the folder is
    /// copied onto it.
    pub fn mount(&self, folder: &Path, kib: u64) {
        fs::create_dir_all(folder).expect("a folder to mount on");
        let script = r#"set -e; mkdir -p -m 700 "$1.before"; cp -a "$1/." "$1.before/"; \
            mount -t tmpfs -o "size=$2k,mode=700" none "$1"; cp -a "$1.before/." "$1/"; rm -rf "$1.before""#;
        self.0.run(&[
            "sh",
            "-c",
            &script.replace("\\\n", ""),
            "sh",
            &folder.display().to_string(),
            &kib.to_string(),
        ]);
    }

    /// Mounts it anew with other options, such as `ro` or `size=9m`.
    pub fn remount(&self, folder: &Path, options: &str) {
        self.0.run(&["mount", "-o", &format!("remount,{options}"), &folder.display().to_string()]);
    }

    /// Where the tests find a path of the namespace.
    pub fn see(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.0.holder()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Takes all the room that is left on the file system of `folder`. Returns the file that took it, as the tests see it.
    pub fn fill(&self, folder: &Path) -> PathBuf {
        let path = self.see(folder).join("filler");
        let mut file = File::options().create(true).append(true).open(&path).expect("a file that takes room");
        loop {
            match file.write_all(&[1; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return path,
                Err(error) => panic!("cannot fill `{}`: {error}", path.display()),
            }
        }
    }
}
