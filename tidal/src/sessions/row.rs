//! What is known of one session, and what is derived from all rows.
//!
//! Knows: how a row lies in a page and in the table of ended sessions. Must not know: what a record does.
//!
//! The *canonical* row, which is the same wherever it lies and whoever looked at it:
//!
//! ```text
//! flags u8: 1 extended, 2 evidence, 4 ended by someone, 8 pruned, 16 processed, 32 failed
//! | session varint | user u64
//! | policy varint | agent: length varint, UTF-8 | started u64 (ns) | last activity varint, ns after it
//! | [extended until u64 (ns)] | [evidence: reach u64 (ns), record varint] | newest record varint, or 0
//! | records varint | signals varint | annotations varint | late varint | content hash 32
//! | [processed: count varint, each processor u8, newest record seen varint, version << 1 | given up varint, by ascending processor]
//! | [failed: at u64 (ns), cause] | [decided u64 (ns) | end]
//!
//! cause: u8 (0 timed out: after varint (ns), automatic u8; 1 reset: by, reason; 2 quarantined: processor), with lengths
//! end: at u64 (ns) | cause u8 (0 closed, 1 idle, 2 too long, 3 superseded: session varint follows, 4 orphan,
//!      5 shutdown, 6 forced: reason follows, length varint, UTF-8)
//!      | evidence u8 (0 explicit, 1 record: number varint follows, 2 fallback, 3 fallback that was cut)
//! ```
//!
//! A row that time has ended has no end in it: the end follows from the rest, and may be looked up at any
//! time. So whether, and when, anyone noticed leaves no trace in the canonical row; nor does who holds
//! the session.
//!
//! In a page: the canonical row | incarnation varint | grant varint | stage u8 | due u64 (ns).

use std::collections::{BTreeMap, BTreeSet};

use super::course::{Course, Evidence, Limits, settles_at};
use super::event::FailCause;
use super::processing::{
    Awaited, Failed, Processed, put_failed, put_processed, read_failed, read_processed,
};
use crate::codec::{DecodeError, Hash, Put, Reader};
use crate::end::{End, EndCause, EndEvidence};
use crate::ids::{Fence, ProcessorId, SessionId, Timestamp, UserId};
use crate::table::{Row, Slab, Slot, hash_text, hash_u64};

/// How far it has been noticed that a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Nobody has noticed an end. It may be over all the same.
    Open,
    /// It has ended, and takes late records.
    Ended,
    /// It takes none any more, and waits for those who process it, or has failed. No time changes that.
    Waiting,
    /// It has ended for good, and leaves for the table of ended sessions as soon as nobody wants it.
    Settled,
}

impl Stage {
    /// As a page has them; the one that comes later in the life of a session came later to the format.
    const BY_NUMBER: [Self; 4] = [Self::Open, Self::Ended, Self::Settled, Self::Waiting];

    fn number(self) -> u8 {
        let number = Self::BY_NUMBER.iter().position(|&stage| stage == self);
        number.expect("every stage has a number") as u8
    }
}

/// How much is in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) signals: u64,
    pub(super) annotations: u64,
    pub(super) late: u64,
}

/// What someone decided of a session, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) end: End,
    pub(super) when: Timestamp,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionRow {
    pub(super) id: SessionId,
    pub(super) user: UserId,
    pub(super) agent: Box<str>,
    pub(super) policy: u16,
    pub(super) course: Course,
    /// Its newest record, or 0.
    pub(super) head: u64,
    pub(super) counts: Counts,
    /// Over its start and all of its records.
    pub(super) hash: Hash,
    /// How it ended, if someone ended it.
    pub(super) end: Option<Box<Decided>>,
    /// Who has seen how much of it, or has given it up, by ascending processor.
    pub(super) processed: Box<[Processed]>,
    pub(super) failed: Option<Box<Failed>>,
    /// Its records are gone.
    pub(super) pruned: bool,
    /// Who was given it last, in whichever incarnation.
    pub(super) fence: Fence,
    pub(super) stage: Stage,
    /// The first moment at which something is to be done about it: it is over, it settles, or it leaves.
    pub(super) due: Timestamp,
}

impl SessionRow {
    /// Its fence as of an incarnation: what an earlier one granted counts for nothing.
    pub(super) fn fence_in(&self, incarnation: u64) -> Fence {
        match self.fence.incarnation == incarnation {
            true => self.fence,
            false => Fence { incarnation, grant: 0 },
        }
    }

    /// How it ended, as of now; `None` while it is open.
    pub(super) fn end_at(&self, limits: Limits, now: Timestamp) -> Option<End> {
        match &self.end {
            Some(decided) => Some(decided.end.clone()),
            None if self.stage != Stage::Open || self.course.is_over(limits, now) => {
                Some(self.course.overdue_end(limits))
            }
            None => None,
        }
    }

    /// How it ended: someone ended it, or time did.
    pub(super) fn last_end(&self, limits: Limits) -> End {
        let decided = self.end.as_ref().map(|decided| decided.end.clone());
        decided.unwrap_or_else(|| self.course.overdue_end(limits))
    }

    /// The first moment at which it takes no late records any more, once it is over.
    pub(super) fn settles_at(&self, limits: Limits) -> Timestamp {
        let decided = self.end.as_ref().map(|decided| decided.when);
        settles_at(limits, decided.unwrap_or_else(|| self.course.deadline(limits)))
    }

    /// What is due next, in its stage.
    pub(super) fn next_due(&self, limits: Limits) -> Timestamp {
        let over = later_by_one(self.course.deadline(limits));
        match (self.stage, &self.end) {
            (Stage::Open, _) => over,
            (Stage::Ended, _) | (Stage::Settled, Some(_)) => self.settles_at(limits),
            (Stage::Waiting, _) => NEVER,
            // Engine time may be set back to before the deadline as long as no operation came after it.
            (Stage::Settled, None) => self.settles_at(limits).max(over),
        }
    }

    pub(super) fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put_canonical(&mut out);
        out
    }

    fn put_canonical(&self, out: &mut Vec<u8>) {
        let Course { started, last_activity, extended_until, evidence } = self.course;
        let is_extended = extended_until > Timestamp::EPOCH;
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        out.put_u8(
            flag(EXTENDED, is_extended)
                | flag(WITNESSED, evidence.is_some())
                | flag(ENDED, self.end.is_some())
                | flag(PRUNED, self.pruned)
                | flag(PROCESSED, !self.processed.is_empty())
                | flag(FAILED, self.failed.is_some()),
        );
        out.put_varint(self.id.get());
        out.put_u64(self.user.get());
        out.put_varint(u64::from(self.policy));
        out.put_bytes(self.agent.as_bytes());
        out.put_u64(started.as_nanos());
        out.put_varint(last_activity.as_nanos() - started.as_nanos());
        if is_extended {
            out.put_u64(extended_until.as_nanos());
        }
        if let Some(Evidence { reach, record }) = evidence {
            out.put_u64(reach.as_nanos());
            out.put_varint(record);
        }
        let Counts { records, signals, annotations, late } = self.counts;
        for number in [self.head, records, signals, annotations, late] {
            out.put_varint(number);
        }
        out.extend_from_slice(&self.hash);
        if !self.processed.is_empty() {
            put_processed(out, &self.processed);
        }
        if let Some(failed) = &self.failed {
            put_failed(out, failed);
        }
        if let Some(decided) = &self.end {
            out.put_u64(decided.when.as_nanos());
            put_end(out, &decided.end);
        }
    }

    /// A canonical row. It comes as one that has settled: no page says otherwise.
    pub(super) fn read_canonical(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.u8()?;
        if flags & !(EXTENDED | WITNESSED | ENDED | PRUNED | PROCESSED | FAILED) != 0 {
            return Err(DecodeError::Malformed("unknown flags of a session"));
        }
        let id = SessionId::new(reader.varint()?);
        let user = UserId::new(reader.u64()?);
        let policy = u16::try_from(reader.varint()?)
            .map_err(|_| DecodeError::Malformed("a policy beyond 16 bits"))?;
        let agent = reader.str()?.into();
        let course = read_course(reader, flags)?;
        let head = reader.varint()?;
        let counts = Counts {
            records: reader.varint()?,
            signals: reader.varint()?,
            annotations: reader.varint()?,
            late: reader.varint()?,
        };
        let hash = reader.array()?;
        let processed =
            if flags & PROCESSED != 0 { read_processed(reader)? } else { Box::default() };
        let failed = if flags & FAILED != 0 { Some(Box::new(read_failed(reader)?)) } else { None };
        let end = if flags & ENDED != 0 {
            let when = Timestamp::from_nanos(reader.u64()?);
            Some(Box::new(Decided { end: read_end(reader)?, when }))
        } else {
            None
        };
        Ok(Self {
            id,
            user,
            agent,
            policy,
            course,
            head,
            counts,
            hash,
            end,
            processed,
            failed,
            pruned: flags & PRUNED != 0,
            fence: Fence::default(),
            stage: Stage::Settled,
            due: Timestamp::EPOCH,
        })
    }

    /// A row of the table of ended sessions.
    pub(super) fn from_canonical(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let row = Self::read_canonical(&mut reader)?;
        reader.end()?;
        Ok(row)
    }
}

const EXTENDED: u8 = 1;
const WITNESSED: u8 = 2;
const ENDED: u8 = 4;
const PRUNED: u8 = 8;
const PROCESSED: u8 = 16;
const FAILED: u8 = 32;

/// What is due then is not due by time.
const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);

fn read_course(reader: &mut Reader<'_>, flags: u8) -> Result<Course, DecodeError> {
    let started = reader.u64()?;
    let last_activity = started
        .checked_add(reader.varint()?)
        .ok_or(DecodeError::Malformed("an activity beyond the end of time"))?;
    let extended_until = if flags & EXTENDED != 0 { reader.u64()? } else { 0 };
    let evidence = if flags & WITNESSED != 0 {
        let reach = reader.u64()?;
        if !(started..=last_activity).contains(&reach) {
            return Err(DecodeError::Malformed("a record that reaches past all activity"));
        }
        Some(Evidence { reach: Timestamp::from_nanos(reach), record: reader.varint()? })
    } else {
        None
    };
    Ok(Course {
        started: Timestamp::from_nanos(started),
        last_activity: Timestamp::from_nanos(last_activity),
        extended_until: Timestamp::from_nanos(extended_until),
        evidence,
    })
}

pub(super) fn put_end(out: &mut Vec<u8>, end: &End) {
    out.put_u64(end.at.as_nanos());
    match &end.cause {
        EndCause::Closed => out.put_u8(0),
        EndCause::IdleTimeout => out.put_u8(1),
        EndCause::MaxDuration => out.put_u8(2),
        EndCause::Superseded { by } => {
            out.put_u8(3);
            out.put_varint(by.get());
        }
        EndCause::OrphanRecovered => out.put_u8(4),
        EndCause::Shutdown => out.put_u8(5),
        EndCause::Forced { reason } => {
            out.put_u8(6);
            out.put_bytes(reason.as_bytes());
        }
    }
    match end.evidence {
        EndEvidence::Explicit => out.put_u8(0),
        EndEvidence::Record { record } => {
            out.put_u8(1);
            out.put_varint(record);
        }
        EndEvidence::Fallback { clamped } => out.put_u8(if clamped { 3 } else { 2 }),
    }
}

pub(super) fn read_end(reader: &mut Reader<'_>) -> Result<End, DecodeError> {
    let at = Timestamp::from_nanos(reader.u64()?);
    let cause = match reader.u8()? {
        0 => EndCause::Closed,
        1 => EndCause::IdleTimeout,
        2 => EndCause::MaxDuration,
        3 => EndCause::Superseded { by: SessionId::new(reader.varint()?) },
        4 => EndCause::OrphanRecovered,
        5 => EndCause::Shutdown,
        6 => EndCause::Forced { reason: reader.str()?.to_owned() },
        _ => return Err(DecodeError::Malformed("an end without a known cause")),
    };
    let evidence = match reader.u8()? {
        0 => EndEvidence::Explicit,
        1 => EndEvidence::Record { record: reader.varint()? },
        tag @ (2 | 3) => EndEvidence::Fallback { clamped: tag == 3 },
        _ => return Err(DecodeError::Malformed("an end on no known evidence")),
    };
    Ok(End { at, cause, evidence })
}

/// The bytes of the texts of a cause.
fn words(cause: &FailCause) -> usize {
    match cause {
        FailCause::TimedOut { .. } => 0,
        FailCause::Reset { by, reason } => by.len() + reason.len(),
        FailCause::Quarantined { processor } => processor.len(),
    }
}

fn later_by_one(time: Timestamp) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos().saturating_add(1))
}

/// What is found without walking all rows; derived from them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Those whose processing was given up.
    failed: BTreeSet<SessionId>,
    /// The same, by when that was.
    failed_at: BTreeSet<(Timestamp, SessionId)>,
    /// Of open ones: user, hash of the agent, session. The hash is this process's own.
    open: BTreeSet<(UserId, u64, SessionId)>,
    /// When it is time to look at a session: it is over, or settles.
    due: BTreeSet<(Timestamp, SessionId)>,
    /// Settled ones that nobody wants: they leave as soon as an operation comes at this time.
    leaving: BTreeSet<(Timestamp, SessionId)>,
    awaited: Vec<Awaited>,
    /// Which of them want which session.
    wanted: BTreeMap<ProcessorId, BTreeSet<SessionId>>,
}

impl Index {
    pub(super) fn insert(&mut self, row: &SessionRow) {
        self.insert_times(row);
        self.list(row);
    }

    fn insert_times(&mut self, row: &SessionRow) {
        if let Some(failed) = &row.failed {
            self.failed.insert(row.id);
            self.failed_at.insert((failed.at, row.id));
        }
        match row.stage {
            Stage::Open => {
                self.open.insert(open_key(row));
                self.due.insert((row.due, row.id));
            }
            Stage::Ended => {
                self.due.insert((row.due, row.id));
            }
            Stage::Waiting | Stage::Settled => {}
        }
    }

    pub(super) fn remove(&mut self, row: &SessionRow) {
        if let Some(failed) = &row.failed {
            self.failed.remove(&row.id);
            self.failed_at.remove(&(failed.at, row.id));
        }
        if row.stage == Stage::Open {
            self.open.remove(&open_key(row));
        }
        match row.stage {
            Stage::Open | Stage::Ended => self.due.remove(&(row.due, row.id)),
            Stage::Waiting => false,
            Stage::Settled => self.leaving.remove(&(row.due, row.id)),
        };
        for ids in self.wanted.values_mut() {
            ids.remove(&row.id);
        }
    }

    /// Who wants a session, which has changed; one that has settled and that nobody wants leaves.
    pub(super) fn list(&mut self, row: &SessionRow) {
        let Self { awaited, wanted, .. } = self;
        let mut is_wanted = false;
        for it in awaited.iter() {
            let ids = wanted.entry(it.processor).or_default();
            if row.is_wanted_by(it) {
                ids.insert(row.id);
                is_wanted = true;
            } else {
                ids.remove(&row.id);
            }
        }
        let leaves = row.stage == Stage::Settled && !is_wanted;
        match leaves {
            true => self.leaving.insert((row.due, row.id)),
            false => self.leaving.remove(&(row.due, row.id)),
        };
    }

    /// The processors, as sessions know them.
    pub(super) fn awaited(&self) -> &[Awaited] {
        &self.awaited
    }

    /// The sessions that a processor wants, ascending.
    pub(super) fn wanted_by(&self, processor: ProcessorId) -> Option<&BTreeSet<SessionId>> {
        self.wanted.get(&processor)
    }

    /// Whether any processor wants a session.
    pub(super) fn is_wanted(&self, id: SessionId) -> bool {
        self.wanted.values().any(|ids| ids.contains(&id))
    }

    /// The sessions that any processor wants, ascending.
    pub(super) fn wanted(&self) -> BTreeSet<SessionId> {
        self.wanted.values().flatten().copied().collect()
    }

    /// The sessions whose processing was given up, ascending.
    pub(super) fn failed(&self) -> &BTreeSet<SessionId> {
        &self.failed
    }

    /// Those whose processing was given up at a moment or later, by when that was.
    pub(super) fn failed_since(
        &self,
        since: Timestamp,
    ) -> impl DoubleEndedIterator<Item = SessionId> + Clone {
        self.failed_at.range((since, SessionId::new(0))..).map(|&(_, id)| id)
    }

    /// A session is due at another time than before.
    pub(super) fn postpone(&mut self, id: SessionId, from: Timestamp, to: Timestamp) {
        if from != to {
            self.due.remove(&(from, id));
            self.due.insert((to, id));
        }
    }

    /// The open sessions of a user, in no order that means anything.
    pub(super) fn open_of(&self, user: UserId) -> impl Iterator<Item = SessionId> {
        let range = (user, 0, SessionId::new(0))..=(user, u64::MAX, SessionId::new(u64::MAX));
        self.open.range(range).map(|&(_, _, id)| id)
    }

    /// The open sessions of a user with an agent, or one whose name has the same hash, ascending.
    pub(super) fn open_with(&self, user: UserId, agent: &str) -> impl Iterator<Item = SessionId> {
        let hash = hash_text(agent);
        let range = (user, hash, SessionId::new(0))..=(user, hash, SessionId::new(u64::MAX));
        self.open.range(range).map(|&(_, _, id)| id)
    }

    /// Those that nobody has noticed an end of.
    pub(super) fn open_len(&self) -> usize {
        self.open.len()
    }

    /// All open sessions, in no order that means anything.
    pub(super) fn all_open(&self) -> impl Iterator<Item = SessionId> {
        self.open.iter().map(|&(_, _, id)| id)
    }

    /// The session about which it is time to do something first: it is over, or settles; and when that is.
    pub(super) fn first_over(&self) -> Option<(Timestamp, SessionId)> {
        self.due.first().copied()
    }

    /// From when on something is to be done about a session, after an operation at this time.
    pub(super) fn first_due(&self, operation_time: Timestamp) -> Option<Timestamp> {
        let leaving = self.leaving.first().filter(|(due, _)| *due <= operation_time);
        self.due.first().into_iter().chain(leaving).map(|&(due, _)| due).min()
    }

    /// The sessions that something is to be done about by a moment, those due first first.
    pub(super) fn due_by(&self, moment: Timestamp, count_max: usize) -> Vec<SessionId> {
        through(&self.due, moment, count_max)
    }

    /// The sessions that leave if an operation came at a moment.
    pub(super) fn leaving_by(&self, moment: Timestamp, count_max: usize) -> Vec<SessionId> {
        through(&self.leaving, moment, count_max)
    }

    /// The index over all rows, as far as no processor is concerned.
    fn of_times(slab: &Slab<SessionRow>) -> Self {
        let mut index = Self::default();
        slab.iter().for_each(|(_, row)| index.insert_times(row));
        index
    }

    /// The same, with these processors.
    pub(super) fn awaiting(self, awaited: Vec<Awaited>, slab: &Slab<SessionRow>) -> Self {
        let wanted = awaited.iter().map(|it| (it.processor, BTreeSet::new())).collect();
        let leaving = BTreeSet::new();
        let mut index = Self { awaited, wanted, leaving, ..self };
        slab.iter().for_each(|(_, row)| index.list(row));
        index
    }

    /// The index over all rows, with these processors.
    pub(super) fn of_rows(slab: &Slab<SessionRow>, awaited: Vec<Awaited>) -> Self {
        Self::of_times(slab).awaiting(awaited, slab)
    }
}

fn through(
    times: &BTreeSet<(Timestamp, SessionId)>,
    moment: Timestamp,
    count_max: usize,
) -> Vec<SessionId> {
    let range = times.range(..=(moment, SessionId::new(u64::MAX)));
    range.take(count_max).map(|&(_, id)| id).collect()
}

fn open_key(row: &SessionRow) -> (UserId, u64, SessionId) {
    (row.user, hash_text(&row.agent), row.id)
}

impl Row for SessionRow {
    type Key = SessionId;
    type Side = Index;

    fn key(&self) -> &SessionId {
        &self.id
    }

    fn hash(key: &SessionId) -> u64 {
        hash_u64(key.get())
    }

    fn encode(&self, _: Slot, _: &Index, out: &mut Vec<u8>) {
        self.put_canonical(out);
        out.put_varint(self.fence.incarnation);
        out.put_varint(self.fence.grant);
        out.put_u8(self.stage.number());
        out.put_u64(self.due.as_nanos());
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, _: &mut Index) -> Result<Self, DecodeError> {
        let row = Self::read_canonical(reader)?;
        let fence = Fence { incarnation: reader.varint()?, grant: reader.varint()? };
        let stage = *Stage::BY_NUMBER
            .get(usize::from(reader.u8()?))
            .ok_or(DecodeError::Malformed("a session in no known stage"))?;
        let due = Timestamp::from_nanos(reader.u64()?);
        Ok(Self { fence, stage, due, ..row })
    }

    fn canonical(&self, _: Slot, _: &Index, _: Timestamp, out: &mut Vec<u8>) {
        self.put_canonical(out);
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        // Who waits for which is listed once it is known who is there.
        *slab.side_mut() = Index::of_times(slab);
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        let reason = |end: &End| match &end.cause {
            EndCause::Forced { reason } => reason.capacity(),
            _ => 0,
        };
        let end = self.end.as_ref().map_or(0, |it| size_of::<Decided>() + reason(&it.end));
        let failed = self.failed.as_ref().map_or(0, |it| size_of::<Failed>() + words(&it.cause));
        self.agent.len() + end + size_of_val(&*self.processed) + failed
    }

    fn side_size_bytes(side: &Index) -> usize {
        // A node of a B-tree has room for eleven keys and is two thirds full as a rule.
        let open = side.open.len() * size_of::<(UserId, u64, SessionId)>();
        let times = side.due.len() + side.leaving.len() + side.failed_at.len();
        let times = times * size_of::<(Timestamp, SessionId)>();
        let wanted: usize = side.wanted.values().map(BTreeSet::len).sum();
        let ids = (wanted + side.failed.len()) * size_of::<SessionId>();
        (open + times + ids) * 3 / 2
    }
}
