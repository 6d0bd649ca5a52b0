//! Opening a database: from what lies on disk to a state that can be served.
//!
//! Knows: the order of steps. Must not know: byte layouts, what a record means, threads.
//!
//! 1. The directory is locked, and made a database if it is empty.
//! 2. Both checkpoint stores are opened and verified; the newest that holds is loaded.
//! 3. The log is scanned, its tail judged, and every frame after the checkpoint applied.
//! 4. What was asked for (schema, time source) is compared with what is stored. Up to here nothing
//!    that holds data was changed, so a refusal leaves everything as it was.
//! 5. The log is made ready: its tail is cut and what was not proven synced is written anew.
//! 6. Stores that are missing are made; those that do not hold are moved aside and replaced.
//! 7. The recovery frame is appended and synced: the new incarnation, and the schema if it grew.
//!
//! A crash anywhere on the way leaves a directory that opens to the same state.

mod backup;
mod loader;
mod place;
mod report;
mod salvage;
mod stores;
#[cfg(test)]
mod tests;

pub(crate) use backup::write_down;
pub(crate) use loader::StateLoader;
pub(crate) use place::identity_of;
pub use report::OpenReport;
pub(crate) use salvage::salvage;

use std::path::Path;
use std::sync::Arc;

use place::Place;
use stores::StoreKeeper;

use crate::checkpoint::{SlotState, StorePair};
use crate::clock::Clock;
use crate::engine::{Journal, Keeper, Stamper, body_of};
use crate::error::{Error, Result};
use crate::fault::{CrashPoint, Faults};
use crate::ids::{DatabaseId, Timestamp, duration_nanos};
use crate::options::{Options, SessionConfig, TimeSource};
use crate::record::{Opened, Record};
use crate::schema::{ExtendedAt, Schema};
use crate::seq::Seq;
use crate::sessions::Happened;
use crate::state::{Applier, Frame, Header, State};
use crate::storage::{Disk, Machine};
use crate::table::StoreSlot;
use crate::wal::{LogOptions, Scan, Tail};

/// What the caller of open asked for.
pub(crate) struct Wanted {
    pub(crate) schema: Option<Schema>,
    pub(crate) time_source: Option<TimeSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) sessions: SessionConfig,
    pub(crate) machine: Machine,
}

/// A database that is ready to be served.
pub(crate) struct Recovered {
    pub(crate) state: Arc<State>,
    pub(crate) journal: Journal,
    pub(crate) stamper: Stamper,
    pub(crate) database: DatabaseId,
    pub(crate) durable: Option<DurableParts>,
    pub(crate) report: OpenReport,
}

/// What a database has beyond its state if it lies on disk.
pub(crate) struct DurableParts {
    pub(crate) stores: Arc<StorePair>,
    pub(crate) keeper: Box<dyn Keeper>,
    /// The operation counter at each store's checkpoint; zero without one.
    pub(crate) operations: [u64; 2],
    pub(crate) lock: Box<dyn Send + Sync>,
    pub(crate) log_dir: std::path::PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
}

/// Opens the database in a directory.
pub(crate) fn open(path: &Path, wanted: &Wanted) -> Result<Recovered> {
    let place = Place::open(wanted.machine.clone(), path)?;
    let faults = &wanted.machine.faults;
    place.free_reserve();
    faults.reach(CrashPoint::ReserveFreed);
    let recovered = recover_with_every_store(&place, wanted);
    if recovered.is_ok() {
        faults.reach(CrashPoint::Recovered);
    }
    place.fill_reserve();
    faults.reach(CrashPoint::ReserveFilled);
    let mut recovered = recovered?;
    if let Some(durable) = &mut recovered.durable {
        durable.lock = place.lock;
    }
    Ok(recovered)
}

/// What is left when a store is left alone need not be a database: the other store may be new, and the
/// log truncated. Then that store is tried once more, before anything is called damaged.
fn recover_with_every_store(place: &Place, wanted: &Wanted) -> Result<Recovered> {
    match recover(place, wanted) {
        // More checkpoints cannot mend a damaged log.
        Err(gap @ Error::LogGap { .. }) => match StoreKeeper::new(place).forget_aborts()? {
            true => recover(place, wanted),
            false => Err(gap),
        },
        recovered => recovered,
    }
}

fn recover(place: &Place, wanted: &Wanted) -> Result<Recovered> {
    let faults = &wanted.machine.faults;
    let mut report = OpenReport::new(place.root(), place.created);
    let keeper = StoreKeeper::new(place);
    let engines = keeper.open_all()?;
    faults.reach(CrashPoint::StoresOpened);
    let mut loader = StateLoader::default();
    let (stores, loaded) = StorePair::open(place.database, engines, &mut loader)?;
    let stores = stores.with_faults(faults.clone());
    let state = match &loaded {
        Some(loaded) => {
            report.loaded(loaded);
            loader.finish(loaded)?
        }
        None => State::new(),
    };
    faults.reach(CrashPoint::CheckpointLoaded);
    // Stores are made after the log: where there is one, a missing log is lost.
    if keeper.is_missing(StoreSlot::A)? && keeper.is_missing(StoreSlot::B)? {
        place.create_log_if_missing(log_options(wanted))?;
    }
    let tail = scan(place, &stores)?;
    faults.reach(CrashPoint::LogJudged);
    report.emptied(&stores);
    fail_unconfirmed(&tail, &stores, loaded.as_ref().map(|loaded| loaded.slot));
    let operations = operations_of(&stores);
    let (replayed, last) = replay(&tail, &state)?;
    report.replayed = replayed;
    faults.reach(CrashPoint::LogReplayed);
    wanted.check(&state)?;

    let (log, log_report) = tail.finish(log_options(wanted))?;
    report.log(&log_report, last);
    report.clock(state.header(), wanted);
    replace_failed(&keeper, &stores, &state, &mut report)?;
    faults.reach(CrashPoint::StoresRepaired);
    let mut recovered = Recovered {
        stamper: wanted.stamper(&state),
        state: Arc::new(state),
        journal: Journal::Log(Box::new(log)),
        database: place.database,
        durable: Some(DurableParts {
            stores: Arc::new(stores),
            keeper: Box::new(keeper),
            operations,
            log_dir: place.log_dir(),
            disk: Arc::clone(&place.machine.disk),
            lock: Box::new(()),
        }),
        report,
    };
    recovered.announce(wanted)?;
    Ok(recovered)
}

/// A database that lives in memory.
pub(crate) fn ephemeral(wanted: &Wanted) -> Result<Recovered> {
    let state = State::new();
    wanted.check(&state)?;
    let mut recovered = Recovered {
        stamper: wanted.stamper(&state),
        state: Arc::new(state),
        journal: Journal::Ephemeral(Seq::ZERO),
        database: place::random_id(),
        durable: None,
        report: OpenReport::new(Path::new(""), true),
    };
    recovered.announce(wanted)?;
    Ok(recovered)
}

fn log_options(wanted: &Wanted) -> LogOptions {
    let segment_size_bytes = wanted.options.segment_size_bytes;
    LogOptions { segment_size_bytes, faults: wanted.machine.faults.clone() }
}

fn scan(place: &Place, stores: &StorePair) -> Result<Tail> {
    let exists = place.machine.disk.exists(&place.log_dir());
    if !exists.map_err(|e| Error::io("look at", &place.log_dir(), e))? {
        let what = format!("the log in {}", place.log_dir().display());
        return Err(Error::corrupt(what, "the directory is missing"));
    }
    let checkpoints: Vec<_> =
        stores.manifests().into_iter().flatten().map(|m| (m.seq, m.frame_hash)).collect();
    Scan::run(Arc::clone(&place.machine.disk), place.log_dir(), place.database)?
        .resolve(&checkpoints)
}

/// Applies every frame after the checkpoint; returns how many, and the kind of the last one.
fn replay(tail: &Tail, state: &State) -> Result<(u64, Option<u8>)> {
    let after = state.header().applied;
    let _recovery = tracing::info_span!("recovery", %after, to = %tail.last()).entered();
    let mut applier = Applier::default();
    let (mut replayed, mut last) = (0, None);
    tail.replay(after, |frame| {
        replayed += 1;
        last = Some(frame.kind);
        let seen = Frame { seq: frame.seq, time: frame.time, kind: frame.kind, body: frame.body };
        applier
            .apply(state, std::iter::once(seen))
            .map(drop)
            .map_err(|e| e.of(format!("the record of frame {}", frame.seq)))
    })?;
    Ok((replayed, last))
}

/// Declares a store failed whose checkpoint lies before the log: it fell back, or is of a copy of this
/// database that went its own way, which nothing could tell.
fn fail_unconfirmed(tail: &Tail, stores: &StorePair, base: Option<StoreSlot>) {
    for (slot, manifest) in StoreSlot::BOTH.into_iter().zip(stores.manifests()) {
        let Some(manifest) = manifest.filter(|m| m.seq.next() < tail.first()) else { continue };
        if base == Some(slot) {
            continue;
        }
        let detail = format!(
            "its checkpoint is at {}, and the log begins at {}: it lost a later one, or is of another \
             copy of the database",
            manifest.seq,
            tail.first()
        );
        stores.fail(slot, Error::corrupt(format!("store {}", slot.name()), detail));
    }
}

/// How many operations each store's checkpoint contains.
fn operations_of(stores: &StorePair) -> [u64; 2] {
    stores.manifests().map(|manifest| {
        let header = manifest.and_then(|m| State::header_of(&m.state_header).ok());
        header.map_or(0, |header: Header| header.operations)
    })
}

/// Puts new stores in the place of those that do not hold; they are owed everything.
fn replace_failed(
    keeper: &StoreKeeper,
    stores: &StorePair,
    state: &State,
    report: &mut OpenReport,
) -> Result<()> {
    for (slot, slot_state) in StoreSlot::BOTH.into_iter().zip(stores.state()) {
        let SlotState::Failed { reason } = slot_state else { continue };
        let missing = keeper.is_missing(slot)?;
        let engine = keeper.replace(slot)?;
        stores.replace_at_open(slot, engine);
        state.owe_all(slot);
        match missing {
            true => report.made_store(slot),
            false => report.replaced(slot, &keeper.aside(slot), &reason),
        }
    }
    Ok(())
}

impl Wanted {
    /// Compares what was asked for with what is stored.
    fn check(&self, state: &State) -> Result<()> {
        let header = state.header();
        let stored = state.declared();
        let is_new = header.incarnation == 0;
        if let Some(source) = self.time_source
            && !is_new
            && (source == TimeSource::Events) != header.event_time
        {
            let stored = if header.event_time { "events" } else { "the clock" };
            let reason = format!("the database was created with time from {stored}");
            return Err(Error::invalid("time_source", reason));
        }
        match &self.schema {
            None if stored.schema.signals().is_empty() => {
                Err(Error::invalid("schema", "a new database needs one: use with_schema()"))
            }
            None => Ok(()),
            Some(given) if stored.schema.signals().is_empty() => match given.signals() {
                [] => Err(Error::InvalidSchema("it declares no signal".to_owned())),
                _ => Ok(()),
            },
            Some(given) => {
                let at = ExtendedAt { seq: header.applied, time: header.engine_time };
                stored.schema.extend(&given.over(&stored.schema), at).map(drop)
            }
        }
    }

    fn stamper(&self, state: &State) -> Stamper {
        let header = state.header();
        let stored = if header.event_time { TimeSource::Events } else { TimeSource::Clock };
        let source = match header.incarnation {
            0 => self.time_source.unwrap_or_default(),
            _ => stored,
        };
        Stamper::new(Arc::clone(&self.clock), source, header.engine_time, &self.options)
    }
}

impl Recovered {
    /// Appends, syncs and applies the frames that begin an incarnation.
    fn announce(&mut self, wanted: &Wanted) -> Result<()> {
        let faults = &wanted.machine.faults;
        let header = self.state.header();
        let opened = Opened {
            incarnation: header.incarnation + 1,
            event_id_horizon_ns: duration_nanos(wanted.options.event_id_horizon),
            event_time: self.stamper.source() == TimeSource::Events,
            sessions: wanted.sessions.on_open,
        };
        let time = self.stamper.stamp_control();
        let happened = self.append(&Record::Opened(opened), time, faults)?;
        self.report.sessions(happened);
        let stored = self.state.declared();
        if let Some(given) = &wanted.schema {
            let at = ExtendedAt { seq: header.applied, time };
            let given = given.over(&stored.schema);
            let grows =
                stored.schema.signals().is_empty() || stored.schema.extend(&given, at)?.is_some();
            if grows {
                self.append(&Record::Schema(&given.to_bytes()), time, faults)?;
            }
        }
        self.report.incarnation = opened.incarnation;
        self.report.seq = self.state.header().applied;
        Ok(())
    }

    fn append(
        &mut self,
        record: &Record<'_>,
        time: Timestamp,
        faults: &Faults,
    ) -> Result<Vec<Happened>> {
        let body = body_of(record);
        let seq = self.journal.append(time, &body);
        self.journal.write_group()?;
        faults.reach(CrashPoint::RecoveryWritten);
        self.journal.sync()?;
        faults.reach(CrashPoint::RecoverySynced);
        let frame = Frame { seq, time, kind: body.kind(), body: body.bytes() };
        let mut applier = Applier::default();
        let outcomes = applier
            .apply(&self.state, std::iter::once(frame))
            .map_err(|e| e.of("a record that was just encoded"))?;
        outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))?;
        Ok(applier.take_happened())
    }
}
