//! What the log says: the body of every frame.
//!
//! Knows: records and their bytes. Must not know: frames, tables, what applying a record does.
//!
//! One frame carries one record; its kind is the frame's kind byte. A batch of signals:
//!
//! ```text
//! flags u8: 1 from a source, 2 the source is contiguous, 4 some event has an id
//! [source name: length varint, UTF-8 | first u64 | last u64]
//! cohort names: count varint | (length varint, UTF-8) each
//! latest event time u64 (ns) | events: count varint | events
//!
//! event: tag u8: 1 user, 2 weight, 4 cohorts, 8 event id, high four bits the signal (15: varint follows)
//!        entity u64 | time zig-zag varint, ns after the event before, the first after the latest | [user u64] | [weight f64, else 1]
//!        | [cohorts: count varint | index varint each] | [event id u128]
//! ```

mod collections;
mod cursors;
mod jobs;
mod processors;
mod sessions;
#[cfg(test)]
mod tests;

pub use collections::Visibility;
pub(crate) use collections::{
    CollectionEdit, Edit, NewCollection, are_distinct, put_items, read_items,
};
pub(crate) use cursors::{AckCursor, RegisterCursor};
pub use cursors::{EventFilter, EventKind};
pub use jobs::JobOutcome;
pub(crate) use jobs::{JobRan, JobRun};
pub(crate) use processors::{
    BeginAttempt, BeginAttempts, CommitAttempt, CommitAttempts, FailAttempt, FailAttempts,
    FailSession, FailedBy, OutputRow, RegisterProcessor, ReprocessSessions, WarnSession,
};
pub(crate) use processors::{put_outputs, read_outputs, read_u32};
pub(crate) use sessions::{
    Annotate, Conflict, EndSession, EndedBy, PruneSession, SessionSignal, StartSession, Touch,
};

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{CollectionId, EntityId, SessionId, SignalTypeId, Timestamp, UserId};
use crate::options::OpenPolicy;

/// The kind byte of a frame. Numbers are on disk: never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    Signals = 1,
    Schema = 2,
    WriteUser = 3,
    WriteItem = 4,
    DeleteItem = 5,
    HideItem = 6,
    ShowItem = 7,
    Intern = 8,
    ResetClock = 9,
    CreateCollection = 10,
    DeleteCollection = 11,
    ChangeCollection = 12,
    StartSession = 13,
    SessionSignal = 14,
    Annotate = 15,
    Touch = 16,
    EndSession = 17,
    LateSignal = 18,
    PruneSession = 19,
    EndAllSessions = 20,
    RegisterCursor = 21,
    AckCursor = 22,
    RemoveCursor = 23,
    RegisterProcessor = 24,
    RemoveProcessor = 25,
    BeginAttempts = 26,
    CommitAttempts = 27,
    FailAttempts = 28,
    FailSessions = 29,
    RequeueSessions = 30,
    WarnSessions = 31,
    ReprocessSessions = 32,
    /// Control: a process opened the database.
    Opened = 128,
    /// Control: everything before is synced.
    Mark = 129,
    /// Control: somebody else holds a session from here on.
    ResumeSession = 130,
    /// Control: sessions whose time is over are written down as ended.
    Sweep = 131,
    /// Control: runs of processors are written down.
    JobsRan = 132,
}

impl RecordKind {
    const ALL: [Self; 37] = [
        Self::Signals,
        Self::Schema,
        Self::WriteUser,
        Self::WriteItem,
        Self::DeleteItem,
        Self::HideItem,
        Self::ShowItem,
        Self::Intern,
        Self::ResetClock,
        Self::CreateCollection,
        Self::DeleteCollection,
        Self::ChangeCollection,
        Self::StartSession,
        Self::SessionSignal,
        Self::Annotate,
        Self::Touch,
        Self::EndSession,
        Self::LateSignal,
        Self::PruneSession,
        Self::EndAllSessions,
        Self::RegisterCursor,
        Self::AckCursor,
        Self::RemoveCursor,
        Self::RegisterProcessor,
        Self::RemoveProcessor,
        Self::BeginAttempts,
        Self::CommitAttempts,
        Self::FailAttempts,
        Self::FailSessions,
        Self::RequeueSessions,
        Self::WarnSessions,
        Self::ReprocessSessions,
        Self::Opened,
        Self::Mark,
        Self::ResumeSession,
        Self::Sweep,
        Self::JobsRan,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == byte)
    }

    /// Whether frames of this kind are the engine's own, and no operation of a caller.
    pub(crate) const fn is_control(self) -> bool {
        self as u8 >= 128
    }
}

/// Text attributes of a user, or metadata of an item, in key order.
pub(crate) type Attributes = BTreeMap<String, String>;

/// A record, borrowed from a frame's body where it is large.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record<'a> {
    /// A batch of signals.
    Signals(SignalBatch<'a>),
    /// The schema from here on: what `Schema::to_bytes` wrote.
    Schema(&'a [u8]),
    /// A user's attributes, replacing all before.
    WriteUser(UserId, Attributes),
    /// An item's metadata, as `encode_attributes` wrote it, replacing all before.
    WriteItem(EntityId, &'a [u8]),
    /// An item's metadata and cells go.
    DeleteItem(EntityId),
    /// An item leaves every top list.
    HideItem(EntityId),
    /// A hidden item is hidden no more.
    ShowItem(EntityId),
    /// Texts that need an id.
    Intern(Vec<&'a str>),
    /// Engine time becomes this, be it earlier.
    ResetClock(Timestamp),
    /// A collection comes to be; it is named by the number of this operation.
    CreateCollection(NewCollection<'a>),
    /// A collection goes, with all its items.
    DeleteCollection(CollectionId),
    /// A collection changes, and signals count, or neither.
    ChangeCollection(CollectionEdit<'a>),
    /// A session begins; it is named by the number of this operation.
    StartSession(StartSession<'a>),
    /// A signal of an open session, or a late one of a session that has ended.
    SessionSignal(SessionSignal<'a>),
    /// A note of a session.
    Annotate(Annotate<'a>),
    /// A session goes on.
    Touch(Touch),
    /// A session ends.
    EndSession(EndSession<'a>),
    /// What is in a session is forgotten.
    PruneSession(PruneSession<'a>),
    /// Every open session ends, with the database.
    EndAllSessions,
    /// Events are kept for somebody from here on.
    RegisterCursor(RegisterCursor<'a>),
    /// Somebody is done with events.
    AckCursor(AckCursor<'a>),
    /// Nothing is kept for somebody any more.
    RemoveCursor(&'a str),
    /// A processor is there from here on, in a version.
    RegisterProcessor(RegisterProcessor<'a>),
    /// A processor is there no more.
    RemoveProcessor(&'a str),
    /// A processor begins to work on sessions.
    BeginAttempts(BeginAttempts),
    /// A processor is done with sessions.
    CommitAttempts(CommitAttempts<'a>),
    /// A processor could not do its work.
    FailAttempts(FailAttempts<'a>),
    /// Sessions are to fail.
    FailSessions(Vec<FailSession<'a>>),
    /// Sessions are to be processed anew.
    RequeueSessions(Vec<SessionId>),
    /// Somebody is to be told that sessions are processed for long.
    WarnSessions(Vec<WarnSession>),
    /// A processor is to see sessions again, though their content is what it has seen.
    ReprocessSessions(ReprocessSessions),
    /// A session has another holder from here on.
    ResumeSession(SessionId),
    /// Sessions that are over are written down as ended.
    Sweep {
        /// No more than so many, those that are over for longest.
        count_max: u64,
    },
    /// Processors have run.
    JobsRan(Vec<JobRan>),
    /// A process opened the database.
    Opened(Opened),
    /// Everything before is synced.
    Mark,
}

/// What an open establishes, in log order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Counts the opens.
    pub(crate) incarnation: u64,
    /// How long event ids are remembered from here on, in nanoseconds.
    pub(crate) event_id_horizon_ns: u64,
    /// Whether events advance engine time (decided at creation).
    pub(crate) event_time: bool,
    /// What becomes of the sessions that are open.
    pub(crate) sessions: OpenPolicy,
}

/// How an open policy is written; the first is not written at all, as before there were any.
const OPEN_POLICIES: [OpenPolicy; 3] =
    [OpenPolicy::RestoreThenExpire, OpenPolicy::EndAll, OpenPolicy::RestoreAll];

impl Opened {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.incarnation);
        out.put_u64(self.event_id_horizon_ns);
        out.put_u8(u8::from(self.event_time));
        let policy = OPEN_POLICIES.iter().position(|&policy| policy == self.sessions);
        let policy = policy.expect("every policy is in the list");
        if policy > 0 {
            out.put_u8(policy as u8);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (incarnation, event_id_horizon_ns) = (reader.u64()?, reader.u64()?);
        let event_time = reader.u8()? != 0;
        let policy = if reader.remaining() > 0 { reader.u8()? } else { 0 };
        let sessions = *OPEN_POLICIES
            .get(usize::from(policy))
            .ok_or(DecodeError::Malformed("an unknown policy of opening"))?;
        Ok(Self { incarnation, event_id_horizon_ns, event_time, sessions })
    }
}

/// Where a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceRange<'a> {
    pub(crate) name: &'a str,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// No position may be left out.
    pub(crate) contiguous: bool,
}

/// A batch of signals, its events still encoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SignalBatch<'a> {
    pub(crate) source: Option<SourceRange<'a>>,
    pub(crate) cohorts: Vec<&'a str>,
    pub(crate) len: usize,
    /// Whether any event has an id.
    pub(crate) has_ids: bool,
    /// The time of its latest event; no event is later.
    pub(crate) latest: Timestamp,
    events: &'a [u8],
}

/// One event of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SignalEvent {
    pub(crate) signal: SignalTypeId,
    pub(crate) entity: EntityId,
    pub(crate) weight: f64,
    pub(crate) at: Timestamp,
    pub(crate) user: Option<UserId>,
    /// Indices into the batch's cohort names.
    pub(crate) cohorts: SmallVec<[u32; 4]>,
    pub(crate) id: Option<u128>,
}

const FROM_SOURCE: u8 = 1;
const CONTIGUOUS: u8 = 2;
const WITH_IDS: u8 = 4;

const HAS_USER: u8 = 1;
const HAS_WEIGHT: u8 = 2;
const HAS_COHORTS: u8 = 4;
const HAS_ID: u8 = 8;
const SIGNAL_SHIFT: u32 = 4;
const SIGNAL_FOLLOWS: u16 = 15;

/// The fewest bytes an event takes.
const EVENT_SIZE_BYTES_MIN: usize = 10;

/// Encodes a batch event by event.
pub(crate) struct SignalBatchWriter {
    bytes: Vec<u8>,
    previous_ns: u64,
}

impl SignalBatchWriter {
    pub(crate) fn new(
        source: Option<SourceRange<'_>>,
        cohorts: &[impl AsRef<str>],
        latest: Timestamp,
        len: usize,
    ) -> Self {
        let mut bytes = Vec::with_capacity(64 + len * 16);
        let contiguous = source.is_some_and(|source| source.contiguous);
        bytes.put_u8(
            if source.is_some() { FROM_SOURCE } else { 0 }
                | if contiguous { CONTIGUOUS } else { 0 },
        );
        if let Some(source) = source {
            bytes.put_bytes(source.name.as_bytes());
            bytes.put_u64(source.first);
            bytes.put_u64(source.last);
        }
        bytes.put_varint(cohorts.len() as u64);
        for name in cohorts {
            bytes.put_bytes(name.as_ref().as_bytes());
        }
        bytes.put_u64(latest.as_nanos());
        bytes.put_varint(len as u64);
        Self { bytes, previous_ns: latest.as_nanos() }
    }

    /// Appends one of the `len` events; its signal is `signal`, whatever the event says.
    #[inline]
    pub(crate) fn push(&mut self, signal: SignalTypeId, event: &SignalEvent) {
        let out = &mut self.bytes;
        let short = signal.get().min(SIGNAL_FOLLOWS);
        let mut tag = (short as u8) << SIGNAL_SHIFT;
        tag |= if event.user.is_some() { HAS_USER } else { 0 };
        tag |= if event.weight.to_bits() == 1f64.to_bits() { 0 } else { HAS_WEIGHT };
        tag |= if event.cohorts.is_empty() { 0 } else { HAS_COHORTS };
        tag |= if event.id.is_some() { HAS_ID } else { 0 };
        out.put_u8(tag);
        if short == SIGNAL_FOLLOWS {
            out.put_varint(u64::from(signal.get()));
        }
        out.put_u64(event.entity.get());
        // Wrapping on both sides: any two times differ by some i64, modulo 2^64.
        out.put_zigzag(event.at.as_nanos().wrapping_sub(self.previous_ns) as i64);
        self.previous_ns = event.at.as_nanos();
        if let Some(user) = event.user {
            out.put_u64(user.get());
        }
        if tag & HAS_WEIGHT != 0 {
            out.put_f64(event.weight);
        }
        if tag & HAS_COHORTS != 0 {
            out.put_varint(event.cohorts.len() as u64);
            event.cohorts.iter().for_each(|&index| out.put_varint(u64::from(index)));
        }
        if let Some(id) = event.id {
            out.put_u128(id);
            out[0] |= WITH_IDS;
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

impl<'a> SignalBatch<'a> {
    /// The events, in order.
    pub(crate) fn events(&self) -> SignalEvents<'a> {
        SignalEvents {
            reader: Reader::new(self.events),
            left: self.len,
            previous_ns: self.latest.as_nanos(),
            latest: self.latest,
        }
    }

    /// The batch that [`SignalBatchWriter`] wrote.
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        if flags & !(FROM_SOURCE | CONTIGUOUS | WITH_IDS) != 0 {
            return Err(DecodeError::Malformed("unknown flags of a batch"));
        }
        let source = if flags & FROM_SOURCE != 0 {
            Some(SourceRange {
                name: reader.str()?,
                first: reader.u64()?,
                last: reader.u64()?,
                contiguous: flags & CONTIGUOUS != 0,
            })
        } else {
            None
        };
        let cohorts = (0..reader.count(1)?).map(|_| reader.str()).collect::<Result<_, _>>()?;
        let latest = Timestamp::from_nanos(reader.u64()?);
        let len = reader.count(EVENT_SIZE_BYTES_MIN)?;
        let events = reader.take(reader.remaining())?;
        Ok(Self { source, cohorts, len, has_ids: flags & WITH_IDS != 0, latest, events })
    }
}

/// The events of a batch; every item after an error is missing.
#[derive(Debug, Clone)]
pub(crate) struct SignalEvents<'a> {
    reader: Reader<'a>,
    left: usize,
    previous_ns: u64,
    latest: Timestamp,
}

impl SignalEvents<'_> {
    #[inline]
    fn event(&mut self) -> Result<SignalEvent, DecodeError> {
        let reader = &mut self.reader;
        let tag = reader.u8()?;
        let mut signal = u16::from(tag >> SIGNAL_SHIFT);
        if signal == SIGNAL_FOLLOWS {
            signal = u16::try_from(reader.varint()?)
                .map_err(|_| DecodeError::Malformed("a signal beyond 16 bits"))?;
        }
        let entity = EntityId::new(reader.u64()?);
        self.previous_ns = self.previous_ns.wrapping_add(reader.zigzag()? as u64);
        let user = if tag & HAS_USER != 0 { Some(UserId::new(reader.u64()?)) } else { None };
        let weight = if tag & HAS_WEIGHT != 0 { reader.f64()? } else { 1.0 };
        let mut cohorts = SmallVec::new();
        if tag & HAS_COHORTS != 0 {
            for _ in 0..reader.count(1)? {
                let index = reader.varint()?;
                cohorts.push(
                    u32::try_from(index)
                        .map_err(|_| DecodeError::Malformed("a cohort index beyond 32 bits"))?,
                );
            }
        }
        let id = if tag & HAS_ID != 0 { Some(reader.u128()?) } else { None };
        let at = Timestamp::from_nanos(self.previous_ns);
        if at > self.latest {
            return Err(DecodeError::Malformed("an event later than its batch's latest"));
        }
        Ok(SignalEvent { signal: SignalTypeId::new(signal), entity, weight, at, user, cohorts, id })
    }
}

impl Iterator for SignalEvents<'_> {
    type Item = Result<SignalEvent, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let end = self.reader.end();
            self.reader = Reader::new(&[]);
            return end.err().map(Err);
        }
        self.left -= 1;
        let event = self.event();
        if event.is_err() {
            self.left = 0;
            self.reader = Reader::new(&[]);
        }
        Some(event)
    }
}

impl<'a> Record<'a> {
    pub(crate) const fn kind(&self) -> RecordKind {
        match self {
            Self::Signals(_) => RecordKind::Signals,
            Self::Schema(_) => RecordKind::Schema,
            Self::WriteUser(..) => RecordKind::WriteUser,
            Self::WriteItem(..) => RecordKind::WriteItem,
            Self::DeleteItem(_) => RecordKind::DeleteItem,
            Self::HideItem(_) => RecordKind::HideItem,
            Self::ShowItem(_) => RecordKind::ShowItem,
            Self::Intern(_) => RecordKind::Intern,
            Self::ResetClock(_) => RecordKind::ResetClock,
            Self::CreateCollection(_) => RecordKind::CreateCollection,
            Self::DeleteCollection(_) => RecordKind::DeleteCollection,
            Self::ChangeCollection(_) => RecordKind::ChangeCollection,
            Self::StartSession(_) => RecordKind::StartSession,
            Self::SessionSignal(SessionSignal { fence: Some(_), .. }) => RecordKind::SessionSignal,
            Self::SessionSignal(_) => RecordKind::LateSignal,
            Self::Annotate(_) => RecordKind::Annotate,
            Self::Touch(_) => RecordKind::Touch,
            Self::EndSession(_) => RecordKind::EndSession,
            Self::PruneSession(_) => RecordKind::PruneSession,
            Self::EndAllSessions => RecordKind::EndAllSessions,
            Self::RegisterCursor(_) => RecordKind::RegisterCursor,
            Self::AckCursor(_) => RecordKind::AckCursor,
            Self::RemoveCursor(_) => RecordKind::RemoveCursor,
            Self::RegisterProcessor(_) => RecordKind::RegisterProcessor,
            Self::RemoveProcessor(_) => RecordKind::RemoveProcessor,
            Self::BeginAttempts(_) => RecordKind::BeginAttempts,
            Self::CommitAttempts(_) => RecordKind::CommitAttempts,
            Self::FailAttempts(_) => RecordKind::FailAttempts,
            Self::FailSessions(_) => RecordKind::FailSessions,
            Self::RequeueSessions(_) => RecordKind::RequeueSessions,
            Self::WarnSessions(_) => RecordKind::WarnSessions,
            Self::ReprocessSessions(_) => RecordKind::ReprocessSessions,
            Self::ResumeSession(_) => RecordKind::ResumeSession,
            Self::Sweep { .. } => RecordKind::Sweep,
            Self::JobsRan(_) => RecordKind::JobsRan,
            Self::Opened(_) => RecordKind::Opened,
            Self::Mark => RecordKind::Mark,
        }
    }

    /// The frame body of every record but a batch, which [`SignalBatchWriter`] writes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Signals(_) => unreachable!("batches are written by SignalBatchWriter"),
            Self::Schema(bytes) => out.extend_from_slice(bytes),
            Self::WriteUser(user, attributes) => {
                out.put_u64(user.get());
                out.extend_from_slice(&encode_attributes(attributes));
            }
            Self::WriteItem(item, metadata) => {
                out.put_u64(item.get());
                out.extend_from_slice(metadata);
            }
            Self::DeleteItem(item) | Self::HideItem(item) | Self::ShowItem(item) => {
                out.put_u64(item.get());
            }
            Self::Intern(texts) => {
                out.put_varint(texts.len() as u64);
                texts.iter().for_each(|text| out.put_bytes(text.as_bytes()));
            }
            Self::ResetClock(time) => out.put_u64(time.as_nanos()),
            Self::CreateCollection(new) => new.encode(&mut out),
            Self::DeleteCollection(collection) => out.put_varint(collection.get()),
            Self::ChangeCollection(edit) => edit.encode(&mut out),
            Self::StartSession(new) => new.encode(&mut out),
            Self::SessionSignal(signal) => signal.encode(&mut out),
            Self::Annotate(note) => note.encode(&mut out),
            Self::Touch(touch) => touch.encode(&mut out),
            Self::EndSession(end) => end.encode(&mut out),
            Self::PruneSession(prune) => prune.encode(&mut out),
            Self::RegisterCursor(new) => new.encode(&mut out),
            Self::AckCursor(ack) => ack.encode(&mut out),
            Self::RemoveCursor(name) | Self::RemoveProcessor(name) => {
                out.put_bytes(name.as_bytes());
            }
            Self::RegisterProcessor(new) => new.encode(&mut out),
            Self::BeginAttempts(begin) => begin.encode(&mut out),
            Self::CommitAttempts(commit) => commit.encode(&mut out),
            Self::FailAttempts(fail) => fail.encode(&mut out),
            Self::FailSessions(items) => processors::put_failed(&mut out, items),
            Self::RequeueSessions(ids) => processors::put_sessions(&mut out, ids),
            Self::WarnSessions(items) => processors::put_warnings(&mut out, items),
            Self::ReprocessSessions(record) => record.encode(&mut out),
            Self::ResumeSession(session) => out.put_varint(session.get()),
            Self::Sweep { count_max } => out.put_varint(*count_max),
            Self::JobsRan(rows) => jobs::put_rows(&mut out, rows),
            Self::Opened(opened) => opened.encode(&mut out),
            Self::EndAllSessions | Self::Mark => {}
        }
        out
    }

    /// The record of a frame.
    pub(crate) fn decode(kind: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let kind = RecordKind::of(kind).ok_or(DecodeError::Malformed("an unknown record kind"))?;
        let mut reader = Reader::new(body);
        let record = match kind {
            RecordKind::Signals => return SignalBatch::decode(body).map(Self::Signals),
            RecordKind::Schema => return Ok(Self::Schema(body)),
            RecordKind::WriteUser => {
                let user = UserId::new(reader.u64()?);
                return Ok(Self::WriteUser(
                    user,
                    decode_attributes(reader.take(reader.remaining())?)?,
                ));
            }
            RecordKind::WriteItem => {
                let item = EntityId::new(reader.u64()?);
                return Ok(Self::WriteItem(item, reader.take(reader.remaining())?));
            }
            RecordKind::DeleteItem => Self::DeleteItem(EntityId::new(reader.u64()?)),
            RecordKind::HideItem => Self::HideItem(EntityId::new(reader.u64()?)),
            RecordKind::ShowItem => Self::ShowItem(EntityId::new(reader.u64()?)),
            RecordKind::Intern => {
                let count = reader.count(1)?;
                Self::Intern((0..count).map(|_| reader.str()).collect::<Result<_, _>>()?)
            }
            RecordKind::ResetClock => Self::ResetClock(Timestamp::from_nanos(reader.u64()?)),
            RecordKind::CreateCollection => {
                Self::CreateCollection(NewCollection::decode(&mut reader)?)
            }
            RecordKind::DeleteCollection => {
                Self::DeleteCollection(CollectionId::new(reader.varint()?))
            }
            RecordKind::ChangeCollection => {
                Self::ChangeCollection(CollectionEdit::decode(&mut reader)?)
            }
            RecordKind::StartSession => Self::StartSession(StartSession::decode(&mut reader)?),
            RecordKind::SessionSignal => {
                Self::SessionSignal(SessionSignal::decode(&mut reader, false)?)
            }
            RecordKind::LateSignal => {
                Self::SessionSignal(SessionSignal::decode(&mut reader, true)?)
            }
            RecordKind::Annotate => Self::Annotate(Annotate::decode(&mut reader)?),
            RecordKind::Touch => Self::Touch(Touch::decode(&mut reader)?),
            RecordKind::EndSession => Self::EndSession(EndSession::decode(&mut reader)?),
            RecordKind::PruneSession => Self::PruneSession(PruneSession::decode(&mut reader)?),
            RecordKind::EndAllSessions => Self::EndAllSessions,
            RecordKind::RegisterCursor => {
                Self::RegisterCursor(RegisterCursor::decode(&mut reader)?)
            }
            RecordKind::AckCursor => Self::AckCursor(AckCursor::decode(&mut reader)?),
            RecordKind::RemoveCursor => Self::RemoveCursor(reader.str()?),
            RecordKind::RegisterProcessor
            | RecordKind::RemoveProcessor
            | RecordKind::BeginAttempts
            | RecordKind::CommitAttempts
            | RecordKind::FailAttempts
            | RecordKind::FailSessions
            | RecordKind::RequeueSessions
            | RecordKind::WarnSessions
            | RecordKind::ReprocessSessions => processors::read(kind, &mut reader)?,
            RecordKind::ResumeSession => Self::ResumeSession(sessions::read_session(&mut reader)?),
            RecordKind::Sweep => Self::Sweep { count_max: reader.varint()? },
            RecordKind::JobsRan => Self::JobsRan(jobs::read_rows(&mut reader)?),
            RecordKind::Opened => Self::Opened(Opened::decode(&mut reader)?),
            RecordKind::Mark => Self::Mark,
        };
        reader.end()?;
        Ok(record)
    }
}

/// Attributes as bytes: count varint, then key and value, each with a varint length, in key order.
pub(crate) fn encode_attributes(attributes: &Attributes) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(attributes.len() as u64);
    for (key, value) in attributes {
        out.put_bytes(key.as_bytes());
        out.put_bytes(value.as_bytes());
    }
    out
}

/// What [`encode_attributes`] wrote.
pub(crate) fn decode_attributes(bytes: &[u8]) -> Result<Attributes, DecodeError> {
    let mut reader = Reader::new(bytes);
    let count = reader.count(2)?;
    let mut attributes = Attributes::new();
    for _ in 0..count {
        attributes.insert(reader.str()?.to_owned(), reader.str()?.to_owned());
    }
    reader.end()?;
    if attributes.len() == count {
        Ok(attributes)
    } else {
        Err(DecodeError::Malformed("a key twice"))
    }
}
