//! One frame: one operation, all or nothing.
//!
//! Knows: the bytes of a frame. Must not know: files, or what a body says.
//!
//! ```text
//!  0  magic            4   ff 't' 'F' fe; ff and fe occur in no UTF-8 text
//!  4  body length      u32 at most 64 MiB
//!  8  kind             u8  of the layer above
//!  9  zero             3
//! 12  record count     u32 of the layer above
//! 16  sequence         u64
//! 24  engine time      u64 nanoseconds since the Unix epoch
//! 32  synced through   u64 the position proven synced when the frame was built
//! 40  predecessor      16  frame hash of the frame before, zeros before the first
//! 56  body hash        16  BLAKE3 of the body
//! 72  frame hash       16  BLAKE3 of the database id and bytes 0..72
//! 88  body
//! ```
//!
//! Integers are little-endian, hashes keyed and cut to 16 bytes. The frame hash covers the body by
//! way of its hash, so a caller's thread can hash the body before the sequence is known. It covers
//! the database id, so a frame that a body merely quotes from another database never verifies.

use std::fmt;

use crate::codec::{DecodeError, Purpose, Put, Reader, hash, truncated};
use crate::error::Error;
use crate::ids::{DatabaseId, Timestamp};
use crate::seq::Seq;

/// The largest body of a frame, in bytes.
pub(crate) const BODY_SIZE_BYTES_MAX: usize = 64 << 20;

/// The name of a frame and of everything before it.
pub(crate) type FrameHash = [u8; 16];

/// The predecessor of the first frame.
pub(crate) const GENESIS: FrameHash = [0; 16];

pub(super) const MAGIC: [u8; 4] = *b"\xfftF\xfe";

pub(super) const HEADER_BYTES: usize = 88;

/// The part of the header that the frame hash covers.
const HASHED_BYTES: usize = 72;

const DATABASE_BYTES: usize = 16;

/// A body and its hash, made on the caller's thread.
#[derive(Debug, Clone)]
pub(crate) struct FrameBody {
    kind: u8,
    record_count: u32,
    bytes: Vec<u8>,
    hash: FrameHash,
}

impl FrameBody {
    /// Hashes a body. `kind` and `record_count` mean nothing to the log.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] above [`BODY_SIZE_BYTES_MAX`].
    pub(crate) fn new(kind: u8, record_count: u32, bytes: Vec<u8>) -> crate::Result<Self> {
        if bytes.len() > BODY_SIZE_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a log frame",
                size: bytes.len() as u64,
                limit: BODY_SIZE_BYTES_MAX as u64,
                unit: "bytes",
            });
        }
        let hash = truncated(&hash(Purpose::Frame, &bytes));
        Ok(Self { kind, record_count, bytes, hash })
    }

    /// As given to [`FrameBody::new`].
    pub(crate) const fn kind(&self) -> u8 {
        self.kind
    }

    /// As given to [`FrameBody::new`].
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The size of the whole frame in the log.
    pub(crate) fn frame_size_bytes(&self) -> u64 {
        (HEADER_BYTES + self.bytes.len()) as u64
    }
}

/// A frame as the log hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Its position.
    pub(crate) seq: Seq,
    /// The engine time stamped on it.
    pub(crate) time: Timestamp,
    /// As given to [`FrameBody::new`].
    pub(crate) kind: u8,
    /// As given to [`FrameBody::new`].
    pub(crate) record_count: u32,
    /// As given to [`FrameBody::new`].
    pub(crate) body: &'a [u8],
}

/// What the writer knows of a frame and its caller does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) seq: Seq,
    pub(super) time: Timestamp,
    pub(super) synced: Seq,
    pub(super) predecessor: FrameHash,
}

/// A header whose hash verified.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) place: Place,
    pub(super) hash: FrameHash,
    kind: u8,
    record_count: u32,
    body_len: usize,
    body_hash: FrameHash,
}

/// Why bytes are not the frame they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    NoHeader,
    HeaderHash,
    BodyLength,
    BodyShort { missing: usize },
    BodyHash,
    Order { found: Seq },
    Predecessor,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => f.write_str("no frame begins here"),
            Self::HeaderHash => f.write_str("the frame's header does not verify"),
            Self::BodyLength => f.write_str("the frame's body is longer than any may be"),
            Self::BodyShort { missing } => write!(f, "the frame ends {missing} bytes early"),
            Self::BodyHash => f.write_str("the frame's body does not verify"),
            Self::Order { found } => write!(f, "frame {found} lies in its place"),
            Self::Predecessor => f.write_str("the frame follows another predecessor"),
        }
    }
}

/// Appends a frame to `out` and returns its hash.
pub(super) fn encode(
    database: &DatabaseId,
    place: &Place,
    body: &FrameBody,
    out: &mut Vec<u8>,
) -> FrameHash {
    assert!(place.synced < place.seq, "a frame cannot be synced before it is built");
    let start = out.len();
    let body_len = u32::try_from(body.bytes.len()).expect("FrameBody::new bounds the body");
    out.reserve(HEADER_BYTES + body.bytes.len());
    out.extend_from_slice(&MAGIC);
    out.put_u32(body_len);
    out.put_u8(body.kind);
    out.extend_from_slice(&[0; 3]);
    out.put_u32(body.record_count);
    out.put_u64(place.seq.get());
    out.put_u64(place.time.as_nanos());
    out.put_u64(place.synced.get());
    out.extend_from_slice(&place.predecessor);
    out.extend_from_slice(&body.hash);
    let hash = header_hash(database, &out[start..]);
    out.extend_from_slice(&hash);
    assert_eq!(out.len() - start, HEADER_BYTES, "the layout above is the layout written");
    out.extend_from_slice(&body.bytes);
    hash
}

/// The header that `bytes` begin with.
pub(super) fn parse_header(database: &DatabaseId, bytes: &[u8]) -> Result<Header, Flaw> {
    if bytes.len() < HEADER_BYTES || bytes[..MAGIC.len()] != MAGIC {
        return Err(Flaw::NoHeader);
    }
    let hash = header_hash(database, &bytes[..HASHED_BYTES]);
    if bytes[HASHED_BYTES..HEADER_BYTES] != hash {
        return Err(Flaw::HeaderHash);
    }
    let header = fields(&bytes[..HASHED_BYTES], hash).map_err(|_| Flaw::NoHeader)?;
    if header.body_len > BODY_SIZE_BYTES_MAX {
        return Err(Flaw::BodyLength);
    }
    Ok(header)
}

fn fields(bytes: &[u8], hash: FrameHash) -> Result<Header, DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.take(MAGIC.len())?;
    let body_len = reader.u32()? as usize;
    let kind = reader.u8()?;
    reader.take(3)?;
    let record_count = reader.u32()?;
    let place = Place {
        seq: Seq::new(reader.u64()?),
        time: Timestamp::from_nanos(reader.u64()?),
        synced: Seq::new(reader.u64()?),
        predecessor: reader.array()?,
    };
    let body_hash = reader.array()?;
    Ok(Header { place, hash, kind, record_count, body_len, body_hash })
}

impl Header {
    /// Header and body, in bytes.
    pub(super) const fn frame_len(&self) -> usize {
        HEADER_BYTES + self.body_len
    }

    /// The frame that `bytes`, which begin with this header, hold.
    pub(super) fn frame<'a>(&self, bytes: &'a [u8]) -> Result<Frame<'a>, Flaw> {
        let Some(body) = bytes.get(HEADER_BYTES..self.frame_len()) else {
            return Err(Flaw::BodyShort { missing: self.frame_len() - bytes.len() });
        };
        if truncated(&hash(Purpose::Frame, body)) != self.body_hash {
            return Err(Flaw::BodyHash);
        }
        let Place { seq, time, .. } = self.place;
        Ok(Frame { seq, time, kind: self.kind, record_count: self.record_count, body })
    }
}

fn header_hash(database: &DatabaseId, hashed: &[u8]) -> FrameHash {
    let mut input = [0; DATABASE_BYTES + HASHED_BYTES];
    input[..DATABASE_BYTES].copy_from_slice(database.as_bytes());
    input[DATABASE_BYTES..].copy_from_slice(hashed);
    truncated(&hash(Purpose::Frame, &input))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: DatabaseId = DatabaseId::new([7; 16]);

    fn place() -> Place {
        Place {
            seq: Seq::new(9),
            time: Timestamp::from_secs(5),
            synced: Seq::new(8),
            predecessor: [3; 16],
        }
    }

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let body = FrameBody::new(4, 2, bytes.to_vec()).expect("small");
        let mut out = Vec::new();
        encode(&DATABASE, &place(), &body, &mut out);
        assert_eq!(out.len() as u64, body.frame_size_bytes());
        out
    }

    fn parse<'a>(database: &DatabaseId, bytes: &'a [u8]) -> Result<Frame<'a>, Flaw> {
        parse_header(database, bytes)?.frame(bytes)
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let bytes = encoded(b"hello");
        let header = parse_header(&DATABASE, &bytes).expect("verifies");
        assert_eq!(header.place.synced, Seq::new(8));
        assert_eq!(header.place.predecessor, [3; 16]);
        let frame = header.frame(&bytes).expect("verifies");
        let (seq, time) = (Seq::new(9), Timestamp::from_secs(5));
        assert_eq!(frame, Frame { seq, time, kind: 4, record_count: 2, body: b"hello" });
    }

    #[test]
    fn every_flipped_bit_every_shorter_length_and_another_database_is_refused() {
        let bytes = encoded(b"some body");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&DATABASE, &bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(parse(&DATABASE, &bytes[..len]).is_err(), "length {len}");
        }
        assert_eq!(parse(&DatabaseId::new([8; 16]), &bytes), Err(Flaw::HeaderHash));
    }

    #[test]
    fn a_length_of_4_gib_is_refused_even_under_a_valid_hash() {
        let mut bytes = encoded(b"x");
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse(&DATABASE, &bytes), Err(Flaw::HeaderHash));
        let hash = header_hash(&DATABASE, &bytes[..HASHED_BYTES]);
        bytes[HASHED_BYTES..HEADER_BYTES].copy_from_slice(&hash);
        assert_eq!(parse(&DATABASE, &bytes), Err(Flaw::BodyLength));
    }

    #[test]
    fn a_body_above_the_limit_is_refused_before_it_is_hashed() {
        let refused = FrameBody::new(1, 1, vec![0; BODY_SIZE_BYTES_MAX + 1]);
        assert!(matches!(refused, Err(Error::TooLarge { unit: "bytes", .. })));
    }
}
