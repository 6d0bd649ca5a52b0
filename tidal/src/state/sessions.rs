//! What records of sessions do to the state.
//!
//! Knows: what of a signal is decided by the session, and in which order. Must not know: when a session is
//! over.

use super::apply::{Accepted, Frame, Outcome, Reply, decide, time_of};
use super::{Declared, State};
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::ids::Timestamp;
use crate::options::OpenPolicy;
use crate::record::{Record, SessionSignal, SignalBatch, SignalEvent};
use crate::sessions::{At, Happened, SessionEvent};
use crate::signals::is_countable;

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Swept {
    /// Sessions that were noticed to be over.
    pub(crate) ended: u64,
    /// Sessions that take no late records any more.
    pub(crate) settled: u64,
}

impl Swept {
    fn of(happened: &[Happened]) -> Self {
        let count = |is: fn(&SessionEvent) -> bool| {
            happened.iter().filter(|happened| is(&happened.event)).count() as u64
        };
        Self {
            ended: count(|event| matches!(event, SessionEvent::Ended { .. })),
            settled: count(|event| matches!(event, SessionEvent::Settled { .. })),
        }
    }
}

/// Where a frame stands, for sessions, if time is this.
pub(super) fn at<'a>(
    state: &State,
    declared: &'a Declared,
    frame: &Frame<'_>,
    now: Timestamp,
    is_operation: bool,
) -> At<'a> {
    let header = state.header();
    At {
        seq: frame.seq,
        now,
        operation: header.operations + u64::from(is_operation),
        operation_time: if is_operation { now } else { header.operation_time },
        incarnation: header.incarnation,
        schema: &declared.schema,
    }
}

/// Applies a record of sessions that has no signals.
pub(super) fn apply(
    state: &State,
    frame: Frame<'_>,
    record: &Record<'_>,
    happened: &mut Vec<Happened>,
) -> Result<Outcome, DecodeError> {
    let declared = state.declared();
    let is_operation = !record.kind().is_control();
    let done = Reply::Applied { duplicates: 0 };
    let before = happened.len();
    let at = at(state, &declared, &frame, frame.time, is_operation);
    let mut change = state.sessions.change(at, happened);
    Ok(match record {
        Record::StartSession(new) => {
            if declared.schema.session_policy_at(new.policy).is_none() {
                return Err(DecodeError::Malformed("a policy that the schema does not have"));
            }
            // The next schema would take the place of this one, policies and all.
            if declared.schema.signals().is_empty() {
                return Err(DecodeError::Malformed("a session before there are signals"));
            }
            change.start(new).map(Reply::Started)
        }
        Record::ResumeSession(id) => change.resume(*id).map(Reply::Started),
        Record::Annotate(note) => change.annotate(note).map(|()| done),
        Record::Touch(touch) => change.touch(touch).map(|deadline| Reply::Touched { deadline }),
        Record::EndSession(end) => change.end(end).map(|end| Reply::Ended(Box::new(end))),
        Record::PruneSession(prune) => change.prune(prune)?.map(|()| {
            state.processors.forget(prune.session);
            done
        }),
        Record::EndAllSessions => {
            change.end_all();
            Ok(done)
        }
        Record::Sweep { count_max } => {
            change.sweep(usize::try_from(*count_max).unwrap_or(usize::MAX));
            drop(change);
            Ok(Reply::Swept(Swept::of(&happened[before..])))
        }
        _ => unreachable!("other records are no sessions' own"),
    })
}

/// The database was opened, and its header says so already.
pub(super) fn open(
    state: &State,
    frame: Frame<'_>,
    policy: OpenPolicy,
    happened: &mut Vec<Happened>,
) {
    let declared = state.declared();
    let times = (state.header().engine_time, frame.time);
    let plan = state.sessions.plan_recovery(&declared.schema, times, policy);
    let at = at(state, &declared, &frame, frame.time, false);
    state.sessions.change(at, happened).open_all(plan, policy);
}

/// Engine time is about to be set back to that of the frame.
pub(super) fn set_back(state: &State, frame: Frame<'_>, happened: &mut Vec<Happened>) {
    let declared = state.declared();
    // The last operation is the one before: this one is what sets time back.
    let at = at(state, &declared, &frame, frame.time, false);
    state.sessions.change(at, happened).set_back(frame.time);
}

/// Decides on a signal of a session, writes it down there, and gives out what is to be counted: all of it,
/// or nothing. Engine time may be later afterwards, where events advance it.
pub(super) fn signal<'a>(
    state: &State,
    frame: Frame<'a>,
    time: Timestamp,
    signal: &SessionSignal<'a>,
    happened: &mut Vec<Happened>,
) -> Result<(Outcome, Option<Accepted<'a>>, Timestamp), DecodeError> {
    let (batch, event) = single(signal)?;
    let header = state.header();
    let now = time_of(&header, frame.time, &batch);
    if !is_countable(event.weight, event.at, now) {
        return Err(DecodeError::Malformed("an event that no cell can count"));
    }
    let declared = state.declared();
    if declared.schema.signal(event.signal).is_none() {
        return Err(DecodeError::Malformed("a signal that the schema does not have"));
    }
    let at = at(state, &declared, &frame, now, true);
    let mut change = state.sessions.change(at, happened);
    let admitted = match change.admit(signal) {
        Ok(admitted) => admitted,
        // That a session is over at the time of a signal is believed as much as an accepted signal is:
        // else, where events advance time, it would stay open for want of one. One that is not found was
        // over before, and its row has left: whether it has must not show.
        Err(
            refusal @ (Error::SessionEnded { .. }
            | Error::TooLate { .. }
            | Error::SessionNotFound(_)),
        ) => return Ok((Err(refusal), None, now)),
        Err(refusal) => return Ok((Err(refusal), None, time)),
    };
    if event.user != Some(admitted.user) {
        return Err(DecodeError::Malformed("a signal of a session by somebody else"));
    }
    let horizon_ns = header.event_id_horizon_ns;
    if event.id.is_some_and(|id| state.event_ids.contains(id, now, horizon_ns)) {
        return Ok((Ok(Reply::Applied { duplicates: 1 }), None, time));
    }
    let permit = match change.permit(&admitted, event.signal) {
        Ok(permit) => permit,
        Err(refusal) => return Ok((Err(refusal), None, time)),
    };
    let (outcome, accepted) = decide(state, now, batch)?;
    if outcome.is_ok() {
        change.signal(permit, signal, &event);
    }
    let time = if accepted.is_some() { now } else { time };
    Ok((outcome, accepted.map(|accepted| accepted.of_session(signal.session)), time))
}

/// The one event that a signal of a session has.
fn single<'a>(signal: &SessionSignal<'a>) -> Result<(SignalBatch<'a>, SignalEvent), DecodeError> {
    let batch = SignalBatch::decode(signal.signals)?;
    let mut events = batch.events();
    match (events.next().transpose()?, events.next().transpose()?) {
        (Some(event), None) if batch.source.is_none() => Ok((batch, event)),
        _ => Err(DecodeError::Malformed("a signal of a session that is not one signal")),
    }
}
