//! Who is told of sessions: in order, of what is committed, and of all of it.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tidal_support::random::Random;
use tidal_support::sessions::Ended;
use tidal_support::sim::{Op, Survives};
use tidaldb::{
    DeliveredEvent, EventFilter, EventKind, EventStream, SessionEvent, SessionFilter, SessionId,
    SessionInfo, SessionState,
};

use crate::actor::{Actor, OS, Scene, end_of, ended};
use crate::script::{ALL, Also, HOUR, MINUTE, Step, for_all, script};

/// The sessions that have ended, as whoever works through them asks for them.
pub(crate) fn ended_sessions(actor: &Actor) -> Vec<SessionInfo> {
    let all = actor.db().sessions().list(&SessionFilter::default()).expect("listed");
    all.into_iter().filter(|info| end_of(info).is_some()).collect()
}

/// Whoever works through the ended sessions says so once, before.
pub(crate) fn register(actor: &Actor, name: &str) {
    let filter = EventFilter::all().kinds([EventKind::Ended]);
    drop(actor.db().sessions().cursor(name, filter).expect("registered"));
}

/// What such a one is told, all at once.
pub(crate) fn ends_of(actor: &Actor, name: &str) -> Vec<(u64, Ended)> {
    let filter = EventFilter::all().kinds([EventKind::Ended]);
    let mut cursor = actor.db().sessions().cursor(name, filter).expect("it is there");
    let told = cursor.next_batch(1_000).expect("read");
    let end = |told: DeliveredEvent| match told.event {
        SessionEvent::Ended { id, end } => (id.as_u64(), ended(&end)),
        other => panic!("the filter lets {other:?} through"),
    };
    told.into_iter().map(end).collect()
}

fn drain(stream: &EventStream) -> Vec<(u64, SessionEvent)> {
    std::iter::from_fn(|| stream.try_recv()).map(|(seq, event)| (seq.get(), event)).collect()
}

/// What was told so far of each session must fit what is told now.
#[derive(Default)]
struct Heard {
    last_seq: u64,
    started: Vec<SessionId>,
    ended: Vec<SessionId>,
}

impl Heard {
    fn hear(&mut self, actor: &Actor, seq: u64, event: &SessionEvent) {
        assert!(seq >= self.last_seq, "{event:?} of {seq} after {}", self.last_seq);
        assert!(seq <= actor.db().applied().get(), "{event:?} of a frame that is not applied");
        self.last_seq = seq;
        match event {
            SessionEvent::Started { id } => {
                assert!(!self.started.contains(id), "{id} starts twice");
                actor.info(id.as_u64());
                self.started.push(*id);
            }
            SessionEvent::Resumed { id } => {
                assert!(self.started.contains(id) && !self.ended.contains(id), "{id} is resumed");
            }
            SessionEvent::Ended { id, end } => {
                assert!(self.started.contains(id) && !self.ended.contains(id), "{id} ends");
                assert_eq!(end_of(&actor.info(id.as_u64())), Some(end));
                self.ended.push(*id);
            }
            SessionEvent::Settled { id } => {
                assert!(self.ended.contains(id), "{id} settles before it has ended");
                assert!(matches!(actor.info(id.as_u64()).state, SessionState::Settled(_)));
            }
            other => panic!("nothing here leads to {other:?}"),
        }
    }
}

#[test]
fn no_event_before_commit_and_in_order() {
    for_all(40, script(Also { crashes: false, ..ALL }, 60), |script| {
        let mut actor = Actor::new(Scene::default());
        let stream = actor.db().sessions().subscribe(EventFilter::all()).expect("subscribed");
        let mut heard = Heard::default();
        for step in &script {
            actor.step(step);
            for (seq, event) in drain(&stream) {
                heard.hear(&actor, seq, &event);
            }
            // A start is told by when it returns; an end by when somebody has noticed it.
            assert_eq!(heard.started.len(), actor.ids.len(), "{step:?}");
        }
        actor.step(&Step::Sweep);
        for (seq, event) in drain(&stream) {
            heard.hear(&actor, seq, &event);
        }
        assert_eq!(heard.ended.len(), ended_sessions(&actor).len(), "every end is told");
    });
}

#[test]
fn nobody_is_told_of_a_start_that_is_not_durable() {
    let mut actor = Actor::new(Scene::default());
    let stream = actor.db().sessions().subscribe(EventFilter::all()).expect("subscribed");
    actor.disk.fail_next(Op::Sync, ErrorKind::Other);
    let failed = actor.db().start_session(1, "agent", "default");
    assert!(actor.disk.has_failed() && failed.is_err(), "{failed:?}");
    assert_eq!(stream.recv_timeout(Duration::from_millis(50)), None);
    actor.held.clear();
}

#[test]
fn subscriber_failure_is_contained() {
    let mut actor = Actor::new(Scene::default());
    let sessions = actor.db().sessions();
    let calls = Arc::new(AtomicU64::new(0));
    let panics = Arc::clone(&calls);
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let slow = Duration::from_millis(1);
    let guards = (
        sessions.add_subscriber(EventFilter::all(), move |_, _: &SessionEvent| {
            panics.fetch_add(1, Ordering::SeqCst);
            panic!("as it is meant to");
        }),
        sessions.add_subscriber(EventFilter::all(), move |_, _: &SessionEvent| {
            let _ = blocked.lock().expect("alone").recv();
        }),
        sessions.add_subscriber(EventFilter::all(), move |_, _: &SessionEvent| {
            std::thread::sleep(slow);
        }),
    );
    assert!(guards.0.is_ok() && guards.1.is_ok() && guards.2.is_ok());
    let stream = sessions.subscribe(EventFilter::all()).expect("subscribed");
    let started = 40;
    for user in 0..started {
        actor.start(user, 1, 0, false).answer.expect("nobody holds it up");
        actor.pass(MINUTE);
    }
    let heard = drain(&stream);
    let starts = heard.iter().filter(|(_, event)| matches!(event, SessionEvent::Started { .. }));
    assert_eq!(starts.count() as u64, started);
    // As long as a busy machine may need.
    for _ in 0..4_000 {
        if calls.load(Ordering::SeqCst) >= started {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(calls.load(Ordering::SeqCst) >= started, "it is called again after it panicked");
    drop(release);
    drop(guards);
    actor.db().health_check().expect("healthy");
}

/// One that works through events and is killed now and then.
#[derive(Default)]
struct Reader {
    /// Everything that was handed out, in order.
    told: Vec<DeliveredEvent>,
    acknowledged: u64,
}

impl Reader {
    fn filter() -> EventFilter {
        EventFilter::all().kinds([EventKind::Started, EventKind::Ended, EventKind::Settled])
    }

    /// Reads some, from where it had got to, and is done with some of them.
    fn read(&mut self, actor: &Actor, random: &mut Random) {
        let sessions = actor.db().sessions();
        let mut cursor = sessions.cursor("reader", Self::filter()).expect("it is there");
        let mut last = self.acknowledged;
        for event in cursor.next_batch(random.below(6) as usize).expect("read") {
            assert!(event.number > last, "{event:?} comes after {last}");
            last = event.number;
            let before = self.told.iter().find(|before| before.number == event.number);
            assert!(before.is_none_or(|before| *before == event), "{event:?} was {before:?}");
            let newest = self.told.iter().map(|told| told.number).max().unwrap_or(0);
            if event.number > newest {
                self.told.push(event);
            }
        }
        if last > self.acknowledged && random.one_in(2) {
            cursor.ack(last).expect("acknowledged");
            self.acknowledged = last;
        }
    }
}

#[test]
fn durable_cursor_never_skips() {
    // Whatever the power takes away was not handed out.
    let survival = proptest::prelude::any::<u64>();
    for_all(40, (script(Also { set_backs: false, ..ALL }, 60), survival), |(script, seed)| {
        let mut random = Random::new(seed);
        let mut actor = Actor::new(Scene { durability: OS, ..Scene::default() });
        drop(actor.db().sessions().cursor("reader", Reader::filter()).expect("registered"));
        let mut reader = Reader::default();
        for step in &script {
            let step = match step {
                Step::Crash(crash) => {
                    let survives = tidal_support::contract::any_survival(&mut random);
                    Step::Crash(crate::script::Crash { survives, ..*crash })
                }
                other => other.clone(),
            };
            actor.step(&step);
            actor.forget_lost();
            reader.read(&actor, &mut random);
        }
        actor.pass(20 * HOUR);
        actor.step(&Step::Sweep);
        actor.db().flush().expect("flushed");
        for _ in 0..1_000 {
            reader.read(&actor, &mut random);
        }
        let count = |is: fn(&SessionEvent) -> bool| {
            reader.told.iter().filter(|told| is(&told.event)).count()
        };
        let sessions = actor.ids.len();
        assert_eq!(count(|event| matches!(event, SessionEvent::Started { .. })), sessions);
        assert_eq!(count(|event| matches!(event, SessionEvent::Ended { .. })), sessions);
        for told in &reader.told {
            if let SessionEvent::Ended { id, end } = &told.event {
                assert_eq!(end_of(&actor.info(id.as_u64())), Some(end));
            }
        }
    });
}

#[test]
fn what_a_cursor_was_handed_survives_a_power_cut() {
    let mut actor = Actor::new(Scene { durability: OS, ..Scene::default() });
    register(&actor, "careful");
    actor.start(1, 1, 1, false);
    actor.pass(HOUR);
    actor.step(&Step::Sweep);
    let told = ends_of(&actor, "careful");
    let at_open = tidal_support::sessions::AtOpen::RestoreThenExpire;
    actor.crash(crate::script::Crash { survives: Survives::Nothing, at_open, down: 0 });
    let again = ends_of(&actor, "careful");
    assert!(again.starts_with(&told), "{told:?} {again:?}");
    assert_eq!(again.len(), 1, "whoever noticed it, it is told once");
}
