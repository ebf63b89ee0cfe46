//! Recovery itself is killed (F8): every pair of places within a kind of step, and a sample of all others.

use std::time::{SystemTime, UNIX_EPOCH};

use vmctl_tests::surroundings;

use super::scenario::{Scenario, Stage, was_killed};

/// How many pairs of places of different kinds are tried in each scenario.
const SAMPLE: usize = 40;

/// Kills an apply at `first`, the next one at each of `second`, and lets a third one run. Returns how many of the second
/// kills were met: what the first run did is not done again.
fn killed_twice(stage: &mut Stage, first: &str, second: &[String]) -> usize {
    stage.rewind();
    let first_kill = format!("{first}@1=kill");
    let ended = stage.disturbed(&first_kill);
    assert!(was_killed(&ended), "{first_kill} was not met\n{}", ended.text());
    let left = stage.save();
    let mut met = 0;
    for second in second {
        stage.restore(&left);
        let second_kill = format!("{second}@1=kill");
        let ended = stage.disturbed(&second_kill);
        if was_killed(&ended) {
            met += 1;
            stage.converges(&format!("{first_kill};{second_kill}"), &[ended]);
        } else {
            assert_eq!(ended.status.code(), Some(0), "{first_kill};{second_kill}\n{}", ended.text());
        }
    }
    met
}

fn kind(point: &str) -> &str {
    point.split('.').next().unwrap_or_default()
}

/// Kinds of steps that a scenario is the first to pass, so that no pair is tried twice.
fn within_kinds(scenario: Scenario, kinds: &[&str]) {
    let mut stage = Stage::new(scenario);
    let points: Vec<String> = stage.passed.iter().map(|(name, _)| name.clone()).collect();
    for wanted in kinds {
        let alike: Vec<String> = points.iter().filter(|point| kind(point) == *wanted).cloned().collect();
        assert!(!alike.is_empty(), "{scenario:?} passes no place of {wanted}");
        let met: usize = alike.iter().map(|first| killed_twice(&mut stage, first, &alike)).sum();
        println!("{scenario:?} {wanted}: {met} of {} pairs met", alike.len() * alike.len());
        assert!(met >= alike.len(), "{scenario:?} {wanted}: only {met} pairs were met");
    }
}

#[test]
fn making_killed_twice_converges() {
    within_kinds(Scenario::Create, &["fetch-image", "prepare", "start", "ready", "state"]);
}

#[test]
fn changing_killed_twice_converges() {
    within_kinds(Scenario::Change, &["provision", "update", "suspend", "resume", "stop", "forget"]);
}

#[test]
fn destroying_killed_twice_converges() {
    within_kinds(Scenario::Destroy, &["destroy"]);
}

/// `VMCTL_TEST_SEED` takes the seed of a run that failed.
#[test]
fn any_two_kills_converge() {
    let given = surroundings::inherited("VMCTL_TEST_SEED").and_then(|seed| seed.to_str()?.parse().ok());
    let mut seed: u64 = given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() ^ u64::from(now.subsec_nanos())
    });
    println!("VMCTL_TEST_SEED={seed}");
    for scenario in Scenario::ALL {
        let mut stage = Stage::new(scenario);
        let points: Vec<String> = stage.passed.iter().map(|(name, _)| name.clone()).collect();
        let mut met = 0;
        for _ in 0..SAMPLE {
            let [first, second] = [(); 2].map(|()| points[next(&mut seed) as usize % points.len()].clone());
            if kind(&first) != kind(&second) {
                println!("{scenario:?} {first} then {second}");
                met += killed_twice(&mut stage, &first, &[second]);
            }
        }
        assert!(met > 0, "{scenario:?}: no pair of the sample was met");
    }
}

/// Steele, Lea and Flood's SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
