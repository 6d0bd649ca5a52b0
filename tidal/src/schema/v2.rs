//! Version 2 of a stored schema: version 1, and co-engagement. It is never changed: a later layout is
//! another module.
//!
//! Knows: the layout. Must not know: what makes a schema sound; whoever decodes must ask.
//!
//! A schema in which no signal is engaging is stored as version 1, so that nothing changes for who
//! does not use this. Integers as in version 1, whose bytes are in here as they are.

use std::time::Duration;

use super::co_engagement::CoEngagement;
use super::cohort::CohortDef;
use super::signal::{ExtendedAt, SignalDef};
use super::v1;
use crate::codec::{self, Decode, DecodeError, Encode};
use crate::ids::{Timestamp, duration_nanos};
use crate::seq::Seq;

pub(super) const VERSION: u16 = 2;

#[derive(Encode, Decode)]
struct SchemaV2 {
    v1: Vec<u8>,
    engaging: Vec<EngagingV2>,
    co_engagement: CoEngagementV2,
}

/// A signal that is engaging, by its number.
#[derive(Encode, Decode)]
struct EngagingV2 {
    signal: u16,
    seq: u64,
    time_ns: u64,
}

#[derive(Encode, Decode)]
struct CoEngagementV2 {
    recent_items: u32,
    neighbours_max: u32,
    capacity: u64,
    /// 0 is infinite.
    half_life_ns: u64,
    trail_idle_ns: u64,
    trail_items_max: u32,
    trails_max: u32,
    anonymous_trail: bool,
}

/// The bytes of these declarations.
pub(super) fn encode(
    signals: &[SignalDef],
    cohorts: &[CohortDef],
    co_engagement: &CoEngagement,
) -> Result<Vec<u8>, DecodeError> {
    let engaging = signals.iter().enumerate().filter_map(|(signal, def)| {
        let since = def.engaging?;
        let (seq, time_ns) = (since.seq.get(), since.time.as_nanos());
        Some(EngagingV2 { signal: signal as u16, seq, time_ns })
    });
    codec::to_bytes(&SchemaV2 {
        v1: v1::encode(signals, cohorts)?,
        engaging: engaging.collect(),
        co_engagement: co_engagement.into(),
    })
}

/// The declarations in `bytes`; each is well formed, but nothing is known of them together.
pub(super) fn decode(
    bytes: &[u8],
) -> Result<(Vec<SignalDef>, Vec<CohortDef>, CoEngagement), DecodeError> {
    let schema: SchemaV2 = codec::from_bytes(bytes)?;
    let (mut signals, cohorts) = v1::decode(&schema.v1)?;
    if !schema.engaging.is_sorted_by(|left, right| left.signal < right.signal) {
        return Err(DecodeError::Malformed("engaging signals out of order"));
    }
    for EngagingV2 { signal, seq, time_ns } in schema.engaging {
        let def = signals
            .get_mut(usize::from(signal))
            .ok_or(DecodeError::Malformed("an engaging signal that does not exist"))?;
        def.engaging =
            Some(ExtendedAt { seq: Seq::new(seq), time: Timestamp::from_nanos(time_ns) });
    }
    Ok((signals, cohorts, schema.co_engagement.into()))
}

impl From<&CoEngagement> for CoEngagementV2 {
    fn from(settings: &CoEngagement) -> Self {
        Self {
            recent_items: settings.recent_items,
            neighbours_max: settings.neighbours_max,
            capacity: settings.capacity,
            half_life_ns: match settings.half_life {
                Duration::MAX => 0,
                finite => duration_nanos(finite),
            },
            trail_idle_ns: settings.trail_idle_ns(),
            trail_items_max: settings.trail_items_max,
            trails_max: settings.trails_max,
            anonymous_trail: settings.anonymous_trail,
        }
    }
}

impl From<CoEngagementV2> for CoEngagement {
    fn from(stored: CoEngagementV2) -> Self {
        Self {
            recent_items: stored.recent_items,
            neighbours_max: stored.neighbours_max,
            capacity: stored.capacity,
            half_life: match stored.half_life_ns {
                0 => Duration::MAX,
                finite => Duration::from_nanos(finite),
            },
            trail_idle: Duration::from_nanos(stored.trail_idle_ns),
            trail_items_max: stored.trail_items_max,
            trails_max: stored.trails_max,
            anonymous_trail: stored.anonymous_trail,
        }
    }
}
