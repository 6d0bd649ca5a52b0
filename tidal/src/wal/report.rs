//! What opening a log found and did, for the open report.
//!
//! Knows: numbers and sentences. Must not know: how they came about.

use std::fmt;
use std::path::PathBuf;

use crate::seq::Seq;

/// First and last of the sequences that an interrupted truncation left out.
pub(crate) type Hole = (Seq, Seq);

/// A torn tail that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The segment in which the log ends.
    pub(crate) segment: PathBuf,
    /// Where in it, in bytes.
    pub(crate) offset: u64,
    /// The first sequence that is not kept.
    pub(crate) seq: Seq,
    /// Bytes dropped, later segments included, zeros at the end of a file not.
    pub(crate) size_bytes: u64,
    /// Whole frames among them.
    pub(crate) frames: u64,
    /// Why the log ends there.
    pub(crate) reason: String,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, seq, size_bytes, frames, reason } = self;
        let segment = segment.display();
        write!(
            f,
            "the log was cut before {seq}, in {segment} at byte {offset}: {size_bytes} bytes with \
             {frames} whole frames dropped, none of them ever proven synced ({reason})"
        )
    }
}

/// What opening a log found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogReport {
    /// The first sequence that is still in the log; one past the last when it has no frames.
    pub(crate) first: Seq,
    /// The last sequence of the log.
    pub(crate) last: Seq,
    /// The highest sequence that was proven synced before this open.
    pub(crate) proven: Seq,
    /// Frames in the log.
    pub(crate) frames_kept: u64,
    /// Those of them that were not proven synced, and so were written anew.
    pub(crate) frames_copied: u64,
    /// Segments, the new one included.
    pub(crate) segments: usize,
    /// Sequences that are missing in front of the first one, although older ones are there: an
    /// interrupted truncation.
    pub(crate) hole: Option<Hole>,
    /// The torn tail, if there was one.
    pub(crate) cut: Option<Cut>,
}

impl fmt::Display for LogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, proven, frames_kept, frames_copied, segments, hole, cut } = self;
        write!(
            f,
            "the log holds {frames_kept} frames, {first} to {last}, in {segments} segments, proven \
             synced through {proven}, {frames_copied} written anew"
        )?;
        if let Some((from, to)) = hole {
            write!(f, "; an interrupted truncation left out {from} to {to}")?;
        }
        match cut {
            Some(cut) => write!(f, "; {cut}"),
            None => Ok(()),
        }
    }
}
