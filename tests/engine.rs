//! The engine from outside: what is written is there, before and after reopening.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidal_support::contract::{Digests, PLACE, assert_prefix, open_on, store_path};
use tidal_support::files;
use tidal_support::operations::{apply, builder, quiet_options, survived, try_apply};
use tidal_support::sim::{Fault, Op, SimDisk, SimStores, Survives};
use tidaldb::builtin::Usage;
use tidaldb::fault::Faults;
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, Timestamp, Window,
};
use tidaldb::storage::Disk;
use tidaldb::{
    Batch, Durability, Error, Event, ManualClock, Options, ProcessorOptions, Ranked, ReadOptions,
    TidalDb,
};

const ALL: [Window; 4] =
    [Window::OneHour, Window::TwentyFourHours, Window::SevenDays, Window::ThirtyDays];

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let half_life = Duration::from_secs(86_400);
    for name in ["view", "purchase"] {
        let _ = b
            .signal(name, EntityKind::Item, DecaySpec::Exponential { half_life })
            .half_lives(&[Duration::from_secs(1_800)])
            .windows(&ALL)
            .velocity(true)
            .add();
    }
    b.cohort("us-18-24", Predicate::eq("country", "US").and(Predicate::range("age", 18.0..25.0)));
    b.cohort_family("country", 100);
    b.named_cohort("editors-picks");
    b.build().expect("a sound schema")
}

fn item(n: u64) -> EntityId {
    EntityId::new(n)
}

fn pairs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn state_is_bit_identical_after_close_and_after_a_drop() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        TidalDb::builder().with_data_dir(dir.path()).with_schema(schema()).open().expect("opens")
    };
    let db = open();
    db.write_user(1, &pairs(&[("country", "US"), ("age", "20")])).expect("written");
    db.write_item(item(3), &pairs(&[("title", "three")])).expect("written");
    let now = Timestamp::now();
    for round in 0..50u64 {
        let mut batch = Batch::from_source("log", round * 10, round * 10 + 9);
        for i in 0..10 {
            let at = now.saturating_sub(Duration::from_secs(i * 777 * round));
            batch.push(Event::new("view", item(i * round % 13), at).user(1).weight(1.5));
        }
        db.write(batch).expect("written");
    }
    db.hide_item(item(0)).expect("written");
    let ids = db.intern(&["a", "b", "a"]).expect("interned");
    assert_eq!(ids[0], ids[2]);
    let digest = db.state_digest().expect("digest");
    let hot = db.hot("view", 5, &ReadOptions::new().cohort("us-18-24")).expect("hot");
    assert_eq!(hot.len(), 5);
    drop(db);

    let db = open();
    println!("{}", db.open_report());
    assert_eq!(db.state_digest().expect("digest"), digest, "after a drop");
    assert!(db.verify().expect("verified").is_sound());
    db.close().expect("closes");

    let db = open();
    println!("{}", db.open_report());
    assert_eq!(db.state_digest().expect("digest"), digest, "after a close");
    assert_eq!(db.source_offset("log"), Some(499));
    assert_eq!(db.get_item_metadata(item(3)).expect("read"), Some(pairs(&[("title", "three")])));
    db.checkpoint().expect("checkpoint");
    db.checkpoint().expect("checkpoint");
    let report = db.verify().expect("verified");
    assert!(report.is_sound(), "{report}");
    println!("{report}\n{:?}", db.status());
    assert_eq!(db.state_digest().expect("digest"), digest, "after checkpoints");
    db.close().expect("closes");
    let db = open();
    assert_eq!(db.state_digest().expect("digest"), digest, "after both checkpoints");
}

fn ephemeral() -> TidalDb {
    TidalDb::builder().ephemeral().with_schema(schema()).open().expect("opens")
}

#[test]
fn verifying_beside_checkpoints_and_writes_never_stands_still() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema()).open();
    let db = db.expect("opens");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                db.signal("view", item(1), 1.0, Timestamp::now()).expect("written");
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                db.checkpoint().expect("a checkpoint");
            }
        });
        for _ in 0..150 {
            let report = db.verify().expect("verified");
            assert!(report.is_sound(), "{report}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn views_that_overlap_do_not_starve_the_writer() {
    let db = ephemeral();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    db.consistent(|_| std::thread::sleep(Duration::from_millis(1)));
                }
            });
        }
        for _ in 0..50 {
            db.signal("view", item(1), 1.0, Timestamp::now()).expect("written");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(db.read_windowed_count(item(1), "view", Window::AllTime).expect("read"), 50);
}

#[test]
fn what_would_wait_for_the_writer_is_refused_within_a_view() {
    let db = ephemeral();
    let refused = |result: tidaldb::Result<()>| {
        let error = result.expect_err("it would wait for ever");
        assert!(matches!(error, Error::InvalidArgument { what: "consistent", .. }), "{error}");
    };
    db.consistent(|view| {
        let nested = db.consistent(|inner| inner.seq());
        assert_eq!(nested, view.seq());
        refused(db.signal("view", item(1), 1.0, Timestamp::now()).map(drop));
        refused(db.write_user(1, &HashMap::new()).map(drop));
        refused(db.flush().map(drop));
        refused(db.verify().map(drop));
        refused(db.state_digest().map(drop));
        refused(db.drive().map(drop));
        refused(db.sessions().plan_sweep().map(drop));
        refused(db.sessions().register(Usage::new(), ProcessorOptions::default()));
    });
    db.signal("view", item(1), 1.0, Timestamp::now()).expect("written after the view");
}

#[test]
fn a_batch_is_synced_as_soon_as_it_asks_to_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = Options::default();
    options.durability = Durability::Os { sync_every: Duration::from_secs(3_600) };
    let builder = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema());
    let db = builder.with_options(options).open().expect("opens");
    let soon = Durability::Os { sync_every: Duration::from_millis(10) };
    let mut batch = Batch::new().durability(soon);
    batch.push(Event::new("view", item(1), Timestamp::now()));
    let seq = db.write(batch).expect("written").seq;
    let synced = (0..500).any(|_| {
        // Under steady writing, so that no moment of rest syncs.
        db.signal("view", item(2), 1.0, Timestamp::now()).expect("written");
        std::thread::sleep(Duration::from_millis(1));
        db.durable() >= seq
    });
    assert!(synced, "{} is not synced, only {}", seq, db.durable());
}

#[test]
fn deleting_or_hiding_an_item_leaves_the_user_and_creator_of_that_number_alone() {
    let mut b = SchemaBuilder::new();
    for (name, kind) in [("view", EntityKind::Item), ("follow", EntityKind::Creator)] {
        let _ = b.signal(name, kind, DecaySpec::None).add();
    }
    let schema = b.build().expect("sound");
    let db = TidalDb::builder().ephemeral().with_schema(schema).open().expect("opens");
    for signal in ["view", "follow"] {
        db.signal(signal, item(7), 1.0, Timestamp::now()).expect("written");
    }
    let hot = |signal| db.hot(signal, 5, &ReadOptions::new()).expect("read").len();
    db.hide_item(item(7)).expect("hidden");
    assert_eq!((hot("view"), hot("follow")), (0, 1));
    db.delete_item(item(7)).expect("deleted");
    db.show_item(item(7)).expect("shown");
    assert_eq!((hot("view"), hot("follow")), (0, 1));
    assert!(db.verify().expect("verified").is_sound());
}

#[test]
fn scores_are_finite_again_after_a_clock_that_was_years_ahead() {
    let mut b = SchemaBuilder::new();
    let half_life = Duration::from_secs(1_800);
    let _ = b.signal("view", EntityKind::Item, DecaySpec::Exponential { half_life }).add();
    let schema = b.build().expect("sound");
    let start = Timestamp::from_secs(1_800_000_000);
    let years_ahead = start.saturating_add(Duration::from_secs(3 * 365 * 86_400));
    let clock = ManualClock::at(years_ahead);
    let builder = TidalDb::builder().ephemeral().with_schema(schema);
    let db = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
    db.signal("view", item(1), 1.0, years_ahead).expect("written");
    clock.set(start);
    db.reset_clock().expect("reset");
    db.signal("view", item(2), 3.0, start).expect("written");
    let hot = db.hot("view", 5, &ReadOptions::new()).expect("read");
    assert_eq!(hot, [Ranked { entity: item(2), value: 3.0 }]);
    assert!(db.verify().expect("verified").is_sound());
}

#[test]
fn a_reset_of_the_clock_leaves_sums_of_large_weights_as_they_are() {
    let start = Timestamp::from_secs(1_800_000_000);
    let hour = Duration::from_secs(3_600);
    for decay in [DecaySpec::None, DecaySpec::Exponential { half_life: 24 * hour }] {
        let mut b = SchemaBuilder::new();
        let _ = b.signal("bytes", EntityKind::Item, decay).add();
        let clock = ManualClock::at(start);
        let builder = TidalDb::builder().ephemeral().with_schema(b.build().expect("sound"));
        let db = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
        // A petabyte: beyond 2^49.
        for _ in 0..1_000 {
            db.signal("bytes", item(1), 1e12, start).expect("written");
        }
        let before = db.hot("bytes", 5, &ReadOptions::new()).expect("read");
        assert!((before[0].value - 1e15).abs() < 1e6, "{before:?}");
        clock.set(start.saturating_sub(hour));
        db.reset_clock().expect("reset");
        let after = db.hot("bytes", 5, &ReadOptions::new()).expect("read");
        assert!(after[0].value >= before[0].value, "{after:?}");
        assert!(after[0].value < before[0].value * 1.05, "{after:?}");
    }
}

#[test]
fn a_paced_checkpoint_does_not_hold_up_who_closes() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = Options::default();
    options.checkpoint_bytes_per_s = 1;
    options.checkpoint_interval = Duration::from_millis(10);
    let builder = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema());
    let db = builder.with_options(options).open().expect("opens");
    for n in 0..5_000 {
        let mut batch =
            Batch::new().durability(Durability::Os { sync_every: Duration::from_secs(1) });
        batch.push(Event::new("view", item(n), Timestamp::now()));
        db.write(batch).expect("written");
    }
    // At a byte a second the checkpoint that has begun would take days.
    std::thread::sleep(Duration::from_millis(300));
    db.close().expect("closes");
}

#[test]
fn a_disk_that_is_full_at_any_step_of_a_checkpoint_leaves_both_stores_where_they_are() {
    let seed = 46;
    let mut digests = Digests::of(seed);
    digests.reach(90);
    for after in 0.. {
        let what = format!("full at write {after} of the checkpoint");
        let disk = SimDisk::new();
        disk.make_dirs(Path::new("/"));
        let db = open_on(&disk, quiet_options(), Faults::NONE).expect("opens");
        apply(&db, seed, 0..30, &mut |_| ());
        db.checkpoint().expect("into one store");
        db.checkpoint().expect("into the other");
        apply(&db, seed, 30..60, &mut |_| ());
        let (of, kind) = (Some(Op::StoreWrite), ErrorKind::StorageFull);
        disk.fail(Fault { after, of, kind, for_good: false, is_short: false });
        let Err(refused) = db.checkpoint() else {
            assert!(after >= 3, "pages and rows, the manifest, what it supersedes: {after} writes");
            break;
        };
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused}: {what}");
        db.health_check().expect_err("a store is out of use");
        apply(&db, seed, 60..80, &mut |_| ());
        for _ in 0..2 {
            db.checkpoint().unwrap_or_else(|error| panic!("{error}: {what}"));
        }
        apply(&db, seed, 80..90, &mut |_| ());
        db.flush().expect("durable");
        db.health_check().expect("both are in use");
        let found = disk.list_dir(&Path::new(PLACE).join("store")).expect("listed");
        assert_eq!(found, ["a", "b"].map(store_path), "{what}");
        assert!(db.verify().expect("verified").is_sound(), "{what}");
        drop(db);
        for survives in [Survives::Everything, Survives::Nothing, Survives::Some(after as u64)] {
            let open =
                |disk: &SimDisk| open_on(disk, quiet_options(), Faults::NONE).expect("opens");
            let db = open(&disk.reboot(survives));
            assert!(db.open_report().repairs.is_empty(), "{}: {what}", db.open_report());
            assert_prefix(&db, &digests, 90, &what);
            // Each store is enough by itself.
            for lost in ["a", "b"] {
                let disk = disk.reboot(survives);
                assert!(SimStores::on(disk.clone()).break_down(&store_path(lost)));
                assert_prefix(&open(&disk), &digests, 90, &format!("{what}, {lost} is lost"));
            }
        }
    }
}

/// A database in a directory of its own, and a copy of it as it was before the last operations.
struct Twins {
    dir: tempfile::TempDir,
}

const SEED: u64 = 47;

impl Twins {
    /// The one is open; both have forty operations.
    fn new(name: &str) -> (Self, TidalDb) {
        let twins = Self { dir: tempfile::tempdir().expect("a directory") };
        let db = twins.open(name);
        apply(&db, SEED, 0..40, &mut |_| ());
        db.backup(&twins.at("copy")).expect("backed up");
        (twins, db)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, name: &str) -> TidalDb {
        let mut options = quiet_options();
        options.segment_size_bytes = 8 << 10;
        builder(options).with_data_dir(self.at(name)).open().expect("opens")
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.at(from), self.at(to)).expect("renamed");
    }
}

#[test]
fn a_handle_whose_directory_is_replaced_stops_and_leaves_what_lies_there_alone() {
    // At the next checkpoint, or at the next roll of the log.
    for rolls in [false, true] {
        let (twins, db) = Twins::new("db");
        apply(&db, SEED, 40..45, &mut |_| ());
        twins.rename("db", "moved");
        twins.rename("copy", "db");
        let copied = files(&twins.at("db"));
        let mut acknowledged = 45;
        let refused = if rolls {
            try_apply(&db, SEED, 45..500, &mut |i| acknowledged = i + 1)
        } else {
            db.checkpoint().map(drop)
        };
        let refused = refused.expect_err("the directory is another one").to_string();
        assert!(refused.contains("moved or replaced while it was open"), "{refused}");
        let next = try_apply(&db, SEED, acknowledged..acknowledged + 1, &mut |_| ());
        assert!(matches!(next, Err(Error::Stopped { .. })), "{next:?}");
        assert!(matches!(db.health_check(), Err(Error::Stopped { .. })));
        db.state_digest().expect("reads go on");
        drop(db);
        assert!(files(&twins.at("db")) == copied, "the copy was written to");
        assert_eq!(survived(&twins.open("db")), 40);
        let there = survived(&twins.open("moved"));
        assert!(there >= acknowledged, "{acknowledged} were acknowledged, {there} are there");
    }
}

#[test]
fn a_handle_is_not_led_astray_by_a_link_that_leads_elsewhere() {
    let (twins, db) = Twins::new("db");
    db.close().expect("closes");
    std::os::unix::fs::symlink(twins.at("db"), twins.at("link")).expect("linked");
    let db = twins.open("link");
    std::fs::remove_file(twins.at("link")).expect("removed");
    std::os::unix::fs::symlink(twins.at("copy"), twins.at("link")).expect("linked");
    let copied = files(&twins.at("copy"));
    for end in (80..=200).step_by(40) {
        apply(&db, SEED, end - 40..end, &mut |_| ());
        db.checkpoint().expect("where it was opened");
    }
    db.close().expect("closes");
    assert!(files(&twins.at("copy")) == copied, "the copy was written to");
    assert_eq!(survived(&twins.open("db")), 200);
}
