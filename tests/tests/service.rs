//! The daemon as a service: the socket that systemd passes, what systemd is told, and what the process ends with when
//! it can't serve. The test plays systemd: its protocols are two variables and a datagram socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use stockade_tests::{Ended, Ground, Mode, Person, not_tested, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A ground with a directory for the socket, as the daemon would make it.
struct Place {
    ground: Ground,
    socket: PathBuf,
}

impl Place {
    fn new(person: Person) -> Self {
        let ground = Ground::new(person);
        let directory = ground.base().join("daemon");
        std::fs::create_dir(&directory).unwrap();
        let mode = if person.is_root() { 0o755 } else { 0o700 };
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(mode)).unwrap();
        person.own_all(&directory);
        Self { socket: directory.join("stockade.sock"), ground }
    }

    /// `stockade serve` with a state directory of its own.
    fn serve(&self) -> Command {
        let mut command = self.ground.stockade();
        command.arg("serve").arg("--state-directory").arg(self.ground.base().join("state"));
        command.stdout(Stdio::null());
        command
    }

    /// The same on the socket of this place.
    fn serve_here(&self) -> Command {
        let mut command = self.serve();
        command.arg("--socket").arg(&self.socket);
        command
    }

    /// `stockade serve` with a descriptor passed to it as systemd does, under a name.
    fn serve_passed(&self, passed: OwnedFd, names: &str) -> Command {
        let serve = self.serve();
        let mut command = self.ground.command("/bin/sh");
        let count = names.split(':').count();
        let more = if count > 1 { " 4<&3" } else { "" };
        let line = format!(
            "exec 3<&0{more} </dev/null; export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names}; exec \"$@\""
        );
        command.args(["-c", &line, "sh"]).arg(serve.get_program()).args(serve.get_args());
        command.stdin(passed).stdout(Stdio::null());
        command
    }

    /// A socket as its unit would make it.
    fn listener(&self) -> UnixListener {
        let listener = UnixListener::bind(&self.socket).unwrap();
        self.ground.person.own(&self.socket);
        listener
    }

    /// Once somebody listens.
    fn is_served(&self) {
        assert!(wait_until(PATIENCE, || UnixStream::connect(&self.socket).is_ok()));
    }

    fn run(&self, words: &[&str]) -> Ended {
        let mut command = self.ground.stockade();
        command.args(["run", "--policy", "default", "--socket"]).arg(&self.socket).arg("--").args(words);
        Ended::of(command)
    }

    /// A socket that the daemon tells how it is.
    fn systemd(&self) -> Systemd {
        let path = self.ground.base().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        self.ground.person.own(&path);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Systemd { socket, path }
    }
}

/// The test in systemd's place.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    /// The next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("systemd is told nothing");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next descriptor that is to be held, and its name, which begins so.
    fn is_given(&self, name: &str) -> (String, OwnedFd) {
        let mut buffer = [0; 4096];
        loop {
            let received =
                stockade_wire::socket::receive(&self.socket, &mut buffer).expect("systemd is told nothing");
            let message = core::str::from_utf8(&buffer[..received.length]).unwrap();
            let given = message.lines().find_map(|line| line.strip_prefix("FDNAME="));
            if let (Some(given), Some(held)) = (given, received.descriptors.into_iter().next()) {
                assert!(given.starts_with(name) && message.contains("FDSTORE=1"), "{message}");
                return (given.to_owned(), held);
            }
        }
    }

    /// The next message with such a line in it, whatever comes before.
    fn hears_of(&self, line: &str) -> String {
        loop {
            let message = self.hears();
            if message.lines().any(|found| found.starts_with(line)) {
                return message;
            }
        }
    }
}

/// A daemon that ends with the test.
struct Served(Child);

impl Served {
    fn by(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.id().cast_signed()).unwrap(), signal).unwrap();
    }

    fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until(PATIENCE, || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.expect("the daemon doesn't end").code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.signal(Signal::TERM);
            self.ends();
        }
    }
}

fn daemons() -> Vec<Person> {
    let mut persons: Vec<_> = Mode::daemons_here().into_iter().map(Mode::server).collect();
    persons.sort_by_key(|person| person.uid);
    persons.dedup();
    persons
}

/// What a daemon that can't serve ends with and says.
fn refused(command: Command, status: i32, words: &[&str]) {
    let ended = Ended::of(command);
    ended.expect_code(status).expect_errors(words);
}

#[test]
fn passed_socket_is_served_and_stays_when_the_daemon_ends() {
    for person in daemons() {
        let place = Place::new(person);
        let listener = place.listener();
        let passed = || OwnedFd::from(listener.try_clone().unwrap());
        for names in ["clients", "stockade.socket"] {
            let mut served = Served::by(place.serve_passed(passed(), names));
            place.run(&["echo", "activated"]).expect_code(0).expect_text("activated");
            served.signal(Signal::TERM);
            assert_eq!(served.ends(), Some(0));
            // Who connects now waits for the next daemon and isn't refused.
            UnixStream::connect(&place.socket).unwrap();
        }
    }
}

#[test]
fn client_that_came_before_the_daemon_is_answered() {
    let place = Place::new(Mode::a_daemon().server());
    let listener = place.listener();
    let mut early = place.ground.stockade();
    early.args(["run", "--policy", "default", "--socket"]).arg(&place.socket).args(["--", "echo", "early"]);
    early.stdout(Stdio::piped()).stderr(Stdio::piped());
    let early = early.spawn().unwrap();
    // It has connected: the queue of the socket that nobody accepts from has somebody in it.
    let mut queue = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut queue, None), Ok(1));
    let _served = Served::by(place.serve_passed(listener.into(), "clients"));
    let ended = early.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "early\n", "{ended:?}");
}

#[test]
fn passed_descriptor_that_is_no_listening_stream_socket_is_refused() {
    let place = Place::new(Mode::a_daemon().server());
    let packets = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::bind(&packets, &SocketAddrUnix::new(&place.socket).unwrap()).unwrap();
    rustix::net::listen(&packets, 1).unwrap();
    refused(place.serve_passed(packets, "clients"), 78, &["isn't a Unix stream socket", "ListenStream="]);
    let file = std::fs::File::open("/dev/null").unwrap();
    refused(place.serve_passed(file.into(), "clients"), 78, &["isn't a Unix stream socket", "ListenStream="]);
    let (connection, _other) = UnixStream::pair().unwrap();
    refused(place.serve_passed(connection.into(), "clients"), 78, &["doesn't listen", "Accept=no"]);
}

#[test]
fn passed_descriptors_that_nothing_is_for_are_refused_by_name() {
    let place = Place::new(Mode::a_daemon().server());
    let listener = place.listener();
    let passed = || OwnedFd::from(listener.try_clone().unwrap());
    refused(place.serve_passed(passed(), "metrics"), 78, &["named metrics", "FileDescriptorName=clients"]);
    refused(place.serve_passed(passed(), "clients:clients"), 78, &["2 descriptors", "clients, clients"]);
    let mut other = place.serve_passed(passed(), "clients");
    other.args(["--socket", "/run/elsewhere.sock"]);
    refused(other, 64, &["--socket says /run/elsewhere.sock", "leave --socket out"]);
    UnixStream::connect(&place.socket).unwrap();
}

#[test]
fn systemd_is_told_when_the_daemon_serves_reloads_and_stops() {
    for person in daemons() {
        let place = Place::new(person);
        let systemd = place.systemd();
        let mut command = place.serve_here();
        command.env("NOTIFY_SOCKET", &systemd.path);
        let mut served = Served::by(command);
        let ready = systemd.hears_of("READY=1");
        assert!(ready.contains("STATUS=0 running, 0 waiting"), "{ready}");
        // Nothing is missing by then.
        place.run(&["echo", "ready"]).expect_code(0).expect_text("ready");
        served.signal(Signal::HUP);
        let reloading = systemd.hears_of("RELOADING=1");
        let at = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(at.is_some_and(|at| at.parse::<u64>().is_ok_and(|at| at > 0)), "{reloading}");
        systemd.hears_of("READY=1");
        served.signal(Signal::TERM);
        let stopping = systemd.hears_of("STOPPING=1");
        assert!(stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
        assert_eq!(served.ends(), Some(0));
    }
}

/// A daemon that is killed while a run goes on and whose door then loses its name; the run's id, the door's name in the store, and what
/// systemd holds of it; and the launcher.
fn killed_without_a_door(place: &Place, systemd: &Systemd) -> (String, String, OwnedFd, Pid) {
    let mut command = place.serve_here();
    command.env("NOTIFY_SOCKET", &systemd.path);
    let mut served = Served::by(command);
    let (name, held) = systemd.is_given("launcher-");
    let mut run = place.ground.stockade();
    run.args(["run", "--detach", "--policy", "default", "--socket"]).arg(&place.socket);
    run.args(["--", "bash", "-c", "until [ -e go ]; do sleep 0.02; done; echo went"]);
    let run = Ended::of(run);
    run.expect_code(0);
    let mut status = place.ground.stockade();
    status.args(["status", "--json", "--socket"]).arg(&place.socket);
    let status = Ended::of(status).text();
    let launcher = status.split_once("\"launcher_pid\":").unwrap().1;
    let launcher: String = launcher.trim().chars().take_while(char::is_ascii_digit).collect();
    let launcher = Pid::from_raw(launcher.parse().unwrap()).unwrap();
    served.signal(Signal::KILL);
    assert_eq!(served.ends(), None);
    std::fs::remove_file(place.socket.with_file_name(format!("{name}.sock"))).unwrap();
    (run.text(), name, held, launcher)
}

#[test]
fn door_that_systemd_holds_leads_to_its_launcher_when_its_name_is_gone() {
    for person in daemons() {
        let place = Place::new(person);
        let systemd = place.systemd();
        let (id, name, held, _) = killed_without_a_door(&place, &systemd);
        let mut next = place.serve_passed(held, &name);
        next.arg("--socket").arg(&place.socket);
        let _served = Served::by(next);
        place.is_served();
        place.ground.put("go", "");
        let mut attach = place.ground.stockade();
        attach.args(["attach", "--socket"]).arg(&place.socket).arg(&id);
        Ended::of(attach).expect_code(0).expect_text("went");

        // And without it nobody knows the way.
        let place = Place::new(person);
        let systemd = place.systemd();
        let (id, .., launcher) = killed_without_a_door(&place, &systemd);
        let _served = Served::by(place.serve_here());
        place.is_served();
        place.ground.put("go", "");
        let mut attach = place.ground.stockade();
        attach.args(["attach", "--socket"]).arg(&place.socket).arg(&id);
        Ended::of(attach).expect_code(125).expect_errors(&[&id]);
        // Nobody else would, for minutes.
        kill_process(launcher, Signal::KILL).unwrap();
    }
}

#[test]
fn status_line_changes_with_the_runs_and_not_without() {
    let place = Place::new(Mode::a_daemon().server());
    let systemd = place.systemd();
    let mut command = place.serve_here();
    command.env("NOTIFY_SOCKET", &systemd.path);
    let _served = Served::by(command);
    systemd.hears_of("READY=1");
    let mut run = place.ground.stockade();
    run.args(["run", "--policy", "default", "--socket"]).arg(&place.socket).args(["--", "sleep", "60"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    systemd.hears_of("STATUS=1 running, 0 waiting");
    run.kill().unwrap();
    run.wait().unwrap();
    systemd.hears_of("STATUS=0 running, 0 waiting");
    // Requests that change no figure are told of by nothing: what comes next is of the next change.
    place.ground.stockade().args(["ps", "--socket"]).arg(&place.socket).output().unwrap();
    systemd.socket.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert!(systemd.socket.recv(&mut [0; 512]).is_err(), "told though nothing has changed");
}

#[test]
fn watchdog_is_patted_while_the_loop_turns_and_not_when_it_is_stopped() {
    let place = Place::new(Mode::a_daemon().server());
    let systemd = place.systemd();
    let mut command = place.serve_here();
    command.env("NOTIFY_SOCKET", &systemd.path).env("WATCHDOG_USEC", "400000");
    let served = Served::by(command);
    for _ in 0..3 {
        systemd.hears_of("WATCHDOG=1");
    }
    served.signal(Signal::STOP);
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", served.0.id())).unwrap();
    assert!(wait_until(PATIENCE, || state().contains(") T ")));
    systemd.socket.set_nonblocking(true).unwrap();
    while systemd.socket.recv(&mut [0; 512]).is_ok() {}
    systemd.socket.set_nonblocking(false).unwrap();
    systemd.socket.set_read_timeout(Some(Duration::from_millis(1200))).unwrap();
    assert!(systemd.socket.recv(&mut [0; 512]).is_err(), "a stopped daemon says that it is well");
    served.signal(Signal::CONT);
    systemd.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    systemd.hears_of("WATCHDOG=1");
}

#[test]
fn more_time_is_asked_for_while_runs_have_their_grace() {
    let place = Place::new(Mode::a_daemon().server());
    let systemd = place.systemd();
    let mut command = place.serve_here();
    command.env("NOTIFY_SOCKET", &systemd.path).args(["--grace", "1h"]);
    let mut served = Served::by(command);
    systemd.hears_of("READY=1");
    let mut run = place.ground.stockade();
    run.args(["run", "--policy", "default", "--socket"]).arg(&place.socket).args(["--", "sleep", "60"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    systemd.hears_of("STATUS=1 running");
    served.signal(Signal::TERM);
    systemd.hears_of("STOPPING=1");
    systemd.hears_of("EXTEND_TIMEOUT_USEC=20000000");
    systemd.hears_of("EXTEND_TIMEOUT_USEC=20000000");
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(served.ends(), Some(0));
}

#[test]
fn wrong_options_end_with_usage() {
    let place = Place::new(Mode::a_daemon().server());
    let mut unknown = place.serve_here();
    unknown.arg("--no-such-option");
    refused(unknown, 64, &["--no-such-option"]);
    let mut relative = place.serve();
    relative.args(["--socket", "stockade.sock"]);
    refused(relative, 64, &["stockade.sock can't be a socket", "isn't absolute"]);
}

#[test]
fn second_daemon_on_one_state_directory_ends_as_unavailable() {
    for person in daemons() {
        let place = Place::new(person);
        let served = Served::by(place.serve_here());
        assert!(wait_until(PATIENCE, || place.socket.exists()));
        let other = place.socket.with_file_name("other.sock");
        let mut second = place.serve();
        second.arg("--socket").arg(&other);
        let pid = served.0.id().to_string();
        refused(second, 69, &["belongs to a supervisor already", &pid, "--state-directory of its own"]);
        assert!(!other.exists());
        let mut third = place.ground.stockade();
        third.arg("serve").arg("--socket").arg(&place.socket);
        third.arg("--state-directory").arg(place.ground.base().join("state-2"));
        refused(third, 69, &["is served already", &pid, "stop it first"]);
    }
}

#[test]
fn runtime_directory_that_is_missing_somebody_elses_or_a_link_ends_the_daemon_by_its_kind() {
    let person = Person::user();
    let place = Place::new(person);
    let mut nowhere = place.serve();
    nowhere.env_remove("XDG_RUNTIME_DIR");
    refused(nowhere, 78, &["XDG_RUNTIME_DIR isn't set", "--socket"]);
    let mut missing = place.serve();
    missing.env("XDG_RUNTIME_DIR", "/proc/no-such-directory");
    refused(
        missing,
        73,
        &["cannot use the directory /proc/no-such-directory/stockade", "name another place"],
    );
    let mut foreign = place.serve();
    foreign.args(["--socket", "/etc/stockade.sock"]);
    refused(foreign, 77, &["/etc isn't safe", "use a directory of your own"]);
    let link = place.ground.base().join("link");
    std::os::unix::fs::symlink(place.socket.parent().unwrap(), &link).unwrap();
    person.own(&link);
    let mut linked = place.serve();
    linked.arg("--socket").arg(link.join("s"));
    refused(linked, 77, &["it is a symbolic link", "name the real directory"]);
    let open = place.socket.parent().unwrap();
    std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
    refused(place.serve_here(), 77, &["isn't safe", "chmod 700"]);
}

#[test]
fn something_else_in_the_sockets_place_ends_as_cannot_create() {
    let place = Place::new(Mode::a_daemon().server());
    std::fs::write(&place.socket, "precious").unwrap();
    refused(place.serve_here(), 73, &["something else is there", "look what it is"]);
    assert_eq!(std::fs::read_to_string(&place.socket).unwrap(), "precious");
}

#[test]
fn group_that_does_not_exist_ends_as_no_user() {
    if !Person::me().is_root() {
        not_tested("a daemon for a group that isn't there", "only root's daemon serves a group");
        return;
    }
    let place = Place::new(Person::me());
    let mut command = place.serve_here();
    command.args(["--group", "no-such-group-here"]);
    refused(command, 67, &["no-such-group-here", "make it, or name another"]);
}

#[test]
fn bad_policies_end_as_configuration() {
    let place = Place::new(Mode::a_daemon().server());
    let folder = place.ground.base().join("bad");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("bad.toml"), "no-such-key = 1\n").unwrap();
    place.ground.person.own_all(&folder);
    let mut command = place.serve_here();
    command.arg("--policies").arg(&folder);
    refused(command, 78, &["bad.toml:1", "stockade policy check"]);
}

#[test]
fn limit_of_64_open_files_ends_as_configuration_and_fewer_slots_help() {
    for person in daemons() {
        let place = Place::new(person);
        let limited = |open_files: u32, slots: &str| {
            let serve = place.serve_here();
            let mut command = place.ground.command("/bin/sh");
            let line = format!("ulimit -n {open_files}; exec \"$@\"");
            command.args(["-c", &line, "sh"]).arg(serve.get_program()).args(serve.get_args());
            command.args(["--slots", slots]).stdout(Stdio::null());
            command
        };
        refused(limited(64, "256"), 78, &["the limit on open files is 64", "LimitNOFILE=", "--slots"]);
        assert!(!place.socket.exists());
        let _served = Served::by(limited(420, "8"));
        assert!(wait_until(PATIENCE, || UnixStream::connect(&place.socket).is_ok()));
        place.run(&["echo", "few"]).expect_code(0).expect_text("few");
    }
}

#[test]
fn full_disk_ends_as_cannot_create() {
    if !Person::me().is_root() {
        not_tested("a full disk", "only root can mount a small one");
        return;
    }
    let place = Place::new(Person::me());
    let full = place.ground.base().join("full");
    std::fs::create_dir(&full).unwrap();
    // In a mount namespace of its own, a disk of one page, which is taken.
    let mut command = place.ground.command("unshare");
    let line =
        "mount -t tmpfs -o size=4k,mode=755 none \"$0\" && head -c 4096 /dev/zero > \"$0/x\"; exec \"$@\"";
    command.args(["--mount", "/bin/sh", "-c", line]).arg(&full);
    command.arg(&place.ground.binaries.stockade).arg("serve").arg("--socket").arg(&place.socket);
    command.arg("--state-directory").arg(&full).stdout(Stdio::null());
    refused(command, 73, &["cannot use the directory", "No space left on device", "free some space"]);
    assert!(!place.socket.exists());
}

/// systemd keeps an automount there, without `nosuid`, on about every machine that it runs on.
#[test]
fn run_of_a_user_works_where_something_is_mounted_in_proc() {
    const POINT: &str = "/proc/sys/fs/binfmt_misc";
    if !Person::me().is_root() || !Path::new(POINT).exists() {
        not_tested(
            "a mount in the host's /proc",
            "only root can make one, where the kernel has a place for it",
        );
        return;
    }
    let ground = Ground::new(Person::user());
    let Person { uid, gid } = ground.person;
    let mut run = ground.stockade();
    run.args(["run", "--embedded", "--policy", "default", "--", "echo", "mounted"]);
    let mut command = ground.command("unshare");
    // By root, in a mount namespace of its own.
    std::os::unix::process::CommandExt::uid(&mut command, 0);
    std::os::unix::process::CommandExt::gid(&mut command, 0);
    let line = format!(
        "mount -t tmpfs none {POINT} || exit 99; exec setpriv --reuid {uid} --regid {gid} --clear-groups \"$@\""
    );
    command.args(["--mount", "/bin/sh", "-c", &line, "sh"]).arg(run.get_program()).args(run.get_args());
    let ended = Ended::of(command);
    assert_ne!(ended.code, Some(99), "{}", ended.story());
    ended.expect_code(0).expect_text("mounted");
}

/// The folder of the units.
fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("systemd")
}

/// The supervisors', and those of their launchers.
const SERVICES: [&str; 2] = ["stockade.service", "user/stockade.service"];
const LAUNCHERS: [&str; 2] = ["stockade-launcher@.service", "user/stockade-launcher@.service"];
const SYSTEM: [&str; 4] =
    ["stockade.socket", "stockade.service", "stockade-launcher.socket", "stockade-launcher@.service"];

/// A unit's settings: its lines without comments.
fn settings(unit: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(units().join(unit)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// systemd's own opinion of the units, where it is here. The machine of tests/vm asks it with the program installed.
#[test]
fn units_are_what_systemd_expects() {
    if stockade_tests::program("systemd-analyze").is_none() {
        not_tested("the units' syntax", "systemd-analyze isn't here");
        return;
    }
    let ground = Ground::new(Person::me());
    let folder = ground.base().join("units");
    std::fs::create_dir(&folder).unwrap();
    for unit in SYSTEM {
        let text = std::fs::read_to_string(units().join(unit)).unwrap();
        let (program, launcher) =
            (ground.binaries.stockade.to_str().unwrap(), ground.binaries.launcher.to_str().unwrap());
        let text = text.replace("/usr/bin/stockade", program);
        let text = text.replace("/usr/lib/stockade/stockade-launcher", launcher);
        std::fs::write(folder.join(unit), text).unwrap();
    }
    let mut command = ground.command("systemd-analyze");
    command.args(["verify", "--man=no"]).args(SYSTEM.map(|unit| folder.join(unit)));
    let ended = Ended::of(command);
    let complaints = ended.errors();
    // Of other units, and of what came with 254: before it we move to our leaf ourselves.
    let ours: Vec<_> = complaints
        .lines()
        .filter(|line| line.contains("stockade") && !line.contains("DelegateSubgroup"))
        .collect();
    assert!(ours.is_empty(), "{}", ended.story());
}

/// A descriptor of a client can't be bound from another mount namespace, and what filters a run would be inherited.
#[test]
fn launchers_have_neither_a_mount_namespace_nor_what_runs_would_break_on() {
    const FORBIDDEN: [&str; 40] = [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateIPC",
        "PrivateNetwork",
        "PrivateUsers",
        "PrivatePIDs",
        "ProtectSystem",
        "ProtectHome",
        "ProtectProc",
        "ProcSubset",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectHostname",
        "ReadWritePaths",
        "ReadOnlyPaths",
        "InaccessiblePaths",
        "ExecPaths",
        "NoExecPaths",
        "BindPaths",
        "BindReadOnlyPaths",
        "TemporaryFileSystem",
        "RootDirectory",
        "RootImage",
        "MountImages",
        "ExtensionImages",
        "ExtensionDirectories",
        "DynamicUser",
        "MountFlags",
        "MountAPIVFS",
        "SystemCallFilter",
        "SystemCallArchitectures",
        "MemoryDenyWriteExecute",
        "RestrictNamespaces",
        "RestrictSUIDSGID",
        "NetworkNamespacePath",
        "IPAddressDeny",
        "OOMScoreAdjust",
    ];
    for unit in LAUNCHERS {
        for (key, value) in settings(unit) {
            assert!(!FORBIDDEN.contains(&key.as_str()), "{unit}: {key}={value}");
        }
    }
}

/// The supervisor reads what strangers send, so it is nobody and may do nothing.
#[test]
fn the_supervisor_is_nobody_and_may_do_nothing() {
    const REQUIRED: [(&str, &str); 24] = [
        ("User", "stockade"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("NoNewPrivileges", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("RestrictNamespaces", "yes"),
        ("RestrictRealtime", "yes"),
        ("LockPersonality", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("SystemCallArchitectures", "native"),
        ("SystemCallFilter", "@system-service"),
        ("SystemCallFilter", "~@privileged @resources"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("PrivateMounts", "yes"),
        ("ProtectHostname", "yes"),
        ("ProtectClock", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("IPAddressDeny", "any"),
    ];
    let settings = settings("stockade.service");
    for (key, value) in REQUIRED {
        assert!(settings.contains(&(key.to_owned(), value.to_owned())), "{key}={value}");
    }
    assert!(!settings.iter().any(|(key, _)| key == "Delegate"), "the runs' groups are the launchers'");
}

/// Whoever may connect to it can have anything run for anybody.
#[test]
fn the_launchers_socket_is_the_supervisors_alone() {
    let system = settings("stockade-launcher.socket");
    for expected in [("SocketUser", "stockade"), ("SocketMode", "0600"), ("Accept", "yes")] {
        assert!(system.contains(&(expected.0.to_owned(), expected.1.to_owned())), "{expected:?}");
    }
    let users = settings("user/stockade-launcher.socket");
    assert!(users.contains(&("SocketMode".to_owned(), "0600".to_owned())));
}

/// What a restart can't mend isn't restarted: the units, the page for operators and the daemon name the same.
#[test]
fn statuses_that_prevent_a_restart_are_those_that_the_page_names() {
    let page = units().parent().unwrap().join("docs/operations.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section =
        page.split("\n## ").find(|section| section.starts_with("Exit status")).expect("the section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    let rows: Vec<(u8, bool)> = rows
        .filter_map(|(status, rest)| Some((status.parse().ok()?, rest.trim_end().ends_with("| no |"))))
        .filter(|(status, _)| *status >= 64)
        .collect();
    let statuses: Vec<u8> = rows.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [64, 67, 69, 71, 73, 77, 78]);
    let prevented: Vec<String> =
        rows.iter().filter(|(_, prevented)| *prevented).map(|(status, _)| status.to_string()).collect();
    for unit in SERVICES {
        let settings = settings(unit);
        let (_, listed) = settings.iter().find(|(key, _)| key == "RestartPreventExitStatus").unwrap();
        assert_eq!(*listed, prevented.join(" "), "{unit}");
    }
}
