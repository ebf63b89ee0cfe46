//! Namespaces that are there for one world, and gone when their holder ends, however the test ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use crate::World;

/// Namespaces that a process of our own holds open.
#[derive(Debug)]
pub(crate) struct Namespace {
    holder: Child,
    /// The program that gets others inside, and its arguments.
    enter: Vec<String>,
}

impl Namespace {
    /// Makes namespaces with `unshare` and its options; `enter` are those of `nsenter` to get there. Panics where that is not
    /// possible: a test that was not run did not pass.
    pub(crate) fn new(unshare: &str, enter: &[&str]) -> Self {
        let mut holder = Command::new("unshare")
            .args([unshare, "sh", "-c", "echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`unshare` of util-linux");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the holder speaks");
        assert_eq!(line, "ready\n", "namespaces need root, or those of users: see user_namespaces(7)");
        let pid = holder.id().to_string();
        let enter = ["nsenter", "-t", &pid].iter().chain(enter).map(ToString::to_string).collect();
        Self { holder, enter }
    }

    /// The process that holds them open.
    pub(crate) fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// What gets a run of `world` inside, through `more` programs there, as [`World::through`] takes it.
    pub(crate) fn prefix(&self, world: &World, more: &[&str]) -> Vec<String> {
        let project = world.project().display().to_string();
        let inside = ["sh", "-c", r#"cd "$0" && exec "$@""#, &project];
        self.enter.iter().cloned().chain(inside.iter().chain(more).map(ToString::to_string)).collect()
    }

    /// Runs a command inside; it must succeed. What it printed.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let done = Command::new(&self.enter[0]).args(&self.enter[1..]).args(command).output();
        let Output { status, stdout, stderr } = done.expect("`nsenter` of util-linux");
        assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It ends by itself when its input does; the namespaces end with the last process inside.
        drop(self.holder.stdin.take());
        if let Err(error) = self.holder.wait() {
            assert!(std::thread::panicking(), "the holder of the namespace did not end: {error}");
        }
    }
}
