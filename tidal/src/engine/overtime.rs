//! What the sweeper does about work on sessions that takes long.
//!
//! Knows: the levels of warnings, the time-out, and of which levels somebody was told. Must not know: what
//! an attempt is for, and whom a session waits for.
//!
//! ```text
//! busy for longer than a level    → that is told, once                                (WarnSessions)
//! … than the session's time-out   → the session fails, if it waits for the processor  (FailSessions)
//!                                 → the attempt alone does, if nobody waits for it    (FailAttempts)
//! ```
//!
//! What was told is remembered in memory alone: an attempt ends with its process. One pass is made at a time,
//! so that a warning is told once, and before the work is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::sweeper::{ENDS_PER_FRAME, Sweep};
use crate::error::Result;
use crate::ids::{ProcessorId, SessionId, Timestamp, duration_nanos, spoken};
use crate::options::{ProcessingTimeout, SessionConfig};
use crate::record::{FailAttempt, FailAttempts, FailSession, FailedBy, Record, WarnSession};
use crate::sessions::Stake;
use crate::state::{Reply, State, Work};
use crate::sync::{Mutex, MutexGuard};

/// How long work may take, and what was said of it.
pub(crate) struct Overtime {
    levels: Vec<Duration>,
    /// `None` if nothing is given up unless somebody asks.
    timeout: Option<ProcessingTimeout>,
    told: Mutex<Told>,
    /// The session that each processor is handed at this moment, and since when. Attempts begin together, and
    /// the others of them wait for this one: nobody is busy with those.
    handed: Mutex<BTreeMap<ProcessorId, (SessionId, Timestamp)>>,
}

/// Through which level it was told of a session, and since when that was busy.
type Told = BTreeMap<SessionId, (Timestamp, u8)>;

/// A session that somebody is busy with.
struct Busy {
    since: Timestamp,
    /// Since when somebody is for whom it waits, and how long that may take.
    awaited: Option<(Timestamp, Duration)>,
    /// Through which level it was told.
    level: u8,
}

impl Overtime {
    pub(crate) fn new(config: &SessionConfig) -> Self {
        let timeout = config.auto_timeout.then_some(config.processing_timeout);
        let (told, handed) = (Mutex::default(), Mutex::default());
        Self { levels: config.warn_after.clone(), timeout, told, handed }
    }

    /// A processor is handed a session of those that it has begun with.
    pub(crate) fn hand(&self, processor: ProcessorId, session: SessionId, now: Timestamp) {
        self.handed.lock().insert(processor, (session, now));
    }

    /// It has come back with the last of them.
    pub(crate) fn take_back(&self, processor: ProcessorId) {
        self.handed.lock().remove(&processor);
    }

    /// Since when a processor has been handed a session, whatever became of that meanwhile.
    pub(crate) fn handed_since(&self, processor: ProcessorId) -> Option<Timestamp> {
        self.handed.lock().get(&processor).map(|&(_, since)| since)
    }

    /// The attempts that somebody is busy with, those first that have been for the longest.
    pub(crate) fn work(&self, state: &State, now: Timestamp) -> Vec<Work> {
        let mut work = state.work(now);
        let handed = self.handed.lock();
        work.retain(|it| {
            handed.get(&it.processor).is_none_or(|(session, _)| *session == it.session)
        });
        work
    }

    /// After how much work at the earliest there is anything to do.
    pub(crate) fn first_after(&self) -> Option<Duration> {
        let timeout = self.timeout.map(ProcessingTimeout::smallest);
        self.levels.first().copied().into_iter().chain(timeout).min()
    }

    /// The sessions of some work, as far as anything may be done about it.
    fn sessions(&self, work: &[Work], told: &Told) -> BTreeMap<SessionId, Busy> {
        let mut sessions = BTreeMap::new();
        // The longest comes first.
        for it in work.iter().filter(|it| it.stake != Stake::None) {
            let level = told.get(&it.session).filter(|(since, _)| *since == it.since);
            let level = level.map_or(0, |&(_, level)| level);
            let busy = Busy { since: it.since, awaited: None, level };
            let busy: &mut Busy = sessions.entry(it.session).or_insert(busy);
            if let (Stake::Awaited, Some(timeout)) = (it.stake, self.timeout) {
                busy.awaited.get_or_insert((it.since, it.timeout(timeout)));
            }
        }
        sessions
    }

    /// Through which level a session has been busy by now.
    fn level_of(&self, busy: &Busy, now: Timestamp) -> u8 {
        let is_over = |level: &Duration| busy.since.saturating_add(*level) < now;
        self.levels.iter().take_while(|level| is_over(level)).count() as u8
    }

    /// Until when nothing is to be done about a session that has not been done.
    fn lasts_until(&self, busy: &Busy) -> Option<Timestamp> {
        let level = self.levels.get(usize::from(busy.level));
        let level = level.map(|level| busy.since.saturating_add(*level));
        let given_up = busy.awaited.map(|(since, timeout)| since.saturating_add(timeout));
        level.into_iter().chain(given_up).min()
    }

    /// Until when an attempt may go on that nobody waits for.
    fn may_go_on_until(&self, work: &Work) -> Option<Timestamp> {
        let timeout = self.timeout.filter(|_| work.stake == Stake::Unawaited)?;
        Some(work.since.saturating_add(work.timeout(timeout)))
    }
}

/// The sessions that have been busy for too long, since when, and how long they might have been: as many as
/// one frame gives up.
fn overdue(
    sessions: &BTreeMap<SessionId, Busy>,
    now: Timestamp,
) -> Vec<(SessionId, (Timestamp, Duration))> {
    let overdue = |(&session, busy): (&SessionId, &Busy)| {
        let (since, timeout) = busy.awaited?;
        (since.saturating_add(timeout) < now).then_some((session, (since, timeout)))
    };
    sessions.iter().filter_map(overdue).take(ENDS_PER_FRAME as usize).collect()
}

impl Sweep {
    /// What is going on, and what was told of it; forgets what was told of work that is over. `None` where there is
    /// nothing to do: events advance time, so nobody is busy for any time, as a month may pass during a call;
    /// or nobody is busy.
    fn going_on(&self, now: Timestamp) -> Option<(&Overtime, Vec<Work>, MutexGuard<'_, Told>)> {
        let overtime = self.overtime.as_deref()?;
        if self.state.header().event_time {
            return None;
        }
        let mut told = overtime.told.lock();
        let work = overtime.work(&self.state, now);
        let going_on: BTreeSet<(SessionId, Timestamp)> =
            work.iter().map(|it| (it.session, it.since)).collect();
        told.retain(|&id, (since, _)| going_on.contains(&(id, *since)));
        (!work.is_empty()).then_some((overtime, work, told))
    }

    /// Tells of work that takes long, and gives up what takes too long; how many sessions failed.
    pub(super) fn look_at_work(&self, now: Timestamp) -> Result<u64> {
        let Some((overtime, work, mut told)) = self.going_on(now) else { return Ok(0) };
        let sessions = overtime.sessions(&work, &told);
        self.warn((overtime, &sessions), &mut told, now)?;
        let overdue = overdue(&sessions, now);
        let failed = self.give_up(&overdue)?;
        let is_left = |it: &&Work| {
            overtime.may_go_on_until(it).is_some_and(|end| end < now)
                && overdue.binary_search_by_key(&it.session, |(session, _)| *session).is_err()
        };
        let left: Vec<&Work> = work.iter().filter(is_left).collect();
        self.end_attempts(overtime, &left, now)?;
        Ok(failed)
    }

    /// The sessions that a pass would give up now, and since when each is busy.
    pub(crate) fn overdue(&self, now: Timestamp) -> Vec<(SessionId, Timestamp)> {
        let Some((overtime, work, told)) = self.going_on(now) else { return Vec::new() };
        let overdue = overdue(&overtime.sessions(&work, &told), now);
        overdue.into_iter().map(|(session, (since, _))| (session, since)).collect()
    }

    /// From when on there is something to do about the work that is going on.
    pub(super) fn work_is_due(&self, now: Timestamp) -> Option<Timestamp> {
        let (overtime, work, told) = self.going_on(now)?;
        let sessions = overtime.sessions(&work, &told);
        let of_sessions = sessions.values().filter_map(|busy| overtime.lasts_until(busy));
        let of_attempts = work.iter().filter_map(|it| overtime.may_go_on_until(it));
        let first = of_sessions.chain(of_attempts).min()?;
        Some(first.saturating_add(Duration::from_nanos(1)))
    }

    /// Tells of all sessions that have reached another level, in one frame.
    fn warn(
        &self,
        (overtime, sessions): (&Overtime, &BTreeMap<SessionId, Busy>),
        told: &mut Told,
        now: Timestamp,
    ) -> Result<()> {
        let reached = |(&session, busy): (&SessionId, &Busy)| {
            let level = overtime.level_of(busy, now);
            let busy_for_ns = duration_nanos(busy.since.until(now));
            let busy_since = busy.since;
            (level > busy.level).then_some(WarnSession { session, busy_since, level, busy_for_ns })
        };
        let items: Vec<WarnSession> =
            sessions.iter().filter_map(reached).take(ENDS_PER_FRAME as usize).collect();
        if items.is_empty() {
            return Ok(());
        }
        self.ask(&Record::WarnSessions(items.clone()))?;
        tracing::info!(sessions = items.len(), "sessions are processed for long");
        told.extend(items.iter().map(|item| (item.session, (item.busy_since, item.level))));
        Ok(())
    }

    /// Gives up sessions, in one frame, so that whoever is told is told of all of them at once; how many.
    fn give_up(&self, overdue: &[(SessionId, (Timestamp, Duration))]) -> Result<u64> {
        if overdue.is_empty() {
            return Ok(0);
        }
        let items = overdue.iter().map(|&(session, (since, timeout))| FailSession {
            session,
            busy_since: Some(since),
            by: FailedBy::Timeout { after_ns: duration_nanos(timeout), automatic: true },
        });
        let failed = self.decided(&Record::FailSessions(items.collect()))?;
        tracing::warn!(failed, "sessions were processed for too long, and were given up");
        Ok(failed)
    }

    /// Ends attempts that nobody waits for, one frame for each processor: each is tried again when its
    /// beginning says so, or never.
    fn end_attempts(&self, overtime: &Overtime, left: &[&Work], now: Timestamp) -> Result<()> {
        let mut by_processor: BTreeMap<ProcessorId, Vec<(&Work, String)>> = BTreeMap::new();
        for &work in left {
            let timeout = overtime.timeout.map(|timeout| work.timeout(timeout));
            let error = format!("timed out after {}", spoken(timeout.unwrap_or_default()));
            by_processor.entry(work.processor).or_default().push((work, error));
        }
        for (processor, ends) in by_processor {
            let item = |(work, error): &'_ (&Work, String)| {
                let attempt = self.state.processors.attempt(work.session, processor)?;
                let (attempt, retry_ns, is_last) = attempt.promised()?;
                let next = now.saturating_add(Duration::from_nanos(retry_ns));
                Some((work.session, attempt, next, is_last, error.clone()))
            };
            let items: Vec<_> = ends.iter().filter_map(item).collect();
            let items = items.iter().map(|(session, attempt, next, is_last, error)| FailAttempt {
                session: *session,
                attempt: *attempt,
                next: *next,
                is_last: *is_last,
                error,
            });
            let record = FailAttempts { processor, items: items.collect() };
            let ended = self.decided(&Record::FailAttempts(record))?;
            tracing::warn!(%processor, ended, "attempts took too long, and were ended");
        }
        Ok(())
    }

    /// Writes a record and says how many of its items took place.
    fn decided(&self, record: &Record<'_>) -> Result<u64> {
        match self.ask(record)? {
            Reply::Decided(items) => Ok(items.into_iter().filter(|&item| item).count() as u64),
            other => unreachable!("it is answered with what changed, not with {other:?}"),
        }
    }
}
