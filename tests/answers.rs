//! What an answer is worth, one claim at a time, on a simulated machine.
//!
//! Random histories reach these instants seldom or never. Each claim is here because a deliberate
//! breakage (`tests/breakages`) passed every other suite.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidal_support::contract::{PLACE, open_on, store_path};
use tidal_support::operations::{OS, ephemeral, quiet_options};
use tidal_support::sim::{Fault, Op, SimDisk, SimStores, Survives};
use tidaldb::fault::Faults;
use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp, Window};
use tidaldb::storage::Machine;
use tidaldb::{Batch, Durability, Error, Event, TidalDb};

const AT: Timestamp = Timestamp::from_secs(1_600_000_000);

fn machine() -> SimDisk {
    let disk = SimDisk::new();
    disk.make_dirs(Path::new("/"));
    disk
}

fn try_open(disk: &SimDisk) -> tidaldb::Result<TidalDb> {
    open_on(disk, quiet_options(), Faults::NONE)
}

fn open(disk: &SimDisk) -> TidalDb {
    try_open(disk).expect("opens")
}

/// So many views of one item: more than 256 are synced on a thread of their own.
fn views(item: u64, count: u64) -> Batch {
    let mut batch = Batch::new().durability(Durability::Sync);
    for _ in 0..count {
        batch.push(Event::new("view", EntityId::new(item), AT));
    }
    batch
}

fn seen(db: &TidalDb, item: u64) -> u64 {
    db.read_windowed_count(EntityId::new(item), "view", Window::AllTime).expect("read")
}

#[test]
fn a_group_whose_sync_fails_is_neither_acknowledged_nor_seen_however_large() {
    for count in [1, 300] {
        let disk = machine();
        let db = open(&disk);
        db.write(views(1, count)).expect("acknowledged");
        disk.fail_next(Op::Sync, ErrorKind::Other);
        let refused = db.write(views(2, count)).expect_err("it is not synced");
        assert!(matches!(refused, Error::Io { action: "sync", .. }), "{refused}");
        let refused = db.write(views(3, 1)).expect_err("the way back is to reopen");
        assert!(matches!(refused, Error::Stopped { .. }), "{refused}");
        assert_eq!((seen(&db, 1), seen(&db, 2)), (count, 0));
        drop(db);
        let db = open(&disk.reboot(Survives::Nothing));
        assert_eq!((seen(&db, 1), seen(&db, 2)), (count, 0));
    }
}

#[test]
fn a_creation_that_the_power_cuts_short_is_begun_again() {
    let disk = machine();
    disk.record();
    drop(open(&disk));
    let images = disk.images();
    assert!(images.len() > 10, "a creation has {} steps", images.len());
    for image in images {
        let some = (0..6).map(Survives::Some);
        for survives in [Survives::Everything, Survives::Nothing].into_iter().chain(some) {
            let db = try_open(&image.reboot(survives));
            let db = db.unwrap_or_else(|error| panic!("{:?}, {survives:?}: {error}", image.op));
            db.write(views(1, 1)).expect("acknowledged");
            assert!(db.verify().expect("verified").is_sound());
        }
    }
}

#[test]
fn a_checkpoint_of_what_is_not_synced_begins_with_a_sync() {
    let disk = machine();
    let db = open(&disk);
    db.write(views(1, 5).durability(OS)).expect("acknowledged");
    disk.record();
    db.checkpoint().expect("a checkpoint");
    drop(db);
    let images = disk.images();
    assert!(images.len() > 2, "a checkpoint has {} steps", images.len());
    for image in images {
        let op = image.op;
        let db = try_open(&image.reboot(Survives::Nothing));
        let db = db.unwrap_or_else(|error| panic!("the power fails before {op:?}: {error}"));
        assert!([0, 5].contains(&seen(&db, 1)), "all of a batch or none");
    }
}

#[test]
fn large_groups_in_a_row_are_each_counted_once() {
    let db = ephemeral();
    // Known beforehand, so that the groups' cells can be looked up while they sync.
    for item in 0..8 {
        db.write(views(item, 1)).expect("acknowledged");
    }
    let tickets: tidaldb::Result<Vec<_>> = db.consistent(|_| {
        // The writer waits for the view, and all of them for the writer.
        std::thread::scope(|scope| {
            let submit = || (0..8).map(|item| db.submit(views(item, 2_000 + item))).collect();
            scope.spawn(submit).join().expect("does not panic")
        })
    });
    for ticket in tickets.expect("queued") {
        ticket.wait().expect("acknowledged");
    }
    for item in 0..8 {
        assert_eq!(seen(&db, item), 2_001 + item, "item {item}");
    }
}

#[test]
fn no_incarnation_is_used_twice_though_the_power_fails_right_after_an_open() {
    let mut disk = machine();
    for incarnation in 1..4 {
        let db = open(&disk);
        assert_eq!(db.status().incarnation, incarnation);
        let cut = disk.reboot(Survives::Nothing);
        drop(db);
        disk = cut;
    }
}

fn newest_segment(disk: &SimDisk) -> PathBuf {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|found| found == "seg");
    disk.paths().into_iter().filter(is_segment).max().expect("a log has a segment")
}

#[test]
fn the_last_operation_before_an_end_is_proven_synced_so_that_its_damage_is_reported() {
    for durability in [OS, Durability::Sync] {
        let disk = machine();
        let db = open(&disk);
        let ack = db.write(views(1, 5).durability(durability)).expect("acknowledged");
        // No checkpoint is written, so that only the log can prove anything.
        drop(db);
        let segment = newest_segment(&disk);
        let mut bytes = disk.content(&segment);
        // A frame: its magic, 12 bytes more, its sequence; its body is behind 88.
        let seq = ack.seq.get().to_le_bytes();
        let is_its_frame = |bytes: &[u8]| bytes.starts_with(b"\xfftF\xfe") && bytes[16..] == seq;
        let frame = bytes.windows(24).position(is_its_frame).expect("it is in the log");
        bytes[frame + 90] ^= 1;
        disk.put(&segment, bytes);
        let refused = try_open(&disk).expect_err("an acknowledged operation is damaged");
        assert!(matches!(refused, Error::CorruptLog { .. }), "{refused}");
    }
}

#[test]
fn the_log_forgets_only_what_both_stores_have_on_the_disk() {
    let disk = machine();
    let db = open(&disk);
    disk.record();
    for round in 1..5 {
        // More than a segment has room for, so that each checkpoint has one to remove.
        db.write(views(1, 5_000)).expect("acknowledged");
        disk.note(round * 5_000);
        db.checkpoint().expect("a checkpoint");
    }
    drop(db);
    let images = disk.images();
    let removals = images.iter().filter(|image| image.op == Op::Remove).count();
    assert!(removals >= 3, "{removals} removals");
    for image in images {
        for seed in 0..6 {
            let db = try_open(&image.reboot(Survives::Some(seed)));
            let db = db.unwrap_or_else(|error| panic!("before {:?}, {seed}: {error}", image.op));
            assert!(seen(&db, 1) >= image.note, "before {:?}, {seed}", image.op);
        }
    }
}

/// The bytes of all files of the log.
fn log_of(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let in_log = |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with("log"));
    let files = disk.paths().into_iter().filter(in_log);
    files.map(|path| (path.clone(), disk.content(&path))).collect()
}

fn is_moved_aside(disk: &SimDisk, store: &str) -> bool {
    let aside = store_path(store).with_extension("damaged");
    disk.shared().exists(&aside).expect("looked at")
}

#[test]
fn an_open_with_another_schema_leaves_the_log_as_it_was() {
    let disk = machine();
    let db = open(&disk);
    db.write(views(1, 5)).expect("acknowledged");
    // The process is killed: the log has a tail to be written anew.
    let killed = disk.reboot(Survives::Everything);
    let before = log_of(&killed);
    let mut other = SchemaBuilder::new();
    let _ = other.signal("view", EntityKind::Item, DecaySpec::None).add();
    let stores = Arc::new(SimStores::on(killed.clone()));
    let machine = Machine { disk: killed.shared(), stores, faults: Faults::NONE };
    let builder = TidalDb::builder().with_data_dir(PLACE).with_machine(machine);
    let refused = builder.with_schema(other.build().expect("sound")).open().expect_err("another");
    assert!(matches!(refused, Error::SchemaMismatch(_)), "{refused}");
    assert_eq!(log_of(&killed), before);
    assert_eq!(seen(&open(&killed), 1), 5);
}

/// A database whose stores both have a checkpoint, at rest.
fn settled() -> SimDisk {
    let disk = machine();
    let db = open(&disk);
    for _ in 0..3 {
        db.write(views(1, 5)).expect("acknowledged");
        db.checkpoint().expect("a checkpoint");
    }
    db.close().expect("closes");
    disk
}

#[test]
fn a_store_that_does_not_hold_stays_while_the_log_is_not_known_to_make_up_for_it() {
    for store in ["a", "b"] {
        let disk = settled();
        assert!(SimStores::on(disk.clone()).flip(&store_path(store), 999));
        disk.delete(&newest_segment(&disk));
        try_open(&disk).map(drop).expect_err("the log is not whole");
        assert!(!is_moved_aside(&disk, store), "it may be all that is left");
    }
}

#[test]
fn what_fails_for_now_while_a_store_is_opened_does_not_move_it_aside() {
    let before = settled();
    let mut failures = 0;
    for op in [Op::Create, Op::Write, Op::SetLen, Op::Sync, Op::Rename, Op::Remove, Op::SyncDir] {
        for after in 0.. {
            let disk = before.reboot(Survives::Everything);
            let kind = ErrorKind::PermissionDenied;
            disk.fail(Fault { after, of: Some(op), kind, for_good: false, is_short: false });
            failures += usize::from(try_open(&disk).is_err());
            for store in ["a", "b"] {
                assert!(!is_moved_aside(&disk, store), "{op:?} {after}: {store}");
            }
            if !disk.has_failed() {
                break;
            }
            assert_eq!(seen(&open(&disk), 1), 15, "{op:?} {after}");
        }
    }
    assert!(failures > 10, "{failures} opens failed");
}
