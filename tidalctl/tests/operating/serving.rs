//! `tidalctl serve`, over real sockets.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Said, Scene, paper};

/// Long enough for the slowest machine, and far from for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `tidalctl serve` that runs; killed when dropped.
pub(crate) struct Server {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Server {
    /// Starts one beside the directory of the database, and waits until it says where it listens.
    pub(crate) fn start(line: &str, dir: &Path) -> Self {
        let mut child = crate::command(line, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut told = String::new();
        out.read_line(&mut told).expect("it writes");
        let address = told.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let mut address: SocketAddr = address
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("no address in {told:?}"));
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        Self { child, out, address }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    fn ask(&self, head: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer { status: status.expect("a status"), head: head.into(), body: body.into() }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}", self.address))
    }

    pub(crate) fn get_with(&self, path: &str, token: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}"))
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(mut self, signal: &str) -> Said {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("there is a kill");
        assert!(sent.success(), "{signal} was not sent");
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None => assert!(began.elapsed() < PATIENCE, "{signal} does not end it"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).expect("text");
        let mut errors = self.child.stderr.take().expect("piped");
        errors.read_to_string(&mut err).expect("text");
        Said { code: status.code().unwrap_or(-1), out, err }
    }
}

const SERVE: &str = "serve --dir DIR --listen 127.0.0.1:0";

#[test]
fn prometheus_is_told_every_documented_metric_and_no_other() {
    let scene = Scene::new();
    let server = Server::start(SERVE, &scene.dir);
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("\r\nContent-Type: text/plain; version=0.0.4;"), "{answer:?}");
    let text = paper("docs/metrics.md");
    let documented: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `tidal_"))
        .filter_map(|rest| rest.split_once('`').map(|(name, _)| name))
        .collect();
    assert!(documented.len() >= 15, "the list is not found: {documented:?}");
    let lines = |start: &'static str| {
        let named = answer.body.lines().filter_map(move |line| line.strip_prefix(start));
        named.filter_map(|rest| rest.split([' ', '{']).next()).collect::<BTreeSet<&str>>()
    };
    assert_eq!(lines("# HELP tidal_"), documented);
    assert_eq!(lines("# TYPE tidal_"), documented);
    // All have a value but those of cursors and of processors, of which there are none.
    let valued = lines("tidal_");
    let empty = [
        "cursor_events",
        "processor_consecutive_failures",
        "processor_last_finished_age_seconds",
        "processor_quarantined",
        "processor_waiting",
    ];
    assert_eq!(documented.difference(&valued).copied().collect::<Vec<_>>(), empty);
    for line in ["tidal_health 0", "tidal_store_in_use{store=\"b\"} 1", "tidal_sessions_open 1"] {
        assert!(answer.body.lines().any(|it| it == line), "{line} is missing: {}", answer.body);
    }
}

#[test]
fn health_is_told_as_a_word_as_a_report_and_as_that_of_sessions() {
    let scene = Scene::new();
    let server = Server::start(SERVE, &scene.dir);
    let answer = server.get("/healthz?verbose");
    assert_eq!((answer.status, answer.json()), (200, serde_json::json!({ "status": "healthy" })));
    let report = server.get("/health").json();
    assert_eq!(report["status"], "healthy", "{report:#}");
    let rules: Vec<&Value> =
        report["checks"].as_array().expect("a list").iter().map(|check| &check["rule"]).collect();
    for rule in ["journal.log", "journal.checkpoint", "stores", "recovery", "background"] {
        assert!(rules.iter().any(|it| *it == rule), "{rule} is missing: {report:#}");
    }
    let sessions = server.get("/health/sessions").json();
    assert_eq!(sessions["status"], "healthy", "{sessions:#}");
    assert_eq!(sessions["metrics"]["open"], 1, "{sessions:#}");
    assert_eq!(sessions["metrics"]["stuck"], 0, "{sessions:#}");
    let thresholds = serde_json::json!({
        "warning_after_s": 900, "timeout_after_s": 1_800, "max_long_running": 3
    });
    assert_eq!(sessions["thresholds"], thresholds, "{sessions:#}");
    let stuck = server.get("/health/sessions/stuck").json();
    assert_eq!(stuck, serde_json::json!({ "count": 0, "sessions": [] }));
    let timestamp = sessions["timestamp"].as_str().expect("a text");
    assert!(timestamp.contains('T') && timestamp.ends_with('Z'), "{timestamp}");
}

#[test]
fn pages_are_only_read_and_a_page_that_is_not_there_names_those_that_are() {
    let scene = Scene::new();
    let server = Server::start(SERVE, &scene.dir);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = server.ask(&format!("{method} /health HTTP/1.1"));
        assert_eq!(answer.status, 405, "{answer:?}");
        assert!(answer.head.contains("\r\nAllow: GET, HEAD"), "{answer:?}");
    }
    let answer = server.get("/metric");
    assert_eq!(answer.status, 404, "{answer:?}");
    let pages = ["/metrics", "/healthz", "/health", "/health/sessions", "/health/sessions/stuck"];
    assert_eq!(answer.json()["pages"], serde_json::json!(pages));
    let answer = server.ask("HEAD /health HTTP/1.1");
    assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
}

#[test]
fn slow_and_garbled_clients_hold_up_nobody() {
    let scene = Scene::new();
    let server = Server::start(SERVE, &scene.dir);
    // More than there are places.
    let silent: Vec<TcpStream> = (0..40)
        .map(|number| {
            let mut stream = server.connect();
            if number % 2 == 0 {
                stream.write_all(b"GET /met").expect("it reads");
            }
            stream
        })
        .collect();
    let began = Instant::now();
    for _ in 0..40 {
        assert_eq!(server.get("/healthz").status, 200);
        assert_eq!(server.ask("\u{0}\u{1}").status, 400);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "80 requests took {took:?}");
    drop(silent);
}

#[test]
fn a_signal_closes_the_database_and_nothing_is_left_to_repair() {
    let scene = Scene::new();
    // At once, while what the open wrote is not proven yet but by a close; several times, since a
    // machine that is slow proves it meanwhile.
    for signal in ["-TERM", "-INT"].repeat(4) {
        let server = Server::start(SERVE, &scene.dir);
        let silent = server.connect();
        let said = server.stop(signal);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "closed\n", ""));
        let opened = &scene.look("inspect --dir DIR --json").json()["opened"];
        assert_eq!((&opened["clean"], &opened["repairs"]), (&true.into(), &Value::Array(vec![])));
        drop(silent);
    }
}

const TOKEN: &str = "kR7+mbJx2uQnV0sTgYfE";

#[test]
fn off_loopback_and_wherever_there_is_one_a_token_is_required() {
    let scene = Scene::new();
    for address in ["192.0.2.1:9187", "0.0.0.0:0", "[::]:0"] {
        let said = scene.look(&format!("serve --dir DIR --listen {address}"));
        said.refuses(2, "others could read without a token");
        assert!(said.err.contains("\nhint: add --token-file FILE"), "{said:?}");
    }
    std::fs::write(scene.beside("token"), format!("{TOKEN}\n")).expect("written");
    for listen in ["0.0.0.0:0", "127.0.0.1:0"] {
        let line = format!("serve --dir DIR --listen {listen} --token-file token");
        let server = Server::start(&line, &scene.dir);
        for path in ["/metrics", "/healthz", "/health", "/health/sessions", "/nothing"] {
            let answer = server.get(path);
            assert_eq!(answer.status, 401, "{answer:?}");
            assert!(answer.head.contains("\r\nWWW-Authenticate: Bearer"), "{answer:?}");
        }
        assert_eq!(server.get_with("/healthz", &TOKEN[..TOKEN.len() - 1]).status, 401);
        assert_eq!(server.get_with("/healthz", TOKEN).status, 200);
        assert_eq!(server.stop("-TERM").code, 0);
    }
}

#[test]
fn what_cannot_be_served_is_refused_before_the_database_is_opened() {
    let scene = Scene::new();
    std::fs::write(scene.beside("token"), "short\n").expect("written");
    let refused = |line: &str, about| scene.look(line).refuses(1, about);
    refused("serve --dir DIR --token-file token", "is not 16 to 1024 visible characters");
    refused("serve --dir DIR --token-file nothing", "could not read the token in nothing");
    refused("serve --dir nowhere --listen 127.0.0.1:0", "there is no database at nowhere");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let line = format!("serve --dir DIR --listen {address}");
    refused(&line, "nothing can listen at 127.0.0.1:");
    assert_eq!(scene.look("serve --dir DIR --listen everywhere").code, 2);
}
