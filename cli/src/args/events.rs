//! Options of `events`.

use clap::Args;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use vmctl_providers::Name;

use super::everyday::patience;
use super::machine_name;
use crate::complete::machines;

/// Options of `events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmctl events
  vmctl events web --since 2h
  vmctl events --follow
  vmctl events --follow --since 0s --json | jq -c 'select(.drift != null and .drift != [])'

Steps that ended, with who did them, and commands that changed the state, from the journal; what a \
vmctl that is at work did is told when it is done. --follow looks every two seconds as well, and \
tells what it sees: machines that start, stop or go away, and where they differ from what is \
recorded. It ends with Ctrl-C.")]
pub(crate) struct EventsArgs {
    /// Machines, also those that are gone [default: all of the project]
    #[arg(value_name = "VM", value_parser = machine_name, add = machines())]
    pub(crate) vms: Vec<Name>,
    /// Show only what happened since: a time, as `2026-01-31T08:00:00Z` or `2026-01-31 08:00`, or so long ago, as `2h`
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub(crate) since: Option<Timestamp>,
    /// Go on with what happens, until Ctrl-C
    #[arg(short = 'F', long)]
    pub(crate) follow: bool,
    /// Print JSON, one event a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time, or how long ago it was. A time without a zone is this host's.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return TimeZone::system()
            .to_timestamp(time)
            .map_err(|error| format!("this host's clock never shows that: {error}"));
    }
    let ago = patience(text).map_err(|_| {
        "expected a time, such as `2026-01-31T08:00:00Z` or `2026-01-31 08:00`, or how long ago, such as `2h`"
            .to_owned()
    })?;
    SignedDuration::try_from(ago)
        .ok()
        .and_then(|ago| Timestamp::now().checked_sub(ago).ok())
        .ok_or_else(|| "there was no time so long ago".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        assert_eq!(since("1970-01-01T00:01:00Z").unwrap(), Timestamp::from_second(60).unwrap());
        assert_eq!(since("1970-01-01T01:01:00+01:00").unwrap(), Timestamp::from_second(60).unwrap());
        assert!(since("2026-01-31 08:00").is_ok() && since("2026-01-31").is_ok());
        let now = Timestamp::now();
        assert!(since("0s").unwrap() >= now);
        assert!(since("1h").unwrap() < now && since("90").unwrap() < now);
        assert!(since("yesterday").unwrap_err().contains("such as `2h`"));
    }
}
