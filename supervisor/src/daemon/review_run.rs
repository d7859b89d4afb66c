//! The run of one reviewer program: the call that it is, its directory, what it's given, and what it has said.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use stockade_gate::approve::{Answer, MAX_ANSWER, Reviewer};
use stockade_gate::redact::Redactor;
use stockade_gate::tools::hex;
use stockade_protocol::approval::ApprovalSummary;
use stockade_protocol::bounds::MAX_STDIN_CHUNK;
use stockade_protocol::client::{ExecRequest, OutputMode, Overrides, StdinMode, ToolCall, Workspace};
use stockade_protocol::denied::{Denied, DenyReason};
use stockade_protocol::launch::Owner;
use stockade_protocol::outcome::Outcome;
use stockade_protocol::{Bytes, ExecId};
use tokio::task::spawn_blocking;

use super::approving::milliseconds;
use super::following::LENGTHS;
use super::printed::printed;
use super::requests::{Descriptors, size_of};
use super::state::State;
use crate::admission::{self, Caller, OutputRules, Passed};
use crate::dispatcher::ConnectionId;
use crate::gate::Call;
use crate::runs::Run;
use crate::words;

/// The connection of what the daemon asks for itself: there is none, and no client has this number.
pub(super) const NOBODY: ConnectionId = ConnectionId(0);
/// The directory of their directories, in the daemon's state.
const PLACE: &str = "reviews";
/// Bytes that a reviewer may print, both streams together: an answer, and what else it has to say, which nobody reads.
const MAX_PRINTED: u64 = 64 * 1024;

/// A reviewer that is to be begun: its run, what it looks at, what it's given, and for how long.
pub(super) struct Sought<'a> {
    pub(super) id: ExecId,
    pub(super) question: ExecId,
    pub(super) reviewer: &'a Reviewer,
    pub(super) input: Bytes,
    pub(super) left: Duration,
}

/// A directory for one reviewer's run, which nothing was in before.
#[derive(Debug)]
pub(super) struct Room {
    path: PathBuf,
    /// By what a launcher that doesn't believe us sees that the run is ours.
    proof: Option<OwnedFd>,
}

impl Room {
    /// Makes one. May block.
    ///
    /// # Errors
    /// Those of mkdir(2), and of the sockets of a proof.
    pub(super) fn make(place: &Path, id: ExecId, has_to_prove: bool) -> io::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        builder.recursive(true).create(place)?;
        let path = place.canonicalize()?.join(id.to_string());
        builder.recursive(false).create(&path)?;
        let proof = if has_to_prove { Some(proof(&path)?) } else { None };
        Ok(Self { path, proof })
    }
}

/// A connection of our own, accepted: of that the kernel says that it's ours, as it does of a client's.
fn proof(room: &Path) -> io::Result<OwnedFd> {
    // By its descriptor: a socket's name is shorter than paths may be.
    let folder = std::fs::File::open(room)?;
    let name = PathBuf::from(format!("/proc/self/fd/{}/s", folder.as_raw_fd()));
    let listener = UnixListener::bind(&name)?;
    let _ours = UnixStream::connect(&name)?;
    let (accepted, _) = listener.accept()?;
    std::fs::remove_file(room.join("s"))?;
    Ok(accepted.into())
}

/// Where reviewers' runs have their directories, in a daemon's state. What an earlier one has left there nobody needs: its runs end.
pub(crate) fn place_of_reviews(state: &Path) -> PathBuf {
    let place = state.join(PLACE);
    if !place.is_absolute() {
        return place;
    }
    match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, place = %place.display(), "directories of ended reviewers can't be removed");
        }
        _ => {}
    }
    place
}

/// Removes a reviewer's directory, aside.
pub(super) fn clear(room: PathBuf) {
    let _aside = spawn_blocking(move || match std::fs::remove_dir_all(&room) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, room = %room.display(), "the directory of a reviewer's run can't be removed");
        }
        _ => {}
    });
}

impl State {
    /// The run of a reviewer, and bytes that it holds in the queue. Nothing of the asker's is in it but what is shown of his request.
    ///
    /// # Errors
    /// There is no such tool any more, its program is another, or admission refuses it.
    pub(super) fn review_run(
        &mut self,
        sought: Sought<'_>,
        home: PathBuf,
        room: Room,
    ) -> Result<(Run, usize), Denied> {
        let Sought { id, question, reviewer, input, left } = sought;
        let Room { path, proof } = room;
        let mut request = request(&path, left);
        let call = ToolCall { name: reviewer.tool.value.clone(), parameters: "{}".into() };
        let call = Call::of(call, &request, self.gate.tools())?;
        let called = call.called();
        self.gate.check_pin(&call, self.settings.uid)?;
        // Roles say who may call it, and nobody does.
        let openings = call.fill(&mut request, true)?;
        if request.stdin != StdinMode::None || !openings.is_empty() {
            let text = "a reviewer's standard input is the request";
            return Err(Denied::new(DenyReason::BadRequest, text));
        }
        request.stdin = StdinMode::Inline(input);
        let owner =
            Owner { uid: self.settings.uid, gid: rustix::process::getegid().as_raw(), groups: Vec::new() };
        let caller = Caller { owner, home, user_mode: self.settings.is_user_mode() };
        let passed = Passed::default();
        let rules = OutputRules { redacts_by_default: self.gate.redacts_by_default(), is_checked: false };
        let mut admitted = admission::admit(request, id, &caller, &mut self.specs, &passed, rules)?;
        admitted.launch.note.tool = Some(called);
        admitted.launch.note.reviews = Some(question);
        let bytes = size_of(&admitted);
        let nothing = Descriptors { workspace: None, unopened: None, stdin: None, output: Vec::new() };
        let mut run = self.make_run(NOBODY, 0, id, admitted, nothing, false)?;
        run.reviews = Some(question);
        if let Some(waiting) = &mut run.waiting {
            waiting.launch.proved = proof.is_some();
            waiting.proof = proof.map(Rc::new);
        }
        Ok((run, bytes))
    }
}

fn request(room: &Path, left: Duration) -> ExecRequest {
    let overrides = Overrides {
        wall_ms: Some(milliseconds(left).max(1)),
        output: Some(MAX_PRINTED),
        ..Overrides::default()
    };
    ExecRequest {
        request_id: 0,
        argv: Vec::new(),
        environment: Vec::new(),
        cwd: Bytes::default(),
        policy: String::new(),
        workspace: Workspace::Path { path: room.into() },
        overrides,
        stdin: StdinMode::None,
        output: OutputMode::Stream,
        detach: true,
        tool: None,
    }
}

/// One line of JSON: what `stockade approve --json` tells of a request, but for how far answers are. Each part is shown as long as all
/// of it fits standard input.
pub(super) fn brief(shown: impl Fn(usize) -> ApprovalSummary) -> serde_json::Result<Brief> {
    let (mut text, mut is_cut) = (Vec::new(), false);
    for most in LENGTHS {
        let summary = shown(most);
        is_cut = summary.is_cut;
        let mut object = serde_json::to_value(&summary)?;
        if let Some(object) = object.as_object_mut() {
            for answers in ["panels", "needed", "approved", "left_ms", "may_answer"] {
                object.remove(answers);
            }
            object.insert("digest".to_owned(), hex(&summary.digest).into());
        }
        text = serde_json::to_vec(&object)?;
        text.push(b'\n');
        if text.len() <= MAX_STDIN_CHUNK {
            break;
        }
    }
    Ok(Brief { text: Bytes(text), is_cut })
}

/// What a reviewer is given.
#[derive(Debug, Clone)]
pub(super) struct Brief {
    pub(super) text: Bytes,
    /// Whether something of the request isn't in it.
    pub(super) is_cut: bool,
}

/// The answer of a run that has ended.
///
/// # Errors
/// Why it has none.
pub(super) fn said(run: &Run, outcome: &Outcome) -> Result<Answer, String> {
    match outcome {
        Outcome::Exited { code: 0 } => {}
        Outcome::Exited { code } => return Err(format!("it has ended with status {code}")),
        Outcome::Signaled { signal, .. } => return Err(format!("it has died of signal {signal}")),
        other => {
            let why = words::outcome(other).map(|sentence| sentence.to_string());
            return Err(format!("it was ended: {}", why.unwrap_or_default()));
        }
    }
    let mut printed = printed(run, MAX_ANSWER)?;
    if let Some(redacting) = &run.redacting {
        let mut redactor = Redactor::of(redacting.sought());
        let mut shown = Vec::new();
        redactor.feed(Duration::ZERO, &printed, &mut shown);
        redactor.finish(&mut shown);
        printed = shown;
    }
    Answer::read(&printed)
}
