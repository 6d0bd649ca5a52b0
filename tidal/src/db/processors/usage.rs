//! Usage: how often each signal was sent, by agent and day.
//!
//! Knows: what is counted, and how counts lie in outputs. Must not know: runs.
//!
//! One row of outputs for each day and signal of a session:
//!
//! ```text
//! key:   day u32 (days since the epoch, UTC), big-endian | number u16, big-endian: signals of the day by name
//! value: count u64 | weight f64 | signal: length varint, UTF-8 | agent: length varint, UTF-8
//! ```

use std::collections::BTreeMap;

use super::processor::{ProcessError, Processed, SessionProcessor};
use super::{Outputs, SessionView};
use crate::codec::{DecodeError, Put, Reader};
use crate::error::Error;
use crate::sessions::SessionContent;

/// A processor that counts the signals of each session, by day.
///
/// What it puts down is read with [`counts`](Self::counts); sums over many sessions are the caller's, who
/// walks [`outcomes`](crate::Sessions::outcomes). The items of a session are its signals.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Usage {}

/// How often a signal was sent in a session on a day.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct UsageCount {
    /// The day by which its writer says that it happened, in days since the epoch, UTC.
    pub day: u32,
    /// The name of the signal.
    pub signal: String,
    /// What the user's software called itself.
    pub agent: String,
    /// How often it was sent, late ones included.
    pub count: u64,
    /// The sum of the weights.
    pub weight: f64,
}

const DAY_NS: u64 = 86_400_000_000_000;

impl Usage {
    /// The name that it is registered under.
    pub const NAME: &str = "usage";

    /// The processor.
    pub const fn new() -> Self {
        Self {}
    }

    /// What its outputs of a session say, by day and signal. What is not one of its rows is left out.
    pub fn counts(outputs: &[(Vec<u8>, Vec<u8>)]) -> Vec<UsageCount> {
        outputs.iter().filter_map(|(key, value)| read_row(key, value).ok()).collect()
    }
}

impl SessionProcessor for Usage {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn process(
        &self,
        session: &SessionView<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<Processed, ProcessError> {
        let (mut counts, mut items) = (BTreeMap::<(u32, String), (u64, f64)>::new(), 0);
        for record in session.records()? {
            let SessionContent::Signal { signal, weight, .. } = record.content else { continue };
            let day = u32::try_from(record.at.as_nanos() / DAY_NS).unwrap_or(u32::MAX);
            let sum = counts.entry((day, signal)).or_default();
            *sum = (sum.0 + 1, sum.1 + weight);
            items += 1;
        }
        let (mut last_day, mut number) = (None, 0_u16);
        for ((day, signal), (count, weight)) in counts {
            number = if last_day.replace(day) == Some(day) { number.saturating_add(1) } else { 0 };
            let key = [&day.to_be_bytes()[..], &number.to_be_bytes()].concat();
            let mut value = Vec::new();
            value.put_u64(count);
            value.put_f64(weight);
            value.put_bytes(signal.as_bytes());
            value.put_bytes(session.info().agent.as_bytes());
            out.put(&key, &value).map_err(permanent_if_too_large)?;
        }
        Ok(Processed { items })
    }
}

/// What is too large is so the next time as well.
fn permanent_if_too_large(error: Error) -> ProcessError {
    match error {
        Error::TooLarge { .. } => ProcessError::permanent(error),
        other => other.into(),
    }
}

fn read_row(key: &[u8], value: &[u8]) -> Result<UsageCount, DecodeError> {
    let day = match key {
        &[a, b, c, d, _, _] => u32::from_be_bytes([a, b, c, d]),
        _ => return Err(DecodeError::Malformed("no key of a count")),
    };
    let mut reader = Reader::new(value);
    let (count, weight) = (reader.u64()?, reader.f64()?);
    let (signal, agent) = (reader.str()?.to_owned(), reader.str()?.to_owned());
    reader.end()?;
    Ok(UsageCount { day, signal, agent, count, weight })
}
