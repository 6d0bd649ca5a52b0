//! Saving what can be saved of a database that does not open.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::TidalDb;
use super::inspect::copy_locked;
use crate::clock::SystemClock;
use crate::error::Result;
use crate::options::Options;
use crate::recovery::{self, OpenReport, Wanted};
use crate::seq::Seq;
use crate::storage::Machine;
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
    /// [`Locked`](crate::Error::Locked), [`NotADatabase`](crate::Error::NotADatabase),
    /// [`FormatTooNew`](crate::Error::FormatTooNew); [`Corrupt`](crate::Error::Corrupt) when the
    /// identity is damaged or nothing can be saved; what keeps the copy from being made. What then
    /// lies at `target` is of no use.
    pub fn salvage(path: &Path, target: &Path) -> Result<Salvage> {
        let _held = copy_locked(path, target)?;
        let wanted = Wanted {
            schema: None,
            time_source: None,
            clock: Arc::new(SystemClock::new()),
            options: Options::default(),
            machine: Machine::default(),
        };
        let salvaged = recovery::salvage(target, &wanted)?;
        let db = Self::builder().with_data_dir(target).open()?;
        let (opened, verified) = (db.open_report().clone(), db.verify()?);
        db.close()?;
        Ok(Salvage { saved: salvaged.last, proven: salvaged.proven, opened, verified })
    }
}
