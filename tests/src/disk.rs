//! Small file systems, mounted where only one world sees them.
//!
//! A process of our own holds a user and mount namespace open (`unshare -rm`), and every run of the world's vmctl
//! enters it. So no rights are needed, nothing is mounted on the host, and all is gone when the holder ends, however the
//! test ends. The tests look in through `/proc/PID/root`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::World;

/// A namespace in which the world's vmctl runs, with small file systems in it.
#[derive(Debug)]
pub struct Disks {
    holder: Child,
}

impl Disks {
    /// Makes the namespace, and lets every later run of `world` enter it. Panics where that is not possible: a test that
    /// was not run did not pass.
    pub fn of(world: &mut World) -> Self {
        let mut holder = Command::new("unshare")
            .args(["-rm", "sh", "-c", "echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`unshare` of util-linux");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the holder speaks");
        assert_eq!(line, "ready\n", "small disks need user namespaces: see user_namespaces(7)");
        let pid = holder.id().to_string();
        let prefix = ["nsenter", "--preserve-credentials", "-U", "-m", "-t", &pid, "sh", "-c"];
        let enter = r#"cd "$0" && exec "$@""#;
        let mut prefix: Vec<_> = prefix.iter().map(ToString::to_string).collect();
        prefix.push(enter.to_owned());
        prefix.push(world.project().display().to_string());
        world.through(prefix);
        Self { holder }
    }

    /// Mounts an empty file system of so many KiB on `folder`, which is made if it is not there. What was in the folder is
    /// copied onto it.
    pub fn mount(&self, folder: &Path, kib: u64) {
        fs::create_dir_all(folder).expect("a folder to mount on");
        let script = r#"set -e; mkdir -p -m 700 "$1.before"; cp -a "$1/." "$1.before/"; \
            mount -t tmpfs -o "size=$2k,mode=700" none "$1"; cp -a "$1.before/." "$1/"; rm -rf "$1.before""#;
        self.run(&[
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
        self.run(&["mount", "-o", &format!("remount,{options}"), &folder.display().to_string()]);
    }

    /// Where the tests find a path of the namespace.
    pub fn see(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
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

    fn run(&self, command: &[&str]) {
        let pid = self.holder.id().to_string();
        let done = Command::new("nsenter")
            .args(["--preserve-credentials", "-U", "-m", "-t", &pid])
            .args(command)
            .output()
            .expect("`nsenter` of util-linux");
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        // It ends by itself when its input does; the mounts end with the last process inside.
        drop(self.holder.stdin.take());
        if let Err(error) = self.holder.wait() {
            assert!(std::thread::panicking(), "the holder of the namespace did not end: {error}");
        }
    }
}
