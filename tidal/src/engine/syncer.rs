//! The thread that syncs the log while the writer goes on.

use crate::error::{Error, Result};
use crate::sync::{JoinHandle, Receiver, Sender, bounded};
use crate::wal::{SyncDone, SyncJob};

/// One sync at a time, on a thread of its own.
pub(crate) struct Syncer {
    jobs: Option<Sender<SyncJob>>,
    done: Receiver<SyncDone>,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(crate) fn start() -> Result<Self> {
        let (jobs, todo) = bounded::<SyncJob>(1);
        let (finished, done) = bounded(1);
        let work = move || {
            for job in todo {
                if finished.send(job.run()).is_err() {
                    break;
                }
            }
        };
        let thread = super::spawn("tidal-syncer", work)?;
        Ok(Self { jobs: Some(jobs), done, busy: false, thread: Some(thread) })
    }

    pub(crate) const fn is_busy(&self) -> bool {
        self.busy
    }

    pub(crate) fn begin(&mut self, job: SyncJob) -> Result<()> {
        assert!(!self.busy, "one sync at a time");
        self.busy = true;
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())
    }

    /// Waits for the sync that was begun, if there is one.
    pub(crate) fn end(&mut self) -> Result<Option<SyncDone>> {
        if !std::mem::take(&mut self.busy) {
            return Ok(None);
        }
        self.done.recv().map(Some).map_err(|_| gone())
    }
}

fn gone() -> Error {
    Error::Stopped { reason: "the thread that syncs the log ended".to_owned() }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was already answered: `end` fails when the channel closes.
            let _ = thread.join();
        }
    }
}
