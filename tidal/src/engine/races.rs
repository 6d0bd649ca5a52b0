//! The queue and its answers, under every schedule that shuttle finds.
//!
//! A wake-up that is lost leaves a thread waiting for ever: shuttle says so.

use std::sync::Arc;
use std::time::Duration;

use super::queue::Work;
use super::{Barrier, Operation, Pending, Queue, promise};
use crate::error::Error;
use crate::options::Durability;
use crate::seq::Seq;
use crate::state::Reply;
use crate::sync::{explore, thread};
use crate::wal::FrameBody;

const CALLERS: u64 = 3;
const EACH: u64 = 2;

/// An operation, and the answer to it.
fn operation(number: u64) -> (Operation, Pending<(Seq, Reply)>) {
    let (promise, pending) = promise();
    let body = FrameBody::new(1, 1, number.to_le_bytes().to_vec()).expect("it is small");
    let operation = Operation {
        body,
        events: 1,
        latest: None,
        durability: Durability::Sync,
        resets_clock: false,
        promise,
    };
    (operation, pending)
}

fn number_of(operation: &Operation) -> u64 {
    u64::from_le_bytes(operation.body.bytes().try_into().expect("it has eight bytes"))
}

/// Answers each operation with its number until it is closed, or has answered so many.
fn answer(queue: &Queue, operations_max: u64) {
    let mut answered = 0;
    while answered < operations_max {
        match queue.take(Some(Duration::from_secs(3_600))) {
            Some(Work::Group(group)) => {
                for operation in group {
                    answered += 1;
                    let number = Seq::new(number_of(&operation));
                    operation.promise.fulfil(Ok((number, Reply::Applied { duplicates: 0 })));
                }
            }
            Some(Work::Barrier(Barrier::Flush(promise))) => promise.fulfil(Ok(Seq::new(answered))),
            Some(Work::Barrier(Barrier::Close(promise))) => return promise.fulfil(Ok(())),
            Some(Work::Barrier(_)) => unreachable!("nothing else is asked for"),
            None => {}
        }
    }
}

/// Room for one operation at a time, so that callers wait for each other.
fn narrow_queue() -> Arc<Queue> {
    Arc::new(Queue::new(1))
}

#[test]
fn everyone_is_answered_in_order_and_nobody_waits_for_ever() {
    explore(4_000, || {
        let queue = narrow_queue();
        let answering = Arc::clone(&queue);
        let writer = thread::spawn(move || answer(&answering, u64::MAX));
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    for number in 0..EACH {
                        let number = caller * EACH + number;
                        let (operation, pending) = operation(number);
                        queue.push(operation).expect("it is taken");
                        let (answered, _) = pending.wait().expect("it is answered");
                        assert_eq!(answered, Seq::new(number), "the answer is to this caller");
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().expect("a caller ends well"));
        let (flushed, pending) = promise();
        queue.push_barrier(Barrier::Flush(flushed)).expect("it is taken");
        assert_eq!(pending.wait().expect("it is answered"), Seq::new(CALLERS * EACH));
        let (closed, pending) = promise();
        queue.close(closed);
        pending.wait().expect("it is answered");
        writer.join().expect("the writer ends well");
    });
}

#[test]
fn an_answer_that_is_awaited_wakes_whoever_polled_last() {
    explore(2_000, || {
        let queue = narrow_queue();
        let answering = Arc::clone(&queue);
        let writer = thread::spawn(move || answer(&answering, 1));
        let (operation, pending) = operation(7);
        queue.push(operation).expect("it is taken");
        let (answered, _) = shuttle::future::block_on(pending).expect("it is answered");
        assert_eq!(answered, Seq::new(7));
        writer.join().expect("the writer ends well");
    });
}

#[test]
fn a_queue_that_is_abandoned_answers_everyone() {
    explore(4_000, || {
        let queue = narrow_queue();
        let answering = Arc::clone(&queue);
        // The writer ends early, as one that panicked, and its guard abandons the queue.
        let writer = thread::spawn(move || {
            answer(&answering, 1);
            answering.abandon(Error::Stopped { reason: "for a test".to_owned() });
        });
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    let (operation, pending) = operation(number);
                    match queue.push(operation) {
                        Err(refused) => assert!(matches!(refused, Error::Stopped { .. })),
                        Ok(()) => match pending.wait() {
                            Ok((answered, _)) => assert_eq!(answered, Seq::new(number)),
                            Err(ended) => assert!(matches!(ended, Error::Stopped { .. })),
                        },
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().expect("a caller ends well"));
        writer.join().expect("the writer ends well");
        let (operation, _pending) = operation(0);
        assert!(queue.push(operation).is_err(), "nothing is taken any more");
        // So ends a database whose writer was gone before.
        let (closed, pending) = promise();
        queue.close(closed);
        queue.abandon(Error::Closed);
        assert!(pending.wait().is_err(), "nobody closed it well");
    });
}
