//! Rankings, whatever falls, hides, shows and goes.

use proptest::prelude::*;
use std::collections::HashSet;
use std::time::Duration;
use tidal_support::model::{Check, Column};
use tidaldb::schema::{EntityId, Window};
use tidaldb::{Batch, Clock, Event, ManualClock, ReadOptions, TidalDb};

use crate::{DAY, EVERYONE, HALF_LIVES, START, ephemeral, item};

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
