//! Saving what can be saved of a database that does not open.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::TidalDb;
use super::builder::absolute;
use super::inspect::locked;
use crate::clock::{Clock, ManualClock};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::Timestamp;
use crate::options::{Options, SessionConfig};
use crate::recovery::{self, OpenReport, Wanted};
use crate::seq::Seq;
use crate::storage::{Machine, RealDisk, Stage, copy_tree};
use crate::verify::VerifyReport;

/// What a salvage saved, and what it had to give up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvage {
    /// The last frame that was saved: everything through it is there.
    pub saved: Seq,
    /// The highest frame that the old log proves to have been synced: what lies between the two was
    /// acknowledged, and is lost.
    pub proven: Seq,
    /// What opening the salvaged database found.
    pub opened: OpenReport,
    /// What verifying it found.
    pub verified: VerifyReport,
}

impl fmt::Display for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { saved, proven, opened, verified } = self;
        write!(f, "saved through frame {saved}; ")?;
        if proven > saved {
            writeln!(f, "frames {} to {proven} had been synced and are lost", saved.next())?;
        } else {
            writeln!(f, "no frame behind it is known to have been synced")?;
        }
        writeln!(f, "{opened}")?;
        verified.fmt(f)
    }
}

impl TidalDb {
    /// Saves what can be saved of the database at `path`, which does not open because of
    /// [`CorruptLog`](crate::Error::CorruptLog), [`LogGap`](crate::Error::LogGap) or
    /// [`Corrupt`](crate::Error::Corrupt), into a new database at `target`, where nothing may lie yet.
    ///
    /// The result is the state after some prefix of the operations: that of the newest checkpoint that
    /// holds, and every frame that follows it without a break. Restoring a backup may save more. The
    /// database at `path` is locked and read, never changed; it must not be open. The salvaged one
    /// is closed, and has the same identity: only one of the two should be written to.
    ///
    /// # Errors
    ///
    /// [`Locked`](crate::Error::Locked), also while something else is made for `target`;
    /// [`NotADatabase`](crate::Error::NotADatabase), [`FormatTooNew`](crate::Error::FormatTooNew);
    /// [`Corrupt`](crate::Error::Corrupt) when the identity is damaged or nothing can be saved, its schema
    /// included; [`InvalidArgument`](crate::Error::InvalidArgument) when something lies at `target`, or at
    /// `target.tmp-stage` and is not what a killed salvage left there, when `target` lies in the database,
    /// or the database in that stage; [`Io`](crate::Error::Io) and its relatives when a file cannot be
    /// read or written. Nothing lies at `target` then. What a killed process leaves beside it, as
    /// `target.tmp-stage`, the next salvage, copy or backup to there removes.
    pub fn salvage(path: &Path, target: &Path) -> Result<Salvage> {
        let (path, target) = (&*absolute(path)?, &*absolute(target)?);
        let _held = locked(path)?;
        // It gets its name when it is whole and durable: half of it could be taken for a database.
        let stage = Stage::beside(path, target)?;
        let made = stage.database();
        copy_tree(&RealDisk, path, &made)?;
        // Time stands still: a salvage is no reason for engine time to move.
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::EPOCH));
        let options = Options::default();
        let wanted = Wanted {
            schema: None,
            time_source: None,
            clock: Arc::clone(&clock),
            options,
            sessions: SessionConfig::default(),
            machine: Machine::default(),
        };
        let salvaged = recovery::salvage(&made, &wanted)?;
        let opened = Self::builder().of_copy(&made).with_clock(clock).open();
        let db = opened.map_err(|error| match error.kind() {
            ErrorKind::Invalid => Error::corrupt(
                format!("the database in {}", path.display()),
                "its schema is lost: no checkpoint holds, and the frame that declared it is damaged",
            ),
            _ => error,
        })?;
        let (opened, verified) = (db.open_report().clone(), db.verify()?);
        db.close()?;
        stage.give_name()?;
        Ok(Salvage { saved: salvaged.last, proven: salvaged.proven, opened, verified })
    }
}
