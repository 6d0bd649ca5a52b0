//! What a processor has tried with a session and is not done with.
//!
//! Knows: how it lies in a page, and when there is to be another attempt. Must not know: what a record does.
//!
//! A row in a page, from the beginning of the first attempt on until one is committed:
//!
//! ```text
//! session varint | processor u8 | user u64 | attempts varint
//! | state u8 (0 begun, 1 begun for the last time, 2 to be tried again, 3 given up, 4 requeued)
//! | begun: at u64 (ns), attempt varint, retry after varint (ns), incarnation varint
//! | to be tried again: next u64 (ns), error    | given up: at u64 (ns), error
//!
//! error: length varint, UTF-8
//! ```
//!
//! In the digest the incarnation of an attempt is left out, as that of a fence is.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{AttemptId, ProcessorId, SessionId, Timestamp, UserId};
use crate::record::{FailAttempt, read_u32};
use crate::table::{Row, Slab, Slot, hash_u64};

/// The attempts of a processor at a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttemptRow {
    pub(super) key: (SessionId, ProcessorId),
    pub(super) user: UserId,
    /// How many there were, the one that is running among them; 0 once it was requeued.
    pub(super) count: u32,
    pub(super) state: State,
}

/// What became of the last attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It began. It may be running, or have ended with its process.
    Started { id: AttemptId, at: Timestamp, incarnation: u64, retry_ns: u64, is_last: bool },
    /// There is to be another one.
    Waiting { next: Timestamp, error: Box<str> },
    /// There is to be no other one.
    Quarantined { at: Timestamp, error: Box<str> },
    /// All is to be as if there had been none, and there is to be one at once.
    Requeued,
}

impl State {
    const fn begun(&self) -> Option<AttemptId> {
        match *self {
            Self::Started { id, .. } => Some(id),
            Self::Waiting { .. } | Self::Quarantined { .. } | Self::Requeued => None,
        }
    }
}

/// The attempts of a processor at a session, to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Whose session it is.
    pub(crate) user: UserId,
    /// How many there were, the one that is running among them.
    pub(crate) count: u32,
    state: State,
}

/// What became of the last attempt, as of an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttemptStatus {
    /// It is running.
    Running { since: Timestamp },
    /// There is to be another one.
    Waiting { next: Timestamp, error: String },
    /// There is to be no other one.
    Quarantined { at: Timestamp, error: String },
    /// There is to be one at once, as if there had been none.
    Requeued,
}

/// What is told of an attempt that ended with its process.
const CRASHED: &str = "the process ended during the attempt";

impl Attempt {
    /// What became of the last attempt: one that began in an earlier incarnation has ended with it.
    pub(crate) fn status(&self, incarnation: u64) -> AttemptStatus {
        match &self.state {
            &State::Started { at, incarnation: began, retry_ns, is_last, .. } => {
                if began == incarnation {
                    return AttemptStatus::Running { since: at };
                }
                let error = CRASHED.to_owned();
                match is_last {
                    true => AttemptStatus::Quarantined { at, error },
                    false => AttemptStatus::Waiting { next: later(at, retry_ns), error },
                }
            }
            State::Waiting { next, error } => {
                AttemptStatus::Waiting { next: *next, error: error.to_string() }
            }
            State::Quarantined { at, error } => {
                AttemptStatus::Quarantined { at: *at, error: error.to_string() }
            }
            State::Requeued => AttemptStatus::Requeued,
        }
    }

    /// What kept the last attempt from succeeding, if it has ended.
    pub(crate) fn error(&self, incarnation: u64) -> Option<String> {
        match self.status(incarnation) {
            AttemptStatus::Waiting { error, .. } | AttemptStatus::Quarantined { error, .. } => {
                Some(error)
            }
            AttemptStatus::Running { .. } | AttemptStatus::Requeued => None,
        }
    }

    /// Which attempt it is that began, and what was said then: after how long it is tried again if it fails, and
    /// whether it is the last one.
    pub(crate) const fn promised(&self) -> Option<(AttemptId, u64, bool)> {
        match self.state {
            State::Started { id, retry_ns, is_last, .. } => Some((id, retry_ns, is_last)),
            State::Waiting { .. } | State::Quarantined { .. } | State::Requeued => None,
        }
    }

    /// Which attempt it is that began, and of which nobody has written down how it ended.
    pub(crate) const fn begun(&self) -> Option<AttemptId> {
        self.state.begun()
    }
}

impl AttemptRow {
    pub(super) fn attempt(&self) -> Attempt {
        Attempt { user: self.user, count: self.count, state: self.state.clone() }
    }

    /// Which attempt began, and has not ended as far as anyone has written down.
    pub(super) const fn begun(&self) -> Option<AttemptId> {
        self.state.begun()
    }

    /// Whether its last attempt is running.
    pub(super) const fn is_running(&self, in_incarnation: u64) -> bool {
        matches!(self.state, State::Started { incarnation, .. } if incarnation == in_incarnation)
    }

    /// Whether there is to be no other attempt.
    pub(super) const fn is_quarantined(&self, in_incarnation: u64) -> bool {
        match self.state {
            State::Started { incarnation, is_last, .. } => is_last && incarnation != in_incarnation,
            State::Waiting { .. } | State::Requeued => false,
            State::Quarantined { .. } => true,
        }
    }

    /// When there is to be another attempt, if the one that began is not running.
    fn due(&self) -> Option<Timestamp> {
        match self.state {
            State::Started { at, retry_ns, is_last: false, .. } => Some(later(at, retry_ns)),
            State::Waiting { next, .. } => Some(next),
            State::Requeued => Some(Timestamp::EPOCH),
            State::Started { .. } | State::Quarantined { .. } => None,
        }
    }

    fn put(&self, out: &mut Vec<u8>, with_incarnation: bool) {
        out.put_varint(self.key.0.get());
        out.put_u8(self.key.1.get());
        out.put_u64(self.user.get());
        out.put_varint(u64::from(self.count));
        match &self.state {
            State::Started { id, at, incarnation, retry_ns, is_last } => {
                out.put_u8(if *is_last { LAST } else { STARTED });
                out.put_u64(at.as_nanos());
                out.put_varint(id.get());
                out.put_varint(*retry_ns);
                if with_incarnation {
                    out.put_varint(*incarnation);
                }
            }
            State::Waiting { next: time, error } | State::Quarantined { at: time, error } => {
                let is_waiting = matches!(self.state, State::Waiting { .. });
                out.put_u8(if is_waiting { WAITING } else { QUARANTINED });
                out.put_u64(time.as_nanos());
                out.put_bytes(error.as_bytes());
            }
            State::Requeued => out.put_u8(REQUEUED),
        }
    }
}

const STARTED: u8 = 0;
const LAST: u8 = 1;
const WAITING: u8 = 2;
const QUARANTINED: u8 = 3;
const REQUEUED: u8 = 4;

fn read_state(reader: &mut Reader<'_>) -> Result<State, DecodeError> {
    let tag = reader.u8()?;
    if tag == REQUEUED {
        return Ok(State::Requeued);
    }
    let at = Timestamp::from_nanos(reader.u64()?);
    let error = |reader: &mut Reader<'_>| {
        let error = reader.str()?;
        match error.len() <= FailAttempt::ERROR_SIZE_BYTES_MAX {
            true => Ok(error.into()),
            false => Err(DecodeError::Malformed("an error that is too long")),
        }
    };
    match tag {
        STARTED | LAST => {
            let id = AttemptId::new(reader.varint()?);
            let (retry_ns, incarnation) = (reader.varint()?, reader.varint()?);
            Ok(State::Started { id, at, incarnation, retry_ns, is_last: tag == LAST })
        }
        WAITING => Ok(State::Waiting { next: at, error: error(reader)? }),
        QUARANTINED => Ok(State::Quarantined { at, error: error(reader)? }),
        _ => Err(DecodeError::Malformed("an attempt in no known state")),
    }
}

fn later(time: Timestamp, by_ns: u64) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos().saturating_add(by_ns))
}

/// What is found without walking all rows; derived from them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AttemptIndex {
    /// When those are due that began, are to be tried again, or were requeued.
    timed: BTreeSet<(ProcessorId, Timestamp, SessionId)>,
    by_session: BTreeSet<(SessionId, ProcessorId)>,
    /// Those that began, and of which nobody has written down how they ended.
    begun: BTreeSet<(SessionId, ProcessorId)>,
    /// How many a processor has given up.
    quarantined: BTreeMap<ProcessorId, u64>,
}

impl AttemptIndex {
    pub(super) fn insert(&mut self, row: &AttemptRow) {
        let (session, processor) = row.key;
        self.by_session.insert(row.key);
        self.timed.extend(row.due().map(|due| (processor, due, session)));
        self.begun.extend(row.begun().map(|_| row.key));
        if let State::Quarantined { .. } = row.state {
            *self.quarantined.entry(processor).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, row: &AttemptRow) {
        let (session, processor) = row.key;
        self.by_session.remove(&row.key);
        row.due().map(|due| self.timed.remove(&(processor, due, session)));
        self.begun.remove(&row.key);
        if let State::Quarantined { .. } = row.state {
            let count = self.quarantined.entry(processor).or_default();
            *count -= 1;
            if *count == 0 {
                self.quarantined.remove(&processor);
            }
        }
    }

    /// Those that began, and of which nobody has written down how they ended.
    pub(super) fn begun(&self) -> impl Iterator<Item = &(SessionId, ProcessorId)> {
        self.begun.iter()
    }

    /// How many sessions a processor has given up.
    pub(super) fn quarantined_len(&self, processor: ProcessorId) -> u64 {
        self.quarantined.get(&processor).copied().unwrap_or_default()
    }

    /// The processors that have tried a session, ascending.
    pub(super) fn of_session(&self, session: SessionId) -> impl Iterator<Item = ProcessorId> {
        let range = (session, ProcessorId::new(0))..=(session, ProcessorId::new(u8::MAX));
        self.by_session.range(range).map(|&(_, processor)| processor)
    }

    /// The sessions that a processor is to try again by a moment, those due first first; those that it is
    /// trying are among them.
    pub(super) fn due_by(
        &self,
        processor: ProcessorId,
        moment: Timestamp,
    ) -> impl Iterator<Item = SessionId> {
        let first = (processor, Timestamp::EPOCH, SessionId::new(0));
        let range = first..=(processor, moment, SessionId::new(u64::MAX));
        self.timed.range(range).map(|&(_, _, session)| session)
    }

    pub(super) fn of_rows(slab: &Slab<AttemptRow>) -> Self {
        let mut index = Self::default();
        slab.iter().for_each(|(_, row)| index.insert(row));
        index
    }
}

impl Row for AttemptRow {
    type Key = (SessionId, ProcessorId);
    type Side = AttemptIndex;

    fn key(&self) -> &Self::Key {
        &self.key
    }

    fn hash(key: &Self::Key) -> u64 {
        hash_u64(key.0.get().rotate_left(8) ^ u64::from(key.1.get()))
    }

    fn encode(&self, _: Slot, _: &AttemptIndex, out: &mut Vec<u8>) {
        self.put(out, true);
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, _: &mut AttemptIndex) -> Result<Self, DecodeError> {
        let key = (SessionId::new(reader.varint()?), ProcessorId::new(reader.u8()?));
        let (user, count) = (UserId::new(reader.u64()?), read_u32(reader)?);
        let state = read_state(reader)?;
        if (count == 0) != matches!(state, State::Requeued) {
            return Err(DecodeError::Malformed("an attempt before the first, or none after it"));
        }
        Ok(Self { key, user, count, state })
    }

    fn canonical(&self, _: Slot, _: &AttemptIndex, _: Timestamp, out: &mut Vec<u8>) {
        self.put(out, false);
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        *slab.side_mut() = AttemptIndex::of_rows(slab);
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        match &self.state {
            State::Started { .. } | State::Requeued => 0,
            State::Waiting { error, .. } | State::Quarantined { error, .. } => error.len(),
        }
    }

    fn side_size_bytes(side: &AttemptIndex) -> usize {
        // A node of a B-tree has room for eleven keys and is two thirds full as a rule.
        let timed = side.timed.len() * size_of::<(ProcessorId, Timestamp, SessionId)>();
        let keys = side.by_session.len() + side.begun.len();
        (timed + keys * size_of::<(SessionId, ProcessorId)>()) * 3 / 2
    }
}
