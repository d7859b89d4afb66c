//! The decisions about runs, as one pure function: [`Dispatcher::handle`] takes what happened and says what to do.
//!
//! No clock, no descriptor, no task: time comes in events as milliseconds since the daemon's start, and the
//! daemon around it carries the effects out. That is what lets a model and random sequences of events hold its
//! promises (`tests.rs`):
//!
//! * never more than `slots` runs have been started and not finished;
//! * in root's daemon, an owner without a run that waits is never passed over by one with a run, and starts at once
//!   while a slot is free; the last quarter of the slots is for such owners only;
//! * every `Start` gets exactly one `Finish`; a run that is cancelled while it waits never starts;
//! * per run the emitted sequence numbers rise by one, exactly one `Exited` is emitted, and nothing after it.
//!
//! The states of a run:
//!
//! ```text
//!            Request                 slot free              Started                Ended
//!   (none) ──────────> Queued ─────────────────> Starting ───────────> Running ──────────────> Closing
//!                        │                          │  Ended: set-up failed │  launcher died       │ end of output,
//!                        │ Cancel                   └───────────┬───────────┘                      │ or waited enough
//!                        └──────────────────────────────────> Ended <─────────────────────────────┘
//!                                                               │ acknowledged, or kept long enough
//!                                                               v
//!                                                           (forgotten)
//! ```
//!
//! What lives here, in reading order: [`event`], what goes in and out; [`bounds`], every limit; [`share`], how owners share
//! what is limited; `queue`, who is
//! next; `run`, one run's record; `timers`, who has to be looked at when; `core`, the function; `retention`, how
//! long an ended run is kept; `adoption`, runs that another supervisor has accepted;
//! `ends`, ends that we decide; `launchers`, launchers that come and go; `drain`, the daemon's end.

mod adoption;
pub mod bounds;
mod core;
mod drain;
mod ends;
pub mod event;
mod launchers;
mod queue;
mod retention;
mod run;
pub mod share;
#[cfg(test)]
mod tests;
mod timers;

pub use bounds::Bounds;
pub use core::{Counts, Dispatcher};
pub(crate) use core::{draining, no_such_run};
pub use event::{ConnectionId, Effect, Emission, Event, LauncherId};
pub use run::Phase;
pub use share::Share;
