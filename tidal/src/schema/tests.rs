//! Claims about whole schemas: names, cohorts, extension, bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::seq::Seq;

const HOUR: Duration = Duration::from_secs(3600);
const HOURLY: DecaySpec = DecaySpec::Exponential { half_life: HOUR };
const LATER: ExtendedAt =
    ExtendedAt { seq: Seq::new(7), time: Timestamp::from_nanos(1_700_000_000_000_000_000) };

/// Ends a declaration: nothing more is wanted of it.
pub(super) fn ignore<T>(_: T) {}

fn schema(declare: impl FnOnce(&mut SchemaBuilder)) -> Schema {
    let mut b = SchemaBuilder::new();
    declare(&mut b);
    b.build().expect("sound")
}

/// What every test of extension starts from.
fn base(b: &mut SchemaBuilder) {
    let _ = b
        .signal("view", EntityKind::Item, HOURLY)
        .half_lives(&[HOUR * 24])
        .windows(&[Window::OneHour, Window::ThirtyDays])
        .add();
    let _ = b
        .signal("like", EntityKind::Item, DecaySpec::None)
        .windows(&[Window::SevenDays])
        .velocity(true)
        .add();
    b.cohort("teens", Predicate::range("age", 13.0..20.0));
    b.cohort_family("country", 10).named_cohort("picks");
}

#[test]
fn signals_are_found_by_name_and_by_number() {
    let schema = schema(base);
    let view = schema.resolve("view").expect("declared");
    assert_eq!(view, SignalTypeId::new(1));
    assert_eq!(schema.signal(view).expect("declared").name(), "view");
    assert_eq!(schema.signal_type("nothing"), None);
    assert!(schema.signal(SignalTypeId::new(2)).is_none());
    let Err(Error::UnknownName { what: "signal", nearest, .. }) = schema.resolve("veiw") else {
        panic!("a misspelt name must be refused");
    };
    assert_eq!(nearest, ["view"]);
}

#[test]
fn a_cohort_name_stands_for_what_was_declared() {
    let schema = schema(base);
    assert_eq!(schema.cohort_kind("teens"), Some(CohortKind::Single));
    assert_eq!(schema.cohort_kind("picks"), Some(CohortKind::Named));
    let Some(CohortKind::FamilyMember(family)) = schema.cohort_kind("country=a=b") else {
        panic!("a value may have an equals sign");
    };
    assert_eq!((family.name(), family.max_members()), ("country", Some(10)));
    for undeclared in ["country", "country=", "country=\n", "teens=x", "picks=", "=", "", "other"] {
        assert_eq!(schema.cohort_kind(undeclared), None, "{undeclared:?}");
        assert!(schema.resolve_cohort(undeclared).is_err(), "{undeclared:?}");
    }
}

#[test]
fn an_unknown_cohort_is_refused_with_what_to_write_instead() {
    let schema = schema(base);
    let refusal = |name| schema.resolve_cohort(name).expect_err("undeclared").to_string();
    assert!(refusal("contry=FR").ends_with("did you mean country=FR?"));
    assert!(refusal("teen").ends_with("did you mean teens?"));
    assert!(refusal("country").contains("country=VALUE"));
    assert!(refusal("country=").contains("country=VALUE"));
}

#[test]
fn a_user_belongs_to_the_singles_that_hold_and_one_member_of_each_family() {
    let schema = schema(|b| {
        base(b);
        b.cohort_family("plan", 5).cohort("adults", Predicate::range("age", 20.0..));
    });
    let cohorts = |user: &[(&str, &'static str)]| {
        let user: BTreeMap<&str, &'static str> = user.iter().copied().collect();
        schema.cohorts_of(|name| user.get(name).copied())
    };
    assert_eq!(
        cohorts(&[("plan", "pro"), ("country", "FR"), ("age", "15"), ("picks", "x")]),
        ["country=FR", "plan=pro", "teens"]
    );
    assert_eq!(cohorts(&[("age", "20"), ("country", ""), ("plan", "a\0")]), ["adults"]);
    assert!(cohorts(&[]).is_empty());
}

#[test]
fn the_same_schema_extends_nothing() {
    let stored = schema(base);
    assert_eq!(stored.extend(&schema(base), LATER).expect("alike"), None);
    let grown =
        stored.extend(&schema(|b| ignore(more(b))), LATER).expect("only adds").expect("adds");
    assert_eq!(grown.extend(&schema(|b| ignore(more(b))), LATER).expect("alike"), None);
    assert_eq!(grown.extend(&grown, LATER).expect("alike"), None);
}

/// The base with something of everything that can be added.
fn more(b: &mut SchemaBuilder) -> &mut SchemaBuilder {
    let _ = b
        .signal("view", EntityKind::Item, HOURLY)
        .half_lives(&[HOUR * 2, HOUR * 24, Duration::MAX])
        .windows(&Window::ALL)
        .velocity(true)
        .add();
    let _ = b
        .signal("like", EntityKind::Item, DecaySpec::None)
        .windows(&[Window::SevenDays])
        .velocity(true)
        .add();
    let _ = b.signal("buy", EntityKind::Creator, HOURLY).windows(&[Window::OneHour]).add();
    let _ = b.signal("zap", EntityKind::User, HOURLY).add();
    b.cohort("teens", Predicate::range("age", 13.0..20.0)).cohort("a", Predicate::eq("x", "y"));
    b.cohort_family("country", 11).cohort_family("plan", 1);
    b.named_cohort("picks").named_cohort("z")
}

#[test]
fn additions_follow_what_is_stored_and_count_from_when_they_were_added() {
    let first = ExtendedAt::CREATION;
    let stored = schema(base);
    let grown =
        stored.extend(&schema(|b| ignore(more(b))), LATER).expect("only adds").expect("adds");
    let names: Vec<&str> = grown.signals().iter().map(SignalDef::name).collect();
    assert_eq!(names, ["like", "view", "buy", "zap"]);
    assert_eq!(grown.resolve("view").expect("stored"), stored.resolve("view").expect("stored"));
    assert_eq!(grown.signals()[0], stored.signals()[0]);

    let view = &grown.signals()[1];
    let half_lives: Vec<(Duration, ExtendedAt)> =
        view.half_lives().iter().map(|def| (def.half_life.as_duration(), def.since)).collect();
    assert_eq!(
        half_lives,
        [(HOUR, first), (HOUR * 24, first), (HOUR * 2, LATER), (Duration::MAX, LATER)]
    );
    let windows: Vec<(Window, ExtendedAt)> =
        view.windows().iter().map(|def| (def.window, def.since)).collect();
    assert_eq!(
        windows,
        [
            (Window::OneHour, first),
            (Window::TwentyFourHours, LATER),
            (Window::SevenDays, LATER),
            (Window::ThirtyDays, first)
        ]
    );
    assert_eq!(view.velocity(), Some(LATER));
    assert!(view.velocity_windows().all(|def| def.since == LATER));
    assert_eq!(view.since(), first);
    assert_eq!(grown.signals()[2].since(), LATER);
    assert_eq!(grown.signals()[2].windows()[0].since, LATER);

    let cohorts: Vec<(&str, ExtendedAt)> =
        grown.cohorts().iter().map(|def| (def.name(), def.since())).collect();
    assert_eq!(
        cohorts,
        [
            ("a", LATER),
            ("country", first),
            ("picks", first),
            ("plan", LATER),
            ("teens", first),
            ("z", LATER)
        ]
    );
    assert_eq!(grown.cohort("country").and_then(CohortDef::max_members), Some(11));
}

#[test]
fn each_single_addition_is_an_extension() {
    let additions: [fn(&mut SchemaBuilder); 4] = [
        |b| ignore(b.signal("new", EntityKind::Item, HOURLY).add()),
        |b| ignore(b.cohort("new", Predicate::eq("a", "b"))),
        |b| ignore(b.cohort_family("new", 1)),
        |b| ignore(b.named_cohort("new")),
    ];
    let stored = schema(base);
    for add in additions {
        let given = schema(|b| {
            base(b);
            add(b);
        });
        let grown = stored.extend(&given, LATER).expect("only adds").expect("adds");
        assert_ne!(grown, stored);
    }
}

#[test]
fn whatever_changes_or_removes_is_a_mismatch_that_says_what() {
    let check =
        |stored: fn(&mut SchemaBuilder), given: fn(&mut SchemaBuilder), says: &str| match schema(
            stored,
        )
        .extend(&schema(given), LATER)
        {
            Err(Error::SchemaMismatch(differences)) => {
                assert_eq!(differences.len(), 1, "{differences:?}");
                assert!(differences[0].contains(says), "{says:?} is not in {differences:?}");
            }
            other => panic!("{says}: {other:?}"),
        };
    macro_rules! signal {
        ($kind:ident, $decay:expr $(, $method:ident($($arg:expr),*))*) => {
            |b| ignore(b.signal("view", EntityKind::$kind, $decay)$(.$method($($arg),*))*.add())
        };
    }
    let plain: fn(&mut SchemaBuilder) = signal!(Item, HOURLY);
    check(plain, |_| (), "\"view\" is stored but not given");
    check(plain, signal!(User, HOURLY), "kind Item but given as User");
    check(plain, signal!(Item, DecaySpec::None), "default half-life 1h stored but infinite");
    check(signal!(Item, HOURLY, half_lives(&[HOUR * 2])), plain, "half-life 2h");
    check(signal!(Item, HOURLY, windows(&[Window::SevenDays])), plain, "window 7d");
    check(
        signal!(Item, HOURLY, windows(&[Window::OneHour]), velocity(true)),
        signal!(Item, HOURLY, windows(&[Window::OneHour])),
        "velocity(true)",
    );

    let single: fn(&mut SchemaBuilder) = |b| ignore(b.cohort("c", Predicate::eq("a", "b")));
    let family: fn(&mut SchemaBuilder) = |b| ignore(b.cohort_family("c", 10));
    let named: fn(&mut SchemaBuilder) = |b| ignore(b.named_cohort("c"));
    check(single, |_| (), "cohort \"c\" is stored but not given");
    check(family, |_| (), "cohort family \"c\" is stored but not given");
    check(named, |_| (), "named cohort \"c\" is stored but not given");
    check(single, |b| ignore(b.cohort("c", Predicate::eq("a", "z"))), "a = \"z\"");
    check(family, |b| ignore(b.cohort_family("c", 9)), "only be raised");
    let engaging: fn(&mut SchemaBuilder) = signal!(Item, HOURLY, engaging());
    check(engaging, plain, "declare engaging()");
    check(engaging, |b| engage(b, |of| of.half_life = HOUR * 2), "it never changes");
    check(engaging, |b| engage(b, |of| of.neighbours_max = 99), "neighbours_max 100 stored");
    check(engaging, |b| engage(b, |of| of.capacity = 999_999), "can only be raised");
    check(engaging, |b| engage(b, |of| of.trail_items_max = 99), "trail_items_max");
    check(engaging, |b| engage(b, |of| of.trails_max = 1), "trails_max");
    check(named, single, "stored as a named cohort but given as a cohort");
    check(single, family, "stored as a cohort but given as a cohort family");
    check(family, named, "stored as a cohort family but given as a named cohort");
}

/// Declares one engaging signal, and co-engagement with something changed.
fn engage(b: &mut SchemaBuilder, change: fn(&mut CoEngagement)) {
    let _ = b.signal("view", EntityKind::Item, HOURLY).engaging().add();
    let mut settings = CoEngagement::default();
    change(&mut settings);
    b.co_engagement(settings);
}

#[test]
fn a_signal_may_become_engaging_and_bounds_may_be_raised() {
    let plain = schema(|b| ignore(b.signal("view", EntityKind::Item, HOURLY).add()));
    assert_eq!((plain.co_engagement(), plain.signals()[0].engaging()), (None, None));
    let first = plain.extend(&schema(|b| engage(b, |_| ())), LATER).expect("it adds");
    let first = first.expect("something");
    assert_eq!(first.signals()[0].engaging(), Some(LATER));
    assert_eq!(first.co_engagement(), Some(&CoEngagement::default()));
    let raised = schema(|b| {
        engage(b, |of| {
            (of.neighbours_max, of.capacity, of.trail_items_max) = (101, 2_000_000, 200);
            (of.trails_max, of.recent_items, of.anonymous_trail) = (300_000, 3, true);
            of.trail_idle = HOUR;
        });
    });
    let later = ExtendedAt { seq: Seq::new(9), ..LATER };
    let second = first.extend(&raised, later).expect("it only raises").expect("something");
    assert_eq!(second.co_engagement(), raised.co_engagement());
    assert_eq!(second.signals()[0].engaging(), Some(LATER), "it was engaging all the time");
    assert_eq!(second.extend(&raised, later).expect("alike"), None);
}

#[test]
fn co_engagement_out_of_its_limits_is_refused_with_every_mistake_named() {
    let mut b = SchemaBuilder::new();
    engage(&mut b, |of| {
        (of.recent_items, of.neighbours_max, of.capacity) = (0, 1_001, 0);
        (of.trail_items_max, of.trails_max) = (1_001, 0);
        (of.half_life, of.trail_idle) = (HOUR / 2, Duration::ZERO);
    });
    let Err(Error::InvalidSchema(sentence)) = b.build() else { panic!("accepted") };
    for word in ["recent_items 0", "neighbours_max 1001", "capacity 0", "1 to 1000"] {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
    for word in ["trail_items_max 1001", "trails_max 0", "half-life of 1800s", "trail_idle"] {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
    let refused = |declare: fn(&mut SchemaBuilder), says: &str| {
        let mut b = SchemaBuilder::new();
        declare(&mut b);
        let Err(Error::InvalidSchema(sentence)) = b.build() else { panic!("accepted") };
        assert!(sentence.contains(says), "{sentence}");
    };
    refused(|b| ignore(b.co_engagement(CoEngagement::default())), "no signal is engaging");
    refused(
        |b| ignore(b.signal("follow", EntityKind::Creator, HOURLY).engaging().add()),
        "only items are recommended",
    );
    refused(|b| engage(b, |of| of.trail_items_max = 9), "trail_items_max 9: give it 10 to 1000");
    for half_life in [HOUR, Duration::MAX] {
        let mut b = SchemaBuilder::new();
        engage(&mut b, |_| ());
        b.co_engagement(CoEngagement { half_life, ..CoEngagement::default() });
        let read = Schema::from_bytes(&b.build().expect("sound").to_bytes()).expect("written");
        assert_eq!(read.co_engagement().expect("set up").half_life, half_life);
    }
}

#[test]
fn a_half_life_moved_between_default_and_further_is_a_mismatch() {
    let stored =
        schema(|b| ignore(b.signal("v", EntityKind::Item, HOURLY).half_lives(&[HOUR * 2]).add()));
    let swapped = schema(|b| {
        let decay = DecaySpec::Exponential { half_life: HOUR * 2 };
        ignore(b.signal("v", EntityKind::Item, decay).half_lives(&[HOUR]).add());
    });
    assert!(matches!(stored.extend(&swapped, LATER), Err(Error::SchemaMismatch(_))));
}

#[test]
fn an_older_schema_than_the_stored_one_is_a_mismatch() {
    let grown = schema(|b| ignore(more(b)));
    let Err(Error::SchemaMismatch(differences)) = grown.extend(&schema(base), LATER) else {
        panic!("what is stored must not be forgotten");
    };
    assert_eq!(differences.len(), 11, "{differences:#?}");
}

/// A small schema with every number that version 1 knows.
fn every_tag() -> Schema {
    schema(|b| {
        let _ = b.signal("a", EntityKind::Item, DecaySpec::None).windows(&Window::ALL).add();
        let _ = b.signal("b", EntityKind::User, HOURLY).add();
        let _ =
            b.signal("c", EntityKind::Creator, HOURLY).windows(&Window::ALL).velocity(true).add();
        let in_range = Predicate::range("x", 1.0..2.0) | Predicate::range("y", ..);
        b.cohort("p", in_range & !Predicate::eq("z", "v"));
        b.cohort_family("q", 258).named_cohort("r");
    })
}

#[test]
fn version_one_is_these_bytes_for_ever() {
    let bytes = every_tag().to_bytes();
    let shown = blake3::hash(&bytes).to_hex();
    assert_eq!((bytes.len(), &shown[..16]), (555, "14ba5a0ec9726449"));
}

/// The same with co-engagement, which version 2 knows.
fn every_number_of_version_two() -> Schema {
    let decay = DecaySpec::None;
    let grown = |b: &mut SchemaBuilder| {
        let _ = b.signal("a", EntityKind::Item, decay).windows(&Window::ALL).engaging().add();
        let _ = b.signal("d", EntityKind::Item, HOURLY).engaging().add();
        b.co_engagement(CoEngagement { anonymous_trail: true, ..CoEngagement::default() });
        b.cohort_family("q", 258);
    };
    let first = schema(|b| {
        let _ = b.signal("a", EntityKind::Item, decay).windows(&Window::ALL).engaging().add();
        b.cohort_family("q", 258);
    });
    first.extend(&schema(grown), LATER).expect("it adds").expect("something")
}

#[test]
fn version_two_is_these_bytes_for_ever() {
    let bytes = every_number_of_version_two().to_bytes();
    let shown = blake3::hash(&bytes).to_hex();
    assert_eq!((bytes.len(), &shown[..16]), (332, "b36a83b36c95234c"));
    assert_eq!(Schema::from_bytes(&bytes), Ok(every_number_of_version_two()));
}

/// The same with sessions, which version 3 knows; the policies are not in the order of their names.
fn every_number_of_version_three() -> Schema {
    let first = every_number_of_version_two();
    let mut chat = SessionPolicy::new("chat");
    chat.signals = Some(vec!["d".to_owned(), "a".to_owned()]);
    chat.rate_limit = Some(RateLimit { signals: 20, per: Duration::from_secs(1) });
    let mut other = SessionPolicy::new("agent");
    (other.idle_timeout, other.max_duration) = (HOUR, HOUR * 24);
    (other.empty_fallback, other.late_grace) = (HOUR / 2, HOUR * 2);
    other.signals = Some(Vec::new());
    let given = |policies: &[&SessionPolicy]| {
        let mut rules = first.0.parts.sessions.clone();
        rules.policies.extend(policies.iter().map(|&policy| policy.clone()));
        rules.policies[1..]
            .iter_mut()
            .filter_map(|policy| policy.signals.as_mut())
            .for_each(|s| s.sort());
        Schema::from_parts(Parts { sessions: rules, ..first.0.parts.clone() }, Own::ALL)
    };
    let one = given(&[&chat]).expect("sound");
    one.extend(&given(&[&other, &chat]).expect("sound"), LATER)
        .expect("it adds")
        .expect("something")
}

#[test]
fn version_three_is_these_bytes_for_ever() {
    let bytes = every_number_of_version_three().to_bytes();
    let shown = blake3::hash(&bytes).to_hex();
    assert_eq!((bytes.len(), &shown[..16]), (528, "81567a232ec32b8c"));
    assert_eq!(Schema::from_bytes(&bytes), Ok(every_number_of_version_three()));
}

#[test]
fn a_schema_is_stored_as_the_first_version_that_knows_what_it_says() {
    assert_eq!(every_tag().to_bytes()[..2], [1, 0]);
    assert_eq!(every_number_of_version_two().to_bytes()[..2], [2, 0]);
    assert_eq!(every_number_of_version_three().to_bytes()[..2], [3, 0]);
    let implied = schema(|b| {
        ignore(b.session_policy(SessionPolicy::new("default")).session_lane(Lane::UserAgent));
    });
    assert_eq!(
        implied.to_bytes()[..2],
        [1, 0],
        "what every schema says needs no version of its own"
    );
    assert_eq!(implied, schema(|_| ()));
    let needless = v3::encode((1, implied.to_bytes()[2..].to_vec()), &[], &SessionRules::default());
    let needless = [&[3, 0], needless.expect("small").as_slice()].concat();
    assert!(matches!(Schema::from_bytes(&needless), Err(DecodeError::Malformed(_))));
}

#[test]
fn a_small_schema_has_these_bytes() {
    let schema = schema(|b| ignore(b.cohort("p", !Predicate::eq("z", "v"))));
    let mut expected = Vec::new();
    expected.put_u16(1); // version
    expected.put_u64(0); // signals
    expected.put_u64(1); // cohorts
    expected.put_u64(1);
    expected.extend_from_slice(b"p");
    expected.put_u32(0); // a predicate
    expected.put_u64(2); // of two steps
    expected.put_u32(0); // any of
    expected.put_u64(1);
    expected.extend_from_slice(b"z");
    expected.put_u64(1);
    expected.put_u64(1);
    expected.extend_from_slice(b"v");
    expected.put_u32(4); // not
    expected.put_u64(0); // since
    expected.put_u64(0);
    assert_eq!(schema.to_bytes(), expected);
    assert_eq!(Schema::from_bytes(&expected), Ok(schema));
}

#[test]
fn other_versions_are_told_apart_from_damage() {
    let mut bytes = every_tag().to_bytes();
    bytes[0] = 2;
    assert!(Schema::from_bytes(&bytes).is_err(), "version 1 is no version 2");
    bytes[0] = 3;
    assert!(Schema::from_bytes(&bytes).is_err(), "nor version 3");
    bytes[0] = 4;
    assert_eq!(Schema::from_bytes(&bytes), Err(DecodeError::FormatTooNew { found: 4, max: 3 }));
    bytes[0] = 0;
    assert!(matches!(Schema::from_bytes(&bytes), Err(DecodeError::Malformed(_))));
    assert!(Schema::from_bytes(&vec![1; BYTES_MAX + 1]).is_err());
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let all = [every_tag(), every_number_of_version_two(), every_number_of_version_three()];
    for schema in all {
        let mut bytes = schema.to_bytes();
        for len in 0..bytes.len() {
            assert!(Schema::from_bytes(&bytes[..len]).is_err(), "length {len}");
        }
        bytes.push(0);
        assert_eq!(Schema::from_bytes(&bytes), Err(DecodeError::Trailing { extra: 1 }));
    }
}

#[test]
fn a_flipped_bit_gives_a_sound_schema_or_an_error_never_a_panic() {
    let all = [every_tag(), every_number_of_version_two(), every_number_of_version_three()];
    let all = all.map(|schema| schema.to_bytes());
    for (bytes, bit) in all.iter().flat_map(|bytes| (0..bytes.len() * 8).map(move |b| (bytes, b))) {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(schema) = Schema::from_bytes(&bad) {
            assert!(schema.0.parts.problems().is_empty(), "bit {bit}");
            assert_eq!(schema.to_bytes(), bad, "bit {bit}: two spellings of one schema");
        }
    }
}

fn predicates() -> impl Strategy<Value = Predicate> {
    let attribute = || select(vec!["age", "country", "plan"]);
    let condition = prop_oneof![
        (attribute(), btree_set("[a-z]{0,3}", 1..4)).prop_map(|(a, v)| Predicate::any_of(a, v)),
        (attribute(), -100i32..100).prop_map(|(a, low)| {
            Predicate::range(a, f64::from(low) / 4.0..f64::from(low) / 4.0 + 10.0)
        }),
        (attribute(), any::<i16>()).prop_map(|(a, high)| Predicate::range(a, ..=f64::from(high))),
    ];
    condition.prop_recursive(5, 40, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(l, r)| l.and(r)),
            (inner.clone(), inner.clone()).prop_map(|(l, r)| l.or(r)),
            inner.prop_map(|p| !p),
        ]
    })
}

fn builders() -> impl Strategy<Value = SchemaBuilder> {
    let kind = select(vec![EntityKind::Item, EntityKind::User, EntityKind::Creator]);
    let lengths = subsequence(vec![HOUR, HOUR * 2, HOUR * 3, Duration::MAX], 1..=4).prop_shuffle();
    let windows = subsequence(Window::ALL.to_vec(), 0..=5);
    let flags = (any::<bool>(), any::<bool>());
    let signals = btree_map("[a-zé ]{1,8}", (kind, lengths, windows, flags), 0..6);
    let cohorts = btree_map("p[a-z]{0,4}", predicates(), 0..4);
    let families = btree_map("f[a-z]{0,4}", 1u32..1000, 0..4);
    let named = btree_set("n[a-z]{0,4}", 0..4);
    let sessions = sessions();
    let all = (signals, cohorts, families, named, sessions);
    all.prop_map(|(signals, cohorts, families, named, (policies, lane))| {
        let mut b = SchemaBuilder::new();
        let names: Vec<String> = signals.keys().cloned().collect();
        for (name, (idle_secs, half, allowed, per_second)) in policies {
            let mut policy = SessionPolicy::new(name);
            policy.idle_timeout = Duration::from_secs(idle_secs);
            policy.max_duration = policy.idle_timeout * 3;
            policy.empty_fallback = policy.idle_timeout / if half { 2 } else { 1 };
            policy.signals =
                allowed.map(|step| names.iter().rev().step_by(step).cloned().collect());
            let per = Duration::from_secs(1);
            policy.rate_limit = per_second.map(|signals| RateLimit { signals, per });
            b.session_policy(policy);
        }
        lane.into_iter().for_each(|lane| ignore(b.session_lane(lane)));
        for (name, (kind, lengths, windows, (velocity, engaging))) in signals {
            let velocity = velocity && windows.iter().any(|window| window.has_velocity());
            let decay = DecaySpec::Exponential { half_life: lengths[0] };
            let signal = b.signal(name, kind, decay).half_lives(&lengths[1..]);
            let signal = signal.windows(&windows).velocity(velocity);
            let engaging = engaging && kind == EntityKind::Item;
            ignore(if engaging { signal.engaging() } else { signal }.add());
        }
        cohorts.into_iter().for_each(|(name, predicate)| ignore(b.cohort(name, predicate)));
        families.into_iter().for_each(|(name, limit)| ignore(b.cohort_family(name, limit)));
        named.into_iter().for_each(|name| ignore(b.named_cohort(name)));
        b
    })
}

type Policies = BTreeMap<String, (u64, bool, Option<usize>, Option<u32>)>;

fn sessions() -> impl Strategy<Value = (Policies, Option<Lane>)> {
    let allowed = proptest::option::of(1usize..4);
    let policy = (1u64..10_000, any::<bool>(), allowed, proptest::option::of(1u32..100));
    let lane = select(vec![Lane::User, Lane::UserAgent, Lane::Overlapping]);
    (btree_map("default|[a-z]{1,3}", policy, 0..4), proptest::option::of(lane))
}

proptest! {
    #[test]
    fn what_was_written_is_read(builder in builders()) {
        let schema = builder.build().expect("sound");
        let bytes = schema.to_bytes();
        let read = Schema::from_bytes(&bytes).expect("just written");
        prop_assert_eq!(&read, &schema);
        prop_assert_eq!(read.to_bytes(), bytes);
        for (number, signal) in schema.signals().iter().enumerate() {
            let id = SignalTypeId::new(number as u16);
            prop_assert_eq!(read.signal_type(signal.name()), Some(id));
        }
    }

    #[test]
    fn a_schema_with_more_extends_and_one_with_less_does_not(builder in builders(), hours in 4u32..9) {
        let stored = builder.build().expect("sound");
        let mut builder = builder;
        let decay = DecaySpec::Exponential { half_life: HOUR * hours };
        ignore(builder.signal("0", EntityKind::Item, decay).add());
        let given = builder.build().expect("sound");
        let grown = stored.extend(&given, LATER).expect("only adds").expect("adds");
        prop_assert_eq!(&grown.signals()[..stored.signals().len()], stored.signals());
        prop_assert_eq!(grown.resolve("0").expect("added").get() as usize, stored.signals().len());
        prop_assert_eq!(Schema::from_bytes(&grown.to_bytes()), Ok(grown.clone()));
        prop_assert_eq!(grown.extend(&given, LATER).expect("alike"), None);
        prop_assert!(matches!(grown.extend(&stored, LATER), Err(Error::SchemaMismatch(_))));
    }

    #[test]
    fn garbage_never_panics(body: Vec<u8>, versioned: bool) {
        let mut bytes = if versioned { vec![1 + body.len() as u8 % 3, 0] } else { Vec::new() };
        bytes.extend_from_slice(&body);
        let _ = Schema::from_bytes(&bytes);
    }

    #[test]
    fn spoiled_schemas_never_panic(builder in builders(), spoils in vec(any::<(u16, u8)>(), 1..8)) {
        let mut bytes = builder.build().expect("sound").to_bytes();
        for (at, byte) in spoils {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(schema) = Schema::from_bytes(&bytes) {
            prop_assert!(schema.0.parts.problems().is_empty());
        }
    }

    #[test]
    fn evaluation_agrees_with_logic(left in predicates(), right in predicates(), age in -50i32..50) {
        let age = age.to_string();
        let user = |name: &str| (name == "age").then_some(age.as_str());
        let (l, r) = (left.evaluate(user), right.evaluate(user));
        prop_assert_eq!((left.clone() & right.clone()).evaluate(user), l && r);
        prop_assert_eq!((left.clone() | right).evaluate(user), l || r);
        prop_assert_eq!((!left).evaluate(user), !l);
    }
}
