//! Sessions, and plans about them.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use tidaldb::schema::Timestamp;
use tidaldb::{
    Applied, PlannedPrune, PrunePlan, Retention, SessionFilter, SessionId, SessionInfo,
    SessionStateKind, UserId,
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
        let mut filter = SessionFilter::new().limit(limit);
        if let Some(user) = wanted.user {
            filter = filter.user(UserId::new(user));
        }
        if let Some(age) = wanted.older_than {
            filter = filter.older_than(age);
        }
        if let Some(last) = wanted.after {
            filter = filter.after(last);
        }
        let states = wanted.states.iter().flat_map(|state| kinds(*state).iter().copied());
        self.db.sessions().list(&filter.states(states)).map_err(explain)
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
    pub(crate) fn stuck_sessions(&self, patience: Duration) -> anyhow::Result<Vec<SessionInfo>> {
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

    /// Plans to forget the records of sessions that ended longer ago than this.
    ///
    /// # Errors
    ///
    /// When ended ones cannot be read.
    pub(crate) fn plan_prune(&self, older_than: Duration) -> anyhow::Result<PrunePlan> {
        self.db.sessions().plan_prune(&Retention::settled_for(older_than)).map_err(explain)
    }

    /// Carries out a plan, item by item.
    ///
    /// # Errors
    ///
    /// When the log cannot be written; what was done before stays done.
    pub(crate) fn prune(
        &self,
        older_than: Duration,
        items: Vec<PlannedPrune>,
    ) -> anyhow::Result<Applied> {
        let plan = PrunePlan::new(Retention::settled_for(older_than), items);
        self.db.sessions().apply(plan).map_err(explain)
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
