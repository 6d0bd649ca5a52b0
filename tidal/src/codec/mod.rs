//! Bytes in and out.
//!
//! Knows: bounded little-endian reading and writing, the sealed envelope around everything that
//! lies in a store, keyed BLAKE3, and bincode (this is the only room that names it).
//! Must not know: what any byte means.
//!
//! Order of trust, everywhere: bound, then hash, then decode. No length that was read sizes a
//! buffer before it is compared with what is left.

mod bytes;
mod envelope;

pub(crate) use bincode::{Decode, Encode};
pub(crate) use bytes::{Put, Reader};
pub(crate) use envelope::{Kind, open, seal};

use std::sync::LazyLock;

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Fewer bytes than a field needs.
    #[error("ends {missing} bytes early")]
    Short { missing: usize },
    /// Bytes after the end.
    #[error("{extra} bytes too many")]
    Trailing { extra: usize },
    /// A value that no writer makes.
    #[error("{0}")]
    Malformed(&'static str),
    /// The envelope is not of the kind expected.
    #[error("is not what it should be")]
    WrongKind,
    /// The hash does not match.
    #[error("hash mismatch")]
    HashMismatch,
    /// A later format.
    #[error("format {found} is newer than {max}")]
    FormatTooNew { found: u16, max: u16 },
    /// bincode refused.
    #[error("{0}")]
    Bincode(String),
}

impl DecodeError {
    /// The same as an error of the library, naming what was read.
    pub(crate) fn of(self, what: impl Into<String>) -> crate::Error {
        let what = what.into();
        match self {
            Self::FormatTooNew { found, max } => crate::Error::FormatTooNew { what, found, max },
            other => crate::Error::corrupt(what, other.to_string()),
        }
    }
}

/// The largest structure bincode may build from bytes that nothing has vouched for: it allocates by
/// lengths it reads.
const LIMIT_BYTES: usize = 64 << 20;

/// What an envelope can hold, whose length is a u32, and the largest structure that its payload may make:
/// a manifest names every table there is.
const SEALED_LIMIT_BYTES: usize = u32::MAX as usize;

/// A value takes less than so many times its bytes in memory. A hash is no reason to believe a length,
/// so this is what the payload of an envelope may make, rounded up to one of a few limits.
const MEMORY_PER_BYTE: usize = 16;

/// How every value is laid out; the limit counts when a value is read, and never when it is written. It
/// counts what the value takes in memory, which may be more than its bytes.
type Layout<const LIMIT: usize> = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Fixint,
    bincode::config::Limit<LIMIT>,
>;

const fn layout<const LIMIT: usize>() -> Layout<LIMIT> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// A value as bytes (fixed-width little-endian integers, lengths as u64), which [`from_bytes`] reads.
///
/// # Errors
///
/// [`DecodeError::Bincode`] when it could not be read back, as it takes more than 64 MiB in memory.
pub(crate) fn to_bytes<T: Encode + Decode<()>>(value: &T) -> Result<Vec<u8>, DecodeError> {
    let bytes = encode(value)?;
    from_bytes::<T>(&bytes).map(|_| bytes)
}

/// The value that [`to_bytes`] wrote; the bytes must end with it.
///
/// # Errors
///
/// Any [`DecodeError`] but the envelope's.
pub(crate) fn from_bytes<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode(bytes, layout::<LIMIT_BYTES>())
}

/// As [`to_bytes`], of what is going to be sealed; [`from_sealed_bytes`] reads it.
///
/// # Errors
///
/// [`DecodeError::Bincode`] when it could not be read back, as it takes 4 GiB in an envelope, or more in
/// memory than [`from_sealed_bytes`] lets its bytes build.
pub(crate) fn to_sealed_bytes<T: Encode + Decode<()>>(value: &T) -> Result<Vec<u8>, DecodeError> {
    let bytes = to_unread_bytes(value)?;
    from_sealed_bytes::<T>(&bytes).map(|_| bytes)
}

/// As [`to_sealed_bytes`], but not read back: for whoever opens what was sealed before it is written.
///
/// # Errors
///
/// [`DecodeError::Bincode`] when it takes 4 GiB in an envelope.
pub(crate) fn to_unread_bytes<T: Encode>(value: &T) -> Result<Vec<u8>, DecodeError> {
    let bytes = encode(value)?;
    if bytes.len() > SEALED_LIMIT_BYTES {
        let reason = format!("{} bytes are more than an envelope holds", bytes.len());
        return Err(DecodeError::Bincode(reason));
    }
    Ok(bytes)
}

/// The value that [`to_sealed_bytes`] wrote; the bytes are the payload of an envelope that verified, and
/// must end with it. It may take 64 MiB in memory, or 16 times the payload, rounded up to 256 MiB, 1 GiB
/// or 4 GiB.
///
/// # Errors
///
/// Any [`DecodeError`] but the envelope's.
pub(crate) fn from_sealed_bytes<T: Decode<()>>(payload: &[u8]) -> Result<T, DecodeError> {
    // A limit is a part of a layout's type, so there is one decoder for each.
    match payload.len().saturating_mul(MEMORY_PER_BYTE).div_ceil(LIMIT_BYTES) {
        0..=1 => decode(payload, layout::<LIMIT_BYTES>()),
        2..=4 => decode(payload, layout::<{ 4 * LIMIT_BYTES }>()),
        5..=16 => decode(payload, layout::<{ 16 * LIMIT_BYTES }>()),
        _ => decode(payload, layout::<SEALED_LIMIT_BYTES>()),
    }
}

fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, DecodeError> {
    bincode::encode_to_vec(value, layout::<SEALED_LIMIT_BYTES>())
        .map_err(|e| DecodeError::Bincode(e.to_string()))
}

fn decode<T: Decode<()>>(
    bytes: &[u8],
    layout: impl bincode::config::Config,
) -> Result<T, DecodeError> {
    let (value, used) = bincode::decode_from_slice(bytes, layout)
        .map_err(|e| DecodeError::Bincode(e.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        extra => Err(DecodeError::Trailing { extra }),
    }
}

/// What a hash is for; each purpose has its own key, so that a hash made for one is never accepted
/// for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A log frame and its body.
    Frame,
    /// A log segment's header.
    Segment,
    /// An envelope in a store.
    Envelope,
    /// The root over a table's page hashes.
    Root,
    /// One row of a cold table.
    Row,
    /// A dump of the state.
    Digest,
    /// An event id or a text, shortened to 128 bits.
    Name,
    /// The content of a session.
    Session,
    /// What a processor makes of a content, whoever makes it how often.
    Idempotency,
    /// How much later than its policy says an attempt is repeated.
    Jitter,
    /// What a new database is called.
    Identity,
}

/// A 32-byte BLAKE3 hash.
pub(crate) type Hash = [u8; 32];

static KEYS: LazyLock<[Hash; 11]> = LazyLock::new(|| {
    [
        "tidal 2026 frame v1",
        "tidal 2026 segment v1",
        "tidal 2026 envelope v1",
        "tidal 2026 root v1",
        "tidal 2026 row v1",
        "tidal 2026 digest v1",
        "tidal 2026 name v1",
        "tidal 2026 session v1",
        "tidal 2026 idempotency v1",
        "tidal 2026 jitter v1",
        "tidal 2026 identity v1",
    ]
    .map(|context| blake3::derive_key(context, b""))
});

/// The BLAKE3 hash of `bytes` for one purpose.
pub(crate) fn hash(purpose: Purpose, bytes: &[u8]) -> Hash {
    *blake3::keyed_hash(&KEYS[purpose as usize], bytes).as_bytes()
}

/// A BLAKE3 hash for one purpose that is fed piece by piece.
#[derive(Clone)]
pub(crate) struct Hasher(blake3::Hasher);

impl Hasher {
    pub(crate) fn new(purpose: Purpose) -> Self {
        Self(blake3::Hasher::new_keyed(&KEYS[purpose as usize]))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    pub(crate) fn finish(&self) -> Hash {
        *self.0.finalize().as_bytes()
    }
}

/// The first 16 bytes of a hash.
pub(crate) fn truncated(hash: &Hash) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Encode, Decode, Debug, PartialEq)]
    struct Padded {
        small: u8,
        large: u64,
    }

    /// Less than 64 MiB as bytes, more in memory.
    fn wide() -> Vec<Padded> {
        (0..5_000_000).map(|large| Padded { small: 1, large }).collect()
    }

    #[test]
    fn what_could_not_be_read_back_is_refused_when_it_is_written() {
        assert!(encode(&wide()).unwrap().len() < LIMIT_BYTES);
        assert!(matches!(to_bytes(&wide()), Err(DecodeError::Bincode(_))));
    }

    #[test]
    fn what_is_sealed_may_be_as_large_as_an_envelope() {
        let payload = to_sealed_bytes(&wide()).unwrap();
        assert!(from_bytes::<Vec<Padded>>(&payload).is_err());
        assert_eq!(from_sealed_bytes::<Vec<Padded>>(&payload).unwrap(), wide());
    }

    #[test]
    fn a_length_in_a_small_sealed_payload_makes_nothing_large() {
        for len in [65 << 20, 2_600_468_482, u64::MAX] {
            let payload = [&len.to_le_bytes()[..], b"short"].concat();
            let refused = from_sealed_bytes::<Vec<u8>>(&payload);
            assert_eq!(refused, Err(DecodeError::Bincode("LimitExceeded".into())), "{len}");
        }
        for size in [1 << 10, 5 << 20, 17 << 20, 65 << 20] {
            let value = vec![7_u8; size];
            let payload = to_sealed_bytes(&value).unwrap();
            assert!(from_sealed_bytes::<Vec<u8>>(&payload).unwrap() == value, "{size}");
        }
    }
}
