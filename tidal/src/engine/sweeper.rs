//! The sweeper: the thread that writes down which sessions are over.
//!
//! Knows: when something is due, how much of it goes into one frame, what to do about failures. Must not
//! know: when a session is over, what becomes of it.
//!
//! Time ends a session whether anyone notices or not, so nothing that is decided depends on this
//! thread: it is for those who want to be told, and for the memory of what has settled. A pass writes
//! only if something is due, so an idle database writes nothing. Between passes it sleeps until the
//! first session is due, and is woken when another one becomes due before that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::jobs::Job;
use super::overtime::Overtime;
use super::pulse::Pulse;
use super::queue::{Operation, Queue};
use super::ticket::promise;
use super::writer::body_of;
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::ids::Timestamp;
use crate::options::{Durability, SessionConfig};
use crate::record::Record;
use crate::state::{Reply, State, Swept};
use crate::sync::{AtomicU64, Condvar, JoinHandle, Mutex, Ordering};

/// How many sessions one frame ends: a frame is applied at once, and whoever reads meanwhile waits.
pub(super) const ENDS_PER_FRAME: u64 = 1_000;

/// How long a sweeper that panicked stays away.
const RESTART_AFTER: Duration = Duration::from_secs(10);

/// The shortest sleep: a clock that stands still must not make it spin.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// Writes down what is due: what the thread does, and what callers may do themselves.
pub(crate) struct Sweep {
    pub(crate) state: Arc<State>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) durability: Durability,
    /// What is said of work that takes long; `None` where that is nobody's to say.
    pub(crate) overtime: Option<Arc<Overtime>>,
}

/// The time by which sessions are over: the clock's, or the events'.
pub(crate) fn engine_now(state: &State, clock: &dyn Clock) -> Timestamp {
    let header = state.header();
    if header.event_time { header.engine_time } else { header.engine_time.max(clock.now()) }
}

impl Sweep {
    pub(crate) fn now(&self) -> Timestamp {
        engine_now(&self.state, &*self.clock)
    }

    /// Writes down all that is due now, in frames of a bounded size, unless `stop` says otherwise
    /// between two of them. Writes nothing when nothing is due. How many sessions were given up comes
    /// with what became of the others.
    ///
    /// # Errors
    ///
    /// What keeps a frame from being written; those before it count.
    pub(crate) fn run(&self, stop: &dyn Fn() -> bool) -> Result<(Swept, u64)> {
        let mut all = Swept::default();
        let now = self.now();
        let failed = self.look_at_work(now)?;
        while self.first_due().is_some_and(|due| due <= now) {
            let _sweep = tracing::debug_span!("sweep").entered();
            let first = self.state.sessions.first_over();
            let Swept { ended, settled } = self.write()?;
            tracing::debug!(ended, settled, "sessions were swept");
            all.ended += ended;
            all.settled += settled;
            // There were only rows that leave, or the clock was set back meanwhile: later. Those that wait for
            // processors from now on are none that ended or settled, but were done.
            let is_unchanged = first == self.state.sessions.first_over();
            if is_unchanged || stop() {
                break;
            }
        }
        Ok((all, failed))
    }

    fn first_due(&self) -> Option<Timestamp> {
        self.state.sessions.first_due(self.state.header().operation_time)
    }

    fn write(&self) -> Result<Swept> {
        match self.ask(&Record::Sweep { count_max: ENDS_PER_FRAME })? {
            Reply::Swept(swept) => Ok(swept),
            other => unreachable!("a sweep is answered with what it did, not with {other:?}"),
        }
    }

    /// Writes a record and waits for its answer.
    pub(super) fn ask(&self, record: &Record<'_>) -> Result<Reply> {
        let (promise, pending) = promise();
        self.queue.push(Operation {
            body: body_of(record),
            events: 1,
            latest: None,
            durability: self.durability,
            resets_clock: false,
            promise,
        })?;
        pending.wait().map(|(_, reply)| reply)
    }

    /// How long nothing will be due, as far as is known now.
    fn idle_for(&self, sweep_interval: Duration) -> (Timestamp, Duration) {
        if self.state.header().event_time {
            // The next event may bring any time.
            return (Timestamp::EPOCH, sweep_interval);
        }
        let now = self.now();
        let latest = now.saturating_add(sweep_interval);
        let due = self.first_due().map_or(latest, |due| due.min(latest));
        let due = self.work_is_due(now).map_or(due, |work| due.min(work));
        (due, now.until(due).max(SLEEP_MIN))
    }
}

#[derive(Default)]
struct Inbox {
    stop: bool,
    is_early: bool,
}

/// Where the sweeper sleeps, and who may wake it.
#[derive(Default)]
pub(crate) struct Alarm {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    /// The time at which it means to wake; 0 when it is not asleep until some time.
    wakes_at_ns: AtomicU64,
    /// After how much work at the earliest something is to be done about it.
    work_due_after: Option<Duration>,
}

impl Alarm {
    /// One for a sweeper that looks after work.
    pub(crate) fn new(overtime: &Overtime) -> Self {
        Self { work_due_after: overtime.first_after(), ..Self::default() }
    }

    /// Some work began, no earlier than this. Called by the writer.
    pub(super) fn work_began(&self, at: Timestamp) {
        self.work_due_after.iter().for_each(|&after| self.set(at.saturating_add(after)));
    }

    /// Something is due at `due`: wakes the sweeper if it means to sleep longer. Called by the writer.
    pub(super) fn set(&self, due: Timestamp) {
        if due.as_nanos() < self.wakes_at_ns.load(Ordering::Acquire) {
            self.inbox.lock().is_early = true;
            self.wake.notify_one();
        }
    }

    fn stop(&self) {
        self.inbox.lock().stop = true;
        self.wake.notify_one();
    }

    fn is_stopped(&self) -> bool {
        self.inbox.lock().stop
    }

    /// Sleeps, perhaps for less long; whether it may go on then.
    fn sleep(&self, patience: Duration) -> bool {
        let mut inbox = self.inbox.lock();
        if !inbox.stop && !inbox.is_early {
            self.wake.wait_for(&mut inbox, patience);
        }
        inbox.is_early = false;
        !inbox.stop
    }
}

/// A handle on the sweeper's thread.
pub(crate) struct Sweeper {
    alarm: Arc<Alarm>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Sweeper {
    /// Starts the thread; `alarm` is what the writer sets, `pulse` what it beats, `job` what it reports to.
    pub(crate) fn start(
        sweep: Sweep,
        config: &SessionConfig,
        (alarm, pulse, job): (Arc<Alarm>, Arc<Pulse>, Arc<Job>),
    ) -> Result<Self> {
        let (sweep_interval, retry) = (config.sweep_interval, config.background_retry);
        let shared = Arc::clone(&alarm);
        let thread = super::spawn("tidal-sweeper", move || {
            let work = || run(&sweep, (&shared, &pulse, &job), (sweep_interval, retry));
            supervise((&shared, &pulse), RESTART_AFTER, work);
        })?;
        Ok(Self { alarm, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the thread, after the frame that it waits for if it does.
    pub(crate) fn stop(&self) {
        self.alarm.stop();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there was contained and logged.
            let _ = thread.join();
        }
    }
}

/// Runs `work` until it returns, or until it is to stop. A panic is logged, and it is run again later.
fn supervise((alarm, pulse): (&Alarm, &Pulse), restart_after: Duration, work: impl Fn()) {
    while catch_unwind(AssertUnwindSafe(&work)).is_err() {
        pulse.skip();
        let restart_after_ms = restart_after.as_millis() as u64;
        tracing::error!(restart_after_ms, "the sweeper panicked; sessions end on time without it");
        if !alarm.sleep(restart_after) {
            return;
        }
    }
}

fn run(
    sweep: &Sweep,
    (alarm, pulse, job): (&Alarm, &Pulse, &Job),
    (sweep_interval, retry): (Duration, Duration),
) {
    loop {
        pulse.beat();
        alarm.wakes_at_ns.store(0, Ordering::Release);
        let patience = match job.observe(|| sweep.now(), || sweep.run(&|| alarm.is_stopped())) {
            Ok(_) => {
                let (wakes_at, _) = sweep.idle_for(sweep_interval);
                alarm.wakes_at_ns.store(wakes_at.as_nanos(), Ordering::Release);
                job.set_due(Some(wakes_at).filter(|at| *at > Timestamp::EPOCH));
                // Looked at again: what came before the alarm was armed did not set it off.
                sweep.idle_for(sweep_interval).1
            }
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => {
                let retry_ms = retry.as_millis() as u64;
                tracing::warn!(%error, retry_ms, "sessions could not be swept; it is tried again");
                job.set_due(Some(sweep.now().saturating_add(retry)));
                retry
            }
        };
        if !alarm.sleep(patience) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn work_that_panics_is_run_again_until_it_returns_or_is_stopped() {
        let (alarm, pulse) = (Alarm::default(), Pulse::new());
        let runs = AtomicUsize::new(0);
        supervise((&alarm, &pulse), Duration::ZERO, || {
            assert_eq!(pulse.is_restarting(), runs.load(Ordering::SeqCst) > 0);
            assert!(runs.fetch_add(1, Ordering::SeqCst) >= 2, "a panic of this test's own");
        });
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        alarm.stop();
        pulse.beat();
        assert!(!pulse.is_restarting());
        let panics = || panic!("a panic of this test's own");
        supervise((&alarm, &pulse), Duration::from_secs(3_600), panics);
        assert!(pulse.is_restarting(), "and it was stopped before it began again");
    }

    #[test]
    fn an_alarm_wakes_a_sleeper_only_for_what_is_due_before_it_wakes_anyway() {
        let alarm = Alarm::default();
        alarm.set(Timestamp::EPOCH);
        assert!(!alarm.inbox.lock().is_early, "it is not asleep until some time");
        alarm.wakes_at_ns.store(10, Ordering::Release);
        alarm.set(Timestamp::from_nanos(10));
        assert!(!alarm.inbox.lock().is_early);
        alarm.set(Timestamp::from_nanos(9));
        assert!(alarm.inbox.lock().is_early);
        assert!(alarm.sleep(Duration::from_secs(3_600)), "it does not sleep");
        alarm.stop();
        assert!(!alarm.sleep(Duration::from_secs(3_600)));
    }
}
