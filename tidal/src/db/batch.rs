//! Batches of signals: what a caller builds before one atomic write.
//!
//! Knows: what an event says, in the caller's words. Must not know: the log, the tables.

use std::collections::HashMap;

use crate::codec::{Purpose, hash, truncated};
use crate::error::{Error, Result};
use crate::ids::{EntityId, SignalTypeId, Timestamp, UserId};
use crate::options::{Durability, Options};
use crate::record::{RecordKind, SignalBatchWriter, SignalEvent, SourceRange};
use crate::schema::Schema;
use crate::signals::WEIGHT_SIZES;
use crate::wal::FrameBody;

/// One signal, as a caller says it.
///
/// ```
/// use tidaldb::{Event, schema::{EntityId, Timestamp}};
///
/// let event = Event::new("view", EntityId::new(7), Timestamp::now()).weight(2.0).user(42);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    signal: &'a str,
    entity: EntityId,
    at: Timestamp,
    weight: f64,
    user: Option<UserId>,
    cohort: Option<&'a str>,
    id: Option<&'a [u8]>,
}

impl<'a> Event<'a> {
    /// A signal of this type on this item at this time, of weight 1.
    pub const fn new(signal: &'a str, entity: EntityId, at: Timestamp) -> Self {
        Self { signal, entity, at, weight: 1.0, user: None, cohort: None, id: None }
    }

    /// What it adds to decayed scores. May be negative or zero; counts count events all the same.
    #[must_use]
    pub const fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Who sent it: it counts for each of the user's cohorts too.
    #[must_use]
    pub fn user(mut self, user: impl Into<UserId>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// A cohort that it counts for besides those of its user.
    #[must_use]
    pub const fn cohort(mut self, cohort: &'a str) -> Self {
        self.cohort = Some(cohort);
        self
    }

    /// A name of the event that makes it count once within
    /// [`event_id_horizon`](crate::Options::event_id_horizon), however often it is sent. Not empty;
    /// kept as a 128-bit hash.
    #[must_use]
    pub const fn id(mut self, id: &'a [u8]) -> Self {
        self.id = Some(id);
        self
    }
}

/// Signals that are written as one: after a crash all of them are there, or none.
///
/// ```
/// use tidaldb::{Batch, Event, schema::{EntityId, Timestamp}};
///
/// let mut batch = Batch::from_source("kafka:views:3", 100, 101);
/// batch.push(Event::new("view", EntityId::new(1), Timestamp::now()));
/// batch.push(Event::new("view", EntityId::new(2), Timestamp::now()));
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Batch {
    source: Option<Source>,
    durability: Option<Durability>,
    signals: Names,
    cohorts: Names,
    /// Signals are positions in `signals` until the batch is written.
    events: Vec<SignalEvent>,
    latest: Timestamp,
    /// What is wrong with it, found while it was built.
    flaw: Option<Error>,
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    first: u64,
    last: u64,
    contiguous: bool,
}

/// The few distinct names of a batch.
#[derive(Debug, Clone, Default)]
struct Names {
    list: Vec<String>,
    positions: HashMap<String, u32>,
    recent: u32,
}

impl Names {
    fn position(&mut self, name: &str) -> u32 {
        if self.list.get(self.recent as usize).is_some_and(|recent| recent == name) {
            return self.recent;
        }
        self.recent = match self.positions.get(name) {
            Some(&position) => position,
            None => {
                let position = self.list.len() as u32;
                self.list.push(name.to_owned());
                self.positions.insert(name.to_owned(), position);
                position
            }
        };
        self.recent
    }
}

impl Batch {
    /// An empty batch that comes from nowhere in particular: if its write is repeated, it counts
    /// again.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with what `source` has at positions `first` to `last`, both included.
    ///
    /// The source's position is stored by the same frame as the events. A batch that is stored
    /// already is answered [`AlreadyApplied`](crate::Outcome::AlreadyApplied); one that straddles the
    /// stored position is refused with [`Overlap`](crate::Error::Overlap). Resume after
    /// [`source_offset`](crate::TidalDb::source_offset).
    pub fn from_source(source: &str, first: u64, last: u64) -> Self {
        let source = Source { name: source.to_owned(), first, last, contiguous: false };
        Self { source: Some(source), ..Self::default() }
    }

    /// Declares that the source leaves out no position: a batch that skips ahead of what is stored is
    /// refused with [`Gap`](crate::Error::Gap). The first batch of a source may begin anywhere. Without
    /// a source this means nothing.
    #[must_use]
    pub fn contiguous(mut self) -> Self {
        if let Some(source) = &mut self.source {
            source.contiguous = true;
        }
        self
    }

    /// Chooses when the batch is acknowledged, whatever the options of the database say.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Adds an event. What is wrong with it is said when the batch is written.
    pub fn push(&mut self, event: Event<'_>) -> &mut Self {
        if event.id.is_some_and(<[u8]>::is_empty) {
            self.flaw.get_or_insert_with(|| Error::invalid("event id", "it must not be empty"));
        }
        let signal = self.signals.position(event.signal);
        let cohorts = event.cohort.map(|cohort| self.cohorts.position(cohort)).into_iter();
        self.latest = self.latest.max(event.at);
        self.events.push(SignalEvent {
            // A batch with more distinct names than that is refused when they are resolved.
            signal: SignalTypeId::new(u16::try_from(signal).unwrap_or(u16::MAX)),
            entity: event.entity,
            weight: event.weight,
            at: event.at,
            user: event.user,
            cohorts: cohorts.collect(),
            id: event.id.map(|id| u128::from_le_bytes(truncated(&hash(Purpose::Name, id)))),
        });
        self
    }

    /// How many events it has.
    pub const fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it has no events. An empty batch from a source still moves the source.
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) const fn chosen_durability(&self) -> Option<Durability> {
        self.durability
    }

    pub(super) fn latest(&self) -> Option<Timestamp> {
        (!self.events.is_empty()).then_some(self.latest)
    }

    /// Checks all that needs no state, and encodes.
    pub(super) fn encode(&self, schema: &Schema, options: &Options) -> Result<FrameBody> {
        let count = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        FrameBody::new(RecordKind::Signals as u8, count, self.to_bytes(schema, options)?)
    }

    /// The same as bytes, for a record that carries a batch.
    pub(super) fn to_bytes(&self, schema: &Schema, options: &Options) -> Result<Vec<u8>> {
        self.check(options)?;
        let signals: Vec<SignalTypeId> =
            self.signals.list.iter().map(|name| schema.resolve(name)).collect::<Result<_>>()?;
        for cohort in &self.cohorts.list {
            schema.resolve_cohort(cohort)?;
        }
        let source = self.source.as_ref().map(|source| SourceRange {
            name: &source.name,
            first: source.first,
            last: source.last,
            contiguous: source.contiguous,
        });
        let mut writer =
            SignalBatchWriter::new(source, &self.cohorts.list, self.latest, self.events.len());
        for event in &self.events {
            check_weight(event.weight, options)?;
            writer.push(signals[event.signal.get() as usize], event);
        }
        Ok(writer.finish())
    }

    fn check(&self, options: &Options) -> Result<()> {
        if let Some(flaw) = &self.flaw {
            return Err(flaw.clone());
        }
        if self.events.len() > options.batch_len_max {
            return Err(Error::TooLarge {
                what: "a batch",
                size: self.events.len() as u64,
                limit: options.batch_len_max as u64,
                unit: "events",
            });
        }
        let Some(source) = &self.source else { return Ok(()) };
        super::check_name("source", &source.name, options)?;
        if source.first > source.last {
            return Err(Error::invalid("source range", "the first position is after the last"));
        }
        Ok(())
    }
}

/// A weight must be zero, or of a size within the limits.
pub(super) fn check_weight(weight: f64, options: &Options) -> Result<()> {
    let (least, most) = (*WEIGHT_SIZES.start(), options.weight_max);
    if weight == 0.0 || (least..=most).contains(&weight.abs()) {
        return Ok(());
    }
    let reason = format!("{weight} is refused: 0, or {least:e} to {most:e} in size, is accepted");
    Err(Error::invalid("weight", reason))
}
