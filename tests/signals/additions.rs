//! What is added to a schema or dictionary later.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tidal_support::pairs;
use tidaldb::schema::{DecaySpec, EntityKind, Schema, SchemaBuilder, Window};
use tidaldb::{Clock, Error, Event, ManualClock, ReadOptions, TidalDb};

use crate::{DAY, START, ephemeral, item, of, one, open, schema};

/// The schema of [`additions_count_from_then_on_also_after_reopening`] before its additions.
fn narrow_schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let decay = DecaySpec::Exponential { half_life: DAY };
    let _ = b.signal("view", EntityKind::Item, decay).windows(&[Window::SevenDays]).add();
    b.cohort_family("country", 3);
    b.build().expect("sound")
}

#[test]
fn additions_count_from_then_on_also_after_reopening() {
    let (dir, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::at(START));
    let view = |db: &TidalDb, user: u64| {
        db.write(one(Event::new("view", item(1), clock.now()).user(user))).expect("written")
    };
    let db = open(dir.path(), narrow_schema(), &clock);
    db.write_user(1, &pairs(&[("country", "FR"), ("age", "40")])).expect("written");
    view(&db, 1);
    view(&db, 1);
    db.close().expect("closes");

    clock.advance(Duration::from_secs(600));
    let db = open(dir.path(), schema(), &clock);
    let look = |db: &TidalDb| {
        let count = |window, options: &ReadOptions| {
            db.windowed_count(item(1), "view", window, options).expect("counted")
        };
        let score = |half_life| {
            let options = ReadOptions::new().half_life(half_life).now(clock.now());
            db.score(item(1), "view", &options).expect("score")
        };
        (
            [Window::OneHour, Window::TwentyFourHours, Window::SevenDays, Window::AllTime]
                .map(|window| count(window, &ReadOptions::new())),
            count(Window::AllTime, &of("country=FR")),
            count(Window::AllTime, &of("adults")),
            score(Duration::MAX),
            db.windowed_count(item(1), "like", Window::AllTime, &ReadOptions::new()).expect("new"),
        )
    };
    assert_eq!(look(&db), ([0, 0, 2, 2], 2, 0, 0.0, 0));
    // Windows tell minutes apart: a new one counts from the first minute after its addition.
    clock.advance(Duration::from_secs(60));
    view(&db, 1);
    db.signal("like", item(1), 1.0, clock.now()).expect("the new signal counts");
    let expected = ([1, 1, 3, 3], 3, 1, 1.0, 1);
    assert_eq!(look(&db), expected, "users written before are in the new cohort");
    let digest = db.state_digest().expect("digest");
    drop(db);

    for close in [false, true] {
        let db = open(dir.path(), schema(), &clock);
        assert_eq!(look(&db), expected);
        assert_eq!(db.state_digest().expect("digest"), digest);
        if close {
            db.close().expect("closes");
        }
    }
    // A program that does not know the additions must not open it; one that names none may.
    let refused = TidalDb::builder().with_data_dir(dir.path()).with_schema(narrow_schema()).open();
    assert!(matches!(refused, Err(Error::SchemaMismatch(_))), "{refused:?}");
    let clock = Arc::new(clock.clone());
    let db = TidalDb::builder().with_data_dir(dir.path()).with_clock(clock).open().expect("opens");
    assert_eq!(look(&db), expected);
    assert_eq!(db.state_digest().expect("digest"), digest);
}

#[test]
fn texts_have_one_id_for_ever() {
    let (_, db) = ephemeral();
    let first = db.intern(&["a", "b", "a", "ü"]).expect("interned");
    assert_eq!(first[0], first[2]);
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 3);
    assert_eq!(db.intern(&["ü", "c", "a"]).expect("interned")[0], first[3]);
    assert_eq!(db.lookup_text("b"), Some(first[1]));
    assert_eq!(db.entity_text(first[3]).as_deref(), Some("ü"));
    assert_eq!(db.lookup_text("never"), None);
    assert_eq!(db.entity_text(item(1)), None);
    assert!(db.intern(&[]).expect("nothing is fine").is_empty());
    let many: Vec<String> = (0..40_000).map(|n| format!("text {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let ids = db.intern(&many).expect("interned");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 40_000);
    assert_eq!(db.intern(&many).expect("interned"), ids);
}
