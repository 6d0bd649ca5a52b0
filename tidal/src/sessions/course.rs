//! When a session is over, and where it ended: pure functions of what is known of it.
//!
//! Knows: arithmetic of times. Must not know: rows, tables, who asks, why.
//!
//! ```text
//! reach(r)   = min(r.at + r.span, arrival(r))                 never past what was known then
//! evidence   = the greatest reach of all records r of the session with start <= r.at < start + max
//! deadline   = min(max(last activity + idle, extended until), start + max)
//! over       = now > deadline
//! end        = evidence                                       if there is any; never past the bound
//!            = min(start + fallback, bound)                   otherwise
//!   bound    = start + max                                    if time ended it
//!            = min(start + max, now)                          if someone did, at `now`
//! closed     = min(now, start + max)
//! settled    = now >= deadline + grace                        if time ended it
//!            = now >= when + grace                            if someone did, at `when`
//! ```
//!
//! A session that another one takes the place of ends at that moment, so it never reaches into it: a lane
//! has one session at a time. Late records are no evidence: an end that was told is never told
//! differently.

use crate::end::{End, EndCause, EndEvidence};
use crate::ids::{Timestamp, duration_nanos};
use crate::schema::SessionPolicy;

/// The durations of a policy, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    idle_ns: u64,
    max_ns: u64,
    fallback_ns: u64,
    grace_ns: u64,
}

impl Limits {
    pub(super) fn of(policy: &SessionPolicy) -> Self {
        Self {
            idle_ns: duration_nanos(policy.idle_timeout),
            max_ns: duration_nanos(policy.max_duration),
            fallback_ns: duration_nanos(policy.empty_fallback),
            grace_ns: duration_nanos(policy.late_grace),
        }
    }
}

/// How far a record of a session reaches, and which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) reach: Timestamp,
    /// The number of the operation that brought the record.
    pub(super) record: u64,
}

/// What decides when a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) started: Timestamp,
    /// When the last signal, annotation, heartbeat or extension arrived; at first the start.
    pub(super) last_activity: Timestamp,
    /// Until when its holder asked it not to be idle; the epoch if never.
    pub(super) extended_until: Timestamp,
    pub(super) evidence: Option<Evidence>,
}

impl Course {
    /// A session that begins.
    pub(super) const fn starting(now: Timestamp) -> Self {
        Self { started: now, last_activity: now, extended_until: Timestamp::EPOCH, evidence: None }
    }

    /// No session is longer.
    fn longest(&self, limits: Limits) -> Timestamp {
        later(self.started, limits.max_ns)
    }

    /// The last moment at which it is not over.
    pub(super) fn deadline(&self, limits: Limits) -> Timestamp {
        let idle = later(self.last_activity, limits.idle_ns).max(self.extended_until);
        idle.min(self.longest(limits))
    }

    /// Whether time has ended it.
    pub(super) fn is_over(&self, limits: Limits, now: Timestamp) -> bool {
        now > self.deadline(limits)
    }

    /// Whether nothing arrived after its deadline.
    pub(super) fn is_sound(&self, limits: Limits) -> bool {
        self.last_activity <= self.deadline(limits)
    }

    /// Something arrived.
    pub(super) fn touch(&mut self, now: Timestamp) {
        self.last_activity = self.last_activity.max(now);
    }

    /// It shall not be idle for so long.
    pub(super) fn extend(&mut self, now: Timestamp, by_ns: u64) {
        self.touch(now);
        self.extended_until = self.extended_until.max(later(now, by_ns));
    }

    /// Takes a record into account that arrived now. Of two that reach as far the first one counts.
    pub(super) fn witness(
        &mut self,
        limits: Limits,
        record: u64,
        (at, span_ns): (Timestamp, u64),
        arrival: Timestamp,
    ) {
        if at < self.started || at >= self.longest(limits) {
            return;
        }
        let reach = later(at, span_ns).min(arrival);
        if self.evidence.is_none_or(|evidence| evidence.reach < reach) {
            self.evidence = Some(Evidence { reach, record });
        }
    }

    /// Its end, once time has ended it: the same whenever it is asked for.
    pub(super) fn overdue_end(&self, limits: Limits) -> End {
        let longest = self.longest(limits);
        let deadline = self.deadline(limits);
        let cause = if deadline == longest { EndCause::MaxDuration } else { EndCause::IdleTimeout };
        let end = self.inferred(limits, cause, longest);
        assert!(
            end.at <= deadline,
            "records reach no further than activity, and empty sessions less"
        );
        end
    }

    /// Its end, if someone else ends it now.
    pub(super) fn end_by(&self, limits: Limits, cause: EndCause, now: Timestamp) -> End {
        self.inferred(limits, cause, self.longest(limits).min(now))
    }

    /// Its end, if its holder ends it now.
    pub(super) fn closed(&self, limits: Limits, now: Timestamp) -> End {
        let at = now.min(self.longest(limits));
        End { at, cause: EndCause::Closed, evidence: EndEvidence::Explicit }
    }

    fn inferred(&self, limits: Limits, cause: EndCause, bound: Timestamp) -> End {
        let Some(Evidence { reach, record }) = self.evidence else {
            let at = later(self.started, limits.fallback_ns);
            let evidence = EndEvidence::Fallback { clamped: at > bound };
            return End { at: at.min(bound), cause, evidence };
        };
        // Nothing arrives after a deadline, and no record reaches past its arrival.
        assert!(reach <= bound, "a record reaches {reach:?}, past {bound:?}");
        End { at: reach, cause, evidence: EndEvidence::Record { record } }
    }

    /// Nothing came later than this.
    pub(super) fn calm(&mut self, to: Timestamp) {
        self.last_activity = self.last_activity.min(to).max(self.started);
    }

    /// Engine time is set back: nothing of it was later than this.
    pub(super) fn clamp(&mut self, to: Timestamp) {
        self.started = self.started.min(to);
        self.last_activity = self.last_activity.min(to);
        self.extended_until = self.extended_until.min(to);
        if let Some(evidence) = &mut self.evidence {
            evidence.reach = evidence.reach.min(to);
        }
    }
}

/// The first moment at which a session that was over at `over` takes no late records any more. That is
/// when it was decided or its deadline, and not where it ended, which may lie long before.
pub(super) fn settles_at(limits: Limits, over: Timestamp) -> Timestamp {
    later(over, limits.grace_ns)
}

fn later(time: Timestamp, by_ns: u64) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos().saturating_add(by_ns))
}
