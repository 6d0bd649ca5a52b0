//! Ways to crash: what survives, what is damaged, what fails in the recoveries that follow.
//!
//! Knows: the simulated machine. Must not know: operations.

use std::io::ErrorKind;
use std::path::PathBuf;

use proptest::prelude::*;
use tidal_support::contract::store_path;
use tidal_support::sim::{Fault, Op, SimDisk, SimStores, Survives};
use tidaldb::fault::CrashPoint;

use crate::time::{Tick, tick};

/// When the machine stops.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// In the middle of the operation that comes after so many of the machine's.
    After(usize),
    /// When the engine reaches a point, after it was there so many times.
    At(CrashPoint, u32),
}

/// A recovery that does not come to its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nested {
    pub(crate) breaks: Breaks,
    pub(crate) survives: Survives,
    /// What happens to the clock before it.
    pub(crate) tick: Option<Tick>,
}

/// How a recovery is interrupted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Breaks {
    Stops(Stop),
    Fails(Fault),
}

/// Damage to one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    RollBack(usize),
    Empty,
    BreakDown,
    Flip(u64),
    /// A copy of the other one lies in its place.
    Copy,
    /// Both have changed places.
    Swap,
}

/// Damage, and to which store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Damage {
    pub(crate) slot: usize,
    pub(crate) harm: Harm,
}

impl Damage {
    /// Does it; false where there is nothing to damage, or nothing so old to roll back to: then the
    /// store is empty.
    pub(crate) fn inflict(self, disk: &SimDisk) -> bool {
        let stores = SimStores::on(disk.clone());
        let [store, other]: [PathBuf; 2] =
            [self.slot, 1 - self.slot].map(|slot| store_path(["a", "b"][slot]));
        match self.harm {
            Harm::RollBack(syncs) => stores.roll_back(&store, syncs),
            Harm::Empty => stores.empty(&store),
            Harm::BreakDown => stores.break_down(&store),
            Harm::Flip(bit) => stores.flip(&store, bit),
            Harm::Copy => stores.copy(&other, &store),
            Harm::Swap => stores.swap(&store, &other),
        }
    }
}

/// A crash, and what follows until a database is open again.
#[derive(Debug, Clone)]
pub(crate) struct Crash {
    pub(crate) survives: Survives,
    pub(crate) damage: Option<Damage>,
    pub(crate) nested: Vec<Nested>,
}

/// What a reboot may find.
pub(crate) fn survives() -> impl Strategy<Value = Survives> {
    prop_oneof![
        2 => Just(Survives::Everything),
        2 => Just(Survives::Nothing),
        3 => any::<u16>().prop_map(|seed| Survives::Some(seed.into())),
    ]
}

/// When a machine may stop.
pub(crate) fn stop(after_max: usize, times_max: u32) -> impl Strategy<Value = Stop> {
    let at = (proptest::sample::select(CrashPoint::OF_THE_ENGINE), 0..times_max);
    prop_oneof![
        1 => (0..after_max).prop_map(Stop::After),
        1 => at.prop_map(|(point, times)| Stop::At(point, times)),
    ]
}

/// How an operation of the machine may fail.
pub(crate) fn fault(after_max: usize) -> impl Strategy<Value = Fault> {
    let of = prop_oneof![
        3 => Just(None),
        1 => proptest::sample::select(vec![
            Op::Write, Op::Sync, Op::Create, Op::Rename, Op::SyncDir, Op::StoreWrite, Op::StoreSync,
        ]).prop_map(Some),
    ];
    let kind = prop_oneof![Just(ErrorKind::Other), Just(ErrorKind::StorageFull)];
    (0..after_max, of, kind, any::<bool>(), any::<bool>()).prop_map(
        |(after, of, kind, for_good, is_short)| Fault { after, of, kind, for_good, is_short },
    )
}

fn nested() -> impl Strategy<Value = Nested> {
    let breaks = prop_oneof![
        8 => stop(60, 2).prop_map(Breaks::Stops),
        1 => fault(30).prop_map(Breaks::Fails),
    ];
    (breaks, survives(), proptest::option::weighted(0.3, tick(false)))
        .prop_map(|(breaks, survives, tick)| Nested { breaks, survives, tick })
}

/// Recoveries that do not come to their end.
pub(crate) fn nested_chain() -> impl Strategy<Value = Vec<Nested>> {
    prop_oneof![
        3 => Just(Vec::new()),
        2 => proptest::collection::vec(nested(), 1..3),
        1 => proptest::collection::vec(nested(), 5..7),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    let harm = prop_oneof![
        (1..12usize).prop_map(Harm::RollBack),
        Just(Harm::Empty),
        Just(Harm::BreakDown),
        any::<u32>().prop_map(|bit| Harm::Flip(bit.into())),
        Just(Harm::Copy),
        Just(Harm::Swap),
    ];
    (0..2usize, harm).prop_map(|(slot, harm)| Damage { slot, harm })
}

/// Any crash.
pub(crate) fn crash() -> impl Strategy<Value = Crash> {
    (survives(), proptest::option::weighted(0.3, damage()), nested_chain())
        .prop_map(|(survives, damage, nested)| Crash { survives, damage, nested })
}
