//! Instants between two steps whose order matters.
//!
//! Knows: their names and numbers. Must not know: what a plan does when one is reached, or what the
//! steps are.
//!
//! Every build has the points, because the build that is tested is the build that ships. Without a
//! plan a point is one branch, at the rhythm of groups and batches, never of events. A plan ends the
//! process, or cuts the power of a simulated disk, or counts; it does not return an answer, so no
//! code has a path that only tests take.

use std::fmt;
use std::sync::Arc;

macro_rules! crash_points {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// An instant between two steps whose order matters. Numbers are stable: one is never given to
        /// another instant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum CrashPoint {
            $($(#[$doc])* $name = $number,)*
        }

        impl CrashPoint {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

crash_points! {
    /// A group is stamped and in memory; nothing of it is written.
    GroupAppended = 1,
    /// A group is with the operating system, not on the disk.
    GroupWritten = 2,
    /// A sync runs on its own thread while the writer goes on.
    SyncBegun = 3,
    /// The log is synced; what it gained may not be applied.
    LogSynced = 4,
    /// A group is applied and nobody has an answer.
    GroupApplied = 5,
    /// Someone has an answer.
    Acknowledged = 6,
    /// A mark is written and not synced.
    MarkWritten = 7,

    /// A full segment is synced; its successor does not exist.
    RollSynced = 11,
    /// The successor is durable; the full segment is not sealed.
    RollCreated = 12,
    /// The full segment is sealed; its successor is empty.
    RollSealed = 13,

    /// All tables are cut for a checkpoint, and nothing has gone out.
    CutTaken = 21,
    /// What an interrupted checkpoint left in the store is removed.
    CheckpointCleaned = 22,
    /// A batch of a checkpoint is in the store.
    CheckpointBatchWritten = 23,
    /// All pages of a checkpoint are on their way, and no cold row.
    PagesWritten = 24,
    /// The other store's cold rows are copied into a new store.
    RowsCopied = 25,
    /// Everything of a checkpoint is in the store but its manifest.
    ManifestDue = 26,
    /// The manifest is synced; nobody knows.
    ManifestCommitted = 27,
    /// Reads use the new checkpoint; what it supersedes is still there.
    CheckpointPublished = 28,
    /// What the new checkpoint supersedes is removed; the log is not truncated.
    SupersededRemoved = 29,
    /// A segment of the log is removed, and others may have to go.
    SegmentRemoved = 30,

    /// A store is about to be moved aside.
    ReplacementBegun = 41,
    /// A store is moved aside, and none is in its place.
    StoreMovedAside = 42,
    /// A new, empty store is in its place.
    StoreMade = 43,

    /// The directory is locked, and is no database yet.
    DirectoryLocked = 51,
    /// The identity is written under its temporary name.
    IdentityWritten = 52,
    /// The directory is a database, without log and stores.
    IdentityNamed = 53,
    /// The first segment lies in a log that has not got its name.
    LogStaged = 54,
    /// The log has its name.
    LogNamed = 55,

    /// The space kept for this open is given back to the disk.
    ReserveFreed = 61,
    /// Both stores are open, or known not to open.
    StoresOpened = 62,
    /// The newest checkpoint that holds is loaded.
    CheckpointLoaded = 63,
    /// It is known where the log ends.
    LogJudged = 64,
    /// The log is applied; nothing on disk was changed.
    LogReplayed = 65,
    /// Files that never became segments, and segments in front of a hole, are removed.
    LeftoversRemoved = 66,
    /// Unproven frames are durable in a segment without a name.
    UnprovenCopied = 67,
    /// The new segment has its name; the old one still has the same frames.
    UnprovenNamed = 68,
    /// The old segment is cut and sealed.
    TailSealed = 69,
    /// Stores that do not hold are replaced.
    StoresRepaired = 70,
    /// A recovery frame is written and not synced.
    RecoveryWritten = 71,
    /// A recovery frame is synced and not applied.
    RecoverySynced = 72,
    /// Everything is recovered; no space is reserved.
    Recovered = 73,
    /// Space is reserved for the next open; nothing is served.
    ReserveFilled = 74,

    /// The last checkpoint of a close is done; the log has no last mark.
    CloseCheckpointed = 81,
    /// The last mark is synced; the lock is still held.
    CloseMarked = 82,

    /// Attempts of a processor have begun, and that is written down.
    ProcessorAfterStarted = 91,
    /// A processor is about to be handed a session.
    ProcessorInUserCode = 92,
    /// A processor is done with sessions, and nobody knows.
    ProcessorBeforeCommit = 93,
    /// What a processor made of sessions is written down.
    ProcessorAfterCommit = 94,
    /// A run of a processor is over, and that is not written down.
    JobAfterRunBeforeFinished = 95,

    /// A session of a plan is pruned and the next one is not, and no sync has seen either.
    PruneMid = 96,
    /// An acknowledgement of a cursor is about to be written down.
    CursorBeforeAck = 97,
}

impl CrashPoint {
    /// Those that every database reaches that is written to.
    pub const OF_THE_ENGINE: &[Self] = Self::ALL.split_at(Self::count_below(91)).0;

    /// Those that a run of a processor reaches.
    pub const OF_PROCESSORS: &[Self] =
        Self::ALL.split_at(Self::count_below(96)).0.split_at(Self::count_below(91)).1;

    /// Those that a call of a host reaches, about sessions that have ended.
    pub const OF_HOSTS: &[Self] = Self::ALL.split_at(Self::count_below(96)).1;

    /// How many have a number below this one.
    const fn count_below(number: u16) -> usize {
        let mut count = 0;
        while count < Self::ALL.len() && Self::ALL[count].number() < number {
            count += 1;
        }
        count
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self as u16
    }
}

type Plan = dyn Fn(CrashPoint) + Send + Sync;

/// What happens at crash points: by default nothing.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Plan>>);

impl Faults {
    /// Nothing happens.
    pub const NONE: Self = Self(None);

    /// `plan` is called at every point, on the thread that reaches it.
    pub fn new(plan: impl Fn(CrashPoint) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(plan)))
    }

    /// Says that a point is reached.
    #[inline]
    pub(crate) fn reach(&self, point: CrashPoint) {
        if let Some(plan) = &self.0 {
            plan(point);
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(planned)" } else { "Faults(none)" })
    }
}
