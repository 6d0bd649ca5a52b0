//! Recommendations from a database.

use tidaldb::schema::EntityId;
use tidaldb::{Reason, RecommendOptions};

use super::{Engine, explain};
use crate::cli::Method;
use crate::failure::Failure;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// The names of a session's items, the current one last.
    pub(crate) session: &'a [String],
    pub(crate) method: Method,
    pub(crate) cohort: Option<&'a str>,
    pub(crate) k: usize,
}

/// One item of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecommendedItem {
    pub(crate) name: String,
    pub(crate) score: f64,
    /// The items that lead to it, the current one first.
    pub(crate) because: Vec<String>,
}

impl Engine {
    /// What a session goes on to.
    ///
    /// # Errors
    ///
    /// When no item or cohort has such a name, or no signal of the database is engaging.
    pub(crate) fn recommend(&self, wish: &Wish<'_>) -> anyhow::Result<Vec<RecommendedItem>> {
        let session: Vec<EntityId> =
            wish.session.iter().map(|name| self.item_of(name)).collect::<Result<_, _>>()?;
        let mut options = RecommendOptions::new().method(wish.method.into());
        if let Some(cohort) = wish.cohort {
            options = options.cohort(cohort);
        }
        let answer = self.db.recommend(&session, wish.k, &options).map_err(explain)?;
        let named = |id: &EntityId| self.db.entity_text(*id).unwrap_or_else(|| id.to_string());
        let item = |recommended: &tidaldb::Recommended| RecommendedItem {
            name: named(&recommended.item),
            score: recommended.score,
            because: match &recommended.reason {
                Reason::Seeds(seeds) => seeds.iter().map(named).collect(),
                _ => vec![named(&recommended.item)],
            },
        };
        Ok(answer.items.iter().map(item).collect())
    }

    fn item_of(&self, name: &str) -> Result<EntityId, Failure> {
        self.db.lookup_text(name).ok_or_else(|| {
            Failure::failed(format!("the database has no item {name:?}"))
                .hint("items have the names that ingest read; tidalctl top shows some")
        })
    }
}
