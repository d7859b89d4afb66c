//! Every limit of this form, by name. Those of what is asked for are the wire's own ([`stockade_protocol::bounds`]).

/// The most bytes of one message of a client, without its header: as much as a frame of the binary form.
pub const MAX_MESSAGE: usize = stockade_protocol::bounds::MAX_FRAME as usize;
/// The most bytes of the header before a message.
pub const MAX_HEADER: usize = 1024;
/// The most requests of one batch.
pub const MAX_BATCH: usize = 256;
/// The most bytes that the answers to one batch have together: those beyond are errors that say so.
pub const MAX_BATCH_ANSWERS: usize = 1024 * 1024;
/// The most bytes of a request's id, as it's written.
pub const MAX_ID: usize = 256;
/// The most requests of one connection that wait for their answer.
pub const MAX_IN_FLIGHT: usize = 2048;
/// The most bytes of output that come with an answer (`wait`), of both streams together.
pub const MAX_INLINE_OUTPUT: usize = 256 * 1024;
/// The most bytes of a method's name that an error repeats.
pub(crate) const SHOWN_METHOD: usize = 64;
/// What a request in flight takes of memory beside its id, roughly.
pub(crate) const A_REQUEST: usize = 128;
/// The longest one message about a piece of output, for each byte of it: a control character is six (`\u0000`).
pub const WORST_ESCAPE: usize = 6;
