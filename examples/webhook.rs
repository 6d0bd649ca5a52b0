//! Alerts to a webhook: what an operator should know is posted as `{"text": "…"}`, which Slack and many others
//! take.
//!
//! ```sh
//! TIDAL_WEBHOOK_URL=https://hooks.example/T0/B0 cargo run -p tidal-examples --bin webhook
//! ```
//!
//! Knows: events, health, one URL. Must not know: what a session is about.
//!
//! Whatever the other side does, nothing comes back to the database: its callbacks put alerts into a queue with
//! room for some, and a thread posts them. What cannot be posted is logged and forgotten. Alerts of one
//! position of the log are one message.

mod shop;

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use shop::{Result, Shop};
use tidaldb::{EventFilter, EventKind, FailCause, HealthReport, Seq, SessionEvent, SessionId};

/// How long the other side may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Alerts that may wait to be posted.
const QUEUE_LEN: usize = 256;

/// What is published together comes together; nothing waits for longer than this for company.
const COMPANY: Duration = Duration::from_millis(100);

/// How often health is looked at: 20 ms, so that the demonstration sees it; in a service five minutes are usual.
const HEALTH_INTERVAL: Duration = Duration::from_millis(20);

/// Something that an operator should know.
enum Alert {
    /// A session was given up.
    GivenUp(Seq, SessionId, FailCause),
    /// A check has come to warn, or ceased to.
    HealthChanged(String),
    /// So many alerts were not taken fast enough.
    Missed(u64),
}

fn main() -> Result<()> {
    let shop = Shop::open()?;
    let url = std::env::var("TIDAL_WEBHOOK_URL").ok().filter(|url| !url.trim().is_empty());
    let Some(url) = url else {
        eprintln!("warning: TIDAL_WEBHOOK_URL is not set, so nobody is alerted");
        shop.let_time_out(&[1, 2, 3], || ())?;
        return goes_on(&shop);
    };
    let (alert, alerts) = mpsc::sync_channel(QUEUE_LEN);
    let (dealt_with, posted) = mpsc::channel();
    let poster = std::thread::spawn(move || post_all(&url, &alerts, &dealt_with));

    let (of_sessions, of_health) = (alert.clone(), alert);
    let filter = EventFilter::all().kinds([EventKind::Failed]);
    let guard =
        shop.db.sessions().add_subscriber(
            filter,
            move |seq, event: &SessionEvent| match event {
                SessionEvent::Failed { id, cause } => {
                    queue(&of_sessions, Alert::GivenUp(seq, *id, cause.clone()));
                }
                SessionEvent::Lagged { dropped } => queue(&of_sessions, Alert::Missed(*dropped)),
                _ => {}
            },
        )?;
    let watch = shop.db.watch_health(HEALTH_INTERVAL, move |report| {
        queue(&of_health, Alert::HealthChanged(headline(report)));
    })?;

    // Health says that they are stuck; then they are given up.
    let wait = || {
        let _ = posted.recv_timeout(2 * TIMEOUT);
    };
    shop.let_time_out(&[1, 2, 3], wait)?;
    while posted.recv_timeout(2 * TIMEOUT) == Ok(false) {}
    goes_on(&shop)?;
    // Nobody sends any more once these are gone, and then the poster ends.
    drop((guard, watch));
    drop(shop);
    poster.join().map_err(|_| "the thread that posts has panicked")?;
    Ok(())
}

/// Whatever became of the alerts.
fn goes_on(shop: &Shop) -> Result<()> {
    let session = shop.db.start_session(4, "shop", "default")?;
    session.close()?;
    println!("the database goes on");
    Ok(())
}

/// Puts an alert into the queue, if there is room: no callback waits.
fn queue(alerts: &SyncSender<Alert>, alert: Alert) {
    match alerts.try_send(alert) {
        Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        Err(TrySendError::Full(_)) => eprintln!("too many alerts wait: one was dropped"),
    }
}

fn headline(report: &HealthReport) -> String {
    let gravest = report.findings().first().map(|check| check.detail.clone());
    match gravest {
        Some(detail) => format!("health is {}: {detail}", report.overall),
        None => format!("health is {}", report.overall),
    }
}

/// Posts alerts until nobody sends any more. Says after each message that it was dealt with, well or not, and
/// whether it was of sessions.
fn post_all(url: &str, alerts: &Receiver<Alert>, dealt_with: &Sender<bool>) {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let mut waiting = VecDeque::new();
    while let Some(alert) = waiting.pop_front().or_else(|| alerts.recv().ok()) {
        let is_of_sessions = matches!(alert, Alert::GivenUp(..));
        let text = match alert {
            Alert::GivenUp(seq, id, cause) => {
                wait_for_company(alerts, &mut waiting);
                let mut given_up = vec![(id, cause)];
                for alert in std::mem::take(&mut waiting) {
                    match alert {
                        Alert::GivenUp(of, id, cause) if of == seq => given_up.push((id, cause)),
                        other => waiting.push_back(other),
                    }
                }
                given_up_text(&given_up)
            }
            Alert::HealthChanged(text) => text,
            Alert::Missed(1) => "1 event of sessions was missed".to_owned(),
            Alert::Missed(count) => format!("{count} events of sessions were missed"),
        };
        match post(&agent, url, &text) {
            Ok(()) => println!("posted: {text}"),
            Err(reason) => eprintln!("could not post {text:?}: {reason}"),
        }
        // Nobody may be listening any more.
        let _ = dealt_with.send(is_of_sessions);
    }
}

/// What is of one frame is published together, and something else may come between.
fn wait_for_company(alerts: &Receiver<Alert>, waiting: &mut VecDeque<Alert>) {
    let until = Instant::now() + COMPANY;
    while let Ok(alert) = alerts.recv_timeout(until.saturating_duration_since(Instant::now())) {
        waiting.push_back(alert);
    }
}

fn given_up_text(given_up: &[(SessionId, FailCause)]) -> String {
    let each: Vec<String> = given_up.iter().map(|(id, cause)| format!("{id} ({cause})")).collect();
    let how_many = match given_up.len() {
        1 => "1 session was".to_owned(),
        len => format!("{len} sessions were"),
    };
    format!("{how_many} given up: {}", each.join(", "))
}

fn post(agent: &ureq::Agent, url: &str, text: &str) -> std::result::Result<(), String> {
    let body = serde_json::json!({ "text": text }).to_string();
    let request = agent.post(url).header("content-type", "application/json");
    let response = request.send(&body).map_err(|error| error.to_string())?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it answered {status}")),
    }
}
