//! Engine time: the one time that frames are stamped with.
//!
//! Knows: clocks, and which times are believable. Must not know: frames, state.
//!
//! Engine time never runs backwards, over restarts too; only an explicit reset sets it back. With
//! [`TimeSource::Clock`] it is `max(clock, last stamp)`; with [`TimeSource::Events`] the latest event.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ids::Timestamp;
use crate::options::{Options, TimeSource};

/// Makes the stamps.
pub(crate) struct Stamper {
    clock: Arc<dyn Clock>,
    source: TimeSource,
    last: Timestamp,
    /// Wall and monotonic time of the reading that was furthest ahead of all that were believed. One
    /// that is behind it, of a clock that was set back, does not replace it: the same clock may be
    /// set right again, and engine time has been there already.
    believed: (Timestamp, Duration),
    max_future_skew: Duration,
    max_clock_jump: Duration,
    max_event_jump: Duration,
}

impl Stamper {
    /// Goes on from the last stamp in the log.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        source: TimeSource,
        last: Timestamp,
        options: &Options,
    ) -> Self {
        let believed = (clock.now(), clock.monotonic());
        Self {
            clock,
            source,
            last,
            believed,
            max_future_skew: options.max_future_skew,
            max_clock_jump: options.max_clock_jump,
            max_event_jump: options.max_event_jump,
        }
    }

    /// What advances engine time.
    pub(crate) const fn source(&self) -> TimeSource {
        self.source
    }

    /// The stamp of an operation whose latest event is at `latest`.
    ///
    /// # Errors
    ///
    /// [`Error::ClockJumped`] until the clock is right again or reset; [`Error::TooFarAhead`] for an
    /// event beyond what the options allow.
    pub(crate) fn stamp(&mut self, latest: Option<Timestamp>) -> Result<Timestamp> {
        match self.source {
            TimeSource::Clock => self.stamp_by_clock(latest),
            TimeSource::Events => self.stamp_by_events(latest),
        }
    }

    /// The stamp of a control frame: never refused.
    pub(crate) fn stamp_control(&mut self) -> Timestamp {
        self.stamp(None).unwrap_or(self.last)
    }

    /// Everything that was stamped is applied, and engine time is this: where events advance it, those
    /// of batches that were refused did not.
    pub(crate) fn settle(&mut self, engine_time: Timestamp) {
        if self.source == TimeSource::Events {
            self.last = engine_time;
        }
    }

    /// Believes the clock as it is now, be it far ahead or behind the last stamp.
    pub(crate) fn reset(&mut self) -> Timestamp {
        self.believed = (self.clock.now(), self.clock.monotonic());
        self.last = self.believed.0;
        self.last
    }

    fn stamp_by_clock(&mut self, latest: Option<Timestamp>) -> Result<Timestamp> {
        let (wall, monotonic) = (self.clock.now(), self.clock.monotonic());
        let passed = monotonic.saturating_sub(self.believed.1);
        let expected = self.believed.0.saturating_add(passed);
        let reached = expected.max(self.last);
        let jump = ahead(wall, reached);
        if jump > self.max_clock_jump {
            return Err(Error::ClockJumped { jump_ms: millis(jump) });
        }
        let stamp = self.last.max(wall);
        if let Some(latest) = latest {
            check_ahead(latest, stamp, self.max_future_skew)?;
        }
        if wall >= expected {
            self.believed = (wall, monotonic);
        }
        self.last = stamp;
        Ok(stamp)
    }

    fn stamp_by_events(&mut self, latest: Option<Timestamp>) -> Result<Timestamp> {
        if let Some(latest) = latest {
            if self.last > Timestamp::EPOCH {
                check_ahead(latest, self.last, self.max_event_jump)?;
            }
            self.last = self.last.max(latest);
        }
        Ok(self.last)
    }
}

fn check_ahead(at: Timestamp, engine_time: Timestamp, max: Duration) -> Result<()> {
    let by = ahead(at, engine_time);
    if by <= max {
        return Ok(());
    }
    Err(Error::TooFarAhead { at_ns: at.as_nanos(), ahead_ms: millis(by), max_ms: millis(max) })
}

fn ahead(time: Timestamp, of: Timestamp) -> Duration {
    Duration::from_nanos(time.as_nanos().saturating_sub(of.as_nanos()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn stamper(source: TimeSource) -> (ManualClock, Stamper) {
        let clock = ManualClock::at(START);
        let shared = Arc::new(clock.clone());
        (clock, Stamper::new(shared, source, START, &Options::default()))
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_set_engine_time_back() {
        let (clock, mut stamper) = stamper(TimeSource::Clock);
        clock.set(Timestamp::from_secs(1_600_000_000));
        assert_eq!(stamper.stamp(None).expect("accepted"), START);
    }

    #[test]
    fn a_jump_is_refused_until_the_clock_is_right_or_reset() {
        let (clock, mut stamper) = stamper(TimeSource::Clock);
        let years_ahead = Timestamp::from_secs(2_000_000_000);
        clock.set(years_ahead);
        for _ in 0..2 {
            assert!(matches!(stamper.stamp(None), Err(Error::ClockJumped { .. })));
        }
        clock.set(START);
        assert_eq!(stamper.stamp(None).expect("right again"), START);
        clock.set(years_ahead);
        assert_eq!(stamper.reset(), years_ahead);
        assert_eq!(stamper.stamp(None).expect("reset"), years_ahead);
    }

    #[test]
    fn a_clock_that_was_set_back_is_set_right_without_a_reset() {
        let (clock, mut stamper) = stamper(TimeSource::Clock);
        clock.set(Timestamp::from_secs(1_600_000_000));
        assert_eq!(stamper.stamp(None).expect("accepted"), START);
        let day = Duration::from_secs(86_400);
        clock.advance(day);
        assert_eq!(stamper.stamp(None).expect("accepted"), START);
        let right = START.saturating_add(day);
        clock.set(right);
        assert_eq!(stamper.stamp(None).expect("no jump"), right);
        clock.set(right.saturating_add(day));
        assert!(matches!(stamper.stamp(None), Err(Error::ClockJumped { .. })));
    }

    #[test]
    fn an_event_beyond_the_skew_is_refused_and_leaves_time_alone() {
        let (_, mut stamper) = stamper(TimeSource::Clock);
        let at = |secs| START.saturating_add(Duration::from_secs(secs));
        assert!(matches!(stamper.stamp(Some(at(301))), Err(Error::TooFarAhead { .. })));
        assert_eq!(stamper.stamp(Some(at(300))).expect("within the skew"), START);
    }

    #[test]
    fn refused_batches_do_not_carry_event_time_along() {
        let (_, mut stamper) = stamper(TimeSource::Events);
        let at = |days: u64| START.saturating_add(Duration::from_secs(days * 86_400));
        for days in [30, 60, 90] {
            // Stamped and then refused: engine time is where it was.
            let stamped = stamper.stamp(Some(at(days)));
            assert_eq!(stamped.is_ok(), days == 30, "{days} days ahead: {stamped:?}");
            stamper.settle(START);
        }
    }

    #[test]
    fn events_advance_event_time_by_a_month_at_most() {
        let (_, mut stamper) = stamper(TimeSource::Events);
        let at = |days: u64| START.saturating_add(Duration::from_secs(days * 86_400));
        assert_eq!(stamper.stamp(Some(at(30))).expect("a month"), at(30));
        assert_eq!(stamper.stamp(Some(at(2))).expect("late"), at(30));
        assert!(matches!(stamper.stamp(Some(at(62))), Err(Error::TooFarAhead { .. })));
    }
}
