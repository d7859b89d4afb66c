//! From a request to its end: of `/bin/true`, where everything is cost, and of `python3 -c pass`, where the
//! interpreter's start is.
//!
//! What we serve over a socket is compared with a bare spawn that is asked for over a socket; whole processes with a
//! whole process.

use std::path::Path;
use std::time::Duration;

use super::Axis;
use crate::daemon::{COLD, DEFAULT, Daemon, StartUp, TEMPLATE};
use crate::error::BenchError;
use crate::others::JAILS;
use crate::ours;
use crate::results::Results;
use crate::role::{Load, Spawner};
use crate::rounds::{Entrants, Variant, interleave};
use crate::session::{Session, times};
use crate::spawn::{self, whole};
use crate::variants::{BARE, BARE_SOCKET};

/// With nothing else going on.
pub(crate) const IDLE: Axis = Axis {
    name: "latency",
    rounds: 500,
    round: Duration::from_millis(100),
    besides: Duration::from_secs(10),
    measure: |session| measure(session, &IDLE),
};
/// With every processor kept busy.
pub(crate) const LOADED: Axis = Axis {
    name: "latency-load",
    rounds: 300,
    round: Duration::from_millis(320),
    besides: Duration::from_secs(15),
    measure: |session| {
        let _load = Load::start()?;
        measure(session, &LOADED)
    },
};
/// Of that many rounds of `/bin/true`, one of `python3 -c pass`, which takes long and scatters little.
const PYTHON_OF: u32 = 5;
/// Runs before the first that counts: what warms up has done so by then.
const UNMEASURED: u32 = 20;

/// The variants over the socket: name, start-up, policy.
const OVER_SOCKET: [(&str, StartUp, &str); 5] = [
    ("warm", DEFAULT, "default"),
    ("template", TEMPLATE, "default"),
    ("strict", DEFAULT, "strict"),
    ("moderate", DEFAULT, "moderate"),
    ("minimal", DEFAULT, "minimal"),
];

fn measure(session: &mut Session, axis: &Axis) -> Result<Results, BenchError> {
    let rounds = session.rounds(axis);
    let (mut results, mut shuffle) = session.begin(axis);
    let daemons = Daemons::start(session);
    let python =
        ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|path| Path::new(path).exists());
    let interpreter = python.map(|python| vec![python, "-c", "pass"]);
    let cases =
        [("true", Some(vec!["/bin/true"]), rounds), ("python", interpreter, rounds.div_ceil(PYTHON_OF))];
    for (case, command, rounds) in cases {
        match command {
            Some(command) => {
                let entrants = entrants(session, &daemons, &command);
                interleave(&mut results, &mut shuffle, times(case, rounds), entrants);
            }
            None => results.not_measured(case, "all", "no python3 in /usr/bin or /usr/local/bin"),
        }
    }
    Ok(results)
}

/// One daemon a start-up, or why it isn't there.
struct Daemons(Vec<(StartUp, Result<Daemon, String>)>);

impl Daemons {
    fn start(session: &Session) -> Self {
        let start = |how| {
            let daemon = Daemon::start(&session.ground, how);
            (how, daemon.map_err(|error| crate::error::chain(&error)))
        };
        Self([DEFAULT, TEMPLATE, COLD].map(start).into())
    }

    fn get(&self, how: StartUp) -> Result<&Daemon, BenchError> {
        let found = self.0.iter().find(|(known, _)| *known == how).map(|(_, daemon)| daemon.as_ref());
        match found {
            Some(Ok(daemon)) => Ok(daemon),
            Some(Err(why)) => Err(BenchError::Daemon(why.clone())),
            None => Err(BenchError::Daemon("it was not started".into())),
        }
    }
}

fn entrants<'a>(session: &'a Session, daemons: &'a Daemons, command: &'a [&'a str]) -> Entrants<'a> {
    let mut entrants = Entrants::default();
    entrants.add(BARE, Ok(bare(session, command)));
    entrants.add(BARE_SOCKET, bare_socket(command));
    for (name, how, policy) in OVER_SOCKET.into_iter().filter(|(name, ..)| session.only.wants(name)) {
        entrants.add(
            name,
            daemons.get(how).and_then(|daemon| over_socket(session, daemon, name, policy, command)),
        );
    }
    if session.only.wants("cold") {
        entrants.add("cold", daemons.get(COLD).and_then(|daemon| cold(session, daemon, command)));
    }
    if session.only.wants("passed") {
        entrants.add("passed", daemons.get(DEFAULT).and_then(|daemon| passed(session, daemon, command)));
    }
    if session.only.wants("cli") {
        let socket = daemons.get(DEFAULT).map(|daemon| daemon.socket.as_path());
        entrants.add("cli", socket.map(|socket| cli(session, "cli", Some(socket), command)));
    }
    if session.only.wants("embedded") {
        entrants.add("embedded", Ok(cli(session, "embedded", None, command)));
    }
    for jail in JAILS.into_iter().filter(|jail| session.only.wants(jail.name)) {
        let prepared = jail.prepare(&session.ground, &session.ground.workspace, command);
        let variant = prepared
            .map(|mut next| Variant::new(jail.name, move || whole(&session.null, &mut next)).against(BARE));
        entrants.add(jail.name, variant);
    }
    entrants
}

fn bare<'a>(session: &'a Session, words: &'a [&'a str]) -> Variant<'a> {
    let next = || {
        let mut command = spawn::command(words[0]);
        command.args(&words[1..]);
        command
    };
    Variant::new(BARE, move || whole(&session.null, next))
}

fn bare_socket<'a>(words: &[&str]) -> Result<Variant<'a>, BenchError> {
    let mut spawner = Spawner::start(words)?;
    Ok(Variant::new(BARE_SOCKET, move || spawner.timed()))
}

fn over_socket<'a>(
    session: &Session,
    daemon: &Daemon,
    name: &str,
    policy: &str,
    words: &[&str],
) -> Result<Variant<'a>, BenchError> {
    let mut client = daemon.connect()?;
    let request = ours::request(&session.ground, policy, words)?;
    let variant = Variant::new(name, move || ours::timed(&mut client, &request));
    Ok(variant.against(BARE_SOCKET).after(UNMEASURED))
}

/// Every run in a workspace that the daemon hasn't seen, so that there is no template for it, and its template ended after
/// it, so that the next finds the machine as this one did. Only the run itself is timed.
fn cold<'a>(
    session: &'a Session,
    daemon: &'a Daemon,
    words: &'a [&'a str],
) -> Result<Variant<'a>, BenchError> {
    let mut client = daemon.connect()?;
    let mut samples = 0_u64;
    let sample = move || {
        samples += 1;
        let workspace = session.ground.directory(&format!("cold/{samples}"))?;
        let request = ours::request_in(&workspace, "default", words)?;
        let took = ours::timed(&mut client, &request);
        daemon.end_templates()?;
        took
    };
    Ok(Variant::new("cold", sample).against(BARE_SOCKET).after(UNMEASURED))
}

fn passed<'a>(session: &Session, daemon: &Daemon, words: &[&str]) -> Result<Variant<'a>, BenchError> {
    let mut client = daemon.connect()?;
    let (request, pipe) = ours::passed(&session.ground, words)?;
    let sample = move || {
        // Held, so that the pipe has a reader.
        let _pipe = &pipe;
        ours::timed(&mut client, &request)
    };
    Ok(Variant::new("passed", sample).against(BARE_SOCKET).after(UNMEASURED))
}

/// `stockade run` as a person types it, against this daemon or without one.
fn cli<'a>(session: &'a Session, name: &str, socket: Option<&'a Path>, words: &'a [&'a str]) -> Variant<'a> {
    let next = move || {
        let mut command = spawn::command(&session.ground.stockade);
        command.arg("run").current_dir(&session.ground.workspace);
        match socket {
            Some(socket) => command.arg("--socket").arg(socket),
            None => command.arg("--embedded"),
        };
        command.arg("--").args(words);
        command
    };
    Variant::new(name, move || whole(&session.null, next)).against(BARE).after(UNMEASURED)
}
