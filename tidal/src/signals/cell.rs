//! One item's state under one signal in one scope: a row of a column.
//!
//! Knows: how a cell lies in memory (one cache line) and in a page. Must not know: locks, scopes,
//! how an item is found.
//!
//! In a page:
//!
//! ```text
//! entity u64 | all-time count varint | number of half-lives u8 | (mantissa f64, exponent i32) each
//! | bucket list: length varint | (label delta varint, count varint) each
//! ```

use super::arena::Arena;
use super::buckets::Buckets;
use super::grains::{Grains, GrainsAt, Minute, minute_of};
use super::top::{Entry, KEPT_MIN, TopList};
use crate::codec::{DecodeError, Put, Reader};
use crate::decay::{Factor, Sum};
use crate::ids::{EntityId, Timestamp};
use crate::schema::{EntityKind, HalfLife, SignalDef, Window, WindowDef};
use crate::table::{Row, Slab, Slot, hash_u64};

/// A cell. Its score under the first half-life is here, those under further ones in the side.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Cell {
    pub(crate) entity: EntityId,
    pub(crate) mantissa: f64,
    pub(crate) count: u64,
    pub(crate) buckets: Buckets,
    pub(crate) exponent: i32,
}

const _: () = assert!(size_of::<Option<Cell>>() == 64, "a cell is one cache line");

/// A cell that is read has room to count on.
const RESTORED_COUNT_MAX: u64 = u64::MAX / 2;

impl Cell {
    fn new(entity: EntityId) -> Self {
        let Sum { mantissa, exponent } = Sum::ZERO;
        Self { entity, mantissa, count: 0, buckets: Buckets::new(), exponent }
    }

    /// The score under the first half-life.
    #[inline]
    pub(crate) const fn sum(&self) -> Sum {
        Sum { mantissa: self.mantissa, exponent: self.exponent }
    }
}

/// What a signal's cells have in common, resolved from the schema once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    /// What the entities are: only items are hidden and deleted.
    pub(crate) kind: EntityKind,
    pub(crate) half_lives: Vec<HalfLife>,
    pub(crate) grains: Grains,
    /// The windows, each with the minute after which it counts (0 for those that were always there).
    pub(crate) windows: Vec<(Window, Minute)>,
    /// The windows whose velocity can be read, likewise.
    pub(crate) velocities: Vec<(Window, Minute)>,
}

impl Spec {
    pub(crate) fn of(signal: &SignalDef) -> Self {
        // What is added to a schema later counts from the first minute after it was added.
        let first_minute = |def: &WindowDef| match def.since.time {
            Timestamp::EPOCH => 0,
            added => minute_of(added) + 1,
        };
        let kinds: Vec<Window> = signal.windows().iter().map(|def| def.window).collect();
        Self {
            kind: signal.kind(),
            half_lives: signal.half_lives().iter().map(|def| def.half_life).collect(),
            grains: Grains::new(&kinds, signal.velocity().is_some()),
            windows: signal.windows().iter().map(|d| (d.window, first_minute(d))).collect(),
            velocities: signal.velocity_windows().map(|d| (d.window, first_minute(&d))).collect(),
        }
    }
}

/// An event as the cells it touches see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CellEvent<'a> {
    pub(crate) entity: EntityId,
    pub(crate) minute: Minute,
    /// The weighted terms, one per half-life of the signal.
    pub(crate) terms: &'a [Sum],
}

/// The terms of an event, one per half-life.
pub(crate) fn terms_of(spec: &Spec, weight: f64, at: Timestamp, out: &mut Vec<Sum>) {
    out.extend(spec.half_lives.iter().map(|&half_life| Factor::at(at, half_life).weighted(weight)));
}

/// What a column keeps beside its cells.
#[derive(Debug)]
pub(crate) struct CellSide {
    pub(crate) spec: Spec,
    pub(crate) arena: Arena,
    /// Scores under the second and further half-lives, by slot.
    further: Vec<Vec<Sum>>,
    /// The best items, one list per half-life; derived.
    pub(crate) tops: Vec<TopList>,
}

impl CellSide {
    pub(crate) fn new(spec: Spec) -> Self {
        let half_lives = spec.half_lives.len();
        Self {
            spec,
            arena: Arena::default(),
            further: vec![Vec::new(); half_lives - 1],
            tops: vec![TopList::default(); half_lives],
        }
    }

    /// Takes an extended spec: a half-life that is new starts from zero.
    pub(crate) fn extend(&mut self, spec: Spec) {
        assert!(spec.half_lives.starts_with(&self.spec.half_lives), "a schema only grows");
        self.further.resize(spec.half_lives.len() - 1, Vec::new());
        self.tops.resize(spec.half_lives.len(), TopList::default());
        self.spec = spec;
    }

    /// The score of a cell under one of the half-lives.
    pub(crate) fn sum_of(&self, cell: &Cell, slot: Slot, half_life: usize) -> Sum {
        match half_life.checked_sub(1) {
            None => cell.sum(),
            Some(i) => self.further[i].get(slot as usize).copied().unwrap_or(Sum::ZERO),
        }
    }

    fn set_further(&mut self, slot: Slot, i: usize, sum: Sum) {
        let sums = &mut self.further[i];
        if sums.len() <= slot as usize {
            sums.resize(slot as usize + 1, Sum::ZERO);
        }
        sums[slot as usize] = sum;
    }

    fn forget(&mut self, slot: Slot) {
        for i in 0..self.further.len() {
            self.set_further(slot, i, Sum::ZERO);
        }
    }
}

/// Counts an event in a cell, which is made if missing; `eligible` says whether the item may be in
/// the top lists. `hint` is where the cell was found earlier. True when a top list must be rebuilt.
#[inline]
pub(crate) fn record(
    slab: &mut Slab<Cell>,
    hint: Option<Slot>,
    event: CellEvent<'_>,
    grains: &GrainsAt,
    eligible: bool,
) -> bool {
    let found = hint.filter(|&slot| slab.peek(slot).is_some_and(|c| c.entity == event.entity));
    let (slot, new) = match found.or_else(|| slab.find(&event.entity)) {
        Some(slot) => (slot, false),
        None => (slab.insert_new(Cell::new(event.entity)), true),
    };
    let (cell, side) = slab.row_mut(slot);
    cell.count += 1;
    cell.buckets.add(event.minute, grains, &mut side.arena);
    let old = cell.sum();
    let sum = old.plus(event.terms[0]);
    (cell.mantissa, cell.exponent) = (sum.mantissa, sum.exponent);
    let entity = event.entity;
    let mut short = false;
    if eligible {
        short |= side.tops[0].update((!new).then_some(old), Entry { sum, entity });
    }
    for i in 1..event.terms.len() {
        let old = side.further[i - 1].get(slot as usize).copied().unwrap_or(Sum::ZERO);
        let sum = old.plus(event.terms[i]);
        side.set_further(slot, i - 1, sum);
        if eligible {
            short |= side.tops[i].update((!new).then_some(old), Entry { sum, entity });
        }
    }
    short
}

/// Takes an item's cell out; `eligible` says whether it may be in the top lists. True when a top list
/// must be rebuilt.
pub(crate) fn forget(slab: &mut Slab<Cell>, entity: EntityId, eligible: bool) -> bool {
    let short = eligible && set_eligible(slab, entity, false);
    if let Some((slot, cell)) = slab.remove(&entity) {
        let side = slab.side_mut();
        cell.buckets.release(&mut side.arena);
        side.forget(slot);
    }
    short
}

/// Time is set back to `to`; the last operation was at `before`. What lies after the minute `last`
/// leaves every bucket list. A score that going back has lifted beyond what events of `to` add up to starts
/// from zero; one that was as large before is of large weights, and stays.
pub(crate) fn drop_after(slab: &mut Slab<Cell>, last: Minute, to: Timestamp, before: Timestamp) {
    let grains = slab.side().spec.grains.at(before);
    let slots: Vec<Slot> = slab.iter().map(|(slot, _)| slot).collect();
    for &slot in &slots {
        let (cell, side) = slab.row_mut(slot);
        cell.buckets.drop_after(last, &grains, &mut side.arena);
    }
    for i in 0..slab.side().tops.len() {
        // Under a half-life that is infinite these are the same: nothing is lifted.
        let half_life = slab.side().spec.half_lives[i];
        let (now, then) = (Factor::at(to, half_life), Factor::at(before, half_life));
        for &slot in &slots {
            if slab.side().sum_of(slab.row(slot), slot, i).is_lifted(then, now) {
                set_sum(slab, slot, i, Sum::ZERO);
            }
        }
    }
}

fn set_sum(slab: &mut Slab<Cell>, slot: Slot, half_life: usize, sum: Sum) {
    let (cell, side) = slab.row_mut(slot);
    match half_life.checked_sub(1) {
        None => (cell.mantissa, cell.exponent) = (sum.mantissa, sum.exponent),
        Some(i) => side.set_further(slot, i, sum),
    }
}

/// Puts an item into the top lists or takes it out. True when a top list must be rebuilt.
pub(crate) fn set_eligible(slab: &mut Slab<Cell>, entity: EntityId, eligible: bool) -> bool {
    let Some(slot) = slab.find(&entity) else { return false };
    let mut short = false;
    for i in 0..slab.side().tops.len() {
        let sum = slab.side().sum_of(slab.row(slot), slot, i);
        let top = &mut slab.side_mut().tops[i];
        if eligible {
            top.update(None, Entry { sum, entity });
        } else {
            short |= top.remove(Entry { sum, entity });
        }
    }
    short
}

/// What every cell ranks by under one half-life.
pub(crate) fn entries(slab: &Slab<Cell>, half_life: usize) -> impl Iterator<Item = Entry> {
    slab.iter().map(move |(slot, cell)| Entry {
        sum: slab.side().sum_of(cell, slot, half_life),
        entity: cell.entity,
    })
}

/// Builds the top lists anew from the cells.
pub(crate) fn rebuild_tops(slab: &mut Slab<Cell>, eligible: impl Fn(EntityId) -> bool) {
    let tops = (0..slab.side().tops.len()).map(|i| TopList::of(entries(slab, i), &eligible));
    let tops = tops.collect();
    slab.side_mut().tops = tops;
}

/// The last minute that any bucket list counts; 0 when none counts anything.
pub(crate) fn last_minute(slab: &Slab<Cell>) -> Minute {
    let arena = &slab.side().arena;
    slab.iter().filter_map(|(_, cell)| cell.buckets.last_label(arena)).max().unwrap_or(0)
}

/// Checks what is derived against what it derives from.
pub(crate) fn check(slab: &Slab<Cell>, eligible: impl Fn(EntityId) -> bool) -> Result<(), String> {
    for (i, top) in slab.side().tops.iter().enumerate() {
        if TopList::of(entries(slab, i), &eligible).best(KEPT_MIN) != top.best(KEPT_MIN) {
            return Err(format!("the top list of half-life {i} is not the best of the cells"));
        }
    }
    for (slot, cell) in slab.iter() {
        if cell.buckets.total(&slab.side().arena) > cell.count {
            return Err(format!("the cell in slot {slot} counts more in windows than in all"));
        }
    }
    Ok(())
}

impl Row for Cell {
    type Key = EntityId;
    type Side = CellSide;

    #[inline]
    fn key(&self) -> &EntityId {
        &self.entity
    }

    #[inline]
    fn hash(key: &EntityId) -> u64 {
        hash_u64(key.get())
    }

    fn encode(&self, slot: Slot, side: &CellSide, out: &mut Vec<u8>) {
        encode_head(self, slot, side, out);
        self.buckets.encode(&side.arena, out);
    }

    fn decode(
        slot: Slot,
        reader: &mut Reader<'_>,
        side: &mut CellSide,
    ) -> Result<Self, DecodeError> {
        let mut cell = Self::new(EntityId::new(reader.u64()?));
        cell.count = reader.varint()?;
        let half_lives = reader.u8()? as usize;
        if half_lives == 0 || half_lives > side.tops.len() {
            return Err(DecodeError::Malformed("a cell with other half-lives than its signal"));
        }
        Sum { mantissa: cell.mantissa, exponent: cell.exponent } = decode_sum(reader)?;
        for i in 1..half_lives {
            let sum = decode_sum(reader)?;
            side.set_further(slot, i - 1, sum);
        }
        cell.buckets = Buckets::decode(reader, &mut side.arena)?;
        if !(cell.buckets.total(&side.arena)..=RESTORED_COUNT_MAX).contains(&cell.count) {
            return Err(DecodeError::Malformed("a cell with a count that no writer makes"));
        }
        Ok(cell)
    }

    fn canonical(&self, slot: Slot, side: &CellSide, now: Timestamp, out: &mut Vec<u8>) {
        encode_head(self, slot, side, out);
        for (label, count) in self.buckets.canonical(&side.spec.grains.at(now), &side.arena) {
            out.put_u32(label);
            out.put_u64(count);
        }
    }

    fn side_size_bytes(side: &CellSide) -> usize {
        let further: usize = side.further.iter().map(|sums| sums.capacity() * 16).sum();
        let tops: usize = side.tops.iter().map(TopList::size_bytes).sum();
        side.arena.size_bytes() + further + tops
    }
}

fn decode_sum(reader: &mut Reader<'_>) -> Result<Sum, DecodeError> {
    let sum = Sum { mantissa: reader.f64()?, exponent: reader.i32()? };
    if sum.is_normal() { Ok(sum) } else { Err(DecodeError::Malformed("a sum out of normal form")) }
}

fn encode_head(cell: &Cell, slot: Slot, side: &CellSide, out: &mut Vec<u8>) {
    out.put_u64(cell.entity.get());
    out.put_varint(cell.count);
    out.put_u8(side.tops.len() as u8);
    for i in 0..side.tops.len() {
        let sum = side.sum_of(cell, slot, i);
        out.put_f64(sum.mantissa);
        out.put_i32(sum.exponent);
    }
}
