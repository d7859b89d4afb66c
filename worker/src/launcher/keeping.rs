//! How a launcher outlives its supervisor: it has a door, a socket that the next supervisor connects to. Whoever does is the
//! supervisor's user, and is told a secret of the launcher's; one who answers with the supervisor's takes its place.
//!
//! ```text
//! attended ── its channel ends ──> alone ── Again, with the token ──> attended
//!     │ Shutdown                     │ no run goes on, and what is kept of them is old
//!     v                              v
//!  closing                        closing
//! ```
//!
//! Alone it goes on as before: every limit is armed here or below, what is said is kept ([`super::records`]), and output goes
//! into the rings until they are full. A run whose input came through the supervisor ends, since nobody can tell how much
//! of it has arrived; and so do, after a while, the runs that end with their client's connection.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{UnixCredentials, getsockopt};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use stockade_protocol::ExecId;
use stockade_protocol::bounds::UNCLAIMED_MS;
use stockade_protocol::launch::{
    FromLauncher, Keep, LAUNCH_VERSION, OLDEST_LAUNCH_VERSION, ToLauncher, Token,
};
use stockade_protocol::outcome::{CancelReason, MemoryMechanism, Outcome};
use stockade_wire::channel::Channel;
use stockade_wire::{kin, program};

use super::proof;
use super::records::Records;
use super::specs::Specs;
use super::{Launcher, SUPERVISOR};
use crate::poller::{Interest, Poller};
use crate::relay::RelayCommand;

/// The door's token, and that of whoever stands in it.
pub(super) const DOOR: u64 = 4;
pub(super) const CALLER: u64 = 5;
/// Connections that may wait at the door.
const BACKLOG: i32 = 4;
/// How long the door is left alone when there is nothing to let anybody in with: who waits there would be told again at once.
const REST: Duration = Duration::from_millis(100);
/// The most messages of a supervisor that are heard when another is there: more than a socket holds.
const LAST_WORDS: usize = 4096;
/// How long what is known of ended runs is kept for a next supervisor, if none comes.
const UNATTENDED: Duration = Duration::from_secs(10 * 60);

/// What a launcher has that outlives its supervisor.
#[derive(Debug)]
pub(super) struct Keeping {
    keep: Keep,
    door: OwnedFd,
    /// As whom its supervisors run.
    uid: u32,
    /// Who has connected and hasn't shown the token yet. The next one takes its place.
    caller: Option<Channel>,
    /// Until when nobody is let in.
    rests_until: Option<Instant>,
    alone_since: Option<Instant>,
    /// When runs that are nobody's any more are ended, if nobody has come by then.
    unclaimed_at: Option<Instant>,
}

impl Launcher {
    /// The first supervisor's greeting. `beside`: the door, where it's to be outlived.
    pub(super) fn hello(&mut self, version: u16, keep: Option<Keep>, parked: u32, mut beside: Vec<OwnedFd>) {
        let Some(supervisor) = self.who_greets() else { return self.close() };
        if version != LAUNCH_VERSION || self.keeping.is_some() {
            return self.close();
        }
        self.believes = Some(proof::believes(supervisor));
        self.templates.may_park(parked);
        if let Some(keep) = keep {
            match beside.pop().map(|door| self.open_door(keep, door, supervisor)) {
                Some(Ok(keeping)) => self.keeping = Some(keeping),
                Some(Err(_)) | None => return self.close(),
            }
            self.supervisor.keep_records();
        }
        self.introduce();
    }

    /// Says who it is, with a socket to its relay.
    fn introduce(&mut self) {
        let mut beside = Vec::new();
        if !self.embedded {
            match self.relay_socket() {
                Ok(socket) => beside.push(socket),
                // The first has no run yet; the runs of the one before wait for another.
                Err(_) => return self.lose_supervisor(),
            }
        }
        let hello = FromLauncher::Hello {
            version: LAUNCH_VERSION,
            pid: std::process::id(),
            plan: self.plan,
            memory: if self.cgroups.is_some() { MemoryMechanism::Cgroup } else { MemoryMechanism::Monitor },
            program: program::of_this_process(),
            replaced: program::is_replaced(),
        };
        self.supervisor.send(hello, beside, &self.poller);
    }

    /// Whose the first supervisor is, unless a run speaks: the socket that starts launchers could be seen where it mustn't.
    fn who_greets(&self) -> Option<u32> {
        let theirs = getsockopt(self.supervisor.outbox()?.channel(), PeerCredentials).ok()?;
        (self.embedded || kin::is_no_run(theirs.pid())).then(|| theirs.uid())
    }

    fn open_door(&self, keep: Keep, door: OwnedFd, supervisor: u32) -> io::Result<Keeping> {
        rustix::io::ioctl_fionbio(&door, true)?;
        // Whoever connects is told the credentials of who has called this.
        rustix::net::listen(&door, BACKLOG)?;
        self.poller.add(&door, DOOR, Interest::Read)?;
        Ok(Keeping {
            keep,
            door,
            uid: supervisor,
            caller: None,
            rests_until: None,
            alone_since: None,
            unclaimed_at: None,
        })
    }

    /// Somebody is at the door.
    pub(super) fn hear_door(&mut self) {
        let Some(keeping) = &mut self.keeping else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(&keeping.door, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            // No descriptor or no memory is left. Who waits goes on waiting.
            Err(_) => return keeping.rest(&self.poller),
        };
        let theirs = |peer: &UnixCredentials| peer.uid() == keeping.uid && kin::is_no_run(peer.pid());
        if self.closing || !getsockopt(&socket, PeerCredentials).is_ok_and(|peer| theirs(&peer)) {
            return;
        }
        let caller = Channel::new(socket);
        let known = FromLauncher::Known { version: LAUNCH_VERSION, token: keeping.keep.launcher };
        if caller.send(&known, &[]).is_ok() && self.poller.add(&caller, CALLER, Interest::Read).is_ok() {
            // The one before it, if there is one, leaves the poller with its last descriptor.
            keeping.caller = Some(caller);
        }
    }

    /// Looks at the door again after a rest.
    pub(super) fn end_rest(&mut self, now: Instant) {
        let Some(keeping) = &mut self.keeping else { return };
        if keeping.rests_until.take_if(|at| *at <= now).is_some()
            && self.poller.add(&keeping.door, DOOR, Interest::Read).is_err()
        {
            keeping.rests_until = Some(now + REST);
        }
    }

    /// Who stands in the door says something: the token, or nothing that matters.
    pub(super) fn hear_caller(&mut self) {
        let Some(keeping) = &mut self.keeping else { return };
        let Some(caller) = keeping.caller.take() else { return };
        let said = match caller.receive::<ToLauncher>() {
            Err(error) if error.would_block() => {
                keeping.caller = Some(caller);
                return;
            }
            other => other,
        };
        let keep = keeping.keep;
        if let Ok(Some((ToLauncher::Again { version, token }, _))) = said
            && (OLDEST_LAUNCH_VERSION..=LAUNCH_VERSION).contains(&version)
            && is_same(token, keep.supervisor)
        {
            drop(self.poller.remove(&caller));
            self.follow(caller);
        }
    }

    /// Another supervisor takes the place of the one before, which is gone or as good as gone.
    fn follow(&mut self, supervisor: Channel) {
        self.hear_last_words();
        if self.closing {
            return;
        }
        self.end_fed_runs();
        // It has names of its own for what runs are confined to.
        self.specs = Specs::default();
        self.warmth.0 = stockade_protocol::confinement::Warmth::default();
        let taken = self.supervisor.take_over(supervisor.into_socket(), SUPERVISOR, &self.poller);
        let Some(keeping) = &mut self.keeping else { return };
        if taken.is_err() {
            self.supervisor.lose(&self.poller);
            keeping.is_alone();
            return;
        }
        keeping.alone_since = None;
        keeping.unclaimed_at = None;
        self.introduce();
    }

    /// What the supervisor said before it died counts: it may have told its clients of it.
    fn hear_last_words(&mut self) {
        for _ in 0..LAST_WORDS {
            let Some(outbox) = self.supervisor.outbox() else { return };
            match outbox.channel().receive::<ToLauncher>() {
                Ok(Some((message, descriptors))) => self.command(message, descriptors),
                Err(error) if error.is_reset() => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// A run is needed no more, nor is its ring.
    pub(super) fn release(&mut self, exec_id: ExecId) {
        let had_ring = self.supervisor.records_mut().is_some_and(|records| records.release(exec_id));
        self.remove_ring(exec_id, had_ring);
    }

    /// A run's output is needed no more.
    pub(super) fn release_output(&mut self, exec_id: ExecId, next_seq: u64) {
        let records = self.supervisor.records_mut();
        let had_ring = records.is_some_and(|records| records.release_output(exec_id, next_seq));
        self.remove_ring(exec_id, had_ring);
    }

    /// Whatever the relay was told, or wasn't because the supervisor has died meanwhile.
    fn remove_ring(&mut self, exec_id: ExecId, had_ring: bool) {
        if let Some(relay) = self.relay.as_mut().filter(|_| had_ring) {
            relay.send(&RelayCommand::Remove { exec_id }, Vec::new(), &self.poller);
        }
    }

    /// The supervisor's channel has ended: there will be another, or nobody needs this launcher any more.
    pub(super) fn lose_supervisor(&mut self) {
        let Some(keeping) = self.keeping.as_mut().filter(|_| !self.closing) else { return self.close() };
        keeping.is_alone();
        self.supervisor.lose(&self.poller);
        self.end_fed_runs();
    }

    /// Runs whose input came through the supervisor: how much of it has arrived nobody knows, and the tool must not take the
    /// end of the supervisor for that of its input.
    fn end_fed_runs(&mut self) {
        let fed = self.supervisor.records().map(Records::fed).unwrap_or_default();
        for exec_id in fed {
            self.lose_input(exec_id);
        }
    }

    fn lose_input(&mut self, exec_id: ExecId) {
        let reason = "its standard input came through the supervisor, which has ended".to_owned();
        self.condemn_id(exec_id, Outcome::Lost { reason });
    }

    /// Ends the runs whose clients were cut off and can't come back, since no supervisor has come.
    pub(super) fn end_unclaimed(&mut self, now: Instant) {
        let Some(keeping) = &mut self.keeping else { return };
        if keeping.unclaimed_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        for exec_id in self.supervisor.records().map(Records::attached).unwrap_or_default() {
            self.condemn_id(exec_id, Outcome::Cancelled { reason: CancelReason::ClientGone });
        }
    }

    /// When something is to be done about the door, or because no supervisor has come.
    pub(super) fn keeping_deadline(&self) -> Option<Instant> {
        let keeping = self.keeping.as_ref();
        let rest = keeping.and_then(|keeping| keeping.rests_until);
        let unclaimed = keeping.and_then(|keeping| keeping.unclaimed_at);
        rest.into_iter().chain(unclaimed).chain(self.alone_until()).min()
    }

    /// When it ends if no supervisor comes.
    pub(super) fn alone_until(&self) -> Option<Instant> {
        let since = self.keeping.as_ref().filter(|_| !self.closing)?.alone_since?;
        let records = self.supervisor.records()?;
        alone_until(since, records.is_empty(), records.last_end())
    }
}

/// When a launcher ends that is alone since then: at once without a run; never while one goes on; else a while after the last.
fn alone_until(since: Instant, is_empty: bool, last_end: Option<Instant>) -> Option<Instant> {
    if is_empty {
        return Some(since);
    }
    // What ended long ago was kept by the supervisor that is gone, and is for the next one as for that.
    last_end.map(|end| end.max(since) + UNATTENDED)
}

impl Keeping {
    fn rest(&mut self, poller: &Poller) {
        if poller.remove(&self.door).is_ok() {
            self.rests_until = Some(Instant::now() + REST);
        }
    }

    fn is_alone(&mut self) {
        let now = Instant::now();
        self.alone_since.get_or_insert(now);
        self.unclaimed_at.get_or_insert(now + Duration::from_millis(UNCLAIMED_MS));
    }
}

/// Whether two secrets are one, in a time that doesn't depend on where they differ.
fn is_same(one: Token, other: Token) -> bool {
    one.0.iter().zip(other.0).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_kept_for_ten_minutes_after_the_supervisor_has_gone_or_the_last_run_ended() {
        let since = Instant::now();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert_eq!(alone_until(since, true, None), Some(since), "nothing is kept");
        assert_eq!(alone_until(since, false, None), None, "one goes on");
        // The supervisor has kept it as long as it lived.
        assert_eq!(alone_until(since + minutes(30), false, Some(since)), Some(since + minutes(40)));
        assert_eq!(alone_until(since, false, Some(since + minutes(7))), Some(since + minutes(17)));
    }
}
