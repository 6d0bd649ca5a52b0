//! One segment: a file of frames, with a header written before the first and a seal after the last.
//!
//! Knows: the bytes of a segment and its name. Must not know: other segments.
//!
//! ```text
//! log/<first sequence, 20 digits>.seg
//!    0  header block  512  "TIDALSEG" | version u16 | 0 ×6 | database 16 | first sequence u64
//!                          | hash of the frame before it 16 | zeros | BLAKE3 32
//!  512  seal block    512  zeros until sealed, then
//!                          "TIDALEND" | version u16 | 0 ×6 | database 16 | first sequence u64
//!                          | last sequence u64 | length u64 | hash of the last frame 16 | zeros
//!                          | BLAKE3 32
//! 1024  frames, one after the other; then zeros, filled ahead of the writer
//! ```
//!
//! Each block is one sector, and its hash covers all of it, so a flipped bit anywhere shows, and a
//! seal is either absent (zeros), valid, or torn. Magic, version and hash keep their places in every
//! later version, so that an older library can tell a newer file from a damaged one.
//!
//! The seal of a segment is written once its successor is durable, and is durable itself before the
//! successor takes its first frame: a sealed segment without a successor has lost it.

use std::path::{Path, PathBuf};

use super::frame::{self, Flaw, Frame, FrameHash, Header};
use crate::codec::{DecodeError, Purpose, Put, Reader, hash};
use crate::error::Error;
use crate::ids::DatabaseId;
use crate::seq::Seq;
use crate::storage::DiskFile;

/// The format of header, seal and frames.
const FORMAT_VERSION: u16 = 1;

const BLOCK_BYTES: usize = 512;
const BLOCK_HASH_AT: usize = BLOCK_BYTES - 32;

/// Where the seal lies.
pub(super) const SEAL_AT: u64 = BLOCK_BYTES as u64;
/// Where the first frame lies.
pub(super) const FRAMES_AT: u64 = 2 * BLOCK_BYTES as u64;

const HEADER_MAGIC: [u8; 8] = *b"TIDALSEG";
const SEAL_MAGIC: [u8; 8] = *b"TIDALEND";

const NAME_DIGITS: usize = 20;

/// The path of the segment that begins with `first`.
pub(super) fn path_of(dir: &Path, first: Seq) -> PathBuf {
    dir.join(format!("{:0NAME_DIGITS$}.seg", first.get()))
}

/// Where the segment that begins with `first` is built before it gets its name.
pub(super) fn temporary_path_of(dir: &Path, first: Seq) -> PathBuf {
    dir.join(format!("{:0NAME_DIGITS$}.tmp", first.get()))
}

/// Whether a crash may have left this behind: a segment that never got its name.
pub(super) fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

/// The first sequence in a segment's name; `None` when it is not the name of one.
pub(super) fn first_in_name(path: &Path) -> Option<Seq> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if digits.len() != NAME_DIGITS || !all_digits {
        return None;
    }
    digits.parse().ok().filter(|&first| first > 0).map(Seq::new)
}

/// What the header of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) database: DatabaseId,
    pub(super) first: Seq,
    /// Hash of the frame before the first.
    pub(super) predecessor: FrameHash,
}

impl SegmentHeader {
    /// Header block and empty seal block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = begin_block(HEADER_MAGIC, self.database, self.first);
        block.extend_from_slice(&self.predecessor);
        finish_block(&mut block);
        block.resize(FRAMES_AT as usize, 0);
        block
    }

    /// The header of the segment at `path`; `None` when it does not verify.
    ///
    /// # Errors
    ///
    /// What is whole and yet wrong, which no crash leaves behind: [`Error::FormatTooNew`], and
    /// [`Error::Corrupt`] for a segment of another database or under another's name.
    pub(super) fn parse(
        bytes: &[u8],
        path: &Path,
        name: Seq,
        database: DatabaseId,
    ) -> crate::Result<Option<Self>> {
        let Some((version, mut reader)) = open_block(HEADER_MAGIC, bytes) else { return Ok(None) };
        let what = || format!("log segment {}", path.display());
        if version > FORMAT_VERSION {
            return Err(Error::FormatTooNew { what: what(), found: version, max: FORMAT_VERSION });
        }
        let header = Self::fields(&mut reader).map_err(|e| e.of(what()))?;
        if header.database != database {
            let detail = format!("belongs to database {}, not {database}", header.database);
            return Err(Error::corrupt(what(), detail));
        }
        if header.first != name {
            let detail = format!("begins at {} by its header, not as it is named", header.first);
            return Err(Error::corrupt(what(), detail));
        }
        Ok(Some(header))
    }

    fn fields(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            database: DatabaseId::new(reader.array()?),
            first: Seq::new(reader.u64()?),
            predecessor: reader.array()?,
        })
    }
}

/// What the seal of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) last: Seq,
    /// Where the last frame ends.
    pub(super) length: u64,
    /// Hash of the last frame.
    pub(super) hash: FrameHash,
}

/// The state of a segment's seal block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SealState {
    /// Never sealed.
    Absent,
    /// Sealed.
    Sealed(Seal),
    /// Something else: a seal was begun, or the block is damaged.
    Torn,
}

impl SealState {
    /// The state of the seal of the segment that `header` heads.
    pub(super) fn parse(bytes: &[u8], header: &SegmentHeader) -> Self {
        let block = bytes.get(BLOCK_BYTES..).unwrap_or_default();
        let block = &block[..block.len().min(BLOCK_BYTES)];
        if block.iter().all(|&byte| byte == 0) {
            return Self::Absent;
        }
        let Some((_, mut reader)) = open_block(SEAL_MAGIC, block) else { return Self::Torn };
        match Seal::fields(&mut reader) {
            Ok((database, first, seal))
                if database == header.database && first == header.first && seal.last >= first =>
            {
                Self::Sealed(seal)
            }
            _ => Self::Torn,
        }
    }
}

impl Seal {
    fn encode(&self, database: DatabaseId, first: Seq) -> Vec<u8> {
        assert!(self.last >= first, "an empty segment is never sealed: its successor has its name");
        let mut block = begin_block(SEAL_MAGIC, database, first);
        block.put_u64(self.last.get());
        block.put_u64(self.length);
        block.extend_from_slice(&self.hash);
        finish_block(&mut block);
        block
    }

    fn fields(reader: &mut Reader<'_>) -> Result<(DatabaseId, Seq, Self), DecodeError> {
        let database = DatabaseId::new(reader.array()?);
        let first = Seq::new(reader.u64()?);
        let seal =
            Self { last: Seq::new(reader.u64()?), length: reader.u64()?, hash: reader.array()? };
        Ok((database, first, seal))
    }
}

/// Cuts the segment behind its last frame, seals it, and makes both durable.
///
/// # Errors
///
/// [`Error::Io`] and its relatives.
pub(super) fn seal(
    file: &dyn DiskFile,
    path: &Path,
    database: DatabaseId,
    first: Seq,
    seal: &Seal,
) -> crate::Result<()> {
    file.set_len(seal.length).map_err(|e| Error::io("cut", path, e))?;
    let block = seal.encode(database, first);
    file.write_at(SEAL_AT, &block).map_err(|e| Error::io("seal", path, e))?;
    file.sync().map_err(|e| Error::io("sync", path, e))
}

fn begin_block(magic: [u8; 8], database: DatabaseId, first: Seq) -> Vec<u8> {
    let mut block = Vec::with_capacity(FRAMES_AT as usize);
    block.extend_from_slice(&magic);
    block.put_u16(FORMAT_VERSION);
    block.extend_from_slice(&[0; 6]);
    block.extend_from_slice(database.as_bytes());
    block.put_u64(first.get());
    block
}

fn finish_block(block: &mut Vec<u8>) {
    assert!(block.len() <= BLOCK_HASH_AT, "every block's fields fit in front of its hash");
    block.resize(BLOCK_HASH_AT, 0);
    let hash = hash(Purpose::Segment, block);
    block.extend_from_slice(&hash);
}

/// Version and fields of a block that verifies.
fn open_block(magic: [u8; 8], bytes: &[u8]) -> Option<(u16, Reader<'_>)> {
    let block = bytes.get(..BLOCK_BYTES)?;
    let (hashed, stored) = block.split_at(BLOCK_HASH_AT);
    if stored != hash(Purpose::Segment, hashed) {
        return None;
    }
    let mut reader = Reader::new(hashed);
    let found: [u8; 8] = reader.array().ok()?;
    let version = reader.u16().ok()?;
    reader.take(6).ok()?;
    (found == magic).then_some((version, reader))
}

/// Steps through the frames of one segment, checking each one and its link to the one before.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    database: DatabaseId,
    bytes: &'a [u8],
    /// Where the next frame must begin.
    pub(super) offset: usize,
    /// Its sequence.
    pub(super) next: Seq,
    /// Hash of the frame before it.
    pub(super) hash: FrameHash,
}

impl<'a> Walk<'a> {
    /// Before the first frame of a segment, of which `bytes` is the content up to where frames may
    /// lie.
    pub(super) fn new(header: &SegmentHeader, bytes: &'a [u8]) -> Self {
        Self {
            database: header.database,
            bytes,
            offset: FRAMES_AT as usize,
            next: header.first,
            hash: header.predecessor,
        }
    }

    /// The next frame; `None` where only zeros follow, or nothing.
    ///
    /// # Errors
    ///
    /// The [`Flaw`] of what follows; the walk stays in front of it.
    pub(super) fn step(&mut self) -> Result<Option<(Header, Frame<'a>)>, Flaw> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let step = self.check(rest);
        match step {
            Ok((header, _)) => {
                self.offset += header.frame_len();
                self.next = self.next.next();
                self.hash = header.hash;
            }
            Err(_) if rest.iter().all(|&byte| byte == 0) => return Ok(None),
            Err(_) => {}
        }
        step.map(Some)
    }

    fn check(&self, rest: &'a [u8]) -> Result<(Header, Frame<'a>), Flaw> {
        let header = frame::parse_header(&self.database, rest)?;
        let frame = header.frame(rest)?;
        if frame.seq != self.next {
            return Err(Flaw::Order { found: frame.seq });
        }
        if header.place.predecessor != self.hash {
            return Err(Flaw::Predecessor);
        }
        Ok((header, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: DatabaseId = DatabaseId::new([7; 16]);
    const HEADER: SegmentHeader =
        SegmentHeader { database: DATABASE, first: Seq::new(5), predecessor: [3; 16] };

    fn parse(bytes: &[u8]) -> crate::Result<Option<SegmentHeader>> {
        SegmentHeader::parse(bytes, Path::new("x"), Seq::new(5), DATABASE)
    }

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_or_shorter_length_verifies() {
        let bytes = HEADER.encode();
        assert_eq!(bytes.len() as u64, FRAMES_AT);
        assert_eq!(parse(&bytes).expect("ours"), Some(HEADER));
        for bit in 0..BLOCK_BYTES * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bad).expect("damaged, not foreign"), None, "bit {bit}");
        }
        for len in 0..BLOCK_BYTES {
            assert_eq!(parse(&bytes[..len]).expect("short, not foreign"), None, "length {len}");
        }
    }

    #[test]
    fn a_seal_is_absent_valid_or_torn() {
        let seal = Seal { last: Seq::new(8), length: 2_000, hash: [4; 16] };
        let mut bytes = HEADER.encode();
        assert_eq!(SealState::parse(&bytes, &HEADER), SealState::Absent);
        let block = seal.encode(DATABASE, HEADER.first);
        bytes[BLOCK_BYTES..].copy_from_slice(&block);
        assert_eq!(SealState::parse(&bytes, &HEADER), SealState::Sealed(seal));
        for bit in 0..BLOCK_BYTES * 8 {
            let mut bad = bytes.clone();
            bad[BLOCK_BYTES + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SealState::parse(&bad, &HEADER), SealState::Torn, "bit {bit}");
        }
        let other = SegmentHeader { first: Seq::new(6), ..HEADER };
        assert_eq!(SealState::parse(&bytes, &other), SealState::Torn);
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut bytes = HEADER.encode();
        bytes[8] = 2;
        assert_eq!(parse(&bytes).expect("a flipped bit is damage"), None);
        bytes.truncate(BLOCK_HASH_AT);
        finish_block(&mut bytes);
        assert!(matches!(parse(&bytes), Err(Error::FormatTooNew { found: 2, max: 1, .. })));
    }

    #[test]
    fn only_twenty_digits_name_a_segment() {
        let path = path_of(Path::new("log"), Seq::new(42));
        assert_eq!(path, Path::new("log/00000000000000000042.seg"));
        assert_eq!(first_in_name(&path), Some(Seq::new(42)));
        for other in [
            "42.seg",
            "00000000000000000000.seg",
            "+0000000000000000042.seg",
            "99999999999999999999.seg",
            "00000000000000000042.tmp",
            "00000000000000000042.seg.bak",
        ] {
            assert_eq!(first_in_name(Path::new(other)), None, "{other}");
        }
    }
}
