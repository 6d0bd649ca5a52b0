//! What threads meet at: locks, atomics, channels, threads.
//!
//! Knows: which implementation of them is in use. Must not know: what they guard.
//!
//! A build has parking_lot's, crossbeam's and the standard library's, and this file is then nothing but
//! their names. With `--cfg shuttle`, for tests alone, every one of them is a place where shuttle
//! chooses who goes on, and the order in which locks are taken is watched (`sync/watched.rs`).

#[cfg(shuttle)]
mod order;
#[cfg(shuttle)]
mod watched;

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64},
    thread::{self, JoinHandle},
    thread_local,
};

#[cfg(not(shuttle))]
pub(crate) use crossbeam::channel::{Receiver, Sender, bounded};
#[cfg(not(shuttle))]
pub(crate) use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64},
    sync::mpsc::{Receiver, SyncSender as Sender, sync_channel as bounded},
    thread::{self, JoinHandle},
    thread_local,
};
#[cfg(shuttle)]
pub(crate) use watched::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use std::sync::atomic::Ordering;

#[cfg(all(test, shuttle))]
pub(crate) use order::explore;
