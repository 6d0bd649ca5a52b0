//! All trails: when one begins, goes on, ends.
//!
//! Knows: whose trail an engagement goes into, and which trails an item is in and a user has. Must not
//! know: edges, signals, what a session is.
//!
//! Trails are numbered in order of their starts, and leave in that order only, so their numbers have no
//! holes, and the next number follows from the rows. A trail that has lost all items to deletions
//! stays until its turn.

use std::sync::Arc;

use super::revisits::Tally;
use super::trail::{ItemNumber, Owner, ShortId, Trail, TrailSide, derive};
use super::weight::Weight;
use crate::decay::Factor;
use crate::ids::{EntityId, Timestamp, UserId};
use crate::schema::CoEngagement;
use crate::sync::RwLockReadGuard;
use crate::table::{Slab, Slot, StateTable, Table, TableId};

/// The trails of all owners.
pub(super) struct Trails {
    table: Arc<Table<Trail>>,
}

impl Trails {
    pub(super) fn new(id: TableId) -> Self {
        Self { table: Arc::new(Table::new(id, TrailSide::new())) }
    }

    pub(super) fn held(&self) -> HeldTrails<'_> {
        HeldTrails(self.slab())
    }

    pub(super) fn slab(&self) -> RwLockReadGuard<'_, Slab<Trail>> {
        self.table.read()
    }

    /// The trails, to be changed.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Slab<Trail>) -> T) -> T {
        change(&mut self.table.write())
    }

    pub(super) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

/// What an owner engaged with, when, and what that is worth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touch {
    pub(super) owner: Owner,
    pub(super) item: EntityId,
    pub(super) at: Timestamp,
    /// What `at` multiplies a term by.
    pub(super) factor: Factor,
}

/// Takes an engagement into its owner's trail. True when the item was not in it yet: then `others` is
/// what it is paired with, the last touched first.
pub(super) fn touch(
    slab: &mut Slab<Trail>,
    rules: &CoEngagement,
    touch: &Touch,
    others: &mut Vec<EntityId>,
    revisits: &mut Tally,
) -> bool {
    let Some(slot) = trail_for(slab, rules, touch) else { return false };
    let number = slab.side_mut().items.number(touch.item);
    let (trail, side) = slab.row_mut(slot);
    trail.last = trail.last.max(touch.at);
    let known = trail.items.iter().position(|&other| other == number);
    revisits.count(trail.items.len(), known.map(|at| trail.items.len() - 1 - at));
    if let Some(at) = known {
        trail.items[at..].rotate_left(1);
        return false;
    }
    let recent = trail.items.iter().rev().take(rules.recent_items as usize);
    others.extend(recent.map(|&other| side.items.ids[other as usize]));
    trail.items.push(number);
    side.items.enter(number, trail.id, side.first);
    if trail.items.len() > rules.trail_items_max as usize {
        let longest_untouched = trail.items.remove(0);
        side.items.leave(longest_untouched, trail.id, side.first);
    }
    true
}

/// The trail that an engagement belongs to, begun if need be; `None` for one that came late, from a
/// visit before the last.
fn trail_for(slab: &mut Slab<Trail>, rules: &CoEngagement, touch: &Touch) -> Option<Slot> {
    let newest = slab.side().newest.of(touch.owner).and_then(|id| slab.side().slot(id));
    if let Some(slot) = newest {
        let last = slab.row(slot).last;
        if touch.at.saturating_add(rules.trail_idle) < last {
            return None;
        }
        if touch.at <= last.saturating_add(rules.trail_idle) {
            return Some(slot);
        }
    }
    let newest = slab.side().order.back().map(|&slot| slab.row(slot).started);
    let started = newest.unwrap_or(Weight::ZERO).plus(Weight::of_terms(1, touch.factor));
    while slab.len() >= rules.trails_max as usize {
        remove_oldest(slab);
    }
    let (id, owner) = (slab.side().next_id(), touch.owner);
    let slot = slab.insert_new(Trail { id, owner, last: touch.at, started, items: Vec::new() });
    slab.side_mut().append(slot, owner, id);
    Some(slot)
}

fn remove_oldest(slab: &mut Slab<Trail>) {
    let id = slab.side().first;
    let (_, trail) = slab.remove(&id).expect("the oldest trail is there");
    let side = slab.side_mut();
    for number in trail.items {
        side.items.leave(number, id, id);
    }
    side.order.pop_front();
    side.first += 1;
    side.newest.remove(trail.owner, id);
}

/// Takes an item out of every trail.
pub(super) fn forget(slab: &mut Slab<Trail>, item: EntityId) {
    let Some(number) = slab.side().items.find(item) else { return };
    let trails = slab.side().items.trails[number as usize].clone();
    for short in trails {
        let slot = slab.side().slot_of_short(short);
        slab.row_mut(slot).0.items.retain(|&other| other != number);
    }
    slab.side_mut().items.release(number);
}

/// Time is set back to `time`, where one term is worth `now`: no trail was touched later, and no more
/// were started than have a number.
pub(super) fn clamp(slab: &mut Slab<Trail>, time: Timestamp, now: Factor) {
    let slots: Vec<Slot> = slab.iter().map(|(slot, _)| slot).collect();
    for slot in slots {
        let trail = slab.row(slot);
        let started = trail.started.min(Weight::of_terms(trail.id, now));
        if trail.last > time || trail.started > started {
            let (trail, _) = slab.row_mut(slot);
            (trail.last, trail.started) = (trail.last.min(time), started);
        }
    }
}

/// Whether a trail was touched after `time`, or more were started than that time (`now`) allows.
pub(super) fn is_beyond(slab: &Slab<Trail>, time: Timestamp, now: Factor) -> bool {
    slab.iter().any(|(_, trail)| trail.last > time || trail.started.is_beyond(now))
}

/// Checks that there are no more trails than may be, and none is longer.
pub(super) fn check_bounds(slab: &Slab<Trail>, rules: &CoEngagement) -> Result<(), String> {
    if slab.len() > rules.trails_max as usize {
        return Err(format!("{} trails, {} allowed", slab.len(), rules.trails_max));
    }
    let is_long = |trail: &Trail| trail.items.len() > rules.trail_items_max as usize;
    match slab.iter().find(|(_, trail)| is_long(trail)) {
        Some((_, trail)) => Err(format!("trail {} has {} items", trail.id, trail.items.len())),
        None => Ok(()),
    }
}

/// Every item that is in a trail.
pub(super) fn items(slab: &Slab<Trail>) -> Vec<EntityId> {
    let items = &slab.side().items;
    let used = |number: &usize| !items.trails[*number].is_empty();
    (0..items.ids.len()).filter(used).map(|number| items.ids[number]).collect()
}

/// Checks what is derived against what it derives from.
pub(super) fn check(slab: &Slab<Trail>) -> Result<(), String> {
    let (side, derived) = (slab.side(), derive(slab)?);
    if side.order != derived.order || side.first != derived.first {
        return Err("the order of trails is not that of their numbers".to_owned());
    }
    for (slot, trail) in slab.iter() {
        let kept = |id: u64| if id >= side.first { id } else { 0 };
        if kept(side.previous[slot as usize]) != derived.previous[slot as usize] {
            return Err(format!("trail {} is not in the chain of its user", trail.id));
        }
    }
    side.newest.check(&derived.newest)?;
    side.items.check(&derived.items)
}

/// All trails, under a read lock.
pub(crate) struct HeldTrails<'a>(RwLockReadGuard<'a, Slab<Trail>>);

impl HeldTrails<'_> {
    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The decayed number of trails that ever started.
    pub(crate) fn started(&self) -> Weight {
        let newest = self.0.side().order.back();
        newest.map_or(Weight::ZERO, |&slot| self.0.row(slot).started)
    }

    /// The number of an item that is in a trail.
    pub(crate) fn number(&self, item: EntityId) -> Option<ItemNumber> {
        self.0.side().items.find(item)
    }

    /// The item of a number that a trail has.
    pub(crate) fn item(&self, number: ItemNumber) -> EntityId {
        self.0.side().items.ids[number as usize]
    }

    /// Every number is below this.
    pub(crate) fn numbers_end(&self) -> usize {
        self.0.side().items.ids.len()
    }

    /// The trails with an item, as positions in the order of starts (0 is the oldest that is kept), the
    /// newest first.
    pub(crate) fn with(&self, number: ItemNumber) -> impl ExactSizeIterator<Item = u32> {
        let side = self.0.side();
        let first = side.first as ShortId;
        side.items.trails[number as usize].iter().rev().map(move |short| short.wrapping_sub(first))
    }

    /// The trail at a position.
    pub(crate) fn at(&self, position: u32) -> &Trail {
        self.0.row(self.0.side().order[position as usize])
    }

    /// The trails of a user, those of the user's sessions among them; or those of everyone without a
    /// name. The newest first.
    pub(crate) fn of(&self, user: Option<UserId>) -> impl Iterator<Item = &Trail> {
        let side = self.0.side();
        let slot = |id: u64| side.slot(id);
        let before = move |slot: &Slot| side.slot(side.previous[*slot as usize]);
        let newest = side.newest.of_user(user).and_then(slot);
        std::iter::successors(newest, before).map(|slot| self.0.row(slot))
    }
}
