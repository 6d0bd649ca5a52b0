//! The writer: the one thread that appends to the log and changes the state.
//!
//! Knows: groups, the order of log, sync, apply and acknowledgement. Must not know: what a record
//! means, how bytes lie.
//!
//! A large group's sync runs on the syncer's thread, and overlaps the updates of the group before and
//! the look-ups of its own:
//!
//! ```text
//! writer   write k │ apply k−1, acknowledge │ look up k │ (wait) │ write k+1 │ apply k │ …
//! syncer           │ sync k ──────────────────────────▶ │        │ sync k+1 ────▶ …
//! ```
//!
//! A small group is synced and applied at once: a hand-off would cost more than it saves. In
//! whatever order the work is done, `synced ≥ applied` holds for every operation that asked for it.

use std::sync::Arc;
use std::time::Duration;

use super::Positions;
use super::cut::CutOff;
use super::hub::Hub;
use super::journal::Journal;
use super::queue::{Barrier, Operation, Queue, Work};
use super::stamp::Stamper;
use super::sweeper::Alarm;
use super::syncer::Syncer;
use super::ticket::Promise;
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::fault::{CrashPoint, Faults};
use crate::ids::Timestamp;
use crate::options::Durability;
use crate::record::{Record, RecordKind};
use crate::seq::Seq;
use crate::state::{Applier, Frame, Outcome, Reply, State};
use crate::sync::bounded;
use crate::wal::FrameBody;

/// Groups of up to this many events are synced and applied without a hand-off.
const INLINE_EVENTS_MAX: usize = 256;

/// How long the writer sleeps when nothing is due.
const SLEEP: Duration = Duration::from_secs(3_600);

/// An operation that is in the log and not yet answered.
struct Logged {
    seq: Seq,
    time: Timestamp,
    body: FrameBody,
    promise: Promise<(Seq, Reply)>,
}

/// A moment in the future.
#[derive(Debug, Clone, Copy)]
struct Due {
    since: Stopwatch,
    within: Duration,
}

impl Due {
    fn left(self) -> Duration {
        self.within.saturating_sub(self.since.elapsed())
    }
}

/// Operations that are written and applied together.
struct Group {
    operations: Vec<Logged>,
    events: usize,
    /// Whether someone waits for the sync.
    sync: bool,
}

/// Who hears of what the writer applied.
#[derive(Clone)]
pub(crate) struct Listeners {
    pub(crate) hub: Arc<Hub>,
    pub(crate) alarm: Arc<Alarm>,
}

/// The writer's thread.
pub(crate) struct Writer {
    state: Arc<State>,
    queue: Arc<Queue>,
    positions: Arc<Positions>,
    journal: Journal,
    syncer: Syncer,
    stamper: Stamper,
    applier: Applier,
    listeners: Listeners,
    faults: Faults,
    /// Silence after which a mark is written: then even the last group is proven synced.
    mark_after: Duration,
    /// By when what is written must be synced, if anything is not.
    sync_due: Option<Due>,
    /// Operations since the last mark.
    unmarked: bool,
}

impl Writer {
    pub(crate) fn new(
        state: Arc<State>,
        queue: Arc<Queue>,
        positions: Arc<Positions>,
        journal: Journal,
        stamper: Stamper,
        listeners: Listeners,
        (faults, mark_after): (Faults, Duration),
    ) -> Result<Self> {
        Ok(Self {
            state,
            queue,
            positions,
            journal,
            syncer: Syncer::start()?,
            stamper,
            applier: Applier::default(),
            listeners,
            faults,
            mark_after,
            sync_due: None,
            unmarked: true,
        })
    }

    /// Works until it is closed, or something fails: then whoever waits is told so.
    pub(crate) fn run(mut self) {
        let closed = match self.work() {
            Ok(closed) => closed,
            Err(error) => {
                tracing::error!(%error, "the engine stops writing");
                let reason = error.to_string();
                self.positions.fail(&reason);
                self.queue.refuse(Error::Stopped { reason: reason.clone() });
                self.refuse_rest(&Error::Stopped { reason })
            }
        };
        drop(self);
        if let Some(closed) = closed {
            closed.fulfil(Ok(()));
        }
    }

    /// Answers what is still queued; returns who waits for the end.
    fn refuse_rest(&mut self, error: &Error) -> Option<Promise<()>> {
        let mut closed = None;
        while let Some(work) = self.queue.take(None) {
            match work {
                Work::Group(operations) => operations
                    .into_iter()
                    .for_each(|operation| operation.promise.fulfil(Err(error.clone()))),
                Work::Barrier(Barrier::Flush(promise)) => promise.fulfil(Err(error.clone())),
                Work::Barrier(Barrier::Cut(_, promise)) => promise.fulfil(Err(error.clone())),
                Work::Barrier(Barrier::Pause(promise)) => promise.fulfil(Err(error.clone())),
                Work::Barrier(Barrier::Truncate(_)) => {}
                Work::Barrier(Barrier::Close(promise)) => closed = Some(promise),
            }
        }
        closed
    }

    fn work(&mut self) -> Result<Option<Promise<()>>> {
        let mut pending: Option<Group> = None;
        loop {
            if pending.is_some() {
                self.end_sync(&mut pending)?;
            } else {
                self.stamper.settle(self.state.header().engine_time);
            }
            let patience = if pending.is_some() { None } else { Some(self.patience()) };
            match self.queue.take(patience) {
                Some(Work::Group(operations)) => {
                    let logged = self
                        .log(operations, &mut pending)
                        .and_then(|group| self.advance(group, &mut pending));
                    if let Err(error) = logged {
                        // The group before is synced: it is in the log for good, and says so.
                        self.commit_pending(&mut pending)?;
                        return Err(error);
                    }
                }
                Some(Work::Barrier(barrier)) => {
                    self.commit_pending(&mut pending)?;
                    if let Some(closed) = self.pass(barrier)? {
                        return Ok(Some(closed));
                    }
                }
                None if pending.is_some() => self.commit_pending(&mut pending)?,
                None => self.rest()?,
            }
        }
    }

    /// Stamps and appends a group and writes it. Operations whose time is refused are answered, and
    /// are not in the log.
    fn log(&mut self, operations: Vec<Operation>, pending: &mut Option<Group>) -> Result<Group> {
        let mut group = Group { operations: Vec::new(), events: 0, sync: false };
        for operation in operations {
            let Operation { mut body, events, latest, durability, resets_clock, promise } =
                operation;
            let stamp = if resets_clock {
                let time = self.stamper.reset();
                body = body_of(&Record::ResetClock(time));
                Ok(time)
            } else {
                self.stamper.stamp(latest)
            };
            let time = match stamp {
                Ok(time) => {
                    self.positions.set_clock_jump(0);
                    time
                }
                Err(refusal) => {
                    if let Error::ClockJumped { jump_ms } = refusal {
                        self.positions.set_clock_jump(jump_ms);
                    }
                    promise.fulfil(Err(refusal));
                    continue;
                }
            };
            let seq = self.journal.append(time, &body);
            group.operations.push(Logged { seq, time, body, promise });
            group.events += events;
            match durability {
                Durability::Sync => group.sync = true,
                Durability::Os { sync_every } => self.sync_within(sync_every),
            }
        }
        // A new segment begins only when no sync is out; `pending` has none at this point.
        assert!(pending.is_none() || !self.syncer.is_busy(), "one sync at a time");
        self.faults.reach(CrashPoint::GroupAppended);
        let written = self.journal.write_group();
        self.or_answer(written, &mut group)?;
        self.faults.reach(CrashPoint::GroupWritten);
        self.note_appended();
        if !group.operations.is_empty() {
            self.unmarked = true;
        }
        Ok(group)
    }

    /// Brings a written group as far as it can go now.
    fn advance(&mut self, mut group: Group, pending: &mut Option<Group>) -> Result<()> {
        if group.operations.is_empty() {
            self.commit_pending(pending)?;
            return self.sync_if_due();
        }
        if !group.sync {
            self.commit_pending(pending)?;
            self.speculate(&group);
            self.commit(group)?;
            return self.sync_if_due();
        }
        if pending.is_none() && group.events <= INLINE_EVENTS_MAX {
            let synced = self.sync();
            self.or_answer(synced, &mut group)?;
            return self.commit(group);
        }
        let begun = self.begin_sync();
        self.or_answer(begun, &mut group)?;
        self.commit_pending(pending)?;
        self.speculate(&group);
        *pending = Some(group);
        Ok(())
    }

    fn begin_sync(&mut self) -> Result<()> {
        if let Some(job) = self.journal.begin_sync()? {
            self.syncer.begin(job)?;
            self.faults.reach(CrashPoint::SyncBegun);
        }
        Ok(())
    }

    fn end_sync(&mut self, pending: &mut Option<Group>) -> Result<()> {
        let Some(done) = self.syncer.end()? else {
            self.note_synced(self.journal.synced());
            return Ok(());
        };
        let synced = self.journal.finish_sync(done);
        match (synced, pending.as_mut()) {
            (Ok(synced), _) => {
                self.note_synced(synced);
                Ok(())
            }
            (Err(error), Some(group)) => self.or_answer(Err(error), group),
            (Err(error), None) => Err(error),
        }
    }

    fn sync(&mut self) -> Result<()> {
        let synced = self.journal.sync()?;
        self.note_synced(synced);
        Ok(())
    }

    fn note_appended(&self) {
        let (journal, size_bytes) = (&self.journal, self.journal.size_bytes());
        self.positions.set_appended(journal.appended(), journal.bytes(), size_bytes);
    }

    fn note_synced(&mut self, synced: Seq) {
        self.faults.reach(CrashPoint::LogSynced);
        self.positions.set_synced(synced);
        if synced == self.journal.appended() {
            self.sync_due = None;
        }
    }

    /// What is written now may stay unsynced for so long.
    fn sync_within(&mut self, sync_every: Duration) {
        if self.sync_due.is_none_or(|due| due.left() > sync_every) {
            self.sync_due = Some(Due { since: Stopwatch::start(), within: sync_every });
        }
    }

    fn sync_if_due(&mut self) -> Result<()> {
        let due = self.sync_due.is_some_and(|due| due.left().is_zero());
        if due { self.sync() } else { Ok(()) }
    }

    fn speculate(&mut self, group: &Group) {
        let frames = group.operations.iter().map(|op| (op.time, op.body.kind(), op.body.bytes()));
        self.applier.speculate(&self.state, frames);
    }

    fn commit_pending(&mut self, pending: &mut Option<Group>) -> Result<()> {
        match pending.take() {
            Some(group) => self.commit(group),
            None => Ok(()),
        }
    }

    /// Applies a group and acknowledges it.
    fn commit(&mut self, group: Group) -> Result<()> {
        let frames = group.operations.iter().map(|op| Frame {
            seq: op.seq,
            time: op.time,
            kind: op.body.kind(),
            body: op.body.bytes(),
        });
        let outcomes = self.apply(frames)?;
        self.faults.reach(CrashPoint::GroupApplied);
        self.tell();
        if outcomes.iter().any(|outcome| matches!(outcome, Ok(Reply::Begun { .. }))) {
            self.listeners.alarm.work_began(self.state.header().engine_time);
        }
        for (operation, outcome) in group.operations.into_iter().zip(outcomes) {
            let Logged { seq, promise, .. } = operation;
            promise.fulfil(outcome.map(|reply| (seq, reply)));
            self.faults.reach(CrashPoint::Acknowledged);
        }
        Ok(())
    }

    /// Tells those who listen what happened to sessions: it is committed, and not yet answered.
    fn tell(&mut self) {
        let happened = self.applier.take_happened();
        if happened.is_empty() {
            return;
        }
        self.listeners.hub.publish(&happened);
        let operation_time = self.state.header().operation_time;
        if let Some(due) = self.state.sessions.first_due(operation_time) {
            self.listeners.alarm.set(due);
        }
    }

    /// Applies frames. The position moves with the tables, since a view reads both.
    fn apply<'a>(&mut self, frames: impl Iterator<Item = Frame<'a>>) -> Result<Vec<Outcome>> {
        let _between_frames = self.positions.gate.write();
        let outcomes = self.applier.apply(&self.state, frames);
        let outcomes = outcomes.map_err(|e| e.of("a record that was just encoded"))?;
        self.positions.set_applied(self.state.header());
        Ok(outcomes)
    }

    /// Answers a group with the failure that stops the engine.
    fn or_answer(&mut self, result: Result<()>, group: &mut Group) -> Result<()> {
        if let Err(error) = &result {
            for operation in group.operations.drain(..) {
                operation.promise.fulfil(Err(error.clone()));
            }
        }
        result
    }

    fn pass(&mut self, barrier: Barrier) -> Result<Option<Promise<()>>> {
        match barrier {
            Barrier::Flush(promise) => {
                self.sync_all()?;
                promise.fulfil(Ok(self.journal.synced()));
            }
            Barrier::Cut(store, promise) => {
                // The log is synced through S before the first byte of a checkpoint at S goes out.
                self.sync_all()?;
                let hash = self.journal.last_hash();
                let cut = CutOff::take(&self.state, store, hash, self.journal.bytes());
                self.faults.reach(CrashPoint::CutTaken);
                promise.fulfil(Ok(cut));
            }
            Barrier::Truncate(seq) => {
                self.journal.truncate_through(seq)?;
                self.positions.set_log_size(self.journal.size_bytes());
            }
            Barrier::Pause(promise) => {
                self.sync_all()?;
                let (held, released) = bounded::<()>(0);
                promise.fulfil(Ok(held));
                // Nothing is ever sent: the channel closes when the sender is dropped.
                let _ = released.recv();
            }
            Barrier::Close(promise) => {
                self.mark()?;
                self.faults.reach(CrashPoint::CloseMarked);
                return Ok(Some(promise));
            }
        }
        Ok(None)
    }

    fn sync_all(&mut self) -> Result<()> {
        if self.journal.synced() < self.journal.appended() { self.sync() } else { Ok(()) }
    }

    fn patience(&self) -> Duration {
        let due = self.sync_due.map(Due::left);
        let idle = if self.unmarked { self.mark_after } else { SLEEP };
        due.map_or(idle, |due| due.min(idle))
    }

    /// Nothing came for a while.
    fn rest(&mut self) -> Result<()> {
        self.sync_if_due()?;
        if self.unmarked && self.sync_due.is_none() {
            self.mark()?;
        }
        Ok(())
    }

    /// Writes a mark, which proves that everything before it is synced.
    fn mark(&mut self) -> Result<()> {
        if !self.unmarked {
            return self.sync_all();
        }
        self.sync_all()?;
        let time = self.stamper.stamp_control();
        let body = body_of(&Record::Mark);
        let seq = self.journal.append(time, &body);
        self.journal.write_group()?;
        self.faults.reach(CrashPoint::MarkWritten);
        self.note_appended();
        self.sync()?;
        let frame = Frame { seq, time, kind: RecordKind::Mark as u8, body: body.bytes() };
        self.apply(std::iter::once(frame))?;
        self.unmarked = false;
        Ok(())
    }
}

/// The frame body of a record.
pub(crate) fn encoded(record: &Record<'_>) -> Result<FrameBody> {
    FrameBody::new(record.kind() as u8, 1, record.encode())
}

/// The frame body of a small record of the engine's own.
pub(crate) fn body_of(record: &Record<'_>) -> FrameBody {
    encoded(record).expect("it is far below the limit")
}
