//! Every small history, crashed at every step.
//!
//! A history is a few operations, checkpoints, reopens and closes on the simulated machine, with the
//! engine's real code. The machine keeps an image before each of its operations; from each image it
//! reboots with everything that was not synced, nothing of it, and subsets. What opens must be a prefix
//! with all that was acknowledged. Then the same from each image of that recovery: two crashes. Then
//! one damage to one store beside the crash. Equal disks are tried once.
//!
//! Histories begin with no database, and, shorter ones, with a database that has every surface and is
//! about to get an operation of each kind.
//!
//! `TIDAL_STEPS=4` explores longer histories (3 by default), `TIDAL_OPERATIONS=4` more operations
//! between three checkpoints (2 by default); `TIDAL_SEED` chooses other operations.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidal_support::contract::{
    Acknowledged, Digests, any_survival, assert_prefix, open_on, store_path,
};
use tidal_support::operations::{Kind, apply, quiet_options, try_apply};
use tidal_support::random::Random;
use tidal_support::sim::{Fault, Image, Op, SimDisk, SimStores, Survives};
use tidaldb::fault::Faults;
use tidaldb::{Options, Result, TidalDb};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The next operation of the seed.
    Operation,
    Checkpoint,
    /// Drops the database, and opens it again.
    Reopen,
    Close,
}

const STEPS: [Step; 4] = [Step::Operation, Step::Checkpoint, Step::Reopen, Step::Close];

/// Nothing happens by itself, so that a history is the same each time; segments are so small that an
/// operation or two fill one.
fn options() -> Options {
    let mut options = quiet_options();
    options.segment_size_bytes = 2 << 10;
    options.mark_after = Duration::from_secs(86_400);
    options
}

fn open(disk: &SimDisk) -> Result<TidalDb> {
    open_on(disk, options(), Faults::NONE)
}

fn steps_max() -> usize {
    tidal_support::setting("TIDAL_STEPS", 3)
}

/// All histories of `len` steps.
fn histories(len: usize) -> Vec<Vec<Step>> {
    let mut all = vec![Vec::new()];
    for _ in 0..len {
        let longer = |history: &Vec<Step>| STEPS.map(|step| [&history[..], &[step]].concat());
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// Every history of so many operations and so many checkpoints at most.
fn epochs(operations: usize, checkpoints: usize) -> Vec<Vec<Step>> {
    let mut all = vec![Vec::new()];
    let mut longest = all.clone();
    for _ in 0..operations + checkpoints {
        let longer = |history: &Vec<Step>| {
            [Step::Operation, Step::Checkpoint].map(|step| [&history[..], &[step]].concat())
        };
        let fits = |history: &Vec<Step>| {
            let done = history.iter().filter(|step| **step == Step::Operation).count();
            done <= operations && history.len() - done <= checkpoints
        };
        longest = longest.iter().flat_map(longer).filter(fits).collect();
        all.extend_from_slice(&longest);
    }
    all
}

/// What is there before a history.
struct Start {
    /// The next operation.
    at: u64,
    disk: Option<SimDisk>,
    name: String,
}

/// Operations that a database with every surface has.
const AGE: u64 = 24;

impl Start {
    const fn nothing() -> Self {
        Self { at: 0, disk: None, name: String::new() }
    }

    /// Databases of which each is about to get an operation of another kind. The newest checkpoint
    /// lacks their last operations, and they were not closed.
    fn of_each_kind(seed: u64) -> Vec<Self> {
        let about_to = |kind: Kind| {
            let is_next = |i: &u64| Kind::of(seed, *i) == kind;
            let at = (AGE..).find(is_next).expect("there is one of each kind");
            let disk = empty_disk();
            let db = open(&disk).expect("a new database");
            apply(&db, seed, 0..at / 2, &mut |_| ());
            db.checkpoint().expect("a checkpoint");
            apply(&db, seed, at / 2..at - 2, &mut |_| ());
            db.checkpoint().expect("a checkpoint");
            apply(&db, seed, at - 2..at, &mut |_| ());
            drop(db);
            Self { at, disk: Some(disk), name: format!("after {at}, before {kind:?}, ") }
        };
        Kind::ALL.map(about_to).into()
    }

    /// A disk of its own.
    fn disk(&self) -> SimDisk {
        self.disk.as_ref().map_or_else(empty_disk, |disk| disk.reboot(Survives::Everything))
    }
}

fn empty_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.make_dirs(Path::new("/"));
    disk
}

struct Story {
    disk: SimDisk,
    db: Option<TidalDb>,
    seed: u64,
    begun: u64,
    acknowledged: Acknowledged,
}

impl Story {
    /// What there is at a start, with no database open; a rebooted disk has lost all that was not
    /// synced.
    fn at(start: &Start, seed: u64) -> Self {
        let acknowledged = Acknowledged { written: start.at, synced: start.at };
        let disk = start.disk();
        disk.note(acknowledged.to_note());
        Self { disk, db: None, seed, begun: start.at, acknowledged }
    }

    fn open(&mut self) -> Result<()> {
        self.db = Some(open(&self.disk)?);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<()> {
        let db = self.db.as_ref().expect("it is open between steps");
        match step {
            Step::Operation => {
                let (i, seed) = (self.begun, self.seed);
                self.begun += 1;
                let acknowledged = &mut self.acknowledged;
                try_apply(db, seed, i..i + 1, &mut |i| acknowledged.add(seed, i))?;
            }
            Step::Checkpoint => {
                db.checkpoint()?;
                self.acknowledged.sync();
            }
            Step::Reopen => {
                self.db = None;
                self.open()?;
                self.acknowledged.sync();
            }
            Step::Close => {
                self.db.take().expect("as above").close()?;
                self.acknowledged.sync();
                self.disk.note(self.acknowledged.to_note());
                self.open()?;
            }
        }
        self.disk.note(self.acknowledged.to_note());
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Tally {
    opens: AtomicUsize,
    images: AtomicUsize,
    rolls: AtomicUsize,
    again: AtomicUsize,
}

/// Disks that were tried, with what they had to hold.
type Tried = HashSet<(u64, u64)>;

struct Explorer<'a> {
    digests: &'a Digests,
    tally: &'a Tally,
    tried: Tried,
    random: Random,
    what: String,
}

impl Explorer<'_> {
    /// Every way in which the machine may come back from an image.
    fn reboots(&mut self, image: &Image) -> Vec<(SimDisk, Survives, String)> {
        let some = Survives::Some(self.random.next_u64());
        let other = Survives::Some(self.random.next_u64());
        let mut all = Vec::new();
        for survives in [Survives::Everything, Survives::Nothing, some, other] {
            let what = format!("{} before {:?}, {survives:?}", self.what, image.op);
            all.push((image.reboot(survives), survives, what.clone()));
            let torn = image.reboot_torn(self.random.next_u64(), survives);
            all.extend(torn.map(|disk| (disk, survives, format!("{what}, torn"))));
        }
        all
    }

    /// Opens a disk, unless one like it was tried; the images of the recovery, and what is there.
    fn recover(&mut self, disk: &SimDisk, least: u64, what: &str) -> Option<(Vec<Image>, u64)> {
        if !self.tried.insert((disk.fingerprint(), least)) {
            self.tally.again.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        disk.record();
        let db = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        self.tally.opens.fetch_add(1, Ordering::Relaxed);
        let images = disk.images();
        let there = assert_prefix(&db, self.digests, least, what);
        Some((images, there))
    }

    fn crash_at(&mut self, image: &Image, twice: bool) {
        self.tally.images.fetch_add(1, Ordering::Relaxed);
        let acknowledged = Acknowledged::from_note(image.note);
        for (disk, survives, what) in self.reboots(image) {
            let least = acknowledged.after(survives);
            let Some((images, there)) = self.recover(&disk, least, &what) else { continue };
            if !twice {
                continue;
            }
            for image in &images {
                for survives in [Survives::Everything, Survives::Nothing, Survives::Some(7)] {
                    let disk = image.reboot(survives);
                    let what = format!("{what}, then before {:?}, {survives:?}", image.op);
                    // What was read back and is not on the disk may go with a power cut.
                    let kept = survives == Survives::Everything;
                    let least = if kept { there } else { acknowledged.synced };
                    self.recover(&disk, least, &what);
                }
            }
        }
    }
}

/// Histories with what is there before each.
type Scope<'a> = Vec<(&'a Start, Vec<Step>)>;

fn scope<'a>(starts: &'a [Start], histories: &[Vec<Step>]) -> Scope<'a> {
    let with = |start| histories.iter().map(move |history| (start, history.clone()));
    starts.iter().flat_map(with).collect()
}

fn up_to(len_max: usize) -> Vec<Vec<Step>> {
    (0..=len_max).flat_map(histories).collect()
}

/// Runs `explore` over histories, on two threads.
fn over(
    scope: Scope<'_>,
    seed: u64,
    explore: impl Fn(&Start, &[Step], &mut Explorer<'_>) + Sync,
) -> Tally {
    let mut digests = Digests::of(seed);
    let last = scope.iter().map(|(start, history)| start.at + history.len() as u64).max();
    digests.reach(last.expect("there are some"));
    let tally = Tally::default();
    let histories = scope.len();
    let todo = Mutex::new(scope.into_iter());
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (digests, tally, todo, explore) = (&digests, &tally, &todo, &explore);
            scope.spawn(move || {
                let mut explorer = Explorer {
                    digests,
                    tally,
                    tried: Tried::new(),
                    random: Random::new(seed ^ thread),
                    what: String::new(),
                };
                loop {
                    let next = todo.lock().expect("nobody panics with it").next();
                    let Some((start, history)) = next else { break };
                    if tidal_support::is_time_up() {
                        break;
                    }
                    explorer.tried.clear();
                    explorer.what = format!("seed {seed}, {}{history:?}", start.name);
                    explore(start, &history, &mut explorer);
                }
            });
        }
    });
    println!("{histories} histories: {tally:?}");
    tally
}

/// The images of the last step of a history, or of the open before it: those of the steps before are
/// the last ones of shorter histories.
fn last_images(start: &Start, history: &[Step], seed: u64) -> Vec<Image> {
    let mut story = Story::at(start, seed);
    let Some((last, before)) = history.split_last() else {
        story.disk.record();
        story.open().expect("it opens");
        story.db = None;
        return story.disk.images();
    };
    story.open().expect("it opens");
    before.iter().for_each(|&step| story.step(step).expect("nothing fails"));
    story.disk.record();
    story.step(*last).expect("nothing fails");
    story.db = None;
    story.disk.images()
}

/// Crashes each history of a scope at each image of its last step, and some twice.
fn crash_everywhere(
    scope: Scope<'_>,
    seed: u64,
    is_twice: impl Fn(&Start, &[Step]) -> bool + Sync,
) -> Tally {
    over(scope, seed, |start, history, explorer| {
        let images = last_images(start, history, seed);
        if history.last() == Some(&Step::Operation) {
            // Nothing but a roll makes a file then.
            let rolls = images.iter().filter(|image| image.op == Op::Create).count();
            explorer.tally.rolls.fetch_add(rolls, Ordering::Relaxed);
        }
        for image in images {
            explorer.crash_at(&image, is_twice(start, history));
        }
    })
}

#[test]
fn every_small_history_survives_a_crash_at_every_step_and_another_in_the_recovery() {
    let seed = Random::seed_from("TIDAL_SEED");
    let nothing = [Start::nothing()];
    let scope = scope(&nothing, &up_to(steps_max()));
    let tally = crash_everywhere(scope, seed, |_, history| history.len() < steps_max());
    assert!(tally.rolls.into_inner() > 0, "the log was never rolled");
    assert!(tally.opens.into_inner() > 1_000, "too little was explored to prove anything");
}

#[test]
fn every_kind_of_operation_survives_a_crash_at_every_step_and_another_in_the_recovery() {
    let seed = Random::seed_from("TIDAL_SEED");
    let starts = Start::of_each_kind(seed);
    let steps_max = steps_max() - 1;
    let scope = scope(&starts, &up_to(steps_max));
    let is_twice = |_: &Start, history: &[Step]| {
        history.last() == Some(&Step::Operation) && history.len() < steps_max
    };
    let tally = crash_everywhere(scope, seed, is_twice);
    assert!(tally.rolls.into_inner() > 0, "the log was never rolled");
    assert!(tally.opens.into_inner() > 1_000, "too little was explored to prove anything");
}

#[test]
fn operations_in_each_of_three_epochs_survive_a_crash_at_every_step_and_another_in_the_recovery() {
    let seed = Random::seed_from("TIDAL_SEED");
    let operations = tidal_support::setting("TIDAL_OPERATIONS", 2);
    let nothing = [Start::nothing()];
    let tally = crash_everywhere(scope(&nothing, &epochs(operations, 3)), seed, |_, _| true);
    assert!(tally.opens.into_inner() > 1_000, "too little was explored to prove anything");
}

/// Damages the first store, to which there is another; a number says where. False when it cannot.
type Damage = fn(&SimStores, &Path, &Path, u64) -> bool;

/// Damages of one store that the other one and the log must make good.
const DAMAGES: [(&str, Damage); 7] = [
    ("rolled back by one sync", |stores, store, _, _| stores.roll_back(store, 1)),
    ("rolled back by five syncs", |stores, store, _, _| stores.roll_back(store, 5)),
    ("emptied", |stores, store, _, _| stores.empty(store)),
    ("broken", |stores, store, _, _| stores.break_down(store)),
    ("flipped in one bit", |stores, store, _, at| stores.flip(store, at)),
    ("replaced by a copy of the other", |stores, store, other, _| stores.copy(other, store)),
    ("swapped with the other", |stores, store, other, _| stores.swap(store, other)),
];

#[test]
fn a_crash_at_every_step_and_one_damaged_store_lose_nothing() {
    let seed = Random::seed_from("TIDAL_SEED");
    let damaged = AtomicUsize::new(0);
    let (nothing, of_each_kind) = ([Start::nothing()], Start::of_each_kind(seed));
    let mut all = scope(&nothing, &up_to(steps_max()));
    all.extend(scope(&of_each_kind, &up_to(1)));
    over(all, seed, |start, history, explorer| {
        for image in last_images(start, history, seed) {
            let acknowledged = Acknowledged::from_note(image.note);
            let survives = any_survival(&mut explorer.random);
            for (name, damage) in DAMAGES {
                let mut slots = ["a", "b"].map(store_path);
                if explorer.random.one_in(2) {
                    slots.reverse();
                }
                let disk = image.reboot(survives);
                let stores = SimStores::on(disk.clone());
                let at = explorer.random.next_u64();
                if damage(&stores, &slots[0], &slots[1], at) {
                    damaged.fetch_add(1, Ordering::Relaxed);
                    let what = format!(
                        "{}, before {:?}, {survives:?}, {} was {name} ({at})",
                        explorer.what,
                        image.op,
                        slots[0].display()
                    );
                    explorer.recover(&disk, acknowledged.after(survives), &what);
                }
            }
        }
    });
    println!("{damaged:?} damages");
    assert!(damaged.into_inner() > 300, "too little was damaged to prove anything");
}

/// Ways in which an operation of the machine fails.
fn faults(after: usize) -> [Fault; 6] {
    let fault = |kind, for_good, is_short| Fault { after, of: None, kind, for_good, is_short };
    [
        fault(ErrorKind::Other, false, false),
        fault(ErrorKind::Other, true, false),
        fault(ErrorKind::Other, false, true),
        fault(ErrorKind::StorageFull, false, false),
        fault(ErrorKind::StorageFull, true, false),
        fault(ErrorKind::StorageFull, true, true),
    ]
}

/// A history in which one operation of the machine fails; how far it came.
fn story_with(fault: Fault, start: &Start, history: &[Step], seed: u64) -> Option<Story> {
    let mut story = Story::at(start, seed);
    story.disk.fail(fault);
    let mut outcome = story.open();
    for &step in history {
        outcome = outcome.and_then(|()| story.step(step));
    }
    if let (Err(error), Some(db)) = (&outcome, &story.db) {
        assert!(!error.to_string().is_empty());
        // Reads go on, whatever has failed.
        db.state_digest().expect("what is in memory is read");
    }
    story.db = None;
    let has_failed = outcome.is_err() || story.disk.has_failed();
    has_failed.then_some(story)
}

#[test]
fn an_operation_of_the_disk_that_fails_in_any_way_costs_nothing_that_was_acknowledged() {
    let seed = Random::seed_from("TIDAL_SEED");
    let stories = AtomicUsize::new(0);
    let (nothing, of_each_kind) = ([Start::nothing()], Start::of_each_kind(seed));
    let mut all = scope(&nothing, &up_to(steps_max().min(2)));
    all.extend(scope(&of_each_kind, &[vec![Step::Operation, Step::Checkpoint]]));
    over(all, seed, |start, history, explorer| {
        for after in 0.. {
            let mut has_failed = false;
            for fault in faults(after) {
                let Some(story) = story_with(fault, start, history, seed) else { continue };
                has_failed = true;
                stories.fetch_add(1, Ordering::Relaxed);
                for survives in [Survives::Everything, Survives::Nothing, Survives::Some(3)] {
                    let what = format!("{}, {fault:?}, {survives:?}", explorer.what);
                    let disk = story.disk.reboot(survives);
                    explorer.recover(&disk, story.acknowledged.after(survives), &what);
                }
            }
            if !has_failed {
                break;
            }
        }
    });
    println!("{stories:?} stories");
    assert!(stories.into_inner() > 1_000, "too little failed to prove anything");
}
