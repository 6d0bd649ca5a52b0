//! What is kept out of an answer, why the rest is in it, and when it is new.

use tidaldb::co_engagement::{Method, Similarity};
use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder};
use tidaldb::{Error, ExcludeSeeds, Reason, RecommendOptions, Recommended, TidalDb};

use super::*;

const METHODS: [Method; 2] = [Method::Edges, Method::Sessions];

fn by(method: Method) -> RecommendOptions {
    RecommendOptions::new().method(method)
}

/// Three users who viewed 1, 2, 3, and one who went on from 3 to 4.
fn small() -> (ManualClock, TidalDb) {
    let (clock, db) = ephemeral();
    for user in 0..3 {
        view(&db, &clock, user, &[1, 2, 3]);
    }
    view(&db, &clock, 9, &[3, 4]);
    (clock, db)
}

#[test]
fn hidden_and_deleted_items_leave_every_answer_at_once() {
    for method in METHODS {
        let (_, db) = small();
        assert_eq!(recommend(&db, &[1], &by(method)), [2, 3, 4], "4 by way of 3");
        db.hide_item(item(2)).expect("hidden");
        assert_eq!(recommend(&db, &[1], &by(method)), [3, 4]);
        db.show_item(item(2)).expect("shown");
        assert_eq!(recommend(&db, &[1], &by(method)), [2, 3, 4]);
        db.delete_item(item(3)).expect("deleted");
        assert_eq!(recommend(&db, &[1], &by(method)), [2], "nothing leads to 4 any more");
        assert_eq!(recommend(&db, &[3], &by(method)), Vec::<u64>::new());
        assert!(db.verify().expect("verified").is_sound());
    }
}

#[test]
fn a_click_is_found_by_the_next_answer_of_anybody() {
    for method in METHODS {
        let (clock, db) = small();
        view(&db, &clock, 1, &[77]);
        let answer = recommend(&db, &[3], &by(method));
        assert!(answer.contains(&77), "{answer:?}");
    }
}

#[test]
fn the_caller_says_which_items_of_the_session_may_come_again() {
    for method in METHODS {
        let (clock, db) = small();
        // People go back from the second item to the first.
        (100..140).for_each(|user| view(&db, &clock, user, &[5, 6, 5]));
        let with = |exclude| recommend(&db, &[5, 6], &by(method).exclude_seeds(exclude));
        assert!(!with(ExcludeSeeds::None).contains(&6), "nobody stays where they are");
        (200..210).for_each(|user| view(&db, &clock, user, &[5, 6, 6]));
        assert_eq!(with(ExcludeSeeds::Current)[0], 5, "they go back");
        assert!(!with(ExcludeSeeds::Current).contains(&6));
        assert!(with(ExcludeSeeds::None).contains(&6));
        assert_eq!(with(ExcludeSeeds::All), Vec::<u64>::new());
        assert_eq!(recommend(&db, &[5, 6], &by(method))[0], 5, "the current one is left out");
    }
}

#[test]
fn an_item_says_which_seeds_lead_to_it() {
    for method in METHODS {
        let (_, db) = small();
        let answer = db.recommend(&[item(1), item(4)], 20, &by(method)).expect("an answer");
        let reason = |n| {
            let found = answer.items.iter().find(|recommended| recommended.item == item(n));
            found.map(|recommended| recommended.reason.clone())
        };
        assert_eq!(reason(2), Some(Reason::Seeds(vec![item(1)])));
        assert_eq!(
            reason(3),
            Some(Reason::Seeds(vec![item(4), item(1)])),
            "the last touched first"
        );
        if method == Method::Edges {
            assert_eq!(reason(1), None, "nobody ever went back");
        }
    }
}

#[test]
fn support_and_seeds_can_be_asked_for() {
    let (_, db) = small();
    assert_eq!(recommend(&db, &[3], &RecommendOptions::new()), [2, 1, 4]);
    assert_eq!(recommend(&db, &[3], &RecommendOptions::new().min_support(2)), [2, 1]);
    let one = RecommendOptions::new().seeds_max(1).exclude_seeds(ExcludeSeeds::All);
    let answer = db.recommend(&[item(1), item(4)], 1, &one).expect("an answer");
    assert_eq!(answer.items[0].reason, Reason::Seeds(vec![item(4)]));
}

#[test]
fn only_items_of_the_cohort_are_answered() {
    let (clock, db) = small();
    let mut batch = Batch::new();
    batch.push(Event::new("view", item(3), clock.now()).cohort("country=FR"));
    batch.push(Event::new("skip", item(2), clock.now()).cohort("country=FR"));
    db.write(batch).expect("written");
    for method in METHODS {
        let french = by(method).cohort("country=FR");
        assert_eq!(recommend(&db, &[1], &french), [3], "a skip is no engagement");
        assert_eq!(recommend(&db, &[1], &by(method).cohort("country=DE")), Vec::<u64>::new());
    }
    let unknown = RecommendOptions::new().cohort("planet=Mars");
    let refused = db.recommend(&[item(1)], 5, &unknown);
    assert!(matches!(refused, Err(Error::UnknownName { what: "cohort", .. })), "{refused:?}");
}

#[test]
fn no_group_has_more_places_than_asked_for() {
    let (clock, db) = ephemeral();
    view(&db, &clock, 1, &[1, 2, 3, 4, 5, 6]);
    for (n, shop) in [(2, "a"), (3, "a"), (4, "a"), (5, "b")] {
        let metadata = tidal_support::pairs(&[("shop", shop)]);
        db.write_item(item(n), &metadata).expect("written");
    }
    let whole = recommend(&db, &[1], &RecommendOptions::new());
    assert_eq!(whole, [2, 3, 4, 5, 6]);
    let capped = recommend(&db, &[1], &RecommendOptions::new().at_most_per("shop", 1));
    assert_eq!(capped, [2, 5, 6], "6 is of no shop");
    let capped = recommend(&db, &[1], &RecommendOptions::new().at_most_per("shop", 2));
    assert_eq!(capped, [2, 3, 5, 6]);
}

#[test]
fn an_answer_names_the_one_position_that_it_is_of() {
    let (clock, db) = small();
    let session = [item(1)];
    let (seq, answer, again) = db.consistent(|view| {
        let options = RecommendOptions::new();
        (view.seq(), view.recommend(&session, 9, &options), view.recommend(&session, 9, &options))
    });
    let answer = answer.expect("an answer");
    assert_eq!((answer.seq, &answer), (seq, &again.expect("an answer")));
    view(&db, &clock, 1, &[5]);
    let later = db.recommend(&session, 9, &RecommendOptions::new()).expect("an answer");
    assert!(later.seq > seq);
}

#[test]
fn answers_are_the_same_after_a_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let open = || {
        let builder = TidalDb::builder().with_data_dir(dir.path()).with_schema(schema());
        builder.with_clock(Arc::new(clock.clone())).open().expect("opens")
    };
    let db = open();
    for user in 0..40 {
        let viewed: Vec<u64> = (0..12).map(|n| (user * 7 + n * n) % 50).collect();
        view(&db, &clock, user, &viewed);
    }
    let all = |db: &TidalDb| -> Vec<Vec<Recommended>> {
        let sessions = (0..50).map(|n| [item(n), item((n * 3) % 50)]);
        let asked = |session: [EntityId; 2]| {
            METHODS.map(|m| {
                db.recommend(&session, 20, &by(m).now(START.saturating_add(DAY)))
                    .expect("an answer")
            })
        };
        sessions.flat_map(asked).map(|answer| answer.items).collect()
    };
    let before = all(&db);
    db.close().expect("closes");
    assert_eq!(all(&open()), before);
}

#[test]
fn bad_questions_are_refused_with_advice() {
    let (_, db) = small();
    let refused = |options: RecommendOptions| {
        db.recommend(&[item(1)], 5, &options).expect_err("refused").to_string()
    };
    let new = RecommendOptions::new;
    assert!(refused(new().seeds_max(0)).contains("1 to 32"));
    assert!(refused(new().seeds_max(33)).contains("1 to 32"));
    assert!(refused(new().at_most_per("shop", 0)).contains("shop"));
    let cosine = Similarity::Cosine { shrinkage: f64::NAN };
    assert!(refused(new().similarity(cosine)).contains("NaN"));
    assert!(refused(new().fill_with_hot("veiw")).contains("view"));
    let week = new().fill_with_trending("view", Window::SevenDays);
    assert!(refused(week).contains("no velocity over 7d"));
    assert!(refused(new().now(Timestamp::EPOCH)).contains("may lag"));

    let mut b = SchemaBuilder::new();
    let _ = b.signal("view", EntityKind::Item, DecaySpec::None).add();
    let schema = b.build().expect("sound");
    let db = TidalDb::builder().ephemeral().with_schema(schema).open().expect("opens");
    let refused = db.recommend(&[item(1)], 5, &new()).expect_err("refused").to_string();
    assert!(refused.contains("engaging()"), "{refused}");
}

#[test]
fn a_deleted_item_of_the_session_does_not_come_back() {
    for method in METHODS {
        let (clock, db) = small();
        (100..140).for_each(|user| view(&db, &clock, user, &[5, 6, 5]));
        let answer = db.recommend(&[item(5), item(6)], 20, &by(method)).expect("an answer");
        assert_eq!((answer.items[0].item, &answer.items[0].reason), (item(5), &Reason::Return));
        db.delete_item(item(5)).expect("deleted");
        assert_eq!(recommend(&db, &[5, 6], &by(method)), Vec::<u64>::new());
    }
}

#[test]
fn any_number_of_items_may_be_asked_for_and_given() {
    for method in METHODS {
        let (_, db) = small();
        let all = db.recommend(&[item(1)], usize::MAX, &by(method).fill_with_hot("view"));
        assert_eq!(items(&all.expect("an answer")), [2, 3, 4]);
        let long: Vec<EntityId> = (0..100_000).rev().map(item).collect();
        let answer = db.recommend(&long, 20, &by(method).exclude_seeds(ExcludeSeeds::All));
        assert!(answer.expect("an answer").items.is_empty());
    }
}

#[test]
fn pairs_that_have_nearly_decayed_away_still_have_an_order() {
    let (_, db) = small();
    let late = START.saturating_add(DAY * 365 * 100);
    for similarity in [Similarity::Lift, Similarity::Cosine { shrinkage: 0.0 }] {
        let options = RecommendOptions::new().similarity(similarity).now(late);
        let answer = db.recommend(&[item(1)], 20, &options).expect("an answer");
        assert!(!answer.items.is_empty());
        assert!(answer.items.iter().all(|recommended| recommended.score.is_finite()), "{answer:?}");
    }
}

#[test]
fn nothing_known_is_an_empty_answer() {
    let (_, db) = small();
    for method in METHODS {
        assert_eq!(recommend(&db, &[], &by(method)), Vec::<u64>::new());
        assert_eq!(recommend(&db, &[999], &by(method)), Vec::<u64>::new());
        assert_eq!(recommend(&db, &[998, 999], &by(method)), Vec::<u64>::new());
        let none = db.recommend(&[item(1)], 0, &by(method)).expect("an answer");
        assert!(none.items.is_empty());
    }
}

#[test]
fn settings_that_are_not_given_stay_as_they_are_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = |settings: Option<CoEngagement>| {
        let mut b = SchemaBuilder::new();
        let _ = b.signal("view", EntityKind::Item, DecaySpec::None).engaging().add();
        if let Some(settings) = settings {
            b.co_engagement(settings);
        }
        let schema = b.build().expect("sound");
        TidalDb::builder().with_data_dir(dir.path()).with_schema(schema).open()
    };
    let mut settings = CoEngagement::default();
    (settings.capacity, settings.anonymous_trail) = (5_000, true);
    open(Some(settings)).expect("opens").close().expect("closes");
    let db = open(None).expect("opens");
    assert_eq!(db.schema().co_engagement(), Some(&settings));
    db.close().expect("closes");
    let db = open(Some(settings)).expect("still the same to whoever gives them");
    assert_eq!(db.status().operations, 1, "the schema was written once");
    db.close().expect("closes");
    settings.capacity = 10;
    let refused = open(Some(settings)).expect_err("lowered").to_string();
    assert!(refused.contains("capacity 5000 stored but 10 given"), "{refused}");
}
