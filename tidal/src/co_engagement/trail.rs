//! A trail: what one owner engages with in one visit; a row of the table of trails.
//!
//! Knows: how a row lies in memory and in a page, and what is derived from all rows. Must not know: when
//! a trail begins or ends, edges, signals.
//!
//! In a page:
//!
//! ```text
//! id u64 | owner: kind u8 (0 user, 1 anonymous, 2 session), number u64, of a session: user u64
//! | last touch u64 (ns) | started: weight u64 | items: count varint | item u64 each, the last touched last
//! ```
//!
//! Two things are derived of owners: which trail an engagement joins, the newest of its owner; and the
//! *chain* of a user, the user's own trails and those of the user's sessions, in order of id.
//!
//! *Started* is the decayed number of trails through this one: the newest row has it for all. In memory
//! an item is a small number, so that answers that walk many trails can count in arrays; numbers are
//! given as items come, and nothing but memory depends on them.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::weight::Weight;
use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{EntityId, SessionId, Timestamp, UserId};
use crate::table::{Row, Slab, Slot, hash_u64};

/// Whose visit a trail is: an engagement goes on with the newest trail of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A user's, outside any session.
    User(UserId),
    /// That of everyone without a name, where the schema says that they are one.
    Anonymous,
    /// A session's, whose user it is. Sessions of one user that interleave have trails of their own.
    Session { session: SessionId, user: UserId },
}

impl Owner {
    fn encode(self, out: &mut Vec<u8>) {
        let (kind, number) = match self {
            Self::User(user) => (0, user.get()),
            Self::Anonymous => (1, 0),
            Self::Session { session, .. } => (2, session.get()),
        };
        out.put_u8(kind);
        out.put_u64(number);
        if let Self::Session { user, .. } = self {
            out.put_u64(user.get());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match (reader.u8()?, reader.u64()?) {
            (0, user) => Ok(Self::User(UserId::new(user))),
            (1, 0) => Ok(Self::Anonymous),
            (2, session) => {
                let (session, user) = (SessionId::new(session), UserId::new(reader.u64()?));
                Ok(Self::Session { session, user })
            }
            _ => Err(DecodeError::Malformed("an owner of no known kind")),
        }
    }

    /// The user whose chain its trails are in; `None` is everyone without a name.
    pub(super) const fn user(self) -> Option<UserId> {
        match self {
            Self::User(user) | Self::Session { user, .. } => Some(user),
            Self::Anonymous => None,
        }
    }

    const fn session(self) -> Option<(SessionId, UserId)> {
        match self {
            Self::Session { session, user } => Some((session, user)),
            Self::User(_) | Self::Anonymous => None,
        }
    }
}

/// An item's number among those that are in trails.
pub(crate) type ItemNumber = u32;

/// Trails by id, the lower half of it: no two that are kept share one.
pub(super) type ShortId = u32;

/// No trail that is read has a greater id: there are more to come.
const LAST_ID: u64 = u64::MAX / 2;

/// One visit.
#[derive(Debug)]
pub(crate) struct Trail {
    /// Its place in the order of starts.
    pub(crate) id: u64,
    pub(crate) owner: Owner,
    /// The time of its last engagement.
    pub(crate) last: Timestamp,
    pub(super) started: Weight,
    /// The last touched last; none twice.
    pub(crate) items: Vec<ItemNumber>,
}

/// Everything that is derived from the trails.
#[derive(Debug, Default)]
pub(crate) struct TrailSide {
    /// The slots of the trails, in order of id.
    pub(super) order: VecDeque<Slot>,
    /// The id of the first of them.
    pub(super) first: u64,
    /// By slot: the id of the trail before it in the chain of its user, or 0. It may have left.
    pub(super) previous: Vec<u64>,
    pub(super) newest: Newest,
    pub(super) items: Items,
}

/// The newest trails of everyone who has one.
#[derive(Debug, Default)]
pub(super) struct Newest {
    users: HashTable<OfUser>,
    sessions: HashTable<OfSession>,
}

/// A user, or everyone without a name.
#[derive(Debug, PartialEq, Eq)]
struct OfUser {
    user: Option<UserId>,
    /// The last trail of the chain.
    any: u64,
    /// The last outside any session, or 0.
    own: u64,
}

/// A session that has a trail. What the rows say of its user is part of what it is.
#[derive(Debug, PartialEq, Eq)]
struct OfSession {
    session: (SessionId, UserId),
    id: u64,
}

impl OfUser {
    fn key_hash(user: Option<UserId>) -> u64 {
        let number = user.map_or(0, UserId::get);
        hash_u64(number.rotate_left(2) ^ u64::from(user.is_none()))
    }
}

impl OfSession {
    fn key_hash((session, _): (SessionId, UserId)) -> u64 {
        hash_u64(session.get())
    }
}

impl Newest {
    /// The last trail of the chain of a user, or of everyone without a name.
    pub(super) fn of_user(&self, user: Option<UserId>) -> Option<u64> {
        let found = self.users.find(OfUser::key_hash(user), |of| of.user == user);
        found.map(|of| of.any)
    }

    /// The trail that an engagement of this owner may join.
    pub(super) fn of(&self, owner: Owner) -> Option<u64> {
        if let Some(session) = owner.session() {
            let hash = OfSession::key_hash(session);
            return self.sessions.find(hash, |of| of.session == session).map(|of| of.id);
        }
        let user = owner.user();
        let found = self.users.find(OfUser::key_hash(user), |of| of.user == user);
        found.map(|of| of.own).filter(|&own| own != 0)
    }

    /// The owner began a trail, the last of all; what its user's chain ended with before, or 0.
    fn append(&mut self, owner: Owner, id: u64) -> u64 {
        let (user, session) = (owner.user(), owner.session());
        let hash = OfUser::key_hash(user);
        let rehash = |of: &OfUser| OfUser::key_hash(of.user);
        let entry = self.users.entry(hash, |of| of.user == user, rehash);
        let mut entry = entry.or_insert_with(|| OfUser { user, any: 0, own: 0 });
        let of_user = entry.get_mut();
        if session.is_none() {
            of_user.own = id;
        }
        let before = std::mem::replace(&mut of_user.any, id);
        if let Some(session) = session {
            let hash = OfSession::key_hash(session);
            let rehash = |of: &OfSession| OfSession::key_hash(of.session);
            let entry = self.sessions.entry(hash, |of| of.session == session, rehash);
            entry.or_insert_with(|| OfSession { session, id }).get_mut().id = id;
        }
        before
    }

    /// The owner's trail leaves, the oldest of all.
    pub(super) fn remove(&mut self, owner: Owner, id: u64) {
        if let Some(session) = owner.session() {
            let is_it = |of: &OfSession| of.session == session && of.id == id;
            if let Ok(entry) = self.sessions.find_entry(OfSession::key_hash(session), is_it) {
                entry.remove();
            }
        }
        let user = owner.user();
        let entry = self.users.find_entry(OfUser::key_hash(user), |of| of.user == user);
        let mut entry = entry.expect("the user of a trail has a chain");
        if entry.get().any == id {
            entry.remove();
        } else if entry.get().own == id {
            entry.get_mut().own = 0;
        }
    }

    /// Checks that these are the derived ones.
    pub(super) fn check(&self, derived: &Self) -> Result<(), String> {
        let of_user = |of: &OfUser| derived.users.find(OfUser::key_hash(of.user), |it| it == of);
        let of_session =
            |of: &OfSession| derived.sessions.find(OfSession::key_hash(of.session), |it| it == of);
        if let Some(of) = self.users.iter().find(|of| of_user(of).is_none()) {
            return Err(format!("the newest trails of user {:?} are not known", of.user));
        }
        if let Some(of) = self.sessions.iter().find(|of| of_session(of).is_none()) {
            return Err(format!("the newest trail of session {} is not known", of.session.0));
        }
        let counts = [self.users.len(), self.sessions.len()];
        match counts == [derived.users.len(), derived.sessions.len()] {
            true => Ok(()),
            false => Err("a trail whose owner is not known to have it".to_owned()),
        }
    }

    fn size_bytes(&self) -> usize {
        self.users.capacity() * 8 / 7 * (size_of::<OfUser>() + 1)
            + self.sessions.capacity() * 8 / 7 * (size_of::<OfSession>() + 1)
    }
}

/// The items that are in trails.
#[derive(Debug, Default)]
pub(super) struct Items {
    by_id: HashTable<ItemNumber>,
    /// By number. Those of `free` are stale.
    pub(super) ids: Vec<EntityId>,
    /// By number: the trails that an item is in, in order of id.
    pub(super) trails: Vec<VecDeque<ShortId>>,
    free: Vec<ItemNumber>,
}

impl Items {
    pub(super) fn find(&self, item: EntityId) -> Option<ItemNumber> {
        let ids = &self.ids;
        self.by_id.find(hash_u64(item.get()), |&at| ids[at as usize] == item).copied()
    }

    /// The number of an item, which is given one if it has none.
    pub(super) fn number(&mut self, item: EntityId) -> ItemNumber {
        if let Some(number) = self.find(item) {
            return number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.ids.push(item);
            self.trails.push(VecDeque::new());
            ItemNumber::try_from(self.ids.len() - 1).expect("trails have fewer than 2^32 items")
        });
        self.ids[number as usize] = item;
        let ids = &self.ids;
        let rehash = |&at: &ItemNumber| hash_u64(ids[at as usize].get());
        self.by_id.insert_unique(hash_u64(item.get()), number, rehash);
        number
    }

    /// The item came into a trail. Most come into one of the newest.
    pub(super) fn enter(&mut self, number: ItemNumber, trail: u64, first: u64) {
        let trails = &mut self.trails[number as usize];
        let at = place_of(trails, trail, first);
        trails.insert(at, trail as ShortId);
    }

    /// The item left a trail.
    pub(super) fn leave(&mut self, number: ItemNumber, trail: u64, first: u64) {
        let trails = &mut self.trails[number as usize];
        let at = place_of(trails, trail, first) - 1;
        let left = trails.remove(at);
        assert_eq!(left, Some(trail as ShortId), "an item knows the trails that it is in");
        if trails.is_empty() {
            self.release(number);
        }
    }

    pub(super) fn release(&mut self, number: ItemNumber) {
        let (ids, item) = (&self.ids, self.ids[number as usize]);
        let entry = self.by_id.find_entry(hash_u64(item.get()), |&at| ids[at as usize] == item);
        entry.expect("an item in a trail has a number").remove();
        self.trails[number as usize] = VecDeque::new();
        self.free.push(number);
    }

    /// Checks that exactly the items of trails have numbers, and know their trails.
    pub(super) fn check(&self, derived: &Self) -> Result<(), String> {
        if self.trails != derived.trails {
            return Err("an item is not known to be in its trails".to_owned());
        }
        let used = self.trails.iter().filter(|trails| !trails.is_empty()).count();
        if used != self.by_id.len() || used + self.free.len() != self.ids.len() {
            return Err("an item that is in no trail has a number".to_owned());
        }
        let is_lost = |number: &usize| {
            !self.trails[*number].is_empty()
                && self.find(self.ids[*number]) != Some(*number as ItemNumber)
        };
        match (0..self.ids.len()).find(is_lost) {
            Some(number) => Err(format!("item {} is not found by its id", self.ids[number])),
            None => Ok(()),
        }
    }

    fn size_bytes(&self) -> usize {
        let trails: usize = self.trails.iter().map(VecDeque::capacity).sum();
        self.by_id.capacity() * 8 / 7 * (size_of::<ItemNumber>() + 1)
            + self.ids.capacity() * size_of::<EntityId>()
            + self.trails.capacity() * size_of::<VecDeque<ShortId>>()
            + trails * size_of::<ShortId>()
            + self.free.capacity() * size_of::<ItemNumber>()
    }
}

/// Where a trail comes behind those up to its own id.
fn place_of(trails: &VecDeque<ShortId>, trail: u64, first: u64) -> usize {
    let age = |short: ShortId| short.wrapping_sub(first as ShortId);
    let wanted = age(trail as ShortId);
    if trails.back().is_none_or(|&last| age(last) <= wanted) {
        return trails.len();
    }
    trails.partition_point(|&short| age(short) <= wanted)
}

impl TrailSide {
    /// No trail began yet.
    pub(super) fn new() -> Self {
        Self { first: 1, ..Self::default() }
    }

    /// The slot of a trail, by the short form of its id.
    pub(super) fn slot_of_short(&self, short: ShortId) -> Slot {
        self.order[short.wrapping_sub(self.first as ShortId) as usize]
    }

    /// The slot of a trail that is kept.
    pub(super) fn slot(&self, id: u64) -> Option<Slot> {
        self.order.get(usize::try_from(id.checked_sub(self.first)?).ok()?).copied()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.first + self.order.len() as u64
    }

    fn set_previous(&mut self, slot: Slot, id: u64) {
        if self.previous.len() <= slot as usize {
            self.previous.resize(slot as usize + 1, 0);
        }
        self.previous[slot as usize] = id;
    }

    /// The trail is the newest of its owner and its user, and the last of all.
    pub(super) fn append(&mut self, slot: Slot, owner: Owner, id: u64) {
        let before = self.newest.append(owner, id);
        self.set_previous(slot, before);
        self.order.push_back(slot);
    }
}

impl Row for Trail {
    type Key = u64;
    type Side = TrailSide;

    fn key(&self) -> &u64 {
        &self.id
    }

    fn hash(key: &u64) -> u64 {
        hash_u64(*key)
    }

    fn encode(&self, _: Slot, side: &TrailSide, out: &mut Vec<u8>) {
        out.put_u64(self.id);
        self.owner.encode(out);
        out.put_u64(self.last.as_nanos());
        out.put_u64(self.started.bits());
        out.put_varint(self.items.len() as u64);
        for &number in &self.items {
            out.put_u64(side.items.ids[number as usize].get());
        }
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, side: &mut TrailSide) -> Result<Self, DecodeError> {
        let id = reader.u64()?;
        let owner = Owner::decode(reader)?;
        let last = Timestamp::from_nanos(reader.u64()?);
        let started = Weight::decode(reader)?;
        let count = reader.count(size_of::<u64>())?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(side.items.number(EntityId::new(reader.u64()?)));
        }
        Ok(Self { id, owner, last, started, items })
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        let derived = derive(slab).map_err(DecodeError::Malformed)?;
        let side = slab.side_mut();
        (side.first, side.order) = (derived.first, derived.order);
        (side.previous, side.newest) = (derived.previous, derived.newest);
        side.items.trails = derived.items.trails;
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        self.items.capacity() * size_of::<ItemNumber>()
    }

    fn side_size_bytes(side: &TrailSide) -> usize {
        side.order.capacity() * size_of::<Slot>()
            + side.previous.capacity() * size_of::<u64>()
            + side.newest.size_bytes()
            + side.items.size_bytes()
    }
}

/// All that the rows say; of the items only which trails they are in.
pub(super) fn derive(slab: &Slab<Trail>) -> Result<TrailSide, &'static str> {
    let mut rows: Vec<(u64, Slot)> = slab.iter().map(|(slot, trail)| (trail.id, slot)).collect();
    rows.sort_unstable();
    let mut side = TrailSide { first: rows.first().map_or(1, |&(id, _)| id), ..TrailSide::new() };
    let known = slab.side().items.ids.len();
    side.items.trails.resize(known, VecDeque::new());
    for (id, slot) in rows {
        if id == 0 || id > LAST_ID || id != side.next_id() {
            return Err("a hole in the numbers of trails");
        }
        let trail = slab.row(slot);
        side.append(slot, trail.owner, id);
        for &number in &trail.items {
            let trails = &mut side.items.trails[number as usize];
            if trails.back() == Some(&(id as ShortId)) {
                return Err("an item twice in a trail");
            }
            trails.push_back(id as ShortId);
        }
    }
    Ok(side)
}
