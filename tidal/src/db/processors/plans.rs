//! What an operator does about the processing of sessions, as plans that are looked at before they are
//! carried out.
//!
//! Knows: which sessions a plan is for, and what must be as it was planned. Must not know: which attempt
//! counts: that is decided when a plan is carried out, by the state.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::read::outcome_of;
use crate::db::door::Inside;
use crate::db::{Applied, PrunePlan, SessionFilter, Sessions, SkipReason, SweepPlan, check_size};
use crate::engine::encoded;
use crate::error::{Error, Result};
use crate::ids::{ProcessorId, SessionId, Timestamp, counted};
use crate::options::Durability;
use crate::processors::{AttemptStatus, ProcessorRow};
use crate::record::{FailSession, FailedBy, Record, ReprocessSessions};
use crate::sessions::{SessionInfo, SessionState, Standing};
use crate::state::Reply;

mod sealed {
    /// No plan is made elsewhere.
    pub trait Sealed {}
}

/// Something that is to be done to sessions, and can be looked at before: [`Sessions::apply`] does it.
pub trait Plan: sealed::Sealed {
    /// Does it.
    #[doc(hidden)]
    fn carry_out(self, sessions: &Sessions<'_>) -> Result<Applied>;
}

/// Sessions that go into one frame.
const ITEMS_PER_FRAME: usize = 1_000;

/// Which sessions are to be given up, and what is to be said of that.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResetFilter {
    /// Sessions that a processor has been busy with for longer than this. `None`, the default: for longer than
    /// the [`processing_timeout`](crate::SessionConfig::processing_timeout) of each, as
    /// [`stuck`](Sessions::stuck) has it.
    pub timeout: Option<Duration>,
    /// Also sessions that have ended, wait for a processor, and were started longer ago than that, though nobody
    /// is busy with them. Default: `false`.
    pub include_waiting: bool,
    /// Who does it. Default: `operator`.
    pub by: String,
    /// Why. Default: empty.
    pub reason: String,
}

impl Default for ResetFilter {
    fn default() -> Self {
        Self {
            timeout: None,
            include_waiting: false,
            by: "operator".to_owned(),
            reason: String::new(),
        }
    }
}

/// One session of a [`ResetPlan`], as it was when the plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedReset {
    /// The session.
    pub session: SessionId,
    /// Since when it is busy; `None` if nobody was busy with it. One with which somebody began to be busy
    /// at another time is left alone.
    pub busy_since: Option<Timestamp>,
    /// For how long it had been busy, or had been there, for whoever looks at the plan.
    pub for_so_long: Duration,
}

/// Sessions whose processing is to be given up; from [`Sessions::plan_reset`]. To make one, or to drop it,
/// changes nothing.
///
/// What is in such a session stays. What its processors are doing counts no more, and they do not begin
/// with it until it is [requeued](Sessions::plan_requeue).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing is given up before Sessions::apply"]
pub struct ResetPlan {
    by: String,
    reason: String,
    items: Vec<PlannedReset>,
}

impl ResetPlan {
    /// A plan of these items, such as one that was written down.
    pub const fn new(by: String, reason: String, items: Vec<PlannedReset>) -> Self {
        Self { by, reason, items }
    }

    /// What is to be done, those first that have been busy for the longest.
    pub fn items(&self) -> &[PlannedReset] {
        &self.items
    }

    /// Who does it, and why.
    pub fn words(&self) -> (&str, &str) {
        (&self.by, &self.reason)
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl fmt::Display for ResetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gives up the processing of {}", counted(self.items.len() as u64, "session"))
    }
}

/// One session of a [`RequeuePlan`], as it was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRequeue {
    /// The session.
    pub session: SessionId,
    /// Whether its processing was given up.
    pub has_failed: bool,
    /// The names of the processors that have given it up.
    pub quarantined_by: Vec<String>,
}

/// Sessions that are to be processed anew; from [`Sessions::plan_requeue`]. To make one, or to drop it,
/// changes nothing.
///
/// Who has tried such a session, and is not done with it, tries it again at once, as if for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing is requeued before Sessions::apply"]
pub struct RequeuePlan {
    items: Vec<PlannedRequeue>,
}

impl RequeuePlan {
    /// A plan of these items, such as one that was written down.
    pub const fn new(items: Vec<PlannedRequeue>) -> Self {
        Self { items }
    }

    /// What is to be done, in the order in which the sessions were started.
    pub fn items(&self) -> &[PlannedRequeue] {
        &self.items
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl fmt::Display for RequeuePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "processes {} anew", counted(self.items.len() as u64, "session"))
    }
}

/// One session of a [`ReprocessPlan`], as it was when the plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedReprocess {
    /// The session.
    pub session: SessionId,
    /// When the processor was done with it last, if ever. One with which it was done at another time is left
    /// alone: it has seen it since.
    pub committed_at: Option<Timestamp>,
}

/// Sessions that a processor is to see again, though their content is what it has seen; from
/// [`Sessions::plan_reprocess`]. To make one, or to drop it, changes nothing.
///
/// Carrying it out writes down that the processor is to see them; its next run, in this open or a later one,
/// begins with them. What it has made of a session stays until it is done with it once more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing is to be processed before Sessions::apply"]
pub struct ReprocessPlan {
    processor: String,
    items: Vec<PlannedReprocess>,
}

impl ReprocessPlan {
    /// A plan of these items, such as one that was written down.
    pub const fn new(processor: String, items: Vec<PlannedReprocess>) -> Self {
        Self { processor, items }
    }

    /// The name of the processor.
    pub fn processor(&self) -> &str {
        &self.processor
    }

    /// What is to be done, in the order in which the sessions were started.
    pub fn items(&self) -> &[PlannedReprocess] {
        &self.items
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl fmt::Display for ReprocessPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = counted(self.items.len() as u64, "session");
        write!(f, "hands {sessions} to {:?} again", self.processor)
    }
}

impl Sessions<'_> {
    /// Carries out a plan, session by session: those that are not as they were when the plan was made are
    /// left alone, and the answer says why. What was done is durable when this returns.
    ///
    /// # Errors
    ///
    /// Those of the call that made the plan, and of [`Ticket::wait`](crate::Ticket::wait). What was done before
    /// stays done; the rest can be planned again.
    pub fn apply(&self, plan: impl Plan) -> Result<Applied> {
        plan.carry_out(self)
    }

    /// The sessions that are [stuck](Self::stuck), or wait for too long, by the measure of the filter. One that
    /// has settled is not among them: no time gives it up. Changes nothing.
    ///
    /// ```
    /// # use tidaldb::{ResetFilter, TidalDb};
    /// # use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder};
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    /// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
    /// let plan = db.sessions().plan_reset(&ResetFilter::default())?;
    /// println!("{plan}");
    /// let applied = db.sessions().apply(plan)?;
    /// assert!(applied.skipped.is_empty());
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TooLarge`](Error::TooLarge): `by` or `reason` is longer than an annotation may be;
    /// [`Closed`](Error::Closed); those of [`get`](Self::get).
    pub fn plan_reset(&self, filter: &ResetFilter) -> Result<ResetPlan> {
        self.check_words(&filter.by, &filter.reason)?;
        let (state, now) = (&self.db.state, self.db.default_now());
        let (busy, work) = self.busy_for_longer_than(filter.timeout);
        let declared = state.declared();
        let can_fail = |id: &SessionId| {
            matches!(state.sessions.standing(*id, &declared.schema, now), Standing::Ended { .. })
        };
        let mut items: Vec<PlannedReset> = busy
            .into_iter()
            .filter(|(id, _, _)| can_fail(id))
            .map(|(session, since, for_so_long)| PlannedReset {
                session,
                busy_since: Some(since),
                for_so_long,
            })
            .collect();
        if filter.include_waiting {
            let is_busy: BTreeSet<SessionId> = work.iter().map(|work| work.session).collect();
            let by_size = self.db.sessions.processing_timeout;
            let may_take = |info: &SessionInfo| {
                filter.timeout.unwrap_or_else(|| by_size.of(info.signals + info.annotations))
            };
            let mut waiting = Vec::new();
            for id in state.sessions.hot().into_iter().filter(|id| !is_busy.contains(id)) {
                let Some(found) = self.find(id)?.filter(|_| can_fail(&id)) else { continue };
                // As long as it takes late records it waits for nobody.
                if found.settles_at.is_none_or(|settles_at| settles_at > now) {
                    continue;
                }
                let for_so_long = found.info.started_at.until(now);
                if for_so_long > may_take(&found.info) {
                    waiting.push(PlannedReset { session: id, busy_since: None, for_so_long });
                }
            }
            items.extend(waiting);
        }
        Ok(ResetPlan { by: filter.by.clone(), reason: filter.reason.clone(), items })
    }

    /// The sessions whose processing was given up, altogether or by one processor, as far as a filter wants
    /// them: 100 at most, unless it has another [limit](SessionFilter::limit). Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) or [`Corrupt`](Error::Corrupt) when ended sessions cannot be read.
    pub fn plan_requeue(&self, filter: &SessionFilter) -> Result<RequeuePlan> {
        let state = &self.db.state;
        let incarnation = state.header().incarnation;
        let failed: BTreeSet<SessionId> =
            state.sessions.failed().into_iter().map(|(id, _)| id).collect();
        let mut given_up: std::collections::BTreeMap<SessionId, Vec<String>> =
            failed.iter().map(|&id| (id, Vec::new())).collect();
        for (id, processor, attempt) in state.processors.all_attempts() {
            if let AttemptStatus::Quarantined { .. } = attempt.status(incarnation) {
                let name = state.processors.get(processor).map(|row| row.name.into());
                given_up.entry(id).or_default().extend(name);
            }
        }
        let (wanted, limit) = filter.wanted_at(self.db.default_now());
        let mut items = Vec::new();
        for (session, quarantined_by) in given_up {
            if items.len() >= limit {
                break;
            }
            if self.get(session)?.is_some_and(|info| wanted.wants(&info)) {
                let has_failed = failed.contains(&session);
                items.push(PlannedRequeue { session, has_failed, quarantined_by });
            }
        }
        Ok(RequeuePlan { items })
    }

    /// The sessions that a filter wants, of those that have ended and neither failed nor were pruned, to be seen
    /// by a processor again: 100 at most, unless it has another [limit](SessionFilter::limit). Changes nothing.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName): there is no such processor; those of [`list`](Self::list).
    pub fn plan_reprocess(&self, processor: &str, filter: &SessionFilter) -> Result<ReprocessPlan> {
        let number = self.db.door.look(|inside| live(inside, processor))?;
        let (_, limit) = filter.wanted_at(self.db.default_now());
        let (mut items, mut page) = (Vec::new(), filter.clone());
        while items.len() < limit {
            let listed = self.list(&page)?;
            let Some(last) = listed.last().map(|info| info.id) else { break };
            for SessionInfo { id: session, .. } in listed.iter().filter(|info| is_ended(info)) {
                let (session, committed_at) = (*session, self.seen(number, *session)?);
                items.push(PlannedReprocess { session, committed_at });
            }
            if listed.len() < limit {
                break;
            }
            page = page.after(last);
        }
        items.truncate(limit);
        Ok(ReprocessPlan { processor: processor.to_owned(), items })
    }

    /// Refuses words that are longer than an annotation may be.
    fn check_words(&self, by: &str, reason: &str) -> Result<()> {
        let limit = self.db.sessions.annotation_size_bytes_max;
        check_size("a name", by.len(), limit)?;
        check_size("a reason", reason.len(), limit)
    }

    /// When a processor was done with a session last.
    fn seen(&self, processor: ProcessorId, session: SessionId) -> Result<Option<Timestamp>> {
        let outcome = self.db.door.look(|inside| outcome_of(inside, session, processor))?;
        Ok(outcome.map(|outcome| outcome.committed_at))
    }

    /// Writes records that have so many sessions at most, and says for which of them it was done.
    fn decide<T>(
        &self,
        items: &[T],
        session_of: impl Fn(&T) -> SessionId,
        record_of: impl Fn(&[T]) -> Result<crate::wal::FrameBody>,
    ) -> Result<Applied> {
        let mut applied = Applied::default();
        for part in items.chunks(ITEMS_PER_FRAME) {
            let ticket =
                self.db.door.send(record_of(part)?, 1, None, Some(Durability::Sync), false)?;
            let decided = match ticket.wait_for_reply()? {
                (_, Reply::Decided(decided)) => decided,
                (_, other) => {
                    unreachable!("a plan is answered with what was done, not with {other:?}")
                }
            };
            for (item, is_done) in part.iter().zip(decided) {
                match is_done {
                    true => applied.done.push(session_of(item)),
                    false => {
                        let id = session_of(item);
                        let is_gone = self.get(id)?.is_none();
                        let why = if is_gone { SkipReason::Gone } else { SkipReason::StateMoved };
                        applied.skipped.push((id, why));
                    }
                }
            }
        }
        Ok(applied)
    }
}

fn is_ended(info: &SessionInfo) -> bool {
    matches!(info.state, SessionState::Ended(_) | SessionState::Settled(_))
}

impl sealed::Sealed for PrunePlan {}

impl Plan for PrunePlan {
    fn carry_out(self, sessions: &Sessions<'_>) -> Result<Applied> {
        sessions.carry_out_prune(self)
    }
}

impl sealed::Sealed for SweepPlan {}

impl Plan for SweepPlan {
    fn carry_out(self, sessions: &Sessions<'_>) -> Result<Applied> {
        sessions.carry_out_sweep(self)
    }
}

impl sealed::Sealed for ResetPlan {}

impl Plan for ResetPlan {
    fn carry_out(self, sessions: &Sessions<'_>) -> Result<Applied> {
        sessions.check_words(&self.by, &self.reason)?;
        let by = FailedBy::Operator { by: &self.by, reason: &self.reason };
        sessions.decide(
            &self.items,
            |item| item.session,
            |items| {
                let fail = |item: &PlannedReset| {
                    let PlannedReset { session, busy_since, .. } = *item;
                    FailSession { session, busy_since, by }
                };
                encoded(&Record::FailSessions(items.iter().map(fail).collect()))
            },
        )
    }
}

impl sealed::Sealed for RequeuePlan {}

impl Plan for RequeuePlan {
    fn carry_out(self, sessions: &Sessions<'_>) -> Result<Applied> {
        sessions.decide(
            &self.items,
            |item| item.session,
            |items| {
                encoded(&Record::RequeueSessions(items.iter().map(|item| item.session).collect()))
            },
        )
    }
}

impl sealed::Sealed for ReprocessPlan {}

impl Plan for ReprocessPlan {
    fn carry_out(self, sessions: &Sessions<'_>) -> Result<Applied> {
        let processor = sessions.db.door.look(|inside| live(inside, &self.processor))?;
        let (mut items, mut skipped) = (Vec::new(), Vec::new());
        for planned in self.items {
            match sessions.get(planned.session)? {
                None => skipped.push((planned.session, SkipReason::Gone)),
                Some(info)
                    if is_ended(&info)
                        && sessions.seen(processor, info.id)? == planned.committed_at =>
                {
                    items.push((info.id, info.user));
                }
                Some(info) => skipped.push((info.id, SkipReason::StateMoved)),
            }
        }
        let mut applied = sessions.decide(
            &items,
            |(session, _)| *session,
            |items| {
                let items = items.to_vec();
                encoded(&Record::ReprocessSessions(ReprocessSessions { processor, items }))
            },
        )?;
        applied.skipped.extend(skipped);
        Ok(applied)
    }
}

/// A processor that is there, be it registered in this open or not.
fn live(inside: &Inside, name: &str) -> Result<ProcessorId> {
    let live = |row: &ProcessorRow| !row.removed;
    let all = inside.state.processors.all();
    let found = all.iter().filter(|row| live(row)).find(|row| *row.name == *name);
    found.map(|row| row.number).ok_or_else(|| {
        let there = all.iter().filter(|row| live(row)).map(|row| &*row.name);
        Error::unknown("processor", name, there)
    })
}
