//! Damaged copies of databases, opened in child processes because a damaged store can abort one.
//!
//! Knows: files, and what a caller of the library sees. Must not know: which outcome is right.
//!
//! A *scene* is a directory with databases at rest, one in each of its directories. A [`Case`] is a
//! copy of one of them with a few [`Edit`]s. [`run`] has thousands of cases opened, several children
//! side by side, and starts a child again that dies of one.

mod child;
mod edit;
mod run;
pub mod segments;
mod tree;

pub use child::serve;
pub use edit::{Case, Edit};
pub use run::{Answer, Outcome, Run, State, run, work_dir};
pub use tree::Tree;
