//! Newtypes for identities.
//!
//! Knows: how things are named inside the engine. Must not know: what they mean.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $vis:vis $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name($inner);

        impl $name {
            /// Names the thing with this number.
            $vis const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The number, the same one that was given to `new`.
            $vis const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// An item, user or creator, named by a 64-bit number that the caller chooses.
    ///
    /// Callers whose ids are text get one from [`TidalDb::intern`](crate::TidalDb::intern).
    pub EntityId(u64)
}

impl EntityId {
    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

id! {
    /// A user who sends signals; its own number space, apart from items.
    pub UserId(u64)
}

impl From<u64> for UserId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

id! {
    /// A signal type of the schema.
    ///
    /// Numbers are given alphabetically when a schema is first created; names that are added later
    /// follow in the order in which they were added.
    pub SignalTypeId(u16)
}

id! {
    /// A collection, named by the number of the operation that created it.
    pub CollectionId(u64)
}

id! {
    /// A session, named by the number of the operation that started it: a later start has a larger
    /// number, and none is given twice.
    pub SessionId(u64)
}

impl SessionId {
    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

id! {
    /// A processor of sessions, from 1 on in the order in which names were first registered; no number is
    /// given twice.
    pub(crate) ProcessorId(u8)
}

id! {
    /// A processor's attempts at sessions that began together, named by the number of the operation that
    /// began them: whoever writes of an attempt names it, and none is named so twice.
    pub(crate) AttemptId(u64)
}

/// Which holder of a session a write comes from.
///
/// Whoever starts, resumes or joins a session gets a fence that is greater than all before; from then
/// on writes with an earlier one are refused. So of two processes, or two threads, that believe to
/// hold a session only the later one writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence {
    /// The open of the database in which it was granted.
    pub incarnation: u64,
    /// The position in the log of the frame that granted it; 0 when nobody holds the session.
    pub grant: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.grant)
    }
}

id! {
    /// A cohort, numbered in the order in which the log first needed it; 0 is everyone.
    pub(crate) CohortId(u32)
}

impl CohortId {
    /// The scope that every signal counts in.
    pub(crate) const EVERYONE: Self = Self(0);
}

/// The name of one database: 128 random bits, made once at creation and written into every segment
/// header, page and manifest, so that a file of another database is never believed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DatabaseId([u8; 16]);

impl DatabaseId {
    /// Names the database with these bits.
    pub(crate) const fn new(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// The bits.
    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseId({self})")
    }
}

/// A point in time: nanoseconds since the Unix epoch (UTC), good until the year 2554.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// The point `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The point `seconds` seconds after the epoch; the last representable point if there is none.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This point moved later by `by`, stopping at the last representable point.
    #[must_use]
    pub fn saturating_add(self, by: std::time::Duration) -> Self {
        Self(self.0.saturating_add(duration_nanos(by)))
    }

    /// This point moved earlier by `by`, stopping at the epoch.
    #[must_use]
    pub fn saturating_sub(self, by: std::time::Duration) -> Self {
        Self(self.0.saturating_sub(duration_nanos(by)))
    }

    /// How long it is from here to a later moment; nothing if that is not later.
    pub(crate) fn until(self, later: Self) -> std::time::Duration {
        std::time::Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

/// A duration as an operator reads it: its two largest units, without one that is 0.
pub(crate) fn spoken(duration: std::time::Duration) -> String {
    let s = duration.as_secs();
    let (large, small) = match (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, 0) => return format!("{} ms", duration.as_millis()),
        (0, 0, 0, s) => return format!("{s} s"),
        (0, 0, m, s) => ((m, "min"), (s, "s")),
        (0, h, m, _) => ((h, "h"), (m, "min")),
        (d, h, ..) => ((d, "d"), (h, "h")),
    };
    match small {
        (0, _) => format!("{} {}", large.0, large.1),
        (count, unit) => format!("{} {} {count} {unit}", large.0, large.1),
    }
}

/// So many of what takes an s when there are several: `1 session`, `2 sessions`.
pub(crate) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Whole nanoseconds of a duration, at most 2^64 - 1.
pub(crate) fn duration_nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
