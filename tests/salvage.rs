//! Databases that open refuses, and what a salvage saves of them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidal_support::contract::{Digests, assert_prefix};
use tidal_support::operations::{apply, builder, quiet_options, survived};
use tidal_support::{copy_dir, files};
use tidaldb::{Error, ErrorKind, Options, TidalDb};

const SEED: u64 = 77;
const OPERATIONS: u64 = 90;

fn options() -> Options {
    let mut options = quiet_options();
    options.segment_size_bytes = 8 << 10;
    options
}

fn open(dir: &Path) -> tidaldb::Result<TidalDb> {
    builder(options()).with_data_dir(dir).open()
}

/// A database with checkpoints after these operations, and everything proven synced.
fn database(checkpoints: &[u64]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let db = open(&path).expect("opens");
    let mut from = 0;
    for &to in checkpoints {
        apply(&db, SEED, from..to, &mut |_| ());
        db.checkpoint().expect("a checkpoint");
        from = to;
    }
    apply(&db, SEED, from..OPERATIONS, &mut |_| ());
    drop(db);
    (dir, path)
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.join("log")).expect("listed");
    let mut segments: Vec<_> = entries.map(|entry| entry.expect("read").path()).collect();
    segments.sort_unstable();
    segments
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("read");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

/// Open refuses; the salvage saves so many operations at least, but not all; nothing else is touched.
fn salvages(path: &Path, least: u64, what: &str) -> u64 {
    let refused = open(path).map(drop).expect_err(what);
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{what}: {refused}");
    let before = files(path);
    let target = path.with_file_name("salvaged");
    let salvage = TidalDb::salvage(path, &target).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(before == files(path), "{what}: the damaged database was changed");
    assert!(salvage.verified.is_sound(), "{what}: {salvage}");
    let mut digests = Digests::of(SEED);
    digests.reach(OPERATIONS + 10);
    let db = open(&target).expect("what was salvaged opens");
    let there = assert_prefix(&db, &digests, least, what);
    let is_known_lost = salvage.proven > salvage.saved;
    assert!(!is_known_lost || there < OPERATIONS, "{what}: {salvage}");
    apply(&db, SEED, there..there + 5, &mut |_| ());
    db.checkpoint().expect("a checkpoint");
    db.close().expect("closes");
    assert_eq!(survived(&open(&target).expect("opens")), there + 5, "{what}: it goes on");
    there
}

#[test]
fn what_lies_before_a_damaged_frame_is_saved() {
    let (_dir, path) = database(&[20, 30]);
    let damaged = segments(&path)[2].clone();
    edit(&damaged, |bytes| bytes[1_024 + 700] ^= 4);
    let there = salvages(&path, 30, "a flipped bit");
    assert!(there < OPERATIONS, "the frame was needed");
}

#[test]
fn a_log_that_lost_its_end_is_saved_up_to_there() {
    let (_dir, path) = database(&[20, 30]);
    std::fs::remove_file(segments(&path).pop().expect("a last one")).expect("removed");
    let there = salvages(&path, 30, "the last segment is gone");
    assert!(there < OPERATIONS, "there were operations in it");
}

#[test]
fn frames_are_saved_without_the_headers_and_seals_of_their_segments() {
    let (_dir, path) = database(&[20, 30]);
    for segment in segments(&path) {
        edit(&segment, |bytes| bytes[..1_024].fill(0x55));
    }
    // Every frame is there; of what was proven, only the seals are missing.
    assert_eq!(salvages(&path, OPERATIONS, "no header is whole"), OPERATIONS);
}

#[test]
fn frames_before_a_checkpoint_that_holds_are_not_missed() {
    let (_dir, path) = database(&[20, 60]);
    let first = segments(&path)[0].clone();
    edit(&first, |bytes| bytes[1_024 + 20] ^= 1);
    assert_eq!(salvages(&path, OPERATIONS, "the first frame is damaged"), OPERATIONS);
}

#[test]
fn without_a_checkpoint_and_a_first_frame_nothing_is_saved_and_said_to_be() {
    let (_dir, path) = database(&[]);
    edit(&segments(&path)[0], |bytes| bytes[1_024 + 20] ^= 1);
    let target = path.with_file_name("salvaged");
    let error = TidalDb::salvage(&path, &target).map(drop).expect_err("there is nothing");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("no first frame"), "{error}");
}

#[test]
fn a_salvage_of_what_is_sound_saves_all_of_it_and_one_of_what_is_open_is_refused() {
    let (dir, path) = database(&[40]);
    let copy = dir.path().join("copy");
    copy_dir(&path, &copy);
    let db = open(&path).expect("opens");
    let error = TidalDb::salvage(&path, &dir.path().join("x")).map(drop).expect_err("it is open");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(db);
    let target = dir.path().join("salvaged");
    let salvage = TidalDb::salvage(&copy, &target).expect("salvaged");
    assert!(salvage.saved >= salvage.proven, "{salvage}");
    assert_eq!(survived(&open(&target).expect("opens")), OPERATIONS);
}

#[test]
fn a_target_where_something_lies_or_in_the_source_is_refused_and_nothing_is_written() {
    let (dir, path) = database(&[40]);
    let before = files(&path);
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).expect("made");
    for target in [taken, path.join("inner"), path.join("log").join("inner")] {
        let error = TidalDb::salvage(&path, &target).map(drop).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let error = TidalDb::inspect(&path, &target).map(drop).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert!(before == files(&path), "the source was changed");
}

#[test]
fn a_lost_schema_is_said_to_be_lost() {
    let (_dir, path) = database(&[]);
    edit(&segments(&path)[0], |bytes| {
        // The schema is the second frame: its body is where the schema's names lie.
        let at = bytes.windows(4).position(|name| name == b"view").expect("it is declared");
        bytes[at] ^= 1;
    });
    let target = path.with_file_name("salvaged");
    let error = TidalDb::salvage(&path, &target).map(drop).expect_err("nothing can be read");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("schema"), "{error}");
    assert!(!target.exists(), "what is of no use has no name");
}
