//! All cells: one column per (scope, signal).
//!
//! Knows: columns, and how a run of events is spread over them. Must not know: users, names, where
//! events come from.
//!
//! A run is applied in three passes. [`Run::push`] collects what each column gets, in log order.
//! [`Run::look_up`] finds every cell and touches it under the read lock: it changes nothing, so it may
//! overlap the sync of the log, and it turns a chain of cache misses into overlapping ones.
//! [`Run::commit`] takes each column's write lock once and only updates. The order of updates within
//! a column is log order, and columns do not see each other, so the result is that of one event after
//! the other.

use std::collections::HashMap;
use std::sync::Arc;

use super::cell::{self, Cell, CellEvent, CellSide, Spec};
use super::grains::{GrainsAt, Minute, READ_LAG, minute_of};
use crate::codec::DecodeError;
use crate::decay::Sum;
use crate::ids::{CohortId, EntityId, SignalTypeId, Timestamp};
use crate::options::FUTURE_SKEW_MAX;
use crate::schema::EntityKind;
use crate::sync::{RwLock, RwLockReadGuard};
use crate::table::{DurableTable, Slab, Slot, StateTable, Table, TableId};

/// The cells of one signal in one scope.
pub(crate) struct Column {
    /// Whether its entities are items.
    of_items: bool,
    table: Arc<Table<Cell>>,
}

impl Column {
    /// The kind of table that columns are on disk.
    pub(crate) const KIND: u8 = 1;

    fn new(scope: CohortId, signal: SignalTypeId, spec: Spec) -> Self {
        let part = (u64::from(scope.get()) << 16) | u64::from(signal.get());
        let id = TableId { kind: Self::KIND, part };
        let of_items = spec.kind == EntityKind::Item;
        Self { of_items, table: Arc::new(Table::new(id, CellSide::new(spec))) }
    }

    /// The scope and signal of a column's table.
    pub(crate) fn of_part(part: u64) -> Option<(CohortId, SignalTypeId)> {
        let scope = u32::try_from(part >> 16).ok()?;
        Some((CohortId::new(scope), SignalTypeId::new(part as u16)))
    }

    /// Whether an entity is kept out of rankings: an item that is hidden. A user or creator of the same
    /// number is another one.
    #[inline]
    fn hides(&self, entity: EntityId, is_hidden: &dyn Fn(EntityId) -> bool) -> bool {
        self.of_items && is_hidden(entity)
    }

    /// The column as a checkpoint sees it.
    pub(crate) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }

    pub(crate) fn cells(&self) -> RwLockReadGuard<'_, Slab<Cell>> {
        self.table.read()
    }

    /// Finds where each event's cell is, and loads what an update will change.
    fn look_up(&self, events: &[Event], wanted: &[u32], hints: &mut Vec<Option<Slot>>) {
        let slab = self.table.read();
        hints.clear();
        hints.extend(wanted.iter().map(|&at| slab.find(&events[at as usize].entity)));
        let mut loaded = 0;
        for slot in hints.iter().flatten() {
            let cell = slab.row(*slot);
            loaded ^= cell.count ^ u64::from(cell.buckets.last_word(&slab.side().arena));
        }
        // The loads are the point: they must not be optimised away.
        std::hint::black_box(loaded);
    }

    fn commit(&self, run: &Run, bucket: &Bucket, is_hidden: &dyn Fn(EntityId) -> bool) {
        let mut slab = self.table.write();
        let mut short = false;
        let mut grains: Option<(Timestamp, GrainsAt)> = None;
        for (i, &at) in bucket.events.iter().enumerate() {
            let event = &run.events[at as usize];
            let grains = match grains {
                Some((time, at)) if time == event.engine_time => at,
                _ => {
                    let at = slab.side().spec.grains.at(event.engine_time);
                    grains = Some((event.engine_time, at));
                    at
                }
            };
            let hint = bucket.hints.get(i).copied().flatten();
            let seen = CellEvent {
                entity: event.entity,
                minute: event.minute,
                terms: &run.terms[event.terms.0 as usize..event.terms.1 as usize],
            };
            let eligible = !self.hides(event.entity, is_hidden);
            short |= cell::record(&mut slab, hint, seen, &grains, eligible);
        }
        if short {
            cell::rebuild_tops(&mut slab, |entity| !self.hides(entity, is_hidden));
        }
    }
}

/// An event of a run, resolved as far as all its cells share it.
#[derive(Debug)]
struct Event {
    entity: EntityId,
    minute: Minute,
    terms: (u32, u32),
    engine_time: Timestamp,
}

#[derive(Debug, Default)]
struct Bucket {
    events: Vec<u32>,
    hints: Vec<Option<Slot>>,
}

/// A column's place in the ledger; columns are never removed.
pub(crate) type ColumnIndex = u32;

/// Events that are decided but not yet in the cells, with buffers that are used again.
#[derive(Default)]
pub(crate) struct Run {
    events: Vec<Event>,
    terms: Vec<Sum>,
    buckets: Vec<Bucket>,
    touched: Vec<ColumnIndex>,
}

impl Run {
    /// Adds an event whose cells are in `columns`, all of one signal.
    pub(crate) fn push(
        &mut self,
        spec: &Spec,
        columns: impl Iterator<Item = ColumnIndex>,
        entity: EntityId,
        weight: f64,
        at: Timestamp,
        engine_time: Timestamp,
    ) {
        let first = self.terms.len() as u32;
        cell::terms_of(spec, weight, at, &mut self.terms);
        let terms = (first, self.terms.len() as u32);
        let index = self.events.len() as u32;
        self.events.push(Event { entity, minute: minute_of(at), terms, engine_time });
        for column in columns {
            if self.buckets.len() <= column as usize {
                self.buckets.resize_with(column as usize + 1, Bucket::default);
            }
            let bucket = &mut self.buckets[column as usize];
            if bucket.events.is_empty() {
                self.touched.push(column);
            }
            bucket.events.push(index);
        }
    }

    /// The pass that changes nothing.
    pub(crate) fn look_up(&mut self, ledger: &Ledger) {
        let columns = ledger.columns.read();
        for &column in &self.touched {
            let bucket = &mut self.buckets[column as usize];
            columns.list[column as usize].look_up(&self.events, &bucket.events, &mut bucket.hints);
        }
    }

    /// Updates every cell and empties the run.
    pub(crate) fn commit(&mut self, ledger: &Ledger, is_hidden: &dyn Fn(EntityId) -> bool) {
        let columns = ledger.columns.read();
        for &column in &self.touched {
            let bucket = std::mem::take(&mut self.buckets[column as usize]);
            columns.list[column as usize].commit(self, &bucket, is_hidden);
            self.buckets[column as usize] = bucket;
        }
        self.clear();
    }

    /// Forgets all events.
    pub(crate) fn clear(&mut self) {
        for column in self.touched.drain(..) {
            let bucket = &mut self.buckets[column as usize];
            bucket.events.clear();
            bucket.hints.clear();
        }
        self.events.clear();
        self.terms.clear();
    }
}

#[derive(Default)]
struct Columns {
    list: Vec<Arc<Column>>,
    by_name: HashMap<(CohortId, SignalTypeId), ColumnIndex>,
}

/// The columns of all scopes. Read by anyone, written by one thread.
#[derive(Default)]
pub(crate) struct Ledger {
    columns: RwLock<Columns>,
}

impl Ledger {
    /// The column, if anything was ever counted in it.
    pub(crate) fn column(&self, scope: CohortId, signal: SignalTypeId) -> Option<Arc<Column>> {
        let columns = self.columns.read();
        let index = *columns.by_name.get(&(scope, signal))?;
        Some(Arc::clone(&columns.list[index as usize]))
    }

    /// The column's index; the column is made if missing.
    pub(crate) fn column_index(
        &self,
        scope: CohortId,
        signal: SignalTypeId,
        spec: &Spec,
    ) -> ColumnIndex {
        if let Some(&index) = self.columns.read().by_name.get(&(scope, signal)) {
            return index;
        }
        let mut columns = self.columns.write();
        let index = columns.list.len() as ColumnIndex;
        columns.list.push(Arc::new(Column::new(scope, signal, spec.clone())));
        columns.by_name.insert((scope, signal), index);
        index
    }

    /// Gives every column of `signal` its extended spec.
    pub(crate) fn extend(&self, signal: SignalTypeId, spec: &Spec) {
        for column in self.all() {
            if Column::of_part(column.table.id().part).is_some_and(|(_, s)| s == signal) {
                column.table.write().change_side(|side| side.extend(spec.clone()));
            }
        }
    }

    /// Takes an item's cells out of every column.
    pub(crate) fn forget(&self, entity: EntityId, is_hidden: &dyn Fn(EntityId) -> bool) {
        for column in self.all() {
            if !column.of_items || column.cells().find(&entity).is_none() {
                continue;
            }
            let mut slab = column.table.write();
            if cell::forget(&mut slab, entity, !is_hidden(entity)) {
                cell::rebuild_tops(&mut slab, |entity| !column.hides(entity, is_hidden));
            }
        }
    }

    /// Engine time is set back to `time`; the last operation was at `before`. No window counts what was
    /// counted for later minutes any more.
    pub(crate) fn drop_after(
        &self,
        time: Timestamp,
        before: Timestamp,
        is_hidden: &dyn Fn(EntityId) -> bool,
    ) {
        let last = minute_of(time.saturating_add(READ_LAG));
        for column in self.all() {
            let mut slab = column.table.write();
            cell::drop_after(&mut slab, last, time, before);
            cell::rebuild_tops(&mut slab, |entity| !column.hides(entity, is_hidden));
        }
    }

    /// An item was hidden or shown: it leaves or joins the top lists. `is_hidden` is as it is now.
    pub(crate) fn set_eligible(
        &self,
        entity: EntityId,
        eligible: bool,
        is_hidden: &dyn Fn(EntityId) -> bool,
    ) {
        for column in self.all() {
            if !column.of_items || column.cells().find(&entity).is_none() {
                continue;
            }
            let mut slab = column.table.write();
            if cell::set_eligible(&mut slab, entity, eligible) {
                cell::rebuild_tops(&mut slab, |entity| !column.hides(entity, is_hidden));
            }
        }
    }

    /// Builds every top list anew: after a restore, when the rows are there but nothing derived is.
    pub(crate) fn rebuild_tops(&self, is_hidden: &dyn Fn(EntityId) -> bool) {
        for column in self.all() {
            cell::rebuild_tops(&mut column.table.write(), |entity| {
                !column.hides(entity, is_hidden)
            });
        }
    }

    /// Refuses restored cells that no log leads to: of a scope beyond the last, or with events
    /// further ahead of engine time than any may be.
    pub(crate) fn check_restored(
        &self,
        last_scope: CohortId,
        engine_time: Timestamp,
    ) -> Result<(), DecodeError> {
        let last_minute = minute_of(engine_time.saturating_add(FUTURE_SKEW_MAX));
        for column in self.all() {
            if Column::of_part(column.table.id().part).is_none_or(|(scope, _)| scope > last_scope) {
                return Err(DecodeError::Malformed("cells of a cohort that does not exist"));
            }
            if cell::last_minute(&column.cells()) > last_minute {
                return Err(DecodeError::Malformed("events far ahead of engine time"));
            }
        }
        Ok(())
    }

    /// Every column, as a checkpoint sees it.
    pub(crate) fn tables(&self) -> Vec<Arc<dyn StateTable>> {
        self.all().iter().map(|column| column.table()).collect()
    }

    /// Checks the top lists and bucket lists of every column; the tables check the rest.
    pub(crate) fn check(&self, is_hidden: &dyn Fn(EntityId) -> bool) -> Result<(), String> {
        self.all().iter().try_for_each(|column| {
            cell::check(&column.cells(), |entity| !column.hides(entity, is_hidden))
                .map_err(|broken| format!("{}: {broken}", column.table.id()))
        })
    }

    fn all(&self) -> Vec<Arc<Column>> {
        self.columns.read().list.clone()
    }
}
