//! Writing signals and users.

use std::collections::HashMap;

use super::{Ack, Batch, Event, Ticket, TidalDb, check_name, check_size};
use crate::engine::encoded;
use crate::error::Result;
use crate::ids::{EntityId, Timestamp, UserId};
use crate::options::Options;
use crate::record::{Attributes, Record, encode_attributes};

impl TidalDb {
    /// Counts one signal without a user.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn signal(
        &self,
        signal: &str,
        entity: EntityId,
        weight: f64,
        at: Timestamp,
    ) -> Result<Ack> {
        let mut batch = Batch::new();
        batch.push(Event::new(signal, entity, at).weight(weight));
        self.write(batch)
    }

    /// Writes a batch and waits for its acknowledgement. One batch is one frame of the log: after a
    /// crash all of it is there, or none.
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit) and of [`Ticket::wait`].
    pub fn write(&self, batch: Batch) -> Result<Ack> {
        self.submit(batch)?.wait()
    }

    /// Queues a batch; the ticket says when it is acknowledged. Blocks only while more than
    /// [`queue_size_bytes_max`](Options::queue_size_bytes_max) is waiting.
    ///
    /// # Errors
    ///
    /// Nothing was written in any of these cases:
    ///
    /// - [`UnknownName`](crate::Error::UnknownName): a signal or cohort that the schema does not
    ///   have.
    /// - [`InvalidArgument`](crate::Error::InvalidArgument): a weight that is neither zero nor of a
    ///   believable size; an empty name or event id; a source range that ends before it begins.
    /// - [`TooLarge`](crate::Error::TooLarge): too many events, or a name that is too long.
    /// - [`Stopped`](crate::Error::Stopped), [`Closed`](crate::Error::Closed).
    pub fn submit(&self, batch: Batch) -> Result<Ticket> {
        let declared = self.state.declared();
        let body = batch.encode(&declared.schema, &self.options)?;
        self.send(body, batch.len(), batch.latest(), batch.chosen_durability(), false)
    }

    /// How far a source has been applied: resume after this position. Commit upstream only what
    /// this says after [`flush`](Self::flush) or a write acknowledged with
    /// [`Sync`](crate::Durability::Sync).
    pub fn source_offset(&self, source: &str) -> Option<u64> {
        self.state.sources.stored(source)
    }

    /// Replaces a user's attributes and waits. The cohorts that follow from them and the schema hold
    /// for the user's later signals.
    ///
    /// # Errors
    ///
    /// Those of [`submit_user`](Self::submit_user) and of [`Ticket::wait`].
    pub fn write_user(
        &self,
        user: impl Into<UserId>,
        attributes: &HashMap<String, String>,
    ) -> Result<Ack> {
        self.submit_user(user, attributes)?.wait()
    }

    /// Queues a user's attributes; the ticket says when they are acknowledged. Many users that are
    /// queued before the first ticket is waited for share a sync.
    ///
    /// # Errors
    ///
    /// Nothing was written in any of these cases:
    ///
    /// - [`InvalidArgument`](crate::Error::InvalidArgument), [`TooLarge`](crate::Error::TooLarge): an
    ///   attribute without a name, or more than the limits.
    /// - [`Stopped`](crate::Error::Stopped), [`Closed`](crate::Error::Closed).
    pub fn submit_user(
        &self,
        user: impl Into<UserId>,
        attributes: &HashMap<String, String>,
    ) -> Result<Ticket> {
        let attributes = checked("user attributes", attributes, &self.options)?;
        let body = encoded(&Record::WriteUser(user.into(), attributes))?;
        self.send(body, 1, None, None, false)
    }

    /// A user's attributes, if the user was ever written.
    pub fn user_attributes(&self, user: impl Into<UserId>) -> Option<HashMap<String, String>> {
        self.state.users.attributes(user.into()).map(|pairs| pairs.into_iter().collect())
    }

    /// The names of the cohorts that a user's signals count for, in the order in which the cohorts
    /// came to be.
    pub fn user_cohorts(&self, user: impl Into<UserId>) -> Vec<String> {
        let mut cohorts = self.state.users.cohorts(user.into());
        cohorts.sort_unstable();
        cohorts.iter().filter_map(|&cohort| self.state.cohorts.name(cohort)).collect()
    }

    /// The names of all cohorts that anything was counted for, or a user belongs to.
    pub fn cohorts(&self) -> Vec<String> {
        self.state.cohorts.all()
    }
}

/// Names and sizes within the limits, in key order.
pub(super) fn checked(
    what: &'static str,
    pairs: &HashMap<String, String>,
    options: &Options,
) -> Result<Attributes> {
    for key in pairs.keys() {
        check_name(what, key, options)?;
    }
    let pairs: Attributes = pairs.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    check_size(what, encode_attributes(&pairs).len(), options.metadata_size_bytes_max)?;
    Ok(pairs)
}
