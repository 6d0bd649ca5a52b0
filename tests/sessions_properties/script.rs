//! What may happen to sessions, drawn by proptest.
//!
//! Knows: steps. Must not know: what they lead to.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};
use tidal_support::random::Random;
use tidal_support::sessions::AtOpen;
use tidal_support::sim::Survives;

/// In nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;
/// In nanoseconds.
pub(crate) const MINUTE: u64 = 60 * SECOND;
/// In nanoseconds.
pub(crate) const HOUR: u64 = 60 * MINUTE;

/// A signal: when it happened is relative to when it is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) item: u64,
    pub(crate) ahead: i64,
    pub(crate) span: u64,
    pub(crate) key: Option<u64>,
}

/// A crash, and how the database is opened after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crash {
    pub(crate) survives: Survives,
    pub(crate) at_open: AtOpen,
    /// How long it is down.
    pub(crate) down: u64,
}

/// Something that happens. Handles and sessions are named by numbers that are taken modulo how many
/// there are.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Time passes.
    Pass(u64),
    /// Time passes until a session's deadline, and so much longer.
    UntilDeadline {
        session: usize,
        beyond: u64,
    },
    /// The wall clock is set back.
    SetBack(u64),
    Start {
        user: u64,
        agent: u64,
        policy: usize,
        joins: bool,
    },
    Signal {
        handle: usize,
        said: Said,
    },
    Annotate {
        handle: usize,
        item: u64,
    },
    Heartbeat {
        handle: usize,
    },
    Extend {
        handle: usize,
        by: u64,
    },
    Resume {
        session: usize,
    },
    Close {
        handle: usize,
    },
    Force {
        session: usize,
    },
    Late {
        session: usize,
        said: Said,
    },
    Sweep,
    Checkpoint,
    Crash(Crash),
    /// The database is closed and opened.
    Reopen(AtOpen),
}

fn duration() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => Just(0),
        1 => Just(1),
        4 => 0..2 * SECOND,
        4 => 0..2 * MINUTE,
        3 => 0..HOUR,
        1 => 0..6 * HOUR,
    ]
}

fn said() -> impl Strategy<Value = Said> {
    let ahead = prop_oneof![
        4 => Just(0i64),
        2 => -(2 * SECOND as i64)..0,
        2 => -(HOUR as i64)..0,
        1 => -(6 * HOUR as i64)..0,
        2 => 0..5 * MINUTE as i64,
    ];
    let span = prop_oneof![3 => Just(0), 2 => 0..2 * MINUTE, 1 => 0..6 * HOUR];
    let key = prop::option::weighted(0.4, 0..4u64);
    (0..8u64, ahead, span, key).prop_map(|(item, ahead, span, key)| Said { item, ahead, span, key })
}

/// Ways to open.
pub(crate) fn at_open() -> impl Strategy<Value = AtOpen> {
    prop_oneof![
        3 => Just(AtOpen::RestoreThenExpire),
        1 => Just(AtOpen::EndAll),
        1 => Just(AtOpen::RestoreAll),
    ]
}

fn down() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 2 => 0..MINUTE, 2 => 0..HOUR, 1 => 0..5 * HOUR]
}

/// Deaths of the process: all that was acknowledged is there.
fn death() -> impl Strategy<Value = Crash> {
    (at_open(), down()).prop_map(|(at_open, down)| Crash {
        survives: Survives::Everything,
        at_open,
        down,
    })
}

fn start() -> impl Strategy<Value = Step> {
    (0..2u64, 0..2u64, 0..POLICIES, prop::bool::weighted(0.3))
        .prop_map(|(user, agent, policy, joins)| Step::Start { user, agent, policy, joins })
}

/// How many policies the schema of the world has.
pub(crate) const POLICIES: usize = 4;

/// Which steps a script may have besides writes and time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Also {
    pub(crate) crashes: bool,
    pub(crate) set_backs: bool,
    pub(crate) sweeps: bool,
    pub(crate) resumes: bool,
}

/// Everything.
pub(crate) const ALL: Also = Also { crashes: true, set_backs: true, sweeps: true, resumes: true };

/// Steps of every kind, with weights that lead to sessions of some length.
pub(crate) fn step(also: Also) -> impl Strategy<Value = Step> {
    let beyond = prop_oneof![2 => Just(0u64), 2 => Just(1u64), 1 => 0..HOUR];
    let any = || 0..64usize;
    let mut kinds = vec![
        (10, start().boxed()),
        (16, (any(), said()).prop_map(|(handle, said)| Step::Signal { handle, said }).boxed()),
        (4, (any(), 0..8u64).prop_map(|(handle, item)| Step::Annotate { handle, item }).boxed()),
        (3, any().prop_map(|handle| Step::Heartbeat { handle }).boxed()),
        (3, (any(), duration()).prop_map(|(handle, by)| Step::Extend { handle, by }).boxed()),
        (3, any().prop_map(|handle| Step::Close { handle }).boxed()),
        (1, any().prop_map(|session| Step::Force { session }).boxed()),
        (4, (any(), said()).prop_map(|(session, said)| Step::Late { session, said }).boxed()),
        (12, duration().prop_map(Step::Pass).boxed()),
        (
            6,
            (any(), beyond)
                .prop_map(|(session, beyond)| Step::UntilDeadline { session, beyond })
                .boxed(),
        ),
    ];
    if also.resumes {
        kinds.push((4, any().prop_map(|session| Step::Resume { session }).boxed()));
    }
    if also.set_backs {
        kinds.push((2, (0..2 * HOUR).prop_map(Step::SetBack).boxed()));
    }
    if also.sweeps {
        kinds.push((4, Just(Step::Sweep).boxed()));
        kinds.push((2, Just(Step::Checkpoint).boxed()));
    }
    if also.crashes {
        kinds.push((4, death().prop_map(Step::Crash).boxed()));
        kinds.push((1, at_open().prop_map(Step::Reopen).boxed()));
    }
    prop::strategy::Union::new_weighted(kinds)
}

/// A script of sessions that somebody does not want to end.
pub(crate) fn restless(len_max: usize) -> impl Strategy<Value = Vec<Step>> {
    let any = || 0..64usize;
    let step = prop_oneof![
        6 => step(ALL),
        2 => (any(), 0..6 * HOUR).prop_map(|(handle, by)| Step::Extend { handle, by }),
        2 => (0..20 * MINUTE).prop_map(Step::Pass),
        3 => (any(), said()).prop_map(|(handle, said)| Step::Signal { handle, said }),
    ];
    vec(step, 1..len_max)
}

/// A script.
pub(crate) fn script(also: Also, len_max: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(also), 1..len_max)
}

/// Draws so many cases; which ones follows from the seed that is printed.
pub(crate) fn for_all<S: Strategy>(cases: u32, strategy: S, check: impl Fn(S::Value)) {
    let seed = Random::seed_from("TIDAL_SEED");
    let config = proptest::test_runner::Config {
        cases: tidal_support::setting("TIDAL_CASES", cases),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        // A case is a crash of a whole machine: the first ones are the large steps.
        max_shrink_time: 10_000,
        ..Default::default()
    };
    let run = |value| {
        check(value);
        Ok::<(), TestCaseError>(())
    };
    TestRunner::new(config)
        .run(&strategy, run)
        .unwrap_or_else(|error| panic!("TIDAL_SEED={seed}: {error}"));
}
