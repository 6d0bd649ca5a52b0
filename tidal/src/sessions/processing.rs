//! Who is to see a session that is over, whom it waits for before it settles, and what becomes of it when
//! they give up.
//!
//! Knows: which processors have seen a session, which of them are required of it, and that it has failed.
//! Must not know: what a processor does, how often it has tried.
//!
//! ```text
//! requires(s, p)  = p is required, and was registered before s began, or before s was over
//! done(s, p)      = p has seen the newest record of s, in whichever version
//! settled(s, now) = over, its grace has passed, not failed, everyone that it requires is done
//! wants(p, s)     = s is over, that was noticed, it has not failed, and p, in its version of now, has
//!                   neither seen its newest record nor given it up
//! ```
//!
//! **A row stays hot as long as any processor wants the session**; whether that one is required decides only
//! whether the session settles by it, and fails by it. So a processor finds here whatever was hot when its
//! version was registered, or came later; what had left before is in the table of ended sessions, under a
//! number below that registration's, and a walk through these finds it. One that is met twice has an
//! outcome. A processor that never works keeps rows in memory.
//!
//! Once a session has settled it stays so, also when the clock is set back: it takes no records any more, and
//! a processor that is registered later is not required of it. All of this follows from rows, from the list
//! of processors, and from the time at which it is asked. Whether anyone has noticed makes no difference: before
//! a processor is registered, or something is written down of one, whatever may leave does.

use std::time::Duration;

use super::change::Change;
use super::course::Limits;
use super::event::{FailCause, SessionEvent};
use super::row::{SessionRow, Stage};
use super::{Sessions, limits_of};
use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{ProcessorId, SessionId, Timestamp, UserId, duration_nanos};
use crate::schema::Schema;
use crate::table::{Slab, Slot};

/// A processor, as sessions know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub(crate) processor: ProcessorId,
    pub(crate) version: u32,
    /// Sessions do not settle without it.
    pub(crate) is_required: bool,
    /// The operation that registered it.
    pub(crate) registered_op: u64,
    /// The engine time of that.
    pub(crate) registered_at: Timestamp,
}

/// How much of a session a processor has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processed {
    pub(crate) processor: ProcessorId,
    /// The newest record that it has seen, or 0.
    pub(crate) head: u64,
    /// The version that it had.
    pub(crate) version: u32,
    /// It has not seen it, and will not try again in this version.
    pub(crate) given_up: bool,
}

/// That the processing of a session was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) at: Timestamp,
    pub(crate) cause: FailCause,
}

/// What a processor has yet to see: how many sessions, and when those with the lowest and the highest
/// number were over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backlog {
    pub(crate) len: u64,
    pub(crate) oldest: Option<(SessionId, Timestamp)>,
    pub(crate) newest: Option<(SessionId, Timestamp)>,
}

/// How a session stands, for those who process it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has settled, if there ever was one: its row has left or is about to.
    Away,
    /// It is not over.
    Open,
    /// It is over, and has not settled.
    Ended { user: UserId, head: u64 },
    /// Its processing was given up.
    Failed { user: UserId },
}

/// What a session has at stake in the work of a processor on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stake {
    /// It does not settle before the processor is done.
    Awaited,
    /// It has settled, or does so without: nobody waits for what comes of it.
    Unawaited,
    /// Nothing comes of it: the session's processing was given up, or it is open again.
    None,
}

/// Sessions whose processing was given up lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedLately {
    /// How many; one more than was asked for if there are more.
    pub(crate) len: usize,
    /// The last one of them.
    pub(crate) last: Option<(SessionId, Failed)>,
}

impl SessionRow {
    /// The first moment that does not belong to it any more, once it is over, or the last that does.
    fn over_at(&self, limits: Limits) -> Timestamp {
        let decided = self.end.as_ref().map(|decided| decided.when);
        decided.unwrap_or_else(|| self.course.deadline(limits))
    }

    /// Whether it does not settle without a processor, if it is over.
    fn requires(&self, it: &Awaited, limits: Limits) -> bool {
        let was_there = it.registered_op < self.id.get() || it.registered_at < self.over_at(limits);
        it.is_required && was_there
    }

    fn is_done(&self, processor: ProcessorId) -> bool {
        let is_done =
            |it: &Processed| it.processor == processor && it.head == self.head && !it.given_up;
        self.processed.iter().any(is_done)
    }

    /// Whether it was noticed that it is over, and a processor is to see it.
    pub(super) fn is_wanted_by(&self, it: &Awaited) -> bool {
        let has_seen = |seen: &Processed| {
            (seen.processor, seen.version) == (it.processor, it.version)
                && (seen.given_up || seen.head == self.head)
        };
        self.stage != Stage::Open && self.failed.is_none() && !self.processed.iter().any(has_seen)
    }

    /// What was written down of these is as if it had never been.
    fn forget_processed(&mut self, is_meant: impl Fn(&Processed) -> bool) {
        let mut list = std::mem::take(&mut self.processed).into_vec();
        list.retain(|it| !is_meant(it));
        self.processed = list.into();
    }

    /// Whether it has settled, if it is over, as far as time and processors say.
    pub(super) fn settles_by(&self, awaited: &[Awaited], limits: Limits, now: Timestamp) -> bool {
        let is_missing = |it: &Awaited| self.requires(it, limits) && !self.is_done(it.processor);
        self.settles_at(limits) <= now && self.failed.is_none() && !awaited.iter().any(is_missing)
    }

    /// Whether it has settled, if it is over. One that has stays so.
    pub(super) fn is_settled(&self, awaited: &[Awaited], limits: Limits, now: Timestamp) -> bool {
        self.stage == Stage::Settled || self.settles_by(awaited, limits, now)
    }
}

impl Sessions {
    /// The processors, as sessions know them.
    pub(crate) fn awaited(&self) -> Vec<Awaited> {
        self.rows.read().side().awaited().to_vec()
    }

    /// Hot sessions that a processor wants, by ascending id. One that time has ended is among them once that
    /// was noticed.
    pub(crate) fn wanted_by(
        &self,
        processor: ProcessorId,
        count_max: usize,
        mut is_meant: impl FnMut(SessionId) -> bool,
    ) -> Vec<SessionId> {
        let rows = self.rows.read();
        let ids = rows.side().wanted_by(processor).into_iter().flatten().copied();
        ids.filter(|&id| is_meant(id)).take(count_max).collect()
    }

    /// What a processor has yet to see in memory.
    pub(crate) fn backlog(&self, processor: ProcessorId, schema: &Schema) -> Backlog {
        let rows = self.rows.read();
        let Some(ids) = rows.side().wanted_by(processor) else { return Backlog::default() };
        let of = |id: Option<&SessionId>| {
            let row = rows.get(id?)?;
            Some((row.id, row.over_at(limits_of(schema, row.policy))))
        };
        Backlog { len: ids.len() as u64, oldest: of(ids.first()), newest: of(ids.last()) }
    }

    /// The sessions that have not settled, ascending. A pass over all hot rows.
    pub(crate) fn hot(&self) -> Vec<SessionId> {
        let mut hot: Vec<SessionId> = self.rows.read().iter().map(|(_, row)| row.id).collect();
        hot.sort_unstable();
        hot
    }

    /// The one with the lowest number of those that have not left memory. A pass over all hot rows.
    pub(crate) fn first_hot(&self) -> Option<SessionId> {
        self.rows.read().iter().map(|(_, row)| row.id).min()
    }

    /// How a session stands at a moment.
    pub(crate) fn standing(&self, id: SessionId, schema: &Schema, now: Timestamp) -> Standing {
        standing(&self.rows.read(), id, schema, now)
    }

    /// The sessions that have failed, by ascending id.
    pub(crate) fn failed(&self) -> Vec<(SessionId, Failed)> {
        let rows = self.rows.read();
        let of = |&id: &SessionId| Some((id, (**rows.get(&id)?.failed.as_ref()?).clone()));
        rows.side().failed().iter().filter_map(of).collect()
    }

    /// What sessions have at stake in the work on them, and how many records they have, if they are in memory.
    pub(crate) fn stakes(
        &self,
        work: &[(Timestamp, ProcessorId, SessionId)],
        schema: &Schema,
        now: Timestamp,
    ) -> Vec<(Stake, Option<u64>)> {
        let rows = self.rows.read();
        let of = |&(_, processor, id): &(Timestamp, ProcessorId, SessionId)| {
            let counts = rows.get(&id).map(|row| row.counts);
            let records = counts.map(|it| it.signals.saturating_add(it.annotations));
            (stake(&rows, (id, processor), schema, now), records)
        };
        work.iter().map(of).collect()
    }

    /// The sessions whose processing was given up at a moment or later, as far as they are not requeued; counts no
    /// further than `count_max`, and one more.
    pub(crate) fn failed_since(&self, since: Timestamp, count_max: usize) -> FailedLately {
        let rows = self.rows.read();
        let lately = rows.side().failed_since(since);
        let last = lately.clone().next_back();
        let last = last.and_then(|id| Some((id, (**rows.get(&id)?.failed.as_ref()?).clone())));
        FailedLately { len: lately.take(count_max.saturating_add(1)).count(), last }
    }

    /// Derives after a restore what depends on the processors, `last` being the last one that was ever
    /// registered.
    pub(crate) fn restore_awaited(
        &self,
        awaited: Vec<Awaited>,
        last: ProcessorId,
    ) -> Result<(), DecodeError> {
        let mut rows = self.rows.write();
        for (_, row) in rows.iter() {
            if row.processed.iter().any(|it| it.processor > last || it.head > row.head) {
                return Err(DecodeError::Malformed("a session that nobody processed so"));
            }
            if row.failed.is_some() && matches!(row.stage, Stage::Open | Stage::Settled) {
                return Err(DecodeError::Malformed("a session in a stage that it cannot be in"));
            }
        }
        let index = std::mem::take(rows.side_mut());
        *rows.side_mut() = index.awaiting(awaited, &rows);
        Ok(())
    }
}

fn standing(rows: &Slab<SessionRow>, id: SessionId, schema: &Schema, now: Timestamp) -> Standing {
    let Some(row) = rows.get(&id) else { return Standing::Away };
    let limits = limits_of(schema, row.policy);
    let user = row.user;
    match row.end_at(limits, now) {
        None => Standing::Open,
        Some(_) if row.is_settled(rows.side().awaited(), limits, now) => Standing::Away,
        Some(_) if row.failed.is_some() => Standing::Failed { user },
        Some(_) => Standing::Ended { user, head: row.head },
    }
}

fn stake(
    rows: &Slab<SessionRow>,
    (id, processor): (SessionId, ProcessorId),
    schema: &Schema,
    now: Timestamp,
) -> Stake {
    match standing(rows, id, schema, now) {
        Standing::Open | Standing::Failed { .. } => return Stake::None,
        Standing::Away => return Stake::Unawaited,
        Standing::Ended { .. } => {}
    }
    let row = rows.get(&id).expect("one that has not settled is hot");
    let limits = limits_of(schema, row.policy);
    let mut awaited = rows.side().awaited().iter();
    let waits = |it: &Awaited| it.processor == processor && row.requires(it, limits);
    match awaited.any(waits) && !row.is_done(processor) {
        true => Stake::Awaited,
        false => Stake::Unawaited,
    }
}

impl Change<'_> {
    /// What a session has at stake in the work of a processor on it.
    pub(crate) fn stake(&self, id: SessionId, processor: ProcessorId) -> Stake {
        stake(&self.slab, (id, processor), self.at.schema, self.at.now)
    }

    /// The processors, as sessions know them.
    pub(crate) fn awaited(&self) -> &[Awaited] {
        self.slab.side().awaited()
    }

    /// How a session stands now.
    pub(crate) fn standing(&self, id: SessionId) -> Standing {
        standing(&self.slab, id, self.at.schema, self.at.now)
    }

    /// Whether a session that is over and has not settled does not settle without a processor.
    pub(crate) fn requires(&self, id: SessionId, processor: ProcessorId) -> bool {
        let Standing::Ended { .. } = self.standing(id) else { return false };
        let slot = self.slab.find(&id).expect("one that has not settled is hot");
        let (row, limits) = (self.slab.row(slot), self.limits(slot));
        let mut awaited = self.slab.side().awaited().iter();
        awaited.any(|it| it.processor == processor && row.requires(it, limits))
    }

    /// A session that must be hot by now: one that may have left has.
    fn kept(&mut self, id: SessionId) -> Option<Slot> {
        let slot = self.slab.find(&id)?;
        self.look_after(slot);
        self.slab.find(&id)
    }

    /// The sessions that have failed because a processor gave them up are to be processed anew: it is another
    /// one now, or they do not wait for it any more.
    pub(crate) fn lift(&mut self, processor: &str) {
        let is_of = |id: &&SessionId| {
            let failed = self.slab.get(id).and_then(|row| row.failed.as_deref());
            failed.is_some_and(|failed| match &failed.cause {
                FailCause::Quarantined { processor: by } => by == processor,
                FailCause::TimedOut { .. } | FailCause::Reset { .. } => false,
            })
        };
        let ids: Vec<SessionId> = self.slab.side().failed().iter().filter(is_of).copied().collect();
        ids.into_iter().for_each(|id| {
            self.requeue(id);
        });
    }

    /// A processor has seen a session, or gives it up. Of one that has left nothing is written here.
    pub(crate) fn processed(&mut self, id: SessionId, processed: Processed) {
        let Some(slot) = self.kept(id) else { return };
        let row = self.slab.row(slot);
        if row.stage == Stage::Open || row.failed.is_some() {
            return;
        }
        self.rewrite(slot, |row| {
            let mut list = std::mem::take(&mut row.processed).into_vec();
            list.retain(|it| it.processor != processed.processor);
            let at = list.partition_point(|it| it.processor < processed.processor);
            list.insert(at, processed);
            row.processed = list.into();
        });
        self.look_after(slot);
    }

    /// A session is to be tried anew by those who gave it up.
    pub(crate) fn take_up(&mut self, id: SessionId) {
        let Some(slot) = self.kept(id) else { return };
        if self.slab.row(slot).processed.iter().any(|it| it.given_up) {
            self.rewrite(slot, |row| row.forget_processed(|it| it.given_up));
        }
    }

    /// A processor is gone, or begins anew: it has given up nothing. A walk would not find what is in memory.
    /// What it has seen it has an outcome of.
    pub(crate) fn take_up_all_of(&mut self, processor: ProcessorId) {
        let is_it = |it: &Processed| it.processor == processor && it.given_up;
        let gave_up = |row: &SessionRow| row.processed.iter().any(is_it);
        let of_it = self.slab.iter().filter(|(_, row)| gave_up(row)).map(|(slot, _)| slot);
        // Each is changed alone, so their order makes no difference.
        let slots: Vec<Slot> = of_it.collect();
        for slot in slots {
            self.rewrite(slot, |row| row.forget_processed(is_it));
        }
    }

    /// The processing of a session is given up; false where there is nothing to give up.
    pub(crate) fn fail(&mut self, id: SessionId, cause: FailCause) -> bool {
        let Standing::Ended { user, .. } = self.standing(id) else { return false };
        let slot = self.slab.find(&id).expect("one that has not settled is hot");
        // That it has ended is told before.
        self.look_after(slot);
        let at = self.at.now;
        let failed = Failed { at, cause: cause.clone() };
        self.rewrite(slot, |row| row.failed = Some(Box::new(failed)));
        self.tell(user, SessionEvent::Failed { id, cause });
        true
    }

    /// A session that has failed is to be processed anew; false where it has not.
    pub(crate) fn requeue(&mut self, id: SessionId) -> bool {
        let Standing::Failed { .. } = self.standing(id) else { return false };
        let slot = self.slab.find(&id).expect("one that has not settled is hot");
        let user = self.slab.row(slot).user;
        self.rewrite(slot, |row| row.failed = None);
        self.tell(user, SessionEvent::Requeued { id });
        self.look_after(slot);
        true
    }

    /// Whatever may leave does.
    pub(crate) fn let_all_leave(&mut self) {
        self.sweep(usize::MAX);
    }

    /// These are the processors from here on. What nobody wants any more leaves.
    pub(crate) fn set_awaited(&mut self, awaited: Vec<Awaited>) {
        let wanted = self.slab.side().wanted();
        let index = std::mem::take(self.slab.side_mut());
        *self.slab.side_mut() = index.awaiting(awaited, &self.slab);
        for id in wanted {
            let slot = self.slab.find(&id).expect("the index names live rows");
            self.look_after(slot);
        }
    }
}

/// Appends what is known of the processing of a session, as its row has it.
pub(super) fn put_processed(out: &mut Vec<u8>, processed: &[Processed]) {
    out.put_varint(processed.len() as u64);
    for it in processed {
        out.put_u8(it.processor.get());
        out.put_varint(it.head);
        out.put_varint(u64::from(it.version) << 1 | u64::from(it.given_up));
    }
}

pub(super) fn read_processed(reader: &mut Reader<'_>) -> Result<Box<[Processed]>, DecodeError> {
    let one = |reader: &mut Reader<'_>| {
        let (processor, head) = (ProcessorId::new(reader.u8()?), reader.varint()?);
        let both = reader.varint()?;
        let given_up = both & 1 == 1;
        let version = u32::try_from(both >> 1)
            .map_err(|_| DecodeError::Malformed("a version beyond 32 bits"))?;
        Ok(Processed { processor, head, version, given_up })
    };
    let count = reader.count(3)?;
    let list: Vec<Processed> = (0..count).map(|_| one(reader)).collect::<Result<_, _>>()?;
    let is_known = list.iter().all(|it| it.processor.get() > 0);
    if count == 0 || !is_known || !list.is_sorted_by(|one, next| one.processor < next.processor) {
        return Err(DecodeError::Malformed("processors of a session that are out of order"));
    }
    Ok(list.into())
}

pub(super) fn put_failed(out: &mut Vec<u8>, failed: &Failed) {
    out.put_u64(failed.at.as_nanos());
    put_cause(out, &failed.cause);
}

pub(super) fn read_failed(reader: &mut Reader<'_>) -> Result<Failed, DecodeError> {
    Ok(Failed { at: Timestamp::from_nanos(reader.u64()?), cause: read_cause(reader)? })
}

pub(super) fn put_cause(out: &mut Vec<u8>, cause: &FailCause) {
    match cause {
        FailCause::TimedOut { after, automatic } => {
            out.put_u8(0);
            out.put_varint(duration_nanos(*after));
            out.put_u8(u8::from(*automatic));
        }
        FailCause::Reset { by, reason } => {
            out.put_u8(1);
            out.put_bytes(by.as_bytes());
            out.put_bytes(reason.as_bytes());
        }
        FailCause::Quarantined { processor } => {
            out.put_u8(2);
            out.put_bytes(processor.as_bytes());
        }
    }
}

pub(super) fn read_cause(reader: &mut Reader<'_>) -> Result<FailCause, DecodeError> {
    match reader.u8()? {
        0 => {
            let after = Duration::from_nanos(reader.varint()?);
            match reader.u8()? {
                automatic @ (0 | 1) => Ok(FailCause::TimedOut { after, automatic: automatic == 1 }),
                _ => Err(DecodeError::Malformed("a time-out that is neither automatic nor not")),
            }
        }
        1 => Ok(FailCause::Reset { by: reader.str()?.into(), reason: reader.str()?.into() }),
        2 => Ok(FailCause::Quarantined { processor: reader.str()?.into() }),
        _ => Err(DecodeError::Malformed("a failure without a known cause")),
    }
}
