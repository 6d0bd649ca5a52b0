//! Reading a column: scores, counts, velocity, rankings.
//!
//! Knows: what the numbers mean at a moment. Must not know: names, who asks.
//!
//! Every read takes one lock, on one column, for the whole request, so it sees that column at the
//! boundary of a group of operations.

use std::sync::Arc;

use super::VELOCITY_PRIOR;
use super::cell::{Cell, Spec, entries};
use super::grains::Span;
use super::ledger::Column;
use super::top::{Best, Entry};
use crate::decay::Decay;
use crate::error::{Error, Result};
use crate::ids::{EntityId, Timestamp};
use crate::schema::{EntityKind, HalfLife, Window};
use crate::table::Slab;

/// One signal in one scope at one moment. A scope that was never written reads as zeros.
pub(crate) struct SignalView {
    pub(crate) column: Option<Arc<Column>>,
    pub(crate) spec: Arc<Spec>,
    pub(crate) now: Timestamp,
}

/// What items are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ranking {
    /// Decayed score under the half-life at this position.
    Score(usize),
    /// Count in a window.
    Count(Window),
    /// Velocity over a window.
    Velocity(Window),
}

/// A window as a read counts it.
#[derive(Clone, Copy)]
enum Counted {
    AllTime,
    Span(Span),
}

impl SignalView {
    /// The position of a half-life among the signal's; `None` asks for the default.
    pub(crate) fn half_life(&self, half_life: Option<HalfLife>) -> Result<usize> {
        let Some(wanted) = half_life else { return Ok(0) };
        self.spec.half_lives.iter().position(|&h| h == wanted).ok_or_else(|| {
            let known: Vec<String> = self.spec.half_lives.iter().map(|h| h.to_string()).collect();
            let reason =
                format!("the signal has no half-life of {wanted}, only {}", known.join(", "));
            Error::invalid("half_life", reason)
        })
    }

    /// Writes each item's decayed score.
    pub(crate) fn scores(&self, items: &[EntityId], half_life: usize, out: &mut [f64]) {
        let Some(column) = &self.column else { return out.fill(0.0) };
        let decay = Decay::at(self.now, self.spec.half_lives[half_life]);
        let cells = column.cells();
        for (out, item) in out.iter_mut().zip(items) {
            *out = match cells.find(item) {
                None => 0.0,
                Some(slot) => cells.side().sum_of(cells.row(slot), slot, half_life).at(decay),
            };
        }
    }

    /// Writes each item's count in a window.
    pub(crate) fn counts(&self, items: &[EntityId], window: Window, out: &mut [u64]) -> Result<()> {
        let counted = self.counted(window)?;
        let Some(column) = &self.column else {
            out.fill(0);
            return Ok(());
        };
        let cells = column.cells();
        for (out, item) in out.iter_mut().zip(items) {
            *out = cells.get(item).map_or(0, |cell| count(&cells, cell, counted));
        }
        Ok(())
    }

    /// Writes each item's decayed score and its count in a window, both as of one moment.
    pub(crate) fn scores_and_counts(
        &self,
        items: &[EntityId],
        half_life: usize,
        window: Window,
        scores: &mut [f64],
        counts: &mut [u64],
    ) -> Result<()> {
        let counted = self.counted(window)?;
        let Some(column) = &self.column else {
            scores.fill(0.0);
            counts.fill(0);
            return Ok(());
        };
        let decay = Decay::at(self.now, self.spec.half_lives[half_life]);
        let cells = column.cells();
        for ((item, score), events) in items.iter().zip(scores).zip(counts) {
            (*score, *events) = cells.find(item).map_or((0.0, 0), |slot| {
                let cell = cells.row(slot);
                let sum = cells.side().sum_of(cell, slot, half_life);
                (sum.at(decay), count(&cells, cell, counted))
            });
        }
        Ok(())
    }

    /// An item's velocity: 1 is steady, above is rising.
    pub(crate) fn velocity(&self, item: EntityId, window: Window) -> Result<f64> {
        let spans = self.velocity_spans(window)?;
        let Some(column) = &self.column else { return Ok(1.0) };
        let cells = column.cells();
        Ok(cells.get(&item).map_or(1.0, |cell| velocity(&cells, cell, spans)))
    }

    /// The best `k` items that are not hidden and rank above nothing, best first, ties by item.
    pub(crate) fn best(
        &self,
        k: usize,
        ranking: Ranking,
        is_hidden: &dyn Fn(EntityId) -> bool,
    ) -> Result<Vec<(EntityId, f64)>> {
        let of_items = self.spec.kind == EntityKind::Item;
        let is_hidden = &|entity| of_items && is_hidden(entity);
        match ranking {
            Ranking::Score(half_life) => Ok(self.best_by_score(k, half_life, is_hidden)),
            Ranking::Count(window) => {
                let counted = self.counted(window)?;
                Ok(self.scan(k, is_hidden, |cells, cell| count(cells, cell, counted) as f64))
            }
            Ranking::Velocity(window) => {
                let spans = self.velocity_spans(window)?;
                let steady = |value: f64| if value > 1.0 { value } else { 0.0 };
                Ok(self.scan(k, is_hidden, |cells, cell| steady(velocity(cells, cell, spans))))
            }
        }
    }

    fn best_by_score(
        &self,
        k: usize,
        half_life: usize,
        is_hidden: &dyn Fn(EntityId) -> bool,
    ) -> Vec<(EntityId, f64)> {
        let Some(column) = &self.column else { return Vec::new() };
        let decay = Decay::at(self.now, self.spec.half_lives[half_life]);
        let cells = column.cells();
        if let Some(best) = cells.side().tops[half_life].best(k) {
            return scored(best, decay);
        }
        let mut entries: Vec<Entry> = entries(&cells, half_life)
            .filter(|entry| entry.sum.is_positive() && !is_hidden(entry.entity))
            .collect();
        if k < entries.len() {
            entries.select_nth_unstable_by(k, Entry::rank);
            entries.truncate(k);
        }
        entries.sort_unstable_by(Entry::rank);
        scored(&entries, decay)
    }

    /// The best `k` by a value that is never above what the all-time count allows: a cell whose
    /// count alone is too small is passed over without a look at its buckets.
    fn scan(
        &self,
        k: usize,
        is_hidden: &dyn Fn(EntityId) -> bool,
        value: impl Fn(&Slab<Cell>, &Cell) -> f64,
    ) -> Vec<(EntityId, f64)> {
        let Some(column) = &self.column else { return Vec::new() };
        let cells = column.cells();
        let mut best = Best::new(k);
        cells.iter().for_each(|(_, cell)| {
            if best.admits(cell.count as f64 + 1.0) && !is_hidden(cell.entity) {
                let value = value(&cells, cell);
                if value > 0.0 && best.admits(value) {
                    best.offer(value, cell.entity);
                }
            }
        });
        best.into_sorted().into_iter().map(|(value, entity)| (entity, value)).collect()
    }

    fn counted(&self, window: Window) -> Result<Counted> {
        let Some(span) = Span::of(window, self.now) else { return Ok(Counted::AllTime) };
        let since = since(&self.spec.windows, window, "window")?;
        Ok(Counted::Span(span.since(since)))
    }

    fn velocity_spans(&self, window: Window) -> Result<(Span, Span)> {
        let since = since(&self.spec.velocities, window, "velocity window")?;
        let span = Span::of(window, self.now)
            .ok_or_else(|| Error::invalid("window", "all time has no window before it"))?;
        Ok((span.since(since), span.before().since(since)))
    }
}

fn scored(best: &[Entry], decay: Decay) -> Vec<(EntityId, f64)> {
    best.iter().map(|entry| (entry.entity, entry.sum.at(decay))).collect()
}

fn since(
    declared: &[(Window, super::grains::Minute)],
    window: Window,
    what: &'static str,
) -> Result<super::grains::Minute> {
    declared.iter().find(|(other, _)| *other == window).map(|&(_, since)| since).ok_or_else(|| {
        let known: Vec<String> = declared.iter().map(|(window, _)| window.to_string()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Error::invalid(what, format!("{window} is not declared for the signal; declared: {known}"))
    })
}

#[inline]
fn count(cells: &Slab<Cell>, cell: &Cell, counted: Counted) -> u64 {
    match counted {
        Counted::AllTime => cell.count,
        Counted::Span(span) => cell.buckets.count(span, &cells.side().arena),
    }
}

fn velocity(cells: &Slab<Cell>, cell: &Cell, (last, before): (Span, Span)) -> f64 {
    let arena = &cells.side().arena;
    let count = |span| cell.buckets.count(span, arena) as f64 + VELOCITY_PRIOR;
    count(last) / count(before)
}
