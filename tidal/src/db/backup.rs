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
use crate::storage::{Disk, RealDisk, expect_free, give_name, inspection_path, salvage_stage_path};

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
    /// [`InvalidArgument`](Error::InvalidArgument) when something lies at `target`, it lies in this database,
    /// this one lies where what was killed would, is ephemeral, or within [`consistent`](Self::consistent);
    /// those of [`checkpoint`](Self::checkpoint); [`Store`](Error::Store) when the store of that checkpoint
    /// fails meanwhile;
    /// [`Corrupt`](Error::Corrupt) when what was written does not verify; [`Io`](Error::Io) and its relatives.
    /// Nothing lies at `target` then. What a killed process leaves beside it, as `target.tmp-salvage` and
    /// `target.tmp-inspected`, the next backup to there removes.
    pub fn backup(&self, target: &Path) -> Result<Backup> {
        self.expect_no_view()?;
        let Some(stores) = &self.stores else {
            return Err(Error::invalid("backup", "an ephemeral database lies nowhere"));
        };
        let target = &*absolute(target)?;
        let _alone = self.backing_up.lock();
        let disk = RealDisk;
        expect_free(&disk, &self.report.path, target)?;
        let (stage, scratch) = (salvage_stage_path(target), inspection_path(target));
        clear(&disk, &[&stage, &scratch])?;
        let made = self.checkpoint().and_then(|through| {
            let size_bytes = self.options.segment_size_bytes;
            let seq = recovery::write_down(stores, self.database, &stage, size_bytes)?;
            if seq < through {
                // The store that it went to has failed since.
                let reason =
                    format!("what can be read goes to {seq}, and the last one to {through}");
                return Err(Error::Store(reason));
            }
            let digest = verified(&stage, &scratch, seq)?;
            disk.remove_dir_all(&scratch).map_err(|e| Error::io("remove", &scratch, e))?;
            give_name(&disk, &stage, target)?;
            Ok(Backup { seq, digest })
        });
        if made.is_err() {
            // The failure says more than that its traces could not be removed.
            let _ = clear(&disk, &[&stage, &scratch]);
        }
        made
    }
}

fn clear(disk: &dyn Disk, paths: &[&Path]) -> Result<()> {
    paths
        .iter()
        .try_for_each(|path| disk.remove_dir_all(path).map_err(|e| Error::io("remove", path, e)))
}

/// Opens a copy of what was written and checks all of it; returns the digest of its state.
fn verified(path: &Path, scratch: &Path, seq: Seq) -> Result<[u8; 32]> {
    let builder = TidalDb::builder().with_data_dir(path);
    let found = builder.with_clock(Arc::new(ManualClock::at(Timestamp::EPOCH))).inspect(scratch)?;
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
