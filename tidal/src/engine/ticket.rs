//! One answer, made by an engine thread, waited for by a caller: blocking or as a future.
//!
//! Knows: answers. Must not know: to what.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex};

enum Slot<T> {
    Empty(Option<Waker>),
    Full(Result<T>),
    Taken,
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

/// The side that answers. Dropped without an answer, it answers that the engine stopped.
pub(crate) struct Promise<T>(Option<Arc<Shared<T>>>);

/// The side that waits.
pub(crate) struct Pending<T>(Arc<Shared<T>>);

/// The two sides of one answer.
pub(crate) fn promise<T>() -> (Promise<T>, Pending<T>) {
    let shared = Arc::new(Shared { slot: Mutex::new(Slot::Empty(None)), filled: Condvar::new() });
    (Promise(Some(Arc::clone(&shared))), Pending(shared))
}

impl<T> Promise<T> {
    pub(crate) fn fulfil(mut self, answer: Result<T>) {
        if let Some(shared) = self.0.take() {
            shared.fill(answer);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            let reason = "a thread of the engine ended early".to_owned();
            shared.fill(Err(Error::Stopped { reason }));
        }
    }
}

impl<T> Shared<T> {
    fn fill(&self, answer: Result<T>) {
        let before = std::mem::replace(&mut *self.slot.lock(), Slot::Full(answer));
        self.filled.notify_one();
        if let Slot::Empty(Some(waker)) = before {
            // A waker is the caller's code: its panic must not end the thread that answers others.
            let woken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
            if woken.is_err() {
                tracing::warn!("a ticket's waker panicked");
            }
        }
    }

    fn take(slot: &mut Slot<T>) -> Option<Result<T>> {
        match std::mem::replace(slot, Slot::Taken) {
            Slot::Full(answer) => Some(answer),
            Slot::Empty(waker) => {
                *slot = Slot::Empty(waker);
                None
            }
            Slot::Taken => panic!("an answer is taken once"),
        }
    }
}

impl<T> Pending<T> {
    /// Blocks until the answer is there.
    pub(crate) fn wait(self) -> Result<T> {
        let mut slot = self.0.slot.lock();
        loop {
            if let Some(answer) = Shared::take(&mut slot) {
                return answer;
            }
            self.0.filled.wait(&mut slot);
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.slot.lock();
        match Shared::take(&mut slot) {
            Some(answer) => Poll::Ready(answer),
            None => {
                *slot = Slot::Empty(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}
