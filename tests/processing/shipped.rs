//! Derived signals, and the processors that come with the library.

use std::collections::HashMap;

use super::*;
use tidaldb::builtin::{Usage, Verification};
use tidaldb::{Error, SessionFilter, SessionSignal};

fn likes(db: &TidalDb, item: u64) -> u64 {
    db.read_windowed_count(EntityId::new(item), "like", Window::AllTime).expect("read")
}

fn liker() -> Probe {
    probe("liker", |session, out| {
        for record in session.records()? {
            out.signal("like", record.entity, 1.0, record.at)?;
        }
        Ok(Processed::default())
    })
}

#[test]
fn derived_signals_count_once_for_one_content_however_often_it_is_processed() {
    let (db, _clock) = ephemeral();
    register(&db, &liker(), minutely());
    (0..3).for_each(|user| {
        ended(&db, user, 2);
    });
    assert_eq!(run(&db, "liker").processed, 3);
    assert_eq!((likes(&db, 0), likes(&db, 1)), (3, 3));
    for _ in 0..2 {
        let plan = db.sessions().plan_reprocess("liker", &SessionFilter::new()).expect("planned");
        assert_eq!(db.sessions().apply(plan).expect("applied").done.len(), 3);
        assert_eq!(run(&db, "liker").processed, 3);
    }
    assert_eq!((likes(&db, 0), likes(&db, 1)), (3, 3));
}

#[test]
fn derived_signals_are_those_of_the_sessions_user() {
    let mut b = SchemaBuilder::new();
    let _ = b.signal("view", EntityKind::Item, DecaySpec::None).windows(&[Window::AllTime]).add();
    let _ = b.signal("like", EntityKind::Item, DecaySpec::None).windows(&[Window::AllTime]).add();
    b.cohort("german", tidaldb::schema::Predicate::eq("country", "de"));
    let clock = ManualClock::at(START);
    let db = TidalDb::builder()
        .with_schema(b.build().expect("sound"))
        .with_sessions(manual())
        .with_clock(Arc::new(clock))
        .ephemeral()
        .open()
        .expect("opens");
    let german = HashMap::from([("country".to_owned(), "de".to_owned())]);
    db.write_user(1, &german).expect("written");
    register(&db, &liker(), minutely());
    ended(&db, 1, 1);
    ended(&db, 2, 1);
    run(&db, "liker");
    let cohort = tidaldb::ReadOptions::new().cohort("german");
    let of_cohort = db.windowed_count(EntityId::new(0), "like", Window::AllTime, &cohort);
    assert_eq!((of_cohort.expect("read"), likes(&db, 0)), (1, 2));
}

#[test]
fn signals_of_an_attempt_that_fails_are_not_counted() {
    let (db, clock) = ephemeral();
    let it = probe("it", |session, out| {
        out.signal("like", EntityId::new(7), 1.0, session.info().started_at)?;
        match session.attempt() {
            1 => Err("not yet".into()),
            2 => panic!("a panic of this test's own"),
            _ => Ok(Processed::default()),
        }
    });
    register(&db, &it, minutely());
    ended(&db, 1, 0);
    for expected in [0, 0, 1] {
        run(&db, "it");
        assert_eq!(likes(&db, 7), expected);
        clock.advance(MINUTE);
    }
}

#[test]
fn signals_that_make_no_sense_are_refused_at_the_call() {
    let (db, _clock) = ephemeral();
    let it = probe("it", |session, out| {
        let (item, at) = (EntityId::new(1), session.info().started_at);
        match out.signal("lik", item, 1.0, at) {
            Err(Error::UnknownName { nearest, .. }) => assert_eq!(nearest, ["like"]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            out.signal("like", item, f64::NAN, at),
            Err(Error::InvalidArgument { what: "weight", .. })
        ));
        assert!(matches!(
            out.signal("like", item, 1.0, at.saturating_add(HOUR)),
            Err(Error::TooFarAhead { .. })
        ));
        Ok(Processed::default())
    });
    register(&db, &it, minutely());
    ended(&db, 1, 0);
    assert_eq!(run(&db, "it").processed, 1, "it goes on without them");
    assert_eq!(likes(&db, 1), 0);
}

#[test]
fn usage_counts_signals_by_agent_and_day() {
    let (db, clock) = ephemeral();
    db.sessions().register(Usage::new(), minutely()).expect("registered");
    let session = db.start_session(1, "phone", "default").expect("started");
    // 22:13 UTC: the session goes on after midnight.
    session.signal("view", EntityId::new(1), 2.0, START).expect("written");
    session.signal("like", EntityId::new(1), 1.0, START).expect("written");
    session.annotate(EntityId::new(1), "no signal").expect("written");
    session.extend(2 * HOUR).expect("extended");
    clock.advance(110 * MINUTE);
    session.signal("view", EntityId::new(2), 3.0, clock_now(&clock)).expect("written");
    session.signal("view", EntityId::new(3), 3.0, clock_now(&clock)).expect("written");
    let id = session.session_id();
    session.close().expect("closed");
    assert_eq!(run(&db, "usage").items, 4);
    let counts = Usage::counts(&db.sessions().outputs("usage", id).expect("read"));
    let told: Vec<_> =
        counts.iter().map(|it| (it.day, &*it.signal, &*it.agent, it.count, it.weight)).collect();
    let day = 1_700_000_000 / 86_400;
    let expected = [
        (day, "like", "phone", 1, 1.0),
        (day, "view", "phone", 1, 2.0),
        (day + 1, "view", "phone", 2, 6.0),
    ];
    assert_eq!(told, expected);
}

fn clock_now(clock: &ManualClock) -> Timestamp {
    tidaldb::Clock::now(clock)
}

#[test]
fn verification_finds_nothing_where_all_holds_late_records_and_notes_included() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    db.sessions().register(Verification::new(), minutely()).expect("registered");
    let session = db.start_session(1, "phone", "lenient").expect("started");
    let noted = SessionSignal::new("view", EntityId::new(1), START).annotation("twice");
    session.signal_with(noted).expect("written");
    session.signal("view", EntityId::new(1), 1.0, START).expect("written");
    session.annotate(EntityId::new(1), "no signal").expect("written");
    let id = session.session_id();
    session.close().expect("closed");
    let late = SessionSignal::new("like", EntityId::new(1), START);
    db.sessions().append_late(id, late).expect("it takes late records");
    db.checkpoint().expect("written");
    let stats = run(&db, "verification");
    assert_eq!((stats.processed, stats.items), (1, 4));
    let outputs = db.sessions().outputs("verification", id).expect("read");
    assert_eq!(Verification::findings(&outputs), [] as [String; 0]);
}

#[test]
fn verification_finds_a_start_that_is_not_the_one_of_the_hash() {
    let (db, clock) = ephemeral();
    db.sessions().register(Verification::new(), minutely()).expect("registered");
    clock.advance(HOUR);
    let session = db.start_session(1, "phone", "default").expect("started");
    // The one case in which a sound database has such a session.
    clock.set(START);
    db.reset_clock().expect("reset");
    let id = session.session_id();
    session.close().expect("closed");
    run(&db, "verification");
    let outputs = db.sessions().outputs("verification", id).expect("read");
    let findings = Verification::findings(&outputs);
    assert_eq!(findings, ["its content hash is not that of its records"]);
}
