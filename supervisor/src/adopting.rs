//! Launchers that another supervisor has left: each is met at its door, and lives on as one of ours. One that another program than
//! ours has started stays for its runs, and ends after them; runs to come go to one of our own.

use std::rc::Rc;

use stockade_protocol::launch::{LAUNCH_VERSION, ToLauncher};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};

use crate::admission::chain;
use crate::daemon::Daemon;
use crate::dispatcher::Event;
use crate::door::{self, Met};
use crate::keeper::{Keeper, Process};
use crate::launch_link::{Greeting, Written, live};
use crate::register::{Entry, Register};
use crate::silent;

/// Takes over every launcher that another supervisor has left. The one that runs to come go to, if one of them is for that.
pub(crate) async fn adopt_all(daemon: &Rc<Daemon>, register: &Register) -> Option<JoinHandle<String>> {
    let mut current = None;
    // All at once: those that say nothing keep clients waiting no longer than one of them.
    let meet = |entry: Entry| {
        let way = register.way_to(&entry);
        let within = daemon.settings.met_within;
        let met = async move { (door::meet(&way, &entry.keep, within).await, way.path, entry) };
        spawn_local(met)
    };
    let meetings: Vec<_> = register.entries().into_iter().map(meet).collect();
    for meeting in meetings {
        let Ok((met, path, entry)) = meeting.await else { continue };
        match met {
            Ok(met) => {
                let life = adopt(daemon, register, entry, met).await;
                current = current.or(life);
            }
            Err(error) if error.is_gone() => {
                tracing::warn!(
                    reason = chain(&error),
                    door = %path.display(),
                    "a launcher that an earlier daemon has started isn't there any more"
                );
                register.remove(Some(entry.keep));
            }
            Err(error) if error.may_pass() => {
                tracing::warn!(
                    reason = chain(&error),
                    door = %path.display(),
                    "an earlier daemon's launcher doesn't answer: its runs go on within their limits, and it is asked again"
                );
                silent::ask_again(daemon, register, entry);
            }
            // It stays written down: its runs go on, and the next one may understand it.
            Err(error) => tracing::error!(
                reason = chain(&error),
                door = %path.display(),
                "the runs of an earlier daemon's launcher can't be taken over, and go on within their limits"
            ),
        }
    }
    current
}

/// Takes over one that was met late, when another has the runs to come.
pub(crate) async fn adopt_late(daemon: &Rc<Daemon>, register: &Register, entry: Entry, met: Met) {
    take_over(daemon, register, entry, met, false).await;
    take_charge(daemon);
}

/// Takes one over. `None`: runs to come don't go to it, or it has ended.
async fn adopt(
    daemon: &Rc<Daemon>,
    register: &Register,
    entry: Entry,
    met: Met,
) -> Option<JoinHandle<String>> {
    let ours = register.parked() == entry.parked && entry.is_apart() == daemon.settings.apart;
    take_over(daemon, register, entry, met, ours).await
}

/// As [`adopt`]. `ours`: whether it was started with settings like ours, so that runs to come may go to it.
async fn take_over(
    daemon: &Rc<Daemon>,
    register: &Register,
    entry: Entry,
    met: Met,
    ours: bool,
) -> Option<JoinHandle<String>> {
    let Met { channel, pid, pidfd } = met;
    let leaving = Rc::clone(&daemon.state.borrow().links.leaving);
    // Whatever the kernel tells of who listens: ourselves we don't kill.
    let is_another = pid != daemon.settings.pid;
    let process = if is_another { Process::Other { pid, pidfd } } else { Process::Nobody };
    let keeper = Keeper::new(process, leaving);
    let (greeted, greeting) = oneshot::channel();
    let again = ToLauncher::Again { version: LAUNCH_VERSION, token: entry.keep.supervisor };
    let owner = Rc::clone(daemon);
    let mut written = Written::new(daemon, register, Some(entry.keep));
    let life = spawn_local(async move {
        let greeting = Greeting { hello: again, beside: Vec::new() };
        let reason = live(&owner, channel, keeper, greeting, Some((greeted, ours))).await;
        written.is_over();
        reason
    });
    let is_current = greeting.await.unwrap_or(false);
    is_current.then_some(life)
}

/// Every launcher that was there is known, and what it has: those that have nothing end, and what waits may start.
pub(crate) fn take_charge(daemon: &Rc<Daemon>) {
    let mut state = daemon.state.borrow_mut();
    let now = state.now();
    for id in state.links.ids() {
        state.end_elder(id);
    }
    if let Some(launcher) = state.links.current() {
        state.handle(Event::LauncherUp { now, launcher });
    }
}
