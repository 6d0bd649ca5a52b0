//! Each rule: when it finds something, how grave that is, and what it is called.
//!
//! Knows: what is observed, made up. Must not know: any database.

use std::time::Duration;

use super::*;
use crate::ids::{SessionId, Timestamp};

const MIN: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn now() -> Timestamp {
    Timestamp::from_secs(1_700_000_000)
}

fn ago(by: Duration) -> Timestamp {
    now().saturating_sub(by)
}

/// A database that nothing is wrong with.
pub(super) fn well() -> Observed {
    Observed {
        clock: ClockObserved { now: now(), jump_ms: 0 },
        journal: JournalObserved {
            size_bytes: 10,
            size_bytes_max: 100,
            checkpoint_interval: MIN,
            ..JournalObserved::default()
        },
        stores: vec![StoreObserved { name: "a", failure: None }],
        last_open: LastOpen { was_clean: true, ..LastOpen::default() },
        tasks: vec![Task {
            name: "sweeper".to_owned(),
            age: MIN,
            allowed: HOUR,
            is_restarting: false,
        }],
        cursors: vec![CursorObserved { name: "feed".to_owned(), waiting: 3 }],
        sessions: SessionsObserved {
            sweep_interval: Duration::from_secs(30),
            warn_after: Some(15 * MIN),
            processing_timeout: Some(30 * MIN),
            long_running_max: 3,
            ..SessionsObserved::default()
        },
        processors: vec![processor()],
    }
}

fn processor() -> ProcessorObserved {
    ProcessorObserved {
        name: "verification".to_owned(),
        is_gating: true,
        is_registered: true,
        cadence: 15 * MIN,
        skipped_after: 2 * HOUR,
        newest_observed: None,
        newest_input: None,
        oldest: None,
        waiting: 0,
        quarantined: 0,
        running_for: None,
        ended_before: None,
        failures: 0,
        attempt_timeout: 15 * MIN,
    }
}

fn waiting(over_at: Timestamp) -> Option<OldestWaiting> {
    let last_error = Some("no answer".to_owned());
    Some(OldestWaiting { session: SessionId::new(7), over_at, attempts: 2, last_error })
}

fn with(change: impl FnOnce(&mut Observed)) -> HealthReport {
    let mut observed = well();
    change(&mut observed);
    report(&observed)
}

/// The only check of a rule.
fn of<'a>(report: &'a HealthReport, rule: &str) -> &'a Check {
    let mut found = report.checks.iter().filter(|check| check.rule == rule);
    let first = found.next().unwrap_or_else(|| panic!("no check {rule}"));
    assert!(found.next().is_none(), "{rule} twice");
    first
}

#[test]
fn a_database_that_nothing_is_wrong_with_is_healthy() {
    let report = with(|_| {});
    assert_eq!(report.overall, Overall::Healthy);
    assert_eq!(report.findings(), Vec::<&Check>::new());
    assert!(report.checks.len() >= 10, "every rule says that it was looked at");
}

#[test]
fn a_log_that_failed_is_critical_and_one_that_is_not_cut_is_a_warning() {
    let failed = with(|o| o.journal.failure = Some("EIO".to_owned()));
    assert_eq!(failed.overall, Overall::Critical);
    assert!(of(&failed, "journal.log").detail.contains("EIO"));
    let large = with(|o| o.journal.size_bytes = 101);
    assert_eq!(of(&large, "journal.log").severity, Severity::Warning);
    assert_eq!(large.overall, Overall::Degraded);
}

#[test]
fn a_checkpoint_is_late_after_three_intervals_and_not_before() {
    let late = with(|o| o.journal.checkpoint_lag = 3 * MIN);
    assert_eq!(of(&late, "journal.checkpoint").severity, Severity::Ok);
    let late = with(|o| o.journal.checkpoint_lag = 3 * MIN + Duration::from_nanos(1));
    assert_eq!(of(&late, "journal.checkpoint").severity, Severity::Warning);
    assert_eq!(late.metrics.checkpoint_lag_ms, 180_000);
}

#[test]
fn a_store_that_is_being_rebuilt_is_a_warning_that_names_it() {
    let report = with(|o| o.stores[0].failure = Some("rot".to_owned()));
    let check = of(&report, "stores");
    assert_eq!((check.severity, check.subject.as_deref()), (Severity::Warning, Some("a")));
    assert!(check.detail.contains("rot"), "{}", check.detail);
}

#[test]
fn a_clock_that_jumped_is_critical_and_makes_ages_unknown() {
    let report = with(|o| {
        o.clock.jump_ms = 7_200_000;
        o.sessions.first_due = Some(ago(HOUR));
        o.processors[0].newest_input = Some(ago(HOUR));
    });
    assert_eq!(of(&report, "clock").severity, Severity::Critical);
    assert_eq!(of(&report, "sessions.overdue").severity, Severity::Unknown);
    assert_eq!(of(&report, "sessions.pipeline").severity, Severity::Unknown);
}

#[test]
fn what_an_open_repaired_is_news_for_an_hour() {
    let repaired = |since| {
        with(|o| {
            o.last_open.was_clean = false;
            o.last_open.since = since;
            o.last_open.repairs.push("a torn tail".to_owned());
        })
    };
    let report = repaired(HOUR);
    assert_eq!(of(&report, "recovery").severity, Severity::Info);
    assert!(of(&report, "recovery").detail.contains("a torn tail"));
    assert_eq!(report.overall, Overall::Healthy);
    assert_eq!(of(&repaired(HOUR + MIN), "recovery").severity, Severity::Ok);
}

#[test]
fn a_thread_that_does_not_move_and_one_that_restarts_are_warnings() {
    let still = with(|o| o.tasks[0].age = HOUR + MIN);
    assert_eq!(of(&still, "background").severity, Severity::Warning);
    let restarting = with(|o| o.tasks[0].is_restarting = true);
    assert_eq!(of(&restarting, "background").severity, Severity::Warning);
    assert!(of(&restarting, "background").detail.contains("sweeper"));
}

#[test]
fn a_cursor_that_keeps_many_events_is_named_and_degrades_nothing() {
    let report = with(|o| o.cursors[0].waiting = 100_001);
    assert_eq!(of(&report, "cursors").severity, Severity::Info);
    assert!(of(&report, "cursors").detail.contains("feed"));
    assert_eq!(report.overall, Overall::Healthy);
}

#[test]
fn an_end_that_no_sweep_writes_down_is_a_warning_after_two_intervals() {
    let due = |before| with(|o| o.sessions.first_due = Some(ago(before)));
    assert_eq!(of(&due(MIN), "sessions.overdue").severity, Severity::Ok);
    assert_eq!(of(&due(MIN * 2), "sessions.overdue").severity, Severity::Warning);
}

#[test]
fn test_no_session_files_returns_ok() {
    let report = with(|_| {});
    assert_eq!(of(&report, "sessions.pipeline").severity, Severity::Ok);
}

#[test]
fn test_session_files_recently_processed_returns_ok() {
    let report = with(|o| {
        o.processors[0].newest_input = Some(ago(MIN));
        o.processors[0].oldest = waiting(ago(MIN));
        o.processors[0].newest_observed = Some(now());
    });
    assert_eq!(of(&report, "sessions.pipeline").severity, Severity::Ok);
}

#[test]
fn test_old_session_files_unprocessed_returns_warning() {
    let late = |is_gating| {
        with(|o| {
            o.processors[0].is_gating = is_gating;
            o.processors[0].newest_input = Some(ago(2 * HOUR));
            o.processors[0].oldest = waiting(ago(2 * HOUR));
            o.processors[0].newest_observed = Some(ago(3 * HOUR));
        })
    };
    let report = late(true);
    let check = of(&report, "sessions.pipeline");
    assert_eq!(check.severity, Severity::Warning);
    assert!(check.detail.contains("verification"), "{}", check.detail);
    assert!(check.hint.as_ref().is_some_and(|hint| hint.contains("run_processor")));
    assert_eq!(report.overall, Overall::Degraded, "a warning, and never critical");
    assert!(report.checks.iter().all(|check| check.rule != "sessions.skipped"));
    assert_eq!(late(false).overall, Overall::Healthy, "one that is only observed degrades nothing");
}

#[test]
fn a_processor_that_nobody_has_registered_here_is_said_to_be_so() {
    let report = with(|o| {
        o.processors[0].is_registered = false;
        o.processors[0].newest_input = Some(ago(2 * HOUR));
    });
    let check = of(&report, "sessions.pipeline");
    assert!(check.detail.contains("nobody has registered it"), "{}", check.detail);
    assert!(check.hint.as_ref().is_some_and(|hint| hint.contains("unregister")));
}

#[test]
fn test_session_files_never_processed_returns_warning() {
    let report = with(|o| {
        o.processors[0].newest_input = Some(ago(2 * HOUR));
        o.processors[0].oldest = waiting(ago(2 * HOUR));
    });
    assert_eq!(of(&report, "sessions.pipeline").severity, Severity::Warning);
}

#[test]
fn a_session_that_came_after_a_long_quiet_is_not_late_at_once() {
    let report = with(|o| {
        o.processors[0].newest_input = Some(ago(MIN));
        o.processors[0].oldest = waiting(ago(MIN));
        o.processors[0].newest_observed = Some(ago(9 * HOUR));
    });
    assert_eq!(of(&report, "sessions.pipeline").severity, Severity::Ok);
}

fn passed_over(age: Duration, skipped_after: Duration) -> HealthReport {
    with(|o| {
        o.processors[0].skipped_after = skipped_after;
        o.processors[0].newest_input = Some(ago(age));
        o.processors[0].oldest = waiting(ago(age));
        o.processors[0].newest_observed = Some(ago(MIN));
    })
}

#[test]
fn test_fifo_check_warns_on_stuck_old_file_when_newer_was_processed() {
    let report = passed_over(5 * HOUR, 2 * HOUR);
    let check = of(&report, "sessions.skipped");
    assert_eq!(check.severity, Severity::Info);
    assert!(check.detail.contains("skipped") && check.detail.contains("session 7"));
    let Facts::Waiting { age, attempts, ref last_error, .. } = check.facts else {
        panic!("{:?}", check.facts)
    };
    assert!(age > 4 * HOUR);
    assert_eq!((attempts, last_error.as_deref()), (2, Some("no answer")));
    assert_eq!(report.overall, Overall::Healthy);
}

#[test]
fn test_fifo_check_silent_when_old_file_under_threshold() {
    assert_eq!(of(&passed_over(HOUR, 2 * HOUR), "sessions.skipped").severity, Severity::Ok);
}

#[test]
fn test_fifo_check_silent_when_no_unprocessed_files() {
    let report = with(|o| o.processors[0].newest_observed = Some(ago(MIN)));
    assert_eq!(of(&report, "sessions.skipped").severity, Severity::Ok);
}

#[test]
fn a_shorter_grace_makes_a_session_skipped_sooner() {
    let report = passed_over(5 * MIN, MIN);
    assert_eq!(of(&report, "sessions.skipped").severity, Severity::Info);
}

fn working(id: u64, age: Duration) -> BusyObserved {
    BusyObserved {
        age,
        processor: "verification".to_owned(),
        session: SessionId::new(id),
        timeout: Some(30 * MIN),
        is_awaited: true,
    }
}

fn busy(count: u64, age: Duration) -> HealthReport {
    with(|o| {
        let one = |id| working(id, age);
        o.sessions.busy = (1..=count).map(one).collect();
    })
}

#[test]
fn a_session_that_is_worked_on_for_longer_than_the_timeout_is_critical() {
    assert_eq!(of(&busy(1, 30 * MIN), "sessions.stuck").severity, Severity::Ok);
    let report = busy(5, 31 * MIN);
    let check = of(&report, "sessions.stuck");
    assert_eq!(check.severity, Severity::Critical);
    assert!(check.detail.starts_with("5 stuck") && check.detail.contains("verification"));
    assert_eq!(report.overall, Overall::Critical);
    assert_eq!(report.metrics.sessions_stuck, 5);
}

#[test]
fn each_session_is_stuck_by_its_own_time_out_and_critical_only_where_one_waits() {
    let with = |mut busy: Vec<BusyObserved>, change: fn(&mut [BusyObserved])| {
        change(&mut busy);
        with(|o| o.sessions.busy = busy)
    };
    let both = || vec![working(1, 40 * MIN), working(2, 35 * MIN)];
    let scaled = with(both(), |busy| busy[0].timeout = Some(40 * MIN));
    let check = of(&scaled, "sessions.stuck");
    assert!(check.detail.starts_with("1 stuck") && check.detail.contains("session 2"));
    let Facts::Waiting { age, grace, .. } = check.facts else { panic!("{check:?}") };
    assert_eq!((age, grace), (35 * MIN, 30 * MIN));
    let left = with(both(), |busy| busy[0].is_awaited = false);
    let check = of(&left, "sessions.stuck");
    assert_eq!(check.severity, Severity::Critical);
    assert!(check.detail.starts_with("2 stuck") && check.detail.contains("session 2"));
    let left = with(both(), |busy| busy.iter_mut().for_each(|it| it.is_awaited = false));
    let check = of(&left, "sessions.stuck");
    assert_eq!((check.severity, left.overall), (Severity::Warning, Overall::Degraded));
    assert!(check.detail.contains("session 1") && check.detail.contains("no session waits"));
    let endless = with(both(), |busy| busy.iter_mut().for_each(|it| it.timeout = None));
    assert_eq!(of(&endless, "sessions.stuck").severity, Severity::Ok);
}

#[test]
fn sessions_that_failed_are_news_that_degrades_nothing_and_are_counted_to_a_thousand() {
    let failed = |count| {
        with(|o| {
            let last = Some((SessionId::new(12), "timed out after 30 min".to_owned()));
            o.sessions.failed = FailedObserved { count, last };
        })
    };
    let report = failed(3);
    let check = of(&report, "sessions.failed");
    assert_eq!(
        check.detail,
        "3 sessions failed in the last 24 hours, the last one 12 (timed out after 30 min)"
    );
    assert!(check.hint.as_ref().is_some_and(|hint| hint.contains("requeue")));
    assert_eq!((check.severity, report.overall), (Severity::Info, Overall::Healthy));
    assert!(of(&failed(1), "sessions.failed").detail.starts_with("1 session failed"));
    assert!(of(&failed(1_000), "sessions.failed").detail.starts_with("1000 sessions"));
    assert!(of(&failed(1_001), "sessions.failed").detail.starts_with("more than 1,000 sessions"));
}

#[test]
fn where_nothing_counts_as_long_the_rule_is_silent() {
    let report = with(|o| {
        o.sessions.busy = (1..9).map(|id| working(id, 16 * MIN)).collect();
        o.sessions.warn_after = None;
    });
    assert_eq!(of(&report, "sessions.long_running").severity, Severity::Ok);
    assert_eq!(report.metrics.sessions_long_running, 0);
    assert_eq!(report.thresholds.warn_after, None);
}

#[test]
fn more_than_three_long_running_sessions_are_a_warning() {
    assert_eq!(of(&busy(3, 16 * MIN), "sessions.long_running").severity, Severity::Ok);
    assert_eq!(of(&busy(5, 15 * MIN), "sessions.long_running").severity, Severity::Ok);
    let report = busy(4, 16 * MIN);
    assert_eq!(of(&report, "sessions.long_running").severity, Severity::Warning);
    assert_eq!(report.metrics.sessions_long_running, 4);
    assert_eq!(report.overall, Overall::Degraded);
}

#[test]
fn one_session_that_four_slow_processors_work_on_is_one_long_running_session() {
    let four = |age| {
        let by = |name: &str| BusyObserved { processor: name.to_owned(), ..working(1, age) };
        with(|o| o.sessions.busy = ["a", "b", "c", "d"].map(by).to_vec())
    };
    let report = four(16 * MIN);
    let check = of(&report, "sessions.long_running");
    assert_eq!(check.facts, Facts::Count { value: 1, threshold: 3 });
    assert_eq!((check.severity, report.overall), (Severity::Ok, Overall::Healthy));
    assert_eq!((report.metrics.sessions_processing, report.metrics.sessions_long_running), (1, 1));
    let report = four(31 * MIN);
    assert_eq!(report.metrics.sessions_stuck, 1);
    assert!(of(&report, "sessions.stuck").detail.starts_with("1 stuck"));
}

#[test]
fn an_attempt_beyond_its_time_is_a_warning() {
    let report = with(|o| o.processors[0].running_for = Some(16 * MIN));
    assert_eq!(of(&report, "processors.overrun").severity, Severity::Warning);
}

#[test]
fn what_was_given_up_is_said_and_degrades_only_when_it_is_much_and_required() {
    let given_up = |quarantined, is_gating| {
        with(|o| {
            o.processors[0].quarantined = quarantined;
            o.processors[0].is_gating = is_gating;
        })
    };
    assert_eq!(of(&given_up(1, true), "processors.quarantined").severity, Severity::Info);
    assert_eq!(of(&given_up(11, true), "processors.quarantined").severity, Severity::Warning);
    assert_eq!(of(&given_up(11, false), "processors.quarantined").severity, Severity::Info);
}

#[test]
fn info_and_unknown_never_change_the_headline() {
    let check = |severity| Check {
        rule: "a",
        subject: None,
        severity,
        detail: String::new(),
        hint: None,
        facts: Facts::None,
    };
    let all = [Severity::Ok, Severity::Info, Severity::Unknown].map(check);
    assert_eq!(HealthReport::roll_up(&all), Overall::Healthy);
    let mut all = all.to_vec();
    all.push(check(Severity::Warning));
    assert_eq!(HealthReport::roll_up(&all), Overall::Degraded);
    all.push(check(Severity::Critical));
    assert_eq!(HealthReport::roll_up(&all), Overall::Critical);
    assert_eq!(HealthReport::roll_up(&[]), Overall::Healthy);
}
