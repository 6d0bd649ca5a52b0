//! Every answer of a random history against plain lists.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;
use tidal_support::model::{Check, Column};
use tidal_support::pairs;
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Clock, Event, ManualClock, TidalDb};

use crate::{HALF_LIVES, VELOCITY, all_windows, ephemeral, one};

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
