//! Records of processors, and a history of them.

use std::time::Duration;

use super::{START, Step};
use crate::ids::{AttemptId, EntityId, ProcessorId, SessionId, SignalTypeId, UserId};
use crate::record::{
    BeginAttempt, BeginAttempts, CommitAttempt, CommitAttempts, Conflict, EndSession, EndedBy,
    FailAttempt, FailAttempts, FailSession, FailedBy, JobOutcome, JobRan, JobRun, Record,
    RegisterProcessor, ReprocessSessions, SignalBatchWriter, SignalEvent, StartSession,
    WarnSession,
};

const USER: UserId = UserId::new(42);
const USAGE: ProcessorId = ProcessorId::new(1);
/// The schema is the first operation, the processors are the next two.
const SESSIONS: [SessionId; 2] = [SessionId::new(4), SessionId::new(5)];
/// The operations that begin attempts before anything has failed for good.
const BEGUN: [AttemptId; 2] = [AttemptId::new(8), AttemptId::new(11)];

/// A history with every record of processors, and its names; a session has failed before the last two.
pub(super) fn history() -> Vec<(&'static str, Step)> {
    let register = |name: &'static str, required| {
        step(&Record::RegisterProcessor(RegisterProcessor { name, version: 3, required }))
    };
    let start = |agent: &'static str| {
        let (policy, conflict) = (0, Conflict::EndPrevious);
        step(&Record::StartSession(StartSession { user: USER, agent, policy, conflict }))
    };
    let end = |session| {
        let by = EndedBy::Operator { reason: "a seed" };
        step(&Record::EndSession(EndSession { session, by }))
    };
    let by = FailedBy::Operator { by: "me", reason: "a seed" };
    let reset = FailSession { session: SESSIONS[1], busy_since: None, by };
    let by = FailedBy::Timeout { after_ns: 1_800_000_000_000, automatic: true };
    let timeout = FailSession { session: SESSIONS[0], busy_since: Some(START), by };
    let again = ReprocessSessions { processor: USAGE, items: vec![(SESSIONS[0], USER)] };
    let busy_since = START.saturating_add(Duration::from_secs(5));
    let busy_for_ns = 900_000_000_001;
    let warn = WarnSession { session: SESSIONS[1], busy_since, level: 1, busy_for_ns };
    vec![
        ("register_processor", register("usage", true)),
        ("register_another", register("claims", false)),
        ("start_to_be_processed", start("phone")),
        ("start_to_fail", start("tablet")),
        ("end_to_be_processed", end(SESSIONS[0])),
        ("end_to_fail", end(SESSIONS[1])),
        ("begin_attempts", begin(&SESSIONS, 0)),
        ("commit_attempts", commit()),
        ("fail_attempts", fail(BEGUN[0], false)),
        ("jobs_ran", ran()),
        ("begin_last_attempt", begin(&SESSIONS[1..], 1)),
        ("fail_last_attempt", fail(BEGUN[1], true)),
        ("requeue_sessions", step(&Record::RequeueSessions(SESSIONS.into()))),
        ("reprocess_sessions", step(&Record::ReprocessSessions(again))),
        ("begin_again", begin(&SESSIONS[1..], 0)),
        ("warn_sessions", step(&Record::WarnSessions(vec![warn]))),
        ("fail_sessions", step(&Record::FailSessions(vec![timeout, reset]))),
        ("begin_what_has_failed", begin(&SESSIONS, 1)),
        ("remove_processor", step(&Record::RemoveProcessor("claims"))),
    ]
}

fn step(record: &Record<'_>) -> Step {
    let time = START.saturating_add(Duration::from_secs(5));
    Step { kind: record.kind() as u8, time, body: record.encode() }
}

fn begin(sessions: &[SessionId], count: u32) -> Step {
    let retry_ns = 300_000_000_000;
    let of = |&session: &SessionId| BeginAttempt {
        session,
        user: USER,
        count,
        retry_ns,
        is_last: count > 0,
    };
    let items = sessions.iter().map(of).collect();
    step(&Record::BeginAttempts(BeginAttempts { processor: USAGE, items }))
}

fn fail(attempt: AttemptId, is_last: bool) -> Step {
    let next = START.saturating_add(Duration::from_secs(305));
    let error = "a seed";
    let items = vec![FailAttempt { session: SESSIONS[1], attempt, next, is_last, error }];
    step(&Record::FailAttempts(FailAttempts { processor: USAGE, items }))
}

/// One has done its work, and one could not.
fn ran() -> Step {
    let row = |number: u8, failures, outcome| {
        let (started_at, finished_at) = (START.saturating_sub(Duration::from_secs(1)), START);
        let run = JobRun { started_at, finished_at, failures, outcome };
        JobRan { processor: ProcessorId::new(number), run }
    };
    let failed = JobOutcome::Failed("1 of 1 sessions failed: a seed".to_owned());
    step(&Record::JobsRan(vec![row(1, 0, JobOutcome::Success), row(2, 3, failed)]))
}

fn commit() -> Step {
    let event = SignalEvent {
        signal: SignalTypeId::new(0),
        entity: EntityId::new(9),
        weight: 1.0,
        at: START,
        user: Some(USER),
        cohorts: Default::default(),
        id: Some(7),
    };
    let mut writer = SignalBatchWriter::new(None, &[""; 0], event.at, 1);
    writer.push(event.signal, &event);
    let signals = writer.finish();
    let item = CommitAttempt {
        session: SESSIONS[0],
        attempt: BEGUN[0],
        head: 0,
        hash: [5; 32],
        items: 0,
        observed_at: START,
        outputs: vec![(b"seconds", b"300"), (b"signals", b"")],
    };
    step(&Record::CommitAttempts(CommitAttempts {
        processor: USAGE,
        version: 3,
        through: 1,
        items: vec![item],
        signals: Some(&signals),
    }))
}
