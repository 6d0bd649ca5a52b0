//! What each call means, case by case.

use std::collections::HashSet;
use std::time::Duration;
use tidal_support::model::{Check, Column};
use tidal_support::pairs;
use tidaldb::schema::{Timestamp, Window};
use tidaldb::{Batch, Clock, Error, Event, ReadOptions};

use crate::{
    DAY, EVERYONE, HALF_HOUR, HALF_LIVES, HOUR, START, VELOCITY, all_time, all_windows, ephemeral,
    item, of, one,
};

#[test]
fn a_hundred_thousand_events_on_one_item_are_counted_one_by_one() {
    let (clock, db) = ephemeral();
    let mut column = Column::default();
    let mut batch = Batch::new();
    let mut random = tidal_support::random::Random::new(7);
    for _ in 0..100_000 {
        let late = random.below(4_000_000) * random.below(1_000) / 1_000;
        let at = START.saturating_sub(Duration::from_secs(late));
        batch.push(Event::new("view", item(1), at));
        column.push(item(1), at, 1.0);
    }
    db.write(batch).expect("written");
    let hidden = HashSet::new();
    for hours in [0, 1, 5, 30, 200, 800] {
        clock.advance(HOUR * hours);
        db.signal("view", item(1), 1.0, clock.now()).expect("counted");
        column.push(item(1), clock.now(), 1.0);
        let now = clock.now();
        let check = Check {
            db: &db,
            signal: "view",
            cohort: EVERYONE,
            now,
            column: &column,
            hidden: &hidden,
        };
        check.counts(&[item(1)], &all_windows());
        check.velocities(&[item(1)], &VELOCITY);
        check.scores(&[item(1)], &HALF_LIVES);
    }
}

#[test]
fn scores_are_right_in_1970_and_after_seven_hundred_half_lives() {
    let (clock, db) = ephemeral();
    let mut column = Column::default();
    for (n, at) in [(1, Timestamp::EPOCH), (2, Timestamp::from_secs(86_400 * 400)), (3, START)] {
        db.signal("view", item(n), 3.0, at).expect("counted");
        column.push(item(n), at, 3.0);
    }
    let hidden = HashSet::new();
    for days in [0, 10, 14, 21, 700] {
        clock.advance(DAY * days);
        let now = clock.now();
        let check = Check {
            db: &db,
            signal: "view",
            cohort: EVERYONE,
            now,
            column: &column,
            hidden: &hidden,
        };
        check.scores(&[item(1), item(2), item(3)], &HALF_LIVES);
        check.hot(&HALF_LIVES, 3);
    }
}

#[test]
fn a_half_life_halves_the_score_exactly_and_is_chosen_per_read() {
    let (clock, db) = ephemeral();
    db.signal("view", item(1), 8.0, START).expect("counted");
    clock.advance(HALF_HOUR);
    let score = |half_life| {
        let options = ReadOptions::new().half_life(half_life);
        db.score(item(1), "view", &options).expect("score")
    };
    assert!((score(HALF_HOUR) - 4.0).abs() < 1e-12);
    assert!((score(DAY) - 8.0 * 0.5f64.powf(1.0 / 48.0)).abs() < 1e-12);
    assert_eq!(score(Duration::MAX), 8.0);
    let other = ReadOptions::new().half_life(HOUR);
    let refused = db.score(item(1), "view", &other).expect_err("it is not declared");
    assert!(matches!(refused, Error::InvalidArgument { .. }), "{refused}");
    assert!(refused.to_string().contains("30min"), "{refused} names what is declared");
}

#[test]
fn reads_may_lag_by_five_minutes_and_lead_by_any_time() {
    let (_, db) = ephemeral();
    db.signal("view", item(1), 1.0, START).expect("counted");
    let count =
        |now| db.windowed_count(item(1), "view", Window::OneHour, &ReadOptions::new().now(now));
    let skew = Duration::from_secs(300);
    assert_eq!(count(START.saturating_sub(skew)).expect("within the skew"), 0, "not yet there");
    let too_old = START.saturating_sub(skew + Duration::from_nanos(1));
    assert!(matches!(count(too_old), Err(Error::NowTooOld { .. })));
    assert_eq!(count(START.saturating_add(Duration::from_secs(59 * 60))).expect("read"), 1);
    assert_eq!(count(START.saturating_add(HOUR)).expect("read"), 0);
    assert_eq!(count(Timestamp::from_nanos(u64::MAX)).expect("read"), 0, "the end of time");
}

#[test]
fn a_late_event_counts_in_its_own_bucket_or_in_all_time_only() {
    let (_, db) = ephemeral();
    for late in [Duration::ZERO, HOUR * 2, DAY * 2, DAY * 8, DAY * 31, DAY * 1_000] {
        db.signal("view", item(1), 1.0, START.saturating_sub(late)).expect("counted");
    }
    let counts = all_windows()
        .into_iter()
        .map(|window| db.read_windowed_count(item(1), "view", window).expect("counted"));
    assert_eq!(counts.collect::<Vec<_>>(), [1, 2, 3, 4, 6]);
}

#[test]
fn membership_is_that_of_the_moment_of_the_signal() {
    let (_, db) = ephemeral();
    let view = || db.write(one(Event::new("view", item(1), START).user(7))).expect("written");
    view();
    db.write_user(7, &pairs(&[("country", "FR"), ("age", "17")])).expect("written");
    view();
    db.write_user(7, &pairs(&[("country", "US"), ("age", "18")])).expect("written");
    view();
    view();
    db.write_user(7, &pairs(&[])).expect("written");
    view();
    assert!(db.user_cohorts(7).is_empty());
    let counts = [
        all_time(&db, 1, &ReadOptions::new()),
        all_time(&db, 1, &of("country=FR")),
        all_time(&db, 1, &of("country=US")),
        all_time(&db, 1, &of("adults")),
        all_time(&db, 1, &of("country=DE")),
    ];
    assert_eq!(counts, [5, 1, 2, 2, 0]);
}

#[test]
fn membership_follows_the_order_of_writes_though_nobody_waits_for_one() {
    let (_, db) = ephemeral();
    let lives_in = |country| db.submit_user(7, &pairs(&[("country", country)]));
    let view = || db.submit(one(Event::new("view", item(1), START).user(7)));
    // The writer applies nothing while the view lasts.
    let tickets = db.consistent(|_| {
        std::thread::scope(|scope| {
            let submit = || [lives_in("FR"), view(), lives_in("US"), view(), view()];
            scope.spawn(submit).join().expect("does not panic")
        })
    });
    for ticket in tickets {
        ticket.expect("queued").wait().expect("written");
    }
    assert_eq!(all_time(&db, 1, &of("country=FR")), 1);
    assert_eq!(all_time(&db, 1, &of("country=US")), 2);
}

#[test]
fn a_signal_counts_once_for_a_cohort_that_it_names_besides() {
    let (_, db) = ephemeral();
    db.write_user(7, &pairs(&[("country", "FR")])).expect("written");
    let event = Event::new("view", item(1), START).user(7).weight(2.0);
    db.write(one(event.cohort("country=FR"))).expect("written");
    db.write(one(event.cohort("editors-picks"))).expect("written");
    assert_eq!(all_time(&db, 1, &of("country=FR")), 2);
    assert_eq!(all_time(&db, 1, &of("editors-picks")), 1);
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 2);
    let score = db.score(item(1), "view", &of("country=FR")).expect("score");
    assert!((score - 4.0).abs() < 1e-12);
}

#[test]
fn a_full_family_refuses_the_whole_operation() {
    let (_, db) = ephemeral();
    db.write_user(1, &pairs(&[("country", "FR")])).expect("written");
    db.write(one(Event::new("view", item(1), START).cohort("country=US"))).expect("written");
    let digest = db.state_digest().expect("digest");

    // One more has room, two have not; then neither is made.
    let mut batch = Batch::from_source("s", 1, 3);
    batch.push(Event::new("view", item(1), START).cohort("country=DE"));
    batch.push(Event::new("view", item(1), START).id(b"x"));
    batch.push(Event::new("view", item(1), START).cohort("country=IT"));
    let refused = db.write(batch).expect_err("no room for both");
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    assert_eq!(db.source_offset("s"), None);
    assert_eq!(db.cohorts(), ["country=FR", "country=US"]);
    assert_eq!(db.state_digest().expect("digest"), digest);

    db.write_user(2, &pairs(&[("country", "DE")])).expect("the third has room");
    let digest = db.state_digest().expect("digest");
    let refused = db.write_user(1, &pairs(&[("country", "IT")])).expect_err("full");
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    assert_eq!(db.user_attributes(1), Some(pairs(&[("country", "FR")])));
    assert_eq!(db.state_digest().expect("digest"), digest);
    assert_eq!(all_time(&db, 1, &of("country=IT")), 0, "declared by its family, and never written");
}

#[test]
fn deleting_forgets_counts_but_not_hiding() {
    let (_, db) = ephemeral();
    db.signal("view", item(1), 5.0, START).expect("counted");
    db.signal("like", item(1), 5.0, START).expect("counted");
    db.write_item(item(1), &pairs(&[("title", "one")])).expect("written");
    db.hide_item(item(1)).expect("hidden");
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 1, "a hidden item counts on");
    db.delete_item(item(1)).expect("deleted");
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 0);
    assert_eq!(db.score(item(1), "like", &ReadOptions::new()).expect("score"), 0.0);
    assert_eq!(db.get_item_metadata(item(1)).expect("read"), None);
    db.signal("view", item(1), 5.0, START).expect("counted");
    assert!(db.is_hidden(item(1)));
    assert!(db.hot("view", 5, &ReadOptions::new()).expect("hot").is_empty());
    db.show_item(item(1)).expect("shown");
    assert_eq!(db.hot("view", 5, &ReadOptions::new()).expect("hot").len(), 1);
    assert_eq!(all_time(&db, 1, &ReadOptions::new()), 1);
}
