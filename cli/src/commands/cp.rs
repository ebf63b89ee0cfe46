//! `cp`: files and folders between this host and a machine.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use vmctl_providers::ssh::{Session, quote};

use super::exec::LOGIN;
use super::ssh::target;
use crate::args::CpArgs;
use crate::context::{Context, small_runtime};
use crate::error::{CliError, Exit};
use crate::machines;
use crate::terminal::Signals;

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Here(&'a str),
    Guest { vm: &'a str, path: &'a str },
}

impl<'a> End<'a> {
    /// `web:/path` is in a machine; what has a `/` or nothing in front of its first `:` is here, but for `project/web:`.
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((vm, path)) if vm.split('/').count() <= 2 && vm.split('/').all(is_name) => {
                Self::Guest { vm, path }
            }
            _ => Self::Here(text),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.parse::<vmctl_providers::Name>().is_ok()
}

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &CpArgs) -> Result<Exit, CliError> {
    match (End::of(&args.source), End::of(&args.target)) {
        (End::Here(source), End::Guest { vm, path }) => {
            let source = ctx.settings.cwd.join(source);
            // Before anybody logs in.
            fs::metadata(&source).map_err(|error| unreadable(&source, &error))?;
            with_session(ctx, vm, async |session| send(session, &source, path).await)
        }
        (End::Guest { vm, path }, End::Here(target)) => {
            let target = ctx.settings.cwd.join(target);
            with_session(ctx, vm, async |session| fetch(session, path, &target).await)
        }
        (End::Here(_), End::Here(_)) => Err(usage("neither end is in a machine")),
        (End::Guest { .. }, End::Guest { .. }) => Err(usage("both ends are in machines")),
    }
}

fn usage(what: &str) -> CliError {
    CliError::new(format!("{what}: one is here, the other one is written `VM:PATH`"))
        .help("a path of this host that has a `:` is written `./a:b`".to_owned())
        .exit(Exit::Usage)
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::new(format!("cannot read `{}`", path.display())).because(error)
}

/// Logs in and does something there, unless we are asked to stop.
fn with_session(
    ctx: &Context,
    vm: &str,
    work: impl AsyncFnOnce(&Session) -> Result<(), CliError>,
) -> Result<Exit, CliError> {
    let machine = machines::one(ctx, Some(vm))?;
    let target = target(&machine, &machine.in_reach(ctx)?)?;
    small_runtime()?.block_on(async {
        let mut signals = Signals::catch()?;
        let copied = async {
            let session = Session::reach(&target, &ctx.settings.keyring, LOGIN).await?;
            work(&session).await?;
            session.close().await;
            Ok(Exit::Fine)
        };
        tokio::select! {
            copied = copied => copied,
            () = signals.any() => Ok(Exit::Interrupted),
        }
    })
}

/// Copies to the guest: into `path` if that is a folder there, else as `path`.
async fn send(session: &Session, source: &Path, path: &str) -> Result<(), CliError> {
    let metadata = fs::metadata(source).map_err(|error| unreadable(source, &error))?;
    let path = if path.is_empty() { "." } else { path };
    if !metadata.is_dir() {
        return Ok(session.upload(source, path, metadata.permissions().mode() & 0o7777, None).await?);
    }
    let name = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let inside = name_in_guest(path);
    let is_folder = path.ends_with('/')
        || session
            .exec(&format!("test -d {}", quote(&inside)), tokio::io::empty(), |_, _| {})
            .await?
            .is_success();
    let path = if is_folder { format!("{}/{name}", path.trim_end_matches('/')) } else { path.to_owned() };
    Ok(session.upload_folder(source, &path, None).await?)
}

/// A path as the guest's shell takes it, which does not look for a home in quotes.
fn name_in_guest(path: &str) -> String {
    let path = path.strip_prefix("~/").or_else(|| (path == "~").then_some(".")).unwrap_or(path);
    if path.starts_with('-') { format!("./{path}") } else { path.to_owned() }
}

/// Copies from the guest: into `target` if that is a folder here, else as `target`, which appears whole or not at all.
async fn fetch(session: &Session, path: &str, target: &Path) -> Result<(), CliError> {
    let path = if path.is_empty() { "." } else { path };
    let parent = if target.is_dir() { target } else { target.parent().unwrap_or(target) };
    let draft = Draft::in_folder(parent)?;
    session.download(path, &draft.0).await?;
    let entries = fs::read_dir(&draft.0).map_err(|error| unreadable(&draft.0, &error))?;
    let found: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut found = found.map_err(|error| unreadable(&draft.0, &error))?;
    found.sort();
    // A name of its own, or the content of a folder without one.
    let wanted = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let has_name = !matches!(wanted, "" | "." | ".." | "~");
    if has_name && !target.is_dir() {
        let [only] = found.as_slice() else {
            return Err(CliError::new(format!("the guest sent no `{wanted}`")));
        };
        return place(only, target);
    }
    fs::create_dir_all(target).map_err(|error| unwritable(target, &error))?;
    for entry in &found {
        place(entry, &target.join(entry.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Gives what arrived its place. A file takes the place of a file; a folder that is there already stays as it is.
fn place(arrived: &Path, at: &Path) -> Result<(), CliError> {
    fs::rename(arrived, at).map_err(|error| unwritable(at, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    let failure = CliError::new(format!("cannot write `{}`", path.display())).because(error);
    match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
            failure.help("something is there already: remove it, or choose another name".to_owned())
        }
        _ => failure,
    }
}

/// A folder for what arrives, beside where it belongs; removed with all that is still in it.
struct Draft(PathBuf);

impl Draft {
    fn in_folder(folder: &Path) -> Result<Self, CliError> {
        let path = folder.join(format!(".vmctl-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path).map_err(|error| unwritable(&path, &error))?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a folder of a copy stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_as_by_scp() {
        let guest = |vm, path| End::Guest { vm, path };
        assert_eq!(End::of("web:/etc/hosts"), guest("web", "/etc/hosts"));
        assert_eq!(End::of("shop/web:a:b"), guest("shop/web", "a:b"));
        assert_eq!(End::of("web:"), guest("web", ""));
        for here in ["./web:x", "/a:b", "file", "a/b/c:d", ":x", "~/a:b"] {
            assert_eq!(End::of(here), End::Here(here));
        }
    }
}
