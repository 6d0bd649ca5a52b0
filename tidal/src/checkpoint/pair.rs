//! The two stores: whose turn it is, what failed, and reads of cold rows.
//!
//! Knows: which store stands where. Must not know: threads, files, how a store is made or moved
//! aside.
//!
//! One thread writes checkpoints, any number read rows. The lock is held for a look or a change of a
//! slot, never during I/O. Two orders make reads safe beside a checkpoint:
//!
//! - The slot shows the new checkpoint before anything that it supersedes is removed. A reader that
//!   finds nothing looks whether the slot has moved on, and if so looks again.
//! - The slot shows the new checkpoint before tables forget what waited for it. A reader that finds
//!   nothing waiting finds the row in every checkpoint that it can see from then on.

mod mend;

use std::sync::Arc;

use super::cut::Cut;
use super::keys::Epoch;
use super::manifest::Manifest;
use super::merge::{Merge, Page, pages};
use super::read::{self, Loader, Sink, StoreImage};
use super::sum::ColdSum;
use super::turn::{Turn, Turns};
use super::write::{self, Committed, Failure, Other, Target, Written};
use crate::error::{Error, Result};
use crate::fault::{CrashPoint, Faults};
use crate::ids::DatabaseId;
use crate::seq::Seq;
use crate::storage::StorageEngine;
use crate::sync::RwLock;
use crate::table::{ColdTable, StoreSlot};

/// The two checkpoint stores of a database.
pub(crate) struct StorePair {
    db: DatabaseId,
    faults: Faults,
    slots: RwLock<[Slot; 2]>,
    /// Taken by the one checkpoint that runs, and by whoever reads a store from end to end.
    turns: Turns,
}

enum Slot {
    Open(Store),
    Failed {
        reason: Error,
        /// It had a checkpoint, or it is not known that it had none.
        had_checkpoint: bool,
        /// Of which epoch its checkpoint was, as far as is known.
        stood_at: Epoch,
    },
}

#[derive(Clone)]
struct Store {
    engine: Arc<dyn StorageEngine>,
    image: Option<Arc<StoreImage>>,
}

/// A store as a report shows it.
#[derive(Debug, Clone)]
pub(crate) enum SlotState {
    /// It has no checkpoint yet.
    Empty,
    /// It has a checkpoint that holds.
    Healthy { epoch: Epoch, seq: Seq },
    /// It must be moved aside and replaced.
    Failed { reason: Error },
}

/// What [`StorePair::open`] restored from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) slot: StoreSlot,
    pub(crate) image: Arc<StoreImage>,
    /// Which stores are owed every page of every table.
    pub(crate) pages_owed: [bool; 2],
    /// Which stores have a checkpoint, so that cold tables owe them only what waits.
    pub(crate) based: [bool; 2],
}

impl StorePair {
    /// Two stores that have just been created.
    #[cfg(test)]
    pub(crate) fn fresh(db: DatabaseId, engines: [Arc<dyn StorageEngine>; 2]) -> Self {
        Self::of(db, engines.map(|engine| Slot::Open(Store { engine, image: None })))
    }

    /// Verifies both stores and restores from the newest that holds; `None` beside the pair when
    /// there is none, and then what was loaded counts for nothing. A store that could not be opened
    /// comes as an error.
    ///
    /// # Errors
    ///
    /// [`Error::FormatTooNew`], and what the loader refuses for another reason than damage: nothing
    /// may be moved aside or replaced then. Failures of a store are no error, see
    /// [`state`](Self::state).
    pub(crate) fn open(
        db: DatabaseId,
        engines: [Result<Arc<dyn StorageEngine>>; 2],
        loader: &mut dyn Loader,
    ) -> Result<(Self, Option<Loaded>)> {
        let [a, b] = engines;
        let mut found = [look(&db, a)?, look(&db, b)?];
        expect_no_regress(&mut found);
        let newest = newest_of(&[manifest_of(&found[0]), manifest_of(&found[1])]);
        let [a, b] = found;
        let (newer, older) = if newest == StoreSlot::A { (a, b) } else { (b, a) };
        let rows_after = manifest_of(&older).map(|manifest| manifest.epoch);
        let newer = settle(&db, newer, Some(Sink { loader: &mut *loader, rows_after }))?;
        let into_older = newer.has_nothing().then_some(Sink { loader, rows_after: None });
        let older = settle(&db, older, into_older)?;
        let source = match (newer.has_nothing(), older.has_nothing()) {
            (false, _) => Some(newest),
            (true, false) => Some(newest.other()),
            (true, true) => None,
        };
        let slots = if newest == StoreSlot::A { [newer, older] } else { [older, newer] };
        let pair = Self::of(db, slots);
        let loaded = source.and_then(|slot| pair.loaded(slot));
        Ok((pair, loaded))
    }

    /// The same stores, with a plan for crash points.
    pub(crate) fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// The store that the next checkpoint goes to: the one that is not the newest verified. `None`
    /// while a store has failed and was not replaced.
    pub(crate) fn target(&self) -> Option<StoreSlot> {
        due(&self.slots.read())
    }

    /// The log may be truncated up to here: the sequence of the older store, 0 while one has none.
    pub(crate) fn truncatable(&self) -> Seq {
        let slots = self.slots.read();
        let seqs = images_of(&slots).map(|manifest| manifest.map_or(Seq::ZERO, |m| m.seq));
        seqs[0].min(seqs[1])
    }

    /// How both stores are.
    pub(crate) fn state(&self) -> [SlotState; 2] {
        let slots = self.slots.read();
        [&slots[0], &slots[1]].map(|slot| match slot {
            Slot::Open(Store { image: None, .. }) => SlotState::Empty,
            Slot::Open(Store { image: Some(image), .. }) => {
                SlotState::Healthy { epoch: image.manifest.epoch, seq: image.manifest.seq }
            }
            Slot::Failed { reason, .. } => SlotState::Failed { reason: reason.clone() },
        })
    }

    /// Waits until nobody reads a store from end to end, and takes the turn of a checkpoint; `beat` is
    /// called now and then meanwhile. Taken before the cut is: a cut that waits makes the writer capture
    /// every page that it changes.
    pub(crate) fn begin_checkpoint(&self, beat: &mut dyn FnMut()) -> Turn<'_> {
        self.turns.begin_checkpoint(beat)
    }

    /// Whether a checkpoint waits for its turn.
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn is_checkpoint_waiting(&self) -> bool {
        self.turns.is_waited_for()
    }

    /// Writes a checkpoint, whose turn it is, to the store that the cut was made for; `pace` is told how
    /// many bytes each batch had. The log must be synced through the cut's sequence.
    ///
    /// # Errors
    ///
    /// The cut is owed again, whatever the error. What the store fails with: then it counts as failed.
    /// When it is new and the other cannot be read for its cold rows: what that one fails with, and
    /// both stay as they are. When it is not this store's turn any more, nothing was written.
    ///
    /// # Panics
    ///
    /// When the cut goes back in the log, or the turn is another pair's.
    pub(crate) fn checkpoint(
        &self,
        turn: &Turn<'_>,
        cut: Cut,
        pace: &mut dyn FnMut(u64),
    ) -> Result<Written> {
        assert!(turn.is_of(&self.turns), "a turn is taken at the stores that are written");
        let slot = cut.store();
        let target = self.prepare(&cut)?;
        let committed = write::write_checkpoint(&self.db, &target, &cut, pace);
        let outcome = match committed {
            Ok(committed) => self.publish(slot, &target, committed, pace),
            Err(Failure::Source(error)) => return Err(error),
            Err(Failure::Target(error)) => Err(error),
        };
        match outcome {
            Ok(written) => {
                cut.commit();
                Ok(written)
            }
            Err(error) => {
                self.fail_store(slot, &target.engine, error.clone());
                Err(error)
            }
        }
    }

    /// Declares a store failed: it is neither read nor written until it has been replaced.
    pub(crate) fn fail(&self, slot: StoreSlot, reason: Error) {
        if let Some(store) = self.store(slot) {
            self.fail_store(slot, &store.engine, reason);
        }
    }

    /// Whether a store may be moved aside and replaced: asked before it is moved.
    ///
    /// # Errors
    ///
    /// When it may hold the last copy of cold rows: the reason of its failure.
    pub(crate) fn may_replace(&self, slot: StoreSlot) -> Result<()> {
        may_replace(&self.slots.read(), slot)
    }

    /// Puts a new, empty store in the place of one that was moved aside. Every table owes it all.
    ///
    /// # Errors
    ///
    /// As [`may_replace`](Self::may_replace).
    pub(crate) fn replace(&self, slot: StoreSlot, engine: Arc<dyn StorageEngine>) -> Result<()> {
        let mut slots = self.slots.write();
        may_replace(&slots, slot)?;
        slots[slot as usize] = Slot::Open(Store { engine, image: None });
        Ok(())
    }

    /// Puts a new, empty store in the place of one that does not hold, after the state was recovered
    /// without it: whatever it had is not needed any more. Every table owes it all.
    pub(crate) fn replace_at_open(&self, slot: StoreSlot, engine: Arc<dyn StorageEngine>) {
        self.slots.write()[slot as usize] = Slot::Open(Store { engine, image: None });
    }

    /// The manifests of the checkpoints that hold.
    pub(crate) fn manifests(&self) -> [Option<Manifest>; 2] {
        images_of(&self.slots.read()).map(|manifest| manifest.cloned())
    }

    /// Verifies a store from its manifest to the last row, while no checkpoint runs; returns how many
    /// pages and rows its checkpoint has. `None` when it has no checkpoint.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn verify(&self, slot: StoreSlot) -> Result<Option<(u64, u64)>> {
        let _turn = self.turns.begin_reading();
        let Some(Store { engine, image: Some(image) }) = self.store(slot) else {
            return match &self.slots.read()[slot as usize] {
                Slot::Failed { reason, .. } => Err(reason.clone()),
                Slot::Open(_) => Ok(None),
            };
        };
        let found = read::read_store(engine.as_ref(), &self.db)?;
        match found.map(|found| found.manifest) {
            Some(manifest) if manifest == image.manifest => {
                let pages = manifest.tables.values().map(|entry| u64::from(entry.pages)).sum();
                Ok(Some((pages, manifest.cold.values().map(|cold| cold.rows).sum())))
            }
            _ => Err(Error::corrupt(format!("store {}", slot.name()), "lost its manifest")),
        }
    }

    /// Copies the newest checkpoint into another store, which has nothing, while no checkpoint runs; returns
    /// its manifest. Cold rows that wait for a checkpoint are not in it.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when there is no checkpoint; what either store fails with.
    pub(crate) fn copy_newest(&self, into: &dyn StorageEngine) -> Result<Manifest> {
        let _turn = self.turns.begin_reading();
        let newest = newest_of(&images_of(&self.slots.read()));
        let Some(Store { engine, image: Some(image) }) = self.store(newest) else {
            return Err(Error::Store("there is no checkpoint that holds".to_owned()));
        };
        write::copy(&self.db, engine.as_ref(), &image.manifest, into)?;
        Ok(image.manifest.clone())
    }

    /// A row of a cold table, as the newest checkpoint has it. The caller has looked before, and
    /// nothing waits under the key ([`ColdTable::pending`]).
    ///
    /// # Errors
    ///
    /// What the stores fail with, when neither can be read.
    pub(crate) fn cold_row(&self, table: u8, key: u64) -> Result<Option<Vec<u8>>> {
        self.ask_newest(|slot| self.row_in(slot, table, key)).map(Option::flatten)
    }

    /// A row of a cold table: what waits, else what the newest checkpoint has.
    ///
    /// # Errors
    ///
    /// As [`cold_row`](Self::cold_row).
    pub(crate) fn row(&self, table: &ColdTable, key: u64) -> Result<Option<Vec<u8>>> {
        match table.pending(key) {
            Some(row) => Ok(row.map(|bytes| bytes.to_vec())),
            None => self.cold_row(table.id(), key),
        }
    }

    /// The rows of a cold table from a key on, in ascending order, at most `limit` of them: what waits,
    /// else what the newest checkpoint has.
    ///
    /// Each row is as it was at some moment during the call; the writer need not wait.
    ///
    /// # Errors
    ///
    /// As [`cold_row`](Self::cold_row).
    pub(crate) fn rows_from(
        &self,
        table: &ColdTable,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>> {
        pages(from, limit, |from, limit| {
            let found = self.ask_newest(|slot| self.rows_from_in(slot, table, from, limit))?;
            Ok(found.unwrap_or_else(|| Merge::new(table, from, limit).finish()))
        })
    }

    /// The count and sum of a cold table as it is now: the newest checkpoint's, with what waits for
    /// it. The caller holds the writer off.
    ///
    /// # Errors
    ///
    /// As [`cold_row`](Self::cold_row).
    pub(crate) fn cold_sum(&self, table: &ColdTable) -> Result<ColdSum> {
        if let Some(sum) = self.ask_newest(|slot| self.sum_in(slot, table))? {
            return Ok(sum);
        }
        Ok(ColdSum::of_pending(table))
    }

    fn of(db: DatabaseId, slots: [Slot; 2]) -> Self {
        Self { db, faults: Faults::NONE, slots: RwLock::new(slots), turns: Turns::default() }
    }

    fn loaded(&self, slot: StoreSlot) -> Option<Loaded> {
        let image = self.store(slot)?.image?;
        let slots = self.slots.read();
        let images = images_of(&slots);
        Some(Loaded {
            slot,
            // A store at the same sequence has the same rows: nothing is owed to it either.
            pages_owed: images.map(|m| m.is_none_or(|m| m.seq != image.manifest.seq)),
            based: images.map(|m| m.is_some()),
            image,
        })
    }

    fn store(&self, slot: StoreSlot) -> Option<Store> {
        match &self.slots.read()[slot as usize] {
            Slot::Open(store) => Some(store.clone()),
            Slot::Failed { .. } => None,
        }
    }

    /// Declares this store failed, unless another one is in its slot by now.
    fn fail_store(&self, slot: StoreSlot, failed: &Arc<dyn StorageEngine>, reason: Error) {
        let mut slots = self.slots.write();
        if let Slot::Open(Store { engine, image }) = &slots[slot as usize]
            && Arc::ptr_eq(engine, failed)
        {
            tracing::warn!(store = slot.name(), %reason, "a checkpoint store has failed");
            let had_checkpoint = image.is_some();
            let stood_at = image.as_ref().map_or(Epoch::ZERO, |image| image.manifest.epoch);
            slots[slot as usize] = Slot::Failed { reason, had_checkpoint, stood_at };
        }
    }

    fn prepare(&self, cut: &Cut) -> Result<Target> {
        let slots = self.slots.read();
        let slot = cut.store();
        let store = match &slots[slot as usize] {
            Slot::Open(store) => store.clone(),
            Slot::Failed { reason, .. } => return Err(reason.clone()),
        };
        // A reader may have found the other store damaged since the cut was begun.
        if due(&slots).is_some_and(|due| due != slot) {
            return Err(Error::Store(format!("it is not store {}'s turn", slot.name())));
        }
        let images = images_of(&slots);
        let newest = images.iter().flatten().map(|manifest| manifest.seq).max();
        assert!(newest <= Some(cut.at().seq), "a checkpoint does not go back in the log");
        let epoch = slots.iter().map(Slot::epoch_max).max().unwrap_or_default().next();
        let other = match &slots[slot.other() as usize] {
            Slot::Open(Store { engine, image: Some(image) }) => Other {
                source: Some((Arc::clone(engine), Arc::clone(image))),
                knows_deletions_to: image.manifest.epoch,
            },
            // A new store will be given a copy of all rows, where nothing deleted is.
            Slot::Open(Store { image: None, .. }) => {
                Other { source: None, knows_deletions_to: Epoch::MAX }
            }
            Slot::Failed { reason, .. } => return Err(reason.clone()),
        };
        let faults = self.faults.clone();
        Ok(Target { engine: store.engine, image: store.image, other, epoch, faults })
    }

    fn publish(
        &self,
        slot: StoreSlot,
        target: &Target,
        committed: Committed,
        pace: &mut dyn FnMut(u64),
    ) -> Result<Written> {
        {
            let mut slots = self.slots.write();
            match &mut slots[slot as usize] {
                Slot::Open(store) if Arc::ptr_eq(&store.engine, &target.engine) => {
                    store.image = Some(Arc::new(committed.image));
                }
                Slot::Open(_) => return Err(Error::Store("was replaced meanwhile".to_owned())),
                Slot::Failed { reason, .. } => return Err(reason.clone()),
            }
        }
        self.faults.reach(CrashPoint::CheckpointPublished);
        write::remove(target.engine.as_ref(), committed.superseded, pace)?;
        self.faults.reach(CrashPoint::SupersededRemoved);
        Ok(committed.written)
    }

    /// What the newest checkpoint answers, or the other if that one fails; a store that fails by itself
    /// where the other does not is declared failed. `None` when there is no checkpoint yet.
    fn ask_newest<T>(&self, ask: impl Fn(StoreSlot) -> Result<Option<T>>) -> Result<Option<T>> {
        let newest = newest_of(&images_of(&self.slots.read()));
        let mut failure = None;
        for slot in [newest, newest.other()] {
            let Some(Store { engine, .. }) = self.store(slot) else { continue };
            match ask(slot) {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    if let Some((slot, engine, error)) = failure
                        && is_of_the_store(&error)
                    {
                        self.fail_store(slot, &engine, error);
                    }
                    return Ok(Some(answer));
                }
                Err(error) => failure = failure.or(Some((slot, engine, error))),
            }
        }
        match failure {
            Some((_, _, error)) => Err(error),
            None => self.expect_nothing_lost().map(|()| None),
        }
    }

    fn expect_nothing_lost(&self) -> Result<()> {
        for slot in self.slots.read().iter() {
            if let Slot::Failed { reason, .. } = slot
                && !slot.holds_nothing()
            {
                return Err(reason.clone());
            }
        }
        Ok(())
    }

    /// `None` when the store has no checkpoint to ask.
    fn row_in(&self, slot: StoreSlot, table: u8, key: u64) -> Result<Option<Option<Vec<u8>>>> {
        loop {
            let Some(Store { engine, image: Some(image) }) = self.store(slot) else {
                return Ok(None);
            };
            let epoch = image.manifest.epoch;
            let newest =
                read::newest_row(engine.as_ref(), &self.db, table, key, epoch, &mut |_, _| ())?;
            match newest {
                Some((_, row)) => return Ok(Some(row)),
                None if self.is_at(slot, epoch) => return Ok(Some(None)),
                None => {}
            }
        }
    }

    /// `None` when the store has no checkpoint to ask.
    fn rows_from_in(
        &self,
        slot: StoreSlot,
        table: &ColdTable,
        from: u64,
        limit: usize,
    ) -> Result<Option<Page>> {
        loop {
            let Some(Store { engine, image: Some(image) }) = self.store(slot) else {
                return Ok(None);
            };
            let epoch = image.manifest.epoch;
            // What waits is looked at first: a row that stops waiting after this look is in the
            // checkpoint, and one that had stopped before it was there already.
            let mut merge = Merge::new(table, from, limit);
            if !merge.has_enough() {
                let mut each = |key, row: &[u8]| merge.stored(key, row);
                read::each_row_from(engine.as_ref(), &self.db, table.id(), from, epoch, &mut each)?;
            }
            // A checkpoint that came between may have removed what it superseded.
            if self.is_at(slot, epoch) {
                return Ok(Some(merge.finish()));
            }
        }
    }

    fn sum_in(&self, slot: StoreSlot, table: &ColdTable) -> Result<Option<ColdSum>> {
        loop {
            let Some(Store { engine, image: Some(image) }) = self.store(slot) else {
                return Ok(None);
            };
            let epoch = image.manifest.epoch;
            let id = table.id();
            let mut sum = image.manifest.cold_sum(id);
            for (key, row) in table.pending_rows(Some(slot)) {
                let before =
                    read::newest_row(engine.as_ref(), &self.db, id, key, epoch, &mut |_, _| ())?;
                if let Some((_, Some(before))) = before {
                    sum.remove(id, key, &before);
                }
                row.iter().for_each(|row| sum.add(id, key, row));
            }
            // A checkpoint that came between took rows away from what waits, or from the store.
            if self.is_at(slot, epoch) {
                return Ok(Some(sum));
            }
        }
    }

    fn is_at(&self, slot: StoreSlot, epoch: Epoch) -> bool {
        images_of(&self.slots.read())[slot as usize].is_some_and(|m| m.epoch == epoch)
    }
}

impl Slot {
    /// One that does not hold at an open: what it had is not known.
    const fn lost(reason: Error) -> Self {
        Self::Failed { reason, had_checkpoint: true, stood_at: Epoch::ZERO }
    }

    /// Whether there is no checkpoint in it to read from.
    const fn has_nothing(&self) -> bool {
        !matches!(self, Self::Open(Store { image: Some(_), .. }))
    }

    /// Whether it never had a checkpoint, so that nothing is lost with it.
    fn holds_nothing(&self) -> bool {
        match self {
            Self::Open(store) => store.image.is_none(),
            Self::Failed { had_checkpoint, .. } => !had_checkpoint,
        }
    }

    fn epoch_max(&self) -> Epoch {
        match self {
            Self::Open(store) => store.image.as_ref().map_or(Epoch::ZERO, |image| image.epoch_max),
            Self::Failed { .. } => Epoch::ZERO,
        }
    }
}

fn may_replace(slots: &[Slot; 2], slot: StoreSlot) -> Result<()> {
    let replaced = &slots[slot as usize];
    if images_of(slots)[slot.other() as usize].is_some() || replaced.holds_nothing() {
        return Ok(());
    }
    Err(match replaced {
        Slot::Failed { reason, .. } => reason.clone(),
        Slot::Open(_) => Error::Store("the only checkpoint is not replaced".to_owned()),
    })
}

fn images_of(slots: &[Slot; 2]) -> [Option<&Manifest>; 2] {
    [&slots[0], &slots[1]].map(|slot| match slot {
        Slot::Open(store) => store.image.as_ref().map(|image| &image.manifest),
        Slot::Failed { .. } => None,
    })
}

/// The store that the next checkpoint goes to, if neither has failed. A store that failed may come
/// back with an epoch that is not known here, and may have the last copy of cold rows: while it is
/// there, the other one keeps still.
fn due(slots: &[Slot; 2]) -> Option<StoreSlot> {
    let are_open = slots.iter().all(|slot| matches!(slot, Slot::Open(_)));
    are_open.then(|| newest_of(&images_of(slots)).other())
}

/// The slot of the newest manifest; B when there is none, so that A is the first one's turn.
fn newest_of(manifests: &[Option<&Manifest>; 2]) -> StoreSlot {
    let [a, b] = manifests.map(|manifest| manifest.map(|m| (m.seq, m.epoch)));
    if a > b { StoreSlot::A } else { StoreSlot::B }
}

/// A store before it has been verified.
enum Found {
    Manifest { engine: Arc<dyn StorageEngine>, manifest: Manifest, superseded: Vec<Vec<u8>> },
    Nothing { engine: Arc<dyn StorageEngine> },
    Failed { reason: Error },
}

/// Whether it is a store's failure, or would be no better with another store: a full disk, too many open
/// files.
const fn is_of_the_store(reason: &Error) -> bool {
    matches!(reason, Error::Corrupt { .. } | Error::Store(_))
}

/// What is a store's failure; what is not is an error.
fn store_failure(reason: Error) -> Result<Error> {
    if is_of_the_store(&reason) { Ok(reason) } else { Err(reason) }
}

fn look(db: &DatabaseId, engine: Result<Arc<dyn StorageEngine>>) -> Result<Found> {
    let engine = match engine {
        Ok(engine) => engine,
        Err(reason @ Error::FormatTooNew { .. }) => return Err(reason),
        Err(reason) => return Ok(Found::Failed { reason }),
    };
    match read::newest_manifest(engine.as_ref(), db) {
        Ok(Some((manifest, superseded))) => Ok(Found::Manifest { engine, manifest, superseded }),
        Ok(None) => Ok(Found::Nothing { engine }),
        Err(reason) => Ok(Found::Failed { reason: store_failure(reason)? }),
    }
}

const fn manifest_of(found: &Found) -> Option<&Manifest> {
    match found {
        Found::Manifest { manifest, .. } => Some(manifest),
        Found::Nothing { .. } | Found::Failed { .. } => None,
    }
}

/// A store that is older than its fellow has seen it has silently lost its last checkpoints, or is
/// an old copy. It may be whole, but deletions that it was believed to know are forgotten.
fn expect_no_regress(found: &mut [Found; 2]) {
    let [Some(a), Some(b)] = [manifest_of(&found[0]), manifest_of(&found[1])] else { return };
    let newest = newest_of(&[Some(a), Some(b)]);
    let (new, old) = if newest == StoreSlot::A { (a, b) } else { (b, a) };
    if new.other_epoch <= old.epoch && old.epoch < new.epoch {
        return;
    }
    let detail = format!(
        "stands at epoch {}, sequence {}; the other store stands at epoch {}, sequence {}, and has \
         seen it at epoch {}",
        old.epoch, old.seq, new.epoch, new.seq, new.other_epoch
    );
    let reason = Error::corrupt(format!("store {}", newest.other().name()), detail);
    found[newest.other() as usize] = Found::Failed { reason };
}

fn settle(db: &DatabaseId, found: Found, into: Option<Sink<'_>>) -> Result<Slot> {
    let (engine, manifest, superseded) = match found {
        Found::Manifest { engine, manifest, superseded } => (engine, manifest, superseded),
        Found::Nothing { engine } => return Ok(Slot::Open(Store { engine, image: None })),
        Found::Failed { reason } => return Ok(Slot::lost(reason)),
    };
    match read::read_image(engine.as_ref(), db, manifest, superseded, into) {
        Ok(image) => Ok(Slot::Open(Store { engine, image: Some(Arc::new(image)) })),
        Err(reason) => Ok(Slot::lost(store_failure(reason)?)),
    }
}
