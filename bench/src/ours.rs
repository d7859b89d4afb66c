//! Runs over the socket with the client library, from this process.

use std::io::PipeReader;
use std::path::Path;
use std::time::{Duration, Instant};

use stockade_client::{Client, Denied, ExecEvent, Outcome, Overrides, Request};
use stockade_protocol::client::ServerMessage;

use crate::error::BenchError;
use crate::ground::Ground;
use crate::spawn::{PATH, micros};

/// A request in the ground's workspace, its output as events.
pub(crate) fn request(ground: &Ground, policy: &str, words: &[&str]) -> Result<Request, BenchError> {
    request_in(&ground.workspace, policy, words)
}

/// A request in this workspace, its output as events.
pub(crate) fn request_in(workspace: &Path, policy: &str, words: &[&str]) -> Result<Request, BenchError> {
    Request::new(words.iter().copied())
        .policy(policy)
        .variable("PATH", PATH)
        .workspace(workspace)
        .map_err(BenchError::io("open the workspace"))
}

/// A request whose output goes straight into a pipe, and the pipe's other end.
pub(crate) fn passed(ground: &Ground, words: &[&str]) -> Result<(Request, PipeReader), BenchError> {
    let (reader, writer) = std::io::pipe().map_err(BenchError::io("make a pipe"))?;
    let stderr = writer.try_clone().map_err(BenchError::io("duplicate a pipe"))?;
    let request = request(ground, "bench-passed", words)?.output_to(writer.into(), stderr.into());
    Ok((request, reader))
}

/// Runs to its end; how long it took from before the request to after `Exited`, in microseconds.
pub(crate) fn timed(client: &mut Client, request: &Request) -> Result<f64, BenchError> {
    let began = Instant::now();
    let exec_id = client.exec(request)?;
    let mut ended = None;
    for event in client.events(exec_id) {
        if let ExecEvent::Exited { outcome, .. } = event?.event {
            ended = Some((outcome, began.elapsed()));
        }
    }
    let (outcome, took) =
        ended.ok_or_else(|| BenchError::Wrong("the events ended without `Exited`".into()))?;
    expect_success(&outcome)?;
    Ok(micros(took))
}

/// Refuses the time of a run that didn't do what it should.
pub(crate) fn expect_success(outcome: &Outcome) -> Result<(), BenchError> {
    match outcome {
        Outcome::Exited { code: 0 } => Ok(()),
        other => Err(BenchError::Wrong(format!("the run ended otherwise than it should: {other:?}"))),
    }
}

/// With a tighter limit on wall time.
pub(crate) fn within(request: Request, wall: Duration) -> Request {
    let wall_ms = u64::try_from(wall.as_millis()).ok();
    request.overrides(Overrides { wall_ms, ..Overrides::default() })
}

/// How the next run of this connection that ends has ended.
pub(crate) fn next_end(client: &mut Client) -> Result<Outcome, BenchError> {
    loop {
        match client.receive(None)? {
            ServerMessage::Event { event: ExecEvent::Exited { outcome, .. }, .. } => return Ok(outcome),
            ServerMessage::Denied { denied, .. } => return Err(denial(&denied)),
            _ => {}
        }
    }
}

/// A refusal, as an error.
pub(crate) fn denial(denied: &Denied) -> BenchError {
    BenchError::Wrong(format!("denied: {denied}"))
}
