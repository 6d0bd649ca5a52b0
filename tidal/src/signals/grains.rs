//! Which minute an event counts in, and for how long that minute is told apart from its neighbours.
//!
//! Knows: grains of windows and when a finer bucket may be merged into a coarser one.
//! Must not know: how buckets are stored.
//!
//! A window of grain g and n buckets counts the events with ⌊now/g⌋ − n < ⌊t/g⌋ ≤ ⌊now/g⌋. Every
//! grain divides the next, so one list of buckets serves all windows of a signal: a bucket starts as
//! fine as the finest window needs it, and may take the next coarser grain once its *whole coarse
//! bucket* has left the finer window for every reader (readers lag by [`READ_LAG`] at most). Until
//! then its label could overtake a younger bucket's, and counts would be wrong.

use std::time::Duration;

use smallvec::SmallVec;

use crate::ids::Timestamp;
use crate::schema::Window;

/// How far behind engine time a reader's `now` may be.
pub(crate) const READ_LAG: Duration = Duration::from_secs(300);
const READ_LAG_MINUTES: u32 = 5;

const MINUTE_NS: u64 = 60_000_000_000;

/// Minutes since the epoch: the finest time that windows tell apart.
pub(crate) type Minute = u32;

/// The minute of a time.
pub(crate) const fn minute_of(time: Timestamp) -> Minute {
    // 2^64 ns are 3.1e8 minutes.
    (time.as_nanos() / MINUTE_NS) as Minute
}

/// One window's part of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    grain: u32,
    /// Buckets kept: the window's, twice as many when velocity compares it with the one before.
    buckets: u32,
}

impl Level {
    /// The first minute that this level counts at `now`.
    const fn edge(self, now: Minute) -> Minute {
        ((now / self.grain + 1) * self.grain).saturating_sub(self.buckets * self.grain)
    }
}

/// The windows of one signal, finest first. Without windows nothing but all-time counts is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Grains {
    levels: SmallVec<[Level; 4]>,
}

/// The grains at one engine time: what may be merged or dropped then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GrainsAt {
    levels: [Level; 4],
    len: usize,
    /// Everything before `edges[i]` has left level i for every reader.
    edges: [Minute; 4],
}

impl Grains {
    /// The grains of these windows; `velocity` keeps twice of those that have a window before.
    pub(crate) fn new(windows: &[Window], velocity: bool) -> Self {
        let mut levels: SmallVec<[Level; 4]> = windows
            .iter()
            .filter_map(|&window| {
                let twice = velocity && window.has_velocity();
                let buckets = window.buckets()? * if twice { 2 } else { 1 };
                Some(Level { grain: window.grain_minutes()?, buckets })
            })
            .collect();
        levels.sort_unstable_by_key(|level| level.grain);
        assert!(
            levels
                .windows(2)
                .all(|pair| pair[1].grain.is_multiple_of(pair[0].grain)
                    && pair[0].grain < pair[1].grain),
            "every grain divides the next"
        );
        Self { levels }
    }

    pub(crate) fn at(&self, engine_time: Timestamp) -> GrainsAt {
        let oldest_now = minute_of(engine_time).saturating_sub(READ_LAG_MINUTES);
        let mut at = GrainsAt {
            levels: [Level { grain: 1, buckets: 0 }; 4],
            len: self.levels.len(),
            edges: [0; 4],
        };
        for (i, level) in self.levels.iter().enumerate() {
            at.levels[i] = *level;
            at.edges[i] = level.edge(oldest_now);
        }
        at
    }
}

impl GrainsAt {
    /// The label under which an event of this minute is kept; `None` when no window counts it.
    #[inline]
    pub(crate) fn label(&self, minute: Minute) -> Option<Minute> {
        let levels = &self.levels[..self.len];
        let mut grain = levels.first()?.grain;
        for (i, level) in levels.iter().enumerate() {
            let coarser = levels.get(i + 1).map_or(level.grain, |next| next.grain);
            let end = (minute / coarser + 1) * coarser;
            if end > self.edges[i] {
                break;
            }
            if i + 1 == levels.len() {
                return None;
            }
            grain = coarser;
        }
        Some(minute / grain * grain)
    }
}

/// The minutes that one window counts: `from <= minute < to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Minute,
    pub(crate) to: Minute,
}

impl Span {
    /// What `window` counts at `now`; `None` for all time, which is no span.
    pub(crate) fn of(window: Window, now: Timestamp) -> Option<Self> {
        let (grain, buckets) = (window.grain_minutes()?, window.buckets()?);
        let to = (minute_of(now) / grain + 1) * grain;
        Some(Self { from: to.saturating_sub(buckets * grain), to })
    }

    /// The span of the same length right before.
    pub(crate) const fn before(self) -> Self {
        Self { from: self.from.saturating_sub(self.to - self.from), to: self.from }
    }

    /// The part of the span from `minute` on.
    #[must_use]
    pub(crate) fn since(self, minute: Minute) -> Self {
        Self { from: self.from.max(minute), to: self.to.max(minute) }
    }
}
