//! The examples, run as they are, against a real server and a real client of HTTP.
//!
//! Knows: what goes over the wire, what is printed. Must not know: how they do it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything takes that is only waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that answers every post with one status, and hands on the bodies.
fn server(status: &'static str) -> (SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (heard, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.expect("a client"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(client.read_line(&mut head).expect("a head") > 0, "it ends: {head}");
            }
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            let mut body = vec![0; length.expect("a length")];
            client.read_exact(&mut body).expect("a body");
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            client.get_mut().write_all(answer.as_bytes()).expect("answered");
            let body = serde_json::from_slice(&body).expect("JSON");
            if heard.send((head, body)).is_err() {
                return;
            }
        }
    });
    (address, bodies)
}

fn webhook(url: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webhook"));
    command.env_remove("TIDAL_WEBHOOK_URL").stdin(Stdio::null());
    url.map(|url| command.env("TIDAL_WEBHOOK_URL", url));
    command.output().expect("it runs")
}

/// What it printed, and what it logged. It must have ended well, and the database must have gone on.
fn ended_well(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {out}{log}", output.status);
    assert!(out.contains("the database goes on"), "{out}{log}");
    (out, log)
}

#[test]
fn what_is_posted_is_what_slack_takes_and_sessions_of_one_pass_are_one_message() {
    let (address, bodies) = server("200 OK");
    let output = webhook(Some(&format!("http://{address}/services/T0/B0")));
    let (_, log) = ended_well(&output);
    assert_eq!(log, "", "nothing is amiss");
    let posted: Vec<(String, Value)> = bodies.try_iter().collect();
    let mut texts = Vec::new();
    for (head, body) in &posted {
        assert!(head.starts_with("POST /services/T0/B0 HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        let object = body.as_object().expect("an object");
        assert_eq!(object.keys().collect::<Vec<_>>(), ["text"]);
        texts.push(object["text"].as_str().expect("text"));
    }
    assert!(texts[0].starts_with("health is critical: 3 stuck"), "{texts:?}");
    let given_up: Vec<_> = texts.iter().filter(|text| text.contains("given up")).collect();
    assert_eq!(given_up.len(), 1, "{texts:?}");
    assert!(given_up[0].starts_with("3 sessions were given up: "), "{given_up:?}");
    assert_eq!(given_up[0].matches("(timed out after 30 min)").count(), 3, "{given_up:?}");
}

#[test]
fn without_a_url_there_is_one_warning_and_nothing_else() {
    let (out, log) = ended_well(&webhook(None));
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.starts_with("warning: TIDAL_WEBHOOK_URL is not set"), "{log}");
    assert!(!out.contains("posted"), "{out}");
}

#[test]
fn a_server_that_fails_refuses_or_is_none_is_logged_and_the_database_goes_on() {
    let (address, _bodies) = server("500 Internal Server Error");
    let (out, log) = ended_well(&webhook(Some(&format!("http://{address}/"))));
    assert!(log.contains("could not post \"3 sessions were given up"), "{log}");
    assert!(log.contains("it answered 500") && !out.contains("posted"), "{out}{log}");
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (_, log) = ended_well(&webhook(Some(&format!("http://{gone}/"))));
    assert!(log.contains("could not post \"3 sessions were given up"), "{log}");
    let (_, log) = ended_well(&webhook(Some("no url at all")));
    assert!(log.contains("could not post"), "{log}");
}

#[test]
fn a_server_that_says_nothing_is_given_up_after_five_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let began = Instant::now();
    let (_, log) = ended_well(&webhook(Some(&format!("http://{address}/"))));
    assert!(log.contains("could not post \"3 sessions were given up"), "{log}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(5) && took < PATIENCE, "{took:?}");
}

/// The server of events, until it is dropped.
struct Sse {
    child: Child,
    address: String,
}

impl Sse {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sse"));
        command.env("TIDAL_SSE_LISTEN", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("it says where it listens");
        // It goes on to print, and must not be stopped by that.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let address = line.trim().strip_prefix("listening on http://").expect("an address");
        Self { child, address: address.to_owned() }
    }

    fn get(&self, path: &str) -> BufReader<TcpStream> {
        let mut client = TcpStream::connect(&self.address).expect("it listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        client.write_all(request.as_bytes()).expect("asked");
        BufReader::new(client)
    }
}

impl Drop for Sse {
    fn drop(&mut self) {
        self.child.kill().expect("it ran");
        self.child.wait().expect("it ends");
    }
}

/// The next message of a stream.
fn next(client: &mut BufReader<TcpStream>) -> Value {
    loop {
        let mut line = String::new();
        assert!(client.read_line(&mut line).expect("in time") > 0, "the stream has ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str(data).expect("JSON");
        }
        assert!(line.trim_end().is_empty() || line.starts_with(": "), "{line:?}");
    }
}

#[test]
fn a_client_is_told_of_its_own_users_sessions_and_of_no_other() {
    let sse = Sse::start();
    let (mut one, mut two) = (sse.get("/users/1/events"), sse.get("/users/2/events"));
    // Of one that goes away nobody takes notice.
    drop(sse.get("/users/1/events"));
    for client in [&mut one, &mut two] {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(client.read_line(&mut head).expect("in time") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
    }
    let mut of_one = Vec::new();
    let mut of_two = Vec::new();
    for (client, seen) in [(&mut one, &mut of_one), (&mut two, &mut of_two)] {
        while seen.len() < 2 {
            let ended = next(client);
            assert_eq!(
                (&ended["type"], &ended["status"]),
                (&"session_ended".into(), &"ended".into())
            );
            let failed = next(client);
            assert_eq!(failed["type"], "session_timed_out");
            assert_eq!(failed["status"], "failed");
            assert_eq!(failed["session_id"], ended["session_id"], "nobody else's comes between");
            let message = failed["message"].as_str().expect("text");
            assert!(message.contains("timed out after 30 min"), "{message}");
            assert!(failed["time"].as_u64() > ended["time"].as_u64(), "{ended} {failed}");
            seen.push(failed["session_id"].as_u64().expect("a number"));
        }
    }
    assert!(of_one.iter().all(|id| !of_two.contains(id)), "{of_one:?} {of_two:?}");
}

#[test]
fn what_is_no_stream_of_a_user_is_refused() {
    let sse = Sse::start();
    for (path, status) in [("/", "404"), ("/users/x/events", "404"), ("/users/1", "404")] {
        let mut answer = String::new();
        sse.get(path).read_line(&mut answer).expect("in time");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    let mut client = TcpStream::connect(&sse.address).expect("it listens");
    client.write_all(b"POST /users/1/events HTTP/1.1\r\n\r\n").expect("asked");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}
