//! Runs and their output on the way through.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;

use stockade_protocol::client::{
    ClientMessage, ExecEvent, OutputMode, RunState, ServerMessage, StdinMode, Workspace,
};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::launch::{FromLauncher, LaunchOutput, ToLauncher};
use stockade_protocol::outcome::{CancelReason, Outcome};

use super::stage::{Changes, Stage, open, until};
use crate::runs::ACKNOWLEDGED_PART;

const CODE_0: Outcome = Outcome::Exited { code: 0 };

#[test]
fn a_run_reaches_the_launcher_and_its_events_reach_the_client_in_order() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let (launch, descriptors) = launcher.launch();
    assert_eq!((launch.exec_id, launch.argv.len(), descriptors.len()), (run, 1, 0));
    assert_eq!(launch.owner.uid, rustix::process::geteuid().as_raw());
    assert!(launch.workspace_passed && !launch.stdin_passed);
    launcher.started(&launch);
    assert!(matches!(client.event(run, 2), ExecEvent::Started { .. }));
    launcher.write(run, b"one");
    let ExecEvent::Output { bytes, .. } = client.event(run, 3) else { panic!("no output") };
    assert_eq!(&*bytes, b"one");
    let warning = FromLauncher::Warning { exec_id: run, limit: "memory".into(), value: 9, bound: 10 };
    launcher.say(&warning, &[]);
    assert!(matches!(client.event(run, 3), ExecEvent::LimitWarning { .. }), "numbered as the event before");
    launcher.write(run, b"two");
    launcher.ended(run, Outcome::Exited { code: 7 });
    let ExecEvent::Output { bytes, .. } = client.event(run, 4) else { panic!("no output") };
    assert_eq!(&*bytes, b"two");
    assert!(client.hears_nothing(), "Exited before the end of output");
    launcher.end_output(run);
    let (output, outcome, usage) = client.read_to_end(run, 5);
    assert_eq!((output.len(), outcome, usage.bytes_out), (0, Outcome::Exited { code: 7 }, 6));
    // Everything was taken, so nothing is kept; and so little wasn't worth an acknowledgement.
    assert_eq!(launcher.relay_hears(), (run, None));
    assert!(client.runs().is_empty());
}

#[test]
fn a_run_that_has_written_nothing_ends_without_a_word_of_the_relay() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    assert!(matches!(launch.output, LaunchOutput::Relayed { .. }));
    launcher.started_with(&launch, &[]);
    assert!(matches!(client.event(run, 2), ExecEvent::Started { .. }));
    assert!(client.hears_nothing(), "Exited before its end");
    launcher.ended(run, Outcome::Exited { code: 7 });
    let (output, outcome, usage) = client.read_to_end(run, 3);
    assert_eq!((output.len(), outcome, usage.bytes_out), (0, Outcome::Exited { code: 7 }, 0));
    until("forgotten", || client.runs().is_empty());
    assert!(launcher.relay_hears_nothing(), "it knows nothing of the run");
}

/// The first client's lookup goes on until the last one has been answered.
#[test]
fn a_lookup_that_takes_long_keeps_nobody_else_waiting() {
    static SERVICE: Mutex<()> = Mutex::new(());
    fn slow(_uid: u32) -> PathBuf {
        drop(SERVICE.lock());
        PathBuf::from("/home/of-a-slow-service")
    }
    let busy = SERVICE.lock().unwrap();
    let stage = Stage::new(Changes { home_of: slow, ..Changes::default() });
    let mut launcher = stage.launcher();
    let (mut asking, mut other) = (stage.client(), stage.client());
    let mut gone = stage.client();
    gone.say(&ClientMessage::Exec(Box::new(stage.request())));
    asking.say(&ClientMessage::Exec(Box::new(stage.request())));
    assert!(other.runs().is_empty());
    // One that leaves while it waits has asked for nothing.
    drop(gone);
    assert!(other.runs().is_empty());
    drop(busy);
    let (launch, _) = launcher.launch();
    assert!(format!("{launch:?}").contains("/home/of-a-slow-service"), "{launch:?}");
    let runs = other.runs();
    assert_eq!((runs.len(), runs[0].exec_id), (1, launch.exec_id));
}

#[test]
fn a_run_whose_set_up_fails_has_accepted_and_exited() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    launcher.launch();
    launcher.ended(run, Outcome::Exited { code: 1 });
    let (output, outcome, _) = client.read_to_end(run, 2);
    assert_eq!((output, outcome), (Vec::new(), Outcome::Exited { code: 1 }));
}

#[test]
fn what_would_not_fit_a_frame_is_cut_and_the_end_still_arrives() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    launcher.launch();
    let ended = FromLauncher::Ended {
        exec_id: run,
        outcome: Outcome::Lost { reason: "x".repeat(1 << 20) },
        usage: Default::default(),
        trusted_files: vec![vec![b'x'; 4000].into(); 500],
        reaped: true,
    };
    launcher.say(&ended, &[]);
    let ExecEvent::Exited { outcome: Outcome::Lost { reason }, trusted_files, .. } = client.event(run, 2)
    else {
        panic!("no end")
    };
    assert_eq!(reason.len(), 16 * 1024);
    assert!((100..200).contains(&trusted_files.len()));
}

#[test]
fn descriptors_are_passed_in_order_when_no_rule_wants_them_relayed() {
    let stage = Stage::new(Changes {
        policy: Some("name = \"custom\"\nextends = \"default\"\n"),
        ..Changes::default()
    });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let workspace = stage.workspace();
    let request = || stockade_protocol::client::ExecRequest {
        workspace: Workspace::Descriptor { path: workspace.clone().into() },
        stdin: StdinMode::Descriptor,
        output: OutputMode::Descriptor,
        policy: "minimal".into(),
        ..stage.request()
    };
    let files: Vec<_> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
    let passed: Vec<OwnedFd> = [open(&workspace)]
        .into_iter()
        .chain(files.iter().map(|file| file.try_clone().unwrap().into()))
        .collect();
    let run = client.exec_with(request(), &passed);
    let (launch, received) = launcher.launch();
    assert!(launch.workspace_passed && launch.stdin_passed);
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    // Whether this policy has a rule on output or not, workspace and stdin come first and unchanged.
    assert_eq!(inode(launcher.workspace.as_ref().unwrap()), inode(&passed[0]));
    let spec = launcher.spec(&launch);
    if spec.limits.stdin.is_none() {
        assert_eq!(inode(&received[0]), inode(&passed[1]));
    }
    let ruled = spec.limits.output.is_some() || spec.limits.idle_ms.is_some();
    assert_eq!(launch.output == LaunchOutput::Passed, !ruled);
    assert_eq!(received.len(), if ruled { 1 } else { 3 });
    launcher.started(&launch);
    if ruled {
        launcher.end_output(run);
    }
    launcher.ended(run, CODE_0);
    assert_eq!(client.read_to_end(run, 2).1, CODE_0);

    // Sockets are never passed: the client could be handed a descriptor of the run's.
    let (socket, _other) = UnixStream::pair().unwrap();
    let passed = [
        open(&workspace),
        socket.try_clone().unwrap().into(),
        socket.try_clone().unwrap().into(),
        socket.into(),
    ];
    let run = client.exec_with(request(), &passed);
    let (launch, received) = launcher.launch();
    assert!(matches!(launch.output, LaunchOutput::Relayed { .. }));
    assert_eq!(received.len(), 1);
    assert_eq!(crate::descriptors::kind(&received[0]).unwrap(), crate::descriptors::Kind::Pipe);
    launcher.ended(run, CODE_0);
    client.read_to_end(run, 2);
}

#[test]
fn a_client_that_does_not_read_stops_its_own_run_and_no_other() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let (mut slow, mut quick) = (stage.client(), stage.client());
    let run = slow.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    let LaunchOutput::Relayed { ring_bytes } = launch.output else { panic!("not relayed") };
    // A relay that obeys: it writes only over what was acknowledged.
    let (mut acknowledged, mut written, total) = (0, 0_usize, 8 << 20);
    let chunk = |at: usize| vec![u8::try_from(at / 60_000 % 251).unwrap(); 60_000.min(total - at)];
    let mut pump = |launcher: &mut super::stage::Launcher, written: &mut usize| loop {
        let head = launcher.rings[&run].wrote.head;
        if *written == total || head + 60_016 - acknowledged > ring_bytes {
            if launcher.relay_hears_nothing() {
                return;
            }
            if let (of, Some(offset)) = launcher.relay_hears()
                && of == run
            {
                assert!(offset > acknowledged && offset <= head);
                acknowledged = offset;
            }
            continue;
        }
        launcher.write(run, &chunk(*written));
        *written += chunk(*written).len();
    };
    pump(&mut launcher, &mut written);
    assert!(written < 3 << 20, "a client that doesn't read took {written} bytes");
    // Meanwhile another client's run comes and goes.
    let other = quick.exec(stage.request());
    assert_eq!(launcher.play(b"quick"), other);
    assert_eq!(quick.read_to_end(other, 2).0, b"quick");
    // The run ends while its output is still held up; nothing of it is lost.
    launcher.ended(run, CODE_0);
    let reader = std::thread::spawn(move || slow.read_to_end(run, 2));
    while written < total {
        pump(&mut launcher, &mut written);
    }
    launcher.end_output(run);
    let (output, outcome, usage) = reader.join().unwrap();
    assert_eq!((output.len(), outcome, usage.bytes_out), (total, CODE_0, total as u64));
    let mut expected = Vec::new();
    while expected.len() < total {
        expected.extend(chunk(expected.len()));
    }
    assert!(output == expected, "bytes differ");
}

#[test]
fn a_detached_run_goes_on_and_gives_its_tail_to_whoever_attaches() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let detached = stockade_protocol::client::ExecRequest { detach: true, ..stage.request() };
    let run = client.exec(detached);
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    assert!(matches!(client.event(run, 2), ExecEvent::Started { .. }));
    drop(client);
    let LaunchOutput::Relayed { ring_bytes } = launch.output else { panic!("not relayed") };
    let records = ring_bytes / 1000 + 50;
    for number in 0..records {
        launcher.write(run, format!("{number:0984}").as_bytes());
    }
    launcher.ended(run, CODE_0);
    launcher.end_output(run);
    let head = launcher.rings[&run].wrote.head;
    until("everything but a last part is acknowledged, though nobody reads", || {
        let (of, offset) = launcher.relay_hears();
        of == run && head - offset.unwrap() < ring_bytes / ACKNOWLEDGED_PART
    });
    let mut client = stage.client();
    until("ended", || matches!(client.runs()[0].state, RunState::Ended { .. }));
    client.say(&ClientMessage::Attach { exec_id: run, after_seq: 2 });
    let oldest = launcher.rings[&run].wrote.oldest_seq;
    let lost = oldest - 3;
    assert!(lost >= 50);
    assert_eq!(client.event(run, oldest - 1), ExecEvent::OutputLost { events: lost });
    let ExecEvent::Output { bytes, .. } = client.event(run, oldest) else { panic!("no output") };
    assert_eq!(&*bytes, format!("{lost:0984}").as_bytes());
    let (output, outcome, _) = client.read_to_end(run, oldest + 1);
    assert_eq!((output.len() as u64, outcome), ((records - lost - 1) * 984, CODE_0));
    until("forgotten", || client.runs().is_empty());
}

#[test]
fn attaching_resumes_after_the_number_given_and_not_beyond_the_end() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let (mut first, mut second) = (stage.client(), stage.client());
    let run = first.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    for text in ["a", "b", "c"] {
        launcher.write(run, text.as_bytes());
    }
    for seq in 2..=5 {
        first.event(run, seq);
    }
    second.say(&ClientMessage::Attach { exec_id: run, after_seq: 4 });
    let ExecEvent::Output { bytes, .. } = second.event(run, 5) else { panic!("no output") };
    assert_eq!(&*bytes, b"c");
    second.say(&ClientMessage::Attach { exec_id: run, after_seq: 0 });
    assert!(
        matches!(second.next(), ServerMessage::Denied { denied, .. } if denied.reason == DenyReason::BadRequest)
    );
    let mut third = stage.client();
    third.say(&ClientMessage::Attach { exec_id: run, after_seq: 99 });
    assert!(
        matches!(third.next(), ServerMessage::Denied { denied, .. } if denied.reason == DenyReason::BadRequest)
    );
    third.say(&ClientMessage::Attach { exec_id: stockade_protocol::ExecId::generate(), after_seq: 0 });
    assert!(
        matches!(third.next(), ServerMessage::Denied { denied, .. } if denied.reason == DenyReason::UnknownRun)
    );
    launcher.end_output(run);
    launcher.ended(run, CODE_0);
    assert_eq!(first.read_to_end(run, 6).1, CODE_0);
    assert_eq!(second.read_to_end(run, 6).1, CODE_0);
}

#[test]
fn cancel_and_signals_reach_the_launcher() {
    let stage = Stage::new(Changes { slots: 1, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    client.event(run, 2);
    client.say(&ClientMessage::Signal { exec_id: run, signal: 15 });
    assert_eq!(launcher.next(), ToLauncher::Signal { exec_id: run, signal: 15 });
    client.say(&ClientMessage::Resize { exec_id: run, rows: 5, columns: 7 });
    assert_eq!(launcher.next(), ToLauncher::Resize { exec_id: run, rows: 5, columns: 7 });
    client.say(&ClientMessage::Signal { exec_id: run, signal: 0 });
    assert!(
        matches!(client.next(), ServerMessage::Denied { denied, .. } if denied.reason == DenyReason::BadRequest)
    );
    // One that still waits has no tool to signal: what would end a tool ends it.
    let waiting = client.exec(stage.request());
    client.say(&ClientMessage::Signal { exec_id: waiting, signal: 2 });
    let cancelled = Outcome::Cancelled { reason: CancelReason::Asked };
    assert_eq!(client.read_to_end(waiting, 2).1, cancelled);
    for _ in 0..2 {
        client.say(&ClientMessage::Cancel { exec_id: run });
    }
    assert_eq!(launcher.next(), ToLauncher::Cancel { exec_id: run, reason: CancelReason::Asked });
    launcher.end_output(run);
    launcher.ended(run, cancelled.clone());
    assert_eq!(client.read_to_end(run, 3).1, cancelled);
    assert!(!launcher.hears_something(), "cancelled once, however often asked");
}

#[test]
fn a_client_that_vanishes_takes_its_runs_along() {
    let stage = Stage::new(Changes { slots: 1, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(stage.request());
    let waiting = client.exec(stage.request());
    launcher.launch();
    drop(client);
    assert_eq!(launcher.next(), ToLauncher::Cancel { exec_id: run, reason: CancelReason::ClientGone });
    launcher.ended(run, Outcome::Cancelled { reason: CancelReason::ClientGone });
    let mut other = stage.client();
    until("ended", || other.status().running == 0);
    assert!(!launcher.hears_something(), "the waiting run {waiting} was launched though its client is gone");
}

#[test]
fn thousands_of_runs_leave_nothing_behind() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let player = std::thread::spawn(move || {
        for _ in 0..3_000 {
            let run = launcher.play(b"output");
            launcher.rings.remove(&run);
        }
        launcher
    });
    let mut client = stage.client();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = 0;
    for number in 0..3_000 {
        let run = client.exec(stage.request());
        let (output, outcome, _) = client.read_to_end(run, 2);
        assert_eq!((output.as_slice(), outcome), (b"output".as_slice(), CODE_0));
        if number == 100 {
            before = descriptors();
        }
    }
    drop(player.join().unwrap());
    assert!(client.runs().is_empty());
    let status = client.status();
    assert_eq!((status.running, status.queued, status.accepted, status.ended), (0, 0, 3_000, 3_000));
    // One for each run would be 2,900; what other tests of this process have open meanwhile is far less.
    let after = descriptors();
    assert!(after < before + 1_450, "descriptors are left: {before} and then {after}");
}
