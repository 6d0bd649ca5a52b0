//! What an answer is worth, one claim at a time, on a simulated machine.
//!
//! Random histories reach these instants seldom or never. Each claim is here because a deliberate
//! breakage (`tests/breakages`) passed every other suite.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tidal_support::contract::{PLACE, open_on};
use tidal_support::operations::{OS, ephemeral, quiet_options};
use tidal_support::sim::{Op, SimDisk, Survives};
use tidaldb::fault::Faults;
use tidaldb::schema::{EntityId, Timestamp, Window};
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
fn a_large_group_whose_sync_fails_is_neither_acknowledged_nor_seen() {
    let disk = machine();
    let db = open(&disk);
    db.write(views(1, 300)).expect("acknowledged");
    disk.fail_next(Op::Sync, ErrorKind::Other);
    let refused = db.write(views(2, 300)).expect_err("it is not synced");
    assert!(matches!(refused, Error::Io { action: "sync", .. }), "{refused}");
    assert!(matches!(db.write(views(3, 1)), Err(Error::Stopped { .. })), "the way back is reopen");
    assert_eq!((seen(&db, 1), seen(&db, 2)), (300, 0));
    drop(db);
    let db = open(&disk.reboot(Survives::Nothing));
    assert_eq!((seen(&db, 1), seen(&db, 2)), (300, 0));
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

/// The newest segment of the log, and where its frames begin.
fn frames(disk: &SimDisk) -> (PathBuf, Vec<usize>) {
    let log = Path::new(PLACE).join("log");
    let in_log = |path: &PathBuf| path.starts_with(&log) && path.extension().is_some();
    let newest = disk.paths().into_iter().filter(in_log).max().expect("a log has a segment");
    let bytes = disk.content(&newest);
    let starts = bytes.windows(4).enumerate().filter(|(_, window)| window == b"\xfftF\xfe");
    let starts = starts.map(|(at, _)| at).collect();
    (newest, starts)
}

#[test]
fn the_last_operation_before_an_end_is_proven_synced_so_that_its_damage_is_reported() {
    for durability in [OS, Durability::Sync] {
        let disk = machine();
        let db = open(&disk);
        db.write(views(1, 5).durability(durability)).expect("acknowledged");
        // No checkpoint is written, so that only the log can prove anything.
        drop(db);
        let (segment, frames) = frames(&disk);
        let [.., operation, _mark] = frames[..] else { panic!("{} frames", frames.len()) };
        let mut bytes = disk.content(&segment);
        bytes[operation + 90] ^= 1;
        disk.put(&segment, bytes);
        let refused = try_open(&disk).expect_err("an acknowledged operation is damaged");
        assert!(matches!(refused, Error::CorruptLog { .. }), "{refused}");
    }
}
