//! Steps of those who process sessions, for histories.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::sessions::Known;
use super::{START, Step};
use crate::ids::{AttemptId, EntityId, ProcessorId, SessionId, SignalTypeId, Timestamp, UserId};
use crate::record::{
    BeginAttempt, BeginAttempts, CommitAttempt, CommitAttempts, FailAttempt, FailAttempts,
    FailSession, FailedBy, JobOutcome, JobRan, JobRun, Record, RegisterProcessor,
    ReprocessSessions, SignalBatchWriter, SignalEvent, WarnSession,
};
use crate::sessions::Standing;
use crate::state::{Applier, Reply, State};

/// The processors that each history begins with: one that sessions wait for, and one that they do not.
pub(super) fn registrations() -> [Record<'static>; 2] {
    [("usage", true), ("claims", false)].map(|(name, required)| {
        Record::RegisterProcessor(RegisterProcessor { name, version: 1, required })
    })
}

/// Sessions that were started so many starts ago: which these are is filled in later.
fn recent() -> impl Iterator<Item = SessionId> {
    (0..4).map(SessionId::new)
}

/// The attempts that began so many beginnings ago; mostly the last ones.
fn earlier() -> impl Strategy<Value = AttemptId> {
    prop_oneof![3 => Just(0), 1 => 1u64..3].prop_map(AttemptId::new)
}

/// A step of a processor with the last sessions. Nobody knows here what is in them, so the newest record
/// that is seen is none: those that have one stay unprocessed.
pub(super) fn step() -> impl Strategy<Value = Step> {
    let processor = || (1u8..=2).prop_map(ProcessorId::new);
    let encode = |record: Record<'_>| (record.kind() as u8, record.encode());
    let name = || prop::sample::select(vec!["usage", "claims"]);
    let session = || (0u64..4).prop_map(SessionId::new);
    let what = prop_oneof![
        1 => (name(), 1u32..3, any::<bool>()).prop_map(move |(name, version, required)| {
            encode(Record::RegisterProcessor(RegisterProcessor { name, version, required }))
        }),
        1 => name().prop_map(move |name| encode(Record::RemoveProcessor(name))),
        6 => (processor(), 0u32..2, any::<bool>()).prop_map(move |(processor, count, is_last)| {
            let user = UserId::new(0);
            let begin = |session| BeginAttempt { session, user, count, retry_ns: 9, is_last };
            let items = recent().map(begin).collect();
            encode(Record::BeginAttempts(BeginAttempts { processor, items }))
        }),
        6 => (processor(), 1u32..3, earlier(), prop::option::weighted(0.3, 0u64..9_000)).prop_map(
            move |(processor, version, attempt, late)| {
                let (head, hash, items) = (0, [7; 32], 1);
                let outputs = vec![(&b"key"[..], &b"value"[..])];
                let commit = |session| {
                    let (observed_at, outputs) = (Timestamp::from_secs(START), outputs.clone());
                    CommitAttempt { session, attempt, head, hash, items, observed_at, outputs }
                };
                let signals = late.map(signals);
                // Signals go with one item, that all of them may be committed.
                let len = if signals.is_some() { 1 } else { 4 };
                let items = recent().map(commit).take(len).collect();
                let record = CommitAttempts {
                    processor,
                    version,
                    through: 0,
                    items,
                    signals: signals.as_deref(),
                };
                encode(Record::CommitAttempts(record))
            }
        ),
        3 => (processor(), earlier(), 0u64..9_000, any::<bool>()).prop_map(
            move |(processor, attempt, after, is_last)| {
                let next = Timestamp::from_secs(START + after);
                let fail = |session| FailAttempt { session, attempt, next, is_last, error: "no" };
                let items = recent().map(fail).collect();
                encode(Record::FailAttempts(FailAttempts { processor, items }))
            }
        ),
        1 => (session(), any::<bool>()).prop_map(move |(session, automatic)| {
            let by = match automatic {
                true => FailedBy::Timeout { after_ns: 1_800, automatic },
                false => FailedBy::Operator { by: "me", reason: "why" },
            };
            encode(Record::FailSessions(vec![FailSession { session, busy_since: None, by }]))
        }),
        2 => (session(), 0u64..900).prop_map(move |(session, began)| {
            let busy_since = Timestamp::from_secs(START + began);
            let warn = WarnSession { session, busy_since, level: 1, busy_for_ns: 900 };
            encode(Record::WarnSessions(vec![warn]))
        }),
        6 => session().prop_map(move |session| encode(Record::RequeueSessions(vec![session]))),
        4 => (processor(), session()).prop_map(move |(processor, session)| {
            let items = vec![(session, UserId::new(0))];
            encode(Record::ReprocessSessions(ReprocessSessions { processor, items }))
        }),
        2 => ran(),
    ];
    (what, 0u64..300).prop_map(|((kind, body), passed)| (kind, body, passed))
}

/// A run that has ended.
fn ran() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (1u8..=2, 0u64..9_000, 0u32..3).prop_map(|(processor, after, failures)| {
        let finished_at = Timestamp::from_secs(START + after);
        let started_at = finished_at.saturating_sub(Duration::from_secs(9));
        let outcome = match failures {
            0 => JobOutcome::Success,
            1 => JobOutcome::Failed("no".to_owned()),
            _ => JobOutcome::Panicked("no".to_owned()),
        };
        let run = JobRun { started_at, finished_at, failures, outcome };
        let record = Record::JobsRan(vec![JobRan { processor: ProcessorId::new(processor), run }]);
        (record.kind() as u8, record.encode())
    })
}

/// One event, of nobody.
fn signals(late: u64) -> Vec<u8> {
    let at = Timestamp::from_secs(START - late);
    let (signal, entity) = (SignalTypeId::new(0), EntityId::new(late % 12));
    let (user, cohorts, id) = (None, Default::default(), Some(u128::from(late % 30)));
    let event = SignalEvent { signal, entity, weight: 1.0, at, user, cohorts, id };
    let mut writer = SignalBatchWriter::new(None, &[""; 0], at, 1);
    writer.push(signal, &event);
    writer.finish()
}

/// The same record, of the sessions that it means.
pub(super) fn fill_in(known: &mut Known, (kind, body): (u8, &[u8]), operation: u64) -> Vec<u8> {
    let mut record = Record::decode(kind, body).expect("it was just encoded");
    if let Record::BeginAttempts(begin) = &record {
        known.begun.push((begin.processor, AttemptId::new(operation)));
    }
    let begun = known.begun.clone();
    let began = |by: ProcessorId, ago: &mut AttemptId| {
        let mut of_it = begun.iter().rev().filter(|(processor, _)| *processor == by);
        *ago = of_it.nth(ago.get() as usize).map_or(AttemptId::new(0), |&(_, attempt)| attempt);
    };
    let mut mean = |session: &mut SessionId| {
        let (id, user, _) = *known.meant(*session)?;
        *session = id;
        Some(user)
    };
    match &mut record {
        Record::BeginAttempts(begin) => {
            for item in &mut begin.items {
                item.user = mean(&mut item.session).unwrap_or(item.user);
            }
        }
        Record::CommitAttempts(commit) => {
            commit.items.iter_mut().for_each(|item| {
                began(commit.processor, &mut item.attempt);
                mean(&mut item.session);
            });
            commit.through = operation - 1;
        }
        Record::FailAttempts(fail) => {
            fail.items.iter_mut().for_each(|item| {
                began(fail.processor, &mut item.attempt);
                mean(&mut item.session);
            });
        }
        Record::FailSessions(items) => {
            items.iter_mut().for_each(|item| {
                mean(&mut item.session);
            });
        }
        Record::WarnSessions(items) => items.iter_mut().for_each(|item| {
            mean(&mut item.session);
        }),
        Record::RequeueSessions(ids) => ids.iter_mut().for_each(|id| {
            mean(id);
        }),
        Record::ReprocessSessions(record) => record.items.iter_mut().for_each(|(id, user)| {
            *user = mean(id).unwrap_or(*user);
        }),
        _ => {}
    }
    record.encode()
}

/// How many sessions have settled, and are kept for a processor.
fn wanted_after_settling(state: &State, processor: ProcessorId) -> usize {
    let (declared, now) = (state.declared(), state.header().engine_time);
    let has_settled = |id| state.sessions.standing(id, &declared.schema, now) == Standing::Away;
    let wanted = state.sessions.wanted_by(processor, usize::MAX, |_| true);
    wanted.into_iter().filter(|&id| has_settled(id)).count()
}

/// A law over histories in which nobody ever begins or commits anything says little.
#[test]
fn histories_reach_all_that_processors_do() {
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<(u8, bool), u32> = BTreeMap::new();
    let (mut kept, mut ran) = (0, 0);
    for _ in 0..300 {
        let tree = super::history().new_tree(&mut runner).expect("a history");
        let frames = super::frames(&tree.current());
        let (state, mut applier) = (State::new(), Applier::default());
        let mut outcomes = Vec::new();
        for frame in frames.chunks(1) {
            outcomes.extend(super::apply(&mut applier, &state, frame, false));
            ran += u64::from(state.processors.job(ProcessorId::new(1)).is_some());
            kept += [1, 2]
                .map(|it| wanted_after_settling(&state, ProcessorId::new(it)))
                .iter()
                .sum::<usize>();
        }
        for (frame, outcome) in frames.iter().zip(outcomes) {
            let Ok(
                Reply::Begun { begun: items, .. } | Reply::Committed(items) | Reply::Decided(items),
            ) = outcome
            else {
                continue;
            };
            items.into_iter().for_each(|it| *reached.entry((frame.2, it)).or_default() += 1);
        }
    }
    assert!(ran >= 10, "{ran} states know of a run");
    assert!(kept >= 10, "{kept} have settled and were kept");
    for kind in 26..=30 {
        let [yes, no] =
            [true, false].map(|it| reached.get(&(kind, it)).copied().unwrap_or_default());
        assert!(yes >= 10 && no >= 10, "kind {kind}: {yes} took place, {no} did not");
    }
}
