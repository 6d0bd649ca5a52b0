//! The engine from outside: what is written is there, before and after reopening.

use std::collections::HashMap;
use std::time::Duration;

use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, Timestamp, Window,
};
use tidaldb::{Batch, Event, ReadOptions, TidalDb};

const ALL: [Window; 4] =
    [Window::OneHour, Window::TwentyFourHours, Window::SevenDays, Window::ThirtyDays];

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let half_life = Duration::from_secs(86_400);
    for name in ["view", "purchase"] {
        let _ = b
            .signal(name, EntityKind::Item, DecaySpec::Exponential { half_life })
            .half_lives(&[Duration::from_secs(1_800)])
            .windows(&ALL)
            .velocity(true)
            .add();
    }
    b.cohort("us-18-24", Predicate::eq("country", "US").and(Predicate::range("age", 18.0..25.0)));
    b.cohort_family("country", 100);
    b.named_cohort("editors-picks");
    b.build().expect("a sound schema")
}

fn item(n: u64) -> EntityId {
    EntityId::new(n)
}

fn pairs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn state_is_bit_identical_after_close_and_after_a_drop() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        TidalDb::builder().with_data_dir(dir.path()).with_schema(schema()).open().expect("opens")
    };
    let db = open();
    db.write_user(1, &pairs(&[("country", "US"), ("age", "20")])).expect("written");
    db.write_item(item(3), &pairs(&[("title", "three")])).expect("written");
    let now = Timestamp::now();
    for round in 0..50u64 {
        let mut batch = Batch::from_source("log", round * 10, round * 10 + 9);
        for i in 0..10 {
            let at = now.saturating_sub(Duration::from_secs(i * 777 * round));
            batch.push(Event::new("view", item(i * round % 13), at).user(1).weight(1.5));
        }
        db.write(batch).expect("written");
    }
    db.hide_item(item(0)).expect("written");
    let ids = db.intern(&["a", "b", "a"]).expect("interned");
    assert_eq!(ids[0], ids[2]);
    let digest = db.state_digest().expect("digest");
    let hot = db.hot("view", 5, &ReadOptions::new().cohort("us-18-24")).expect("hot");
    assert_eq!(hot.len(), 5);
    drop(db);

    let db = open();
    println!("{}", db.open_report());
    assert_eq!(db.state_digest().expect("digest"), digest, "after a drop");
    assert!(db.verify().expect("verified").is_sound());
    db.close().expect("closes");

    let db = open();
    println!("{}", db.open_report());
    assert_eq!(db.state_digest().expect("digest"), digest, "after a close");
    assert_eq!(db.source_offset("log"), Some(499));
    assert_eq!(db.get_item_metadata(item(3)).expect("read"), Some(pairs(&[("title", "three")])));
    db.checkpoint().expect("checkpoint");
    db.checkpoint().expect("checkpoint");
    let report = db.verify().expect("verified");
    assert!(report.is_sound(), "{report}");
    println!("{report}\n{:?}", db.status());
    assert_eq!(db.state_digest().expect("digest"), digest, "after checkpoints");
    db.close().expect("closes");
    let db = open();
    assert_eq!(db.state_digest().expect("digest"), digest, "after both checkpoints");
}
