//! As much of HTTP/1.1 as a scrape needs: GET and HEAD of three paths, one request a connection, everything bounded.
//!
//! ```text
//! accepted ──> head (8 KiB, 32 fields) ──> answer ──> what else comes is read and forgotten ──> closed
//!      └──────────────────────── all of it within 5 s, 16 at once ───────────────────────────────┘
//! ```
//!
//! A body isn't read, nor is anything decided from a header but the length of the whole. What is told is written on a
//! thread beside the loop, which has runs to look after.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{TEXT_FORMAT, TextEncoder};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{sleep, timeout};

use super::endpoint::{Door, Visitor};
use super::gauges::{look, unready};
use crate::daemon::Daemon;

/// Who is answered at once; others wait in the socket's own queue.
const VISITORS: usize = 16;
/// How long one may take, from the first byte to the last.
const WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD: usize = 8 * 1024;
/// Fields of it.
const FIELDS: usize = 32;
/// Bytes that are read only so that the answer isn't lost with them.
const FORGOTTEN: usize = 64 * 1024;
/// How long to wait when no descriptor is left for another connection.
const PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers until it is aborted.
pub(crate) async fn serve(daemon: Rc<Daemon>, door: Door) {
    let places = Arc::new(Semaphore::new(VISITORS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match door.next().await {
            Ok(visitor) => {
                let daemon = Rc::clone(&daemon);
                spawn_local(async move {
                    let answered = async {
                        match visitor {
                            Visitor::Unix(socket) => answer(&daemon, socket).await,
                            Visitor::Loopback(socket) => answer(&daemon, socket).await,
                        }
                    };
                    // Whoever is late or gone isn't told.
                    let _late = timeout(WITHIN, answered).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the metrics can't be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// What is answered.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
    /// Whether only the head was asked for.
    head_only: bool,
}

impl Answer {
    fn plain(status: &'static str, text: impl Into<String>) -> Self {
        Self { status, kind: PLAIN, body: text.into() + "\n", head_only: false }
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { status, kind, body, head_only } = self;
        let length = body.len();
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

async fn answer(daemon: &Rc<Daemon>, mut socket: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let answer = match head(&mut socket).await? {
        Ok(request) => {
            let mut answer = told(daemon, &request).await;
            answer.head_only = request.method == "HEAD";
            answer
        }
        Err(refusal) => refusal,
    };
    socket.write_all(&answer.bytes()).await?;
    socket.shutdown().await?;
    // A socket that is closed over unread bytes takes the answer along.
    let mut forgotten = [0; 1024];
    let mut left = FORGOTTEN;
    while left > 0 {
        match socket.read(&mut forgotten).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

/// What is asked for.
struct Asked {
    method: String,
    path: String,
}

/// Reads a request's head.
async fn head(socket: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Result<Asked, Answer>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&bytes) {
            Ok(httparse::Status::Complete(_)) => {
                let word = |word: Option<&str>| word.unwrap_or_default().to_owned();
                return Ok(Ok(Asked { method: word(request.method), path: word(request.path) }));
            }
            Ok(httparse::Status::Partial) if bytes.len() < HEAD => {}
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                let text = format!("a request's head may have {HEAD} bytes and {FIELDS} fields");
                return Ok(Err(Answer::plain("431 Request Header Fields Too Large", text)));
            }
            Err(error) => {
                return Ok(Err(Answer::plain("400 Bad Request", format!("this isn't HTTP/1: {error}"))));
            }
        }
    }
}

/// As [`head`], with the answer of a refusal whole.
#[cfg(feature = "fuzzing")]
pub(crate) async fn head_of(socket: &mut (impl AsyncRead + Unpin)) -> std::io::Result<crate::fuzzing::Head> {
    Ok(match head(socket).await? {
        Ok(Asked { method, path }) => crate::fuzzing::Head::Asked { method, path },
        Err(refusal) => crate::fuzzing::Head::Refused(refusal.bytes()),
    })
}

async fn told(daemon: &Rc<Daemon>, asked: &Asked) -> Answer {
    if !matches!(asked.method.as_str(), "GET" | "HEAD") {
        return Answer::plain("405 Method Not Allowed", "only GET and HEAD");
    }
    match asked.path.split('?').next().unwrap_or_default() {
        "/metrics" => metrics(daemon).await,
        // Whoever reads this has been answered by the loop that answers clients.
        "/healthz" => Answer::plain("200 OK", "ok"),
        "/readyz" => {
            let reasons = unready(&daemon.state.borrow());
            if reasons.is_empty() {
                Answer::plain("200 OK", "ready")
            } else {
                Answer::plain("503 Service Unavailable", reasons.join("\n"))
            }
        }
        _ => Answer::plain("404 Not Found", "there are /metrics, /healthz and /readyz"),
    }
}

async fn metrics(daemon: &Rc<Daemon>) -> Answer {
    let registry = {
        let mut state = daemon.state.borrow_mut();
        look(&mut state);
        state.figures.registry.clone()
    };
    let written = spawn_blocking(move || TextEncoder::new().encode_to_string(&registry.gather())).await;
    match written {
        Ok(Ok(body)) => Answer { status: "200 OK", kind: TEXT_FORMAT, body, head_only: false },
        Ok(Err(error)) => Answer::plain("500 Internal Server Error", error.to_string()),
        Err(_ended) => Answer::plain("503 Service Unavailable", "the daemon is ending"),
    }
}
