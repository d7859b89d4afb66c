//! Bytes on their way to a socket: put at one end, taken at the other.
//!
//! The buffer is zeroed when it's made and never again, so output is read from its ring straight to where it's sent
//! from. Large buffers are made once: a connection that has nothing to send leaves its own as the [`Spare`], and the
//! next that needs one takes that. An idle connection keeps none.

/// Bytes of a buffer that a connection keeps while nothing waits.
const KEPT: usize = 4 * 1024;

/// Bytes of the largest buffer that is kept for the next: twice what waits of events, since buffers double.
const LARGEST: usize = 512 * 1024;

/// The large buffer that nobody uses. One a daemon.
pub(crate) type Spare = Option<Vec<u8>>;

/// The bytes.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// All of it may be written to; what waits is between `start` and `end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    /// What waits.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Bytes of memory that this takes.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds so many bytes, to be filled by the caller: until then they are whatever they were.
    pub(crate) fn room(&mut self, length: usize, spare: &mut Spare) -> &mut [u8] {
        if self.bytes.len() - self.end < length {
            self.make_room(length, spare);
        }
        let at = self.end;
        self.end += length;
        &mut self.bytes[at..self.end]
    }

    fn make_room(&mut self, length: usize, spare: &mut Spare) {
        let waiting = self.end - self.start;
        if let Some(large) = spare.take_if(|large| large.len() >= waiting + length) {
            let small = core::mem::replace(&mut self.bytes, large);
            self.bytes[..waiting].copy_from_slice(&small[self.start..self.end]);
        } else {
            self.bytes.copy_within(self.start..self.end, 0);
            if self.bytes.len() < waiting + length {
                self.bytes.resize((2 * self.bytes.len()).max(waiting + length), 0);
            }
        }
        (self.start, self.end) = (0, waiting);
    }

    /// Adds bytes.
    pub(crate) fn put(&mut self, bytes: &[u8], spare: &mut Spare) {
        self.room(bytes.len(), spare).copy_from_slice(bytes);
    }

    /// Takes back the newest bytes: only so many wait.
    pub(crate) fn truncate(&mut self, waiting: usize) {
        self.end = self.end.min(self.start + waiting);
    }

    /// The oldest bytes have gone.
    pub(crate) fn went(&mut self, bytes: usize) {
        self.start = self.end.min(self.start + bytes);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives a large buffer back, if nothing waits in it.
    pub(crate) fn rest(&mut self, spare: &mut Spare) {
        if self.start == self.end && self.bytes.len() > KEPT {
            let large = core::mem::take(&mut self.bytes);
            (self.start, self.end) = (0, 0);
            if large.len() <= LARGEST && spare.as_ref().is_none_or(|other| other.len() < large.len()) {
                *spare = Some(large);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_whatever_is_put_and_taken_between() {
        let (mut outgoing, mut spare) = (Outgoing::default(), None);
        let (mut put, mut taken) = (0_u32, 0_u32);
        let mut state: u32 = 7;
        for _ in 0..2000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for _ in 0..(state >> 16) % 50 {
                outgoing.put(&put.to_le_bytes(), &mut spare);
                put += 1;
            }
            for _ in 0..((state >> 8) % 50).min(put - taken) {
                assert_eq!(outgoing.waiting()[..4], taken.to_le_bytes());
                outgoing.went(4);
                taken += 1;
            }
            if state.is_multiple_of(3) {
                outgoing.rest(&mut spare);
            }
        }
        assert_eq!(outgoing.waiting().len(), (put - taken) as usize * 4);
        assert!(taken > 10_000);
    }

    #[test]
    fn a_large_buffer_is_made_once_and_is_kept_by_nobody_who_has_nothing_to_send() {
        let (mut one, mut other, mut spare) = (Outgoing::default(), Outgoing::default(), None);
        one.put(&[1; 100_000], &mut spare);
        let made = one.waiting().as_ptr();
        one.rest(&mut spare);
        assert!(spare.is_none(), "what waits isn't given away");
        one.went(100_000);
        one.rest(&mut spare);
        assert_eq!(one.held(), 0);
        other.put(&[2; 10], &mut spare);
        other.put(&[3; 90_000], &mut spare);
        assert_eq!(other.waiting().as_ptr(), made);
        assert_eq!(other.waiting()[..11], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3]);
        assert!(spare.is_none());
    }

    #[test]
    fn what_is_taken_back_is_not_sent() {
        let (mut outgoing, mut spare) = (Outgoing::default(), None);
        outgoing.put(b"kept", &mut spare);
        outgoing.room(1000, &mut spare);
        outgoing.truncate(4);
        outgoing.put(b"!", &mut spare);
        assert_eq!(outgoing.waiting(), b"kept!");
    }
}
