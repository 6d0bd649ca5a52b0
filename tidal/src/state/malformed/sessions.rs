//! Records and rows of sessions that no writer makes.

use super::{START, apply, begun, page_of, restore};
use crate::codec::Put;
use crate::ids::{EntityId, Fence, SessionId, SignalTypeId, Timestamp, UserId};
use crate::record::{
    Conflict, PruneSession, Record, SessionSignal, SignalBatchWriter, SignalEvent, SourceRange,
    StartSession,
};
use crate::sessions::Sessions;
use crate::state::State;
use crate::table::TableId;

const IDLE_NS: u64 = 30 * 60 * 1_000_000_000;
const MAX_NS: u64 = 2 * 60 * 60 * 1_000_000_000;

/// A row of a session under the default policy.
struct Row {
    flags: u8,
    id: u64,
    policy: u64,
    active_ns: u64,
    /// What lies between the last activity and the number of the newest record.
    optional: Vec<u8>,
    /// What lies between the hash and the end.
    processing: Vec<u8>,
    end: Vec<u8>,
    incarnation: u64,
    stage: u8,
    due: Timestamp,
}

impl Default for Row {
    fn default() -> Self {
        let due = Timestamp::from_nanos(START.as_nanos() + IDLE_NS + 1);
        let (optional, processing, end) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            flags: 0,
            id: 1,
            policy: 0,
            active_ns: 0,
            optional,
            processing,
            end,
            incarnation: 0,
            stage: 0,
            due,
        }
    }
}

impl Row {
    fn canonical(&self) -> Vec<u8> {
        let mut row = Vec::new();
        row.put_u8(self.flags);
        row.put_varint(self.id);
        row.put_u64(42);
        row.put_varint(self.policy);
        row.put_bytes(b"app");
        row.put_u64(START.as_nanos());
        row.put_varint(self.active_ns);
        row.extend_from_slice(&self.optional);
        row.extend_from_slice(&[0; 5]);
        row.extend_from_slice(&[7; 32]);
        row.extend_from_slice(&self.processing);
        if !self.end.is_empty() {
            row.put_u64(START.as_nanos());
        }
        row.extend_from_slice(&self.end);
        row
    }

    fn bytes(&self) -> Vec<u8> {
        let mut row = self.canonical();
        row.put_varint(self.incarnation);
        row.put_varint(0);
        row.put_u8(self.stage);
        row.put_u64(self.due.as_nanos());
        row
    }
}

fn u64_and(number: u64, more: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes(), more].concat()
}

#[test]
fn sessions_that_no_log_leads_to_are_refused() {
    let restored = |rows: &[Vec<u8>]| {
        let table = TableId { kind: Sessions::ROWS, part: 0 };
        restore(table, rows.len() as u64, &page_of(rows))
    };
    let row = |row: Row| vec![row.bytes()];
    assert_eq!(restored(&row(Row::default())), Ok(()));
    let closed = u64_and(START.as_nanos(), &[0, 0]);
    let after = |ns: u64| Timestamp::from_nanos(START.as_nanos() + ns);
    let ended = || Row { flags: 4, end: closed.clone(), stage: 2, due: START, ..Row::default() };
    assert_eq!(restored(&row(ended())), Ok(()));
    let failed = || Row { processing: u64_and(0, &[1, 0, 0]), flags: 4 | 32, stage: 3, ..ended() };
    let never = Timestamp::from_nanos(u64::MAX);
    assert_eq!(restored(&row(Row { due: never, ..failed() })), Ok(()));
    let [start, later] = [0, 1].map(|after| u64_and(START.as_nanos() + after, &[1]));
    assert_eq!(restored(&row(Row { flags: 2, optional: start, ..Row::default() })), Ok(()));
    let bad = [
        ("with unknown flags", row(Row { flags: 64, ..Row::default() })),
        ("of an operation that never was", row(Row { id: 2, ..Row::default() })),
        ("under no policy", row(Row { policy: 1, ..Row::default() })),
        ("under no possible policy", row(Row { policy: 1 << 16, ..Row::default() })),
        ("active after the end of time", row(Row { active_ns: u64::MAX, ..Row::default() })),
        (
            "active after its deadline",
            row(Row { active_ns: MAX_NS + 1, due: after(MAX_NS + 1), ..Row::default() }),
        ),
        (
            "that reaches past all activity",
            row(Row { flags: 2, optional: later, ..Row::default() }),
        ),
        ("of a later incarnation", row(Row { incarnation: 1, ..Row::default() })),
        ("in no known stage", row(Row { stage: 4, ..Row::default() })),
        ("due at another time", row(Row { due: START, ..Row::default() })),
        ("that was pruned and is hot", row(Row { flags: 8, ..Row::default() })),
        (
            "that somebody processed who is not there",
            row(Row { processing: vec![1, 1, 0, 1], flags: 16, ..Row::default() }),
        ),
        (
            "that has failed and is open",
            row(Row { processing: u64_and(0, &[1, 0, 0]), flags: 32, ..Row::default() }),
        ),
        (
            "that has failed and has settled",
            row(Row { processing: u64_and(0, &[1, 0, 0]), flags: 4 | 32, ..ended() }),
        ),
        (
            "that has failed for no known cause",
            row(Row { processing: u64_and(0, &[3, 0, 0]), flags: 4 | 32, stage: 1, ..ended() }),
        ),
        ("that waits and is due all the same", row(Row { stage: 3, ..ended() })),
        ("that has ended and is open", row(Row { stage: 0, due: Row::default().due, ..ended() })),
        ("without a known cause", row(Row { end: u64_and(0, &[7, 0]), ..ended() })),
        ("on no known evidence", row(Row { end: u64_and(0, &[0, 1]), ..ended() })),
        (
            "beside another in its lane",
            vec![Row::default().bytes(), Row { id: 0, ..Row::default() }.bytes()],
        ),
    ];
    for (what, rows) in bad {
        assert!(restored(&rows).is_err(), "a session {what}");
    }
}

#[test]
fn rates_that_no_log_leads_to_are_refused() {
    let restored = |policy: u64| {
        let mut row = Vec::new();
        row.put_u64(42);
        row.put_varint(policy);
        row.put_u64(START.as_nanos());
        row.put_bytes(b"app");
        restore(TableId { kind: Sessions::RATES, part: 0 }, 1, &page_of(&[row]))
    };
    assert_eq!(restored(0), Ok(()));
    assert!(restored(1).is_err(), "under no policy");
    assert!(restored(1 << 16).is_err(), "under no possible policy");
}

/// A state with one session, which is operation 2 and began with frame 2.
fn visited() -> State {
    let state = begun();
    let user = UserId::new(42);
    let new = StartSession { user, agent: "app", policy: 0, conflict: Conflict::Join };
    apply(&state, START, &Record::StartSession(new)).expect("a start");
    state
}

/// A batch of `len` events of one user.
fn signals(source: Option<SourceRange<'_>>, signal: u16, user: Option<u64>, len: usize) -> Vec<u8> {
    let (signal, user) = (SignalTypeId::new(signal), user.map(UserId::new));
    let (entity, at, cohorts) = (EntityId::new(1), START, Default::default());
    let event = SignalEvent { signal, entity, weight: 1.0, at, user, cohorts, id: None };
    let mut writer = SignalBatchWriter::new(source, &[""; 0], at, len);
    (0..len).for_each(|_| writer.push(signal, &event));
    writer.finish()
}

#[test]
fn a_signal_of_a_session_that_is_not_one_signal_of_its_user_is_malformed() {
    let session = SessionId::new(2);
    let refused = |signals: &[u8], is_late: bool| {
        let fence = (!is_late).then_some(Fence { incarnation: 0, grant: 2 });
        let signal = SessionSignal { session, fence, span_ns: 0, annotation: None, signals };
        apply(&visited(), START, &Record::SessionSignal(signal)).is_err()
    };
    assert!(!refused(&signals(None, 0, Some(42), 1), false));
    let source = SourceRange { name: "a", first: 1, last: 1, contiguous: false };
    let bad = [
        ("from a source", signals(Some(source), 0, Some(42), 1)),
        ("of a signal that there is not", signals(None, 9, Some(42), 1)),
        ("of another user", signals(None, 0, Some(43), 1)),
        ("of nobody", signals(None, 0, None, 1)),
        ("none", signals(None, 0, Some(42), 0)),
        ("two", signals(None, 0, Some(42), 2)),
        ("with more behind it", [signals(None, 0, Some(42), 1), vec![0]].concat()),
        ("nothing", Vec::new()),
    ];
    for (what, signals) in bad {
        assert!(refused(&signals, false), "a signal {what}");
    }
    assert!(refused(&signals(None, 9, Some(42), 1), true), "a late one of no signal");
}

#[test]
fn a_start_under_a_policy_that_there_is_not_is_malformed() {
    let user = UserId::new(42);
    let new = StartSession { user, agent: "app", policy: 1, conflict: Conflict::Reject };
    assert!(apply(&begun(), START, &Record::StartSession(new)).is_err());
}

#[test]
fn a_pruned_session_that_pruning_does_not_make_is_malformed() {
    // The schema and a session are the first operations; neither is this one, which is the third.
    let refused = |session: u64, records: &[u64], row: Row| {
        let (session, row) = (SessionId::new(session), row.canonical());
        let prune = PruneSession { session, records: records.to_vec(), row: &row };
        apply(&visited(), START, &Record::PruneSession(prune)).is_err()
    };
    let pruned = || Row { flags: 8, ..Row::default() };
    assert!(!refused(1, &[2], pruned()));
    let bad = [
        ("that was not pruned", 1, vec![], Row::default()),
        ("of another number", 2, vec![], pruned()),
        ("under no policy", 1, vec![], Row { policy: 1, ..pruned() }),
        ("of a later operation", 3, vec![], Row { id: 3, ..pruned() }),
        ("with a record of a later operation", 1, vec![3], pruned()),
    ];
    for (what, session, records, row) in bad {
        assert!(refused(session, &records, row), "a session {what}");
    }
}
