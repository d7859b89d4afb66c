//! The collector, and the way there: a queue with a bound, a request a second at most, and no second try.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::str::FromStr;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::encode;
use super::span::Span;
use crate::daemon::Daemon;
use crate::patience::patience;

/// Spans that may wait. More are lost.
const WAITING: usize = 4096;
/// Spans of one request.
const BATCH: usize = 512;
/// How long spans wait for others.
const TOGETHER: Duration = Duration::from_secs(1);
/// How long a request may take.
const WITHIN: Duration = patience(Duration::from_secs(5));
/// How long the last ones may take when the daemon stops.
const LAST_WITHIN: Duration = patience(Duration::from_secs(1));
/// Bytes of an answer's head.
const HEAD: usize = 8 * 1024;
/// Where OTLP has it below a collector's address.
const PATH: &str = "/v1/traces";

/// Where spans are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(SocketAddr);

/// It isn't one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no collector: give http://ADDRESS:PORT with a numeric address, as http://127.0.0.1:4318; a collector here can pass spans on to others, by name and by TLS"
)]
pub struct NoCollector(String);

impl FromStr for Collector {
    type Err = NoCollector;

    fn from_str(text: &str) -> Result<Self, NoCollector> {
        let address = text.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok());
        address.map(Self).ok_or_else(|| NoCollector(text.to_owned()))
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// Spans on their way.
#[derive(Debug)]
pub(crate) struct Traces {
    collector: Collector,
    waiting: RefCell<VecDeque<Span>>,
    /// Rung when there are some, or no more will come.
    bell: Notify,
    /// Rung when waiting for more is of no use: there is a request's worth, or no more will come.
    hurry: Notify,
    is_over: Cell<bool>,
}

impl Traces {
    pub(crate) fn new(collector: Collector) -> Rc<Self> {
        let (bell, hurry) = (Notify::new(), Notify::new());
        Rc::new(Self { collector, waiting: RefCell::default(), bell, hurry, is_over: Cell::new(false) })
    }

    /// Takes spans, or as many as there is room for. How many are lost.
    pub(crate) fn put(&self, spans: Vec<Span>) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        let (all, room) = (spans.len(), WAITING.saturating_sub(waiting.len()));
        waiting.extend(spans.into_iter().take(room));
        self.bell.notify_one();
        if waiting.len() >= BATCH {
            self.hurry.notify_one();
        }
        all.saturating_sub(room)
    }

    fn take(&self) -> Vec<Span> {
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }
}

/// Sends what comes, until no more will.
pub(crate) async fn send_all(daemon: Rc<Daemon>, traces: Rc<Traces>) {
    loop {
        traces.bell.notified().await;
        if !traces.is_over.get() {
            tokio::select! {
                () = sleep(TOGETHER) => {}
                () = traces.hurry.notified() => {}
            }
        }
        send_waiting(&daemon, &traces).await;
        if traces.is_over.get() {
            return;
        }
    }
}

/// No more will come: what is on its way or waits gets a moment.
pub(crate) async fn last(traces: &Traces, mut sending: JoinHandle<()>) {
    traces.is_over.set(true);
    traces.hurry.notify_one();
    traces.bell.notify_one();
    if timeout(LAST_WITHIN, &mut sending).await.is_err() {
        tracing::warn!(collector = %traces.collector, "the last spans are lost");
        sending.abort();
    }
}

async fn send_waiting(daemon: &Daemon, traces: &Traces) {
    loop {
        let spans = traces.take();
        if spans.is_empty() {
            return;
        }
        let body = encode::request(&spans);
        let sent =
            timeout(WITHIN, post(&traces.collector, &body)).await.unwrap_or_else(|late| Err(late.into()));
        if let Err(error) = &sent {
            tracing::warn!(collector = %traces.collector, %error, spans = spans.len(), "spans are lost");
        }
        daemon.state.borrow().figures.spans(spans.len(), sent.is_ok());
    }
}

/// One request, and what came of it.
async fn post(collector: &Collector, body: &[u8]) -> io::Result<()> {
    let mut socket = TcpStream::connect(collector.0).await?;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\
         User-Agent: stockade/{}\r\nConnection: close\r\n\r\n",
        collector.0,
        body.len(),
        env!("CARGO_PKG_VERSION")
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body).await?;
    let mut answer = Vec::with_capacity(1024);
    while answer.len() < HEAD {
        if socket.read_buf(&mut answer).await? == 0 {
            break;
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&answer).map_err(io::Error::other)? {
            httparse::Status::Partial => {}
            httparse::Status::Complete(_) => {
                let code = response.code.unwrap_or(0);
                let taken = (200..300).contains(&code);
                return if taken { Ok(()) } else { Err(io::Error::other(format!("it answers {code}"))) };
            }
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(count: usize) -> Vec<Span> {
        vec![Span::nothing(); count]
    }

    #[test]
    fn a_requests_worth_is_not_waited_with_and_what_is_too_much_is_lost() {
        let traces = Traces::new("http://127.0.0.1:4318".parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let is_hurried = || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = traces.hurry.notified() => true,
                    () = core::future::ready(()) => false,
                }
            })
        };
        assert_eq!(traces.put(spans(BATCH - 1)), 0);
        assert!(!is_hurried());
        assert_eq!(traces.put(spans(1)), 0);
        assert!(is_hurried());
        assert_eq!(traces.take().len(), BATCH);
        assert_eq!(traces.put(spans(WAITING - 3)), 0);
        assert_eq!(traces.put(spans(8)), 5, "three had room");
        assert_eq!(traces.put(spans(4)), 4);
        let taken: usize =
            core::iter::repeat_with(|| traces.take().len()).take_while(|count| *count > 0).sum();
        assert_eq!(taken, WAITING);
    }

    #[test]
    fn a_collector_is_an_address_and_a_port() {
        for text in ["http://127.0.0.1:4318", "http://[::1]:4318", "http://192.0.2.7:80"] {
            assert_eq!(text.parse::<Collector>().unwrap().to_string(), text);
        }
        assert!("http://127.0.0.1:4318/".parse::<Collector>().is_ok());
        for text in [
            "",
            "127.0.0.1:4318",
            "https://127.0.0.1:4318",
            "http://localhost:4318",
            "http://127.0.0.1",
            "http://127.0.0.1:4318/x",
        ] {
            assert_eq!(text.parse::<Collector>(), Err(NoCollector(text.to_owned())));
        }
    }
}
