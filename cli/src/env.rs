//! The process's surroundings, read once: environment, home, working folder, user.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmctl_planner::vmfile::parse_duration;
use vmctl_providers::image::{FetchOptions, Proxies};
use vmctl_providers::qemu::AccelChoice;
use vmctl_providers::qemu::firmware::SYSTEM_FOLDERS;
use vmctl_providers::ssh::{Keyring, PASSPHRASE_VARIABLE};
use vmctl_providers::{Name, NameError, Secret};

use crate::args::GlobalArgs;
use crate::error::Exit;
use crate::passphrase;

/// Longest path of a Unix socket: `sun_path` has 108 bytes, the last is the terminator (unix(7)).
pub(crate) const MAX_SOCKET_PATH: usize = 107;

/// What a machine's sockets add to the runtime folder: `/`, 16 digits of the instance, `/`, the longest file name.
pub(crate) const SOCKET_TAIL: usize = 1 + 16 + 1 + "qmp-reserved.sock".len();

/// Everything that comes from outside the command line.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Home folder of the user, if there is one.
    pub(crate) home: Option<PathBuf>,
    /// The working folder.
    pub(crate) cwd: PathBuf,
    /// Project chosen by option or environment.
    pub(crate) project: Option<Name>,
    /// Accelerator chosen by environment.
    pub(crate) accel: AccelChoice,
    /// The whole environment, as far as it is text, for the VMFile.
    pub(crate) environment: BTreeMap<String, String>,
    /// How long to wait for another writer, chosen by environment.
    pub(crate) lock_timeout: Option<Duration>,
    /// The page of a CI's step, to which reports are appended.
    pub(crate) step_summary: Option<PathBuf>,
    /// `RUST_LOG` as set.
    pub(crate) log_filter: Option<String>,
    /// Folders with QEMU's descriptors of firmware, the user's own first.
    pub(crate) firmware_dirs: Vec<PathBuf>,
    /// What opens the keys of logins.
    pub(crate) keyring: Keyring,
    /// QEMU's bridge helper, named by environment.
    pub(crate) bridge_helper: Option<PathBuf>,
    /// Files with leases of addresses, named by environment.
    pub(crate) lease_files: Vec<PathBuf>,
    fetching: FetchOptions,
    data_dir: Result<PathBuf, SettingsError>,
    runtime_dir: Result<PathBuf, SettingsError>,
}

impl Settings {
    /// Reads this process's surroundings; options win over the environment.
    pub(crate) fn read(options: &GlobalArgs) -> Result<Self, SettingsError> {
        let host = Host {
            uid: rustix::process::geteuid().as_raw(),
            cwd: working_folder().map_err(|error| SettingsError::NoWorkingFolder(error.kind()))?,
            owner: &|path| path.metadata().ok().filter(std::fs::Metadata::is_dir).map(|found| found.uid()),
        };
        let settings = Self::resolve(&variable, &host, options)?;
        Ok(Self { environment: environment(), ..settings })
    }

    /// Decides from values alone.
    fn resolve(
        lookup: &dyn Fn(&str) -> Option<OsString>,
        host: &Host<'_>,
        options: &GlobalArgs,
    ) -> Result<Self, SettingsError> {
        // Empty counts as unset: shells and CI systems set variables to nothing to switch them off.
        let text = |name: &'static str| lookup(name).filter(|value| !value.is_empty());
        let absolute = |name| text(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let word = |name: &'static str| text(name).map(|value| value.to_string_lossy().into_owned());

        let home = absolute("HOME");
        let data_dir = options
            .data_dir
            .clone()
            .or_else(|| text("VMCTL_DATA_DIR").map(PathBuf::from))
            .map(|path| host.cwd.join(path))
            .or_else(|| absolute("XDG_DATA_HOME").map(|path| path.join("vmctl")))
            .or_else(|| home.as_ref().map(|home| home.join(".local/share/vmctl")))
            .ok_or(SettingsError::NoDataDir);
        let runtime_dir = match text("VMCTL_RUNTIME_DIR") {
            Some(path) => fitting(host.cwd.join(path)),
            None => runtime_dir(absolute("XDG_RUNTIME_DIR"), data_dir.as_ref().ok(), host),
        };
        let project = match (&options.project, word("VMCTL_PROJECT")) {
            (Some(name), _) => Some(name.clone()),
            (None, Some(value)) => match value.parse() {
                Ok(name) => Some(name),
                Err(source) => return Err(SettingsError::BadProject { value, source }),
            },
            (None, None) => None,
        };
        let accel = match word("VMCTL_ACCEL").as_deref() {
            None | Some("auto") => AccelChoice::Auto,
            Some("kvm") => AccelChoice::Kvm,
            Some("tcg") => AccelChoice::Tcg,
            Some(other) => return Err(SettingsError::BadAccel(other.to_owned())),
        };
        let lock_timeout = word("VMCTL_LOCK_TIMEOUT")
            .map(|value| {
                parse_duration(&value).map_err(|reason| SettingsError::BadLockTimeout { value, reason })
            })
            .transpose()?;
        let step_summary = text("GITHUB_STEP_SUMMARY").map(|path| host.cwd.join(path));
        let log_filter = word("RUST_LOG");
        let config = absolute("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let firmware_dirs = config.map(|config| config.join("qemu/firmware")).into_iter();
        let firmware_dirs = firmware_dirs.chain(SYSTEM_FOLDERS.map(PathBuf::from)).collect();
        let bridge_helper = text("VMCTL_BRIDGE_HELPER").map(|path| host.cwd.join(path));
        let lease_files = text("VMCTL_LEASES").unwrap_or_default();
        let lease_files = std::env::split_paths(&lease_files).filter(|path| !path.as_os_str().is_empty());
        let lease_files = lease_files.map(|path| host.cwd.join(path)).collect();
        let cwd = host.cwd.clone();
        let environment = BTreeMap::new();
        let fetching = fetching(&text, home.as_deref(), &host.cwd);
        let agent = text("SSH_AUTH_SOCK").map(PathBuf::from);
        let passphrase = word(PASSPHRASE_VARIABLE).map(Secret::new);
        let keyring = Keyring::new(agent, passphrase, Some(passphrase::ask));
        Ok(Self {
            home,
            cwd,
            project,
            accel,
            environment,
            lock_timeout,
            step_summary,
            log_filter,
            firmware_dirs,
            keyring,
            bridge_helper,
            lease_files,
            fetching,
            data_dir,
            runtime_dir,
        })
    }

    /// Folder of state, machines and images. It may not exist yet.
    pub(crate) fn data_dir(&self) -> Result<&Path, SettingsError> {
        self.data_dir.as_deref().map_err(Clone::clone)
    }

    /// What the terminal calls itself, in the word that guests know terminals by.
    pub(crate) fn terminal_name(&self) -> String {
        self.environment
            .get("TERM")
            .filter(|name| !name.is_empty())
            .cloned()
            .unwrap_or_else(|| "dumb".to_owned())
    }

    /// How images are fetched: proxies, certificates, logins.
    pub(crate) fn fetch_options(&self) -> FetchOptions {
        self.fetching.clone()
    }

    /// Folder of sockets, short enough for them. It may not exist yet.
    pub(crate) fn runtime_dir(&self) -> Result<&Path, SettingsError> {
        self.runtime_dir.as_deref().map_err(Clone::clone)
    }
}

/// How images are fetched, by the names that curl and Docker know. `HTTP_PROXY` in capitals is left out, as curl does:
/// where a web server starts programs, whoever sends a request sets it.
fn fetching(
    text: &dyn Fn(&'static str) -> Option<OsString>,
    home: Option<&Path>,
    cwd: &Path,
) -> FetchOptions {
    let word = |names: &[&'static str]| {
        names.iter().find_map(|name| text(name)).map(|value| value.to_string_lossy().into_owned())
    };
    let proxy = |names: &[&'static str]| {
        let url = word(names).map(|url| if url.contains("://") { url } else { format!("http://{url}") });
        url.map(Secret::new)
    };
    FetchOptions {
        proxies: Proxies {
            http: proxy(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            https: proxy(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            except: word(&["no_proxy", "NO_PROXY"]),
        },
        ca_file: text("VMCTL_CA_FILE").map(|path| cwd.join(path)),
        docker_config: text("DOCKER_CONFIG")
            .map(|path| cwd.join(path))
            .or_else(|| home.map(|home| home.join(".docker"))),
        github_token: word(&["GITHUB_TOKEN"]).map(Secret::new),
        ..FetchOptions::default()
    }
}

/// What the environment says that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// Neither a setting nor a home.
    #[error("no folder to keep data in: there is no home folder and no setting")]
    NoDataDir,
    /// Every candidate for sockets is too long.
    #[error("no folder for sockets: `{path}` is too long, a socket's whole path has at most {MAX_SOCKET_PATH} bytes", path = .0.display())]
    NoRuntimeDir(PathBuf),
    /// Not even a candidate for sockets.
    #[error("no folder for sockets: there is no runtime folder and no data folder")]
    NothingForSockets,
    /// The project's name is no name.
    #[error("`VMCTL_PROJECT` holds `{value}`, which is no project name")]
    BadProject {
        /// What was set.
        value: String,
        /// Why it is no name.
        source: NameError,
    },
    /// An unknown accelerator.
    #[error("`VMCTL_ACCEL` holds `{0}`, expected auto, kvm or tcg")]
    BadAccel(String),
    /// How long to wait for a lock is no duration.
    #[error("`VMCTL_LOCK_TIMEOUT` holds `{value}`: {reason}")]
    BadLockTimeout {
        /// What was set.
        value: String,
        /// Why it is no duration, and what to write.
        reason: String,
    },
    /// The working folder cannot be told, for example because it was removed.
    #[error("the working folder cannot be found: {0}")]
    NoWorkingFolder(io::ErrorKind),
}

impl SettingsError {
    /// What to do next.
    pub(crate) fn help(&self) -> Option<String> {
        match self {
            Self::NoDataDir => Some("pass --data-dir, or set VMCTL_DATA_DIR or HOME".to_owned()),
            Self::NoRuntimeDir(_) | Self::NothingForSockets => Some(
                "set XDG_RUNTIME_DIR to a folder of your own with a short path, such as /run/user/$(id -u)"
                    .to_owned(),
            ),
            Self::BadProject { .. } => Some("set VMCTL_PROJECT to another name, or unset it".to_owned()),
            Self::BadAccel(_) => Some("set VMCTL_ACCEL to one of these, or unset it".to_owned()),
            Self::BadLockTimeout { .. } => None,
            Self::NoWorkingFolder(_) => Some("change to a folder that exists".to_owned()),
        }
    }

    /// The exit code it ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::BadProject { .. } | Self::BadAccel(_) | Self::BadLockTimeout { .. } => Exit::Usage,
            Self::NoDataDir | Self::NoRuntimeDir(_) | Self::NothingForSockets | Self::NoWorkingFolder(_) => {
                Exit::Error
            }
        }
    }
}

/// Facts about the host that decide, as values.
struct Host<'a> {
    uid: u32,
    cwd: PathBuf,
    /// Owner of a folder, if it exists.
    owner: &'a dyn Fn(&Path) -> Option<u32>,
}

/// The first folder for sockets that is ours and short enough.
///
/// The data folder comes first, since it is the same for everybody who works on these machines: a machine that a
/// login session started must be found by a cron job, and must survive that the session's own folder is removed.
fn runtime_dir(
    xdg: Option<PathBuf>,
    data_dir: Option<&PathBuf>,
    host: &Host<'_>,
) -> Result<PathBuf, SettingsError> {
    let ours = |path: &PathBuf| (host.owner)(path) == Some(host.uid);
    let login = Some(PathBuf::from(format!("/run/user/{}", host.uid)));
    let candidates = [
        data_dir.map(|path| path.join("run")),
        (host.uid == 0).then(|| PathBuf::from("/run/vmctl")),
        login.filter(&ours).map(|path| path.join("vmctl")),
        xdg.filter(&ours).map(|path| path.join("vmctl")),
    ];
    let mut refused = Err(SettingsError::NothingForSockets);
    for candidate in candidates.into_iter().flatten() {
        match fitting(candidate) {
            Ok(path) => return Ok(path),
            Err(error) => refused = Err(error),
        }
    }
    refused
}

/// `path`, if sockets inside it keep within their limit.
fn fitting(path: PathBuf) -> Result<PathBuf, SettingsError> {
    if path.as_os_str().as_bytes().len() + SOCKET_TAIL <= MAX_SOCKET_PATH {
        Ok(path)
    } else {
        Err(SettingsError::NoRuntimeDir(path))
    }
}

/// Whether a terminal of ours knows the usual sequences, as far as `TERM` tells.
pub(crate) fn has_smart_terminal() -> bool {
    variable("TERM").is_some_and(|name| !name.is_empty() && name != "dumb")
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn environment() -> BTreeMap<String, String> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks for the working folder")]
fn working_folder() -> io::Result<PathBuf> {
    std::env::current_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings of user `uid` with the given variables; the folders in `owned` belong to that user.
    fn settings(uid: u32, variables: &[(&str, &str)], owned: &[&str]) -> Result<Settings, SettingsError> {
        resolve(uid, variables, owned, &GlobalArgs::default())
    }

    fn resolve(
        uid: u32,
        variables: &[(&str, &str)],
        owned: &[&str],
        options: &GlobalArgs,
    ) -> Result<Settings, SettingsError> {
        let owner =
            |path: &Path| Some(if owned.iter().any(|mine| Path::new(mine) == path) { uid } else { 4242 });
        let host = Host { uid, cwd: PathBuf::from("/here"), owner: &owner };
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Settings::resolve(&lookup, &host, options)
    }

    #[test]
    fn data_folder_is_chosen_in_the_documented_order() {
        let all = [("VMCTL_DATA_DIR", "/set"), ("XDG_DATA_HOME", "/xdg"), ("HOME", "/home/me")];
        let chosen = |from: usize| settings(1000, &all[from..], &[]).unwrap().data_dir().unwrap().to_owned();
        assert_eq!(
            [chosen(0), chosen(1), chosen(2)],
            [PathBuf::from("/set"), "/xdg/vmctl".into(), "/home/me/.local/share/vmctl".into()]
        );
        let options = GlobalArgs { data_dir: Some("rel".into()), ..GlobalArgs::default() };
        let flag = resolve(1000, &all, &[], &options).unwrap();
        assert_eq!(flag.data_dir().unwrap(), Path::new("/here/rel"));
    }

    #[test]
    fn data_folder_is_never_guessed() {
        for variables in [&[][..], &[("HOME", "")], &[("HOME", "rel"), ("XDG_DATA_HOME", "rel")]] {
            let settings = settings(1000, variables, &[]).unwrap();
            assert_eq!(settings.data_dir(), Err(SettingsError::NoDataDir));
        }
    }

    #[test]
    fn sockets_stand_beside_the_data_whatever_the_session() {
        for (uid, owned) in
            [(1000, &["/xdg", "/run/user/1000"][..]), (1000, &[]), (0, &["/xdg", "/run/user/0"])]
        {
            let variables = [("XDG_RUNTIME_DIR", "/xdg"), ("HOME", "/home/me")];
            let settings = settings(uid, &variables, owned).unwrap();
            assert_eq!(settings.runtime_dir().unwrap(), Path::new("/home/me/.local/share/vmctl/run"));
        }
    }

    #[test]
    fn long_data_folder_sends_sockets_to_a_short_folder_of_our_own() {
        let of = |length: usize| format!("/{}", "d".repeat(length - 1));
        let (fits, long) = (of(MAX_SOCKET_PATH - SOCKET_TAIL - "/run".len()), of(200));
        let cases: [(u32, &str, &[&str], Option<&str>); 6] = [
            (1000, &fits, &["/xdg"], Some(&format!("{fits}/run"))),
            (1000, &long, &["/xdg", "/run/user/1000"], Some("/run/user/1000/vmctl")),
            (1000, &long, &["/xdg"], Some("/xdg/vmctl")),
            (1000, &long, &[], None),
            (0, &long, &["/xdg"], Some("/run/vmctl")),
            (0, &long, &[], Some("/run/vmctl")),
        ];
        for (uid, data, owned, expected) in cases {
            let variables = [("XDG_RUNTIME_DIR", "/xdg"), ("VMCTL_DATA_DIR", data)];
            let settings = settings(uid, &variables, owned).unwrap();
            assert_eq!(settings.runtime_dir().ok(), expected.map(Path::new), "uid {uid}, own {owned:?}");
        }
        let nowhere = settings(1000, &[("VMCTL_DATA_DIR", &long)], &[]).unwrap();
        assert_eq!(
            nowhere.runtime_dir(),
            Err(SettingsError::NoRuntimeDir(PathBuf::from(format!("{long}/run"))))
        );
    }

    #[test]
    fn option_wins_over_environment() {
        let options = GlobalArgs { project: Some("flag".parse().unwrap()), ..GlobalArgs::default() };
        let variables = [("VMCTL_PROJECT", "env")];
        let chosen = |options| resolve(1000, &variables, &[], options).unwrap().project.unwrap().to_string();
        assert_eq!([chosen(&options), chosen(&GlobalArgs::default())], ["flag", "env"]);
    }

    #[test]
    fn unusable_values_are_named() {
        let bad = settings(0, &[("VMCTL_ACCEL", "hvf")], &[]).unwrap_err();
        assert_eq!(bad, SettingsError::BadAccel("hvf".to_owned()));
        let bad = settings(0, &[("VMCTL_PROJECT", "../x")], &[]).unwrap_err();
        assert!(matches!(bad, SettingsError::BadProject { .. }));
        assert_eq!(bad.exit(), Exit::Usage);
    }
}
