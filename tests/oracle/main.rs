//! The oracle: random operations of all surfaces, random crashes, and an engine that never crashed.
//!
//! A story is 1 to 25 transitions, or, where it is mostly of sessions, 1 to 40 on the simulated machine: operations, alone or several in flight;
//! sessions that change hands, and sweeps over those that time has ended; flushes, checkpoints, reopens; stops of the machine at any of its operations or at a crash point,
//! failures, power cuts, damage to one store, recoveries that are interrupted up to six times. After
//! each open the state must be bit-identical to that of an engine in memory which applied exactly the
//! first M operations, where M is at least what was acknowledged and at most what was begun. Beside
//! that engine stand plain maps which share no code with it: every answer, and at the end every read,
//! is compared with them.
//!
//! One seed makes all stories: `TIDAL_SEED=… cargo test --test oracle NAME` repeats a failure, which
//! ends with the smallest story that still fails. `TIDAL_CASES=…` runs more than 1,000 stories of each kind;
//! `PROPTEST_VERBOSE=2` prints each transition.

mod collections;
mod courses;
mod crash;
mod director;
mod engagement;
mod long;
mod machine;
mod operation;
mod plain;
mod reference;
mod sessions;
mod stories;
mod time;
mod world;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tidal_support::random::Random;

use machine::Stories;

fn cases() -> u32 {
    tidal_support::setting("TIDAL_CASES", 1_000)
}

fn run<const EVENTS: bool, const SESSIONS: bool>() {
    let seed = Random::seed_from("TIDAL_SEED");
    let config = Config {
        cases: cases(),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 3_000,
        max_shrink_time: 120_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config.clone());
    let len_max = if SESSIONS { 40 } else { 25 };
    let stories = Stories::<EVENTS, SESSIONS>::sequential_strategy(1..=len_max);
    let outcome = runner.run(&stories, |(beginning, transitions, seen)| {
        if tidal_support::is_time_up() {
            return Ok(());
        }
        Stories::<EVENTS, SESSIONS>::test_sequential(config.clone(), beginning, transitions, seen);
        Ok::<_, TestCaseError>(())
    });
    let tally = Stories::<EVENTS, SESSIONS>::tally();
    println!("{tally:?}\nnever reached: {:?}", tally.never_reached());
    outcome.unwrap_or_else(|failure| panic!("TIDAL_SEED={seed}\n{failure}"));
    let enough = u64::from(cases()) / if SESSIONS { 8 } else { 4 };
    assert!(
        tally.crashes > enough && tally.lost > enough,
        "too little was tried to prove anything"
    );
    assert!(tally.interrupted > enough && tally.damages > enough / 4, "the same");
    if SESSIONS && cases() >= 1_000 {
        let was_given = |kind: &str| tally.answers.keys().any(|given| given.starts_with(kind));
        let never = ANSWERS.into_iter().filter(|kind| !was_given(kind));
        let never: Vec<&str> = never.collect();
        assert!(never.is_empty(), "no session was ever answered {never:?}");
    }
}

/// What sessions are answered sooner or later.
const ANSWERS: [&str; 21] = [
    "Started",
    "Touched",
    "Fenced",
    "LaneBusy",
    "NoSession",
    "IsOpen",
    "TooLate",
    "Forbidden",
    "Limited",
    "Closed",
    "Ended Closed Word",
    "Ended Forced Record",
    "Ended Forced Nothing",
    "HasEnded Closed Word",
    "HasEnded Forced Record",
    "HasEnded Forced Nothing",
    "HasEnded Idle Record",
    "HasEnded Idle Nothing",
    "HasEnded TooLong",
    "HasEnded Superseded Record",
    "HasEnded Superseded Nothing",
];

#[test]
fn where_events_advance_time_every_story_ends_as_without_crashes() {
    run::<true, false>();
}

#[test]
fn where_the_clock_advances_time_every_story_ends_as_without_crashes() {
    run::<false, false>();
}

#[test]
fn where_events_advance_time_sessions_end_as_without_crashes() {
    run::<true, true>();
}

#[test]
fn where_the_clock_advances_time_sessions_end_as_without_crashes() {
    run::<false, true>();
}
