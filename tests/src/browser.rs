//! A browser without a screen, for what vmctl writes for browsers.
//!
//! Each run is Chromium in a process group and a throwaway profile of its own, without a way to any network: a page
//! that needs more than its file is found out.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tempfile::TempDir;

use crate::vmctl::{Ended, Running};
use crate::{PATIENCE, process, surroundings};

/// Names of the program, on Debian and elsewhere.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Virtual milliseconds that a page's scripts may take: timers run at once, so that this is no wait.
const SCRIPT_TIME: u32 = 5_000;

/// What is the same in every run: no screen, no network of any kind, nothing that phones home or asks.
const ARGUMENTS: [&str; 10] = [
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-breakpad",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
    // Without this, the loopback is reached past the proxy that is not there.
    "--proxy-bypass-list=<-loopback>",
];

/// What a reader asks of every page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Dark text on a bright page.
    Light,
    /// Bright text on a dark page.
    Dark,
}

/// A browser and its throwaway folder.
#[derive(Debug)]
pub struct Browser {
    program: PathBuf,
    folder: TempDir,
}

impl Default for Browser {
    fn default() -> Self {
        Self::new()
    }
}

impl Browser {
    /// Finds the browser. Panics with advice if there is none.
    pub fn new() -> Self {
        let path = surroundings::inherited("PATH").unwrap_or_default();
        let found = PROGRAMS.iter().find_map(|name| {
            std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
        });
        let program = found.unwrap_or_else(|| panic!("there is no browser on PATH: run `tests/setup`"));
        let folder = tempfile::Builder::new().prefix("vmctl-browser-").tempdir().expect("a temporary folder");
        Self { program, folder }
    }

    /// The page in `file` as it is after its scripts ran, as HTML. `fragment` is what follows `#` in its address.
    pub fn dom(&self, file: &Path, fragment: &str) -> String {
        self.run(vec!["--dump-dom".into()], file, fragment).stdout
    }

    /// Like [`Browser::dom`], for a reader who lets no page run scripts.
    pub fn dom_without_scripts(&self, file: &Path, fragment: &str) -> String {
        // No switch of the browser keeps scripts from running, but a page's own policy does.
        let policy = "<head><meta http-equiv=\"Content-Security-Policy\" content=\"script-src 'none'\">";
        let html = fs::read_to_string(file).expect("a page is text");
        assert!(html.contains("<head>"), "the page has no head to put a policy into\n{html}");
        let copy = self.folder.path().join("without-scripts.html");
        fs::write(&copy, html.replacen("<head>", policy, 1)).expect("a copy of the page");
        self.dom(&copy, fragment)
    }

    /// The page in `file` as it looks in a window of `width` by `height` pixels: a PNG.
    pub fn screenshot(
        &self,
        file: &Path,
        fragment: &str,
        [width, height]: [u32; 2],
        scheme: Scheme,
    ) -> Vec<u8> {
        let picture = self.folder.path().join("screenshot.png");
        // Blink's numbers for the two (PreferredColorScheme in its settings).
        let scheme = match scheme {
            Scheme::Dark => 0,
            Scheme::Light => 1,
        };
        let mut screenshot = OsString::from("--screenshot=");
        screenshot.push(&picture);
        let arguments = vec![
            screenshot,
            format!("--window-size={width},{height}").into(),
            format!("--blink-settings=preferredColorScheme={scheme}").into(),
        ];
        let ended = self.run(arguments, file, fragment);
        fs::read(&picture).unwrap_or_else(|error| panic!("no screenshot: {error}\n{}", ended.text()))
    }

    /// One run on one page, in a profile of its own.
    fn run(&self, arguments: Vec<OsString>, file: &Path, fragment: &str) -> Ended {
        let profile = tempfile::tempdir_in(self.folder.path()).expect("a folder for a profile");
        let url = format!("file://{}#{fragment}", file.display());
        let mut command = Command::new(&self.program);
        let mut user_data = OsString::from("--user-data-dir=");
        user_data.push(profile.path());
        command.args(ARGUMENTS).arg(user_data).arg(format!("--virtual-time-budget={SCRIPT_TIME}"));
        if geteuid().is_root() {
            // Chromium's sandbox refuses to run for root.
            command.arg("--no-sandbox");
        }
        command.args(arguments).arg(&url);
        command.env_clear().env("PATH", surroundings::inherited("PATH").unwrap_or_default());
        for folder in ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
            command.env(folder, profile.path());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child =
            command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()));
        let group = Group { leader: child.id(), folder: profile.path() };
        let ended =
            Running::new(child, format!("{} {url}", self.program.display()), "", PATIENCE).end().expect(0);
        drop(group);
        ended
    }
}

/// Everything that a run started: its process group, and helpers that left it but name its profile.
struct Group<'a> {
    leader: u32,
    folder: &'a Path,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        if let Some(leader) = i32::try_from(self.leader).ok().and_then(Pid::from_raw) {
            // Usually nobody is left in it.
            let _ = kill_process_group(leader, Signal::KILL);
        }
        for left in process::naming(self.folder) {
            process::kill(left.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use super::*;

    /// Writes `html` to a file of the browser's folder.
    fn page(browser: &Browser, html: &str) -> PathBuf {
        let file = browser.folder.path().join("page.html");
        fs::write(&file, html).unwrap();
        file
    }

    #[test]
    fn dom_is_what_scripts_made_of_the_page() {
        let browser = Browser::new();
        let html = "<head></head><p id=it>before</p><script>setTimeout(() => it.textContent = location.hash, 900)</script>";
        let file = page(&browser, html);
        assert!(browser.dom(&file, "after").contains("<p id=\"it\">#after</p>"));
        assert!(browser.dom_without_scripts(&file, "after").contains("<p id=\"it\">before</p>"));
    }

    #[test]
    fn screenshot_follows_the_reader_and_fills_the_window() {
        let browser = Browser::new();
        let file = page(
            &browser,
            "<style>@media (prefers-color-scheme: dark) { html { background: #123 } }</style>",
        );
        let [dark, light] =
            [Scheme::Dark, Scheme::Light].map(|scheme| browser.screenshot(&file, "", [320, 200], scheme));
        // A PNG's width and height are the first two words of its first chunk.
        assert_eq!(dark[16..24], [0, 0, 1, 64, 0, 0, 0, 200]);
        assert_ne!(dark, light);
    }

    #[test]
    fn page_reaches_no_network() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let browser = Browser::new();
        let file = page(&browser, &format!("<p>shown</p><img src='http://{address}/x.png'>"));
        assert!(browser.dom(&file, "").contains("shown"));
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn nothing_is_left_of_a_run() {
        let browser = Browser::new();
        let file = page(&browser, "<p>shown</p>");
        browser.dom(&file, "");
        let folder = browser.folder.path().to_owned();
        assert_eq!(process::naming(&folder), []);
        let left: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["page.html"]);
        drop(browser);
        assert!(!folder.exists());
    }
}
