//! Warnings, time-outs, and what is to be seen of sessions that failed.

use std::time::Instant;

use super::stuck::{Hanging, hanging, while_busy};
use super::*;
use tidaldb::{
    Check, EventFilter, EventKind, EventStream, HealthReport, Overall, ProcessingTimeout, Seq,
    SessionEvent, SessionFilter, Severity,
};

fn with(change: impl FnOnce(&mut SessionConfig)) -> (TidalDb, ManualClock) {
    let clock = ManualClock::at(START);
    let mut sessions = manual();
    change(&mut sessions);
    (builder(&clock, sessions).ephemeral().open().expect("opens"), clock)
}

fn drive(db: &TidalDb) -> u64 {
    db.drive().expect("drives").swept.failed
}

fn of_kinds(db: &TidalDb, kinds: impl IntoIterator<Item = EventKind>) -> EventStream {
    db.sessions().subscribe(EventFilter::all().kinds(kinds)).expect("subscribed")
}

fn told(events: &EventStream) -> Vec<SessionEvent> {
    std::iter::from_fn(|| events.try_recv()).map(|(_, event)| event).collect()
}

fn check(report: &HealthReport, rule: &str) -> Check {
    report.checks.iter().find(|check| check.rule == rule).expect("it is there").clone()
}

fn warned(id: SessionId, level: u8, busy_for: Duration) -> SessionEvent {
    SessionEvent::Warned { id, level, busy_for }
}

fn timed_out(id: SessionId, after: Duration) -> SessionEvent {
    SessionEvent::Failed { id, cause: FailCause::TimedOut { after, automatic: true } }
}

const NS: Duration = Duration::from_nanos(1);

/// P42.
#[test]
fn warning_precedes_timeout_exactly_once() {
    let (db, clock) = with(|config| config.warn_after = vec![10 * MINUTE, 20 * MINUTE]);
    let it = hanging("it");
    register(&db, &it.probe, minutely());
    let ids = [ended(&db, 1, 1), ended(&db, 2, 1)];
    let events = of_kinds(&db, [EventKind::Warned, EventKind::Failed]);
    let mut cursor = db
        .sessions()
        .cursor("hook", EventFilter::all().kinds([EventKind::Warned]))
        .expect("a cursor");
    while_busy(&db, &it, ids[0], || {
        clock.advance(10 * MINUTE);
        assert_eq!((drive(&db), told(&events)), (0, vec![]), "10 minutes are not more than 10");
        clock.advance(NS);
        let before = db.applied().get();
        drive(&db);
        assert_eq!(told(&events), [warned(ids[0], 1, 10 * MINUTE + NS)]);
        assert_eq!(db.applied().get(), before + 1, "one commit");
        drive(&db);
        clock.advance(9 * MINUTE);
        drive(&db);
        assert_eq!((told(&events), db.applied().get()), (vec![], before + 1), "once");
        clock.advance(MINUTE);
        drive(&db);
        assert_eq!(told(&events), [warned(ids[0], 2, 20 * MINUTE + NS)]);
        clock.advance(10 * MINUTE);
        assert_eq!((drive(&db), told(&events)), (1, vec![timed_out(ids[0], 30 * MINUTE)]));
        clock.advance(HOUR);
        assert_eq!((drive(&db), told(&events)), (0, vec![]), "nothing comes after it");
    });
    // A sweeper that is late tells of the highest level alone, and of that before it gives up.
    while_busy(&db, &it, ids[1], || {
        clock.advance(25 * MINUTE);
        drive(&db);
        assert_eq!(told(&events), [warned(ids[1], 2, 25 * MINUTE)]);
    });
    assert_eq!(told(&events), []);
    let plan = db.sessions().plan_requeue(&SessionFilter::new()).expect("planned");
    db.sessions().apply(plan).expect("applied");
    while_busy(&db, &it, ids[0], || {
        clock.advance(HOUR);
        assert_eq!(drive(&db), 1);
        let both = [warned(ids[0], 2, HOUR), timed_out(ids[0], 30 * MINUTE)];
        assert_eq!(told(&events), both, "it is another piece of work");
    });
    let kept = cursor.next_batch(9).expect("read");
    let kept: Vec<u8> = kept
        .into_iter()
        .map(|delivered| match delivered.event {
            SessionEvent::Warned { level, .. } => level,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kept, [1, 2, 2, 2]);
}

#[test]
fn nobody_is_warned_where_there_are_no_levels_or_events_advance_time() {
    let (db, clock) = with(|config| config.warn_after = Vec::new());
    let it = hanging("it");
    register(&db, &it.probe, minutely());
    let id = ended(&db, 1, 1);
    let events = of_kinds(&db, [EventKind::Warned]);
    while_busy(&db, &it, id, || {
        clock.advance(29 * MINUTE);
        drive(&db);
        assert_eq!(told(&events), []);
        assert_eq!(db.health().thresholds.warn_after, None);
    });
    let by_events = TidalDb::builder().with_schema(schema()).with_sessions(manual()).ephemeral();
    let db = by_events.with_time_source(tidaldb::TimeSource::Events).open().expect("opens");
    let thresholds = db.health().thresholds;
    assert_eq!((thresholds.warn_after, thresholds.processing_timeout), (None, None));
    let it = hanging("it");
    register(&db, &it.probe, minutely());
    let id = ended(&db, 1, 1);
    let events = of_kinds(&db, [EventKind::Warned, EventKind::Failed]);
    while_busy(&db, &it, id, || {
        let later = db.engine_time().saturating_add(48 * HOUR);
        db.signal("view", EntityId::new(1), 1.0, later).expect("written");
        drive(&db);
        assert_eq!(told(&events), []);
        assert_eq!(db.health().metrics.sessions_stuck, 0);
    });
}

#[test]
fn a_session_is_given_up_by_the_time_out_of_its_size() {
    let timeout = ProcessingTimeout::Scaled {
        base: 30 * MINUTE,
        per_1k_records: 1_000 * MINUTE,
        max: 45 * MINUTE,
    };
    let (db, clock) = with(|config| config.processing_timeout = timeout);
    let all = ["p0", "p1", "p2"].map(hanging);
    all.iter().for_each(|it| register(&db, &it.probe, minutely()));
    let ids = [ended(&db, 0, 0), ended(&db, 1, 10), ended(&db, 2, 1_000)];
    let events = of_kinds(&db, [EventKind::Failed]);
    let mut too_long = minutely();
    too_long.attempt_timeout = Some(31 * MINUTE);
    let refused = db.sessions().register(pure("slow"), too_long);
    assert!(refused.is_err(), "it may not be longer than the smallest time-out");
    std::thread::scope(|scope| {
        busy_with(scope, &db, &all, &ids);
        let mut passed = Duration::ZERO;
        for (at, minutes) in [30, 40, 45].into_iter().enumerate() {
            clock.advance(minutes * MINUTE - passed);
            assert_eq!(drive(&db), 0);
            assert!(db.sessions().stuck().expect("listed").is_empty());
            clock.advance(NS);
            passed = minutes * MINUTE + NS;
            let report = db.health();
            assert_eq!(check(&report, "sessions.stuck").severity, Severity::Critical);
            assert_eq!(report.metrics.sessions_stuck, 1);
            let stuck = db.sessions().stuck().expect("listed");
            assert_eq!(stuck.iter().map(|it| it.id).collect::<Vec<_>>(), [ids[at]]);
            assert_eq!(drive(&db), 1);
            assert_eq!(told(&events), [timed_out(ids[at], minutes * MINUTE)]);
            assert_ne!(db.health().overall, Overall::Critical);
        }
        all.iter().for_each(|it| it.let_go.send(()).expect("it hangs"));
    });
}

/// Lets each processor begin with a session of its own.
fn busy_with<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    db: &'scope TidalDb,
    all: &[Hanging],
    ids: &[SessionId],
) {
    for (it, &id) in all.iter().zip(ids) {
        let (name, only) = (it.probe.name, RunOptions::new().only(id));
        scope.spawn(move || db.sessions().run_processor(name, only).expect("it runs"));
        assert_eq!(it.entered.recv_timeout(PATIENCE), Ok(id));
    }
}

#[test]
fn an_attempt_that_no_session_waits_for_is_ended_by_itself() {
    let (db, clock) = ephemeral();
    let it = hanging("usage");
    register(&db, &pure("verification"), minutely());
    register(&db, &it.probe, observing());
    let ids = [ended(&db, 1, 1), ended(&db, 2, 1)];
    // The one waits for another processor, the other has settled.
    let only = RunOptions::new().only(ids[1]);
    db.sessions().run_processor("verification", only).expect("it runs");
    assert!(is_settled(&db, ids[1]) && !is_settled(&db, ids[0]));
    let events = of_kinds(&db, [EventKind::Failed, EventKind::ProcessorFailed]);
    for id in ids {
        let stats = while_busy(&db, &it, id, || {
            clock.advance(30 * MINUTE + NS);
            let stuck = check(&db.health(), "sessions.stuck");
            assert_eq!(stuck.severity, Severity::Warning, "{stuck:?}");
            assert_eq!(db.sessions().stuck().expect("listed").len(), 1);
            assert_eq!(drive(&db), 0);
            let (processor, error) = ("usage".to_owned(), "timed out after 30 min".to_owned());
            let failed = SessionEvent::ProcessorFailed { id, processor, attempt: 1, error };
            assert_eq!(told(&events), [failed]);
            let next = db.engine_time().saturating_add(MINUTE);
            let status = status(&db, "usage", id).expect("it was tried");
            assert!(
                matches!(status, ProcessorStatus::Retrying { next: at, .. } if at == next),
                "as its beginning said: {status:?}"
            );
            assert_eq!(check(&db.health(), "sessions.stuck").severity, Severity::Ok);
        });
        assert_eq!((stats.fenced, stats.processed), (1, 0), "what comes too late does not count");
        assert!(failure(&db, id).is_none());
    }
    clock.advance(MINUTE);
    ids.iter().for_each(|_| it.let_go.send(()).expect("it hangs"));
    assert_eq!(run(&db, "usage").processed, 2);
    run(&db, "verification");
    assert!(ids.iter().all(|&id| is_settled(&db, id)));
    assert_eq!(told(&events), []);
}

#[test]
fn the_last_attempt_that_nobody_waits_for_is_the_last() {
    let (db, clock) = ephemeral();
    let it = hanging("usage");
    let mut once = observing();
    once.retry.max_attempts = std::num::NonZeroU32::MIN;
    register(&db, &it.probe, once);
    let id = ended(&db, 1, 1);
    while_busy(&db, &it, id, || {
        clock.advance(HOUR);
        assert_eq!(drive(&db), 0);
        assert!(matches!(status(&db, "usage", id), Some(ProcessorStatus::Quarantined { .. })));
    });
    assert!(is_settled(&db, id) && failure(&db, id).is_none());
}

#[test]
fn a_session_that_failed_is_news_for_a_day_or_until_it_is_requeued() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::at(START);
    let db = open(dir.path(), &clock);
    let it = hanging("it");
    register(&db, &it.probe, minutely());
    let ids = [ended(&db, 1, 1), ended(&db, 2, 1)];
    let failed = |db: &TidalDb| check(&db.health(), "sessions.failed");
    assert_eq!(failed(&db).severity, Severity::Ok);
    for id in ids {
        while_busy(&db, &it, id, || {
            clock.advance(31 * MINUTE);
            assert_eq!(drive(&db), 1);
        });
    }
    let news = format!("2 sessions failed in the last 24 hours, the last one {}", ids[1]);
    assert_eq!(failed(&db).detail, format!("{news} (timed out after 30 min)"));
    assert_eq!((failed(&db).severity, db.health().overall), (Severity::Info, Overall::Healthy));
    db.close().expect("closes");
    let db = open(dir.path(), &clock);
    assert!(failed(&db).detail.starts_with("2 sessions"), "also after an open");
    clock.advance(24 * HOUR);
    assert!(failed(&db).detail.starts_with("1 session failed"), "24 hours are not more than 24");
    clock.advance(NS);
    assert_eq!(failed(&db).severity, Severity::Ok);
    assert!(ids.iter().all(|&id| failure(&db, id).is_some()), "they are not forgotten");
    db.close().expect("closes");

    let (db, clock) = ephemeral();
    let it = hanging("it");
    register(&db, &it.probe, minutely());
    let id = ended(&db, 1, 1);
    while_busy(&db, &it, id, || {
        clock.advance(31 * MINUTE);
        assert_eq!(drive(&db), 1);
    });
    assert_eq!(failed(&db).severity, Severity::Info);
    let plan = db.sessions().plan_requeue(&SessionFilter::new()).expect("planned");
    db.sessions().apply(plan).expect("applied");
    assert_eq!(failed(&db).severity, Severity::Ok);
}

#[test]
fn five_sessions_that_a_pass_gives_up_are_told_of_with_one_seq() {
    let (db, clock) = with(|config| config.warn_after = Vec::new());
    let all = ["p0", "p1", "p2", "p3", "p4"].map(hanging);
    all.iter().for_each(|it| register(&db, &it.probe, minutely()));
    let ids = [0, 1, 2, 3, 4].map(|user| ended(&db, user, 1));
    let events = db.sessions().subscribe(EventFilter::all()).expect("subscribed");
    std::thread::scope(|scope| {
        busy_with(scope, &db, &all, &ids);
        clock.advance(31 * MINUTE);
        let before = db.applied().get();
        assert_eq!(drive(&db), 5);
        let happened: Vec<(Seq, SessionEvent)> = std::iter::from_fn(|| events.try_recv()).collect();
        let expected = ids.map(|id| (Seq::new(before + 1), timed_out(id, 30 * MINUTE)));
        assert_eq!(happened, expected);
        all.iter().for_each(|it| it.let_go.send(()).expect("it hangs"));
    });
}

/// P45.
#[test]
fn alert_threshold_is_strict() {
    let (db, clock) = ephemeral();
    let all = ["p0", "p1", "p2", "p3"].map(hanging);
    let mut options = observing();
    options.attempt_timeout = Some(30 * MINUTE);
    all.iter().for_each(|it| register(&db, &it.probe, options.clone()));
    let ids = [0, 1, 2, 3].map(|user| ended(&db, user, 1));
    let (alert, alerts) = std::sync::mpsc::channel();
    let watch = db.watch_health(Duration::from_millis(10), move |report: &HealthReport| {
        let check = check(report, "sessions.long_running");
        alert.send(check.severity).expect("the test listens");
    });
    let _watch = watch.expect("a thread");
    std::thread::scope(|scope| {
        busy_with(scope, &db, &all[..3], &ids);
        clock.advance(2 * MINUTE);
        busy_with(scope, &db, &all[3..], &ids[3..]);
        clock.advance(13 * MINUTE + NS);
        let three = check(&db.health(), "sessions.long_running");
        assert_eq!(three.severity, Severity::Ok, "three are not more than three");
        clock.advance(2 * MINUTE);
        assert_eq!(alerts.recv_timeout(PATIENCE), Ok(Severity::Warning), "four are");
        let again = std::iter::from_fn(|| alerts.recv_timeout(Duration::from_millis(200)).ok());
        assert_eq!(again.count(), 0, "once");
        all.iter().for_each(|it| it.let_go.send(()).expect("it hangs"));
    });
}

#[test]
fn a_thread_tells_and_gives_up_within_a_second_of_each_deadline_however_long_it_may_sleep() {
    let mut sessions = SessionConfig::default();
    sessions.sweep_interval = 24 * HOUR;
    sessions.processing_timeout = Duration::from_millis(300).into();
    sessions.warn_after = [100, 200].map(Duration::from_millis).to_vec();
    let builder = TidalDb::builder().with_schema(schema()).with_sessions(sessions).ephemeral();
    let db = builder.open().expect("opens");
    let it = hanging("it");
    let mut options = minutely();
    options.cadence = HOUR;
    register(&db, &it.probe, options);
    // The thread's first run is over: there is nothing yet, and the next one is an hour away.
    std::thread::sleep(Duration::from_millis(200));
    let id = ended(&db, 1, 1);
    let events = of_kinds(&db, [EventKind::Warned, EventKind::Failed]);
    // The sweeper sleeps by now.
    std::thread::sleep(Duration::from_millis(200));
    let mut delays = Vec::new();
    while_busy(&db, &it, id, || {
        let entered = Instant::now();
        for deadline in [100, 200, 300].map(Duration::from_millis) {
            let (_, event) = events.recv_timeout(PATIENCE).expect("an event");
            delays.push(entered.elapsed().saturating_sub(deadline));
            match event {
                SessionEvent::Warned { busy_for, .. } => assert!(busy_for > deadline),
                SessionEvent::Failed { .. } => assert_eq!(deadline, Duration::from_millis(300)),
                other => panic!("{other:?}"),
            }
        }
    });
    eprintln!("from the deadline to the event: {delays:?}");
    assert!(delays.iter().all(|delay| *delay < SECOND), "{delays:?}");
}
