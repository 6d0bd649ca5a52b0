//! Errors and panics, and whom they concern.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use tidaldb::{EventFilter, FailCause, SessionEvent, SessionFilter, SessionSignal};

const FAILS: &str = "this test's own error";

fn attempts(db: &TidalDb, name: &str, id: SessionId) -> u32 {
    db.sessions().processor_row(name, id).expect("read").map_or(0, |row| row.attempts)
}

fn is_quarantined(db: &TidalDb, name: &str, id: SessionId) -> bool {
    matches!(status(db, name, id), Some(ProcessorStatus::Quarantined { .. }))
}

#[test]
fn what_fails_is_tried_again_after_5_15_30_and_60_minutes_and_then_given_up() {
    let (db, clock) = ephemeral();
    let it = probe("it", |_, _| Err(FAILS.into()));
    register(&db, &it, ProcessorOptions::default());
    let id = ended(&db, 1, 1);
    for (attempt, minutes) in [(1, 5.0), (2, 15.0), (3, 30.0), (4, 60.0)] {
        assert_eq!(run(&db, "it").errors, 1, "attempt {attempt}");
        let Some(ProcessorStatus::Retrying { next, error }) = status(&db, "it", id) else {
            panic!("attempt {attempt}: {:?}", status(&db, "it", id));
        };
        let wait = Duration::from_nanos(next.as_nanos() - db.engine_time().as_nanos());
        let share = wait.as_secs_f64() / (60.0 * minutes);
        assert!((0.9..=1.1).contains(&share), "{wait:?} after attempt {attempt}");
        assert!(share != 1.0, "no two sessions come back at once");
        assert_eq!(error, FAILS);
        assert_eq!((run(&db, "it").scanned, run(&db, "it").deferred), (0, 1));
        clock.advance(wait - Duration::from_nanos(1));
        assert_eq!(run(&db, "it").scanned, 0, "not yet");
        clock.advance(Duration::from_nanos(1));
    }
    let stats = run(&db, "it");
    assert_eq!((stats.errors, stats.quarantined), (1, 1));
    assert!(is_quarantined(&db, "it", id) && attempts(&db, "it", id) == 5);
    clock.advance(1_000 * HOUR);
    assert_eq!((run(&db, "it").scanned, it.calls()), (0, 5));
    let cause = failure(&db, id).expect("it waited for it");
    assert_eq!(cause, FailCause::Quarantined { processor: "it".to_owned() });
}

#[test]
fn a_processor_says_when_it_is_to_be_tried_again_or_that_it_is_not() {
    let (db, clock) = ephemeral();
    let it = probe("it", |session, _| match session.info().user.get() {
        1 => Err(ProcessError::retry_after(7 * SECOND, FAILS)),
        2 => Err(ProcessError::permanent(FAILS)),
        _ => Ok(Processed::default()),
    });
    register(&db, &it, observing());
    let ids = [1, 2, 3].map(|user| ended(&db, user, 0));
    let stats = run(&db, "it");
    assert_eq!((stats.processed, stats.errors, stats.quarantined), (1, 2, 1));
    let next = db.engine_time().saturating_add(7 * SECOND);
    let retrying = ProcessorStatus::Retrying { next, error: FAILS.to_owned() };
    assert_eq!(status(&db, "it", ids[0]), Some(retrying));
    assert!(is_quarantined(&db, "it", ids[1]));
    assert!(ids.iter().all(|&id| is_settled(&db, id)), "nobody waits for one that is not required");
    clock.advance(7 * SECOND);
    assert_eq!(run(&db, "it").scanned, 1);
}

#[test]
fn a_long_error_is_cut_at_a_whole_character() {
    let (db, _clock) = ephemeral();
    let it = probe("it", |_, _| Err("ä".repeat(10_000).replace("ää", "äxä").into()));
    register(&db, &it, minutely());
    let id = ended(&db, 1, 0);
    assert_eq!(run(&db, "it").errors, 1);
    let Some(ProcessorStatus::Retrying { error, .. }) = status(&db, "it", id) else { panic!() };
    assert!((510..=512).contains(&error.len()) && error.starts_with("äxä"), "{}", error.len());
}

/// P30.
#[test]
fn failure_leaves_row_unwritten() {
    let (db, clock) = ephemeral();
    let it = probe("it", |session, out| {
        put_pure(session, out)?;
        match (session.info().late, session.attempt()) {
            (0, _) => Ok(Processed { items: 1 }),
            (_, 1) => Err(FAILS.into()),
            (_, 2) => panic!("a panic of this test's own"),
            _ => Ok(Processed { items: 2 }),
        }
    });
    register(&db, &it, minutely());
    let id = ended_under(&db, 1, 3, "lenient");
    run(&db, "it");
    let row = db.sessions().processor_row("it", id).expect("read").expect("done");
    let signal = SessionSignal::new("view", EntityId::new(9), db.engine_time());
    db.sessions().append_late(id, signal).expect("it takes late records");
    for _ in 0..2 {
        assert_eq!(run(&db, "it").errors, 1);
        let failed = db.sessions().processor_row("it", id).expect("read").expect("there");
        assert_eq!(failed.outcome, row.outcome, "nothing of the failed attempt is there");
        clock.advance(MINUTE);
    }
    assert_eq!(run(&db, "it").items, 2);
    assert_eq!(db.sessions().outputs("it", id).expect("read"), pure_outputs(&db, id));
}

/// P31.
#[test]
fn poison_is_bounded_and_starves_nobody() {
    let (db, clock) = ephemeral();
    let it = probe("it", |session, out| match session.info().user.get() % 10 {
        3 => Err(FAILS.into()),
        7 => panic!("a panic of this test's own"),
        _ => put_pure(session, out),
    });
    let mut capped = minutely();
    capped.max_sessions_per_run = std::num::NonZeroU32::new(30);
    register(&db, &it, capped);
    // More poison than a run attempts, and all of it older than the rest.
    let poison: Vec<SessionId> =
        (0..25).flat_map(|i| [ended(&db, 10 * i + 3, 1), ended(&db, 10 * i + 7, 1)]).collect();
    let healthy: Vec<SessionId> = (0..40).map(|i| ended(&db, 10 * i, 1)).collect();
    let mut most = 0;
    for _ in 0..40 {
        run(&db, "it");
        clock.advance(5 * MINUTE);
        most = poison.iter().map(|&id| attempts(&db, "it", id)).max().expect("some").max(most);
        if most > 1 {
            let done =
                healthy.iter().all(|&id| status(&db, "it", id) == Some(ProcessorStatus::Done));
            assert!(done, "no second attempt before everybody had a first one");
        }
    }
    assert!(healthy.iter().all(|&id| is_settled(&db, id)));
    assert!(poison.iter().all(|&id| is_quarantined(&db, "it", id)));
    assert_eq!((most, it.calls()), (5, 50 * 5 + 40));
}

/// P27.
#[test]
fn processors_isolated() {
    let outcomes = |with_other: bool| {
        let (db, clock) = ephemeral();
        let good = pure("good");
        register(&db, &good, observing());
        if with_other {
            let turn = Mutex::new(0_u32);
            let bad = probe("bad", move |_, out| {
                out.put(b"hash", b"of the bad one")?;
                let mut turn = turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *turn += 1;
                match *turn % 3 {
                    0 => Err(FAILS.into()),
                    1 => Err(ProcessError::permanent(FAILS)),
                    _ => panic!("a panic of this test's own"),
                }
            });
            register(&db, &bad, observing());
        }
        let mut made = Vec::new();
        for round in 0..5 {
            let ids: Vec<SessionId> = (0..5).map(|user| ended(&db, user, round)).collect();
            clock.advance(15 * MINUTE);
            assert_eq!(db.drive().expect("drives").runs, 1 + u64::from(with_other));
            for id in ids {
                let row = db.sessions().processor_row("good", id).expect("read").expect("done");
                let outcome = row.outcome.expect("done");
                let times = (outcome.observed_at, outcome.committed_at);
                made.push((row.status, outcome.attempts, times, outcome.outputs.len()));
            }
        }
        (made, good.calls())
    };
    assert_eq!(outcomes(true), outcomes(false));
}

#[test]
fn who_listens_is_told_of_failures_of_quarantine_and_of_what_settles() {
    let (db, clock) = ephemeral();
    let it = probe("it", |session, _| match session.info().user.get() {
        1 => Err(ProcessError::permanent(FAILS)),
        _ if session.attempt() == 1 => Err(FAILS.into()),
        _ => Ok(Processed::default()),
    });
    register(&db, &it, minutely());
    let events = db.sessions().subscribe(EventFilter::all()).expect("subscribed");
    let ids = [1, 2].map(|user| ended(&db, user, 0));
    run(&db, "it");
    clock.advance(MINUTE);
    run(&db, "it");
    let told: Vec<SessionEvent> =
        std::iter::from_fn(|| events.try_recv()).map(|(_, event)| event).collect();
    let of = |id: SessionId| -> Vec<&SessionEvent> {
        let is_of = |event: &&SessionEvent| match event {
            SessionEvent::ProcessorFailed { id: of, .. }
            | SessionEvent::Quarantined { id: of, .. }
            | SessionEvent::Failed { id: of, .. }
            | SessionEvent::Settled { id: of } => *of == id,
            _ => false,
        };
        told.iter().filter(is_of).collect()
    };
    let (processor, error) = ("it".to_owned(), FAILS.to_owned());
    let cause = FailCause::Quarantined { processor: processor.clone() };
    let quarantined = SessionEvent::Quarantined {
        id: ids[0],
        processor: processor.clone(),
        error: error.clone(),
    };
    assert_eq!(of(ids[0]), [&quarantined, &SessionEvent::Failed { id: ids[0], cause }]);
    let failed = SessionEvent::ProcessorFailed { id: ids[1], processor, attempt: 1, error };
    assert_eq!(of(ids[1]), [&failed, &SessionEvent::Settled { id: ids[1] }]);
}

#[test]
fn what_was_given_up_is_requeued_and_then_goes_as_if_for_the_first_time() {
    let (db, clock) = ephemeral();
    let mends = Arc::new(AtomicU64::new(0));
    let mended = Arc::clone(&mends);
    for (name, options) in [("all", minutely()), ("some", observing())] {
        let mended = Arc::clone(&mended);
        let it = probe(name, move |session, out| match mended.load(Ordering::SeqCst) {
            0 => Err(ProcessError::permanent(FAILS)),
            _ => put_pure(session, out),
        });
        register(&db, &it, options);
    }
    let id = ended(&db, 1, 2);
    run(&db, "all");
    let plan = db.sessions().plan_requeue(&SessionFilter::new()).expect("planned");
    assert_eq!(
        (plan.items()[0].has_failed, &*plan.items()[0].quarantined_by),
        (true, &["all".to_owned()][..])
    );
    mends.store(1, Ordering::SeqCst);
    assert_eq!(db.sessions().apply(plan.clone()).expect("applied").done, [id]);
    assert_eq!(run(&db, "all").processed, 1);
    assert!(is_settled(&db, id) && failure(&db, id).is_none());
    // One that has settled is requeued as well, for whoever has given it up.
    mends.store(0, Ordering::SeqCst);
    run(&db, "some");
    assert!(is_quarantined(&db, "some", id));
    let again = db.sessions().plan_requeue(&SessionFilter::new()).expect("planned");
    assert_eq!(
        (again.items()[0].has_failed, &*again.items()[0].quarantined_by),
        (false, &["some".to_owned()][..])
    );
    mends.store(1, Ordering::SeqCst);
    assert_eq!(db.sessions().apply(again).expect("applied").done, [id]);
    clock.advance(SECOND);
    assert_eq!(run(&db, "some").processed, 1);
    assert_eq!(db.sessions().outputs("some", id).expect("read"), pure_outputs(&db, id));
    let applied = db.sessions().apply(plan).expect("applied");
    assert_eq!(
        applied.skipped,
        [(id, tidaldb::SkipReason::StateMoved)],
        "there is nothing to requeue"
    );
}

/// The same script, with and without a checkpoint and an open after each step, comes to the same rows.
#[test]
fn a_reopen_between_any_two_steps_changes_nothing() {
    let live = |reopens: bool| -> BTreeMap<SessionId, (ProcessorStatus, u32)> {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = ManualClock::at(START);
        let it = probe("it", |session, out| match session.info().user.get() % 3 {
            0 => put_pure(session, out),
            1 if session.attempt() > 2 => put_pure(session, out),
            _ => Err(FAILS.into()),
        });
        let mut db = open(dir.path(), &clock);
        register(&db, &it, minutely());
        let ids: Vec<SessionId> = (0..6).map(|user| ended(&db, user, 1)).collect();
        for step in 0..6 {
            run(&db, "it");
            clock.advance(2 * MINUTE);
            if reopens {
                if step % 2 == 0 {
                    db.checkpoint().expect("written");
                }
                drop(db);
                db = open(dir.path(), &clock);
                register(&db, &it, minutely());
            }
        }
        let row = |id| db.sessions().processor_row("it", id).expect("read").expect("attempted");
        ids.into_iter().map(|id| (id, (row(id).status, row(id).attempts))).collect()
    };
    assert_eq!(live(true), live(false));
}

/// An error that cannot be put into words.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("a bug in the words of an error")
    }
}

impl std::error::Error for Unspeakable {}

/// What a host panics with, whose end is a bug too.
struct BadEnd;

impl Drop for BadEnd {
    fn drop(&mut self) {
        panic!("a bug in the end of a panic");
    }
}

#[test]
fn bugs_in_the_words_of_an_error_and_in_the_end_of_a_panic_are_contained() {
    let (db, _clock) = ephemeral();
    let it = probe("it", |session, _| match session.info().user.get() {
        1 => Err(ProcessError::from(Unspeakable)),
        2 => std::panic::panic_any(BadEnd),
        _ => Ok(Processed::default()),
    });
    register(&db, &it, minutely());
    let ids: Vec<SessionId> = (1..=3).map(|user| ended(&db, user, 0)).collect();
    let stats = run(&db, "it");
    assert_eq!((stats.errors, stats.processed), (2, 1));
    assert_eq!(status(&db, "it", ids[2]), Some(ProcessorStatus::Done));
}

#[test]
fn an_unregistration_that_is_refused_changes_nothing() {
    let (db, clock) = ephemeral();
    register(&db, &pure("it"), minutely());
    let id = ended(&db, 1, 1);
    let before = tidaldb::Clock::now(&clock);
    clock.set(before.saturating_add(400 * 24 * HOUR));
    let error = db.sessions().unregister("it").expect_err("the clock jumped");
    assert!(matches!(error, tidaldb::Error::ClockJumped { .. }), "{error}");
    clock.set(before);
    assert_eq!(run(&db, "it").processed, 1);
    assert!(is_settled(&db, id));
}
