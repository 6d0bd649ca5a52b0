//! Time, injected.
//!
//! Knows: the system clock (this is the only file that names it). Must not know: what time is for.

#![expect(clippy::disallowed_methods, reason = "this is where time comes in")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::ids::{Timestamp, duration_nanos};

/// Where the engine gets the time from.
///
/// Two clocks, because they fail differently: the wall clock can be set, the monotonic one cannot,
/// and their difference shows a jump.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall time.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point, never set by anyone.
    fn monotonic(&self) -> Duration;
}

/// The clock of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// The system's clock, its monotonic reading counted from now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // A clock before 1970 reads as the epoch: engine time never runs backwards anyway.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_nanos(duration_nanos(since_epoch))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

impl Timestamp {
    /// The system clock's time.
    pub fn now() -> Self {
        SystemClock::new().now()
    }
}

/// A clock that stands still until it is told otherwise, for tests and simulations.
///
/// Clones share one time.
///
/// ```
/// use std::time::Duration;
/// use tidaldb::{Clock, ManualClock, schema::Timestamp};
///
/// let clock = ManualClock::at(Timestamp::from_secs(1_000));
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now(), Timestamp::from_secs(1_005));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    shared: Arc<ManualTime>,
}

#[derive(Debug)]
struct ManualTime {
    wall_ns: AtomicU64,
    monotonic_ns: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `time`.
    pub fn at(time: Timestamp) -> Self {
        let shared = ManualTime {
            wall_ns: AtomicU64::new(time.as_nanos()),
            monotonic_ns: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets time pass: both clocks move.
    pub fn advance(&self, by: Duration) {
        self.shared.wall_ns.fetch_add(duration_nanos(by), Ordering::SeqCst);
        self.shared.monotonic_ns.fetch_add(duration_nanos(by), Ordering::SeqCst);
    }

    /// Sets the wall clock, as an administrator would: the monotonic clock does not move.
    pub fn set(&self, time: Timestamp) {
        self.shared.wall_ns.store(time.as_nanos(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.shared.wall_ns.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.shared.monotonic_ns.load(Ordering::SeqCst))
    }
}

/// Measures how much real time has passed, whatever clock is injected: for pacing and for bounds on
/// how long something may take, never for what is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
