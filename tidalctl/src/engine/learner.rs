//! Recommendations, as an evaluation asks for them.

use std::time::Duration;

use tidaldb::co_engagement::{Method as EngineMethod, Similarity};
use tidaldb::schema::{CoEngagement, DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp};
use tidaldb::{
    Batch, Event, ExcludeSeeds, Options, ReadOptions, RecommendOptions, TidalDb, TimeSource,
};

use super::explain;
use crate::cli::{Method, ModelArgs};
use crate::evaluate::{Allowed, Click};

/// A database in memory that learns a log and foretells.
pub(crate) struct Learner {
    db: TidalDb,
    method: Method,
    options: RecommendOptions,
    /// Under which signal items are hot.
    signal: String,
}

impl From<Method> for EngineMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::Sessions => Self::Sessions,
            Method::Edges | Method::Hot => Self::Edges,
        }
    }
}

/// A step of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewClick<'a> {
    signal: &'a str,
    session: u64,
    item: u64,
    at_ns: u64,
    cohort: Option<&'a str>,
}

impl<'a> From<&'a Click> for NewClick<'a> {
    fn from(click: &'a Click) -> Self {
        Self {
            signal: &click.signal,
            session: click.session,
            item: click.item,
            at_ns: click.at_ns,
            cohort: click.cohort.as_deref(),
        }
    }
}

/// What is to be foretold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The items so far, the current one last.
    pub(crate) session: &'a [u64],
    pub(crate) k: usize,
    pub(crate) allowed: Allowed,
    pub(crate) cohort: Option<&'a str>,
    pub(crate) now_ns: u64,
}

/// What was learnt takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LearntSize {
    pub(crate) edges: u64,
    pub(crate) trails: u64,
    pub(crate) size_bytes: u64,
}

impl Learner {
    /// One that knows nothing yet.
    ///
    /// # Errors
    ///
    /// When a setting is out of range.
    pub(crate) fn new(
        model: &ModelArgs,
        signals: &[String],
        family: Option<String>,
    ) -> anyhow::Result<Self> {
        let mut settings = CoEngagement::default();
        settings.recent_items = model.recent_items.unwrap_or(settings.recent_items);
        settings.neighbours_max = model.neighbours_max.unwrap_or(settings.neighbours_max);
        settings.capacity = model.capacity.unwrap_or(settings.capacity);
        settings.half_life = model.half_life.unwrap_or(settings.half_life);
        settings.trails_max = model.trails_max.unwrap_or(settings.trails_max);
        // The log says itself where a session ends.
        settings.trail_idle = Duration::from_secs(365 * 86_400);
        let mut schema = SchemaBuilder::new();
        schema.co_engagement(settings);
        for signal in signals {
            let half_life = settings.half_life;
            let decay = DecaySpec::Exponential { half_life };
            let _ = schema.signal(signal, EntityKind::Item, decay).engaging().add();
        }
        if let Some(family) = family {
            schema.cohort_family(family, 10_000);
        }
        let mut options = Options::default();
        options.max_event_jump = Duration::MAX;
        let db = TidalDb::builder()
            .ephemeral()
            .with_options(options)
            .with_time_source(TimeSource::Events)
            .with_schema(schema.build().map_err(explain)?)
            .open()
            .map_err(explain)?;
        let shrinkage = model.shrinkage.unwrap_or(20.0);
        let mut options = RecommendOptions::new().similarity(Similarity::Cosine { shrinkage });
        if let Some(seeds) = model.seeds {
            options = options.seeds_max(seeds);
        }
        options = options.method(model.method.into());
        let signal = signals.first().cloned().unwrap_or_default();
        // Before a log is learnt for a question that will be refused.
        db.recommend(&[], 1, &options).map_err(explain)?;
        Ok(Self { db, method: model.method, options, signal })
    }

    /// Learns clicks, in their order.
    ///
    /// # Errors
    ///
    /// When the engine refuses them.
    pub(crate) fn learn<'a>(
        &self,
        clicks: impl IntoIterator<Item = NewClick<'a>>,
    ) -> anyhow::Result<()> {
        let mut batch = Batch::new();
        for click in clicks {
            let at = Timestamp::from_nanos(click.at_ns);
            let event = Event::new(click.signal, EntityId::new(click.item), at).user(click.session);
            batch.push(match click.cohort {
                Some(cohort) => event.cohort(cohort),
                None => event,
            });
        }
        self.db.write(batch).map_err(explain)?;
        Ok(())
    }

    /// The items that come next, best first.
    ///
    /// # Errors
    ///
    /// When the engine refuses the question.
    pub(crate) fn recommend(&self, question: &Question<'_>) -> anyhow::Result<Vec<u64>> {
        let now = Timestamp::from_nanos(question.now_ns).max(self.db.engine_time());
        if self.method == Method::Hot {
            return self.hot(question, now);
        }
        let session: Vec<EntityId> = question.session.iter().copied().map(EntityId::new).collect();
        let exclude = match question.allowed {
            Allowed::All => ExcludeSeeds::None,
            Allowed::AllButCurrent => ExcludeSeeds::Current,
            Allowed::New => ExcludeSeeds::All,
        };
        let options = self.options.clone().exclude_seeds(exclude).now(now);
        let answer = self.db.recommend(&session, question.k, &options).map_err(explain)?;
        Ok(answer.items.iter().map(|recommended| recommended.item.get()).collect())
    }

    /// What is hot in the cohort, or for everyone: what an answer must do better than.
    fn hot(&self, question: &Question<'_>, now: Timestamp) -> anyhow::Result<Vec<u64>> {
        let mut options = ReadOptions::new().now(now);
        if let Some(cohort) = question.cohort {
            options = options.cohort(cohort);
        }
        let excluded = match question.allowed {
            Allowed::All => &[],
            Allowed::AllButCurrent => &question.session[question.session.len().saturating_sub(1)..],
            Allowed::New => question.session,
        };
        let k = question.k + excluded.len();
        let hot = self.db.hot(&self.signal, k, &options).map_err(explain)?;
        let items = hot.iter().map(|ranked| ranked.entity.get());
        Ok(items.filter(|item| !excluded.contains(item)).take(question.k).collect())
    }

    pub(crate) fn size(&self) -> LearntSize {
        let learnt = self.db.co_engagement();
        LearntSize {
            edges: learnt.edge_count(),
            trails: learnt.trail_count(),
            size_bytes: learnt.size_bytes(),
        }
    }
}
