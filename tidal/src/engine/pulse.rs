//! The pulse of a thread: how long ago it last went through its loop.
//!
//! Knows: a moment. Must not know: whose it is, how long is too long.

use std::time::Duration;

use crate::clock::Stopwatch;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Beaten by one thread, felt by anyone. The time is the machine's own: a clock that is set does not stop
/// it, and one that stands still in a test does not either.
pub(crate) struct Pulse {
    origin: Stopwatch,
    beat_ms: AtomicU64,
    is_restarting: AtomicBool,
    is_busy: AtomicBool,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        let [is_restarting, is_busy] = [AtomicBool::new(false), AtomicBool::new(false)];
        Self { origin: Stopwatch::start(), beat_ms: AtomicU64::new(0), is_restarting, is_busy }
    }

    /// The thread is alive, and does what it is there for.
    pub(crate) fn beat(&self) {
        self.tick();
        self.is_restarting.store(false, Ordering::Relaxed);
    }

    /// The thread is alive. If it panicked, it has not begun again.
    pub(crate) fn tick(&self) {
        self.beat_ms.store(self.origin.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.is_busy.store(false, Ordering::Release);
    }

    /// The thread is in a host's code, and its silence says nothing until it ticks again.
    pub(crate) fn be_busy(&self) {
        self.is_busy.store(true, Ordering::Release);
    }

    /// The thread panicked, and is to begin again later.
    pub(crate) fn skip(&self) {
        self.is_restarting.store(true, Ordering::Relaxed);
    }

    /// How long ago it last beat; zero while it is busy.
    pub(crate) fn age(&self) -> Duration {
        if self.is_busy.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        self.origin.elapsed().saturating_sub(beat)
    }

    /// Whether the thread panicked and has not begun again.
    pub(crate) fn is_restarting(&self) -> bool {
        self.is_restarting.load(Ordering::Relaxed)
    }
}
