//! Writing the newest checkpoint down as a database of its own.
//!
//! Knows: what a database must have to be opened. Must not know: byte layouts, whether the result is
//! sound.
//!
//! The files of a store that is open change beneath whoever copies them, and segments are written to and
//! removed. So no file is copied: the pairs of the newest checkpoint go, as the store says they are, into a
//! store that is made for them, and the log begins, empty, right behind it.

use std::path::Path;
use std::sync::Arc;

use super::place::Place;
use crate::checkpoint::StorePair;
use crate::error::Result;
use crate::ids::DatabaseId;
use crate::seq::Seq;
use crate::storage::Machine;
use crate::table::StoreSlot;
use crate::wal::{Log, LogOptions};

/// Makes a database at `root`, where nothing lies yet, that is the newest checkpoint of `stores`; returns
/// through where that goes. What was made is not synced as a whole, and is closed.
///
/// # Errors
///
/// What the stores cannot read or the file system refuses; then a part of it may be there.
pub(crate) fn write_down(
    stores: &StorePair,
    database: DatabaseId,
    root: &Path,
    segment_size_bytes: u64,
) -> Result<Seq> {
    let machine = Machine::default();
    let place = Place::create(machine, root, database)?;
    let Machine { disk, stores: kind, faults } = &place.machine;
    let engine = kind.create(&**disk, &place.store_path(StoreSlot::A))?;
    let checkpoint = stores.copy_newest(&*engine)?;
    let behind = (checkpoint.seq, checkpoint.frame_hash);
    let options = LogOptions { segment_size_bytes, faults: faults.clone() };
    drop(Log::create_at(Arc::clone(disk), place.log_dir(), database, behind, options)?);
    Ok(checkpoint.seq)
}
