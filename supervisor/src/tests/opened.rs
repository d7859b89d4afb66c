//! Workspaces that are named by their path, and what opens them.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use stockade_protocol::approval::ApprovalEnd;
use stockade_protocol::bounds::MAX_OPENERS_OF_ONE;
use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, ServerMessage, Workspace};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::launch::{FromOpener, ToOpener};
use stockade_protocol::outcome::{Outcome, SetupStage};
use stockade_wire::channel::Channel;

use super::approvals::{answer, asks_for, is_refused_by, list, request, runs, stage};
use super::stage::{Changes, Client, LONG, Stage, until};

/// An opener that is a thread of ours, and as whom we are.
pub(super) fn opener(socket: OwnedFd) {
    answers(socket, |path| rustix::fs::open(path, FLAGS, Mode::empty()));
}

/// One for whom all paths lead to the root.
pub(super) fn careless(socket: OwnedFd) {
    answers(socket, |_path| rustix::fs::open("/", FLAGS, Mode::empty()));
}

const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn answers(socket: OwnedFd, open: fn(&Path) -> rustix::io::Result<OwnedFd>) {
    std::thread::spawn(move || {
        let channel = Channel::new(socket);
        while let Ok(Some((ToOpener::Open { path }, _))) = channel.receive() {
            let answered = match open(path.as_path()) {
                Ok(directory) => channel.send(&FromOpener::Opened, &[directory.as_fd()]),
                Err(errno) => channel.send(&FromOpener::Failed { errno: errno.raw_os_error() }, &[]),
            };
            if answered.is_err() {
                return;
            }
        }
    });
}

fn by_path(stage: &Stage, path: &Path) -> ExecRequest {
    ExecRequest { workspace: Workspace::Path { path: path.into() }, ..stage.request() }
}

/// Which file that is.
fn inode(file: &OwnedFd) -> u64 {
    rustix::fs::fstat(file).unwrap().st_ino
}

fn inode_of(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

#[test]
fn a_workspace_that_is_named_by_its_path_reaches_the_launcher_as_the_directory_that_is_there() {
    let stage = Stage::new(Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let workspace = stage.workspace();
    let link = workspace.with_file_name("link");
    symlink(&workspace, &link).unwrap();
    // What a link leads to, too, where no rule has judged it by its name.
    for path in [&workspace, &link] {
        let run = client.exec(by_path(&stage, path));
        let (launch, _) = launcher.launch();
        assert!(launch.exec_id == run && launch.workspace_passed);
        assert_eq!(launch.workspace.as_path(), path);
        assert_eq!(inode(launcher.workspace.as_ref().unwrap()), inode_of(&workspace));
    }
}

#[test]
fn a_workspace_that_cant_be_opened_is_a_set_up_that_failed_and_reaches_no_launcher() {
    let stage = Stage::new(Changes::default());
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let nowhere = stage.workspace().join("nowhere");
    let run = client.exec(by_path(&stage, &nowhere));
    let Outcome::SetupFailed { failure } = client.read_to_end(run, 2).1 else { panic!("it was set up") };
    assert_eq!((failure.stage, failure.errno), (SetupStage::Open, Errno::NOENT.raw_os_error()));
    assert_eq!(failure.subject.as_path(), nowhere);
    assert!(!launcher.hears_something());
}

/// One that ends whatever it's asked, as one that nobody has started.
fn gone(socket: OwnedFd) {
    drop(socket);
}

/// How many there were, of a test that is alone with these.
static BRIEF: AtomicUsize = AtomicUsize::new(0);

/// One that answers once.
fn brief(socket: OwnedFd) {
    BRIEF.fetch_add(1, Ordering::SeqCst);
    std::thread::spawn(move || {
        let channel = Channel::new(socket);
        let Ok(Some((ToOpener::Open { path }, _))) = channel.receive() else { return };
        let directory = rustix::fs::open(path.as_path(), FLAGS, Mode::empty()).unwrap();
        drop(channel.send(&FromOpener::Opened, &[directory.as_fd()]));
    });
}

#[test]
fn without_an_opener_nothing_runs_and_one_that_has_ended_is_followed_by_another() {
    let stage = Stage::new(Changes { opener: gone, ..Changes::default() });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let run = client.exec(stage.request());
    let Outcome::SetupFailed { failure } = client.read_to_end(run, 2).1 else { panic!("it was set up") };
    assert_eq!((failure.errno, &failure.subject.0[..]), (Errno::AGAIN.raw_os_error(), &b"opener"[..]));
    assert!(!launcher.hears_something());
    let stage = Stage::new(Changes { opener: brief, ..Changes::default() });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    for number in 1..4 {
        let run = client.exec(stage.request());
        assert_eq!(launcher.launch().0.exec_id, run);
        assert_eq!(BRIEF.load(Ordering::SeqCst), number);
    }
}

static STUCK: AtomicUsize = AtomicUsize::new(0);

/// One that never answers about what is called so, as on a mount that is dead.
fn stuck(socket: OwnedFd) {
    STUCK.fetch_add(1, Ordering::SeqCst);
    answers(socket, |path| {
        if path.ends_with("dead") {
            std::thread::park_timeout(LONG);
        }
        rustix::fs::open(path, FLAGS, Mode::empty())
    });
}

#[test]
fn a_directory_that_never_opens_keeps_its_user_waiting_for_a_while_and_takes_no_more_openers_than_he_has() {
    let stage = Stage::new(Changes { opener: stuck, ..Changes::default() });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let began = Instant::now();
    let mut dead: Vec<_> = (0..2 * MAX_OPENERS_OF_ONE).map(|_| stage.client()).collect();
    for client in &mut dead {
        client.say(&ClientMessage::Exec(Box::new(by_path(&stage, &stage.workspace().join("dead")))));
    }
    until("all that he may have are asked", || STUCK.load(Ordering::SeqCst) >= MAX_OPENERS_OF_ONE);
    // Who passes a directory asks nobody.
    let (request, passed) = request(&stage, &["plain"]);
    let run = client.exec_with(request, &[passed]);
    assert_eq!(launcher.launch().0.exec_id, run);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(STUCK.load(Ordering::SeqCst), MAX_OPENERS_OF_ONE, "no more at once");
    for client in &mut dead {
        let run = match client.next() {
            ServerMessage::Event { exec_id, seq: 1, event: ExecEvent::Accepted { .. } } => exec_id,
            other => panic!("{other:?} instead of Accepted"),
        };
        let Outcome::SetupFailed { failure } = client.read_to_end(run, 2).1 else { panic!("it was set up") };
        assert_eq!(failure.errno, Errno::TIMEDOUT.raw_os_error());
    }
    // Those were given up, and there is room for others.
    let run = client.exec(stage.request());
    assert_eq!(launcher.launch().0.exec_id, run);
}

fn asked_by_path(stage: &Stage, path: PathBuf) -> (ExecRequest, OwnedFd) {
    let (request, passed) = request(stage, &["asked"]);
    (ExecRequest { workspace: Workspace::Path { path: path.into() }, ..request }, passed)
}

/// What is approved is the directory that was open when it was asked, whatever has its name meanwhile.
#[test]
fn what_is_approved_by_its_path_is_the_directory_that_was_opened() {
    let stage = stage("");
    let (mut launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let (workspace, away) = (stage.workspace(), stage.directory.path().join("away"));
    let was = inode_of(&workspace);
    let ask = |client: &mut Client| {
        let (request, _) = asked_by_path(&stage, workspace.clone());
        client.say(&ClientMessage::Exec(Box::new(request)));
        match client.next() {
            ServerMessage::AwaitsApproval { exec_id, .. } => exec_id,
            other => panic!("{other:?} instead of AwaitsApproval"),
        }
    };
    // Another has its name when it's approved: that isn't what was asked about.
    ask(&mut client);
    let digest = list(&mut other, false)[0].digest;
    std::fs::rename(&workspace, &away).unwrap();
    std::fs::create_dir(&workspace).unwrap();
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Changed))));
    is_refused_by(&mut client, "workspace");
    // Of that one another digest is told: the numbers are in it.
    ask(&mut client);
    assert_ne!(list(&mut other, false)[0].digest, digest);
    assert_eq!(answer(&mut other, false).unwrap().1, Some(ApprovalEnd::Refused));
    is_refused_by(&mut client, "refused");
    std::fs::remove_dir(&workspace).unwrap();
    std::fs::rename(&away, &workspace).unwrap();
    // Another that had it in between and is gone changes nothing: the one that was opened runs.
    let run = ask(&mut client);
    std::fs::rename(&workspace, &away).unwrap();
    std::fs::create_dir(&workspace).unwrap();
    std::fs::remove_dir(&workspace).unwrap();
    std::fs::rename(&away, &workspace).unwrap();
    assert_eq!(answer(&mut other, true), Ok((0, Some(ApprovalEnd::Approved))));
    runs(&mut launcher, &mut client, run);
    assert_eq!(inode(launcher.workspace.as_ref().unwrap()), was);
}

#[test]
fn what_somebody_is_asked_about_is_the_same_by_path_and_by_descriptor() {
    let stage = stage("");
    let (_launcher, mut client, mut other) = (stage.launcher(), stage.client(), stage.client());
    let run = asks_for(&mut client, request(&stage, &["asked"]));
    let (by_path, _) = asked_by_path(&stage, stage.workspace());
    client.say(&ClientMessage::Exec(Box::new(by_path)));
    assert!(matches!(client.next(), ServerMessage::AwaitsApproval { .. }));
    let waiting = list(&mut other, false);
    let (one, two) = (waiting[0].clone(), waiting[1].clone());
    assert!(one.exec_id == run && one.workspace == two.workspace && one.argv == two.argv);
}

#[test]
fn rules_judge_no_name_that_leads_elsewhere_and_nobody_is_asked_about_what_isnt_there() {
    let stage = stage("");
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let workspace = stage.workspace();
    let link = workspace.with_file_name("link");
    symlink(&workspace, &link).unwrap();
    for word in ["asked", "plain"] {
        let (request, _) = request(&stage, &[word]);
        let denied = client.denied(
            ExecRequest { workspace: Workspace::Path { path: link.as_path().into() }, ..request },
            &[],
        );
        assert_eq!(denied.reason, DenyReason::BadRequest, "{word}: {}", denied.message);
        assert!(denied.message.contains("leads to"), "{}", denied.message);
    }
    let (asked, _) = asked_by_path(&stage, workspace.join("nowhere"));
    let denied = client.denied(asked, &[]);
    assert_eq!(
        (denied.reason, denied.decided.unwrap().rule.as_str()),
        (DenyReason::NotApproved, "workspace")
    );
    // What needs nobody's word runs by its path as before.
    let (plain, _) = request(&stage, &["plain"]);
    let run = client.exec(ExecRequest { workspace: Workspace::Path { path: workspace.into() }, ..plain });
    assert_eq!(launcher.launch().0.exec_id, run);
}
