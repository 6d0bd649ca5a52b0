//! What is in a session: its records, and the hash over them.
//!
//! Knows: how a record lies in its table. Must not know: who may write one.
//!
//! A row of the table of records, whose key is the number of the operation that brought it:
//!
//! ```text
//! the record before it varint, or 0 | kind u8 (1 signal, 2 annotation, 3 late signal) | at u64 (ns)
//! | arrival u64 (ns) | entity u64 | the rest by kind:
//!
//! signal:     signal varint | weight f64 | span varint (ns) | has annotation u8 (0 or 1) | [text]
//! annotation: text
//! text:       to the end, UTF-8
//! ```
//!
//! The content hash is a chain: that of a new session is over its user, agent, policy and start; a record
//! makes it the hash of itself and its row. So it is at hand without reading a record, and two sessions
//! with one hash have the same content.

use crate::codec::{DecodeError, Hash, Hasher, Purpose, Put, Reader};
use crate::ids::{EntityId, SignalTypeId, Timestamp, UserId};

/// A record, as its table has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Content<'a> {
    /// The session's record before this one, or 0.
    pub(crate) previous: u64,
    /// When it happened, as its writer says.
    pub(crate) at: Timestamp,
    /// The engine time at which it came.
    pub(crate) arrival: Timestamp,
    pub(crate) entity: EntityId,
    pub(crate) what: What<'a>,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What<'a> {
    Signal {
        signal: SignalTypeId,
        weight: f64,
        span_ns: u64,
        annotation: Option<&'a str>,
        /// It came after the end of the session.
        is_late: bool,
    },
    Annotation(&'a str),
}

impl<'a> Content<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_varint(self.previous);
        out.put_u8(match self.what {
            What::Signal { is_late: false, .. } => 1,
            What::Annotation(_) => 2,
            What::Signal { is_late: true, .. } => 3,
        });
        out.put_u64(self.at.as_nanos());
        out.put_u64(self.arrival.as_nanos());
        out.put_u64(self.entity.get());
        match self.what {
            What::Signal { signal, weight, span_ns, annotation, .. } => {
                out.put_varint(u64::from(signal.get()));
                out.put_f64(weight);
                out.put_varint(span_ns);
                out.put_u8(u8::from(annotation.is_some()));
                out.extend_from_slice(annotation.unwrap_or_default().as_bytes());
            }
            What::Annotation(text) => out.extend_from_slice(text.as_bytes()),
        }
        out
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let previous = reader.varint()?;
        let kind = reader.u8()?;
        let at = Timestamp::from_nanos(reader.u64()?);
        let arrival = Timestamp::from_nanos(reader.u64()?);
        let entity = EntityId::new(reader.u64()?);
        let what = match kind {
            1 | 3 => read_signal(&mut reader, kind == 3)?,
            2 => What::Annotation(read_text(&mut reader)?),
            _ => return Err(DecodeError::Malformed("an unknown kind of record of a session")),
        };
        reader.end()?;
        Ok(Self { previous, at, arrival, entity, what })
    }
}

fn read_signal<'a>(reader: &mut Reader<'a>, is_late: bool) -> Result<What<'a>, DecodeError> {
    let signal = u16::try_from(reader.varint()?)
        .map_err(|_| DecodeError::Malformed("a signal beyond 16 bits"))?;
    let (weight, span_ns) = (reader.f64()?, reader.varint()?);
    let annotation = match reader.u8()? {
        0 => None,
        1 => Some(read_text(reader)?),
        _ => return Err(DecodeError::Malformed("an annotation that is neither there nor not")),
    };
    Ok(What::Signal { signal: SignalTypeId::new(signal), weight, span_ns, annotation, is_late })
}

fn read_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let bytes = reader.take(reader.remaining())?;
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("not UTF-8"))
}

/// The content hash of a session without records.
pub(super) fn first_hash(user: UserId, agent: &str, policy: u16, started: Timestamp) -> Hash {
    let mut bytes = Vec::with_capacity(32 + agent.len());
    bytes.put_u64(user.get());
    bytes.put_bytes(agent.as_bytes());
    bytes.put_u16(policy);
    bytes.put_u64(started.as_nanos());
    crate::codec::hash(Purpose::Session, &bytes)
}

/// The content hash of a session with these rows of the table of records, the first one first.
pub(crate) fn hash_of<'a>(
    (user, agent, policy, started): (UserId, &str, u16, Timestamp),
    records: impl IntoIterator<Item = &'a [u8]>,
) -> Hash {
    let first = first_hash(user, agent, policy, started);
    records.into_iter().fold(first, |hash, record| next_hash(&hash, record))
}

/// The content hash of a session with one record more.
pub(super) fn next_hash(hash: &Hash, record: &[u8]) -> Hash {
    Hasher::new(Purpose::Session).update(hash).update(record).finish()
}
