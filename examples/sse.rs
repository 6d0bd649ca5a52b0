//! What happens to a user's sessions, for the user's browser: `GET /users/{id}/events` is a stream of server-sent
//! events.
//!
//! ```sh
//! cargo run -p tidal-examples --bin sse
//! curl -N http://127.0.0.1:8080/users/1/events
//! ```
//!
//! Knows: sockets, one path, who may be told what. Must not know: how a session is processed.
//!
//! It listens on loopback unless `TIDAL_SSE_LISTEN` says otherwise, and asks nobody who they are: a host puts its
//! own login before it. Each client has a thread and a queue of its own, so one that does not read is
//! dropped when its time to take a write is over, and holds up nobody.

mod shop;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shop::{Result, Shop};
use tidaldb::schema::Timestamp;
use tidaldb::{
    EventFilter, EventKind, EventStream, FailCause, SessionEvent, SessionId, SessionState, TidalDb,
};

/// Where it listens unless `TIDAL_SSE_LISTEN` says otherwise.
const LISTEN: &str = "127.0.0.1:8080";
/// Clients at one time.
const CLIENTS_MAX: usize = 64;
/// The size of a request's head, at most.
const HEAD_SIZE_MAX: usize = 4 * 1024;
const HEADERS_MAX: usize = 32;
/// How long a client may take to say what it wants, and to take what it is sent.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so long without an event a comment is sent, so that nobody in between thinks that it is over.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

fn main() -> Result<()> {
    let listen = std::env::var("TIDAL_SSE_LISTEN").unwrap_or_else(|_| LISTEN.to_owned());
    let listener = TcpListener::bind(listen)?;
    println!("listening on http://{}", listener.local_addr()?);
    let shop = Shop::open()?;
    let db = Arc::clone(&shop.db);
    std::thread::spawn(move || serve(&listener, &db));
    // Something to see: a session of each of two users times out now and then.
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let ids = shop.let_time_out(&[1, 2], || ())?;
        println!("given up: {ids:?}");
    }
}

fn serve(listener: &TcpListener, db: &Arc<TidalDb>) {
    let clients = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        let Ok(client) = client else {
            // Such as for want of descriptors: it passes.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let place = Place::take(&clients);
        let db = Arc::clone(db);
        std::thread::spawn(move || {
            // That a client has gone is no news.
            let _ = answer(client, place.as_ref(), &db);
        });
    }
}

/// One of the places for clients, until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(taken));
        // Dropping it gives it back.
        (taken.fetch_add(1, Ordering::SeqCst) < CLIENTS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer(mut client: TcpStream, place: Option<&Place>, db: &TidalDb) -> io::Result<()> {
    client.set_write_timeout(Some(PATIENCE))?;
    if place.is_none() {
        return refuse(client, "503 Service Unavailable");
    }
    let user = match user_of(&mut client)? {
        Ok(user) => user,
        Err(status) => return refuse(client, status),
    };
    let filter = EventFilter::all().kinds([EventKind::Failed, EventKind::Ended]).user(user);
    let Ok(events) = db.sessions().subscribe(filter) else {
        return refuse(client, "503 Service Unavailable");
    };
    client.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\
          connection: close\r\n\r\n: welcome\n\n",
    )?;
    stream(client, &events, db)
}

fn refuse(mut client: TcpStream, status: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes())
}

/// Sends what happens until the client is gone, does not read, or the database is closed.
fn stream(mut client: TcpStream, events: &EventStream, db: &TidalDb) -> io::Result<()> {
    while !events.is_ended() {
        let message = match events.recv_timeout(KEEP_ALIVE) {
            Some((_, event)) => format!("data: {}\n\n", message(db, &event)),
            None => ": keep-alive\n\n".to_owned(),
        };
        client.write_all(message.as_bytes())?;
    }
    Ok(())
}

/// What a user is told of an event.
fn message(db: &TidalDb, event: &SessionEvent) -> Value {
    let told = |kind: &str, id: SessionId, status: &str, message: String, at: Option<Timestamp>| {
        json!({
            "type": kind,
            "session_id": id.get(),
            "status": status,
            "message": message,
            "time": at.map(|at| at.as_nanos() / 1_000_000),
        })
    };
    match event {
        SessionEvent::Failed { id, cause } => {
            let kind = match cause {
                FailCause::TimedOut { .. } => "session_timed_out",
                _ => "session_failed",
            };
            let state = db.sessions().get(*id).ok().flatten().map(|info| info.state);
            let at = match state {
                Some(SessionState::Failed { at, .. }) => Some(at),
                // It was requeued meanwhile.
                _ => None,
            };
            let text = format!("session {id} was given up: {cause}; nothing in it is lost");
            told(kind, *id, "failed", text, at)
        }
        SessionEvent::Ended { id, end } => {
            told("session_ended", *id, "ended", format!("session {id} has ended"), Some(end.at))
        }
        _ => json!({ "type": "missed", "message": "some events were missed: look again" }),
    }
}

/// The user whom a request is about, or the status that refuses it.
fn user_of(client: &mut TcpStream) -> io::Result<std::result::Result<u64, &'static str>> {
    let (began, mut head, mut part) = (Instant::now(), Vec::new(), [0; 512]);
    loop {
        let left = PATIENCE.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(Err("408 Request Timeout"));
        }
        client.set_read_timeout(Some(left))?;
        let len = client.read(&mut part)?;
        head.extend_from_slice(&part[..len]);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => return Ok(wanted(&request)),
            Ok(httparse::Status::Partial) if len > 0 && head.len() < HEAD_SIZE_MAX => {}
            Ok(httparse::Status::Partial) | Err(_) => return Ok(Err("400 Bad Request")),
        }
    }
}

fn wanted(request: &httparse::Request<'_, '_>) -> std::result::Result<u64, &'static str> {
    if request.method != Some("GET") {
        return Err("405 Method Not Allowed");
    }
    let path = request.path.unwrap_or_default();
    let user = path.strip_prefix("/users/").and_then(|rest| rest.strip_suffix("/events"));
    user.and_then(|user| user.parse().ok()).ok_or("404 Not Found")
}
