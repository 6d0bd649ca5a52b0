//! What can be saved of a log that is damaged where it was proven whole.
//!
//! Knows: which frames follow a position, one after the other, wherever they lie. Must not know: where
//! the position comes from, what a frame says.
//!
//! The tail rule refuses such a log, since to cut it would lose what was acknowledged. A salvage is
//! what the caller asks for when nothing better is left: a frame is believed if it verifies alone and
//! names the hash of the one before it, headers and seals of segments are not needed, and the first
//! frame that is nowhere ends it. Frames are written into a new log; nothing of the old is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, FrameBody, FrameHash, Header};
use super::log::{Log, LogOptions};
use super::scan::find_magic;
use super::segment::first_in_name;
use crate::error::{Error, Result};
use crate::ids::DatabaseId;
use crate::seq::Seq;
use crate::storage::Disk;

/// A group of the new log is written when it has this many bytes.
const GROUP_BYTES: u64 = 1 << 20;

/// How far a salvage came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salvaged {
    /// The last position that was saved.
    pub(crate) last: Seq,
    /// The highest position that the old log proves to have been synced.
    pub(crate) proven: Seq,
}

/// Copies every frame behind `base`, a position and the hash of its frame, that follows without a break
/// from the log in `from` into a new log in `to`, where nothing lies yet.
///
/// # Errors
///
/// [`Error::Io`] and its relatives. What is then in `to` is of no use.
pub(crate) fn salvage(
    disk: &Arc<dyn Disk>,
    from: &Path,
    to: PathBuf,
    database: DatabaseId,
    base: (Seq, FrameHash),
    options: LogOptions,
) -> Result<Salvaged> {
    let mut saver = Saver {
        database,
        log: Log::create_at(Arc::clone(disk), to, database, base, options)?,
        last: base.0,
        hash: base.1,
        proven: base.0,
        written_bytes: 0,
    };
    let paths = segments_in(&**disk, from)?;
    loop {
        let before = saver.last;
        for path in &paths {
            let bytes = disk.read_file(path).map_err(|e| Error::io("read", path, e))?;
            saver.save_all(&bytes)?;
        }
        // A frame may lie in front of the one before it.
        if saver.last == before {
            break;
        }
    }
    saver.log.write_group()?;
    saver.log.sync()?;
    Ok(Salvaged { last: saver.last, proven: saver.proven })
}

/// The files that have the name of a segment, in order; none if there is no such directory.
fn segments_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>> {
    if !disk.exists(dir).map_err(|e| Error::io("look at", dir, e))? {
        return Ok(Vec::new());
    }
    let mut paths = disk.list_dir(dir).map_err(|e| Error::io("list", dir, e))?;
    paths.retain(|path| first_in_name(path).is_some());
    Ok(paths)
}

struct Saver {
    database: DatabaseId,
    log: Log,
    /// The last frame saved, and its hash in the old log; the new one has hashes of its own.
    last: Seq,
    hash: FrameHash,
    proven: Seq,
    written_bytes: u64,
}

impl Saver {
    /// Looks for frames at every byte.
    fn save_all(&mut self, bytes: &[u8]) -> Result<()> {
        let mut offset = 0;
        while let Some(distance) = find_magic(&bytes[offset..]) {
            offset += distance;
            let candidate = &bytes[offset..];
            offset += match frame::parse_header(&self.database, candidate) {
                Ok(header) => {
                    self.proven = self.proven.max(header.place.synced);
                    self.save(&header, candidate)?
                }
                Err(_) => 1,
            };
        }
        Ok(())
    }

    /// Saves a frame if it is the next; returns how many bytes need not be looked at.
    fn save(&mut self, header: &Header, candidate: &[u8]) -> Result<usize> {
        let Ok(frame) = header.frame(candidate) else { return Ok(1) };
        if frame.seq == self.last.next() && header.place.predecessor == self.hash {
            let body = FrameBody::new(frame.kind, frame.record_count, frame.body.to_vec())?;
            let seq = self.log.append(frame.time, &body);
            assert_eq!(seq, frame.seq, "a saved frame keeps its position");
            (self.last, self.hash) = (frame.seq, header.hash);
            if self.log.appended_bytes() - self.written_bytes >= GROUP_BYTES {
                self.log.write_group()?;
                self.written_bytes = self.log.appended_bytes();
            }
        }
        Ok(header.frame_len())
    }
}
