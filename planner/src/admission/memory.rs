//! Memory: what machines may come to hold, against what there is. Pure.

use vmctl_state::Address;

use super::{Shortage, ShortageKind, names, size, size_needed};

/// One machine's part, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemoryUse {
    /// It has a process now.
    Live {
        address: Address,
        /// What it holds.
        holds: u64,
        /// What it may come to hold.
        promised: u64,
        /// Whether the plan ends its process.
        goes: bool,
    },
    /// It is started. One that is restarted is live, and goes, besides.
    Starts {
        address: Address,
        /// What it may come to hold.
        wants: u64,
    },
}

/// What is lacking for the machines that start, if anything is.
///
/// `available` is what there is besides what machines hold now. Machines that go give back what they hold; what
/// machines that stay may still take of what they were promised is theirs. A plan that does not add to what is
/// promised is never short: it makes nothing worse.
pub(super) fn shortage(uses: &[MemoryUse], available: u64) -> Option<Shortage> {
    let (mut needed, mut returned, mut given_up, mut owed) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut machines = Vec::new();
    for used in uses {
        match used {
            MemoryUse::Live { holds, promised, goes: true, .. } => {
                returned = returned.saturating_add(*holds);
                given_up = given_up.saturating_add(*promised);
            }
            MemoryUse::Live { holds, promised, goes: false, .. } => {
                owed = owed.saturating_add(promised.saturating_sub(*holds));
            }
            MemoryUse::Starts { address, wants } => {
                needed = needed.saturating_add(*wants);
                machines.push(address.clone());
            }
        }
    }
    let room = available.saturating_add(returned).saturating_sub(owed);
    if needed <= room || needed <= given_up {
        return None;
    }
    machines.sort_unstable();
    let subject = if machines.len() == 1 {
        format!("{} needs", names(&machines))
    } else {
        format!("{} machines ({}) need", machines.len(), names(&machines))
    };
    let owed = if owed == 0 {
        String::new()
    } else {
        format!(", without {} that running machines may still take", size(owed))
    };
    Some(Shortage {
        kind: ShortageKind::Memory,
        needed_bytes: needed,
        available_bytes: room,
        path: None,
        machines,
        overcommitted: false,
        text: format!("{subject} {} of memory, {} is available{owed}", size_needed(needed), size(room)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn starts(name: &str, wants: u64) -> MemoryUse {
        MemoryUse::Starts { address: Address::vm(name), wants }
    }

    fn live(name: &str, holds: u64, promised: u64, goes: bool) -> MemoryUse {
        MemoryUse::Live { address: Address::vm(name), holds, promised, goes }
    }

    #[test]
    fn need_may_be_all_there_is_and_not_a_byte_more() {
        let uses = [starts("a", GIB), starts("b", GIB)];
        assert_eq!(shortage(&uses, 2 * GIB), None);
        let short = shortage(&uses, 2 * GIB - 1).unwrap();
        assert_eq!((short.needed_bytes, short.available_bytes), (2 * GIB, 2 * GIB - 1));
        assert_eq!(short.machines, [Address::vm("a"), Address::vm("b")]);
        assert_eq!(short.text, "2 machines (`a`, `b`) need 2.0 GiB of memory, 1.9 GiB is available");
    }

    #[test]
    fn running_machines_keep_what_they_were_promised() {
        // 4 GiB promised, 1 GiB held: 3 of the 5 GiB that look free are not.
        let staying = live("old", GIB, 4 * GIB, false);
        assert_eq!(shortage(&[staying.clone(), starts("a", 2 * GIB)], 5 * GIB), None);
        let short = shortage(&[staying, starts("a", 2 * GIB + 1)], 5 * GIB).unwrap();
        assert_eq!(short.available_bytes, 2 * GIB);
        assert_eq!(
            short.text,
            "`a` needs 2.1 GiB of memory, 2.0 GiB is available, without 3.0 GiB that running machines may still take"
        );
        // One that holds more than anybody thought takes nothing more.
        assert_eq!(shortage(&[live("old", 9 * GIB, GIB, false), starts("a", GIB)], GIB), None);
    }

    #[test]
    fn machines_that_go_give_back_what_they_hold() {
        let going = live("old", 2 * GIB, 4 * GIB, true);
        assert_eq!(shortage(&[going.clone(), starts("a", 5 * GIB)], 3 * GIB), None);
        assert!(shortage(&[going, starts("a", 5 * GIB + 1)], 3 * GIB).is_some());
    }

    #[test]
    fn plan_that_promises_no_more_than_before_is_never_short() {
        let restarted = live("a", 0, 4 * GIB, true);
        assert_eq!(shortage(&[restarted.clone(), starts("a", 4 * GIB)], 0), None);
        assert!(shortage(&[restarted, starts("a", 4 * GIB + 1)], 0).is_some());
    }

    #[test]
    fn nothing_that_starts_needs_nothing() {
        assert_eq!(shortage(&[live("a", GIB, u64::MAX, false)], 0), None);
        assert_eq!(shortage(&[], 0), None);
    }

    #[test]
    fn absurd_numbers_are_no_reason_to_panic() {
        let uses = [starts("a", u64::MAX), starts("b", u64::MAX), live("c", u64::MAX, 0, true)];
        assert_eq!(shortage(&uses, u64::MAX), None);
        assert!(shortage(&uses[..2], u64::MAX - 1).is_some());
    }
}
