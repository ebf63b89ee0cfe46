//! A second process that writes a project: this very binary, told by its standard input what to do.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::json;
use vmctl_state::{OpId, ProjectDir, Store};

use crate::values::{begin, end, open, put};

/// How many records the child writes in turn.
pub(crate) const RECORDS: u64 = 7;

/// The child, seen from here.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a process that opens the project for writing as soon as it is told.
    pub(crate) fn new(dir: &ProjectDir) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the child is this test itself, no program of the product"
        )]
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::writes_as_told", "--ignored", "--nocapture", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        writeln!(stdin, "{}", dir.path().display()).unwrap();
        let mut process = Self { child, stdin, lines };
        process.hear("ready");
        process
    }

    /// Tells it one thing; what it knows stands in [`writes_as_told`].
    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.stdin, "{what}").unwrap();
    }

    /// Waits until it says something that begins with `what`; returns the rest.
    pub(crate) fn hear(&mut self, what: &str) -> String {
        let mut heard = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some(rest) = line.strip_prefix(what) {
                return rest.trim().to_owned();
            }
            heard.push(line);
        }
        panic!("the child ended without saying `{what}`, but: {heard:#?}");
    }

    /// Ends it at once. Returns the last serial it acknowledged, if it did so after what was heard already.
    pub(crate) fn kill(mut self) -> Option<u64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let serial = |line: String| line.strip_prefix("committed ").and_then(|serial| serial.parse().ok());
        self.lines.by_ref().filter_map(|line| serial(line.unwrap())).last()
    }

    /// Lets it close the state and end.
    pub(crate) fn close(mut self) {
        self.tell("close");
        self.hear("closed");
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Writes a record and a step in each commit, so that the state at any serial is known: see `crash::check`.
#[test]
#[ignore = "it is no test but the child process of others"]
fn writes_as_told() {
    let mut orders = std::io::stdin().lines().map(Result::unwrap);
    let dir = ProjectDir::new(orders.next().expect("a project's folder on standard input"));
    let say = |what: &str| writeln!(std::io::stdout(), "{what}").unwrap();
    say("\nready");
    let mut writer = None;
    for order in orders {
        match (order.as_str(), writer.as_mut()) {
            ("open", None) => {
                writer = Some(open(&dir));
                say("opened");
            }
            ("publish", Some(writer)) => {
                Store::publish(writer).unwrap();
                say("published");
            }
            ("close", Some(_)) => {
                writer.take().unwrap().close().unwrap();
                return say("closed");
            }
            (order, Some(writer)) => {
                let count: u64 = order.strip_prefix("commit ").unwrap().parse().unwrap();
                for _ in 0..count {
                    let snapshot = writer.snapshot().unwrap();
                    let serial = snapshot.serial + 1;
                    let OpId(op) = snapshot.next_op;
                    let name = format!("vm-{}", serial % RECORDS);
                    let record = put(&name, json!({"serial": serial, "text": "x".repeat(5_000)}));
                    let last = snapshot.open.first().map(|open| end(open.op.0));
                    let entries: Vec<_> = [record, begin(op)].into_iter().chain(last).collect();
                    writer.commit(&entries).unwrap();
                    say(&format!("committed {serial}"));
                }
            }
            (order, None) => panic!("`{order}` before `open`"),
        }
    }
}
