//! Operations on collections that follow from a seed.
//!
//! A collection is named by the number of the operation that created it, and the schema is the first:
//! so operation `i` creates number `i + 2`, whoever applies it.

use tidaldb::schema::EntityId;
use tidaldb::{CollectionChange, CollectionId, Error, Event, Result, TidalDb, Visibility};

use super::{is_batch, time_of};
use crate::random::Random;

const VISIBILITIES: [Visibility; 3] =
    [Visibility::Private, Visibility::Unlisted, Visibility::Public];

/// What happens to a collection.
pub(super) enum Collecting {
    Create(u64, String, Visibility),
    Delete(CollectionId),
    Change(CollectionId, Box<CollectionChange>),
}

fn is_creation(i: u64) -> bool {
    !is_batch(i) && i % 12 == 2
}

fn random_of(seed: u64, i: u64) -> Random {
    Random::new(seed.rotate_left(29) ^ i.wrapping_mul(0x9e37_79b9))
}

/// One of the collections that were created last; some are deleted, or never came to be.
fn recent(random: &mut Random, i: u64) -> CollectionId {
    let created: Vec<u64> = (0..i).rev().filter(|&i| is_creation(i)).take(3).collect();
    let chosen = created.get(random.below(3) as usize).or(created.first());
    CollectionId::new(chosen.map_or(1, |created| created + 2))
}

fn change(random: &mut Random, i: u64) -> CollectionChange {
    let item = EntityId::new(random.below(200));
    let change = match random.below(9) {
        0 => CollectionChange::rename(format!("list {i}")),
        1 => CollectionChange::set_visibility(VISIBILITIES[random.below(3) as usize]),
        2 | 3 => {
            let saved = Event::new("like", item, time_of(i)).user(random.below(30));
            let id = [b's', (i / 9) as u8];
            let saved = if random.one_in(3) { saved.id(&id) } else { saved };
            CollectionChange::add(item).with_signal(saved)
        }
        4 => CollectionChange::insert(item, random.below(40)),
        5 => CollectionChange::remove(item),
        6 => {
            let from = random.below(60);
            CollectionChange::move_range(from..from + random.below(50), random.below(60))
        }
        7 => {
            let first = random.below(50);
            CollectionChange::replace((first..first + random.below(170)).map(EntityId::new))
        }
        _ => CollectionChange::add(item),
    };
    if random.one_in(4) { change.expect_version(1 + random.below(4)) } else { change }
}

impl Collecting {
    /// Operation `i` of a seed, if it is one that creates a collection.
    pub(super) fn creation(seed: u64, i: u64) -> Option<Self> {
        is_creation(i).then(|| {
            let mut random = random_of(seed, i);
            let visibility = VISIBILITIES[random.below(3) as usize];
            Self::Create(random.below(4), format!("list {i}"), visibility)
        })
    }

    /// Operation `i` of a seed, where it is one on a collection that may be there.
    pub(super) fn change(seed: u64, i: u64) -> Self {
        let mut random = random_of(seed, i);
        let collection = recent(&mut random, i);
        if random.one_in(12) {
            return Self::Delete(collection);
        }
        Self::Change(collection, Box::new(change(&mut random, i)))
    }

    /// Does it; a refusal by the state is as good as an acceptance, and as much in the log.
    pub(super) fn perform(self, db: &TidalDb) -> Result<()> {
        let done = match self {
            Self::Create(owner, name, visibility) => {
                db.create_collection(owner, &name, visibility).map(drop)
            }
            Self::Delete(collection) => db.delete_collection(collection).map(drop),
            Self::Change(collection, change) => db.change_collection(collection, *change).map(drop),
        };
        match done {
            Err(
                Error::CollectionNotFound(_)
                | Error::StaleVersion { .. }
                | Error::PositionOutOfRange { .. }
                | Error::TooLarge { .. },
            ) => Ok(()),
            done => done,
        }
    }
}
