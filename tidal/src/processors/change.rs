//! What a record of the log does to processors, attempts and outcomes.
//!
//! Knows: which attempt counts. Must not know: whether a session may be processed.

use super::Processors;
use super::attempt::{AttemptRow, State};
use super::outcome::Outcome;
use super::row::{PROCESSORS_MAX, ProcessorRow};
use crate::codec::DecodeError;
use crate::error::{Error, Result};
use crate::ids::{AttemptId, ProcessorId, SessionId, Timestamp, UserId};
use crate::record::{BeginAttempt, CommitAttempt, FailAttempt, RegisterProcessor};
use crate::table::{Slab, Slot};

/// What becomes of an attempt that is said to have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is not the attempt that is running: nothing has changed.
    Fenced,
    /// There is to be another one, after so many.
    Again { user: UserId, count: u32 },
    /// There is to be no other one.
    Quarantined { user: UserId },
}

impl Processors {
    /// A processor is there from here on, as it says it is. One that was removed comes back under its
    /// number. Says whether it begins anew: then nothing that it tried before counts, and it walks through all
    /// that had left by now once more.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](Error::TooLarge) when there are too many.
    pub(crate) fn register(
        &self,
        new: &RegisterProcessor<'_>,
        (operation, now): (u64, Timestamp),
    ) -> Result<(ProcessorId, bool)> {
        let mut rows = self.rows.write();
        let known = rows.iter().find(|(_, row)| *row.name == *new.name).map(|(slot, _)| slot);
        let Some(slot) = known else {
            let size = rows.len() as u64 + 1;
            if size > u64::from(PROCESSORS_MAX) {
                let (what, limit) = ("the database with this one", u64::from(PROCESSORS_MAX));
                return Err(Error::TooLarge { what, size, limit, unit: "names of processors" });
            }
            let number = ProcessorId::new(size as u8);
            rows.insert_new(ProcessorRow {
                number,
                name: new.name.into(),
                version: new.version,
                required: new.required,
                removed: false,
                registered_at: now,
                registered_op: operation,
                bumped_op: operation,
                backfilled: 0,
                observed_at: Timestamp::EPOCH,
            });
            return Ok((number, false));
        };
        let row = rows.row(slot);
        let number = row.number;
        // Sessions that have settled without it do not wait for it.
        let is_new = row.removed || (new.required && !row.required);
        // What was given up gets another chance, also where sessions do not fail by it any more.
        let begins_anew =
            row.removed || row.version != new.version || (row.required && !new.required);
        if !is_new && !begins_anew {
            return Ok((number, false));
        }
        let (row, ()) = rows.row_mut(slot);
        (row.version, row.required, row.removed) = (new.version, new.required, false);
        if is_new {
            (row.registered_at, row.registered_op) = (now, operation);
        }
        if begins_anew {
            (row.bumped_op, row.backfilled) = (operation, 0);
            drop(rows);
            self.forget_all_of(number);
            // Nor is there a run after which the next one would have to wait.
            self.forget_job(number);
        }
        Ok((number, begins_anew))
    }

    /// A processor is there no more; its number. What it was trying is forgotten, what it has made stays.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName).
    pub(crate) fn remove(&self, name: &str) -> Result<ProcessorId> {
        let mut rows = self.rows.write();
        let found = rows.iter().find(|(_, row)| *row.name == *name && !row.removed);
        let Some(slot) = found.map(|(slot, _)| slot) else {
            let there = rows.iter().filter(|(_, row)| !row.removed).map(|(_, row)| &*row.name);
            return Err(Error::unknown("processor", name, there));
        };
        let (row, ()) = rows.row_mut(slot);
        row.removed = true;
        let number = row.number;
        drop(rows);
        self.forget_all_of(number);
        self.forget_job(number);
        Ok(number)
    }

    fn forget_all_of(&self, processor: ProcessorId) {
        let mut attempts = self.attempts.write();
        let of_it = attempts.iter().filter(|(_, row)| row.key.1 == processor);
        let keys: Vec<_> = of_it.map(|(_, row)| row.key).collect();
        keys.iter().for_each(|key| drop(forget(&mut attempts, key)));
    }

    /// A processor that is there; `None` if it was removed.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when there never was one of this number.
    pub(crate) fn live(&self, processor: ProcessorId) -> Result<Option<ProcessorRow>, DecodeError> {
        let row = self.get(processor);
        let row = row.ok_or(DecodeError::Malformed("a processor that was never registered"))?;
        Ok(Some(row).filter(|row| !row.removed))
    }

    /// Begins an attempt, if there were so many before, none is running, and there is to be one. It is
    /// named by the operation that begins it.
    pub(crate) fn begin(
        &self,
        processor: ProcessorId,
        item: &BeginAttempt,
        (id, incarnation, now): (AttemptId, u64, Timestamp),
    ) -> bool {
        let mut attempts = self.attempts.write();
        let key = (item.session, processor);
        let BeginAttempt { user, retry_ns, is_last, .. } = *item;
        let Some(count) = item.count.checked_add(1) else { return false };
        let state = State::Started { id, at: now, incarnation, retry_ns, is_last };
        match attempts.find(&key) {
            None if item.count > 0 => return false,
            None => {
                let row = AttemptRow { key, user, count, state };
                attempts.side_mut().insert(&row);
                attempts.insert_new(row);
            }
            Some(slot) => {
                let row = attempts.row(slot);
                if row.count != item.count
                    || row.is_running(incarnation)
                    || row.is_quarantined(incarnation)
                {
                    return false;
                }
                rewrite(&mut attempts, slot, |row| (row.count, row.state) = (count, state));
            }
        }
        true
    }

    /// Whether an attempt is the one that is running.
    pub(crate) fn is_running(
        &self,
        processor: ProcessorId,
        session: SessionId,
        (attempt, incarnation): (AttemptId, u64),
    ) -> bool {
        let attempts = self.attempts.read();
        let row = attempts.get(&(session, processor));
        row.is_some_and(|row| row.begun() == Some(attempt) && row.is_running(incarnation))
    }

    /// An attempt that is running has succeeded: its outcome takes the place of the one before.
    pub(crate) fn commit(
        &self,
        (processor, version): (ProcessorId, u32),
        item: &CommitAttempt<'_>,
        now: Timestamp,
    ) {
        let row = forget(&mut self.attempts.write(), &(item.session, processor));
        let row = row.expect("what is committed is running");
        let outcome = Outcome {
            head: item.head,
            hash: item.hash,
            version,
            observed_at: item.observed_at,
            committed_at: now,
            items: item.items,
            attempts: row.count,
            outputs: item.outputs.clone(),
        };
        let key = Outcome::key(item.session, processor);
        self.outcomes.put(key, Some(outcome.encode()));
    }

    /// A processor has walked through the sessions that had left before its version came, up to this one,
    /// and has seen at a moment what it has put down outcomes of, if of anything.
    pub(crate) fn advance(&self, processor: ProcessorId, through: u64, seen: Option<Timestamp>) {
        let mut rows = self.rows.write();
        let Some(slot) = rows.find(&processor) else { return };
        let row = rows.row(slot);
        let backfilled = row.backfilled.max(through.min(row.bumped_op));
        let observed_at = seen.map_or(row.observed_at, |seen| row.observed_at.max(seen));
        if (backfilled, observed_at) != (row.backfilled, row.observed_at) {
            let (row, ()) = rows.row_mut(slot);
            (row.backfilled, row.observed_at) = (backfilled, observed_at);
        }
    }

    /// An attempt has failed, or has ended with its process.
    pub(crate) fn fail(
        &self,
        processor: ProcessorId,
        item: &FailAttempt<'_>,
        now: Timestamp,
    ) -> Verdict {
        let mut attempts = self.attempts.write();
        let Some(slot) = attempts.find(&(item.session, processor)) else { return Verdict::Fenced };
        let row = attempts.row(slot);
        if row.begun() != Some(item.attempt) {
            return Verdict::Fenced;
        }
        let (user, count, error) = (row.user, row.count, item.error.into());
        let state = match item.is_last {
            true => State::Quarantined { at: now, error },
            false => State::Waiting { next: item.next, error },
        };
        rewrite(&mut attempts, slot, |row| row.state = state);
        match item.is_last {
            true => Verdict::Quarantined { user },
            false => Verdict::Again { user, count },
        }
    }

    /// Everyone who has tried a session is to try it again at once, as if they never had, but for
    /// those who are trying it now, unless they are to be stopped. Whose session it is, if there was
    /// anything to do.
    ///
    /// The rows stay: a session that has left is offered by them alone.
    pub(crate) fn requeue(
        &self,
        session: SessionId,
        incarnation: u64,
        stops: bool,
    ) -> Option<UserId> {
        let mut attempts = self.attempts.write();
        let of: Vec<ProcessorId> = attempts.side().of_session(session).collect();
        let mut user = None;
        for processor in of {
            let slot = attempts.find(&(session, processor)).expect("the index names live rows");
            let row = attempts.row(slot);
            if row.count > 0 && (stops || !row.is_running(incarnation)) {
                user = Some(row.user);
                rewrite(&mut attempts, slot, |row| (row.count, row.state) = (0, State::Requeued));
            }
        }
        user
    }

    /// A processor is to see a session again at once, whatever it has made of it: false while it is trying
    /// it.
    pub(crate) fn reprocess(
        &self,
        processor: ProcessorId,
        (session, user): (SessionId, UserId),
        incarnation: u64,
    ) -> bool {
        let mut attempts = self.attempts.write();
        let key = (session, processor);
        match attempts.find(&key) {
            None => {
                let row = AttemptRow { key, user, count: 0, state: State::Requeued };
                attempts.side_mut().insert(&row);
                attempts.insert_new(row);
            }
            Some(slot) if attempts.row(slot).is_running(incarnation) => return false,
            Some(slot) if attempts.row(slot).state == State::Requeued => {}
            Some(slot) => {
                rewrite(&mut attempts, slot, |row| (row.count, row.state) = (0, State::Requeued));
            }
        }
        true
    }

    /// A session is gone: nobody tries it any more.
    pub(crate) fn forget(&self, session: SessionId) {
        let mut attempts = self.attempts.write();
        let of: Vec<ProcessorId> = attempts.side().of_session(session).collect();
        of.into_iter().for_each(|it| drop(forget(&mut attempts, &(session, it))));
    }

    /// Engine time is set back to `to`, to before the last operation: nothing happened later, and what
    /// is to be tried again has to wait for as long as before.
    pub(crate) fn set_back(&self, to: Timestamp, last_operation: Timestamp) {
        let mut rows = self.rows.write();
        let is_later = |row: &ProcessorRow| row.registered_at.max(row.observed_at) > to;
        let later: Vec<Slot> =
            rows.iter().filter(|(_, row)| is_later(row)).map(|(slot, _)| slot).collect();
        for slot in later {
            let (row, ()) = rows.row_mut(slot);
            row.registered_at = row.registered_at.min(to);
            row.observed_at = row.observed_at.min(to);
        }
        drop(rows);
        let mut attempts = self.attempts.write();
        let slots: Vec<Slot> = attempts.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let set_back = |row: &mut AttemptRow| match &mut row.state {
                State::Started { at, .. } | State::Quarantined { at, .. } => *at = (*at).min(to),
                State::Waiting { next, .. } => {
                    let wait_ns = next.as_nanos().saturating_sub(last_operation.as_nanos());
                    let then = Timestamp::from_nanos(to.as_nanos().saturating_add(wait_ns));
                    *next = (*next).min(then);
                }
                State::Requeued => {}
            };
            rewrite(&mut attempts, slot, set_back);
        }
    }
}

fn rewrite(attempts: &mut Slab<AttemptRow>, slot: Slot, change: impl FnOnce(&mut AttemptRow)) {
    let (row, index) = attempts.row_mut(slot);
    index.remove(row);
    change(row);
    index.insert(row);
}

fn forget(attempts: &mut Slab<AttemptRow>, key: &(SessionId, ProcessorId)) -> Option<AttemptRow> {
    let (_, row) = attempts.remove(key)?;
    attempts.side_mut().remove(&row);
    Some(row)
}
