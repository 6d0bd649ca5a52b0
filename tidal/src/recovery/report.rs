//! What opening found and did.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::checkpoint::Loaded;
use crate::error::Error;
use crate::seq::Seq;
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
    /// What was repaired or lost, a sentence each. Nothing acknowledged as durable is ever lost
    /// without an error.
    pub repairs: Vec<String>,
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
        }
    }

    pub(super) fn loaded(&mut self, loaded: &Loaded) {
        self.checkpoint_store = Some(loaded.slot.name());
        self.checkpoint_seq = loaded.image.manifest.seq;
    }

    pub(super) fn log(&mut self, log: &LogReport) {
        self.proven = log.proven;
        self.rewritten = log.frames_copied;
        if let Some(cut) = &log.cut {
            self.repaired(cut.to_string());
        }
        if let Some((from, to)) = log.hole {
            self.repaired(format!("an interrupted truncation of the log left out {from} to {to}"));
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
        self.repairs.iter().try_for_each(|repair| write!(f, "; {repair}"))
    }
}
