//! Diagnostics for people who look for a fault: `tracing` to stderr.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::ui;

/// Starts logging: as `RUST_LOG` says, else as often as `-v` was given.
pub(crate) fn start(filter: Option<&str>, verbose: u8) {
    let targets = match filter.map(str::parse::<Targets>) {
        Some(Ok(targets)) if verbose == 0 => targets,
        Some(Err(error)) => {
            // Other programs read the variable too, with a richer grammar: no reason to refuse to work.
            ui::warn(&format!("`RUST_LOG` is ignored: {error}"));
            by_count(verbose)
        }
        Some(Ok(_)) | None => by_count(verbose),
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && ui::stderr_has_color());
    tracing_subscriber::registry().with(targets).with(layer).init();
}

/// Warnings always; then our own crates, then everything.
fn by_count(verbose: u8) -> Targets {
    // Every crate of ours has a name that begins so; targets match by prefix.
    let ours = |level| Targets::new().with_default(LevelFilter::WARN).with_target("vmctl", level);
    match verbose {
        0 => ours(LevelFilter::WARN),
        1 => ours(LevelFilter::DEBUG),
        2 => ours(LevelFilter::TRACE),
        _ => Targets::new().with_default(LevelFilter::TRACE),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn verbosity_opens_our_crates_before_others() {
        let enabled = |verbose, target: &str, level| by_count(verbose).would_enable(target, &level);
        assert!(!enabled(0, "vmctl_providers::qemu", Level::INFO));
        assert!(enabled(1, "vmctl_providers::qemu", Level::DEBUG));
        assert!(!enabled(1, "russh", Level::DEBUG));
        assert!(enabled(3, "russh", Level::TRACE));
    }
}
