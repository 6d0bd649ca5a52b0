//! A whole engine in memory, its threads under every schedule that shuttle finds.
//!
//! Each run also watches the order in which locks are taken: gate, hidden items, list of columns,
//! column; of collections, rows before items; of answers, edges before trails. See `sync/order.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Batch, CollectionChange, Event, ReadOptions, RecommendOptions, Recommendations, TidalDb, View,
};
use crate::clock::ManualClock;
use crate::co_engagement::{Method, Similarity};
use crate::ids::{EntityId, Timestamp};
use crate::record::{EventFilter, Visibility};
use crate::schema::{DecaySpec, EntityKind, SchemaBuilder, Window};
use crate::seq::Seq;
use crate::sessions::SessionEvent;
use crate::sync::{AtomicU64, Ordering, explore, thread};

const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const SIGNALS: [&str; 2] = ["view", "like"];

fn items() -> [EntityId; 3] {
    [1, 2, 3].map(EntityId::new)
}

fn open() -> Arc<TidalDb> {
    open_under(&ManualClock::at(START))
}

fn open_under(clock: &ManualClock) -> Arc<TidalDb> {
    let mut schema = SchemaBuilder::new();
    for name in SIGNALS {
        let decay = DecaySpec::Exponential { half_life: Duration::from_secs(3_600) };
        let windows = [Window::OneHour, Window::AllTime];
        let _ = schema.signal(name, EntityKind::Item, decay).windows(&windows).engaging().add();
    }
    let builder = TidalDb::builder().ephemeral().with_clock(Arc::new(clock.clone()));
    Arc::new(builder.with_schema(schema.build().expect("sound")).open().expect("it opens"))
}

/// Counts every item once under both signals, in one frame.
fn count_all() -> Batch {
    let mut batch = Batch::new();
    for item in items() {
        for signal in SIGNALS {
            batch.push(Event::new(signal, item, START).user(1));
        }
    }
    batch
}

fn counts(db: &TidalDb, signal: &str) -> [u64; 3] {
    let mut counts = [0; 3];
    db.windowed_counts(&items(), signal, Window::AllTime, &ReadOptions::new(), &mut counts)
        .expect("the signal is declared");
    counts
}

fn counts_in(view: &View<'_>, signal: &str) -> [u64; 3] {
    let mut counts = [0; 3];
    view.windowed_counts(&items(), signal, Window::AllTime, &ReadOptions::new(), &mut counts)
        .expect("the signal is declared");
    counts
}

fn close(db: Arc<TidalDb>) {
    let db = Arc::into_inner(db).expect("its users have ended");
    db.close().expect("it closes");
}

#[test]
fn a_batch_read_sees_its_column_at_the_boundary_of_a_group() {
    explore(1_000, || {
        let db = open();
        let writing = Arc::clone(&db);
        let writer = thread::spawn(move || {
            let tickets = [(); 3].map(|()| writing.submit(count_all()).expect("it is taken"));
            tickets.into_iter().for_each(|ticket| {
                ticket.wait().expect("it is applied");
            });
        });
        let mut before = 0;
        for _ in 0..3 {
            let [first, ..] = counts(&db, "view");
            let counts = counts(&db, "view");
            assert!(counts.iter().all(|&count| count == counts[0]), "{counts:?}");
            assert!(counts[0] >= first && first >= before, "counts only grow");
            before = counts[0];
        }
        writer.join().expect("the writer ends well");
        assert_eq!(counts(&db, "like"), [3; 3]);
        close(db);
    });
}

#[test]
fn a_view_sees_all_columns_at_the_position_that_it_names() {
    explore(1_000, || {
        let db = open();
        let writing = Arc::clone(&db);
        let writer = thread::spawn(move || {
            [(); 2].map(|()| writing.write(count_all()).expect("it is applied").seq)
        });
        let views = [(); 2].map(|()| {
            db.consistent(|view| {
                let [views, likes] = SIGNALS.map(|signal| counts_in(view, signal));
                assert_eq!(views, likes, "at {}", view.seq());
                // A view within a view goes ahead of a writer that waits for the outer one.
                db.consistent(|inner| assert_eq!(inner.seq(), view.seq()));
                assert!(db.signal("view", items()[0], 1.0, START).is_err(), "it would wait");
                (view.seq(), views)
            })
        });
        let written = writer.join().expect("the writer ends well");
        for (seq, seen) in views {
            let frames = written.iter().filter(|&&written| written <= seq).count() as u64;
            assert_eq!(seen, [frames; 3], "at {seq}, where {written:?} were written");
        }
        close(db);
    });
}

#[test]
fn no_position_is_ever_ahead_of_one_that_it_follows() {
    explore(1_000, || {
        let db = open();
        let writing = Arc::clone(&db);
        let writer = thread::spawn(move || {
            let tickets = [(); 2].map(|()| writing.submit(count_all()).expect("it is taken"));
            for ticket in tickets {
                let seq = ticket.wait().expect("it is applied").seq;
                assert!(writing.applied() >= seq, "who is answered can read it");
            }
        });
        for _ in 0..6 {
            // Positions only grow: what is read later may be later, never earlier.
            let applied = db.positions.applied();
            let synced = db.positions.synced();
            let appended = db.positions.appended();
            assert!(applied <= synced, "all operations asked for a sync: {applied}, {synced}");
            assert!(synced <= appended, "{synced}, {appended}");
        }
        writer.join().expect("the writer ends well");
        close(db);
    });
}

#[test]
fn locks_are_taken_in_one_order_by_whatever_reads_and_writes() {
    explore(1_000, || {
        let db = open();
        let [one, two, three] = items();
        let writing = Arc::clone(&db);
        let writer = thread::spawn(move || {
            writing.write(count_all()).expect("it is applied");
            writing.hide_item(one).expect("it is applied");
            writing.delete_item(two).expect("it is applied");
            writing.show_item(one).expect("it is applied");
            writing.write(count_all()).expect("it is applied");
        });
        let auditing = Arc::clone(&db);
        let auditor = thread::spawn(move || {
            auditing.state_digest().expect("it is in memory");
            assert!(auditing.verify().expect("it is in memory").is_sound());
            let _ = auditing.status();
        });
        let options = ReadOptions::new();
        let hot = db.hot("view", 3, &options).expect("it is declared");
        assert!(hot.len() <= 3);
        db.consistent(|view| {
            let top = view.top("like", Window::OneHour, 3, &options).expect("it is declared");
            let is_hidden = view.is_hidden(one);
            assert!(!is_hidden || top.iter().all(|ranked| ranked.entity != one));
            drop(view.get_item_metadata(three));
            let asked = RecommendOptions::new().method(Method::Sessions).fill_with_hot("view");
            let answer = view.recommend(&[three], 3, &asked).expect("a signal is engaging");
            assert!(!is_hidden || answer.items.iter().all(|recommended| recommended.item != one));
            assert_eq!(answer, view.recommend(&[three], 3, &asked).expect("a signal is engaging"));
        });
        let near = db.co_engagement().neighbours(three, 3, Similarity::default());
        assert!(near.expect("a similarity").len() <= 2);
        let answer: Recommendations =
            db.for_user(1, 3, &RecommendOptions::new()).expect("a signal is engaging");
        assert!(answer.items.len() <= 3);
        writer.join().expect("the writer ends well");
        auditor.join().expect("the auditor ends well");
        close(db);
    });
}

#[test]
fn whoever_writes_while_a_database_ends_is_answered() {
    explore(1_000, || {
        let db = open();
        let writing = Arc::clone(&db);
        let writer = thread::spawn(move || {
            let ticket = writing.submit(count_all()).expect("it is taken");
            drop(writing);
            ticket.wait().expect("what was taken is applied, whoever closes").seq
        });
        let flushed = db.flush().expect("it is not closed");
        drop(db);
        let seq = writer.join().expect("the writer ends well");
        assert!(seq > Seq::ZERO && flushed > Seq::ZERO);
    });
}

#[test]
fn a_page_of_a_collection_has_the_items_of_the_version_that_it_names() {
    explore(1_000, || {
        let db = open();
        let list = db.create_collection(1, "list", Visibility::Public).expect("it is created");
        let writing = Arc::clone(&db);
        let writer = thread::spawn(move || {
            for item in items() {
                let saved = Event::new("like", item, START);
                let change = CollectionChange::insert(item, 0).with_signal(saved);
                writing.change_collection(list, change).expect("it is applied");
            }
        });
        for _ in 0..3 {
            let page = db.collection_items(list, None, 0, 9).expect("it is public");
            assert_eq!(page.version, 1 + page.items.len() as u64);
            assert_eq!(page.item_count, page.items.len() as u64);
            db.consistent(|view| {
                let page = view.collection_items(list, None, 0, 9).expect("it is public");
                let liked = counts_in(view, "like").iter().sum::<u64>();
                assert_eq!(liked, page.items.len() as u64, "both are at one position");
            });
        }
        writer.join().expect("the writer ends");
        close(db);
    });
}

#[test]
fn who_listens_hears_all_of_it_once_and_in_order_whoever_sweeps_and_then_the_end() {
    explore(1_000, || {
        let clock = ManualClock::at(START);
        let db = open_under(&clock);
        let events = db.sessions().subscribe(EventFilter::all()).expect("it is not closed");
        let listener = thread::spawn(move || {
            let patience = Duration::from_secs(3_600);
            std::iter::from_fn(|| events.recv_timeout(patience)).collect::<Vec<_>>()
        });
        let calls = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&calls);
        let count = move |_: Seq, _: &SessionEvent| {
            counting.fetch_add(1, Ordering::SeqCst);
        };
        let guard = db.sessions().add_subscriber(EventFilter::all(), count);
        let guard = guard.expect("it is not closed");
        let id = db.start_session(1, "agent", "default").expect("it starts").detach();
        // The sweeper's thread may be faster.
        clock.advance(Duration::from_secs(1_801));
        db.drive().expect("it is swept");
        drop(guard);
        close(db);
        let heard = listener.join().expect("the listener ends");
        let heard: Vec<_> = heard.into_iter().map(|(_, event)| event).collect();
        let end = match &heard[..] {
            [SessionEvent::Started { .. }, SessionEvent::Ended { end, .. }, _] => end.clone(),
            other => panic!("{other:?}"),
        };
        let expected = [
            SessionEvent::Started { id },
            SessionEvent::Ended { id, end },
            SessionEvent::Settled { id },
        ];
        assert_eq!(heard, expected);
        assert!(calls.load(Ordering::SeqCst) <= 3, "what was dropped is not heard");
    });
}
