//! The rules.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    Check, Facts, HealthMetrics, HealthReport, HealthThresholds, ProcessorHealth, Severity,
};
use crate::ids::{SessionId, Timestamp, counted, duration_nanos, spoken};

/// What is known of a database, as the rules want it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) clock: ClockObserved,
    pub(crate) journal: JournalObserved,
    pub(crate) stores: Vec<StoreObserved>,
    pub(crate) last_open: LastOpen,
    pub(crate) tasks: Vec<Task>,
    pub(crate) cursors: Vec<CursorObserved>,
    pub(crate) sessions: SessionsObserved,
    pub(crate) processors: Vec<ProcessorObserved>,
}

/// Engine time, and whether the clock can be believed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ClockObserved {
    pub(crate) now: Timestamp,
    /// The jump for which writes are refused, in milliseconds; zero when they are not.
    pub(crate) jump_ms: u64,
}

/// The log, and the checkpoints that let it be cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct JournalObserved {
    /// Why nothing can be written any more.
    pub(crate) failure: Option<String>,
    pub(crate) size_bytes: u64,
    /// A log that is larger than this is not cut as it should be.
    pub(crate) size_bytes_max: u64,
    /// How long the newest checkpoint has lacked an operation.
    pub(crate) checkpoint_lag: Duration,
    pub(crate) checkpoint_interval: Duration,
    /// There are no checkpoints in memory.
    pub(crate) is_ephemeral: bool,
}

/// One checkpoint store.
#[derive(Debug, Clone)]
pub(crate) struct StoreObserved {
    pub(crate) name: &'static str,
    pub(crate) failure: Option<String>,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastOpen {
    pub(crate) was_clean: bool,
    pub(crate) since: Duration,
    pub(crate) replayed: u64,
    pub(crate) rewritten: u64,
    pub(crate) repairs: Vec<String>,
    pub(crate) sessions_restored: u64,
    pub(crate) sessions_ended: u64,
}

/// A thread of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) name: String,
    /// How long ago it last went through its loop.
    pub(crate) age: Duration,
    pub(crate) allowed: Duration,
    /// It panicked, and is to come back.
    pub(crate) is_restarting: bool,
}

/// A cursor, and how many events it keeps from being forgotten.
#[derive(Debug, Clone)]
pub(crate) struct CursorObserved {
    pub(crate) name: String,
    pub(crate) waiting: u64,
}

/// Sessions, whoever processes them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SessionsObserved {
    pub(crate) open: u64,
    /// When the first thing was due that no sweep has done yet.
    pub(crate) first_due: Option<Timestamp>,
    pub(crate) sweep_interval: Duration,
    /// What is being worked on, the longest first: one for each processor, and several may be busy with one
    /// session.
    pub(crate) busy: Vec<BusyObserved>,
    pub(crate) warn_after: Option<Duration>,
    /// That of an empty session.
    pub(crate) processing_timeout: Option<Duration>,
    pub(crate) long_running_max: u64,
    pub(crate) failed: FailedObserved,
}

/// A processor's work on a session.
#[derive(Debug, Clone)]
pub(crate) struct BusyObserved {
    pub(crate) age: Duration,
    /// By whom.
    pub(crate) processor: String,
    pub(crate) session: SessionId,
    /// How long it may take; `None`: as long as it will.
    pub(crate) timeout: Option<Duration>,
    /// Whether the session waits for what comes of it.
    pub(crate) is_awaited: bool,
}

impl BusyObserved {
    fn is_stuck(&self) -> bool {
        self.timeout.is_some_and(|timeout| self.age > timeout)
    }
}

/// Sessions whose processing was given up lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct FailedObserved {
    /// How many; counted no further than [`FAILED_COUNTED`], and one more.
    pub(crate) count: u64,
    /// The last of them, and why.
    pub(crate) last: Option<(SessionId, String)>,
}

/// A processor, and what is there for it.
#[derive(Debug, Clone)]
pub(crate) struct ProcessorObserved {
    pub(crate) name: String,
    /// Sessions wait for it. Else what it is behind with, and what it has given up, degrades nothing.
    pub(crate) is_gating: bool,
    /// Somebody has registered it since the database was opened.
    pub(crate) is_registered: bool,
    pub(crate) cadence: Duration,
    /// A session may wait this long while newer ones are processed.
    pub(crate) skipped_after: Duration,
    /// When it last saw a session that it then finished.
    pub(crate) newest_observed: Option<Timestamp>,
    /// When the newest session that waits for it was over.
    pub(crate) newest_input: Option<Timestamp>,
    pub(crate) oldest: Option<OldestWaiting>,
    /// How many sessions it has yet to see, as far as they are in memory.
    pub(crate) waiting: u64,
    pub(crate) quarantined: u64,
    /// How long the attempt has run that is running now.
    pub(crate) running_for: Option<Duration>,
    /// How long ago its last run ended, if that can be told.
    pub(crate) ended_before: Option<Duration>,
    /// How many of its runs have ended without success since one did.
    pub(crate) failures: u32,
    pub(crate) attempt_timeout: Duration,
}

/// The session that has waited longest for a processor.
#[derive(Debug, Clone)]
pub(crate) struct OldestWaiting {
    pub(crate) session: SessionId,
    pub(crate) over_at: Timestamp,
    pub(crate) attempts: u32,
    pub(crate) last_error: Option<String>,
}

/// For how long an open that repaired something is worth mentioning.
const OPEN_IS_NEWS_FOR: Duration = Duration::from_secs(3_600);

/// A processor may be this many cadences behind.
const GRACE_CADENCES: u32 = 2;

/// A required processor that gave up more sessions than this degrades the headline.
const QUARANTINED_MAX: u64 = 10;

/// A checkpoint may be this many intervals late.
const CHECKPOINT_INTERVALS: u32 = 3;

/// A sweep may be this many intervals late.
const SWEEP_INTERVALS: u32 = 2;

/// A cursor that holds back more events than this has perhaps been forgotten.
const CURSOR_EVENTS_MAX: u64 = 100_000;

/// For how long a session that has failed is worth mentioning.
pub(crate) const FAILED_IS_NEWS_FOR: Duration = Duration::from_secs(86_400);

/// What to do about sessions that were given up.
const REQUEUE: &str = "mend what fails, then sessions().apply(plan_requeue(…)), with a limit if there are more \
                       than 100; or, of a database that is not open, tidalctl plan requeue and tidalctl apply";

/// They are counted no further.
pub(crate) const FAILED_COUNTED: u64 = 1_000;

/// All rules, over what is known.
pub(crate) fn report(observed: &Observed) -> HealthReport {
    let mut checks = vec![log(&observed.journal), checkpoint(&observed.journal)];
    checks.extend(clock(observed.clock));
    checks.extend(observed.stores.iter().map(store));
    checks.push(last_open(&observed.last_open));
    checks.extend(observed.tasks.iter().map(task));
    checks.push(cursors(&observed.cursors));
    checks.extend(sessions(&observed.sessions, observed.clock));
    for processor in &observed.processors {
        checks.extend(processor_checks(processor, observed.clock));
    }
    HealthReport {
        overall: HealthReport::roll_up(&checks),
        at: observed.clock.now,
        metrics: metrics(observed),
        processors: processors(observed),
        thresholds: thresholds(&observed.sessions),
        checks,
    }
}

fn thresholds(sessions: &SessionsObserved) -> HealthThresholds {
    HealthThresholds {
        warn_after: sessions.warn_after,
        processing_timeout: sessions.processing_timeout,
        long_running_max: sessions.long_running_max,
    }
}

fn processors(observed: &Observed) -> Vec<ProcessorHealth> {
    let of = |it: &ProcessorObserved| ProcessorHealth {
        name: it.name.clone(),
        waiting: it.waiting,
        quarantined: it.quarantined,
        running_for: it.running_for,
        last_finished_age: it.ended_before,
        consecutive_failures: it.failures,
    };
    observed.processors.iter().map(of).collect()
}

fn metrics(observed: &Observed) -> HealthMetrics {
    let Observed { sessions, journal, processors, .. } = observed;
    HealthMetrics {
        sessions_open: sessions.open,
        sessions_processing: sessions.count(|_| true),
        sessions_long_running: sessions.long_running(),
        sessions_stuck: sessions.count(BusyObserved::is_stuck),
        attempts_quarantined: processors.iter().map(|processor| processor.quarantined).sum(),
        log_size_bytes: journal.size_bytes,
        checkpoint_lag_ms: duration_nanos(journal.checkpoint_lag) / 1_000_000,
    }
}

fn check(rule: &'static str, severity: Severity, detail: impl Into<String>) -> Check {
    Check { rule, subject: None, severity, detail: detail.into(), hint: None, facts: Facts::None }
}

impl Check {
    fn about(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn facts(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }
}

fn log(journal: &JournalObserved) -> Check {
    const RULE: &str = "journal.log";
    if let Some(reason) = &journal.failure {
        return check(RULE, Severity::Critical, format!("nothing can be written: {reason}"))
            .hint("mend the cause, then close the database and open it again");
    }
    let (value, threshold) = (journal.size_bytes, journal.size_bytes_max);
    if value > threshold {
        let detail = format!("the log has {value} bytes and is not cut");
        return check(RULE, Severity::Warning, detail)
            .hint("see the checks of stores and of checkpoints: the log is cut after a checkpoint")
            .facts(Facts::Count { value, threshold });
    }
    check(RULE, Severity::Ok, format!("the log takes writes and has {value} bytes"))
        .facts(Facts::Count { value, threshold })
}

fn checkpoint(journal: &JournalObserved) -> Check {
    const RULE: &str = "journal.checkpoint";
    if journal.is_ephemeral {
        return check(RULE, Severity::Ok, "a database in memory has no checkpoints");
    }
    let (age, allowed) =
        (journal.checkpoint_lag, journal.checkpoint_interval * CHECKPOINT_INTERVALS);
    let facts = Facts::Age { age, allowed };
    if age <= allowed {
        return check(RULE, Severity::Ok, "the newest checkpoint is new enough").facts(facts);
    }
    let detail = format!(
        "there has been no checkpoint for {}; nothing is lost, but the next open replays it",
        spoken(age)
    );
    check(RULE, Severity::Warning, detail)
        .hint("call checkpoint() and look at its error; see that the disk has room")
        .facts(facts)
}

/// Says nothing while the clock is believed.
fn clock(clock: ClockObserved) -> Option<Check> {
    let jump = Duration::from_millis(clock.jump_ms);
    let detail = format!("writes are refused: the clock jumped ahead by {}", spoken(jump));
    (clock.jump_ms > 0).then(|| {
        check("clock", Severity::Critical, detail)
            .hint("set the clock right, or accept it as it is with reset_clock()")
    })
}

fn store(store: &StoreObserved) -> Check {
    const RULE: &str = "stores";
    let name = store.name;
    let found = match &store.failure {
        None => check(RULE, Severity::Ok, format!("store {name} takes checkpoints")),
        Some(reason) => {
            let detail = format!("store {name} is out of use and is being rebuilt: {reason}");
            check(RULE, Severity::Warning, detail)
                .hint("nothing is lost; if it does not mend itself, see that the disk has room")
        }
    };
    found.about(name)
}

fn last_open(open: &LastOpen) -> Check {
    const RULE: &str = "recovery";
    let LastOpen { replayed, rewritten, sessions_restored, sessions_ended, .. } = open;
    if (open.was_clean && open.repairs.is_empty()) || open.since > OPEN_IS_NEWS_FOR {
        return check(
            RULE,
            Severity::Ok,
            format!("opening replayed {}", counted(*replayed, "frame")),
        );
    }
    let mut detail = match open.was_clean {
        true => "the database was repaired when it was opened".to_owned(),
        false => format!(
            "the database had not been closed: opening replayed {}, wrote {rewritten} anew, restored {}, \
             and ended {sessions_ended}",
            counted(*replayed, "frame"),
            counted(*sessions_restored, "session")
        ),
    };
    for repair in &open.repairs {
        detail.push_str("; ");
        detail.push_str(repair);
    }
    check(RULE, Severity::Info, detail).hint("open_report() has all of it")
}

fn task(task: &Task) -> Check {
    const RULE: &str = "background";
    let Task { name, .. } = task;
    let &Task { age, allowed, is_restarting, .. } = task;
    let found = if is_restarting {
        check(RULE, Severity::Warning, format!("the {name} panicked and is to start again"))
            .hint("look into the program's log for the panic")
    } else if age > allowed {
        let detail = format!("the {name} has not moved for {}", spoken(age));
        check(RULE, Severity::Warning, detail)
            .hint("see whether the disk or a callback blocks; nothing acknowledged is lost")
    } else {
        check(RULE, Severity::Ok, format!("the {name} moves"))
    };
    found.about(name).facts(Facts::Age { age, allowed })
}

fn cursors(cursors: &[CursorObserved]) -> Check {
    const RULE: &str = "cursors";
    let threshold = CURSOR_EVENTS_MAX;
    let Some(slowest) = cursors.iter().max_by_key(|cursor| cursor.waiting) else {
        return check(RULE, Severity::Ok, "there are no cursors");
    };
    let (name, value) = (&slowest.name, slowest.waiting);
    let facts = Facts::Count { value, threshold };
    let detail = format!("cursor {name:?} keeps {}", counted(value, "event"));
    if value <= threshold {
        return check(RULE, Severity::Ok, detail).about(name).facts(facts);
    }
    check(RULE, Severity::Info, detail)
        .about(name)
        .hint(format!("let its reader go on, or give it up: sessions().remove_cursor({name:?})"))
        .facts(facts)
}

fn sessions(sessions: &SessionsObserved, clock: ClockObserved) -> [Check; 4] {
    [overdue(sessions, clock), stuck(sessions), long_running(sessions), failed(&sessions.failed)]
}

fn overdue(sessions: &SessionsObserved, clock: ClockObserved) -> Check {
    const RULE: &str = "sessions.overdue";
    if clock.jump_ms > 0 {
        return check(RULE, Severity::Unknown, "the clock is not believed, so nothing has an age");
    }
    let allowed = sessions.sweep_interval * SWEEP_INTERVALS;
    let age = sessions.first_due.map_or(Duration::ZERO, |due| due.until(clock.now));
    let facts = Facts::Age { age, allowed };
    if age <= allowed {
        return check(RULE, Severity::Ok, "no end waits to be written down").facts(facts);
    }
    let detail = format!(
        "the sweeper is late: an end has waited for {} to be written down; reads show it all the same",
        spoken(age)
    );
    check(RULE, Severity::Warning, detail)
        .hint("call sessions().sweep(), or drive() where no thread does, and look at its error")
        .facts(facts)
}

fn stuck(sessions: &SessionsObserved) -> Check {
    const RULE: &str = "sessions.stuck";
    let stuck = || sessions.busy.iter().filter(|busy| busy.is_stuck());
    // Those that a session waits for go first.
    let Some(worst) = stuck().find(|busy| busy.is_awaited).or_else(|| stuck().next()) else {
        return check(RULE, Severity::Ok, "no session is stuck");
    };
    let BusyObserved { age, processor, session, is_awaited, .. } = worst;
    let detail = format!(
        "{} stuck: processor {processor:?} has worked on session {session} for {}",
        sessions.count(BusyObserved::is_stuck),
        spoken(*age)
    );
    let grace = worst.timeout.unwrap_or_default();
    let facts =
        Facts::Waiting { session: *session, age: *age, grace, attempts: 1, last_error: None };
    let (severity, detail, hint) = match is_awaited {
        true => (
            Severity::Critical,
            detail,
            "sessions().stuck() lists them; sessions().apply(plan_reset(…)) gives them up and keeps their data",
        ),
        false => (
            Severity::Warning,
            format!("{detail}, for which no session waits"),
            "sessions().stuck() lists them; let process() look at should_stop()",
        ),
    };
    check(RULE, severity, detail).about(processor).hint(hint).facts(facts)
}

impl SessionsObserved {
    /// How many sessions there is such work on.
    fn count(&self, is_such: impl Fn(&BusyObserved) -> bool) -> u64 {
        let such = self.busy.iter().filter(|busy| is_such(busy));
        such.map(|busy| busy.session).collect::<BTreeSet<SessionId>>().len() as u64
    }

    fn long_running(&self) -> u64 {
        let Some(than) = self.warn_after else { return 0 };
        self.count(|busy| busy.age > than)
    }
}

fn long_running(sessions: &SessionsObserved) -> Check {
    const RULE: &str = "sessions.long_running";
    let Some(warn_after) = sessions.warn_after else {
        return check(RULE, Severity::Ok, "nothing counts as long");
    };
    let (value, threshold) = (sessions.long_running(), sessions.long_running_max);
    let facts = Facts::Count { value, threshold };
    let detail = format!(
        "{} worked on, {value} for longer than {}",
        counted(sessions.count(|_| true), "session"),
        spoken(warn_after)
    );
    if value <= threshold {
        return check(RULE, Severity::Ok, detail).facts(facts);
    }
    check(RULE, Severity::Warning, detail)
        .hint(
            "sessions().plan_reset(…) with the first level of warn_after as its timeout lists those that have \
             not settled, and changes nothing; see also the processor's own log",
        )
        .facts(facts)
}

fn failed(failed: &FailedObserved) -> Check {
    const RULE: &str = "sessions.failed";
    let lately = format!("in the last {} hours", FAILED_IS_NEWS_FOR.as_secs() / 3_600);
    let facts = Facts::Count { value: failed.count, threshold: 0 };
    let Some((session, cause)) = &failed.last else {
        return check(RULE, Severity::Ok, format!("no session failed {lately}")).facts(facts);
    };
    let count = match failed.count {
        count if count > FAILED_COUNTED => "more than 1,000 sessions".to_owned(),
        count => counted(count, "session"),
    };
    let detail = format!("{count} failed {lately}, the last one {session} ({cause})");
    check(RULE, Severity::Info, detail).hint(REQUEUE).facts(facts)
}

fn processor_checks(processor: &ProcessorObserved, clock: ClockObserved) -> Vec<Check> {
    let mut checks = vec![pipeline(processor, clock)];
    // While nothing is processed at all the oldest one is not being passed over.
    if checks[0].severity == Severity::Ok {
        checks.push(skipped(processor, clock));
    }
    checks.push(overrun(processor));
    checks.push(quarantined(processor));
    checks.into_iter().map(|check| check.about(&processor.name)).collect()
}

/// Whether anything is processed at all: the newest input against the newest that was observed, once
/// something has waited for long.
fn pipeline(processor: &ProcessorObserved, clock: ClockObserved) -> Check {
    const RULE: &str = "sessions.pipeline";
    let name = &processor.name;
    if clock.jump_ms > 0 {
        return check(RULE, Severity::Unknown, "the clock is not believed, so nothing has an age");
    }
    let Some(newest_input) = processor.newest_input else {
        return check(RULE, Severity::Ok, format!("nothing waits for processor {name:?}"));
    };
    let grace = processor.cadence * GRACE_CADENCES;
    let newest_observed = processor.newest_observed;
    let lag = newest_observed.unwrap_or(Timestamp::EPOCH).until(newest_input);
    // What came a moment ago, after a long quiet, is not late yet, however old the last one is.
    let waited = processor.oldest.as_ref().map_or(newest_input, |o| o.over_at).until(clock.now);
    let facts = Facts::Lag { newest_input, newest_observed, lag, grace };
    if lag <= grace || waited <= grace {
        return check(RULE, Severity::Ok, format!("processor {name:?} keeps up")).facts(facts);
    }
    let severity = if processor.is_gating { Severity::Warning } else { Severity::Info };
    let detail = match newest_observed {
        None => format!(
            "processor {name:?} has processed no session yet, and one has waited for {}",
            spoken(waited)
        ),
        Some(_) => format!(
            "processor {name:?} is behind: a session has waited for {}, and it saw none for longer",
            spoken(waited)
        ),
    };
    if !processor.is_registered {
        return check(RULE, severity, format!("{detail}; nobody has registered it here"))
            .hint(format!("register it, or give it up: sessions().unregister({name:?})"))
            .facts(facts);
    }
    check(RULE, severity, detail)
        .hint(format!("call sessions().run_processor({name:?}, …) and look at its errors"))
        .facts(facts)
}

/// Whether one session is passed over while newer ones are processed.
fn skipped(processor: &ProcessorObserved, clock: ClockObserved) -> Check {
    const RULE: &str = "sessions.skipped";
    let name = &processor.name;
    let grace = processor.skipped_after;
    let oldest = processor.oldest.as_ref();
    let age = |oldest: &OldestWaiting| oldest.over_at.until(clock.now);
    let Some(oldest) = oldest.filter(|oldest| age(oldest) > grace) else {
        return check(RULE, Severity::Ok, format!("processor {name:?} passes over no session"));
    };
    let (session, age) = (oldest.session, age(oldest));
    let mut detail = format!(
        "session {session} is skipped by processor {name:?}: it has waited for {} and was tried {}",
        spoken(age),
        counted(u64::from(oldest.attempts), "time")
    );
    if let Some(error) = &oldest.last_error {
        detail.push_str(", last: ");
        detail.push_str(error);
    }
    let facts = Facts::Waiting {
        session,
        age,
        grace,
        attempts: oldest.attempts,
        last_error: oldest.last_error.clone(),
    };
    check(RULE, Severity::Info, detail)
        .hint(format!("sessions().processor_row({name:?}, {session}) says when it is tried again"))
        .facts(facts)
}

fn overrun(processor: &ProcessorObserved) -> Check {
    const RULE: &str = "processors.overrun";
    let (name, allowed) = (&processor.name, processor.attempt_timeout);
    let age = processor.running_for.unwrap_or_default();
    let facts = Facts::Age { age, allowed };
    if age <= allowed {
        return check(RULE, Severity::Ok, format!("processor {name:?} is within its time"))
            .facts(facts);
    }
    let detail = format!("an attempt of processor {name:?} has run for {}", spoken(age));
    check(RULE, Severity::Warning, detail)
        .hint("running code cannot be killed: let process() look at should_stop()")
        .facts(facts)
}

fn quarantined(processor: &ProcessorObserved) -> Check {
    const RULE: &str = "processors.quarantined";
    let (name, value, threshold) = (&processor.name, processor.quarantined, QUARANTINED_MAX);
    let facts = Facts::Count { value, threshold };
    let severity = match value {
        0 => Severity::Ok,
        value if processor.is_gating && value > threshold => Severity::Warning,
        _ => Severity::Info,
    };
    let detail = format!("processor {name:?} has given up {}", counted(value, "session"));
    let found = check(RULE, severity, detail).facts(facts);
    if value == 0 {
        return found;
    }
    found.hint(REQUEUE)
}
