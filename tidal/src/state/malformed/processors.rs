//! Records and rows of processors that no writer makes.

use super::{START, apply, begun, page_of};
use crate::codec::{DecodeError, Put};
use crate::ids::{AttemptId, ProcessorId, SessionId, Timestamp, UserId};
use crate::processors::Processors;
use crate::record::{
    BeginAttempt, BeginAttempts, CommitAttempt, CommitAttempts, Conflict, FailAttempts, JobOutcome,
    JobRan, JobRun, Record, RegisterProcessor, SignalBatchWriter, SourceRange, StartSession,
};
use crate::state::State;
use crate::table::{TableCut, TableId};

const USAGE: ProcessorId = ProcessorId::new(1);
const USER: UserId = UserId::new(42);

/// A row of a processor.
fn processor(number: u8, name: &str, flags: u8, operation: u64) -> Vec<u8> {
    let mut row = vec![number, flags];
    row.put_varint(1);
    row.put_u64(START.as_nanos());
    row.put_varint(operation);
    row.put_varint(operation);
    row.put_varint(0);
    row.put_u64(0);
    row.put_bytes(name.as_bytes());
    row
}

/// A row of attempts: what follows its state is the same of all that are sound.
fn attempt(session: u64, processor: u8, count: u64, state: u8, rest: &[u8]) -> Vec<u8> {
    let mut row = Vec::new();
    row.put_varint(session);
    row.put_u8(processor);
    row.put_u64(USER.get());
    row.put_varint(count);
    row.put_u8(state);
    row.put_u64(START.as_nanos());
    row.extend_from_slice(rest);
    row
}

/// A row of attempts that were requeued.
fn requeued(count: u64) -> Vec<u8> {
    let mut row = attempt(1, 1, count, 4, &[]);
    row.truncate(row.len() - size_of::<u64>());
    row
}

fn restore(processors: &[Vec<u8>], attempts: &[Vec<u8>]) -> Result<(), DecodeError> {
    restore_all(processors, attempts, &[])
}

fn restore_all(
    processors: &[Vec<u8>],
    attempts: &[Vec<u8>],
    jobs: &[Vec<u8>],
) -> Result<(), DecodeError> {
    let state = State::from_header(&begun().encode_header())?;
    let tables = [
        (Processors::ROWS, processors),
        (Processors::ATTEMPTS, attempts),
        (Processors::JOBS, jobs),
    ];
    for (kind, rows) in tables {
        let table = state.table(TableId { kind, part: 0 })?;
        let len = rows.len() as u64;
        table.begin_restore(TableCut { rows: len, pages: 1, owed: 0 })?;
        table.restore_page(0, &page_of(rows))?;
        table.end_restore(len, [false; 2])?;
    }
    state.end_restore()
}

#[test]
fn processors_that_no_log_leads_to_are_refused() {
    let restored = |rows: &[Vec<u8>]| restore(rows, &[]);
    let usage = || processor(1, "usage", 1, 1);
    assert_eq!(restored(&[processor(2, "claims", 2, 1), usage()]), Ok(()));
    let long = "x".repeat(65);
    let bad = [
        ("with unknown flags", vec![processor(1, "usage", 4, 1)]),
        ("without a name", vec![processor(1, "", 1, 1)]),
        ("with a long name", vec![processor(1, &long, 1, 1)]),
        ("before the first", vec![processor(0, "usage", 1, 1)]),
        ("with a hole before it", vec![usage(), processor(3, "claims", 0, 1)]),
        ("beyond the last", vec![processor(65, "usage", 1, 1)]),
        ("of an operation that never was", vec![processor(1, "usage", 1, 2)]),
        ("with the name of another one", vec![usage(), processor(2, "usage", 2, 1)]),
    ];
    for (what, rows) in bad {
        assert!(restored(&rows).is_err(), "a processor {what}");
    }
}

#[test]
fn attempts_that_no_log_leads_to_are_refused() {
    let all = [processor(1, "usage", 1, 1), processor(2, "claims", 2, 1)];
    let restored = |row: Vec<u8>| restore(&all, &[row]);
    let long = [&[0x81, 4][..], &[b'x'; 513]].concat();
    for sound in [
        attempt(1, 1, 1, 0, &[1, 0, 0]),
        attempt(1, 1, 1, 1, &[1, 0, 0]),
        attempt(1, 1, 2, 2, &[0]),
        requeued(0),
        attempt(1, 1, 5, 3, &[2, b'n', b'o']),
    ] {
        assert_eq!(restored(sound), Ok(()));
    }
    let bad = [
        ("at a session that there never was", attempt(2, 1, 1, 0, &[1, 0, 0])),
        ("of nobody", attempt(1, 3, 1, 0, &[1, 0, 0])),
        ("of one that is not there any more", attempt(1, 2, 1, 0, &[1, 0, 0])),
        ("of a later incarnation", attempt(1, 1, 1, 0, &[1, 0, 1])),
        ("of a later operation", attempt(1, 1, 1, 0, &[2, 0, 0])),
        ("before the first", attempt(1, 1, 0, 0, &[1, 0, 0])),
        ("that was given up before the first", attempt(1, 1, 0, 3, &[0])),
        ("after none that is to come", attempt(1, 1, 0, 2, &[0])),
        ("that was requeued and counts", requeued(1)),
        ("beyond 32 bits", attempt(1, 1, 1 << 32, 0, &[1, 0, 0])),
        ("in no known state", attempt(1, 1, 1, 4, &[0])),
        ("with a long error", attempt(1, 1, 1, 3, &long)),
    ];
    for (what, row) in bad {
        assert!(restored(row).is_err(), "an attempt {what}");
    }
}

/// A row of jobs: a run that began at `START` and ended then or so many nanoseconds later.
fn job(processor: u8, took_ns: u64, failures: u64, outcome: &[u8]) -> Vec<u8> {
    let mut row = vec![processor];
    row.put_u64(START.as_nanos());
    row.put_u64(START.as_nanos().wrapping_add(took_ns));
    row.put_varint(failures);
    row.extend_from_slice(outcome);
    row
}

#[test]
fn runs_that_no_log_leads_to_are_refused() {
    let all = [processor(1, "usage", 1, 1), processor(2, "claims", 2, 1)];
    let restored = |rows: &[Vec<u8>]| restore_all(&all, &[], rows);
    let long = [&[1, 0x81, 4][..], &[b'x'; 513]].concat();
    assert_eq!(restored(&[job(1, 0, 0, &[0])]), Ok(()));
    assert_eq!(restored(&[job(1, 0, 3, &[1, 2, b'n', b'o'])]), Ok(()));
    assert_eq!(restored(&[job(1, 0, 1, &[2, 0])]), Ok(()));
    let bad = [
        ("of nobody", vec![job(3, 0, 0, &[0])]),
        ("of one that is not there any more", vec![job(2, 0, 0, &[0])]),
        ("that is yet to come", vec![job(1, 1, 0, &[0])]),
        ("that ended before it began", vec![job(1, u64::MAX, 0, &[0])]),
        ("that failed and is not counted", vec![job(1, 0, 0, &[1, 0])]),
        ("that is counted and did not fail", vec![job(1, 0, 1, &[0])]),
        ("with no known outcome", vec![job(1, 0, 1, &[3, 0])]),
        ("with a long error", vec![job(1, 0, 1, &long)]),
        ("beside another", vec![job(1, 0, 0, &[0]), job(1, 0, 0, &[0])]),
    ];
    for (what, rows) in bad {
        assert!(restored(&rows).is_err(), "a run {what}");
    }
}

#[test]
fn runs_are_of_who_was_there_and_no_later_than_now() {
    let state = ended();
    let now = state.header().engine_time;
    let (started_at, finished_at) = (START, Timestamp::from_nanos(u64::MAX));
    let run = JobRun { started_at, finished_at, failures: 0, outcome: JobOutcome::Success };
    let ran = |processor| Record::JobsRan(vec![JobRan { processor, run: run.clone() }]);
    let record = ran(USAGE);
    let never = ran(ProcessorId::new(2));
    assert!(!applied(&ended(), &never), "a processor that was never registered");
    assert!(applied(&state, &record));
    assert_eq!(state.processors.job(USAGE).map(|run| run.finished_at), Some(now));
    apply(&state, START, &Record::ResetClock(START)).expect("a reset");
    assert_eq!(state.processors.job(USAGE).map(|run| run.finished_at), Some(START));
    assert_eq!(state.check(), Vec::<String>::new());
    assert!(applied(&state, &Record::RemoveProcessor("usage")));
    assert!(applied(&state, &record), "it came too late");
    assert_eq!(state.processors.job(USAGE), None);
}

/// A state with a session, which is operation 2 and has ended, and a processor that is required of it.
fn ended() -> State {
    let state = begun();
    let later = Timestamp::from_secs(1_700_000_000 + 10_000);
    let usage = RegisterProcessor { name: "usage", version: 1, required: true };
    let new = StartSession { user: USER, agent: "app", policy: 0, conflict: Conflict::Join };
    apply(&state, START, &Record::StartSession(new)).expect("a start");
    apply(&state, START, &Record::RegisterProcessor(usage)).expect("a registration");
    apply(&state, later, &Record::Sweep { count_max: u64::MAX }).expect("a sweep");
    state
}

fn begin(session: u64, user: UserId) -> BeginAttempt {
    BeginAttempt { session: SessionId::new(session), user, count: 0, retry_ns: 1, is_last: false }
}

fn applied(state: &State, record: &Record<'_>) -> bool {
    apply(state, state.header().engine_time, record).is_ok()
}

#[test]
fn attempts_of_nobody_and_at_what_there_is_not_are_malformed() {
    let begins = |processor: u8, item: BeginAttempt| {
        let (processor, items) = (ProcessorId::new(processor), vec![item]);
        applied(&ended(), &Record::BeginAttempts(BeginAttempts { processor, items }))
    };
    assert!(begins(1, begin(2, USER)));
    assert!(!begins(2, begin(2, USER)), "a processor that was never registered");
    assert!(!begins(0, begin(2, USER)), "the processor before the first");
    assert!(!begins(1, begin(4, USER)), "a session that there is not yet");
    assert!(!begins(1, begin(u64::MAX, USER)), "a session that there will never be");
    assert!(!begins(1, begin(2, UserId::new(43))), "the session of somebody else");
    let nobody = FailAttempts { processor: ProcessorId::new(2), items: Vec::new() };
    assert!(!applied(&ended(), &Record::FailAttempts(nobody)));
}

#[test]
fn commits_of_what_there_is_not_are_malformed() {
    let commits = |processor: u8, through: u64, head: u64, signals: Option<&[u8]>| {
        let state = ended();
        let items = vec![begin(2, USER)];
        let begun = Record::BeginAttempts(BeginAttempts { processor: USAGE, items });
        assert!(applied(&state, &begun));
        let session = SessionId::new(2);
        let (hash, outputs, observed_at) = ([0; 32], Vec::new(), START);
        let attempt = AttemptId::new(state.header().operations);
        let item = CommitAttempt { session, attempt, head, hash, items: 0, observed_at, outputs };
        let (processor, items) = (ProcessorId::new(processor), vec![item]);
        let commit = CommitAttempts { processor, version: 1, through, items, signals };
        applied(&state, &Record::CommitAttempts(commit))
    };
    assert!(commits(1, 4, 0, None));
    assert!(!commits(2, 4, 0, None), "a processor that was never registered");
    assert!(!commits(1, 5, 0, None), "sessions that there are not yet");
    assert!(!commits(1, 4, 1, None), "a record that the session does not have");
    assert!(!commits(1, 4, 0, Some(&[0xff])), "signals that are none");
    let source = SourceRange { name: "a", first: 1, last: 1, contiguous: false };
    let batch = SignalBatchWriter::new(Some(source), &[""; 0], START, 0).finish();
    assert!(!commits(1, 4, 0, Some(&batch)), "signals from a source");
    let batch = SignalBatchWriter::new(None, &[""; 0], START, 0).finish();
    assert!(commits(1, 4, 0, Some(&batch)), "no signals at all");
}
