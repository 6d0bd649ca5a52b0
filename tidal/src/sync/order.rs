//! The order in which locks are taken.
//!
//! Knows: which locks each thread holds, and which lock was ever taken while which was held. Must not
//! know: what they guard.
//!
//! Two threads that take two locks in two orders wait for each other only when they meet, which may be
//! never in a test. The orders themselves show it in every run: a lock that is taken gets an edge from
//! each lock that is held, and a circle of edges is the failure. Reads count like writes, since a
//! read waits behind a writer that waits.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::current::{TaskId, try_get_current_task};

/// A lock's name. It is new with every lock, and forgotten with it.
#[derive(Debug)]
pub(super) struct Watched {
    id: u64,
    made_at: &'static Location<'static>,
}

/// That a lock is held, until it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a Watched);

#[derive(Default)]
struct Orders {
    held: BTreeMap<usize, Vec<u64>>,
    /// What was taken while a lock was held, and where it was made.
    later: BTreeMap<u64, BTreeSet<u64>>,
    made_at: BTreeMap<u64, &'static Location<'static>>,
}

thread_local! {
    /// All threads of an execution are coroutines of one thread of the system.
    static ORDERS: RefCell<Orders> = RefCell::default();
}

impl Watched {
    #[track_caller]
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), made_at: Location::caller() }
    }

    /// Notes that the lock is about to be taken.
    ///
    /// # Panics
    ///
    /// When this thread holds it, or when it was ever held while a lock was taken that this thread
    /// holds.
    pub(super) fn take(&self) -> Held<'_> {
        if let Some(task) = current() {
            let broken = ORDERS.with_borrow_mut(|orders| orders.take(task, self));
            if let Err(broken) = broken {
                panic!("{broken}");
            }
        }
        Held(self)
    }

    /// Whether this thread holds the lock.
    pub(super) fn is_held(&self) -> bool {
        current().is_some_and(|task| {
            ORDERS.with_borrow(|orders| {
                orders.held.get(&task).is_some_and(|held| held.contains(&self.id))
            })
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A thread that ends drops its thread-local parts in any order.
        let _ = ORDERS.try_with(|orders| orders.borrow_mut().forget(self.id));
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(task) = current() else { return };
        ORDERS.with_borrow_mut(|orders| {
            if let Some(held) = orders.held.get_mut(&task)
                && let Some(at) = held.iter().rposition(|&id| id == self.0.id)
            {
                held.remove(at);
            }
        });
    }
}

impl Orders {
    fn take(&mut self, task: usize, taken: &Watched) -> Result<(), String> {
        self.made_at.insert(taken.id, taken.made_at);
        let held = self.held.entry(task).or_default();
        if held.contains(&taken.id) {
            return Err(format!("the lock made at {} is taken by who holds it", taken.made_at));
        }
        for &before in held.iter() {
            let is_new = self.later.entry(before).or_default().insert(taken.id);
            if is_new && leads_to(&self.later, taken.id, before) {
                let before = self.made_at[&before];
                return Err(format!(
                    "locks are taken in two orders: the one made at {before} before the one made at \
                     {}, and after it",
                    taken.made_at
                ));
            }
        }
        held.push(taken.id);
        Ok(())
    }

    fn forget(&mut self, id: u64) {
        self.made_at.remove(&id);
        self.later.remove(&id);
        self.later.values_mut().for_each(|later| {
            later.remove(&id);
        });
    }
}

fn leads_to(later: &BTreeMap<u64, BTreeSet<u64>>, from: u64, to: u64) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        if id == to {
            return true;
        }
        if seen.insert(id) {
            open.extend(later.get(&id).into_iter().flatten());
        }
    }
    false
}

/// The thread that runs, unless it is unwinding or none is.
fn current() -> Option<usize> {
    if std::thread::panicking() {
        return None;
    }
    try_get_current_task().map(|task: TaskId| task.into())
}

/// Runs `test` under many schedules: half of them random, half of few preemptions at random places,
/// which reach deeper. `TIDAL_CASES` says how many in all, `TIDAL_SEED` with which numbers; a failure
/// prints the schedule that led to it.
#[cfg(test)]
pub(crate) fn explore(schedules: usize, test: impl Fn() + Send + Sync + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, Runner};

    let number = |name, default| {
        option_env_at_run(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let schedules = number("TIDAL_CASES", schedules as u64) as usize;
    let seed = number("TIDAL_SEED", 1);
    let test = std::sync::Arc::new(test);
    let config = || {
        let mut config = Config::new();
        config.stack_size = 256 << 10;
        config.ungraceful_shutdown_config.immediately_return_on_panic = true;
        config
    };
    let again = std::sync::Arc::clone(&test);
    let random = RandomScheduler::new_from_seed(seed, schedules.div_ceil(2));
    Runner::new(random, config()).run(move || again());
    let few = PctScheduler::new_from_seed(seed, 3, schedules.div_ceil(2));
    Runner::new(few, config()).run(move || test());
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "how long a test searches is said from outside")]
fn option_env_at_run(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
