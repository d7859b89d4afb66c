//! Turns: a loop that always finds more to read gives way to the others now and then.
//!
//! An await that is ready at once doesn't yield, so a peer that sends as fast as we read would have the thread for
//! itself.

/// Messages of one turn. A message takes some microseconds, so a turn is well below a millisecond.
const LENGTH: u32 = 16;

/// Counts the messages of one loop.
#[derive(Debug, Default)]
pub(crate) struct Turn(u32);

impl Turn {
    /// After each message.
    pub(crate) async fn took_one(&mut self) {
        self.0 += 1;
        if self.0 >= LENGTH {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}
