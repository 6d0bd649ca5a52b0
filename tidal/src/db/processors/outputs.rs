//! What a processor makes of a session, until it is written down.
//!
//! Knows: limits, and how derived signals are named. Must not know: whether the attempt counts.

use std::collections::BTreeMap;

use crate::codec::Hash;
use crate::db::batch::{Batch, Event, check_weight};
use crate::db::check_size;
use crate::db::door::Door;
use crate::error::{Error, Result};
use crate::ids::{EntityId, Timestamp, UserId};
use crate::record::CommitAttempt;

/// What a processor makes of one session: rows, and signals that follow from it.
///
/// All of it is written down in one frame with the fact that the session was processed, and takes the place
/// of what the processor has made of the session before. Nothing of it is seen by anyone if the call ends
/// with an error, or if the attempt does not count any more.
///
/// There are no messages among outputs: whoever wants to be told subscribes to events, or reads outcomes.
pub struct Outputs<'a> {
    pub(super) made: &'a mut Made,
    pub(super) door: &'a Door,
    pub(super) user: UserId,
    /// What derived signals are named by.
    pub(super) key: Hash,
    /// No signal is later than this; `None` where events advance time.
    pub(super) latest: Option<Timestamp>,
}

/// What was made so far.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) size_bytes: usize,
    pub(super) signals: Batch,
}

impl std::fmt::Debug for Outputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs")
            .field("rows", &self.made.rows.len())
            .field("signals", &self.made.signals.len())
            .finish_non_exhaustive()
    }
}

impl Outputs<'_> {
    /// Puts down a row under a key of 1 to 256 bytes. The last one under a key counts.
    ///
    /// # Errors
    ///
    /// Nothing was put down in any of these cases: [`InvalidArgument`](Error::InvalidArgument),
    /// [`TooLarge`](Error::TooLarge): the key, or all rows of the session together with it are larger
    /// than [`outputs_size_bytes_max`](crate::SessionConfig::outputs_size_bytes_max).
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.is_empty() {
            return Err(Error::invalid("key", "it must not be empty"));
        }
        check_size("a key", key.len(), CommitAttempt::KEY_SIZE_BYTES_MAX)?;
        let replaced = self.made.rows.get(key).map_or(0, |value| key.len() + value.len());
        let size_bytes = self.made.size_bytes - replaced + key.len() + value.len();
        check_size("outputs of a session", size_bytes, self.door.sessions.outputs_size_bytes_max)?;
        self.made.size_bytes = size_bytes;
        self.made.rows.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Counts a signal of the session's user, when the outputs are written down.
    ///
    /// It counts once for one content of the session and one name and version of the processor, as long as
    /// event ids are remembered ([`event_id_horizon`](crate::Options::event_id_horizon)): a repetition within
    /// that time is left out. A later one counts again, and so does one of another version, or one after late
    /// records have come, since these make another content. Signals that were counted stay counted, also
    /// when a later run does not repeat them.
    ///
    /// # Errors
    ///
    /// It was not taken in any of these cases:
    ///
    /// - [`UnknownName`](Error::UnknownName), [`InvalidArgument`](Error::InvalidArgument): the schema has
    ///   no such signal; a weight that is neither zero nor of a believable size.
    /// - [`TooFarAhead`](Error::TooFarAhead); [`TooLarge`](Error::TooLarge): there are too many.
    pub fn signal(
        &mut self,
        signal: &str,
        item: EntityId,
        weight: f64,
        at: Timestamp,
    ) -> Result<()> {
        let options = &self.door.options;
        self.door.look(|inside| inside.state.declared().schema.resolve(signal).map(drop))?;
        check_weight(weight, options)?;
        if let Some(latest) = self.latest.filter(|latest| at > *latest) {
            let ahead = at.as_nanos() - latest.as_nanos();
            let max_ms = options.max_future_skew.as_millis() as u64;
            let ahead_ms = (ahead / 1_000_000).saturating_add(max_ms);
            return Err(Error::TooFarAhead { at_ns: at.as_nanos(), ahead_ms, max_ms });
        }
        let (index, limit) = (self.made.signals.len(), options.batch_len_max);
        if index >= limit {
            let (size, limit) = (index as u64 + 1, limit as u64);
            return Err(Error::TooLarge {
                what: "a session",
                size,
                limit,
                unit: "derived signals",
            });
        }
        let name = [&b"derived "[..], &self.key, &(index as u64).to_le_bytes()].concat();
        let event = Event::new(signal, item, at).weight(weight).user(self.user).id(&name);
        self.made.signals.push(event);
        Ok(())
    }
}
