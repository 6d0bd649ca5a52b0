//! Everything of a kind, for exports and audits: not for the hot path.

use super::{CoEngagementReader, ReadOptions, TidalDb};
use crate::collections::CollectionInfo;
use crate::error::Result;
use crate::ids::{CollectionId, EntityId};

impl TidalDb {
    /// Every item that a signal has counted something for, ascending: those too that rankings leave out,
    /// because they are hidden or have no score above zero. Reads the signal's cells under a read lock.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](crate::Error::UnknownName): no such signal or cohort;
    /// [`NowTooOld`](crate::Error::NowTooOld).
    pub fn counted_items(&self, signal: &str, options: &ReadOptions) -> Result<Vec<EntityId>> {
        let view = self.view(signal, options)?;
        let Some(column) = &view.column else { return Ok(Vec::new()) };
        let mut items: Vec<EntityId> = column.cells().iter().map(|(_, cell)| cell.entity).collect();
        items.sort_unstable();
        Ok(items)
    }

    /// All collections, private ones too, in the order in which they were created: those after `after`,
    /// the last one of the page before, `limit` at most. For whoever operates the database; what a viewer
    /// may see is [`collections_of`](Self::collections_of). Each page walks all of them.
    pub fn all_collections(
        &self,
        after: Option<CollectionId>,
        limit: usize,
    ) -> Vec<CollectionInfo> {
        self.state.collections.all(after, limit)
    }
}

impl CoEngagementReader<'_> {
    /// Every item that an edge leads away from, ascending, hidden ones too. Walks them under a read lock.
    pub fn items(&self) -> Vec<EntityId> {
        self.db.state.co_engagement.edges().items()
    }
}
