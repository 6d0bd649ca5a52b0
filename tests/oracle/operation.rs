//! Operations of every surface, said in small numbers, so that the smallest failing ones can be read.
//!
//! Knows: how each is written through the public calls, and what it may answer. Must not know: crashes.
//! Those on collections and sessions are said in `collections` and `sessions`.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use tidal_support::pairs;
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, Timestamp, Window,
};
use tidaldb::{Ack, Batch, Durability, Error, Event, Outcome, Ticket, TidalDb};

use crate::collections::{self, Collecting, collecting};
use crate::engagement::settings;
use crate::sessions::{self, Ended, Hands, Sessioning, sessioning};

/// An hour.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
/// A day, in seconds.
pub(crate) const DAY_S: i64 = 86_400;
/// Items are numbered below this.
pub(crate) const ITEMS: u64 = 6;
/// The half-lives of every signal.
pub(crate) const HALF_LIVES: [Duration; 2] = [Duration::from_secs(86_400), HOUR];
/// The signals.
pub(crate) const SIGNALS: [&str; 2] = ["like", "view"];
/// Every cohort that an operation may name. The family has room for two of its three.
pub(crate) const COHORTS: [&str; 5] =
    ["editors-picks", "country=FR", "country=US", "country=DE", "adults"];
/// Members that the family of countries has room for.
pub(crate) const COUNTRIES_MAX: u32 = 2;
/// The age from which a user is adult.
pub(crate) const ADULT: u8 = 18;
/// The sources of batches.
pub(crate) const SOURCES: [&str; 2] = ["kafka:0", "kafka:1"];
/// The texts of the dictionary.
pub(crate) const TEXTS: [&str; 4] = ["ant", "bee", "cat", "dog"];
const WEIGHTS: [f64; 5] = [1.0, 0.0, 0.3, -1.0, 2.5];
/// Events of a batch that is swollen: more than the writer syncs by itself.
const SWOLLEN: usize = 300;

/// Two signals that connect items, a cohort by age, a family that is soon full, and a cohort that
/// signals name.
pub(crate) fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    for signal in SIGNALS {
        let signal = b
            .signal(signal, EntityKind::Item, DecaySpec::Exponential { half_life: HALF_LIVES[0] })
            .half_lives(&HALF_LIVES[1..])
            .windows(&Window::ALL)
            .velocity(true);
        let _ = signal.engaging().add();
    }
    b.co_engagement(settings());
    b.cohort("adults", Predicate::range("age", f64::from(ADULT)..200.0));
    b.cohort_family("country", COUNTRIES_MAX);
    b.named_cohort("editors-picks");
    for policy in sessions::policies() {
        b.session_policy(policy);
    }
    b.build().expect("a sound schema")
}

/// One signal.
#[derive(Debug, Clone)]
pub(crate) struct Signal {
    pub(crate) signal: usize,
    pub(crate) item: u64,
    /// Seconds before the time of its batch; after it, if negative.
    pub(crate) late_s: i64,
    weight: usize,
    pub(crate) user: Option<u8>,
    pub(crate) cohort: Option<usize>,
    pub(crate) id: Option<u8>,
}

impl Signal {
    /// What it adds.
    pub(crate) const fn weight(&self) -> f64 {
        WEIGHTS[self.weight]
    }

    /// When it happened.
    pub(crate) fn at(&self, base: Timestamp) -> Timestamp {
        let by = Duration::from_secs(self.late_s.unsigned_abs());
        if self.late_s < 0 { base.saturating_add(by) } else { base.saturating_sub(by) }
    }

    /// The same, of a user.
    pub(crate) fn of_user(&self, user: u8) -> Self {
        Self { user: Some(user), cohort: None, ..self.clone() }
    }

    /// One of another kind, at another time.
    pub(crate) fn other(self, signal: usize, late_s: i64) -> Self {
        Self { signal, late_s, ..self }
    }

    /// The event that it is; `id` is its name, if it has one.
    pub(crate) fn event<'a>(&self, base: Timestamp, id: &'a [u8; 1]) -> Event<'a> {
        let item = EntityId::new(self.item);
        let mut event = Event::new(SIGNALS[self.signal], item, self.at(base));
        event = event.weight(self.weight());
        if let Some(user) = self.user {
            event = event.user(u64::from(user));
        }
        if let Some(cohort) = self.cohort {
            event = event.cohort(COHORTS[cohort]);
        }
        if self.id.is_some() { event.id(id) } else { event }
    }
}

/// Where a batch comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) name: usize,
    pub(crate) first: u64,
    pub(crate) len: u64,
    pub(crate) contiguous: bool,
}

impl Source {
    pub(crate) const fn last(self) -> u64 {
        self.first + self.len - 1
    }
}

/// Signals that are written as one.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    pub(crate) source: Option<Source>,
    /// Whether it says so itself, and then whether it asks for less than `Sync`.
    os: Option<bool>,
    events: Vec<Signal>,
    /// Whether its events are repeated until they are many.
    swollen: bool,
}

impl Signals {
    /// One view of one item.
    pub(crate) fn at(source: Option<Source>, late_s: i64) -> Self {
        let view =
            Signal { signal: 1, item: 1, late_s, weight: 0, user: None, cohort: None, id: None };
        Self { source, os: None, events: vec![view], swollen: false }
    }

    /// The first of its events.
    pub(crate) fn first(&self) -> Signal {
        self.events[0].clone()
    }

    /// Its events.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Signal> {
        let len = if self.swollen && !self.events.is_empty() { SWOLLEN } else { self.events.len() };
        self.events.iter().cycle().take(len)
    }

    /// None of its events is so far from its time any more that a batch of the same group, which is
    /// refused, could make or break it: events may carry time along until the group is applied.
    pub(crate) fn calm(&mut self) {
        let events = self.events.iter_mut();
        events.for_each(|event| event.late_s = event.late_s.clamp(-DAY_S, 20 * DAY_S));
    }

    fn batch(&self, base: Timestamp) -> Batch {
        let mut batch = match self.source {
            None => Batch::new(),
            Some(source) => Batch::from_source(SOURCES[source.name], source.first, source.last()),
        };
        if self.source.is_some_and(|source| source.contiguous) {
            batch = batch.contiguous();
        }
        if let Some(os) = self.os {
            batch = batch.durability(if os { OS } else { Durability::Sync });
        }
        for signal in self.events() {
            let id = [signal.id.unwrap_or_default()];
            batch.push(signal.event(base, &id));
        }
        batch
    }
}

/// Acknowledged before it is synced, and never synced for the time alone.
pub(crate) const OS: Durability = Durability::Os { sync_every: Duration::from_secs(86_400) };

/// An operation; each that is accepted into the log is one frame of it.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Signals(Signals),
    User { user: u8, country: Option<usize>, age: u8 },
    Item { item: u64, text: u8, size_bytes: usize },
    Delete(u64),
    Hide(u64),
    Show(u64),
    Intern(Vec<usize>),
    ResetClock,
    Collect(Collecting),
    Session(Sessioning),
}

/// What an operation is about, once it is known what there is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    Nothing,
    Collection(collections::Aim),
    Session(sessions::Aim),
}

impl Aim {
    /// The collection.
    pub(crate) fn collection(self) -> collections::Aim {
        let Self::Collection(aim) = self else { panic!("it is about a collection, not {self:?}") };
        aim
    }

    /// The session.
    pub(crate) fn session(self) -> sessions::Aim {
        let Self::Session(aim) = self else { panic!("it is about a session, not {self:?}") };
        aim
    }
}

/// An operation, and the times that make it the same whoever applies it.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) operation: Operation,
    /// What its events' times are counted from.
    pub(crate) base: Timestamp,
    /// What it is stamped with where the clock stamps.
    pub(crate) stamp: Timestamp,
    pub(crate) aim: Aim,
}

/// What an operation was answered, when nothing failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Applied { duplicates: u32 },
    AlreadyApplied { stored: u64 },
    Overlap { stored: u64 },
    Gap { stored: u64 },
    FamilyFull,
    TooFarAhead,
    ClockJumped,
    Invalid,
    Ids(Vec<u64>),
    Created(u64),
    Changed { changed: bool, version: u64, item_count: u64, duplicates: u32 },
    NotFound,
    Stale { current: u64 },
    OutOfRange { item_count: u64 },
    TooLarge,
    Started { id: u64, at: Timestamp },
    Touched(Timestamp),
    Ended(Ended),
    HasEnded(Ended),
    NoSession,
    LaneBusy(u64),
    IsOpen,
    TooLate,
    Fenced,
    Forbidden,
    Limited { retry_after_ms: u64 },
    Closed,
}

impl Answer {
    /// The word for it; of an end, with how it came.
    pub(crate) fn kind(&self) -> String {
        let word = |text: String| {
            let end = text.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(text.len());
            text[..end].to_owned()
        };
        match self {
            Self::Ended(end) | Self::HasEnded(end) => {
                let end = (word(format!("{:?}", end.why)), word(format!("{:?}", end.from)));
                format!("{} {} {}", word(format!("{self:?}")), end.0, end.1)
            }
            _ => word(format!("{self:?}")),
        }
    }

    /// Whether it says that the operation is not even in the log.
    pub(crate) const fn is_before_the_log(&self) -> bool {
        matches!(self, Self::TooFarAhead | Self::ClockJumped | Self::Invalid | Self::Closed)
    }
}

/// An answer, or what failed beneath the engine.
pub(crate) fn answer_of(outcome: tidaldb::Result<Ack>) -> tidaldb::Result<Answer> {
    match outcome {
        Ok(Ack { outcome: Outcome::Applied, duplicates, .. }) => Ok(Answer::Applied { duplicates }),
        Ok(Ack { outcome: Outcome::AlreadyApplied { stored }, .. }) => {
            Ok(Answer::AlreadyApplied { stored })
        }
        Err(error) => refusal(error),
    }
}

/// What a refusal says, or what failed beneath the engine.
pub(crate) fn refusal(error: Error) -> tidaldb::Result<Answer> {
    match error {
        Error::Overlap { stored, .. } => Ok(Answer::Overlap { stored }),
        Error::Gap { stored, .. } => Ok(Answer::Gap { stored }),
        Error::TooLarge { what: "the cohort family", .. } => Ok(Answer::FamilyFull),
        Error::TooLarge { .. } => Ok(Answer::TooLarge),
        Error::TooFarAhead { .. } => Ok(Answer::TooFarAhead),
        Error::ClockJumped { .. } => Ok(Answer::ClockJumped),
        Error::InvalidArgument { .. } => Ok(Answer::Invalid),
        Error::CollectionNotFound(_) => Ok(Answer::NotFound),
        Error::StaleVersion { current, .. } => Ok(Answer::Stale { current }),
        Error::PositionOutOfRange { item_count, .. } => Ok(Answer::OutOfRange { item_count }),
        error => Err(error),
    }
}

impl Planned {
    /// Whether it asks to be synced before it is acknowledged.
    pub(crate) const fn asks_for_sync(&self, os_by_default: bool) -> bool {
        match &self.operation {
            Operation::Signals(Signals { os: Some(os), .. }) => !*os,
            Operation::Session(sessioning) if sessioning.is_durable() => true,
            _ => !os_by_default,
        }
    }

    /// Queues it; what cannot fly has no ticket.
    pub(crate) fn submit(&self, db: &TidalDb) -> tidaldb::Result<Ticket> {
        match &self.operation {
            Operation::Signals(signals) => db.submit(signals.batch(self.base)),
            Operation::User { user, country, age } => {
                db.submit_user(u64::from(*user), &attributes(*country, *age))
            }
            other => panic!("{other:?} has no ticket"),
        }
    }

    /// Does it, and waits for the answer.
    pub(crate) fn perform(&self, db: &TidalDb, hands: &Hands) -> tidaldb::Result<Answer> {
        let item = |item: &u64| EntityId::new(*item);
        answer_of(match &self.operation {
            Operation::Signals(_) | Operation::User { .. } => {
                self.submit(db).and_then(Ticket::wait)
            }
            Operation::Item { item, text, size_bytes } => {
                db.write_item(EntityId::new(*item), &metadata(*text, *size_bytes))
            }
            Operation::Delete(it) => db.delete_item(item(it)),
            Operation::Hide(it) => db.hide_item(item(it)),
            Operation::Show(it) => db.show_item(item(it)),
            Operation::ResetClock => db.reset_clock(),
            Operation::Intern(texts) => {
                let texts: Vec<&str> = texts.iter().map(|&text| TEXTS[text]).collect();
                match db.intern(&texts) {
                    Ok(ids) => return Ok(Answer::Ids(ids.iter().map(|id| id.get()).collect())),
                    Err(error) => Err(error),
                }
            }
            Operation::Collect(collecting) => {
                return collecting.perform(db, self.aim.collection(), self.base).or_else(refusal);
            }
            Operation::Session(sessioning) => {
                let done = sessioning.perform(db, hands, self.aim.session(), self.base);
                return done.or_else(refusal);
            }
        })
    }
}

/// The attributes of a user.
pub(crate) fn attributes(country: Option<usize>, age: u8) -> HashMap<String, String> {
    let mut attributes = pairs(&[("age", &age.to_string())]);
    if let Some(country) = country {
        let name = COHORTS[country].strip_prefix("country=").expect("a country");
        attributes.insert("country".to_owned(), name.to_owned());
    }
    attributes
}

/// The metadata of an item.
pub(crate) fn metadata(text: u8, size_bytes: usize) -> HashMap<String, String> {
    let letter = char::from(b'a' + text % 26);
    pairs(&[("text", &letter.to_string().repeat(size_bytes))])
}

/// One signal.
pub(crate) fn signal() -> impl Strategy<Value = Signal> {
    let late_s = prop_oneof![
        6 => -200..7_200i64,
        1 => -400..-200i64,
        2 => 0..50 * DAY_S,
        2 => -40 * DAY_S..0,
    ];
    let maybe = |n: u8| proptest::option::weighted(0.4, 0..n);
    (0..SIGNALS.len(), 0..ITEMS, late_s, 0..WEIGHTS.len(), maybe(4), 0..12usize, maybe(4)).prop_map(
        |(signal, item, late_s, weight, user, cohort, id)| Signal {
            signal,
            item,
            late_s,
            weight,
            user,
            // "adults" follows from attributes: an event may name it all the same.
            cohort: (cohort < COHORTS.len()).then_some(cohort),
            id,
        },
    )
}

fn signals() -> impl Strategy<Value = Signals> {
    let source = (0..SOURCES.len(), 0..12u64, 1..4u64, any::<bool>())
        .prop_map(|(name, first, len, contiguous)| Source { name, first, len, contiguous });
    let events = proptest::collection::vec(signal(), 0..5);
    let os = proptest::option::of(proptest::bool::weighted(0.7));
    (proptest::option::weighted(0.5, source), os, events, proptest::bool::weighted(0.1))
        .prop_map(|(source, os, events, swollen)| Signals { source, os, events, swollen })
}

fn user() -> impl Strategy<Value = Operation> {
    (0..4u8, proptest::option::of(1..4usize), 10..26u8)
        .prop_map(|(user, country, age)| Operation::User { user, country, age })
}

/// Operations that can be on their way together.
pub(crate) fn flying() -> impl Strategy<Value = Operation> {
    prop_oneof![3 => signals().prop_map(Operation::Signals), 1 => user()]
}

/// Operations of all surfaces.
pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    // Two large ones fill a segment.
    let size_bytes = prop_oneof![1 => 0..200usize, 1 => 25_000..60_000usize];
    prop_oneof![
        8 => signals().prop_map(Operation::Signals),
        2 => user(),
        3 => (0..ITEMS, 0..26u8, size_bytes)
            .prop_map(|(item, text, size_bytes)| Operation::Item { item, text, size_bytes }),
        1 => (0..ITEMS).prop_map(Operation::Delete),
        1 => (0..ITEMS).prop_map(Operation::Hide),
        1 => (0..ITEMS).prop_map(Operation::Show),
        1 => proptest::collection::vec(0..TEXTS.len(), 1..4).prop_map(Operation::Intern),
        1 => Just(Operation::ResetClock),
        7 => collecting(signal()).prop_map(Operation::Collect),
        12 => sessioning(signal()).prop_map(Operation::Session),
    ]
}
