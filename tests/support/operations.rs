//! Operations of every surface that follow from a seed, and databases to apply them to.
//!
//! Each operation is exactly one frame of the log, so what survived a crash is counted
//! ([`survived`]), and a second database that applied as many has the same digest.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tidaldb::schema::{
    CoEngagement, DecaySpec, EntityId, EntityKind, Predicate, Schema, SchemaBuilder, Timestamp,
    Window,
};
use tidaldb::{
    Batch, Builder, Durability, Event, Options, Outcome, Result, Ticket, TidalDb, TimeSource,
};

mod collecting;
mod processing;
mod visiting;

use collecting::Collecting;
use processing::Processing;
use visiting::Visiting;

use crate::pairs;
use crate::random::Random;

/// An hour.
pub const HOUR: Duration = Duration::from_secs(3_600);
/// Acknowledged before it is synced.
pub const OS: Durability = Durability::Os { sync_every: Duration::from_millis(20) };

/// Two signals that connect items, a cohort, a family and a named cohort.
pub fn schema() -> Schema {
    declared(true)
}

/// The same, as it was before signals could connect items, and before there were sessions.
pub fn schema_of_format_1() -> Schema {
    declared(false)
}

fn declared(is_engaging: bool) -> Schema {
    let mut b = SchemaBuilder::new();
    for signal in ["like", "view"] {
        let signal = b
            .signal(signal, EntityKind::Item, DecaySpec::Exponential { half_life: HOUR * 24 })
            .half_lives(&[HOUR])
            .windows(&Window::ALL)
            .velocity(true);
        let _ = if is_engaging { signal.engaging().add() } else { signal.add() };
    }
    if is_engaging {
        b.co_engagement(co_engagement());
        visiting::declare(&mut b);
    }
    b.cohort("adults", Predicate::range("age", 18.0..200.0));
    b.cohort_family("country", 50);
    b.named_cohort("editors-picks");
    b.build().expect("a sound schema")
}

/// Bounds that some hundred operations reach.
fn co_engagement() -> CoEngagement {
    let mut settings = CoEngagement::default();
    (settings.neighbours_max, settings.capacity, settings.trails_max) = (12, 1_500, 100);
    settings
}

/// Segments and checkpoints so small that rolls, checkpoints and truncations never cease.
pub fn options() -> Options {
    let mut options = Options::default();
    options.segment_size_bytes = 64 << 10;
    options.checkpoint_log_bytes = 48 << 10;
    options.checkpoint_interval = Duration::from_millis(40);
    options.checkpoint_bytes_per_s = 0;
    // So few that there is no room for some.
    (options.collection_items_max, options.collections_per_owner_max) = (150, 6);
    options
}

/// The same, but checkpoints are written only when they are asked for.
pub fn quiet_options() -> Options {
    let mut options = options();
    (options.checkpoint_log_bytes, options.checkpoint_interval) = (1 << 40, HOUR * 24 * 365);
    options
}

/// A builder for a database that takes the operations.
pub fn builder(options: Options) -> Builder {
    TidalDb::builder()
        .with_schema(schema())
        .with_options(options)
        .with_time_source(TimeSource::Events)
}

/// Opens the database in a directory, with [`options`].
pub fn open(dir: &Path) -> TidalDb {
    builder(options()).with_data_dir(dir).open().expect("the database opens")
}

/// A database in memory, to compare with.
pub fn ephemeral() -> TidalDb {
    builder(options()).ephemeral().open().expect("a database in memory opens")
}

/// What kind of operation one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A batch of signals.
    Signals,
    /// A batch that was sent before.
    Repeat,
    /// The attributes of a user.
    User,
    /// An item is written.
    Item,
    /// An item is deleted, hidden or shown.
    ItemStatus,
    /// Texts get numbers.
    Intern,
    /// A collection is created.
    CollectionCreated,
    /// A collection is changed or deleted.
    CollectionChanged,
    /// A session starts, or one that is open is joined.
    SessionStarted,
    /// A session is written to, or ended.
    SessionWritten,
    /// A cursor on ended sessions.
    Cursor,
    /// Processors, and attempts at sessions.
    Processing,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Signals,
        Self::Repeat,
        Self::User,
        Self::Item,
        Self::ItemStatus,
        Self::Intern,
        Self::CollectionCreated,
        Self::CollectionChanged,
        Self::SessionStarted,
        Self::SessionWritten,
        Self::Cursor,
        Self::Processing,
    ];

    /// The kind of operation `i` of a seed.
    pub fn of(seed: u64, i: u64) -> Self {
        match operation(seed, i) {
            Operation::Signals(_) => Self::Signals,
            Operation::Repeat(_) => Self::Repeat,
            Operation::User(..) => Self::User,
            Operation::Item(..) => Self::Item,
            Operation::Delete(_) | Operation::Hide(_) | Operation::Show(_) => Self::ItemStatus,
            Operation::Intern(_) => Self::Intern,
            Operation::Collect(Collecting::Create(..)) => Self::CollectionCreated,
            Operation::Collect(_) => Self::CollectionChanged,
            Operation::Visit(Visiting::Start { .. }) => Self::SessionStarted,
            Operation::Visit(Visiting::Write { .. }) => Self::SessionWritten,
            Operation::Visit(Visiting::Listen(_)) => Self::Cursor,
            Operation::Process(_) => Self::Processing,
        }
    }

    /// Asserts that no kind is missing among some operations of a seed.
    ///
    /// # Panics
    ///
    /// When one is.
    pub fn assert_all(seed: u64, range: Range<u64>) {
        let there: HashSet<Self> = range.clone().map(|i| Self::of(seed, i)).collect();
        let missing: Vec<_> = Self::ALL.iter().filter(|kind| !there.contains(kind)).collect();
        assert!(missing.is_empty(), "operations {range:?} of seed {seed} have no {missing:?}");
    }
}

/// What operation `i` of a seed is; each is exactly one frame of the log.
enum Operation {
    Signals(Batch),
    Repeat(Batch),
    User(u64, [(&'static str, String); 2]),
    Item(EntityId, String),
    Delete(EntityId),
    Hide(EntityId),
    Show(EntityId),
    Intern([String; 2]),
    Collect(Collecting),
    Visit(Visiting),
    Process(Processing),
}

/// The seed of the operations that the database of format 1 has: from before there were collections
/// and sessions.
pub const FORMAT_1: u64 = 4_711;

/// Batches that are on their way at once.
const IN_FLIGHT_MAX: usize = 4;

const COUNTRIES: [&str; 4] = ["FR", "US", "DE", "IT"];
/// A day and a half in a thousand operations, so that windows of all lengths expire.
const STEP: Duration = Duration::from_secs(120);
const START: Timestamp = Timestamp::from_secs(1_600_000_000);

fn time_of(i: u64) -> Timestamp {
    START.saturating_add(STEP * u32::try_from(i).expect("few operations"))
}

fn batch_of(seed: u64, i: u64) -> Batch {
    let mut random = random_of(seed, i);
    let mut batch = Batch::from_source("ops", i, i).durability(durability_of(&mut random));
    let len = if random.one_in(8) { random.below(400) } else { 1 + random.below(20) };
    for n in 0..len {
        let late = if random.one_in(5) { random.below(4_000_000) } else { random.below(120) };
        let at = time_of(i).saturating_sub(Duration::from_secs(late));
        let signal = if random.one_in(4) { "like" } else { "view" };
        let item = EntityId::new(random.below(40) * random.below(40));
        let weight = [1.0, 1.0, 0.3, -1.0, 2.5][random.below(5) as usize];
        let id = [i.to_le_bytes(), (n / 2).to_le_bytes()].concat();
        let mut event = Event::new(signal, item, at).weight(weight);
        if random.one_in(3) {
            event = event.user(random.below(30));
        }
        if random.one_in(6) {
            event = event.cohort(["country=FR", "editors-picks"][random.below(2) as usize]);
        }
        if random.one_in(6) {
            event = event.id(&id);
        }
        batch.push(event);
    }
    batch
}

fn random_of(seed: u64, i: u64) -> Random {
    Random::new(seed ^ i.wrapping_mul(0x9e37_79b9))
}

fn durability_of(random: &mut Random) -> Durability {
    if random.one_in(2) { OS } else { Durability::Sync }
}

/// Whether operation `i` is a batch that moves the source.
pub fn is_batch(i: u64) -> bool {
    i.is_multiple_of(3) || i % 7 == 1
}

/// Whether operation `i` is acknowledged only when it, and all before it, are synced.
pub fn is_synced(seed: u64, i: u64) -> bool {
    let of_batch = match operation(seed, i) {
        Operation::Signals(_) => i,
        Operation::Repeat(_) => 0,
        _ => return true,
    };
    durability_of(&mut random_of(seed, of_batch)) == Durability::Sync
}

fn operation(seed: u64, i: u64) -> Operation {
    if is_batch(i) {
        return Operation::Signals(batch_of(seed, i));
    }
    if seed == FORMAT_1 {
        return plain(seed, i);
    }
    if let Some(creation) = Collecting::creation(seed, i) {
        return Operation::Collect(creation);
    }
    if let Some(named) = Visiting::start_or_cursor(seed, i) {
        return Operation::Visit(named);
    }
    match Random::new(seed.rotate_left(7) ^ i.wrapping_mul(0x9e37_79b9)).below(12) {
        0..4 => Operation::Collect(Collecting::change(seed, i)),
        4..7 => Operation::Visit(Visiting::write(seed, i)),
        7..9 => Operation::Process(Processing::operation(seed, i)),
        _ => plain(seed, i),
    }
}

/// Operations on items, users and texts.
fn plain(seed: u64, i: u64) -> Operation {
    let mut random = Random::new(seed.rotate_left(17) ^ i);
    let item = EntityId::new(random.below(400));
    match random.below(8) {
        0 => Operation::Item(item, "x".repeat(random.below(3_000) as usize)),
        1 => Operation::Item(item, i.to_string()),
        2 => Operation::Delete(item),
        3 => Operation::Hide(item),
        4 => Operation::Show(item),
        5 => Operation::Intern([format!("text {}", random.below(i)), format!("new {i}")]),
        // Whatever the first one asked for: see `is_synced`.
        6 => Operation::Repeat(batch_of(seed, 0).durability(Durability::Sync)),
        _ => {
            let country = COUNTRIES[random.below(4) as usize].to_owned();
            let attributes = [("country", country), ("age", random.below(40).to_string())];
            Operation::User(random.below(30), attributes)
        }
    }
}

/// Starts an operation; a ticket when it is still on its way.
fn start(db: &TidalDb, operation: Operation) -> Result<Option<Ticket>> {
    match operation {
        Operation::Signals(batch) => return db.submit(batch).map(Some),
        Operation::Repeat(batch) => {
            let ack = db.write(batch)?;
            assert!(matches!(ack.outcome, Outcome::AlreadyApplied { .. }), "{ack:?}");
        }
        Operation::User(user, attributes) => {
            let given = attributes.each_ref().map(|(key, value)| (*key, value.as_str()));
            db.write_user(user, &pairs(&given))?;
        }
        Operation::Item(item, text) => drop(db.write_item(item, &pairs(&[("text", &text)]))?),
        Operation::Delete(item) => drop(db.delete_item(item)?),
        Operation::Hide(item) => drop(db.hide_item(item)?),
        Operation::Show(item) => drop(db.show_item(item)?),
        Operation::Intern(texts) => {
            db.intern(&texts.each_ref().map(String::as_str))?;
        }
        Operation::Collect(collecting) => collecting.perform(db)?,
        Operation::Visit(visiting) => visiting.perform(db)?,
        Operation::Process(processing) => processing.perform(db)?,
    }
    Ok(None)
}

/// Applies the operations of a range, some of them in flight together, and reports each that is
/// acknowledged, until one fails.
pub fn try_apply(
    db: &TidalDb,
    seed: u64,
    range: Range<u64>,
    acknowledged: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut flying: VecDeque<(u64, Ticket)> = VecDeque::new();
    let mut outcome = Ok(());
    for i in range {
        let started = match start(db, operation(seed, i)) {
            Ok(started) => started,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        };
        // An answer to a later operation is one to all before it.
        let wait = started.is_none() || flying.len() >= IN_FLIGHT_MAX;
        flying.extend(started.map(|ticket| (i, ticket)));
        if wait {
            land(&mut flying, acknowledged)?;
        }
        if !is_batch(i) {
            acknowledged(i);
        }
    }
    land(&mut flying, acknowledged).and(outcome)
}

fn land(flying: &mut VecDeque<(u64, Ticket)>, acknowledged: &mut dyn FnMut(u64)) -> Result<()> {
    while let Some((i, ticket)) = flying.pop_front() {
        ticket.wait()?;
        acknowledged(i);
    }
    Ok(())
}

/// As [`try_apply`], where nothing may fail.
pub fn apply(db: &TidalDb, seed: u64, range: Range<u64>, acknowledged: &mut dyn FnMut(u64)) {
    try_apply(db, seed, range, acknowledged).expect("every operation is acknowledged");
}

/// How many operations are in the database: each is one frame, and frames are counted; the first
/// is the schema. Zero as well for one whose schema is not in yet.
pub fn survived(db: &TidalDb) -> u64 {
    db.status().operations.saturating_sub(1)
}
