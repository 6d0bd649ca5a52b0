//! What the log says of those who process sessions.
//!
//! Knows: records and their bytes. Must not know: who is processed, and whether an attempt counts.
//!
//! ```text
//! register (24)         name: length varint, UTF-8 | version varint | required u8 (0 or 1)
//! remove (25)           name
//! begin attempts (26)   processor u8 | items: count varint, each
//!                         session | user u64 | attempts before varint | retry after varint (ns) | last u8
//! commit attempts (27)  processor u8 | version varint | through varint | items: count varint, each
//!                         session | attempt varint | head varint | content hash 32 | items varint
//!                         | observed u64 (ns) | outputs: count varint, each: key, value, with lengths
//!                       | signals: a batch, to the end, or nothing
//! fail attempts (28)    processor u8 | items: count varint, each
//!                         session | attempt varint | next u64 (ns) | last u8 | error: length varint, UTF-8
//! fail sessions (29)    items: count varint, each
//!                         session | flags u8 (1 busy since) | [busy since u64 (ns)]
//!                         | cause u8 (0 timed out, 1 reset by an operator)
//!                         | (after varint (ns), automatic u8), or by and reason, with lengths
//! requeue (30)          sessions: count varint, each
//! warn sessions (31)    items: count varint, each
//!                         session | busy since u64 (ns) | level u8, from 1 on | busy for varint (ns)
//! reprocess (32)        processor u8 | items: count varint, each: session | user u64
//!
//! session: varint
//! ```
//!
//! A frame carries many items, and each is decided by itself. What the times of attempts follow from is
//! here and not in options, so that a replay decides the same.

use super::sessions::read_session;
use super::{Record, RecordKind};
use crate::codec::{DecodeError, Hash, Put, Reader};
use crate::ids::{AttemptId, ProcessorId, SessionId, Timestamp, UserId};

/// A processor that is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegisterProcessor<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: u32,
    /// Sessions wait for it before they settle.
    pub(crate) required: bool,
}

/// A processor begins to work on sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BeginAttempts {
    pub(crate) processor: ProcessorId,
    pub(crate) items: Vec<BeginAttempt>,
}

/// One session that work begins on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BeginAttempt {
    pub(crate) session: SessionId,
    /// Whose session it is.
    pub(crate) user: UserId,
    /// How many attempts there were before; with another number it does not begin.
    pub(crate) count: u32,
    /// If the process ends during the attempt, it is tried again so long after its beginning.
    pub(crate) retry_ns: u64,
    /// There will be no other one.
    pub(crate) is_last: bool,
}

/// A row that a processor made of a session.
pub(crate) type OutputRow<'a> = (&'a [u8], &'a [u8]);

/// A processor is done with sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitAttempts<'a> {
    pub(crate) processor: ProcessorId,
    pub(crate) version: u32,
    /// It has walked through the sessions that had left before its version came, up to this one.
    pub(crate) through: u64,
    pub(crate) items: Vec<CommitAttempt<'a>>,
    /// Signals that follow from the items. Where there are some, nothing of the record takes place unless
    /// all of the items are committed and the signals are counted. A batch as
    /// [`SignalBatchWriter`](super::SignalBatchWriter) wrote it.
    pub(crate) signals: Option<&'a [u8]>,
}

/// One session that a processor is done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommitAttempt<'a> {
    pub(crate) session: SessionId,
    /// Which attempt it was.
    pub(crate) attempt: AttemptId,
    /// The newest record of the session that was seen, or 0.
    pub(crate) head: u64,
    /// The content of the session that was seen.
    pub(crate) hash: Hash,
    /// How many records were seen.
    pub(crate) items: u64,
    /// When they were seen.
    pub(crate) observed_at: Timestamp,
    /// What was made of them, by ascending key.
    pub(crate) outputs: Vec<OutputRow<'a>>,
}

/// A processor could not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailAttempts<'a> {
    pub(crate) processor: ProcessorId,
    pub(crate) items: Vec<FailAttempt<'a>>,
}

/// One session that a processor could not work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailAttempt<'a> {
    pub(crate) session: SessionId,
    /// Which attempt it was.
    pub(crate) attempt: AttemptId,
    /// When there is to be another one.
    pub(crate) next: Timestamp,
    /// There is to be no other one.
    pub(crate) is_last: bool,
    pub(crate) error: &'a str,
}

/// A processor is to see sessions again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReprocessSessions {
    pub(crate) processor: ProcessorId,
    /// The sessions, and whose they are.
    pub(crate) items: Vec<(SessionId, UserId)>,
}

/// A session that is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailSession<'a> {
    pub(crate) session: SessionId,
    /// The beginning of its oldest attempt that is running; with another one it does not fail.
    pub(crate) busy_since: Option<Timestamp>,
    pub(crate) by: FailedBy<'a>,
}

/// Why a session is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailedBy<'a> {
    /// Processing takes too long.
    Timeout { after_ns: u64, automatic: bool },
    /// An operator gives it up.
    Operator { by: &'a str, reason: &'a str },
}

/// A session that is processed for long, of which somebody is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WarnSession {
    pub(crate) session: SessionId,
    /// The beginning of its oldest attempt that is running; with another one nothing is told.
    pub(crate) busy_since: Timestamp,
    /// Which level of warnings it is, from 1 on.
    pub(crate) level: u8,
    /// For how long it had been busy when this was found.
    pub(crate) busy_for_ns: u64,
}

impl RegisterProcessor<'_> {
    /// No name is longer, in bytes.
    pub(crate) const NAME_SIZE_BYTES_MAX: usize = 64;
}

impl FailAttempt<'_> {
    /// No error is longer, in bytes.
    pub(crate) const ERROR_SIZE_BYTES_MAX: usize = 512;
}

impl CommitAttempt<'_> {
    /// No key of an output is longer, in bytes.
    pub(crate) const KEY_SIZE_BYTES_MAX: usize = 256;
}

const BUSY: u8 = 1;

/// What a reader of one of these records does.
pub(super) fn read<'a>(
    kind: RecordKind,
    reader: &mut Reader<'a>,
) -> Result<Record<'a>, DecodeError> {
    Ok(match kind {
        RecordKind::RegisterProcessor => {
            Record::RegisterProcessor(RegisterProcessor::decode(reader)?)
        }
        RecordKind::RemoveProcessor => Record::RemoveProcessor(reader.str()?),
        RecordKind::BeginAttempts => Record::BeginAttempts(BeginAttempts::decode(reader)?),
        RecordKind::CommitAttempts => Record::CommitAttempts(CommitAttempts::decode(reader)?),
        RecordKind::FailAttempts => Record::FailAttempts(FailAttempts::decode(reader)?),
        RecordKind::FailSessions => {
            Record::FailSessions(read_items(reader, 4, FailSession::decode)?)
        }
        RecordKind::RequeueSessions => {
            Record::RequeueSessions(read_items(reader, 1, read_session)?)
        }
        RecordKind::WarnSessions => {
            Record::WarnSessions(read_items(reader, 11, WarnSession::decode)?)
        }
        RecordKind::ReprocessSessions => {
            Record::ReprocessSessions(ReprocessSessions::decode(reader)?)
        }
        _ => unreachable!("other records are not of processors"),
    })
}

fn read_items<'a, T>(
    reader: &mut Reader<'a>,
    min_size_bytes: usize,
    read: impl Fn(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    (0..reader.count(min_size_bytes)?).map(|_| read(reader)).collect()
}

/// A number below 2^32.
pub(crate) fn read_u32(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    u32::try_from(reader.varint()?).map_err(|_| DecodeError::Malformed("a number beyond 32 bits"))
}

fn read_bool(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("neither yes nor no")),
    }
}

fn read_processor(reader: &mut Reader<'_>) -> Result<ProcessorId, DecodeError> {
    reader.u8().map(ProcessorId::new)
}

pub(super) fn put_sessions(out: &mut Vec<u8>, sessions: &[SessionId]) {
    out.put_varint(sessions.len() as u64);
    sessions.iter().for_each(|session| out.put_varint(session.get()));
}

pub(super) fn put_failed(out: &mut Vec<u8>, items: &[FailSession<'_>]) {
    out.put_varint(items.len() as u64);
    items.iter().for_each(|item| item.encode(out));
}

pub(super) fn put_warnings(out: &mut Vec<u8>, items: &[WarnSession]) {
    out.put_varint(items.len() as u64);
    items.iter().for_each(|item| item.encode(out));
}

impl WarnSession {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.session.get());
        out.put_u64(self.busy_since.as_nanos());
        out.put_u8(self.level);
        out.put_varint(self.busy_for_ns);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let session = read_session(reader)?;
        let busy_since = Timestamp::from_nanos(reader.u64()?);
        let (level, busy_for_ns) = (reader.u8()?, reader.varint()?);
        match level {
            0 => Err(DecodeError::Malformed("a warning of no level")),
            _ => Ok(Self { session, busy_since, level, busy_for_ns }),
        }
    }
}

impl<'a> RegisterProcessor<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.name.as_bytes());
        out.put_varint(u64::from(self.version));
        out.put_u8(u8::from(self.required));
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let name = reader.str()?;
        if name.is_empty() || name.len() > Self::NAME_SIZE_BYTES_MAX {
            return Err(DecodeError::Malformed("a processor without a name, or with a long one"));
        }
        Ok(Self { name, version: read_u32(reader)?, required: read_bool(reader)? })
    }
}

impl BeginAttempts {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.processor.get());
        out.put_varint(self.items.len() as u64);
        for item in &self.items {
            out.put_varint(item.session.get());
            out.put_u64(item.user.get());
            out.put_varint(u64::from(item.count));
            out.put_varint(item.retry_ns);
            out.put_u8(u8::from(item.is_last));
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let processor = read_processor(reader)?;
        let items = read_items(reader, 12, |reader| {
            let (session, user) = (read_session(reader)?, UserId::new(reader.u64()?));
            let (count, retry_ns) = (read_u32(reader)?, reader.varint()?);
            Ok(BeginAttempt { session, user, count, retry_ns, is_last: read_bool(reader)? })
        })?;
        Ok(Self { processor, items })
    }
}

impl<'a> CommitAttempts<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.processor.get());
        out.put_varint(u64::from(self.version));
        out.put_varint(self.through);
        out.put_varint(self.items.len() as u64);
        self.items.iter().for_each(|item| item.encode(out));
        out.extend_from_slice(self.signals.unwrap_or_default());
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (processor, version) = (read_processor(reader)?, read_u32(reader)?);
        let through = reader.varint()?;
        let items = read_items(reader, 45, CommitAttempt::decode)?;
        let rest = reader.take(reader.remaining())?;
        let signals = (!rest.is_empty()).then_some(rest);
        Ok(Self { processor, version, through, items, signals })
    }
}

impl<'a> CommitAttempt<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.session.get());
        out.put_varint(self.attempt.get());
        out.put_varint(self.head);
        out.extend_from_slice(&self.hash);
        out.put_varint(self.items);
        out.put_u64(self.observed_at.as_nanos());
        put_outputs(out, &self.outputs);
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            session: read_session(reader)?,
            attempt: AttemptId::new(reader.varint()?),
            head: reader.varint()?,
            hash: reader.array()?,
            items: reader.varint()?,
            observed_at: Timestamp::from_nanos(reader.u64()?),
            outputs: read_outputs(reader)?,
        })
    }
}

/// Outputs as they lie in the log and in a table: count varint, each key and value with its length.
pub(crate) fn put_outputs(out: &mut Vec<u8>, outputs: &[OutputRow<'_>]) {
    out.put_varint(outputs.len() as u64);
    for (key, value) in outputs {
        out.put_bytes(key);
        out.put_bytes(value);
    }
}

/// The outputs that [`put_outputs`] put.
pub(crate) fn read_outputs<'a>(reader: &mut Reader<'a>) -> Result<Vec<OutputRow<'a>>, DecodeError> {
    let outputs = read_items(reader, 3, |reader| Ok((reader.bytes()?, reader.bytes()?)))?;
    let sizes = 1..=CommitAttempt::KEY_SIZE_BYTES_MAX;
    if outputs.iter().any(|(key, _): &OutputRow<'_>| !sizes.contains(&key.len())) {
        return Err(DecodeError::Malformed("an output without a key, or with a long one"));
    }
    if !outputs.is_sorted_by(|(left, _), (right, _)| left < right) {
        return Err(DecodeError::Malformed("outputs out of order"));
    }
    Ok(outputs)
}

impl<'a> FailAttempts<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.processor.get());
        out.put_varint(self.items.len() as u64);
        for item in &self.items {
            out.put_varint(item.session.get());
            out.put_varint(item.attempt.get());
            out.put_u64(item.next.as_nanos());
            out.put_u8(u8::from(item.is_last));
            out.put_bytes(item.error.as_bytes());
        }
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let processor = read_processor(reader)?;
        let items = read_items(reader, 12, |reader| {
            let (session, attempt) = (read_session(reader)?, AttemptId::new(reader.varint()?));
            let next = Timestamp::from_nanos(reader.u64()?);
            let (is_last, error) = (read_bool(reader)?, reader.str()?);
            if error.len() > FailAttempt::ERROR_SIZE_BYTES_MAX {
                return Err(DecodeError::Malformed("an error that is too long"));
            }
            Ok(FailAttempt { session, attempt, next, is_last, error })
        })?;
        Ok(Self { processor, items })
    }
}

impl ReprocessSessions {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.processor.get());
        out.put_varint(self.items.len() as u64);
        for (session, user) in &self.items {
            out.put_varint(session.get());
            out.put_u64(user.get());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let processor = read_processor(reader)?;
        let items = read_items(reader, 9, |reader| {
            Ok((read_session(reader)?, UserId::new(reader.u64()?)))
        })?;
        Ok(Self { processor, items })
    }
}

impl<'a> FailSession<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.session.get());
        out.put_u8(if self.busy_since.is_some() { BUSY } else { 0 });
        self.busy_since.iter().for_each(|since| out.put_u64(since.as_nanos()));
        match self.by {
            FailedBy::Timeout { after_ns, automatic } => {
                out.put_u8(0);
                out.put_varint(after_ns);
                out.put_u8(u8::from(automatic));
            }
            FailedBy::Operator { by, reason } => {
                out.put_u8(1);
                out.put_bytes(by.as_bytes());
                out.put_bytes(reason.as_bytes());
            }
        }
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (session, flags) = (read_session(reader)?, reader.u8()?);
        let busy_since = match flags {
            0 => None,
            BUSY => Some(Timestamp::from_nanos(reader.u64()?)),
            _ => return Err(DecodeError::Malformed("unknown flags of a failure")),
        };
        let by = match reader.u8()? {
            0 => FailedBy::Timeout { after_ns: reader.varint()?, automatic: read_bool(reader)? },
            1 => FailedBy::Operator { by: reader.str()?, reason: reader.str()? },
            _ => return Err(DecodeError::Malformed("a failure without a known cause")),
        };
        Ok(Self { session, busy_since, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn comes_back(record: &Record<'_>) {
        let (kind, bytes) = (record.kind() as u8, record.encode());
        assert_eq!(Record::decode(kind, &bytes).as_ref(), Ok(record));
        for len in 0..bytes.len() {
            // Cut short it is another record or none, and never a panic.
            let _ = Record::decode(kind, &bytes[..len]);
        }
        if !matches!(record, Record::CommitAttempts(_)) {
            assert!(Record::decode(kind, &[&bytes[..], &[0]].concat()).is_err());
        }
    }

    proptest! {
        #[test]
        fn records_of_processors_come_back(
            numbers: [u64; 4], small: [u32; 2], flag: bool, name in "[a-z]{1,64}", hash: [u8; 32],
            rows in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..20), any::<Vec<u8>>(), 0..5),
            error in ".{0,99}", signals: Option<[u8; 7]>, number: u8,
        ) {
            let [session, user, head, ns] = numbers;
            let [count, version] = small;
            let attempt = AttemptId::new(user);
            let (session, at) = (SessionId::new(session), Timestamp::from_nanos(ns));
            let (processor, user) = (ProcessorId::new(number), UserId::new(user));
            comes_back(&Record::RegisterProcessor(RegisterProcessor { name: &name, version, required: flag }));
            comes_back(&Record::RemoveProcessor(&name));
            let begin = BeginAttempt { session, user, count, retry_ns: ns, is_last: flag };
            comes_back(&Record::BeginAttempts(BeginAttempts { processor, items: vec![begin; 3] }));
            let outputs = rows.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            let commit = CommitAttempt { session, attempt, head, hash, items: head, observed_at: at, outputs };
            let signals = signals.as_ref().map(|bytes| &bytes[..]);
            let items = vec![commit; 2];
            let commit = CommitAttempts { processor, version, through: head, items, signals };
            comes_back(&Record::CommitAttempts(commit));
            let fail = FailAttempt { session, attempt, next: at, is_last: flag, error: &error };
            comes_back(&Record::FailAttempts(FailAttempts { processor, items: vec![fail; 2] }));
            let by = [
                FailedBy::Timeout { after_ns: ns, automatic: flag },
                FailedBy::Operator { by: &name, reason: &error },
            ];
            let fail = |by| FailSession { session, busy_since: flag.then_some(at), by };
            comes_back(&Record::FailSessions(by.map(fail).into()));
            comes_back(&Record::RequeueSessions(vec![session; 3]));
            let level = number.max(1);
            let warn = WarnSession { session, busy_since: at, level, busy_for_ns: head };
            comes_back(&Record::WarnSessions(vec![warn; 2]));
            let items = vec![(session, user); 3];
            comes_back(&Record::ReprocessSessions(ReprocessSessions { processor, items }));
        }
    }

    #[test]
    fn records_beyond_their_limits_are_malformed() {
        let refused = |record: Record<'_>| {
            let (kind, bytes) = (record.kind() as u8, record.encode());
            assert!(Record::decode(kind, &bytes).is_err(), "{record:?}");
        };
        let long = "x".repeat(600);
        for name in ["", &long[..65]] {
            refused(Record::RegisterProcessor(RegisterProcessor {
                name,
                version: 1,
                required: true,
            }));
        }
        let (processor, session) = (ProcessorId::new(1), SessionId::new(1));
        let next = Timestamp::EPOCH;
        let attempt = AttemptId::new(1);
        let fail = FailAttempt { session, attempt, next, is_last: false, error: &long[..513] };
        refused(Record::FailAttempts(FailAttempts { processor, items: vec![fail] }));
        let busy_since = next;
        let warn = WarnSession { session, busy_since, level: 0, busy_for_ns: 0 };
        refused(Record::WarnSessions(vec![warn]));
        let row = |key: &'static [u8]| (key, &b"value"[..]);
        let long_key: &'static [u8] = &[7; 257];
        let bad = [
            vec![row(b"")],
            vec![row(long_key)],
            vec![row(b"b"), row(b"a")],
            vec![row(b"a"), row(b"a")],
        ];
        for outputs in bad {
            let (head, items) = (0, 0);
            let (hash, observed_at) = ([0; 32], Timestamp::EPOCH);
            let item = CommitAttempt { session, attempt, head, hash, items, observed_at, outputs };
            refused(Record::CommitAttempts(CommitAttempts {
                processor,
                version: 1,
                through: 0,
                items: vec![item],
                signals: None,
            }));
        }
    }
}
