//! Closing, opening, checkpoints and resets of the clock leave no trace in the state.

use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp, Window};
use tidaldb::{Batch, Clock, Durability, Event, ManualClock, Options, ReadOptions, TidalDb};

use crate::{DAY, HOUR, START, all_windows, item, open, schema};

/// What may happen to a database between two looks at its digest.
#[derive(Debug, Clone)]
enum Chapter {
    Count(Vec<(u64, u64, bool)>),
    Pass(u64),
    ResetTo(i64),
    Delete(u64),
    Checkpoint,
    Reopen { close: bool },
}

fn chapter() -> impl Strategy<Value = Chapter> {
    let late = prop_oneof![3 => 0..100u64, 2 => 0..10_000u64, 1 => 0..3_000_000u64];
    let counts = prop::collection::vec((0..3u64, late, any::<bool>()), 1..30);
    let pass = prop_oneof![2 => 0..600u64, 1 => 0..100_000u64, 1 => 0..4_000_000u64];
    prop_oneof![
        24 => counts.prop_map(Chapter::Count),
        12 => pass.prop_map(Chapter::Pass),
        2 => (-5_000_000..5_000_000i64).prop_map(Chapter::ResetTo),
        1 => (0..3u64).prop_map(Chapter::Delete),
        2 => Just(Chapter::Checkpoint),
        2 => any::<bool>().prop_map(|close| Chapter::Reopen { close }),
    ]
}

fn live(db: &TidalDb, clock: &ManualClock, chapter: &Chapter) {
    match chapter {
        Chapter::Count(events) => {
            let mut batch = Batch::new();
            for (n, late, with_id) in events {
                let at = clock.now().saturating_sub(Duration::from_secs(*late));
                let id = late.to_le_bytes();
                let event = Event::new("view", item(*n), at).cohort("editors-picks");
                batch.push(if *with_id { event.id(&id) } else { event });
            }
            db.write(batch).expect("written");
        }
        Chapter::ResetTo(_) => drop(db.reset_clock().expect("reset")),
        Chapter::Delete(n) => drop(db.delete_item(item(*n)).expect("deleted")),
        Chapter::Checkpoint => drop(db.checkpoint().expect("checkpoint")),
        Chapter::Pass(_) | Chapter::Reopen { .. } => (),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn reopening_is_invisible_whatever_the_clock_did(
        chapters in prop::collection::vec(chapter(), 1..80),
    ) {
        let (dir, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::at(START));
        let builder = TidalDb::builder().ephemeral().with_schema(schema());
        let whole = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
        let mut db = open(dir.path(), schema(), &clock);
        for chapter in chapters.iter().chain([&Chapter::Reopen { close: false }]) {
            match chapter {
                Chapter::Pass(seconds) => clock.advance(Duration::from_secs(*seconds)),
                Chapter::ResetTo(by) => {
                    let now = clock.now().as_nanos() as i128 + i128::from(*by) * 1_000_000_000;
                    clock.set(Timestamp::from_nanos(now as u64));
                }
                Chapter::Reopen { close } => {
                    if *close {
                        db.close().expect("closes");
                    } else {
                        drop(db);
                    }
                    db = open(dir.path(), schema(), &clock);
                    let report = db.verify().expect("verified");
                    prop_assert!(report.is_sound(), "{}", report);
                }
                _ => (),
            }
            live(&db, &clock, chapter);
            live(&whole, &clock, chapter);
            let (found, expected) = (db.state_digest(), whole.state_digest());
            prop_assert_eq!(found.expect("read"), expected.expect("read"), "{:?}", chapter);
        }
    }
}

#[test]
fn a_clock_set_back_does_not_show_how_much_room_lists_had() {
    let (dir, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::at(START));
    let builder = TidalDb::builder().ephemeral().with_schema(schema());
    let whole = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
    let db = open(dir.path(), schema(), &clock);
    // Item n has n minutes: some lists are full, and have room again once they are loaded.
    for n in 1..80 {
        for minute in 0..n {
            let at = START.saturating_sub(Duration::from_secs(60 * (n - minute)));
            for db in [&db, &whole] {
                let mut batch =
                    Batch::new().durability(tidaldb::Durability::Os { sync_every: HOUR });
                batch.push(Event::new("view", item(n), at));
                db.write(batch).expect("written");
            }
        }
    }
    db.close().expect("closes");
    let db = open(dir.path(), schema(), &clock);
    clock.advance(DAY * 10);
    for db in [&db, &whole] {
        let mut batch = Batch::new();
        for n in 1..80 {
            batch.push(Event::new("view", item(n), clock.now()));
        }
        db.write(batch).expect("written");
    }
    clock.set(START);
    for db in [&db, &whole] {
        db.reset_clock().expect("reset");
    }
    let items: Vec<EntityId> = (1..80).map(item).collect();
    let mut counts = [vec![0; items.len()], vec![0; items.len()]];
    for window in all_windows() {
        for (db, counts) in [&db, &whole].into_iter().zip(&mut counts) {
            let options = ReadOptions::new().now(START);
            db.windowed_counts(&items, "view", window, &options, counts).expect("read");
        }
        assert_eq!(counts[0], counts[1], "{window}");
    }
    let (found, expected) = (db.state_digest(), whole.state_digest());
    assert_eq!(found.expect("read"), expected.expect("read"));
}

/// A clock that is never read twice at the same time.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        START.saturating_add(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn what_is_replayed_has_the_time_that_it_had_when_it_was_written() {
    let (dir, clock) = (tempfile::tempdir().expect("a directory"), Arc::new(Ticking::default()));
    let open = || {
        let builder = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema());
        builder.with_clock(Arc::clone(&clock) as _).open().expect("opens")
    };
    let db = open();
    for n in 0..3 {
        db.signal("view", item(n), 1.0, START).expect("written");
    }
    let digest = db.state_digest().expect("digest");
    drop(db);
    assert_eq!(open().state_digest().expect("digest"), digest);
}

/// How many events at these minutes a window counts.
fn in_window(minutes: &[u64], window: Window, now: Timestamp) -> u64 {
    let grain = u64::from(window.grain_minutes().expect("it has one"));
    let to = (now.as_nanos() / 60_000_000_000 / grain + 1) * grain;
    let from = to - grain * u64::from(window.buckets().expect("it has some"));
    minutes.iter().filter(|minute| (from..to).contains(minute)).count() as u64
}

/// An hour and thirty days, and nothing in between, keep minutes apart for longest.
#[test]
fn a_hot_item_that_a_client_counts_two_hours_ahead_is_written_and_comes_back() {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut b = SchemaBuilder::new();
    let windows = [Window::OneHour, Window::ThirtyDays];
    let half_life = DAY;
    let decay = DecaySpec::Exponential { half_life };
    let _ = b.signal("view", EntityKind::Item, decay).windows(&windows).velocity(true).add();
    let schema = b.build().expect("sound");
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let mut options = Options::default();
    options.max_future_skew = 2 * HOUR;
    let open = || {
        let builder = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema.clone());
        let builder = builder.with_options(options.clone()).with_clock(Arc::new(clock.clone()));
        builder.open().expect("opens")
    };
    let db = open();
    let mut minutes = Vec::new();
    let minute_of = |at: Timestamp| at.as_nanos() / 60_000_000_000;
    let first = START.saturating_sub(30 * DAY);
    let of_month: Vec<Timestamp> =
        (0..30 * 24 * 60 + 120).map(|n| first.saturating_add(MINUTE * n)).collect();
    for some in of_month.chunks(5_000) {
        let mut batch = Batch::new();
        some.iter().for_each(|&at| {
            batch.push(Event::new("view", item(7), at));
        });
        db.write(batch).expect("written");
        minutes.extend(some.iter().copied().map(minute_of));
    }
    // Through all of an 8-hour bucket: at some moment of it there is most to be told apart.
    for _ in 0..480 {
        clock.advance(MINUTE);
        let mut batch = Batch::new().durability(Durability::Os { sync_every: HOUR });
        for at in [clock.now(), clock.now().saturating_add(2 * HOUR)] {
            batch.push(Event::new("view", item(7), at));
            minutes.push(minute_of(at));
        }
        db.write(batch).expect("written");
    }
    let expected = windows.map(|window| in_window(&minutes, window, clock.now()));
    let counts = |db: &TidalDb| {
        windows.map(|window| db.read_windowed_count(item(7), "view", window).expect("counted"))
    };
    assert_eq!(counts(&db), expected);
    db.close().expect("closes");
    let db = open();
    assert_eq!(counts(&db), expected);
    assert!(db.verify().expect("verified").is_sound());
}
