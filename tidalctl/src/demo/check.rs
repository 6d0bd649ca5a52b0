//! What the shop knows against what the database says.
//!
//! Knows: both. Must not know: how either came about.

use serde_json::{Value, json};

use super::shop::{Action, COUNTRIES, Shop};
use super::tally::{Scope, Tally};
use crate::engine::Engine;
use crate::print::{Lean, Table};
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

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.checks.len()
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

/// Compares every count of every item, for everyone and each country, with the shop's own. Returns
/// the totals of both as a table, and the verdict.
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
    let (mut compared, mut wrong) = (0, 0);
    let mut totals =
        Table::new(&[(" event", Lean::Left), ("shop", Lean::Right), ("database", Lean::Right)]);
    for action in Action::ALL {
        for scope in Scope::all() {
            let cohort = scope.cohort();
            let stored = engine.counts(items, action.name(), Span::All, cohort.as_deref())?;
            let own = tally.items(scope, action);
            compared += own.len() as u64;
            wrong += stored.iter().zip(own).filter(|(stored, own)| stored != own).count() as u64;
            if scope == Scope::EVERYONE {
                let (own, stored) = (tally.total(scope, action), stored.iter().sum());
                totals.row([format!(" {}", action.name()), thousands(own), thousands(stored)]);
            }
        }
    }
    let (countries, len) = (COUNTRIES.len(), thousands(len));
    let verdict = checks.add(
        wrong == 0,
        format!(
            "{} of {} counts (per event and item, for everyone and {countries} countries) equal the \
             shop's own after {len} events",
            thousands(compared - wrong),
            thousands(compared),
        ),
    );
    Ok(format!("\n{}\n{verdict}", totals.render()))
}

/// How many users are there, in the cohort of their country and no other.
pub(crate) fn users(engine: &Engine, shop: &Shop) -> u64 {
    let is_right = |&(user, &country): &(u64, &u8)| {
        let expected = Scope::country(usize::from(country)).cohort();
        engine.user_cohorts(user).iter().eq(expected.iter())
    };
    (0u64..).zip(&shop.users).filter(is_right).count() as u64
}

/// The database's numbers of the shop's items that it knows.
pub(crate) fn items(engine: &Engine, shop: &Shop) -> Vec<u64> {
    shop.items.iter().filter_map(|name| engine.lookup(name)).collect()
}
