//! What each surface keeps over a crash, surface by surface, with the names by which the crash suite
//! of the field is known.
//!
//! Everything is written and verified through the public interface. Deaths are real (a child process
//! that aborts or is killed) or on the simulated machine, where every step of a checkpoint can be
//! tried.
//!
//! `TIDAL_SEED` repeats a run, `TIDAL_CASES` changes how many cases a property has (500).

#[path = "m7_crash_m6/mixed.rs"]
mod mixed;
#[path = "m7_crash_m6/sessions.rs"]
mod sessions;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proptest::test_runner::{RngSeed, TestRunner};
use tidal_support::child::{self, Victim};
use tidal_support::pairs;
use tidal_support::random::Random;
use tidal_support::sim::{SimDisk, SimStores, Survives};
use tidaldb::co_engagement::{CoEngagementIndex, Similarity};
use tidaldb::cohort::CohortSignalLedger;
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, Timestamp, Window,
};
use tidaldb::signals::checkpoint::CheckpointMeta;
use tidaldb::storage::{InMemoryBackend, Machine, StorageEngine, Stores};
use tidaldb::{
    Batch, CollectionChange, Event, Options, ReadOptions, TidalDb, TimeSource, UserId, Visibility,
};

const COHORTS: [&str; 4] = ["cohort_a", "cohort_b", "cohort_c", "cohort_d"];
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let half_life = Duration::from_secs(7 * 86_400);
    let _ = b
        .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
        .windows(&[Window::AllTime])
        .velocity(false)
        .engaging()
        .add();
    for cohort in COHORTS {
        b.named_cohort(cohort);
    }
    b.cohort("adults", Predicate::range("age", 18.0..200.0));
    b.build().expect("a sound schema")
}

/// Nothing is written that was not asked for.
fn options() -> Options {
    let mut options = Options::default();
    let never = Duration::from_secs(86_400);
    (options.mark_after, options.checkpoint_interval) = (never, never);
    options.checkpoint_bytes_per_s = 0;
    options
}

fn open(place: &Path, machine: Machine) -> TidalDb {
    let builder = TidalDb::builder().with_data_dir(place).with_schema(schema());
    let builder = builder.with_options(options()).with_time_source(TimeSource::Events);
    builder.with_machine(machine).open().expect("the database opens")
}

fn simulated(disk: &SimDisk) -> Machine {
    let stores = Arc::new(SimStores::on(disk.clone()));
    Machine { disk: disk.shared(), stores, faults: Faults::NONE }
}

fn meta(wal_sequence: u64) -> CheckpointMeta {
    CheckpointMeta { checkpoint_time_ns: 7, wal_sequence, payload_hash: [0; 32] }
}

#[test]
fn cohort_ledger_checkpoint_restore_roundtrip() {
    let schema = schema();
    let ledger = CohortSignalLedger::new(&schema);
    let view = ledger.resolve_signal_type("view").expect("declared");
    let at = START.as_nanos();
    for id in 0..100 {
        ledger.record("cohort_a", EntityId::new(id), view, 1.0, at).expect("recorded");
        if id % 3 == 0 {
            ledger.record("cohort_b", EntityId::new(id), view, 2.0, at).expect("recorded");
        }
    }
    let storage = InMemoryBackend::new();
    ledger.checkpoint(&storage, meta(42)).expect("a checkpoint");

    let restored = CohortSignalLedger::new(&schema);
    let found = restored.restore(&storage).expect("restored").expect("a checkpoint is there");
    assert_eq!((found.checkpoint_time_ns, found.wal_sequence), (7, 42));
    assert_eq!(restored.entry_count(), ledger.entry_count());
    assert_eq!(restored.entry_count(), 134);
    let count = |cohort, id| {
        let entity = EntityId::new(id);
        restored.read_windowed_count(cohort, entity, "view", Window::AllTime).expect("read")
    };
    for id in 0..100 {
        assert_eq!(count("cohort_a", id), 1);
        assert_eq!(count("cohort_b", id), u64::from(id % 3 == 0), "events count, not weights");
        assert_eq!(count("never-written", id), 0);
    }
}

/// What a case of [`cohort_ledger_survives_checkpoint_crash`] writes.
#[derive(Debug, Clone, Copy)]
struct Case {
    cohorts: usize,
    entities: u64,
    signals: u64,
}

impl Case {
    /// Every (cohort, entity) before the checkpoint; the last three entities come after it.
    fn cells(self) -> impl Iterator<Item = (&'static str, EntityId)> {
        let cohorts = COHORTS.into_iter().take(self.cohorts);
        cohorts
            .flat_map(move |cohort| (0..self.entities).map(move |id| (cohort, EntityId::new(id))))
    }

    const LATER: [EntityId; 3] = [EntityId::new(1_000), EntityId::new(1_001), EntityId::new(1_002)];

    fn record(self, ledger: &CohortSignalLedger) {
        let view = ledger.resolve_signal_type("view").expect("declared");
        for (cohort, entity) in self.cells() {
            for _ in 0..self.signals {
                ledger.record(cohort, entity, view, 1.0, START.as_nanos()).expect("recorded");
            }
        }
    }

    fn batch(self) -> Batch {
        let mut batch = Batch::new();
        for (cohort, entity) in self.cells() {
            for _ in 0..self.signals {
                batch.push(Event::new("view", entity, START).cohort(cohort));
            }
        }
        batch
    }

    /// The standalone ledger: its checkpoint is one batch, so a crash leaves the one before or the new
    /// one; signals recorded since are the caller's to replay.
    fn crash_the_ledger(self, schema: &Schema, survives: Survives) {
        let disk = SimDisk::new();
        let stores = SimStores::on(disk.clone());
        let store = stores.create(&disk, Path::new("/ledger")).expect("a store");
        let ledger = CohortSignalLedger::new(schema);
        self.record(&ledger);
        let before = ledger.entry_count();
        assert_eq!(before, self.cells().count());
        disk.record();
        ledger.checkpoint(&*store, meta(100)).expect("a checkpoint");
        let first = disk.images();
        let view = ledger.resolve_signal_type("view").expect("declared");
        for entity in Self::LATER {
            let at = START.as_nanos() + 1;
            ledger.record("cohort_a", entity, view, 1.0, at).expect("recorded");
        }
        ledger.checkpoint(&*store, meta(103)).expect("a checkpoint");
        let second = disk.images();
        let restored = |disk: SimDisk| {
            let stores = SimStores::on(disk.clone());
            let store = stores.open(&disk, Path::new("/ledger")).expect("the store opens");
            let restored = CohortSignalLedger::new(schema);
            let found = restored.restore(&*store as &dyn StorageEngine).expect("whole, or none");
            (found.map(|meta| meta.wal_sequence), restored.entry_count())
        };
        for image in &first {
            let found = restored(image.reboot(survives));
            assert!(found == (None, 0) || found == (Some(100), before), "{found:?}");
        }
        for image in &second {
            let found = restored(image.reboot(survives));
            let (old, new) = ((Some(100), before), (Some(103), before + 3));
            assert!(found == old || found == new, "{found:?}");
        }
        assert_eq!(restored(disk.reboot(Survives::Nothing)), (Some(103), before + 3));
    }

    /// The ledger inside a database: nothing that was acknowledged is lost, wherever its checkpoint
    /// was interrupted.
    fn crash_the_database(self, survives: Survives) -> usize {
        let (disk, place) = (SimDisk::new(), Path::new("/db"));
        let db = open(place, simulated(&disk));
        db.write(self.batch()).expect("acknowledged");
        db.checkpoint().expect("a checkpoint");
        for entity in Self::LATER {
            let mut batch = Batch::new();
            batch.push(Event::new("view", entity, START).cohort("cohort_a"));
            db.write(batch).expect("acknowledged");
        }
        disk.record();
        db.checkpoint().expect("a checkpoint");
        drop(db);
        let images = disk.images();
        assert!(images.len() > 5, "a checkpoint has {} steps", images.len());
        for image in &images {
            let db = open(place, simulated(&image.reboot(survives)));
            let options = |cohort| ReadOptions::new().cohort(cohort);
            let count = |cohort, entity| {
                db.windowed_count(entity, "view", Window::AllTime, &options(cohort)).expect("read")
            };
            for (cohort, entity) in self.cells() {
                assert_eq!(count(cohort, entity), self.signals, "{cohort}, {entity}: {image:?}");
            }
            for entity in Self::LATER {
                assert_eq!(count("cohort_a", entity), 1, "{entity}: {image:?}");
            }
        }
        images.len()
    }
}

#[test]
fn cohort_ledger_survives_checkpoint_crash() {
    let seed = Random::seed_from("TIDAL_SEED");
    let cases = tidal_support::setting("TIDAL_CASES", 500);
    let schema = schema();
    let config = proptest::test_runner::Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Default::default()
    };
    let mut interrupted = 0;
    let counted = std::cell::RefCell::new(&mut interrupted);
    TestRunner::new(config)
        .run(&(1..5usize, 1..20u64, 1..10u64, 0..3u64), |(cohorts, entities, signals, lost)| {
            if tidal_support::is_time_up() {
                return Ok(());
            }
            let case = Case { cohorts, entities, signals };
            let survives = [Survives::Everything, Survives::Nothing, Survives::Some(entities)];
            let survives = survives[lost as usize];
            case.crash_the_ledger(&schema, survives);
            **counted.borrow_mut() += case.crash_the_database(survives);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("TIDAL_SEED={seed}: {error}"));
    println!("{cases} cases, {interrupted} checkpoints of a database interrupted");
}

/// Points that lie in a checkpoint of a small database, and in the truncation after it.
const IN_A_CHECKPOINT: [CrashPoint; 8] = [
    CrashPoint::CutTaken,
    CrashPoint::CheckpointCleaned,
    CrashPoint::CheckpointBatchWritten,
    CrashPoint::PagesWritten,
    CrashPoint::ManifestDue,
    CrashPoint::ManifestCommitted,
    CrashPoint::CheckpointPublished,
    CrashPoint::SupersededRemoved,
];

const SOME: Case = Case { cohorts: 3, entities: 15, signals: 4 };

#[test]
fn cohort_ledger_survives_a_real_death_at_every_point_of_a_checkpoint() {
    for point in IN_A_CHECKPOINT {
        let dir = tempfile::tempdir().expect("a directory");
        let says = [
            ("TIDAL_DIR", dir.path().display().to_string()),
            ("TIDAL_POINT", point.number().to_string()),
        ];
        let (reports, status) = Victim::spawn("child", "checkpoint", &says).finish();
        assert!(!status.success(), "the child lived past {point:?}");
        let db = open(dir.path(), Machine::default());
        assert_eq!(reports, ["acknowledged"], "{point:?}");
        for (cohort, entity) in SOME.cells() {
            let options = ReadOptions::new().cohort(cohort);
            let count = db.windowed_count(entity, "view", Window::AllTime, &options);
            assert_eq!(count.expect("read"), SOME.signals, "{cohort}, {entity}, {point:?}");
        }
        db.health_check().expect("healthy");
    }
}

/// Neighbours of items 0 to 5, each with its support.
fn neighbours_of(db: &TidalDb) -> Vec<Vec<(EntityId, u32)>> {
    let of = |id| {
        let near = db.co_engagement().neighbours(EntityId::new(id), 20, Similarity::default());
        near.expect("read").iter().map(|near| (near.item, near.support)).collect()
    };
    (0..6).map(of).collect()
}

#[test]
fn co_engagement_survives_restart() {
    let (disk, place) = (SimDisk::new(), Path::new("/db"));
    let db = open(place, simulated(&disk));
    let view = |user: u64, id: u64| {
        let mut batch = Batch::new();
        batch.push(Event::new("view", EntityId::new(id), START).user(user));
        db.write(batch).expect("acknowledged");
    };
    for user in 0..10 {
        (0..5).for_each(|id| view(user, id));
        if user == 4 {
            db.checkpoint().expect("a checkpoint");
        }
    }
    view(0, 5);
    db.delete_item(EntityId::new(1)).expect("acknowledged");
    let (edges, trails) = (db.co_engagement().edge_count(), db.co_engagement().trail_count());
    assert_eq!((edges, trails), (20, 10), "five items that are left, each with the four others");
    let (near, digest) = (neighbours_of(&db), db.state_digest().expect("a digest"));
    assert_eq!(near[0].len(), 4);
    assert_eq!(near[1], [], "it was deleted");
    drop(db);
    for survives in [Survives::Nothing, Survives::Everything] {
        let db = open(place, simulated(&disk.reboot(survives)));
        assert_eq!(db.co_engagement().edge_count(), edges);
        assert_eq!(db.co_engagement().trail_count(), trails);
        assert_eq!(neighbours_of(&db), near);
        assert_eq!(db.state_digest().expect("a digest"), digest);
        // The trails go on where they stopped.
        let mut batch = Batch::new();
        batch.push(Event::new("view", EntityId::new(6), START).user(3));
        db.write(batch).expect("acknowledged");
        assert_eq!(db.co_engagement().edge_count(), edges + 8);
        let report = db.verify().expect("verified");
        assert!(report.is_sound(), "{report}");
    }
}

#[test]
fn co_engagement_capacity_invariant_after_restart() {
    const CAPACITY: usize = 50;
    let config = proptest::test_runner::Config {
        cases: 200,
        rng_seed: RngSeed::Fixed(Random::seed_from("TIDAL_SEED")),
        failure_persistence: None,
        ..Default::default()
    };
    TestRunner::new(config)
        .run(&(1..100u64, 1..20u64), |(edges, items)| {
            let index = CoEngagementIndex::with_capacity(CAPACITY);
            let mut distinct = std::collections::BTreeSet::new();
            for i in 0..edges {
                let (from, to) = (i % items, 1_000 + i * i % (2 * items));
                index.insert_edge(from, to, i as f32 + 0.5).expect("inserted");
                distinct.insert((from, to));
                assert!(index.edge_count() <= CAPACITY, "after edge {i}");
                assert!(index.edge_count() <= distinct.len());
            }
            if distinct.len() <= CAPACITY {
                assert_eq!(index.edge_count(), distinct.len());
            }
            let storage = InMemoryBackend::new();
            index.checkpoint(&storage).expect("a checkpoint");
            let restored = CoEngagementIndex::with_capacity(CAPACITY);
            assert!(restored.restore(&storage).expect("restored"));
            assert_eq!(restored.edge_count(), index.edge_count(), "restoring changes no count");
            // And both go on alike.
            for i in edges..edges + 30 {
                for index in [&index, &restored] {
                    index.insert_edge(i % items, 1_000 + i, i as f32 + 0.5).expect("inserted");
                    assert!(index.edge_count() <= CAPACITY);
                }
            }
            for item in 0..items {
                assert_eq!(restored.neighbours(item, 100), index.neighbours(item, 100));
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn an_interrupted_checkpoint_of_the_index_leaves_the_one_before_or_the_new_one() {
    let disk = SimDisk::new();
    let stores = SimStores::on(disk.clone());
    let store = stores.create(&disk, Path::new("/index")).expect("a store");
    let index = CoEngagementIndex::with_capacity(1_000);
    (0..200).for_each(|i| index.insert_edge(i % 7, i + 7, 1.0).expect("inserted"));
    let before = index.edge_count();
    index.checkpoint(&*store).expect("a checkpoint");
    (0..100).for_each(|i| index.insert_edge(i + 500, i, 1.0).expect("inserted"));
    disk.record();
    index.checkpoint(&*store).expect("a checkpoint");
    let images = disk.images();
    assert!(images.len() > 1, "a checkpoint has {} steps", images.len());
    for image in &images {
        for survives in [Survives::Nothing, Survives::Everything] {
            let disk = image.reboot(survives);
            let stores = SimStores::on(disk.clone());
            let store = stores.open(&disk, Path::new("/index")).expect("the store opens");
            let restored = CoEngagementIndex::with_capacity(1_000);
            assert!(restored.restore(&*store as &dyn StorageEngine).expect("whole"));
            let found = restored.edge_count();
            assert!(found == before || found == before + 100, "{found}");
        }
    }
}

#[test]
fn collection_persists_across_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), Machine::default());
    for id in 0..10 {
        let title = format!("item {id}");
        db.write_item(EntityId::new(id), &pairs(&[("title", &title)])).expect("written");
    }
    let id = db.create_collection(42, "favorites", Visibility::Private).expect("created");
    for item in 0..5 {
        db.add_to_collection(id, EntityId::new(item)).expect("added");
    }
    db.close().expect("closes");
    let db = open(dir.path(), Machine::default());
    let listed = db.list_collections(42).expect("listed");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].item_count), ("favorites", 5));
    assert_eq!(db.list_collections(43).expect("listed"), []);
}

#[test]
fn collection_items_survive_restart() {
    let seed = Random::seed_from("TIDAL_SEED");
    let config = proptest::test_runner::Config {
        cases: 200,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Default::default()
    };
    let (items, wanted, ends) = (1..=50u64, 1..=50u64, 0..4u64);
    TestRunner::new(config)
        .run(&(items, wanted, ends), |(items, wanted, end)| {
            let (disk, place) = (SimDisk::new(), Path::new("/db"));
            let db = open(place, simulated(&disk));
            for id in 0..items {
                db.write_item(EntityId::new(id), &pairs(&[])).expect("written");
            }
            let id = db.create_collection(7, "saved", Visibility::Public).expect("created");
            let expected: Vec<EntityId> = (0..items.min(wanted)).map(EntityId::new).collect();
            for &item in &expected {
                assert!(db.add_to_collection(id, item).expect("added").changed);
            }
            let disk = match end {
                0 => {
                    db.close().expect("closes");
                    disk
                }
                1 => disk.reboot(Survives::Everything),
                2 => disk.reboot(Survives::Nothing),
                _ => disk.reboot(Survives::Some(items)),
            };
            let db = open(place, simulated(&disk));
            let page = db.collection_items(id, None, 0, 100).expect("read");
            assert_eq!((page.items, page.next), (expected, None));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("TIDAL_SEED={seed}: {error}"));
}

/// Items that are added with a signal.
const ADDED: u64 = 40;
const OWNER: u64 = 42;

/// Adds items at both ends, each with a signal, and takes checkpoints in between.
fn add_with_signals(db: &TidalDb, acknowledged: &mut dyn FnMut(u64)) {
    let id = db.create_collection(OWNER, "saved", Visibility::Private).expect("created");
    for item in 0..ADDED {
        let saved = Event::new("view", EntityId::new(item), START).user(OWNER).cohort("cohort_d");
        let change = match item % 2 {
            0 => CollectionChange::add(EntityId::new(item)),
            _ => CollectionChange::insert(EntityId::new(item), 0),
        };
        let ack = db.change_collection(id, change.with_signal(saved)).expect("added");
        assert!(ack.changed && ack.duplicates == 0);
        acknowledged(item);
        if item % 15 == 14 {
            db.checkpoint().expect("a checkpoint");
        }
    }
}

/// How many items there are. Each is in the collection and its signal counted, in all scopes, or
/// neither.
fn check_added(db: &TidalDb, what: &str) -> u64 {
    let listed = db.list_collections(OWNER).expect("listed");
    let Some(info) = listed.first() else {
        for item in 0..ADDED {
            let count = db.read_windowed_count(EntityId::new(item), "view", Window::AllTime);
            assert_eq!(count.expect("read"), 0, "a signal without a collection: {what}");
        }
        return 0;
    };
    assert_eq!(info.version, 1 + info.item_count, "one version for each item: {what}");
    for item in 0..ADDED {
        let entity = EntityId::new(item);
        let owner = Some(UserId::new(OWNER));
        let is_in = db.is_in_collection(info.id, owner, entity).expect("read");
        assert_eq!(is_in, item < info.item_count, "item {item}: {what}");
        for options in [ReadOptions::new(), ReadOptions::new().cohort("cohort_d")] {
            let count = db.windowed_count(entity, "view", Window::AllTime, &options);
            assert_eq!(count.expect("read"), u64::from(is_in), "item {item}: {what}");
        }
    }
    let report = db.verify().expect("verified");
    assert!(report.is_sound(), "{what}\n{report}");
    info.item_count
}

#[test]
fn an_item_is_in_its_collection_and_its_signal_counted_or_neither_wherever_the_power_goes() {
    let (disk, place) = (SimDisk::new(), Path::new("/db"));
    let db = open(place, simulated(&disk));
    disk.record();
    let noted = disk.clone();
    add_with_signals(&db, &mut |item| noted.note(item + 1));
    drop(db);
    let images = disk.images();
    assert!(images.len() > 2 * ADDED as usize, "{} steps", images.len());
    let mut found = std::collections::BTreeSet::new();
    for (step, image) in images.iter().enumerate() {
        for survives in [Survives::Everything, Survives::Nothing, Survives::Some(step as u64)] {
            let db = open(place, simulated(&image.reboot(survives)));
            let what = format!("step {step}, {survives:?}");
            let there = check_added(&db, &what);
            assert!(there >= image.note, "{there} of {} that are safe: {what}", image.note);
            found.insert(there);
        }
    }
    assert_eq!(found.len() as u64, ADDED + 1, "every prefix was seen");
}

#[test]
fn an_item_is_in_its_collection_and_its_signal_counted_or_neither_after_a_real_death() {
    const WHERE: [CrashPoint; 5] = [
        CrashPoint::GroupAppended,
        CrashPoint::GroupWritten,
        CrashPoint::LogSynced,
        CrashPoint::GroupApplied,
        CrashPoint::Acknowledged,
    ];
    let mut random = Random::new(Random::seed_from("TIDAL_SEED"));
    for point in WHERE.into_iter().chain(IN_A_CHECKPOINT) {
        let dir = tempfile::tempdir().expect("a directory");
        let is_of_checkpoints = IN_A_CHECKPOINT.contains(&point);
        let reach = 1 + random.below(if is_of_checkpoints { 2 } else { ADDED });
        let says = [
            ("TIDAL_DIR", dir.path().display().to_string()),
            ("TIDAL_POINT", point.number().to_string()),
            ("TIDAL_REACH", reach.to_string()),
        ];
        let (reports, status) = Victim::spawn("child", "collecting", &says).finish();
        assert!(!status.success(), "the child lived past reach {reach} of {point:?}");
        let db = open(dir.path(), Machine::default());
        let there = check_added(&db, &format!("reach {reach} of {point:?}"));
        assert!(there >= reports.len() as u64, "{there}: reach {reach} of {point:?}");
        db.health_check().expect("healthy");
    }
}

/// A34: see `mixed` for what is written and demanded.
#[test]
fn mixed_workload_crash_recovery() {
    mixed::die_and_recover(8);
}

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let dir = PathBuf::from(child::told("TIDAL_DIR"));
    if role == "mixed" {
        let db = open(&dir, Machine::default());
        mixed::write(&db);
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let point: u16 = child::told("TIDAL_POINT").parse().expect("a number");
    let is_collecting = role == "collecting";
    let reach =
        if is_collecting { child::told("TIDAL_REACH").parse().expect("a number") } else { 1 };
    let left = AtomicU64::new(reach);
    let is_begun = Arc::new(AtomicBool::new(!is_collecting));
    let begun = Arc::clone(&is_begun);
    let faults = Faults::new(move |reached| {
        let counts = reached.number() == point && begun.load(Ordering::SeqCst);
        if counts && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    });
    let db = open(&dir, Machine { faults, ..Machine::default() });
    if is_collecting {
        is_begun.store(true, Ordering::SeqCst);
        add_with_signals(&db, &mut |item| child::report(&item.to_string()));
        return;
    }
    db.write(SOME.batch()).expect("acknowledged");
    child::report("acknowledged");
    db.checkpoint().expect("a checkpoint");
}
