//! The state machine: which transitions there are, and how proptest draws, runs and shrinks them.
//!
//! Knows: proptest. Must not know: what must hold.

use std::sync::Mutex;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tidal_support::sim::{Fault, Survives};
use tidaldb::TimeSource;

use crate::crash::{Crash, Stop, crash, fault, nested_chain, stop};
use crate::operation::{Operation, flying, operation, signal};
use crate::sessions::sessioning;
use crate::time::{Tick, tick};
use crate::world::{Tally, World};

/// How a story begins.
#[derive(Debug, Clone)]
pub(crate) struct Beginning {
    /// Whether operations that do not say are acknowledged before they are synced.
    os_by_default: bool,
    /// Whether a session keeps another one from its lane.
    rejects: bool,
    /// What interrupts the creation of the database.
    creation: Crash,
}

/// What happens next.
#[derive(Debug, Clone)]
pub(crate) enum Transition {
    Operation(Operation),
    Flight(Vec<Operation>),
    Tick(Tick),
    Resume(usize),
    Sweep,
    Flush,
    Checkpoint,
    Close,
    DropAndReopen,
    Check,
    StopLater(Stop, Crash),
    FailLater { fault: Fault, crash: Crash, goes_on: bool },
    Crash(Crash),
}

/// Stories in which events advance time, or the clock does; and of all surfaces alike, or mostly of
/// sessions.
pub(crate) struct Stories<const EVENTS: bool, const SESSIONS: bool>;

/// What the stories of each kind have tried: proptest lets nothing out of a story but its failure.
static TALLIES: [Mutex<Option<Tally>>; 4] = [const { Mutex::new(None) }; 4];

impl<const EVENTS: bool, const SESSIONS: bool> Stories<EVENTS, SESSIONS> {
    const KIND: usize = 2 * EVENTS as usize + SESSIONS as usize;
    const SOURCE: TimeSource = if EVENTS { TimeSource::Events } else { TimeSource::Clock };

    /// What all of them tried so far.
    pub(crate) fn tally() -> Tally {
        let tally = TALLIES[Self::KIND].lock().expect("no tally panics");
        tally.clone().unwrap_or_default()
    }
}

impl<const EVENTS: bool, const SESSIONS: bool> ReferenceStateMachine for Stories<EVENTS, SESSIONS> {
    type State = Beginning;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Beginning> {
        let chain = prop_oneof![3 => Just(Vec::new()), 1 => nested_chain()];
        (proptest::bool::weighted(0.7), proptest::bool::weighted(0.3), chain)
            .prop_map(|(os_by_default, rejects, mut nested)| {
                // The schema is an operation, and its time is that of the creation which made it.
                nested.iter_mut().for_each(|nested| nested.tick = None);
                let creation = Crash { survives: Survives::Nothing, damage: None, nested };
                Beginning { os_by_default, rejects, creation }
            })
            .boxed()
    }

    fn transitions(_: &Beginning) -> BoxedStrategy<Transition> {
        let fail = (fault(12), crash(), any::<bool>())
            .prop_map(|(fault, crash, goes_on)| Transition::FailLater { fault, crash, goes_on });
        // Where events advance time, clocks count for nothing.
        let ticks = if EVENTS { 1 } else { 3 };
        // Sessions need time to get somewhere: less befalls them.
        let (of_sessions, ticks, disasters) =
            if SESSIONS { (60, 4 * ticks, 1) } else { (1, ticks, 3) };
        prop_oneof![
            16 => operation().prop_map(Transition::Operation),
            of_sessions => sessioning(signal())
                .prop_map(|sessioning| Transition::Operation(Operation::Session(sessioning))),
            3 => proptest::collection::vec(flying(), 2..5).prop_map(Transition::Flight),
            ticks => tick(SESSIONS).prop_map(Transition::Tick),
            if SESSIONS && !EVENTS { 4 } else { 1 } =>
                Just(Transition::Operation(Operation::ResetClock)),
            if SESSIONS { 6 } else { 2 } => (0..4usize).prop_map(Transition::Resume),
            if SESSIONS { 4 } else { 2 } => Just(Transition::Sweep),
            1 => Just(Transition::Flush),
            4 => Just(Transition::Checkpoint),
            1 => Just(Transition::Close),
            1 => Just(Transition::DropAndReopen),
            1 => Just(Transition::Check),
            disasters => (stop(20, 4), crash()).prop_map(|(stop, crash)| Transition::StopLater(stop, crash)),
            1 => fail,
            disasters => crash().prop_map(Transition::Crash),
        ]
        .boxed()
    }

    fn apply(state: Beginning, _: &Transition) -> Beginning {
        state
    }
}

impl<const EVENTS: bool, const SESSIONS: bool> StateMachineTest for Stories<EVENTS, SESSIONS> {
    type SystemUnderTest = World;
    type Reference = Self;

    fn init_test(beginning: &Beginning) -> World {
        let Beginning { os_by_default, rejects, creation } = beginning.clone();
        World::with_conflicts(Self::SOURCE, os_by_default, creation, rejects)
    }

    fn apply(mut world: World, _: &Beginning, transition: Transition) -> World {
        match transition {
            Transition::Operation(operation) => world.operation(operation),
            Transition::Flight(operations) => world.flight(operations),
            Transition::Tick(tick) => world.tick(tick),
            Transition::Resume(of) => world.resume(of),
            Transition::Sweep => world.sweep(),
            Transition::Flush => world.flush(),
            Transition::Checkpoint => world.checkpoint(),
            Transition::Close => world.close(),
            Transition::DropAndReopen => world.drop_and_reopen(),
            Transition::Check => world.check(),
            Transition::StopLater(stop, crash) => world.arm(stop, crash),
            Transition::FailLater { fault, crash, goes_on } => world.fail(fault, crash, goes_on),
            Transition::Crash(crash) => world.crash(crash),
        }
        world
    }

    fn teardown(world: World, _: Beginning) {
        let tally = world.finish();
        let mut all = TALLIES[Self::KIND].lock().expect("no tally panics");
        all.get_or_insert_default().add(&tally);
    }
}
