//! The state machine: which transitions there are, and how proptest draws, runs and shrinks them.
//!
//! Knows: proptest. Must not know: what must hold.

use std::sync::Mutex;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tidal_support::sim::{Fault, Survives};
use tidaldb::TimeSource;

use crate::crash::{Crash, Stop, crash, fault, nested_chain, stop};
use crate::operation::{Operation, flying, operation};
use crate::time::{Tick, tick};
use crate::world::{Tally, World};

/// How a story begins.
#[derive(Debug, Clone)]
pub(crate) struct Beginning {
    /// Whether operations that do not say are acknowledged before they are synced.
    os_by_default: bool,
    /// What interrupts the creation of the database.
    creation: Crash,
}

/// What happens next.
#[derive(Debug, Clone)]
pub(crate) enum Transition {
    Operation(Operation),
    Flight(Vec<Operation>),
    Tick(Tick),
    Flush,
    Checkpoint,
    Close,
    DropAndReopen,
    Check,
    StopLater(Stop, Crash),
    FailLater { fault: Fault, crash: Crash, goes_on: bool },
    Crash(Crash),
}

/// Stories in which events advance time, or the clock does.
pub(crate) struct Stories<const EVENTS: bool>;

/// What the stories of each kind have tried: proptest lets nothing out of a story but its failure.
static TALLIES: [Mutex<Option<Tally>>; 2] = [const { Mutex::new(None) }; 2];

impl<const EVENTS: bool> Stories<EVENTS> {
    const SOURCE: TimeSource = if EVENTS { TimeSource::Events } else { TimeSource::Clock };

    /// What all of them tried so far.
    pub(crate) fn tally() -> Tally {
        let tally = TALLIES[usize::from(EVENTS)].lock().expect("no tally panics");
        tally.clone().unwrap_or_default()
    }
}

impl<const EVENTS: bool> ReferenceStateMachine for Stories<EVENTS> {
    type State = Beginning;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Beginning> {
        let chain = prop_oneof![3 => Just(Vec::new()), 1 => nested_chain()];
        (proptest::bool::weighted(0.7), chain)
            .prop_map(|(os_by_default, mut nested)| {
                // The schema is an operation, and its time is that of the creation which made it.
                nested.iter_mut().for_each(|nested| nested.tick = None);
                let creation = Crash { survives: Survives::Nothing, damage: None, nested };
                Beginning { os_by_default, creation }
            })
            .boxed()
    }

    fn transitions(_: &Beginning) -> BoxedStrategy<Transition> {
        let fail = (fault(12), crash(), any::<bool>())
            .prop_map(|(fault, crash, goes_on)| Transition::FailLater { fault, crash, goes_on });
        // Where events advance time, clocks count for nothing.
        let ticks = if EVENTS { 1 } else { 3 };
        prop_oneof![
            12 => operation().prop_map(Transition::Operation),
            3 => proptest::collection::vec(flying(), 2..5).prop_map(Transition::Flight),
            ticks => tick().prop_map(Transition::Tick),
            1 => Just(Transition::Flush),
            4 => Just(Transition::Checkpoint),
            1 => Just(Transition::Close),
            1 => Just(Transition::DropAndReopen),
            1 => Just(Transition::Check),
            3 => (stop(20, 4), crash()).prop_map(|(stop, crash)| Transition::StopLater(stop, crash)),
            1 => fail,
            3 => crash().prop_map(Transition::Crash),
        ]
        .boxed()
    }

    fn apply(state: Beginning, _: &Transition) -> Beginning {
        state
    }
}

impl<const EVENTS: bool> StateMachineTest for Stories<EVENTS> {
    type SystemUnderTest = World;
    type Reference = Self;

    fn init_test(beginning: &Beginning) -> World {
        World::new(Self::SOURCE, beginning.os_by_default, beginning.creation.clone())
    }

    fn apply(mut world: World, _: &Beginning, transition: Transition) -> World {
        match transition {
            Transition::Operation(operation) => world.operation(operation),
            Transition::Flight(operations) => world.flight(operations),
            Transition::Tick(tick) => world.tick(tick),
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
        let mut all = TALLIES[usize::from(EVENTS)].lock().expect("no tally panics");
        all.get_or_insert_default().add(&tally);
    }
}
