//! Reads every segment of a log and says what is there.
//!
//! Knows: which files are segments, which frames in them verify, what they prove. Must not know:
//! whether what is bad is a torn tail or damage; and it never writes.
//!
//! One segment is in memory at a time. They are read from the last to the first, because a segment
//! ends where its successor begins, whatever lies behind: when a crash interrupted an open, frames
//! that were written anew into the successor still lie in the old segment too.

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{self, FrameHash, MAGIC};
use super::segment::{self, Seal, SealState, SegmentHeader, Walk};
use crate::error::{Error, Result};
use crate::ids::DatabaseId;
use crate::seq::Seq;
use crate::storage::Disk;

/// What lies in the directory of a log.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) database: DatabaseId,
    /// In order of their names.
    pub(super) segments: Vec<SegmentScan>,
    /// Files that never got the name of a segment.
    pub(super) leftovers: Vec<PathBuf>,
}

/// What one segment file holds.
#[derive(Debug)]
pub(super) struct SegmentScan {
    pub(super) path: PathBuf,
    /// The first sequence, by its name.
    pub(super) name: Seq,
    /// `None` when the header does not verify.
    pub(super) header: Option<SegmentHeader>,
    pub(super) seal: SealState,
    /// The sequence after the last frame of the unbroken run from the first.
    pub(super) next: Seq,
    /// Where that frame ends.
    pub(super) offset: u64,
    /// Its hash; the header's predecessor when there is none.
    pub(super) hash: FrameHash,
    /// Why the run ends, if not at the end.
    pub(super) flaw: Option<String>,
    /// What lies behind the run.
    pub(super) rest: Rest,
    /// The highest position that anything in the file proves synced.
    pub(super) proven: Seq,
}

/// What lies behind the unbroken run of a segment.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Rest {
    /// Bytes, zeros at the end not counted.
    pub(super) size_bytes: u64,
    /// Whole frames that verify alone.
    pub(super) frames: u64,
    /// The highest position that their headers prove synced.
    proven: Seq,
}

impl Scan {
    /// Reads and verifies everything in the log directory `dir`, and writes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::FormatTooNew`]; [`Error::Corrupt`] for a segment of another database or under
    /// another's name, and for a directory without segments; [`Error::Io`] and its relatives.
    pub(crate) fn run(disk: Arc<dyn Disk>, dir: PathBuf, database: DatabaseId) -> Result<Self> {
        let paths = disk.list_dir(&dir).map_err(|e| Error::io("list", &dir, e))?;
        let leftovers = paths.iter().filter(|path| segment::is_temporary(path)).cloned().collect();
        let mut names: Vec<(Seq, PathBuf)> = paths
            .into_iter()
            .filter_map(|path| segment::first_in_name(&path).map(|name| (name, path)))
            .collect();
        names.sort_unstable();
        if names.is_empty() {
            return Err(Error::corrupt(format!("the log in {}", dir.display()), "has no segment"));
        }
        let mut segments = Vec::with_capacity(names.len());
        let mut limit = None;
        for (name, path) in names.into_iter().rev() {
            let bytes = disk.read_file(&path).map_err(|e| Error::io("read", &path, e))?;
            let header = SegmentHeader::parse(&bytes, &path, name, database)?;
            segments.push(match header {
                Some(header) => SegmentScan::of(header, path, &bytes, limit),
                None => SegmentScan::headless(database, name, path, &bytes),
            });
            limit = header.map(|header| header.first).or(limit);
        }
        segments.reverse();
        Ok(Self { disk, dir, database, segments, leftovers })
    }

    /// The highest position that anything in the log proves synced.
    pub(crate) fn proven(&self) -> Seq {
        self.segments.iter().map(|segment| segment.proven).max().unwrap_or(Seq::ZERO)
    }
}

impl SegmentScan {
    /// A segment whose successor begins with `limit`.
    fn of(header: SegmentHeader, path: PathBuf, bytes: &[u8], limit: Option<Seq>) -> Self {
        let seal = SealState::parse(bytes, &header);
        let before_first = Seq::new(header.first.get() - 1);
        let (end, sealed_through) = match seal {
            SealState::Sealed(Seal { last, length, .. }) => {
                (usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len()), last)
            }
            SealState::Absent | SealState::Torn => (bytes.len(), before_first),
        };
        let mut walk = Walk::new(&header, &bytes[..end]);
        let mut proven = before_first.max(sealed_through);
        let mut flaw = None;
        while Some(walk.next) != limit {
            match walk.step() {
                Ok(Some((header, _))) => proven = proven.max(header.place.synced),
                Ok(None) => break,
                Err(found) => {
                    flaw = Some(found.to_string());
                    break;
                }
            }
        }
        let rest = Rest::of(&header.database, bytes.get(walk.offset..).unwrap_or_default());
        Self {
            path,
            name: header.first,
            header: Some(header),
            seal,
            next: walk.next,
            offset: walk.offset as u64,
            hash: walk.hash,
            flaw,
            rest,
            proven: proven.max(rest.proven),
        }
    }

    fn headless(database: DatabaseId, name: Seq, path: PathBuf, bytes: &[u8]) -> Self {
        let rest = Rest::of(&database, bytes);
        Self {
            path,
            name,
            header: None,
            seal: SealState::Absent,
            next: name,
            offset: 0,
            hash: frame::GENESIS,
            flaw: Some("the segment's header does not verify".to_owned()),
            rest,
            proven: rest.proven,
        }
    }
}

impl Rest {
    /// Looks for frames at every byte: one that verifies alone proves its mark wherever it lies.
    fn of(database: &DatabaseId, bytes: &[u8]) -> Self {
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let mut rest = Self { size_bytes: used as u64, ..Self::default() };
        // A frame may end in zeros, so frames are looked for in all of it.
        let mut offset = 0;
        while let Some(distance) = find_magic(&bytes[offset..]) {
            offset += distance;
            let candidate = &bytes[offset..];
            let header = frame::parse_header(database, candidate);
            if let Ok(header) = &header {
                rest.proven = rest.proven.max(header.place.synced);
            }
            offset += match header.and_then(|header| header.frame(candidate).map(|_| header)) {
                Ok(header) => {
                    rest.frames += 1;
                    header.frame_len()
                }
                Err(_) => 1,
            };
        }
        rest
    }
}

pub(super) fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MAGIC.len()).position(|window| window == MAGIC)
}
