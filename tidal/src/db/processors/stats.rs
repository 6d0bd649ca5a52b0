//! What a run did, and why it ended.
//!
//! Knows: counts. Must not know: how they came about.

use std::time::Duration;

use crate::error::Error;
use crate::ids::{SessionId, Timestamp};

/// What a run of a processor did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RunStats {
    /// The name of the processor.
    pub processor: String,
    /// Sessions that were attempted. What needs no attempt is not among them.
    pub scanned: u64,
    /// Sessions that were processed.
    pub processed: u64,
    /// Sessions that were looked at and left, because their content had been processed already.
    pub unchanged: u64,
    /// Sessions that are to be tried again later.
    pub deferred: u64,
    /// Sessions that were given up by this run.
    pub quarantined: u64,
    /// Attempts that failed, those that were the last ones included.
    pub errors: u64,
    /// Attempts whose outcome was not accepted, because the processing of the session was given up or
    /// begun anew meanwhile.
    pub fenced: u64,
    /// Items that were found in the sessions that were processed.
    pub items: u64,
    /// How long it took, by the monotonic clock.
    pub took: Duration,
    /// Why it ended.
    pub stopped: StopReason,
    /// The first 100 errors.
    pub errors_detail: Vec<(SessionId, String)>,
}

impl RunStats {
    pub(super) fn note_error(&mut self, session: SessionId, error: &str) {
        self.errors += 1;
        if self.errors_detail.len() < 100 {
            self.errors_detail.push((session, error.to_owned()));
        }
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StopReason {
    /// There was nothing more to do.
    #[default]
    Drained,
    /// It had taken as long as it may.
    TimeBudget,
    /// It had attempted as many sessions as it may.
    SessionCap,
    /// The database is being closed, or the processor unregistered.
    Shutdown,
}

/// Why there was no run, or not a whole one.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A run of the processor is going on, and there is one at a time.
    #[error("a run of processor {processor:?} is going on: wait for it to end")]
    AlreadyRunning {
        /// The name of the processor.
        processor: String,
        /// The engine time at which it began.
        since: Timestamp,
    },
    /// No such processor is registered in this open of the database.
    #[error("no processor {processor:?} is registered in this process; {}", registered(known))]
    Unknown {
        /// The name as given.
        processor: String,
        /// The names of those that are registered.
        known: Vec<String>,
    },
    /// The database is in the way. What was written down before counts; the rest is tried again by the
    /// next run.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Which processors are registered, as a sentence.
fn registered(known: &[String]) -> String {
    match known {
        [] => "none is".to_owned(),
        [one] => format!("{one:?} is the only one that is"),
        all => {
            let names: Vec<String> = all.iter().map(|name| format!("{name:?}")).collect();
            format!("those that are: {}", names.join(", "))
        }
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        match error {
            RunError::AlreadyRunning { processor, since } => {
                Self::ProcessorRunning { processor, since }
            }
            RunError::Unknown { processor, known } => {
                Self::unknown("processor", &processor, known.iter().map(String::as_str))
            }
            RunError::Storage(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_an_unknown_processor_is_told_which_are_registered() {
        let unknown = |known: &[&str]| RunError::Unknown {
            processor: "usgae".to_owned(),
            known: known.iter().map(|&name| name.to_owned()).collect(),
        };
        for (known, words) in [
            (&[][..], "; none is"),
            (&["usage"], "; \"usage\" is the only one that is"),
            (&["usage", "verification"], "; those that are: \"usage\", \"verification\""),
        ] {
            let sentence = unknown(known).to_string();
            assert!(sentence.ends_with(words), "{sentence}");
        }
        match Error::from(unknown(&["usage", "verification"])) {
            Error::UnknownName { name, nearest, .. } => {
                assert_eq!((&*name, &nearest[..]), ("usgae", &["usage".to_owned()][..]));
            }
            other => panic!("{other:?}"),
        }
    }
}
