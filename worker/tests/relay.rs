//! The relay from outside: a launcher and a supervisor that talk with it over its sockets, tools that write pipes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use serde::de::DeserializeOwned;
use stockade_protocol::ExecId;
use stockade_protocol::client::Stream;
use stockade_protocol::launch::{FromRelay, ToRelay};
use stockade_protocol::ring::{FIRST_SEQ, HEADER, Record, pieces};
use stockade_wire::channel::Channel;
use stockade_wire::socket::seqpacket_pair;
use stockade_worker::relay::run::{GROWN_PIPE, MIN_PAYLOAD};
use stockade_worker::relay::{self, RelayCommand, RelayError, RelayReport};
use stockade_worker::ring::{MIN_RING, RecordBuffer, RingWriter};

const SOON: Duration = Duration::from_secs(20);
const RING: u64 = 256 * 1024;

/// Whether `fd` has something to read within `within`.
fn wait(fd: BorrowedFd<'_>, within: Duration) -> bool {
    let timeout = Timespec { tv_sec: within.as_secs().cast_signed(), tv_nsec: within.subsec_nanos().into() };
    rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

fn receive<T: DeserializeOwned>(channel: &Channel, within: Duration) -> Option<T> {
    wait(channel.as_fd(), within).then(|| channel.receive().unwrap().expect("the relay has closed").0)
}

struct Relay {
    launcher: Channel,
    supervisor: Channel,
    /// With the processor time that it took.
    thread: JoinHandle<(Result<(), RelayError>, Duration)>,
}

/// A run as a tool and a supervisor see it.
struct Run {
    exec_id: ExecId,
    stdout: Option<File>,
    stderr: Option<File>,
    ring: File,
    capacity: u64,
    read: u64,
    next_seq: u64,
    eof: bool,
}

impl Relay {
    fn start() -> Self {
        Self::held().0
    }

    /// One that begins when the other thing is dropped, with whatever it was told before.
    fn held() -> (Self, Sender<()>) {
        let (launcher, control) = seqpacket_pair().unwrap();
        let (holder, held) = channel();
        let thread = std::thread::spawn(move || {
            let _dropped = held.recv();
            let result = relay::run(control);
            (result, processor_time())
        });
        let launcher = Channel::new(launcher);
        let supervisor = connect(&launcher);
        (Self { launcher, supervisor, thread }, holder)
    }

    fn add(&self, output_limit: Option<u64>, idle_ms: Option<u64>) -> Run {
        self.add_with_ring(RING, output_limit, idle_ms)
    }

    fn add_with_ring(&self, capacity: u64, output_limit: Option<u64>, idle_ms: Option<u64>) -> Run {
        self.add_with_output(capacity, output_limit, idle_ms, &[])
    }

    /// One that has written this already.
    fn add_with_output(
        &self,
        capacity: u64,
        output_limit: Option<u64>,
        idle_ms: Option<u64>,
        output: &[u8],
    ) -> Run {
        let exec_id = ExecId::generate();
        let (out_read, out_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (err_read, err_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        assert_eq!(rustix::io::write(&out_write, output).unwrap(), output.len(), "more than a pipe holds");
        let ring = rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&ring, capacity).unwrap();
        let command =
            RelayCommand::Add { exec_id, ring_bytes: capacity, output_limit, idle_ms, is_marked: false };
        self.launcher.send(&command, &[out_read.as_fd(), err_read.as_fd(), ring.as_fd()]).unwrap();
        Run {
            exec_id,
            stdout: Some(out_write.into()),
            stderr: Some(err_write.into()),
            ring: ring.into(),
            capacity,
            read: 0,
            next_seq: FIRST_SEQ,
            eof: false,
        }
    }

    fn report(&self) -> RelayReport {
        receive(&self.launcher, SOON).expect("a report")
    }

    fn silent(&self, within: Duration) {
        let report: Option<RelayReport> = receive(&self.launcher, within);
        assert_eq!(report, None);
    }

    /// Waits for the next news of this run, others' dropped.
    fn wrote(&self, run: &mut Run) -> u64 {
        loop {
            let news: FromRelay = receive(&self.supervisor, SOON).expect("news of the run");
            let FromRelay::Wrote { exec_id, head, next_seq, eof, .. } = news else { continue };
            if exec_id == run.exec_id {
                run.eof = eof;
                run.next_seq = next_seq;
                return head;
            }
        }
    }

    fn acknowledge(&self, run: &Run, offset: u64) {
        self.supervisor.send(&ToRelay::Acknowledge { exec_id: run.exec_id, offset }, &[]).unwrap();
    }

    /// Reads and acknowledges everything until both pipes have ended.
    fn read_to_end(&self, run: &mut Run) -> [Vec<u8>; 2] {
        let mut all = [Vec::new(), Vec::new()];
        while !run.eof {
            let head = self.wrote(run);
            for (stream, bytes) in run.records(head) {
                all[if stream == Stream::Stdout { 0 } else { 1 }].extend(bytes);
            }
            self.acknowledge(run, head);
        }
        all
    }

    /// Ends it. The processor time that it took.
    fn stop(self) -> Duration {
        drop(self.launcher);
        let (result, took) = self.thread.join().unwrap();
        result.unwrap();
        took
    }
}

/// Of this thread so far.
fn processor_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap()
}

fn connect(launcher: &Channel) -> Channel {
    let (supervisor, theirs) = seqpacket_pair().unwrap();
    launcher.send(&RelayCommand::Supervisor, &[theirs.as_fd()]).unwrap();
    Channel::new(supervisor)
}

impl Run {
    fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let [(at, first), (rest_at, rest)] = pieces(offset, length, self.capacity);
        self.ring.read_exact_at(&mut bytes[..first], at).unwrap();
        self.ring.read_exact_at(&mut bytes[first..first + rest], rest_at).unwrap();
        bytes
    }

    /// The records from where this reader is to `head`, whose sequence must rise by one.
    fn records(&mut self, head: u64) -> Vec<(Stream, Vec<u8>)> {
        let mut found = Vec::new();
        while self.read < head {
            let header = self.bytes(self.read, HEADER).try_into().unwrap();
            let record = Record::decode(&header).expect("a record");
            found.push((record.stream, self.bytes(self.read + HEADER as u64, record.length as usize)));
            self.read += HEADER as u64 + u64::from(record.length);
        }
        found
    }

    fn close(&mut self) {
        self.stdout = None;
        self.stderr = None;
    }
}

/// A tool that writes as fast as it can, on a thread: how much it could write, once its pipe breaks or is closed.
fn flood(mut pipe: File) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let block = [b'x'; 65536];
        let mut written = 0;
        while let Ok(bytes) = pipe.write(&block) {
            written += bytes as u64;
        }
        written
    })
}

#[test]
fn both_streams_arrive_whole_and_in_order() {
    let relay = Relay::start();
    let mut run = relay.add(None, None);
    let mut stdout = run.stdout.take().unwrap();
    let mut stderr = run.stderr.take().unwrap();
    let expected: Vec<u8> = (0..3_000_000_u32).flat_map(|value| (value % 8191).to_le_bytes()).collect();
    let copy = expected.clone();
    let tool = std::thread::spawn(move || {
        for chunk in copy.chunks(10_007) {
            stdout.write_all(chunk).unwrap();
            stderr.write_all(b"line\n").unwrap();
        }
    });
    let [out, err] = relay.read_to_end(&mut run);
    tool.join().unwrap();
    assert!(out == expected, "standard output differs");
    assert_eq!(err.len(), expected.len().div_ceil(10_007) * 5);
    assert_eq!(
        relay.report(),
        RelayReport::Drained { exec_id: run.exec_id, bytes: (out.len() + err.len()) as u64 }
    );
    relay.stop();
}

/// A run whose pipe was found full: from now on its output goes straight into the ring. What it wrote so far is read.
fn in_bulk(relay: &Relay, output_limit: Option<u64>) -> (Run, File, u64) {
    let mut run = relay.add_with_ring(1024 * 1024, output_limit, None);
    let mut stdout = run.stdout.take().unwrap();
    let mut written = 0;
    while rustix::pipe::fcntl_getpipe_size(&stdout).unwrap() < GROWN_PIPE {
        assert!(written < 4_000_000, "the pipe doesn't grow");
        stdout.write_all(&[b'x'; 65536]).unwrap();
        written += 65536;
        let head = relay.wrote(&mut run);
        run.read = head;
        relay.acknowledge(&run, head);
    }
    (run, stdout, written)
}

#[test]
fn output_in_bulk_arrives_whole_and_in_order_beside_the_other_stream() {
    let relay = Relay::start();
    let (mut run, mut stdout, before) = in_bulk(&relay, None);
    let mut stderr = run.stderr.take().unwrap();
    let expected: Vec<u8> = (0..3_000_000_u32).flat_map(|value| (value % 8191).to_le_bytes()).collect();
    let copy = expected.clone();
    let tool = std::thread::spawn(move || {
        for chunk in copy.chunks(100_003) {
            stdout.write_all(chunk).unwrap();
            stderr.write_all(b"line\n").unwrap();
        }
    });
    let [out, err] = relay.read_to_end(&mut run);
    tool.join().unwrap();
    let early = out.iter().take_while(|byte| **byte == b'x').count();
    assert!(out[early..] == expected, "standard output differs");
    let bytes = before + expected.len() as u64 + err.len() as u64;
    assert_eq!(relay.report(), RelayReport::Drained { exec_id: run.exec_id, bytes });
    relay.stop();
}

#[test]
fn output_in_bulk_over_the_limit_is_cut_at_the_byte_too() {
    const LIMIT: u64 = 5_000_001;
    let relay = Relay::start();
    let (mut run, mut stdout, before) = in_bulk(&relay, Some(LIMIT));
    assert!(before < LIMIT);
    run.stderr = None;
    let tool = std::thread::spawn(move || stdout.write_all(&vec![b'o'; 40_000_000]).unwrap());
    let [out, _] = relay.read_to_end(&mut run);
    tool.join().unwrap();
    let early = out.iter().take_while(|byte| **byte == b'x').count() as u64;
    assert_eq!(out.len() as u64 - early, LIMIT - before);
    assert_eq!(relay.report(), RelayReport::OutputExceeded { exec_id: run.exec_id, limit: LIMIT });
    assert_eq!(relay.report(), RelayReport::Drained { exec_id: run.exec_id, bytes: LIMIT });
    relay.stop();
}

#[test]
fn a_ring_that_output_in_bulk_cannot_reach_is_told_and_its_tool_not_blocked() {
    let relay = Relay::start();
    let (mut run, mut stdout, _) = in_bulk(&relay, None);
    rustix::fs::ftruncate(&run.ring, 0).unwrap();
    run.stderr = None;
    let tool = std::thread::spawn(move || stdout.write_all(&vec![b'o'; 4_000_000]).unwrap());
    let errno = rustix::io::Errno::FAULT.raw_os_error();
    assert_eq!(relay.report(), RelayReport::Failed { exec_id: run.exec_id, errno });
    tool.join().unwrap();
    assert!(matches!(relay.report(), RelayReport::Drained { .. }));
    relay.stop();
}

#[test]
fn a_full_ring_blocks_its_own_tool_and_no_other() {
    let relay = Relay::start();
    let mut slow = relay.add(None, None);
    let tool = flood(slow.stdout.take().unwrap());
    let mut head = relay.wrote(&mut slow);
    // Less than this may be left, since a record isn't cut to pieces smaller than that.
    while head + (HEADER + MIN_PAYLOAD) as u64 <= RING {
        head = relay.wrote(&mut slow);
    }
    let mut other = relay.add(None, None);
    other.stdout.as_mut().unwrap().write_all(b"through").unwrap();
    other.close();
    assert_eq!(relay.read_to_end(&mut other)[0], b"through");
    assert!(head <= RING);
    assert!(!wait(relay.supervisor.as_fd(), Duration::from_millis(200)), "a full ring grows no more");

    // Half of it acknowledged: as much again comes, and what was unacknowledged is still there.
    let before = slow.bytes(RING / 2, HEADER);
    relay.acknowledge(&slow, RING / 2);
    let more = relay.wrote(&mut slow);
    assert!(more > head && more <= RING + RING / 2);
    assert_eq!(slow.bytes(RING / 2, HEADER), before);

    relay.launcher.send(&RelayCommand::Remove { exec_id: slow.exec_id }, &[]).unwrap();
    assert!(tool.join().unwrap() > RING, "removing a run breaks its pipes");
    relay.stop();
}

#[test]
fn a_run_goes_on_without_a_supervisor_and_the_next_one_reads_it_all() {
    let relay = Relay::start();
    let mut run = relay.add(None, None);
    let Relay { launcher, supervisor, thread } = relay;
    drop(supervisor);
    run.stdout.as_mut().unwrap().write_all(&[b'a'; 100_000]).unwrap();
    run.close();
    let report: RelayReport = receive(&launcher, SOON).unwrap();
    assert_eq!(report, RelayReport::Drained { exec_id: run.exec_id, bytes: 100_000 });

    let supervisor = connect(&launcher);
    let relay = Relay { launcher, supervisor, thread };
    assert_eq!(relay.read_to_end(&mut run)[0], [b'a'; 100_000]);
    relay.stop();
}

#[test]
fn output_over_the_limit_is_cut_at_the_byte_told_once_and_blocks_nothing() {
    let relay = Relay::start();
    let mut run = relay.add(Some(100_001), None);
    let stdout = run.stdout.take().unwrap();
    let mut stderr = run.stderr.take().unwrap();
    stderr.write_all(&[b'e'; 1]).unwrap();
    let tool = std::thread::spawn(move || {
        let mut stdout = stdout;
        stdout.write_all(&vec![b'o'; 40_000_000]).unwrap();
        stderr.write_all(&vec![b'e'; 40_000_000]).unwrap();
    });
    let [out, err] = relay.read_to_end(&mut run);
    tool.join().unwrap();
    assert_eq!(out.len() + err.len(), 100_001);
    assert_eq!(relay.report(), RelayReport::OutputExceeded { exec_id: run.exec_id, limit: 100_001 });
    assert_eq!(relay.report(), RelayReport::Drained { exec_id: run.exec_id, bytes: 100_001 });
    relay.silent(Duration::from_millis(50));
    relay.stop();
}

#[test]
fn output_of_exactly_the_limit_is_not_over_it() {
    let relay = Relay::start();
    let mut run = relay.add(Some(1000), None);
    run.stdout.as_mut().unwrap().write_all(&[b'o'; 1000]).unwrap();
    run.close();
    assert_eq!(relay.read_to_end(&mut run)[0].len(), 1000);
    assert_eq!(relay.report(), RelayReport::Drained { exec_id: run.exec_id, bytes: 1000 });
    relay.stop();
}

#[test]
fn a_limit_larger_than_a_full_ring_is_still_noticed() {
    let relay = Relay::start();
    let mut run = relay.add_with_ring(4096, Some(4000), None);
    let tool = flood(run.stdout.take().unwrap());
    assert_eq!(relay.report(), RelayReport::OutputExceeded { exec_id: run.exec_id, limit: 4000 });
    relay.launcher.send(&RelayCommand::Remove { exec_id: run.exec_id }, &[]).unwrap();
    tool.join().unwrap();
    relay.stop();
}

#[test]
fn silence_is_told_once_and_output_puts_it_off() {
    const LIMIT: Duration = Duration::from_millis(400);
    let relay = Relay::start();
    let limit_ms = 400;
    // Whatever is told, is told no sooner than so long after the last output began.
    let told = |run: &Run, since: Instant, within| -> bool {
        let report: Option<RelayReport> = receive(&relay.launcher, within);
        let too_soon = since.elapsed() + Duration::from_millis(5) < LIMIT;
        assert!(report.is_none() || !too_soon, "told {:?} after the last output", since.elapsed());
        report
            .inspect(|report| assert_eq!(*report, RelayReport::Idle { exec_id: run.exec_id, limit_ms }))
            .is_some()
    };
    // On a busy machine we may be silent for longer than we mean to: that is told rightly, and another run is tried. None is
    // closed meanwhile.
    let mut runs = Vec::new();
    loop {
        let mut run = relay.add(None, Some(limit_ms));
        let mut since = Instant::now();
        let kept_talking = (0..6).all(|_| {
            let in_time = !told(&run, since, Duration::from_millis(100));
            since = Instant::now();
            run.stdout.as_mut().unwrap().write_all(b".").unwrap();
            in_time
        });
        if kept_talking {
            assert!(told(&run, since, SOON), "silence isn't told");
        }
        runs.push(run);
        if kept_talking {
            break;
        }
    }
    relay.silent(Duration::from_millis(600));
    relay.stop();
}

/// What the relay finds when it begins fills one's ring, and is the end of the other: neither is ever silent.
#[test]
fn the_idle_clock_stands_still_while_the_ring_is_full_and_after_the_end() {
    let (relay, holder) = Relay::held();
    let mut full = relay.add_with_output(4096, None, Some(300), &[b'x'; 10_000]);
    let ended = relay.add(None, Some(300));
    relay.launcher.send(&RelayCommand::Ended { exec_id: ended.exec_id }, &[]).unwrap();
    drop(holder);
    relay.silent(Duration::from_millis(900));
    assert!(relay.wrote(&mut full) <= 4096);

    // Its twin: the reader goes on, the tool stays silent, and the same clock runs out.
    relay.acknowledge(&full, u64::MAX);
    assert_eq!(relay.report(), RelayReport::Idle { exec_id: full.exec_id, limit_ms: 300 });
    relay.stop();
}

#[test]
fn an_acknowledgement_may_come_before_its_run() {
    let relay = Relay::start();
    let exec_id = ExecId::generate();
    relay.supervisor.send(&ToRelay::Acknowledge { exec_id, offset: u64::MAX }, &[]).unwrap();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (err_read, _err_write) = rustix::pipe::pipe().unwrap();
    let ring = rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&ring, RING).unwrap();
    // Only what the relay has answered proves that it has taken the acknowledgement before the run.
    let mut probe = relay.add(None, None);
    probe.close();
    relay.report();
    let command =
        RelayCommand::Add { exec_id, ring_bytes: RING, output_limit: None, idle_ms: None, is_marked: false };
    relay.launcher.send(&command, &[read.as_fd(), err_read.as_fd(), ring.as_fd()]).unwrap();
    drop(read);
    let mut tool = File::from(write);
    tool.write_all(&vec![b'x'; 4 * usize::try_from(RING).unwrap()]).unwrap();
    relay.stop();
}

#[test]
fn a_forgotten_run_is_drained_without_a_ring() {
    let relay = Relay::start();
    let mut run = relay.add(None, None);
    let mut stdout = run.stdout.take().unwrap();
    stdout.write_all(b"x").unwrap();
    relay.wrote(&mut run);
    relay.supervisor.send(&ToRelay::Forget { exec_id: run.exec_id }, &[]).unwrap();
    stdout.write_all(&vec![b'x'; 4 * usize::try_from(RING).unwrap()]).unwrap();
    drop(stdout);
    run.close();
    let bytes = 4 * RING + 1;
    assert_eq!(relay.report(), RelayReport::Drained { exec_id: run.exec_id, bytes });
    relay.stop();
}

#[test]
fn a_flood_leaves_others_their_turn() {
    let relay = Relay::start();
    let mut floods = Vec::new();
    for _ in 0..4 {
        let mut run = relay.add(None, None);
        relay.acknowledge(&run, u64::MAX);
        floods.push((flood(run.stdout.take().unwrap()), run));
    }
    let mut quiet = relay.add(None, None);
    // Without turns it would never be read.
    for _ in 0..50 {
        quiet.stdout.as_mut().unwrap().write_all(b"?").unwrap();
        relay.wrote(&mut quiet);
    }
    for (tool, run) in floods {
        relay.launcher.send(&RelayCommand::Remove { exec_id: run.exec_id }, &[]).unwrap();
        tool.join().unwrap();
    }
    relay.stop();
}

#[test]
fn a_supervisor_that_never_reads_stops_nobody() {
    let relay = Relay::start();
    let mut runs: Vec<Run> = (0..600).map(|_| relay.add_with_ring(8192, None, None)).collect();
    for _ in 0..3 {
        for run in &mut runs {
            run.stdout.as_mut().unwrap().write_all(b"hello").unwrap();
        }
    }
    for run in &mut runs {
        run.close();
    }
    for _ in 0..runs.len() {
        assert!(matches!(relay.report(), RelayReport::Drained { bytes: 15, .. }));
    }
    // Now it reads: what it's told last of each run is the whole truth.
    let mut ends = std::collections::HashMap::new();
    while ends.len() < runs.len() {
        let FromRelay::Wrote { exec_id, head, eof, .. } = receive(&relay.supervisor, SOON).unwrap() else {
            continue;
        };
        if eof {
            ends.insert(exec_id, head);
        }
    }
    for run in &mut runs {
        let head = ends[&run.exec_id];
        let bytes: usize = run.records(head).iter().map(|record| record.1.len()).sum();
        assert_eq!(bytes, 15);
    }
    relay.stop();
}

#[test]
fn a_run_that_cannot_be_added_is_told_and_the_relay_goes_on() {
    let relay = Relay::start();
    let exec_id = ExecId::generate();
    let add = |ring_bytes| RelayCommand::Add {
        exec_id,
        ring_bytes,
        output_limit: None,
        idle_ms: None,
        is_marked: false,
    };
    relay.launcher.send(&add(RING), &[]).unwrap();
    let errno = rustix::io::Errno::MFILE.raw_os_error();
    assert_eq!(relay.report(), RelayReport::Failed { exec_id, errno });
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    relay.launcher.send(&add(RING), &[file.as_fd(), file.as_fd(), file.as_fd()]).unwrap();
    let errno = rustix::io::Errno::PERM.raw_os_error();
    assert_eq!(relay.report(), RelayReport::Failed { exec_id, errno });
    relay.launcher.send(&add(1), &[file.as_fd(), file.as_fd(), file.as_fd()]).unwrap();
    let errno = rustix::io::Errno::INVAL.raw_os_error();
    assert_eq!(relay.report(), RelayReport::Failed { exec_id, errno });
    relay.stop();
}

#[test]
fn a_ring_that_cannot_be_written_is_told_and_its_tool_not_blocked() {
    let relay = Relay::start();
    let exec_id = ExecId::generate();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (err_read, err_write) = rustix::pipe::pipe().unwrap();
    let path = tempfile::NamedTempFile::new().unwrap();
    let read_only = File::open(path.path()).unwrap();
    let command =
        RelayCommand::Add { exec_id, ring_bytes: RING, output_limit: None, idle_ms: None, is_marked: false };
    relay.launcher.send(&command, &[read.as_fd(), err_read.as_fd(), read_only.as_fd()]).unwrap();
    drop(read);
    let mut tool = File::from(write);
    tool.write_all(&vec![b'x'; 1_000_000]).unwrap();
    let errno = rustix::io::Errno::BADF.raw_os_error();
    assert_eq!(relay.report(), RelayReport::Failed { exec_id, errno });
    drop(tool);
    drop(err_write);
    assert_eq!(relay.report(), RelayReport::Drained { exec_id, bytes: 0 });
    relay.stop();
}

#[test]
fn a_supervisor_that_talks_nonsense_is_dropped_and_replaced() {
    let relay = Relay::start();
    rustix::net::send(&relay.supervisor, b"\x07nonsense", rustix::net::SendFlags::empty()).unwrap();
    // What it was told when it came, and then nothing ever.
    let read = || -> io::Result<usize> { Ok(rustix::io::read(&relay.supervisor, &mut [0; 64])?) };
    let ends = (0..2).any(|_| wait(relay.supervisor.as_fd(), SOON) && !matches!(read(), Ok(1..)));
    assert!(ends, "it is listened to");
    let relay = Relay { supervisor: connect(&relay.launcher), ..relay };
    let mut run = relay.add(None, None);
    run.stdout.as_mut().unwrap().write_all(b"on").unwrap();
    run.close();
    assert_eq!(relay.read_to_end(&mut run)[0], b"on");
    relay.stop();
}

#[test]
fn relaying_a_flood_takes_about_the_processor_time_of_reading_it_from_a_plain_pipe() {
    const BYTES: usize = 512 * 1024 * 1024;
    let block = vec![b'x'; 65536];
    let write = |mut pipe: File, block: Vec<u8>| {
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, 1024 * 1024);
        std::thread::spawn(move || {
            for _ in 0..BYTES / block.len() {
                pipe.write_all(&block).unwrap();
            }
        })
    };
    let (read, plain) = rustix::pipe::pipe().unwrap();
    let before = processor_time();
    let tool = write(plain.into(), block.clone());
    let mut into = vec![0; 65536];
    while rustix::io::read(&read, &mut into).unwrap() > 0 {}
    tool.join().unwrap();
    let bare = processor_time() - before;

    let relay = Relay::start();
    let mut run = relay.add_with_ring(1024 * 1024, None, None);
    let tool = write(run.stdout.take().unwrap(), block);
    run.close();
    while !run.eof {
        let head = relay.wrote(&mut run);
        run.read = head;
        relay.acknowledge(&run, head);
    }
    tool.join().unwrap();
    let relayed = relay.stop();
    let rate = |time: Duration| BYTES as f64 / time.as_secs_f64() / 1e9;
    eprintln!("plain pipe {:.2} GB/s, relayed into the ring {:.2} GB/s", rate(bare), rate(relayed));
    assert!(relayed < bare * 10, "{relayed:?} against {bare:?}");
}

/// One whose silence is marked.
fn marked(stage: &Relay) -> Run {
    let exec_id = ExecId::generate();
    let (out_read, out_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (err_read, err_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ring = rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&ring, RING).unwrap();
    let command =
        RelayCommand::Add { exec_id, ring_bytes: RING, output_limit: None, idle_ms: None, is_marked: true };
    stage.launcher.send(&command, &[out_read.as_fd(), err_read.as_fd(), ring.as_fd()]).unwrap();
    let (stdout, stderr) = (Some(out_write.into()), Some(err_write.into()));
    let ring = ring.into();
    Run { exec_id, stdout, stderr, ring, capacity: RING, read: 0, next_seq: FIRST_SEQ, eof: false }
}

/// The records that came by now, and after so long again.
fn heard(stage: &Relay, run: &mut Run, within: Duration) -> Vec<(Stream, usize)> {
    let mut records = Vec::new();
    while let Some(news) = receive::<FromRelay>(&stage.supervisor, within) {
        let FromRelay::Wrote { head, .. } = news else { continue };
        records.extend(run.records(head).into_iter().map(|(stream, bytes)| (stream, bytes.len())));
    }
    records
}

#[test]
fn silence_is_marked_once_behind_what_a_stream_said_where_that_is_asked_for() {
    let stage = Relay::start();
    let (mut run, mut plain) = (marked(&stage), stage.add(None, None));
    let long = Duration::from_millis(400);
    assert_eq!(heard(&stage, &mut run, long), [], "nobody has said anything");
    rustix::io::write(run.stdout.as_ref().unwrap(), b"one").unwrap();
    assert_eq!(heard(&stage, &mut run, long), [(Stream::Stdout, 3), (Stream::Stdout, 0)]);
    rustix::io::write(run.stderr.as_ref().unwrap(), b"three").unwrap();
    assert_eq!(heard(&stage, &mut run, long), [(Stream::Stderr, 5), (Stream::Stderr, 0)], "each by itself");
    rustix::io::write(plain.stdout.as_ref().unwrap(), b"one").unwrap();
    assert_eq!(heard(&stage, &mut plain, long), [(Stream::Stdout, 3)], "nobody has asked for it");
    stage.stop();
}

/// Of a run with marks records are short, so that what is held of one goes out with the next.
#[test]
fn records_are_short_where_silence_is_marked() {
    let stage = Relay::start();
    let mut run = marked(&stage);
    let pipe = run.stdout.take().unwrap();
    rustix::pipe::fcntl_setpipe_size(&pipe, 1 << 20).unwrap();
    let many = vec![b'x'; 200_000];
    rustix::io::write(&pipe, &many).unwrap();
    let lengths: Vec<usize> =
        heard(&stage, &mut run, Duration::from_millis(400)).into_iter().map(|(_, length)| length).collect();
    assert_eq!(lengths.iter().sum::<usize>(), many.len());
    let longest = lengths.iter().copied().max();
    assert_eq!(longest, Some(stockade_protocol::bounds::MARKED_RECORD), "{lengths:?}");
    assert_eq!(lengths.last(), Some(&0), "{lengths:?}");
    stage.stop();
}

#[test]
fn a_ring_without_room_has_its_mark_when_there_is_room_and_wakes_nobody_meanwhile() {
    let (out_read, out_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (err_read, _err_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let memfd = rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memfd, MIN_RING).unwrap();
    let ring = RingWriter::new(memfd, MIN_RING).unwrap();
    let (now, later) = (Instant::now(), Instant::now() + SOON);
    let mut run = relay::run::Run::new(ExecId::generate(), [out_read, err_read], ring, None, None, now)
        .unwrap()
        .marked();
    let mut buffer = RecordBuffer::default();
    // But for one byte, so that the ring isn't found full.
    let all = vec![b'x'; usize::try_from(MIN_RING).unwrap() - HEADER - 1];
    assert_eq!(rustix::io::write(&out_write, &all).unwrap(), all.len());
    assert!(run.turn(Stream::Stdout, &mut buffer, now).wrote && run.silent_at().is_some());
    assert!(!run.mark_silence(&mut buffer, later) && run.silent_at().is_none(), "there is no room at all");
    run.acknowledge(MIN_RING, later);
    assert!(run.silent_at().is_some());
    assert!(run.mark_silence(&mut buffer, later) && run.silent_at().is_none());
    assert_eq!(run.ring().unwrap().position().next_seq, FIRST_SEQ + 2);
}

/// What it has said meanwhile waits in its pipe.
#[test]
fn a_stream_whose_ring_is_full_is_not_silent() {
    let (out_read, out_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (err_read, _err_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let memfd = rustix::fs::memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memfd, MIN_RING).unwrap();
    let ring = RingWriter::new(memfd, MIN_RING).unwrap();
    let (now, later) = (Instant::now(), Instant::now() + SOON);
    let mut run = relay::run::Run::new(ExecId::generate(), [out_read, err_read], ring, None, None, now)
        .unwrap()
        .marked();
    let mut buffer = RecordBuffer::default();
    let all = vec![b'x'; usize::try_from(MIN_RING).unwrap()];
    assert_eq!(rustix::io::write(&out_write, &all).unwrap(), all.len());
    assert!(run.turn(Stream::Stdout, &mut buffer, now).stalled);
    assert!(run.silent_at().is_none() && !run.mark_silence(&mut buffer, later));
    let head = run.ring().unwrap().position().head;
    assert!(run.acknowledge(head, later), "it goes on");
    assert!(!run.mark_silence(&mut buffer, later), "nobody has listened");
    assert!(!run.mark_silence(&mut buffer, later + SOON), "it has said more");
    assert!(run.turn(Stream::Stdout, &mut buffer, later + SOON).wrote);
    assert!(run.mark_silence(&mut buffer, later + 2 * SOON), "now it is");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a reader that is slow")]
fn a_long_write_that_a_slow_reader_takes_has_no_mark_before_its_end() {
    const LONG: usize = 600_000;
    let stage = Relay::start();
    let mut run = marked(&stage);
    let mut pipe = run.stdout.take().unwrap();
    let tool = std::thread::spawn(move || {
        pipe.write_all(&vec![b'x'; LONG]).unwrap();
        pipe
    });
    let (mut records, mut had, mut pauses) = (Vec::new(), 0, 0);
    while had < LONG {
        let head = stage.wrote(&mut run);
        let new = run.records(head);
        had += new.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        records.extend(new.into_iter().map(|(_, bytes)| bytes.len()));
        // Where the ring is full, which it is each time but the last.
        std::thread::sleep(Duration::from_millis(300));
        stage.acknowledge(&run, head);
        pauses += 1;
    }
    assert!(pauses > 2, "nobody has waited");
    let _open = tool.join().unwrap();
    let first_mark = records.iter().position(|length| *length == 0).unwrap_or(records.len());
    assert_eq!(records[..first_mark].iter().sum::<usize>(), LONG, "a mark in the middle: {records:?}");
    let rest = heard(&stage, &mut run, Duration::from_millis(400));
    assert_eq!(records.len() - first_mark + rest.len(), 1, "the end has one");
    stage.stop();
}
