//! Where a thread sleeps until it is time, or until it is told to stop.
//!
//! Knows: whether to stop. Must not know: whose thread it is, what it does when it wakes.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// The sleep of one thread, and who may end it for good.
#[derive(Default)]
pub(crate) struct Rest {
    is_over: Mutex<bool>,
    over: Condvar,
}

impl Rest {
    /// Sleeps for so long; whether the thread may go on then.
    pub(crate) fn sleep(&self, patience: Duration) -> bool {
        let mut is_over = self.is_over.lock();
        if !*is_over {
            self.over.wait_for(&mut is_over, patience);
        }
        !*is_over
    }

    /// Whether the thread is to stop.
    pub(crate) fn is_over(&self) -> bool {
        *self.is_over.lock()
    }

    /// The thread is to stop, now or when it next wants to sleep.
    pub(crate) fn stop(&self) {
        *self.is_over.lock() = true;
        self.over.notify_all();
    }
}
