//! A bug at every crash point: the thread that reaches it panics.
//!
//! Knows: the public calls and the crash points. The engine must stop loudly: every call is answered,
//! nothing hangs, nothing more is acknowledged that is not safe, and the directory opens again to what
//! was. The machine is simulated; a panic in a caller's own code (a clock, a view) is the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tidal_support::contract::{Acknowledged, Digests, PLACE, assert_prefix, open_on, store_path};
use tidal_support::operations::{Kind, apply, builder, quiet_options, schema, survived, try_apply};
use tidal_support::sim::{SimDisk, SimStores, Survives};
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Clock, Error, ErrorKind, ManualClock, Options, Result, TidalDb};

const SEED: u64 = 11;

/// Long enough for the slowest machine, and far from for ever.
const PATIENCE: Duration = Duration::from_secs(60);

fn options() -> Options {
    let mut options = quiet_options();
    options.segment_size_bytes = 8 << 10;
    options
}

/// Runs `work` on a thread of its own, and fails if it does not return.
fn within_patience<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::Result<T> {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // Whoever waited for longer has failed the test already.
        let _ = done.send(());
        outcome
    });
    wait.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: it hangs"));
    thread.join().expect("its panics are caught")
}

/// Leads a database past every crash point, until something fails.
fn story(disk: &SimDisk, faults: &Faults, acknowledged: &mut Acknowledged) -> Result<()> {
    let run = |db: &TidalDb, range: std::ops::Range<u64>, acknowledged: &mut Acknowledged| {
        for from in range.clone().step_by(20) {
            let to = (from + 20).min(range.end);
            try_apply(db, SEED, from..to, &mut |i| acknowledged.add(SEED, i))?;
            db.checkpoint()?;
            acknowledged.sync();
        }
        Ok::<(), Error>(())
    };
    let db = open_on(disk, options(), faults.clone())?;
    let outcome = run(&db, 0..120, acknowledged);
    assert_stopped_or_well(&db, &outcome);
    outcome.and(db.close())?;
    SimStores::on(disk.clone()).break_down(&store_path("a"));
    let db = open_on(disk, options(), faults.clone())?;
    let outcome = run(&db, 120..160, acknowledged);
    assert_stopped_or_well(&db, &outcome);
    outcome.and(db.close())
}

/// A database in which something failed takes no writes, says why, and is read as before.
fn assert_stopped_or_well(db: &TidalDb, outcome: &Result<()>) {
    db.state_digest().expect("what is in memory is read");
    let Err(error) = outcome else { return };
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    // Whoever waited for the thread hears of its end first, the rest of the engine right after.
    for _ in 0..1_000 {
        if db.health_check().is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let again = db.hide_item(EntityId::new(1)).expect_err("it has stopped");
    assert!(matches!(again, Error::Stopped { .. }), "{again}");
    let health = db.health_check().expect_err("it has stopped");
    assert!(matches!(health, Error::Stopped { .. }), "{health}");
    let flushed = db.flush().expect_err("it has stopped");
    assert!(matches!(flushed, Error::Stopped { .. }), "{flushed}");
    db.checkpoint().expect_err("it has stopped");
}

#[test]
fn a_panic_at_any_crash_point_stops_the_engine_answers_everybody_and_loses_nothing() {
    Kind::assert_all(SEED, 0..160);
    let mut digests = Digests::of(SEED);
    digests.reach(170);
    for &point in CrashPoint::OF_THE_ENGINE {
        let disk = SimDisk::new();
        disk.make_dirs(Path::new("/"));
        let reached = Arc::new(AtomicBool::new(false));
        let once = Arc::clone(&reached);
        let faults = Faults::new(move |at| {
            if at == point && !once.swap(true, Ordering::SeqCst) {
                panic!("a bug at {point:?}");
            }
        });
        let on = disk.clone();
        let told = within_patience(&format!("{point:?}"), move || {
            let mut acknowledged = Acknowledged::default();
            let outcome = catch_unwind(AssertUnwindSafe(|| story(&on, &faults, &mut acknowledged)));
            (acknowledged, outcome.map_err(|_| "it panicked on the caller's thread"))
        });
        let (acknowledged, outcome) = told.expect("caught inside");
        assert!(reached.load(Ordering::SeqCst), "{point:?} was not reached");
        assert!(!matches!(outcome, Ok(Ok(()))), "{point:?}: nobody noticed");
        for survives in [Survives::Everything, Survives::Nothing, Survives::Some(9)] {
            let db = open_on(&disk.reboot(survives), options(), Faults::NONE).expect("opens");
            let what = format!("a panic at {point:?}, {survives:?}");
            let there = assert_prefix(&db, &digests, acknowledged.after(survives), &what);
            apply(&db, SEED, there..there + 5, &mut |_| ());
        }
    }
}

/// A clock that panics when it is told to.
#[derive(Debug)]
struct Treacherous {
    clock: ManualClock,
    is_broken: AtomicBool,
}

impl Clock for Treacherous {
    fn now(&self) -> Timestamp {
        assert!(!self.is_broken.load(Ordering::SeqCst), "a bug in the caller's clock");
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

#[test]
fn a_panic_in_the_callers_clock_stops_the_engine_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(Timestamp::from_secs(1_700_000_000));
    let clock = Arc::new(Treacherous { clock, is_broken: AtomicBool::new(false) });
    let open = |clock: Arc<Treacherous>| {
        let builder = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema());
        builder.with_clock(clock).open().expect("opens")
    };
    let db = open(Arc::clone(&clock));
    db.hide_item(EntityId::new(1)).expect("acknowledged");
    let digest = db.state_digest().expect("a digest");
    clock.is_broken.store(true, Ordering::SeqCst);
    let db = within_patience("a clock that panics", move || {
        let error = db.hide_item(EntityId::new(2)).expect_err("the clock is broken");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        db
    });
    let db = db.unwrap_or_else(|_| panic!("the panic came through"));
    assert_eq!(db.state_digest().expect("a digest"), digest, "nothing is half done");
    drop(db);
    clock.is_broken.store(false, Ordering::SeqCst);
    let db = open(clock);
    assert_eq!(db.state_digest().expect("a digest"), digest);
    db.hide_item(EntityId::new(2)).expect("writes go on");
}

#[test]
fn a_panic_in_a_view_is_the_callers_and_blocks_nobody() {
    let db = builder(options()).ephemeral().open().expect("opens");
    apply(&db, SEED, 0..20, &mut |_| ());
    let digest = db.state_digest().expect("a digest");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        db.consistent(|_| -> Result<()> { panic!("a bug in the caller's view") })
    }));
    assert!(panicked.is_err(), "the caller hears of its own panic");
    assert_eq!(db.state_digest().expect("a digest"), digest);
    let db = within_patience("a write after it", move || {
        apply(&db, SEED, 20..40, &mut |_| ());
        db
    });
    assert_eq!(survived(&db.expect("nothing panics")), 40);
}

#[test]
fn two_stores_that_are_lost_at_once_are_made_good_by_a_log_that_has_everything() {
    for (options, is_whole) in [(quiet_options(), true), (options(), false)] {
        let disk = SimDisk::new();
        disk.make_dirs(Path::new("/"));
        let db = open_on(&disk, options.clone(), Faults::NONE).expect("opens");
        apply(&db, SEED, 0..20, &mut |_| ());
        db.checkpoint().expect("the first");
        db.checkpoint().expect("the second");
        drop(db);
        let stores = SimStores::on(disk.clone());
        for name in ["a", "b"] {
            assert!(stores.break_down(&store_path(name)), "{PLACE} has a store {name}");
        }
        let opened = open_on(&disk, options, Faults::NONE);
        if !is_whole {
            // Segments were removed by the leave of two checkpoints that are both lost now.
            let error = opened.map(drop).expect_err("frames are missing");
            assert!(matches!(error, Error::LogGap { .. }), "{error}");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            continue;
        }
        let db = opened.expect("the log has everything");
        let mut digests = Digests::of(SEED);
        digests.reach(40);
        assert_prefix(&db, &digests, 20, "both stores are lost, the log is whole");
        apply(&db, SEED, 20..40, &mut |_| ());
        db.checkpoint().expect("into a new store");
        db.checkpoint().expect("into the other");
        db.health_check().expect("healthy");
        assert_prefix(&db, &digests, 40, "with new stores");
    }
}
