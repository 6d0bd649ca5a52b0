//! Making a database that does not open openable, by giving up what is damaged.
//!
//! Knows: the order of steps. Must not know: byte layouts, what a record means. Works on a copy: what
//! it gives up is gone.

use std::path::Path;
use std::sync::Arc;

use super::loader::StateLoader;
use super::place::Place;
use super::stores::StoreKeeper;
use super::{Wanted, log_options};
use crate::checkpoint::StorePair;
use crate::error::{Error, Result};
use crate::seq::Seq;
use crate::wal::{self, GENESIS, Salvaged, Scan};

/// Replaces the log of the database in `root` by what of it follows the newest checkpoint that holds.
pub(crate) fn salvage(root: &Path, wanted: &Wanted) -> Result<Salvaged> {
    let place = Place::open(wanted.machine.clone(), root)?;
    place.free_reserve();
    let base = {
        let engines = StoreKeeper::new(&place).open_all()?;
        let mut loader = StateLoader::default();
        let (_, loaded) = StorePair::open(place.database, engines, &mut loader)?;
        loaded.map(|loaded| (loaded.image.manifest.seq, loaded.image.manifest.frame_hash))
    };
    let disk = &place.machine.disk;
    let proven = match Scan::run(Arc::clone(disk), place.log_dir(), place.database) {
        Ok(scan) => scan.proven(),
        Err(later @ Error::FormatTooNew { .. }) => return Err(later),
        // What is wrong with it is why we are here.
        Err(_) => Seq::ZERO,
    };
    let (log, saved) = (place.log_dir(), root.join("log.salvaged"));
    let start = base.unwrap_or((Seq::ZERO, GENESIS));
    disk.remove_dir_all(&saved).map_err(|e| Error::io("remove", &saved, e))?;
    let mut salvaged =
        wal::salvage(disk, &log, saved.clone(), place.database, start, log_options(wanted))?;
    salvaged.proven = salvaged.proven.max(proven);
    if salvaged.last == Seq::ZERO {
        let detail = "neither store has a checkpoint that holds, and the log has no first frame";
        return Err(Error::corrupt(format!("the database in {}", root.display()), detail));
    }
    disk.remove_dir_all(&log).map_err(|e| Error::io("remove", &log, e))?;
    disk.rename(&saved, &log).map_err(|e| Error::io("rename", &saved, e))?;
    disk.sync_dir(root).map_err(|e| Error::io("sync", root, e))?;
    Ok(salvaged)
}
