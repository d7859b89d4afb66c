//! The log's way out: a bounded queue and a thread of its own, since whoever reads standard error may stop (a full
//! pipe, a stopped terminal), and the event loop must not stop with him.
//!
//! ```text
//! line ──> queue ── at once: urgent, many, or no loop ──> thread ──> standard error, or the journal
//!             └──── a moment later, by the loop, once for many ──^
//! ```
//!
//! To wake a thread costs the one that wakes it more than a line does, and what it wakes takes the processor from
//! whoever the line's run waits for. So the loop hands over what has come together ([`hand_over`]). A warning or an
//! error isn't waited with, nor is anything when the loop has ended or when the process panics.
//!
//! A line that finds the queue full is lost and counted; the count is written in its place once there is room
//! again. At the end the queue gets a moment to empty itself, and no more.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::{Builder, Thread};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::patience::patience;

/// Lines that may wait to be written.
const LINES: usize = 1024;
/// So many are handed over at once, whoever writes them.
const MANY: usize = 128;
/// Bytes of a line that are kept; what a client can put into one is bounded well below.
pub const LINE: usize = 16 * 1024;
/// Bytes of text that are written at once, but for the last line of them.
const PIECE: usize = 16 * 1024;
/// How long the last lines may take.
const LAST_LINES_WITHIN: Duration = patience(Duration::from_secs(1));
/// How long a line that isn't urgent waits for others: longer than a short run takes.
const TOGETHER: Duration = Duration::from_millis(5);

enum Item {
    Line(Vec<u8>),
    /// Everything before has been written.
    End(Sender<()>),
}

/// How lines are written.
struct Form {
    /// Bytes that are written at once, but for the last line of them.
    piece: usize,
    /// What says how many lines were lost.
    lost: fn(u64) -> Vec<u8>,
}

/// Takes lines and never waits.
#[derive(Debug, Clone)]
pub struct Log {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
    writer: Thread,
    is_urgent: bool,
}

#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    /// Lines since the thread was woken last.
    waiting: AtomicUsize,
    /// Whether a loop hands lines over.
    is_kept: AtomicBool,
    /// Rung with a line that the loop is to hand over.
    bell: Notify,
}

/// Dropped, it waits a moment for the lines that have been taken.
#[derive(Debug)]
pub struct LastLines(Log);

impl Log {
    /// A log that a thread writes to `out`, lines that come together in one piece.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Self, LastLines)> {
        let lost =
            |lost: u64| format!("{lost} lines of the log are lost: nobody read them in time\n").into_bytes();
        Self::start(out, Form { piece: PIECE, lost })
    }

    /// The same where each is an entry of its own, written by itself; `lost` makes the entry that says how many are lost.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn entries_to(
        out: impl Write + Send + 'static,
        lost: fn(u64) -> Vec<u8>,
    ) -> io::Result<(Self, LastLines)> {
        Self::start(out, Form { piece: 0, lost })
    }

    fn start(out: impl Write + Send + 'static, form: Form) -> io::Result<(Self, LastLines)> {
        let (queue, items) = sync_channel(LINES);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(out, &form, &items, &theirs.lost))?;
        let log = Self { queue, shared, writer: thread.thread().clone(), is_urgent: false };
        Ok((log.clone(), LastLines(log)))
    }

    /// The same log for a line that doesn't wait for others.
    #[must_use]
    pub fn urgent(&self) -> Self {
        Self { is_urgent: true, ..self.clone() }
    }

    /// Waits a moment until every line that was taken is written: for a process that is about to end.
    pub fn settle(&self) {
        let (tell, told) = channel();
        if self.queue.try_send(Item::End(tell)).is_ok() {
            self.wake();
            let _late = told.recv_timeout(LAST_LINES_WITHIN);
        }
    }

    fn wake(&self) {
        // Whose line is counted has sent it: the thread finds it there.
        self.shared.waiting.swap(0, Ordering::AcqRel);
        self.writer.unpark();
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
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        let many = self.shared.waiting.fetch_add(1, Ordering::AcqRel) + 1 >= MANY;
        if self.is_urgent || many || !self.shared.is_kept.load(Ordering::SeqCst) {
            self.wake();
        } else {
            self.shared.bell.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.settle();
    }
}

/// Hands lines over, for as long as the loop lives that runs this.
pub(crate) async fn hand_over(log: Log) {
    struct Kept(Log);
    impl Drop for Kept {
        fn drop(&mut self) {
            self.0.shared.is_kept.store(false, Ordering::SeqCst);
            // What came before: nobody else would.
            self.0.wake();
        }
    }
    log.shared.is_kept.store(true, Ordering::SeqCst);
    let Kept(log) = &Kept(log);
    loop {
        log.shared.bell.notified().await;
        // Rung for lines that went with the last ones, too.
        if log.shared.waiting.load(Ordering::Acquire) > 0 {
            sleep(TOGETHER).await;
            log.wake();
        }
    }
}

/// The thread: what has come together goes out together.
fn write_all(mut out: impl Write, form: &Form, items: &Receiver<Item>, lost: &AtomicU64) {
    let mut text = Vec::new();
    loop {
        let next = items.try_recv();
        if let Ok(Item::Line(line)) = &next {
            text.extend_from_slice(line);
            if text.len() < form.piece {
                continue;
            }
        }
        let lost = if text.is_empty() { 0 } else { lost.swap(0, Ordering::Relaxed) };
        // What can't be written is nobody's any more.
        if !text.is_empty() {
            let _gone = out.write_all(&text);
        }
        if lost > 0 {
            let _gone = out.write_all(&(form.lost)(lost));
        }
        let wrote = !text.is_empty();
        text.clear();
        match next {
            Ok(Item::Line(_)) => {}
            Ok(Item::End(tell)) => {
                let _gone = out.flush();
                let _gone = tell.send(());
            }
            // Whoever has something, and meant to wake us before we got here, has: then this returns at once.
            // Whatever waited as it was written may have used up what would wake us: look again.
            Err(TryRecvError::Empty) if wrote => {}
            Err(TryRecvError::Empty) => std::thread::park(),
            Err(TryRecvError::Disconnected) => return,
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

    /// Bytes of a line.
    const LENGTH: usize = 64;

    /// Looks now and then: who looks all the time has the lock that the writer needs, on one processor nearly always.
    fn until(what: &str, is_so: impl Fn() -> bool) {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(std::time::Instant::now() < end, "never: {what}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_reader_who_has_stopped_stops_nobody_and_is_told_what_he_has_missed() {
        let (token, tokens) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut log, last) = Log::to(Slow { written: Arc::clone(&written), tokens }).unwrap();
        // Nothing is written yet, and each of these returns.
        let more = 2 * PIECE / LENGTH;
        for number in 0..LINES + more {
            log.write_all(format!("line {number:<0$}\n", LENGTH - 6).as_bytes()).unwrap();
        }
        drop(token);
        // Now everything that was kept goes through; there is room for the end once something has.
        let text = || String::from_utf8_lossy(&written.lock().unwrap()).into_owned();
        until("somebody is told", || text().contains("are lost"));
        until("what was kept is written", || text().lines().count() >= LINES);
        drop(last);
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lost: usize = written
            .lines()
            .filter_map(|line| line.strip_suffix(" lines of the log are lost: nobody read them in time"))
            .map(|count| count.parse::<usize>().unwrap())
            .sum();
        let kept = written.lines().filter(|line| line.starts_with("line ")).count();
        assert_eq!(kept + lost, LINES + more);
        // Beside the queue the thread has one piece.
        assert!((more / 2..=more).contains(&lost), "{lost}");
        assert!(written.starts_with("line 0 "));
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

    /// A log that is never slow, and what was written.
    fn quick() -> (Log, LastLines, Arc<Mutex<Vec<u8>>>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (token, tokens) = channel();
        drop(token);
        let (log, last) = Log::to(Slow { written: Arc::clone(&written), tokens }).unwrap();
        (log, last, written)
    }

    fn wait_for(written: &Mutex<Vec<u8>>, text: &str) {
        until(text, || String::from_utf8_lossy(&written.lock().unwrap()).ends_with(text));
    }

    fn keep(log: &Log) {
        log.shared.is_kept.store(true, Ordering::SeqCst);
    }

    #[test]
    fn a_line_is_written_without_a_loop_and_by_one() {
        let (mut log, _last, written) = quick();
        log.write_all(b"before\n").unwrap();
        wait_for(&written, "before\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let handing = tokio::spawn(hand_over(log.clone()));
            while !log.shared.is_kept.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            for _ in 0..3 {
                log.write_all(b"within\n").unwrap();
                // Nobody else wakes the thread: it's the loop that does.
                while log.shared.waiting.load(Ordering::Relaxed) > 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                wait_for(&written, "within\n");
            }
            log.write_all(b"as it ends\n").unwrap();
            handing.abort();
            assert!(handing.await.is_err());
        });
        wait_for(&written, "as it ends\n");
        log.write_all(b"after\n").unwrap();
        wait_for(&written, "after\n");
    }

    #[test]
    fn what_is_urgent_or_many_waits_for_no_loop_and_keeps_its_order() {
        let (mut log, _last, written) = quick();
        keep(&log);
        log.write_all(b"first\n").unwrap();
        log.urgent().write_all(b"urgent\n").unwrap();
        wait_for(&written, "first\nurgent\n");
        for _ in 1..MANY {
            log.write_all(b"some\n").unwrap();
        }
        log.write_all(b"many\n").unwrap();
        wait_for(&written, "many\n");
    }

    /// Keeps what is written at once apart.
    struct Apart(Arc<Mutex<Vec<Vec<u8>>>>, Receiver<()>);

    impl Write for Apart {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _over = self.1.recv();
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn entries_are_written_one_by_one_and_those_lost_are_an_entry_too() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (token, tokens) = channel();
        let lost = |lost: u64| format!("LOST={lost}").into_bytes();
        let (mut log, last) = Log::entries_to(Apart(Arc::clone(&written), tokens), lost).unwrap();
        for number in 0..LINES + 100 {
            log.write_all(format!("N={number}").as_bytes()).unwrap();
        }
        drop(token);
        until("all is written", || written.lock().unwrap().len() >= LINES);
        drop(last);
        let written = written.lock().unwrap();
        let count = |prefix: &[u8]| written.iter().filter(|entry| entry.starts_with(prefix)).count();
        assert_eq!(written[0], b"N=0");
        assert!(written.iter().all(|entry| !entry.is_empty()));
        let lost: usize = written
            .iter()
            .filter_map(|entry| std::str::from_utf8(entry).unwrap().strip_prefix("LOST="))
            .map(|lost| lost.parse::<usize>().unwrap())
            .sum();
        assert!(lost > 0);
        assert_eq!(count(b"N=") + lost, LINES + 100);
    }

    #[test]
    fn a_process_that_ends_loses_no_line_that_waited() {
        let (mut log, last, written) = quick();
        keep(&log);
        log.write_all(b"one\n").unwrap();
        log.settle();
        assert_eq!(*written.lock().unwrap(), b"one\n");
        log.write_all(b"two\n").unwrap();
        drop(last);
        assert_eq!(*written.lock().unwrap(), b"one\ntwo\n");
    }
}
