//! A terminal that a test sits at: script(1) of util-linux makes it, keys are pressed by pipe, and what it shows is kept.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::{PATIENCE, World, process};

/// Lines that are kept of what rolled out of sight.
const ROLLED: usize = 1000;

/// A shell's line that runs on a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    shown: Vec<u8>,
}

impl Terminal {
    /// Runs `line` in the world's project on a terminal of `rows` lines with `columns` letters; `vmctl` in it is the binary.
    /// A line that has not ended in time is killed.
    pub fn new(world: &World, (rows, columns): (u16, u16), line: &str) -> Self {
        let script = format!(
            "vmctl() {{ {} \"$@\"; }}; stty rows {rows} cols {columns}\n{line}\n",
            world.binary().display()
        );
        let mut command = world.beside_vmctl("script");
        command.args(["--quiet", "--return", "--command", &script, "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script");
        process::bound(child.id(), PATIENCE);
        let (keys, screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, keys, screen, shown: Vec::new() }
    }

    /// Waits until the terminal has shown `text` after what was awaited before; panics if it ends without.
    pub fn await_text(&mut self, text: &str) {
        let mut byte = [0];
        let from = self.shown.len();
        while !self.shown[from..].ends_with(text.as_bytes()) {
            if !self.screen.read(&mut byte).is_ok_and(|length| length == 1) {
                panic!("the terminal does not show {text:?}: {}", self.so_far());
            }
            self.shown.push(byte[0]);
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a key is pressed");
    }

    /// Shows that Ctrl-C goes to a guest whose shell is on the console that this terminal is connected to.
    pub fn interrupt_a_guest(&mut self) {
        self.press("\r");
        self.await_text("# ");
        // What is typed is shown as well: the guest says what nobody typed.
        self.press(
            "sh -c 'trap \"echo \\$((40+2))int; exit\" INT; echo $((1+1))waits; while sleep 1; do :; done'\r",
        );
        self.await_text("2waits");
        self.press("\u{3}");
        self.await_text("42int");
    }

    /// Waits for the end; the line's exit code, and all that the terminal showed.
    pub fn end(mut self) -> (i32, String) {
        self.screen.read_to_end(&mut self.shown).expect("the rest");
        let code = self.child.wait().expect("script ends").code();
        (code.unwrap_or_else(|| panic!("it waits for ever: {}", self.so_far())), self.so_far())
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

/// What stands on a terminal of `rows` lines with `columns` letters once it got `text`: what rolled out of sight first, then the
/// screen; without blanks at the ends of lines, and without empty lines at the end.
pub fn seen(text: &str, (rows, columns): (u16, u16)) -> String {
    let mut parser = vt100::Parser::new(rows, columns, ROLLED);
    parser.process(text.as_bytes());
    let screen = parser.screen_mut();
    screen.set_scrollback(ROLLED);
    let mut lines = Vec::new();
    for offset in (1..=screen.scrollback()).rev() {
        screen.set_scrollback(offset);
        lines.extend(screen.rows(0, columns).next());
    }
    screen.set_scrollback(0);
    lines.extend(screen.rows(0, columns));
    let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

/// Who stops waiting ends it.
impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            process::kill(self.child.id());
            self.child.wait().expect("a killed child can be waited for");
        }
    }
}
