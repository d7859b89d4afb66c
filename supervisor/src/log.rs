//! The log's way out: a bounded queue and a thread of its own, since whoever reads standard error may stop (a full
//! pipe, a stopped terminal), and the event loop must not stop with him.
//!
//! A line that finds the queue full is lost and counted; the count is written in its place once there is room
//! again. At the end the queue gets a moment to empty itself, and no more.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;
use std::time::Duration;

/// Lines that may wait to be written.
const LINES: usize = 1024;
/// Bytes of a line that are kept; what a client can put into one is bounded well below.
const LINE: usize = 16 * 1024;
/// How long the last lines may take.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    /// Everything before has been written.
    End(Sender<()>),
}

/// Takes lines and never waits.
#[derive(Debug, Clone)]
pub struct Log {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

/// Dropped, it waits a moment for the lines that have been taken.
#[derive(Debug)]
pub struct LastLines(SyncSender<Item>);

impl Log {
    /// A log that a thread writes to `out`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Self, LastLines)> {
        let (queue, items) = sync_channel(LINES);
        let log = Self { queue, lost: Arc::default() };
        let (last, lost) = (LastLines(log.queue.clone()), Arc::clone(&log.lost));
        let _detached = Builder::new().name("log".to_owned()).spawn(move || write_all(out, &items, &lost))?;
        Ok((log, last))
    }
}

impl Write for Log {
    /// Takes one line, or loses it: always the whole of it, as far as anybody is told.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = line[..line.len().min(LINE)].to_vec();
        if kept.len() < line.len() {
            kept.push(b'\n');
        }
        if self.queue.try_send(Item::Line(kept)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        let (tell, told) = channel();
        if self.0.try_send(Item::End(tell)).is_ok() {
            let _late = told.recv_timeout(LAST_LINES_WITHIN);
        }
    }
}

/// The thread. What can't be written is nobody's any more.
fn write_all(mut out: impl Write, items: &Receiver<Item>, lost: &AtomicU64) {
    for item in items {
        let _gone = match item {
            Item::Line(line) => out.write_all(&line),
            Item::End(tell) => {
                let flushed = out.flush();
                let _gone = tell.send(());
                flushed
            }
        };
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} lines of the log are lost: nobody read them in time\n");
            let _gone = out.write_all(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Writes into memory, a line for each token.
    struct Slow {
        written: Arc<Mutex<Vec<u8>>>,
        tokens: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _over = self.tokens.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_has_stopped_stops_nobody_and_is_told_what_he_has_missed() {
        let (token, tokens) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut log, last) = Log::to(Slow { written: Arc::clone(&written), tokens }).unwrap();
        // Nothing is written yet, and each of these returns.
        for number in 0..LINES + 100 {
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        drop(token);
        // Now everything that was kept goes through; there is room for the end once something has.
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !String::from_utf8_lossy(&written.lock().unwrap()).contains("are lost") {
            assert!(std::time::Instant::now() < end, "nobody is told");
            std::thread::yield_now();
        }
        while String::from_utf8_lossy(&written.lock().unwrap()).lines().count() < LINES {
            assert!(std::time::Instant::now() < end, "what was kept isn't written");
            std::thread::yield_now();
        }
        drop(last);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lost: usize = written
            .lines()
            .filter_map(|line| line.strip_suffix(" lines of the log are lost: nobody read them in time"))
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        let kept = written.lines().filter(|line| line.starts_with("line ")).count();
        assert_eq!(kept + lost, LINES + 100);
        assert!((99..=100).contains(&lost), "{lost}");
        assert!(written.starts_with("line 0\n"));
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (token, tokens) = channel();
        drop(token);
        let (mut log, last) = Log::to(Slow { written: Arc::clone(&written), tokens }).unwrap();
        for number in 0..500 {
            log.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        log.write_all(&[b'x'; 2 * LINE]).unwrap();
        drop(last);
        let written = written.lock().unwrap();
        assert!(written.starts_with(b"0\n1\n"));
        assert!(written.ends_with(b"xxx\n"));
        assert!(written.len() < 2 * LINE);
    }
}
