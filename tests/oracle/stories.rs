//! Small stories: those that once ended badly, and those that chance would tell too seldom.

use tidal_support::sim::Survives;
use tidaldb::TimeSource;

use crate::crash::{Breaks, Crash, Damage, Harm, Nested, Stop};
use crate::operation::{Operation, Signals, Source};
use crate::sessions::{Said, Sessioning};
use crate::time::Tick;
use crate::world::World;

fn crash(survives: Survives) -> Crash {
    Crash { survives, damage: None, nested: Vec::new() }
}

fn kill_after(operations: usize) -> Nested {
    let breaks = Breaks::Stops(Stop::After(operations));
    Nested { breaks, survives: Survives::Everything, tick: None }
}

/// The directory of a database was made, and its maker killed before the name was synced. The next
/// process found it and did not sync it either: a power cut took everything.
#[test]
fn a_directory_whose_maker_died_is_durable_before_anything_in_it_is_acknowledged() {
    for after in 0..40 {
        let nested = vec![kill_after(after)];
        let creation = Crash { nested, ..crash(Survives::Nothing) };
        let mut world = World::new(TimeSource::Events, false, creation);
        world.operation(Operation::Hide(1));
        world.crash(crash(Survives::Nothing));
        world.operation(Operation::Show(1));
        world.finish();
    }
}

/// A truncation removed the second segment and not the first when the power went. The database
/// opened, as it may, but its log did not verify until the next truncation.
#[test]
fn what_a_truncation_left_before_a_hole_does_not_keep_the_log_from_being_sound() {
    for seed in 0..40 {
        let mut world = World::new(TimeSource::Events, false, crash(Survives::Nothing));
        for _ in 0..4 {
            world.operation(Operation::Hide(1));
            world.drop_and_reopen();
        }
        world.checkpoint();
        world.checkpoint();
        world.crash(crash(Survives::Some(seed)));
        world.finish();
    }
}

/// Batches that were acknowledged before they were synced carried event time along though they were
/// refused: after two of them an event two months ahead was accepted.
#[test]
fn refused_batches_do_not_carry_event_time_along_whatever_their_durability() {
    let batch = |first, ahead_days: i64| {
        let source = Source { name: 0, first, len: 1, contiguous: true };
        Operation::Signals(Signals::at(Some(source), -86_400 * ahead_days))
    };
    for os_by_default in [false, true] {
        let creation = crash(Survives::Nothing);
        let mut world = World::new(TimeSource::Events, os_by_default, creation);
        world.operation(batch(1, 0));
        // A gap, and one that would be accepted only behind it.
        world.operation(batch(9, 30));
        world.operation(batch(2, 60));
        world.operation(batch(2, 30));
        world.finish();
    }
}

/// One store was empty, and two recoveries were killed while they opened the other. It was left alone
/// from then on, though nothing could be recovered without it.
#[test]
fn a_store_whose_opens_were_killed_is_tried_again_where_nothing_else_is_left() {
    for (first, second) in (0..14).flat_map(|first| (0..14).map(move |second| (first, second))) {
        let mut world = World::new(TimeSource::Events, false, crash(Survives::Nothing));
        world.operation(Operation::Hide(1));
        // What the checkpoints have can be truncated then.
        world.drop_and_reopen();
        world.checkpoint();
        world.checkpoint();
        world.crash(Crash {
            damage: Some(Damage { slot: 1, harm: Harm::Empty }),
            nested: vec![kill_after(first), kill_after(second)],
            ..crash(Survives::Everything)
        });
        world.finish();
    }
}

/// A checkpoint was killed when its manifest was written and not synced. The next open shows it, and
/// must sync it before the log is truncated for it: the other store may be lost, and the power go.
#[test]
fn a_checkpoint_that_was_never_synced_is_synced_before_the_log_is_truncated_for_it() {
    for after in 0..24 {
        let mut world = World::new(TimeSource::Events, false, crash(Survives::Nothing));
        for item in 1..3 {
            world.operation(Operation::Item { item, text: 1, size_bytes: 10 });
            world.drop_and_reopen();
            world.checkpoint();
        }
        world.operation(Operation::Hide(1));
        world.arm(Stop::After(after), crash(Survives::Everything));
        world.checkpoint();
        world.operation(Operation::Hide(2));
        world.drop_and_reopen();
        world.checkpoint();
        // This makes the removal of segments durable.
        world.drop_and_reopen();
        let damage = Some(Damage { slot: 1, harm: Harm::Empty });
        world.crash(Crash { damage, ..crash(Survives::Nothing) });
        world.finish();
    }
}

/// A store that silently went back by some checkpoints was believed to know of a deletion, which the
/// other one has forgotten since. Its row must not come back.
#[test]
fn a_deleted_row_does_not_come_back_with_a_store_that_went_back() {
    for (slot, syncs) in (0..2).flat_map(|slot| (1..16).map(move |syncs| (slot, syncs))) {
        let mut world = World::new(TimeSource::Events, false, crash(Survives::Nothing));
        world.operation(Operation::Item { item: 1, text: 1, size_bytes: 10 });
        for operation in [Operation::Hide(1), Operation::Delete(1), Operation::Hide(2)] {
            world.checkpoint();
            world.checkpoint();
            world.operation(operation);
        }
        world.checkpoint();
        world.checkpoint();
        let damage = Some(Damage { slot, harm: Harm::RollBack(syncs) });
        world.crash(Crash { damage, ..crash(Survives::Everything) });
        for _ in 0..2 {
            world.operation(Operation::Hide(3));
            world.checkpoint();
            world.check();
        }
        world.finish();
    }
}

/// Where events advance time, a signal of a session that was over moved engine time as long as the row
/// of the session was in memory, and not when it had left. A sweep, which must leave no trace, decided
/// that.
#[test]
fn a_signal_that_comes_too_late_advances_event_time_whether_or_not_anyone_swept() {
    let late = |ahead_s: i64| {
        let said = Said { signal: Signals::at(None, -ahead_s).first(), span_s: 0, text: None };
        Operation::Session(Sessioning::Late { of: 0, said })
    };
    let view = |ahead_s: i64| Operation::Signals(Signals::at(None, -ahead_s));
    for sweeps in [false, true] {
        let mut world = World::new(TimeSource::Events, false, crash(Survives::Nothing));
        world.operation(view(0));
        let start = Sessioning::Start { user: 1, agent: 0, policy: 1, joins: false };
        world.operation(Operation::Session(start));
        world.operation(view(20_000));
        if sweeps {
            world.sweep();
        }
        world.operation(late(1));
        world.operation(late(40_000));
        world.crash(crash(Survives::Everything));
        world.finish();
    }
}

/// Nobody but a sweep had come after the time-out of a session when engine time was set back to before
/// it. The session is open again: that it was looked at meanwhile must not show.
#[test]
fn a_session_is_open_again_when_time_is_set_back_though_a_sweep_had_noticed_its_end() {
    for (sweeps, reopens) in [(false, false), (true, false), (true, true)] {
        let mut world = World::new(TimeSource::Clock, false, crash(Survives::Nothing));
        let start = Sessioning::Start { user: 1, agent: 0, policy: 0, joins: false };
        world.operation(Operation::Session(start));
        world.tick(Tick::Pass(2_000));
        if sweeps {
            world.sweep();
        }
        if reopens {
            world.drop_and_reopen();
        }
        world.tick(Tick::Back(1_500));
        world.operation(Operation::ResetClock);
        world.check();
        world.resume(0);
        let beat = Sessioning::Touch { holder: 0, extend_s: None };
        world.operation(Operation::Session(beat));
        world.crash(crash(Survives::Everything));
        world.finish();
    }
}
