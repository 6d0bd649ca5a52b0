//! tidal: embedded, crash-safe state for recommendation services.
//!
//! - [`TidalDb`] is an open database; [`TidalDb::builder`] opens one.
//! - [`schema`] declares signals, their half-lives and windows, and cohorts.
//! - [`Batch`] and [`Event`] are what is written; [`Ticket`] and [`Ack`] what comes back.
//! - [`ReadOptions`] say for whom and as of when; [`Ranked`] is an item in a ranking.
//! - [`CollectionChange`] is a change of a user's list of items; [`CollectionInfo`] and [`CollectionPage`] are
//!   what is read of one.
//! - A [`SessionProcessor`] works on sessions that have ended; [`Sessions`] registers and runs it, and has what
//!   it made. [`builtin`] has two that come with the library.
//! - [`Durability`] says what an acknowledgement means; [`Options`] has every limit and policy.
//! - [`Error`] says what went wrong, [`ErrorKind`] what to do about it.
//! - [`HealthReport`], [`OpenReport`], [`Status`], [`VerifyReport`], [`Inspection`] and [`Salvage`] are what a database
//!   says of itself.
//! - [`co_engagement`] has what is engaged with together; a [`CoEngagementReader`] reads it.
//! - [`cohort`] and [`storage`] stand alone, for callers with a log of their own.
//!
//! After any crash the state is the result of applying some prefix of the accepted operations, in
//! order; the prefix contains every operation acknowledged as durable.

// The simulated machine of the suites is compiled into the unit tests as well, and names this crate.
#[cfg(test)]
extern crate self as tidaldb;

mod checkpoint;
mod clock;
pub mod co_engagement;
mod codec;
mod cohorts;
mod collections;
mod db;
mod decay;
mod end;
mod engine;
mod error;
#[doc(hidden)]
pub mod fault;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod ids;
mod ingest;
mod items;
mod options;
mod processors;
mod record;
mod recovery;
pub mod schema;
mod seq;
mod sessions;
pub mod signals;
mod state;
pub mod storage;
mod sync;
mod table;
mod verify;
mod wal;

/// The cohort ledger on its own.
pub mod cohort {
    pub use crate::signals::CohortSignalLedger;
}

/// Processors of sessions that come with the library.
pub mod builtin {
    pub use crate::db::{Usage, UsageCount, Verification};
}

#[doc(hidden)]
pub use db::processing;

pub use clock::{Clock, ManualClock, SystemClock};
pub use collections::{CollectionInfo, CollectionPage};
pub use db::{
    Ack, Applied, Backup, Batch, BoxError, Builder, CloseError, CoEngagementReader, CollectionAck,
    CollectionChange, DeliveredEvent, DriveReport, Event, EventCursor, ExcludeSeeds, HealthWatch,
    Inspection, JobStatus, Metric, MetricDescription, MetricKind, Outcome, Outputs, Plan,
    PlannedPrune, PlannedReprocess, PlannedRequeue, PlannedReset, PlannedSweep, ProcessError,
    Processed, ProcessorOptions, ProcessorOutcome, ProcessorRow, ProcessorStatus, PrunePlan,
    Ranked, ReadOptions, Reason, RecommendOptions, Recommendations, Recommended, ReprocessPlan,
    RequeuePlan, ResetFilter, ResetPlan, Retention, RetryPolicy, RunError, RunOptions, RunStats,
    Salvage, SessionFilter, SessionHandle, SessionProcessor, SessionSignal, SessionView, Sessions,
    SkipReason, Status, StopReason, StoreStatus, StuckSession, SweepChange, SweepPlan, SweepReport,
    Ticket, TidalDb, View,
};
pub use end::{End, EndCause, EndEvidence};
pub use engine::{EventStream, SessionSubscriber, SubscriptionGuard};
pub use error::{Error, ErrorKind, Result};
pub use health::{
    Check, Facts, HealthMetrics, HealthReport, HealthThresholds, Overall, ProcessorHealth, Severity,
};
pub use ids::{CollectionId, Fence, SessionId, UserId};
pub use options::{
    ClosePolicy, Durability, OnConflict, OpenPolicy, Options, ProcessingTimeout, Runtime,
    SessionConfig, TimeSource,
};
pub use record::{EventFilter, EventKind, JobOutcome, Visibility};
pub use recovery::OpenReport;
pub use seq::Seq;
pub use sessions::{
    FailCause, SessionContent, SessionEvent, SessionInfo, SessionRecord, SessionState,
    SessionStateKind,
};
pub use verify::VerifyReport;

/// The example of the README, so that it compiles and holds.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
