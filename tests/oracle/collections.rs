//! Collections: operations on them, and what these mean, by plain vectors.
//!
//! Knows: how each is said in public calls, and what it may answer. Shares no code with the engine.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidaldb::schema::EntityId;
use tidaldb::{CollectionAck, CollectionChange, CollectionId, TidalDb, UserId, Visibility};

use crate::operation::{Answer, Signal};

/// Collections that an owner has room for.
pub(crate) const OWNED_MAX: usize = 3;
/// Items that a collection has room for.
pub(crate) const ITEMS_MAX: usize = 7;
/// Owners are numbered below this.
const OWNERS: u64 = 3;
/// Items are numbered below this: more than a collection has room for.
const ITEMS: u64 = 9;

const VISIBILITIES: [Visibility; 3] =
    [Visibility::Private, Visibility::Unlisted, Visibility::Public];

/// An operation on collections.
#[derive(Debug, Clone)]
pub(crate) enum Collecting {
    Create {
        owner: u64,
        visibility: usize,
    },
    /// Of the collections that there are, one; or none that is.
    Delete(usize),
    Change {
        of: usize,
        what: What,
        expected: Option<i64>,
        signals: Vec<Signal>,
    },
}

/// A change.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Rename(u8),
    SetVisibility(usize),
    Add(u64),
    Insert(u64, u64),
    Remove(u64),
    Move(u64, u64, u64),
    Replace(Vec<u64>),
}

/// What an operation is about, once it is known what there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    pub(crate) collection: CollectionId,
    expected_version: Option<u64>,
}

fn name(name: u8) -> String {
    format!("list {name}")
}

impl Collecting {
    /// Does it, and waits for the answer.
    pub(crate) fn perform(
        &self,
        db: &TidalDb,
        aim: Aim,
        base: tidaldb::schema::Timestamp,
    ) -> tidaldb::Result<Answer> {
        match self {
            Self::Create { owner, visibility } => db
                .create_collection(*owner, "new", VISIBILITIES[*visibility])
                .map(|id| Answer::Created(id.get())),
            Self::Delete(_) => db
                .delete_collection(aim.collection)
                .map(|ack| Answer::Applied { duplicates: ack.duplicates }),
            Self::Change { what, signals, .. } => {
                let mut change = what.change();
                if let Some(version) = aim.expected_version {
                    change = change.expect_version(version);
                }
                for signal in signals {
                    let id = [signal.id.unwrap_or_default()];
                    change = change.with_signal(signal.event(base, &id));
                }
                db.change_collection(aim.collection, change).map(|ack| {
                    let CollectionAck { changed, version, item_count, duplicates, .. } = ack;
                    Answer::Changed { changed, version, item_count, duplicates }
                })
            }
        }
    }
}

impl What {
    fn change(&self) -> CollectionChange {
        match self {
            Self::Rename(to) => CollectionChange::rename(name(*to)),
            Self::SetVisibility(to) => CollectionChange::set_visibility(VISIBILITIES[*to]),
            Self::Add(item) => CollectionChange::add(EntityId::new(*item)),
            Self::Insert(item, at) => CollectionChange::insert(EntityId::new(*item), *at),
            Self::Remove(item) => CollectionChange::remove(EntityId::new(*item)),
            Self::Move(from, count, to) => CollectionChange::move_range(*from..from + count, *to),
            Self::Replace(items) => {
                CollectionChange::replace(items.iter().map(|&item| EntityId::new(item)))
            }
        }
    }
}

/// A collection, as plainly as it can be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plain {
    owner: u64,
    name: String,
    visibility: usize,
    version: u64,
    items: Vec<u64>,
}

/// All collections by their numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collections(BTreeMap<u64, Plain>);

impl Collections {
    /// What an operation is about.
    pub(crate) fn aim(&self, collecting: &Collecting) -> Aim {
        let (of, expected) = match collecting {
            Collecting::Create { .. } => (usize::MAX, None),
            Collecting::Delete(of) => (*of, None),
            Collecting::Change { of, expected, .. } => (*of, *expected),
        };
        let there = self.0.iter().nth(of);
        let collection = CollectionId::new(there.map_or(u64::MAX, |(&id, _)| id));
        let version = there.map_or(1, |(_, plain)| plain.version);
        let expected_version = expected.map(|by| version.saturating_add_signed(by));
        Aim { collection, expected_version }
    }

    /// One comes to be, as the operation of this number.
    pub(crate) fn create(&mut self, operation: u64, owner: u64, visibility: usize) -> Answer {
        if self.0.values().filter(|plain| plain.owner == owner).count() == OWNED_MAX {
            return Answer::TooLarge;
        }
        let plain = Plain { owner, name: "new".to_owned(), visibility, version: 1, items: vec![] };
        self.0.insert(operation, plain);
        Answer::Created(operation)
    }

    /// One goes.
    pub(crate) fn delete(&mut self, aim: Aim) -> Answer {
        match self.0.remove(&aim.collection.get()) {
            Some(_) => Answer::Applied { duplicates: 0 },
            None => Answer::NotFound,
        }
    }

    /// What a change would make of a collection, if it is not refused; and whether that is anything
    /// new.
    pub(crate) fn changed(&self, aim: Aim, what: &What) -> Result<Changed, Answer> {
        let Some(before) = self.0.get(&aim.collection.get()) else {
            return Err(Answer::NotFound);
        };
        if aim.expected_version.is_some_and(|version| version != before.version) {
            return Err(Answer::Stale { current: before.version });
        }
        let mut after = before.clone();
        after.change(what)?;
        let is_new = after != *before;
        after.version += u64::from(is_new);
        Ok(Changed { id: aim.collection.get(), after, is_new })
    }

    /// Makes it so.
    pub(crate) fn carry_out(&mut self, changed: Changed, duplicates: u32) -> Answer {
        let Changed { id, after, is_new } = changed;
        let (version, item_count) = (after.version, after.items.len() as u64);
        self.0.insert(id, after);
        Answer::Changed { changed: is_new, version, item_count, duplicates }
    }

    /// Compares a database with the vectors.
    pub(crate) fn check(&self, db: &TidalDb, what: &str) {
        for owner in 0..OWNERS {
            let of_owner = || self.0.iter().filter(|(_, plain)| plain.owner == owner);
            let own: Vec<u64> = of_owner().map(|(&id, _)| id).collect();
            let listed = db.list_collections(owner).expect("listed");
            let ids: Vec<u64> = listed.iter().map(|info| info.id.get()).collect();
            assert_eq!(ids, own, "the collections of {owner}: {what}");
            let public = of_owner().filter(|(_, plain)| plain.visibility == 2);
            let public: Vec<u64> = public.map(|(&id, _)| id).collect();
            let stranger = Some(UserId::new(owner + 1));
            let seen = db.collections_of(owner, stranger, None, 99).expect("listed");
            let seen: Vec<u64> = seen.iter().map(|info| info.id.get()).collect();
            assert_eq!(seen, public, "what a stranger sees of {owner}: {what}");
        }
        for (&id, plain) in &self.0 {
            let id = CollectionId::new(id);
            plain.check(db, id, what);
        }
    }
}

/// What a change makes of a collection.
#[derive(Debug)]
pub(crate) struct Changed {
    id: u64,
    after: Plain,
    /// Whether that is anything new.
    pub(crate) is_new: bool,
}

impl Plain {
    fn change(&mut self, what: &What) -> Result<(), Answer> {
        let len = self.items.len();
        let out_of_range = Err(Answer::OutOfRange { item_count: len as u64 });
        match what {
            What::Rename(to) => self.name = name(*to),
            What::SetVisibility(to) => self.visibility = *to,
            What::Add(item) | What::Insert(item, _) if self.items.contains(item) => {}
            What::Insert(_, at) if *at as usize > len => return out_of_range,
            What::Add(_) | What::Insert(..) if len == ITEMS_MAX => return Err(Answer::TooLarge),
            What::Add(item) => self.items.push(*item),
            What::Insert(item, at) => self.items.insert(*at as usize, *item),
            What::Remove(item) => self.items.retain(|other| other != item),
            What::Move(from, count, to) => {
                let [from, count, to] = [*from, *count, *to].map(|number| number as usize);
                if from.max(to) + count > len {
                    return out_of_range;
                }
                let moved: Vec<u64> = self.items.drain(from..from + count).collect();
                self.items.splice(to..to, moved);
            }
            What::Replace(items) if items.len() > ITEMS_MAX => return Err(Answer::TooLarge),
            What::Replace(items) => self.items.clone_from(items),
        }
        Ok(())
    }

    fn check(&self, db: &TidalDb, id: CollectionId, what: &str) {
        let owner = Some(UserId::new(self.owner));
        let info = db.collection(id, owner).expect("its owner reads it");
        let found = (info.name, info.visibility, info.version, info.item_count);
        let (visibility, len) = (VISIBILITIES[self.visibility], self.items.len() as u64);
        assert_eq!(found, (self.name.clone(), visibility, self.version, len), "{id}: {what}");
        let page = db.collection_items(id, owner, 0, 99).expect("its owner reads it");
        let items: Vec<u64> = page.items.iter().map(|item| item.get()).collect();
        assert_eq!((&items, page.version), (&self.items, self.version), "items of {id}: {what}");
        for item in 0..ITEMS {
            let has = db.is_in_collection(id, owner, EntityId::new(item)).expect("read");
            assert_eq!(has, self.items.contains(&item), "{item} in {id}: {what}");
        }
        let seen = db.collection(id, None).is_ok();
        assert_eq!(seen, self.visibility > 0, "whether anyone reads {id}: {what}");
    }
}

fn what() -> impl Strategy<Value = What> {
    let at = || 0..9u64;
    prop_oneof![
        1 => (0..3u8).prop_map(What::Rename),
        1 => (0..3usize).prop_map(What::SetVisibility),
        5 => (0..ITEMS).prop_map(What::Add),
        3 => (0..ITEMS, at()).prop_map(|(item, at)| What::Insert(item, at)),
        2 => (0..ITEMS).prop_map(What::Remove),
        2 => (at(), 0..4u64, at()).prop_map(|(from, count, to)| What::Move(from, count, to)),
        1 => Just((0..ITEMS).collect::<Vec<u64>>())
            .prop_shuffle()
            .prop_flat_map(|items| (0..=items.len()).prop_map(move |len| items[..len].to_vec()))
            .prop_map(What::Replace),
    ]
}

/// Operations on collections.
pub(crate) fn collecting(
    signal: impl Strategy<Value = Signal>,
) -> impl Strategy<Value = Collecting> {
    let of = || 0..3usize;
    let expected = proptest::option::weighted(0.3, prop_oneof![3 => Just(0), 1 => -2..3i64]);
    let signals = proptest::collection::vec(signal, 0..3);
    prop_oneof![
        3 => (0..OWNERS, 0..3usize)
            .prop_map(|(owner, visibility)| Collecting::Create { owner, visibility }),
        1 => (0..5usize).prop_map(Collecting::Delete),
        8 => (of(), what(), expected, signals).prop_map(|(of, what, expected, signals)| {
            Collecting::Change { of, what, expected, signals }
        }),
    ]
}
