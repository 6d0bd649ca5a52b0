//! How sessions end, settle and leave; what an open of the database and a reset of the clock do to them.
//!
//! Knows: the order of stages. Must not know: who asks.

use super::change::{At, Change};
use super::course::Limits;
use super::event::SessionEvent;
use super::row::{Decided, SessionRow, Stage};
use super::{Sessions, limits_of};
use crate::codec::DecodeError;
use crate::end::{End, EndCause};
use crate::error::{Error, Result};
use crate::ids::{SessionId, Timestamp};
use crate::options::OpenPolicy;
use crate::record::{EndSession, EndedBy, PruneSession};
use crate::schema::Schema;
use crate::sync::Ordering;
use crate::table::Slot;

/// What an open of the database does to a session that was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// It may be resumed.
    Restore,
    /// It ends, as it would have ended by itself, or because the policy says so.
    End(End),
}

impl Sessions {
    /// What an open at `now` does to every session that was open, by ascending id, where `last` is the
    /// engine time of the frame before. Changes nothing.
    pub(crate) fn plan_recovery(
        &self,
        schema: &Schema,
        (last, now): (Timestamp, Timestamp),
        policy: OpenPolicy,
    ) -> Vec<(SessionId, Recovery)> {
        let rows = self.rows.read();
        let mut ids: Vec<SessionId> = rows.side().all_open().collect();
        ids.sort_unstable();
        let plan = |id: SessionId| {
            let row = rows.get(&id).expect("the index names live rows");
            (id, recovery_of(row, schema, (last, now), policy))
        };
        ids.into_iter().map(plan).collect()
    }
}

fn recovery_of(
    row: &SessionRow,
    schema: &Schema,
    (last, now): (Timestamp, Timestamp),
    policy: OpenPolicy,
) -> Recovery {
    let limits = limits_of(schema, row.policy);
    let course = match policy {
        OpenPolicy::RestoreThenExpire | OpenPolicy::EndAll => row.course,
        // One that was over before may have been told of, or have taken late records.
        OpenPolicy::RestoreAll if row.course.is_over(limits, last) => row.course,
        // The idle time begins anew, the session does not.
        OpenPolicy::RestoreAll => {
            let mut course = row.course;
            course.touch(now);
            course
        }
    };
    if course.is_over(limits, now) {
        return Recovery::End(row.course.overdue_end(limits));
    }
    match policy {
        OpenPolicy::RestoreThenExpire | OpenPolicy::RestoreAll => Recovery::Restore,
        OpenPolicy::EndAll => {
            Recovery::End(row.course.end_by(limits, EndCause::OrphanRecovered, now))
        }
    }
}

/// What a sweep would write down of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// It is over, and perhaps settles with it.
    End { end: End, settles: bool },
    /// It settles.
    Settle,
}

impl Sessions {
    /// What a sweep would write down now of sessions: of which the end, and which settle; those first that
    /// are due first.
    pub(crate) fn due_by(&self, schema: &Schema, now: Timestamp) -> Vec<(SessionId, Noticed)> {
        let rows = self.rows.read();
        let index = rows.side();
        let noticed = |id: SessionId| {
            let row = rows.get(&id)?;
            let limits = limits_of(schema, row.policy);
            let end = row.end_at(limits, now)?;
            let settles = row.is_settled(index.awaited(), limits, now);
            match row.stage {
                Stage::Open => Some((id, Noticed::End { end, settles })),
                Stage::Ended | Stage::Waiting => settles.then_some((id, Noticed::Settle)),
                Stage::Settled => None,
            }
        };
        index.due_by(now, usize::MAX).into_iter().filter_map(noticed).collect()
    }
}

impl Change<'_> {
    /// Its holder or an operator ends an open session.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotFound`], [`Error::SessionEnded`], [`Error::Fenced`].
    pub(crate) fn end(&mut self, end: &EndSession<'_>) -> Result<End> {
        match end.by {
            EndedBy::Holder(fence) => {
                let slot = self.held(end.session, fence)?;
                let end = self.slab.row(slot).course.closed(self.limits(slot), self.at.now);
                Ok(self.put_end(slot, end))
            }
            EndedBy::Operator { reason } => {
                let slot = self.open(end.session)?;
                Ok(self.end_by_someone(slot, EndCause::Forced { reason: reason.to_owned() }))
            }
        }
    }

    /// Every open session ends, with the database.
    pub(crate) fn end_all(&mut self) {
        for slot in self.open_slots() {
            if !self.end_if_over(slot) {
                self.end_by_someone(slot, EndCause::Shutdown);
            }
        }
    }

    /// Writes down what time has done by now, to so many sessions at most, those that it did it to first
    /// first; and lets as many leave.
    pub(crate) fn sweep(&mut self, count_max: usize) {
        for id in self.slab.side().due_by(self.at.now, count_max) {
            let slot = self.slab.find(&id).expect("the index names live rows");
            self.look_after(slot);
        }
        self.let_leave(count_max);
    }

    /// The database was opened: nobody holds any session, and the policy says what becomes of them.
    pub(crate) fn open_all(&mut self, plan: Vec<(SessionId, Recovery)>, policy: OpenPolicy) {
        let now = self.at.now;
        self.sessions.opened_at_ns.store(now.as_nanos(), Ordering::Relaxed);
        for (id, recovery) in plan {
            let slot = self.slab.find(&id).expect("what was planned for is there");
            match recovery {
                Recovery::End(end) if end.cause.is_time_driven() => {
                    assert!(self.end_if_over(slot), "what was planned to be over is over");
                }
                Recovery::End(end) => {
                    self.put_end(slot, end);
                }
                Recovery::Restore => {
                    if policy == OpenPolicy::RestoreAll {
                        self.go_on(slot, |row| row.course.touch(now));
                    }
                    let user = self.slab.row(slot).user;
                    self.tell(user, SessionEvent::Restored { id });
                }
            }
        }
        self.let_leave(usize::MAX);
    }

    /// Engine time is set back to `to`. What has ended by the last operation has ended for good; of
    /// the rest nothing was later than `to`, so some of it may be open again.
    pub(crate) fn set_back(&mut self, to: Timestamp) {
        let last_operation = self.at.operation_time;
        // What is over by then is told of now: nothing would notice it later.
        self.at.now = last_operation;
        self.sweep(usize::MAX);
        let mut ids: Vec<SessionId> = self.slab.iter().map(|(_, row)| row.id).collect();
        ids.sort_unstable();
        for id in ids {
            let slot = self.slab.find(&id).expect("it was just listed");
            let limits = self.limits(slot);
            let row = self.slab.row(slot);
            let decided = row.end.clone().or_else(|| {
                row.course.is_over(limits, last_operation).then(|| {
                    let end = row.course.overdue_end(limits);
                    Box::new(Decided { end, when: row.course.deadline(limits) })
                })
            });
            let index = self.slab.side();
            match decided {
                Some(decided) if row.settles_by(index.awaited(), limits, last_operation) => {
                    // It has settled for good, whatever the time is now.
                    match index.is_wanted(id) {
                        true => self.rewrite(slot, |row| {
                            row.end.get_or_insert(decided);
                            row.stage = Stage::Settled;
                        }),
                        false => self.leave(slot),
                    }
                    continue;
                }
                // To be over must not depend on when it is looked at, now that time is not what it was.
                Some(decided) if to < last_operation => self.rewrite(slot, |row| {
                    row.end.get_or_insert(decided);
                    row.stage = row.stage.max(Stage::Ended);
                }),
                Some(_) => {}
                None => self.rewrite(slot, |row| {
                    match to < last_operation {
                        true => row.course.clamp(to),
                        // An open may have let its idle time begin anew, later than any operation.
                        false => row.course.calm(to),
                    }
                    if !row.course.is_over(limits, to) {
                        row.stage = Stage::Open;
                    }
                }),
            }
            // It takes late records again, which those who process it have not seen.
            if self.slab.row(slot).stage > Stage::Ended
                && self.slab.row(slot).settles_at(limits) > to
            {
                self.rewrite(slot, |row| row.stage = Stage::Ended);
            }
        }
        if to < last_operation {
            let policies = self.at.schema.session_policies();
            self.sessions.rates.clamp(to, last_operation, policies);
        }
    }

    /// What is in a session is forgotten.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOpen`], [`Error::SessionEnded`] while it may still be written to. [`DecodeError`]
    /// when what is to be known of it afterwards is nothing that pruning makes.
    pub(crate) fn prune(&mut self, prune: &PruneSession<'_>) -> Result<Result<()>, DecodeError> {
        let id = prune.session;
        let row = SessionRow::from_canonical(prune.row)?;
        let policy = self.at.schema.session_policy_at(row.policy);
        let known = policy.is_some_and(|policy| row.course.is_sound(Limits::of(policy)));
        let newest = prune.records.last().copied().unwrap_or_default().max(id.get());
        if row.id != id || !row.pruned || row.head != 0 || !known || newest >= self.at.operation {
            return Err(DecodeError::Malformed("a pruned session that pruning does not make"));
        }
        if let Some(slot) = self.slab.find(&id) {
            self.look_after(slot);
        }
        if let Some(row) = self.slab.get(&id) {
            let end = row.end_at(limits_of(self.at.schema, row.policy), self.at.now);
            return Ok(Err(match end {
                Some(end) => Error::SessionEnded { id, end: Box::new(end) },
                None => Error::SessionOpen(id),
            }));
        }
        prune.records.iter().for_each(|&record| self.sessions.records.put(record, None));
        self.sessions.ended.put(id.get(), Some(prune.row.to_vec()));
        self.tell(row.user, SessionEvent::Pruned { id });
        Ok(Ok(()))
    }

    /// Whether time has ended an open session; that is noticed then, and the row may be gone.
    pub(super) fn end_if_over(&mut self, slot: Slot) -> bool {
        let is_over = self.slab.row(slot).course.is_over(self.limits(slot), self.at.now);
        if is_over {
            self.look_after(slot);
        }
        is_over
    }

    /// Someone who does not hold an open session ends it now.
    pub(super) fn end_by_someone(&mut self, slot: Slot, cause: EndCause) -> End {
        let end = self.slab.row(slot).course.end_by(self.limits(slot), cause, self.at.now);
        self.put_end(slot, end)
    }

    fn put_end(&mut self, slot: Slot, end: End) -> End {
        let (row, _) = self.slab.row_mut(slot);
        assert!(row.end.is_none(), "a session ends once");
        row.end = Some(Box::new(Decided { end: end.clone(), when: self.at.now }));
        self.look_after(slot);
        end
    }

    /// Brings a session to the stage that it is in by now. Its row may be gone afterwards.
    pub(super) fn look_after(&mut self, slot: Slot) {
        let At { now, operation_time, .. } = self.at;
        let limits = self.limits(slot);
        let row = self.slab.row(slot);
        let (id, user) = (row.id, row.user);
        let Some(end) = row.end_at(limits, now) else { return };
        let before = row.stage;
        let stage = if row.is_settled(self.slab.side().awaited(), limits, now) {
            Stage::Settled
        } else if row.settles_at(limits) <= now {
            Stage::Waiting
        } else {
            Stage::Ended
        };
        let stage = before.max(stage);
        if stage != before {
            self.rewrite(slot, |row| row.stage = stage);
        }
        if before == Stage::Open {
            self.tell(user, SessionEvent::Ended { id, end });
        }
        if stage == Stage::Settled {
            if before != Stage::Settled {
                self.tell(user, SessionEvent::Settled { id });
            }
            if self.slab.row(slot).due <= operation_time && !self.slab.side().is_wanted(id) {
                self.leave(slot);
            }
        }
    }

    /// Moves to the table of ended sessions what an operation has come after, so many rows at most.
    pub(super) fn let_leave(&mut self, count_max: usize) {
        for id in self.slab.side().leaving_by(self.at.operation_time, count_max) {
            let slot = self.slab.find(&id).expect("the index names live rows");
            self.leave(slot);
        }
    }

    fn leave(&mut self, slot: Slot) {
        let (row, index) = self.slab.row_mut(slot);
        index.remove(row);
        let (id, bytes) = (row.id, row.canonical_bytes());
        self.slab.remove(&id);
        self.sessions.ended.put(id.get(), Some(bytes));
    }

    /// Changes a row in any way.
    pub(super) fn rewrite(&mut self, slot: Slot, change: impl FnOnce(&mut SessionRow)) {
        let limits = self.limits(slot);
        let (row, index) = self.slab.row_mut(slot);
        index.remove(row);
        change(row);
        row.due = row.next_due(limits);
        index.insert(row);
    }

    fn open_slots(&self) -> Vec<Slot> {
        let mut ids: Vec<SessionId> = self.slab.side().all_open().collect();
        ids.sort_unstable();
        ids.iter().map(|id| self.slab.find(id).expect("the index names live rows")).collect()
    }
}
