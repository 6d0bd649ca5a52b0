//! HTTP for few readers: one request to a connection, and no connection for long.
//!
//! Knows: sockets, the bytes of requests and replies, how many and how slow they may be. Must not know:
//! what is asked, what is answered.
//!
//! Each connection has a thread, and there are no more than [`Limits::connections_max`]. Who comes when
//! all are taken, takes the place of whoever has been there longest: it has had time for any honest
//! request, and newcomers never wait for the slow.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::engine::Stopwatch;

/// The size of a request's head, at most.
const HEAD_SIZE_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// What a client may still send after its answer, before the connection is torn down.
const DRAINED_SIZE_MAX: usize = 64 * 1024;
/// How long to wait when the system has no connection for us, such as for want of descriptors.
const NO_CONNECTION: Duration = Duration::from_millis(50);

/// How much clients may ask of us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections_max: usize,
    /// How long a client may take to ask, and again to read the answer.
    pub(super) patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 32, patience: Duration::from_secs(5) }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without what follows a question mark.
    pub(super) path: String,
    pub(super) authorization: Option<Vec<u8>>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    /// A further header.
    pub(super) header: Option<(&'static str, &'static str)>,
    pub(super) body: String,
}

impl Reply {
    /// A sentence that says why there is nothing else.
    pub(super) fn refusal(status: u16, why: &str) -> Self {
        let body = format!("{:#}\n", serde_json::json!({ "error": why }));
        Self { status, content_type: "application/json", header: None, body }
    }

    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        };
        let mut head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Connection: close\r\n",
            self.status,
            self.content_type,
            self.body.len()
        );
        if let Some((name, value)) = self.header {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        if with_body {
            head.push_str(&self.body);
        }
        head.into_bytes()
    }
}

/// Answers whoever comes, on threads of its own, for as long as the process lives.
///
/// # Errors
///
/// When there can be no thread.
pub(super) fn serve(
    listener: TcpListener,
    limits: Limits,
    answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> io::Result<()> {
    let accept = move || accept(&listener, limits, &Arc::new(answer));
    thread::Builder::new().name("http".into()).spawn(accept).map(drop)
}

fn accept<A>(listener: &TcpListener, limits: Limits, answer: &Arc<A>)
where
    A: Fn(&Request) -> Reply + Send + Sync + 'static,
{
    let seats = Arc::<Seats>::default();
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(NO_CONNECTION);
            continue;
        };
        // Whatever fails here closes this connection, and the next one is another's.
        let Ok(seat) = Seats::take(&seats, &stream, limits.connections_max) else { continue };
        let answer = Arc::clone(answer);
        let converse = move || {
            let _seat = seat;
            // The panic has been told on standard error; the others go on.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                converse(&stream, limits.patience, &*answer).ok();
            }));
        };
        thread::Builder::new().name("http".into()).spawn(converse).ok();
    }
}

/// Who is being served, the first to come first.
#[derive(Default)]
struct Seats {
    taken: Mutex<Taken>,
    left: Condvar,
}

#[derive(Default)]
struct Taken {
    streams: VecDeque<(u64, TcpStream)>,
    next: u64,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among the `max`, if need be that of the first to come.
    fn take(seats: &Arc<Self>, stream: &TcpStream, max: usize) -> io::Result<Seat> {
        let stream = stream.try_clone()?;
        let mut taken = seats.lock();
        while taken.streams.len() >= max {
            if let Some((_, first)) = taken.streams.front() {
                // Its thread finds the socket dead, and leaves.
                first.shutdown(Shutdown::Both).ok();
            }
            taken = seats.left.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        let id = taken.next;
        taken.next += 1;
        taken.streams.push_back((id, stream));
        Ok(Seat { id, seats: Arc::clone(seats) })
    }
}

/// A place that is left when this is dropped.
struct Seat {
    id: u64,
    seats: Arc<Seats>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().streams.retain(|(id, _)| *id != self.id);
        self.seats.left.notify_all();
    }
}

/// Time that is left for something.
struct Deadline {
    began: Stopwatch,
    after: Duration,
}

impl Deadline {
    fn after(after: Duration) -> Self {
        Self { began: Stopwatch::start(), after }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.after.saturating_sub(self.began.elapsed());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// Reads one request, answers it, and parts from the client in peace.
fn converse(
    stream: &TcpStream,
    patience: Duration,
    answer: &dyn Fn(&Request) -> Reply,
) -> io::Result<()> {
    let (reply, with_body) = match read_request(stream, &Deadline::after(patience)) {
        Ok(request) => (answer(&request), request.method != "HEAD"),
        Err(Unread::Refused(reply)) => (reply, true),
        Err(Unread::Gone) => return Ok(()),
    };
    write_all(stream, &reply.bytes(with_body), &Deadline::after(patience))?;
    // A socket that is closed with bytes unread takes back what was written to it.
    stream.shutdown(Shutdown::Write)?;
    drain(stream, &Deadline::after(patience))
}

/// Why there is no request.
enum Unread {
    /// There will be none, for which this is the answer.
    Refused(Reply),
    /// There is nobody to answer.
    Gone,
}

fn read_request(mut stream: &TcpStream, deadline: &Deadline) -> Result<Request, Unread> {
    let refused = |status, why| Err(Unread::Refused(Reply::refusal(status, why)));
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    loop {
        let read = deadline.left().and_then(|left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(&mut bytes)
        });
        match read {
            Ok(0) => return Err(Unread::Gone),
            Ok(count) => head.extend_from_slice(&bytes[..count]),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => continue,
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    return refused(408, "the request did not come in time");
                }
                _ => return Err(Unread::Gone),
            },
        }
        match parse(&head) {
            Ok(Some(request)) => return Ok(request),
            Ok(None) if head.len() < HEAD_SIZE_MAX => {}
            Ok(None) | Err(httparse::Error::TooManyHeaders) => {
                return refused(431, "the head of the request is too long");
            }
            Err(_) => return refused(400, "this is not HTTP/1.1"),
        }
    }
}

/// The request that these bytes begin with; `None` while its head is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Request>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    if parsed.parse(bytes)?.is_partial() {
        return Ok(None);
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(httparse::Error::Token);
    };
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let is_authorization =
        |it: &&httparse::Header<'_>| it.name.eq_ignore_ascii_case("authorization");
    let authorization = parsed.headers.iter().find(is_authorization);
    Ok(Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        authorization: authorization.map(|header| header.value.to_vec()),
    }))
}

fn write_all(mut stream: &TcpStream, mut bytes: &[u8], deadline: &Deadline) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(deadline.left()?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn drain(mut stream: &TcpStream, deadline: &Deadline) -> io::Result<()> {
    let mut bytes = [0; 1024];
    let mut size = 0;
    while size < DRAINED_SIZE_MAX {
        stream.set_read_timeout(Some(deadline.left()?))?;
        match stream.read(&mut bytes)? {
            0 => break,
            count => size += count,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// Long enough for the slowest machine.
    const LONG: Duration = Duration::from_secs(60);

    fn started(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let answer = |request: &Request| match request.path.as_str() {
            "/panic" => panic!("a page has a bug"),
            path => Reply::refusal(404, &format!("{} {path}", request.method)),
        };
        serve(listener, limits, answer).expect("a thread");
        address
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).expect("somebody listens");
        stream.set_read_timeout(Some(LONG)).expect("a time-out");
        stream
    }

    /// All that comes until the other side is done.
    fn rest(mut stream: &TcpStream) -> String {
        let mut bytes = Vec::new();
        // Whoever is turned out may find the connection reset.
        match stream.read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => String::from_utf8(bytes).expect("text"),
        }
    }

    fn ask(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = connect(address);
        stream.write_all(bytes).expect("taken");
        rest(&stream)
    }

    const GET: &[u8] = b"GET /x?y HTTP/1.1\r\nHost: h\r\n\r\n";

    #[test]
    fn what_is_not_http_or_too_long_or_panics_is_refused_and_the_next_one_served() {
        let address = started(Limits::default());
        let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
        let long = "x".repeat(HEAD_SIZE_MAX + 100);
        for (bytes, status) in [
            ("\u{1}\u{2}garbage\r\n\r\n".to_owned(), "400 "),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "400 "),
            (format!("GET / HTTP/1.1\r\n{many}\r\n"), "431 "),
            (format!("GET /{long}"), "431 "),
            ("GET /panic HTTP/1.1\r\n\r\n".to_owned(), ""),
        ] {
            let said = ask(address, bytes.as_bytes());
            let expected =
                if status.is_empty() { String::new() } else { format!("HTTP/1.1 {status}") };
            assert!(said.starts_with(&expected), "{bytes:.40}: {said}");
            assert_eq!(said.is_empty(), status.is_empty(), "{bytes:.40}: {said}");
        }
        assert!(ask(address, GET).ends_with("{\n  \"error\": \"GET /x\"\n}\n"));
    }

    #[test]
    fn head_has_the_length_of_a_body_that_it_leaves_out() {
        let address = started(Limits::default());
        let said = ask(address, b"HEAD /x HTTP/1.1\r\n\r\n");
        assert!(said.contains("\r\nContent-Length: 25\r\n"), "{said}");
        assert!(said.ends_with("\r\n\r\n"), "{said}");
    }

    #[test]
    fn a_request_in_pieces_is_put_together_and_one_that_never_ends_is_cut() {
        let patience = Duration::from_millis(300);
        let address = started(Limits { patience, ..Limits::default() });
        let mut slow = connect(address);
        for byte in GET {
            slow.write_all(&[*byte]).expect("taken");
        }
        assert!(rest(&slow).contains("GET /x"), "in pieces");
        // A byte now and then does not win time.
        let mut endless = connect(address);
        let began = Stopwatch::start();
        endless.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
        let mut said = [0; 12];
        loop {
            endless.write_all(b"G").ok();
            match endless.read(&mut said) {
                Ok(count) => break assert_eq!(&said[..count], b"HTTP/1.1 408"),
                Err(_) => assert!(began.elapsed() < LONG, "it is never cut"),
            }
        }
    }

    #[test]
    fn a_house_full_of_silent_clients_serves_the_next_one_in_the_place_of_the_first() {
        let address = started(Limits { connections_max: 3, patience: LONG });
        let silent: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
        let began = Stopwatch::start();
        assert!(ask(address, GET).contains("GET /x"));
        assert!(began.elapsed() < LONG / 2, "it waited for the silent");
        assert_eq!(rest(&silent[0]), "", "the first one has left");
        let mut third = &silent[2];
        third.write_all(GET).expect("taken");
        assert!(rest(third).contains("GET /x"), "the others are still there");
    }
}
