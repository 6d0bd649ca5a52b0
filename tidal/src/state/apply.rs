//! What a record does to the state.
//!
//! Knows: the order of decisions and effects of every record. Must not know: frames, threads.
//!
//! Decisions of signal batches (is it new, does a cohort family have room, was an event seen) are
//! taken in log order; the updates of cells that follow from them are collected in a run and made
//! together, column by column, since no decision depends on a cell. Engagements are collected beside
//! them: they are taken in with the run, in log order, and nothing is decided by them either.

use smallvec::SmallVec;

use super::{Declared, Header, State, Swept, processors, sessions};
use crate::co_engagement::{Engagement, Owner};
use crate::codec::DecodeError;
use crate::collections::Standing;
use crate::end::End;
use crate::error::Result;
use crate::ids::{
    AttemptId, CohortId, CollectionId, EntityId, ProcessorId, SessionId, SignalTypeId, Timestamp,
    UserId,
};
use crate::ingest::SourceStep;
use crate::record::{
    Attributes, CollectionEdit, Opened, Record, RecordKind, SignalBatch, SignalEvent,
};
use crate::schema::{ExtendedAt, Schema};
use crate::seq::Seq;
use crate::sessions::{Happened, Started};
use crate::signals::{ColumnIndex, Run, is_countable};

/// What an accepted record did, as far as its caller wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It was applied; this many of its events had been seen before and were left out.
    Applied { duplicates: u32 },
    /// Its source had it already.
    AlreadyApplied { stored: u64 },
    /// The ids of the texts, in their order.
    Interned(Vec<EntityId>),
    /// The collection that came to be.
    Created(CollectionId),
    /// Where the collection stands, whether that is news, and how many of the events that came with
    /// the change had been seen before and were left out.
    Changed { standing: Standing, changed: bool, duplicates: u32 },
    /// Who holds which session now.
    Started(Started),
    /// Until when the session goes on, if nothing more comes.
    Touched { deadline: Timestamp },
    /// How the session ended.
    Ended(Box<End>),
    /// What a sweep found.
    Swept(Swept),
    /// The processor that is there now.
    Registered { processor: ProcessorId },
    /// Which attempts began, in the order of the record, and what names those that did.
    Begun { attempt: AttemptId, begun: Vec<bool> },
    /// Which attempts were committed; the others were not those that are running. And which outcomes hold.
    Committed(Vec<bool>),
    /// Which items changed anything, in the order of the record.
    Decided(Vec<bool>),
}

/// A record's outcome: accepted, or refused with nothing changed.
pub(crate) type Outcome = Result<Reply>;

/// The one who changes the state. Keeps buffers between groups.
#[derive(Default)]
pub(crate) struct Applier {
    run: Run,
    /// The engagements among the run's events, in log order.
    engagements: Vec<Engagement>,
    columns: ColumnCache,
    /// What the last group did to sessions, in log order.
    happened: Vec<Happened>,
    /// Whether the run already has the events of the group that is about to be applied.
    speculated: bool,
}

/// Column indices by signal and scope: columns are never removed, so what is known stays true.
#[derive(Default)]
struct ColumnCache {
    by_signal: Vec<Vec<Option<ColumnIndex>>>,
}

impl ColumnCache {
    #[inline]
    fn find(&self, signal: SignalTypeId, scope: CohortId) -> Option<ColumnIndex> {
        *self.by_signal.get(signal.get() as usize)?.get(scope.get() as usize)?
    }

    fn insert(&mut self, signal: SignalTypeId, scope: CohortId, index: ColumnIndex) {
        let (signal, scope) = (signal.get() as usize, scope.get() as usize);
        if self.by_signal.len() <= signal {
            self.by_signal.resize(signal + 1, Vec::new());
        }
        let scopes = &mut self.by_signal[signal];
        if scopes.len() <= scope {
            scopes.resize(scope + 1, None);
        }
        scopes[scope] = Some(index);
    }
}

type Scopes = SmallVec<[CohortId; 8]>;

impl Applier {
    /// Prepares for a group that is logged but not yet synced: decodes its events, finds and loads
    /// their cells. Changes nothing, and is only a guess: [`apply`](Self::apply) decides. Nothing
    /// may be applied between this and the group.
    pub(crate) fn speculate<'a>(
        &mut self,
        state: &State,
        group: impl Iterator<Item = (Timestamp, u8, &'a [u8])>,
    ) {
        self.clear();
        self.speculated = self.guess(state, group).is_some();
        if self.speculated {
            self.run.look_up(&state.ledger);
        }
    }

    /// Collects the events of a group in the run, provided that all of it is signals whose cohorts
    /// and columns exist.
    fn guess<'a>(
        &mut self,
        state: &State,
        group: impl Iterator<Item = (Timestamp, u8, &'a [u8])>,
    ) -> Option<()> {
        let declared = state.declared();
        let mut header = state.header();
        for (stamp, kind, body) in group {
            let Ok(Record::Signals(batch)) = Record::decode(kind, body) else { return None };
            let time = time_of(&header, stamp, &batch);
            header.engine_time = time;
            let names = batch.cohorts.iter();
            let cohorts: Vec<CohortId> =
                names.map(|name| state.cohorts.find(name)).collect::<Option<_>>()?;
            for event in batch.events() {
                let event = event.ok()?;
                if !is_countable(event.weight, event.at, time) {
                    return None;
                }
                let scopes = scopes_of(state, &event, &cohorts)?;
                let known = |&scope| self.columns.find(event.signal, scope);
                let columns: SmallVec<[ColumnIndex; 8]> =
                    scopes.iter().map(known).collect::<Option<_>>()?;
                let spec = declared.specs.get(event.signal.get() as usize)?;
                let columns = columns.into_iter();
                self.run.push(spec, columns, event.entity, event.weight, event.at, time);
                if declared.is_engaging(event.signal) {
                    self.engagements.extend(engagement_of(&declared, &event, None));
                }
            }
        }
        Some(())
    }

    /// Applies a group of frames, in order, and says what became of each.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when a body is no record of this version. Then the state stands somewhere in
    /// the group and must not be used any more.
    pub(crate) fn apply<'a>(
        &mut self,
        state: &State,
        group: impl Iterator<Item = Frame<'a>>,
    ) -> Result<Vec<Outcome>, DecodeError> {
        self.happened.clear();
        let speculated = std::mem::take(&mut self.speculated);
        if !speculated {
            self.clear();
        }
        let mut as_guessed = speculated;
        let mut outcomes = Vec::new();
        let mut accepted: Vec<Accepted<'a>> = Vec::new();
        for frame in group {
            let record = Record::decode(frame.kind, frame.body)?;
            let operation = !record.kind().is_control();
            let header = state.header();
            // Where events advance time, only accepted ones do.
            let mut time = match record {
                Record::ResetClock(time) => time,
                _ if header.event_time => header.engine_time,
                _ => frame.time,
            };
            if time < header.engine_time && record.kind() != RecordKind::ResetClock {
                return Err(DecodeError::Malformed("a time before that of the frame before"));
            }
            let outcome = match record {
                Record::Signals(batch) => {
                    let then = time_of(&header, frame.time, &batch);
                    let (outcome, frame) = decide(state, then, batch)?;
                    if frame.is_some() {
                        time = then;
                    }
                    as_guessed &= frame.as_ref().is_some_and(|frame| frame.left_out.is_empty());
                    accepted.extend(frame);
                    outcome
                }
                record @ (Record::ChangeCollection(_)
                | Record::SessionSignal(_)
                | Record::CommitAttempts(_)) => {
                    assert!(!as_guessed, "a group with other records than signals is not guessed");
                    let (outcome, counted, then) =
                        with_signals(state, frame, time, &record, &mut self.happened)?;
                    time = then;
                    accepted.extend(counted);
                    outcome
                }
                other => {
                    assert!(!as_guessed, "a group with other records than signals is not guessed");
                    self.settle(state, &mut accepted)?;
                    apply_other(state, Frame { time, ..frame }, other, &mut self.happened)?
                }
            };
            outcomes.push(outcome);
            state.deliveries.keep(frame.seq, &self.happened);
            state.advance(frame.seq, time, operation);
        }
        if as_guessed {
            self.commit(state);
        } else {
            self.clear();
            self.settle(state, &mut accepted)?;
        }
        Ok(outcomes)
    }

    /// Counts the events of accepted batches in their cells.
    fn settle(
        &mut self,
        state: &State,
        accepted: &mut Vec<Accepted<'_>>,
    ) -> Result<(), DecodeError> {
        if accepted.is_empty() {
            return Ok(());
        }
        let declared = state.declared();
        for frame in accepted.drain(..) {
            let mut left_out = frame.left_out.iter().copied().peekable();
            for (i, event) in frame.batch.events().enumerate() {
                let event = event?;
                if left_out.next_if_eq(&i).is_none() {
                    self.push(state, &declared, &event, &frame)?;
                }
            }
        }
        self.run.look_up(&state.ledger);
        self.commit(state);
        Ok(())
    }

    /// What the last group did to sessions, in log order; empty until the next one.
    pub(crate) fn take_happened(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.happened)
    }

    fn commit(&mut self, state: &State) {
        let hidden = state.hidden.held();
        self.run.commit(&state.ledger, &|item| hidden.contains(item));
        drop(hidden);
        if let Some(rules) = state.declared().schema.co_engagement() {
            state.co_engagement.engage(rules, &self.engagements);
            self.engagements.clear();
        }
    }

    fn clear(&mut self) {
        self.run.clear();
        self.engagements.clear();
    }

    /// Adds an event to the run; columns that are missing are made.
    fn push(
        &mut self,
        state: &State,
        declared: &Declared,
        event: &SignalEvent,
        of: &Accepted<'_>,
    ) -> Result<(), DecodeError> {
        let signal = event.signal;
        if !is_countable(event.weight, event.at, of.time) {
            return Err(DecodeError::Malformed("an event that no cell can count"));
        }
        let unknown = DecodeError::Malformed("a signal that the schema does not have");
        let spec = declared.specs.get(signal.get() as usize).ok_or(unknown)?;
        let scopes = scopes_of(state, event, &of.cohorts)
            .ok_or(DecodeError::Malformed("a cohort that the batch does not name"))?;
        let columns = &mut self.columns;
        let columns = scopes.iter().map(|&scope| {
            columns.find(signal, scope).unwrap_or_else(|| {
                let index = state.ledger.column_index(scope, signal, spec);
                columns.insert(signal, scope, index);
                index
            })
        });
        self.run.push(spec, columns, event.entity, event.weight, event.at, of.time);
        if declared.is_engaging(signal) {
            self.engagements.extend(engagement_of(declared, event, of.session));
        }
        Ok(())
    }
}

/// Decides on a batch, and changes everything but cells. `None` when there is nothing to count.
pub(super) fn decide<'a>(
    state: &State,
    time: Timestamp,
    batch: SignalBatch<'a>,
) -> Result<(Outcome, Option<Accepted<'a>>), DecodeError> {
    let declared = state.declared();
    if let Some(source) = &batch.source {
        match state.sources.step(source) {
            Err(refusal) => return Ok((Err(refusal), None)),
            Ok(SourceStep::AlreadyApplied { stored }) => {
                return Ok((Ok(Reply::AlreadyApplied { stored }), None));
            }
            Ok(SourceStep::New) => {}
        }
    }
    let cohorts = match state.cohorts.ensure(batch.cohorts.iter().copied(), &declared.schema) {
        Err(refusal) => return Ok((Err(refusal), None)),
        Ok(cohorts) => cohorts,
    };
    let left_out = unseen(state, time, &batch)?;
    if let Some(source) = &batch.source {
        state.sources.advance(source);
    }
    let outcome = Ok(Reply::Applied { duplicates: left_out.len() as u32 });
    Ok((outcome, Some(Accepted { batch, cohorts, time, left_out, session: None })))
}

/// Changes a collection at `time`, and lets the signals count that come with the change: both, or
/// neither. Signals may make it later, where events advance time.
fn change<'a>(
    state: &State,
    stamp: Timestamp,
    mut time: Timestamp,
    edit: &CollectionEdit<'a>,
) -> Result<(Outcome, Option<Accepted<'a>>), DecodeError> {
    let duplicates = 0;
    match state.collections.decide(edit) {
        Err(refusal) => return Ok((Err(refusal), None)),
        Ok(Some(standing)) => {
            return Ok((Ok(Reply::Changed { standing, changed: false, duplicates }), None));
        }
        Ok(None) => {}
    }
    let mut counted = None;
    if let Some(bytes) = edit.signals {
        let batch = SignalBatch::decode(bytes)?;
        if batch.source.is_some() {
            return Err(DecodeError::Malformed("a change of a collection from a source"));
        }
        time = time_of(&state.header(), stamp, &batch);
        let (outcome, accepted) = decide(state, time, batch)?;
        if let Err(refusal) = outcome {
            return Ok((Err(refusal), None));
        }
        counted = accepted;
    }
    let standing = state.collections.carry_out(edit, time);
    let left_out = counted.as_ref().map_or(0, |counted| counted.left_out.len());
    let duplicates = left_out as u32;
    Ok((Ok(Reply::Changed { standing, changed: true, duplicates }), counted))
}

/// A frame, as the state sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) seq: Seq,
    pub(crate) time: Timestamp,
    pub(crate) kind: u8,
    pub(crate) body: &'a [u8],
}

/// A batch that was accepted and is not yet counted.
pub(super) struct Accepted<'a> {
    batch: SignalBatch<'a>,
    cohorts: Vec<CohortId>,
    time: Timestamp,
    /// The events whose ids were seen before, ascending.
    left_out: Vec<usize>,
    /// The session that it is of.
    session: Option<SessionId>,
}

impl Accepted<'_> {
    /// The same, of a session.
    pub(super) fn of_session(self, session: SessionId) -> Self {
        Self { session: Some(session), ..self }
    }
}

/// Engine time once a batch is accepted: that of its latest event where events advance time, else its
/// stamp. The stamp will not do for both, since it is made before it is known what is accepted.
pub(super) fn time_of(header: &Header, stamp: Timestamp, batch: &SignalBatch<'_>) -> Timestamp {
    if header.event_time && batch.len > 0 {
        header.engine_time.max(batch.latest)
    } else if header.event_time {
        header.engine_time
    } else {
        stamp
    }
}

/// The scopes an event counts in, each once: everyone, the cohorts of its user, and those it names.
/// `None` when it names one that the batch does not have.
#[inline]
fn scopes_of(state: &State, event: &SignalEvent, cohorts: &[CohortId]) -> Option<Scopes> {
    let mut scopes = Scopes::new();
    scopes.push(CohortId::EVERYONE);
    if let Some(user) = event.user {
        scopes.extend(state.users.cohorts(user));
    }
    for &index in &event.cohorts {
        let cohort = *cohorts.get(index as usize)?;
        if !scopes.contains(&cohort) {
            scopes.push(cohort);
        }
    }
    Some(scopes)
}

/// The engagement that an event of an engaging signal is: of its session, or of its user, if it has one.
fn engagement_of(
    declared: &Declared,
    event: &SignalEvent,
    session: Option<SessionId>,
) -> Option<Engagement> {
    let of_nobody = || declared.schema.co_engagement()?.anonymous_trail.then_some(Owner::Anonymous);
    let owner_of = |user| match session {
        Some(session) => Owner::Session { session, user },
        None => Owner::User(user),
    };
    let owner = event.user.map(owner_of).or_else(of_nobody)?;
    let engagement = Engagement { owner, item: event.entity, at: event.at };
    (event.weight > 0.0).then_some(engagement)
}

/// So many event ids are forgotten with a batch, or twice as many as it has events.
const FORGOTTEN_AT_ONCE: usize = 4_096;

/// Remembers the batch's event ids, and says which events came before.
fn unseen(
    state: &State,
    time: Timestamp,
    batch: &SignalBatch<'_>,
) -> Result<Vec<usize>, DecodeError> {
    let horizon_ns = state.header().event_id_horizon_ns;
    // More than come with the batch, so that nothing piles up; and no more than what takes a moment, however
    // long nothing came.
    state.event_ids.expire(time, horizon_ns, FORGOTTEN_AT_ONCE.max(2 * batch.len));
    if !batch.has_ids {
        return Ok(Vec::new());
    }
    let mut left_out = Vec::new();
    for (i, event) in batch.events().enumerate() {
        if event?.id.is_some_and(|id| !state.event_ids.insert(id, time, horizon_ns)) {
            left_out.push(i);
        }
    }
    Ok(left_out)
}

/// Applies a record that may have signals with it, and gives out those that are to be counted. Engine time
/// may be later afterwards, where events advance it.
fn with_signals<'a>(
    state: &State,
    frame: Frame<'a>,
    time: Timestamp,
    record: &Record<'a>,
    happened: &mut Vec<Happened>,
) -> Result<(Outcome, Option<Accepted<'a>>, Timestamp), DecodeError> {
    match record {
        Record::ChangeCollection(edit) => {
            let (outcome, counted) = change(state, frame.time, time, edit)?;
            let time = counted.as_ref().map_or(time, |counted| counted.time);
            Ok((outcome, counted, time))
        }
        Record::SessionSignal(signal) => sessions::signal(state, frame, time, signal, happened),
        Record::CommitAttempts(commit) => processors::commit(state, frame, time, commit, happened),
        _ => unreachable!("other records have no signals with them"),
    }
}

/// Applies a record that is no batch.
fn apply_other(
    state: &State,
    frame: Frame<'_>,
    record: Record<'_>,
    happened: &mut Vec<Happened>,
) -> Result<Outcome, DecodeError> {
    let done = || Reply::Applied { duplicates: 0 };
    match record {
        Record::Signals(_)
        | Record::ChangeCollection(_)
        | Record::SessionSignal(_)
        | Record::CommitAttempts(_) => {
            unreachable!("what may have signals is decided apart")
        }
        Record::StartSession(_)
        | Record::Annotate(_)
        | Record::Touch(_)
        | Record::EndSession(_)
        | Record::PruneSession(_)
        | Record::EndAllSessions
        | Record::ResumeSession(_)
        | Record::Sweep { .. } => return sessions::apply(state, frame, &record, happened),
        Record::RegisterProcessor(_)
        | Record::RemoveProcessor(_)
        | Record::BeginAttempts(_)
        | Record::FailAttempts(_)
        | Record::FailSessions(_)
        | Record::RequeueSessions(_)
        | Record::WarnSessions(_)
        | Record::ReprocessSessions(_) => {
            return processors::apply(state, frame, &record, happened);
        }
        Record::RegisterCursor(new) => return Ok(state.deliveries.register(&new).map(|()| done())),
        Record::AckCursor(ack) => return Ok(state.deliveries.acknowledge(ack).map(|()| done())),
        Record::RemoveCursor(name) => return Ok(state.deliveries.remove(name).map(|()| done())),
        Record::CreateCollection(new) => {
            // Numbers of operations are never given twice, and control frames have none.
            let id = CollectionId::new(state.header().operations + 1);
            let created = state.collections.create(id, &new, frame.time);
            return Ok(created.map(|()| Reply::Created(id)));
        }
        Record::DeleteCollection(id) => return Ok(state.collections.delete(id).map(|()| done())),
        Record::Schema(bytes) => return extend_schema(state, frame, Schema::from_bytes(bytes)?),
        Record::WriteUser(user, attributes) => return Ok(write_user(state, user, &attributes)),
        Record::WriteItem(item, metadata) => {
            state.metadata.put(item.get(), Some(metadata.to_vec()));
        }
        Record::DeleteItem(item) => {
            state.metadata.put(item.get(), None);
            let hidden = state.hidden.held();
            state.ledger.forget(item, &|item| hidden.contains(item));
            drop(hidden);
            state.co_engagement.forget(item);
        }
        Record::HideItem(item) => set_hidden(state, item, true),
        Record::ShowItem(item) => set_hidden(state, item, false),
        Record::Intern(texts) => return Ok(Ok(Reply::Interned(state.dictionary.intern(&texts)))),
        Record::ResetClock(time) => {
            set_back(state, Frame { time, ..frame }, happened);
            state.set_back(time);
        }
        Record::Opened(opened) => open(state, frame, opened, happened),
        Record::JobsRan(rows) => state.processors.ran(&rows, frame.time)?,
        Record::Mark => {}
    }
    Ok(Ok(done()))
}

/// The database was opened.
fn open(state: &State, frame: Frame<'_>, opened: Opened, happened: &mut Vec<Happened>) {
    let header = state.header();
    // What was forgotten does not come back with a longer horizon.
    if opened.event_id_horizon_ns > header.event_id_horizon_ns {
        state.event_ids.expire(header.operation_time, header.event_id_horizon_ns, usize::MAX);
    }
    state.open(opened);
    sessions::open(state, frame, opened.sessions, happened);
}

/// Engine time is about to be set back to that of the frame, if that is earlier.
fn set_back(state: &State, frame: Frame<'_>, happened: &mut Vec<Happened>) {
    let (header, time) = (state.header(), frame.time);
    if time < header.engine_time {
        let hidden = state.hidden.held();
        state.ledger.drop_after(time, header.operation_time, &|item| hidden.contains(item));
        drop(hidden);
        state.event_ids.expire(header.operation_time, header.event_id_horizon_ns, usize::MAX);
        state.event_ids.clamp(time);
        state.processors.set_jobs_back(time);
        if let Some(rules) = state.declared().schema.co_engagement() {
            state.co_engagement.drop_after(rules, time);
        }
        sessions::set_back(state, frame, happened);
        if time < header.operation_time {
            processors::set_back(state, frame, happened);
        }
    }
}

fn set_hidden(state: &State, item: EntityId, hidden: bool) {
    if state.hidden.set(item, hidden) {
        let held = state.hidden.held();
        state.ledger.set_eligible(item, !hidden, &|item| held.contains(item));
    }
}

/// A user's cohorts follow from the attributes and the schema of this position.
fn write_user(state: &State, user: UserId, attributes: &Attributes) -> Outcome {
    let schema = &state.declared().schema;
    let names = schema.cohorts_of(|name| attributes.get(name).map(String::as_str));
    let cohorts = state.cohorts.ensure(names.iter().map(String::as_str), schema)?;
    state.users.write(user, attributes, &cohorts);
    Ok(Reply::Applied { duplicates: 0 })
}

/// The first schema is taken as it is; a later one extends it, and is refused if it does anything
/// else. Cohorts that are new find their members among the users written so far.
fn extend_schema(state: &State, frame: Frame<'_>, given: Schema) -> Result<Outcome, DecodeError> {
    let stored = state.declared();
    let first = stored.schema.signals().is_empty() && stored.schema.cohorts().is_empty();
    let at = ExtendedAt { seq: frame.seq, time: frame.time };
    let extended = if first { Ok(Some(given)) } else { stored.schema.extend(&given, at) };
    let schema = match extended {
        Err(refusal) => return Ok(Err(refusal)),
        Ok(None) => return Ok(Ok(Reply::Applied { duplicates: 0 })),
        Ok(Some(schema)) => schema,
    };
    let declared = Declared::of(schema);
    for (i, spec) in declared.specs.iter().enumerate() {
        if stored.specs.get(i).is_some_and(|old| old != spec) {
            state.ledger.extend(SignalTypeId::new(i as u16), spec);
        }
    }
    let new_cohorts = declared.schema.cohorts().len() > stored.schema.cohorts().len();
    state.declare(declared);
    if new_cohorts {
        join_users(state);
    }
    Ok(Ok(Reply::Applied { duplicates: 0 }))
}

/// Decides anew which cohorts each user is in. A family member that finds no room is left out.
fn join_users(state: &State) {
    let schema = &state.declared().schema;
    for user in state.users.all() {
        let attributes = state.users.attributes(user).expect("every listed user has attributes");
        let names = schema.cohorts_of(|name| attributes.get(name).map(String::as_str));
        let cohorts: Vec<CohortId> = names
            .iter()
            .filter_map(|name| state.cohorts.ensure(std::iter::once(name.as_str()), schema).ok())
            .flatten()
            .collect();
        state.users.write(user, &attributes, &cohorts);
    }
}

impl State {
    fn declare(&self, declared: Declared) {
        self.declared.store(std::sync::Arc::new(declared));
    }

    fn advance(&self, seq: Seq, time: Timestamp, operation: bool) {
        let mut header = self.header.write();
        assert_eq!(seq, header.applied.next(), "frames are applied in log order, without holes");
        header.applied = seq;
        header.engine_time = header.engine_time.max(time);
        if operation {
            header.operation_time = header.engine_time;
            header.operations += 1;
        }
    }

    fn set_back(&self, time: Timestamp) {
        self.header.write().engine_time = time;
    }

    fn open(&self, opened: Opened) {
        let mut header = self.header.write();
        *header = Header {
            incarnation: opened.incarnation,
            event_id_horizon_ns: opened.event_id_horizon_ns,
            event_time: opened.event_time,
            ..*header
        };
    }
}
