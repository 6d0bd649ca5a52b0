//! The rules on sessions and processors, worked out a second time.
//!
//! Knows: what is observed, in whole minutes, and the table of rules that was agreed on. Shares no code with
//! the rules.

use std::collections::BTreeSet;
use std::time::Duration;

use super::tests::well;
use super::*;
use crate::ids::{SessionId, Timestamp};

const NOW_MIN: u64 = 28_000_000;

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn ago(age_min: u64) -> Timestamp {
    Timestamp::from_secs(60 * (NOW_MIN - age_min))
}

/// A processor with sessions, ages in minutes.
#[derive(Debug, Clone, Copy)]
struct Case {
    is_gating: bool,
    observed: Option<u64>,
    /// The newest session that waits, and the oldest.
    waiting: Option<(u64, u64)>,
    running: Option<u64>,
    quarantined: u64,
    jumped: bool,
}

impl Case {
    fn observed(self) -> Observed {
        let waiting = self.waiting;
        let mut well = well();
        well.clock = ClockObserved { now: ago(0), jump_ms: u64::from(self.jumped) };
        let [it] = &mut well.processors[..] else { unreachable!("there is one") };
        (it.name, it.is_gating) = ("it".to_owned(), self.is_gating);
        (it.cadence, it.skipped_after) = (minutes(15), minutes(120));
        it.newest_observed = self.observed.map(ago);
        it.newest_input = waiting.map(|(newest, _)| ago(newest));
        it.oldest = waiting.map(|(_, oldest)| OldestWaiting {
            session: SessionId::new(7),
            over_at: ago(oldest),
            attempts: 1,
            last_error: None,
        });
        (it.running_for, it.attempt_timeout) = (self.running.map(minutes), minutes(15));
        it.quarantined = self.quarantined;
        well
    }

    /// Nothing was seen for longer than two cadences before the newest that waits, and the oldest has
    /// waited for as long.
    fn is_behind(self) -> bool {
        let Some((newest, oldest)) = self.waiting else { return false };
        oldest > 30 && self.observed.is_none_or(|observed| observed > newest + 30)
    }

    /// What each rule must say, in the order of a report.
    fn expected(self) -> Vec<(&'static str, Severity)> {
        let worse = if self.is_gating { Severity::Warning } else { Severity::Info };
        let mut expected = Vec::new();
        match (self.jumped, self.is_behind()) {
            (true, _) => expected.push(("sessions.pipeline", Severity::Unknown)),
            (_, true) => expected.push(("sessions.pipeline", worse)),
            (_, false) => {
                expected.push(("sessions.pipeline", Severity::Ok));
                let is_skipped = self.waiting.is_some_and(|(_, oldest)| oldest > 120);
                let skipped = if is_skipped { Severity::Info } else { Severity::Ok };
                expected.push(("sessions.skipped", skipped));
            }
        }
        let overrun = self.running.is_some_and(|running| running > 15);
        let overrun = if overrun { Severity::Warning } else { Severity::Ok };
        let given_up = match self.quarantined {
            0 => Severity::Ok,
            1..=10 => Severity::Info,
            _ => worse,
        };
        expected.extend([("processors.overrun", overrun), ("processors.quarantined", given_up)]);
        expected
    }

    fn headline(self) -> Overall {
        let is_warning = self.expected().iter().any(|(_, severity)| *severity == Severity::Warning);
        match (self.jumped, is_warning) {
            (true, _) => Overall::Critical,
            (_, true) => Overall::Degraded,
            (_, false) => Overall::Healthy,
        }
    }
}

const AGES: [u64; 8] = [0, 1, 29, 30, 31, 120, 121, 400];

fn all_waiting() -> Vec<Option<(u64, u64)>> {
    let pairs = AGES.into_iter().flat_map(|newest| AGES.map(|oldest| (newest, oldest)));
    let ordered = pairs.filter(|(newest, oldest)| newest <= oldest);
    ordered.map(Some).chain([None]).collect()
}

/// P43: all that may be true of a processor, on both sides of each limit.
#[test]
fn health_matches_oracle() {
    let observed = AGES.map(Some).into_iter().chain([None, Some(60), Some(61), Some(151)]);
    let mut cases = Vec::new();
    for observed in observed {
        for waiting in all_waiting() {
            for (running, quarantined) in [(None, 0), (Some(15), 1), (Some(16), 10), (None, 11)] {
                for (is_gating, jumped) in
                    [(true, false), (false, false), (true, true), (false, true)]
                {
                    let rest = Case { is_gating, observed, waiting, running, quarantined, jumped };
                    cases.push(rest);
                }
            }
        }
    }
    assert!(cases.len() > 5_000);
    for case in cases {
        let report = report(&case.observed());
        let of_it = report.checks.iter().filter(|check| check.subject.as_deref() == Some("it"));
        let found: Vec<_> = of_it.map(|check| (check.rule, check.severity)).collect();
        assert_eq!(found, case.expected(), "{case:?}");
        assert_eq!(report.overall, case.headline(), "{case:?}: {:?}", report.checks);
    }
}

/// The work of four processors, on any of four sessions each, on both sides of each limit: sessions are counted,
/// however many processors work on one.
#[test]
fn health_counts_sessions_as_the_oracle_does() {
    let choices: Vec<(u64, u64)> =
        (1..=4).flat_map(|session| [15, 16, 31].map(|age| (session, age))).collect();
    for number in 0..choices.len().pow(4) {
        let at = |place: u32| choices[number / choices.len().pow(place) % choices.len()];
        let work = [0, 1, 2, 3].map(at);
        let mut observed = well();
        let busy = work.into_iter().enumerate().map(|(processor, (session, age))| BusyObserved {
            age: minutes(age),
            processor: processor.to_string(),
            session: SessionId::new(session),
            timeout: Some(minutes(30)),
            is_awaited: session % 2 == 0,
        });
        observed.sessions.busy = busy.collect();
        observed.sessions.busy.sort_by_key(|busy| std::cmp::Reverse(busy.age));
        let report = report(&observed);
        let beyond = |limit: u64| -> BTreeSet<u64> {
            work.iter().filter(|(_, age)| *age > limit).map(|(session, _)| *session).collect()
        };
        let (all, long, stuck) = (beyond(0), beyond(15), beyond(30));
        let counted = &report.metrics;
        let counted =
            [counted.sessions_processing, counted.sessions_long_running, counted.sessions_stuck];
        assert_eq!(counted, [&all, &long, &stuck].map(|them| them.len() as u64), "{work:?}");
        let is_long = if long.len() > 3 { Severity::Warning } else { Severity::Ok };
        let is_stuck = match stuck.iter().map(|session| session % 2).min() {
            None => Severity::Ok,
            Some(0) => Severity::Critical,
            Some(_) => Severity::Warning,
        };
        let found =
            |rule: &str| report.checks.iter().find(|it| it.rule == rule).map(|it| it.severity);
        assert_eq!(found("sessions.long_running"), Some(is_long), "{work:?}");
        assert_eq!(found("sessions.stuck"), Some(is_stuck), "{work:?}");
    }
}
