//! What health says of processors.

use std::sync::mpsc;
use std::sync::{Condvar, Mutex};

use tidaldb::{Check, Facts, HealthReport, Overall, Severity};

use super::*;

/// The check of a rule about a processor.
fn of(report: &HealthReport, rule: &str, processor: &str) -> Check {
    let is_it = |check: &&Check| check.rule == rule && check.subject.as_deref() == Some(processor);
    let found = report.checks.iter().find(is_it);
    found.unwrap_or_else(|| panic!("no check {rule} of {processor}: {report:#?}")).clone()
}

fn severity(db: &TidalDb, rule: &str, processor: &str) -> Severity {
    of(&db.health(), rule, processor).severity
}

#[test]
fn a_required_processor_that_sees_nothing_degrades_and_one_that_is_not_required_does_not() {
    let (db, clock) = ephemeral();
    register(&db, &pure("verification"), minutely());
    register(&db, &pure("usage"), observing());
    assert_eq!(db.health().overall, Overall::Healthy, "there is no session");
    ended(&db, 1, 2);
    clock.advance(30 * MINUTE);
    assert_eq!(severity(&db, "sessions.pipeline", "verification"), Severity::Ok, "two cadences");
    clock.advance(SECOND);
    let report = db.health();
    let check = of(&report, "sessions.pipeline", "verification");
    assert_eq!(check.severity, Severity::Warning);
    assert!(check.detail.contains("verification") && check.hint.is_some());
    assert_eq!(of(&report, "sessions.pipeline", "usage").severity, Severity::Info);
    assert_eq!(report.overall, Overall::Degraded);
    assert_eq!(report.processors.iter().map(|it| it.waiting).collect::<Vec<_>>(), [1, 1]);
    run(&db, "verification");
    assert_eq!(db.health().overall, Overall::Healthy);
    run(&db, "usage");
    let report = db.health();
    assert_eq!(report.findings(), Vec::<&Check>::new(), "{report:#?}");
}

#[test]
fn a_session_that_came_after_hours_without_any_is_not_late_at_once() {
    let (db, clock) = ephemeral();
    register(&db, &pure("verification"), minutely());
    ended(&db, 1, 2);
    run(&db, "verification");
    clock.advance(9 * HOUR);
    ended(&db, 1, 2);
    assert_eq!(severity(&db, "sessions.pipeline", "verification"), Severity::Ok);
    clock.advance(31 * MINUTE);
    assert_eq!(severity(&db, "sessions.pipeline", "verification"), Severity::Warning);
}

/// A database whose processor fails on the sessions of user 13, and how long one such has waited for it.
fn skipping(sessions: SessionConfig, waits: Duration) -> HealthReport {
    let clock = ManualClock::at(START);
    let db = builder(&clock, sessions).ephemeral().open().expect("opens");
    let picky = probe("verification", |session, out| match session.info().user.get() {
        13 => Err(ProcessError::from("the tool is down")),
        _ => put_pure(session, out),
    });
    let mut options = minutely();
    options.retry.delays = vec![HOUR];
    register(&db, &picky, options);
    ended(&db, 13, 1);
    clock.advance(waits);
    ended(&db, 1, 1);
    run(&db, "verification");
    db.health()
}

#[test]
fn a_session_that_is_skipped_is_named_with_its_error_and_degrades_nothing() {
    let report = skipping(manual(), 5 * HOUR);
    let check = of(&report, "sessions.skipped", "verification");
    assert_eq!(check.severity, Severity::Info);
    assert!(check.detail.contains("skipped") && check.detail.contains("the tool is down"));
    let Facts::Waiting { age, attempts, .. } = check.facts else { panic!("{check:?}") };
    assert!(age >= 5 * HOUR && attempts == 1, "{age:?}, {attempts}");
    assert_eq!(report.overall, Overall::Healthy);
    let report = skipping(manual(), HOUR);
    assert_eq!(of(&report, "sessions.skipped", "verification").severity, Severity::Ok);
}

/// That `TIDAL_SESSION_STUCK_GRACE_MS` sets this is tested where variables are read.
#[test]
fn test_fifo_check_threshold_env_override() {
    let mut config = manual();
    config.stuck_grace = Some(MINUTE);
    let report = skipping(config, 5 * MINUTE);
    assert_eq!(of(&report, "sessions.skipped", "verification").severity, Severity::Info);
}

#[test]
fn what_a_processor_has_given_up_is_said_until_it_is_requeued() {
    let (db, _clock) = ephemeral();
    let broken = probe("usage", |_, _| Err(ProcessError::Permanent("no such table".into())));
    register(&db, &broken, observing());
    let id = ended(&db, 1, 1);
    run(&db, "usage");
    let report = db.health();
    assert_eq!(of(&report, "processors.quarantined", "usage").severity, Severity::Info);
    assert_eq!(report.metrics.attempts_quarantined, 1);
    let plan = db.sessions().plan_requeue(&tidaldb::SessionFilter::new()).expect("planned");
    assert_eq!(db.sessions().apply(plan).expect("applied").done, [id]);
    assert_eq!(severity(&db, "processors.quarantined", "usage"), Severity::Ok);
}

/// A door that stays shut until a test opens it.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn wait(&self) {
        let mut is_open = self.is_open.lock().expect("no panic");
        while !*is_open {
            is_open = self.opened.wait(is_open).expect("no panic");
        }
    }

    fn open(&self) {
        *self.is_open.lock().expect("no panic") = true;
        self.opened.notify_all();
    }
}

#[test]
fn test_health_check_alert_threshold() {
    let (db, clock) = ephemeral();
    let gate = Arc::new(Gate::default());
    let names = ["p1", "p2", "p3", "p4", "p5"];
    let (entered, entries) = mpsc::channel();
    for name in names {
        let (gate, entered) = (Arc::clone(&gate), entered.clone());
        let slow = probe(name, move |_, _| {
            entered.send(()).expect("the test listens");
            gate.wait();
            Ok(Processed::default())
        });
        register(&db, &slow, minutely());
    }
    let (alert, alerts) = mpsc::channel();
    let watch = db.watch_health(Duration::from_millis(10), move |report: &HealthReport| {
        let rule = report.findings().first().map(|check| check.rule);
        alert.send((report.overall, rule)).expect("the test listens");
    });
    let _watch = watch.expect("a thread");
    let ids = [0, 1, 2, 3, 4].map(|user| ended(&db, user, 0));
    let report = std::thread::scope(|scope| {
        for (name, id) in names.into_iter().zip(ids) {
            let options = RunOptions::new().only(id);
            let db = &db;
            scope.spawn(move || db.sessions().run_processor(name, options).expect("it runs"));
        }
        for _ in names {
            entries.recv_timeout(PATIENCE).expect("it is called");
        }
        assert_eq!(db.health().metrics.sessions_processing, 5);
        clock.advance(15 * MINUTE);
        assert_eq!(alerts.try_recv().ok(), None, "15 minutes are not long");
        clock.advance(SECOND);
        let first = alerts.recv_timeout(PATIENCE).expect("an alert");
        assert_eq!(first.0, Overall::Degraded);
        let report = db.health();
        assert_eq!(alerts.recv_timeout(Duration::from_millis(300)).ok(), None, "once");
        clock.advance(15 * MINUTE);
        let second = alerts.recv_timeout(PATIENCE).expect("it is graver now");
        assert_eq!(second, (Overall::Critical, Some("sessions.stuck")));
        gate.open();
        report
    });
    // What is wrong here must not leave the calls waiting.
    let check = report.checks.iter().find(|it| it.rule == "sessions.long_running");
    let check = check.expect("it is there");
    assert_eq!(check.facts, Facts::Count { value: 5, threshold: 3 });
    assert_eq!(check.severity, Severity::Warning, "and not for its calls alone");
    assert_eq!(db.health().metrics.sessions_stuck, 0);
}
