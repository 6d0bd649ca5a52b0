//! The clocks of the machine, and what the engine must make of them.
//!
//! Knows: what an operation is stamped with, and when a clock is not believed. Shares no code with the
//! engine.

use std::time::Duration;

use proptest::prelude::*;
use tidaldb::schema::Timestamp;
use tidaldb::{Clock, ManualClock};

/// When everything begins.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_600_000_000);

const JUMP_MAX: Duration = Duration::from_secs(3_600);

/// Something that happens to the clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tick {
    /// Time passes, in seconds.
    Pass(u32),
    /// The wall clock is set back, in seconds.
    Back(u32),
    /// The wall clock is set ahead, in seconds.
    Ahead(u32),
}

/// Any of them; `soon` lets mostly minutes pass.
pub(crate) fn tick(soon: bool) -> impl Strategy<Value = Tick> {
    let (minutes, hours) = if soon { (12, 1) } else { (2, 4) };
    prop_oneof![
        minutes => (0..1_000u32).prop_map(Tick::Pass),
        hours => (0..20_000u32).prop_map(Tick::Pass),
        1 => (0..200_000u32).prop_map(Tick::Pass),
        2 => (0..10_000u32).prop_map(Tick::Back),
        1 => (0..10_000u32).prop_map(Tick::Ahead),
    ]
}

/// The clocks, and what was stamped by them.
#[derive(Debug)]
pub(crate) struct Time {
    clock: ManualClock,
    /// Wall and monotonic time of the believed reading that is furthest ahead.
    believed: (Timestamp, Duration),
    /// The last stamp.
    last: Timestamp,
    /// No stamp was ever later, and no reading of an open.
    pub(crate) latest: Timestamp,
}

impl Time {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::at(START);
        Self { believed: (START, Duration::ZERO), last: START, latest: START, clock }
    }

    /// The clock of the machine.
    pub(crate) fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// What the wall clock shows.
    pub(crate) fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    /// The last stamp.
    pub(crate) const fn last(&self) -> Timestamp {
        self.last
    }

    pub(crate) fn tick(&mut self, tick: Tick) {
        let by = |seconds: u32| Duration::from_secs(seconds.into());
        match tick {
            Tick::Pass(seconds) => self.clock.advance(by(seconds)),
            Tick::Back(seconds) => self.clock.set(self.wall().saturating_sub(by(seconds))),
            Tick::Ahead(seconds) => self.clock.set(self.wall().saturating_add(by(seconds))),
        }
    }

    fn expected(&self) -> Timestamp {
        self.believed.0.saturating_add(self.clock.monotonic() - self.believed.1)
    }

    /// The stamp of an operation that comes now; `None` while the clock is not believed.
    pub(crate) fn stamp(&self) -> Option<Timestamp> {
        let reached = self.expected().max(self.last);
        (self.wall() <= reached.saturating_add(JUMP_MAX)).then(|| self.last.max(self.wall()))
    }

    /// An operation was stamped.
    pub(crate) fn stamped(&mut self, stamp: Timestamp) {
        if self.wall() >= self.expected() {
            self.believe();
        }
        self.last = stamp;
        self.latest = self.latest.max(stamp);
    }

    /// The clock was accepted as it is.
    pub(crate) fn reset(&mut self) {
        self.believe();
        self.last = self.wall();
        self.latest = self.latest.max(self.last);
    }

    /// A process tries to open: it may leave a stamp behind.
    pub(crate) fn tried(&mut self) {
        self.latest = self.latest.max(self.wall());
    }

    /// A process has opened, and engine time is this.
    pub(crate) fn opened(&mut self, engine_time: Timestamp) {
        self.believe();
        self.last = engine_time;
        self.latest = self.latest.max(engine_time);
    }

    /// What engine time will be after an open without a crash.
    pub(crate) fn at_reopen(&self) -> Timestamp {
        self.last.max(self.wall())
    }

    fn believe(&mut self) {
        self.believed = (self.wall(), self.clock.monotonic());
    }
}
