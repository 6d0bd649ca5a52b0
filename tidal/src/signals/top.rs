//! The best items of a column by decayed score, kept up to date as it is written.
//!
//! Knows: scores and items. Must not know: cells, windows, locks.
//!
//! Under one half-life the order of items never changes with time, so the list changes only with
//! writes. Invariant: the list holds every eligible item that ranks above the floor (the best one
//! that was ever pushed out since the last rescan), best first. A fall below the floor takes an item
//! out; when fewer than [`KEPT_MIN`] remain above the floor, the column is scanned anew.

use std::cmp::Ordering;

use crate::decay::Sum;
use crate::ids::EntityId;

/// Reads up to this many items are answered from the list.
pub(crate) const KEPT_MIN: usize = 20;

/// Items kept: several times what is read, so that falls rarely cause a rescan.
const KEPT_MAX: usize = 4 * KEPT_MIN;

/// An item and the score it ranks by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Entry {
    pub(crate) sum: Sum,
    pub(crate) entity: EntityId,
}

impl Entry {
    /// Best first: score descending, then item ascending.
    #[inline]
    pub(crate) fn rank(&self, other: &Self) -> Ordering {
        other.sum.compare(self.sum).then(self.entity.cmp(&other.entity))
    }

    fn is_above(&self, floor: Option<&Self>) -> bool {
        self.sum.is_positive() && floor.is_none_or(|floor| self.rank(floor) == Ordering::Less)
    }
}

/// The best items of one (scope, signal, half-life). Items whose score is not above zero, and hidden
/// ones, are not eligible.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct TopList {
    best: Vec<Entry>,
    floor: Option<Entry>,
}

impl TopList {
    /// The list of the eligible ones among these entries. Whether one is eligible is asked only where
    /// its score would do.
    pub(crate) fn of(
        entries: impl Iterator<Item = Entry>,
        eligible: impl Fn(EntityId) -> bool,
    ) -> Self {
        // A buffer of twice the size is cut to the better half whenever it is full: that looks at
        // each entry once, and compares most of them with the floor alone.
        let mut list = Self::default();
        entries.for_each(|entry| {
            if entry.is_above(list.floor.as_ref()) && eligible(entry.entity) {
                list.best.push(entry);
                if list.best.len() == 2 * KEPT_MAX {
                    list.keep_the_better_half();
                }
            }
        });
        if list.best.len() > KEPT_MAX {
            list.keep_the_better_half();
        }
        list.best.sort_unstable_by(Entry::rank);
        list
    }

    fn keep_the_better_half(&mut self) {
        let (_, pushed_out, _) = self.best.select_nth_unstable_by(KEPT_MAX, Entry::rank);
        self.floor = Some(*pushed_out);
        self.best.truncate(KEPT_MAX);
    }

    /// An eligible item's score changed, or it became eligible (`old` is `None`). True when the
    /// column must be scanned anew.
    #[inline]
    pub(crate) fn update(&mut self, old: Option<Sum>, entry: Entry) -> bool {
        let floor = self.floor.as_ref();
        let listed = old.map(|sum| Entry { sum, ..entry }).filter(|old| old.is_above(floor));
        match (listed, entry.is_above(floor)) {
            (None, false) => {}
            (None, true) => self.insert(entry),
            (Some(old), true) => self.move_within(&old, entry),
            (Some(old), false) => {
                self.take_out(&old);
                return self.is_short();
            }
        }
        false
    }

    /// An item is eligible no more. True when the column must be scanned anew.
    pub(crate) fn remove(&mut self, entry: Entry) -> bool {
        self.take_out(&entry) && self.is_short()
    }

    /// The best `k`, best first; `None` when the list does not reach that far.
    pub(crate) fn best(&self, k: usize) -> Option<&[Entry]> {
        if self.floor.is_none() || k <= self.best.len() {
            Some(&self.best[..k.min(self.best.len())])
        } else {
            None
        }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.best.capacity() * size_of::<Entry>()
    }

    fn is_short(&self) -> bool {
        self.floor.is_some() && self.best.len() < KEPT_MIN
    }

    fn position(&self, entry: &Entry) -> usize {
        let at = self.best.binary_search_by(|other| other.rank(entry));
        at.expect("every eligible item above the floor is listed")
    }

    #[inline]
    fn take_out(&mut self, entry: &Entry) -> bool {
        if !entry.is_above(self.floor.as_ref()) {
            return false;
        }
        self.best.remove(self.position(entry));
        true
    }

    /// Most moves are by a place or two: the neighbours are shifted one by one.
    #[inline]
    fn move_within(&mut self, old: &Entry, entry: Entry) {
        let mut at = self.position(old);
        while at > 0 && entry.rank(&self.best[at - 1]) == Ordering::Less {
            self.best[at] = self.best[at - 1];
            at -= 1;
        }
        while at + 1 < self.best.len() && entry.rank(&self.best[at + 1]) == Ordering::Greater {
            self.best[at] = self.best[at + 1];
            at += 1;
        }
        self.best[at] = entry;
    }

    #[inline]
    fn insert(&mut self, entry: Entry) {
        if !entry.is_above(self.floor.as_ref()) {
            return;
        }
        let at = match self.best.binary_search_by(|other| other.rank(&entry)) {
            Ok(_) => unreachable!("an item is listed once"),
            Err(at) => at,
        };
        self.best.insert(at, entry);
        if self.best.len() > KEPT_MAX {
            self.floor = self.best.pop();
        }
    }
}

/// The best `k` of a stream, by value descending then item ascending.
///
/// A buffer of twice the size is cut to the better half whenever it is full, so that each value costs a
/// few comparisons however large `k` is.
pub(crate) struct Best {
    k: usize,
    found: Vec<(f64, EntityId)>,
    /// The last of the best as of the last cut.
    floor: Option<f64>,
}

fn best_first(one: &(f64, EntityId), other: &(f64, EntityId)) -> Ordering {
    other.0.total_cmp(&one.0).then(one.1.cmp(&other.1))
}

impl Best {
    pub(crate) const fn new(k: usize) -> Self {
        Self { k, found: Vec::new(), floor: None }
    }

    /// Whether an item of this value could still be among the best.
    #[inline]
    pub(crate) fn admits(&self, value: f64) -> bool {
        self.k > 0 && self.floor.is_none_or(|floor| value >= floor)
    }

    /// Takes an item whose value is admitted.
    pub(crate) fn offer(&mut self, value: f64, entity: EntityId) {
        self.found.push((value, entity));
        if self.found.len() >= self.k.saturating_mul(2) {
            self.keep_the_best();
        }
    }

    fn keep_the_best(&mut self) {
        let Some(last) = self.k.checked_sub(1).filter(|&last| last < self.found.len()) else {
            return;
        };
        let (_, &mut (floor, _), _) = self.found.select_nth_unstable_by(last, best_first);
        self.floor = Some(floor);
        self.found.truncate(self.k);
    }

    pub(crate) fn into_sorted(mut self) -> Vec<(f64, EntityId)> {
        self.found.sort_unstable_by(best_first);
        self.found.truncate(self.k);
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(entity: u64, score: i32) -> Entry {
        let sum = if score == 0 {
            Sum::ZERO
        } else {
            Sum { mantissa: 1.0f64.copysign(f64::from(score)), exponent: score.abs() }
        };
        Entry { sum, entity: EntityId::new(entity) }
    }

    proptest! {
        #[test]
        fn the_list_is_the_sorted_head_whatever_rises_falls_and_leaves(
            steps in prop::collection::vec((0u64..150, prop::option::weighted(0.9, -3..40i32)), 1..600),
        ) {
            let mut scores: BTreeMap<u64, i32> = BTreeMap::new();
            let mut list = TopList::default();
            for (entity, score) in steps {
                let old = scores.get(&entity).copied();
                let short = match score {
                    Some(score) => {
                        scores.insert(entity, score);
                        list.update(old.map(|s| entry(entity, s).sum), entry(entity, score))
                    }
                    None => old.is_some_and(|s| {
                        scores.remove(&entity);
                        list.remove(entry(entity, s))
                    }),
                };
                if short {
                    list = TopList::of(scores.iter().map(|(&e, &s)| entry(e, s)), |_| true);
                }
                let mut all: Vec<Entry> = scores
                    .iter()
                    .map(|(&e, &s)| entry(e, s))
                    .filter(|e| e.sum.is_positive())
                    .collect();
                all.sort_by(Entry::rank);
                all.truncate(KEPT_MIN);
                prop_assert_eq!(list.best(KEPT_MIN).expect("never short"), &all[..]);
            }
        }
    }

    fn best_of(k: usize, all: &[(f64, EntityId)]) -> Vec<(f64, EntityId)> {
        let mut best = Best::new(k);
        for &(value, entity) in all {
            if best.admits(value) {
                best.offer(value, entity);
            }
        }
        best.into_sorted()
    }

    proptest! {
        #[test]
        fn the_best_are_the_sorted_head_however_many_are_asked_for_and_whatever_ties(
            values in prop::collection::vec(0..12u8, 0..300),
            order in any::<prop::sample::Index>(),
        ) {
            let mut all: Vec<(f64, EntityId)> = (values.iter().zip(0..))
                .map(|(&value, entity)| (f64::from(value), EntityId::new(entity)))
                .collect();
            let sorted = {
                let mut sorted = all.clone();
                sorted.sort_by(best_first);
                sorted
            };
            let len = all.len();
            all.rotate_left(if len == 0 { 0 } else { order.index(len) });
            for k in [0, 1, 2, 7, len, len + 1, usize::MAX] {
                prop_assert_eq!(&best_of(k, &all)[..], &sorted[..k.min(len)], "k = {}", k);
            }
        }
    }

    #[test]
    fn what_is_kept_meanwhile_is_no_more_than_twice_what_is_asked_for() {
        let mut best = Best::new(10);
        for value in 0..1_000u64 {
            best.offer(value as f64, EntityId::new(value));
            assert!(best.found.len() < 20);
        }
        assert!(!best.admits(980.0) && best.admits(990.0));
    }
}
