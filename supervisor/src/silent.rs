//! Launchers of an earlier daemon that said nothing when they were asked at our start: stopped, without a free descriptor, or
//! on a machine that was too busy. Clients don't wait for them. They are asked again, more and more seldom, and their runs
//! are known when one answers.

use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::admission::chain;
use crate::adopting;
use crate::daemon::Daemon;
use crate::door;
use crate::register::{Entry, Register};

/// The pause before it's asked again, doubled with each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long it may take to answer then: nobody waits.
const MET_WITHIN: Duration = Duration::from_secs(10);

/// Asks one again until it answers, has gone, or isn't one that we understand.
pub(crate) fn ask_again(daemon: &Rc<Daemon>, register: &Register, entry: Entry) {
    let (daemon, register) = (Rc::downgrade(daemon), register.clone());
    spawn_local(ask(daemon, register, entry));
}

async fn ask(daemon: Weak<Daemon>, register: Register, entry: Entry) {
    let way = register.way_to(&entry);
    let path = &way.path;
    let mut pause = FIRST_PAUSE;
    loop {
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
        let met = door::meet(&way, &entry.keep, MET_WITHIN).await;
        let Some(daemon) = daemon.upgrade() else { return };
        if is_ending(&daemon) {
            return;
        }
        match met {
            Ok(met) => {
                tracing::info!(door = %path.display(), "an earlier daemon's launcher answers at last");
                return adopting::adopt_late(&daemon, &register, entry, met).await;
            }
            Err(error) if error.is_gone() => {
                tracing::warn!(door = %path.display(), "an earlier daemon's launcher that didn't answer has gone");
                return register.remove(Some(entry.keep));
            }
            Err(error) if error.may_pass() => {}
            Err(error) => {
                tracing::error!(
                    reason = chain(&error),
                    door = %path.display(),
                    "the runs of an earlier daemon's launcher can't be taken over, and go on within their limits"
                );
                return;
            }
        }
    }
}

/// Whether launchers are given up or left to the next daemon now: then this one is the next one's, too.
fn is_ending(daemon: &Daemon) -> bool {
    let state = daemon.state.borrow();
    state.links.are_last || state.links.leaving.get()
}
