//! Long histories: hundreds of operations with rolls, checkpoints and truncations that never cease,
//! and power cuts at random operations of the machine.
//!
//! Knows: seeds. The threads of the engine run as they like, so a seed repeats the operations and the
//! faults, not the instants.

use std::path::Path;
use std::time::Duration;

use tidal_support::contract::{Acknowledged, Digests, any_survival, assert_prefix, open_on};
use tidal_support::operations::{options, survived, try_apply};
use tidal_support::random::Random;
use tidal_support::sim::{SimDisk, Survives};
use tidaldb::fault::Faults;
use tidaldb::{Options, Result, TidalDb};

use crate::crash::{Damage, Harm};

/// Recoveries of each round that are interrupted.
const NESTED: usize = 5;
/// Operations that a round begins at most.
const OPERATIONS_MAX: u64 = 300;

/// Checkpoints at such intervals that a machine which lives for milliseconds writes some.
fn restless() -> Options {
    let mut options = options();
    (options.checkpoint_log_bytes, options.checkpoint_interval) =
        (16 << 10, Duration::from_millis(4));
    options
}

fn open(disk: &SimDisk) -> Result<TidalDb> {
    open_on(disk, restless(), Faults::NONE)
}

struct History {
    seed: u64,
    random: Random,
    digests: Digests,
    disk: SimDisk,
    acknowledged: Acknowledged,
    begun: u64,
    checkpoints: u64,
    /// The epochs at which stores were found after they had been damaged, until they get past them.
    suspect: [Option<u64>; 2],
    /// The stores that held a checkpoint when the machine stopped. One whose open power cuts ended
    /// twice was replaced, and holds none for a while: it cannot stand in for the other.
    held: [bool; 2],
    damages: u64,
}

impl History {
    /// Operations until the machine stops, or enough of them.
    fn write(&mut self) {
        let db = open(&self.disk).expect("it was whole a moment ago");
        let first = survived(&db);
        let before = epochs(&db);
        for (slot, suspect) in self.suspect.iter_mut().enumerate() {
            *suspect = suspect.map(|_| before[slot]);
        }
        let limit = first + 1 + self.random.below(OPERATIONS_MAX);
        self.disk.stop_after(self.random.below(2_000) as usize);
        let (seed, acknowledged) = (self.seed, &mut self.acknowledged);
        // An operation that fails was begun, and so may be those in flight with it.
        let mut last = first;
        let written = try_apply(&db, seed, first..limit, &mut |i| {
            last = i + 1;
            acknowledged.add(seed, i);
        });
        self.begun = if written.is_ok() { limit } else { limit.min(last + 8) };
        self.checkpoints +=
            db.status().stores.iter().filter(|store| store.epoch > 0).count() as u64;
        self.held = epochs(&db).map(|epoch| epoch > 0);
        self.disk.stop();
    }

    /// A reboot, recoveries that are interrupted, and one that is not.
    fn recover(&mut self, round: u64) {
        self.digests.reach(self.begun);
        let survives = any_survival(&mut self.random);
        let mut least = self.acknowledged.after(survives);
        let mut what = format!("seed {}, round {round}, {survives:?}", self.seed);
        self.disk = self.disk.reboot(survives);
        let (slot, seed) = (self.random.below(2) as usize, self.random.next_u64());
        // The other store must be good for both.
        if self.suspect[1 - slot].is_none() && self.held[1 - slot] && self.random.one_in(2) {
            let harm = match self.random.below(6) {
                0 => Harm::Empty,
                1 => Harm::Flip(seed),
                2 => Harm::BreakDown,
                _ => Harm::RollBack(1 + (seed % 60) as usize),
            };
            self.damages += u64::from(Damage { slot, harm }.inflict(&self.disk));
            self.suspect[slot] = Some(u64::MAX);
            what += &format!(", store {slot} {harm:?}");
        }
        for _ in 0..NESTED {
            let (after, survives) = (self.random.below(60), any_survival(&mut self.random));
            what += &format!(", then after {after} {survives:?}");
            self.disk.stop_after(after as usize);
            let served = open(&self.disk).ok().map(|db| survived(&db));
            self.disk.stop();
            self.disk = self.disk.reboot(survives);
            if survives != Survives::Everything {
                least = least.min(self.acknowledged.synced);
            }
            least = least.max(served.unwrap_or(0));
        }
        let db = open(&self.disk);
        let db = db.unwrap_or_else(|error| panic!("{what}: {error}"));
        let there = assert_prefix(&db, &self.digests, least, &what);
        self.acknowledged = Acknowledged { written: there, synced: there };
    }
}

fn epochs(db: &TidalDb) -> [u64; 2] {
    let stores = db.status().stores;
    [stores[0].epoch, stores[1].epoch]
}

fn rounds_max() -> u64 {
    tidal_support::setting("TIDAL_ROUNDS", 40)
}

#[test]
fn a_long_history_of_power_cuts_and_interrupted_recoveries_loses_nothing() {
    let seed = Random::seed_from("TIDAL_SEED");
    let disk = SimDisk::new();
    disk.make_dirs(Path::new("/"));
    let mut history = History {
        seed,
        random: Random::new(seed),
        digests: Digests::of(seed),
        disk,
        acknowledged: Acknowledged::default(),
        begun: 0,
        checkpoints: 0,
        suspect: [None; 2],
        held: [false; 2],
        damages: 0,
    };
    let mut rounds = 0;
    while rounds < rounds_max() && !tidal_support::is_time_up() {
        history.write();
        history.recover(rounds);
        rounds += 1;
    }
    let History { acknowledged, checkpoints, damages, .. } = &history;
    println!(
        "{rounds} rounds, {} operations, {checkpoints} checkpoints, {damages} damages",
        acknowledged.written
    );
    assert!(history.acknowledged.written > rounds * 10, "too few operations to prove anything");
    assert!(history.checkpoints > rounds / 2, "too few checkpoints to prove anything");
}
