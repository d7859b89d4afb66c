//! What goes into the dispatcher, and what comes out of it.
//!
//! `now` is in milliseconds since the daemon's start and never falls from one event to the next.

use stockade_protocol::ExecId;
use stockade_protocol::denied::Denied;
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::bounds::Bounds;

/// One connection, for as long as the daemon lives: never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One launcher, for as long as the daemon lives: never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LauncherId(pub u32);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A client asked for a run, and policy and request are in order.
    Request(Request),
    /// A launcher that was there before us has this run.
    Adopted(Adopted),
    /// The launcher has started a run's tool.
    Started {
        /// When.
        now: u64,
        /// The run.
        run: ExecId,
    },
    /// The launcher says that a run has ended, or it could not be handed over at all.
    Ended {
        /// When.
        now: u64,
        /// The run.
        run: ExecId,
        /// How.
        outcome: Outcome,
        /// Whether the kernel has let go of every process.
        reaped: bool,
    },
    /// The last process of a run that ended unreaped has gone.
    Reaped {
        /// The run.
        run: ExecId,
    },
    /// The relay has written output, or come to its end.
    Wrote {
        /// When.
        now: u64,
        /// The run.
        run: ExecId,
        /// The sequence number after the last record.
        next_seq: u64,
        /// Bytes its ring takes in memory.
        kept: u64,
        /// Whether no record follows.
        eof: bool,
        /// Whether a follower holds the output up: its ring is full of what that client hasn't taken.
        held: bool,
    },
    /// A follower has taken output.
    Taken {
        /// When.
        now: u64,
        /// The run.
        run: ExecId,
        /// As in [`Event::Wrote`], now.
        held: bool,
    },
    /// A client asks for the end of a run.
    Cancel {
        /// When.
        now: u64,
        /// Who asks, to be told if there is no such run.
        connection: ConnectionId,
        /// For which owner.
        owner: u32,
        /// The run.
        run: ExecId,
    },
    /// We end a run ourselves, for a reason of the supervisor's own.
    End {
        /// When.
        now: u64,
        /// The run.
        run: ExecId,
        /// What its outcome will say.
        reason: CancelReason,
    },
    /// We end a run ourselves: something of ours went wrong that it can't do without.
    Fail {
        /// When.
        now: u64,
        /// The run.
        run: ExecId,
        /// What.
        reason: String,
    },
    /// A client wants to follow a run.
    Attach {
        /// Which client.
        connection: ConnectionId,
        /// Whose run.
        owner: u32,
        /// The run.
        run: ExecId,
        /// The last sequence number it has.
        after_seq: u64,
        /// Somebody else than the owner looks on, by rules of access: the run is none of his, and waits for him with nothing.
        is_stranger: bool,
    },
    /// A follower's socket has taken the whole of a run's events, `Exited` included.
    Delivered {
        /// Which client.
        connection: ConnectionId,
        /// The run.
        run: ExecId,
    },
    /// A client says that it has a run's events up to a sequence number.
    Acknowledged {
        /// For which owner.
        owner: u32,
        /// The run.
        run: ExecId,
        /// The sequence number.
        seq: u64,
    },
    /// A connection has ended.
    Disconnected {
        /// When.
        now: u64,
        /// Which.
        connection: ConnectionId,
    },
    /// Other limits hold from now on. Whatever goes on or waits stays, over them too.
    Bounds {
        /// When.
        now: u64,
        /// The limits.
        bounds: Box<Bounds>,
    },
    /// A launcher is ready for runs, and takes those to come.
    LauncherUp {
        /// When.
        now: u64,
        /// Which.
        launcher: LauncherId,
    },
    /// A launcher is about to go: it takes no more runs.
    LauncherLeaves {
        /// Which.
        launcher: LauncherId,
    },
    /// A launcher has died, and its runs with it.
    LauncherDown {
        /// When.
        now: u64,
        /// Which.
        launcher: LauncherId,
        /// What is known of it.
        reason: String,
    },
    /// No launcher can be started; somebody goes on trying.
    LauncherUnavailable {
        /// When.
        now: u64,
        /// Why.
        reason: String,
    },
    /// The daemon is to stop: no new runs, and so much time for those that run.
    Drain {
        /// When.
        now: u64,
        /// The grace, in milliseconds.
        grace: u64,
    },
    /// The daemon is to stop and leave the runs to their launchers: those that wait and aren't held are cancelled.
    Leave {
        /// When.
        now: u64,
    },
    /// The daemon is to stop at once.
    Kill {
        /// When.
        now: u64,
    },
    /// Time has passed; see [`super::Dispatcher::next_deadline`].
    Tick {
        /// When.
        now: u64,
    },
}

/// A request for a run, as far as it concerns the dispatcher.
#[derive(Debug, Clone)]
pub struct Request {
    /// When.
    pub now: u64,
    /// The run's id, fresh.
    pub run: ExecId,
    /// Who asked.
    pub connection: ConnectionId,
    /// The client's own id of the request.
    pub request_id: u64,
    /// For which owner.
    pub owner: u32,
    /// Whether it outlives its connection.
    pub detach: bool,
    /// Whether its output passes through the relay.
    pub relayed: bool,
    /// The wall-time limit that the launcher will arm, mirrored here.
    pub wall_ms: Option<u64>,
    /// Bytes it takes while it waits.
    pub bytes: usize,
}

/// A run that another supervisor has accepted, as far as it concerns the dispatcher.
#[derive(Debug, Clone)]
pub struct Adopted {
    /// When.
    pub now: u64,
    /// The run.
    pub run: ExecId,
    /// Whose launcher has it.
    pub launcher: LauncherId,
    /// For which owner.
    pub owner: u32,
    /// Whether it outlives its client's connection.
    pub detach: bool,
    /// Whether its output passes through the relay.
    pub relayed: bool,
    /// Its wall-time limit.
    pub wall_ms: Option<u64>,
    /// Whether it only waits.
    pub held: bool,
}

/// Something to be done, in this order among the effects of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer a client that nothing will be done.
    Deny {
        /// Which client.
        connection: ConnectionId,
        /// The request, or 0.
        request_id: u64,
        /// The run that a message named; `None` for a request.
        run: Option<ExecId>,
        /// Why.
        denied: Denied,
    },
    /// An event of a run has come into being.
    Emit {
        /// The run.
        run: ExecId,
        /// Its sequence number.
        seq: u64,
        /// Which.
        what: Emission,
    },
    /// A connection follows a run's events from after a sequence number.
    Follow {
        /// Which connection.
        connection: ConnectionId,
        /// The run.
        run: ExecId,
        /// The last sequence number it has.
        after_seq: u64,
    },
    /// A run has to wait: have the launcher hold it, so that it outlives us.
    Hold {
        /// The run.
        run: ExecId,
    },
    /// Hand a run to the launcher, or have it start what it holds.
    Start {
        /// The run.
        run: ExecId,
    },
    /// Have the launcher end a run.
    Cancel {
        /// The run.
        run: ExecId,
        /// What its outcome will say.
        reason: CancelReason,
    },
    /// A started run holds no slot any more.
    Finish {
        /// The run.
        run: ExecId,
    },
    /// Nobody has come to follow an adopted run in time: its output waits for nobody any more.
    Unclaimed {
        /// The run.
        run: ExecId,
    },
    /// Give up a kept run's output, not the run.
    DropOutput {
        /// The run.
        run: ExecId,
    },
    /// Give up a run altogether.
    Forget {
        /// The run.
        run: ExecId,
    },
    /// The launcher doesn't answer: end it and start another.
    ReplaceLauncher {
        /// Which.
        launcher: LauncherId,
        /// What it did not answer.
        reason: String,
    },
    /// Everything that a drain waits for has happened.
    Stop,
}

/// An event that the dispatcher numbers itself. Those between `Started` and `Exited` are numbered by the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emission {
    /// `Accepted`.
    Accepted {
        /// The client's own id of the request.
        request_id: u64,
    },
    /// `Started`.
    Started,
    /// `Exited`.
    Exited {
        /// How.
        outcome: Outcome,
    },
}
