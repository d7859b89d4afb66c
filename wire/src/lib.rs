//! Frames and descriptors over Unix sockets: the one place that touches `SCM_RIGHTS`.
//!
//! [`socket`] has the two system calls, always with room for control data and close-on-exec descriptors;
//! [`channel`] carries launch messages over `SOCK_SEQPACKET`; [`frames`] cuts a client's stream into frames
//! without doing I/O itself, so that blocking and asynchronous callers share it; [`output`] is the frame that comes in
//! bulk, whose payload isn't copied; [`program`] says by its file which program a process runs, [`kin`] whether it may be a run's. Nothing here decides anything.
#![forbid(unsafe_code)]

pub mod channel;
pub mod frames;
pub mod kin;
pub mod output;
pub mod program;
pub mod socket;
