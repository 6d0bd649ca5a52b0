//! The checkpointer: the thread that writes checkpoints, store by store in turn.
//!
//! Knows: when a checkpoint is due, how fast it may go, what to do about a store that failed. Must not
//! know: pages, how a store is made.
//!
//! A checkpoint is due when enough log has been written since the last one, or when enough time has
//! passed and the store whose turn it is lacks an operation. So after the last operation each store
//! gets one more, and then nothing is written.

use std::sync::Arc;
use std::time::Duration;

use super::queue::{Barrier, Queue};
use super::ticket::{Promise, promise};
use super::{CutOff, Job, Positions, Pulse, engine_now};
use crate::checkpoint::{SlotState, StorePair};
use crate::clock::{Clock, Stopwatch};
use crate::error::{Error, Result};
use crate::ids::Timestamp;
use crate::options::Options;
use crate::seq::Seq;
use crate::state::State;
use crate::storage::{DISPLACED, StorageEngine};
use crate::sync::{Condvar, JoinHandle, Mutex};
use crate::table::StoreSlot;

/// How often the checkpointer looks whether a checkpoint is due.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A checkpoint is due after this many frames, though none of them was an operation.
const CONTROL_FRAMES_MAX: u64 = 64;

/// How long a failed checkpoint waits for the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What is done to the directory of a store that failed, once nobody has it open any more.
pub(crate) trait Keeper: Send + Sync {
    /// Whether the directory of the database is the one that was opened: stores are written by path.
    ///
    /// # Errors
    ///
    /// What the file system refuses to say.
    fn is_in_place(&self) -> Result<bool>;

    /// Opens it again as it is; `None` when it does not open.
    ///
    /// # Errors
    ///
    /// What keeps it from being opened that is no damage: somebody reads it still, a full disk.
    fn reopen(&self, slot: StoreSlot) -> Result<Option<Arc<dyn StorageEngine>>>;

    /// Moves it aside and makes a new one in its place.
    ///
    /// # Errors
    ///
    /// Somebody reads it still; what the file system refuses.
    fn replace(&self, slot: StoreSlot) -> Result<Arc<dyn StorageEngine>>;
}

/// What the checkpointer works with.
pub(crate) struct CheckpointerSetup {
    pub(crate) state: Arc<State>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) positions: Arc<Positions>,
    pub(crate) stores: Arc<StorePair>,
    pub(crate) keeper: Box<dyn Keeper>,
    pub(crate) options: Options,
    /// The operation counter at each store's checkpoint; zero without one.
    pub(crate) operations: [u64; 2],
    /// Beaten by the thread.
    pub(crate) pulse: Arc<Pulse>,
    /// How far the newest checkpoint is behind, as the thread sees it.
    pub(crate) lag: Arc<Lag>,
    /// Where it says when it wrote checkpoints, and by which clock.
    pub(crate) job: Arc<Job>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl CheckpointerSetup {
    fn now(&self) -> Timestamp {
        engine_now(&self.state, &*self.clock)
    }
}

#[derive(Default)]
struct Inbox {
    requests: Vec<Promise<Seq>>,
    /// Write a last checkpoint if one is due at all, then end.
    close: Option<Promise<()>>,
    stop: bool,
    /// The thread is gone: nobody will answer.
    ended: bool,
}

impl Inbox {
    /// Whether someone waits for what is being done to be over.
    fn is_waited_for(&self) -> bool {
        !self.requests.is_empty() || self.close.is_some() || self.stop
    }
}

struct Shared {
    setup: CheckpointerSetup,
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

/// Since when the newest checkpoint has lacked an operation.
#[derive(Default)]
pub(crate) struct Lag(Mutex<Option<Stopwatch>>);

impl Lag {
    /// How long it has; zero while it lacks none.
    pub(crate) fn elapsed(&self) -> Duration {
        let since = *self.0.lock();
        since.map_or(Duration::ZERO, Stopwatch::elapsed)
    }

    /// It lacks something now, or nothing.
    fn look(&self, lacks: bool) {
        let mut since = self.0.lock();
        *since = if lacks { since.or_else(|| Some(Stopwatch::start())) } else { None };
    }

    /// There is a new one, which lacks what has come since it was cut, if anything has.
    fn since(&self, cut_at: Stopwatch) {
        *self.0.lock() = Some(cut_at);
    }
}

/// A handle on the checkpointer's thread.
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Checkpointer {
    pub(crate) fn start(setup: CheckpointerSetup) -> Result<Self> {
        let positions = Arc::clone(&setup.positions);
        let queue = Arc::clone(&setup.queue);
        let shared = Arc::new(Shared { setup, inbox: Mutex::default(), wake: Condvar::new() });
        let mut run = Run::new(Arc::clone(&shared));
        let thread = super::spawn(
            "tidal-checkpointer",
            super::guarded(positions, queue, move || run.run()),
        )?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Writes a checkpoint now.
    pub(crate) fn checkpoint(&self) -> Result<Seq> {
        let (answer, pending) = promise();
        self.tell(|inbox| inbox.requests.push(answer));
        pending.wait()
    }

    /// Writes a last checkpoint if anything is not in the newest, and ends the thread.
    pub(crate) fn close(&self) -> Result<()> {
        let (answer, pending) = promise();
        self.tell(|inbox| inbox.close = Some(answer));
        let closed = pending.wait();
        self.stop();
        closed
    }

    /// Ends the thread after what it is doing.
    pub(crate) fn stop(&self) {
        self.tell(|inbox| inbox.stop = true);
        if let Some(thread) = self.thread.lock().take() {
            // A panic there has been reported by its guard.
            let _ = thread.join();
        }
    }

    /// An error while a store is out of use.
    pub(crate) fn health(&self) -> Result<()> {
        for (slot, state) in StoreSlot::BOTH.iter().zip(self.shared.setup.stores.state()) {
            if let SlotState::Failed { reason } = state {
                let reason = format!("store {} is out of use for now: {reason}", slot.name());
                return Err(Error::Store(reason));
            }
        }
        Ok(())
    }

    fn tell(&self, what: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.shared.inbox.lock();
        if !inbox.ended {
            what(&mut inbox);
            self.shared.wake.notify_one();
        }
    }
}

struct Run {
    shared: Arc<Shared>,
    /// The operation counter at each store's checkpoint; zero without one.
    operations: [u64; 2],
    /// The log's byte counter at the last checkpoint.
    log_bytes: u64,
    since_last: Stopwatch,
    failed_at: Option<Stopwatch>,
    /// When the next one is due at the latest, if anything is to be written then.
    due: Timestamp,
}

impl Drop for Run {
    /// However the thread ends, whoever waits is told.
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox.lock();
        inbox.ended = true;
        inbox.requests.clear();
        inbox.close = None;
    }
}

enum Todo {
    Checkpoint(Vec<Promise<Seq>>),
    Close(Promise<()>),
    Stop,
    Look,
}

impl Run {
    fn new(shared: Arc<Shared>) -> Self {
        let operations = shared.setup.operations;
        let due = shared.setup.now().saturating_add(shared.setup.options.checkpoint_interval);
        let since_last = Stopwatch::start();
        Self { shared, operations, log_bytes: 0, since_last, failed_at: None, due }
    }

    fn run(&mut self) {
        loop {
            self.shared.setup.pulse.beat();
            let lacks = self.newest_lacks_something();
            self.shared.setup.lag.look(lacks);
            self.shared.setup.job.set_due((lacks || self.target_lacks()).then_some(self.due));
            match self.wait() {
                Todo::Stop => return,
                Todo::Close(answer) => {
                    let last = if self.newest_lacks_something() {
                        self.checkpoint(false).map(|_| ())
                    } else {
                        Ok(())
                    };
                    answer.fulfil(last);
                }
                Todo::Checkpoint(answers) => {
                    let written = self.checkpoint(false);
                    answers.into_iter().for_each(|answer| answer.fulfil(written.clone()));
                }
                Todo::Look if self.is_due() => {
                    if let Err(error) = self.checkpoint(true) {
                        tracing::warn!(%error, "a checkpoint failed; the log goes on without it");
                    }
                }
                Todo::Look => {}
            }
        }
    }

    fn wait(&self) -> Todo {
        let patience = (self.shared.setup.options.checkpoint_interval / 4).min(LOOK_EVERY);
        let mut inbox = self.shared.inbox.lock();
        if !inbox.is_waited_for() {
            self.shared.wake.wait_for(&mut inbox, patience);
        }
        if !inbox.requests.is_empty() {
            return Todo::Checkpoint(std::mem::take(&mut inbox.requests));
        }
        match inbox.close.take() {
            Some(answer) => Todo::Close(answer),
            None if inbox.stop => Todo::Stop,
            None => Todo::Look,
        }
    }

    fn is_due(&self) -> bool {
        let CheckpointerSetup { positions, stores, options, .. } = &self.shared.setup;
        let retry_later = self.failed_at.is_some_and(|since| since.elapsed() < RETRY_AFTER);
        if retry_later || positions.failure().is_some() {
            return false;
        }
        let broken = stores.state().iter().any(|s| matches!(s, SlotState::Failed { .. }));
        let written = positions.log_bytes() - self.log_bytes;
        let target_lacks = self.target_lacks();
        broken
            || (!target_lacks && self.newest_lacks_something())
            || (target_lacks && written >= options.checkpoint_log_bytes)
            || (target_lacks && self.since_last.elapsed() >= options.checkpoint_interval)
    }

    /// Whether the store whose turn it is lacks an operation.
    fn target_lacks(&self) -> bool {
        let CheckpointerSetup { positions, stores, .. } = &self.shared.setup;
        let operations = |slot| self.operations[slot as usize];
        stores.target().is_some_and(|slot| operations(slot) < positions.operations())
    }

    /// Whether the newest checkpoint lacks an operation, or so many control frames that opens would
    /// pile up segments that nothing truncates.
    fn newest_lacks_something(&self) -> bool {
        let CheckpointerSetup { positions, stores, .. } = &self.shared.setup;
        let newest = self.operations.iter().max();
        let newest_seq = stores.manifests().iter().flatten().map(|manifest| manifest.seq).max();
        let frames = positions.applied().get() - newest_seq.unwrap_or_default().get();
        newest.is_none_or(|&newest| newest < positions.operations()) || frames > CONTROL_FRAMES_MAX
    }

    /// Writes one checkpoint to the store whose turn it is, after mending what failed.
    fn checkpoint(&mut self, paced: bool) -> Result<Seq> {
        let shared = Arc::clone(&self.shared);
        let setup = &shared.setup;
        let written = setup.job.observe(|| setup.now(), || self.write(paced));
        let next = written.as_ref().map_or(RETRY_AFTER, |_| setup.options.checkpoint_interval);
        self.due = setup.now().saturating_add(next);
        written
    }

    fn write(&mut self, paced: bool) -> Result<Seq> {
        self.failed_at = Some(Stopwatch::start());
        self.expect_in_place()?;
        self.mend_failed()?;
        let CheckpointerSetup { queue, stores, options, pulse, .. } = &self.shared.setup;
        let turn = stores.begin_checkpoint(&mut || pulse.beat());
        let target = stores.target().ok_or_else(|| {
            Error::Store("neither store can take a checkpoint: see status()".to_owned())
        })?;
        let _checkpoint = tracing::debug_span!("checkpoint", store = target.name()).entered();
        let (answer, pending) = promise::<CutOff>();
        queue.push_barrier(Barrier::Cut(target, answer))?;
        let CutOff { cut, log_bytes, operations } = pending.wait()?;
        let cut_at = Stopwatch::start();
        let rate = if paced { options.checkpoint_bytes_per_s } else { 0 };
        let mut pace = Pace::new(&self.shared, rate);
        let written = stores.checkpoint(&turn, cut, &mut |size_bytes| pace.after(size_bytes))?;
        drop(turn);
        tracing::debug!(
            seq = %written.seq, pages = written.pages, rows = written.rows,
            size_bytes = written.size_bytes, "a checkpoint was written"
        );
        // A writer that has stopped truncates nothing; the checkpoint is there all the same.
        let _ = queue.push_barrier(Barrier::Truncate(stores.truncatable()));
        self.operations[target as usize] = operations;
        self.log_bytes = log_bytes;
        self.since_last = Stopwatch::start();
        self.shared.setup.lag.since(cut_at);
        self.failed_at = None;
        Ok(written.seq)
    }

    /// Stops the engine if what lies under the name of the database is another one.
    fn expect_in_place(&self) -> Result<()> {
        let CheckpointerSetup { queue, positions, keeper, .. } = &self.shared.setup;
        if keeper.is_in_place()? {
            return Ok(());
        }
        tracing::error!("{DISPLACED}: the engine stops");
        positions.fail(DISPLACED);
        let stopped = Error::Stopped { reason: DISPLACED.to_owned() };
        queue.abandon(stopped.clone());
        Err(stopped)
    }

    /// Opens failed stores again, and replaces those that do not hold.
    fn mend_failed(&mut self) -> Result<()> {
        let CheckpointerSetup { state, stores, keeper, .. } = &self.shared.setup;
        for (slot, slot_state) in StoreSlot::BOTH.into_iter().zip(stores.state()) {
            let has_failed = matches!(slot_state, SlotState::Failed { .. });
            if !has_failed || self.is_back(slot)? {
                continue;
            }
            stores.may_replace(slot)?;
            let engine = keeper.replace(slot)?;
            stores.replace(slot, engine)?;
            state.owe_all(slot);
            self.operations[slot as usize] = 0;
        }
        Ok(())
    }

    /// Whether a store that failed for what is around it (a full disk, too many open files) holds when it
    /// is opened again. It goes on as it was: a new one would need all of its space anew.
    fn is_back(&self, slot: StoreSlot) -> Result<bool> {
        let CheckpointerSetup { stores, keeper, pulse, .. } = &self.shared.setup;
        if !stores.may_readmit(slot) {
            return Ok(false);
        }
        match keeper.reopen(slot)? {
            Some(engine) => stores.readmit(slot, engine, &mut || pulse.beat()),
            None => Ok(false),
        }
    }
}

/// Sleeps so that bytes go out no faster than allowed, unless someone waits for the checkpointer.
struct Pace<'a> {
    shared: &'a Shared,
    bytes_per_s: u64,
    written_bytes: u64,
    started: Stopwatch,
}

impl<'a> Pace<'a> {
    fn new(shared: &'a Shared, bytes_per_s: u64) -> Self {
        Self { shared, bytes_per_s, written_bytes: 0, started: Stopwatch::start() }
    }

    fn after(&mut self, size_bytes: u64) {
        self.shared.setup.pulse.beat();
        if self.bytes_per_s == 0 {
            return;
        }
        self.written_bytes += size_bytes;
        let due = Duration::from_secs_f64(self.written_bytes as f64 / self.bytes_per_s as f64);
        let mut inbox = self.shared.inbox.lock();
        while !inbox.is_waited_for() {
            let left = due.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                return;
            }
            self.shared.wake.wait_for(&mut inbox, left);
        }
        self.bytes_per_s = 0;
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::super::queue::Work;
    use super::*;
    use crate::clock::ManualClock;
    use crate::ids::DatabaseId;
    use crate::state::Header;
    use crate::storage::InMemoryBackend;
    use crate::wal::GENESIS;

    /// Opens and replaces nothing.
    struct Nothing;

    impl Keeper for Nothing {
        fn is_in_place(&self) -> Result<bool> {
            Ok(true)
        }

        fn reopen(&self, _: StoreSlot) -> Result<Option<Arc<dyn StorageEngine>>> {
            Err(Error::Closed)
        }

        fn replace(&self, _: StoreSlot) -> Result<Arc<dyn StorageEngine>> {
            Err(Error::Closed)
        }
    }

    fn setup() -> CheckpointerSetup {
        let engines = [(); 2].map(|()| Arc::<InMemoryBackend>::default() as Arc<dyn StorageEngine>);
        CheckpointerSetup {
            state: Arc::new(State::new()),
            queue: Arc::new(Queue::new(1 << 20)),
            positions: Arc::new(Positions::at(Header::default(), 0, 0)),
            stores: Arc::new(StorePair::fresh(DatabaseId::new([7; 16]), engines)),
            keeper: Box::new(Nothing),
            options: Options::default(),
            operations: [0; 2],
            pulse: Arc::new(Pulse::new()),
            lag: Arc::default(),
            job: Arc::default(),
            clock: Arc::new(ManualClock::at(Timestamp::EPOCH)),
        }
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    fn wait_until(what: &str, is_so: impl Fn() -> bool) {
        let since = Stopwatch::start();
        while !is_so() {
            assert!(since.elapsed() < PATIENCE, "{what} did not come to pass");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for_a_beat(pulse: &Pulse) {
        let (since, age) = (Stopwatch::start(), pulse.age());
        wait_until("a beat", || pulse.age() < age.saturating_add(since.elapsed()) / 2);
    }

    /// Whoever waits is answered at the end, also at that of a test that fails.
    struct Abandon<'a>(&'a Queue);

    impl Drop for Abandon<'_> {
        fn drop(&mut self) {
            self.0.abandon(Error::Closed);
        }
    }

    #[test]
    fn a_checkpoint_cuts_nothing_before_its_turn_and_its_thread_is_felt_meanwhile() {
        let setup = setup();
        let (state, queue) = (Arc::clone(&setup.state), Arc::clone(&setup.queue));
        let (stores, pulse) = (Arc::clone(&setup.stores), Arc::clone(&setup.pulse));
        let checkpointer = Checkpointer::start(setup).expect("starts");
        // As one has it who verifies, or makes a backup.
        let turn = stores.begin_checkpoint(&mut || ());
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| checkpointer.checkpoint());
            let _end = Abandon(&queue);
            wait_until("a wait", || stores.is_checkpoint_waiting());
            (0..3).for_each(|_| wait_for_a_beat(&pulse));
            assert!(stores.is_checkpoint_waiting());
            assert!(queue.take(Some(Duration::ZERO)).is_none(), "the writer is asked for a cut");
            drop(turn);
            let Some(Work::Barrier(Barrier::Cut(store, answer))) = queue.take(Some(PATIENCE))
            else {
                panic!("the writer is asked for nothing");
            };
            answer.fulfil(Ok(CutOff::take(&state, store, GENESIS, 0)));
            asked.join().expect("no panic").expect("a checkpoint");
        });
        checkpointer.stop();
    }
}
