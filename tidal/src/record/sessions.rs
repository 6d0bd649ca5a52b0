//! What the log says of sessions.
//!
//! Knows: records and their bytes. Must not know: when a session ends.
//!
//! ```text
//! start:    user u64 | policy varint | conflict u8 (0 end the other, 1 refuse, 2 join) | agent: length varint, UTF-8
//! signal:   flags u8: 1 annotation | session | fence | span varint (ns) | [annotation] | a batch of one event, to the end
//! annotate: session | fence | entity u64 | text: length varint, UTF-8
//! touch:    flags u8: 1 extend | session | fence | [extension varint (ns)]
//! end:      by u8 (0 its holder, 1 an operator) | session | fence, or reason: length varint, UTF-8
//! late:     flags u8: 1 annotation | session | span varint (ns) | [annotation] | a batch of one event, to the end
//! prune:    session | records: count varint | each varint, more than the one before it | row, to the end
//! end all:  nothing
//! resume:   session
//! sweep:    through u64 (ns)
//!
//! session: varint    fence: incarnation varint | grant varint
//! ```
//!
//! Records say what is wanted. What becomes of it follows from the state, the policies of the schema
//! and the time of the frame.

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{EntityId, Fence, SessionId, UserId};

/// What a start does where the lane has an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Conflict {
    /// The other one ends.
    EndPrevious,
    /// The start is refused.
    Reject,
    /// The other one is handed out.
    Join,
}

/// A session that is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StartSession<'a> {
    pub(crate) user: UserId,
    pub(crate) agent: &'a str,
    /// The number of its policy in the schema.
    pub(crate) policy: u16,
    pub(crate) conflict: Conflict,
}

/// A signal of a session: it counts as any other, and is a record of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionSignal<'a> {
    pub(crate) session: SessionId,
    /// Whose it is; a late one, of a session that has ended, is nobody's.
    pub(crate) fence: Option<Fence>,
    /// For how long after its time it went on, in nanoseconds.
    pub(crate) span_ns: u64,
    pub(crate) annotation: Option<&'a str>,
    /// A batch of one event, as [`SignalBatchWriter`](super::SignalBatchWriter) wrote it.
    pub(crate) signals: &'a [u8],
}

/// A note of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Annotate<'a> {
    pub(crate) session: SessionId,
    pub(crate) fence: Fence,
    pub(crate) entity: EntityId,
    pub(crate) text: &'a str,
}

/// A session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Touch {
    pub(crate) session: SessionId,
    pub(crate) fence: Fence,
    /// For how long it shall not be idle, in nanoseconds, whatever its policy says.
    pub(crate) extend_ns: Option<u64>,
}

/// A session is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndSession<'a> {
    pub(crate) session: SessionId,
    pub(crate) by: EndedBy<'a>,
}

/// Who ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy<'a> {
    Holder(Fence),
    Operator { reason: &'a str },
}

/// What is in a session is to be forgotten; what is known of it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PruneSession<'a> {
    pub(crate) session: SessionId,
    /// All of its records, ascending.
    pub(crate) records: Vec<u64>,
    /// What is known of it afterwards, as the table of ended sessions has it.
    pub(crate) row: &'a [u8],
}

const ANNOTATED: u8 = 1;
const EXTENDS: u8 = 1;

fn put_fence(out: &mut Vec<u8>, fence: Fence) {
    out.put_varint(fence.incarnation);
    out.put_varint(fence.grant);
}

fn read_fence(reader: &mut Reader<'_>) -> Result<Fence, DecodeError> {
    Ok(Fence { incarnation: reader.varint()?, grant: reader.varint()? })
}

pub(super) fn read_session(reader: &mut Reader<'_>) -> Result<SessionId, DecodeError> {
    reader.varint().map(SessionId::new)
}

/// A byte of flags, of which only `known` may be set.
fn read_flags(reader: &mut Reader<'_>, known: u8) -> Result<u8, DecodeError> {
    let flags = reader.u8()?;
    if flags & !known == 0 {
        return Ok(flags);
    }
    Err(DecodeError::Malformed("unknown flags of a record of a session"))
}

impl<'a> StartSession<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.user.get());
        out.put_varint(u64::from(self.policy));
        out.put_u8(self.conflict as u8);
        out.put_bytes(self.agent.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let user = UserId::new(reader.u64()?);
        let policy = u16::try_from(reader.varint()?)
            .map_err(|_| DecodeError::Malformed("a policy beyond 16 bits"))?;
        let conflict = match reader.u8()? {
            0 => Conflict::EndPrevious,
            1 => Conflict::Reject,
            2 => Conflict::Join,
            _ => return Err(DecodeError::Malformed("an unknown way out of a conflict")),
        };
        Ok(Self { user, agent: reader.str()?, policy, conflict })
    }
}

impl<'a> SessionSignal<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(if self.annotation.is_some() { ANNOTATED } else { 0 });
        out.put_varint(self.session.get());
        if let Some(fence) = self.fence {
            put_fence(out, fence);
        }
        out.put_varint(self.span_ns);
        if let Some(text) = self.annotation {
            out.put_bytes(text.as_bytes());
        }
        out.extend_from_slice(self.signals);
    }

    pub(super) fn decode(reader: &mut Reader<'a>, is_late: bool) -> Result<Self, DecodeError> {
        let flags = read_flags(reader, ANNOTATED)?;
        let session = read_session(reader)?;
        let fence = if is_late { None } else { Some(read_fence(reader)?) };
        let span_ns = reader.varint()?;
        let annotation = if flags & ANNOTATED != 0 { Some(reader.str()?) } else { None };
        let signals = reader.take(reader.remaining())?;
        Ok(Self { session, fence, span_ns, annotation, signals })
    }
}

impl<'a> Annotate<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.session.get());
        put_fence(out, self.fence);
        out.put_u64(self.entity.get());
        out.put_bytes(self.text.as_bytes());
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            session: read_session(reader)?,
            fence: read_fence(reader)?,
            entity: EntityId::new(reader.u64()?),
            text: reader.str()?,
        })
    }
}

impl Touch {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(if self.extend_ns.is_some() { EXTENDS } else { 0 });
        out.put_varint(self.session.get());
        put_fence(out, self.fence);
        if let Some(extend_ns) = self.extend_ns {
            out.put_varint(extend_ns);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = read_flags(reader, EXTENDS)?;
        let (session, fence) = (read_session(reader)?, read_fence(reader)?);
        let extend_ns = if flags & EXTENDS != 0 { Some(reader.varint()?) } else { None };
        Ok(Self { session, fence, extend_ns })
    }
}

impl<'a> EndSession<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(match self.by {
            EndedBy::Holder(_) => 0,
            EndedBy::Operator { .. } => 1,
        });
        out.put_varint(self.session.get());
        match self.by {
            EndedBy::Holder(fence) => put_fence(out, fence),
            EndedBy::Operator { reason } => out.put_bytes(reason.as_bytes()),
        }
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (by, session) = (reader.u8()?, read_session(reader)?);
        let by = match by {
            0 => EndedBy::Holder(read_fence(reader)?),
            1 => EndedBy::Operator { reason: reader.str()? },
            _ => return Err(DecodeError::Malformed("ended by nobody that is known")),
        };
        Ok(Self { session, by })
    }
}

impl<'a> PruneSession<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.session.get());
        out.put_varint(self.records.len() as u64);
        let mut previous = 0;
        for &record in &self.records {
            out.put_varint(record - previous);
            previous = record;
        }
        out.extend_from_slice(self.row);
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let session = read_session(reader)?;
        let mut previous = 0u64;
        let mut next = |step: u64| {
            let record = previous.checked_add(step).filter(|_| step > 0);
            previous = record.ok_or(DecodeError::Malformed("records out of order"))?;
            Ok(previous)
        };
        let count = reader.count(1)?;
        let records = (0..count).map(|_| next(reader.varint()?)).collect::<Result<_, _>>()?;
        Ok(Self { session, records, row: reader.take(reader.remaining())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use proptest::prelude::*;

    fn comes_back(record: &Record<'_>) {
        let bytes = record.encode();
        assert_eq!(Record::decode(record.kind() as u8, &bytes).as_ref(), Ok(record));
        for len in 0..bytes.len() {
            // Cut short it is another record or none, and never a panic.
            let _ = Record::decode(record.kind() as u8, &bytes[..len]);
        }
    }

    proptest! {
        #[test]
        fn records_of_sessions_come_back(
            id: u64, incarnation: u64, grant: u64, ns: u64, text: String, bytes: Vec<u8>,
            policy: u16, annotated: bool, extend_ns: Option<u64>,
            records in prop::collection::btree_set(1..=u64::MAX, 0..9),
        ) {
            let (session, fence) = (SessionId::new(id), Fence { incarnation, grant });
            let (annotation, signals) = (annotated.then_some(text.as_str()), bytes.as_slice());
            for conflict in [Conflict::EndPrevious, Conflict::Reject, Conflict::Join] {
                let new = StartSession { user: UserId::new(ns), agent: &text, policy, conflict };
                comes_back(&Record::StartSession(new));
            }
            for fence in [Some(fence), None] {
                let signal = SessionSignal { session, fence, span_ns: ns, annotation, signals };
                comes_back(&Record::SessionSignal(signal));
            }
            let entity = EntityId::new(ns);
            comes_back(&Record::Annotate(Annotate { session, fence, entity, text: &text }));
            comes_back(&Record::Touch(Touch { session, fence, extend_ns }));
            for by in [EndedBy::Holder(fence), EndedBy::Operator { reason: &text }] {
                comes_back(&Record::EndSession(EndSession { session, by }));
            }
            let records = records.into_iter().collect();
            comes_back(&Record::PruneSession(PruneSession { session, records, row: &bytes }));
            comes_back(&Record::EndAllSessions);
            comes_back(&Record::ResumeSession(session));
            comes_back(&Record::Sweep { count_max: ns });
        }
    }

    #[test]
    fn records_to_prune_that_are_out_of_order_are_malformed() {
        for steps in [[3u64, 0], [u64::MAX, 1]] {
            let mut bytes = Vec::new();
            for number in [9, 2].into_iter().chain(steps) {
                bytes.put_varint(number);
            }
            assert!(PruneSession::decode(&mut Reader::new(&bytes)).is_err());
        }
    }
}
