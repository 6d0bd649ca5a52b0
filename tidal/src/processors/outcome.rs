//! What a processor has made of a session.
//!
//! Knows: how it lies in its table. Must not know: what the outputs mean.
//!
//! A row of the table of outcomes, whose key is the session's number times 256 plus the processor's:
//!
//! ```text
//! newest record seen varint, or 0 | content hash seen 32 | version varint | observed u64 (ns) | committed u64 (ns)
//! | records seen varint | attempts varint | outputs: count varint, each: key, value, with lengths, by ascending key
//! ```

use crate::codec::{DecodeError, Hash, Put, Reader};
use crate::ids::{ProcessorId, SessionId, Timestamp};
use crate::record::{OutputRow, put_outputs, read_outputs, read_u32};

/// What a processor has made of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome<'a> {
    /// The newest record of the session that was seen, or 0.
    pub(crate) head: u64,
    /// The content of the session that was seen.
    pub(crate) hash: Hash,
    /// The version of the processor.
    pub(crate) version: u32,
    /// When the session was seen.
    pub(crate) observed_at: Timestamp,
    pub(crate) committed_at: Timestamp,
    /// How many records were seen.
    pub(crate) items: u64,
    /// How many attempts it took.
    pub(crate) attempts: u32,
    /// By ascending key.
    pub(crate) outputs: Vec<OutputRow<'a>>,
}

impl<'a> Outcome<'a> {
    /// No session that can be processed has a greater number: the key has eight bits for the processor.
    pub(crate) const SESSION_MAX: u64 = u64::MAX >> 8;

    /// Where it lies.
    pub(crate) const fn key(session: SessionId, processor: ProcessorId) -> u64 {
        assert!(session.get() <= Self::SESSION_MAX, "no log has so many operations");
        session.get() << 8 | processor.get() as u64
    }

    /// Whose it is, by where it lies.
    pub(crate) const fn of_key(key: u64) -> (SessionId, ProcessorId) {
        (SessionId::new(key >> 8), ProcessorId::new(key as u8))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_varint(self.head);
        out.extend_from_slice(&self.hash);
        out.put_varint(u64::from(self.version));
        out.put_u64(self.observed_at.as_nanos());
        out.put_u64(self.committed_at.as_nanos());
        out.put_varint(self.items);
        out.put_varint(u64::from(self.attempts));
        put_outputs(&mut out, &self.outputs);
        out
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let outcome = Self {
            head: reader.varint()?,
            hash: reader.array()?,
            version: read_u32(&mut reader)?,
            observed_at: Timestamp::from_nanos(reader.u64()?),
            committed_at: Timestamp::from_nanos(reader.u64()?),
            items: reader.varint()?,
            attempts: read_u32(&mut reader)?,
            outputs: read_outputs(&mut reader)?,
        };
        reader.end()?;
        Ok(outcome)
    }
}
