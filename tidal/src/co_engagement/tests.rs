//! Claims about trails and edges, against a plain model that shares no code with them.

mod model;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::trail::Trail;
use super::{CoEngagements, Engagement, Owner, Scale, Similarity};
use crate::codec::{Hash, Hasher, Purpose, Put};
use crate::decay::Decay;
use crate::ids::{EntityId, SessionId, Timestamp, UserId};
use crate::schema::CoEngagement;
use crate::table::{Row, StateTable, StoreSlot};
use model::Model;

/// A whole number of the half-lives below: the model's weights are then rounded where ours are.
const START: u64 = 1_700_000_000 / 7_200 * 7_200;

pub(super) fn rules() -> CoEngagement {
    CoEngagement {
        recent_items: 4,
        half_life: Duration::from_secs(7_200),
        trail_idle: Duration::from_secs(600),
        trail_items_max: 6,
        trails_max: 12,
        ..CoEngagement::default()
    }
}

/// The same, with bounds that are always reached.
fn tight() -> CoEngagement {
    CoEngagement { neighbours_max: 3, capacity: 14, ..rules() }
}

#[derive(Debug, Clone)]
enum Step {
    Engage(Vec<Engagement>),
    Forget(EntityId),
    DropAfter(Timestamp),
}

fn engagement() -> impl Strategy<Value = Engagement> {
    let owner = prop_oneof![
        8 => (1u64..5).prop_map(|user| Owner::User(UserId::new(user))),
        // User 0 has none outside them; user 7 has nothing but one.
        6 => (0u64..5).prop_map(|session| in_session(session, [0, 0, 1, 2, 7][session as usize])),
        1 => Just(Owner::Anonymous),
    ];
    // Times that are late now and then: within a visit, and from a visit before.
    (owner, 0u64..12, 0u64..9_000).prop_map(|(owner, item, at)| Engagement {
        owner,
        item: EntityId::new(item),
        at: Timestamp::from_secs(START + at),
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let engage = prop::collection::vec(engagement(), 1..30).prop_map(|mut engagements| {
        // Mostly in order, as they come.
        let len = engagements.len();
        engagements[len / 5..].sort_by_key(|engagement| engagement.at);
        Step::Engage(engagements)
    });
    let step = prop_oneof![
        8 => engage,
        2 => (0u64..12).prop_map(|item| Step::Forget(EntityId::new(item))),
        1 => (0u64..9_000).prop_map(|at| Step::DropAfter(Timestamp::from_secs(START + at))),
    ];
    prop::collection::vec(step, 1..14)
}

fn apply(state: &CoEngagements, rules: &CoEngagement, step: &Step) {
    match step {
        Step::Engage(engagements) => state.engage(rules, engagements),
        Step::Forget(item) => state.forget(*item),
        Step::DropAfter(time) => state.drop_after(rules, *time),
    }
}

fn digest(state: &CoEngagements) -> Hash {
    digest_of(&state.tables())
}

fn digest_of(tables: &[Arc<dyn StateTable>]) -> Hash {
    let mut digest = Hasher::new(Purpose::Digest);
    tables.iter().for_each(|table| table.digest(Timestamp::EPOCH, &mut digest));
    digest.finish()
}

/// What a checkpoint of the tables restores.
fn restored(state: &CoEngagements) -> CoEngagements {
    let fresh = CoEngagements::new();
    for (from, to) in state.tables().into_iter().zip(fresh.tables()) {
        from.owe_all(StoreSlot::A);
        let cut = from.begin_cut(StoreSlot::A);
        let mut pages = Vec::new();
        while from.take_pages(8, &mut pages) {}
        from.end_cut(StoreSlot::A, true);
        to.begin_restore(cut).expect("a sound shape");
        pages.iter().for_each(|p| to.restore_page(p.page, &p.bytes).expect("a sound page"));
        to.end_restore(cut.rows, [false; 2]).expect("all rows are there");
    }
    fresh
}

fn check(state: &CoEngagements, rules: &CoEngagement) {
    state.check(Some(rules)).expect("sound");
    state.tables().iter().for_each(|table| table.check().expect("a sound table"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn trails_and_edges_are_those_of_the_model(steps in steps(), is_tight: bool) {
        let rules = if is_tight { tight() } else { rules() };
        let (state, mut model) = (CoEngagements::new(), Model::new(rules));
        for step in &steps {
            apply(&state, &rules, step);
            model.apply(step);
            model.compare(&state);
            check(&state, &rules);
        }
    }

    #[test]
    fn both_bounds_hold_after_each_event_and_after_a_restore(steps in steps(), m in 1u32..5, capacity in 1u64..20) {
        let rules = CoEngagement { neighbours_max: m, capacity, ..rules() };
        let state = CoEngagements::new();
        for step in &steps {
            let Step::Engage(engagements) = step else {
                apply(&state, &rules, step);
                continue;
            };
            for engagement in engagements {
                state.engage(&rules, std::slice::from_ref(engagement));
                check(&state, &rules);
                check(&restored(&state), &rules);
            }
        }
    }

    #[test]
    fn a_restored_one_goes_on_as_the_live_one_whatever_its_layout(before in steps(), after in steps()) {
        let rules = tight();
        let live = CoEngagements::new();
        before.iter().for_each(|step| apply(&live, &rules, step));
        let restored = restored(&live);
        prop_assert_eq!(digest(&restored), digest(&live));
        // The same rows in other slots: those of two strangers were vacated in another order.
        let stranger = Engagement {
            owner: Owner::User(UserId::new(99)),
            item: EntityId::new(77),
            at: Timestamp::from_secs(START),
        };
        let strangers = [stranger, Engagement { item: EntityId::new(78), ..stranger }];
        let [moved, unmoved] = [[77, 78], [78, 77]].map(|order| {
            let state = CoEngagements::new();
            state.engage(&rules, &strangers);
            order.into_iter().for_each(|item| state.forget(EntityId::new(item)));
            before.iter().for_each(|step| apply(&state, &rules, step));
            state
        });
        for state in [&restored, &live, &moved, &unmoved] {
            after.iter().for_each(|step| apply(state, &rules, step));
            check(state, &rules);
        }
        prop_assert_eq!(digest(&restored), digest(&live));
        prop_assert_eq!(digest(&moved), digest(&unmoved));
    }

    #[test]
    fn how_engagements_are_grouped_changes_nothing(engagements in prop::collection::vec(engagement(), 1..200)) {
        let (one, all) = (CoEngagements::new(), CoEngagements::new());
        engagements.iter().for_each(|e| one.engage(&tight(), std::slice::from_ref(e)));
        all.engage(&tight(), &engagements);
        prop_assert_eq!(digest(&one), digest(&all));
    }

    #[test]
    fn a_deleted_item_that_came_first_was_never_there(engagements in prop::collection::vec(engagement(), 1..60)) {
        let rules = CoEngagement { recent_items: 12, trail_items_max: 100, trails_max: 1_000, ..rules() };
        let gone = EntityId::new(3);
        let (with, without) = (CoEngagements::new(), CoEngagements::new());
        let mut begun = Vec::new();
        for engagement in engagements.into_iter().filter(|engagement| engagement.item != gone) {
            let engagement = Engagement { at: Timestamp::from_secs(START), ..engagement };
            if !begun.contains(&engagement.owner) {
                begun.push(engagement.owner);
                with.engage(&rules, &[Engagement { item: gone, ..engagement }]);
            }
            with.engage(&rules, &[engagement]);
            without.engage(&rules, &[engagement]);
        }
        with.forget(gone);
        check(&with, &rules);
        let rows = |state: &CoEngagements| digest_of(&[state.edges_table(), state.trails_table()]);
        prop_assert_eq!(rows(&with), rows(&without));
        prop_assert!(with.edges().slot(gone).is_none() && with.trails().number(gone).is_none());
    }
}

fn at(owner: u64, item: u64, seconds: u64) -> Engagement {
    Engagement {
        owner: Owner::User(UserId::new(owner)),
        item: EntityId::new(item),
        at: Timestamp::from_secs(START + seconds),
    }
}

fn in_session(session: u64, user: u64) -> Owner {
    Owner::Session { session: SessionId::new(session), user: UserId::new(user) }
}

/// The support of the edge between two items.
fn support(state: &CoEngagements, from: u64, to: u64) -> u32 {
    let now = Decay::at(Timestamp::from_secs(START), rules().decay());
    let scale = Scale::new(Similarity::CoOccurrence, now, state.trails().started());
    let near = state.edges().nearest(EntityId::new(from), 1_000, scale, 0, |_| true);
    near.iter().find(|near| near.item == EntityId::new(to)).map_or(0, |near| near.support)
}

#[test]
fn a_basket_of_675_items_changes_twenty_edges_per_event_at_most() {
    let rules =
        CoEngagement { recent_items: 10, trail_items_max: 1_000, ..CoEngagement::default() };
    let state = CoEngagements::new();
    let mut before = 0;
    for item in 0..675 {
        state.engage(&rules, &[at(1, item, item)]);
        let edges = state.edges().count();
        assert_eq!(edges - before, 2 * item.min(10), "item {item}");
        before = edges;
    }
    check(&state, &rules);
}

#[test]
fn a_repeat_makes_no_pair_and_moves_to_the_end() {
    let state = CoEngagements::new();
    let rules = CoEngagement { recent_items: 1, ..rules() };
    state.engage(&rules, &[at(1, 10, 0), at(1, 11, 1), at(1, 10, 2), at(1, 12, 3)]);
    assert_eq!([support(&state, 10, 11), support(&state, 11, 10)], [1, 1]);
    assert_eq!([support(&state, 12, 10), support(&state, 12, 11)], [1, 0], "10 was touched last");
}

#[test]
fn a_trail_ends_when_it_is_idle_and_a_late_event_of_another_visit_joins_none() {
    let (state, rules) = (CoEngagements::new(), rules());
    state.engage(&rules, &[at(1, 10, 5_000), at(1, 11, 5_600), at(1, 12, 6_201)]);
    assert_eq!(state.trails().len(), 2);
    assert_eq!([support(&state, 10, 11), support(&state, 11, 12)], [1, 0]);
    state.engage(&rules, &[at(1, 13, 5_601), at(1, 14, 5_600)]);
    assert_eq!([support(&state, 12, 13), support(&state, 12, 14)], [1, 0]);
    assert!(state.edges().slot(EntityId::new(14)).is_none(), "it came too late for any trail");
    let (trails, mut items) = (state.trails(), Vec::new());
    for trail in trails.of(Some(UserId::new(1))) {
        items.push(trail.items.iter().map(|&n| trails.item(n).get()).collect::<Vec<_>>());
    }
    assert_eq!(items, [vec![12, 13], vec![10, 11]], "the newest first");
    let with = trails.number(EntityId::new(12)).map(|n| trails.with(n).collect::<Vec<_>>());
    assert_eq!(with, Some(vec![1]));
    assert_eq!(trails.at(1).id, 2);
}

#[test]
fn sessions_that_interleave_have_trails_of_their_own_and_one_user_has_them_all() {
    let (state, rules) = (CoEngagements::new(), rules());
    let of = |owner, item, seconds| Engagement { owner, ..at(1, item, seconds) };
    let (own, one, two) = (Owner::User(UserId::new(1)), in_session(9, 1), in_session(8, 1));
    state.engage(&rules, &[of(one, 10, 0), of(two, 20, 1), of(own, 30, 2), of(one, 11, 3)]);
    state.engage(&rules, &[of(two, 21, 4), of(own, 31, 5)]);
    let within = [[10, 11], [20, 21], [30, 31]].map(|[from, to]| support(&state, from, to));
    let across = [[10, 20], [11, 30], [21, 31]].map(|[from, to]| support(&state, from, to));
    assert_eq!((within, across), ([1; 3], [0; 3]));
    // A session has as many trails as its owner has visits; what began last comes first.
    state.engage(&rules, &[of(one, 12, 700), of(own, 32, 701)]);
    let of_user = |user| {
        let trails = state.trails();
        let items = |trail: &Trail| -> Vec<u64> {
            trail.items.iter().map(|&number| trails.item(number).get()).collect()
        };
        trails.of(user).map(items).collect::<Vec<_>>()
    };
    let all = [vec![32], vec![12], vec![30, 31], vec![20, 21], vec![10, 11]];
    assert_eq!(of_user(Some(UserId::new(1))), all);
    assert!(of_user(Some(UserId::new(9))).is_empty() && of_user(None).is_empty());
    check(&state, &rules);
    check(&restored(&state), &rules);
}

#[test]
fn the_trails_of_a_user_leave_one_by_one_whoever_owned_them() {
    let rules = CoEngagement { trails_max: 2, ..rules() };
    let state = CoEngagements::new();
    let of = |owner, item, seconds| Engagement { owner, ..at(1, item, seconds) };
    let ids = || state.trails().of(Some(UserId::new(1))).map(|trail| trail.id).collect::<Vec<_>>();
    state.engage(&rules, &[of(Owner::User(UserId::new(1)), 10, 0), of(in_session(9, 1), 20, 1)]);
    assert_eq!(ids(), [2, 1]);
    state.engage(&rules, &[of(in_session(8, 1), 30, 2)]);
    assert_eq!(ids(), [3, 2], "the user's own trail was the oldest");
    check(&state, &rules);
    state.engage(&rules, &[of(Owner::User(UserId::new(1)), 11, 3)]);
    assert_eq!((ids(), support(&state, 10, 11)), (vec![4, 3], 0), "its trail had left");
    state.engage(&rules, &[of(in_session(9, 1), 21, 4), of(in_session(7, 2), 40, 5)]);
    assert_eq!((ids(), support(&state, 20, 21)), (vec![5], 0));
    state.engage(&rules, &[of(in_session(7, 2), 41, 6), at(3, 1, 7), at(3, 2, 8), at(4, 1, 9)]);
    assert_eq!(ids(), [0; 0]);
    check(&state, &rules);
}

#[test]
fn a_trail_is_these_bytes_for_ever() {
    let (state, rules) = (CoEngagements::new(), rules());
    let owners = [Owner::User(UserId::new(1)), Owner::Anonymous, in_session(9, 1)];
    for owner in owners {
        state.engage(&rules, &[Engagement { owner, ..at(0, 7, 0) }]);
    }
    let slab = state.trails.slab();
    for (at, (kind, owner)) in [(0u8, &[1u64][..]), (1, &[0]), (2, &[9, 1])].into_iter().enumerate()
    {
        let (slot, trail) =
            slab.iter().find(|(_, trail)| trail.owner == owners[at]).expect("there");
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        trail.encode(slot, slab.side(), &mut found);
        expected.put_u64(at as u64 + 1);
        expected.put_u8(kind);
        owner.iter().for_each(|&number| expected.put_u64(number));
        expected.put_u64(START * 1_000_000_000);
        expected.put_u64(trail.started.bits());
        expected.put_varint(1);
        expected.put_u64(7);
        assert_eq!(found, expected);
    }
}

#[test]
fn the_lightest_of_all_leaves_and_ties_go_by_item() {
    let rules = CoEngagement { capacity: 4, ..rules() };
    let state = CoEngagements::new();
    state.engage(&rules, &[at(1, 20, 0), at(1, 21, 0), at(2, 10, 0), at(2, 11, 0)]);
    assert_eq!(state.edges().count(), 4);
    // A new pair brings two edges: the two of item 10 and 11, equally light, leave first.
    state.engage(&rules, &[at(3, 30, 0), at(3, 31, 0)]);
    let left = |from, to| support(&state, from, to);
    assert_eq!([left(10, 11), left(11, 10), left(20, 21), left(30, 31)], [0, 0, 1, 1]);
    // A pair that is a little younger is heavier.
    state.engage(&rules, &[at(4, 40, 60), at(4, 41, 60)]);
    assert_eq!([left(20, 21), left(21, 20), left(30, 31), left(40, 41)], [0, 0, 1, 1]);
    check(&state, &rules);
}

#[test]
fn time_set_back_leaves_nothing_heavier_than_what_fed_it() {
    let (state, rules) = (CoEngagements::new(), rules());
    // A year ahead: weights of a time that never was.
    state.engage(&rules, &[at(1, 1, 31_536_000), at(1, 2, 31_536_000)]);
    state.drop_after(&rules, Timestamp::from_secs(START));
    check(&state, &rules);
    state.check_restored(Some(&rules), Timestamp::from_secs(START)).expect("nothing is ahead");
    let now = Decay::at(Timestamp::from_secs(START), rules.decay());
    let scale = Scale::new(Similarity::CoOccurrence, now, state.trails().started());
    let near = state.edges().nearest(EntityId::new(1), 9, scale, 0, |_| true);
    assert!((near[0].weight - 1.0).abs() < 1e-9, "{near:?}");
    // The owner's trail goes on from there.
    state.engage(&rules, &[at(1, 3, 1)]);
    assert_eq!(support(&state, 3, 1), 1);
}

#[test]
fn a_pair_weighs_one_by_the_distance_of_its_items() {
    let (state, rules) = (CoEngagements::new(), rules());
    state.engage(&rules, &[at(1, 1, 0), at(1, 2, 0), at(1, 3, 0), at(1, 4, 0)]);
    let now = Decay::at(Timestamp::from_secs(START), rules.decay());
    let scale = Scale::new(Similarity::CoOccurrence, now, state.trails().started());
    let near = state.edges().nearest(EntityId::new(4), 9, scale, 0, |_| true);
    let found: Vec<(u64, u32)> = near.iter().map(|near| (near.item.get(), near.support)).collect();
    assert_eq!(found, [(3, 1), (2, 1), (1, 1)]);
    for (near, expected) in near.iter().zip([1.0, 1.0 / 2.0, 1.0 / 3.0]) {
        assert!((near.weight - expected).abs() < 1e-11, "{near:?}");
    }
}
