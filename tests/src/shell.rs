//! A shell in a world, in which `vmctl` is the program under test: as people type it, or only far enough to know whether
//! it understands what was typed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::markdown::Shown;
use crate::{World, surroundings};

/// Programs that pages call on what vmctl printed, and that no test may really run: they reach for other hosts, need a
/// terminal, or are not installed everywhere. They take their input and succeed.
const STAND_INS: [&str; 6] = ["ansible-playbook", "git", "make", "pytest", "rsync", "sudo"];

/// Seconds that a command may take; emulated guests on a busy host are slow.
const PATIENCE: &str = "300";

/// What every shell knows: where zsh has its functions, a digest, and where GitHub shows what a job writes.
const BEFORE: &str = "fpath=(none \"$HOME\")\nprintf -v SHA256 '%064d' 1\nGITHUB_STEP_SUMMARY=summary.md\n";

/// Runs vmctl as typed, and answers the question that it asks on a terminal.
const RUNS: &str = r#"#!/bin/bash
answer=
case "$1" in
  apply) answer=--yes ;;
esac
for word; do
  case "$word" in
    --yes | -y | --auto-approve | *.plan | --) answer= ;;
  esac
done
exec "$VMCTL" "$@" $answer
"#;

/// Lets vmctl read the words, and do nothing. `--help` ends the reading only after all words before it were understood; a
/// command for a machine would take it for its own, so that such words are read up to `--`, and the command is missed.
const READS: &str = r#"#!/bin/bash
words=()
for word; do
  if [ "$word" = -- ]; then
    case "$1" in
      ssh) words+=(--help) ;;
      *)
        missing=$("$VMCTL" "${words[@]}" 2>&1 >/dev/null)
        case "$missing" in
          *"required arguments were not provided"*"<CMD>"*) exit 0 ;;
        esac
        printf '%s\n' "$missing" >&2
        exit 64 ;;
    esac
    exec "$VMCTL" "${words[@]}" </dev/null
  fi
  words+=("$word")
done
"$VMCTL" "${words[@]}" --help </dev/null >/dev/null
"#;

/// Takes what it is given, and succeeds.
const STAND_IN: &str = "#!/bin/bash\n[ -t 0 ] || exec cat >/dev/null\n";

/// What `vmctl` is in the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The program, which does what it is told.
    Runs,
    /// The program, which only reads what it is told; every other program of a page is a stand-in.
    Reads,
}

/// How a command of the shell ended.
#[derive(Debug)]
pub struct Typed {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it printed, standard output first.
    pub output: String,
}

/// A shell in a world.
#[derive(Debug)]
pub struct Shell<'w> {
    world: &'w World,
    path: String,
    /// What every later command begins with: variables that the page exported.
    before: String,
}

impl<'w> Shell<'w> {
    /// A shell in the project's folder.
    pub fn new(world: &'w World, mode: Mode) -> Self {
        let folder = world.folder().join("home/bin").join(format!("{mode:?}"));
        fs::create_dir_all(&folder).expect("a folder of the world");
        let (vmctl, more): (_, &[&str]) = match mode {
            Mode::Runs => (RUNS, &[]),
            Mode::Reads => (READS, &["curl", "jq", "man", "ssh", "wget"]),
        };
        write(folder.join("vmctl"), vmctl);
        STAND_INS.iter().chain(more).for_each(|name| write(folder.join(name), STAND_IN));
        let inherited = surroundings::inherited("PATH").unwrap_or_default();
        let path = format!("{}:{}", folder.display(), Path::new(&inherited).display());
        Self { world, path, before: BEFORE.to_owned() }
    }

    /// Types one command, and waits for its end.
    pub fn types(&mut self, command: &str) -> Typed {
        if command.starts_with("export ") {
            self.before += &format!("{command}\n");
        }
        let mut shell = self.world.beside_vmctl("timeout");
        let script = format!("{}{command}", self.before);
        shell.args(["--kill-after=10", PATIENCE, "bash", "-o", "pipefail", "-c", &script]);
        shell.env("PATH", &self.path).env("VMCTL", self.world.binary()).stdin(Stdio::null());
        let ended = shell.output().expect("there is a bash");
        let output = String::from_utf8_lossy(&ended.stdout).into_owned();
        Typed { code: ended.status.code(), output: output + &String::from_utf8_lossy(&ended.stderr) }
    }

    /// What is wrong with a command that a page shows: its exit code, or what it did not print.
    pub fn follow(&mut self, shown: &Shown) -> Result<(), String> {
        let typed = self.types(&shown.command);
        let told = || format!("line {}: {}\n{}", shown.line, shown.command, typed.output);
        if typed.code != Some(0) {
            return Err(format!("{} ends with {:?}", told(), typed.code));
        }
        let mut lines = typed.output.lines();
        match shown.output.iter().find(|wanted| !lines.any(|line| is_like(line, wanted))) {
            Some(wanted) => Err(format!("{} does not say, in this order: {wanted}", told())),
            None => Ok(()),
        }
    }
}

/// Whether a line has all parts of `wanted` in order; `…` stands for anything between them.
fn is_like(line: &str, wanted: &str) -> bool {
    let mut rest = line;
    timeless(wanted).trim().split('…').all(|part| match rest.split_once(part.trim()) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

/// A line in which times of the day and seconds with a fraction may be others.
fn timeless(line: &str) -> String {
    let is_time = |word: &str| {
        word.contains([':', '.'])
            && word.chars().all(|char| char.is_ascii_digit() || matches!(char, ':' | '.'))
    };
    let words = line.split(' ').map(|word| if is_time(word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn write(path: PathBuf, text: &str) {
    fs::write(&path, text).expect("a file of the world");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn what_is_left_out_of_a_line_may_be_anything() {
    assert!(is_like("14:15 vm.web: ready done in 7.5 s", "… vm.web: ready done in …"));
    assert!(!is_like("14:15 vm.web: ready …", "… vm.web: ready done in …"));
    assert!(is_like("  + vm.web: create", "+ vm.web: create"));
    assert!(is_like("14:15:31 Applied: 9 steps in 7.5 s", "08:00:00 Applied: 9 steps in 0.1 s"));
    assert!(!is_like("Applied: 9 steps in 7.5 s", "Applied: 8 steps in 7.5 s"));
}
