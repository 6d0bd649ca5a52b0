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
}

impl Pulse {
    pub(crate) fn new() -> Self {
        let (beat_ms, is_restarting) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { origin: Stopwatch::start(), beat_ms, is_restarting }
    }

    /// The thread is alive.
    pub(crate) fn beat(&self) {
        self.beat_ms.store(self.origin.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.is_restarting.store(false, Ordering::Relaxed);
    }

    /// The thread panicked, and is to begin again later.
    pub(crate) fn skip(&self) {
        self.is_restarting.store(true, Ordering::Relaxed);
    }

    /// How long ago it last beat.
    pub(crate) fn age(&self) -> Duration {
        let beat = Duration::from_millis(self.beat_ms.load(Ordering::Relaxed));
        self.origin.elapsed().saturating_sub(beat)
    }

    /// Whether the thread panicked and has not begun again.
    pub(crate) fn is_restarting(&self) -> bool {
        self.is_restarting.load(Ordering::Relaxed)
    }
}
