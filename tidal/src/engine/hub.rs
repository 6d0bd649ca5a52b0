//! Who is told of sessions: streams and callbacks.
//!
//! Knows: queues, and the thread of each callback. Must not know: what an event means, what a caller
//! does with it.
//!
//! The writer publishes after a group is applied, in log order, and never waits: each subscriber has a
//! queue of its own, and one that is full drops its oldest events and says how many. When nobody is
//! subscribed, publishing is one atomic load. The lock of the list is taken before that of a queue.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::record::EventFilter;
use crate::seq::Seq;
use crate::sessions::{Happened, SessionEvent};
use crate::sync::{AtomicU64, Condvar, Mutex, Ordering};

/// What is called with the events of sessions, on a thread of its own.
///
/// A call that panics is logged, and the next event follows. A call that blocks holds up nobody but
/// itself: what does not fit its queue meanwhile is dropped, oldest first, and the next call is
/// [`Lagged`](SessionEvent::Lagged).
pub trait SessionSubscriber: Send + Sync + 'static {
    /// Something happened at this position of the log, and is committed.
    fn on_event(&self, seq: Seq, event: &SessionEvent);
}

impl<F: Fn(Seq, &SessionEvent) + Send + Sync + 'static> SessionSubscriber for F {
    fn on_event(&self, seq: Seq, event: &SessionEvent) {
        self(seq, event);
    }
}

/// The events that wait for one subscriber.
struct Mailbox {
    filter: EventFilter,
    len_max: usize,
    queue: Mutex<Inbox>,
    filled: Condvar,
}

#[derive(Default)]
struct Inbox {
    events: VecDeque<(Seq, SessionEvent)>,
    /// How many were dropped since the last one was taken, and where the last of them was.
    dropped: u64,
    dropped_at: Seq,
    /// Nothing more will come.
    is_closed: bool,
}

impl Inbox {
    fn push(&mut self, event: (Seq, SessionEvent), len_max: usize) {
        if self.events.len() >= len_max
            && let Some((seq, _)) = self.events.pop_front()
        {
            self.dropped += 1;
            self.dropped_at = seq;
        }
        self.events.push_back(event);
    }

    fn take(&mut self) -> Option<(Seq, SessionEvent)> {
        match std::mem::take(&mut self.dropped) {
            0 => self.events.pop_front(),
            dropped => Some((self.dropped_at, SessionEvent::Lagged { dropped })),
        }
    }
}

impl Mailbox {
    fn put(&self, happened: &[Happened]) {
        let mut wanted = happened.iter().filter(|h| h.passes(&self.filter)).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let mut inbox = self.queue.lock();
        if inbox.is_closed {
            // Its guard is dropped, and its thread has not got to know yet.
            return;
        }
        wanted.for_each(|h| inbox.push((h.seq, h.event.clone()), self.len_max));
        self.filled.notify_all();
    }

    /// Nothing more will come; what waits can still be taken, unless it is to be forgotten.
    fn close(&self, forget: bool) {
        let mut inbox = self.queue.lock();
        inbox.is_closed = true;
        if forget {
            inbox.events.clear();
            inbox.dropped = 0;
        }
        self.filled.notify_all();
    }

    /// The next event; without one, `None` after `patience` or once nothing more will come.
    fn next(&self, patience: Option<Duration>) -> Option<(Seq, SessionEvent)> {
        let waiting = Stopwatch::start();
        let mut inbox = self.queue.lock();
        loop {
            if let Some(event) = inbox.take() {
                return Some(event);
            }
            if inbox.is_closed {
                return None;
            }
            match patience {
                None => self.filled.wait(&mut inbox),
                Some(patience) => {
                    let left = patience.saturating_sub(waiting.elapsed());
                    if left.is_zero() {
                        return None;
                    }
                    self.filled.wait_for(&mut inbox, left);
                }
            }
        }
    }
}

#[derive(Default)]
struct Subscribers {
    mailboxes: Vec<Arc<Mailbox>>,
    /// The database is closed.
    is_closed: bool,
}

/// The list of subscribers.
pub(crate) struct Hub {
    /// How many there are: all that the writer looks at when there are none.
    count: AtomicU64,
    subscribers: Mutex<Subscribers>,
    queue_len: usize,
}

impl Hub {
    /// Nobody is subscribed yet; so many events may wait for each that will be.
    pub(crate) fn new(queue_len: usize) -> Self {
        assert!(queue_len > 0, "a queue without room delivers nothing");
        Self { count: AtomicU64::new(0), subscribers: Mutex::default(), queue_len }
    }

    /// Tells everybody who wants to know. Called by the writer, after what happened is committed.
    pub(crate) fn publish(&self, happened: &[Happened]) {
        if self.count.load(Ordering::Acquire) == 0 || happened.is_empty() {
            return;
        }
        self.subscribers.lock().mailboxes.iter().for_each(|mailbox| mailbox.put(happened));
    }

    /// Events from here on, to be taken by the caller.
    ///
    /// # Errors
    ///
    /// [`Closed`](Error::Closed).
    pub(crate) fn subscribe(self: &Arc<Self>, filter: EventFilter) -> Result<EventStream> {
        let mailbox = Arc::new(Mailbox {
            filter,
            len_max: self.queue_len,
            queue: Mutex::default(),
            filled: Condvar::new(),
        });
        let mut subscribers = self.subscribers.lock();
        if subscribers.is_closed {
            return Err(Error::Closed);
        }
        subscribers.mailboxes.push(Arc::clone(&mailbox));
        self.count.fetch_add(1, Ordering::AcqRel);
        drop(subscribers);
        Ok(EventStream { hub: Arc::clone(self), mailbox })
    }

    /// Calls `subscriber` with events from here on, on a thread of its own, until the guard is dropped
    /// or the database is closed.
    ///
    /// # Errors
    ///
    /// [`Closed`](Error::Closed); [`Io`](Error::Io) when there can be no further thread.
    pub(crate) fn add_subscriber(
        self: &Arc<Self>,
        filter: EventFilter,
        subscriber: impl SessionSubscriber,
    ) -> Result<SubscriptionGuard> {
        let stream = self.subscribe(filter)?;
        let mailbox = Arc::clone(&stream.mailbox);
        super::spawn("tidal-notifier", move || {
            while let Some((seq, event)) = stream.mailbox.next(None) {
                let call = AssertUnwindSafe(|| subscriber.on_event(seq, &event));
                if catch_unwind(call).is_err() {
                    tracing::error!(%seq, ?event, "a subscriber panicked; it misses this event");
                }
            }
            // It is the caller's code that is dropped here: its panic is contained as well.
            if catch_unwind(AssertUnwindSafe(|| drop(subscriber))).is_err() {
                tracing::error!("a subscriber panicked when it was dropped");
            }
        })?;
        Ok(SubscriptionGuard { mailbox })
    }

    /// Nobody is told anything more. What waits can still be taken.
    pub(crate) fn close(&self) {
        let mut subscribers = self.subscribers.lock();
        subscribers.is_closed = true;
        self.count.store(0, Ordering::Release);
        subscribers.mailboxes.drain(..).for_each(|mailbox| mailbox.close(false));
    }

    fn remove(&self, mailbox: &Arc<Mailbox>) {
        let mut subscribers = self.subscribers.lock();
        if let Some(at) = subscribers.mailboxes.iter().position(|m| Arc::ptr_eq(m, mailbox)) {
            subscribers.mailboxes.swap_remove(at);
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The events of sessions, from when it was asked for on; from
/// [`Sessions::subscribe`](crate::Sessions::subscribe).
///
/// At most [`event_queue_len`](crate::SessionConfig::event_queue_len) events wait to be taken. When
/// there are more the oldest are dropped, and [`Lagged`](SessionEvent::Lagged) says how many in their
/// place. Whoever must miss none, crashes included, uses a
/// [`cursor`](crate::Sessions::cursor).
pub struct EventStream {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
}

impl EventStream {
    /// The next event, and where in the log it happened. Waits for it, at most so long; `None` when
    /// none came, or none will come any more because the database was closed.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<(Seq, SessionEvent)> {
        self.mailbox.next(Some(timeout))
    }

    /// The next event that is already there.
    pub fn try_recv(&self) -> Option<(Seq, SessionEvent)> {
        self.mailbox.queue.lock().take()
    }

    /// Whether the database was closed and everything has been taken.
    pub fn is_ended(&self) -> bool {
        let inbox = self.mailbox.queue.lock();
        inbox.is_closed && inbox.events.is_empty() && inbox.dropped == 0
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.hub.remove(&self.mailbox);
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("filter", &self.mailbox.filter).finish_non_exhaustive()
    }
}

/// Keeps a subscriber being called; from
/// [`Sessions::add_subscriber`](crate::Sessions::add_subscriber).
///
/// When it is dropped, what waits is forgotten, and no further event is taken. A call that runs then is
/// not waited for, so a subscriber may drop its own guard.
#[must_use = "the subscription ends when this is dropped"]
pub struct SubscriptionGuard {
    mailbox: Arc<Mailbox>,
}

impl Drop for SubscriptionGuard {
    fn drop(&mut self) {
        self.mailbox.close(true);
    }
}

impl std::fmt::Debug for SubscriptionGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscriptionGuard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SessionId, UserId};
    use crate::record::EventKind;
    use std::sync::mpsc::{self, Receiver, Sender};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn started(number: u64) -> Happened {
        let id = SessionId::new(number);
        let event = SessionEvent::Started { id };
        Happened { seq: Seq::new(number), user: UserId::new(number % 2), event }
    }

    fn hub(queue_len: usize) -> Arc<Hub> {
        Arc::new(Hub::new(queue_len))
    }

    fn told(stream: &EventStream) -> Vec<u64> {
        std::iter::from_fn(|| stream.try_recv()).map(|(seq, _)| seq.get()).collect()
    }

    #[test]
    fn a_stream_has_what_its_filter_lets_through_in_order_from_when_it_was_asked_for() {
        let hub = hub(10);
        hub.publish(&[started(1)]);
        let all = hub.subscribe(EventFilter::all()).unwrap();
        let odd = hub.subscribe(EventFilter::all().user(1)).unwrap();
        let ends = hub.subscribe(EventFilter::all().kinds([EventKind::Ended])).unwrap();
        hub.publish(&[started(2), started(3)]);
        hub.publish(&[started(4)]);
        assert_eq!(told(&all), [2, 3, 4]);
        assert_eq!(told(&odd), [3]);
        assert_eq!(told(&ends), []);
        drop(all);
        drop(odd);
        drop(ends);
        assert_eq!(hub.count.load(Ordering::Relaxed), 0);
        assert!(hub.subscribers.lock().mailboxes.is_empty());
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_says_how_many_in_their_place() {
        let hub = hub(2);
        let stream = hub.subscribe(EventFilter::all()).unwrap();
        (1..=5).for_each(|number| hub.publish(&[started(number)]));
        let lagged = (Seq::new(3), SessionEvent::Lagged { dropped: 3 });
        assert_eq!(stream.try_recv(), Some(lagged));
        assert_eq!(told(&stream), [4, 5]);
        hub.publish(&[started(6)]);
        assert_eq!(told(&stream), [6], "it is said once");
    }

    #[test]
    fn waiting_ends_with_an_event_with_time_or_with_the_database() {
        let hub = hub(2);
        let stream = hub.subscribe(EventFilter::all()).unwrap();
        assert_eq!(stream.recv_timeout(Duration::from_millis(1)), None);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stream.recv_timeout(PATIENCE));
            hub.publish(&[started(1)]);
            assert!(waiting.join().unwrap().is_some());
            let waiting = scope.spawn(|| stream.recv_timeout(PATIENCE));
            hub.close();
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert!(stream.is_ended());
        assert!(matches!(hub.subscribe(EventFilter::all()), Err(Error::Closed)));
    }

    #[test]
    fn what_waits_when_the_database_closes_can_still_be_taken() {
        let hub = hub(2);
        let stream = hub.subscribe(EventFilter::all()).unwrap();
        hub.publish(&[started(1)]);
        hub.close();
        assert!(!stream.is_ended());
        assert_eq!(told(&stream), [1]);
        assert!(stream.is_ended());
    }

    /// Panics at the first event, waits at the second until it is let go, and says what it is called
    /// with.
    struct Difficult {
        calls: Sender<u64>,
        go_on: Mutex<Receiver<()>>,
    }

    impl SessionSubscriber for Difficult {
        fn on_event(&self, seq: Seq, event: &SessionEvent) {
            let number = match event {
                SessionEvent::Lagged { dropped } => 100 + dropped,
                _ => seq.get(),
            };
            self.calls.send(number).unwrap();
            assert_ne!(seq.get(), 1, "a panic of this test's own");
            if seq.get() == 2 {
                let _ = self.go_on.lock().recv();
            }
        }
    }

    impl Drop for Difficult {
        fn drop(&mut self) {
            let _ = self.calls.send(0);
            panic!("a panic of this test's own");
        }
    }

    #[test]
    fn a_subscriber_that_panics_or_blocks_harms_nobody_and_hears_what_it_missed() {
        let hub = hub(2);
        let other = hub.subscribe(EventFilter::all()).unwrap();
        let (calls, called) = mpsc::channel();
        let (let_go, go_on) = mpsc::channel();
        let go_on = Mutex::new(go_on);
        let next = || called.recv_timeout(PATIENCE);
        let guard = hub.add_subscriber(EventFilter::all(), Difficult { calls, go_on }).unwrap();
        hub.publish(&[started(1), started(2)]);
        assert_eq!((next(), next()), (Ok(1), Ok(2)));
        (3..=6).for_each(|number| hub.publish(&[started(number)]));
        assert_eq!(other.try_recv().map(|(seq, _)| seq), Some(Seq::new(4)));
        let_go.send(()).unwrap();
        assert_eq!((next(), next(), next()), (Ok(102), Ok(5), Ok(6)));
        drop(guard);
        hub.publish(&[started(7)]);
        assert_eq!(next(), Ok(0), "it is dropped, and called no more");
    }
}
