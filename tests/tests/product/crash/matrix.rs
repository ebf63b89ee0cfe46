//! Every place times every fault, one at a time, on fake machines.

use super::scenario::{Scenario, Stage, was_killed};

/// Disturbs the apply at every place that it passes, at the first passage and at the last.
fn every_place(scenario: Scenario, fault: &str) {
    let mut stage = Stage::new(scenario);
    for (point, times) in stage.passed.clone() {
        let mut numbers = vec![1];
        numbers.extend((times > 1).then_some(times));
        for number in numbers {
            stage.rewind();
            let fault = format!("{point}@{number}={fault}");
            let ended = stage.disturbed(&fault);
            println!("{scenario:?} {fault}: {}", ended.status);
            if fault.ends_with("kill") {
                // Steps run side by side, so that the last passage may fall away.
                assert!(was_killed(&ended) || number > 1, "{fault} was not met\n{}", ended.text());
            } else {
                assert!(!was_killed(&ended), "{fault}\n{}", ended.text());
            }
            stage.converges(&[ended]);
        }
    }
}

macro_rules! singles {
    ($($name:ident: $scenario:ident $fault:literal;)*) => {
        $(
            #[test]
            fn $name() {
                every_place(Scenario::$scenario, $fault);
            }
        )*
    };
}

singles! {
    create_killed_anywhere_converges: Create "kill";
    create_on_a_full_disk_anywhere_converges: Create "enospc";
    create_on_a_failing_disk_anywhere_converges: Create "eio";
    create_that_panics_anywhere_converges: Create "panic";
    change_killed_anywhere_converges: Change "kill";
    change_on_a_full_disk_anywhere_converges: Change "enospc";
    change_on_a_failing_disk_anywhere_converges: Change "eio";
    change_that_panics_anywhere_converges: Change "panic";
    destroy_killed_anywhere_converges: Destroy "kill";
    destroy_on_a_full_disk_anywhere_converges: Destroy "enospc";
    destroy_on_a_failing_disk_anywhere_converges: Destroy "eio";
    destroy_that_panics_anywhere_converges: Destroy "panic";
}
