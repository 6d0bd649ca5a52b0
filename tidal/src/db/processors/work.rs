//! The thread of a processor.
//!
//! Knows: when a run is due, and that one which fails is followed by the next in its time. Must not know:
//! what a run does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::entry::Entry;
use super::options::RunOptions;
use super::run::run;
use super::stats::RunError;
use crate::engine::spawn;
use crate::error::{ErrorKind, Result};
use crate::sync::{JoinHandle, thread};

/// What the names of these threads begin with.
const THREAD: &str = "tidal-processor-";
/// The longest sleep: the clock may be set meanwhile.
pub(in crate::db) const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How long it waits before it looks again whether somebody else's run has ended.
const BUSY_WAIT: Duration = Duration::from_millis(100);
/// The shortest: a clock that stands still must not make it spin.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// Starts the thread of a processor. It ends when the processor is told to stop, and keeps nothing of the
/// database alive.
pub(super) fn start(context: Arc<Context>, entry: Arc<Entry>) -> Result<JoinHandle<()>> {
    let name = format!("{THREAD}{}", entry.name);
    spawn(&name, move || work(&context, &entry))
}

/// Waits for the end of the thread of a processor that was told to stop, unless this is one itself: two that
/// wait for each other would wait for ever.
pub(super) fn join(thread: JoinHandle<()>) {
    let is_one = thread::current().name().is_some_and(|name| name.starts_with(THREAD));
    if !is_one {
        // A panic there was contained and logged.
        let _ = thread.join();
    }
}

fn work(context: &Context, entry: &Entry) {
    loop {
        entry.pulse.tick();
        let Ok(now) = context.now() else { return };
        let mut patience = entry.idle_for(now);
        if patience.is_zero() {
            if !run_once(context, entry) {
                return;
            }
            patience = context.now().map_or(SLEEP_MAX, |now| entry.idle_for(now));
        }
        if !entry.sleep(patience.clamp(SLEEP_MIN, SLEEP_MAX)) {
            return;
        }
    }
}

/// Makes a run; whether there may be another one.
fn run_once(context: &Context, entry: &Entry) -> bool {
    let processor = &*entry.name;
    entry.pulse.beat();
    // How long a host's code takes is judged by what is known of attempts.
    entry.pulse.be_busy();
    let ended = catch_unwind(AssertUnwindSafe(|| run(context, entry, &RunOptions::default())));
    entry.pulse.tick();
    match ended {
        Ok(Err(RunError::Storage(error))) if error.kind() == ErrorKind::Closed => return false,
        Ok(Err(RunError::Storage(error))) => {
            tracing::error!(processor, %error, "a run failed; the next one comes in its time");
        }
        // Its time has come, and somebody else runs it for longer than a cadence.
        Ok(Err(RunError::AlreadyRunning { .. })) => return entry.sleep(BUSY_WAIT),
        Ok(Ok(_) | Err(_)) => {}
        Err(_) => {
            entry.pulse.skip();
            tracing::error!(processor, "a run panicked; the next one comes in its time");
        }
    }
    true
}
