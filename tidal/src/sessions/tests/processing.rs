//! Sessions that somebody processes: whom they wait for, how they fail, and that nobody's looking matters.

use super::*;
use crate::ids::ProcessorId;
use crate::sessions::{Awaited, FailCause, Processed, Selection, SessionStateKind, Standing};

const USAGE: ProcessorId = ProcessorId::new(1);
const CLAIMS: ProcessorId = ProcessorId::new(2);

fn awaited(processor: ProcessorId, (registered_op, at): (u64, u64), is_required: bool) -> Awaited {
    Awaited { processor, version: 1, is_required, registered_op, registered_at: secs(at) }
}

fn reset() -> FailCause {
    FailCause::Reset { by: "me".to_owned(), reason: "a test".to_owned() }
}

impl World {
    /// Sessions wait for these from here on.
    fn require(&mut self, processors: &[ProcessorId]) -> &mut Self {
        self.register(processors, &[])
    }

    /// These are the processors from here on, and sessions wait for the first ones.
    fn register(&mut self, required: &[ProcessorId], others: &[ProcessorId]) -> &mut Self {
        let at = (self.operations + 1, self.now);
        let required = required.iter().map(|&it| awaited(it, at, true));
        let list = required.chain(others.iter().map(|&it| awaited(it, at, false))).collect();
        self.change(true, |change| {
            change.let_all_leave();
            change.set_awaited(list);
        });
        self
    }

    fn head(&self, id: SessionId) -> u64 {
        let now = secs(self.now);
        self.sessions.find(id, &self.schema, self.incarnation, now).expect("it is hot").head
    }

    fn processed_at(&mut self, id: SessionId, processor: ProcessorId, head: u64) {
        let processed = Processed { processor, head, version: 1, given_up: false };
        self.change(true, |change| change.processed(id, processed));
    }

    fn processed(&mut self, id: SessionId, processor: ProcessorId) {
        let head = self.head(id);
        self.processed_at(id, processor, head);
    }

    fn fail(&mut self, id: SessionId) -> bool {
        self.change(true, |change| change.fail(id, reset()))
    }

    fn requeue(&mut self, id: SessionId) -> bool {
        self.change(true, |change| change.requeue(id))
    }

    fn waiting(&self, processor: ProcessorId) -> Vec<SessionId> {
        self.sessions.wanted_by(processor, usize::MAX, |_| true)
    }

    fn standing(&self, id: SessionId) -> Standing {
        self.sessions.standing(id, &self.schema, secs(self.now))
    }

    fn settled(&self) -> Vec<SessionId> {
        let of = |event: &SessionEvent| match *event {
            SessionEvent::Settled { id } => Some(id),
            _ => None,
        };
        self.happened.iter().filter_map(|happened| of(&happened.event)).collect()
    }
}

#[test]
fn a_session_settles_once_all_that_are_required_of_it_are_done_with_it() {
    let mut world = World::new();
    world.require(&[USAGE, CLAIMS]);
    let held = world.begin(1);
    assert_eq!(world.standing(held.id), Standing::Open);
    world.view(held, START, 0).expect("it is open");
    world.later(5).close(held).expect("it is open");
    assert_eq!((world.waiting(USAGE), world.waiting(CLAIMS)), (vec![held.id], vec![held.id]));
    world.processed(held.id, USAGE);
    assert!(world.is_hot(held.id) && world.settled().is_empty());
    assert_eq!((world.waiting(USAGE), world.waiting(CLAIMS)), (vec![], vec![held.id]));
    assert!(matches!(world.state(held.id), SessionState::Ended(_)));
    world.processed(held.id, CLAIMS);
    assert!(!world.is_hot(held.id));
    assert_eq!((world.settled(), world.waiting(CLAIMS)), (vec![held.id], vec![]));
    assert!(matches!(world.state(held.id), SessionState::Settled(_)));
    assert_eq!(world.standing(held.id), Standing::Away);
}

#[test]
fn nothing_is_due_by_time_about_a_session_that_waits_for_processors() {
    let mut world = World::new();
    world.require(&[USAGE]);
    let held = world.begin(2);
    world.later(5).close(held).expect("it is open");
    let first = world.sessions.first_due(secs(world.operation_time));
    assert_eq!(first, Some(secs(world.now + GRACE)), "its grace ends");
    let before = world.canonical();
    world.later(GRACE).sweep();
    assert_eq!(world.sessions.first_due(secs(world.operation_time)), None);
    assert_eq!((world.canonical(), world.waiting(USAGE)), (before, vec![held.id]));
    assert!(matches!(world.late(held.id), Err(Error::TooLate { by_ms: 0, .. })));
    world.processed(held.id, USAGE);
    assert!(!world.is_hot(held.id));
}

#[test]
fn a_session_waits_for_those_alone_that_were_there_before_it_was_over() {
    let mut world = World::new();
    let before = world.begin(2);
    world.later(5).close(before).expect("it is open");
    let open = world.begin(2);
    // Registered at the moment of an end is not before it.
    world.require(&[USAGE]);
    world.later(1).close(open).expect("it is open");
    let after = world.begin(2);
    world.close(after).expect("it is open");
    assert_eq!(world.waiting(USAGE), [before.id, open.id, after.id], "it may see all of them");
    world.later(GRACE).sweep();
    assert_eq!(world.settled(), [before.id]);
    world.start("web", 1, Conflict::Reject).expect("a start");
    for id in [before.id, open.id, after.id] {
        assert!(world.is_hot(id));
        world.processed(id, USAGE);
        assert!(!world.is_hot(id));
    }
}

#[test]
fn a_late_record_is_to_be_seen_too_and_a_commit_of_before_it_is_not_enough() {
    let mut world = World::new();
    world.require(&[USAGE]);
    let held = world.begin(2);
    world.close(held).expect("it is open");
    let head = world.head(held.id);
    world.processed(held.id, USAGE);
    assert_eq!(world.waiting(USAGE), []);
    world.late(held.id).expect("within its grace");
    assert_eq!(world.waiting(USAGE), [held.id]);
    world.processed_at(held.id, USAGE, head);
    world.later(GRACE).sweep();
    assert_eq!((world.waiting(USAGE), world.is_hot(held.id)), (vec![held.id], true));
    world.processed(held.id, USAGE);
    assert!(!world.is_hot(held.id));
}

#[test]
fn a_session_settles_without_those_who_are_not_required_and_stays_until_they_have_seen_it() {
    for gives_up in [false, true] {
        let mut world = World::new();
        world.register(&[USAGE], &[CLAIMS]);
        let held = world.begin(1);
        world.later(5).close(held).expect("it is open");
        let id = held.id;
        world.processed(id, USAGE);
        assert_eq!((world.settled(), world.standing(id)), (vec![id], Standing::Away));
        assert_eq!((world.waiting(CLAIMS), world.is_hot(id)), (vec![id], true));
        world.later(MAX).sweep();
        world.start("web", 1, Conflict::Reject).expect("an operation");
        assert_eq!((world.waiting(CLAIMS), world.is_hot(id)), (vec![id], true));
        assert!(matches!(world.late(id), Err(Error::TooLate { .. })) && !world.fail(id));
        let (processor, head) = (CLAIMS, world.head(id));
        let seen = Processed { processor, head, version: 1, given_up: gives_up };
        world.change(true, |change| change.processed(id, seen));
        assert_eq!((world.waiting(CLAIMS), world.is_hot(id)), (vec![], false));
        assert_eq!(world.settled(), [id], "once");
    }
}

#[test]
fn what_was_given_up_is_wanted_again_when_it_is_taken_up_or_by_another_version() {
    let mut world = World::new();
    world.register(&[USAGE], &[CLAIMS]);
    let held = world.begin(1);
    world.close(held).expect("it is open");
    let gives_up = Processed { processor: CLAIMS, head: 0, version: 1, given_up: true };
    world.change(true, |change| change.processed(held.id, gives_up));
    assert_eq!(world.waiting(CLAIMS), []);
    world.change(true, |change| change.take_up(held.id));
    assert_eq!(world.waiting(CLAIMS), [held.id]);
    world.change(true, |change| change.processed(held.id, gives_up));
    let of = |it: Awaited| Awaited { version: 2, ..it };
    let list = world.sessions.awaited().into_iter().map(of).collect();
    world.change(true, |change| change.set_awaited(list));
    assert_eq!((world.waiting(CLAIMS), world.waiting(USAGE)), (vec![held.id], vec![held.id]));
}

#[test]
fn what_has_left_is_not_wanted_by_whoever_comes_later_whether_or_not_anyone_noticed() {
    let mut worlds = [World::new(), World::new()];
    for (world, is_swept) in worlds.iter_mut().zip([false, true]) {
        let held = world.begin(2);
        world.later(IDLE + 1 + GRACE);
        world.start("web", 1, Conflict::Reject).expect("an operation after its grace");
        if is_swept {
            world.sweep();
        }
        world.later(1).register(&[], &[CLAIMS]);
        assert_eq!((world.waiting(CLAIMS), world.is_hot(held.id)), (vec![], false));
    }
    assert_eq!(worlds[0].canonical(), worlds[1].canonical());
}

#[test]
fn what_has_settled_and_is_wanted_stays_settled_when_the_clock_is_set_back() {
    let mut worlds = [World::new(), World::new()];
    for (world, is_swept) in worlds.iter_mut().zip([false, true]) {
        world.register(&[], &[CLAIMS]);
        let held = world.begin(2);
        world.later(IDLE + 1 + GRACE);
        if is_swept {
            world.sweep();
        }
        world.start("web", 1, Conflict::Reject).expect("an operation after its grace");
        world.reset(START + 50);
        assert!(matches!(world.state(held.id), SessionState::Settled(_)));
        assert!(matches!(world.late(held.id), Err(Error::TooLate { .. })));
        assert_eq!((world.settled(), world.waiting(CLAIMS)), (vec![held.id], vec![held.id]));
        world.processed(held.id, CLAIMS);
        world.later(IDLE + 2 * GRACE).sweep();
        world.start("tv", 1, Conflict::Reject).expect("an operation");
        world.sweep();
        let settled = world.settled().into_iter().filter(|id| *id == held.id).count();
        assert_eq!((settled, world.is_hot(held.id)), (1, false));
    }
    assert_eq!(worlds[0].canonical(), worlds[1].canonical());
}

#[test]
fn when_nobody_is_required_any_more_what_waited_settles() {
    let mut world = World::new();
    world.require(&[USAGE]);
    let [held, graceful] = [world.begin(1), world.start("web", 2, Conflict::Reject).expect("one")];
    for held in [held, graceful] {
        world.close(held).expect("it is open");
    }
    assert!(world.is_hot(held.id));
    world.later(1).require(&[]);
    assert_eq!(world.settled(), [held.id]);
    assert!(!world.is_hot(held.id) && world.is_hot(graceful.id));
    world.later(GRACE).sweep();
    assert_eq!(world.settled(), [held.id, graceful.id]);
}

#[test]
fn a_session_that_has_failed_waits_for_nobody_and_does_not_settle_until_it_is_requeued() {
    let mut world = World::new();
    world.require(&[USAGE]);
    let held = world.begin(1);
    assert!(!world.fail(held.id), "it is open");
    world.later(IDLE + 1);
    assert!(world.fail(held.id), "it is over, though nobody has noticed");
    assert!(!world.fail(held.id), "it has failed already");
    let end = world.end(held.id);
    let id = held.id;
    let told: Vec<_> = world.happened[1..].iter().map(|happened| &happened.event).collect();
    let expected = [SessionEvent::Ended { id, end }, SessionEvent::Failed { id, cause: reset() }];
    assert_eq!(told, expected.iter().collect::<Vec<_>>());
    assert_eq!(
        (world.waiting(USAGE), world.standing(id)),
        (vec![], Standing::Failed { user: USER })
    );
    let before = world.canonical();
    world.processed(id, USAGE);
    world.later(MAX).sweep();
    assert_eq!((world.canonical(), world.is_hot(id)), (before, true), "nobody is done with it");
    let [(failed, why)] = &world.sessions.failed()[..] else { panic!("one has failed") };
    assert_eq!((*failed, &why.cause), (id, &reset()));
    let state = SessionState::Failed { end: world.end(id), cause: reset(), at: why.at };
    assert_eq!((world.state(id), why.at), (state, secs(START + IDLE + 1)));
    let list = |kind| {
        let wanted = Selection { states: vec![kind], ..Selection::default() };
        let as_of = (&world.schema, world.incarnation, secs(world.now));
        let found = world.sessions.select(&wanted, 9, as_of).into_iter();
        found.map(|info| info.id).collect::<Vec<_>>()
    };
    assert_eq!((list(SessionStateKind::Failed), list(SessionStateKind::Ended)), (vec![id], vec![]));
    assert!(world.requeue(id) && !world.requeue(id));
    assert_eq!(world.waiting(USAGE), [id]);
    world.processed(id, USAGE);
    assert_eq!((world.settled(), world.fail(id)), (vec![id], false));
}

#[test]
fn a_session_that_has_settled_cannot_fail_whether_or_not_it_has_left() {
    let mut worlds = [World::new(), World::new()];
    for (world, is_swept) in worlds.iter_mut().zip([false, true]) {
        let held = world.begin(1);
        world.later(IDLE + 1);
        if is_swept {
            world.sweep();
            world.start("web", 1, Conflict::Reject).expect("a start");
            assert!(!world.is_hot(held.id));
        } else {
            world.start("web", 1, Conflict::Reject).expect("a start");
            assert!(world.is_hot(held.id));
        }
        assert!(!world.fail(held.id) && !world.requeue(held.id));
        world.processed_at(held.id, USAGE, 0);
    }
    assert_eq!(worlds[0].canonical(), worlds[1].canonical());
}

#[test]
fn a_clock_that_is_set_back_leaves_the_same_whether_or_not_it_was_swept() {
    let mut worlds = [World::new(), World::new()];
    for (world, is_swept) in worlds.iter_mut().zip([false, true]) {
        world.require(&[USAGE]);
        let held = world.begin(2);
        world.later(5).close(held).expect("it is open");
        world.processed(held.id, USAGE);
        // It has settled by then, but no operation has come since.
        world.later(GRACE);
        if is_swept {
            world.sweep();
            assert_eq!(world.settled(), [held.id]);
        }
        world.reset(START + 50);
        world.late(held.id).expect("within its grace again");
        assert_eq!(world.waiting(USAGE), [held.id]);
        world.later(GRACE).sweep();
        assert_eq!((world.waiting(USAGE), world.is_hot(held.id)), (vec![held.id], true));
        world.processed(held.id, USAGE);
        assert!(!world.is_hot(held.id));
    }
    assert_eq!(worlds[0].canonical(), worlds[1].canonical());
}

#[test]
fn what_waits_for_processors_survives_a_clock_that_is_set_back() {
    let mut worlds = [World::new(), World::new()];
    for (world, is_swept) in worlds.iter_mut().zip([false, true]) {
        world.require(&[USAGE]);
        let held = world.begin(2);
        world.later(IDLE + 1 + GRACE);
        if is_swept {
            world.sweep();
        }
        world.start("web", 1, Conflict::Reject).expect("an operation after its grace");
        world.reset(START + 50);
        // It has ended for good, and may be written to for as long as its grace is not over anew.
        assert!(matches!(world.state(held.id), SessionState::Ended(_)));
        world.sweep();
        assert_eq!(world.waiting(USAGE), [held.id]);
        world.processed(held.id, USAGE);
        assert!(world.is_hot(held.id), "its grace is not over");
        world.later(IDLE + GRACE).sweep();
        world.start("tv", 1, Conflict::Reject).expect("an operation after its grace");
        assert!(!world.is_hot(held.id));
    }
    assert_eq!(worlds[0].canonical(), worlds[1].canonical());
}

/// As its end is: nobody hears of the reset, and what was told before it may not be true any more.
#[test]
fn what_takes_late_records_again_after_a_reset_is_told_of_again_when_it_settles() {
    let mut world = World::new();
    let held = world.begin(2);
    world.later(5).close(held).expect("it is open");
    world.later(GRACE).sweep();
    assert_eq!(world.settled(), [held.id]);
    world.reset(START + 50);
    assert!(matches!(world.state(held.id), SessionState::Ended(_)));
    world.sweep();
    assert_eq!(world.settled(), [held.id], "it has not settled");
    world.later(GRACE).sweep();
    assert_eq!(world.settled(), [held.id; 2]);
    world.start("web", 1, Conflict::Reject).expect("an operation, after which nothing is undone");
    world.reset(START + 60);
    world.later(GRACE).sweep();
    assert_eq!(world.settled(), [held.id; 2], "it has settled for good");
}
