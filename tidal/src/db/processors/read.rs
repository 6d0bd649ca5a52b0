//! What is known of the processing of sessions.
//!
//! Knows: the calls, and where outcomes lie. Must not know: runs.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::db::Sessions;
use crate::db::door::Inside;
use crate::db::sessions::look::find;
use crate::error::{Error, Result};
use crate::ids::{ProcessorId, SessionId, Timestamp, UserId};
use crate::processors::{Attempt, AttemptStatus, Outcome};
use crate::sessions::{SessionState, Stake};
use crate::state::Work;

/// How far a processor is with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorRow {
    /// How the last attempt went.
    pub status: ProcessorStatus,
    /// How many attempts there were since it was processed last, or requeued; where it is done, how many it
    /// took.
    pub attempts: u32,
    /// What it has made of the session, if it ever was done with it: that of an earlier content or version
    /// stays until there is a new one.
    pub outcome: Option<ProcessorOutcome>,
}

/// How the last attempt of a processor at a session went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessorStatus {
    /// It was done. Where more has come since, there will be another attempt.
    Done,
    /// It is going on.
    Running {
        /// The engine time at which it began.
        since: Timestamp,
    },
    /// It failed, or ended with its process, and there will be another one.
    Retrying {
        /// The engine time from which on.
        next: Timestamp,
        /// What went wrong.
        error: String,
    },
    /// It failed, and there will be no other one unless the session is requeued.
    Quarantined {
        /// The engine time at which it was given up.
        at: Timestamp,
        /// What went wrong.
        error: String,
    },
}

/// What a processor has made of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorOutcome {
    /// The session.
    pub session: SessionId,
    /// The number of the newest record that was seen, or 0.
    pub head: u64,
    /// The hash of the content that was seen.
    pub content_hash: [u8; 32],
    /// The version of the processor.
    pub version: u32,
    /// The engine time at which the session was looked at.
    pub observed_at: Timestamp,
    /// The engine time at which it was written down.
    pub committed_at: Timestamp,
    /// How many items were found in it.
    pub items: u64,
    /// How many attempts it took.
    pub attempts: u32,
    /// What was put down, by ascending key.
    pub outputs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A session that a processor is busy with for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckSession {
    /// The session.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// What the user's software called itself at the start.
    pub agent: String,
    /// The engine time at which it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// For how long its oldest attempt has been going on.
    pub processing_for: Duration,
    /// The names of the processors that are busy with it.
    pub waiting_on: Vec<String>,
    /// What went wrong with a processor that is not busy with it, if one has failed.
    pub last_error: Option<String>,
}

impl Sessions<'_> {
    /// How far a processor is with a session; `None` if it has never attempted it, or is to
    /// begin anew and was never done with it.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName): there never was such a processor. [`Store`](Error::Store) or
    /// [`Corrupt`](Error::Corrupt) when the outcome cannot be read.
    pub fn processor_row(&self, name: &str, session: SessionId) -> Result<Option<ProcessorRow>> {
        self.db.door.look(|inside| {
            let processor = number_of(inside, name)?;
            // Attempts first: one that is committed meanwhile has its outcome by then.
            let attempt = inside.state.processors.attempt(session, processor);
            let outcome = outcome_of(inside, session, processor)?;
            let incarnation = inside.state.header().incarnation;
            let tried = attempt.and_then(|it| Some((it.count, status_of(&it, incarnation)?)));
            // Whatever it tries with a session that has failed counts no more.
            let given_up = given_up(inside, session, self.db.default_now())?;
            let tried = tried.map(|(count, status)| match (status, &given_up) {
                (ProcessorStatus::Running { .. } | ProcessorStatus::Retrying { .. }, Some(it)) => {
                    (count, it.clone())
                }
                (status, _) => (count, status),
            });
            let (attempts, status) = match (tried, &outcome) {
                (Some(tried), _) => tried,
                (None, Some(outcome)) => (outcome.attempts, ProcessorStatus::Done),
                (None, None) => return Ok(None),
            };
            Ok(Some(ProcessorRow { status, attempts, outcome }))
        })
    }

    /// What a processor has put down of a session, by ascending key. What it put down of an earlier content
    /// stays until the session is processed again.
    ///
    /// # Errors
    ///
    /// As [`processor_row`](Self::processor_row).
    pub fn outputs(&self, name: &str, session: SessionId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let outcome = self.db.door.look(|inside| {
            let processor = number_of(inside, name)?;
            outcome_of(inside, session, processor)
        })?;
        Ok(outcome.map(|outcome| outcome.outputs).unwrap_or_default())
    }

    /// What a processor has made of sessions, in the order in which these were started: the first `limit`
    /// after a session. There are no more where there are fewer than that.
    ///
    /// It reads the outcomes of other processors of the same sessions as well.
    ///
    /// # Errors
    ///
    /// As [`processor_row`](Self::processor_row).
    pub fn outcomes(
        &self,
        name: &str,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<ProcessorOutcome>> {
        self.db.door.look(|inside| {
            let processor = number_of(inside, name)?;
            let mut found = Vec::new();
            let from = after.map_or(0, |after| after.get().saturating_add(1));
            if limit == 0 || from > Outcome::SESSION_MAX {
                return Ok(found);
            }
            let from = Outcome::key(SessionId::new(from), ProcessorId::new(0));
            inside.each_row(inside.state.processors.outcomes(), from, |key, row| {
                let (session, of) = Outcome::of_key(key);
                if of == processor {
                    found.push(decoded(session, row)?);
                }
                Ok(match found.len() < limit {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                })
            })?;
            Ok(found)
        })
    }

    /// The sessions that processors are busy with for longer than the
    /// [`processing_timeout`](crate::SessionConfig::processing_timeout) of each, those first that have been for
    /// the longest; also those that wait for none of these processors. Only calls that are going on make a session busy: neither its own length nor the wait for
    /// a processor, or for another attempt, does. One whose processing was given up is not among them.
    ///
    /// # Errors
    ///
    /// [`Closed`](Error::Closed); those of [`get`](Self::get).
    pub fn stuck(&self) -> Result<Vec<StuckSession>> {
        let (busy, work) = self.busy_for_longer_than(None);
        busy.into_iter()
            .filter_map(|(id, _, busy_for)| self.stuck_one(id, busy_for, &work).transpose())
            .collect()
    }

    /// The sessions that somebody has been busy with for longer than this, or than each of them may take: since
    /// when, and for how long; with all that is going on.
    pub(super) fn busy_for_longer_than(
        &self,
        timeout: Option<Duration>,
    ) -> (Vec<(SessionId, Timestamp, Duration)>, Vec<Work>) {
        let by_size = self.db.sessions.processing_timeout;
        let now = self.db.default_now();
        let work = self.db.overtime.work(&self.db.state, now);
        let may_take = |work: &Work| timeout.unwrap_or_else(|| work.timeout(by_size));
        (busy_beyond(&work, now, may_take), work)
    }

    fn stuck_one(
        &self,
        id: SessionId,
        processing_for: Duration,
        work: &[Work],
    ) -> Result<Option<StuckSession>> {
        let Some(info) = self.get(id)? else { return Ok(None) };
        let state = &self.db.state;
        let incarnation = state.header().incarnation;
        let busy = work.iter().filter(|work| work.session == id).map(|work| work.processor);
        let waiting_on = busy.filter_map(|it| Some(state.processors.get(it)?.name.into()));
        let attempts = state.processors.attempts_at(id).into_iter();
        let last_error = attempts.filter_map(|(_, attempt)| attempt.error(incarnation)).next_back();
        Ok(Some(StuckSession {
            id,
            user: info.user,
            ended_at: info.state.end().map(|end| end.at),
            agent: info.agent,
            started_at: info.started_at,
            processing_for,
            waiting_on: waiting_on.collect(),
            last_error,
        }))
    }
}

/// The sessions that some work has been going on at for longer than it may, those first that it has been for
/// the longest: since when, and for how long. What goes on with one that was given up counts no more.
fn busy_beyond(
    work: &[Work],
    now: Timestamp,
    may_take: impl Fn(&Work) -> Duration,
) -> Vec<(SessionId, Timestamp, Duration)> {
    let mut seen = BTreeSet::new();
    let beyond = work.iter().filter(|it| {
        it.stake != Stake::None && it.since.until(now) > may_take(it) && seen.insert(it.session)
    });
    beyond.map(|it| (it.session, it.since, it.since.until(now))).collect()
}

/// A processor by its name, be it there or removed.
pub(super) fn number_of(inside: &Inside, name: &str) -> Result<ProcessorId> {
    let all = inside.state.processors.all();
    let found = all.iter().find(|row| *row.name == *name).map(|row| row.number);
    found.ok_or_else(|| Error::unknown("processor", name, all.iter().map(|row| &*row.name)))
}

/// How the last attempt went, if there was one.
fn status_of(attempt: &Attempt, incarnation: u64) -> Option<ProcessorStatus> {
    Some(match attempt.status(incarnation) {
        AttemptStatus::Requeued => return None,
        AttemptStatus::Running { since } => ProcessorStatus::Running { since },
        AttemptStatus::Waiting { next, error } => ProcessorStatus::Retrying { next, error },
        AttemptStatus::Quarantined { at, error } => ProcessorStatus::Quarantined { at, error },
    })
}

/// How an attempt at a session has ended whose processing was given up, if it was.
fn given_up(inside: &Inside, id: SessionId, now: Timestamp) -> Result<Option<ProcessorStatus>> {
    let state = find(inside, id, now)?.map(|found| found.info.state);
    let Some(SessionState::Failed { at, cause, .. }) = state else { return Ok(None) };
    Ok(Some(ProcessorStatus::Quarantined { at, error: format!("the session failed: {cause}") }))
}

pub(super) fn outcome_of(
    inside: &Inside,
    session: SessionId,
    processor: ProcessorId,
) -> Result<Option<ProcessorOutcome>> {
    if session.get() > Outcome::SESSION_MAX {
        return Ok(None);
    }
    let row = inside.row(inside.state.processors.outcomes(), Outcome::key(session, processor))?;
    row.map(|row| decoded(session, &row)).transpose()
}

fn decoded(session: SessionId, row: &[u8]) -> Result<ProcessorOutcome> {
    let outcome = Outcome::decode(row);
    let outcome = outcome.map_err(|e| e.of(format!("an outcome of session {session}")))?;
    let outputs = outcome.outputs.iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
    Ok(ProcessorOutcome {
        session,
        head: outcome.head,
        content_hash: outcome.hash,
        version: outcome.version,
        observed_at: outcome.observed_at,
        committed_at: outcome.committed_at,
        items: outcome.items,
        attempts: outcome.attempts,
        outputs: outputs.collect(),
    })
}
