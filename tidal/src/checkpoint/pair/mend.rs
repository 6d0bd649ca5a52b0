//! A store that failed, and holds all the same.
//!
//! Knows: which failures say nothing about what lies in a store. Must not know: how it is opened again.

use std::sync::Arc;

use super::{Slot, Store, StorePair, is_of_the_store, store_failure};
use crate::checkpoint::keys::Epoch;
use crate::checkpoint::read;
use crate::error::{Error, Result};
use crate::storage::StorageEngine;
use crate::table::StoreSlot;

impl StorePair {
    /// Whether a store failed for what is around it: closed and opened again it may hold as it is.
    pub(crate) fn may_readmit(&self, slot: StoreSlot) -> bool {
        matches!(&self.slots.read()[slot as usize],
            Slot::Failed { reason, .. } if !is_of_the_store(reason))
    }

    /// Puts a store that failed back into its place, after it was closed and opened again, if it has the
    /// checkpoint that it had or the one that failed, whole; else it stays failed, and false is returned.
    /// What was owed to it before the failure still is, which is all that it lacks, and perhaps more.
    ///
    /// `beat` is called now and then while it is read.
    ///
    /// # Errors
    ///
    /// What keeps it from being read that is no failure of it.
    pub(crate) fn readmit(
        &self,
        slot: StoreSlot,
        engine: Arc<dyn StorageEngine>,
        beat: &mut dyn FnMut(),
    ) -> Result<bool> {
        let (had_checkpoint, stood_at) = match &self.slots.read()[slot as usize] {
            Slot::Failed { had_checkpoint, stood_at, .. } => (*had_checkpoint, *stood_at),
            Slot::Open(_) => return Ok(true),
        };
        let found = read::read_store_beating(engine.as_ref(), &self.db, beat).and_then(|image| {
            let epoch = image.as_ref().map_or(Epoch::ZERO, |image| image.manifest.epoch);
            if epoch >= stood_at {
                return Ok(image);
            }
            let detail = format!("stands at epoch {epoch}, and stood at epoch {stood_at}");
            Err(Error::corrupt(format!("store {}", slot.name()), detail))
        });
        let mut slots = self.slots.write();
        let (readmitted, is_back) = match found {
            Ok(image) => (Slot::Open(Store { engine, image: image.map(Arc::new) }), true),
            Err(reason) => {
                let reason = store_failure(reason)?;
                (Slot::Failed { reason, had_checkpoint, stood_at }, false)
            }
        };
        slots[slot as usize] = readmitted;
        Ok(is_back)
    }
}
