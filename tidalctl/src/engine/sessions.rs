//! Sessions, and plans about them.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use tidaldb::schema::Timestamp;
use tidaldb::{
    Applied, JobStatus, PlannedPrune, PlannedReprocess, PlannedRequeue, PlannedReset, ProcessorRow,
    PrunePlan, ReprocessPlan, RequeuePlan, ResetFilter, ResetPlan, Retention, SessionFilter,
    SessionId, SessionInfo, SessionStateKind, UserId,
};

use super::{Engine, explain};
use crate::cli::StateArg;
use crate::failure::Failure;

/// Which sessions are meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) user: Option<u64>,
    pub(crate) states: Vec<StateArg>,
    pub(crate) older_than: Option<Duration>,
    pub(crate) after: Option<SessionId>,
}

impl Wanted {
    fn filter(&self) -> SessionFilter {
        let mut filter = SessionFilter::new();
        if let Some(user) = self.user {
            filter = filter.user(UserId::new(user));
        }
        if let Some(age) = self.older_than {
            filter = filter.older_than(age);
        }
        if let Some(last) = self.after {
            filter = filter.after(last);
        }
        filter.states(self.states.iter().flat_map(|state| kinds(*state).iter().copied()))
    }
}

/// What is to be done to sessions, and to which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Their records are to be forgotten.
    Prune { older_than: Duration, items: Vec<PlannedPrune> },
    /// Their processing is to be given up.
    Reset { by: String, reason: String, items: Vec<PlannedReset> },
    /// They are to be processed anew by those who gave them up.
    Requeue { items: Vec<SessionId> },
    /// A processor is to see them once more.
    Reprocess { processor: String, items: Vec<PlannedReprocess> },
}

impl Task {
    /// To which sessions, in the order of the plan.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        match self {
            Self::Prune { items, .. } => items.iter().map(|item| item.session).collect(),
            Self::Reset { items, .. } => items.iter().map(|item| item.session).collect(),
            Self::Requeue { items } => items.clone(),
            Self::Reprocess { items, .. } => items.iter().map(|item| item.session).collect(),
        }
    }
}

/// Sessions of a page of an export.
const PAGE_LEN: usize = 1_000;

impl Engine {
    /// The first `limit` sessions that are wanted.
    ///
    /// # Errors
    ///
    /// When ended ones cannot be read.
    pub(crate) fn sessions(
        &self,
        wanted: &Wanted,
        limit: usize,
    ) -> anyhow::Result<Vec<SessionInfo>> {
        self.db.sessions().list(&wanted.filter().limit(limit)).map_err(explain)
    }

    /// What is known of a session.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub(crate) fn session(&self, id: u64) -> anyhow::Result<SessionInfo> {
        let found = self.db.sessions().get(SessionId::new(id)).map_err(explain)?;
        found.ok_or_else(|| {
            Failure::failed(format!("there is no session {id}"))
                .hint("tidalctl sessions list --dir DIR has those there are")
                .into()
        })
    }

    /// How far each processor is with a session, of those that there are and have tried it.
    ///
    /// # Errors
    ///
    /// When an outcome cannot be read.
    pub(crate) fn processing(&self, id: SessionId) -> anyhow::Result<Vec<(String, ProcessorRow)>> {
        let mut rows = Vec::new();
        for processor in self.db.health().processors {
            let row = self.db.sessions().processor_row(&processor.name, id).map_err(explain)?;
            rows.extend(row.map(|row| (processor.name, row)));
        }
        Ok(rows)
    }

    /// Writes a session as lines of JSON.
    ///
    /// # Errors
    ///
    /// When there is none, it cannot be read, or `out` takes no more.
    pub(crate) fn export_session(&self, id: u64, out: &mut dyn Write) -> anyhow::Result<()> {
        let exported = self.db.sessions().export(SessionId::new(id), out);
        exported.map_err(|error| match error {
            // As it is, so that a reader that has gone is known for what it is.
            tidaldb::Error::Io { source, .. } => source.into(),
            error => explain(error),
        })
    }

    /// Calls `each` with every session that is wanted, and says how many there were.
    ///
    /// # Errors
    ///
    /// Those of [`sessions`](Self::sessions) and of `each`.
    pub(crate) fn each_session(
        &self,
        wanted: &Wanted,
        mut each: impl FnMut(&SessionInfo) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut wanted = wanted.clone();
        let mut count = 0;
        loop {
            let page = self.sessions(&wanted, PAGE_LEN)?;
            page.iter().try_for_each(&mut each)?;
            count += page.len() as u64;
            wanted.after = page.last().map(|info| info.id);
            if page.len() < PAGE_LEN {
                return Ok(count);
            }
        }
    }

    /// The sessions that are over for `patience` and that nobody had noticed an end of before this copy
    /// was opened.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub(crate) fn overdue_sessions(&self, patience: Duration) -> anyhow::Result<Vec<SessionInfo>> {
        let sessions = self.db.sessions();
        let overdue = sessions.overdue().map_err(explain)?;
        let mut all: BTreeMap<_, _> = overdue.into_iter().map(|info| (info.id, info)).collect();
        // Those that were over at the last operation, which the open of the copy has noticed.
        let moment = Timestamp::now().saturating_sub(patience);
        for (id, _) in &self.db.open_report().sessions_ended {
            let Some(info) = sessions.get(*id).map_err(explain)? else { continue };
            if self.over_since(&info) < moment {
                all.insert(*id, info);
            }
        }
        Ok(all.into_values().collect())
    }

    /// Since when a session is over by its policy, at the earliest: an extension may have moved it.
    pub(crate) fn over_since(&self, info: &SessionInfo) -> Timestamp {
        let schema = self.db.schema();
        let Ok((_, policy)) = schema.session_policy(&info.policy) else { return Timestamp::EPOCH };
        let idle = info.last_activity_at.saturating_add(policy.idle_timeout);
        idle.min(info.started_at.saturating_add(policy.max_duration))
    }

    /// The database's name.
    pub(crate) fn database(&self) -> String {
        self.db.status().database
    }

    /// What is written down of the jobs of processors: of the others only the service knows that runs them.
    pub(crate) fn jobs_of_processors(&self) -> Vec<JobStatus> {
        let mut jobs = self.db.sessions().jobs();
        jobs.retain(|job| job.name.starts_with("processor:"));
        jobs
    }

    /// Plans to forget the records of sessions that ended longer ago than this.
    ///
    /// # Errors
    ///
    /// When ended ones cannot be read.
    pub(crate) fn plan_prune(&self, older_than: Duration) -> anyhow::Result<Task> {
        let plan = self.db.sessions().plan_prune(&Retention::settled_for(older_than));
        Ok(Task::Prune { older_than, items: plan.map_err(explain)?.items().to_vec() })
    }

    /// Plans to give up the processing of sessions that began longer ago than this.
    ///
    /// # Errors
    ///
    /// When the words are too long.
    pub(crate) fn plan_reset(
        &self,
        timeout: Duration,
        by: &str,
        reason: &str,
    ) -> anyhow::Result<Task> {
        let mut filter = ResetFilter::default();
        filter.timeout = Some(timeout);
        (filter.by, filter.reason) = (by.to_owned(), reason.to_owned());
        // Nobody is busy with a session of a database that nobody has open.
        filter.include_waiting = true;
        let plan = self.db.sessions().plan_reset(&filter).map_err(explain)?;
        Ok(Task::Reset { by: filter.by, reason: filter.reason, items: plan.items().to_vec() })
    }

    /// Plans to process sessions anew that were given up.
    ///
    /// # Errors
    ///
    /// When ended ones cannot be read.
    pub(crate) fn plan_requeue(&self, wanted: &Wanted) -> anyhow::Result<Task> {
        let plan = self.db.sessions().plan_requeue(&wanted.filter().limit(usize::MAX));
        let items = plan.map_err(explain)?.items().iter().map(|item| item.session).collect();
        Ok(Task::Requeue { items })
    }

    /// Plans to hand sessions to a processor that has seen them.
    ///
    /// # Errors
    ///
    /// When there is no such processor, or ended sessions cannot be read.
    pub(crate) fn plan_reprocess(&self, processor: &str, wanted: &Wanted) -> anyhow::Result<Task> {
        let filter = wanted.filter().limit(usize::MAX);
        let plan = self.db.sessions().plan_reprocess(processor, &filter).map_err(explain)?;
        Ok(Task::Reprocess { processor: processor.to_owned(), items: plan.items().to_vec() })
    }

    /// Carries out a plan, item by item.
    ///
    /// # Errors
    ///
    /// When the log cannot be written; what was done before stays done.
    pub(crate) fn apply(&self, task: Task) -> anyhow::Result<Applied> {
        let sessions = self.db.sessions();
        let applied = match task {
            Task::Prune { older_than, items } => {
                sessions.apply(PrunePlan::new(Retention::settled_for(older_than), items))
            }
            Task::Reset { by, reason, items } => sessions.apply(ResetPlan::new(by, reason, items)),
            Task::Requeue { items } => {
                // Whether and by whom it was given up is for those who look at a plan.
                let item = |session| PlannedRequeue {
                    session,
                    has_failed: false,
                    quarantined_by: Vec::new(),
                };
                sessions.apply(RequeuePlan::new(items.into_iter().map(item).collect()))
            }
            Task::Reprocess { processor, items } => {
                sessions.apply(ReprocessPlan::new(processor, items))
            }
        };
        applied.map_err(explain)
    }
}

const fn kinds(state: StateArg) -> &'static [SessionStateKind] {
    match state {
        StateArg::Open => &[SessionStateKind::Active, SessionStateKind::Restored],
        StateArg::Ended => &[SessionStateKind::Ended],
        StateArg::Failed => &[SessionStateKind::Failed],
        StateArg::Settled => &[SessionStateKind::Settled],
        StateArg::Pruned => &[SessionStateKind::Pruned],
    }
}
