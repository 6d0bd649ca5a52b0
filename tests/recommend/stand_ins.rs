//! Recommending for a user: seeds from trails, and what stands in for them.

use tidaldb::{ExcludeSeeds, Reason};

use super::*;

fn french() -> (ManualClock, TidalDb) {
    let (clock, db) = ephemeral();
    for user in [1, 2, 3] {
        db.write_user(user, &tidal_support::pairs(&[("country", "FR")])).expect("written");
    }
    // 10 to 14 are hot in France, in this order; 20 everywhere else.
    for (times, n) in (1..=5).rev().zip(10..) {
        (0..times).for_each(|_| view(&db, &clock, 3, &[n]));
    }
    for user in 50..70 {
        view(&db, &clock, user, &[20, 21]);
    }
    (clock, db)
}

fn hot_in(cohort: Option<&str>) -> Reason {
    Reason::Hot { cohort: cohort.map(str::to_owned) }
}

#[test]
fn a_user_without_seeds_gets_what_is_hot_in_the_cohort_and_then_everywhere() {
    let (_, db) = french();
    let answer = db.for_user(1, 7, &RecommendOptions::new()).expect("an answer");
    assert_eq!(items(&answer)[..5], [10, 11, 12, 13, 14]);
    assert_eq!(items(&answer)[5..], [21, 20], "the later view weighs more");
    assert!(answer.items[..5].iter().all(|r| r.reason == hot_in(Some("country=FR"))));
    assert!(answer.items[5..].iter().all(|r| r.reason == hot_in(None)));
    // Someone of no cohort gets what is hot everywhere.
    let answer = db.for_user(999, 2, &RecommendOptions::new()).expect("an answer");
    assert_eq!(items(&answer), [21, 20]);
}

#[test]
fn with_few_seeds_some_places_are_of_the_cohort_and_with_more_none() {
    let (clock, db) = french();
    for user in 80..83 {
        view(&db, &clock, user, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
    let hot_places = |k| -> Vec<usize> {
        let answer = db.for_user(1, k, &RecommendOptions::new()).expect("an answer");
        assert_eq!(answer.items.len(), k);
        let is_hot = |at: &usize| matches!(answer.items[*at].reason, Reason::Hot { .. });
        (0..k).filter(is_hot).map(|at| at + 1).collect()
    };
    view(&db, &clock, 1, &[1]);
    assert_eq!(hot_places(6), [3, 6]);
    view(&db, &clock, 1, &[2]);
    assert_eq!(hot_places(6), [4]);
    view(&db, &clock, 1, &[3]);
    assert_eq!(hot_places(6), Vec::<usize>::new());
    assert_eq!(hot_places(8), [7, 8], "seeds lead to six items");
}

#[test]
fn what_a_user_has_seen_does_not_come_again_unless_the_caller_allows_it() {
    let (clock, db) = french();
    view(&db, &clock, 1, &[10, 11]);
    clock.advance(Duration::from_secs(7_200));
    view(&db, &clock, 1, &[12]);
    let answer = db.for_user(1, 20, &RecommendOptions::new()).expect("an answer");
    assert!(items(&answer).iter().all(|n| !(10..13).contains(n)), "{answer:?}");
    let again = RecommendOptions::new().exclude_seeds(ExcludeSeeds::Current);
    let answer = db.for_user(1, 20, &again).expect("an answer");
    assert!(items(&answer).contains(&10) && !items(&answer).contains(&12), "{answer:?}");
}

#[test]
fn what_rises_can_stand_in_and_groups_hold_for_it_too() {
    let (clock, db) = french();
    for n in 10..15 {
        db.write_item(item(n), &tidal_support::pairs(&[("shop", "a")])).expect("written");
    }
    clock.advance(Duration::from_secs(2 * 3_600));
    (0..9).for_each(|user| view(&db, &clock, 200 + user, &[30]));
    let rising = RecommendOptions::new().fill_with_trending("view", Window::OneHour);
    let answer = db.for_user(999, 3, &rising).expect("an answer");
    assert_eq!(answer.items[0].item, item(30));
    assert_eq!(answer.items[0].reason, Reason::Trending { cohort: None });
    let capped = RecommendOptions::new().at_most_per("shop", 2);
    let answer = db.for_user(1, 5, &capped).expect("an answer");
    assert_eq!(items(&answer)[..2], [10, 11]);
    assert!(items(&answer)[2..].iter().all(|n| *n >= 20), "{answer:?}");
}

#[test]
fn a_session_can_have_a_stand_in_as_well() {
    let (_, db) = french();
    let filled = RecommendOptions::new().fill_with_hot("view").cohort("country=FR");
    assert_eq!(recommend(&db, &[999], &filled), [10, 11, 12, 13, 14]);
    assert_eq!(recommend(&db, &[999], &RecommendOptions::new()), Vec::<u64>::new());
}

#[test]
fn a_session_keeps_its_first_places_however_short_it_is() {
    let (clock, db) = french();
    for user in 80..83 {
        view(&db, &clock, user, &[1, 2, 3, 4, 5, 6]);
    }
    let answer = recommend(&db, &[1], &RecommendOptions::new().fill_with_hot("view"));
    assert_eq!(answer[..5], [2, 3, 4, 5, 6]);
    assert!(answer.len() > 5, "what is hot stands in behind them");
}

#[test]
fn a_page_that_cannot_fill_ends_after_a_bounded_look() {
    let (clock, db) = ephemeral();
    for n in 0..2_000 {
        db.write_item(item(n), &tidal_support::pairs(&[("shop", "a")])).expect("written");
    }
    for from in (0..2_000).step_by(100) {
        view(&db, &clock, from, &(from..from + 100).collect::<Vec<_>>());
    }
    let capped = RecommendOptions::new().at_most_per("shop", 2);
    let answer = db.for_user(999_999, 20, &capped).expect("an answer");
    assert_eq!(answer.items.len(), 2);
}
