//! The small things of the state that are in no table.
//!
//! In a manifest:
//!
//! ```text
//! version u8 = 1 | applied u64 | engine time u64 | operation time u64 | operations u64
//! | incarnation u64 | event-id horizon u64 (ns) | events advance time u8 | schema
//! ```

use crate::codec::{DecodeError, Put, Reader};
use crate::ids::Timestamp;
use crate::schema::Schema;
use crate::seq::Seq;

const VERSION: u8 = 1;

/// Where the state stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Header {
    /// The last frame applied.
    pub(crate) applied: Seq,
    /// The time of that frame, or a later one's before a reset.
    pub(crate) engine_time: Timestamp,
    /// The time of the last frame that was no control frame.
    pub(crate) operation_time: Timestamp,
    /// How many frames were operations, refused ones included.
    pub(crate) operations: u64,
    /// How often the database was opened.
    pub(crate) incarnation: u64,
    /// How long event ids are remembered, in nanoseconds.
    pub(crate) event_id_horizon_ns: u64,
    /// Whether events advance engine time.
    pub(crate) event_time: bool,
}

impl Header {
    pub(super) fn encode(&self, schema: &Schema) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(VERSION);
        out.put_u64(self.applied.get());
        out.put_u64(self.engine_time.as_nanos());
        out.put_u64(self.operation_time.as_nanos());
        out.put_u64(self.operations);
        out.put_u64(self.incarnation);
        out.put_u64(self.event_id_horizon_ns);
        out.put_u8(u8::from(self.event_time));
        out.extend_from_slice(&schema.to_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, Schema), DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = u16::from(reader.u8()?);
        if version != u16::from(VERSION) {
            return Err(DecodeError::FormatTooNew { found: version, max: VERSION.into() });
        }
        let header = Self {
            applied: Seq::new(reader.u64()?),
            engine_time: Timestamp::from_nanos(reader.u64()?),
            operation_time: Timestamp::from_nanos(reader.u64()?),
            operations: reader.u64()?,
            incarnation: reader.u64()?,
            event_id_horizon_ns: reader.u64()?,
            event_time: reader.u8()? != 0,
        };
        if header.operations > header.applied.get() || header.applied == Seq::new(u64::MAX) {
            return Err(DecodeError::Malformed("a position that no log reaches"));
        }
        let schema = Schema::from_bytes(reader.take(reader.remaining())?)?;
        Ok((header, schema))
    }
}
