//! Everything of a kind, row by row, for exports.

use std::path::Path;
use std::time::Duration;

use tidaldb::co_engagement::Similarity;
use tidaldb::schema::{EntityId, EntityKind, Window};
use tidaldb::{CollectionInfo, SessionInfo, Visibility};

use super::{Engine, Look, Wanted, explain, read_options};
use crate::cli::Export;
use crate::export::{Cell, Column, Kind};

/// What is called with each row.
type Each<'a> = &'a mut dyn FnMut(Vec<Cell>) -> anyhow::Result<()>;

/// Items that are read at once.
const PAGE_LEN: usize = 1_024;

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

const COUNTERS: &[Column] = &[
    column("kind", Kind::Text),
    column("entity", Kind::Id),
    column("name", Kind::Text),
    column("signal", Kind::Text),
    column("cohort", Kind::Text),
    column("score", Kind::Real),
    column("count_1h", Kind::Count),
    column("count_24h", Kind::Count),
    column("count_7d", Kind::Count),
    column("count_30d", Kind::Count),
    column("count_all", Kind::Count),
    column("is_hidden", Kind::Flag),
    column("as_of", Kind::Time),
];

const EDGES: &[Column] = &[
    column("item", Kind::Id),
    column("name", Kind::Text),
    column("neighbour", Kind::Id),
    column("neighbour_name", Kind::Text),
    column("weight", Kind::Real),
    column("support", Kind::Count),
    column("as_of", Kind::Time),
];

const COLLECTIONS: &[Column] = &[
    column("collection", Kind::Id),
    column("owner", Kind::Id),
    column("owner_name", Kind::Text),
    column("name", Kind::Text),
    column("visibility", Kind::Text),
    column("version", Kind::Count),
    column("created_at", Kind::Time),
    column("changed_at", Kind::Time),
    column("position", Kind::Count),
    column("item", Kind::Id),
    column("item_name", Kind::Text),
];

const SESSIONS: &[Column] = &[
    column("session", Kind::Id),
    column("user", Kind::Id),
    column("user_name", Kind::Text),
    column("agent", Kind::Text),
    column("policy", Kind::Text),
    column("state", Kind::Text),
    column("started_at", Kind::Time),
    column("last_activity_at", Kind::Time),
    column("ended_at", Kind::Time),
    column("cause", Kind::Text),
    column("records", Kind::Count),
    column("signals", Kind::Count),
    column("annotations", Kind::Count),
    column("late", Kind::Count),
    column("content_hash", Kind::Text),
];

impl Export {
    /// The columns of its rows.
    pub(crate) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Counters => COUNTERS,
            Self::Edges => EDGES,
            Self::Collections => COLLECTIONS,
            Self::Sessions => SESSIONS,
        }
    }
}

impl Engine {
    /// As [`look_as_left`](Self::look_as_left): while rows are read, no time passes.
    ///
    /// # Errors
    ///
    /// As [`look_as_left`](Self::look_as_left).
    pub(crate) fn look_to_export(dir: &Path) -> anyhow::Result<Look> {
        Self::look_as_left(dir, Duration::from_secs(60))
    }

    /// Calls `each` with every row.
    ///
    /// # Errors
    ///
    /// Those of `each`, and when a row cannot be read.
    pub(crate) fn each_row(&self, what: Export, each: Each<'_>) -> anyhow::Result<()> {
        match what {
            Export::Counters => self.each_counter(each),
            Export::Edges => self.each_edge(each),
            Export::Collections => self.each_item_of_a_collection(each),
            Export::Sessions => self
                .each_session(&Wanted::default(), |info| each(self.session_row(info)))
                .map(|_| ()),
        }
    }

    fn each_counter(&self, each: Each<'_>) -> anyhow::Result<()> {
        let scopes: Vec<Option<String>> =
            std::iter::once(None).chain(self.counted_cohorts().into_iter().map(Some)).collect();
        for signal in self.signal_names() {
            for scope in &scopes {
                self.each_counter_of(&signal, scope.as_deref(), each)?;
            }
        }
        Ok(())
    }

    /// The counters of one signal in one cohort, or of everyone.
    fn each_counter_of(
        &self,
        signal: &str,
        cohort: Option<&str>,
        each: Each<'_>,
    ) -> anyhow::Result<()> {
        let schema = self.db.schema();
        let declared = schema.signals().iter().find(|declared| declared.name() == signal);
        let declared = declared.expect("the name is one of the schema's");
        let of_items = declared.kind() == EntityKind::Item;
        let kind = match declared.kind() {
            EntityKind::Item => "item",
            EntityKind::User => "user",
            EntityKind::Creator => "creator",
        };
        let (options, as_of) = (read_options(None, cohort, None), self.now_ns());
        let all = self.db.counted_items(signal, &options).map_err(explain)?;
        for page in all.chunks(PAGE_LEN) {
            let mut scores = vec![0.0; page.len()];
            self.db.scores(page, signal, &options, &mut scores).map_err(explain)?;
            let mut counts = Vec::new();
            for window in Window::ALL {
                let mut column = vec![0; page.len()];
                let is_counted = window == Window::AllTime || declared.has_window(window);
                if is_counted {
                    let read = self.db.windowed_counts(page, signal, window, &options, &mut column);
                    read.map_err(explain)?;
                }
                counts.push(is_counted.then_some(column));
            }
            for (at, &entity) in page.iter().enumerate() {
                let name = if of_items { self.db.entity_text(entity) } else { None };
                let mut row = vec![kind.into(), entity.get().into(), name.into()];
                row.extend([signal.into(), cohort.into(), scores[at].into()]);
                row.extend(counts.iter().map(|c| Cell::from(c.as_ref().map(|column| column[at]))));
                let is_hidden = of_items && self.db.is_hidden(entity);
                row.extend([is_hidden.into(), as_of.into()]);
                each(row)?;
            }
        }
        Ok(())
    }

    fn each_edge(&self, each: Each<'_>) -> anyhow::Result<()> {
        let (reader, as_of) = (self.db.co_engagement(), self.now_ns());
        let name = |item: EntityId| Cell::from(self.db.entity_text(item));
        for item in reader.items() {
            if self.db.is_hidden(item) {
                continue;
            }
            let near =
                reader.neighbours(item, usize::MAX, Similarity::CoOccurrence).map_err(explain)?;
            for edge in near {
                each(vec![
                    item.get().into(),
                    name(item),
                    edge.item.get().into(),
                    name(edge.item),
                    edge.weight.into(),
                    u64::from(edge.support).into(),
                    as_of.into(),
                ])?;
            }
        }
        Ok(())
    }

    /// A row for each item of each collection, and one for each collection without items.
    fn each_item_of_a_collection(&self, each: Each<'_>) -> anyhow::Result<()> {
        for info in self.db.all_collections(None, usize::MAX) {
            let mut row = self.collection_row(&info);
            if info.item_count == 0 {
                row.extend([Cell::Null, Cell::Null, Cell::Null]);
                each(row)?;
                continue;
            }
            let mut next = Some(0);
            while let Some(from) = next {
                // As its owner, who sees it whatever its visibility.
                let page = self.db.collection_items(info.id, Some(info.owner), from, PAGE_LEN);
                let page = page.map_err(explain)?;
                for (position, item) in (from..).zip(&page.items) {
                    let mut row = row.clone();
                    let name = self.db.entity_text(*item);
                    row.extend([position.into(), item.get().into(), name.into()]);
                    each(row)?;
                }
                next = page.next;
            }
        }
        Ok(())
    }

    /// What is the same in every row of a collection.
    fn collection_row(&self, info: &CollectionInfo) -> Vec<Cell> {
        let visibility = match info.visibility {
            Visibility::Private => "private",
            Visibility::Unlisted => "unlisted",
            Visibility::Public => "public",
        };
        vec![
            info.id.get().into(),
            info.owner.get().into(),
            self.user_text(info.owner.get()).into(),
            info.name.as_str().into(),
            visibility.into(),
            info.version.into(),
            info.created.as_nanos().into(),
            info.changed.as_nanos().into(),
        ]
    }

    fn session_row(&self, info: &SessionInfo) -> Vec<Cell> {
        let end = info.state.end();
        vec![
            info.id.get().into(),
            info.user.get().into(),
            self.user_text(info.user.get()).into(),
            info.agent.as_str().into(),
            info.policy.as_str().into(),
            info.state.as_str().into(),
            info.started_at.as_nanos().into(),
            info.last_activity_at.as_nanos().into(),
            end.map(|end| end.at.as_nanos()).into(),
            end.map(|end| end.cause.as_str()).into(),
            info.records.into(),
            info.signals.into(),
            info.annotations.into(),
            info.late.into(),
            super::hex(&info.content_hash).into(),
        ]
    }
}
