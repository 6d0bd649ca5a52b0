//! A process that dies at every crash point, with the real disk and fjall beneath.
//!
//! A child runs a workload that reaches every point, and aborts when it has reached one of them for
//! the n-th time: nothing is flushed, nothing is dropped. The parent knows what the child was told is
//! safe, opens what it left, and holds it to the promise. A point that a workload does not reach is a
//! failure.
//!
//! `TIDAL_CASES=20` dies at so many reaches of each point (2 by default: the first and one more);
//! `TIDAL_SEED` chooses them.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidal_support::child::{self, Victim};
use tidal_support::contract::{Digests, assert_prefix};
use tidal_support::operations::{Kind, apply, builder, options, quiet_options, survived};
use tidal_support::random::Random;
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::storage::Machine;
use tidaldb::{Options, TidalDb};

/// The seed of a workload's operations, and how it goes about them.
#[derive(Debug, Clone, Copy)]
struct Workload {
    name: &'static str,
    operations_seed: u64,
    /// Checkpoints are written when the engine finds them due, not when the workload asks.
    is_automatic: bool,
    /// Operations between two pauses that are long enough for a mark.
    stretch: u64,
}

const WORKLOADS: [Workload; 3] = [
    Workload { name: "steady", operations_seed: 11, is_automatic: false, stretch: u64::MAX },
    Workload { name: "automatic", operations_seed: 22, is_automatic: true, stretch: u64::MAX },
    Workload { name: "halting", operations_seed: 33, is_automatic: false, stretch: 40 },
];

/// Operations of a workload, in four parts with an open before each.
const PARTS: [std::ops::Range<u64>; 4] = [0..150, 150..260, 260..300, 300..330];

impl Workload {
    fn options(self) -> Options {
        let mut options = if self.is_automatic { options() } else { quiet_options() };
        options.mark_after = Duration::from_millis(5);
        options
    }

    fn open(self, dir: &Path, faults: Faults) -> TidalDb {
        let machine = Machine { faults, ..Machine::default() };
        let builder = builder(self.options()).with_data_dir(dir).with_machine(machine);
        builder.open().expect("the database opens")
    }

    /// Creates a database and leads it past every crash point.
    fn run(self, dir: &Path, faults: &Faults) {
        for (part, range) in PARTS.into_iter().enumerate() {
            let db = self.open(dir, faults.clone());
            self.apply(&db, range.clone());
            match part {
                // Left without a checkpoint: the next open replays.
                0 => drop(db),
                // A store that does not open is moved aside and made anew.
                1 => {
                    db.close().expect("closes");
                    std::fs::remove_file(dir.join("store/a/version")).expect("it has a version");
                }
                2 => drop(db),
                _ => db.close().expect("closes"),
            }
        }
    }

    fn apply(self, db: &TidalDb, range: std::ops::Range<u64>) {
        let seed = self.operations_seed;
        let third = (range.end - range.start) / 3;
        for from in range.clone().step_by(usize::try_from(third).expect("few")) {
            let to = (from + third).min(range.end);
            let stretch = self.stretch.min(to - from);
            for from in (from..to).step_by(usize::try_from(stretch).expect("few")) {
                let told = &mut |i: u64| child::report(&i.to_string());
                apply(db, seed, from..(from + stretch).min(to), told);
                if stretch == self.stretch {
                    std::thread::sleep(Duration::from_millis(15));
                }
            }
            if self.is_automatic {
                std::thread::sleep(Duration::from_millis(60));
            } else {
                db.checkpoint().expect("a checkpoint");
            }
        }
    }
}

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let workload = *WORKLOADS.iter().find(|w| w.name == role).expect("a workload");
    let dir = PathBuf::from(child::told("TIDAL_DIR"));
    let point: u16 = child::told("TIDAL_POINT").parse().expect("a number");
    let left = AtomicU64::new(child::told("TIDAL_REACH").parse().expect("a number"));
    let counts = std::sync::Arc::new(Mutex::new(BTreeMap::<u16, u64>::new()));
    let counted = std::sync::Arc::clone(&counts);
    let faults = Faults::new(move |reached: CrashPoint| {
        *counted.lock().expect("nobody panics with it").entry(reached.number()).or_default() += 1;
        if reached.number() == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    });
    workload.run(&dir, &faults);
    for (number, count) in counts.lock().expect("as above").iter() {
        child::report(&format!("{number} reached {count}"));
    }
}

/// A child's end: what it was told is safe, and whether it died of its own hand.
struct End {
    acknowledged: u64,
    aborted: bool,
    reached: BTreeMap<u16, u64>,
}

fn run_child(workload: Workload, dir: &Path, point: u16, reach: u64) -> End {
    let says = [
        ("TIDAL_DIR", dir.display().to_string()),
        ("TIDAL_POINT", point.to_string()),
        ("TIDAL_REACH", reach.to_string()),
    ];
    let (reports, status) = Victim::spawn("child", workload.name, &says).finish();
    const SIGABRT: i32 = 6;
    let aborted = status.signal() == Some(SIGABRT);
    assert!(aborted || status.success(), "the child failed: {status}");
    let mut end = End { acknowledged: 0, aborted, reached: BTreeMap::new() };
    for report in reports {
        match report.split_once(" reached ") {
            Some((number, count)) => {
                let number = number.parse().expect("a number");
                end.reached.insert(number, count.parse().expect("a number"));
            }
            None => end.acknowledged = report.parse::<u64>().expect("an index") + 1,
        }
    }
    end
}

/// Opens what a child left, holds it to the promise, and goes on.
fn check(workload: Workload, dir: &Path, digests: &Digests, acknowledged: u64, what: &str) {
    let db = workload.open(dir, Faults::NONE);
    let there = assert_prefix(&db, digests, acknowledged, what);
    apply(&db, workload.operations_seed, there..there + 5, &mut |_| ());
    db.checkpoint().expect("a checkpoint");
    apply(&db, workload.operations_seed, there + 5..there + 10, &mut |_| ());
    db.health_check().expect("healthy");
    db.close().expect("closes");
    let db = workload.open(dir, Faults::NONE);
    assert_eq!(survived(&db), there + 10, "{what}");
    assert_prefix(&db, digests, there + 10, what);
}

fn die_everywhere(workload: Workload) {
    let seed = Random::seed_from("TIDAL_SEED");
    let cases: u64 = tidal_support::setting("TIDAL_CASES", 2);
    let end = PARTS[PARTS.len() - 1].end;
    Kind::assert_all(workload.operations_seed, 0..end);
    let mut digests = Digests::of(workload.operations_seed);
    digests.reach(end + 10);

    let dir = tempfile::tempdir().expect("a directory");
    let whole = run_child(workload, &dir.path().join("db"), 0, 0);
    let missed: Vec<_> = CrashPoint::OF_THE_ENGINE
        .iter()
        .filter(|p| !whole.reached.contains_key(&p.number()))
        .collect();
    assert!(missed.is_empty(), "{} never reaches {missed:?}", workload.name);
    check(workload, &dir.path().join("db"), &digests, whole.acknowledged, "nobody died");

    let mut random = Random::new(seed);
    let (mut deaths, mut late) = (0, 0);
    for &point in CrashPoint::OF_THE_ENGINE {
        for case in (0..cases).take_while(|_| !tidal_support::is_time_up()) {
            // The first time a point is reached is often unlike the others.
            let reaches = whole.reached[&point.number()];
            let reach = if case == 0 { 1 } else { 1 + random.below(reaches) };
            let dir = tempfile::tempdir().expect("a directory");
            let dir = dir.path().join("db");
            let end = run_child(workload, &dir, point.number(), reach);
            // Automatic checkpoints are as many as there was time for.
            if end.aborted {
                deaths += 1
            } else {
                late += 1
            }
            assert!(end.aborted || case > 0, "{point:?} was not reached");
            let what = format!("{}: died at reach {reach} of {point:?}", workload.name);
            check(workload, &dir, &digests, end.acknowledged, &what);
        }
    }
    println!(
        "{}: {deaths} deaths at {} points, {late} too late",
        workload.name,
        CrashPoint::OF_THE_ENGINE.len()
    );
    assert!(deaths > late, "too few died to prove anything");
}

#[test]
fn steady_work_survives_a_death_at_every_crash_point() {
    die_everywhere(WORKLOADS[0]);
}

#[test]
fn work_with_automatic_checkpoints_survives_a_death_at_every_crash_point() {
    die_everywhere(WORKLOADS[1]);
}

#[test]
fn halting_work_survives_a_death_at_every_crash_point() {
    die_everywhere(WORKLOADS[2]);
}

#[test]
fn numbers_of_crash_points_are_unique_and_ascend() {
    let numbers: Vec<u16> = CrashPoint::ALL.iter().map(|point| point.number()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}
