//! The engine's threads: the writer, its syncer, the checkpointer, the sweeper, one for each callback.
//!
//! Knows: when things happen. Must not know: how bytes lie, what a record means.

mod checkpointer;
mod cut;
mod hub;
mod jobs;
mod journal;
mod overtime;
mod pulse;
mod queue;
#[cfg(all(test, shuttle))]
mod races;
mod rest;
mod stamp;
mod sweeper;
mod syncer;
mod ticket;
mod writer;

pub(crate) use checkpointer::{Checkpointer, CheckpointerSetup, Keeper, Lag};
pub(crate) use cut::CutOff;
pub(crate) use hub::Hub;
pub use hub::{EventStream, SessionSubscriber, SubscriptionGuard};
pub(crate) use jobs::{InFlight, Job, Runs};
pub(crate) use journal::Journal;
pub(crate) use overtime::Overtime;
pub(crate) use pulse::Pulse;
pub(crate) use queue::{Barrier, Operation, Queue};
pub(crate) use rest::Rest;
pub(crate) use stamp::Stamper;
pub(crate) use sweeper::{Alarm, Sweep, Sweeper, engine_now};
pub(crate) use ticket::{Pending, promise};
pub(crate) use writer::{Listeners, Writer, body_of, encoded};

use std::any::Any;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::seq::Seq;
use crate::state::Header;
use crate::sync::{self, AtomicU64, JoinHandle, Mutex, Ordering, RwLock};

/// How far the engine is, for anyone to read.
///
/// `appended ≥ synced ≥ checkpointed ≥ truncated` and `appended ≥ applied`; with
/// [`Durability::Sync`](crate::Durability::Sync) also `synced ≥ applied`.
#[derive(Default)]
pub(crate) struct Positions {
    appended: AtomicU64,
    synced: AtomicU64,
    applied: AtomicU64,
    log_size_bytes: AtomicU64,
    log_bytes: AtomicU64,
    operations: AtomicU64,
    /// The jump for which the clock was refused last, in milliseconds; zero once it is believed.
    clock_jump_ms: AtomicU64,
    failure: Mutex<Option<String>>,
    /// Held by the writer while it applies a group; whoever reads it sees all tables at one
    /// sequence.
    pub(crate) gate: RwLock<()>,
}

impl Positions {
    /// Everything in the log is synced and applied. `log_bytes` is what opening appended.
    pub(crate) fn at(header: Header, log_size_bytes: u64, log_bytes: u64) -> Self {
        let at = AtomicU64::new(header.applied.get());
        Self {
            synced: AtomicU64::new(at.load(Ordering::Relaxed)),
            appended: at,
            applied: AtomicU64::new(header.applied.get()),
            log_size_bytes: AtomicU64::new(log_size_bytes),
            log_bytes: AtomicU64::new(log_bytes),
            operations: AtomicU64::new(header.operations),
            ..Self::default()
        }
    }

    pub(crate) fn appended(&self) -> Seq {
        Seq::new(self.appended.load(Ordering::Acquire))
    }

    pub(crate) fn synced(&self) -> Seq {
        Seq::new(self.synced.load(Ordering::Acquire))
    }

    pub(crate) fn applied(&self) -> Seq {
        Seq::new(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn log_size_bytes(&self) -> u64 {
        self.log_size_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Acquire)
    }

    /// The jump for which writes are refused, in milliseconds; zero when they are not.
    pub(crate) fn clock_jump_ms(&self) -> u64 {
        self.clock_jump_ms.load(Ordering::Relaxed)
    }

    fn set_clock_jump(&self, jump_ms: u64) {
        self.clock_jump_ms.store(jump_ms, Ordering::Relaxed);
    }

    /// Why nothing can be written any more.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Bytes appended to the log since the database was opened.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    fn set_appended(&self, seq: Seq, log_bytes: u64, log_size_bytes: u64) {
        self.appended.store(seq.get(), Ordering::Release);
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
        self.set_log_size(log_size_bytes);
    }

    fn set_synced(&self, seq: Seq) {
        assert!(seq >= self.synced(), "positions only grow");
        self.synced.store(seq.get(), Ordering::Release);
    }

    fn set_applied(&self, header: Header) {
        assert!(header.applied >= self.applied(), "positions only grow");
        self.applied.store(header.applied.get(), Ordering::Release);
        self.operations.store(header.operations, Ordering::Release);
    }

    fn set_log_size(&self, size_bytes: u64) {
        self.log_size_bytes.store(size_bytes, Ordering::Relaxed);
    }

    fn fail(&self, reason: &str) {
        self.failure.lock().get_or_insert_with(|| reason.to_owned());
    }
}

/// Work that stops the engine if it panics: a violated invariant must not corrupt quietly.
pub(crate) fn guarded(
    positions: Arc<Positions>,
    queue: Arc<Queue>,
    work: impl FnOnce(),
) -> impl FnOnce() {
    move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        if let Err(panic) = outcome {
            let reason = format!("a thread panicked: {}", words_of(&*panic));
            tracing::error!(reason, "the engine stops");
            positions.fail(&reason);
            queue.abandon(Error::Stopped { reason });
        }
    }
}

/// What was said with a panic.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> &str {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why")
}

/// Starts a named thread.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    sync::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| Error::io("start a thread for", std::path::Path::new(name), e))
}
