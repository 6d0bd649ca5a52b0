//! Whether a database says that it is ill when it is, and only then.
//!
//! Knows: the public calls, and a simulated machine that fails where it is told to.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tidal_support::contract::open_on;
use tidal_support::operations::{apply, builder, quiet_options, schema};
use tidal_support::sim::{SimDisk, Survives};
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Check, Error, EventFilter, HealthReport, ManualClock, Overall, Severity, TidalDb};

const SEED: u64 = 23;

/// Long enough for the slowest machine, and far from for ever.
const PATIENCE: Duration = Duration::from_secs(60);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn machine() -> SimDisk {
    let disk = SimDisk::new();
    disk.make_dirs(Path::new("/"));
    disk
}

fn of<'a>(report: &'a HealthReport, rule: &str) -> &'a Check {
    let found = report.checks.iter().find(|check| check.rule == rule);
    found.unwrap_or_else(|| panic!("no check {rule} in {report:#?}"))
}

/// Waits until `db` says what `is_expected` wants.
fn eventually(
    db: &TidalDb,
    what: &str,
    is_expected: impl Fn(&HealthReport) -> bool,
) -> HealthReport {
    let began = Instant::now();
    loop {
        let report = db.health();
        if is_expected(&report) {
            return report;
        }
        assert!(began.elapsed() < PATIENCE, "not {what}: {report:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A database in memory, without threads for sessions, on a clock of the test's own.
fn manual() -> (TidalDb, ManualClock) {
    let clock = ManualClock::at(Timestamp::from_secs(1_700_000_000));
    let builder =
        TidalDb::builder().ephemeral().with_schema(schema()).with_sessions(tidal_support::manual());
    (builder.with_clock(Arc::new(clock.clone())).open().expect("opens"), clock)
}

#[test]
fn a_database_at_work_is_healthy_and_every_rule_says_so() {
    let db = open_on(&machine(), quiet_options(), Faults::NONE).expect("opens");
    apply(&db, SEED, 0..40, &mut |_| ());
    db.checkpoint().expect("written");
    let report = db.health();
    assert_eq!(report.overall, Overall::Healthy, "{report:#?}");
    // The operations leave sessions to processors that no test registers.
    let others = |check: &&&Check| check.rule != "sessions.pipeline";
    assert_eq!(report.findings().iter().find(others), None);
    for rule in ["journal.log", "journal.checkpoint", "stores", "recovery", "cursors"] {
        assert_eq!(of(&report, rule).severity, Severity::Ok);
    }
    let threads: Vec<_> = report.checks.iter().filter(|check| check.rule == "background").collect();
    assert_eq!(threads.len(), 2, "the sweeper and the checkpointer");
    assert!(report.metrics.log_size_bytes > 0);
}

#[test]
fn a_log_that_cannot_be_written_is_critical_and_says_why() {
    let disk = machine();
    let db = open_on(&disk, quiet_options(), Faults::NONE).expect("opens");
    db.hide_item(EntityId::new(1)).expect("acknowledged");
    disk.stop();
    db.hide_item(EntityId::new(2)).expect_err("the disk is gone");
    let report = eventually(&db, "critical", |report| report.overall == Overall::Critical);
    let check = of(&report, "journal.log");
    assert_eq!(check.severity, Severity::Critical);
    assert!(check.detail.contains("could not write"), "{}", check.detail);
    assert!(check.hint.is_some());
}

#[test]
fn an_open_after_a_crash_is_news_that_degrades_nothing_and_an_open_after_a_close_is_none() {
    let disk = machine();
    let db = open_on(&disk, quiet_options(), Faults::NONE).expect("opens");
    apply(&db, SEED, 0..20, &mut |_| ());
    let crashed = disk.reboot(Survives::Everything);
    db.close().expect("closes");
    let db = open_on(&disk, quiet_options(), Faults::NONE).expect("opens");
    assert_eq!(of(&db.health(), "recovery").severity, Severity::Ok);
    let db = open_on(&crashed, quiet_options(), Faults::NONE).expect("opens");
    assert_eq!(db.open_report().clean, of(&db.health(), "recovery").severity == Severity::Ok);
    assert_eq!(db.health().overall, Overall::Healthy);
}

/// Lets go of what hangs when it is dropped.
struct LetGo(Arc<AtomicBool>);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[test]
fn a_checkpointer_that_hangs_is_a_warning_and_health_answers_while_it_does() {
    let mut options = quiet_options();
    options.checkpoint_interval = Duration::from_millis(20);
    let hangs = Arc::new(AtomicBool::new(true));
    let hung = Arc::clone(&hangs);
    let faults = Faults::new(move |at| {
        while at == CrashPoint::ManifestDue && hung.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let db = open_on(&machine(), options, faults).expect("opens");
    // Also when this test fails: the database waits for its thread when it is dropped.
    let hanging = LetGo(hangs);
    db.hide_item(EntityId::new(1)).expect("acknowledged");
    let ill = |report: &HealthReport| {
        let is_it = |check: &&Check| check.subject.as_deref() == Some("checkpointer");
        let task = report.checks.iter().find(is_it).expect("its check");
        task.severity == Severity::Warning
            && of(report, "journal.checkpoint").severity == Severity::Warning
    };
    let report = eventually(&db, "a warning", ill);
    assert_eq!(report.overall, Overall::Degraded);
    assert!(report.metrics.checkpoint_lag_ms >= 60);
    drop(hanging);
    eventually(&db, "healthy again", |report| report.overall == Overall::Healthy);
}

#[test]
fn a_watch_is_told_once_when_something_falls_ill_and_once_when_it_is_well() {
    let (db, clock) = manual();
    let (say, told) = mpsc::channel();
    let watch = db.watch_health(Duration::from_millis(10), move |report| {
        say.send((report.overall, report.findings().len())).expect("the test listens");
        panic!("a bug of the host's own");
    });
    let _watch = watch.expect("a thread");
    db.start_session(42, "app", "default").expect("started").detach();
    clock.advance(HOUR);
    db.hide_item(EntityId::new(1)).expect("written");
    assert_eq!(told.recv_timeout(PATIENCE), Ok((Overall::Degraded, 1)));
    // It lasts, and is looked at again and again.
    assert_eq!(told.recv_timeout(Duration::from_millis(200)).ok(), None);
    db.drive().expect("driven");
    assert_eq!(told.recv_timeout(PATIENCE), Ok((Overall::Healthy, 0)));
}

#[test]
fn a_watch_ends_with_its_database_and_keeps_nothing_of_it_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || builder(quiet_options()).with_data_dir(dir.path()).open().expect("opens");
    let db = open();
    let (say, told) = mpsc::channel::<()>();
    let watch = db.watch_health(Duration::from_millis(10), move |_| say.send(()).expect("heard"));
    let watch = watch.expect("a thread");
    db.close().expect("closed");
    assert_eq!(told.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    drop(open());
    drop(watch);
}

#[test]
fn a_watch_that_would_never_rest_is_refused() {
    let (db, _clock) = manual();
    for interval in [Duration::ZERO, Duration::from_millis(9), 25 * HOUR] {
        let error = db.watch_health(interval, |_| ()).expect_err("refused");
        assert!(matches!(error, Error::InvalidArgument { what: "interval", .. }), "{error}");
    }
}

#[test]
fn an_end_that_nobody_writes_down_is_a_warning_until_somebody_drives() {
    let (db, clock) = manual();
    db.start_session(42, "app", "default").expect("started").detach();
    clock.advance(31 * MINUTE);
    db.hide_item(EntityId::new(1)).expect("written");
    let report = db.health();
    assert_eq!(of(&report, "sessions.overdue").severity, Severity::Ok, "it is due for a minute");
    assert_eq!(report.metrics.sessions_open, 1);
    clock.advance(MINUTE);
    let report = db.health();
    assert_eq!(of(&report, "sessions.overdue").severity, Severity::Warning);
    assert_eq!(report.overall, Overall::Degraded);
    db.drive().expect("driven");
    let report = db.health();
    assert_eq!(report.overall, Overall::Healthy, "{report:#?}");
    assert_eq!(report.metrics.sessions_open, 0);
}

#[test]
fn an_end_that_was_written_down_is_not_overdue_while_its_session_has_yet_to_leave_memory() {
    let (db, clock) = manual();
    db.start_session(42, "app", "default").expect("started").detach();
    clock.advance(31 * MINUTE);
    assert_eq!(db.drive().expect("driven").swept.ended, 1);
    clock.advance(60 * MINUTE);
    // It leaves with the next start, or sweep.
    db.hide_item(EntityId::new(1)).expect("written");
    assert_eq!(of(&db.health(), "sessions.overdue").severity, Severity::Ok);
}

#[test]
fn a_clock_that_jumped_is_critical_until_it_is_accepted() {
    let (db, clock) = manual();
    db.hide_item(EntityId::new(1)).expect("written");
    // Set, and not passed: the monotonic clock knows better.
    clock.set(Timestamp::from_secs(1_700_000_000 + 7 * 86_400));
    db.hide_item(EntityId::new(2)).expect_err("refused");
    let report = db.health();
    assert_eq!(report.overall, Overall::Critical);
    assert!(of(&report, "clock").hint.as_ref().is_some_and(|hint| hint.contains("reset_clock")));
    assert_eq!(of(&report, "sessions.overdue").severity, Severity::Unknown);
    db.reset_clock().expect("accepted");
    assert_eq!(db.health().overall, Overall::Healthy);
}

#[test]
fn a_cursor_that_nobody_reads_is_seen_by_the_events_that_it_keeps() {
    let (db, _clock) = manual();
    db.sessions().cursor("feed", EventFilter::all()).expect("registered");
    for user in 0..5 {
        db.start_session(user, "app", "default").expect("started").detach();
    }
    let report = db.health();
    let check = of(&report, "cursors");
    assert_eq!(check.subject.as_deref(), Some("feed"));
    assert!(check.detail.contains("5 events"), "{}", check.detail);
}
