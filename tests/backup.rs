//! Backups of a database that is in use: each is the state at one position of the log, or there is none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tidal_support::contract::{Digests, assert_prefix};
use tidal_support::operations::{apply, builder, ephemeral, open, quiet_options, survived};
use tidal_support::{files, setting};
use tidaldb::schema::Timestamp;
use tidaldb::storage::{
    Disk, EachPair, InMemoryBackend, Machine, OpenFailure, StorageEngine, Stores, WriteOp,
};
use tidaldb::{Error, ErrorKind, ManualClock, Result, TidalDb};

/// The path of a database, or of something beside it.
struct Places {
    dir: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let names = files(self.dir.path()).into_iter().map(|(path, _)| {
            let inner = path.strip_prefix(self.dir.path()).expect("it lies there");
            inner.components().next().expect("a name").as_os_str().to_string_lossy().into_owned()
        });
        let mut names: Vec<_> = names.collect();
        names.dedup();
        names
    }
}

#[test]
fn a_backup_taken_while_operations_go_on_is_a_prefix_with_all_that_was_acknowledged() {
    let seed = setting("TIDAL_SEED", 41);
    let places = Places::new();
    let (acknowledged, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let db = open(&places.at("db"));
    let total = 600;
    let backups: Vec<(PathBuf, u64)> = std::thread::scope(|scope| {
        scope.spawn(|| {
            apply(&db, seed, 0..total, &mut |i| acknowledged.store(i + 1, Ordering::SeqCst));
            over.store(true, Ordering::SeqCst);
        });
        let mut backups = Vec::new();
        let mut was_over = false;
        while !was_over {
            was_over = over.load(Ordering::SeqCst);
            let least = acknowledged.load(Ordering::SeqCst);
            let path = places.at(&format!("backup-{}", backups.len()));
            db.backup(&path).expect("backed up");
            backups.push((path, least));
        }
        backups
    });
    let mut digests = Digests::of(seed);
    digests.reach(total + 5);
    for (path, least) in &backups {
        let what = format!("TIDAL_SEED={seed}, {} of {}", path.display(), backups.len());
        let copy = open(path);
        assert_eq!(copy.open_report().replayed, 0, "{what}: there is nothing to replay");
        let there = assert_prefix(&copy, &digests, *least, &what);
        // It is a database like any other.
        apply(&copy, seed, there..there + 5, &mut |_| ());
        copy.checkpoint().expect("a checkpoint");
        copy.close().expect("closes");
        assert_eq!(assert_prefix(&open(path), &digests, there + 5, &what), there + 5);
    }
    let last = survived(&open(&backups.last().expect("two at least").0));
    assert!(last >= total, "the last one was begun when all was acknowledged");
    assert_prefix(&db, &digests, total, "the one that was backed up goes on");
}

#[test]
fn the_digest_of_a_backup_is_the_one_that_whoever_opens_a_copy_finds() {
    let places = Places::new();
    let db = open(&places.at("db"));
    apply(&db, 42, 0..150, &mut |_| ());
    let made = db.backup(&places.at("backup")).expect("backed up");
    assert!(made.seq <= db.durable(), "it is never ahead of the log that it is a copy of");
    let clock = Arc::new(ManualClock::at(Timestamp::EPOCH));
    let found = TidalDb::builder().with_data_dir(places.at("backup")).with_clock(clock);
    let found = found.inspect(&places.at("scratch")).expect("inspected");
    assert_eq!((found.opened.checkpoint_seq, found.digest), (made.seq, Some(made.digest)));
    assert_eq!(found.digest, Some(db.state_digest().expect("a digest")));
    let names = [&places.at("db"), &places.at("backup")].map(|path| TidalDb::identity(path));
    let [of_db, of_backup] = names.map(|name| name.expect("it has one"));
    assert_eq!((&of_backup, &of_db), (&of_db, &db.status().database));
}

#[test]
fn nothing_is_overwritten_and_what_a_killed_backup_left_is_removed() {
    let places = Places::new();
    let db = open(&places.at("db"));
    apply(&db, 43, 0..20, &mut |_| ());
    std::fs::create_dir(places.at("taken")).expect("made");
    for target in [places.at("taken"), places.at("db"), places.at("db").join("inner")] {
        let refused = db.backup(&target).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    }
    let refused = db.backup(&places.at("no").join("such")).expect_err("refused");
    assert!(matches!(refused, Error::Io { .. }), "{refused}");
    let refused = db.consistent(|_| db.backup(&places.at("backup")).map(drop));
    assert_eq!(refused.expect_err("it would wait for itself").kind(), ErrorKind::Invalid);
    let refused = ephemeral().backup(&places.at("backup")).expect_err("it lies nowhere");
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    assert_eq!(places.names(), ["db"]);
    std::fs::create_dir_all(places.at("backup.tmp-stage/database")).expect("made");
    for left in ["stage", "database/half"] {
        std::fs::write(places.at("backup.tmp-stage").join(left), "x").expect("written");
    }
    db.backup(&places.at("backup")).expect("backed up");
    assert_eq!(places.names(), ["backup", "db"]);
}

/// Expects a backup, a copy and a salvage of `db`, which is closed in between, to be refused.
fn refused_each_way(db: TidalDb, target: &Path) {
    let refused = |outcome: Result<()>| {
        let error = outcome.expect_err("it would take what is there away");
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    };
    let source = db.open_report().path.clone();
    refused(db.backup(target).map(drop));
    db.close().expect("closes");
    refused(TidalDb::copy(&source, target));
    refused(TidalDb::salvage(&source, target).map(drop));
}

#[test]
fn a_database_that_lies_where_a_stage_would_is_refused_as_its_own_source_and_left_alone() {
    let places = Places::new();
    let source = places.at("x.tmp-stage");
    let db = open(&source);
    apply(&db, 45, 0..20, &mut |_| ());
    refused_each_way(db, &places.at("x"));
    assert_eq!(places.names(), ["x.tmp-stage"]);
    assert_eq!(survived(&open(&source)), 20);
}

#[test]
fn an_open_database_or_notes_where_a_stage_would_lie_are_left_alone() {
    let places = Places::new();
    let other = open(&places.at("x.tmp-stage"));
    std::fs::create_dir(places.at("y.tmp-stage")).expect("made");
    std::fs::write(places.at("y.tmp-stage/notes"), "mine").expect("written");
    apply(&other, 46, 0..20, &mut |_| ());
    for target in ["x", "y"] {
        let db = open(&places.at("db"));
        refused_each_way(db, &places.at(target));
    }
    assert_eq!(std::fs::read(places.at("y.tmp-stage/notes")).expect("there"), b"mine");
    apply(&other, 46, 20..40, &mut |_| ());
    other.close().expect("closes");
    assert_eq!(survived(&open(&places.at("x.tmp-stage"))), 40);
    assert_eq!(places.names(), ["db", "x.tmp-stage", "y.tmp-stage"]);
}

#[test]
fn of_two_databases_that_are_copied_to_one_target_at_once_one_arrives_whole() {
    let places = Places::new();
    let sources = [("a", 30), ("b", 60)].map(|(name, operations)| {
        let db = open(&places.at(name));
        apply(&db, 47, 0..operations, &mut |_| ());
        db.close().expect("closes");
        (places.at(name), operations)
    });
    let target = places.at("x");
    let mut met = 0;
    for _ in 0..60 {
        let start = std::sync::Barrier::new(2);
        let outcomes = std::thread::scope(|scope| {
            let copies = sources.each_ref().map(|(source, _)| {
                scope.spawn(|| {
                    start.wait();
                    TidalDb::copy(source, &target)
                })
            });
            copies.map(|copy| copy.join().expect("no panic"))
        });
        let made: Vec<u64> = std::iter::zip(&outcomes, &sources)
            .filter_map(|(outcome, (_, operations))| outcome.is_ok().then_some(*operations))
            .collect();
        met += usize::from(outcomes.iter().any(|o| matches!(o, Err(Error::Locked { .. }))));
        assert_eq!(made.len(), 1, "{outcomes:?}");
        assert_eq!(survived(&open(&target)), made[0]);
        assert_eq!(places.names(), ["a", "b", "x"]);
        std::fs::remove_dir_all(&target).expect("removed");
    }
    assert!(met > 0, "they never met");
}

#[test]
fn a_backup_that_does_not_verify_is_not_made() {
    let places = Places::new();
    let stores = Arc::new(LyingStores::default());
    let machine = Machine { stores: Arc::clone(&stores) as _, ..Machine::default() };
    let db = builder(quiet_options()).with_data_dir(places.at("db")).with_machine(machine);
    let db = db.open().expect("opens");
    apply(&db, 44, 0..120, &mut |_| ());
    let backup = places.at("backup");
    // From here on a checkpoint reads nothing.
    for _ in 0..2 {
        db.checkpoint().expect("a checkpoint");
    }
    stores.lies.store(true, Ordering::SeqCst);
    let refused = db.backup(&backup).expect_err("a page is not what it was");
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert_eq!(places.names(), ["db"], "something was left");
    stores.lies.store(false, Ordering::SeqCst);
    db.backup(&backup).expect("backed up");
    assert_eq!(survived(&open(&backup)), 120);
}

/// Stores in memory that, while they lie, change a bit of the first thing that each scan finds.
#[derive(Debug, Default)]
struct LyingStores {
    made: Mutex<HashMap<PathBuf, Arc<InMemoryBackend>>>,
    lies: Arc<AtomicBool>,
}

struct LyingStore {
    inner: Arc<InMemoryBackend>,
    lies: Arc<AtomicBool>,
}

impl LyingStores {
    fn store(&self, inner: Arc<InMemoryBackend>) -> Arc<dyn StorageEngine> {
        Arc::new(LyingStore { inner, lies: Arc::clone(&self.lies) })
    }
}

impl Stores for LyingStores {
    fn create(&self, _: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>> {
        let inner = Arc::<InMemoryBackend>::default();
        self.made.lock().expect("no panic").insert(path.to_owned(), Arc::clone(&inner));
        Ok(self.store(inner))
    }

    fn open(&self, _: &dyn Disk, path: &Path) -> Result<Arc<dyn StorageEngine>, OpenFailure> {
        let made = self.made.lock().expect("no panic");
        made.get(path).map(|inner| self.store(Arc::clone(inner))).ok_or(OpenFailure::Missing)
    }
}

impl StorageEngine for LyingStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(key)
    }

    fn scan_from(&self, prefix: &[u8], start: &[u8], each: &mut EachPair<'_>) -> Result<()> {
        let mut lies = self.lies.load(Ordering::SeqCst);
        self.inner.scan_from(prefix, start, &mut |key, value| {
            let mut value = value.to_vec();
            if let Some(last) = value.last_mut() {
                *last ^= u8::from(std::mem::take(&mut lies));
            }
            each(key, &value)
        })
    }

    fn write_batch(&self, ops: Vec<WriteOp>) -> Result<()> {
        self.inner.write_batch(ops)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }
}
