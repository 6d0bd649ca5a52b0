//! The store against crashes of its creation, damage of its files, and fjall's own surprises.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use super::*;
use crate::error::ErrorKind;
use crate::storage::opening::{begin_open, forget_opens};
use crate::storage::place::stage_path;
use crate::storage::{DiskFile, RealDisk, move_aside};

fn put(key: &[u8], value: &[u8]) -> WriteOp {
    WriteOp::Put { key: key.to_vec(), value: value.to_vec() }
}

fn value_at(backend: &FjallBackend, key: &[u8]) -> Option<Vec<u8>> {
    backend.get(key).unwrap()
}

/// A directory with a store `a` that holds `key` → `value`, closed.
fn closed_store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let backend = FjallBackend::create(&RealDisk, &path).unwrap();
    backend.write_batch_synced(vec![put(b"key", b"value")]).unwrap();
    drop(backend);
    (dir, path)
}

fn opening_mark(path: &Path) -> PathBuf {
    path.with_file_name("a.opening")
}

#[test]
fn what_was_written_is_there_after_reopening_synced_or_not() {
    let (_dir, path) = closed_store();
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    backend.write_batch(vec![put(b"other", b"unsynced")]).unwrap();
    drop(backend);
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    assert_eq!(value_at(&backend, b"key").as_deref(), Some(&b"value"[..]));
    assert_eq!(value_at(&backend, b"other").as_deref(), Some(&b"unsynced"[..]));
}

#[test]
fn more_than_the_memtables_hold_is_kept_through_flushes_and_reopening() {
    let (_dir, path) = closed_store();
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    let (batches, value) = (120_u32, vec![0xa5; 512 * 1024]);
    for batch in 0..batches {
        backend.write_batch(vec![put(&batch.to_be_bytes(), &value)]).unwrap();
        let tree = &backend.keyspace.tree;
        assert!(tree.sealed_memtable_count() <= SEALED_MEMTABLES_MAX);
        assert!(tree.active_memtable().size() < MEMTABLE_SIZE_BYTES + (1 << 20));
    }
    assert!(backend.keyspace.tree.table_count() > 0, "nothing was flushed");
    drop(backend);
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    for batch in 0..batches {
        assert!(value_at(&backend, &batch.to_be_bytes()).as_ref() == Some(&value), "{batch}");
    }
    assert_eq!(value_at(&backend, b"key").as_deref(), Some(&b"value"[..]));
}

#[test]
fn creating_over_something_is_refused_and_leaves_it() {
    let (_dir, path) = closed_store();
    assert!(matches!(FjallBackend::create(&RealDisk, &path), Err(Error::Store(_))));
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    assert_eq!(value_at(&backend, b"key").as_deref(), Some(&b"value"[..]));
}

/// A disk that refuses one operation and all after it, to stop a creation in its tracks.
#[derive(Debug)]
struct StoppingDisk {
    operations_left: std::sync::atomic::AtomicU32,
}

impl StoppingDisk {
    fn step(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        self.operations_left
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .map(|_| ())
            .map_err(|_| io::Error::other("stopped"))
    }
}

impl Disk for StoppingDisk {
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.step()?;
        RealDisk.create_file(path)
    }
    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.step()?;
        RealDisk.open_file(path)
    }
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.step()?;
        RealDisk.read_file(path)
    }
    fn list_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.step()?;
        RealDisk.list_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.step()?;
        RealDisk.exists(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.sync_dir(path)
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.step()?;
        RealDisk.try_lock(path)
    }
}

#[test]
fn a_creation_stopped_at_any_operation_leaves_a_whole_store_or_none() {
    let (mut missing, mut whole) = (0, 0);
    for operations in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let disk = StoppingDisk { operations_left: operations.into() };
        let created = FjallBackend::create(&disk, &path);
        let finished = created.is_ok();
        drop(created);
        match FjallBackend::open(&RealDisk, &path) {
            Ok(_) => whole += 1,
            Err(OpenFailure::Missing) => {
                missing += 1;
                FjallBackend::create(&RealDisk, &path).unwrap();
            }
            Err(failure) => panic!("stopped after {operations} operations: {failure:?}"),
        }
        assert_eq!(RealDisk.list_dir(dir.path()).unwrap(), [path], "after {operations}");
        if finished {
            break;
        }
    }
    assert!(missing > 5 && whole > 1, "{missing} {whole}");
}

#[test]
fn half_a_stage_is_wiped_by_open_and_by_create() {
    let (dir, path) = closed_store();
    let stage = stage_path(&path);
    for content in ["lock", "0.jnl"] {
        fs::create_dir_all(&stage).unwrap();
        fs::write(stage.join(content), b"").unwrap();
        drop(FjallBackend::open(&RealDisk, &path).unwrap());
        assert_eq!(RealDisk.list_dir(dir.path()).unwrap(), std::slice::from_ref(&path));
    }
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir_all(&stage).unwrap();
    fs::write(stage.join("0.jnl"), b"").unwrap();
    drop(FjallBackend::create(&RealDisk, &path).unwrap());
    assert_eq!(RealDisk.list_dir(dir.path()).unwrap(), [path]);
}

#[test]
fn a_store_is_skipped_after_two_opens_that_did_not_return_and_opens_once_they_are_forgotten() {
    let (_dir, path) = closed_store();
    assert!(begin_open(&RealDisk, &path).unwrap());
    drop(FjallBackend::open(&RealDisk, &path).unwrap());
    assert!(!RealDisk.exists(&opening_mark(&path)).unwrap(), "it returned");
    assert!(begin_open(&RealDisk, &path).unwrap());
    assert!(begin_open(&RealDisk, &path).unwrap());
    for _ in 0..2 {
        let failure = FjallBackend::open(&RealDisk, &path).unwrap_err();
        assert!(matches!(failure, OpenFailure::SkippedAfterTwoAborts));
    }
    forget_opens(&RealDisk, &path).unwrap();
    drop(FjallBackend::open(&RealDisk, &path).unwrap());
}

#[test]
fn a_store_created_where_a_skipped_one_was_moved_aside_has_no_past() {
    let (_dir, path) = closed_store();
    assert!(begin_open(&RealDisk, &path).unwrap());
    assert!(begin_open(&RealDisk, &path).unwrap());
    move_aside(&RealDisk, &path).unwrap();
    let backend = FjallBackend::create(&RealDisk, &path).unwrap();
    assert_eq!(value_at(&backend, b"key"), None);
}

#[test]
fn an_open_store_is_locked_and_that_is_no_damage() {
    let (_dir, path) = closed_store();
    let held = FjallBackend::open(&RealDisk, &path).unwrap();
    let failure = FjallBackend::open(&RealDisk, &path).unwrap_err();
    assert!(matches!(failure, OpenFailure::Unavailable(Error::Locked { .. })), "{failure:?}");
    held.put(b"key", b"still mine").unwrap();
    drop(held);
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    assert_eq!(value_at(&backend, b"key").as_deref(), Some(&b"still mine"[..]));
}

#[test]
fn a_store_that_lost_something_is_damaged_and_not_created_anew() {
    let losses: [fn(&Path); 7] = [
        |path| fs::remove_file(path.join("version")).unwrap(),
        |path| fs::remove_file(path.join("lock")).unwrap(),
        |path| fs::remove_file(path.join("0.jnl")).unwrap(),
        |path| fs::remove_dir_all(path.join("keyspaces")).unwrap(),
        |path| fs::remove_dir_all(path.join("keyspaces/1")).unwrap(),
        |path| fs::remove_file(path.join("keyspaces/1/current")).unwrap(),
        |path| fs::create_dir(path.join("keyspaces/stray")).unwrap(),
    ];
    for (case, lose) in losses.into_iter().enumerate() {
        let (_dir, path) = closed_store();
        lose(&path);
        for _ in 0..3 {
            let failure = FjallBackend::open(&RealDisk, &path).unwrap_err();
            assert!(matches!(failure, OpenFailure::Damaged(_)), "case {case}: {failure:?}");
        }
        assert!(!RealDisk.exists(&opening_mark(&path)).unwrap(), "case {case}: it returned");
    }
}

#[test]
fn a_keyspace_that_lost_its_manifest_keeps_its_tables_to_be_looked_at() {
    let (_dir, path) = closed_store();
    let keyspace = path.join("keyspaces/1");
    fs::remove_file(keyspace.join("current")).unwrap();
    assert!(matches!(FjallBackend::open(&RealDisk, &path), Err(OpenFailure::Damaged(_))));
    assert!(RealDisk.exists(&keyspace.join("tables")).unwrap());
}

#[test]
fn a_flipped_bit_in_the_version_or_in_the_journal_is_damage() {
    for (file, offset) in [("version", 3), ("0.jnl", 40)] {
        let (_dir, path) = closed_store();
        let file = path.join(file);
        let mut bytes = fs::read(&file).unwrap();
        bytes[offset] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        let failure = FjallBackend::open(&RealDisk, &path).unwrap_err();
        assert!(matches!(failure, OpenFailure::Damaged(_)), "{file:?}: {failure:?}");
    }
}

#[test]
fn after_a_failed_write_all_writes_are_refused_and_reads_go_on() {
    let faults: [fn() -> std::result::Result<(), Fault>; 3] = [
        || Err(::fjall::Error::Io(io::ErrorKind::StorageFull.into()).into()),
        || Err(::fjall::Error::Poisoned.into()),
        || panic!("as fjall may"),
    ];
    for (case, fault) in faults.into_iter().enumerate() {
        let (_dir, path) = closed_store();
        let backend = FjallBackend::open(&RealDisk, &path).unwrap();
        let first = backend.write("write to", fault).unwrap_err();
        assert_eq!(matches!(first, Error::DiskFull { .. }), case == 0, "{first}");
        assert_eq!(first.kind(), ErrorKind::Unavailable);
        assert!(matches!(backend.put(b"key", b"x"), Err(Error::Store(_))));
        assert!(matches!(backend.write_batch_synced(vec![put(b"x", b"x")]), Err(Error::Store(_))));
        assert!(matches!(backend.sync(), Err(Error::Store(_))));
        assert_eq!(value_at(&backend, b"key").as_deref(), Some(&b"value"[..]));
        assert_eq!(backend.scan_prefix(b"").unwrap().len(), 1);
        drop(backend);
        let reopened = FjallBackend::open(&RealDisk, &path).unwrap();
        reopened.write_batch_synced(vec![put(b"key", b"again")]).unwrap();
    }
}

#[test]
fn a_refused_key_does_not_stop_writing() {
    let (_dir, path) = closed_store();
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    assert!(matches!(backend.put(b"", b"x"), Err(Error::InvalidArgument { .. })));
    backend.put(b"key", b"next").unwrap();
    drop(backend);
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    assert_eq!(value_at(&backend, b"key").as_deref(), Some(&b"next"[..]));
}

#[test]
fn a_flush_that_fails_in_the_background_stops_writing_and_hangs_nobody() {
    let (_dir, path) = closed_store();
    let backend = FjallBackend::open(&RealDisk, &path).unwrap();
    fs::remove_dir_all(path.join("keyspaces/1/tables")).unwrap();
    let value = vec![0x5a; 1 << 20];
    let outcome = (0..200_u32)
        .try_for_each(|number| backend.write_batch(vec![put(&number.to_be_bytes(), &value)]));
    assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
    assert!(matches!(backend.sync(), Err(Error::Store(_))));
    assert_eq!(value_at(&backend, b"key").as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_sync_that_fails_is_a_failure_of_the_store_and_a_write_that_does_of_the_disk() {
    let full = || ::fjall::Error::Io(io::ErrorKind::StorageFull.into());
    let error = |fault: Fault| fault.into_error("write to", Path::new("a"));
    assert!(matches!(error(full().into()), Error::DiskFull { .. }));
    assert!(matches!(error(Fault::of_sync(full())), Error::Store(_)));
    assert!(matches!(error(Fault::of_sync(::fjall::Error::Poisoned)), Error::Io { .. }));
}

/// fjall moves its visible position when a flush ends, also in the middle of a commit. A long batch
/// after each flush makes that common, and a scan of its first and last key alone notices it.
#[test]
fn a_scan_never_sees_half_of_a_batch_written_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let backend = FjallBackend::create(&RealDisk, &dir.path().join("a")).unwrap();
    let batch = |round: u32| {
        let value = round.to_be_bytes();
        let mut ops = vec![put(b"ends/first", &value)];
        ops.extend((0..4_000_u32).map(|key| put(&key.to_be_bytes(), &value)));
        ops.push(put(b"ends/last", &value));
        ops
    };
    backend.write_batch(batch(0)).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..100 {
                backend.write_batch(batch(round)).unwrap();
                backend.keyspace.rotate_memtable().unwrap();
            }
        });
        let mut scans = 0;
        while !writer.is_finished() || scans == 0 {
            let ends = backend.scan_prefix(b"ends/").unwrap();
            assert_eq!(ends.len(), 2);
            assert_eq!(ends[0].1, ends[1].1, "half of a batch is there");
            scans += 1;
        }
    });
}
