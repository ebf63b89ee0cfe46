//! How many files this process may have open, and what that allows to run at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are there before the first step: streams, runtime, state, locks.
const BASE: u64 = 64;

/// Descriptors that a step has at most: pidfile and pidfd, QEMU's messages and first words, monitor, ssh, and files that
/// are just being written.
const PER_STEP: u64 = 12;

/// Lets this process have as many files open as it may, and returns how many these are.
///
/// Programs are started with a low limit for the sake of those that use select(2), which we do not. What we start
/// inherits it: QEMU and ssh poll.
pub(crate) fn raise() -> u64 {
    let found = getrlimit(Resource::Nofile);
    let hard = found.maximum;
    if found.current != hard
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Of so many steps as are `asked` for, those that `descriptors` are enough for; at least one.
pub(crate) fn steps(asked: usize, descriptors: u64) -> usize {
    let enough = (descriptors.saturating_sub(BASE) / PER_STEP).max(1);
    asked.min(usize::try_from(enough).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_bounded_by_descriptors_and_never_none() {
        let cases = [(10, 1024, 10), (64, 256, 16), (64, BASE + PER_STEP, 1), (64, 3, 1), (1, u64::MAX, 1)];
        for (asked, descriptors, expected) in cases {
            assert_eq!(steps(asked, descriptors), expected, "{asked} with {descriptors}");
        }
    }
}
