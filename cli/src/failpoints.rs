//! Arms failpoints as the environment says. Only in the program that tests run; people's vmctl has none of this.
//!
//! - `VMCTL_FAILPOINT` is a list of `POINT[@N]=FAULT`, separated by `;`. Faults: `kill` (SIGKILL to itself), `panic`,
//!   `enospc`, `eio` (what the system would answer), `delay:MS`; `value:V` for the places that take a value. With
//!   `@N` only the N-th passage is hit, else each.
//! - `VMCTL_FAILPOINT_TRACE` names a file; each passage of a place that is not armed adds its name, a line each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use vmctl_planner::failpoints::{FAILPOINTS, VALUES};

use crate::error::CliError;
use crate::ui;

const ARMED: &str = "VMCTL_FAILPOINT";
const TRACE: &str = "VMCTL_FAILPOINT_TRACE";

/// What happens at a place.
#[derive(Debug)]
enum Fault {
    Kill,
    /// An action in the words of the crate `fail`.
    Action(String),
}

/// Arms what the environment names.
pub(crate) fn arm(environment: &BTreeMap<String, String>) -> Result<(), CliError> {
    let mut armed = BTreeSet::new();
    let faults = environment.get(ARMED).map_or("", String::as_str);
    for text in faults.split(';').map(str::trim).filter(|text| !text.is_empty()) {
        let (name, number, fault) = parse(text)
            .map_err(|why| CliError::new(format!("`{text}` of {ARMED} arms nothing")).help(why))?;
        set(name, number, fault).map_err(|why| CliError::new(format!("cannot arm `{text}`")).help(why))?;
        armed.insert(name);
    }
    let Some(trace) = environment.get(TRACE) else { return Ok(()) };
    for point in FAILPOINTS.iter().filter(|point| !armed.contains(point.name)) {
        let file = Path::new(trace).to_owned();
        fail::cfg_callback(point.name, move || note(&file, point.name))
            .map_err(|why| CliError::new(format!("cannot trace `{}`", point.name)).help(why))?;
    }
    Ok(())
}

/// Prints every place with what it belongs to.
pub(crate) fn list() -> Result<(), CliError> {
    let lines: Vec<_> = FAILPOINTS.iter().map(|point| format!("{}\t{}", point.name, point.of)).collect();
    ui::print(&lines.join("\n"))
}

/// Takes one `POINT[@N]=FAULT` apart.
fn parse(text: &str) -> Result<(&str, Option<usize>, Fault), String> {
    let (place, fault) = text.split_once('=').ok_or("it is no POINT=FAULT")?;
    let (name, number) = match place.split_once('@') {
        Some((name, number)) => (name, Some(number.parse().ok().filter(|number| *number > 0))),
        None => (place, None),
    };
    let number = number.map(|number| number.ok_or("the number of a passage begins at 1")).transpose()?;
    let takes_value = VALUES.iter().any(|(value, _)| *value == name);
    if !takes_value && !FAILPOINTS.iter().any(|point| point.name == name) {
        return Err(format!("there is no `{name}`; `vmctl-failpoints failpoints` lists all places"));
    }
    let errno = |errno: Errno| Ok(Fault::Action(format!("return({})", errno.raw_os_error())));
    let fault = match fault.split_once(':').unwrap_or((fault, "")) {
        ("value", value) if takes_value => Ok(Fault::Action(format!("return({value})"))),
        _ if takes_value => Err(format!("`{name}` takes `value:V`")),
        ("kill", "") => Ok(Fault::Kill),
        ("panic", "") => Ok(Fault::Action("panic".to_owned())),
        ("enospc", "") => errno(Errno::NOSPC),
        ("eio", "") => errno(Errno::IO),
        ("delay", millis) if millis.parse::<u64>().is_ok() => Ok(Fault::Action(format!("sleep({millis})"))),
        _ => Err("faults are `kill`, `panic`, `enospc`, `eio` and `delay:MS`".to_owned()),
    };
    Ok((name, number, fault?))
}

fn set(name: &str, number: Option<usize>, fault: Fault) -> Result<(), String> {
    match (fault, number) {
        (Fault::Kill, number) => {
            let passed = AtomicUsize::new(1);
            fail::cfg_callback(name, move || {
                if passed.fetch_add(1, Ordering::Relaxed) == number.unwrap_or(1) {
                    die();
                }
            })
        }
        (Fault::Action(action), None) => fail::cfg(name, &action),
        (Fault::Action(action), Some(1)) => fail::cfg(name, &format!("1*{action}")),
        (Fault::Action(action), Some(number)) => fail::cfg(name, &format!("{}*off->1*{action}", number - 1)),
    }
}

/// Ends this process as `kill -9` does: nothing is flushed, closed or told.
fn die() {
    if let Err(error) = kill_process(getpid(), Signal::KILL) {
        tracing::error!(%error, "cannot kill itself");
    }
}

/// One write, so that lines of two threads do not mix.
fn note(file: &Path, name: &str) {
    let noted = OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()));
    if let Err(error) = noted {
        tracing::error!(%error, file = %file.display(), "cannot note that a place was passed");
    }
}
