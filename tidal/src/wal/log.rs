//! The log, open for appending; owned by one thread.
//!
//! Knows: groups, syncs, when a segment is full, which segments may go. Must not know: who waits,
//! what a frame says, how a log that a crash left is opened.
//!
//! `appended ≥ written ≥ synced`. A group is all frames appended since the last write; it is written
//! whole, into one segment. Files are filled with zeros ahead of the frames, so that most syncs
//! have no new size or extent to journal; nothing depends on those.
//!
//! The first failure of a write or sync is returned as it is and latches: everything after it is
//! [`Error::Stopped`], no sync is ever tried again, and the way back is to reopen.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{self, FrameBody, FrameHash, GENESIS, Place};
use super::segment::{self, FRAMES_AT, Seal, SegmentHeader};
use crate::error::{Error, Result};
use crate::fault::{CrashPoint, Faults};
use crate::ids::{DatabaseId, Timestamp};
use crate::seq::Seq;
use crate::storage::{Disk, DiskFile};

/// How far zeros are written ahead of the frames.
const FILL_STEP_BYTES: usize = 1 << 20;

/// A group of this size is not worth filling ahead for: its own bytes outweigh the journal's.
const FILL_GROUP_BYTES_MAX: usize = FILL_STEP_BYTES / 4;

static ZEROS: [u8; FILL_STEP_BYTES] = [0; FILL_STEP_BYTES];

/// A group buffer that has grown larger than this is given back.
const GROUP_KEPT_BYTES_MAX: usize = 8 << 20;

/// How a log is written.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    /// A group that would make its segment larger than this goes to a new one.
    pub(crate) segment_size_bytes: u64,
    pub(crate) faults: Faults,
}

/// The log, open for appending.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    database: DatabaseId,
    options: LogOptions,
    /// Sealed segments, the oldest first.
    older: VecDeque<Older>,
    current: Current,
    /// Frames that are appended and not yet written.
    group: Vec<u8>,
    appended: Seq,
    written: Seq,
    synced: Seq,
    appended_hash: FrameHash,
    written_hash: FrameHash,
    appended_bytes: u64,
    /// Whether a [`SyncJob`] is out.
    syncing: bool,
    /// The failure that stopped the log.
    failure: Option<String>,
}

/// A sealed segment.
#[derive(Debug)]
pub(super) struct Older {
    pub(super) path: PathBuf,
    pub(super) last: Seq,
    pub(super) size_bytes: u64,
}

/// The segment that takes the next frames.
#[derive(Debug)]
pub(super) struct Current {
    path: PathBuf,
    first: Seq,
    file: Arc<dyn DiskFile>,
    /// Where the next group goes.
    end: u64,
    /// Up to where the file has bytes.
    filled: u64,
}

/// A sync that may run on another thread while the log is appended and written to.
#[derive(Debug)]
#[must_use = "the log waits for the result: give it to finish_sync"]
pub(crate) struct SyncJob {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    through: Seq,
}

/// The outcome of a [`SyncJob`].
#[derive(Debug)]
#[must_use = "give it to finish_sync"]
pub(crate) struct SyncDone {
    path: PathBuf,
    through: Seq,
    result: io::Result<()>,
}

impl SyncJob {
    /// Syncs.
    pub(crate) fn run(self) -> SyncDone {
        SyncDone { result: self.file.sync(), path: self.path, through: self.through }
    }
}

impl Log {
    /// Makes the log of a new database in the directory `dir`, whose parent exists and is synced by
    /// the caller.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and its relatives, also when a log is already there.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        database: DatabaseId,
        options: LogOptions,
    ) -> Result<Self> {
        Self::create_at(disk, dir, database, (Seq::ZERO, GENESIS), options)
    }

    /// As [`create`](Self::create), for a log that goes on behind a position, given with the hash of
    /// its frame.
    pub(crate) fn create_at(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        database: DatabaseId,
        (last, hash): (Seq, FrameHash),
        options: LogOptions,
    ) -> Result<Self> {
        disk.create_dir(&dir).map_err(|e| Error::io("create", &dir, e))?;
        let header = SegmentHeader { database, first: last.next(), predecessor: hash };
        let current = Current::create(&*disk, &dir, &header)?;
        let place = (disk, dir, database, options);
        Ok(Self::resume(place, VecDeque::new(), current, (last, hash)))
    }

    /// A log whose last frame and its hash are `last`, all of it synced.
    pub(super) fn resume(
        (disk, dir, database, options): (Arc<dyn Disk>, PathBuf, DatabaseId, LogOptions),
        older: VecDeque<Older>,
        current: Current,
        (last, hash): (Seq, FrameHash),
    ) -> Self {
        Self {
            disk,
            dir,
            database,
            options,
            older,
            current,
            group: Vec::new(),
            appended: last,
            written: last,
            synced: last,
            appended_hash: hash,
            written_hash: hash,
            appended_bytes: 0,
            syncing: false,
            failure: None,
        }
    }

    /// Adds a frame to the group. On a stopped log it goes nowhere, as
    /// [`write_group`](Self::write_group) will say.
    pub(crate) fn append(&mut self, time: Timestamp, body: &FrameBody) -> Seq {
        let seq = self.appended.next();
        let place = Place { seq, time, synced: self.synced, predecessor: self.appended_hash };
        self.appended_hash = frame::encode(&self.database, &place, body, &mut self.group);
        self.appended = seq;
        self.appended_bytes += body.frame_size_bytes();
        seq
    }

    /// Whether the next [`write_group`](Self::write_group) begins a new segment, which it cannot
    /// while a [`SyncJob`] is out: of two syncs of one file only one learns of a failure.
    pub(crate) fn group_rolls(&self) -> bool {
        let end = self.current.end + self.group.len() as u64;
        !self.group.is_empty()
            && self.current.end > FRAMES_AT
            && end > self.options.segment_size_bytes
    }

    /// Writes all frames of the group at once.
    ///
    /// # Errors
    ///
    /// The first failure as it is ([`Error::DiskFull`], [`Error::Io`] …), [`Error::Stopped`] ever
    /// after.
    ///
    /// # Panics
    ///
    /// When the group [rolls](Self::group_rolls) while a [`SyncJob`] is out.
    pub(crate) fn write_group(&mut self) -> Result<()> {
        self.check()?;
        if self.group.is_empty() {
            return Ok(());
        }
        if self.group_rolls() {
            let rolled = self.roll();
            self.latch(rolled)?;
        }
        let written = self.current.write(&self.group, self.options.segment_size_bytes);
        self.latch(written)?;
        self.written = self.appended;
        self.written_hash = self.appended_hash;
        self.group.clear();
        self.group.shrink_to(GROUP_KEPT_BYTES_MAX);
        Ok(())
    }

    /// Syncs everything written; returns the position that is synced now.
    ///
    /// # Errors
    ///
    /// As [`write_group`](Self::write_group).
    ///
    /// # Panics
    ///
    /// When a [`SyncJob`] is out.
    pub(crate) fn sync(&mut self) -> Result<Seq> {
        let job = self.begin_sync()?;
        self.finish_sync(job.run())
    }

    /// Begins a sync of everything written. Its outcome must come back to
    /// [`finish_sync`](Self::finish_sync) before the next one.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    ///
    /// # Panics
    ///
    /// When a [`SyncJob`] is out.
    pub(crate) fn begin_sync(&mut self) -> Result<SyncJob> {
        self.check()?;
        assert!(!self.syncing, "one sync at a time: only one of two learns of a failure");
        self.syncing = true;
        let Current { file, path, .. } = &self.current;
        Ok(SyncJob { file: Arc::clone(file), path: path.clone(), through: self.written })
    }

    /// Takes note of the outcome of a sync; returns the position that is synced now.
    ///
    /// # Errors
    ///
    /// As [`write_group`](Self::write_group): a log that stopped meanwhile confirms nothing more.
    pub(crate) fn finish_sync(&mut self, done: SyncDone) -> Result<Seq> {
        assert!(self.syncing, "a sync ends once");
        self.syncing = false;
        self.check()?;
        let result = done.result.map_err(|e| Error::io("sync", &done.path, e));
        self.latch(result)?;
        assert!(self.synced <= done.through && done.through <= self.written, "positions only grow");
        self.synced = done.through;
        Ok(self.synced)
    }

    /// Removes whole segments that end at or below `seq`, the oldest first; returns how many. What
    /// the file system refuses to remove stays, and is tried again next time.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`].
    ///
    /// # Panics
    ///
    /// When `seq` is not synced.
    pub(crate) fn truncate_through(&mut self, seq: Seq) -> Result<u64> {
        self.check()?;
        assert!(seq <= self.synced, "only what was synced, and checkpointed since, is truncated");
        let mut removed = 0;
        while let Some(oldest) = self.older.front().filter(|segment| segment.last <= seq) {
            match self.disk.remove_file(&oldest.path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // Going on would leave a hole where there need be none.
                    let path = oldest.path.display();
                    tracing::warn!(%path, %error, "a log segment cannot be removed yet");
                    break;
                }
            }
            self.older.pop_front();
            self.options.faults.reach(CrashPoint::SegmentRemoved);
        }
        Ok(removed)
    }

    /// The position of the last frame appended.
    pub(crate) const fn appended(&self) -> Seq {
        self.appended
    }

    /// The position of the last frame handed to the operating system.
    #[cfg(test)]
    pub(crate) const fn written(&self) -> Seq {
        self.written
    }

    /// The position through which everything survives a power cut.
    pub(crate) const fn synced(&self) -> Seq {
        self.synced
    }

    /// The hash of the last frame appended.
    pub(crate) const fn last_hash(&self) -> FrameHash {
        self.appended_hash
    }

    /// Bytes of all frames appended since the log was opened: a counter to take differences of.
    pub(crate) const fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// The size of all segments, in bytes, what is filled ahead not counted.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.older.iter().map(|segment| segment.size_bytes).sum::<u64>() + self.current.end
    }

    /// How many segments there are.
    #[cfg(test)]
    pub(crate) fn segment_count(&self) -> usize {
        self.older.len() + 1
    }

    /// Begins a new segment. The old one is synced before the new one exists, so that its header
    /// proves all that is before it; the seal is durable before the new one takes a frame.
    fn roll(&mut self) -> Result<()> {
        assert!(!self.syncing, "a segment cannot be left while it is being synced");
        let old = &self.current;
        old.file.sync().map_err(|e| Error::io("sync", &old.path, e))?;
        self.synced = self.written;
        self.options.faults.reach(CrashPoint::RollSynced);

        let header = SegmentHeader {
            database: self.database,
            first: self.written.next(),
            predecessor: self.written_hash,
        };
        let new = Current::create(&*self.disk, &self.dir, &header)?;
        self.options.faults.reach(CrashPoint::RollCreated);
        let seal = Seal { last: self.written, length: old.end, hash: self.written_hash };
        segment::seal(&*old.file, &old.path, self.database, old.first, &seal)?;
        self.options.faults.reach(CrashPoint::RollSealed);

        let old = std::mem::replace(&mut self.current, new);
        let older = Older { path: old.path, last: self.written, size_bytes: old.end };
        self.older.push_back(older);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match &self.failure {
            Some(reason) => Err(Error::Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn latch<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.failure = Some(error.to_string());
        }
        result
    }
}

impl Current {
    /// A segment in which frames lie up to `end`.
    pub(super) const fn new(path: PathBuf, first: Seq, file: Arc<dyn DiskFile>, end: u64) -> Self {
        Self { path, first, file, end, filled: end }
    }

    /// A new segment that survives a power cut.
    fn create(disk: &dyn Disk, dir: &std::path::Path, header: &SegmentHeader) -> Result<Self> {
        let path = segment::path_of(dir, header.first);
        let file = disk.create_file(&path).map_err(|e| Error::io("create", &path, e))?;
        file.write_at(0, &header.encode()).map_err(|e| Error::io("write", &path, e))?;
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
        disk.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
        Ok(Self::new(path, header.first, file, FRAMES_AT))
    }

    /// Writes a group, and zeros behind it when it has used up those that were there.
    fn write(&mut self, group: &[u8], segment_size_bytes: u64) -> Result<()> {
        let failed = |e| Error::io("write", &self.path, e);
        self.file.write_at(self.end, group).map_err(failed)?;
        self.end += group.len() as u64;
        if self.end <= self.filled {
            return Ok(());
        }
        self.filled = self.end;
        let room = segment_size_bytes.saturating_sub(self.end).min(FILL_STEP_BYTES as u64);
        if group.len() <= FILL_GROUP_BYTES_MAX && room > 0 {
            self.fill(room);
        }
        Ok(())
    }

    /// Zeros behind the frames only save time, and the next group writes over them: where they cannot be
    /// written, as on a disk that has room for the group and not for them, nothing is lost.
    fn fill(&mut self, room: u64) {
        match self.file.write_at(self.end, &ZEROS[..room as usize]) {
            Ok(()) => self.filled += room,
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "the log is not filled ahead");
            }
        }
    }
}
