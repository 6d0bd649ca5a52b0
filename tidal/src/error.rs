//! What can go wrong, and what the caller can do about it.
//!
//! Knows: kinds, sentences. Must not know: any room that raises them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::end::End;
use crate::ids::{CollectionId, Fence, SessionId, Timestamp};
use crate::seq::Seq;

/// The result of every fallible call of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fix the call, or the schema or options that refuse it. Nothing was written.
    Invalid,
    /// The state refused the operation; decide anew and call again. Nothing was written to state.
    Refused,
    /// The environment is in the way (lock, permissions, full disk): remove the cause, try again.
    Unavailable,
    /// What lies on disk is damaged beyond what recovery may repair by itself: restore a backup, or
    /// [`salvage`](crate::TidalDb::salvage) what is left.
    Corrupt,
    /// The engine was closed, or stopped after a failure: reopen the database.
    Closed,
}

/// Any failure of the engine.
///
/// An error is cheap to clone, because one failed group answers every caller that waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that the schema does not have.
    #[error("no {what} is called {name:?}{}", nearest_hint(nearest))]
    UnknownName {
        /// What was looked for: `signal`, `cohort` …
        what: &'static str,
        /// The name as given.
        name: String,
        /// Known names that look alike, the closest first.
        nearest: Vec<String>,
    },
    /// An argument outside its range.
    #[error("{what}: {reason}")]
    InvalidArgument {
        /// The argument.
        what: &'static str,
        /// Why it is refused, and what is accepted.
        reason: String,
    },
    /// Something larger than its limit.
    #[error("{what} has {size} {unit}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The largest size accepted.
        limit: u64,
        /// What is counted: `bytes`, `entries` …
        unit: &'static str,
    },
    /// An event time further ahead of engine time than the options allow.
    #[error(
        "event time {at_ns} ns is {ahead_ms} ms ahead of engine time, at most {max_ms} ms are allowed \
         by max_future_skew or, where events advance time, max_event_jump"
    )]
    TooFarAhead {
        /// The event's time, in nanoseconds since the epoch.
        at_ns: u64,
        /// How far ahead of engine time it is, in milliseconds.
        ahead_ms: u64,
        /// How far ahead it may be, in milliseconds.
        max_ms: u64,
    },
    /// A read at a time before the engine's, whose answer would contain that moment's future.
    #[error(
        "now is {} ns, but the engine has reached {} ns: a read may lag by 5 min at most",
        now.as_nanos(), engine_time.as_nanos()
    )]
    NowTooOld {
        /// The time asked for.
        now: Timestamp,
        /// The engine's time.
        engine_time: Timestamp,
    },
    /// The clock jumped ahead of the monotonic clock; writes wait for an explicit reset.
    #[error(
        "the clock jumped {jump_ms} ms ahead of the monotonic clock: correct it, or accept the new \
         time with reset_clock()"
    )]
    ClockJumped {
        /// The size of the jump, in milliseconds.
        jump_ms: u64,
    },
    /// A schema that contradicts itself.
    #[error("schema: {0}")]
    InvalidSchema(String),
    /// The schema given at open is not an extension of the stored one.
    #[error("the stored schema differs and cannot be extended to the given one: {}", .0.join("; "))]
    SchemaMismatch(Vec<String>),
    /// A batch from a source that overlaps what is already applied, but not wholly.
    #[error(
        "source {source_name:?} is stored through {stored}; the batch straddles it: split it there"
    )]
    Overlap {
        /// The source.
        source_name: String,
        /// The last position of that source already applied.
        stored: u64,
    },
    /// A batch from a contiguous source that leaves positions out.
    #[error(
        "source {source_name:?} is contiguous and stored through {stored}; the batch starts later: send \
         what follows {stored} first"
    )]
    Gap {
        /// The source.
        source_name: String,
        /// The last position of that source already applied.
        stored: u64,
    },
    /// No such collection, or one that is private and another user's: the answer is the same.
    #[error("there is no collection {0}, or it is private: read the list of its owner's anew")]
    CollectionNotFound(CollectionId),
    /// A change of a collection that expected another version of it.
    #[error(
        "collection {collection} is at version {current}, not {expected}: read it again and decide \
         anew"
    )]
    StaleVersion {
        /// The collection.
        collection: CollectionId,
        /// The version that the change expected.
        expected: u64,
        /// The version that the collection has.
        current: u64,
    },
    /// A position, or the end of a range, beyond the end of a collection.
    #[error(
        "position {position} is beyond the end of collection {collection}, which has {item_count} \
         items: read it again"
    )]
    PositionOutOfRange {
        /// The collection.
        collection: CollectionId,
        /// The position, counted from 0.
        position: u64,
        /// How many items the collection has.
        item_count: u64,
    },
    /// No such session.
    #[error("there is no session {0}: sessions().list() has those there are")]
    SessionNotFound(SessionId),
    /// A write to a session that has ended. Nothing was written.
    #[error(
        "session {id} ended {end}: start another one, or append late records while late_grace lasts"
    )]
    SessionEnded {
        /// The session.
        id: SessionId,
        /// How it ended.
        end: Box<End>,
    },
    /// A write by a holder of a session whom a later one has replaced. Nothing was written.
    #[error(
        "session {id} is held with fence {current}, and {held} is an earlier one: resume it to write \
         again"
    )]
    Fenced {
        /// The session.
        id: SessionId,
        /// The fence of the write.
        held: Fence,
        /// The fence that the session has.
        current: Fence,
    },
    /// A start in a lane that has an open session, where conflicts are refused.
    #[error("session {by} is open in this lane: end or resume it")]
    LaneBusy {
        /// The open session.
        by: SessionId,
    },
    /// Late records for a session that is open.
    #[error("session {0} is open: resume it and write to it")]
    SessionOpen(SessionId),
    /// Late records after the time that the session's policy grants them.
    #[error(
        "session {id} stopped taking late records {by_ms} ms ago (late_grace of its policy): drop the \
         signal, or send it without a session"
    )]
    TooLate {
        /// The session.
        id: SessionId,
        /// How long ago it stopped to take them, in milliseconds.
        by_ms: u64,
    },
    /// A signal beyond what the session's policy allows for the time.
    #[error("session {id} has sent too many signals for now: try again in {retry_after_ms} ms")]
    RateLimited {
        /// The session.
        id: SessionId,
        /// When the next one is accepted, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// A signal that the session's policy does not allow.
    #[error("policy {policy:?} does not allow signal {signal:?}: see SessionPolicy::signals")]
    SignalForbidden {
        /// The policy of the session.
        policy: String,
        /// The signal.
        signal: String,
    },
    /// A run of a processor is going on, and there is one at a time.
    #[error("a run of processor {processor:?} is going on: wait for it to end")]
    ProcessorRunning {
        /// The name of the processor.
        processor: String,
        /// The engine time at which it began.
        since: Timestamp,
    },
    /// Another handle, in this process or another, has the database open, or a copy, salvage or backup makes
    /// something there.
    #[error("{} is in use by another process or handle: end or close that one first", path.display())]
    Locked {
        /// The database directory, or the stage of what is being made.
        path: PathBuf,
    },
    /// The directory cannot be written.
    #[error("{} cannot be written: check owner, permissions and how it is mounted", path.display())]
    ReadOnly {
        /// The path that refused.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is not a tidal database: {reason}", path.display())]
    NotADatabase {
        /// The directory.
        path: PathBuf,
        /// What was found there.
        reason: String,
    },
    /// Written by a later version of this library.
    #[error(
        "{what} has format {found}; this version reads up to {max}: use the version that wrote it, or a \
         later one"
    )]
    FormatTooNew {
        /// The file or record.
        what: String,
        /// The format found.
        found: u16,
        /// The newest format this version reads.
        max: u16,
    },
    /// No space left on the device; reads go on, writes are refused until reopened with space.
    #[error("no space left on the device while trying to {action} {}", path.display())]
    DiskFull {
        /// What was attempted.
        action: &'static str,
        /// The path it was attempted on.
        path: PathBuf,
    },
    /// The operating system refused an operation.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The path it was attempted on.
        path: PathBuf,
        /// The refusal.
        #[source]
        source: Arc<io::Error>,
    },
    /// The log is damaged at or below the position that was proven synced.
    #[error(
        "the log is damaged at {seq}, in {} at byte {offset}: {detail}; restore a backup, or save what is \
         left with salvage()",
        segment.display()
    )]
    CorruptLog {
        /// The segment file.
        segment: PathBuf,
        /// Byte offset in it.
        offset: u64,
        /// The first sequence that cannot be read.
        seq: Seq,
        /// What is wrong.
        detail: String,
    },
    /// A whole segment of the log is missing.
    #[error(
        "the log has no frames {from} to {to}: restore a backup, or save what is left with salvage()"
    )]
    LogGap {
        /// First missing sequence.
        from: Seq,
        /// Last missing sequence.
        to: Seq,
    },
    /// Something else on disk does not verify. It may be one of two stores, of which the other one holds: so
    /// what to do is said by whoever knows (`health`, `open_report`, the [kind](ErrorKind::Corrupt)).
    #[error("{what} is damaged: {detail}")]
    Corrupt {
        /// The thing.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The checkpoint store failed.
    #[error("checkpoint store: {0}")]
    Store(String),
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// An earlier failure stopped writing; the outcome of operations in flight then is unknown
    /// until the database is reopened.
    #[error("the engine stopped writing after a failure: {reason}; reopen the database")]
    Stopped {
        /// The failure.
        reason: String,
    },
}

impl Error {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownName { .. }
            | Self::InvalidArgument { .. }
            | Self::TooLarge { .. }
            | Self::InvalidSchema(_)
            | Self::SchemaMismatch(_) => ErrorKind::Invalid,
            Self::Overlap { .. }
            | Self::Gap { .. }
            | Self::TooFarAhead { .. }
            | Self::NowTooOld { .. }
            | Self::CollectionNotFound(_)
            | Self::StaleVersion { .. }
            | Self::PositionOutOfRange { .. }
            | Self::SessionNotFound(_)
            | Self::SessionEnded { .. }
            | Self::Fenced { .. }
            | Self::LaneBusy { .. }
            | Self::SessionOpen(_)
            | Self::TooLate { .. }
            | Self::RateLimited { .. }
            | Self::SignalForbidden { .. }
            | Self::ProcessorRunning { .. } => ErrorKind::Refused,
            Self::ClockJumped { .. }
            | Self::Locked { .. }
            | Self::ReadOnly { .. }
            | Self::NotADatabase { .. }
            | Self::FormatTooNew { .. }
            | Self::DiskFull { .. }
            | Self::Io { .. }
            | Self::Store(_) => ErrorKind::Unavailable,
            Self::CorruptLog { .. } | Self::LogGap { .. } | Self::Corrupt { .. } => {
                ErrorKind::Corrupt
            }
            Self::Closed | Self::Stopped { .. } => ErrorKind::Closed,
        }
    }

    /// An operating-system refusal of `action` on `path`, told apart by what can be done about it.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { action, path }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path }
            }
            _ => Self::Io { action, path, source: Arc::new(source) },
        }
    }

    /// Damage of `what`.
    pub(crate) fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into(), detail: detail.into() }
    }

    /// An argument refused.
    pub(crate) fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidArgument { what, reason: reason.into() }
    }

    /// An unknown name, with the known ones that look alike.
    pub(crate) fn unknown<'a>(
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::UnknownName { what, name: name.to_owned(), nearest: nearest_names(name, known) }
    }
}

fn nearest_hint(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(", ")),
    }
}

/// How many alike names an error lists.
const NEAREST_MAX: usize = 3;

/// The known names within a third of `name`'s length (at least 2) of edits, closest first.
fn nearest_names<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let reach = (name.chars().count() / 3).max(2);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|&(distance, _)| distance <= reach)
        .collect();
    near.sort_unstable();
    near.into_iter().take(NEAREST_MAX).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// Levenshtein distance in characters (Wagner and Fischer 1974, one row).
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_name_lists_the_closest_known_names_first() {
        let known = ["view", "review", "purchase", "vew"];
        assert_eq!(nearest_names("viw", known), ["vew", "view"]);
        assert!(nearest_names("nothing-alike", known).is_empty());
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_refusals() {
        let full = Error::io("write", Path::new("x"), io::ErrorKind::StorageFull.into());
        assert!(matches!(full, Error::DiskFull { .. }));
        assert_eq!(full.kind(), ErrorKind::Unavailable);
    }
}
