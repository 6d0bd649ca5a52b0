//! Cohorts and their users.
//!
//! Knows: which cohorts exist, under which number, and who belongs to them. Must not know: signals,
//! the log, clocks.
//!
//! Membership is decided when a user is written, from the attributes and the schema at that position
//! of the log, and holds for every later signal until the next write. A cohort gets its number when
//! the log first needs it.

mod names;
mod users;

pub(crate) use names::CohortNames;
pub(crate) use users::Users;
