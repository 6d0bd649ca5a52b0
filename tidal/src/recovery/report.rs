//! What opening found and did.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Wanted;
use crate::checkpoint::{Loaded, SlotState, StorePair};
use crate::end::End;
use crate::error::Error;
use crate::ids::{SessionId, Timestamp};
use crate::record::RecordKind;
use crate::seq::Seq;
use crate::sessions::{Happened, SessionEvent};
use crate::state::Header;
use crate::table::StoreSlot;
use crate::wal::LogReport;

/// What opening a database found and did; also logged, with a warning for each repair.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// The directory; empty for an ephemeral database.
    pub path: PathBuf,
    /// Whether the database was made by this open.
    pub created: bool,
    /// How often it has been opened, this time included.
    pub incarnation: u64,
    /// The sequence of the last frame, those that this open appended included.
    pub seq: Seq,
    /// The sequence of the checkpoint that was loaded; zero without one.
    pub checkpoint_seq: Seq,
    /// The name of the store it was loaded from.
    pub checkpoint_store: Option<&'static str>,
    /// Frames of the log that were applied after the checkpoint.
    pub replayed: u64,
    /// The highest sequence that was proven synced before this open.
    pub proven: Seq,
    /// Frames that were not proven synced, and were written anew.
    pub rewritten: u64,
    /// What was repaired, lost or is doubtful, a sentence each. Nothing acknowledged as durable is
    /// ever lost without an error.
    pub repairs: Vec<String>,
    /// Whether the database had been left at rest: all that was in its log was proven to be synced. After
    /// a [`close`](crate::TidalDb::close) it always is, after a kill it may be.
    pub clean: bool,
    /// Sessions that had been open and may be resumed, ascending.
    pub sessions_restored: Vec<SessionId>,
    /// Sessions that had been open and are not any more, ascending, and how they ended.
    pub sessions_ended: Vec<(SessionId, End)>,
}

impl OpenReport {
    pub(super) fn new(path: &Path, created: bool) -> Self {
        Self {
            path: path.to_owned(),
            created,
            incarnation: 0,
            seq: Seq::ZERO,
            checkpoint_seq: Seq::ZERO,
            checkpoint_store: None,
            replayed: 0,
            proven: Seq::ZERO,
            rewritten: 0,
            repairs: Vec::new(),
            clean: true,
            sessions_restored: Vec::new(),
            sessions_ended: Vec::new(),
        }
    }

    pub(super) fn loaded(&mut self, loaded: &Loaded) {
        self.checkpoint_store = Some(loaded.slot.name());
        self.checkpoint_seq = loaded.image.manifest.seq;
    }

    /// `last` is the kind of the last frame that was applied.
    pub(super) fn log(&mut self, log: &LogReport, last: Option<u8>) {
        let is_mark = last == Some(RecordKind::Mark as u8);
        // A mark proves what is before it, and nothing proves the last one.
        self.clean = log.cut.is_none() && log.frames_copied <= u64::from(is_mark);
        self.proven = log.proven;
        self.rewritten = log.frames_copied;
        if let Some(cut) = &log.cut {
            self.repaired(cut.to_string());
        }
        if let Some((from, to)) = log.hole {
            self.repaired(format!("an interrupted truncation of the log left out {from} to {to}"));
        }
    }

    /// What opening did to sessions.
    pub(super) fn sessions(&mut self, happened: Vec<Happened>) {
        for Happened { event, .. } in happened {
            match event {
                SessionEvent::Restored { id } => self.sessions_restored.push(id),
                SessionEvent::Ended { id, end } => self.sessions_ended.push((id, end)),
                _ => {}
            }
        }
    }

    /// A store without a checkpoint, although its fellow has seen one, has silently lost it, or was made
    /// anew and got none before the database was left.
    pub(super) fn emptied(&mut self, stores: &StorePair) {
        for ((slot, state), seen_by) in StoreSlot::BOTH
            .into_iter()
            .zip(stores.state())
            .zip(stores.manifests().into_iter().rev())
        {
            let (SlotState::Empty, Some(fellow)) = (state, seen_by) else { continue };
            let epoch = fellow.other_epoch.get();
            if epoch == 0 {
                continue;
            }
            self.repaired(format!(
                "store {} has no checkpoint, although store {} has seen one of epoch {epoch}; it gets \
                 a new one next",
                slot.name(),
                slot.other().name()
            ));
        }
    }

    /// A clock behind engine time may have been ahead when the database was last open. One at the epoch,
    /// as that of a copy that is only looked at, was never set and says nothing.
    pub(super) fn clock(&mut self, header: Header, wanted: &Wanted) {
        let now = wanted.clock.now();
        let behind = header.engine_time.as_nanos().saturating_sub(now.as_nanos());
        let behind = Duration::from_nanos(behind);
        let is_told = !header.event_time && now > Timestamp::EPOCH;
        if is_told && behind > wanted.options.max_clock_jump {
            self.repaired(format!(
                "the clock is {} s behind engine time, which stands still until then: if the clock was \
                 wrong before and is right now, call reset_clock()",
                behind.as_secs()
            ));
        }
    }

    pub(super) fn made_store(&mut self, slot: StoreSlot) {
        if !self.created {
            self.repaired(format!("store {} was missing and was made anew", slot.name()));
        }
    }

    pub(super) fn replaced(&mut self, slot: StoreSlot, aside: &Path, reason: &Error) {
        let (name, aside) = (slot.name(), aside.display());
        self.repaired(format!(
            "store {name} does not hold ({reason}); it was moved to {aside} and is being rebuilt"
        ));
    }

    fn repaired(&mut self, sentence: String) {
        tracing::warn!(path = %self.path.display(), "{sentence}");
        self.repairs.push(sentence);
    }
}

impl fmt::Display for OpenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.created { "created" } else { "opened" };
        write!(f, "{verb} at sequence {} (incarnation {})", self.seq, self.incarnation)?;
        if let Some(store) = self.checkpoint_store {
            write!(f, ", from the checkpoint of store {store} at {}", self.checkpoint_seq)?;
        }
        match self.replayed {
            1 => write!(f, ", 1 frame replayed")?,
            frames => write!(f, ", {frames} frames replayed")?,
        }
        match (self.sessions_restored.len(), self.sessions_ended.len()) {
            (0, 0) => {}
            (restored, ended) => write!(f, ", {restored} sessions restored and {ended} ended")?,
        }
        self.repairs.iter().try_for_each(|repair| write!(f, "; {repair}"))
    }
}
