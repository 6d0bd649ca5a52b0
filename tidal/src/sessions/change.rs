//! What a record of the log does to a session that goes on.
//!
//! Knows: what is refused, and what a write changes. Must not know: what a signal counts for; how sessions
//! end (`ends`), and who waits for them then (`processing`).
//!
//! A signal is decided on first and written down afterwards, because what comes with it may still be
//! refused: then nothing of it happens.

use super::content::{Content, What, first_hash, next_hash};
use super::course::{Course, Limits};
use super::event::{Happened, SessionEvent};
use super::rates::RateKey;
use super::row::{Counts, Index, SessionRow, Stage};
use super::{Sessions, in_lane, limits_of};
use crate::end::EndCause;
use crate::error::{Error, Result};
use crate::ids::{Fence, SessionId, SignalTypeId, Timestamp, UserId};
use crate::record::{Annotate, Conflict, SessionSignal, SignalEvent, StartSession, Touch};
use crate::schema::{Lane, Schema};
use crate::seq::Seq;
use crate::sync::RwLockWriteGuard;
use crate::table::{Slab, Slot};

/// Where in the log something happens, and under which rules.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) seq: Seq,
    pub(crate) now: Timestamp,
    /// The number of the operation that this is; of a control frame, that of the last one.
    pub(crate) operation: u64,
    /// The engine time of the last operation, this one included. What time has ended by then has ended
    /// for good.
    pub(crate) operation_time: Timestamp,
    pub(crate) incarnation: u64,
    pub(crate) schema: &'a Schema,
}

/// Somebody holds a session from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) id: SessionId,
    pub(crate) user: UserId,
    pub(crate) fence: Fence,
    /// It had begun before.
    pub(crate) joined: bool,
    pub(crate) started: Timestamp,
}

/// That a signal is allowed.
pub(crate) struct Permit {
    slot: Slot,
    /// Where the policy has a limit: who it holds for, and when all signals are paid for then.
    paid: Option<(RateKey, Timestamp)>,
}

/// A change of sessions in the making.
pub(crate) struct Change<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) slab: RwLockWriteGuard<'a, Slab<SessionRow>>,
    pub(super) at: At<'a>,
    pub(super) happened: &'a mut Vec<Happened>,
}

impl Sessions {
    /// Begins a change. What happens is appended to `happened`.
    pub(crate) fn change<'a>(&'a self, at: At<'a>, happened: &'a mut Vec<Happened>) -> Change<'a> {
        Change { sessions: self, slab: self.rows.write(), at, happened }
    }
}

impl Change<'_> {
    /// A session begins, or, where that is wanted, the one in its lane gets another holder.
    ///
    /// # Errors
    ///
    /// [`Error::LaneBusy`].
    pub(crate) fn start(&mut self, new: &StartSession<'_>) -> Result<Started> {
        let id = SessionId::new(self.at.operation);
        let lane = self.at.schema.session_lane();
        // Where there may be many they are no concern of a start.
        if lane != Lane::Overlapping || new.conflict == Conflict::Join {
            match (new.conflict, self.newest_in_lane(new)) {
                (_, None) => {}
                (Conflict::Join, Some(slot)) => return Ok(self.grant(slot)),
                (Conflict::Reject, Some(slot)) => {
                    return Err(Error::LaneBusy { by: self.slab.row(slot).id });
                }
                (Conflict::EndPrevious, Some(slot)) => {
                    self.end_by_someone(slot, EndCause::Superseded { by: id });
                }
            }
        }
        self.let_leave(LEAVING_PER_START);
        Ok(self.insert(id, new))
    }

    /// The newest session of a lane that is open. Those after it are over, and that is noticed.
    fn newest_in_lane(&mut self, new: &StartSession<'_>) -> Option<Slot> {
        let others = in_lane(&self.slab, self.at.schema.session_lane(), new.user, new.agent);
        others.into_iter().rev().find_map(|other| {
            let slot = self.slab.find(&other).expect("the index names live rows");
            (!self.end_if_over(slot)).then_some(slot)
        })
    }

    fn insert(&mut self, id: SessionId, new: &StartSession<'_>) -> Started {
        let At { now, seq, incarnation, .. } = self.at;
        let fence = Fence { incarnation, grant: seq.get() };
        let mut row = SessionRow {
            id,
            user: new.user,
            agent: new.agent.into(),
            policy: new.policy,
            course: Course::starting(now),
            head: 0,
            counts: Counts::default(),
            hash: first_hash(new.user, new.agent, new.policy, now),
            end: None,
            processed: Box::default(),
            failed: None,
            pruned: false,
            fence,
            stage: Stage::Open,
            due: Timestamp::EPOCH,
        };
        let limits = limits_of(self.at.schema, new.policy);
        row.due = row.next_due(limits);
        self.slab.side_mut().insert(&row);
        self.slab.insert_new(row);
        self.tell(new.user, SessionEvent::Started { id });
        Started { id, user: new.user, fence, joined: false, started: now }
    }

    /// Whoever asks holds an open session from now on. That is no activity.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotFound`], [`Error::SessionEnded`].
    pub(crate) fn resume(&mut self, id: SessionId) -> Result<Started> {
        let slot = self.open(id)?;
        Ok(self.grant(slot))
    }

    fn grant(&mut self, slot: Slot) -> Started {
        let fence = Fence { incarnation: self.at.incarnation, grant: self.at.seq.get() };
        let (row, _) = self.slab.row_mut(slot);
        row.fence = fence;
        let (id, user, started) = (row.id, row.user, row.course.started);
        self.tell(user, SessionEvent::Resumed { id });
        Started { id, user, fence, joined: true, started }
    }

    /// A session goes on; until when, if nothing more comes.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotFound`], [`Error::SessionEnded`], [`Error::Fenced`].
    pub(crate) fn touch(&mut self, touch: &Touch) -> Result<Timestamp> {
        let slot = self.held(touch.session, touch.fence)?;
        let now = self.at.now;
        let limits = self.limits(slot);
        self.go_on(slot, |row| match touch.extend_ns {
            Some(by_ns) => row.course.extend(now, by_ns),
            None => row.course.touch(now),
        });
        Ok(self.slab.row(slot).course.deadline(limits))
    }

    /// A note is taken.
    ///
    /// # Errors
    ///
    /// Those of [`touch`](Self::touch).
    pub(crate) fn annotate(&mut self, note: &Annotate<'_>) -> Result<()> {
        let slot = self.held(note.session, note.fence)?;
        let now = self.at.now;
        let what = What::Annotation(note.text);
        let content = Content { previous: 0, at: now, arrival: now, entity: note.entity, what };
        self.write(slot, content, true);
        Ok(())
    }

    /// Whether the sender may write to the session now: its holder while it is open, and anyone late ones
    /// once it has ended, for as long as its policy says.
    ///
    /// # Errors
    ///
    /// Those of [`touch`](Self::touch); of late signals [`Error::SessionOpen`] and [`Error::TooLate`].
    pub(crate) fn admit(&mut self, signal: &SessionSignal<'_>) -> Result<Admitted> {
        let slot = match signal.fence {
            Some(fence) => self.held(signal.session, fence)?,
            None => self.taking_late(signal.session)?,
        };
        let row = self.slab.row(slot);
        Ok(Admitted { slot, user: row.user })
    }

    /// Whether the session's policy lets the signal through. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::SignalForbidden`], [`Error::RateLimited`].
    pub(crate) fn permit(&self, admitted: &Admitted, signal: SignalTypeId) -> Result<Permit> {
        let row = self.slab.row(admitted.slot);
        let schema = self.at.schema;
        let policy = schema.session_policy_at(row.policy).expect("a session has a policy");
        let name = schema.signal(signal).map_or("", |signal| signal.name());
        if !policy.allows(name) {
            let (policy, signal) = (policy.name.clone(), name.to_owned());
            return Err(Error::SignalForbidden { policy, signal });
        }
        let Some(limit) = policy.rate_limit else {
            return Ok(Permit { slot: admitted.slot, paid: None });
        };
        let key = RateKey { user: row.user, policy: row.policy, agent: row.agent.clone() };
        match self.sessions.rates.allow(&key, limit, self.at.now) {
            Ok(paid_at) => Ok(Permit { slot: admitted.slot, paid: Some((key, paid_at)) }),
            Err(wait_ns) => {
                let retry_after_ms = wait_ns.div_ceil(NS_PER_MS);
                Err(Error::RateLimited { id: row.id, retry_after_ms })
            }
        }
    }

    /// Writes a signal down that was permitted, before anything else changed.
    pub(crate) fn signal(
        &mut self,
        permit: Permit,
        signal: &SessionSignal<'_>,
        event: &SignalEvent,
    ) {
        let now = self.at.now;
        let is_late = signal.fence.is_none();
        let what = What::Signal {
            signal: event.signal,
            weight: event.weight,
            span_ns: signal.span_ns,
            annotation: signal.annotation,
            is_late,
        };
        let content =
            Content { previous: 0, at: event.at, arrival: now, entity: event.entity, what };
        self.write(permit.slot, content, !is_late);
        if let Some((key, paid_at)) = permit.paid {
            self.sessions.rates.take(key, paid_at, now);
        }
    }

    /// Appends a record. One that is on time is activity, and evidence of where the session ends.
    fn write(&mut self, slot: Slot, content: Content<'_>, on_time: bool) {
        let record = self.at.operation;
        let content = Content { previous: self.slab.row(slot).head, ..content };
        let bytes = content.encode();
        let limits = self.limits(slot);
        let change = |row: &mut SessionRow| {
            row.head = record;
            row.hash = next_hash(&row.hash, &bytes);
            count(&mut row.counts, &content.what);
            if on_time {
                let span_ns = match content.what {
                    What::Signal { span_ns, .. } => span_ns,
                    What::Annotation(_) => 0,
                };
                row.course.witness(limits, record, (content.at, span_ns), content.arrival);
                row.course.touch(content.arrival);
            }
        };
        self.go_on(slot, change);
        self.sessions.records.put(record, Some(bytes));
    }

    /// Changes a row, whose time may come later for it.
    pub(super) fn go_on(&mut self, slot: Slot, change: impl FnOnce(&mut SessionRow)) {
        let limits = self.limits(slot);
        let (row, index) = self.slab.row_mut(slot);
        let before = row.due;
        change(row);
        row.due = row.next_due(limits);
        reindex(index, row, before);
        index.list(row);
    }

    /// An open session.
    pub(super) fn open(&mut self, id: SessionId) -> Result<Slot> {
        let slot = self.slab.find(&id).ok_or(Error::SessionNotFound(id))?;
        let row = self.slab.row(slot);
        match row.end_at(self.limits(slot), self.at.now) {
            None => Ok(slot),
            Some(end) => {
                self.look_after(slot);
                Err(Error::SessionEnded { id, end: Box::new(end) })
            }
        }
    }

    /// An open session that is held with this fence.
    pub(super) fn held(&mut self, id: SessionId, held: Fence) -> Result<Slot> {
        let slot = self.open(id)?;
        let current = self.slab.row(slot).fence_in(self.at.incarnation);
        if held == current && held.grant > 0 {
            return Ok(slot);
        }
        Err(Error::Fenced { id, held, current })
    }

    /// A session that has ended and takes late records.
    fn taking_late(&mut self, id: SessionId) -> Result<Slot> {
        let slot = self.slab.find(&id).ok_or(Error::SessionNotFound(id))?;
        let (limits, now) = (self.limits(slot), self.at.now);
        if self.slab.row(slot).end_at(limits, now).is_none() {
            return Err(Error::SessionOpen(id));
        }
        let settles = self.slab.row(slot).settles_at(limits);
        if now < settles && self.slab.row(slot).stage != Stage::Settled {
            return Ok(slot);
        }
        self.look_after(slot);
        let by_ms = now.as_nanos().saturating_sub(settles.as_nanos()) / NS_PER_MS;
        Err(Error::TooLate { id, by_ms })
    }

    pub(super) fn limits(&self, slot: Slot) -> Limits {
        limits_of(self.at.schema, self.slab.row(slot).policy)
    }

    pub(crate) fn tell(&mut self, user: UserId, event: SessionEvent) {
        self.happened.push(Happened { seq: self.at.seq, user, event });
    }
}

/// A session that may be written to.
pub(crate) struct Admitted {
    slot: Slot,
    pub(crate) user: UserId,
}

pub(super) const NS_PER_MS: u64 = 1_000_000;

/// How many sessions that have settled leave with a start: more than come.
const LEAVING_PER_START: usize = 16;

fn count(counts: &mut Counts, what: &What<'_>) {
    counts.records += 1;
    match what {
        What::Signal { annotation, is_late, .. } => {
            counts.signals += u64::from(!is_late);
            counts.late += u64::from(*is_late);
            counts.annotations += u64::from(annotation.is_some());
        }
        What::Annotation(_) => counts.annotations += 1,
    }
}

/// A row whose stage is as it was is due at another time.
fn reindex(index: &mut Index, row: &SessionRow, before: Timestamp) {
    match row.stage {
        Stage::Open | Stage::Ended => index.postpone(row.id, before, row.due),
        Stage::Waiting | Stage::Settled => {
            assert_eq!(row.due, before, "what takes no records is not due at another time");
        }
    }
}
