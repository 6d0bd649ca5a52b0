//! tidal: embedded, crash-safe state for recommendation services.

mod clock;
mod codec;
mod cohort;
mod error;
mod ids;
mod ingest;
mod items;
mod options;
mod record;
pub mod schema;
mod seq;
pub mod signals;
mod state;
pub mod storage;
mod table;
mod wal;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use options::{Durability, Options, TimeSource};
pub use seq::Seq;
