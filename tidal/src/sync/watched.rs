//! Locks under shuttle, with the interface of parking_lot's and their order watched.
//!
//! Knows: how each is made of shuttle's. Must not know: what it guards.
//!
//! A wait with a timeout either ends by it, which shuttle's random numbers decide, or never: so a lost
//! wake-up is a deadlock, which shuttle reports, and a wake-up that meets a timeout is tried too.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};

use super::order::{Held, Watched};

/// One wait of so many ends by its timeout.
const WAITS_PER_TIMEOUT: u32 = 4;

pub(crate) struct Mutex<T> {
    watched: Watched,
    inner: shuttle::sync::Mutex<T>,
}

pub(crate) struct MutexGuard<'a, T> {
    of: &'a Mutex<T>,
    /// Before `inner`: it is dropped first, while the lock is still held. `None` during a wait.
    held: Option<Held<'a>>,
    inner: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Self {
        Self { watched: Watched::new(), inner: shuttle::sync::Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let held = Some(self.watched.take());
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { of: self, held, inner: Some(inner) }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Default for Mutex<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("a guard is used outside of waits")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("a guard is used outside of waits")
    }
}

#[derive(Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.held = None;
        let inner = guard.inner.take().expect("a guard is used outside of waits");
        let inner = self.0.wait(inner).unwrap_or_else(PoisonError::into_inner);
        guard.inner = Some(inner);
        guard.held = Some(guard.of.watched.take());
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _timeout: Duration) {
        if thread_rng().gen_range(0..WAITS_PER_TIMEOUT) > 0 {
            return self.wait(guard);
        }
        (guard.held, guard.inner) = (None, None);
        shuttle::thread::yield_now();
        *guard = guard.of.lock();
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

pub(crate) struct RwLock<T> {
    watched: Watched,
    inner: shuttle_parking_lot::RwLock<T>,
}

pub(crate) struct RwLockReadGuard<'a, T> {
    _held: Option<Held<'a>>,
    /// `None` within another read of the same thread.
    inner: Option<shuttle_parking_lot::RwLockReadGuard<'a, T>>,
}

pub(crate) struct RwLockWriteGuard<'a, T> {
    _held: Held<'a>,
    inner: shuttle_parking_lot::RwLockWriteGuard<'a, T>,
}

impl<T> RwLock<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Self {
        Self { watched: Watched::new(), inner: shuttle_parking_lot::RwLock::new(value) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        let held = self.watched.take();
        RwLockReadGuard { _held: Some(held), inner: Some(self.inner.read()) }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        RwLockWriteGuard { _held: self.watched.take(), inner: self.inner.write() }
    }
}

impl RwLock<()> {
    /// A thread that holds the lock does not wait for it; it gives it back in the reverse order.
    pub(crate) fn read_recursive(&self) -> RwLockReadGuard<'_, ()> {
        if self.watched.is_held() {
            return RwLockReadGuard { _held: None, inner: None };
        }
        self.read()
    }
}

impl<T: Default> Default for RwLock<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("a lock that is read within a read guards nothing")
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
