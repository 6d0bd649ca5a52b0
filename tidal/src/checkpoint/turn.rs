//! Who has both stores to himself: a checkpoint, or somebody who reads a store from end to end.
//!
//! Knows: that they take turns, and that a checkpoint comes before readers who have not begun. Must not
//! know: what they do. It is no lock: whoever has the turn may wait for the writer, and does for a cut, so
//! nobody waits for a turn while he holds the writer off.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// How long a checkpoint waits before it shows that it is alive.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    checkpoints_waiting: usize,
}

/// A turn, until it is dropped.
#[must_use = "it is over when it is dropped"]
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for the turn of a checkpoint, and calls `beat` meanwhile.
    pub(super) fn begin_checkpoint(&self, beat: &mut dyn FnMut()) -> Turn<'_> {
        let mut state = self.state.lock();
        state.checkpoints_waiting += 1;
        while state.is_taken {
            self.over.wait_for(&mut state, PATIENCE);
            beat();
        }
        state.checkpoints_waiting -= 1;
        state.is_taken = true;
        Turn(self)
    }

    /// Waits for the turn of a reader.
    pub(super) fn begin_reading(&self) -> Turn<'_> {
        let mut state = self.state.lock();
        while state.is_taken || state.checkpoints_waiting > 0 {
            self.over.wait(&mut state);
        }
        state.is_taken = true;
        Turn(self)
    }
}

#[cfg(all(test, not(shuttle)))]
impl Turns {
    /// Whether a checkpoint waits for its turn.
    pub(super) fn is_waited_for(&self) -> bool {
        self.state.lock().checkpoints_waiting > 0
    }
}

impl Turn<'_> {
    pub(super) fn is_of(&self, turns: &Turns) -> bool {
        std::ptr::eq(self.0, turns)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_taken = false;
        self.0.over.notify_all();
    }
}
