//! Processors of sessions, seen from outside.
//!
//! - `runs`: what a run does, counts and refuses;
//! - `content`: when a session is processed again, and what is there then;
//! - `failing`: errors, panics, attempts that end with their process, and whom they concern;
//! - `deaths`: a process that dies at every crash point of a run;
//! - `stuck`: what is processed for too long, and what an operator does about it;
//! - `overtime`: warnings, time-outs, and what is to be seen of sessions that failed;
//! - `health`: what health says of them;
//! - `jobs`: what is known of their runs, over restarts too;
//! - `threads`: processors on threads of their own, and closing;
//! - `properties`: what no other of these holds as a whole;
//! - `shipped`: derived signals, and the processors that come with the library.

mod content;
mod deaths;
mod failing;
mod health;
mod jobs;
mod overtime;
mod properties;
mod runs;
mod shipped;
mod stuck;
mod threads;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidal_support::manual;
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder, SessionPolicy, Timestamp, Window,
};
use tidaldb::{
    Builder, FailCause, ManualClock, Options, Outputs, ProcessError, Processed, ProcessorOptions,
    ProcessorStatus, RetryPolicy, RunOptions, RunStats, SessionConfig, SessionId, SessionProcessor,
    SessionState, SessionView, TidalDb,
};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// Longer than anything takes that is only waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let _ = b.signal("view", EntityKind::Item, DecaySpec::None).windows(&[Window::AllTime]).add();
    let _ = b.signal("like", EntityKind::Item, DecaySpec::None).windows(&[Window::AllTime]).add();
    let mut lenient = SessionPolicy::new("lenient");
    lenient.late_grace = HOUR;
    b.session_policy(lenient);
    b.build().expect("a sound schema")
}

fn options() -> Options {
    let mut options = Options::default();
    // Nothing is written but what a test writes.
    (options.mark_after, options.checkpoint_interval) = (HOUR, HOUR);
    // Simulated months are no mistake.
    options.max_clock_jump = Duration::from_secs(366 * 86_400);
    options
}

fn builder(clock: &ManualClock, sessions: SessionConfig) -> Builder {
    TidalDb::builder()
        .with_schema(schema())
        .with_options(options())
        .with_sessions(sessions)
        .with_clock(Arc::new(clock.clone()))
}

fn ephemeral() -> (TidalDb, ManualClock) {
    let clock = ManualClock::at(START);
    let db = builder(&clock, manual()).ephemeral().open().expect("opens");
    (db, clock)
}

fn open(dir: &Path, clock: &ManualClock) -> TidalDb {
    builder(clock, manual()).with_data_dir(dir).open().expect("opens")
}

/// A session of a user that has ended, with so many signals.
fn ended(db: &TidalDb, user: u64, signals: u64) -> SessionId {
    ended_under(db, user, signals, "default")
}

fn ended_under(db: &TidalDb, user: u64, signals: u64, policy: &str) -> SessionId {
    let session = db.start_session(user, "phone", policy).expect("started");
    for item in 0..signals {
        session.signal("view", EntityId::new(item), 1.0, db.engine_time()).expect("written");
    }
    let id = session.session_id();
    session.close().expect("closed");
    id
}

type Work =
    dyn Fn(&SessionView<'_>, &mut Outputs<'_>) -> Result<Processed, ProcessError> + Send + Sync;

/// A processor that does what a test says, and counts its calls.
#[derive(Clone)]
struct Probe {
    name: &'static str,
    version: u32,
    work: Arc<Work>,
    calls: Arc<AtomicU64>,
}

fn probe(
    name: &'static str,
    work: impl Fn(&SessionView<'_>, &mut Outputs<'_>) -> Result<Processed, ProcessError>
    + Send
    + Sync
    + 'static,
) -> Probe {
    Probe { name, version: 1, work: Arc::new(work), calls: Arc::default() }
}

/// A processor that puts down what follows from the content of a session alone.
fn pure(name: &'static str) -> Probe {
    probe(name, put_pure)
}

fn put_pure(session: &SessionView<'_>, out: &mut Outputs<'_>) -> Result<Processed, ProcessError> {
    let records = session.records()?;
    out.put(b"hash", &session.content_hash())?;
    for record in &records {
        out.put(&record.number.to_be_bytes(), &record.entity.get().to_be_bytes())?;
    }
    Ok(Processed { items: records.len() as u64 })
}

/// The outputs of [`put_pure`], worked out from what the database says of a session.
fn pure_outputs(db: &TidalDb, id: SessionId) -> Vec<(Vec<u8>, Vec<u8>)> {
    let info = db.sessions().get(id).expect("read").expect("it is there");
    let records = db.sessions().records(id).expect("read");
    let rows = records.iter().map(|record| {
        (record.number.to_be_bytes().to_vec(), record.entity.get().to_be_bytes().to_vec())
    });
    let mut outputs: Vec<_> =
        rows.chain([(b"hash".to_vec(), info.content_hash.to_vec())]).collect();
    outputs.sort();
    outputs
}

impl Probe {
    const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

impl SessionProcessor for Probe {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn process(
        &self,
        session: &SessionView<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<Processed, ProcessError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        (self.work)(session, out)
    }
}

/// Options whose delays are exactly one minute.
fn minutely() -> ProcessorOptions {
    let mut options = ProcessorOptions::default();
    let mut retry = RetryPolicy::default();
    (retry.delays, retry.jitter) = (vec![MINUTE], 0.0);
    options.retry = retry;
    options
}

fn observing() -> ProcessorOptions {
    let mut options = minutely();
    options.required = false;
    options
}

fn register(db: &TidalDb, probe: &Probe, options: ProcessorOptions) {
    db.sessions().register(probe.clone(), options).expect("registered");
}

fn run(db: &TidalDb, name: &str) -> RunStats {
    db.sessions().run_processor(name, RunOptions::new()).expect("it runs")
}

fn status(db: &TidalDb, name: &str, id: SessionId) -> Option<ProcessorStatus> {
    db.sessions().processor_row(name, id).expect("read").map(|row| row.status)
}

fn is_settled(db: &TidalDb, id: SessionId) -> bool {
    let info = db.sessions().get(id).expect("read").expect("it is there");
    matches!(info.state, SessionState::Settled(_))
}

/// Why the processing of a session was given up, if it was.
fn failure(db: &TidalDb, id: SessionId) -> Option<FailCause> {
    match db.sessions().get(id).expect("read").expect("it is there").state {
        SessionState::Failed { cause, .. } => Some(cause),
        _ => None,
    }
}
