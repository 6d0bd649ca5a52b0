//! What records of processors do to the state.
//!
//! Knows: what of an attempt is decided by its session, and what a session is told of attempts. Must not
//! know: what a processor does, when a session is over.
//!
//! The lock of sessions is taken before those of processors.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::State;
use super::apply::{Accepted, Frame, Outcome, Reply, decide, time_of};
use super::sessions::at;
use crate::codec::DecodeError;
use crate::ids::{AttemptId, ProcessorId, SessionId, Timestamp, UserId};
use crate::processors::{self, AttemptStatus, Due, ProcessorRow, Verdict};
use crate::record::{
    BeginAttempts, CommitAttempts, FailAttempts, FailSession, FailedBy, Record, ReprocessSessions,
    SignalBatch, WarnSession,
};
use crate::sessions::{
    Awaited, Change, FailCause, Happened, Processed, SessionEvent, Stake, Standing,
};

impl State {
    /// The processors that are there, as sessions know them.
    pub(super) fn awaited(&self) -> Vec<Awaited> {
        let live = self.processors.all().into_iter().filter(|row| !row.removed);
        let of = |row: ProcessorRow| {
            let ProcessorRow { number, version, required, registered_op, registered_at, .. } = row;
            let (processor, is_required) = (number, required);
            Awaited { processor, version, is_required, registered_op, registered_at }
        };
        live.map(of).collect()
    }

    /// Derives what sessions know of processors, once both were restored.
    pub(super) fn restore_processors(&self) -> Result<(), DecodeError> {
        let header = self.header();
        let counts = (header.operations, header.incarnation);
        self.processors.check_restored(counts, header.engine_time)?;
        self.sessions.restore_awaited(self.awaited(), self.processors.last())
    }

    /// Checks what sessions know of processors; the sentence says what is broken.
    pub(super) fn check_processors(&self) -> Result<(), String> {
        self.processors.check()?;
        match self.sessions.awaited() == self.awaited() {
            true => Ok(()),
            false => Err("sessions know of other processors than there are".to_owned()),
        }
    }

    /// Sessions that a processor is to see now, fewest attempts first, then by id: hot ones that want it, and
    /// those that it is to try once more. What a walk through those that had left before its version came
    /// would find is not among them.
    pub(crate) fn pending(
        &self,
        processor: ProcessorId,
        now: Timestamp,
        count_max: usize,
    ) -> Vec<Due> {
        let (incarnation, declared) = (self.header().incarnation, self.declared());
        let is_new = |session| self.processors.attempt(session, processor).is_none();
        let new = self.sessions.wanted_by(processor, count_max, is_new).into_iter();
        // The lock of attempts is held while it is asked which are due, so sessions are asked afterwards.
        let due = self.processors.due(processor, (incarnation, now)).into_iter().filter(|due| {
            let standing = self.sessions.standing(due.session, &declared.schema, now);
            matches!(standing, Standing::Away | Standing::Ended { .. })
        });
        let new = new.map(|session| Due { count: 0, session });
        let mut pending: Vec<Due> = new.chain(due.take(count_max)).collect();
        pending.sort_unstable();
        pending.truncate(count_max);
        pending
    }
}

/// Applies a record of processors that has no signals.
pub(super) fn apply(
    state: &State,
    frame: Frame<'_>,
    record: &Record<'_>,
    happened: &mut Vec<Happened>,
) -> Result<Outcome, DecodeError> {
    let declared = state.declared();
    let at = at(state, &declared, &frame, frame.time, true);
    let operation = at.operation;
    let mut change = state.sessions.change(at, happened);
    Ok(match record {
        Record::RegisterProcessor(new) => {
            change.let_all_leave();
            let registered = state.processors.register(new, (operation, frame.time));
            if let Ok((processor, true)) = registered {
                change.take_up_all_of(processor);
            }
            set_awaited(state, &mut change);
            if let Ok((_, true)) = registered {
                change.lift(new.name);
            }
            registered.map(|(processor, _)| Reply::Registered { processor })
        }
        Record::RemoveProcessor(name) => {
            change.let_all_leave();
            let removed = state.processors.remove(name);
            if let Ok(processor) = removed {
                change.take_up_all_of(processor);
            }
            set_awaited(state, &mut change);
            if removed.is_ok() {
                change.lift(name);
            }
            removed.map(|_| Reply::Applied { duplicates: 0 })
        }
        Record::BeginAttempts(record) => {
            let attempt = AttemptId::new(operation);
            let begun = begin(state, &change, record, (attempt, frame.time))?;
            Ok(Reply::Begun { attempt, begun })
        }
        Record::FailAttempts(record) => {
            Ok(Reply::Decided(fail_attempts(state, &mut change, record, frame.time)?))
        }
        Record::FailSessions(items) => {
            let failed = items.iter().map(|item| fail_session(state, &mut change, item));
            Ok(Reply::Decided(failed.collect()))
        }
        Record::WarnSessions(items) => {
            let warned = items.iter().map(|item| warn(state, &mut change, item));
            Ok(Reply::Decided(warned.collect()))
        }
        Record::RequeueSessions(sessions) => {
            let requeued = sessions.iter().map(|&id| requeue(state, &mut change, id));
            Ok(Reply::Decided(requeued.collect()))
        }
        Record::ReprocessSessions(record) => {
            Ok(Reply::Decided(reprocess(state, &change, record, operation)?))
        }
        _ => unreachable!("other records are not of processors"),
    })
}

/// Sessions know those who are there.
fn set_awaited(state: &State, change: &mut Change<'_>) {
    let awaited = state.awaited();
    if change.awaited() != awaited {
        change.set_awaited(awaited);
    }
}

/// Engine time is about to be set back, to before the last operation; sessions know.
pub(super) fn set_back(state: &State, frame: Frame<'_>, happened: &mut Vec<Happened>) {
    let declared = state.declared();
    state.processors.set_back(frame.time, state.header().operation_time);
    let at = at(state, &declared, &frame, frame.time, false);
    set_awaited(state, &mut state.sessions.change(at, happened));
}

fn begin(
    state: &State,
    change: &Change<'_>,
    record: &BeginAttempts,
    (attempt, now): (AttemptId, Timestamp),
) -> Result<Vec<bool>, DecodeError> {
    let is_there = state.processors.live(record.processor)?.is_some();
    let incarnation = state.header().incarnation;
    let mut begun = Vec::with_capacity(record.items.len());
    for item in &record.items {
        let may_begin = may_be_tried(change, (item.session, item.user), attempt.get())?;
        begun.push(
            is_there
                && may_begin
                && state.processors.begin(record.processor, item, (attempt, incarnation, now)),
        );
    }
    Ok(begun)
}

/// Whether a processor may try a session, as of an operation.
fn may_be_tried(
    change: &Change<'_>,
    (session, of): (SessionId, UserId),
    operation: u64,
) -> Result<bool, DecodeError> {
    let last = (operation - 1).min(processors::Outcome::SESSION_MAX);
    if session.get() > last {
        return Err(DecodeError::Malformed("an attempt at a session that there never was"));
    }
    match change.standing(session) {
        Standing::Away => Ok(true),
        Standing::Ended { user, .. } if user == of => Ok(true),
        Standing::Ended { .. } => {
            Err(DecodeError::Malformed("an attempt at a session of somebody else"))
        }
        Standing::Open | Standing::Failed { .. } => Ok(false),
    }
}

/// A processor is to see sessions again, as if it had never tried them.
fn reprocess(
    state: &State,
    change: &Change<'_>,
    record: &ReprocessSessions,
    operation: u64,
) -> Result<Vec<bool>, DecodeError> {
    let is_there = state.processors.live(record.processor)?.is_some();
    let incarnation = state.header().incarnation;
    let mut again = Vec::with_capacity(record.items.len());
    for &(session, user) in &record.items {
        let may = is_there && may_be_tried(change, (session, user), operation)?;
        again.push(
            may && state.processors.reprocess(record.processor, (session, user), incarnation),
        );
    }
    Ok(again)
}

/// Puts down what a processor has made of sessions, each of them if its attempt is the one that is
/// running; and gives out the signals that are to be counted: with all of the items, or none of them.
pub(super) fn commit<'a>(
    state: &State,
    frame: Frame<'a>,
    time: Timestamp,
    record: &CommitAttempts<'a>,
    happened: &mut Vec<Happened>,
) -> Result<(Outcome, Option<Accepted<'a>>, Timestamp), DecodeError> {
    let header = state.header();
    let live = state.processors.live(record.processor)?;
    let live = live.filter(|row| row.version == record.version);
    if record.through > header.operations {
        return Err(DecodeError::Malformed("sessions that there never were"));
    }
    let batch = record.signals.map(SignalBatch::decode).transpose()?;
    if batch.as_ref().is_some_and(|batch| batch.source.is_some()) {
        return Err(DecodeError::Malformed("signals of a processor from a source"));
    }
    let now = batch.as_ref().map_or(time, |batch| time_of(&header, frame.time, batch));
    let declared = state.declared();
    let at = at(state, &declared, &frame, now, true);
    let mut change = state.sessions.change(at, happened);
    let mut may_commit = may_commit(state, &change, record)?;
    may_commit.iter_mut().for_each(|may| *may &= live.is_some());
    let mut accepted = None;
    if let Some(batch) = batch {
        if !may_commit.iter().all(|&may| may) {
            let refused = vec![false; may_commit.len()];
            return Ok((Ok(Reply::Committed(refused)), None, time));
        }
        let (outcome, counted) = decide(state, now, batch)?;
        if let Err(refusal) = outcome {
            return Ok((Err(refusal), None, time));
        }
        accepted = counted;
    }
    let (processor, version) = (record.processor, record.version);
    for (item, _) in record.items.iter().zip(&may_commit).filter(|(_, may)| **may) {
        state.processors.commit((processor, version), item, now);
        let head = item.head;
        change.processed(item.session, Processed { processor, head, version, given_up: false });
    }
    if live.is_some() {
        let committed = record.items.iter().zip(&may_commit).filter(|(_, may)| **may);
        // No later than now, whatever a record says.
        let seen = committed.map(|(item, _)| item.observed_at.min(now)).max();
        // Where one is fenced somebody came between, perhaps another registration of this version, which
        // has yet to walk there. A walk that is still this one's moves on with what it commits next.
        let through = if may_commit.iter().all(|&may| may) { record.through } else { 0 };
        state.processors.advance(processor, through, seen);
    }
    let time = if accepted.is_some() { now } else { time };
    Ok((Ok(Reply::Committed(may_commit)), accepted, time))
}

/// Of which items the attempt is the one that is running, at a session that has not failed.
fn may_commit(
    state: &State,
    change: &Change<'_>,
    record: &CommitAttempts<'_>,
) -> Result<Vec<bool>, DecodeError> {
    let incarnation = state.header().incarnation;
    let mut seen = BTreeSet::new();
    let mut may_commit = Vec::with_capacity(record.items.len());
    for item in &record.items {
        let attempt = (item.attempt, incarnation);
        let is_running = state.processors.is_running(record.processor, item.session, attempt);
        let is_open = match change.standing(item.session) {
            Standing::Away => true,
            Standing::Ended { head, .. } if item.head <= head => true,
            Standing::Ended { .. } if is_running => {
                return Err(DecodeError::Malformed("a record of a session that there is not yet"));
            }
            Standing::Ended { .. } | Standing::Open | Standing::Failed { .. } => false,
        };
        may_commit.push(is_running && is_open && seen.insert(item.session));
    }
    Ok(may_commit)
}

fn fail_attempts(
    state: &State,
    change: &mut Change<'_>,
    record: &FailAttempts<'_>,
    now: Timestamp,
) -> Result<Vec<bool>, DecodeError> {
    let Some(row) = state.processors.live(record.processor)? else {
        return Ok(vec![false; record.items.len()]);
    };
    let mut failed = Vec::with_capacity(record.items.len());
    for item in &record.items {
        let id = item.session;
        let verdict = match change.standing(id) {
            Standing::Away | Standing::Ended { .. } => state.processors.fail(row.number, item, now),
            Standing::Open | Standing::Failed { .. } => Verdict::Fenced,
        };
        failed.push(verdict != Verdict::Fenced);
        let (processor, error) = (row.name.to_string(), item.error.to_owned());
        match verdict {
            Verdict::Fenced => {}
            Verdict::Again { user, count: attempt } => {
                change.tell(user, SessionEvent::ProcessorFailed { id, processor, attempt, error });
            }
            Verdict::Quarantined { user } => {
                let is_required = change.requires(id, row.number);
                let quarantined = SessionEvent::Quarantined { id, processor, error };
                change.tell(user, quarantined);
                if is_required {
                    let processor = row.name.to_string();
                    change.fail(id, FailCause::Quarantined { processor });
                } else {
                    let (processor, version) = (row.number, row.version);
                    change.processed(id, Processed { processor, head: 0, version, given_up: true });
                }
            }
        }
    }
    Ok(failed)
}

fn fail_session(state: &State, change: &mut Change<'_>, item: &FailSession<'_>) -> bool {
    // Time gives up what a session waits for, an operator whatever is going on.
    let is_meant = |processor| match item.by {
        FailedBy::Timeout { .. } => change.stake(item.session, processor) == Stake::Awaited,
        FailedBy::Operator { .. } => true,
    };
    let is_so = item.busy_since.is_none_or(|since| is_busy(state, (item.session, since), is_meant));
    let cause = match item.by {
        FailedBy::Timeout { after_ns, automatic } => {
            let after = std::time::Duration::from_nanos(after_ns);
            FailCause::TimedOut { after, automatic }
        }
        FailedBy::Operator { by, reason } => {
            FailCause::Reset { by: by.to_owned(), reason: reason.to_owned() }
        }
    };
    is_so && change.fail(item.session, cause)
}

/// Whether an attempt at a session is running that began then, of those processors that are meant.
fn is_busy(
    state: &State,
    (id, since): (SessionId, Timestamp),
    is_meant: impl Fn(ProcessorId) -> bool,
) -> bool {
    let running = AttemptStatus::Running { since };
    let incarnation = state.header().incarnation;
    let mut attempts = state.processors.attempts_at(id).into_iter();
    attempts
        .any(|(processor, attempt)| attempt.status(incarnation) == running && is_meant(processor))
}

/// Tells that a session is processed for long, if it still is. Changes nothing.
fn warn(state: &State, change: &mut Change<'_>, item: &WarnSession) -> bool {
    let &WarnSession { session: id, busy_since, level, busy_for_ns } = item;
    let is_given_up = matches!(change.standing(id), Standing::Open | Standing::Failed { .. });
    let attempts = state.processors.attempts_at(id);
    let is_so = is_busy(state, (id, busy_since), |_| true);
    let Some((_, attempt)) = attempts.first().filter(|_| is_so && !is_given_up) else {
        return false;
    };
    let busy_for = std::time::Duration::from_nanos(busy_for_ns);
    change.tell(attempt.user, SessionEvent::Warned { id, level, busy_for });
    true
}

fn requeue(state: &State, change: &mut Change<'_>, id: SessionId) -> bool {
    let incarnation = state.header().incarnation;
    let standing = change.standing(id);
    let had_failed = matches!(standing, Standing::Failed { .. });
    let user = state.processors.requeue(id, incarnation, had_failed);
    change.take_up(id);
    if had_failed {
        return change.requeue(id);
    }
    // One that has left is known here by what was tried alone.
    user.iter().for_each(|&user| change.tell(user, SessionEvent::Requeued { id }));
    user.is_some()
}
