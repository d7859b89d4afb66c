//! A client's byte stream cut into messages, and messages made ready to be sent. No I/O: bytes are pushed in, messages taken out.
//!
//! The first byte of a connection decides: `{` or `[` is one message a line, `C` is the framing of the Language Server Protocol, a
//! header with `Content-Length` before each message. A connection never changes its framing.
//!
//! Nothing is kept beyond one message of the limit and one read: a length is checked when its header is there, a line while it grows.

use crate::bounds::{MAX_HEADER, MAX_MESSAGE};

/// Bytes of room that are kept when nothing waits.
const KEPT: usize = 64 * 1024;

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One a line.
    Lines,
    /// A header before each.
    Headers,
}

impl Kind {
    /// What a connection's first byte says; `None`: that it isn't JSON-RPC.
    #[must_use]
    pub fn of_first_byte(byte: u8) -> Option<Self> {
        match byte {
            b'{' | b'[' => Some(Self::Lines),
            b'C' => Some(Self::Headers),
            _ => None,
        }
    }

    /// Appends one message.
    pub fn frame(self, body: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Lines => {
                out.extend_from_slice(body);
                out.push(b'\n');
            }
            Self::Headers => {
                out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                out.extend_from_slice(body);
            }
        }
    }
}

/// Bytes that are no message. Where the next one begins can't be known, so the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A message over the limit.
    #[error("a message of more than {MAX_MESSAGE} bytes")]
    TooLarge,
    /// A header over the limit.
    #[error("a header of more than {MAX_HEADER} bytes")]
    HeaderTooLarge,
    /// What is between two messages isn't a header.
    #[error(
        "not a header: expected `Content-Length: NUMBER`, ended by an empty line, each line ended by CR and LF"
    )]
    NotAHeader,
    /// A line that isn't a message.
    #[error("not a message: expected a line that begins with `{{` or `[`; were two framings mixed?")]
    NotALine,
}

/// The reading side of one connection.
#[derive(Debug)]
pub struct Framing {
    kind: Kind,
    bytes: Vec<u8>,
    start: usize,
    /// So many bytes from `start` on have no line end.
    scanned: usize,
}

impl Framing {
    /// With nothing in it.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, bytes: Vec::new(), start: 0, scanned: 0 }
    }

    /// How messages are told apart.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Adds what one read brought.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a message has begun and isn't whole yet.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.bytes.len() > self.start
    }

    /// Bytes of memory that this takes, with so many bytes more at least.
    #[must_use]
    pub fn held_with(&self, more: usize) -> usize {
        self.bytes.capacity().max(self.bytes.len() - self.start + more)
    }

    /// Takes the next whole message; `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`FramingError`]; nothing that follows can be told apart.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        let found = match self.kind {
            Kind::Lines => self.next_line()?,
            Kind::Headers => self.next_body()?,
        };
        let Some((from, to, behind)) = found else { return Ok(None) };
        let message = self.bytes[from..to].to_vec();
        self.go_to(behind);
        Ok(Some(message))
    }

    fn go_to(&mut self, behind: usize) {
        (self.start, self.scanned) = (behind, 0);
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                // Who has sent one large message doesn't keep its room for ever.
                self.bytes = Vec::new();
            }
        }
    }

    /// Where the next message stands, and where what follows begins.
    fn next_line(&mut self) -> Result<Option<(usize, usize, usize)>, FramingError> {
        // Blanks and empty lines between messages are skipped for good, so that nobody has us look at them again.
        let blanks = self.bytes[self.start..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if blanks > 0 {
            self.go_to(self.start + blanks);
        }
        let waiting = &self.bytes[self.start..];
        if waiting.first().is_some_and(|byte| !matches!(byte, b'{' | b'[')) {
            return Err(FramingError::NotALine);
        }
        let end = waiting[self.scanned..].iter().position(|byte| *byte == b'\n').map(|at| at + self.scanned);
        if end.unwrap_or(waiting.len()) > MAX_MESSAGE {
            return Err(FramingError::TooLarge);
        }
        self.scanned = end.unwrap_or(waiting.len());
        Ok(end.map(|end| (self.start, self.start + end, self.start + end + 1)))
    }

    fn next_body(&mut self) -> Result<Option<(usize, usize, usize)>, FramingError> {
        let waiting = &self.bytes[self.start..];
        let Some(header) = waiting.windows(4).take(MAX_HEADER).position(|bytes| bytes == b"\r\n\r\n") else {
            return match waiting.len() {
                0 => Ok(None),
                length if length > MAX_HEADER => Err(FramingError::HeaderTooLarge),
                _ if begins_a_header(waiting) => Ok(None),
                _ => Err(FramingError::NotAHeader),
            };
        };
        let length = length_of(&waiting[..header]).ok_or(FramingError::NotAHeader)?;
        if length > MAX_MESSAGE {
            return Err(FramingError::TooLarge);
        }
        let from = self.start + header + 4;
        Ok((self.bytes.len() - from >= length).then_some((from, from + length, from + length)))
    }
}

/// Whether these bytes may yet become a header: what is sent as one line of JSON never does.
fn begins_a_header(bytes: &[u8]) -> bool {
    bytes.iter().zip(b"content-").all(|(byte, expected)| byte.to_ascii_lowercase() == *expected)
}

/// What a header says of the length. `None`: nothing, twice, or there is something else in it.
fn length_of(header: &[u8]) -> Option<usize> {
    let mut length = None;
    for line in core::str::from_utf8(header).ok()?.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-length") {
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            // A number that no memory has room for is too large, and not no number.
            let number = is_number.then(|| value.parse().unwrap_or(usize::MAX))?;
            if length.replace(number).is_some() {
                return None;
            }
        } else if !name.eq_ignore_ascii_case("content-type") || value.contains(['\r', '\n']) {
            return None;
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(kind: Kind, stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FramingError>) {
        let (mut framing, mut messages) = (Framing::new(kind), Vec::new());
        for part in stream.chunks(piece) {
            framing.push(part);
            loop {
                match framing.next_message() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error)),
                }
            }
            assert!(framing.held_with(0) <= 2 * (MAX_MESSAGE + MAX_HEADER + piece), "bounded");
        }
        (messages, None)
    }

    #[test]
    fn messages_come_out_whatever_the_pieces_are() {
        let lines = b"{\"a\":1}\r\n\n  \n[1]\n{half".as_slice();
        let headers = b"Content-Length: 2\r\n\r\n{}content-type: x; charset=utf-8\r\nCONTENT-LENGTH:3\r\n\r\n[1]Content-".as_slice();
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(
                all(Kind::Lines, lines, piece),
                (vec![b"{\"a\":1}\r".to_vec(), b"[1]".to_vec()], None)
            );
            assert_eq!(all(Kind::Headers, headers, piece), (vec![b"{}".to_vec(), b"[1]".to_vec()], None));
        }
    }

    #[test]
    fn what_is_framed_is_read_back() {
        for kind in [Kind::Lines, Kind::Headers] {
            let mut out = Vec::new();
            kind.frame(b"{\"a\":1}", &mut out);
            kind.frame(b"[2]", &mut out);
            assert_eq!(Kind::of_first_byte(out[0]), Some(kind));
            assert_eq!(all(kind, &out, 5).0, [b"{\"a\":1}".to_vec(), b"[2]".to_vec()]);
        }
        assert_eq!(Kind::of_first_byte(0x16), None);
        assert_eq!(Kind::of_first_byte(b'G'), None);
    }

    #[test]
    fn a_line_that_never_ends_is_refused_at_the_bound() {
        let long = vec![b'{'; MAX_MESSAGE + 1];
        assert_eq!(all(Kind::Lines, &long, 65_536).1, Some(FramingError::TooLarge));
        assert_eq!(all(Kind::Lines, &long[..MAX_MESSAGE], 65_536), (vec![], None));
    }

    #[test]
    fn lengths_that_are_none_are_refused() {
        for (header, error) in [
            ("Content-Length: 1048577\r\n\r\n", FramingError::TooLarge),
            ("Content-Length: 99999999999999999999999999\r\n\r\n", FramingError::TooLarge),
            ("Content-Length: -1\r\n\r\n", FramingError::NotAHeader),
            ("Content-Length: +1\r\n\r\n", FramingError::NotAHeader),
            ("Content-Length: 0x10\r\n\r\n", FramingError::NotAHeader),
            ("Content-Length: \r\n\r\n", FramingError::NotAHeader),
            ("Content-Length: 2\r\nContent-Length: 2\r\n\r\n", FramingError::NotAHeader),
            ("Content-Type: x\r\n\r\n", FramingError::NotAHeader),
            ("Content-Length: 2\r\nHost: x\r\n\r\n", FramingError::NotAHeader),
            ("CONNECT x\r\n\r\n", FramingError::NotAHeader),
            ("C{\"jsonrpc\"", FramingError::NotAHeader),
        ] {
            assert_eq!(all(Kind::Headers, header.as_bytes(), 9).1, Some(error), "{header:?}");
        }
        let flood = "Content-Type: x\r\n".repeat(100);
        assert_eq!(all(Kind::Headers, flood.as_bytes(), 100).1, Some(FramingError::HeaderTooLarge));
    }

    #[test]
    fn two_framings_on_one_connection_are_refused() {
        assert_eq!(all(Kind::Lines, b"{}\nContent-Length: 2\r\n\r\n{}", 3).1, Some(FramingError::NotALine));
        assert_eq!(
            all(Kind::Headers, b"Content-Length: 2\r\n\r\n{}{}\n", 3).1,
            Some(FramingError::NotAHeader)
        );
    }
}
