//! Sources, event ids, event time, batches: what counts once, and what counts at all.

use std::time::Duration;
use tidaldb::schema::{Timestamp, Window};
use tidaldb::{Batch, Clock, Error, Event, ManualClock, Outcome, ReadOptions, TidalDb, TimeSource};

use crate::{DAY, HOUR, START, all_time, ephemeral, item, one, open, schema};

#[test]
fn event_ids_count_once_within_the_horizon_and_again_after_it() {
    let (clock, db) = ephemeral();
    let send = |id: &[u8]| {
        let mut batch = Batch::new();
        batch.push(Event::new("view", item(1), clock.now()).id(id));
        batch.push(Event::new("view", item(1), clock.now()).id(id));
        batch.push(Event::new("view", item(1), clock.now()));
        db.write(batch).expect("written").duplicates
    };
    assert_eq!(send(b"a"), 1, "also within one batch");
    assert_eq!(send(b"a"), 2);
    assert_eq!(send(b"b"), 1);
    clock.advance(DAY);
    assert_eq!(send(b"a"), 2, "the horizon is 24 h");
    clock.advance(Duration::from_nanos(1));
    assert_eq!(send(b"a"), 1, "forgotten");
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 5 * 3 - 7);
}

#[test]
fn event_ids_are_remembered_over_a_restart() {
    let (dir, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::at(START));
    let send = |db: &TidalDb| {
        db.write(one(Event::new("view", item(1), START).id(b"a"))).expect("written").duplicates
    };
    let db = open(dir.path(), schema(), &clock);
    assert_eq!(send(&db), 0);
    db.close().expect("closes");
    let db = open(dir.path(), schema(), &clock);
    assert_eq!(send(&db), 1);
    clock.advance(DAY + HOUR);
    assert_eq!(send(&db), 0);
}

/// A batch of as many events on item 1 as the range has positions.
fn range(first: u64, last: u64, at: Timestamp) -> Batch {
    let mut batch = Batch::from_source("s", first, last);
    for _ in first..=last {
        batch.push(Event::new("view", item(1), at));
    }
    batch
}

#[test]
fn a_source_is_applied_exactly_once() {
    let (_, db) = ephemeral();
    assert_eq!(db.source_offset("s"), None);
    assert_eq!(db.write(range(10, 19, START)).expect("new").outcome, Outcome::Applied);
    let digest = db.state_digest().expect("digest");
    for (first, last) in [(10, 19), (12, 15), (0, 3)] {
        let ack = db.write(range(first, last, START)).expect("answered");
        assert_eq!(ack.outcome, Outcome::AlreadyApplied { stored: 19 });
    }
    let refused = db.write(range(15, 25, START)).expect_err("it straddles");
    assert!(matches!(refused, Error::Overlap { stored: 19, .. }), "{refused}");
    let refused = db.write(range(21, 25, START).contiguous()).expect_err("20 is left out");
    assert!(matches!(refused, Error::Gap { stored: 19, .. }), "{refused}");
    assert_eq!(db.state_digest().expect("digest"), digest);
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 10);

    db.write(range(20, 20, START).contiguous()).expect("the next");
    db.write(range(30, 30, START)).expect("a hole in a source that may have holes");
    assert_eq!(db.source_offset("s"), Some(30));
    db.write(Batch::from_source("s", 31, 40)).expect("an empty batch moves the source");
    assert_eq!(db.source_offset("s"), Some(40));
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 12);
    db.write(range(u64::MAX, u64::MAX, START)).expect("the last position");
    let ack = db.write(range(u64::MAX, u64::MAX, START).contiguous()).expect("answered");
    assert_eq!(ack.outcome, Outcome::AlreadyApplied { stored: u64::MAX });
}

#[test]
fn of_two_callers_with_the_same_range_one_is_applied() {
    let (_, db) = ephemeral();
    for round in 0..50u64 {
        let tickets: Vec<_> = (0..4)
            .map(|_| db.submit(range(round * 10, round * 10 + 9, START)).expect("queued"))
            .collect();
        let outcomes = tickets.into_iter().map(|ticket| ticket.wait().expect("answered").outcome);
        assert_eq!(outcomes.filter(|outcome| *outcome == Outcome::Applied).count(), 1);
    }
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 500);
}

#[test]
fn an_event_that_is_refused_does_not_advance_event_time() {
    let builder = TidalDb::builder().ephemeral().with_schema(schema());
    let db = builder.with_time_source(TimeSource::Events).open().expect("opens");
    db.write(range(0, 9, START)).expect("new");
    let digest = db.state_digest().expect("digest");
    let later = START.saturating_add(DAY * 20);
    let refused = db.write(range(5, 15, later)).expect_err("it straddles");
    assert!(matches!(refused, Error::Overlap { .. }), "{refused}");
    assert_eq!(db.engine_time(), START, "after Overlap");
    let refused = db.write(range(12, 15, later).contiguous()).expect_err("10 is left out");
    assert!(matches!(refused, Error::Gap { .. }), "{refused}");
    assert_eq!(db.engine_time(), START, "after Gap");
    db.write(range(0, 9, later)).expect("already applied");
    assert_eq!(db.engine_time(), START, "after AlreadyApplied");
    assert_eq!(db.state_digest().expect("digest"), digest);
    assert_eq!(db.read_windowed_count(item(1), "view", Window::OneHour).expect("read"), 10);
    db.write(range(10, 10, START)).expect("the next");
    assert_eq!(db.engine_time(), START, "after the next event");
}

#[test]
fn event_time_is_the_latest_event_and_jumps_a_month_at_most() {
    let builder = TidalDb::builder().ephemeral().with_schema(schema());
    let db = builder.with_time_source(TimeSource::Events).open().expect("opens");
    let old = Timestamp::from_secs(1_000_000_000);
    db.signal("view", item(1), 1.0, old).expect("the first event may be of any time");
    assert_eq!(db.engine_time(), old);
    db.signal("view", item(1), 1.0, old.saturating_sub(DAY)).expect("late");
    assert_eq!(db.engine_time(), old);
    assert_eq!(db.read_windowed_count(item(1), "view", Window::TwentyFourHours).expect("read"), 1);
    let refused = db.signal("view", item(1), 1.0, old.saturating_add(DAY * 32)).expect_err("far");
    assert!(matches!(refused, Error::TooFarAhead { .. }), "{refused}");
    db.signal("view", item(1), 1.0, old.saturating_add(DAY * 31)).expect("a month");
    assert_eq!(db.read_windowed_count(item(1), "view", Window::ThirtyDays).expect("read"), 1);
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 3);
}

#[test]
fn a_batch_is_refused_whole() {
    let (_, db) = ephemeral();
    let digest = db.state_digest().expect("digest");
    let good = Event::new("view", item(1), START);
    let bad = [
        Event::new("vieww", item(1), START),
        good.cohort("nobody"),
        good.weight(f64::NAN),
        good.id(b""),
        Event::new("view", item(1), START.saturating_add(HOUR)),
    ];
    for bad in bad {
        let mut batch = Batch::from_source("s", 1, 3);
        batch.push(good).push(bad).push(good);
        assert!(db.write(batch).is_err(), "{bad:?}");
        assert_eq!(db.source_offset("s"), None);
        assert_eq!(db.state_digest().expect("digest"), digest, "{bad:?}");
    }
}
