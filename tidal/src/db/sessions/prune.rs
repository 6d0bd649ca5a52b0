//! Forgetting what is in old sessions, as a plan that is looked at before it is carried out.
//!
//! Knows: which sessions are old enough, and what must be as it was planned. Must not know: how a session
//! lies.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::Sessions;
use super::look::found_in;
use super::read::records;
use crate::clock::Clock;
use crate::db::TidalDb;
use crate::db::door::{Door, Inside};
use crate::engine::encoded;
use crate::error::{Error, Result};
use crate::fault::{CrashPoint, Faults};
use crate::ids::{SessionId, Timestamp, counted};
use crate::options::Durability;
use crate::record::{EventFilter, PruneSession, Record};
use crate::sessions::{self, SessionState, decode_event};

/// How long records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Records of a session are kept for this long after its end.
    pub settled: Duration,
}

impl Retention {
    /// Records of a session are kept for this long after its end.
    pub const fn settled_for(settled: Duration) -> Self {
        Self { settled }
    }
}

/// Sessions whose records are to be forgotten; from [`Sessions::plan_prune`]. To make one, or to drop it,
/// changes nothing.
///
/// A plan may be kept, looked at and carried out later, by another process too: it is its
/// [`retention`](Self::retention) and its [`items`](Self::items), which can be written down in any form,
/// and [`new`](Self::new) puts it together again. Nothing in it is believed: [`Sessions::apply`] checks
/// each item against the session. It does not say of which database it is; keep
/// [`Status::database`](crate::Status::database) with it, since another one has other sessions under the
/// same numbers.
///
/// ```
/// # use std::time::Duration;
/// # use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder};
/// # use tidaldb::{PrunePlan, Retention, TidalDb};
/// # let half_life = Duration::from_secs(3_600);
/// # let mut schema = SchemaBuilder::new();
/// # schema.signal("view", EntityKind::Item, DecaySpec::Exponential { half_life }).add()?;
/// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
/// let plan = db.sessions().plan_prune(&Retention::settled_for(Duration::from_secs(30 * 86_400)))?;
/// let (retention, items) = (plan.retention(), plan.items().to_vec());   // to a file, and back
/// assert_eq!(PrunePlan::new(retention, items), plan);
/// # Ok::<(), tidaldb::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing is pruned before Sessions::apply"]
pub struct PrunePlan {
    items: Vec<PlannedPrune>,
    retention: Retention,
}

/// One session of a [`PrunePlan`], as it was when the plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedPrune {
    /// The session.
    pub session: SessionId,
    /// Its content. One whose content is another by now is left alone.
    pub content_hash: [u8; 32],
    /// How many records it has, for whoever looks at the plan.
    pub records: u64,
}

impl PrunePlan {
    /// A plan of these items, such as one that was written down.
    pub const fn new(retention: Retention, items: Vec<PlannedPrune>) -> Self {
        Self { items, retention }
    }

    /// What is to be done, in the order in which the sessions were started.
    pub fn items(&self) -> &[PlannedPrune] {
        &self.items
    }

    /// How old the sessions are at least. It is checked again when the plan is carried out.
    pub const fn retention(&self) -> Retention {
        self.retention
    }

    /// The sessions, in the order in which they were started.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.items.iter().map(|planned| planned.session)
    }

    /// How many records would be forgotten.
    pub fn records(&self) -> u64 {
        self.items.iter().map(|planned| planned.records).sum()
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl fmt::Display for PrunePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = counted(self.items.len() as u64, "session");
        write!(f, "forgets {} of {sessions}", counted(self.records(), "record"))
    }
}

/// Why something that was planned was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// There is no such session.
    Gone,
    /// It is no longer in the state that the plan was for: it was pruned already, is not stuck any more,
    /// has not failed. Where a cursor has yet to hear that it was pruned, it is
    /// [`Awaited`](Self::Awaited).
    StateMoved,
    /// Its content is not what it was.
    ContentMoved,
    /// Its end is not so long ago: the clock was ahead when the plan was made, and was corrected.
    TooYoung,
    /// A cursor has not acknowledged an event about it.
    Awaited,
}

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Applied {
    /// The sessions for which it was done.
    pub done: Vec<SessionId>,
    /// Those for which it was not, and why.
    pub skipped: Vec<(SessionId, SkipReason)>,
}

impl Sessions<'_> {
    /// The sessions whose records are older than they need to be. Those that a
    /// [`cursor`](Self::cursor) still has an event of are left out. Changes nothing.
    ///
    /// Pruning forgets the records of a session, and keeps what is known of it: user, agent, policy,
    /// interval, cause of the end, counts and content hash. What its signals counted for stays counted.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) or [`Corrupt`](Error::Corrupt) when ended sessions cannot be read.
    pub fn plan_prune(&self, retention: &Retention) -> Result<PrunePlan> {
        let all = (usize::MAX, usize::MAX);
        let page = self.db.pruning().plan(retention, SessionId::new(0), all, &|| false);
        page.map(|page| page.plan)
    }

    /// Prunes what is as it was planned.
    pub(in crate::db) fn carry_out_prune(&self, plan: PrunePlan) -> Result<Applied> {
        self.db.pruning().carry_out(plan, &|| false).map(|(applied, _)| applied)
    }
}

impl TidalDb {
    pub(in crate::db) fn pruning(&self) -> Pruning {
        Pruning {
            door: Arc::clone(&self.door),
            clock: Arc::clone(&self.clock),
            faults: self.faults.clone(),
        }
    }
}

/// What pruning has of a database.
pub(in crate::db) struct Pruning {
    door: Arc<Door>,
    clock: Arc<dyn Clock>,
    faults: Faults,
}

/// Some of what is to be pruned.
pub(super) struct Page {
    pub(super) plan: PrunePlan,
    /// The first one that is not, and may be later.
    pub(super) first_left: Option<SessionId>,
    /// Where the next page begins.
    pub(super) next: SessionId,
}

impl Pruning {
    pub(super) fn now(&self) -> Result<Timestamp> {
        self.door.now(&*self.clock)
    }

    /// The first session that has yet to come into the table of those that have ended for good.
    pub(super) fn first_hot(&self) -> Result<Option<SessionId>> {
        self.door.look(|inside| Ok(inside.state.sessions.first_hot()))
    }

    /// The sessions from one on whose records are older than they need to be, at most so many. Looks no
    /// further than so many in a row that are not, and no further once it is to stop.
    pub(super) fn plan(
        &self,
        retention: &Retention,
        from: SessionId,
        (count_max, young_max): (usize, usize),
        stops: &dyn Fn() -> bool,
    ) -> Result<Page> {
        let now = self.now()?;
        let before = now.saturating_sub(retention.settled);
        self.door.look(|inside| {
            let declared = inside.state.declared();
            let (mut items, mut first_left, mut next) = (Vec::new(), None, from);
            let Some(awaited) = awaited(inside, stops)? else {
                let plan = PrunePlan { items, retention: *retention };
                return Ok(Page { plan, first_left, next });
            };
            let (mut young, mut looked_at) = (0, 0usize);
            inside.each_row(inside.state.sessions.ended(), from.get(), |id, row| {
                let id = SessionId::new(id);
                let is_full = items.len() >= count_max || young >= young_max;
                if is_full || is_to_stop(&mut looked_at, stops) {
                    return Ok(ControlFlow::Break(()));
                }
                next = SessionId::new(id.get().saturating_add(1));
                let info = found_in(row, id, &declared.schema)?.info;
                let SessionState::Settled(end) = &info.state else {
                    // It is pruned already.
                    return Ok(ControlFlow::Continue(()));
                };
                let is_old = end.at < before;
                // What ended in the future is of a clock that was wrong, and says nothing of the others.
                young = match is_old || end.at > now {
                    true => 0,
                    false => young + 1,
                };
                if is_old && !awaited.contains(&id) {
                    let (content_hash, records) = (info.content_hash, info.records);
                    items.push(PlannedPrune { session: id, content_hash, records });
                } else {
                    first_left.get_or_insert(id);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(Page { plan: PrunePlan { items, retention: *retention }, first_left, next })
        })
    }

    /// Prunes what is as it was planned, until it is to stop; and says which is the first one that it did not
    /// come to.
    pub(super) fn carry_out(
        &self,
        plan: PrunePlan,
        stops: &dyn Fn() -> bool,
    ) -> Result<(Applied, Option<SessionId>)> {
        let (mut applied, mut first_left) = (Applied::default(), None);
        let Some(awaited) = self.door.look(|inside| awaited(inside, stops))? else {
            return Ok((applied, plan.sessions().next()));
        };
        for planned in plan.items {
            if stops() {
                first_left = Some(planned.session);
                break;
            }
            if !applied.done.is_empty() {
                self.faults.reach(CrashPoint::PruneMid);
            }
            let skipped = match awaited.contains(&planned.session) {
                true => Some(SkipReason::Awaited),
                false => self.prune(&planned, &plan.retention)?,
            };
            match skipped {
                None => applied.done.push(planned.session),
                Some(reason) => applied.skipped.push((planned.session, reason)),
            }
        }
        // One sync for all of them.
        if !applied.done.is_empty() {
            self.door.flush()?;
        }
        Ok((applied, first_left))
    }

    /// Prunes one session, unless it is not as it was planned.
    fn prune(&self, planned: &PlannedPrune, retention: &Retention) -> Result<Option<SkipReason>> {
        let PlannedPrune { session: id, content_hash, .. } = *planned;
        let before = self.now()?.saturating_sub(retention.settled);
        let looked = self.door.look(|inside| {
            let Some(row) = inside.row(inside.state.sessions.ended(), id.get())? else {
                return Ok(Err(SkipReason::Gone));
            };
            let found = found_in(&row, id, &inside.state.declared().schema)?;
            let SessionState::Settled(end) = &found.info.state else {
                return Ok(Err(SkipReason::StateMoved));
            };
            if end.at >= before {
                return Ok(Err(SkipReason::TooYoung));
            }
            if found.info.content_hash != content_hash {
                return Ok(Err(SkipReason::ContentMoved));
            }
            let pruned = sessions::Sessions::pruned_row(&row);
            let pruned = pruned.map_err(|e| e.of(format!("the row of session {id}")))?;
            let records =
                records(inside, id, found.head)?.iter().map(|record| record.number).collect();
            Ok(Ok((records, pruned)))
        })?;
        let (records, row) = match looked {
            Ok(found) => found,
            Err(reason) => return Ok(Some(reason)),
        };
        let prune = Record::PruneSession(PruneSession { session: id, records, row: &row });
        // Synced by the caller, for all at once.
        let durability = Some(Durability::Os { sync_every: Duration::from_secs(1) });
        match self.door.send(encoded(&prune)?, 1, None, durability, false)?.wait() {
            Ok(_) => Ok(None),
            Err(Error::SessionEnded { .. } | Error::SessionOpen(_)) => {
                Ok(Some(SkipReason::StateMoved))
            }
            Err(error) => Err(error),
        }
    }
}

/// So many rows are looked at between two questions whether to stop.
const ROWS_PER_LOOK: usize = 256;

/// Whether to stop before another row is looked at; asked now and then.
fn is_to_stop(looked_at: &mut usize, stops: &dyn Fn() -> bool) -> bool {
    *looked_at += 1;
    looked_at.is_multiple_of(ROWS_PER_LOOK) && stops()
}

/// The sessions of events that a cursor wants and has not acknowledged; `None` if it was to stop before all
/// of them were known.
fn awaited(inside: &Inside, stops: &dyn Fn() -> bool) -> Result<Option<BTreeSet<SessionId>>> {
    let wanted = inside.state.deliveries.wanted();
    let mut sessions = BTreeSet::new();
    let from = wanted.iter().filter_map(|(_, through)| through.checked_add(1)).min();
    let Some(from) = from else { return Ok(Some(sessions)) };
    let (mut looked_at, mut is_stopped) = (0, false);
    inside.each_row(inside.state.deliveries.events(), from, |number, row| {
        if is_to_stop(&mut looked_at, stops) {
            is_stopped = true;
            return Ok(ControlFlow::Break(()));
        }
        let happened = decode_event(row).map_err(|e| e.of(format!("event {number}")))?;
        let is_wanted =
            |(filter, through): &(EventFilter, u64)| number > *through && happened.passes(filter);
        if wanted.iter().any(is_wanted) {
            sessions.extend(happened.session());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((!is_stopped).then_some(sessions))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::clock::ManualClock;
    use crate::options::{Runtime, SessionConfig};
    use crate::schema::{DecaySpec, EntityKind, SchemaBuilder};

    #[test]
    fn pruning_that_is_to_stop_does_so_soon_and_says_where_it_is_to_go_on() {
        let mut schema = SchemaBuilder::new();
        let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
        let config = SessionConfig { runtime: Runtime::Manual, ..SessionConfig::default() };
        let clock = ManualClock::at(Timestamp::from_secs(1_700_000_000));
        let builder = TidalDb::builder().ephemeral().with_sessions(config);
        let builder = builder.with_clock(Arc::new(clock.clone()));
        let db = builder.with_schema(schema.build().expect("sound")).open().expect("opens");
        let len = 2 * ROWS_PER_LOOK + 10;
        for user in 0..len as u64 {
            db.start_session(user, "app", "default").expect("started").close().expect("closed");
        }
        clock.advance(Duration::from_secs(60));
        let retention = Retention::settled_for(Duration::from_secs(1));
        let (pruning, all) = (db.pruning(), (usize::MAX, usize::MAX));
        let page = |from, stops: &dyn Fn() -> bool| {
            pruning.plan(&retention, from, all, stops).expect("planned")
        };
        let begin = SessionId::new(0);
        let whole = page(begin, &|| false).plan;
        assert_eq!(whole.items().len(), len);
        let first = page(begin, &|| true);
        assert!((1..=ROWS_PER_LOOK).contains(&first.plan.items().len()));
        let second = page(first.next, &|| false).plan;
        let items: Vec<_> = first.plan.sessions().chain(second.sessions()).collect();
        assert_eq!(items, whole.sessions().collect::<Vec<_>>());
        // The same of what it does: three, and then no more.
        let looks = Cell::new(0);
        let stops = || looks.replace(looks.get() + 1) >= 3;
        let (applied, left) = pruning.carry_out(whole.clone(), &stops).expect("pruned");
        assert_eq!(applied.done, items[..3]);
        assert_eq!(left, Some(items[3]));
        let (applied, left) = pruning.carry_out(whole, &|| false).expect("pruned");
        assert_eq!((applied.done.len(), left), (len - 3, None));
    }
}
