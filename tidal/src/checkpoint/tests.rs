//! The room against a model: a state that is folded from a list of operations, written to two
//! stores that crash, fail, rot and get lost, and must come back as some prefix of that list that
//! replay completes.

mod concurrency;
mod crash;
mod damage;
mod failure;
mod fakes;
#[cfg(shuttle)]
mod races;
mod rounds;
mod world;
