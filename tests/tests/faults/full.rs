//! What a daemon has no more of: room on its disk, and descriptors.

use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stockade_protocol::client::{ClientMessage, ExecEvent, ServerMessage, StdinMode};
use stockade_protocol::outcome::Outcome;
use stockade_tests::wire::{Came, Wire, request, workspace};
use stockade_tests::{Daemon, Ended, Ground, Mode, Person, left, not_tested, wait_until};

const PATIENCE: Duration = Duration::from_secs(40);

/// Held by each test that has many descriptors on their way, or a daemon that such ones of its user's stop.
static ON_THEIR_WAY: Mutex<()> = Mutex::new(());

/// A small filesystem, which is unmounted again.
struct Small(std::path::PathBuf);

impl Small {
    fn at(path: &std::path::Path, person: Person) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size=64k,mode=700,uid={},gid={}", person.uid, person.gid);
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(path).status();
        assert!(status.unwrap().success());
        Self(path.to_owned())
    }

    /// To the last page.
    fn fill(&self) {
        const PAGES: usize = 64;
        let full =
            (0..PAGES).any(|page| std::fs::write(self.0.join(format!("filling-{page}")), [0; 4096]).is_err());
        assert!(full, "it takes more than it's to hold");
    }

    fn clear(&self) {
        for name in left::names(&self.0).iter().filter(|name| name.starts_with("filling-")) {
            std::fs::remove_file(self.0.join(name)).unwrap();
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Mounts of this thread's from now on, and of what it starts, are nobody else's: other tests look for mounts that are left.
fn alone() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let status = Command::new("mount").args(["--make-rprivate", "/"]).status().unwrap();
    assert!(status.success());
}

fn echo(daemon: &Daemon, ground: &Ground) -> Ended {
    let mut command = daemon.ask(ground, &["run", "--policy", "default"]);
    command.args(["--", "sh", "-c", "echo fine"]);
    Ended::of(command)
}

/// A daemon doesn't start on a full disk, and says why. One that serves goes on when it fills, and says that runs won't outlive it.
#[test]
fn a_state_directory_that_fills_keeps_no_run_from_being_served() {
    if !Person::me().is_root() {
        return not_tested("a full state directory", "only root can mount a small one");
    }
    alone();
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        let small = Small::at(&server.base().join("state"), mode.server());
        small.fill();
        let socket = server.base().join("daemon/stockade.sock");
        let mut command = stockade_tests::daemon::serve(&server, &socket);
        command.stderr(std::process::Stdio::piped());
        let refused = Ended::of(command);
        assert!(refused.code.is_some_and(|code| code != 0), "{}", refused.story());
        refused.expect_errors(&["state", "No space left", "free some space"]);
        small.clear();
        let ground = Ground::new(mode.client());
        let daemon = Daemon::start_at(server, &[]);
        echo(&daemon, &ground).expect_code(0).expect_text("fine");
        small.fill();
        let kill_launcher = || {
            let is_one = |one: &left::Process| one.command.starts_with("stockade launcher");
            let launcher = left::tree(daemon.pid()).into_iter().find(is_one).unwrap();
            crate::injector::kill(launcher.pid);
            launcher.pid
        };
        kill_launcher();
        assert!(wait_until(PATIENCE, || daemon.log().contains("won't outlive")), "{}", daemon.log());
        echo(&daemon, &ground).expect_code(0).expect_text("fine");
        small.clear();
        let killed = kill_launcher();
        // Those that died on the full disk may be written down still; the next one isn't before the daemon knows of its end.
        let is_next = |pid: &u32| *pid != killed && left::process(*pid).is_some_and(|one| one.state != 'Z');
        assert!(wait_until(PATIENCE, || daemon.launchers().iter().any(is_next)), "{}", daemon.log());
        echo(&daemon, &ground).expect_code(0).expect_text("fine");
        daemon.signal(rustix::process::Signal::TERM);
        assert!(daemon.ends_within(PATIENCE));
        drop(small);
    }
}

/// What it says about itself nobody can keep: that is no reason not to serve.
#[test]
fn a_log_on_a_full_disk_keeps_no_run_from_being_served() {
    for mode in Mode::daemons_here() {
        let server = Ground::new(mode.server());
        let log = server.base().join("daemon.log");
        std::os::unix::fs::symlink("/dev/full", &log).unwrap();
        let ground = Ground::new(mode.client());
        let daemon = Daemon::start_at(server, &[]);
        for _ in 0..3 {
            echo(&daemon, &ground).expect_code(0).expect_text("fine");
        }
        // The harness reads the log at the end, and this one has none.
        std::fs::remove_file(log).unwrap();
    }
}

/// What is denied and doesn't exist needs a placeholder, for which there is no room: no run without its mask.
#[test]
fn a_full_workspace_is_a_failure_with_a_reason_where_something_must_be_placed() {
    if !Person::me().is_root() {
        return not_tested("a full workspace", "only root can mount a small one");
    }
    alone();
    for mode in Mode::daemons_here() {
        let daemon = Daemon::start(mode.server(), &[]);
        let ground = Ground::new(mode.client());
        let small = Small::at(&ground.work(), mode.client());
        small.fill();
        echo(&daemon, &ground).expect_code(0).expect_text("fine");
        let run = |policy: &str| {
            let mut command = daemon.ask(&ground, &["run", "--policy", policy]);
            command.args(["--", "sh", "-c", "echo fine; echo more >file || echo full"]);
            Ended::of(command)
        };
        let plain = run("default");
        plain.expect_code(0).expect_text("fine\nfull");
        let denying = run("test-deny");
        // Files of no length may still have room.
        assert!(denying.code == Some(0) || denying.code == Some(125), "{}", denying.story());
        small.clear();
        run("test-deny").expect_code(0).expect_text("fine");
        let names = left::names(&ground.work());
        assert!(names.iter().all(|name| name == "file"), "{names:?}");
        drop(small);
    }
}

/// A daemon of few descriptors, asked for more at once than they suffice for: each gets an answer, one that is true, and nothing
/// is lost for good.
#[test]
fn a_full_table_of_descriptors_answers_each_and_recovers() {
    const CLIENTS: usize = 150;
    let _alone = ON_THEIR_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    for mode in Mode::daemons_here() {
        let (daemon, ground) = with_few_descriptors(mode);
        let asked = |number: usize| {
            let line = format!("echo start >>ran.{number}; sleep 0.2");
            let mut asked = request(&ground, "default", &["sh", "-c", &line]);
            asked.request_id = number as u64;
            if number.is_multiple_of(2) {
                // A pipe of the daemon's own, besides.
                asked.stdin = StdinMode::Inline("words\n".into());
            }
            asked
        };
        let workspace = workspace(&ground);
        let mut wires = Vec::new();
        for number in 0..CLIENTS {
            // Whoever isn't let in is told by the end of the connection, or waits at the door.
            let Ok(mut wire) = Wire::try_connect(&daemon, ground.person) else { continue };
            let hello = stockade_tests::wire::hello(stockade_protocol::client::VERSION);
            let asks = ClientMessage::Exec(Box::new(asked(number)));
            if wire.try_send(&hello, &[]).is_ok() && wire.try_send(&asks, &[workspace.as_fd()]).is_ok() {
                wires.push((number, wire));
            }
        }
        let mut answers = [0_u32; 4];
        for (number, mut wire) in wires {
            let answer = answer(&mut wire);
            let began = ground.work().join(format!("ran.{number}")).exists();
            let (which, may_have_begun) = match &answer {
                Some(Some(Outcome::Exited { code: 0 })) => (0, began),
                Some(Some(Outcome::SetupFailed { .. })) => (1, !began),
                Some(Some(Outcome::Lost { .. })) => (2, true),
                // Refused, or the connection's end.
                Some(None) | None => (3, true),
                Some(Some(other)) => panic!("{mode:?}: {other:?}\n{}", daemon.log()),
            };
            assert!(may_have_begun, "{mode:?}: {answer:?}, and begun: {began}");
            answers[which] += 1;
        }
        println!("{mode:?}: exited, set-up failed, lost, refused: {answers:?}");
        assert!(answers[0] > 0 && answers[3] > 0, "{mode:?}: nothing was tried: {answers:?}");
        assert_eq!((answers[1], answers[2]), (0, 0), "{mode:?}: {answers:?}\n{}", daemon.log());
        // That a run waits in the daemon alone is what's left of a table without room.
        let is_full = |line: &str| line.contains("Too many open files") && !line.contains("waits here only");
        let log = daemon.log();
        let full = log.lines().filter(|line| is_full(line) || line.contains("the launcher is gone"));
        assert_eq!(full.count(), 0, "{mode:?}: the last descriptor was used: {log}");
        let again = wait_until(PATIENCE, || echo(&daemon, &ground).code == Some(0));
        assert!(again, "it doesn't recover: {}", daemon.log());
    }
}

/// A client passes descriptors whose close waits, as many in a message as the kernel lets one carry, over and over, behind frames
/// that are none, too: neither the launcher nor anybody else notices.
#[test]
fn descriptors_whose_close_hangs_take_nothing_that_others_need() {
    const LIMIT: usize = 640;
    const HANG: &str = "import array, struct, sys, time\n\
                        from socket import *\n\
                        there = socket(); there.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)\n\
                        there.bind(('127.0.0.1', 0)); there.listen(4000)\n\
                        def hanging():\n\
                        \x20   one = socket(); one.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)\n\
                        \x20   one.connect(there.getsockname())\n\
                        \x20   one.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack('ii', 1, 100))\n\
                        \x20   one.setblocking(False)\n\
                        \x20   try:\n\
                        \x20       while True: one.send(b'x' * 4096)\n\
                        \x20   except BlockingIOError: return one\n\
                        kept = []\n\
                        def send(to, what, beside):\n\
                        \x20   ancillary = [(SOL_SOCKET, SCM_RIGHTS, array.array('i', [one.fileno() for one in beside]))]\n\
                        \x20   try: to.sendmsg([what], ancillary if beside else [])\n\
                        \x20   except OSError: return\n\
                        \x20   for one in beside: one.close()\n\
                        clients = []\n\
                        for round in range(2):\n\
                        \x20   sets = [[hanging() for _ in range(253)] for _ in range(2 - round)]; kept.append(sets)\n\
                        \x20   client = socket(AF_UNIX); client.settimeout(1); client.connect(sys.argv[1]); clients.append(client)\n\
                        \x20   if round % 2: send(client, b'\\xff' * 100000, [])\n\
                        \x20   for these in sets: send(client, b'\\xff' * 8, these)\n\
                        open('sent', 'w').close()\n\
                        time.sleep(100)";
    let _alone = ON_THEIR_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    for mode in Mode::daemons_here() {
        let (daemon, ground) = with_so_many_descriptors(mode, LIMIT);
        let mut command = daemon.ask(&ground, &["run", "--detach"]);
        command.args(["--", "sh", "-c", "while [ ! -e go ]; do sleep 0.1; done; echo done"]);
        let ended = format!("exec_id={}", Ended::of(command).expect_code(0).text());
        let ended = |line: &str| line.contains(&ended) && line.contains("ended outcome=\"exited\"");
        let mut hanging = ground.command("sh");
        hanging.args(["-c", "ulimit -n 4000; exec python3 -c \"$0\" \"$1\"", HANG]).arg(&daemon.socket);
        let null = std::process::Stdio::null;
        // What was sent before it looks is its own: nobody else's close is the last one.
        daemon.signal(rustix::process::Signal::STOP);
        let mut hanging = hanging.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
        assert!(wait_until(PATIENCE, || ground.work().join("sent").exists()));
        daemon.signal(rustix::process::Signal::CONT);
        let open = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
        assert!(wait_until(PATIENCE, || open() > 253), "nothing hangs: {}", open());
        if mode.server() != mode.client() {
            // Whose descriptors wait to be closed waits with them; nobody else does.
            let other = Ground::new(mode.server());
            Ended::of(daemon.ask(&other, &["status"])).expect_code(0);
            echo(&daemon, &other).expect_code(0).expect_text("fine");
        }
        assert!(open() < LIMIT - 48, "{mode:?}: {} of {LIMIT}\n{}", open(), daemon.log());
        std::fs::write(ground.work().join("go"), "").unwrap();
        assert!(wait_until(PATIENCE, || daemon.log().lines().any(ended)), "{mode:?}: {}", daemon.log());
        assert!(!daemon.log().contains("the launcher is gone"), "{mode:?}: {}", daemon.log());
        hanging.kill().unwrap();
        hanging.wait().unwrap();
        let again = wait_until(PATIENCE, || echo(&daemon, &ground).code == Some(0));
        assert!(again, "{mode:?}: it doesn't recover: {}", daemon.log());
    }
}

/// Descriptors that are on their way in sockets are counted per user, and nobody may send more while they are too many: with a
/// daemon of few, an owner's others keep its run from starting. It waits for them.
#[test]
fn a_run_waits_while_too_many_descriptors_of_its_owner_are_on_their_way() {
    const HOLD: &str = "import os, socket, time\n\
                        ours, theirs = socket.socketpair()\n\
                        for _ in range(3): socket.send_fds(ours, [b'x'], [0] * 200)\n\
                        open('held', 'w').close()\n\
                        for _ in range(4000):\n\
                        \x20   if os.path.exists('go'): break\n\
                        \x20   time.sleep(0.01)";
    let _alone = ON_THEIR_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    for mode in Mode::daemons_here() {
        let (daemon, ground) = with_few_descriptors(mode);
        let mut holder = ground.command("python3").args(["-c", HOLD]).spawn().unwrap();
        assert!(wait_until(PATIENCE, || ground.work().join("held").exists()));
        // A policy that no template is there for: it has to be sent the workspace.
        let mut command = daemon.ask(&ground, &["run", "--policy", "moderate"]);
        command.args(["--", "sh", "-c", "echo fine"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut run = command.spawn().unwrap();
        // Root may send however many there are.
        let waits = mode != Mode::RootDaemonForRoot;
        std::thread::sleep(Duration::from_millis(300));
        let ended = run.try_wait().unwrap();
        assert!(!waits || ended.is_none(), "{mode:?}: {ended:?}\n{}", daemon.log());
        std::fs::write(ground.work().join("go"), "").unwrap();
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{mode:?}: {output:?}\n{}", daemon.log());
        assert_eq!(output.stdout, b"fine\n", "{mode:?}");
        assert!(holder.wait().unwrap().success());
    }
}

/// A daemon that may have few open files, which has had a run, and where its client works.
fn with_few_descriptors(mode: Mode) -> (Daemon, Ground) {
    with_so_many_descriptors(mode, 400)
}

fn with_so_many_descriptors(mode: Mode, limit: usize) -> (Daemon, Ground) {
    let server = Ground::new(mode.server());
    let mut few = server.command("sh");
    few.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]).arg(&server.binaries.stockade);
    let daemon = Daemon::start_program(server, few, &["--parked", "0", "--slots", "4"]);
    let ground = Ground::new(mode.client());
    echo(&daemon, &ground).expect_code(0).expect_text("fine");
    (daemon, ground)
}

/// How a run ended; `None` within: it was refused; without: the connection's end.
fn answer(wire: &mut Wire) -> Option<Option<Outcome>> {
    loop {
        match wire.receive(PATIENCE) {
            Came::Message(message) => match *message {
                ServerMessage::Event { event: ExecEvent::Exited { outcome, .. }, .. } => {
                    return Some(Some(outcome));
                }
                ServerMessage::Denied { .. } | ServerMessage::Error(_) => return Some(None),
                _ => {}
            },
            Came::Closed => return None,
            Came::Nothing => panic!("no answer within {PATIENCE:?}"),
        }
    }
}
