//! Every limit of this form, by name. Those of what is asked for are the wire's own ([`stockade_protocol::bounds`]).

/// The most bytes of one message of a client, without its header: as much as a frame of the binary form.
pub const MAX_MESSAGE: usize = stockade_protocol::bounds::MAX_FRAME as usize;
/// The most bytes of the header before a message.
pub const MAX_HEADER: usize = 1024;
/// The most requests of one batch.
pub const MAX_BATCH: usize = 256;
/// The most batches of one connection that aren't answered yet.
pub const MAX_BATCHES: usize = 16;
/// The most bytes that the answers to all batches of one connection have together, while they wait for the last of their own: larger
/// ones beyond are errors that say so, and ended runs come without their output.
pub const MAX_BATCH_ANSWERS: usize = 1024 * 1024;
/// An answer of so many bytes always has room: that a run was accepted or has ended is never left out.
pub(crate) const SMALL_ANSWER: usize = 4 * 1024;
/// The most bytes of an error's sentence: it may repeat what came.
pub(crate) const SHOWN_MESSAGE: usize = 512;
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
