//! Files of a filesystem that has stopped to answer: a client's own FUSE server. Whoever reads or closes one of
//! them waits until the server's end, and no signal helps.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use stockade_protocol::client::{ClientMessage, ExecRequest, OutputMode, StdinMode};
use stockade_protocol::launch::LaunchOutput;
use stockade_protocol::outcome::Outcome;

use super::stage::{Changes, Stage};

/// Nothing counts, neither input nor output: whatever may be is passed through.
const FREE: &str = "name = \"custom\"\nextends = \"default\"\n[limits]\noutput = \"none\"\n";

/// Requests of linux/fuse.h that are answered while the files are opened.
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const INIT: u32 = 26;
/// Bytes of a request's header and of an answer's.
const ASKED: usize = 40;
const SAID: usize = 16;

/// A filesystem of one file, which is its root. Dropped, every request that waits fails: so it has to be dropped
/// before the daemon is waited for, or a test that fails never ends.
struct Dead {
    /// Before the files: their close waits, too.
    _server: OwnedFd,
    files: Vec<OwnedFd>,
}

impl Dead {
    /// With so many descriptors of its file; it doesn't answer any more. `None`: not possible here.
    fn with_files(count: usize) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tested: a filesystem that stops answering: that takes root");
            return None;
        }
        let Ok(server) = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
            eprintln!("not tested: a filesystem that stops answering: there is no /dev/fuse");
            return None;
        };
        // In a mount namespace that ends with the thread: only the descriptors keep the filesystem.
        let opened = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let place = tempfile::NamedTempFile::new().unwrap();
            let options = format!("fd={},rootmode=100644,user_id=0,group_id=0\0", server.as_raw_fd());
            let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
            mount("dead", place.path(), "fuse", MountFlags::NOSUID | MountFlags::NODEV, Some(options))
                .unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let serving = std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        answer_one(&server);
                    }
                    server
                }
            });
            let open = || rustix::fs::open(place.path(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            let files = (0..count).map(|_| open().unwrap()).collect();
            rustix::mount::unmount(place.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
            stop.store(true, Ordering::Relaxed);
            Self { _server: serving.join().unwrap(), files }
        });
        Some(opened.join().expect("the files can't be opened"))
    }
}

/// Answers what an open asks for, if something comes soon.
fn answer_one(server: &OwnedFd) {
    let soon = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    if poll(&mut [PollFd::new(server, PollFlags::IN)], Some(&soon)).unwrap() == 0 {
        return;
    }
    let mut asked = vec![0; 1 << 17];
    let length = rustix::io::read(server, asked.as_mut_slice()).unwrap();
    assert!(length >= ASKED);
    let number = |at: usize| u32::from_ne_bytes(asked[at..at + 4].try_into().unwrap());
    let (error, body) = match number(4) {
        INIT => {
            let words: [u32; 6] = [7, 31, 0, 0, 0, 4096];
            let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            body.resize(64, 0);
            (0_i32, body)
        }
        GETATTR => {
            // Valid for long; then inode 1, and at 76 mode and links.
            let mut body = vec![0; 104];
            body[0..8].copy_from_slice(&1_000_000_u64.to_ne_bytes());
            body[16] = 1;
            body[76..80].copy_from_slice(&0o100_644_u32.to_ne_bytes());
            body[80] = 1;
            (0, body)
        }
        OPEN => (0, vec![0; 16]),
        _ => (-rustix::io::Errno::NOSYS.raw_os_error(), Vec::new()),
    };
    let mut said = u32::try_from(SAID + body.len()).unwrap().to_ne_bytes().to_vec();
    said.extend(error.to_ne_bytes());
    said.extend(&asked[8..16]);
    said.extend(body);
    rustix::io::write(server, &said).unwrap();
}

/// Somebody else is served from beginning to end.
fn assert_others_are_served(stage: &Stage, launcher: &mut super::stage::Launcher) {
    let mut other = stage.client();
    let run = other.exec(stage.request());
    assert_eq!(launcher.play(b"x"), run);
    assert_eq!(other.read_to_end(run, 2).0, b"x");
}

fn free(stage: &Stage) -> ExecRequest {
    ExecRequest { policy: "custom".into(), ..stage.request() }
}

#[test]
fn output_to_a_dead_file_is_relayed_and_its_close_keeps_nobody_waiting() {
    let stage = Stage::new(Changes { policy: Some(FREE), ..Changes::default() });
    let Some(dead) = Dead::with_files(2) else { return };
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let request = ExecRequest { output: OutputMode::Descriptor, ..free(&stage) };
    // The twin: a file of this machine is the tool's own.
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    let run = client.exec_with(request.clone(), &[file(), file()]);
    let (launch, descriptors) = launcher.launch();
    assert_eq!((&launch.output, descriptors.len()), (&LaunchOutput::Passed, 2));
    launcher.ended(run, Outcome::Exited { code: 0 });
    client.read_to_end(run, 2);
    let run = client.exec_with(request, &dead.files);
    let (launch, descriptors) = launcher.launch();
    assert!(
        matches!(launch.output, LaunchOutput::Relayed { .. }),
        "the launcher would hang: {:?}",
        launch.output
    );
    assert!(descriptors.is_empty());
    launcher.started(&launch);
    launcher.write(run, b"to the client");
    launcher.end_output(run);
    launcher.ended(run, Outcome::Exited { code: 0 });
    assert_eq!(client.read_to_end(run, 2).0, b"to the client");
    assert_others_are_served(&stage, &mut launcher);
}

#[test]
fn dead_files_that_no_message_takes_keep_nobody_waiting() {
    let stage = Stage::new(Changes::default());
    let Some(dead) = Dead::with_files(8) else { return };
    let mut launcher = stage.launcher();
    // Unasked for, denied with their request, more than may be, and in the socket as it is closed.
    stage.client().say_with(&ClientMessage::List, &dead.files[..1]);
    let mut denied = stage.client();
    let request = ExecRequest {
        argv: Vec::new(),
        stdin: StdinMode::Descriptor,
        output: OutputMode::Descriptor,
        ..stage.request()
    };
    denied.denied(request, &dead.files[..3]);
    let mut many = stage.client();
    many.say_with(&ClientMessage::List, &dead.files);
    // The first may have closed it already.
    many.try_say_with(&ClientMessage::List, &dead.files);
    let mut unread = stage.stranger();
    unread.say_bytes(b"GET / HTTP/1.1\r\n\r\n");
    drop(unread);
    drop((denied, many));
    assert_others_are_served(&stage, &mut launcher);
}

#[test]
fn input_from_a_dead_file_is_read_where_nobody_else_waits() {
    let stage = Stage::new(Changes { policy: Some(FREE), ..Changes::default() });
    let Some(dead) = Dead::with_files(1) else { return };
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec_with(ExecRequest { stdin: StdinMode::Descriptor, ..free(&stage) }, &dead.files);
    let (launch, descriptors) = launcher.launch();
    assert_eq!((launch.exec_id, descriptors.len()), (run, 1));
    assert_eq!(crate::descriptors::kind(&descriptors[0]).unwrap(), crate::descriptors::Kind::Pipe);
    assert_others_are_served(&stage, &mut launcher);
    // The run ends, though the read doesn't.
    launcher.ended(run, Outcome::Exited { code: 0 });
    client.read_to_end(run, 2);
    drop(client);
    assert_others_are_served(&stage, &mut launcher);
}

#[test]
fn an_owner_with_too_many_dead_files_is_not_read_until_they_are_closed() {
    let stage = Stage::new(Changes::default());
    let Some(dead) = Dead::with_files(8) else { return };
    let _launcher = stage.launcher();
    // Each connection leaves eight behind: 72 are more than may wait.
    for _ in 0..9 {
        let mut client = stage.client();
        client.say_with(&ClientMessage::List, &dead.files);
        while client.try_next().is_some() {}
    }
    let mut waiting = stage.stranger();
    waiting.say(&ClientMessage::Hello(stockade_protocol::client::Hello {
        magic: stockade_protocol::client::MAGIC,
        version: 1,
        features: 0,
    }));
    assert!(matches!(waiting.next(), stockade_protocol::client::ServerMessage::Welcome(_)));
    waiting.say(&ClientMessage::Status);
    assert!(waiting.hears_nothing(), "answered, though too much waits");
    drop(dead);
    assert!(matches!(waiting.next(), stockade_protocol::client::ServerMessage::Status(_)));
}
