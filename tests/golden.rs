//! Databases as earlier versions left them, which every later version must open.
//!
//! `tests/golden/format-1.tar.gz` is a database that was left without a last checkpoint: a log of several
//! segments that goes on behind both stores, two stores at different sequences, pages, cold rows, a deletion. A
//! released format is never edited; a new one gets a file of its own beside it, written by
//! `TIDAL_WRITE_GOLDEN=1 cargo test --test golden`, and the digest that it prints.

use std::fs::File;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tidal_support::hex;
use tidal_support::operations::{
    FORMAT_1, apply, builder, quiet_options, schema, schema_of_format_1, survived,
};
use tidaldb::schema::{EntityId, Window};

/// The operations in it: of a seed, so many, with checkpoints after these.
const SEED: u64 = FORMAT_1;
const OPERATIONS: u64 = 90;
const CHECKPOINTS: [u64; 3] = [30, 50, 60];

/// The digest of its state.
const DIGEST: &str = "53b68971083eaeee1bdc96e740164c3a74e04f4ba3a5eb16391d54a0b89bbcb7";

fn archive() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join("format-1.tar.gz")
}

fn write_archive() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = quiet_options();
    options.segment_size_bytes = 16 << 10;
    let builder = builder(options).with_schema(schema_of_format_1());
    let db = builder.with_data_dir(dir.path()).open().expect("opens");
    let mut from = 0;
    for to in CHECKPOINTS {
        apply(&db, SEED, from..to, &mut |_| ());
        db.checkpoint().expect("a checkpoint");
        from = to;
    }
    apply(&db, SEED, from..OPERATIONS, &mut |_| ());
    println!("DIGEST {}", hex(&db.state_digest().expect("a digest")));
    drop(db);
    std::fs::remove_file(dir.path().join("reserve")).expect("it is not needed");
    let file = File::create(archive()).expect("the archive is created");
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::best()));
    tar.append_dir_all("", dir.path()).expect("archived");
    tar.into_inner().and_then(GzEncoder::finish).expect("written");
}

#[test]
fn a_database_of_format_1_opens_to_the_state_it_was_left_in() {
    if std::env::var("TIDAL_WRITE_GOLDEN").is_ok() {
        write_archive();
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = File::open(archive()).expect("the archive is there");
    tar::Archive::new(GzDecoder::new(file)).unpack(dir.path()).expect("unpacked");
    let open_with = |schema| {
        let builder = builder(quiet_options()).with_schema(schema);
        builder.with_data_dir(dir.path()).open().expect("opens")
    };
    let open = || open_with(schema_of_format_1());
    let db = open();
    assert_eq!(survived(&db), OPERATIONS);
    assert_eq!(hex(&db.state_digest().expect("a digest")), DIGEST);
    let reference = builder(quiet_options()).with_schema(schema_of_format_1()).ephemeral();
    let reference = reference.open().expect("opens");
    apply(&reference, SEED, 0..OPERATIONS, &mut |_| ());
    assert_eq!(hex(&reference.state_digest().expect("a digest")), DIGEST, "it means the same");
    let report = db.verify().expect("verified");
    assert!(report.is_sound(), "{report}");
    let repairs = &db.open_report().repairs;
    assert!(repairs.is_empty(), "nothing in it is broken: {repairs:?}");
    let count = |db: &tidaldb::TidalDb, id| {
        db.read_windowed_count(EntityId::new(id), "view", Window::AllTime).expect("read")
    };
    for id in 0..400 {
        let item = EntityId::new(id);
        let row = db.get_item_metadata(item).expect("read");
        assert_eq!(row, reference.get_item_metadata(item).expect("read"), "item {id}");
        assert_eq!(count(&db, id), count(&reference, id), "item {id}");
    }
    apply(&db, SEED, OPERATIONS..OPERATIONS + 20, &mut |_| ());
    db.close().expect("closes");
    assert_eq!(survived(&open()), OPERATIONS + 20, "it goes on");
    // With signals that are engaging from now on it connects what comes, and nothing before.
    let db = open_with(schema());
    assert_eq!(survived(&db), OPERATIONS + 21, "the schema is one more operation");
    assert_eq!(db.co_engagement().edge_count(), 0);
    apply(&db, SEED, OPERATIONS + 20..OPERATIONS + 60, &mut |_| ());
    assert!(db.co_engagement().edge_count() > 0);
    let digest = db.state_digest().expect("a digest");
    db.close().expect("closes");
    assert_eq!(open_with(schema()).state_digest().expect("a digest"), digest);
}
