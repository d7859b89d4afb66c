//! The launchers there are: the one that runs to come are handed to, and those that another supervisor has started and that
//! stay until their runs have ended.

use core::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use stockade_protocol::ExecId;
use stockade_protocol::confinement::Warmth;
use stockade_protocol::launch::{Launch, ToLauncher};
use stockade_protocol::spec::SandboxSpec;
use stockade_wire::channel::ChannelError;
use tokio::sync::Notify;

use crate::dispatcher::LauncherId;
use crate::link::{Introduction, Link, When};

/// The ways to all launchers that are alive.
#[derive(Debug, Default)]
pub(crate) struct Links {
    all: BTreeMap<LauncherId, Link>,
    /// Which takes the runs to come.
    current: Option<LauncherId>,
    /// The last number given.
    last: u32,
    /// What the last current one said of itself.
    introduction: Option<Introduction>,
    /// Rung when a launcher has gone.
    pub(crate) gone: Rc<Notify>,
    /// Whether the launchers that end now are to be followed by none.
    pub(crate) are_last: bool,
    /// Whether launchers go on when we don't.
    pub(crate) leaving: Rc<Cell<bool>>,
}

impl Links {
    /// A place for another launcher.
    pub(crate) fn add(&mut self, link: Link) -> LauncherId {
        self.last += 1;
        let id = LauncherId(self.last);
        self.all.insert(id, link);
        id
    }

    /// Runs to come go to this one.
    pub(crate) fn make_current(&mut self, id: LauncherId) {
        if let Some(link) = self.all.get(&id) {
            self.introduction = link.introduction;
            self.current = Some(id);
        }
    }

    /// Which one takes the runs to come.
    pub(crate) fn current(&self) -> Option<LauncherId> {
        self.current
    }

    /// Whether a launcher only stays for the runs that it has.
    pub(crate) fn is_elder(&self, id: LauncherId) -> bool {
        self.current != Some(id) && self.all.get(&id).is_some_and(|link| link.relay.is_some())
    }

    /// Forgets one that has gone.
    pub(crate) fn remove(&mut self, id: LauncherId) {
        if let Some(link) = self.all.remove(&id) {
            link.room.notify_waiters();
        }
        if self.current == Some(id) {
            self.current = None;
        }
        self.gone.notify_waiters();
    }

    /// One of them.
    pub(crate) fn get(&self, id: LauncherId) -> Option<&Link> {
        self.all.get(&id)
    }

    /// One of them.
    pub(crate) fn get_mut(&mut self, id: LauncherId) -> Option<&mut Link> {
        self.all.get_mut(&id)
    }

    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What the current launcher said of itself, or the last one.
    pub(crate) fn introduction(&self) -> Option<Introduction> {
        self.introduction
    }

    /// The current launcher's process id.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.all.get(&self.current?)?.pid
    }

    /// All launchers.
    pub(crate) fn ids(&self) -> Vec<LauncherId> {
        self.all.keys().copied().collect()
    }

    /// Whether something waits to be sent to a launcher.
    pub(crate) fn have_something_to_send(&self) -> bool {
        self.all.values().any(Link::has_something_to_send)
    }

    /// All launchers' process ids.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.all.values().filter_map(|link| link.pid).collect()
    }

    /// What the current launcher's templates did.
    pub(crate) fn warmth(&self) -> Warmth {
        self.current.and_then(|id| self.all.get(&id)).map(|link| link.warmth).unwrap_or_default()
    }

    /// To wait on, if so much waits for a launcher that no more should come from clients.
    pub(crate) fn full(&self) -> Option<Rc<Notify>> {
        self.all.values().find(|link| link.is_full()).map(|link| Rc::clone(&link.room))
    }

    fn of(&mut self, launcher: Option<LauncherId>) -> Option<&mut Link> {
        self.all.get_mut(&launcher?)
    }

    /// Hands a run to the current launcher.
    ///
    /// # Errors
    /// As [`Link::hand`].
    pub(crate) fn hand(
        &mut self,
        launch: Launch,
        spec: Arc<SandboxSpec>,
        descriptors: Vec<OwnedFd>,
        when: When,
    ) -> Result<(), ChannelError> {
        self.of(self.current).map_or(Ok(()), |link| link.hand(launch, spec, descriptors, when))
    }

    /// As [`Link::take_taken`], of all of them.
    pub(crate) fn take_taken(&mut self) -> Vec<ExecId> {
        self.all.values_mut().flat_map(Link::take_taken).collect()
    }

    /// Tells a launcher something, if it is still there.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub(crate) fn send(
        &mut self,
        launcher: Option<LauncherId>,
        message: &ToLauncher,
    ) -> Result<(), ChannelError> {
        self.of(launcher).map_or(Ok(()), |link| link.send(message, Vec::new()))
    }

    /// Tells all launchers something.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub(crate) fn send_all(&mut self, message: &ToLauncher) -> Result<(), ChannelError> {
        self.all.values_mut().try_for_each(|link| link.send(message, Vec::new()))
    }

    /// As [`Link::acknowledge`].
    pub(crate) fn acknowledge(&mut self, launcher: Option<LauncherId>, run: ExecId, offset: u64) {
        if let Some(link) = self.of(launcher) {
            link.acknowledge(run, offset);
        }
    }

    /// As [`Link::drop_output`].
    pub(crate) fn drop_output(&mut self, launcher: Option<LauncherId>, run: ExecId, next_seq: u64) {
        if let Some(link) = self.of(launcher) {
            link.drop_output(run, next_seq);
        }
    }

    /// As [`Link::release`].
    pub(crate) fn release(&mut self, launcher: Option<LauncherId>, run: ExecId, has_ring: bool) {
        if let Some(link) = self.of(launcher) {
            link.release(run, has_ring);
        }
    }

    /// As [`Link::nudge_relay`], all of them.
    pub(crate) fn nudge_relays(&mut self) {
        for link in self.all.values_mut() {
            link.nudge_relay();
        }
    }
}
