//! What signals, cohorts, items and sources mean, seen from outside and under a manual clock.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tidal_support::model::{BUCKETED, Check, Column};
use tidal_support::pairs;
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, Timestamp, Window,
};
use tidaldb::{Batch, Clock, Error, Event, ManualClock, Outcome, ReadOptions, TidalDb, TimeSource};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const HALF_HOUR: Duration = Duration::from_secs(1_800);
const HALF_LIVES: [Duration; 3] = [DAY, HALF_HOUR, Duration::MAX];
const VELOCITY: [Window; 3] = [Window::OneHour, Window::TwentyFourHours, Window::SevenDays];
/// Not on the edge of any grain.
const START: Timestamp = Timestamp::from_secs(1_700_000_123);
const EVERYONE: Option<&str> = None;

fn all_windows() -> Vec<Window> {
    BUCKETED.iter().map(|(window, ..)| *window).chain([Window::AllTime]).collect()
}

fn declare(b: &mut SchemaBuilder, signal: &str) {
    let _ = b
        .signal(signal, EntityKind::Item, DecaySpec::Exponential { half_life: DAY })
        .half_lives(&HALF_LIVES[1..])
        .windows(&Window::ALL)
        .velocity(true)
        .add();
}

fn builder_of_schema() -> SchemaBuilder {
    let mut b = SchemaBuilder::new();
    declare(&mut b, "view");
    declare(&mut b, "like");
    b.cohort("adults", Predicate::range("age", 18.0..200.0));
    b.cohort_family("country", 3);
    b.named_cohort("editors-picks");
    b
}

fn schema() -> Schema {
    builder_of_schema().build().expect("a sound schema")
}

fn ephemeral() -> (ManualClock, TidalDb) {
    let clock = ManualClock::at(START);
    let builder = TidalDb::builder().ephemeral().with_schema(schema());
    let db = builder.with_clock(Arc::new(clock.clone())).open().expect("opens");
    (clock, db)
}

fn open(dir: &Path, schema: Schema, clock: &ManualClock) -> TidalDb {
    let builder = TidalDb::builder().with_data_dir(dir).with_schema(schema);
    builder.with_clock(Arc::new(clock.clone())).open().expect("opens")
}

fn item(n: u64) -> EntityId {
    EntityId::new(n)
}

fn of(cohort: &str) -> ReadOptions {
    ReadOptions::new().cohort(cohort)
}

fn one(event: Event<'_>) -> Batch {
    let mut batch = Batch::new();
    batch.push(event);
    batch
}

fn all_time(db: &TidalDb, n: u64, options: &ReadOptions) -> u64 {
    db.windowed_count(item(n), "view", Window::AllTime, options).expect("counted")
}

/// What a property run does next.
#[derive(Debug, Clone)]
enum Step {
    Pass(Duration),
    Count {
        item: u64,
        late: Duration,
        early: Duration,
        weight: f64,
        user: Option<u64>,
        named: bool,
    },
    Move {
        user: u64,
        country: usize,
        age: u32,
    },
    Check {
        lag: Duration,
        ahead: Duration,
    },
}

const COUNTRIES: [&str; 3] = ["FR", "US", "DE"];

fn step() -> impl Strategy<Value = Step> {
    let secs = |range: std::ops::Range<u64>| range.prop_map(Duration::from_secs);
    let pass = prop_oneof![
        4 => secs(0..90),
        3 => secs(60..7_200),
        2 => secs(3_600..200_000),
        1 => secs(1_000_000..4_000_000),
    ];
    let late = prop_oneof![
        5 => Just(Duration::ZERO),
        3 => secs(0..7_200),
        2 => secs(0..900_000),
        1 => secs(0..6_000_000),
    ];
    let early = prop_oneof![5 => Just(Duration::ZERO), 1 => secs(0..300)];
    let weight = prop::sample::select(vec![1.0, 1.0, 1.0, 0.0, 0.25, 3.0, -1.0, -2.5, 1e6]);
    let count = (0..6u64, late, early, weight, prop::option::of(0..3u64), any::<bool>()).prop_map(
        |(item, late, early, weight, user, named)| Step::Count {
            item,
            late,
            early,
            weight,
            user,
            named,
        },
    );
    prop_oneof![
        4 => pass.prop_map(Step::Pass),
        12 => count,
        1 => (0..3u64, 0..COUNTRIES.len(), 10..30u32)
            .prop_map(|(user, country, age)| Step::Move { user, country, age }),
        1 => (secs(0..300), secs(0..4_000_000)).prop_map(|(lag, ahead)| Step::Check { lag, ahead }),
    ]
}

/// A database and the plain lists that say what it must answer.
struct Pair {
    clock: ManualClock,
    db: TidalDb,
    columns: BTreeMap<Option<String>, Column>,
    users: BTreeMap<u64, BTreeSet<String>>,
}

impl Pair {
    fn new() -> Self {
        let (clock, db) = ephemeral();
        Self { clock, db, columns: BTreeMap::new(), users: BTreeMap::new() }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Pass(by) => self.clock.advance(*by),
            Step::Move { user, country, age } => {
                let (country, age) = (COUNTRIES[*country], age.to_string());
                let attributes = pairs(&[("country", country), ("age", &age)]);
                self.db.write_user(*user, &attributes).expect("written");
                let mut cohorts = BTreeSet::from([format!("country={country}")]);
                if age.parse::<u32>().expect("a number") >= 18 {
                    cohorts.insert("adults".to_owned());
                }
                let mut found = self.db.user_cohorts(*user);
                found.sort();
                assert_eq!(found, cohorts.iter().cloned().collect::<Vec<_>>());
                self.users.insert(*user, cohorts);
            }
            Step::Count { item, late, early, weight, user, named } => {
                self.count(EntityId::new(*item), *late, *early, *weight, *user, *named);
            }
            Step::Check { lag, ahead } => {
                self.check(self.clock.now().saturating_sub(*lag));
                self.check(self.clock.now().saturating_add(*ahead));
            }
        }
    }

    fn count(
        &mut self,
        item: EntityId,
        late: Duration,
        early: Duration,
        weight: f64,
        user: Option<u64>,
        named: bool,
    ) {
        let at = self.clock.now().saturating_sub(late).saturating_add(early);
        let mut event = Event::new("view", item, at).weight(weight);
        let mut scopes = BTreeSet::from([None]);
        if let Some(user) = user {
            event = event.user(user);
            let cohorts = self.users.get(&user).into_iter().flatten();
            scopes.extend(cohorts.cloned().map(Some));
        }
        if named {
            // Perhaps the user's own: an event counts once for a cohort, however it came to it.
            event = event.cohort("country=FR");
            scopes.insert(Some("country=FR".to_owned()));
        }
        self.db.write(one(event)).expect("written");
        for scope in scopes {
            self.columns.entry(scope).or_default().push(item, at, weight);
        }
    }

    fn check(&self, now: Timestamp) {
        let items: Vec<EntityId> = (0..7).map(EntityId::new).collect();
        let (none, hidden) = (Column::default(), HashSet::new());
        let scopes = [None, Some("country=FR"), Some("country=US"), Some("adults")];
        for cohort in scopes {
            let column = self.columns.get(&cohort.map(str::to_owned)).unwrap_or(&none);
            let check =
                Check { db: &self.db, signal: "view", cohort, now, column, hidden: &hidden };
            check.counts(&items, &all_windows());
            check.velocities(&items, &VELOCITY);
            check.scores(&items, &HALF_LIVES);
            check.hot(&HALF_LIVES, 3);
            check.top(&all_windows(), 3);
            check.trending(&VELOCITY, 3);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_that_of_a_plain_list(steps in prop::collection::vec(step(), 1..150)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.take(step);
        }
        pair.check(pair.clock.now());
        let report = pair.db.verify().expect("verified");
        prop_assert!(report.is_sound(), "{}", report);
    }
}

/// What may happen to an item's place in a ranking.
#[derive(Debug, Clone)]
enum Turn {
    Add { item: u64, weight: f64, late: u64 },
    Undo { item: u64 },
    Hide(u64),
    Show(u64),
    Delete(u64),
    Pass(u64),
}

fn turn() -> impl Strategy<Value = Turn> {
    let item = || prop_oneof![1 => 0..20u64, 2 => 0..160u64];
    let weight = prop::sample::select(vec![1.0, 1.0, 2.0, 0.5, 1e3, -1.0, -7.0]);
    prop_oneof![
        20 => (item(), weight, prop_oneof![3 => Just(0u64), 1 => 0..200_000u64])
            .prop_map(|(item, weight, late)| Turn::Add { item, weight, late }),
        4 => item().prop_map(|item| Turn::Undo { item }),
        2 => item().prop_map(Turn::Hide),
        2 => item().prop_map(Turn::Show),
        2 => item().prop_map(Turn::Delete),
        4 => (0..4_000u64).prop_map(Turn::Pass),
    ]
}

fn take_turn(
    db: &TidalDb,
    clock: &ManualClock,
    turn: &Turn,
    column: &mut Column,
    hidden: &mut HashSet<EntityId>,
) {
    let id = EntityId::new;
    let mut add = |n: u64, at, weight| {
        db.signal("view", id(n), weight, at).expect("counted");
        column.push(id(n), at, weight);
    };
    match turn {
        Turn::Pass(seconds) => clock.advance(Duration::from_secs(*seconds)),
        Turn::Add { item, weight, late } => {
            add(*item, clock.now().saturating_sub(Duration::from_secs(*late)), *weight);
        }
        // Takes the infinite score to nothing, and the others far below it.
        Turn::Undo { item } => {
            let sum: f64 = column.of(id(*item)).iter().map(|seen| seen.weight).sum();
            if sum != 0.0 {
                db.signal("view", id(*item), -sum, clock.now()).expect("counted");
                column.push(id(*item), clock.now(), -sum);
            }
        }
        Turn::Hide(n) => {
            db.hide_item(id(*n)).expect("hidden");
            hidden.insert(id(*n));
        }
        Turn::Show(n) => {
            db.show_item(id(*n)).expect("shown");
            hidden.remove(&id(*n));
        }
        Turn::Delete(n) => {
            db.delete_item(id(*n)).expect("deleted");
            column.items.remove(&id(*n));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn rankings_stay_exact_through_undo_hide_show_and_delete(
        turns in prop::collection::vec(turn(), 1..700),
    ) {
        let (clock, db) = ephemeral();
        let (mut column, mut hidden) = (Column::default(), HashSet::new());
        for (i, turn) in turns.iter().enumerate() {
            take_turn(&db, &clock, turn, &mut column, &mut hidden);
            if i % 64 == 63 || i + 1 == turns.len() {
                let now = clock.now();
                let check = Check {
                    db: &db, signal: "view", cohort: EVERYONE, now, column: &column, hidden: &hidden,
                };
                for k in [0, 1, 20, 21, 500] {
                    check.hot(&HALF_LIVES, k);
                    check.top(&[Window::OneHour, Window::AllTime], k);
                    check.trending(&[Window::OneHour], k);
                }
            }
        }
        let report = db.verify().expect("verified");
        prop_assert!(report.is_sound(), "{}", report);
    }

    #[test]
    fn the_order_of_hot_never_changes_with_time(
        events in prop::collection::vec((0..40u64, 0..2_000_000u64, 1..50u32), 1..200),
    ) {
        let (clock, db) = ephemeral();
        let mut batch = Batch::new();
        for (n, late, weight) in &events {
            let at = START.saturating_sub(Duration::from_secs(*late));
            batch.push(Event::new("view", item(*n), at).weight(f64::from(*weight)));
        }
        db.write(batch).expect("written");
        for half_life in HALF_LIVES {
            let order = || -> Vec<EntityId> {
                let options = ReadOptions::new().half_life(half_life).now(clock.now());
                let hot = db.hot("view", 40, &options).expect("hot");
                hot.into_iter().map(|ranked| ranked.entity).collect()
            };
            let first = order();
            for _ in 0..4 {
                clock.advance(DAY * 30);
                prop_assert_eq!(order(), first.clone());
            }
            clock.set(START);
        }
    }
}

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
