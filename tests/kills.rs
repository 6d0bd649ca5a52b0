//! Processes that are killed at random instants, and bytes that are flipped behind the engine's back.
//!
//! Everything follows from seeds, which are printed: `TIDAL_SEED=… cargo test --test kills` repeats the
//! operations (the instants of the kills are the machine's). `TIDAL_KILLS=…` kills more often.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidal_support::child::{self, Victim};
use tidal_support::operations::{
    apply, builder, ephemeral, is_batch, open, options, quiet_options, survived,
};
use tidal_support::random::Random;
use tidal_support::{copy_dir, files, hex};
use tidaldb::schema::{EntityId, Timestamp, Window};
use tidaldb::{Batch, Event, ReadOptions, TidalDb};

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let dir = PathBuf::from(child::told("TIDAL_DIR"));
    if role == "open" {
        return report_opening(&dir);
    }
    let seed = child::told("TIDAL_OPS_SEED").parse().expect("a number");
    let db = open(&dir);
    let first = survived(&db);
    apply(&db, seed, first..u64::MAX, &mut |i| child::report(&i.to_string()));
}

#[test]
fn what_survives_a_kill_is_a_prefix_with_all_that_was_acknowledged() {
    let seed = Random::seed_from("TIDAL_SEED");
    let kills: u64 = tidal_support::setting("TIDAL_KILLS", 30);
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a directory");
    let reference = ephemeral();
    assert_eq!(survived(&reference), 0, "operations are counted from the first");
    let (mut applied, mut repairs) = (0, 0);
    for round in (0..kills).take_while(|_| !tidal_support::is_time_up()) {
        let says =
            [("TIDAL_DIR", dir.path().display().to_string()), ("TIDAL_OPS_SEED", seed.to_string())];
        let mut victim = Victim::spawn("child", "write", &says);
        let mut acknowledged = None;
        // One in four dies somewhere on its way to its first operation.
        if round % 4 != 3 {
            acknowledged = victim.next_report();
            assert!(acknowledged.is_some(), "round {round}: the child ended by itself");
            std::thread::sleep(Duration::from_micros(random.below(400_000)));
        } else {
            std::thread::sleep(Duration::from_micros(random.below(300_000)));
        }
        let acknowledged = victim
            .kill()
            .pop()
            .or(acknowledged)
            .map(|text| text.parse::<u64>().expect("an index") + 1);
        let db = open(dir.path());
        let there = survived(&db);
        let what = format!("seed {seed}, round {round}, {}", db.open_report());
        assert!(
            there >= acknowledged.unwrap_or(applied),
            "{acknowledged:?} lost at {there}: {what}"
        );
        assert!(there >= applied, "what was there is gone: {what}");
        let report = db.verify().expect("verified");
        assert!(report.is_sound(), "{report}\n{what}");
        apply(&reference, seed, applied..there, &mut |_| ());
        applied = there;
        let last_batch = (0..there).rev().find(|&i| is_batch(i));
        assert_eq!(db.source_offset("ops"), last_batch, "{what}");
        let (found, expected) = (db.state_digest(), reference.state_digest());
        assert_eq!(hex(&found.expect("read")), hex(&expected.expect("read")), "{what}");
        assert_metadata_equal(&db, &reference);
        repairs += db.open_report().repairs.len();
        if random.one_in(6) {
            db.close().expect("closes");
        }
    }
    println!("{kills} kills, {applied} operations, {repairs} repairs");
    assert!(applied > 100, "too little happened between the kills to prove anything");
}

#[test]
fn a_creation_that_is_killed_is_begun_again() {
    let mut random = Random::new(Random::seed_from("TIDAL_SEED"));
    let mut unfinished = 0;
    for round in 0..12 {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new").join("database");
        let says = [("TIDAL_DIR", path.display().to_string()), ("TIDAL_OPS_SEED", "1".to_owned())];
        let victim = Victim::spawn("child", "write", &says);
        std::thread::sleep(Duration::from_micros(random.below(80_000)));
        let acknowledged =
            victim.kill().pop().map_or(0, |text| text.parse::<u64>().expect("an index") + 1);
        let db = open(&path);
        unfinished += u64::from(survived(&db) == 0);
        assert!(survived(&db) >= acknowledged, "round {round}: {}", db.open_report());
        let report = db.verify().expect("verified");
        assert!(report.is_sound(), "round {round}: {report}");
        db.close().expect("closes");
    }
    println!("{unfinished} of 12 had no operation yet");
}

fn assert_metadata_equal(db: &TidalDb, reference: &TidalDb) {
    for item in (0..400).map(EntityId::new) {
        let (found, expected) = (db.get_item_metadata(item), reference.get_item_metadata(item));
        assert_eq!(found.expect("read"), expected.expect("read"), "metadata of item {item}");
    }
}

#[test]
fn four_threads_that_write_and_read_lose_nothing() {
    const BATCHES: u64 = 150;
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path());
    let begin = Timestamp::from_secs(1_700_000_000);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let db = &db;
            scope.spawn(move || {
                for i in 0..BATCHES {
                    let name = format!("thread {thread}");
                    let mut batch = Batch::from_source(&name, i, i).contiguous();
                    for n in 0..10 {
                        let cohort = ["country=FR", "editors-picks"][n as usize % 2];
                        let at = begin.saturating_add(Duration::from_secs(i));
                        batch.push(Event::new("view", EntityId::new(n), at).cohort(cohort));
                    }
                    db.write(batch).expect("written");
                    // Reads see whole batches, and what this thread wrote.
                    let items: Vec<EntityId> = (0..10).map(EntityId::new).collect();
                    let mut counts = [0; 10];
                    let options = ReadOptions::new();
                    let all = Window::AllTime;
                    db.consistent(|view| {
                        view.windowed_counts(&items, "view", all, &options, &mut counts)
                    })
                    .expect("read");
                    assert!(
                        counts.iter().all(|&count| count == counts[0] && count > i),
                        "{counts:?}"
                    );
                    let hot = db.hot("view", 10, &ReadOptions::new()).expect("hot");
                    assert_eq!(hot.len(), 10);
                }
            });
        }
    });
    for (n, cohort) in (0..10).map(|n| (n, ["country=FR", "editors-picks"][n as usize % 2])) {
        let count = |options: &ReadOptions| {
            db.windowed_count(EntityId::new(n), "view", Window::OneHour, options).expect("read")
        };
        assert_eq!(count(&ReadOptions::new()), 4 * BATCHES);
        assert_eq!(count(&ReadOptions::new().cohort(cohort)), 4 * BATCHES);
    }
    let report = db.verify().expect("verified");
    assert!(report.is_sound(), "{report}");
    let digest = db.state_digest().expect("digest");
    drop(db);
    let db = open(dir.path());
    assert_eq!(db.state_digest().expect("digest"), digest, "after a drop");
    db.close().expect("closes");
    let db = open(dir.path());
    assert_eq!(db.state_digest().expect("digest"), digest, "after a close");
    assert_eq!(db.source_offset("thread 3"), Some(BATCHES - 1));
}

#[test]
fn an_idle_database_comes_to_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path());
    apply(&db, 1, 0..40, &mut |_| ());
    let mut last = None;
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(100));
        let now = Some((db.status(), files(dir.path())));
        if now == last {
            return;
        }
        last = now;
    }
    panic!("ten seconds after the last operation it still writes: {:?}", db.status());
}

/// What a child says about opening a directory: `error …`, or `digest … repairs n`.
fn report_opening(dir: &Path) {
    let builder = TidalDb::builder().with_data_dir(dir).with_options(options());
    let line = match builder.open().and_then(|db| Ok((db.state_digest()?, db))) {
        Ok((digest, db)) => {
            let rows: Vec<_> = (0..400)
                .map(|n| db.get_item_metadata(EntityId::new(n)).map_err(|e| e.to_string()))
                .collect();
            let unread = rows.iter().filter(|row| row.is_err()).count();
            let repairs = db.open_report().repairs.join(" | ");
            format!("digest {} unread {unread} repairs {repairs}", hex(&digest))
        }
        Err(error) => format!("error {:?}: {error}", error.kind()),
    };
    child::report(&line.replace('\n', " "));
}

/// Opens in a child, again when it dies of it; its answer, and how often it died.
fn open_in_child(dir: &Path) -> (String, u32) {
    for deaths in 0..4 {
        let says = [("TIDAL_DIR", dir.display().to_string())];
        let (mut reports, status) = Victim::spawn("child", "open", &says).finish();
        if let Some(report) = reports.pop() {
            return (report, deaths);
        }
        println!("the child died of opening: {status}");
    }
    panic!("four opens died, the directory cannot be used: {}", dir.display());
}

#[test]
fn a_flipped_bit_is_an_error_or_a_repair_and_never_another_state() {
    let seed = Random::seed_from("TIDAL_SEED");
    let flips: u64 = tidal_support::setting("TIDAL_FLIPS", 60);
    let mut random = Random::new(seed);
    let pristine = tempfile::tempdir().expect("a directory");
    let db = open(pristine.path());
    apply(&db, seed, 0..300, &mut |_| ());
    let digest = hex(&db.state_digest().expect("digest"));
    db.close().expect("closes");

    let (mut errors, mut repaired, mut harmless, mut died) = (0, 0, 0, 0);
    for flip in (0..flips).take_while(|_| !tidal_support::is_time_up()) {
        let copy = tempfile::tempdir().expect("a directory");
        copy_dir(pristine.path(), copy.path());
        // Segments are mostly zeros behind their end, so aim where something is written.
        let mut files = files(copy.path());
        files.retain(|(path, bytes)| !path.ends_with("reserve") && bytes.iter().any(|&b| b != 0));
        let (path, mut bytes) = files.swap_remove(random.below(files.len() as u64) as usize);
        let used = bytes.iter().rposition(|&b| b != 0).expect("something is written") as u64 + 1;
        let at = random.below(used) as usize;
        bytes[at] ^= 1 << random.below(8);
        std::fs::write(&path, bytes).expect("the flip is written");

        let place =
            path.strip_prefix(copy.path()).expect("it is in the copy").display().to_string();
        let (answer, deaths) = open_in_child(copy.path());
        let what = format!("seed {seed}, flip {flip} of byte {at} in {place}: {answer}");
        died += deaths;
        if answer.starts_with("error ") {
            // What cannot be opened must not be an everyday matter: the stores cover each other.
            assert!(
                !place.starts_with("store"),
                "one store is lost and the other is not used: {what}"
            );
            errors += 1;
            continue;
        }
        let fields: Vec<&str> = answer.splitn(6, ' ').collect();
        assert_eq!(fields[1], digest, "another state: {what}");
        assert_eq!(fields[3], "0", "rows cannot be read: {what}");
        if fields.get(5).is_some_and(|repairs| !repairs.is_empty()) {
            repaired += 1;
        } else {
            harmless += 1;
        }
    }
    println!(
        "{flips} flips: {errors} errors, {repaired} repairs, {harmless} harmless, {died} deaths"
    );
}

#[test]
fn a_store_that_falls_back_by_one_checkpoint_costs_nothing() {
    let quiet = |dir: &Path| {
        builder(quiet_options()).with_data_dir(dir).open().expect("the database opens")
    };
    let (dir, old) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("one"));
    let mut from = 0;
    let mut write = |db: &TidalDb| {
        apply(db, 9, from..from + 300, &mut |_| ());
        from += 300;
        db.checkpoint().expect("checkpoint");
    };
    let db = quiet(dir.path());
    write(&db);
    write(&db);
    drop(db);
    // fjall can lose the end of its journal to one bit, and say nothing: this is such a store.
    copy_dir(&dir.path().join("store"), &old.path().join("store"));
    let db = quiet(dir.path());
    write(&db);
    let newest = db.status().stores.into_iter().max_by_key(|store| store.seq).expect("two").name;
    let digest = db.state_digest().expect("digest");
    drop(db);
    let store = dir.path().join("store").join(newest);
    std::fs::remove_dir_all(&store).expect("removed");
    copy_dir(&old.path().join("store").join(newest), &store);
    for _ in 0..2 {
        let db = quiet(dir.path());
        assert_eq!(hex(&db.state_digest().expect("digest")), hex(&digest), "{}", db.open_report());
        db.checkpoint().expect("checkpoint");
        let report = db.verify().expect("verified");
        assert!(report.is_sound(), "{report}");
    }
}

#[test]
fn either_store_may_be_lost_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path());
    apply(&db, 5, 0..300, &mut |_| ());
    let digest = db.state_digest().expect("digest");
    drop(db);
    for store in ["a", "b", "a"] {
        std::fs::remove_dir_all(dir.path().join("store").join(store)).expect("removed");
        let db = open(dir.path());
        assert_eq!(db.state_digest().expect("digest"), digest, "without store {store}");
        assert!(!db.open_report().repairs.is_empty(), "the loss is reported");
        db.checkpoint().expect("checkpoint");
        db.checkpoint().expect("checkpoint");
        db.health_check().expect("both stores are whole again");
        let report = db.verify().expect("verified");
        assert!(report.is_sound(), "{report}");
        if store == "b" {
            db.close().expect("closes");
        }
    }
}
