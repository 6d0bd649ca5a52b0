//! Version 3 of a stored schema: an earlier version, and what it says of sessions. It is never changed:
//! a later layout is another module.
//!
//! Knows: the layout. Must not know: what makes a schema sound; whoever decodes must ask.
//!
//! A schema that says of sessions only what every schema does is stored as the earlier version, so that
//! nothing changes for who does not use this. Integers as in version 1; the bytes of the earlier version
//! are in here as they are, behind its number. Signals are their numbers, in ascending order.

use std::time::Duration;

use super::sessions::{Lane, RateLimit, SessionPolicy, SessionRules};
use super::signal::SignalDef;
use crate::codec::{self, Decode, DecodeError, Encode};
use crate::ids::duration_nanos;

pub(super) const VERSION: u16 = 3;

#[derive(Encode, Decode)]
struct SchemaV3 {
    version: u16,
    earlier: Vec<u8>,
    policies: Vec<PolicyV3>,
    lane: LaneV3,
}

/// A policy, at its number.
#[derive(Encode, Decode)]
struct PolicyV3 {
    name: String,
    idle_timeout_ns: u64,
    max_duration_ns: u64,
    empty_fallback_ns: u64,
    late_grace_ns: u64,
    signals: Option<Vec<u16>>,
    rate_limit: Option<RateLimitV3>,
}

#[derive(Encode, Decode)]
struct RateLimitV3 {
    signals: u32,
    per_ns: u64,
}

#[derive(Encode, Decode)]
enum LaneV3 {
    User,
    UserAgent,
    Overlapping,
}

/// The bytes of these rules around those of an earlier version.
pub(super) fn encode(
    (version, earlier): (u16, Vec<u8>),
    signals: &[SignalDef],
    rules: &SessionRules,
) -> Result<Vec<u8>, DecodeError> {
    let policies = rules.policies.iter().map(|policy| encode_policy(policy, signals));
    let lane = match rules.lane {
        Lane::User => LaneV3::User,
        Lane::UserAgent => LaneV3::UserAgent,
        Lane::Overlapping => LaneV3::Overlapping,
    };
    codec::to_bytes(&SchemaV3 { version, earlier, policies: policies.collect(), lane })
}

/// The rules in a schema, still without the names of their signals.
pub(super) struct Decoded {
    policies: Vec<PolicyV3>,
    lane: Lane,
}

/// The earlier version and its bytes, and the rules around them.
pub(super) fn decode(bytes: &[u8]) -> Result<(u16, Vec<u8>, Decoded), DecodeError> {
    let SchemaV3 { version, earlier, policies, lane } = codec::from_bytes(bytes)?;
    let lane = match lane {
        LaneV3::User => Lane::User,
        LaneV3::UserAgent => Lane::UserAgent,
        LaneV3::Overlapping => Lane::Overlapping,
    };
    Ok((version, earlier, Decoded { policies, lane }))
}

impl Decoded {
    /// The rules in a schema of these signals; each policy is well formed, but nothing is known of them
    /// together.
    pub(super) fn with(self, signals: &[SignalDef]) -> Result<SessionRules, DecodeError> {
        let policies = self.policies.into_iter().map(|policy| decode_policy(policy, signals));
        let rules = SessionRules { policies: policies.collect::<Result<_, _>>()?, lane: self.lane };
        match rules == SessionRules::default() {
            true => Err(DecodeError::Malformed("sessions that an earlier version implies")),
            false => Ok(rules),
        }
    }
}

fn encode_policy(policy: &SessionPolicy, signals: &[SignalDef]) -> PolicyV3 {
    let number = |name: &String| signals.iter().position(|signal| signal.name() == name);
    let numbers = |names: &Vec<String>| {
        // One that is not declared is refused before it is encoded.
        let mut numbers: Vec<u16> = names.iter().filter_map(number).map(|at| at as u16).collect();
        numbers.sort_unstable();
        numbers
    };
    PolicyV3 {
        name: policy.name.clone(),
        idle_timeout_ns: duration_nanos(policy.idle_timeout),
        max_duration_ns: duration_nanos(policy.max_duration),
        empty_fallback_ns: duration_nanos(policy.empty_fallback),
        late_grace_ns: duration_nanos(policy.late_grace),
        signals: policy.signals.as_ref().map(numbers),
        rate_limit: policy
            .rate_limit
            .map(|RateLimit { signals, per }| RateLimitV3 { signals, per_ns: duration_nanos(per) }),
    }
}

fn decode_policy(policy: PolicyV3, signals: &[SignalDef]) -> Result<SessionPolicy, DecodeError> {
    let name = |number: u16| match signals.get(usize::from(number)) {
        Some(signal) => Ok(signal.name().to_owned()),
        None => Err(DecodeError::Malformed("a session policy of a signal that does not exist")),
    };
    let names = |numbers: Vec<u16>| {
        if !numbers.is_sorted_by(|left, right| left < right) {
            return Err(DecodeError::Malformed("signals of a session policy out of order"));
        }
        let mut names: Vec<String> = numbers.into_iter().map(name).collect::<Result<_, _>>()?;
        names.sort_unstable();
        Ok(names)
    };
    Ok(SessionPolicy {
        idle_timeout: Duration::from_nanos(policy.idle_timeout_ns),
        max_duration: Duration::from_nanos(policy.max_duration_ns),
        empty_fallback: Duration::from_nanos(policy.empty_fallback_ns),
        late_grace: Duration::from_nanos(policy.late_grace_ns),
        signals: policy.signals.map(names).transpose()?,
        rate_limit: policy.rate_limit.map(|RateLimitV3 { signals, per_ns }| RateLimit {
            signals,
            per: Duration::from_nanos(per_ns),
        }),
        name: policy.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_on_disk_never_change() {
        let lanes = [LaneV3::User, LaneV3::UserAgent, LaneV3::Overlapping];
        let tag = |lane: &LaneV3| codec::to_bytes(lane).expect("small");
        assert_eq!(lanes.map(|lane| tag(&lane)), [[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]]);
    }
}
