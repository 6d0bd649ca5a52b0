//! tidal: embedded, crash-safe state for recommendation services.

mod checkpoint;
mod clock;
mod codec;
mod cohorts;
mod db;
mod engine;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod ingest;
mod items;
mod options;
mod record;
mod recovery;
pub mod schema;
mod seq;
pub mod signals;
mod state;
pub mod storage;
mod table;
mod verify;
mod wal;

/// The cohort ledger on its own.
pub mod cohort {
    pub use crate::signals::CohortSignalLedger;
}

pub use clock::{Clock, ManualClock, SystemClock};
pub use db::{
    Ack, Batch, Builder, Event, Inspection, Outcome, Ranked, ReadOptions, Status, StoreStatus,
    Ticket, TidalDb, View,
};
pub use error::{Error, ErrorKind, Result};
pub use ids::UserId;
pub use options::{Durability, Options, TimeSource};
pub use recovery::OpenReport;
pub use seq::Seq;
pub use verify::VerifyReport;

/// The example of the README, so that it compiles and holds.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
