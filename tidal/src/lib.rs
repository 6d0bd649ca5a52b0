//! tidal: embedded, crash-safe state for recommendation services.

mod checkpoint;
mod clock;
mod codec;
mod error;
mod ids;
mod options;
mod seq;
pub mod storage;
mod table;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use options::{Durability, Options, TimeSource};
pub mod schema {
    //! x
    pub use crate::ids::Timestamp;
}
pub use seq::Seq;
