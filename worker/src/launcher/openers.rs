//! Openers: which there are, and who may have one. What they do is said in [`crate::opener`].
//!
//! The supervisor keeps [`OF_ONE`](stockade_protocol::bounds::MAX_OPENERS_OF_ONE) of a user and drops them when they are idle or
//! don't answer; then they end by themselves, or by their alarm. One that is stopped does neither, which its own user can see to:
//! it makes room for his next.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{Pid, Signal};
use stockade_protocol::bounds::{MAX_OPENERS, MAX_OPENERS_OF_ONE};
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::Owner;
use stockade_protocol::outcome::SetupStage;
use stockade_wire::channel::Channel;

use super::satellites::Satellite;
use super::{Launcher, spawn};
use crate::failure::{At as _, Staged, failed};
use crate::opener::Become;

/// So many times what may be used may be there: what was dropped takes a moment to end.
const ENDING: usize = 2;

impl Launcher {
    /// Starts an opener, whose socket is beside the message. Where there is to be none that is closed.
    pub(super) fn start_opener(&mut self, owner: Owner, proved: bool, descriptors: Vec<OwnedFd>) {
        drop(self.try_opener(owner, proved, descriptors));
    }

    fn try_opener(&mut self, owner: Owner, proved: bool, mut beside: Vec<OwnedFd>) -> Staged<()> {
        const STAGE: SetupStage = SetupStage::Check;
        self.prove(&owner, proved, &mut beside)?;
        let me = rustix::process::geteuid().as_raw();
        if self.closing || self.embedded || (me != 0 && owner.uid != me) {
            return Err(failed(STAGE, libc::EPERM, "opener"));
        }
        let socket = beside.pop().ok_or_else(|| failed(STAGE, libc::EBADF, "opener"))?;
        self.make_room(owner.uid)?;
        let (pid, channel) = spawn::opener().at(STAGE, "opener")?;
        let number = self.openers_made;
        self.openers_made += 1;
        self.satellites.insert(pid, Satellite::Opener(owner.uid, number));
        let is_another = self.plan == Plan::System && owner.uid != 0;
        let told = Channel::new(channel).send(&Become { owner, is_another }, &[socket.as_fd()]);
        told.map_err(|_| failed(STAGE, libc::EPIPE, "opener"))
    }

    /// Whether another of a user's may be started. Where he has as many as are used his oldest ends, which may be one that can't by
    /// itself.
    fn make_room(&self, uid: u32) -> Staged<()> {
        let openers = self.satellites.iter().filter_map(|(pid, satellite)| match satellite {
            Satellite::Opener(owner, number) => Some((*owner, *number, *pid)),
            _ => None,
        });
        let all: Vec<(u32, u64, Pid)> = openers.collect();
        let own = || all.iter().filter(|(owner, ..)| *owner == uid);
        if all.len() >= ENDING * MAX_OPENERS || own().count() >= ENDING * MAX_OPENERS_OF_ONE {
            return Err(failed(SetupStage::Check, libc::EAGAIN, "openers"));
        }
        if own().count() >= MAX_OPENERS_OF_ONE
            && let Some((_, _, oldest)) = own().min_by_key(|(_, number, _)| *number)
        {
            // Our own child, and not reaped yet: the pid is still its.
            let _ = rustix::process::kill_process(*oldest, Signal::KILL);
        }
        Ok(())
    }
}
