//! A supervisor that says what a test has it say.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use stockade_client::{ExecEvent, ExecId, Outcome, Stream, Usage};
use stockade_protocol::Bytes;
use stockade_protocol::bounds::MAX_FRAME;
use stockade_protocol::client::{ClientMessage, ServerMessage, Welcome};
use stockade_protocol::codec;

/// How long a client may take to say what it should, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The supervisor's end of one connection.
pub(crate) struct Script(pub(crate) UnixStream);

impl Script {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// The client's next message; `None`: it has closed, or says nothing.
    pub(crate) fn read(&mut self) -> Option<ClientMessage> {
        let mut header = [0; codec::HEADER];
        self.0.read_exact(&mut header).ok()?;
        let mut payload = vec![0; codec::payload_length(header, MAX_FRAME).unwrap()];
        self.0.read_exact(&mut payload).unwrap();
        Some(codec::decode_payload(&payload).unwrap())
    }

    pub(crate) fn say(&mut self, message: &ServerMessage) {
        self.0.write_all(&frame(message)).unwrap();
    }

    pub(crate) fn event(&mut self, exec_id: ExecId, seq: u64, event: ExecEvent) {
        self.say(&ServerMessage::Event { exec_id, seq, event });
    }

    pub(crate) fn welcome(&mut self, version: u16) {
        assert!(matches!(self.read(), Some(ClientMessage::Hello(_))));
        let server = "script".to_owned();
        self.say(&ServerMessage::Welcome(Welcome { version, features: 1, max_frame: MAX_FRAME, server }));
    }

    /// Expects a request, and takes it.
    pub(crate) fn accept(&mut self, exec_id: ExecId) {
        let Some(ClientMessage::Exec(request)) = self.read() else { panic!("expected a request") };
        self.event(exec_id, 1, ExecEvent::Accepted { request_id: request.request_id });
    }
}

/// A socket of a name, for any number of supervisors after each other.
pub(crate) struct Door {
    directory: tempfile::TempDir,
    listener: Option<UnixListener>,
}

impl Door {
    pub(crate) fn open() -> Self {
        let mut door = Self { directory: tempfile::tempdir().unwrap(), listener: None };
        door.reopen();
        door
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    pub(crate) fn close(&mut self) {
        self.listener = None;
        std::fs::remove_file(self.path()).unwrap();
    }

    pub(crate) fn reopen(&mut self) {
        let listener = UnixListener::bind(self.path()).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.listener = Some(listener);
    }

    /// Who has come; `None`: nobody.
    pub(crate) fn come(&self) -> Option<Script> {
        let stream = self.listener.as_ref()?.accept().ok()?.0;
        stream.set_nonblocking(false).unwrap();
        Some(Script::new(stream))
    }

    /// Who comes, waiting for it.
    pub(crate) fn next(&self) -> Script {
        self.listener.as_ref().unwrap().set_nonblocking(false).unwrap();
        let stream = self.listener.as_ref().unwrap().accept().unwrap().0;
        self.listener.as_ref().unwrap().set_nonblocking(true).unwrap();
        Script::new(stream)
    }
}

pub(crate) fn frame(message: &ServerMessage) -> Vec<u8> {
    let mut frame = Vec::new();
    codec::encode_frame(message, MAX_FRAME, &mut frame).unwrap();
    frame
}

pub(crate) fn id(last: u8) -> ExecId {
    ExecId::from_bytes([1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, last])
}

pub(crate) fn exited(code: u8) -> ExecEvent {
    ExecEvent::Exited {
        outcome: Outcome::Exited { code },
        usage: Usage::default(),
        trusted_files: vec![],
        redactions: None,
        result_check: None,
    }
}

pub(crate) fn output(bytes: &str) -> ExecEvent {
    ExecEvent::Output { stream: Stream::Stdout, bytes: Bytes::from(bytes) }
}
