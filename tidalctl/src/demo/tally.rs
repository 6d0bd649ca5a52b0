//! The shop's own count of its log, to compare a database with.
//!
//! Knows: the log. Must not know: the database.

use super::shop::{Action, COUNTRIES, Shop};

/// Counts of every item, by action, for everyone and for each country.
#[derive(Debug)]
pub(crate) struct Tally {
    item_count: usize,
    /// By scope, action, item; scope 0 is everyone, the others are the countries.
    counts: Vec<u64>,
}

/// Whose events are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope(usize);

impl Scope {
    /// All customers.
    pub(crate) const EVERYONE: Self = Self(0);

    /// Everyone, then each country.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..=COUNTRIES.len()).map(Self)
    }

    /// The customers of one country.
    pub(crate) fn country(index: usize) -> Self {
        assert!(index < COUNTRIES.len(), "no such country");
        Self(index + 1)
    }

    /// The cohort's name; everyone has none.
    pub(crate) fn cohort(self) -> Option<String> {
        let index = self.0.checked_sub(1)?;
        Some(format!("country={}", COUNTRIES[index].0))
    }
}

impl Tally {
    /// The counts of the first `len` events.
    pub(crate) fn of_prefix(shop: &Shop, len: usize) -> Self {
        let item_count = shop.items.len();
        let size = (COUNTRIES.len() + 1) * Action::ALL.len() * item_count;
        let mut tally = Self { item_count, counts: vec![0; size] };
        for event in &shop.events[..len] {
            let country = Scope::country(usize::from(shop.users[event.user as usize]));
            for scope in [Scope::EVERYONE, country] {
                let start = tally.start(scope, event.action);
                tally.counts[start + event.item as usize] += 1;
            }
        }
        tally
    }

    /// The counts of all items.
    pub(crate) fn items(&self, scope: Scope, action: Action) -> &[u64] {
        let start = self.start(scope, action);
        &self.counts[start..start + self.item_count]
    }

    /// Their sum.
    pub(crate) fn total(&self, scope: Scope, action: Action) -> u64 {
        self.items(scope, action).iter().sum()
    }

    fn start(&self, scope: Scope, action: Action) -> usize {
        (scope.0 * Action::ALL.len() + action as usize) * self.item_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_and_actions_add_up_to_the_prefix() {
        let shop = Shop::generate(9, 3_000);
        for len in [0, 1, 1_234, 3_000] {
            let tally = Tally::of_prefix(&shop, len);
            let total = |scope| -> u64 {
                Action::ALL.iter().map(|&action| tally.total(scope, action)).sum()
            };
            assert_eq!(total(Scope::EVERYONE), len as u64);
            let countries: u64 = Scope::all().skip(1).map(total).sum();
            assert_eq!(countries, len as u64);
        }
    }
}
