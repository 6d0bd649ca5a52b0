//! The envelope around everything that lies in a checkpoint store.
//!
//! ```text
//! magic "TIDL" 4 | kind u8 | 0 u8 | version u16 | payload length u32 | payload | BLAKE3 32
//! ```
//!
//! The hash covers the context (the key the envelope is stored under and the database it belongs
//! to), the header and the payload: an envelope that was moved to another key, or copied from
//! another database, does not verify.

use super::{DecodeError, Hash, Hasher, Purpose, Put, Reader};

const MAGIC: [u8; 4] = *b"TIDL";
const HEADER_BYTES: usize = 12;
const HASH_BYTES: usize = 32;

/// What an envelope holds. Numbers are on disk: never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A page of a table.
    Page = 1,
    /// A row of a cold table.
    Row = 2,
    /// A manifest.
    Manifest = 3,
    /// The identity of a database.
    Identity = 4,
}

/// Seals `payload` for the place named by `context`; the hash is returned beside the envelope.
///
/// # Panics
///
/// When the payload has 4 GiB or more, which no writer makes.
pub(crate) fn seal(kind: Kind, version: u16, context: &[&[u8]], payload: &[u8]) -> (Vec<u8>, Hash) {
    let len = u32::try_from(payload.len()).expect("payloads are below 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len() + HASH_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.put_u8(kind as u8);
    bytes.put_u8(0);
    bytes.put_u16(version);
    bytes.put_u32(len);
    bytes.extend_from_slice(payload);
    let hash = hash_of(context, &bytes);
    bytes.extend_from_slice(&hash);
    (bytes, hash)
}

/// The version, payload and hash of an envelope that [`seal`] made for the same place.
///
/// # Errors
///
/// [`DecodeError`] when it is of another kind, newer than `version_max`, or does not verify.
pub(crate) fn open<'a>(
    kind: Kind,
    version_max: u16,
    context: &[&[u8]],
    bytes: &'a [u8],
) -> Result<(u16, &'a [u8], Hash), DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>()? != MAGIC || reader.u8()? != kind as u8 || reader.u8()? != 0 {
        return Err(DecodeError::WrongKind);
    }
    let version = reader.u16()?;
    let len = reader.u32()? as usize;
    let payload = reader.take(len)?;
    let hash: Hash = reader.array()?;
    reader.end()?;
    if hash_of(context, &bytes[..bytes.len() - HASH_BYTES]) != hash {
        return Err(DecodeError::HashMismatch);
    }
    // The version is believed only now: a flipped bit must read as damage, not as a newer format.
    if version > version_max {
        return Err(DecodeError::FormatTooNew { found: version, max: version_max });
    }
    Ok((version, payload, hash))
}

fn hash_of(context: &[&[u8]], sealed: &[u8]) -> Hash {
    let mut hasher = Hasher::new(Purpose::Envelope);
    for part in context {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.update(sealed).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &[&[u8]] = &[b"db", b"key"];

    #[test]
    fn what_was_sealed_is_opened() {
        let (bytes, hash) = seal(Kind::Page, 1, CONTEXT, b"payload");
        assert_eq!(open(Kind::Page, 1, CONTEXT, &bytes), Ok((1, &b"payload"[..], hash)));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let (bytes, _) = seal(Kind::Row, 1, CONTEXT, b"some payload");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Kind::Row, 1, CONTEXT, &bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(open(Kind::Row, 1, CONTEXT, &bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn another_place_another_kind_and_a_newer_version_are_refused() {
        let (bytes, _) = seal(Kind::Row, 2, CONTEXT, b"x");
        assert_eq!(open(Kind::Row, 2, &[b"dbk", b"ey"], &bytes), Err(DecodeError::HashMismatch));
        assert_eq!(open(Kind::Page, 2, CONTEXT, &bytes), Err(DecodeError::WrongKind));
        assert_eq!(
            open(Kind::Row, 1, CONTEXT, &bytes),
            Err(DecodeError::FormatTooNew { found: 2, max: 1 })
        );
    }
}
