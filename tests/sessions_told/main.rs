//! Being told of sessions, and who does what falls due, seen from outside.
//!
//! - `streams`: events as they happen; `cursors`: events for sure, over kills;
//! - `sweeping`: the sweeper, `drive()` and closing;
//! - `looking`: lists, exports and plans;
//! - `deaths`: a process that dies in the middle of a plan, or before an acknowledgement.

mod cursors;
mod deaths;
mod looking;
mod streams;
mod sweeping;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidal_support::manual;
use tidaldb::schema::{
    DecaySpec, EntityKind, Schema, SchemaBuilder, SessionPolicy, Timestamp, Window,
};
use tidaldb::{
    Builder, EventStream, ManualClock, Options, Seq, SessionConfig, SessionEvent, SessionId,
    TidalDb,
};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Longer than anything takes that is only waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let _ = b.signal("view", EntityKind::Item, DecaySpec::None).windows(&[Window::AllTime]).add();
    let mut brief = SessionPolicy::new("brief");
    (brief.idle_timeout, brief.empty_fallback) = (Duration::from_secs(1), Duration::from_millis(1));
    brief.max_duration = Duration::from_secs(2);
    b.session_policy(brief);
    b.build().expect("a sound schema")
}

fn options() -> Options {
    let mut options = Options::default();
    // Nothing is written but what a test writes.
    (options.mark_after, options.checkpoint_interval) = (HOUR, HOUR);
    options
}

fn builder(clock: &ManualClock, sessions: SessionConfig) -> Builder {
    TidalDb::builder()
        .with_schema(schema())
        .with_options(options())
        .with_sessions(sessions)
        .with_clock(Arc::new(clock.clone()))
}

fn ephemeral(sessions: SessionConfig) -> (TidalDb, ManualClock) {
    let clock = ManualClock::at(START);
    let db = builder(&clock, sessions).ephemeral().open().expect("opens");
    (db, clock)
}

fn open(dir: &Path, clock: &ManualClock) -> TidalDb {
    builder(clock, manual()).with_data_dir(dir).open().expect("opens")
}

fn start(db: &TidalDb, user: u64) -> SessionId {
    db.start_session(user, "phone", "default").expect("started").detach()
}

fn told(events: &EventStream) -> Vec<(Seq, SessionEvent)> {
    std::iter::from_fn(|| events.try_recv()).collect()
}

fn names<'a>(events: impl IntoIterator<Item = &'a SessionEvent>) -> Vec<(&'static str, u64)> {
    events.into_iter().map(name_of).collect()
}

fn name_of(event: &SessionEvent) -> (&'static str, u64) {
    match event {
        SessionEvent::Started { id } => ("started", id.as_u64()),
        SessionEvent::Restored { id } => ("restored", id.as_u64()),
        SessionEvent::Resumed { id } => ("resumed", id.as_u64()),
        SessionEvent::Ended { id, .. } => ("ended", id.as_u64()),
        SessionEvent::Settled { id } => ("settled", id.as_u64()),
        SessionEvent::Pruned { id } => ("pruned", id.as_u64()),
        SessionEvent::Lagged { dropped } => ("lagged", *dropped),
        other => panic!("an event that this suite does not know: {other:?}"),
    }
}
