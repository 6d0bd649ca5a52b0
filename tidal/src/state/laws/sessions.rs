//! Histories of sessions, and what holds of them whoever looks when.

use std::time::Duration;

use proptest::prelude::*;

use super::{Framed, Step, apply, digest, frames, history};
use crate::ids::{
    AttemptId, EntityId, Fence, ProcessorId, SessionId, SignalTypeId, Timestamp, UserId,
};
use crate::record::{
    Annotate, Conflict, EndSession, EndedBy, Record, SessionSignal, SignalBatch, SignalBatchWriter,
    SignalEvent, StartSession, Touch,
};
use crate::schema::{RateLimit, SchemaBuilder, SessionPolicy};
use crate::state::{Applier, State};

/// A policy beside the default one, with limits that a history reaches.
pub(super) fn declare(b: &mut SchemaBuilder) {
    let mut strict = SessionPolicy::new("strict");
    strict.idle_timeout = Duration::from_secs(900);
    strict.max_duration = Duration::from_secs(4_000);
    strict.empty_fallback = Duration::from_secs(90);
    strict.late_grace = Duration::from_secs(2_500);
    strict.signals = Some(vec!["view".to_owned()]);
    strict.rate_limit = Some(RateLimit { signals: 2, per: Duration::from_secs(1_200) });
    b.session_policy(strict);
}

/// A write to the session that was started this many starts ago; who holds it is filled in later.
pub(super) fn step() -> impl Strategy<Value = Step> {
    let session = (0u64..3).prop_map(SessionId::new);
    let conflict =
        prop::sample::select(vec![Conflict::EndPrevious, Conflict::Reject, Conflict::Join]);
    let start = (0u64..3, prop::sample::select(vec!["app", "web"]), 0u16..2, conflict);
    // A fence of another incarnation is never made right.
    let fence = prop::bool::weighted(0.9)
        .prop_map(|right| Fence { incarnation: u64::from(right), grant: 1 });
    let signal = (session.clone(), fence.clone(), any::<bool>(), 0u64..3_000, signals());
    let note = prop::option::of(prop::sample::select(vec!["", "a note"]));
    let passed = prop_oneof![2 => 0u64..200, 1 => 0u64..3_000];
    let encode = |record: Record<'_>| (record.kind() as u8, record.encode());
    let what = prop_oneof![
        4 => start.prop_map(move |(user, agent, policy, conflict)| {
            let user = UserId::new(user);
            encode(Record::StartSession(StartSession { user, agent, policy, conflict }))
        }),
        6 => (signal, note).prop_map(move |((session, fence, is_late, span, signals), annotation)| {
            let fence = (!is_late).then_some(fence);
            let (span_ns, signals) = (span * 1_000_000_000, &signals[..]);
            let signal = SessionSignal { session, fence, span_ns, annotation, signals };
            encode(Record::SessionSignal(signal))
        }),
        1 => (session.clone(), fence.clone()).prop_map(move |(session, fence)| {
            let entity = EntityId::new(7);
            encode(Record::Annotate(Annotate { session, fence, entity, text: "a text" }))
        }),
        2 => (session.clone(), fence.clone(), prop::option::of(0u64..9_000)).prop_map(
            move |(session, fence, extend)| {
                let extend_ns = extend.map(|secs| secs * 1_000_000_000);
                encode(Record::Touch(Touch { session, fence, extend_ns }))
            }
        ),
        1 => (session.clone(), prop::option::of(fence)).prop_map(move |(session, fence)| {
            let by = fence.map_or(EndedBy::Operator { reason: "why" }, EndedBy::Holder);
            encode(Record::EndSession(EndSession { session, by }))
        }),
        2 => session.prop_map(move |session| encode(Record::ResumeSession(session))),
        2 => (1u64..4).prop_map(move |count_max| encode(Record::Sweep { count_max })),
    ];
    let end_all = Just(encode(Record::EndAllSessions));
    (prop_oneof![30 => what, 1 => end_all], passed)
        .prop_map(|((kind, body), passed)| (kind, body, passed))
}

/// One event, of nobody yet.
fn signals() -> impl Strategy<Value = Vec<u8>> {
    let event = (0u64..12, 0u16..2, 0u64..4_000, prop::option::weighted(0.3, 0u128..5));
    event.prop_map(|(entity, signal, late, id)| {
        // How long ago; when that is follows from where the frame stands.
        let at = Timestamp::from_secs(late);
        let (signal, entity) = (SignalTypeId::new(signal), EntityId::new(entity));
        let cohorts = std::iter::empty().collect();
        let event = SignalEvent { signal, entity, weight: 1.0, at, user: None, cohorts, id };
        let mut writer = SignalBatchWriter::new(None, &[""; 0], at, 1);
        writer.push(signal, &event);
        writer.finish()
    })
}

/// What a history has come to, as far as its writers know.
#[derive(Default)]
pub(super) struct Known {
    sessions: Vec<(SessionId, UserId, Fence)>,
    /// The attempts that somebody wanted to begin, in their order.
    pub(super) begun: Vec<(ProcessorId, AttemptId)>,
}

impl Known {
    /// The same record, of the session that it means, with the fence that its writer has.
    pub(super) fn fill_in(
        &mut self,
        (kind, body): (u8, &[u8]),
        (seq, now): (u64, u64),
        operation: u64,
    ) -> Vec<u8> {
        let granted = Fence { incarnation: 1, grant: seq };
        let mut record = Record::decode(kind, body).expect("it was just encoded");
        let signals;
        match &mut record {
            Record::StartSession(new) => {
                self.sessions.push((SessionId::new(operation), new.user, granted));
            }
            Record::ResumeSession(session) => {
                if let Some(known) = self.meant(*session) {
                    known.2 = granted;
                    *session = known.0;
                }
            }
            Record::SessionSignal(signal) => {
                let known = self.meant(signal.session).map_or(UserId::new(0), |known| known.1);
                signals = of_user(signal.signals, known, now);
                signal.signals = &signals;
                if let Some(&mut (id, _, fence)) = self.meant(signal.session) {
                    signal.session = id;
                    signal.fence = signal.fence.map(|held| held_as(held, fence));
                }
            }
            Record::Annotate(Annotate { session, fence, .. })
            | Record::Touch(Touch { session, fence, .. })
            | Record::EndSession(EndSession { session, by: EndedBy::Holder(fence) }) => {
                if let Some(&mut (id, _, current)) = self.meant(*session) {
                    (*session, *fence) = (id, held_as(*fence, current));
                }
            }
            Record::EndSession(EndSession { session, .. }) => {
                if let Some(known) = self.meant(*session) {
                    *session = known.0;
                }
            }
            _ => {}
        }
        record.encode()
    }

    pub(super) fn meant(&mut self, ago: SessionId) -> Option<&mut (SessionId, UserId, Fence)> {
        let last = self.sessions.len().checked_sub(1)?;
        self.sessions.get_mut(last.saturating_sub(ago.get() as usize))
    }
}

fn held_as(held: Fence, current: Fence) -> Fence {
    if held.incarnation == 1 { current } else { held }
}

fn of_user(signals: &[u8], user: UserId, now: u64) -> Vec<u8> {
    let batch = SignalBatch::decode(signals).expect("it was just encoded");
    let ago = batch.latest.as_nanos() / 1_000_000_000;
    let at = Timestamp::from_secs(now + 60 - ago);
    let mut writer = SignalBatchWriter::new(None, &[""; 0], at, 1);
    for event in batch.events() {
        let event = event.expect("it was just encoded");
        writer.push(event.signal, &SignalEvent { user: Some(user), at, ..event });
    }
    writer.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Fences have numbers of frames in them, so the frames are swept away where they are: what
    /// takes the place of a sweep is a mark. The same holds of what is said of runs.
    #[test]
    fn sweeps_and_runs_leave_no_trace(history in history()) {
        let swept = frames(&history);
        let traceless = [Record::Sweep { count_max: 0 }, Record::JobsRan(Vec::new())];
        let traceless = traceless.map(|record| record.kind() as u8);
        let mark = Record::Mark.kind() as u8;
        let never: Vec<Framed> = swept
            .iter()
            .map(|frame| match traceless.contains(&frame.2) {
                true => (frame.0, frame.1, mark, Vec::new()),
                false => frame.clone(),
            })
            .collect();
        let [one, two] = [State::new(), State::new()];
        let (mut applier, mut other) = (Applier::default(), Applier::default());
        for (left, right) in swept.chunks(1).zip(never.chunks(1)) {
            let (left, right) = (apply(&mut applier, &one, left, false), apply(&mut other, &two, right, false));
            if left.iter().all(|outcome| !matches!(outcome, Ok(crate::state::Reply::Swept(_)))) {
                prop_assert_eq!(said(&left), said(&right));
            }
            prop_assert_eq!(digest(&one), digest(&two));
        }
        // And at the end of all time both have the same sessions, in the same table.
        let sweep = Record::Sweep { count_max: u64::MAX };
        for (state, applier) in [(&one, &mut applier), (&two, &mut other)] {
            let before = digest(state);
            let header = state.header();
            let frame = (header.applied.next(), header.engine_time, sweep.kind() as u8, sweep.encode());
            apply(applier, state, &[frame], false);
            prop_assert_eq!(digest(state), before);
            prop_assert_eq!(state.check(), Vec::<String>::new());
        }
    }
}

/// Outcomes without what depends on who noticed an end first: a session that has ended for good is not
/// hot any more.
fn said(outcomes: &[crate::state::Outcome]) -> String {
    use crate::error::Error;
    let said = |outcome: &crate::state::Outcome| match outcome {
        Err(
            Error::SessionNotFound(id) | Error::SessionEnded { id, .. } | Error::TooLate { id, .. },
        ) => {
            format!("session {id} is over")
        }
        other => format!("{other:?}"),
    };
    outcomes.iter().map(said).collect()
}
