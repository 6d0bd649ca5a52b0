//! What a directory may go through between two opens, and what a process may do with a path.
//!
//! Stores of a copy that went its own way, a log that is gone, a process that changes its directory, a
//! ticket that is waited for where the writer waits: each was once a silent loss, or a hang.

use std::path::{Path, PathBuf};

use tidal_support::child::{self, Victim};
use tidal_support::operations::{apply, builder, ephemeral, quiet_options, survived};
use tidal_support::{copy_dir, hex, pairs};
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Batch, Error, ErrorKind, Event, Options, TidalDb};

const SEED: u64 = 5;

fn options() -> Options {
    let mut options = quiet_options();
    options.segment_size_bytes = 2 << 10;
    options
}

fn open(dir: &Path) -> tidaldb::Result<TidalDb> {
    builder(options()).with_data_dir(dir).open()
}

#[test]
fn a_store_of_a_copy_that_went_its_own_way_is_rebuilt() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let db = open(&ours).expect("opens");
    apply(&db, SEED, 0..50, &mut |_| ());
    db.checkpoint().expect("a checkpoint");
    db.checkpoint().expect("another");
    drop(db);
    copy_dir(&ours, &theirs);
    let item = |n: u64| EntityId::new(10_000 + n);
    let go_on = |dir: &Path, owner: &str, hides: u64| {
        let db = open(dir).expect("opens");
        for round in 0..4 {
            db.write_item(item(round), &pairs(&[("owner", owner)])).expect("written");
            for n in 0..hides {
                db.hide_item(EntityId::new(n)).expect("hidden");
            }
            db.checkpoint().expect("a checkpoint");
        }
        hex(&db.state_digest().expect("a digest"))
    };
    let digest = go_on(&ours, "ours", 40);
    go_on(&theirs, "theirs", 1);
    std::fs::remove_dir_all(ours.join("store/a")).expect("removed");
    copy_dir(&theirs.join("store/a"), &ours.join("store/a"));
    for round in 0..3 {
        let db = open(&ours).expect("opens");
        let report = db.open_report().clone();
        assert_eq!(hex(&db.state_digest().expect("a digest")), digest, "{round}: {report}");
        assert_eq!(round > 0, report.repairs.is_empty(), "{round}: {report}");
        for n in 0..4 {
            let row = db.get_item_metadata(item(n)).expect("read");
            assert_eq!(row, Some(pairs(&[("owner", "ours")])), "{round}, item {n}: {report}");
        }
        db.checkpoint().expect("a checkpoint");
        db.checkpoint().expect("another");
    }
}

#[test]
fn a_log_that_is_gone_is_lost_and_not_made_anew() {
    for checkpoints in 0..2 {
        let dir = tempfile::tempdir().expect("a directory");
        let db = open(dir.path()).expect("opens");
        apply(&db, SEED, 0..30, &mut |_| ());
        for _ in 0..checkpoints {
            db.checkpoint().expect("a checkpoint");
        }
        drop(db);
        std::fs::remove_dir_all(dir.path().join("log")).expect("removed");
        for _ in 0..2 {
            let error = open(dir.path()).map(drop).expect_err("thirty operations are gone");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }
}

/// Not a test by itself: a process that opens by a relative path, and goes elsewhere.
#[test]
fn child() {
    let Some(_) = child::role() else { return };
    let root = PathBuf::from(child::told("TIDAL_DIR"));
    std::env::set_current_dir(root.join("one")).expect("it is there");
    let db = open(Path::new("db")).expect("opens");
    std::env::set_current_dir(root.join("two")).expect("it is there");
    apply(&db, SEED, 30..90, &mut |_| ());
    db.checkpoint().expect("a checkpoint");
    db.checkpoint().expect("another");
    apply(&db, SEED, 90..120, &mut |_| ());
    db.close().expect("closes");
}

#[test]
fn a_database_opened_by_a_relative_path_stays_where_it_is_when_the_process_moves() {
    let dir = tempfile::tempdir().expect("a directory");
    let places = ["one", "two"].map(|name| dir.path().join(name).join("db"));
    for place in &places {
        let db = open(place).expect("opens");
        apply(&db, SEED, 0..30, &mut |_| ());
    }
    let says = [("TIDAL_DIR", dir.path().display().to_string())];
    let (_, status) = Victim::spawn("child", "moves", &says).finish();
    assert!(status.success(), "{status}");
    for (place, count) in places.iter().zip([120, 30]) {
        let db = open(place).expect("opens");
        let reference = ephemeral();
        apply(&reference, SEED, 0..count, &mut |_| ());
        assert_eq!(survived(&db), count);
        let (found, expected) = (db.state_digest(), reference.state_digest());
        assert_eq!(found.expect("a digest"), expected.expect("a digest"));
    }
}

#[test]
fn a_ticket_is_not_waited_for_within_a_view() {
    let db = ephemeral();
    let mut batch = Batch::new();
    batch.push(Event::new("view", EntityId::new(1), Timestamp::from_secs(1_600_000_000)));
    let other = ephemeral();
    let elsewhere = db.consistent(|_| other.submit(batch.clone())?.wait());
    elsewhere.expect("another database's writer does not wait for this view");
    let ticket = db.submit(batch).expect("queued");
    let refused = db.consistent(|_| ticket.wait()).expect_err("the writer may be waiting");
    assert!(matches!(refused, Error::InvalidArgument { .. }), "{refused}");
}
