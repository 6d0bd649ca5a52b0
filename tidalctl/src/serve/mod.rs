//! `tidalctl serve`: a database that others may ask how it is, over HTTP.
//!
//! Knows: the order of things: who may listen where, when the database is opened, when it is closed.
//! Must not know: HTTP, what a page says.
//!
//! - `http`: requests and replies on sockets, bounded in size, time and number;
//! - `pages`: which path says what, and to whom;
//! - `prometheus`: numbers as Prometheus reads them.

mod http;
mod pages;
mod prometheus;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::ServeArgs;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::print;

use self::http::Limits;
use self::pages::{Pages, Token};

/// Carries out `tidalctl serve`, until it is told to end.
///
/// # Errors
///
/// When everybody could read it, nothing can listen there, or the database cannot be opened or closed.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    expect_token_off_loopback(args)?;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let listener = TcpListener::bind(args.listen)
        .map_err(|error| anyhow::Error::from(Failure::failed(error.to_string())))
        .with_context(|| format!("nothing can listen at {}", args.listen))?;
    let address = listener.local_addr()?;
    // Before the database is open: from then on a signal closes it.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let pages = Arc::new(Pages::new(Engine::open(&args.of.dir)?, token));
    let answers = Arc::clone(&pages);
    let told = http::serve(listener, Limits::default(), move |request| answers.answer(request))
        .context("no thread for requests")
        .and_then(|()| announce(args, address));
    if told.is_ok() {
        signals.forever().next();
    }
    pages.close()?;
    told?;
    let closed = "closed\n";
    if args.of.json { Ok(()) } else { Ok(print::out(closed)?) }
}

fn announce(args: &ServeArgs, address: SocketAddr) -> anyhow::Result<()> {
    if args.of.json {
        return Ok(print::json(&json!({ "listening": address.to_string() }))?);
    }
    let dir = args.of.dir.display();
    let line = format!("{dir} is open, and answers at http://{address} until ctrl-c or SIGTERM");
    Ok(print::out(&print::printable_line(&line))?)
}

fn expect_token_off_loopback(args: &ServeArgs) -> Result<(), Failure> {
    let is_loopback = args.listen.ip().to_canonical().is_loopback();
    if is_loopback || args.token_file.is_some() {
        return Ok(());
    }
    Err(Failure::usage(format!("at {} others could read without a token", args.listen))
        .hint("add --token-file FILE, or listen at 127.0.0.1"))
}

fn read_token(path: &Path) -> anyhow::Result<Token> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("could not read the token in {}", path.display()))?;
    Token::new(text.trim()).ok_or_else(|| {
        let hint = "make one: head -c 24 /dev/urandom | base64 > FILE";
        let message =
            format!("the token in {} is not 16 to 1024 visible characters", path.display());
        Failure::failed(message).hint(hint).into()
    })
}
