//! The log's segments, read by a second reader that knows the layout and nothing else.
//!
//! Knows: where header, seal and frames lie, and what they say. It takes what an undamaged database
//! wrote for granted: hashes are not verified here.
//!
//! ```text
//! segment   0 header block 512 (first sequence at 32) | 512 seal block 512, zeros when not sealed
//!           (last sequence at 40) | 1024 frames
//! frame     0 magic 4 | 4 body length u32 | 8 kind | 16 sequence u64 | 32 synced through u64 | 88 body
//! ```

use std::fs;
use std::path::Path;

/// Where the seal of a segment begins.
pub const SEAL_AT: u64 = 512;
/// Where its frames begin.
pub const FRAMES_AT: u64 = 1_024;
/// The bytes of a frame before its body.
pub const FRAME_HEADER_BYTES: u64 = 88;
/// Where a frame says how long its body is.
pub const BODY_LENGTH_AT: u64 = 4;

/// From here on kinds of frames are the engine's own.
const CONTROL_KINDS: u8 = 128;

const MAGIC: &[u8] = b"\xfftF\xfe";

/// A segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its path below the database: `log/….seg`.
    pub file: String,
    /// The first sequence.
    pub first: u64,
    /// The last sequence by its seal, if it has one.
    pub sealed: Option<u64>,
    /// Its frames, in order.
    pub frames: Vec<Frame>,
    /// Where the last frame ends.
    pub end: u64,
    /// The size of the file, with what is filled ahead.
    pub size_bytes: u64,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Its sequence.
    pub seq: u64,
    /// Whether it is an operation, and not one of the engine's own.
    pub is_operation: bool,
    /// The sequence that was synced when it was built.
    pub synced: u64,
    /// Where it begins in the segment.
    pub offset: u64,
    /// Header and body.
    pub size_bytes: u64,
}

/// The segments of the database in a directory, in order.
pub fn segments_of(database: &Path) -> Vec<Segment> {
    let mut names: Vec<String> = fs::read_dir(database.join("log"))
        .expect("the log is listed")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("it is text"))
        .filter(|name| name.ends_with(".seg"))
        .collect();
    names.sort_unstable();
    names.into_iter().map(|name| segment(database, &format!("log/{name}"))).collect()
}

fn segment(database: &Path, file: &str) -> Segment {
    parse(file, fs::read(database.join(file)).expect("a segment is read"))
}

/// What lies in a file of the log.
pub fn parse(file: &str, bytes: Vec<u8>) -> Segment {
    let mut frames = Vec::new();
    let mut offset = FRAMES_AT as usize;
    while bytes[offset..].starts_with(MAGIC) {
        let length = u32::from_le_bytes(array(&bytes, offset + BODY_LENGTH_AT as usize));
        let size_bytes = FRAME_HEADER_BYTES + u64::from(length);
        frames.push(Frame {
            seq: u64::from_le_bytes(array(&bytes, offset + 16)),
            is_operation: bytes[offset + 8] < CONTROL_KINDS,
            synced: u64::from_le_bytes(array(&bytes, offset + 32)),
            offset: offset as u64,
            size_bytes,
        });
        offset += size_bytes as usize;
    }
    let seal = SEAL_AT as usize;
    let sealed = bytes[seal..].starts_with(b"TIDALEND");
    Segment {
        file: file.to_owned(),
        first: u64::from_le_bytes(array(&bytes, 32)),
        sealed: sealed.then(|| u64::from_le_bytes(array(&bytes, seal + 40))),
        frames,
        end: offset as u64,
        size_bytes: bytes.len() as u64,
        bytes,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as many bytes")
}

impl Segment {
    /// The bytes of a frame.
    pub fn frame_bytes(&self, frame: &Frame) -> &[u8] {
        &self.bytes[frame.offset as usize..(frame.offset + frame.size_bytes) as usize]
    }
}
