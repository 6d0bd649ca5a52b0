//! The database of a season, its processors, and who of them cannot get on with whom.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidal_support::manual;
use tidaldb::fault::Faults;
use tidaldb::schema::{
    DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder, SessionPolicy, Timestamp, Window,
};
use tidaldb::storage::Machine;
use tidaldb::{
    ManualClock, Options, Outputs, ProcessError, Processed, ProcessorOptions, RetryPolicy,
    SessionProcessor, SessionRecord, SessionView, TidalDb,
};

pub(crate) const START: Timestamp = Timestamp::from_secs(1_700_000_000);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// What is processed for longer is given up.
pub(crate) const PROCESSING_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A processor as it is registered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) cadence: Duration,
    pub(crate) max_attempts: u32,
}

pub(crate) const KINDS: [Kind; 4] = [
    Kind { name: "observer", required: false, cadence: HOUR, max_attempts: 3 },
    Kind { name: "signals", required: true, cadence: Duration::from_secs(1_800), max_attempts: 4 },
    Kind { name: "single", required: false, cadence: Duration::from_secs(21_600), max_attempts: 1 },
    Kind { name: "steady", required: true, cadence: Duration::from_secs(900), max_attempts: 5 },
];

impl Kind {
    /// The processor of this name.
    pub(crate) fn of(name: &str) -> Self {
        *KINDS.iter().find(|kind| kind.name == name).expect("a processor of this suite")
    }

    pub(crate) fn options(self) -> ProcessorOptions {
        let mut retry = RetryPolicy::default();
        retry.delays = [1, 5, 15].map(|minutes| minutes * MINUTE).to_vec();
        retry.max_attempts = self.max_attempts.try_into().expect("not 0");
        let mut options = ProcessorOptions::default();
        (options.cadence, options.required, options.retry) = (self.cadence, self.required, retry);
        options
    }

    /// The one whose version changes gets the season's.
    pub(crate) const fn version(self, of_season: u32) -> u32 {
        if self.required { 1 } else { of_season }
    }

    /// What it does with sessions of this user, whenever it sees one.
    pub(crate) fn curse(self, user: u64) -> Option<Curse> {
        match (self.name, user % 13) {
            ("steady", 0) => Some(Curse::Refuses),
            ("steady", 1) => Some(Curse::Fails),
            ("signals", 2) => Some(Curse::Panics),
            _ => None,
        }
    }
}

/// What never goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curse {
    Refuses,
    Fails,
    Panics,
}

/// The words of a panic that is meant.
pub(crate) const MEANT: &str = "a panic of this suite's own";

impl Curse {
    pub(crate) fn strike(self) -> Result<Processed, ProcessError> {
        match self {
            Self::Refuses => Err(ProcessError::permanent("never")),
            Self::Fails => Err("not this time".into()),
            Self::Panics => std::panic::panic_any(MEANT),
        }
    }
}

/// Whether all processors get on with sessions of this user.
pub(crate) fn is_healthy(user: u64) -> bool {
    KINDS.iter().all(|kind| kind.curse(user).is_none())
}

/// Puts down what follows from the content of a session and the version alone.
pub(crate) fn put(
    kind: Kind,
    version: u32,
    session: &SessionView<'_>,
    out: &mut Outputs<'_>,
) -> Result<Processed, ProcessError> {
    let records = session.records()?;
    for (key, value) in outputs(&session.content_hash(), version, &records) {
        out.put(&key, &value)?;
    }
    if kind.name == "signals" {
        out.signal("like", EntityId::new(session.id().get()), 1.0, session.info().started_at)?;
    }
    Ok(Processed { items: records.len() as u64 })
}

/// What [`put`] puts down, by ascending key.
pub(crate) fn outputs(
    hash: &[u8; 32],
    version: u32,
    records: &[SessionRecord],
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = records.iter().map(|record| {
        (record.number.to_be_bytes().to_vec(), record.entity.get().to_be_bytes().to_vec())
    });
    let head = [(b"hash".to_vec(), hash.to_vec()), (b"v".to_vec(), version.to_be_bytes().to_vec())];
    let mut all: Vec<_> = rows.chain(head).collect();
    all.sort();
    all
}

/// A processor that only keeps to its curse.
#[derive(Debug)]
pub(crate) struct Calm {
    pub(crate) kind: Kind,
    pub(crate) version: u32,
}

impl SessionProcessor for Calm {
    fn name(&self) -> &str {
        self.kind.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn process(
        &self,
        session: &SessionView<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<Processed, ProcessError> {
        match self.kind.curse(session.info().user.get()) {
            Some(curse) => curse.strike(),
            None => put(self.kind, self.version, session, out),
        }
    }
}

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    for signal in ["view", "like"] {
        let all_time = &[Window::AllTime];
        let _ = b.signal(signal, EntityKind::Item, DecaySpec::None).windows(all_time).add();
    }
    let mut lenient = SessionPolicy::new("lenient");
    lenient.late_grace = 3 * HOUR;
    b.session_policy(lenient);
    b.build().expect("a sound schema")
}

pub(crate) fn open(dir: &Path, at: Timestamp, faults: Faults) -> (TidalDb, ManualClock) {
    let mut options = Options::default();
    // Nothing is written but what is asked for.
    (options.mark_after, options.checkpoint_interval) = (HOUR, HOUR);
    options.max_clock_jump = 3_660 * DAY;
    let mut sessions = manual();
    sessions.processing_timeout = PROCESSING_TIMEOUT.into();
    let clock = ManualClock::at(at);
    let builder = TidalDb::builder()
        .with_schema(schema())
        .with_options(options)
        .with_sessions(sessions)
        .with_clock(Arc::new(clock.clone()))
        .with_machine(Machine { faults, ..Machine::default() })
        .with_data_dir(dir);
    (builder.open().expect("opens"), clock)
}

/// What is meant is not told of; anything else is.
pub(crate) fn silence_what_is_meant() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&MEANT) {
            usual(info);
        }
    }));
}
