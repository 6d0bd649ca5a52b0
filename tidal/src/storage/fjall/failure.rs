//! How the checkpoint store fails.
//!
//! Knows: which failures of fjall say something about the store, and which about its surroundings.
//! Must not know: what is done about them.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::fjall::LsmError;

use crate::error::Error;
use crate::storage::OpenFailure;
use crate::storage::machine::store_name;

/// A failed call of fjall.
#[derive(Debug)]
pub(super) enum Fault {
    /// It said so.
    Fjall(::fjall::Error),
    /// It could not sync: what the operating system believes to be on disk may not be, for good.
    Unsynced(::fjall::Error),
    /// It panicked.
    Panicked(String),
    /// It opened a store without our keyspace.
    Emptied,
    /// It made no room for a write in a long time.
    Stalled,
}

impl From<::fjall::Error> for Fault {
    fn from(error: ::fjall::Error) -> Self {
        Self::Fjall(error)
    }
}

/// Runs a call of fjall, which may panic over what it finds on disk. Asserting unwind safety is right:
/// after a panic while opening nothing is left to look at, after one while writing no write follows,
/// and reading changes nothing.
pub(super) fn caught<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(outcome) => outcome,
        Err(panic) => Err(Fault::Panicked(panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

impl Fault {
    /// The failure of a sync.
    pub(super) fn of_sync(error: ::fjall::Error) -> Self {
        match error {
            // Nothing was tried.
            ::fjall::Error::Poisoned => Self::Fjall(error),
            error => Self::Unsynced(error),
        }
    }

    /// The failure of `action` on the store at `path`.
    pub(super) fn into_error(self, action: &'static str, path: &Path) -> Error {
        let store = path.display();
        match self {
            Self::Fjall(error) => fjall_error(error, action, path),
            // Whatever the reason: a store that was not synced is not to be relied on.
            Self::Unsynced(error) => Error::Store(format!("could not sync {store}: {error}")),
            Self::Panicked(text) => {
                Error::Store(format!("could not {action} {store}: fjall panicked: {text}"))
            }
            Self::Emptied => Error::corrupt(store_name(path), "its keyspace is gone"),
            Self::Stalled => Error::Store(format!(
                "could not {action} {store}: it has not flushed what it holds in memory for a minute"
            )),
        }
    }

    /// The failure of opening the store at `path`.
    pub(super) fn into_open_failure(self, path: &Path) -> OpenFailure {
        let says_nothing_about_the_store = match &self {
            Self::Fjall(::fjall::Error::Locked) => true,
            Self::Fjall(error) => io_cause(error).is_some_and(is_of_the_surroundings),
            Self::Unsynced(_) | Self::Panicked(_) | Self::Emptied | Self::Stalled => false,
        };
        let error = self.into_error("open", path);
        if says_nothing_about_the_store {
            OpenFailure::Unavailable(error)
        } else {
            OpenFailure::Damaged(error)
        }
    }
}

fn fjall_error(error: ::fjall::Error, action: &'static str, path: &Path) -> Error {
    use ::fjall::Error as Fjall;
    let store = path.display();
    match error {
        Fjall::Locked => Error::Locked { path: path.to_owned() },
        Fjall::Io(source) | Fjall::Storage(LsmError::Io(source)) => {
            if is_of_the_surroundings(&source) {
                Error::io(action, path, source)
            } else {
                Error::Store(format!("could not {action} {store}: {source}"))
            }
        }
        // Why is not said: a full disk as well as a damaged one. What lies there shows when it is opened.
        Fjall::Poisoned => {
            let reason = "fjall failed in the background and takes no more writes";
            Error::io(action, path, io::Error::other(reason))
        }
        Fjall::JournalRecovery(error) => {
            Error::Store(format!("could not {action} {store}: its journal is damaged: {error}"))
        }
        Fjall::InvalidVersion(version) => Error::Store(format!(
            "could not {action} {store}: it is of fjall format {version:?}, not of version 3"
        )),
        error => Error::Store(format!("could not {action} {store}: {error}")),
    }
}

fn io_cause(error: &::fjall::Error) -> Option<&io::Error> {
    match error {
        ::fjall::Error::Io(source) | ::fjall::Error::Storage(LsmError::Io(source)) => Some(source),
        _ => None,
    }
}

/// Too many open files, of this process and of the system (errno); the standard library has no kind
/// for them.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Whether a refusal is about the process or the device, and not about what lies on it.
fn is_of_the_surroundings(error: &io::Error) -> bool {
    use io::ErrorKind::{
        Interrupted, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        WouldBlock,
    };
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
        || matches!(
            error.kind(),
            Interrupted
                | OutOfMemory
                | PermissionDenied
                | QuotaExceeded
                | ReadOnlyFilesystem
                | StorageFull
                | WouldBlock
        )
}
