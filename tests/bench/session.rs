//! What goes through ssh: the output of provisioning, and its commands.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use vmctl_tests::World;

use crate::table::{Case, Row, Sides, turns};
use crate::usage::{self, timed};

pub(crate) const CASES: &[Case] = &[
    Case {
        rows: &[Row::new("P16", "16 MiB of output of a step, against `ssh cat`", 1.25)],
        needs: &[],
        measure: output,
    },
    Case {
        rows: &[
            Row::new("P17", "each further step, against one command more of one ssh + 3 ms", 1.0),
            Row::new("P17", "ssh connections of 11 steps, against one", 1.0),
        ],
        needs: &[],
        measure: steps,
    },
];

/// A tiny guest that runs.
struct Guest {
    world: World,
    /// How the system's ssh logs in to it.
    config: PathBuf,
}

impl Guest {
    /// Boots one with these nodes in its block.
    fn with(nodes: &str) -> Self {
        let world = World::new(1);
        world.vmfile(&format!(
            "vm \"m\" {{\n    image \"TINY\"\n    memory 256\n    ssh {{ user \"vm\" }}\n{nodes}}}\n"
        ));
        world.vmctl(&["apply", "--yes"]).expect(0);
        let config = world.folder().join("ssh_config");
        let printed = world.vmctl(&["ssh-config"]).expect(0).stdout;
        std::fs::write(&config, printed).expect("a configuration of ssh");
        Self { world, config }
    }

    /// Runs all its steps again.
    fn provision(&self, more: &[&str]) -> vmctl_tests::Ended {
        self.world.vmctl(&[&["provision", "m", "--force", "--yes"], more].concat()).expect(0)
    }

    /// The system's ssh, with these options.
    fn ssh(&self, options: &[&str], command: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&self.config).args(options).arg("m").args(command);
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ssh
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.world.vmctl(&["stop", "m", "--timeout", "0s"]).expect(0);
        }
    }
}

/// Output of a step (P16), whole, with its login, its lines shown and in the log, against the same bytes through ssh.
fn output(runs: usize) -> Vec<Sides> {
    let guest = Guest::with(
        r#"    provision "shell" { inline "[ -f lines ] || head -c 12582912 /dev/urandom | base64 >lines" }
    provision "shell" { inline "cat lines" }
"#,
    );
    let step = ["provision", "m", "--force", "--yes", "--step", "2"];
    let ours = || usage::of(&mut guest.world.command(&step)).wall;
    let theirs = || succeeded(guest.ssh(&[], &["cat", "lines"]));
    vec![Sides::measure(runs, ours, theirs)]
}

/// What a step costs that does nothing (P17), and how many connections there are.
fn steps(runs: usize) -> Vec<Sides> {
    const MORE: u32 = 10;
    const ALLOWED: Duration = Duration::from_millis(3);
    let guest = Guest::with(
        &"    provision \"shell\" { inline \"echo \\\"by $SSH_CONNECTION.\\\"\" }\n"
            .repeat(MORE as usize + 1),
    );
    let ours = || {
        let all = timed(|| drop(guest.provision(&[])));
        let one = timed(|| drop(guest.provision(&["--step", "1"])));
        all.saturating_sub(one) / MORE
    };
    let socket = guest.world.folder().join("ssh.sock").display().to_string();
    let control = format!("ControlPath={socket}");
    let theirs = || {
        let master = ["-o", &control, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes"];
        succeeded(guest.ssh(&master, &["true"]));
        let more = (0..MORE).map(|_| succeeded(guest.ssh(&["-o", &control], &["true"]))).sum::<Duration>();
        succeeded(guest.ssh(&["-o", &control, "-O", "exit"], &[]));
        more / MORE + ALLOWED
    };
    let (ours, theirs) = turns(runs, ours, theirs);
    let printed = guest.provision(&[]).text();
    let connection = |line: &str| line.split_once("by ").map(|(_, rest)| rest.trim().to_owned());
    let connections: BTreeSet<_> = printed.lines().filter_map(connection).collect();
    vec![Sides::times(ours, theirs), Sides::counts(&[connections.len() as u64], &[1])]
}

/// How long a command takes that succeeds.
fn succeeded(mut command: Command) -> Duration {
    timed(|| {
        let status = command.status().expect("the program starts");
        assert!(status.success(), "{command:?}: {status}");
    })
}
