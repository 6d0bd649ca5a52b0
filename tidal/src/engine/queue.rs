//! What callers and the checkpointer ask of the writer thread, in order.
//!
//! Knows: requests, and how many may wait. Must not know: what becomes of them.

use std::collections::VecDeque;
use std::time::Duration;

use super::ticket::Promise;
use crate::error::{Error, Result};
use crate::ids::Timestamp;
use crate::options::Durability;
use crate::seq::Seq;
use crate::state::Reply;
use crate::sync::{Condvar, Mutex, Sender};
use crate::table::StoreSlot;
use crate::wal::FrameBody;

/// One record for the log.
pub(crate) struct Operation {
    pub(crate) body: FrameBody,
    /// How many events are in it, for the size of groups.
    pub(crate) events: usize,
    /// The latest event time in it.
    pub(crate) latest: Option<Timestamp>,
    /// When it is acknowledged, and how long it may stay unsynced after that.
    pub(crate) durability: Durability,
    /// Whether it sets engine time to the clock's, be it earlier; its body is made by the writer.
    pub(crate) resets_clock: bool,
    pub(crate) promise: Promise<(Seq, Reply)>,
}

/// Something that is done between two groups.
pub(crate) enum Barrier {
    /// Sync everything so far.
    Flush(Promise<Seq>),
    /// Cut all tables for a checkpoint into this store.
    Cut(StoreSlot, Promise<super::CutOff>),
    /// Everything at or below is in both stores: the log may forget it.
    Truncate(Seq),
    /// Sync, and stand still until the sender that is given out is dropped.
    Pause(Promise<Sender<()>>),
    /// Sync and end the thread.
    Close(Promise<()>),
}

/// What the writer does next.
pub(crate) enum Work {
    Group(Vec<Operation>),
    Barrier(Barrier),
}

enum Request {
    Operation(Operation),
    Barrier(Barrier),
}

#[derive(Default)]
struct Inner {
    requests: VecDeque<Request>,
    /// Of the operations that wait.
    size_bytes: usize,
    /// Why nothing is taken any more.
    refused: Option<Error>,
    writer_waits: bool,
}

/// The queue.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    work: Condvar,
    room: Condvar,
    size_bytes_max: usize,
}

/// Events of a group: more would make readers wait for the columns' locks.
const GROUP_EVENTS_MAX: usize = 2_048;

impl Queue {
    pub(crate) fn new(size_bytes_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner::default()),
            work: Condvar::new(),
            room: Condvar::new(),
            size_bytes_max,
        }
    }

    /// Adds an operation; blocks while too much is waiting.
    pub(crate) fn push(&self, operation: Operation) -> Result<()> {
        let size_bytes = operation.body.frame_size_bytes() as usize;
        let mut inner = self.inner.lock();
        loop {
            if let Some(refused) = &inner.refused {
                return Err(refused.clone());
            }
            if inner.size_bytes == 0 || inner.size_bytes + size_bytes <= self.size_bytes_max {
                break;
            }
            self.room.wait(&mut inner);
        }
        inner.size_bytes += size_bytes;
        inner.requests.push_back(Request::Operation(operation));
        self.wake(&mut inner);
        Ok(())
    }

    /// Adds a barrier: it is reached when what was added before it is done.
    pub(crate) fn push_barrier(&self, barrier: Barrier) -> Result<()> {
        let mut inner = self.inner.lock();
        if let Some(refused) = &inner.refused {
            return Err(refused.clone());
        }
        inner.requests.push_back(Request::Barrier(barrier));
        self.wake(&mut inner);
        Ok(())
    }

    /// Adds the last barrier: it is taken even where nothing else is any more.
    pub(crate) fn close(&self, promise: Promise<()>) {
        let mut inner = self.inner.lock();
        inner.requests.push_back(Request::Barrier(Barrier::Close(promise)));
        self.wake(&mut inner);
    }

    /// Takes nothing more, for this reason; what waits is still there.
    pub(crate) fn refuse(&self, reason: Error) {
        let mut inner = self.inner.lock();
        inner.refused.get_or_insert(reason);
        self.room.notify_all();
    }

    /// Takes nothing more. Operations that wait are told why; of barriers it is said that a thread ended
    /// early.
    pub(crate) fn abandon(&self, reason: Error) {
        self.refuse(reason.clone());
        let dropped = std::mem::take(&mut self.inner.lock().requests);
        for request in dropped {
            if let Request::Operation(operation) = request {
                operation.promise.fulfil(Err(reason.clone()));
            }
        }
    }

    /// The next work. Without any, returns `None` at once, or after `patience`.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Option<Work> {
        let mut inner = self.inner.lock();
        if let Some(work) = self.next(&mut inner) {
            return Some(work);
        }
        let patience = patience?;
        inner.writer_waits = true;
        self.work.wait_for(&mut inner, patience);
        inner.writer_waits = false;
        self.next(&mut inner)
    }

    fn next(&self, inner: &mut Inner) -> Option<Work> {
        let mut events = 0;
        let mut group = Vec::new();
        while let Some(request) = inner.requests.pop_front() {
            match request {
                Request::Barrier(barrier) if group.is_empty() => {
                    return Some(Work::Barrier(barrier));
                }
                Request::Operation(operation)
                    if group.is_empty() || events + operation.events <= GROUP_EVENTS_MAX =>
                {
                    events += operation.events;
                    inner.size_bytes -= operation.body.frame_size_bytes() as usize;
                    group.push(operation);
                }
                later => {
                    inner.requests.push_front(later);
                    break;
                }
            }
        }
        if group.is_empty() {
            return None;
        }
        self.room.notify_all();
        Some(Work::Group(group))
    }

    fn wake(&self, inner: &mut Inner) {
        if std::mem::take(&mut inner.writer_waits) {
            self.work.notify_one();
        }
    }
}
