//! A database that is in use, written down elsewhere.
//!
//! Knows: that nothing is called a backup before it was opened and verified. Must not know: how it is
//! written.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::TidalDb;
use super::builder::absolute;
use crate::clock::ManualClock;
use crate::error::{Error, Result};
use crate::ids::Timestamp;
use crate::recovery;
use crate::seq::Seq;
use crate::storage::Stage;

/// A database that was written down elsewhere, opened there and verified; from [`TidalDb::backup`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The last frame that it contains.
    pub seq: Seq,
    /// The digest of the state that a copy of it had when it was opened, at its own time. Whoever opens a
    /// copy with a [`ManualClock`](crate::ManualClock) at the
    /// [epoch](crate::schema::Timestamp::EPOCH), as [`inspect`](crate::Builder::inspect) can, has the same.
    pub digest: [u8; 32],
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backed up through frame {}; it opens and verifies", self.seq)
    }
}

impl TidalDb {
    /// Writes the database down as another one at `target`, where nothing may lie yet, while this one goes
    /// on being read and written. All that was acknowledged before the call is in it, and of what comes
    /// later either nothing or what happened first: it is the state at one position of the log.
    ///
    /// A checkpoint is written; what it has goes into a new store at `target`, with an empty log behind it;
    /// a copy of that is opened, and every byte of it checked. Only then it is made durable and gets its
    /// name. No file is copied while it may change.
    ///
    /// What lies at `target` is a database that nobody has open: [`open`](crate::Builder::open) it, or copy
    /// it back first ([`copy`](Self::copy)). The first open makes the second store, and says so. It has the
    /// identity of this one: write to one of the two only.
    ///
    /// While the checkpoint is copied no other one is written, so the log grows. The opened copy needs as much
    /// memory as this database, and as much space on the disk of `target` again as the backup. Backups of one
    /// database wait for each other.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp};
    /// # use tidaldb::TidalDb;
    /// # let mut schema = SchemaBuilder::new();
    /// # let half_life = Duration::from_secs(86_400);
    /// # schema.signal("view", EntityKind::Item, DecaySpec::Exponential { half_life }).add()?;
    /// # let temporary = tempfile::tempdir().expect("a directory");
    /// # let (dir, backup_dir) = (temporary.path().join("shop.tidal"), temporary.path().join("backup"));
    /// let db = TidalDb::builder().with_data_dir(dir).with_schema(schema.build()?).open()?;
    /// db.signal("view", EntityId::new(7), 1.0, Timestamp::now())?;
    /// println!("{}", db.backup(&backup_dir)?);
    /// db.signal("view", EntityId::new(7), 1.0, Timestamp::now())?;    // not in the backup
    ///
    /// let then = TidalDb::builder().with_data_dir(backup_dir).open()?;
    /// # use tidaldb::schema::Window::AllTime;
    /// # let count = |db: &TidalDb| db.read_windowed_count(EntityId::new(7), "view", AllTime);
    /// # assert_eq!((count(&db)?, count(&then)?), (2, 1));
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) when something lies at `target`, or at `target.tmp-stage`
    /// and is not what a killed copy left there, when `target` lies in this database, this one in
    /// that stage or is ephemeral, or within [`consistent`](Self::consistent);
    /// [`Locked`](Error::Locked) while something else is made for `target`; those of
    /// [`checkpoint`](Self::checkpoint); [`Store`](Error::Store) when the store of that checkpoint fails
    /// meanwhile;
    /// [`Corrupt`](Error::Corrupt) when what was written does not verify; [`Io`](Error::Io) and its relatives.
    /// Nothing lies at `target` then. What a killed process leaves beside it, as `target.tmp-stage`, the next
    /// backup, copy or salvage to there removes.
    pub fn backup(&self, target: &Path) -> Result<Backup> {
        self.expect_no_view()?;
        let Some(stores) = &self.stores else {
            return Err(Error::invalid("backup", "an ephemeral database lies nowhere"));
        };
        let target = &*absolute(target)?;
        let _alone = self.backing_up.lock();
        let stage = Stage::beside(&self.report.path, target)?;
        let through = self.checkpoint()?;
        let size_bytes = self.options.segment_size_bytes;
        let seq = recovery::write_down(stores, self.database, &stage.database(), size_bytes)?;
        if seq < through {
            // The store that it went to has failed since.
            let reason = format!("what can be read goes to {seq}, and the last one to {through}");
            return Err(Error::Store(reason));
        }
        let digest = verified(&stage, seq)?;
        stage.give_name()?;
        Ok(Backup { seq, digest })
    }
}

/// Opens a copy of what was written and checks all of it; returns the digest of its state.
fn verified(stage: &Stage, seq: Seq) -> Result<[u8; 32]> {
    let path = stage.database();
    let builder = TidalDb::builder().with_data_dir(&path);
    let clock = Arc::new(ManualClock::at(Timestamp::EPOCH));
    let found = builder.with_clock(clock).inspect(&stage.inspected())?;
    let what = || format!("the backup in {}", path.display());
    match found.digest {
        None => Err(Error::corrupt(what(), found.verified.broken.join("; "))),
        Some(_) if found.opened.checkpoint_seq != seq => {
            let loaded = found.opened.checkpoint_seq;
            Err(Error::corrupt(what(), format!("it opens at {loaded}, and should at {seq}")))
        }
        Some(digest) => Ok(digest),
    }
}
