//! What the session surface keeps over a crash.

use std::path::Path;

use tidal_support::child::{self, Victim};
use tidaldb::fault::{CrashPoint, Faults};
use tidaldb::schema::{EntityId, Timestamp, Window};
use tidaldb::storage::Machine;
use tidaldb::{
    SessionContent, SessionHandle, SessionId, SessionInfo, SessionRecord, SessionState, TidalDb,
};

use crate::{IN_A_CHECKPOINT, options, schema};

const USER: u64 = 42;
const AGENT: &str = "test-agent";
const ITEMS: [EntityId; 2] = [EntityId::new(1), EntityId::new(2)];
const NOTE: &str = "good recommendation";

/// By the clock: sessions live in the time of whoever waits for them.
fn open(dir: &Path, faults: Faults) -> TidalDb {
    let builder = TidalDb::builder().with_data_dir(dir).with_schema(schema());
    let builder = builder.with_options(options()).with_sessions(tidal_support::manual());
    builder.with_machine(Machine { faults, ..Machine::default() }).open().expect("opens")
}

fn view(session: &SessionHandle, item: EntityId) {
    session.signal("view", item, 1.0, Timestamp::now()).expect("written");
}

fn views(db: &TidalDb, item: EntityId) -> u64 {
    db.read_windowed_count(item, "view", Window::AllTime).expect("read")
}

/// Where a child with an open session dies: by a kill once all is written, or at a point of the
/// checkpoint that follows.
fn deaths() -> impl Iterator<Item = Option<CrashPoint>> {
    std::iter::once(None).chain(IN_A_CHECKPOINT.into_iter().map(Some))
}

/// Lets a child write in a role and die; returns the id of its session.
fn die(role: &str, dir: &Path, point: Option<CrashPoint>) -> SessionId {
    let number = point.map_or(0, CrashPoint::number);
    let says = [("TIDAL_DIR", dir.display().to_string()), ("TIDAL_POINT", number.to_string())];
    let mut victim = Victim::spawn("sessions::child", role, &says);
    let id = victim.next_report().expect("it starts a session").parse().expect("a number");
    assert_eq!(victim.next_report().as_deref(), Some("written"));
    if point.is_some() {
        let (rest, status) = victim.finish();
        assert!(!status.success() && rest.is_empty(), "it lived past {point:?}: {rest:?}");
    } else {
        victim.kill();
    }
    SessionId::new(id)
}

/// The session and its records, in a database that is healthy.
fn read(db: &TidalDb, id: SessionId) -> (SessionInfo, Vec<SessionRecord>) {
    db.health_check().expect("healthy");
    let info = db.sessions().get(id).expect("read").expect("the session is there");
    (info, db.sessions().records(id).expect("read"))
}

fn note(record: &SessionRecord) -> Option<&str> {
    match &record.content {
        SessionContent::Annotation(text) => Some(text),
        _ => None,
    }
}

#[test]
fn active_session_restored_after_crash() {
    for point in deaths() {
        let dir = tempfile::tempdir().expect("a directory");
        let id = die("signals", dir.path(), point);
        let db = open(dir.path(), Faults::NONE);
        assert_eq!(db.open_report().sessions_restored, [id], "{point:?}");
        let (info, records) = read(&db, id);
        assert!(matches!(info.state, SessionState::Restored { .. }), "{point:?}: {info:?}");
        assert_eq!((info.user.get(), info.agent.as_str(), info.signals), (USER, AGENT, 2));
        let items: Vec<EntityId> = records.iter().map(|record| record.entity).collect();
        assert_eq!(items, ITEMS, "{point:?}");
        assert_eq!(ITEMS.map(|item| views(&db, item)), [1, 1], "{point:?}");

        let session = db.resume_session(id).expect("resumed");
        view(&session, ITEMS[0]);
        let (info, records) = read(&db, id);
        assert!(matches!(info.state, SessionState::Active), "{info:?}");
        assert_eq!((info.signals, records.len(), views(&db, ITEMS[0])), (3, 3, 2));
        let end = session.close().expect("closed");
        drop(db);
        let db = open(dir.path(), Faults::NONE);
        let (info, _) = read(&db, id);
        let (SessionState::Ended(found) | SessionState::Settled(found)) = info.state else {
            panic!("it was closed: {info:?}")
        };
        assert_eq!(found, end);
    }
}

#[test]
fn session_metadata_restored_after_crash() {
    for point in deaths() {
        let dir = tempfile::tempdir().expect("a directory");
        let id = die("annotation", dir.path(), point);
        let db = open(dir.path(), Faults::NONE);
        let (info, records) = read(&db, id);
        assert!(matches!(info.state, SessionState::Restored { .. }), "{point:?}: {info:?}");
        assert_eq!((info.user.get(), info.agent.as_str()), (USER, AGENT));
        assert_eq!(info.policy, "default");
        assert_eq!((info.signals, info.annotations, records.len()), (0, 1, 1));
        assert_eq!((records[0].entity, note(&records[0])), (ITEMS[0], Some(NOTE)));
        assert!(info.started_at <= records[0].at);

        let session = db.resume_session(id).expect("resumed");
        session.annotate(ITEMS[1], "seen again").expect("written");
        view(&session, ITEMS[1]);
        drop(db);
        let db = open(dir.path(), Faults::NONE);
        let (info, records) = read(&db, id);
        assert_eq!((info.signals, info.annotations), (1, 2));
        let notes: Vec<_> = records.iter().map(note).collect();
        assert_eq!(notes, [Some(NOTE), Some("seen again"), None]);
    }
}

/// Not a test by itself: what a child process does.
#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let point: u16 = child::told("TIDAL_POINT").parse().expect("a number");
    let faults = Faults::new(move |reached| {
        if reached.number() == point {
            std::process::abort();
        }
    });
    let db = open(Path::new(&child::told("TIDAL_DIR")), faults);
    let session = db.start_session(USER, AGENT, "default").expect("started");
    child::report(&session.session_id().as_u64().to_string());
    match role.as_str() {
        "signals" => ITEMS.iter().for_each(|item| view(&session, *item)),
        _ => drop(session.annotate(ITEMS[0], NOTE).expect("written")),
    }
    child::report("written");
    if point == 0 {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
    db.checkpoint().expect("a checkpoint");
}
