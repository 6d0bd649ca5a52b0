//! What the shop knows against what the database says.
//!
//! Knows: both. Must not know: how either came about.

use serde_json::{Value, json};

use super::shop::{Action, COUNTRIES, Shop};
use super::tally::{Scope, Tally};
use crate::engine::Engine;
use crate::value::{Span, thousands};

/// Statements that were put to the test.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    checks: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    statement: String,
    holds: bool,
}

impl Checks {
    /// Adds a statement and whether it holds; returns the line to print.
    pub(crate) fn add(&mut self, holds: bool, statement: impl Into<String>) -> String {
        let statement = statement.into();
        let line = format!("   {}  {statement}\n", if holds { "ok    " } else { "FAILED" });
        self.checks.push(Check { statement, holds });
        line
    }

    /// How many do not hold.
    pub(crate) fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.holds).count()
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        self.checks
            .iter()
            .map(|check| json!({ "statement": check.statement, "holds": check.holds }))
            .collect()
    }
}

/// Compares every count of every item, for everyone and each country, with the shop's own.
///
/// # Errors
///
/// When the database does not answer.
pub(crate) fn counts(
    checks: &mut Checks,
    engine: &Engine,
    items: &[u64],
    tally: &Tally,
    len: u64,
) -> anyhow::Result<String> {
    let (mut compared, mut wrong) = (0u64, 0u64);
    for scope in Scope::all() {
        let cohort = scope.cohort();
        for action in Action::ALL {
            let stored = engine.counts(items, action.name(), Span::All, cohort.as_deref())?;
            let expected = tally.items(scope, action);
            compared += expected.len() as u64;
            wrong +=
                stored.iter().zip(expected).filter(|(stored, own)| stored != own).count() as u64;
        }
    }
    let signals: Vec<String> = Action::ALL
        .map(|action| {
            format!("{} {}", thousands(tally.total(Scope::EVERYONE, action)), action.name())
        })
        .to_vec();
    Ok(checks.add(
        wrong == 0,
        format!(
            "counts equal the shop's own of its first {} events ({}): {} of {} counts differ, per \
             item, for everyone and {} countries",
            thousands(len),
            signals.join(", "),
            thousands(wrong),
            thousands(compared),
            COUNTRIES.len(),
        ),
    ))
}

/// Compares every user's cohorts with the user's country.
pub(crate) fn users(checks: &mut Checks, engine: &Engine, shop: &Shop) -> String {
    let wrong = (0u64..)
        .zip(&shop.users)
        .filter(|&(user, &country)| {
            let expected = Scope::country(usize::from(country)).cohort();
            let cohorts = engine.user_cohorts(user);
            !cohorts.iter().eq(expected.iter())
        })
        .count() as u64;
    let users = thousands(shop.users.len() as u64);
    checks.add(
        wrong == 0,
        format!(
            "each of {users} users is in the cohort of their country: {} differ",
            thousands(wrong)
        ),
    )
}

/// The database's numbers of the shop's items; an item that it does not know is a failed check.
pub(crate) fn items(checks: &mut Checks, engine: &Engine, shop: &Shop) -> (Vec<u64>, String) {
    let found: Vec<Option<u64>> = shop.items.iter().map(|name| engine.lookup(name)).collect();
    let unknown = found.iter().filter(|id| id.is_none()).count() as u64;
    let line = checks.add(
        unknown == 0,
        format!(
            "the names of {} items are known: {} are not",
            thousands(found.len() as u64),
            thousands(unknown)
        ),
    );
    (found.into_iter().map(Option::unwrap_or_default).collect(), line)
}
