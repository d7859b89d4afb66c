//! Runs whose answer is their end: their output is kept until then, up to a bound.

use stockade_protocol::client::Stream;

use crate::bounds::MAX_INLINE_OUTPUT;

/// What one run has written, as far as it fits.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    streams: [Vec<u8>; 2],
    /// Whether there was more.
    pub(crate) truncated: bool,
}

impl Collected {
    /// Bytes that it has.
    pub(crate) fn held(&self) -> usize {
        self.streams.iter().map(Vec::capacity).sum()
    }

    /// Adds output while there's room for it: beyond the bound, and where there is no memory, nothing of either stream is added any more.
    pub(crate) fn add(&mut self, stream: Stream, bytes: &[u8], has_memory: bool) {
        let room = MAX_INLINE_OUTPUT - self.streams.iter().map(Vec::len).sum::<usize>();
        let fits = if self.truncated || !has_memory { 0 } else { bytes.len().min(room) };
        self.truncated |= fits < bytes.len();
        self.streams[usize::from(stream == Stream::Stderr)].extend_from_slice(&bytes[..fits]);
    }

    /// Standard output and error. Where they were cut within a character, without its beginning.
    pub(crate) fn take(&mut self) -> [Vec<u8>; 2] {
        let mut streams = core::mem::take(&mut self.streams);
        if self.truncated {
            for stream in &mut streams {
                if let Err(error) = core::str::from_utf8(stream)
                    && error.error_len().is_none()
                {
                    stream.truncate(error.valid_up_to());
                }
            }
        }
        streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_up_to_the_bound_and_is_text_if_it_was() {
        let mut collected = Collected::default();
        collected.add(Stream::Stderr, b"oops", true);
        collected.add(Stream::Stdout, "\u{e9}".repeat(MAX_INLINE_OUTPUT).as_bytes(), true);
        collected.add(Stream::Stderr, b"later", true);
        assert!(collected.truncated);
        let [stdout, stderr] = collected.take();
        assert_eq!(stderr, b"oops");
        assert_eq!(stdout.len(), MAX_INLINE_OUTPUT - 4);
        assert!(core::str::from_utf8(&stdout).is_ok());
    }

    #[test]
    fn without_memory_nothing_more_is_kept() {
        let mut collected = Collected::default();
        collected.add(Stream::Stdout, b"one", true);
        collected.add(Stream::Stdout, b"two", false);
        collected.add(Stream::Stdout, b"three", true);
        assert!(collected.truncated);
        assert_eq!(collected.take(), [b"one".to_vec(), vec![]]);
    }
}
