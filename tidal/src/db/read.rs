//! Reading signals.
//!
//! Every read is as of a moment: the one in its options, else the engine's.

use std::time::Duration;

use super::TidalDb;
use crate::engine::engine_now;
use crate::error::{Error, Result};
use crate::ids::{CohortId, EntityId, Timestamp};
use crate::schema::{HalfLife, Window};
use crate::signals::{READ_LAG, Ranking, SignalView};

/// How to read: for whom, under which half-life, as of when.
///
/// ```
/// use std::time::Duration;
/// use tidaldb::ReadOptions;
///
/// let options = ReadOptions::new().cohort("country=FR").half_life(Duration::from_secs(1_800));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    cohort: Option<String>,
    half_life: Option<Duration>,
    now: Option<Timestamp>,
}

impl ReadOptions {
    /// Everyone, the signal's first half-life, now.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only what counted for this cohort.
    #[must_use]
    pub fn cohort(mut self, cohort: impl Into<String>) -> Self {
        self.cohort = Some(cohort.into());
        self
    }

    /// One of the signal's half-lives; [`Duration::MAX`] is the infinite one.
    #[must_use]
    pub const fn half_life(mut self, half_life: Duration) -> Self {
        self.half_life = Some(half_life);
        self
    }

    /// The same, as of `now` unless a moment is already chosen.
    pub(super) fn pinned_to(&self, now: Timestamp) -> Self {
        Self { now: self.now.or(Some(now)), ..self.clone() }
    }

    /// As of this moment: at most 5 min before engine time, or later.
    #[must_use]
    pub const fn now(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }
}

/// An item in a ranking, and what it ranks by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The item.
    pub entity: EntityId,
    /// Its score, count or velocity.
    pub value: f64,
}

impl TidalDb {
    /// Writes each item's decayed score into `out`: the sum of weights, each halved every half-life
    /// since its event. An item that nothing counted for has 0. Takes one lock, whatever the number
    /// of items.
    ///
    /// # Errors
    ///
    /// - [`UnknownName`](Error::UnknownName): no such signal or cohort.
    /// - [`InvalidArgument`](Error::InvalidArgument): a half-life that the signal does not declare,
    ///   or `out` is not as long as `items`.
    /// - [`NowTooOld`](Error::NowTooOld).
    pub fn scores(
        &self,
        items: &[EntityId],
        signal: &str,
        options: &ReadOptions,
        out: &mut [f64],
    ) -> Result<()> {
        same_length(items.len(), out.len())?;
        let (view, half_life) = self.view_with_half_life(signal, options)?;
        view.scores(items, half_life, out);
        Ok(())
    }

    /// One item's decayed score.
    ///
    /// # Errors
    ///
    /// As [`scores`](Self::scores).
    pub fn score(&self, item: EntityId, signal: &str, options: &ReadOptions) -> Result<f64> {
        let mut out = [0.0];
        self.scores(&[item], signal, options, &mut out)?;
        Ok(out[0])
    }

    /// Writes each item's number of events in a window into `out`. Counts count events, whatever
    /// their weights. Takes one lock, whatever the number of items.
    ///
    /// # Errors
    ///
    /// - [`UnknownName`](Error::UnknownName): no such signal or cohort.
    /// - [`InvalidArgument`](Error::InvalidArgument): a window that the signal does not declare, or
    ///   `out` is not as long as `items`.
    /// - [`NowTooOld`](Error::NowTooOld).
    pub fn windowed_counts(
        &self,
        items: &[EntityId],
        signal: &str,
        window: Window,
        options: &ReadOptions,
        out: &mut [u64],
    ) -> Result<()> {
        same_length(items.len(), out.len())?;
        self.view(signal, options)?.counts(items, window, out)
    }

    /// Scores and windowed counts of the same items, both as of one moment and under one lock.
    ///
    /// # Errors
    ///
    /// Those of [`scores`](Self::scores) and [`windowed_counts`](Self::windowed_counts).
    pub fn scores_and_counts(
        &self,
        items: &[EntityId],
        signal: &str,
        window: Window,
        options: &ReadOptions,
        scores: &mut [f64],
        counts: &mut [u64],
    ) -> Result<()> {
        same_length(items.len(), scores.len())?;
        same_length(items.len(), counts.len())?;
        let (view, half_life) = self.view_with_half_life(signal, options)?;
        view.scores_and_counts(items, half_life, window, scores, counts)
    }

    /// One item's number of events in a window.
    ///
    /// # Errors
    ///
    /// As [`windowed_counts`](Self::windowed_counts).
    pub fn windowed_count(
        &self,
        item: EntityId,
        signal: &str,
        window: Window,
        options: &ReadOptions,
    ) -> Result<u64> {
        let mut out = [0];
        self.windowed_counts(&[item], signal, window, options, &mut out)?;
        Ok(out[0])
    }

    /// One item's number of events in a window, of everyone, now.
    ///
    /// # Errors
    ///
    /// As [`windowed_counts`](Self::windowed_counts).
    pub fn read_windowed_count(&self, item: EntityId, signal: &str, window: Window) -> Result<u64> {
        self.windowed_count(item, signal, window, &ReadOptions::new())
    }

    /// How much an item rises: `(count(last window) + p) / (count(window before) + p)`, with
    /// p = [`VELOCITY_PRIOR`](crate::signals::VELOCITY_PRIOR). 1 is steady.
    ///
    /// # Errors
    ///
    /// As [`windowed_counts`](Self::windowed_counts); the window must be one whose velocity is
    /// declared.
    pub fn velocity(
        &self,
        item: EntityId,
        signal: &str,
        window: Window,
        options: &ReadOptions,
    ) -> Result<f64> {
        self.view(signal, options)?.velocity(item, window)
    }

    /// The hot items: the best `k` by decayed score, best first, ties by item. Items without a score
    /// above zero, and hidden ones, are left out; a score too small for a double reads 0 and still
    /// ranks, since the order of items does not change with time. Exact; up to 20 cost a copy, more
    /// may cost a scan.
    ///
    /// # Errors
    ///
    /// As [`scores`](Self::scores).
    pub fn hot(&self, signal: &str, k: usize, options: &ReadOptions) -> Result<Vec<Ranked>> {
        let (view, half_life) = self.view_with_half_life(signal, options)?;
        self.ranked(&view, k, Ranking::Score(half_life))
    }

    /// The top items: the best `k` by number of events in a window, best first, ties by item. Hidden
    /// items are left out. Scans the items of the signal under a read lock.
    ///
    /// # Errors
    ///
    /// As [`windowed_counts`](Self::windowed_counts).
    pub fn top(
        &self,
        signal: &str,
        window: Window,
        k: usize,
        options: &ReadOptions,
    ) -> Result<Vec<Ranked>> {
        self.ranked(&self.view(signal, options)?, k, Ranking::Count(window))
    }

    /// The trending items: the best `k` of those that rise, by [`velocity`](Self::velocity), best
    /// first, ties by item. Hidden items are left out. Scans the items of the signal under a read
    /// lock.
    ///
    /// # Errors
    ///
    /// As [`velocity`](Self::velocity).
    pub fn trending(
        &self,
        signal: &str,
        window: Window,
        k: usize,
        options: &ReadOptions,
    ) -> Result<Vec<Ranked>> {
        self.ranked(&self.view(signal, options)?, k, Ranking::Velocity(window))
    }

    fn ranked(&self, view: &SignalView, k: usize, ranking: Ranking) -> Result<Vec<Ranked>> {
        let hidden = self.state.hidden.held();
        let best = view.best(k, ranking, &|item| hidden.contains(item))?;
        Ok(best.into_iter().map(|(entity, value)| Ranked { entity, value }).collect())
    }

    fn view_with_half_life(
        &self,
        signal: &str,
        options: &ReadOptions,
    ) -> Result<(SignalView, usize)> {
        let view = self.view(signal, options)?;
        let half_life = match options.half_life {
            None => 0,
            Some(half_life) => view.half_life(Some(HalfLife::from_duration(half_life)?))?,
        };
        Ok((view, half_life))
    }

    pub(super) fn view(&self, signal: &str, options: &ReadOptions) -> Result<SignalView> {
        let declared = self.state.declared();
        let signal = declared.schema.resolve(signal)?;
        let scope = match &options.cohort {
            None => Some(CohortId::EVERYONE),
            Some(name) => self.scope(name)?,
        };
        Ok(self.state.signal(&declared, scope, signal, self.moment(options.now)?))
    }

    /// The scope of a cohort; `None` when it is declared and was never needed, so it reads as zeros.
    pub(super) fn scope(&self, cohort: &str) -> Result<Option<CohortId>> {
        let scope = self.state.cohorts.find(cohort);
        if scope.is_none() {
            self.state.declared().schema.resolve_cohort(cohort)?;
        }
        Ok(scope)
    }

    /// The moment of a read: the one that was asked for, else the engine's.
    pub(super) fn moment(&self, asked: Option<Timestamp>) -> Result<Timestamp> {
        let Some(now) = asked else { return Ok(self.default_now()) };
        let engine_time = self.engine_time();
        if now.saturating_add(READ_LAG) < engine_time {
            return Err(Error::NowTooOld { now, engine_time });
        }
        Ok(now)
    }

    pub(super) fn default_now(&self) -> Timestamp {
        engine_now(&self.state, &*self.clock)
    }
}

fn same_length(items: usize, out: usize) -> Result<()> {
    if items == out {
        return Ok(());
    }
    Err(Error::invalid("out", format!("{items} items need as many places, there are {out}")))
}
