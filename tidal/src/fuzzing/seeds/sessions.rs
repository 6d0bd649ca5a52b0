//! Records of sessions, and a history of them.

use std::time::Duration;

use super::{START, Step};
use crate::ids::{EntityId, Fence, SessionId, SignalTypeId, UserId};
use crate::record::{
    AckCursor, Annotate, Conflict, EndSession, EndedBy, EventFilter, PruneSession, Record,
    RegisterCursor, SessionSignal, SignalBatchWriter, SignalEvent, StartSession, Touch,
};

const USER: UserId = UserId::new(42);
/// The schema is the first operation and the first frame.
const FIRST: SessionId = SessionId::new(2);

/// A history with every record of sessions that has no condition, and its names.
pub(super) fn history() -> Vec<(&'static str, Step)> {
    let started = Fence { incarnation: 0, grant: 2 };
    let resumed = Fence { incarnation: 0, grant: 6 };
    let start = |agent: &'static str, conflict| {
        Record::StartSession(StartSession { user: USER, agent, policy: 0, conflict })
    };
    let touch = Touch { session: FIRST, fence: started, extend_ns: Some(600_000_000_000) };
    let entity = EntityId::new(9);
    let note = Annotate { session: FIRST, fence: started, entity, text: "again" };
    let by = EndedBy::Operator { reason: "a seed" };
    let hook = RegisterCursor { name: "hook", filter: EventFilter::all().user(USER) };
    let records = [
        ("start_session", step(&start("phone", Conflict::EndPrevious))),
        ("session_signal", signal(Some(started), None)),
        ("annotate", step(&Record::Annotate(note))),
        ("extend", step(&Record::Touch(touch))),
        ("resume_session", step(&Record::ResumeSession(FIRST))),
        ("session_signal_with_annotation", signal(Some(resumed), Some("with subtitles"))),
        ("start_another", step(&start("tablet", Conflict::Reject))),
        ("join_another", step(&start("tablet", Conflict::Join))),
        ("sweep", step(&Record::Sweep { count_max: u64::MAX })),
        ("force_end", step(&Record::EndSession(EndSession { session: FIRST, by }))),
        ("register_cursor", step(&Record::RegisterCursor(hook))),
        ("end_all_sessions", step(&Record::EndAllSessions)),
        ("ack_cursor", step(&Record::AckCursor(AckCursor { name: "hook", through: 1 }))),
        ("remove_cursor", step(&Record::RemoveCursor("hook"))),
    ];
    records.into()
}

/// The records that no history of one process has so easily.
pub(super) fn others() -> Vec<(&'static str, Step)> {
    let by = EndedBy::Holder(Fence { incarnation: 3, grant: 700 });
    let (records, row) = (vec![3, 4, 900], b"what is known of it".as_slice());
    let prune = PruneSession { session: FIRST, records, row };
    vec![
        ("late_signal", signal(None, Some("too late"))),
        ("close_session", step(&Record::EndSession(EndSession { session: FIRST, by }))),
        ("prune_session", step(&Record::PruneSession(prune))),
    ]
}

fn step(record: &Record<'_>) -> Step {
    let time = START.saturating_add(Duration::from_secs(5));
    Step { kind: record.kind() as u8, time, body: record.encode() }
}

/// A signal of the first session, or a late one without a fence.
fn signal(fence: Option<Fence>, annotation: Option<&str>) -> Step {
    let event = SignalEvent {
        signal: SignalTypeId::new(0),
        entity: EntityId::new(9),
        weight: 2.5,
        at: START.saturating_add(Duration::from_secs(2)),
        user: Some(USER),
        cohorts: Default::default(),
        id: annotation.map(|text| text.len() as u128),
    };
    let mut writer = SignalBatchWriter::new(None, &[""; 0], event.at, 1);
    writer.push(event.signal, &event);
    let signals = writer.finish();
    let (session, span_ns) = (FIRST, 95_000_000_000);
    let signal = SessionSignal { session, fence, span_ns, annotation, signals: &signals };
    step(&Record::SessionSignal(signal))
}
