//! The daemon around the dispatcher: everything it knows, in one cell of one thread, and the carrying out of what
//! the dispatcher says.
//!
//! Whatever happens (a frame, a launcher's message, a signal, a timer) ends in a synchronous call on [`State`],
//! which hands an event to the dispatcher and carries the effects out before anything else happens. No call here
//! waits, and no borrow of the state lives across an await; sockets that don't take bytes are left to the tasks
//! in [`crate::connection`] and [`crate::launch_link`].
//!
//! What lives here, in reading order: `state`, the cell and the effects; `requests`, what clients ask, and
//! `breakers`, what they ask of those, `reloading`, that files be read again, `reading`, the record, with `readings` and `asked_of_record`, `access`, who may, `granting`, what they ask of grants, and
//! `giving`, a grant's way until it holds; `approving`, what waits until somebody has approved it, `shown`, what he is shown of it, and `reviewing`, programs that look at it (`panels`: what they make of it together, `review_run`: one of them); `redeeming` and `recording`, what
//! waits between the gate and the dispatcher; `start`,
//! the hand-over to the launcher; `reports`, what launcher and relay say; `delivery`, events on their way to
//! clients, `hiding`, those of runs whose output is redacted, `printed`, what a run that has ended has printed, and `promising`, whether a tool's is what it promises; `explaining`, what a policy allows.

mod access;
mod approving;
mod asked_of_record;
mod breakers;
pub(crate) mod counting;
mod delivery;
mod explaining;
mod following;
mod giving;
mod granting;
mod hiding;
mod panels;
mod printed;
mod promising;
mod reading;
mod readings;
pub(crate) mod recording;
pub(crate) mod redeeming;
mod reloading;
mod reports;
mod requests;
mod review_run;
mod reviewing;
mod shown;
mod start;
mod state;

pub(crate) use delivery::Sending;
pub(crate) use requests::{Found, Pause};
pub(crate) use review_run::place_of_reviews;
pub(crate) use state::{Daemon, Settings, State};
