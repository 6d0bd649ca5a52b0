//! The runs of processors, and where they are written down.
//!
//! Knows: which runs are not written down yet, and what comes of one that cannot be. Must not know: how a
//! run ends.
//!
//! Runs are written down beside the state: nothing is decided by them but when the next one is due, and
//! that is not worth a frame of its own. So a run with news takes those with it that had none.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Context;
use crate::engine::{Job, encoded};
use crate::error::{ErrorKind, Result};
use crate::ids::ProcessorId;
use crate::record::{JobRan, Record};
use crate::sync::Mutex;

/// The jobs of the processors that are registered in this open.
#[derive(Default)]
pub(super) struct Book {
    jobs: Mutex<BTreeMap<ProcessorId, Arc<Job>>>,
    /// Held from the choice of what is written to its place in the queue: no older run comes after a
    /// newer one of the same processor.
    writing: Mutex<()>,
}

impl Book {
    pub(super) fn add(&self, processor: ProcessorId, job: Arc<Job>) {
        self.jobs.lock().insert(processor, job);
    }

    /// Runs that end from now on are written down no more.
    pub(super) fn remove(&self, processor: ProcessorId) {
        self.jobs.lock().remove(&processor);
    }

    fn take_unwritten(&self) -> Vec<(Arc<Job>, JobRan)> {
        let jobs = self.jobs.lock();
        let unwritten = jobs.iter().filter_map(|(&processor, job)| {
            Some((Arc::clone(job), JobRan { processor, run: job.take_unwritten()? }))
        });
        unwritten.collect()
    }
}

impl Context {
    /// Writes down all runs that are not, in one frame, as durable as the database writes. If it cannot, the
    /// next one to write does: a run is as good without.
    pub(super) fn write_runs(&self) {
        let in_order = self.book.writing.lock();
        let (jobs, rows): (Vec<_>, Vec<_>) = self.book.take_unwritten().into_iter().unzip();
        if rows.is_empty() {
            return;
        }
        let sent = encoded(&Record::JobsRan(rows))
            .and_then(|body| self.door.send(body, 1, None, None, false));
        drop(in_order);
        let written: Result<()> = sent.and_then(|ticket| ticket.wait().map(drop));
        let Err(error) = written else { return };
        jobs.iter().for_each(|job| job.is_unwritten_still());
        if error.kind() != ErrorKind::Closed {
            tracing::warn!(%error, "that processors have run could not be written down");
        }
    }
}
