//! Every limit on what crosses a socket, by name. A receiver checks before it allocates.

/// The largest payload of a client frame, in bytes, unless the `Welcome` says less.
pub const MAX_FRAME: u32 = 1024 * 1024;
/// The largest launch message, in bytes, wherever it travels (in the datagram or in a sealed memfd).
pub const MAX_LAUNCH_MESSAGE: usize = 4 * 1024 * 1024;
/// A launch message up to this many bytes travels in its datagram; a larger one in a sealed memfd beside it.
/// Well below the default of `net.core.wmem_default` (212992).
pub const MAX_LAUNCH_INLINE: usize = 96 * 1024;
/// The most rules in a [`crate::client::StatusReport`] that callers of tools often break.
pub const MAX_OFTEN_WRONG: usize = 8;
/// The most names in [`crate::client::Redactions`].
pub const MAX_MARKS: usize = 512;
/// The most files below its workspace that are opened for a run: one as its standard input, the others beside it.
pub const MAX_RUN_OPENINGS: usize = 5;
/// The most that a [`crate::client::ResultCheck`] says.
pub const MAX_RESULT_SAID: usize = 8;
/// The most bytes of one thing that it says.
pub const MAX_RESULT_SENTENCE: usize = 1_024;
/// The most secrets of one run that are looked for in its output.
pub const MAX_SECRETS: usize = 64;
/// And so many bytes their values have together: their spellings, which a daemon holds while somebody reads, are many times as long.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;
/// The most bytes of one record of a run whose output is redacted: with what is held back of records before it, and with
/// [`MAX_OUTPUT_CHUNK`] beyond them, they are one event.
pub const MARKED_RECORD: usize = 32 * 1024;
/// A stream that has been silent for so long behind its last record is [marked](crate::launch::LaunchOutput::Marked) as
/// silent, in milliseconds.
pub const MARK_AFTER_MS: u64 = 50;
/// The most specs that a launcher remembers for runs to come. A supervisor has it forget one before it tells another.
pub const MAX_SPECS: usize = 128;
/// The most workers that may be parked for one owner, spec and workspace.
pub const MAX_PARKED: u32 = 64;
/// The most descriptors one message may carry. The kernel's own bound is 253 (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 8;
/// The most arguments of a command.
pub const MAX_ARGUMENTS: usize = 16 * 1024;
/// The longest one argument or environment entry, in bytes with its NUL: the kernel's `MAX_ARG_STRLEN`.
pub const MAX_ARGUMENT: usize = 128 * 1024;
/// The most bytes of arguments and environment together. Below the frame's limit.
pub const MAX_ARGUMENTS_TOTAL: usize = 768 * 1024;
/// The most environment entries.
pub const MAX_ENVIRONMENT: usize = 4 * 1024;
/// The longest path, in bytes: the kernel's `PATH_MAX` without the NUL.
pub const MAX_PATH: usize = 4095;
/// The longest policy name, in bytes.
pub const MAX_POLICY_NAME: usize = 64;
/// The most bytes of one `Output` event.
pub const MAX_OUTPUT_CHUNK: usize = 64 * 1024;
/// A tool's parameters: what a frame holds beside the rest of a request.
pub const MAX_PARAMETERS: usize = 768 * 1024;
/// The most bytes of inline standard input, or of one `StdinData`.
pub const MAX_STDIN_CHUNK: usize = 256 * 1024;
/// The ring of a run's output, in bytes, unless configured otherwise. A power of two and a multiple of a page.
pub const RING_BYTES: u64 = 1024 * 1024;
/// How long a run that its client's connection ends with goes on, in milliseconds, after the end of its supervisor has cut the
/// client off: as long as clients try to come back.
pub const UNCLAIMED_MS: u64 = 30_000;
/// The most bytes of a command, of parameters, of standard input and of variables, each, that who approves is shown.
pub const MAX_APPROVAL_SHOWN: usize = 16 * 1024;
/// The most lines that a reload says what is wrong in.
pub const MAX_RELOAD_LINES: usize = 64;
/// The longest of them, in bytes.
pub const MAX_RELOAD_LINE: usize = 1024;
/// The longest reason of an answer to what waits for an approval, in bytes.
pub const MAX_APPROVAL_REASON: usize = 256;
/// The most records of a page of the record.
pub const MAX_AUDIT_PAGE: usize = 1024;
/// The most bytes of their texts, together.
pub const MAX_AUDIT_PAGE_BYTES: usize = 512 * 1024;
/// The most of the last records that may be asked for.
pub const MAX_AUDIT_LAST: u32 = 10_000;
/// The longest text that records are asked for by, in bytes.
pub const MAX_AUDIT_FILTER: usize = 256;
