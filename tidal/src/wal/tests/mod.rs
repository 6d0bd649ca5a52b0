//! What the log is held to. Knows: the whole room, and a disk that fails.

mod crash;
mod damage;
mod operation;
#[path = "../../../../tests/support/random.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "it serves the suites as well"
)]
mod random;
#[path = "../../../../tests/support/sim/mod.rs"]
#[expect(dead_code, unreachable_pub, unused_imports, reason = "it serves the suites as well")]
mod sim;

use std::path::{Path, PathBuf};

use random::Random;
use sim::{Fault, Op, SimDisk, Survives};

use super::frame::Frame;
use super::frame::GENESIS;
use super::segment::{FRAMES_AT, path_of};
use super::{FrameBody, FrameHash, Log, LogOptions, LogReport, Scan};
use crate::error::{Error, ErrorKind, Result};
use crate::fault::Faults;
use crate::ids::{DatabaseId, Timestamp};
use crate::seq::Seq;

const DATABASE: DatabaseId = DatabaseId::new([0xd1; 16]);

/// Room for a handful of frames per segment.
const SMALL: LogOptions = LogOptions { segment_size_bytes: FRAMES_AT + 500, faults: Faults::NONE };

type Checkpoint = (Seq, FrameHash);

/// A frame as it was given to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    time: Timestamp,
    kind: u8,
    record_count: u32,
    body: Vec<u8>,
}

impl Entry {
    fn random(random: &mut Random) -> Self {
        let len = random.below(120) as usize;
        Self {
            time: Timestamp::from_nanos(random.next_u64()),
            kind: random.next_u64() as u8,
            record_count: random.next_u64() as u32,
            body: (0..len).map(|_| random.next_u64() as u8).collect(),
        }
    }

    fn of(frame: &Frame<'_>) -> Self {
        let &Frame { time, kind, record_count, body, .. } = frame;
        Self { time, kind, record_count, body: body.to_vec() }
    }

    fn append_to(&self, log: &mut Log) -> Seq {
        let body = FrameBody::new(self.kind, self.record_count, self.body.clone());
        log.append(self.time, &body.expect("small"))
    }
}

/// Everything a log was given, and what it answered.
#[derive(Debug, Clone)]
struct History {
    entries: Vec<Entry>,
    /// `hashes[n]` is the log's hash at sequence n.
    hashes: Vec<FrameHash>,
    /// The highest position that a sync returned.
    acknowledged: Seq,
    random: Random,
}

impl History {
    fn new(seed: u64) -> Self {
        Self {
            entries: Vec::new(),
            hashes: vec![GENESIS],
            acknowledged: Seq::ZERO,
            random: Random::new(seed),
        }
    }

    fn append(&mut self, log: &mut Log) {
        let entry = Entry::random(&mut self.random);
        let seq = entry.append_to(log);
        self.entries.push(entry);
        self.hashes.push(log.last_hash());
        assert_eq!(seq, self.last());
    }

    fn last(&self) -> Seq {
        Seq::new(self.entries.len() as u64)
    }

    fn checkpoint(&self, seq: u64) -> Checkpoint {
        (Seq::new(seq), self.hashes[seq as usize])
    }

    /// The log came back as `opened`: it must hold a prefix with everything acknowledged.
    fn check(&self, opened: &Opened, context: &str) {
        let last = opened.report.last;
        assert!(last >= self.acknowledged, "{last} < {} {context}", self.acknowledged);
        assert!(last <= self.last(), "more than was ever appended {context}");
        let expected = &self.entries[opened.after.get() as usize..last.get() as usize];
        assert_eq!(opened.entries, expected, "{context}");
        assert_eq!(opened.log.last_hash(), self.hashes[last.get() as usize], "{context}");
        assert_eq!(opened.log.synced(), last, "{context}");
        assert_eq!(opened.log.appended(), last, "{context}");
    }

    /// The log goes on from where it came back.
    fn resume(&mut self, opened: &Opened) {
        self.entries.truncate(opened.report.last.get() as usize);
        self.hashes.truncate(opened.report.last.get() as usize + 1);
        self.acknowledged = opened.report.last;
    }
}

struct Opened {
    log: Log,
    report: LogReport,
    after: Seq,
    entries: Vec<Entry>,
}

fn dir() -> PathBuf {
    PathBuf::from("log")
}

/// A disk with the directory that a log is created in.
fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.make_dirs(&dir());
    disk
}

fn create(disk: &SimDisk, options: LogOptions) -> Result<Log> {
    Log::create(disk.shared(), dir(), DATABASE, options)
}

fn open(disk: &SimDisk, checkpoints: &[Checkpoint]) -> Result<Opened> {
    let after = checkpoints.iter().map(|&(seq, _)| seq).min().unwrap_or(Seq::ZERO);
    let tail = Scan::run(disk.shared(), dir(), DATABASE)?.resolve(checkpoints)?;
    let mut entries = Vec::new();
    let mut next = after.next();
    tail.replay(after, |frame| {
        assert_eq!(frame.seq, next);
        next = next.next();
        entries.push(Entry::of(&frame));
        Ok(())
    })?;
    let (log, report) = tail.finish(SMALL)?;
    Ok(Opened { log, report, after, entries })
}

/// Appends `count` frames, each one written and synced alone: frame n carries the mark n - 1.
fn grow(log: &mut Log, history: &mut History, count: usize) {
    for _ in 0..count {
        history.append(log);
        log.write_group().expect("disk works");
        history.acknowledged = log.sync().expect("disk works");
    }
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|p| p.extension().is_some_and(|e| e == "seg")).collect()
}

/// The frames in a segment file that is whole: sequence and byte range of each.
fn frames_in(disk: &SimDisk, path: &Path) -> Vec<(Seq, std::ops::Range<usize>)> {
    let bytes = disk.content(path);
    let name = super::segment::first_in_name(path).expect("a segment");
    let header = super::segment::SegmentHeader::parse(&bytes, path, name, DATABASE)
        .expect("ours")
        .expect("whole");
    let mut walk = super::segment::Walk::new(&header, &bytes);
    let mut frames = Vec::new();
    loop {
        let start = walk.offset;
        match walk.step().expect("whole") {
            Some((_, frame)) => frames.push((frame.seq, start..walk.offset)),
            None => return frames,
        }
    }
}

fn is_log_damage<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::CorruptLog { .. } | Error::LogGap { .. }))
}

fn is_corrupt<T>(result: &Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt)
}
