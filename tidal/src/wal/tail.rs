//! Where a log ends, and how it becomes ready for appending again.
//!
//! Knows: the tail rule. Must not know: what a frame says.
//!
//! The rule: K is the highest position proven synced (see the room's page). A bad or missing frame
//! above K ends the log, and it and everything behind it is cut. At or below K it is damage, and
//! nothing is written.
//!
//! An old segment is never appended to, because what can be read of it after a failed sync or a
//! kill need not be on the disk. [`Tail::finish`] copies every frame above K into a new segment:
//!
//! 1. remove what never was a segment, and what lies before a hole;
//! 2. write the new segment under a temporary name, sync it, rename it, sync the directory;
//! 3. cut the old segment behind K and seal it.
//!
//! Every frame above K lies in the last segment, because a segment's header proves all that is
//! before it. If K is right before that segment, the new one has its name and replaces it. A crash
//! between any two of these steps leaves a log of which the same K and the same frames are read.

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{Frame, FrameHash};
use super::log::{Current, Log, LogOptions, Older};
use super::report::{Cut, Hole, LogReport};
use super::scan::{Scan, SegmentScan};
use super::segment::{self, SEAL_AT, Seal, SealState, SegmentHeader, Walk};
use crate::error::{Error, Result};
use crate::fault::{CrashPoint, Faults};
use crate::ids::DatabaseId;
use crate::seq::Seq;
use crate::storage::Disk;

/// A log of which it is known where it ends; nothing has been written yet.
#[derive(Debug)]
pub(crate) struct Tail {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    database: DatabaseId,
    /// Segments with a valid header, in order; the last one holds the end of the log.
    segments: Vec<Part>,
    /// The first of them after the last hole.
    start: usize,
    proven: Seq,
    hole: Option<Hole>,
    cut: Option<Cut>,
    /// Files that are no segments.
    leftovers: Vec<PathBuf>,
}

/// A segment and the run of frames it is believed to hold.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    header: SegmentHeader,
    /// The sequence after its last frame.
    next: Seq,
    end: Seal,
    /// Whether it is proven that the seal is durable: one that can be read may yet have failed to
    /// sync.
    sealed: bool,
}

impl Scan {
    /// Applies the tail rule. `checkpoints` are the verified ones: each one's sequence and the hash
    /// of the log's frame at it.
    ///
    /// # Errors
    ///
    /// [`Error::CorruptLog`] and [`Error::LogGap`] for damage at or below K; [`Error::Corrupt`]
    /// when a checkpoint was made of another history; [`Error::Io`] and its relatives.
    pub(crate) fn resolve(self, checkpoints: &[(Seq, FrameHash)]) -> Result<Tail> {
        // Truncation stops at the older checkpoint, but that store may since have lost, silently, the
        // one it stopped at, and show the one before it. What lies behind the newest must be there.
        let needed = checkpoints.iter().map(|&(seq, _)| seq).max().unwrap_or(Seq::ZERO).next();
        self.resolve_from(checkpoints, needed)
    }

    fn resolve_from(mut self, checkpoints: &[(Seq, FrameHash)], needed: Seq) -> Result<Tail> {
        let found = self.segments.iter().map(|segment| segment.proven).max().unwrap_or(Seq::ZERO);
        let proven = checkpoints.iter().map(|&(seq, _)| seq).fold(found, Seq::max);

        let unborn = self.take_unborn(proven);
        self.check_headers()?;
        let (start, hole) = self.check_links(found, needed)?;
        let cut = self.check_end(proven, unborn.as_ref())?;

        let mut leftovers = self.leftovers;
        leftovers.extend(unborn.map(|segment| segment.path));
        let segments = Part::all(&self.segments, found);
        let Self { disk, dir, database, .. } = self;
        let tail = Tail { disk, dir, database, segments, start, proven, hole, cut, leftovers };
        for &(seq, hash) in checkpoints {
            tail.check_history(seq, hash)?;
        }
        Ok(tail)
    }

    /// As [`resolve`](Self::resolve), for a log that its engine has open and at rest: whatever begins
    /// it was checkpointed before the segments before it were removed.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub(crate) fn resolve_as_is(self) -> Result<Tail> {
        let first = self.segments.first().map_or(Seq::ZERO.next(), |segment| segment.name);
        self.resolve_from(&[], first)
    }

    /// Takes away a last segment that a crash kept from becoming one: its header was never synced,
    /// since the one before it is not sealed.
    fn take_unborn(&mut self, proven: Seq) -> Option<SegmentScan> {
        let [.., before, last] = self.segments.as_slice() else { return None };
        let unborn = last.header.is_none()
            && before.header.is_some()
            && before.seal == SealState::Absent
            && proven < last.name;
        if unborn { self.segments.pop() } else { None }
    }

    fn check_headers(&self) -> Result<()> {
        for (index, segment) in self.segments.iter().enumerate() {
            if segment.header.is_some() {
                continue;
            }
            return Err(match self.segments.get(index + 1) {
                Some(after) if segment.rest.size_bytes == 0 => {
                    Error::LogGap { from: segment.name, to: before(after.name) }
                }
                _ => segment.corrupt(0, "the segment's header does not verify"),
            });
        }
        Ok(())
    }

    /// Every segment must end where the next begins. Returns the index of the first segment of the
    /// unbroken rest, and the hole in front of it.
    ///
    /// `found` is what the log alone proves. A checkpoint does not show that a segment was sealed:
    /// an open that did not know of it may have begun the next segment and died before the seal.
    fn check_links(&self, found: Seq, needed: Seq) -> Result<(usize, Option<Hole>)> {
        let mut start = (0, None);
        if let [first, ..] = self.segments.as_slice()
            && first.name > needed
        {
            return Err(Error::LogGap { from: needed, to: before(first.name) });
        }
        let pairs = self.segments.iter().zip(self.segments.iter().skip(1));
        for (index, (segment, after)) in pairs.enumerate() {
            segment.check_seal()?;
            if segment.next != after.name {
                start = (index + 1, Some(segment.hole_before(after, needed)?));
            } else if after.header.is_some_and(|header| header.predecessor != segment.hash) {
                return Err(after.corrupt(0, "the segment follows another history"));
            } else if found >= after.name && !segment.is_sealed() {
                // The seal was durable before the next segment took a frame.
                return Err(segment.corrupt(SEAL_AT, "the segment's seal is gone"));
            }
        }
        Ok(start)
    }

    /// The last segment must reach K; what is bad in it above K is cut.
    fn check_end(&self, proven: Seq, unborn: Option<&SegmentScan>) -> Result<Option<Cut>> {
        let last = self.segments.last().expect("a scan has segments, and a sole one is not unborn");
        match last.seal {
            SealState::Absent => {}
            SealState::Torn => return Err(last.corrupt(SEAL_AT, "the segment's seal is torn")),
            SealState::Sealed(_) => {
                last.check_seal()?;
                return Err(last.corrupt(last.offset, "the segment after a sealed one is missing"));
            }
        }
        if last.next <= proven {
            let reason = last.flaw.as_deref().unwrap_or("the log ends here");
            let detail = format!("{reason}, but the log was proven synced through {proven}");
            return Err(last.corrupt(last.offset, &detail));
        }
        let lost = |part: &SegmentScan| (part.rest.size_bytes, part.rest.frames);
        let (own, later) = (lost(last), unborn.map_or((0, 0), lost));
        if own.0 + later.0 == 0 {
            return Ok(None);
        }
        let flaw = last.flaw.as_ref().or(unborn.and_then(|segment| segment.flaw.as_ref()));
        Ok(Some(Cut {
            segment: last.path.clone(),
            offset: last.offset,
            seq: last.next,
            size_bytes: own.0 + later.0,
            frames: own.1 + later.1,
            reason: flaw.cloned().unwrap_or_else(|| "bytes behind the last frame".to_owned()),
        }))
    }
}

impl SegmentScan {
    fn corrupt(&self, offset: u64, detail: &str) -> Error {
        let segment = self.path.clone();
        Error::CorruptLog { segment, offset, seq: self.next, detail: detail.to_owned() }
    }

    const fn is_sealed(&self) -> bool {
        matches!(self.seal, SealState::Sealed(_))
    }

    /// The end of the run of frames.
    const fn end(&self) -> Seal {
        Seal { last: before(self.next), length: self.offset, hash: self.hash }
    }

    /// A sealed segment must hold exactly what it was sealed with.
    fn check_seal(&self) -> Result<()> {
        match self.seal {
            SealState::Sealed(seal) if seal != self.end() => {
                let reason = self.flaw.as_deref().unwrap_or("the frames end here");
                let detail = format!("{reason}, but the segment was sealed at {}", seal.last);
                Err(self.corrupt(self.offset, &detail))
            }
            _ => Ok(()),
        }
    }

    /// The sequences missing between this segment and `after`, if an interrupted truncation can
    /// have removed them.
    fn hole_before(&self, after: &Self, needed: Seq) -> Result<Hole> {
        let hole = (self.next, before(after.name));
        if self.is_sealed() && after.name <= needed {
            return Ok(hole);
        }
        match &self.flaw {
            Some(flaw) => Err(self.corrupt(self.offset, flaw)),
            None => Err(Error::LogGap { from: hole.0, to: hole.1 }),
        }
    }
}

impl Part {
    /// A seal is proven durable by a proven frame behind it.
    fn all(segments: &[SegmentScan], found: Seq) -> Vec<Self> {
        let after = segments.iter().skip(1).map(|after| found >= after.name);
        let sealed = after.chain([false]);
        segments
            .iter()
            .zip(sealed)
            .map(|(segment, sealed)| Self {
                path: segment.path.clone(),
                header: segment.header.expect("check_headers refuses a segment without one"),
                next: segment.next,
                end: segment.end(),
                sealed,
            })
            .collect()
    }
}

impl Tail {
    /// The first sequence still in the log; one past [`last`](Self::last) when it has no frames.
    pub(crate) fn first(&self) -> Seq {
        self.rest()[0].header.first
    }

    /// The last sequence of the log.
    pub(crate) fn last(&self) -> Seq {
        before(self.end().next)
    }

    /// K: the highest sequence proven synced.
    pub(crate) const fn proven(&self) -> Seq {
        self.proven
    }

    /// The torn tail that [`finish`](Self::finish) will cut.
    #[cfg(test)]
    pub(crate) const fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Hands every frame after `after` to `each`, in order, until it returns an error.
    ///
    /// # Errors
    ///
    /// The first error of `each`; [`Error::LogGap`] when frames after `after` were truncated;
    /// [`Error::CorruptLog`] when a segment no longer reads as it did; [`Error::Io`].
    pub(crate) fn replay(
        &self,
        after: Seq,
        mut each: impl FnMut(Frame<'_>) -> Result<()>,
    ) -> Result<()> {
        let first = self.first();
        if after.next() < first {
            return Err(Error::LogGap { from: after.next(), to: before(first) });
        }
        let wanted = self.rest().iter().filter(|part| part.end.last > after);
        for part in wanted {
            let bytes = self.read(part)?;
            let mut walk = Walk::new(&part.header, &bytes);
            while walk.next < part.next {
                let frame = part.step(&mut walk)?;
                if frame.seq > after {
                    each(frame)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the log ready for appending: everything in it is synced then.
    ///
    /// # Errors
    ///
    /// [`Error::CorruptLog`] when a segment no longer reads as it did; [`Error::Io`] and its
    /// relatives. The log can be scanned again after any of them.
    pub(crate) fn finish(mut self, options: LogOptions) -> Result<(Log, LogReport)> {
        for path in &self.leftovers {
            self.disk.remove_file(path).map_err(|e| Error::io("remove", path, e))?;
        }
        self.finish_truncation();
        let (last, last_hash, first) = (self.last(), self.end().end.hash, self.first());
        let faults = &options.faults;
        faults.reach(CrashPoint::LeftoversRemoved);
        let fresh = self.copy_unproven()?;
        let current = self.name(&fresh, faults)?;
        faults.reach(CrashPoint::UnprovenNamed);
        self.seal_all(&fresh)?;
        faults.reach(CrashPoint::TailSealed);

        let report = LogReport {
            first,
            last,
            proven: self.proven,
            frames_kept: last.get() + 1 - first.get(),
            frames_copied: last.get() - self.proven.get(),
            segments: self.segments.len() + 1,
            hole: self.hole,
            cut: self.cut,
        };
        let older = self.segments.into_iter().map(|part| Older {
            path: part.path,
            last: part.end.last,
            size_bytes: part.end.length,
        });
        let Self { disk, dir, database, .. } = self;
        let place = (disk, dir, database, options);
        let log = Log::resume(place, older.collect(), current, (last, last_hash));
        Ok((log, report))
    }

    /// Removes what an interrupted truncation left before the hole that it made. Whoever looks at the
    /// log that is open then finds no hole in it; what cannot be removed yet is truncated later.
    fn finish_truncation(&mut self) {
        while self.start > 0 {
            let path = &self.segments[0].path;
            if let Err(error) = self.disk.remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a segment cannot be removed yet");
                return;
            }
            self.segments.remove(0);
            self.start -= 1;
        }
    }

    /// Reads every frame above K and moves the end of the old segment to K.
    fn copy_unproven(&mut self) -> Result<Fresh> {
        let proven = self.proven;
        let part = self.segments.last().expect("a log has a segment");
        assert!(part.header.first <= proven.next(), "a header proves all that is before it");
        assert!(part.next > proven, "resolve refuses a log that does not reach K");
        let bytes = self.read(part)?;
        let mut walk = Walk::new(&part.header, &bytes);
        while walk.next <= proven {
            part.step(&mut walk)?;
        }
        let end = Seal { last: proven, length: walk.offset as u64, hash: walk.hash };
        while walk.next < part.next {
            part.step(&mut walk)?;
        }
        let header =
            SegmentHeader { database: self.database, first: proven.next(), predecessor: end.hash };
        let mut content = header.encode();
        // A header may be all that a crash left of a segment; then there is nothing to copy.
        let unproven = bytes.get(end.length as usize..walk.offset);
        content.extend_from_slice(unproven.unwrap_or_default());

        let old = self.segments.last_mut().expect("as above");
        (old.end, old.next) = (end, proven.next());
        if old.header.first == header.first {
            self.segments.pop();
        }
        Ok(Fresh { header, content })
    }

    /// Gives the new segment its name once it is whole and durable.
    fn name(&self, fresh: &Fresh, faults: &Faults) -> Result<Current> {
        let first = fresh.header.first;
        let temporary = segment::temporary_path_of(&self.dir, first);
        let path = segment::path_of(&self.dir, first);
        let file =
            self.disk.create_file(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
        file.write_at(0, &fresh.content).map_err(|e| Error::io("write", &temporary, e))?;
        file.sync().map_err(|e| Error::io("sync", &temporary, e))?;
        faults.reach(CrashPoint::UnprovenCopied);
        self.disk.rename(&temporary, &path).map_err(|e| Error::io("rename", &temporary, e))?;
        self.disk.sync_dir(&self.dir).map_err(|e| Error::io("sync", &self.dir, e))?;
        Ok(Current::new(path, first, file, fresh.content.len() as u64))
    }

    /// Seals every segment before the new one, unless its seal is proven durable.
    fn seal_all(&self, fresh: &Fresh) -> Result<()> {
        for Part { path, header, next, end, .. } in self.segments.iter().filter(|part| !part.sealed)
        {
            assert!(*next <= fresh.header.first, "segments do not overlap");
            let file = self.disk.open_file(path).map_err(|e| Error::io("open", path, e))?;
            segment::seal(&*file, path, self.database, header.first, end)?;
        }
        Ok(())
    }

    /// A checkpoint must have been made of this log.
    fn check_history(&self, seq: Seq, hash: FrameHash) -> Result<()> {
        let Some(part) = self.rest().iter().rev().find(|part| part.header.first <= seq.next())
        else {
            return Ok(());
        };
        let found = if seq == part.end.last {
            part.end.hash
        } else {
            let bytes = self.read(part)?;
            let mut walk = Walk::new(&part.header, &bytes);
            while walk.next <= seq {
                part.step(&mut walk)?;
            }
            walk.hash
        };
        if found == hash {
            return Ok(());
        }
        let what = format!("the log in {}", self.dir.display());
        Err(Error::corrupt(what, format!("its frame {seq} is not the one a checkpoint names")))
    }

    /// The unbroken rest: at least one segment.
    fn rest(&self) -> &[Part] {
        &self.segments[self.start..]
    }

    fn end(&self) -> &Part {
        self.segments.last().expect("a log has a segment")
    }

    fn read(&self, part: &Part) -> Result<Vec<u8>> {
        self.disk.read_file(&part.path).map_err(|e| Error::io("read", &part.path, e))
    }
}

/// The segment that an open begins.
struct Fresh {
    header: SegmentHeader,
    content: Vec<u8>,
}

impl Part {
    /// The next frame of a run that the scan has seen.
    fn step<'a>(&self, walk: &mut Walk<'a>) -> Result<Frame<'a>> {
        let detail = match walk.step() {
            Ok(Some((_, frame))) => return Ok(frame),
            Ok(None) => "the frames end".to_owned(),
            Err(flaw) => flaw.to_string(),
        };
        let (segment, offset) = (self.path.clone(), walk.offset as u64);
        let detail = format!("{detail}, although it read well before");
        Err(Error::CorruptLog { segment, offset, seq: walk.next, detail })
    }
}

/// The position before that of a frame.
const fn before(seq: Seq) -> Seq {
    Seq::new(seq.get() - 1)
}
