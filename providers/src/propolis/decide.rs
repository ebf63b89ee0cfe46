//! What a server's answers mean, and what is done next. Pure.

use uuid::Uuid;

use super::api::{Instance, State};
use crate::spec::VmState;

/// What is to be done to a server whose VM shall run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// There is no VM: make it.
    Ensure,
    /// It is made, and waits for `Run`.
    Run,
    /// It is on its way up.
    AwaitRunning,
    /// It is up.
    Adopt,
    /// It is on its way down: wait for its end.
    AwaitEnd,
    /// It came to its end here; a new one needs a fresh process, or the leave of a server that is somebody else's.
    Over,
    /// It did not come up.
    Broken(State),
    /// It is another's.
    Foreign(Box<Instance>),
}

/// What comes next on the way to a running VM of identity `id`.
pub(super) fn next(found: Option<Instance>, id: Uuid) -> Next {
    let Some(found) = found else { return Next::Ensure };
    if found.id != id {
        // What came to its end holds nothing, whosesoever it was.
        return if found.state == State::Destroyed { Next::Over } else { Next::Foreign(Box::new(found)) };
    }
    match found.state {
        State::Creating => Next::Run,
        State::Starting | State::Migrating | State::Repairing => Next::AwaitRunning,
        State::Running | State::Rebooting => Next::Adopt,
        State::Stopping | State::Stopped => Next::AwaitEnd,
        State::Destroyed => Next::Over,
        state @ (State::Failed | State::Unknown(_)) => Next::Broken(state),
    }
}

/// Whether a VM that was told to run does, or will not; `None` while it is on its way.
pub(super) fn is_up(state: &State) -> Option<bool> {
    match state {
        State::Running | State::Rebooting => Some(true),
        State::Failed | State::Stopping | State::Stopped | State::Destroyed | State::Unknown(_) => {
            Some(false)
        }
        State::Creating | State::Starting | State::Migrating | State::Repairing => None,
    }
}

/// How far a VM is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fall {
    /// It is not.
    No,
    /// The guest is off.
    Off,
    /// Nothing is held any more.
    Gone,
}

/// How far down `state` is. A VM that failed holds what it holds until it is told to stop.
pub(super) fn fall(state: &State) -> Fall {
    match state {
        State::Destroyed => Fall::Gone,
        State::Stopped | State::Failed => Fall::Off,
        State::Creating
        | State::Starting
        | State::Running
        | State::Stopping
        | State::Rebooting
        | State::Migrating
        | State::Repairing
        | State::Unknown(_) => Fall::No,
    }
}

/// What a machine does whose server has this VM for it. `at_rest` is what it does when nothing runs.
///
/// One that is starting or stopping counts as running: its server works for it, and its disk is used. A word that
/// nobody knows is told as a failure, and never as a machine that is off.
pub(super) fn vm_state(state: &State, at_rest: VmState) -> VmState {
    match state {
        State::Creating => VmState::Prepared,
        State::Starting
        | State::Running
        | State::Stopping
        | State::Rebooting
        | State::Migrating
        | State::Repairing => VmState::Running,
        State::Stopped | State::Destroyed if at_rest == VmState::Prepared => VmState::Prepared,
        State::Stopped | State::Destroyed => VmState::Stopped,
        State::Failed | State::Unknown(_) => VmState::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Uuid = Uuid::from_u128(1);

    fn found(id: Uuid, state: &str) -> Option<Instance> {
        Some(Instance { id, name: "web".to_owned(), state: state.to_owned().into() })
    }

    #[test]
    fn every_state_leads_on() {
        let expected = [
            ("Creating", Next::Run, None, Fall::No, VmState::Prepared),
            ("Starting", Next::AwaitRunning, None, Fall::No, VmState::Running),
            ("Running", Next::Adopt, Some(true), Fall::No, VmState::Running),
            ("Stopping", Next::AwaitEnd, Some(false), Fall::No, VmState::Running),
            ("Stopped", Next::AwaitEnd, Some(false), Fall::Off, VmState::Stopped),
            ("Rebooting", Next::Adopt, Some(true), Fall::No, VmState::Running),
            ("Migrating", Next::AwaitRunning, None, Fall::No, VmState::Running),
            ("Repairing", Next::AwaitRunning, None, Fall::No, VmState::Running),
            ("Failed", Next::Broken(State::Failed), Some(false), Fall::Off, VmState::Failed),
            ("Destroyed", Next::Over, Some(false), Fall::Gone, VmState::Stopped),
        ];
        for (word, step, up, down, seen) in expected {
            let state = State::from(word.to_owned());
            assert_eq!(next(found(OURS, word), OURS), step, "{word}");
            assert_eq!((is_up(&state), fall(&state)), (up, down), "{word}");
            assert_eq!(vm_state(&state, VmState::Stopped), seen, "{word}");
        }
        assert_eq!(next(None, OURS), Next::Ensure);
    }

    #[test]
    fn unknown_state_is_a_failure_and_never_an_end() {
        let state = State::Unknown("Dreaming".to_owned());
        assert_eq!(next(found(OURS, "Dreaming"), OURS), Next::Broken(state.clone()));
        assert_eq!((is_up(&state), fall(&state)), (Some(false), Fall::No));
        assert_eq!(vm_state(&state, VmState::Stopped), VmState::Failed);
    }

    #[test]
    fn vm_of_another_is_left_alone_unless_nothing_is_left_of_it() {
        let other = Uuid::from_u128(2);
        for word in ["Creating", "Running", "Stopped", "Failed"] {
            assert!(matches!(next(found(other, word), OURS), Next::Foreign(_)), "{word}");
        }
        assert_eq!(next(found(other, "Destroyed"), OURS), Next::Over);
    }
}
