//! The log of a database, or, for an ephemeral one, just its numbering.

use crate::error::Result;
use crate::ids::Timestamp;
use crate::seq::Seq;
use crate::wal::{FrameBody, FrameHash, Log, SyncDone, SyncJob};

/// Where operations are appended.
pub(crate) enum Journal {
    Log(Box<Log>),
    /// Nothing is kept; the last number given.
    Ephemeral(Seq),
}

impl Journal {
    pub(crate) fn append(&mut self, time: Timestamp, body: &FrameBody) -> Seq {
        match self {
            Self::Log(log) => log.append(time, body),
            Self::Ephemeral(last) => {
                *last = last.next();
                *last
            }
        }
    }

    pub(crate) fn write_group(&mut self) -> Result<()> {
        match self {
            Self::Log(log) => log.write_group(),
            Self::Ephemeral(_) => Ok(()),
        }
    }

    pub(crate) fn sync(&mut self) -> Result<Seq> {
        match self {
            Self::Log(log) => log.sync(),
            Self::Ephemeral(last) => Ok(*last),
        }
    }

    pub(crate) fn begin_sync(&mut self) -> Result<Option<SyncJob>> {
        match self {
            Self::Log(log) => log.begin_sync().map(Some),
            Self::Ephemeral(_) => Ok(None),
        }
    }

    pub(crate) fn finish_sync(&mut self, done: SyncDone) -> Result<Seq> {
        match self {
            Self::Log(log) => log.finish_sync(done),
            Self::Ephemeral(last) => Ok(*last),
        }
    }

    pub(crate) fn truncate_through(&mut self, seq: Seq) -> Result<u64> {
        match self {
            Self::Log(log) => log.truncate_through(seq),
            Self::Ephemeral(_) => Ok(0),
        }
    }

    pub(crate) const fn appended(&self) -> Seq {
        match self {
            Self::Log(log) => log.appended(),
            Self::Ephemeral(last) => *last,
        }
    }

    pub(crate) const fn synced(&self) -> Seq {
        match self {
            Self::Log(log) => log.synced(),
            Self::Ephemeral(last) => *last,
        }
    }

    pub(crate) const fn last_hash(&self) -> FrameHash {
        match self {
            Self::Log(log) => log.last_hash(),
            Self::Ephemeral(_) => [0; 16],
        }
    }

    /// Bytes appended since the database was opened.
    pub(crate) const fn bytes(&self) -> u64 {
        match self {
            Self::Log(log) => log.appended_bytes(),
            Self::Ephemeral(_) => 0,
        }
    }

    /// Bytes of the log's segments.
    pub(crate) fn size_bytes(&self) -> u64 {
        match self {
            Self::Log(log) => log.size_bytes(),
            Self::Ephemeral(_) => 0,
        }
    }
}
