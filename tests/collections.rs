//! Collections through the public calls: who sees what, what is refused with which words, what goes
//! with a change, and what a reopened database answers.

use std::sync::Arc;
use std::time::Duration;

use tidaldb::schema::{DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder, Timestamp, Window};
use tidaldb::{
    CollectionAck, CollectionChange, CollectionId, Durability, Error, ErrorKind, Event,
    ManualClock, Options, ReadOptions, Result, TidalDb, TimeSource, UserId, Visibility,
};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const DAY: Duration = Duration::from_secs(86_400);
const OWNER: Option<UserId> = Some(UserId::new(42));
const STRANGER: Option<UserId> = Some(UserId::new(7));

fn schema() -> Schema {
    let mut b = SchemaBuilder::new();
    let _ = b
        .signal("saved", EntityKind::Item, DecaySpec::Exponential { half_life: DAY })
        .windows(&[Window::OneHour, Window::AllTime])
        .add();
    b.cohort_family("country", 1);
    b.named_cohort("editors-picks");
    b.build().expect("a sound schema")
}

fn options() -> Options {
    let mut options = Options::default();
    // No mark comes between two looks at a position.
    options.mark_after = DAY;
    (options.collection_items_max, options.collections_per_owner_max) = (5, 3);
    options.collection_name_size_bytes_max = 20;
    options
}

fn item(number: u64) -> EntityId {
    EntityId::new(number)
}

fn items(numbers: impl IntoIterator<Item = u64>) -> Vec<EntityId> {
    numbers.into_iter().map(item).collect()
}

/// A database under a clock that stands still, with a private collection of three items.
struct Fixture {
    db: TidalDb,
    clock: ManualClock,
    list: CollectionId,
}

impl Fixture {
    fn new() -> Self {
        let clock = ManualClock::at(START);
        let db = TidalDb::builder()
            .ephemeral()
            .with_schema(schema())
            .with_options(options())
            .with_clock(Arc::new(clock.clone()))
            .open()
            .expect("opens");
        let list = db.create_collection(42, "for later", Visibility::Private).expect("created");
        for number in 1..=3 {
            db.add_to_collection(list, item(number)).expect("added");
        }
        Self { db, clock, list }
    }

    fn change(&self, change: CollectionChange) -> Result<CollectionAck> {
        self.db.change_collection(self.list, change)
    }

    fn all(&self) -> Vec<EntityId> {
        self.db.collection_items(self.list, OWNER, 0, 100).expect("its owner reads it").items
    }

    fn saved(&self, number: u64) -> u64 {
        let count = self.db.read_windowed_count(item(number), "saved", Window::AllTime);
        count.expect("read")
    }

    /// The error of a call that is refused before the log.
    fn invalid<T>(&self, call: impl FnOnce(&TidalDb) -> Result<T>, words: &[&str]) {
        let before = (self.db.state_digest().expect("digest"), self.db.applied());
        let Err(error) = call(&self.db) else { panic!("it was accepted") };
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let after = (self.db.state_digest().expect("digest"), self.db.applied());
        assert_eq!(after, before, "something was written in spite of: {error}");
        has_words(&error, words);
    }

    /// The error of a call that the state refuses: it is in the log, and changed nothing.
    fn refused<T>(&self, call: impl FnOnce(&TidalDb) -> Result<T>, words: &[&str]) -> Error {
        let before = (self.db.state_digest().expect("digest"), self.db.applied().next());
        let Err(error) = call(&self.db) else { panic!("it was accepted") };
        let after = (self.db.state_digest().expect("digest"), self.db.applied());
        assert_eq!(after, before, "something was changed in spite of: {error}");
        has_words(&error, words);
        error
    }
}

fn has_words(error: &Error, words: &[&str]) {
    let sentence = error.to_string();
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
}

#[test]
fn names_ranges_and_lists_that_need_no_state_to_be_refused_are_not_in_the_log() {
    let f = Fixture::new();
    let long = "x".repeat(21);
    f.invalid(|db| db.create_collection(42, "", Visibility::Public), &["name", "empty"]);
    f.invalid(|db| db.create_collection(42, &long, Visibility::Public), &["21 bytes", "20"]);
    f.invalid(|db| db.rename_collection(f.list, ""), &["name", "empty"]);
    f.invalid(|db| db.rename_collection(f.list, &long), &["21 bytes", "20"]);
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    f.invalid(
        |db| db.change_collection(f.list, CollectionChange::move_range(2..1, 0)),
        &["range", "ends before it begins"],
    );
    let twice = CollectionChange::replace(items([1, 2, 1]));
    f.invalid(|db| db.change_collection(f.list, twice), &["twice"]);
    let unknown = CollectionChange::add(item(9)).with_signal(Event::new("save", item(9), START));
    f.invalid(|db| db.change_collection(f.list, unknown), &["save", "did you mean saved"]);
    let heavy = Event::new("saved", item(9), START).weight(f64::NAN);
    let heavy = CollectionChange::add(item(9)).with_signal(heavy);
    f.invalid(|db| db.change_collection(f.list, heavy), &["weight", "NaN"]);
    let nameless = Event::new("saved", item(9), START).id(b"");
    let nameless = CollectionChange::add(item(9)).with_signal(nameless);
    f.invalid(|db| db.change_collection(f.list, nameless), &["event id"]);
    assert_eq!(f.all(), items([1, 2, 3]));
}

#[test]
fn a_collection_that_is_not_there_is_said_to_be_so_by_every_call() {
    let f = Fixture::new();
    let gone = CollectionId::new(999);
    type Write<'a> = &'a dyn Fn(&TidalDb) -> Result<()>;
    let writes: [Write<'_>; 5] = [
        &|db| db.delete_collection(gone).map(drop),
        &|db| db.rename_collection(gone, "x").map(drop),
        &|db| db.set_collection_visibility(gone, Visibility::Public).map(drop),
        &|db| db.add_to_collection(gone, item(1)).map(drop),
        &|db| db.remove_from_collection(gone, item(1)).map(drop),
    ];
    for write in writes {
        let error = f.refused(write, &["999", "list"]);
        assert!(matches!(error, Error::CollectionNotFound(id) if id == gone), "{error}");
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
    for viewer in [OWNER, STRANGER, None] {
        assert!(f.db.collection(gone, viewer).is_err());
        assert!(f.db.collection_items(gone, viewer, 0, 1).is_err());
        assert!(f.db.is_in_collection(gone, viewer, item(1)).is_err());
    }
    f.db.delete_collection(f.list).expect("deleted");
    f.refused(|db| db.delete_collection(f.list), &["no collection"]);
    assert_eq!(f.db.list_collections(42).expect("listed"), []);
}

#[test]
fn a_stale_version_is_refused_with_the_current_one() {
    let f = Fixture::new();
    let stale = CollectionChange::add(item(4)).expect_version(3);
    let error = f.refused(|db| db.change_collection(f.list, stale), &["version 4", "not 3"]);
    let Error::StaleVersion { current, expected: 3, collection } = error else {
        panic!("{error}");
    };
    assert_eq!((collection, error.kind()), (f.list, ErrorKind::Refused));
    let ack = f.change(CollectionChange::add(item(4)).expect_version(current)).expect("added");
    assert_eq!((ack.changed, ack.version, ack.item_count), (true, 5, 4));
    // A version is expected also where nothing would change.
    let stale = CollectionChange::add(item(4)).expect_version(current);
    f.refused(|db| db.change_collection(f.list, stale), &["version 5", "not 4"]);
}

#[test]
fn positions_beyond_the_end_are_refused_with_how_many_items_there_are() {
    let f = Fixture::new();
    let beyond = [
        (CollectionChange::insert(item(9), 4), 4),
        (CollectionChange::insert(item(9), u64::MAX), u64::MAX),
        (CollectionChange::move_range(2..4, 0), 4),
        (CollectionChange::move_range(0..2, 2), 4),
        (CollectionChange::move_range(4..4, 0), 4),
        (CollectionChange::move_range(0..u64::MAX, u64::MAX), u64::MAX),
    ];
    for (change, at) in beyond {
        let what = format!("{change:?}");
        let error =
            f.refused(|db| db.change_collection(f.list, change), &["beyond the end", "3 items"]);
        let is_it = matches!(
            error,
            Error::PositionOutOfRange { position, item_count: 3, .. } if position == at
        );
        assert!(is_it && error.kind() == ErrorKind::Refused, "{what}: {error}");
    }
    assert!(f.change(CollectionChange::insert(item(9), 3)).expect("the end").changed);
    assert_eq!(f.all(), items([1, 2, 3, 9]));
}

#[test]
fn limits_are_refused_with_the_limit() {
    let f = Fixture::new();
    let six = CollectionChange::replace(items(10..16));
    f.refused(|db| db.change_collection(f.list, six), &["6 items", "limit is 5"]);
    let five = CollectionChange::replace(items(10..15));
    assert_eq!(f.change(five).expect("it fits").item_count, 5);
    f.refused(|db| db.add_to_collection(f.list, item(1)), &["6 items", "limit is 5"]);
    let first = CollectionChange::insert(item(1), 0);
    f.refused(|db| db.change_collection(f.list, first), &["6 items", "limit is 5"]);
    assert!(!f.db.add_to_collection(f.list, item(10)).expect("it is there").changed);
    for _ in 0..2 {
        f.db.create_collection(42, "one more", Visibility::Public).expect("created");
    }
    let fourth = |db: &TidalDb| db.create_collection(42, "one more", Visibility::Public);
    f.refused(fourth, &["4 collections", "limit is 3"]);
    f.db.create_collection(43, "another user's", Visibility::Public).expect("created");
    f.db.delete_collection(f.list).expect("deleted");
    fourth(&f.db).expect("there is room again");
}

#[test]
fn what_changes_nothing_is_answered_and_keeps_the_version() {
    let f = Fixture::new();
    let saved = Event::new("saved", item(2), START);
    let nothing = [
        CollectionChange::add(item(2)),
        CollectionChange::insert(item(2), 0),
        CollectionChange::remove(item(9)),
        CollectionChange::move_range(1..3, 1),
        CollectionChange::move_range(1..1, 0),
        CollectionChange::replace(items([1, 2, 3])),
        CollectionChange::rename("for later"),
        CollectionChange::set_visibility(Visibility::Private),
    ];
    let before = f.db.state_digest().expect("digest");
    for change in nothing {
        let what = format!("{change:?}");
        let ack = f.change(change.with_signal(saved)).expect("answered");
        let found = (ack.changed, ack.version, ack.item_count, ack.duplicates);
        assert_eq!(found, (false, 4, 3, 0), "{what}");
    }
    assert_eq!(f.db.state_digest().expect("digest"), before);
    assert_eq!(f.saved(2), 0, "no signal counts where nothing changes");
}

#[test]
fn changes_do_what_they_say() {
    let f = Fixture::new();
    let mut version = 4;
    let mut then = |change, expected: &[u64]| {
        version += 1;
        let ack = f.change(change).expect("changed");
        assert_eq!((ack.changed, ack.version), (true, version));
        assert_eq!(f.all(), items(expected.iter().copied()));
    };
    then(CollectionChange::insert(item(4), 1), &[1, 4, 2, 3]);
    then(CollectionChange::move_range(0..2, 2), &[2, 3, 1, 4]);
    then(CollectionChange::move_range(3..4, 0), &[4, 2, 3, 1]);
    then(CollectionChange::remove(item(2)), &[4, 3, 1]);
    then(CollectionChange::replace(items([8, 9])), &[8, 9]);
    then(CollectionChange::add(item(7)).durability(Durability::Sync), &[8, 9, 7]);
    then(CollectionChange::replace([]), &[]);
    f.clock.advance(DAY);
    let ack = f.db.rename_collection(f.list, "seen").expect("renamed");
    let info = f.db.collection(f.list, OWNER).expect("its owner reads it");
    assert_eq!((info.name.as_str(), info.version), ("seen", ack.version));
    assert_eq!((info.created, info.changed), (START, START.saturating_add(DAY)));
}

#[test]
fn only_its_owner_sees_a_private_collection() {
    let f = Fixture::new();
    let reads = |viewer| {
        let info = f.db.collection(f.list, viewer).is_ok();
        let page = f.db.collection_items(f.list, viewer, 0, 9).is_ok();
        let member = f.db.is_in_collection(f.list, viewer, item(1)).is_ok();
        let listed = f.db.collections_of(42, viewer, None, 9).expect("listed").len() == 1;
        assert!(info == page && page == member, "{viewer:?}");
        (info, listed)
    };
    for (visibility, others) in [
        (Visibility::Private, (false, false)),
        (Visibility::Unlisted, (true, false)),
        (Visibility::Public, (true, true)),
    ] {
        f.db.set_collection_visibility(f.list, visibility).expect("set");
        assert_eq!(reads(OWNER), (true, true), "{visibility:?}");
        assert_eq!(reads(STRANGER), others, "{visibility:?}");
        assert_eq!(reads(None), others, "{visibility:?}");
        f.db.consistent(|view| {
            let seen = view.collection(f.list, STRANGER).is_ok();
            let listed = view.collections_of(42, STRANGER, None, 9).expect("listed").len() == 1;
            assert_eq!((seen, listed), others);
            assert!(view.is_in_collection(f.list, OWNER, item(3)).expect("read"));
            assert_eq!(view.collection_items(f.list, OWNER, 1, 1).expect("read").items, [item(2)]);
            assert_eq!(view.list_collections(42).expect("listed").len(), 1);
        });
    }
}

#[test]
fn lists_and_items_are_read_page_by_page() {
    let f = Fixture::new();
    let public = f.db.create_collection(42, "shared", Visibility::Public).expect("created");
    let first = f.db.collections_of(42, OWNER, None, 1).expect("listed");
    assert_eq!(first.iter().map(|info| info.id).collect::<Vec<_>>(), [f.list]);
    let second = f.db.collections_of(42, OWNER, Some(f.list), 1).expect("listed");
    assert_eq!(second.iter().map(|info| info.id).collect::<Vec<_>>(), [public]);
    assert_eq!(f.db.collections_of(42, OWNER, Some(public), 1).expect("listed"), []);

    let page = f.db.collection_items(f.list, OWNER, 0, 2).expect("read");
    assert_eq!((page.items, page.next, page.version), (items([1, 2]), Some(2), 4));
    let page = f.db.collection_items(f.list, OWNER, 2, 2).expect("read");
    assert_eq!((page.items, page.next, page.item_count), (items([3]), None, 3));
    let page = f.db.collection_items(f.list, OWNER, 50, 2).expect("read");
    assert_eq!((page.items, page.next), (items([]), None));
    let page = f.db.collection_items(f.list, OWNER, 1, 0).expect("read");
    assert_eq!((page.items, page.next), (items([]), Some(1)));
}

#[test]
fn a_signal_that_goes_with_a_change_counts_as_one_of_a_batch_does() {
    let f = Fixture::new();
    let country = [("country".to_owned(), "FR".to_owned())].into();
    f.db.write_user(42, &country).expect("written");
    let saved = |number, id| {
        let event = Event::new("saved", item(number), START).user(42).id(id);
        CollectionChange::add(item(number)).with_signal(event.cohort("editors-picks"))
    };
    assert_eq!(f.change(saved(4, b"one")).expect("added").duplicates, 0);
    for scope in ["country=FR", "editors-picks"] {
        let options = ReadOptions::new().cohort(scope);
        let count = f.db.windowed_count(item(4), "saved", Window::OneHour, &options);
        assert_eq!(count.expect("read"), 1, "{scope}");
    }
    let ack = f.change(saved(5, b"one")).expect("added");
    assert_eq!((ack.changed, ack.duplicates), (true, 1), "the id was seen with another change");
    assert_eq!((f.saved(4), f.saved(5)), (1, 0));
}

#[test]
fn a_change_whose_signal_is_refused_does_not_happen() {
    let f = Fixture::new();
    let with = |event| CollectionChange::add(item(4)).with_signal(event);
    let member = |country| Event::new("saved", item(4), START).cohort(country).id(b"once");
    f.db.write_user(1, &[("country".to_owned(), "FR".to_owned())].into()).expect("written");
    let full = with(member("country=DE"));
    f.refused(|db| db.change_collection(f.list, full), &["family", "2 members", "limit is 1"]);
    assert_eq!(f.all(), items([1, 2, 3]));
    let far = Event::new("saved", item(4), START.saturating_add(DAY));
    let before = f.db.applied();
    let error = f.change(with(far)).expect_err("it is far ahead");
    assert!(matches!(error, Error::TooFarAhead { .. }), "{error}");
    assert_eq!((f.db.applied(), f.all()), (before, items([1, 2, 3])), "it is not in the log");
    let ack = f.change(with(member("country=FR"))).expect("added");
    assert_eq!((ack.changed, ack.duplicates), (true, 0), "a refused event leaves no id behind");
    assert_eq!(f.saved(4), 1);
}

#[test]
fn where_events_advance_time_a_signal_does_so_only_with_its_change() {
    let db = TidalDb::builder()
        .ephemeral()
        .with_schema(schema())
        .with_options(options())
        .with_time_source(TimeSource::Events)
        .open()
        .expect("opens");
    db.signal("saved", item(1), 1.0, START).expect("counted");
    let list = db.create_collection(42, "log", Visibility::Private).expect("created");
    let at = |days: u32| START.saturating_add(DAY * days);
    let add = |days| {
        let saved = Event::new("saved", item(2), at(days));
        db.change_collection(list, CollectionChange::add(item(2)).with_signal(saved))
    };
    assert!(add(1).expect("added").changed);
    assert_eq!(db.engine_time(), at(1));
    let info = db.collection(list, OWNER).expect("its owner reads it");
    assert_eq!((info.created, info.changed), (START, at(1)));
    assert!(!add(20).expect("it is there").changed);
    assert_eq!(db.engine_time(), at(1), "what did not count does not carry time along");
    add(50).expect_err("it is more than a month ahead");
}

#[test]
fn a_limit_that_is_lowered_changes_nothing_that_was_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = |items_max: usize| {
        let mut options = options();
        options.collection_items_max = items_max;
        let builder = TidalDb::builder().with_data_dir(dir.path()).with_options(options);
        builder.with_schema(schema()).open().expect("opens")
    };
    let db = open(5);
    let list = db.create_collection(42, "long", Visibility::Public).expect("created");
    let change = CollectionChange::replace(items(0..5));
    db.change_collection(list, change).expect("it fits");
    let digest = db.state_digest().expect("digest");
    drop(db);
    // Nothing is checkpointed: the record is replayed under the lower limit.
    let db = open(2);
    assert_eq!(db.state_digest().expect("digest"), digest);
    db.add_to_collection(list, item(9)).expect_err("there is no room");
    db.remove_from_collection(list, item(0)).expect("removed");
    assert_eq!(db.collection(list, None).expect("public").item_count, 4);
}

#[test]
fn an_item_that_is_deleted_or_hidden_stays_where_it_was_put() {
    let f = Fixture::new();
    f.db.delete_item(item(1)).expect("deleted");
    f.db.hide_item(item(2)).expect("hidden");
    assert_eq!(f.all(), items([1, 2, 3]));
}

#[test]
fn an_id_is_never_given_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        let builder = TidalDb::builder().with_data_dir(dir.path()).with_options(options());
        builder.with_schema(schema()).open().expect("opens")
    };
    let mut ids = Vec::new();
    for close in [false, true, false, true] {
        let db = open();
        let id = db.create_collection(1, "short-lived", Visibility::Public).expect("created");
        db.delete_collection(id).expect("deleted");
        ids.push(id);
        if close {
            db.close().expect("closes");
        }
    }
    assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
}
